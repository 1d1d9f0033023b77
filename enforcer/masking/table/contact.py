"""Step 4 of 6, inspect: the table's addresses of people and machines, and dates of birth."""

from __future__ import annotations

from functools import partial
from typing import Final

from enforcer.masking import confirm, contacts
from enforcer.masking.rows import (
    AFTER,
    BEFORE,
    LABELLED_REACH,
    Detector,
    all_but_at,
    label,
    labels,
    letters_and_digits,
    number,
)

_PHONE_WORDS: Final = (
    "phone telephone tel cell cellphone cellular mobile mob fax telefax sms whatsapp msisdn hotline "
    "telefon handy mobil rufnummer durchwahl telefonnummer mobilnummer handynummer tlf mobiltelefon "
    "téléphone portable gsm teléfono telefono móvil movil celular cellulare telefone telemóvel telemovel "
    "telefoon telefoonnummer mobiel puhelin puh matkapuhelin telefonszám komórka komorka телефон τηλέφωνο"
)
_PHONE: Final = (
    *_PHONE_WORDS.split(),
    *("phone number", "contact number", "contact no", "phone no", "mobile phone", "cell phone"),
)
_BIRTH: Final = (
    *("date of birth", "birth date", "birthday", "dob", "d.o.b.", "born", "born on", "born in", "birth"),
    *("geburtsdatum", "geburtstag", "geboren", "geboren am", "geb", "date de naissance", "naissance", "né le"),
    *("née le", "ne le", "fecha de nacimiento", "nacimiento", "nacido el", "nacida el", "data di nascita"),
    *("nascita", "nato il", "nata il", "data de nascimento", "nascimento", "geboortedatum", "fødselsdato"),
    *("fodselsdato", "födelsedatum", "född", "syntymäaika", "data urodzenia", "datum narození", "datum narozeni"),
    *("dátum narodenia", "születési dátum", "szuletesi datum", "data nașterii", "data nasterii"),
    *("дата на раждане", "ημερομηνία γέννησης"),
)

# Four numbers and no fifth, nor a part of a name, as most versions are.
_OCTET: Final = rb"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4: Final = (
    rb"(?:^|[^0-9A-Za-z_./-]|//)(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9][0-9]?)(?:\." + _OCTET + rb"){3}"
    rb"(?:[^0-9A-Za-z_.-]|\.[^0-9]|-[^0-9A-Za-z]|[.-]?\z)"
)

ROWS: Final = (
    Detector(
        name="email",
        # One report per `@` that a dotted name follows. The local part is read backwards from there: in front of the
        # pattern it would be unbounded, which is what slows Hyperscan down.
        candidates=(
            (
                rb"[0-9A-Za-z._%+'\x80-\xff-]@[0-9A-Za-z\x80-\xff][0-9A-Za-z\x80-\xff-]*"
                rb"\.[0-9A-Za-z\x80-\xff][0-9A-Za-z\x80-\xff.-]",
                confirm.email,
            ),
        ),
        reach=confirm.LOCAL_MAX + confirm.DOMAIN_MAX + 2,
        hide=all_but_at,
        examples=(
            b"<<a@>>example.org",
            b"<<john.doe+tag@>>mail.example.co.uk",
            b"<<o'brien@>>example.ie",
            b"<<user%host@>>example.com",
            b"<<someone@>>163.com",
            b"<<x@>>xn--mller-kva.example",
            "<<jürgen@>>müller.example".encode(),
            "<<ö@>>例え.テスト".encode(),
            b"\x83 <<j\xfcrgen@>>example.org",
        ),
        counter_examples=(
            b"@example.org",
            b"\x83@N.\xf3\xe2",
            b"k@\xbf.\xe2\x82\xac",
            b"user@localhost",
            b"a@b.c",
            b"react@18.2.0",
            b"logo@2x.png",
            b"a @example.org",
            b"user@-example",
        ),
        groups=("contact",),
        source="RFC 5321, RFC 6531",
    ),
    Detector(
        name="phone",
        candidates=(
            (rb"(?:^|[^0-9A-Za-z+])\+[1-9](?:[ ().\-/\xa0]{0,3}[0-9]){6}", contacts.phone_international),
            (rb"(?:^|[^0-9A-Za-z.])00[1-9](?:[ ().\-/]{0,3}[0-9]){6}", contacts.phone_international),
            (
                BEFORE + rb"(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[-.])[2-9][0-9]{2}[-.][0-9]{4}" + AFTER,
                partial(contacts.phone_grouped, True),
            ),
            (BEFORE + rb"0[1-9](?:[ .][0-9]{2}){4}" + AFTER, partial(contacts.phone_grouped, False)),
            (label(_PHONE), partial(contacts.phone_labelled, labels(_PHONE, prose=True))),
        ),
        reach=LABELLED_REACH,
        hide=letters_and_digits,
        # Numbers that regulators keep free for fiction, or that authorities publish.
        examples=(
            b"+44 20 7946 0958",
            b"+442079460958",
            b"+44 (0)20 7946 0958",
            b"+1 (202) 456-1111",
            b"+1-202-456-1111",
            b"0049 30 2270001",
            b"+49 (30) 227-0001",
            b"+33 1 42 92 81 00",
            b"+39 06 6982 1234",
            b"+41 58 462 21 11",
            b"+46 8 405 10 00",
            b"+48 22 694 00 00",
            b"+91 11 2309 2345",
            b"+81-3-3581-0101",
            b"(202) 456-1414",
            b"202-456-1414",
            b"01 42 92 81 00",
            b"Tel.: 030 227-0001",
            b"Telefon: 030/2270001",
            b"phone: 020 7946 0958",
            b"mobile: 07700 900123",
            b"t\xc3\xa9l\xc3\xa9phone: 0142928100",
            b"tel\xc3\xa9fono: 915 48 94 00",
            b"phone: 2024561414",
        ),
        counter_examples=(
            b"+999 123456789",
            b"+12345",
            b"a+442079460958",
            b"1202-456-1414",
            b"202-456-14140",
            b"102-456-1414",
            b"2079460958",
            b"030 2270001",
            b"telegram: 0302270001",
            b"phone: 2024-01-15",
            b"phone: n/a, order: 0302270001",
            b"0x442079460958",
            b"0033940577257",
            b"We sold the phone. 0302270001 is its order",
            b"the cell is public. It has 030-227000-1",
            b"phone logs: /var/log/app/0302270001",
        ),
        groups=("contact",),
        source="ITU-T E.164; numbering plans of libphonenumber (Apache-2.0)",
    ),
    Detector(
        name="date_of_birth",
        candidates=((label(_BIRTH), partial(contacts.birth, labels(_BIRTH))),),
        reach=LABELLED_REACH,
        hide=letters_and_digits,
        examples=(
            b"date of birth: 1980-03-12",
            b"DOB: 03/12/1980",
            b"dateOfBirth: 1980-03-12",
            b"birth_date: 19800312",
            b"Geburtsdatum: 12.03.1980",
            b"geb.: 12.3.1980",
            b"n\xc3\xa9e le: 12/03/1980",
            b"Date de naissance: 12 mars 1980",
            b"fecha de nacimiento: 12 de marzo de 1980",
            b"born: 12 March 1980",
            b"born on: March 12, 1980",
            b"Data urodzenia: 12-03-1980",
        ),
        counter_examples=(
            b"date: 1980-03-12",
            b"DOB: 1980-13-12",
            b"reborn: 1980-03-12",
            b"dob: null, updated: 1980-03-12",
            b"born: 123456789",
        ),
        groups=("person",),
        source="Presidio DATE_TIME, with a label",
    ),
    Detector(
        name="ip_address",
        candidates=(
            (_IPV4, contacts.ipv4),
            (rb"[0-9A-Fa-f]::|::[0-9A-Fa-f]", contacts.ipv6),
            (rb":[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]", contacts.ipv6),
        ),
        reach=64,
        hide=letters_and_digits,
        examples=(
            b"192.0.2.1",
            b"203.0.113.255",
            b"10.0.0.1",
            b"2001:db8::1",
            b"2001:db8:0:0:0:0:2:1",
            b"2001:0db8:85a3:0000:0000:8a2e:0370:7334",
            b"fe80::1ff:fe23:4567:890a",
            b"::1",
            b"::ffff:192.0.2.128",
        ),
        counter_examples=(
            b"192.0.2.256",
            b"1.2.3",
            b"1.2.3.4.5",
            b"v1.2.3.4",
            b"version 1.2.3.4",
            b"Chrome/120.0.0.0",
            b"openssl-3.0.1.2",
            b"0.1.2.3",
            b"12:34:56",
            b"std::map",
            b"a::b",
            b"dead::beef",
            b"2026-11-02T12:33:00",
            b"::",
            b"1:2:3:4:5:6:7:8:9",
        ),
        groups=("network",),
        source="RFC 791, RFC 4291; Presidio IP_ADDRESS",
    ),
    Detector(
        name="mac_address",
        candidates=(
            (
                BEFORE + rb"[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}:(?:[0-9A-Fa-f]{2}:){3}[0-9A-Fa-f]{2}",
                partial(contacts.mac, False),
            ),
            (
                BEFORE + rb"[0-9A-Fa-f]{2}-[0-9A-Fa-f]{2}-(?:[0-9A-Fa-f]{2}-){3}[0-9A-Fa-f]{2}",
                partial(contacts.mac, False),
            ),
            (BEFORE + rb"[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}", partial(contacts.mac, True)),
        ),
        reach=24,
        hide=letters_and_digits,
        # RFC 7042 keeps 00-00-5E-00-53 for documentation.
        examples=(b"00:00:5e:00:53:af", b"00-00-5E-00-53-01", b"0000.5e00.5301"),
        counter_examples=(
            b"00:00:5e:00:53",
            b"00:00:5e:00:53:af:01",
            b"2a:00:00:5e:00:53:af:01:2b:3c:4d:5e:6f:70:81:92:a3:b4:c5:d6",
            b"00-00-5E-00-53-0g",
            b"12-34-56",
        ),
        groups=("network",),
        source="RFC 7042; Presidio MAC_ADDRESS",
    ),
    number(
        "imei",
        groups=("network",),
        source="3GPP TS 23.003",
        words=("imei", "imei1", "imei2"),
        value=rb"[0-9]{2}-?[0-9]{6}-?[0-9]{6}-?[0-9]",
        check="own.imei",
        examples=(b"IMEI: 490154203237518", b"IMEI: 49-015420-323751-8"),
        counter_examples=(b"490154203237518", b"IMEI: 490154203237519"),
    ),
)
