"""Step 4 of 6, inspect: what a MySQL server says of a command, and whether that may be data.

Gets the code and the words of an ERR, and the statement; hands on how they are to be masked. Pure. Source: MySQL 8.0
Error Message Reference; MariaDB's error codes.
"""

from __future__ import annotations

import re
from typing import Final

ANYTHING: Final = "anything"
"""Words that may be data wholly: what could not be converted, what a key has already, what a function says."""

NAMED: Final = "error"
"""Words that are the server's own, with names of tables, columns, users and settings in them."""

_NAMES_ONLY: Final = (
    *((1004, 1009), (1037, 1057), (1059, 1061), (1063, 1063), (1065, 1065), (1068, 1075), (1091, 1091), (1093, 1093)),
    *((1099, 1101), (1103, 1104), (1109, 1114), (1116, 1118), (1120, 1121), (1130, 1133), (1136, 1138), (1140, 1149)),
    *((1152, 1153), (1156, 1164), (1166, 1167), (1170, 1173), (1176, 1176), (1178, 1178), (1191, 1193), (1203, 1203)),
    *((1205, 1208), (1213, 1217), (1222, 1222), (1226, 1230), (1234, 1235), (1238, 1239), (1241, 1243), (1246, 1253)),
    *((1264, 1265), (1267, 1267), (1269, 1271), (1286, 1287), (1290, 1290), (1295, 1295), (1303, 1305), (1317, 1318)),
    *((1327, 1327), (1356, 1356), (1364, 1365), (1369, 1370), (1406, 1406), (1410, 1410), (1442, 1442), (1451, 1452)),
    *((1568, 1568), (1582, 1583), (1615, 1615), (1665, 1665), (1701, 1701), (1785, 1785), (1792, 1792), (1820, 1820)),
    *((1927, 1928), (1969, 1969), (3024, 3024), (3572, 3572), (3819, 3819), (4025, 4025), (4031, 4031)),
)
"""From and to: codes of names, rights, limits and sessions. Not 1062 (a duplicate entry), 1105 (XPath), 1292, 1366 and
1411 (a value that cannot be converted), 1298, 1644 (SIGNAL), 1690 (a number out of range), and whatever is not here."""
_CODES: Final = frozenset(code for first, last in _NAMES_ONLY for code in range(first, last + 1))

_SYNTAX: Final = frozenset({1064, 1149})
_NEAR: Final = re.compile(rb" near '(.*)' at line [0-9]+\Z", re.DOTALL)

_CHOSEN: Final = b"last_insert_id"
"""A statement that calls it may choose the insert id that the server tells."""


def media_of_error(code: int, words: bytes, text: bytes, *, certain: bool) -> str:
    """`text`: the statement. `certain`: it does what its words say, and calls no functions but the server's own."""
    near = _NEAR.search(words) if code in _SYNTAX else None
    if near is not None:
        return NAMED if near[1] in text else ANYTHING
    return NAMED if certain and code in _CODES else ANYTHING


def media_of_ok(text: bytes, *, certain: bool) -> str:
    return NAMED if certain and _CHOSEN not in text.lower() else ANYTHING
