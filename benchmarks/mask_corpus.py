"""Documents with values in them, labelled, and documents with what only looks like values.

Values come from Faker (cards, accounts, addresses, names, phone numbers, in many locales) and, where it has none, from
random digits that python-stdnum accepts. Labels are the usual names of the numbers, written by those who wrote the
detectors' lists: texts that call them otherwise are found less. Everything is drawn from one seed.
"""

from __future__ import annotations

import base64
import hashlib
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import phonenumbers
from faker import Faker

from enforcer.masking import checks
from enforcer.masking.detectors import DETECTORS

LOCALES = (
    "en_US en_GB de_DE fr_FR es_ES it_IT nl_NL pl_PL sv_SE fi_FI da_DK cs_CZ sk_SK ro_RO hr_HR hu_HU el_GR pt_PT sl_SI "
    "de_AT nl_BE fr_CH no_NO tr_TR pt_BR"
)


@dataclass(frozen=True)
class Document:
    """A text, and the values in it: start, end and detector."""

    text: str
    values: tuple[tuple[int, int, str], ...]


def _digits(rng: random.Random, shape: str) -> str:
    """`shape` with a random digit for every `#`, a letter for every `@`, a hex digit for every `%`, a word character
    for every `?`; `Y`, `M` and `D` are digits of a date of somebody alive."""
    year, month, day = rng.randint(1930, 2010), rng.randint(1, 12), rng.randint(1, 28)
    dated = shape.replace("YYYY", f"{year:04}").replace("YY", f"{year % 100:02}")
    dated = dated.replace("MM", f"{month:02}").replace("DD", f"{day:02}")
    pools = {"#": "0123456789", "@": "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "%": "0123456789abcdef"}
    pools["?"] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    return "".join(rng.choice(pools[c]) if c in pools else c for c in dated)


def _check(name: str) -> Callable[[str], bool]:
    if name.startswith("own."):
        return getattr(checks, name[4:])  # type: ignore[no-any-return]
    return import_module(f"stdnum.{name}").is_valid  # type: ignore[no-any-return]


# Detector -> shapes, check, labels. No label: it is known by itself.
NUMBERS: dict[str, tuple[str, str, str]] = {
    "us_bank_routing": ("#########", "us.rtn", "Routing number|ABA routing|routing_number"),
    "us_ssn": ("###-##-####", "us.ssn", ""),
    "us_itin": ("9##-##-####", "us.itin", ""),
    "us_ein": ("##-#######", "us.ein", "EIN|Employer Identification Number|Federal Tax ID"),
    "us_npi": ("1#########", "own.us_npi", "NPI|NPI number|provider_npi"),
    "us_mbi": ("#@##-@##-@@##", "", ""),
    "us_dea": ("A@#######|B@#######|M@#######", "own.us_dea", "DEA number|DEA|DEA registration"),
    "uk_nino": ("AB######C|CE######A|JG######D|PW ## ## ## B", "", ""),
    "uk_nhs": ("### ### ####|##########", "gb.nhs", "NHS number|NHS No|nhs_number"),
    "uk_utr": ("##########", "gb.utr", "UTR|Unique Taxpayer Reference|utr_number"),
    "ch_ahv": ("756.####.####.##|756##########", "ch.ssn", ""),
    "no_fodselsnummer": ("DDMMYY#####", "no.fodselsnummer", "fødselsnummer|Personnummer|fnr"),
    "is_kennitala": ("DDMMYY-###9|DDMMYY####", "is_.kennitala", "kennitala|Kt."),
    "tr_kimlik": ("###########", "tr.tckimlik", "TC Kimlik No|T.C. Kimlik No|TCKN"),
    "ca_sin": ("### ### ###|###-###-###", "ca.sin", "SIN|Social Insurance Number|sin_number"),
    "au_tfn": ("### ### ###|#########", "au.tfn", "TFN|Tax File Number|tfn"),
    "au_medicare": ("2### ##### #|3#########", "own.au_medicare", "Medicare number|Medicare card|medicare_no"),
    "nz_ird": ("##-###-###|###-###-###", "nz.ird", "IRD number|IRD"),
    "in_aadhaar": ("#### #### ####|############", "in_.aadhaar", "Aadhaar|Aadhaar number|aadhaar_no"),
    "in_pan": ("@@@P@####@", "in_.pan", "PAN|PAN card|pan_number"),
    "br_cpf": ("###.###.###-##", "br.cpf", ""),
    "br_cnpj": ("##.###.###/0001-##", "br.cnpj", ""),
    "mx_curp": ("@E@@YYMMDDHDFRXN0#|@A@@YYMMDDMNLLRS0#", "mx.curp", ""),
    "ar_cuit": ("20-########-#|27-########-#", "ar.cuit", ""),
    "cl_rut": ("##.###.###-#|#.###.###-#", "cl.rut", ""),
    "za_id": ("YYMMDD####08#", "za.idnr", "ID number|SA ID|South African ID"),
    "il_id": ("#########", "il.idnr", "Teudat Zehut|Israeli ID"),
    "ru_inn": ("############|##########", "ru.inn", "ИНН|INN"),
    "ua_rntrc": ("##########", "ua.rntrc", "РНОКПП|ІПН"),
    "kr_rrn": ("YYMMDD-1######|YYMMDD-2######", "kr.rrn", ""),
    "cn_resident_id": ("110105YYYYMMDD###X|320102YYYYMMDD####", "cn.ric", ""),
    "jp_my_number": ("#### #### ####|############", "jp.in_", "マイナンバー|個人番号|My Number"),
    "sg_nric": ("S#######@|T#######@|G#######@", "own.sg_nric", ""),
    "passport": ("@#######|#########|C########", "", "Passport number|Passport No.|passport"),
    "imei": ("35-######-######-#|86#############", "own.imei", "IMEI|device_imei"),
    "at_social_insurance": ("####DDMMYY|#### DDMMYY", "at.vnr", "SVNR|Sozialversicherungsnummer|SV-Nummer"),
    "at_tax": ("##-###/####|## ###/####", "at.tin", "Steuernummer|Abgabenkontonummer"),
    "be_national": ("YY.MM.DD-###.##", "be.nn", ""),
    "bg_egn": ("YYMMDD####", "bg.egn", "ЕГН|EGN"),
    "bg_pnf": ("##########", "bg.pnf", "ЛНЧ|LNCh"),
    "hr_oib": ("###########", "hr.oib", "OIB|OIB broj"),
    "cy_tax": ("1#######@", "cy.vat", "TIC|Tax Identification Code"),
    "cz_sk_birth_number": ("YYMMDD/####", "cz.rc", ""),
    "dk_cpr": ("DDMMYY-####|DDMMYY####", "dk.cpr", "CPR-nummer|CPR|cpr_nr"),
    "ee_isikukood": ("3YYMMDD####|4YYMMDD####", "ee.ik", "isikukood|Isikukood"),
    "es_dni": ("########@|########-@", "es.dni", ""),
    "es_nie": ("X#######@|Y-#######-@", "es.nie", ""),
    "es_cif": ("B########|A########", "es.cif", "CIF|NIF|C.I.F."),
    "es_social_security": ("28##########|08/########/##", "own.es_social", "Número de la Seguridad Social|NUSS|NSS"),
    "fi_hetu": ("DDMMYY-###@|DDMMYY-####", "fi.hetu", ""),
    "fr_nir": ("1 YY MM 75 ### ### ##|2YYMM69########", "fr.nir", ""),
    "fr_tax": ("1############|30 23 ### ### ###", "fr.nif", "Numéro fiscal|numéro fiscal de référence|SPI"),
    "de_tax": ("## ### ### ###|###########", "de.idnr", "Steuer-ID|Steuerliche Identifikationsnummer|IdNr."),
    "de_pension": ("15DDMMYY@###|65 DDMMYY @ ###", "own.de_pension", ""),
    "de_health_insurance": ("@#########", "own.de_health", "Krankenversichertennummer|KVNR|Versichertennummer"),
    "de_id_card": ("L#########|C#########|T#########", "", "Personalausweis|Reisepass Nr.|Ausweisnummer"),
    "gr_amka": ("DDMMYY#####", "gr.amka", "ΑΜΚΑ|AMKA"),
    "gr_afm": ("#########", "gr.vat", "ΑΦΜ|AFM"),
    "hu_tax": ("8#########", "own.hu_tax", "adóazonosító jel|Adóazonosító"),
    "hu_taj": ("### ### ###|#########", "own.hu_taj", "TAJ szám|TAJ"),
    "hu_personal": ("1-YYMMDD-####|2-YYMMDD-####", "own.hu_personal", "személyi szám|Személyi azonosító"),
    "ie_pps": ("#######@|#######@A", "ie.pps", "PPS number|PPSN|PPS No."),
    "it_fiscal_code": ("RSS@@@YYA##F###@|BNC@@@YYM##H###@", "it.codicefiscale", ""),
    "it_vat": ("0##########|1##########", "it.iva", "Partita IVA|P.IVA|P. IVA"),
    "lv_personal": ("DDMMYY-1####|DDMMYY-2####", "lv.pvn", ""),
    "lt_personal": ("3YYMMDD####|4YYMMDD####", "lt.asmens", "asmens kodas|Asmens kodas"),
    "lu_matricule": ("YYYYMMDD#####", "own.lu_matricule", "Matricule|matricule nationale"),
    "mt_id_card": ("0######M|#######G", "", "ID card|Identity Card No."),
    "nl_bsn": ("#########|###.###.###", "nl.bsn", "BSN|burgerservicenummer|BSN-nummer"),
    "pl_pesel": ("YYMMDD#####", "pl.pesel", "PESEL|Nr PESEL"),
    "pl_nip": ("###-###-##-##|##########", "pl.nip", "NIP|numer NIP"),
    "pl_id_card": ("ABA######|CCF ######", "own.pl_id_card", "dowód osobisty|Numer dowodu|seria i numer dowodu"),
    "pt_nif": ("#########|### ### ###", "pt.nif", "NIF|Contribuinte n.º|Número de contribuinte"),
    "pt_citizen_card": ("######## # ZZ#|#########ZY#", "pt.cc", ""),
    "ro_cnp": ("1YYMMDD40####|2YYMMDD12####", "ro.cnp", "CNP|Cod numeric personal"),
    "si_emso": ("DDMM9##50####", "si.emso", "EMŠO|EMSO"),
    "si_tax": ("########", "si.ddv", "Davčna številka|davčna št."),
    "se_personnummer": ("YYMMDD-####|YYYYMMDD-####", "se.personnummer", ""),
    "eu_vat": (
        "DE#########|FR##########1|ATU########|ES@########|PL##########",
        "eu.vat",
        "VAT ID|VAT number|USt-IdNr.",
    ),
}
SECRETS = {
    "aws_key": ("AKIA" + "@" * 16,),
    "gcp_key": ("AIza" + "?" * 35,),
    "azure_key": ("AccountKey=" + "?" * 86 + "==",),
    "github_token": ("ghp_" + "?" * 36, "github_pat_" + "?" * 22 + "_" + "?" * 59),
    "gitlab_token": ("glpat-" + "?" * 20,),
    "slack_token": ("xoxb-############-############-" + "?" * 24,),
    "stripe_key": ("sk_live_" + "?" * 24,),
    "ai_key": ("sk-" + "?" * 20 + "T3BlbkFJ" + "?" * 20, "sk-ant-api03-" + "?" * 93 + "AA", "hf_" + "?" * 34),
    "api_token": ("npm_" + "?" * 36, "SG." + "?" * 22 + "." + "?" * 43, "dop_v1_" + "%" * 64),
    "authorization": ("Authorization: Bearer " + "?" * 40, "Authorization: Basic " + "?" * 27 + "="),
    "url_password": ("postgresql://app:?#?#?#?#?#§db/orders", "https://ci:??????????§git/x.git"),
    "password": ("password=?#?#?#?#?#", "Server=db;User=sa;Password=?#?#!?#?#;", 'password: "?# ?? ?#"'),
}
MONTHS = "January February March April May June July August September October November December".split()  # noqa: SIM905
BIRTH = ("Date of birth", "DOB", "born on", "Geburtsdatum", "date de naissance", "Fecha de nacimiento", "birth_date")


class Maker:
    """Makes documents, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        Faker.seed(seed)
        self.fakers = {locale: Faker(locale) for locale in LOCALES.split()}

    def _faker(self) -> Faker:
        return self.fakers[self.rng.choice(list(self.fakers))]

    def _number(self, name: str) -> tuple[str, str]:
        shapes, check, labels = NUMBERS[name]
        valid = _check(check) if check else None
        if name == "de_id_card":
            valid = checks.de_id_card
        if name == "us_mbi":
            while True:
                value = "".join(self._mbi())
                return value, ""
        while True:
            value = _digits(self.rng, self.rng.choice(shapes.split("|")))
            if valid is None or valid(value) or valid(value.translate({ord(c): None for c in " ./-"})):
                return value, self.rng.choice(labels.split("|")) if labels else ""

    def _mbi(self) -> str:
        letters, digits = "ACDEFGHJKMNPQRTUVWXY", "0123456789"
        kinds = "9" + "A" + "X" + "#" + "A" + "X" + "#" + "AA" + "##"
        pools = {"9": digits[1:], "A": letters, "X": letters + digits, "#": digits}
        value = "".join(self.rng.choice(pools[kind]) for kind in kinds)
        return f"{value[:4]}-{value[4:7]}-{value[7:]}" if self.rng.random() < 0.5 else value

    def _phone(self) -> tuple[str, str]:
        while True:
            locale = self.rng.choice(list(self.fakers))
            number = self.fakers[locale].phone_number()
            try:
                parsed = phonenumbers.parse(number, locale[-2:])
            except phonenumbers.NumberParseException:
                continue
            if not phonenumbers.is_valid_number(parsed) or parsed.extension:
                continue
            if number.startswith(("+", "00")):
                return number, self.rng.choice(["", "Tel.", "Phone"])
            kind = self.rng.random()
            if kind < 0.3:
                return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.INTERNATIONAL), ""
            if kind < 0.4:
                return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164), ""
            return number, self.rng.choice(["Tel.", "phone", "Mobile", "Telefon", "Téléphone", "fax", "phoneNumber"])

    def value(self, name: str) -> tuple[str, str, str]:
        """A value of the kind, a label where it needs one, and what is in front of the value itself."""
        faker = self._faker()
        if name in NUMBERS:
            return (*self._number(name), "")
        if name == "credit_card":
            kind = self.rng.choice(["visa16", "mastercard", "amex", "discover", "diners"])
            number = self.fakers["en_US"].credit_card_number(kind)
            spaced = " ".join(number[i : i + 4] for i in range(0, 16, 4))
            return (spaced if len(number) == 16 and self.rng.random() < 0.4 else number), "", ""
        if name == "iban":
            iban = faker.iban()
            return (
                " ".join(iban[i : i + 4] for i in range(0, len(iban), 4)) if self.rng.random() < 0.4 else iban,
                "",
                "",
            )
        if name == "email":
            return self.rng.choice([faker.email(), faker.ascii_company_email(), faker.safe_email()]), "", ""
        if name == "phone":
            return (*self._phone(), "")
        if name == "date_of_birth":
            day = faker.date_of_birth()
            forms = [
                day.isoformat(),
                f"{day:%d.%m.%Y}",
                f"{day:%d/%m/%Y}",
                f"{day.day} {MONTHS[day.month - 1]} {day.year}",
            ]
            return self.rng.choice(forms), self.rng.choice(BIRTH), ""
        if name == "ip_address":
            return self.rng.choice([faker.ipv4_public(), faker.ipv4_private(), faker.ipv6()]), "", ""
        if name == "mac_address":
            return self.rng.choice([faker.mac_address(), faker.mac_address().replace(":", "-").upper()]), "", ""
        return self._other(name)

    def _other(self, name: str) -> tuple[str, str, str]:
        if name == "bitcoin_address":
            alphabet, payload = (
                "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz",
                b"\0" + self.rng.randbytes(20),
            )
            number = int.from_bytes(payload + hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4], "big")
            text = ""
            while number:
                number, rest = divmod(number, 58)
                text = alphabet[rest] + text
            zeros = len(payload) - len(payload.lstrip(b"\0"))
            return "1" * zeros + text, "", ""
        if name == "ethereum_address":
            return "0x" + self.rng.randbytes(20).hex(), "", ""
        if name == "jwt":
            parts = [b'{"alg":"RS256","kid":"' + self.rng.randbytes(4).hex().encode() + b'"}', self.rng.randbytes(120)]
            return (
                ".".join(base64.urlsafe_b64encode(p).decode().rstrip("=") for p in [*parts, self.rng.randbytes(64)]),
                "",
                "",
            )
        if name == "private_key":
            body = base64.b64encode(self.rng.randbytes(600)).decode()
            lines = "\n".join(body[i : i + 64] for i in range(0, len(body), 64))
            kind = self.rng.choice(["", "RSA ", "EC ", "OPENSSH "])
            return f"\n{lines}\n", "", f"-----BEGIN {kind}PRIVATE KEY-----"
        value = _digits(self.rng, self.rng.choice(SECRETS[name]))
        before = "AccountKey=" if name == "azure_key" else ""
        if name == "authorization":
            before = value[: value.rindex(" ") + 1]
        if name in ("url_password", "password"):
            if name == "url_password":
                start, end = value.rindex(":") + 1, value.index("§")
            else:
                mark = '"' if '"' in value else "assword="
                start = value.index(mark) + len(mark)
                end = (
                    value.index('"', start)
                    if '"' in value
                    else (value.index(";", start) if ";" in value else len(value))
                )
            return value[start:end], "", value[:start]
        return value[len(before) :], "", before

    def document(self, name: str) -> Document:
        """One value amid a sentence, a record, a line of a log or a page."""
        value, label, before = self.value(name)
        faker = self.fakers["en_US"]
        if "\n" in value or '"' in before:
            frames = [("Please find it here: {}", False), ("{}", False)]
        elif label:
            key = label.lower().replace(" ", "_").replace(".", "").replace("-", "_")
            frames = [
                (f"{faker.sentence()} {label}: {{}}. {faker.sentence()}", False),
                (f"{label} {{}}", False),
                (f'{{{{"id": {self.rng.randint(1, 10**6)}, "{key}": "{{}}", "name": "{faker.last_name()}"}}}}', False),
                (f"<tr><td>{label}</td><td>{{}}</td></tr>", False),
                (f"{faker.date()} INFO saved customer {key}={{}} ok", False),
                (f"{faker.name()}\n{label}:\n{{}}\n", False),
            ]
        else:
            frames = [
                (f"{faker.sentence()} {{}}, {faker.sentence()}", False),
                (f'{{{{"id": {self.rng.randint(1, 10**6)}, "value": "{{}}", "name": "{faker.last_name()}"}}}}', False),
                (f"{self.rng.randint(1, 999)};{faker.last_name()};{{}};{faker.city()}", False),
                (f"<td>{{}}</td><td>{faker.word()}</td>", False),
                (f"{faker.date()}T{faker.time()} DEBUG handler got {{}} from queue", False),
                ("{}", False),
            ]
        frame = self.rng.choice(frames)[0]
        head = frame.partition("{}")[0].replace("{{", "{").replace("}}", "}") if frame.count("{}") == 1 else ""
        text = frame.format(before + value + self._after(name, before))
        start = len(head) + len(before)
        return Document(text, ((start, start + len(value), name),))

    @staticmethod
    def _after(name: str, before: str) -> str:
        if name == "url_password":
            return "@db/orders"
        return '"' if name == "password" and before.endswith('"') else ""

    def negative(self) -> Document:
        """Something that is no value, in a frame in which values are found as well."""
        rng, faker = self.rng, self.fakers["en_US"]
        number = str(rng.randrange(10 ** rng.randint(6, 19)))
        what = rng.choice(
            [
                lambda: f"order {number}",
                lambda: f"invoice no. {rng.randint(2015, 2026)}-{rng.randrange(10**6):06}",
                lambda: f'"order_id": {number}, "customer_id": "{rng.randrange(10**9)}"',
                lambda: rng.randbytes(16).hex(),
                lambda: rng.randbytes(20).hex(),
                lambda: hashlib.sha256(number.encode()).hexdigest(),
                lambda: str(uuid.UUID(int=rng.getrandbits(128), version=4)),
                lambda: f"{rng.randint(1_400_000_000, 1_900_000_000)}",
                lambda: f"{rng.randint(1_400_000_000_000, 1_900_000_000_000)}",
                lambda: f"ts={rng.randint(1_400_000_000_000_000, 1_900_000_000_000_000)}",
                lambda: f"{faker.iso8601()}.{rng.randrange(10**6):06}Z",
                lambda: f"v{rng.randint(0, 20)}.{rng.randint(0, 99)}.{rng.randint(0, 99)}.{rng.randint(0, 9999)}",
                lambda: f"version {rng.randint(0, 20)}.{rng.randint(0, 99)}.{rng.randint(0, 99)}.{rng.randint(0, 255)}",
                lambda: f"Chrome/{rng.randint(90, 140)}.0.{rng.randint(1000, 7000)}.{rng.randint(0, 250)}",
                lambda: f"{rng.random() * 10 ** rng.randint(0, 9):.{rng.randint(2, 16)}f}",
                lambda: f"EUR {rng.randrange(10**7) / 100:,.2f}",
                lambda: f"part {rng.randint(100, 999)}-{rng.randint(1000, 9999)}-{rng.randint(10, 99)}",
                lambda: f"ticket #{rng.randint(100, 999)}-{rng.randint(100, 999)}",
                lambda: f"phone case 12-pack, SKU {rng.randrange(10**8):08}-{faker.lexify('??').upper()}",
                lambda: f"call {rng.randint(1, 40)} of {rng.randint(41, 99)}: {rng.randint(2000, 2026)}-01-15 12:33",
                lambda: f"model number {faker.lexify('??').upper()}{rng.randrange(10**6):06}",
                lambda: f"ISBN {faker.isbn13()}",
                lambda: f"EAN {faker.ean13()}",
                lambda: f"parcel {rng.randrange(10**12):012} of {rng.randrange(10**9):09}",
                lambda: f"{rng.uniform(-90, 90):.6f}, {rng.uniform(-180, 180):.6f}",
                lambda: f"/var/log/app/{rng.randrange(10**8)}.log:{rng.randint(1, 9999)}",
                lambda: f"std::vector<int> f{rng.randint(1, 99)}::at({rng.randint(1, 99)})",
                lambda: f"10.{rng.randint(1000, 9999)}/j.x.{rng.randint(2000, 2026)}.{rng.randint(1, 12):02}.058",
                lambda: base64.b64encode(rng.randbytes(rng.randint(12, 60))).decode(),
                lambda: f"commit {rng.randbytes(20).hex()[: rng.choice([7, 12, 40])]}",
                lambda: f"{faker.lexify('???').upper()}-{rng.randrange(10**5):05}",
                lambda: f"tax {rng.randint(5, 25)} %, vat {rng.randrange(10**5) / 100:.2f} of {rng.randrange(10**6)}",
                lambda: f"passed {rng.randrange(10**4)} of {rng.randrange(10**5)} in {rng.random() * 100:.3f} s",
                lambda: f"#{rng.randrange(16**6):06x} rgba({rng.randint(0, 255)}, {rng.randint(0, 255)}, 0, 0.5)",
                faker.paragraph,
                lambda: "password: required, token: optional, authorization: none",
            ]
        )()
        frames = ["{}", f"{faker.sentence()} {{}}, {faker.sentence()}", f"{faker.date()} INFO {{}} done", "<td>{}</td>"]
        return Document(rng.choice(frames).replace("{}", what), ())


def corpus(seed: int, each: int, negatives: int) -> list[Document]:
    """`each` documents per detector, and so many without a value, mixed."""
    maker = Maker(seed)
    documents = [maker.document(detector.name) for detector in DETECTORS for _ in range(each)]
    documents += [maker.negative() for _ in range(negatives)]
    maker.rng.shuffle(documents)
    return documents
