"""Step 4 of 6, inspect: the table's numbers of taxpayers in the states of the European Union.

As in `europe`, what is digits alone is known by its label.
"""

from __future__ import annotations

from typing import Final

from enforcer.masking.rows import digits, number

_EU_TAX: Final = ("person", "tax_id", "eu_tax_id")
_STDNUM: Final = "python-stdnum"

ROWS: Final = (
    number(
        "at_tax",
        groups=_EU_TAX,
        source=_STDNUM,
        words=("steuernummer", "abgabenkontonummer", "st nr", "stnr", "tin", "tax"),
        value=rb"[0-9]{2}[- ]?[0-9]{3}/?[0-9]{4}",
        check="at.tin",
        examples=(b"Steuernummer: 59-119/9013", b"TIN: 591199013"),
        counter_examples=(b"Steuernummer: 59-119/9014", b"59-119/9013"),
    ),
    number(
        "cy_tax",
        groups=_EU_TAX,
        source=_STDNUM,
        words=("tic", "αφτ", "ΑΦΤ", "tax identification code", "tax id", "vat"),
        value=rb"[0-9]{8}[A-Z]",
        check="cy.vat",
        examples=(b"TIC: 10259033P",),
        counter_examples=(b"TIC: 10259033Z", b"10259033P"),
    ),
    number(
        "es_cif",
        groups=_EU_TAX,
        source=_STDNUM,
        words=("cif", "nif", "c.i.f.", "n.i.f.", "código de identificación fiscal"),
        near_shapes=(rb"[A-HJNP-SUVW]-?[0-9]{7}-?[0-9A-J]",),
        check="es.cif",
        examples=(b"CIF: J99216582", b"NIF: B64717838"),
        counter_examples=(b"CIF: J99216583", b"J99216582"),
    ),
    number(
        "fr_tax",
        groups=_EU_TAX,
        source=_STDNUM,
        words=("numéro fiscal", "numero fiscal", "spi", "référence fiscale", "nif", "tin", "tax"),
        value=digits(13),
        check="fr.nif",
        examples=(b"num\xc3\xa9ro fiscal: 30 23 217 600 053", b"SPI: 3023217600053"),
        counter_examples=(b"SPI: 3023217600054", b"3023217600053"),
    ),
    number(
        "de_tax",
        groups=_EU_TAX,
        source="Presidio DE_TAX_ID; " + _STDNUM,
        words=(
            *("steuer id", "steueridentifikationsnummer", "steuer identifikationsnummer", "idnr", "steuer idnr"),
            *("identifikationsnummer", "steuerid", "tin", "tax id", "tax"),
        ),
        value=digits(11),
        check="de.idnr",
        examples=(b"Steuer-ID: 36 574 261 809", b"IdNr.: 36574261809", b"Steueridentifikationsnummer: 36574261809"),
        counter_examples=(b"Steuer-ID: 36574261890", b"36574261809", b"Steuer-ID: 11111111111"),
    ),
    number(
        "gr_afm",
        groups=_EU_TAX,
        source=_STDNUM,
        words=("afm", "αφμ", "ΑΦΜ", "tin"),
        value=digits(9),
        check="gr.vat",
        examples=("ΑΦΜ: 094259216".encode(), b"AFM: 094259216"),
        counter_examples=(b"AFM: 123456781", b"094259216"),
    ),
    number(
        "hu_tax",
        groups=_EU_TAX,
        source="Act CL of 2017, annex 1",
        words=("adóazonosító jel", "adóazonosító", "adoazonosito jel", "adoazonosito", "tax id", "tin"),
        value=rb"8[ -]?[0-9](?:[ -]?[0-9]){8}",
        check="own.hu_tax",
        examples=("adóazonosító jel: 8071592153".encode(), b"adoazonosito: 8071592153"),
        counter_examples=(b"adoazonosito: 8071592154", b"8071592153"),
    ),
    number(
        "it_vat",
        groups=_EU_TAX,
        source="Presidio IT_VAT_CODE; " + _STDNUM,
        words=("partita iva", "p.iva", "p. iva", "piva", "p iva", "vat"),
        value=digits(11),
        check="it.iva",
        examples=(b"P.IVA: 00743110157", b"partita IVA: 00743110157"),
        counter_examples=(b"P.IVA: 00743110158", b"00743110157"),
    ),
    number(
        "pl_nip",
        groups=_EU_TAX,
        source=_STDNUM,
        words=("nip", "numer identyfikacji podatkowej", "tax id", "vat"),
        value=digits(10),
        check="pl.nip",
        examples=(b"NIP: 856-734-62-15", b"NIP: 8567346215"),
        counter_examples=(b"NIP: 8567346216", b"8567346215"),
    ),
    number(
        "pt_nif",
        groups=_EU_TAX,
        source=_STDNUM,
        words=("nif", "contribuinte", "número de contribuinte", "numero de contribuinte", "nipc", "número fiscal"),
        value=digits(9),
        check="pt.nif",
        examples=(b"NIF: 501 964 843", b"contribuinte: 501964843"),
        counter_examples=(b"NIF: 501964844", b"501964843"),
    ),
    number(
        "si_tax",
        groups=_EU_TAX,
        source=_STDNUM,
        words=("davčna številka", "davcna stevilka", "davčna", "id za ddv", "ddv"),
        value=rb"[0-9]{8}",
        check="si.ddv",
        examples=("davčna številka: 50223054".encode(),),
        counter_examples=(b"davcna stevilka: 50223055", b"50223054"),
    ),
    number(
        "eu_vat",
        groups=_EU_TAX,
        source="Directive 2006/112/EC, article 215; " + _STDNUM,
        words=(
            *(
                "vat",
                "vat id",
                "ust idnr",
                "ust id nr",
                "ustid",
                "uid",
                "tva",
                "iva",
                "btw",
                "moms",
                "dph",
                "ddv",
                "pvm",
            ),
            *(
                "alv",
                "mva",
                "áfa",
                "afa",
                "nip",
                "cif",
                "ЗДДС",
                "ΦΠΑ",
                "umsatzsteuer",
                "tax",
                "oib",
                "cui",
                "kmkr",
                "pvn",
            ),
        ),
        near_shapes=(
            rb"(?:ATU[0-9]{8}|BE ?[01][0-9]{9}|BG ?[0-9]{9,10}|CY ?[0-9]{8}[A-Z]|CZ ?[0-9]{8,10}|D[EK] ?[0-9]{8,9}|"
            rb"E[EL] ?[0-9]{9}|ES ?[0-9A-Z][0-9]{7}[0-9A-Z]|FI ?[0-9]{8}|FR ?[0-9A-Z]{2} ?[0-9]{9}|HR ?[0-9]{11}|"
            rb"HU ?[0-9]{8}|IE ?[0-9][0-9A-Z+*][0-9]{5}[A-Z]{1,2}|IT ?[0-9]{11}|LT ?[0-9]{9,12}|LU ?[0-9]{8}|"
            rb"LV ?[0-9]{11}|MT ?[0-9]{8}|NL ?[0-9]{9}B[0-9]{2}|PL ?[0-9]{10}|PT ?[0-9]{9}|RO ?[0-9]{4,10}|"
            rb"SE ?[0-9]{12}|SI ?[0-9]{8}|SK ?[0-9]{10})",
        ),
        check="eu.vat",
        examples=(b"VAT: BE0697449992", b"TVA: FR 61954506077", b"USt-IdNr.: DE136695976", b"BTW: NL004495445B01"),
        counter_examples=(b"VAT: BE0697449993", b"BE0697449992", b"VAT: XX123456789"),
    ),
)
