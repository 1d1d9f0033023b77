"""Step 4 of 6, inspect: values replaced for where they are, kept from the detectors that read the text around them.

Gets what takes a value's place; hands on a stand-in that no detector takes for anything, and puts the real text there
once they are through. Also here: JSON documents, whose members operators replace so.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Any, Final

import orjson

from enforcer.masking import jsonpath
from enforcer.masking.errors import MaskError
from enforcer.masking.escapes import unescape
from enforcer.masking.fields import hide_json
from enforcer.masking.operators import Operators
from enforcer.verdict import Operator

# Of Unicode's private use area: a frame, and ten digits. A frame of the text's own gets a stand-in as well.
_FRAME: Final = "\ue000"
_DIGITS: Final = "".join(chr(0xE001 + digit) for digit in range(10))
_WRITTEN: Final = str.maketrans("0123456789", _DIGITS)
_READ: Final = str.maketrans(_DIGITS, "0123456789")
_RAW_FRAME: Final = _FRAME.encode()
_STAND_IN: Final = re.compile(b'"?' + _RAW_FRAME + b"((?:" + "|".join(_DIGITS).encode() + b")+)" + _RAW_FRAME + b'"?')
_CUT: Final = re.compile(rb"(?:\xee\x80?)\Z")


class StandIns:
    """Those of one text."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[bytes, bool]] = {}
        self._put = 0

    def put(self, raw: bytes, *, quotes: bool = False) -> str:
        """What stands for `raw`; with the `quotes` around it, if it is put between some."""
        self._put += 1
        self._kept[self._put] = raw, quotes
        return f"{_FRAME}{str(self._put).translate(_WRITTEN)}{_FRAME}"

    def shield(self, text: bytes) -> bytes:
        """`text` of whole characters, which may itself hold what stand-ins are framed with."""
        if _RAW_FRAME not in text:
            return text
        first, *rest = text.split(_RAW_FRAME)
        return b"".join([first, *(self.put(_RAW_FRAME).encode() + part for part in rest)])

    def fill(self, text: bytes) -> bytes:
        """The real text."""
        return _STAND_IN.sub(self._real, text) if _RAW_FRAME in text else text

    def forget(self, text: bytes) -> None:
        """`text` has been filled, and none of what stands in it is there again."""
        for match in _STAND_IN.finditer(text):
            del self._kept[int(match[1].decode().translate(_READ))]

    def stands(self, text: str) -> bool:
        """Is `text` a stand-in, and nothing else?"""
        match = _STAND_IN.fullmatch(text.encode("utf-8", "surrogatepass"))
        return match is not None and self._of(match)[1]

    def _of(self, match: re.Match[bytes]) -> tuple[bytes, bool]:
        return self._kept[int(match[1].decode().translate(_READ))]

    def _real(self, match: re.Match[bytes]) -> bytes:
        raw, quotes = self._of(match)
        if quotes:
            return raw
        whole = match[0]
        return whole[: whole.index(_RAW_FRAME)] + raw + whole[whole.rindex(_RAW_FRAME) + len(_RAW_FRAME) :]


class Filler:
    """Fills a text that comes in pieces; a stand-in that is cut waits for its rest."""

    def __init__(self, stand_ins: StandIns) -> None:
        self._stand_ins = stand_ins
        self._held = b""

    def feed(self, data: bytes, final: bool) -> bytes:
        data, whole = self._held + data, len(data) + len(self._held)
        if not final:
            if data.count(_RAW_FRAME) % 2:
                whole = data.rfind(_RAW_FRAME)
            elif (cut := _CUT.search(data, max(0, whole - 2))) is not None:
                whole = cut.start()
        data, self._held = data[:whole], data[whole:]
        filled = self._stand_ins.fill(data)
        if filled is not data:
            self._stand_ins.forget(data)
        return filled


def replace_members(
    text: bytes, paths: Iterable[tuple[jsonpath.Path, Operator | None, str]], apply: Operators, counts: Counter[str]
) -> tuple[bytes, StandIns]:
    """A JSON text with stand-ins for the members at `paths`, each with its operator and its word for pseudonyms; those
    without one are hidden. Raises MaskError where it is no JSON."""
    stand_ins = StandIns()

    def replaced(operator: Operator | None, word: str, value: Any) -> Any:
        if operator is None or not isinstance(value, str):
            return hide_json(value) if operator is None else apply.json(operator, value, word, text)
        if stand_ins.stands(value):
            return value
        plain = stand_ins.fill(value.encode()).decode()
        new = apply.json(operator, plain, word, text)
        return value if new == plain else None if new is None else stand_ins.put(orjson.dumps(new), quotes=True)

    try:
        tree: Any = orjson.loads(stand_ins.shield(unescape(text)))
        for path, operator, word in paths:
            tree, changed = jsonpath.apply(tree, (path,), partial(replaced, operator, word))
            if changed:
                counts[path.text] += changed
        return orjson.dumps(tree), stand_ins
    except (orjson.JSONDecodeError, orjson.JSONEncodeError, UnicodeEncodeError) as error:
        raise MaskError("a text that should be JSON cannot be read; ask whoever wrote it") from error
