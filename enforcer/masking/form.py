"""Step 4 of 6, inspect: masks forms as they stream (application/x-www-form-urlencoded): each value decoded, masked and
encoded anew where it changed.

Gets pieces; hands on whole pairs. Holds back the pair that is not complete.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

from enforcer.masking.errors import MaskError
from enforcer.masking.text import MAX_DOCUMENT
from enforcer.protocols.forms import rewrite_pairs

Piece = Callable[[bytes, Counter[str]], bytes]
"""Masks one whole value; the same object where it holds nothing."""


NamedPiece = Callable[[str, bytes, Counter[str]], bytes | None]


class Form:
    """One form. See `enforcer.masking.text.TextMask`. `named`: what stands for the value of a field, by its name; None
    for one that no item names."""

    def __init__(self, mask: Piece, named: NamedPiece | None = None) -> None:
        self._mask = mask
        self._named = named
        self._held: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes, final: bool, counts: Counter[str]) -> bytes:
        end = len(data) if final else data.rfind(b"&") + 1
        self._size += len(data)
        if end == 0 and not final:
            if self._size > MAX_DOCUMENT:
                raise MaskError(f"a form field of more than {MAX_DOCUMENT >> 20} MiB cannot be masked; send a file")
            self._held.append(data)
            return b""
        pairs = b"".join([*self._held, data[:end]])
        self._held = [data[end:]]
        self._size = len(data) - end
        named = None if self._named is None else partial(self._pair, self._named, counts)
        return rewrite_pairs(pairs, lambda value: self._mask(value, counts), named)

    @staticmethod
    def _pair(named: NamedPiece, counts: Counter[str], name: bytes, value: bytes) -> bytes | None:
        return named(name.decode("utf-8", "replace"), value, counts)
