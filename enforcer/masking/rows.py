"""Step 4 of 6, inspect: what a row of the detectors' table is, and how its patterns are made.

Gets names, labels, shapes and checks; hands on a `Detector`. Every pattern reports one end per value: Hyperscan says
where values end, not where they begin, and both engines must say the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from enforcer.masking import confirm
from enforcer.masking.confirm import Span

Confirm = Callable[[bytes, int], Span | None]

# --- what stays readable. Applied twice to the same bytes, each hides no less than once.

_STARS: Final = bytes(ord("*") if c in confirm.ALNUM else c for c in range(256))
# A secret's every character counts. What frames it in JSON, markup and lines stays.
_FRAME: Final = b" \t\r\n\0\"'`\\<>"
_ESCAPED: Final = re.compile(rb"(?<!\\)[^ \t\r\n\x00\"'`\\<>]|(?<=\\)[^ \t\r\n\x00\"'`\\<>bfnrtv]")
_BLOTS: Final = bytes(c if c in _FRAME else ord("*") for c in range(256))
_KEPT: Final = 4


def all_but_last_four(value: bytes) -> bytes:
    split, kept = len(value), 0
    while kept < _KEPT:
        split -= 1
        kept += value[split] not in confirm.SEPARATORS
    return value[:split].translate(_STARS) + value[split:]


def letters_and_digits(value: bytes) -> bytes:
    return value.translate(_STARS)


def all_but_at(value: bytes) -> bytes:
    return b"*" * (len(value) - 1) + value[-1:]


def everything(value: bytes) -> bytes:
    return _ESCAPED.sub(b"*", value) if b"\\" in value else value.translate(_BLOTS)


@dataclass(frozen=True, slots=True)
class Detector:
    """One kind of value.

    `candidates`: patterns, each with what is asked about each end it reports: `confirm(text, end)`, the span or None.
    `reach`: how far before and after that end it looks, in bytes. `hide(value)`: the value as it may be seen, of the
    same length. `examples`: values found to their end, with their label and `: ` in front where they need one;
    `counter_examples`: texts in which nothing is. `groups`: names of sets it is in. `source`: whose description of the
    value it follows. `validator`: the check, by its name for `validators`. `tail`: what a confirmed value goes on with,
    however long; it matches at any place within itself.
    """

    name: str
    candidates: tuple[tuple[bytes, Confirm], ...]
    reach: int
    hide: Callable[[bytes], bytes]
    examples: tuple[bytes, ...]
    counter_examples: tuple[bytes, ...]
    groups: tuple[str, ...] = ()
    source: str = ""
    validator: str = ""
    tail: re.Pattern[bytes] | None = None


BEFORE: Final = rb"(?:^|[^0-9A-Za-z])"
AFTER: Final = rb"(?:[^0-9A-Za-z]|\z)"

# The dot of `Tel.` ends no sentence, as one behind a longer word does.
_IN_PROSE: Final = rb"(?:(?<![A-Za-z]{4})\.|[^0-9A-Za-z,;{}.])[^0-9,;{}.]{0,19}(?<![0-9A-Za-z]/)"
_GAP_MAX: Final = 40
"""Bytes between a label and its value: `</td>`, a line's end and the next cell's tag."""
_GAP: Final = rb"(?:[\"' ]{0,2}[,;][\"' ]{0,2}|[^0-9,;{}]{0,%d})" % _GAP_MAX
LABELLED_REACH: Final = 128

# A part that several shapes have: looked for once.
SEVEN: Final = rb"[XYZxyzSTFGM]-?[0-9]{7}-?[A-Za-z]"
"""Seven digits between two letters."""


def _spelt(word: str) -> bytes:
    """A pattern for `word`, in lower case: a blank stands for any of ` _.-`, or nothing."""
    return rb"[ _.+-]?".join(re.escape(part.encode()) for part in word.split(" "))


def _cased(word: str) -> bytes:
    """As the end of a name in camelCase: `customerSsn`, `customerSSN`."""
    plain = word.replace(" ", "")
    return re.escape((plain[:1].upper() + plain[1:]).encode()) + b"|" + re.escape(plain.upper().encode())


def words_pattern(words: Iterable[str]) -> bytes:
    """A label: a word that begins there, or the last one of a name in camelCase."""
    listed = list(words)
    own = b"|".join(map(_spelt, listed))
    camel = b"|".join(_cased(word) for word in listed if word.isascii() and word.isalnum())
    return rb"(?:(?:^|[^A-Za-z])(?i:" + own + rb")" + (rb"|[a-z](?:" + camel + rb")" if camel else b"") + rb")"


def label(words: Iterable[str]) -> bytes:
    """A label, a gap and the first digit of what follows. Whether the label is a word is asked by `labels`: to ask it
    here would take seconds to compile."""
    return rb"(?i:" + b"|".join(map(_spelt, words)) + rb")" + _GAP + rb"[0-9]"


_NUMBER_WORDS: Final = rb"(?:[ _.-]{0,2}(?i:numm?er|number|numero|num|n[ro]|id|code|#|n\xc2[\xba\xb0])\.?)?"


def labels(words: Iterable[str], *, prose: bool = False) -> re.Pattern[bytes]:
    """The same as `label`, up to the value and with an end of the word: for the text before a candidate. `prose`: texts
    are full of these words, so that less may stand between, and no end of a sentence nor a path."""
    gap = _IN_PROSE if prose else rb"[^0-9A-Za-z,;{}][^0-9,;{}]{0,%d}" % (_GAP_MAX - 1)
    between = rb"(?:[\"' ]{0,2}[,;][\"' ]{0,2}|/|" + gap + rb")?"
    return re.compile(
        words_pattern(words).replace(rb"(?:^|[^A-Za-z])", rb"(?<![A-Za-z])", 1) + _NUMBER_WORDS + between + rb"\Z"
    )


def digits(count: int, most: int | None = None) -> bytes:
    """So many digits, with a separator between any two."""
    return rb"[0-9](?:[ ./+-]?[0-9]){%d,%d}" % (count - 1, (most or count) - 1)


def after_label(words: Iterable[str], value: bytes, check: str) -> tuple[bytes, Confirm]:
    """A value that begins with a digit, and stands after one of `words`."""
    return label(words), partial(confirm.labelled, labels(words), _whole(value), check)


def _whole(value: bytes) -> re.Pattern[bytes]:
    """`value`, and no more letters or digits behind it."""
    return re.compile(rb"(?:" + value + rb")(?![0-9A-Za-z])(?![.-][0-9])")


def number(
    name: str,
    *,
    groups: tuple[str, ...],
    source: str,
    words: tuple[str, ...] = (),
    value: bytes = b"",
    shapes: tuple[bytes | tuple[bytes, bytes], ...] = (),
    near_shapes: tuple[bytes, ...] = (),
    check: str = "",
    examples: tuple[bytes, ...],
    counter_examples: tuple[bytes, ...],
) -> Detector:
    """A number of a register. `value` is what stands after one of `words`, and begins with a digit; `shapes` are known
    by themselves, each with the part of it that gives it away, if that is cheaper to look for than the whole;
    `near_shapes` begin with letters, and need one of `words` before them."""
    candidates: list[tuple[bytes, Confirm]] = []
    if value:
        candidates.append(after_label(words, value, check))
    for lettered in near_shapes:
        candidates.append((label(words), partial(confirm.lettered, labels(words), _whole(lettered), check)))
    for shape, head in (one if isinstance(one, tuple) else (one, BEFORE + one + AFTER) for one in shapes):
        candidates.append((head, partial(confirm.shaped, _whole(rb"(?<![0-9A-Za-z])(?<![0-9][-.])" + shape), check)))
    return Detector(
        name=name,
        candidates=tuple(candidates),
        reach=LABELLED_REACH,
        hide=letters_and_digits,
        examples=examples,
        counter_examples=counter_examples,
        groups=groups,
        source=source,
        validator=check,
    )
