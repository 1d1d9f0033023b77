"""Step 4 of 6, inspect: the table's cards, accounts and purses."""

from __future__ import annotations

from functools import partial
from typing import Final

from enforcer.masking import confirm, contacts
from enforcer.masking.rows import BEFORE, LABELLED_REACH, Detector, all_but_last_four, everything, number

# The first three digits stand together, and few begin a card. Not after `digit.`, or most decimals of a JSON document
# would be looked at.
_CARD: Final = (
    rb"(?:^|^\.|[^0-9A-Za-z.]|[^0-9]\.)(?:4[0-9]|5[0-8]|3[0-9]|2[2-7]|6[0-9]|8[12]|97)[0-9]"
    rb"(?:[ +-]?[0-9]){%d}" % (confirm.CARD_HEAD - 3)
)

ROWS: Final = (
    Detector(
        name="credit_card",
        candidates=((_CARD, confirm.any_card),),
        reach=LABELLED_REACH,
        hide=all_but_last_four,
        # Test numbers that the networks and their processors publish.
        examples=(
            b"4111111111111111",
            b"4111 1111 1111 1111",
            b"4012-8888-8888-1881",
            b"4012+8888+8888+1881",
            b"card: 4222222222222",
            b"5555555555554444",
            b"5105 1051 0510 5100",
            b"2223003122003222",
            b"378282246310005",
            b"3714 496353 98431",
            b"6011111111111117",
            b"6011 0009 9013 9424",
            b"30569309025904",
            b"3852 000002 3237",
            b"3530111333300000",
            b"3566-0020-2036-0505",
            b"6200000000000005",
            b"6205500000000000004",
            b"6759649826438453",
            b"2200000000000004",
        ),
        counter_examples=(
            b"4111111111111112",
            b"1234567812345670",
            b"41111111111111111111",
            b"99994111111111111111",
            b"order4111111111111111",
            b"4111111111111111x",
            b"0.4111111111111111",
            b"4111111111111111.25",
            b"4111  1111  1111  1111",
            b"4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
            b"41111111-1111-4111-8111-111111111111",
            b"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            b"1700000000000",
            b"4222222222222",
            b"36000000000000016",
            b"+4222222222222",
        ),
        groups=("payment",),
        source="ISO/IEC 7812-1; issuer ranges as networks publish them",
    ),
    Detector(
        name="iban",
        candidates=((BEFORE + rb"[A-Za-z]{2}[0-9]{2}(?:[ +]?[0-9A-Za-z]){11}", confirm.iban),),
        reach=confirm.MAX_SPAN + 1,
        hide=all_but_last_four,
        # Examples of the registry.
        examples=(
            b"DE89370400440532013000",
            b"DE89 3704 0044 0532 0130 00",
            b"GB29 NWBK 6016 1331 9268 19",
            b"GB29+NWBK+6016+1331+9268+19",
            b"FR1420041010050500013M02606",
            b"NO9386011117947",
            b"MT84MALT011000012345MTLCAST001S",
            b"LC55HEMM000100010012001200023015",
            b"NL91 ABNA 0417 1643 00",
            b"SA0380000000608010167519",
            b"nl91abna0417164300",
        ),
        counter_examples=(
            b"DE89370400440532013001",
            b"DE8937040044053201300",
            b"DE893704004405320130000",
            b"XDE89370400440532013000",
            b"ZZ89370400440532013000",
            b"de305d54-75b4-431b-adb2-eb6b9e546014",
        ),
        groups=("payment",),
        source="ISO 13616-2, the IBAN registry",
    ),
    number(
        "us_bank_routing",
        groups=("payment",),
        source="American Bankers Association; Presidio ABA_ROUTING_NUMBER",
        words=("routing", "aba", "rtn", "bank routing", "transit"),
        value=rb"[0-9]{4}-?[0-9]{4}-?[0-9]",
        check="us.rtn",
        examples=(b"Routing number: 111000025", b"ABA: 0210-0002-1"),
        counter_examples=(b"ABA: 111000026", b"111000025"),
    ),
    Detector(
        name="bitcoin_address",
        candidates=(
            (BEFORE + rb"[13]" + contacts.BASE58 + rb"{25}", contacts.bitcoin),
            (BEFORE + rb"(?:bc|tb|BC|TB)1[02-9ac-hj-np-zAC-HJ-NP-Z]{38}", partial(contacts.bech32, 2)),
            (BEFORE + rb"(?:ltc|LTC)1[02-9ac-hj-np-zAC-HJ-NP-Z]{38}", partial(contacts.bech32, 3)),
        ),
        reach=90,
        hide=everything,
        # The first block's, and the examples of BIP 173 and BIP 350.
        examples=(
            b"1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
            b"3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy",
            b"bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
            b"BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4",
            b"bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3",
            b"bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
        ),
        counter_examples=(
            b"1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb",
            b"bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5",
            b"1234567891234567891234567891234567",
            b"x1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
        ),
        groups=("payment", "crypto"),
        source="BIP 173, BIP 350; Presidio CRYPTO",
    ),
    Detector(
        name="ethereum_address",
        candidates=((BEFORE + rb"0x[0-9A-Fa-f]{40}(?:[^0-9A-Za-z]|\z)", contacts.ethereum),),
        reach=48,
        hide=everything,
        # Examples of ERC-55. Its checksum is not asked: addresses in one case have none.
        examples=(
            b"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            b"0xfb6916095ca1df60bb79ce92ce3ea74c37c5d359",
            b"0x52908400098527886E0F7030069857D2E4169EE7",
        ),
        counter_examples=(
            b"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAe",
            b"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed0",
            b"0x0000000000000000000000000000000000000000",
            b"5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        ),
        groups=("payment", "crypto"),
        source="ERC-55",
    ),
)
