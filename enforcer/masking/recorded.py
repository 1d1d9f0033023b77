"""Step 4 of 6, inspect: what is recorded of a request whose values are replaced: what the server gets.

Gets a request's texts; hands on the same as they are sent. What cannot be masked is left out: the request is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Final

from enforcer.masking.errors import MaskError
from enforcer.masking.masker import Masker
from enforcer.protocols.forms import rewrite_target

_TARGET: Final = re.compile(r"([A-Z-]+) (/[!-~]*)")
_LEFT_OUT: Final = "(cannot be masked)"
# Facts that are never rewritten: whom a request is for.
_KEPT: Final = frozenset({"host"})


def text_as_sent(masker: Masker, text: str) -> str:
    """A request's text: method and target, a message, or any other."""
    asked = _TARGET.fullmatch(text)
    try:
        if asked is None:
            return _plain(masker, text)
        counts: Counter[str] = Counter()
        target = rewrite_target(
            asked[2],
            lambda value: masker.mask(value, counts),
            lambda name, value: masker.replaced("query", name.decode("utf-8", "replace"), value, counts),
        )
        return f"{asked[1]} {target}"
    except MaskError:
        return _LEFT_OUT


def facts_as_sent(masker: Masker, facts: Mapping[str, str]) -> dict[str, str]:
    return {name: value if name in _KEPT else _fact(masker, value) for name, value in facts.items()}


def _fact(masker: Masker, value: str) -> str:
    try:
        return _plain(masker, value)
    except MaskError:
        return _LEFT_OUT


def _plain(masker: Masker, text: str) -> str:
    raw = text.encode("utf-8", "surrogateescape")
    media = "application/json" if text.lstrip()[:1] in ("{", "[") else "text/plain"
    return masker.text(media).feed(raw, True, Counter()).decode("utf-8", "surrogateescape")
