"""Step 4 of 6, inspect: names that stand for values until they are taken back: `EMAIL_1`, or a value of the same form.

Gets values; hands on pseudonyms, and values for pseudonyms. Each has a number of its own, whatever its form, and a text
that looks like a pseudonym is a value itself: so what is taken back is always what was put in. Pure: a `Vault` keeps
them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, Protocol

from enforcer.masking.confirm import luhn
from enforcer.masking.errors import MaskError

CARD: Final = "CREDIT_CARD"
LITERAL: Final = "VALUE"
"""The word for fields without one of their own, and for texts that merely look like a pseudonym."""

NUMBER_DIGITS: Final = 9
_MAX_NUMBER: Final = 10**NUMBER_DIGITS
LONGEST: Final = 64
"""Characters of a pseudonym, with room."""

FULL: Final = "there is no room for more pseudonyms; wait until some expire, or end the session"

_SIGNS: Final = rb"[ ()./-]{0,3}"
# Telephone numbers: 999 is a country code that ITU-T keeps free. Cards: 9999 is no issuer's, and Luhn holds.
_DIGITS: Final = rb"(?<![0-9A-Za-z])[+(]{0,2}9(?:" + _SIGNS + rb"[0-9]){6,18}(?![0-9])"
_MAIL: Final = rb"(?<![0-9A-Za-z._%+-])(?i:user)[0-9]{1,9}@(?i:example\.invalid)(?![0-9A-Za-z-])"
_PHONE_HEAD: Final = "999"
_CARD_HEAD: Final = "9999"
_CARD_LEAST: Final = 13
_PHONE_DIGITS: Final = range(7, 16)
_RUN: Final = re.compile(rb"[0-9]+")
_NOT_DIGIT: Final = re.compile(rb"[^0-9]+")


class Entry(NamedTuple):
    """One pseudonym and what it stands for."""

    pseudonym: str
    value: str


class Vault(Protocol):
    """Keeps pseudonyms. `make(number)` gives the text for a number, None where the number is not to be used."""

    def pseudonym(self, kind: str, value: str, make: Callable[[int], str | None]) -> str:
        """The pseudonym of `value`, made at the first call; another one where `make` refuses its number. Raises
        MaskError where there is no room."""

    def entry(self, number: int) -> Entry | None:
        """What has this number."""

    def highest(self) -> int:
        """The last number that was given."""


class SessionVault:
    """Pseudonyms of one session, in memory, forgotten with it."""

    LIMIT: Final = 16_384

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._numbers: dict[tuple[str, str], int] = {}

    def pseudonym(self, kind: str, value: str, make: Callable[[int], str | None]) -> str:
        number = self._numbers.get((kind, value))
        if number is not None:
            known = self._entries[number - 1].pseudonym
            if make(number) == known:
                return known
        while len(self._entries) < self.LIMIT:
            number = len(self._entries) + 1
            made = make(number)
            self._entries.append(Entry(made or "", value))
            if made is not None:
                self._numbers[kind, value] = number
                return made
        raise MaskError(FULL)

    def entry(self, number: int) -> Entry | None:
        known = self._entries[number - 1] if 0 < number <= len(self._entries) else None
        return known if known is not None and known.pseudonym else None

    def highest(self) -> int:
        return len(self._entries)


class Forms:
    """What pseudonyms of one rule look like. `pattern` matches all of them in a text; `begun` matches at the end of a
    text what may be the beginning of one."""

    def __init__(self, words: Iterable[str], *, alike: bool) -> None:
        self.words = tuple(sorted({LITERAL, *words}, key=lambda word: (-len(word), word)))
        self.alike = alike
        spelt = b"|".join(re.escape(word.encode()) for word in self.words)
        named = rb"(?i:" + spelt + rb")_[0-9]{1,9}(?![0-9])"
        self.patterns = (named, _MAIL, _DIGITS) if alike else (named,)
        self.pattern = re.compile(b"|".join(self.patterns))
        begun = [_begun(word) for word in self.words]
        if alike:
            begun += [_begun_mail(), rb"[+(]{0,2}9(?:" + _SIGNS + rb"[0-9]){0,18}" + _SIGNS, rb"[+(]{1,2}"]
        self.begun = re.compile(rb"(?:" + b"|".join(begun) + rb")\Z")

    def held(self, text: bytes) -> int:
        """Where in `text` begins what may go on beyond its end; its length where nothing does."""
        found = self.begun.search(text, max(0, len(text) - LONGEST))
        return len(text) if found is None else found.start()


def _begun(word: str) -> bytes:
    """Beginnings of `WORD_123`, in any case: of its first two letters only as they are written, for half of all words
    end in an `e`."""
    whole = rb"(?:_[0-9]{0,9})?"
    for place in range(len(word) - 1, 2, -1):
        whole = rb"(?:" + re.escape(word[place].encode()) + whole + rb")?"
    cased = re.escape(word[:1].encode()) + (re.escape(word[1:2].encode()) + rb"?" if len(word) > 1 else b"")
    return rb"(?i:" + re.escape(word[:3].encode()) + whole + rb")|" + cased


def _begun_mail() -> bytes:
    whole = b""
    for sign in reversed("ser"):
        whole = rb"(?:" + sign.encode() + whole + rb")?" if whole else rb"(?:r(?:[0-9]{1,9}(?:@[a-z.]{0,15})?)?)?"
    return rb"(?i:u" + whole + rb")"


class Pseudonymiser:
    """Puts pseudonyms in, and takes them back out, by a vault."""

    def __init__(self, forms: Forms, vault: Vault) -> None:
        self.forms = forms
        self._vault = vault

    def pseudonym(self, word: str, value: str, *, alike: bool, around: bytes = b"") -> str:
        """The pseudonym of `value`, which does not stand in `around` yet. Raises MaskError where there is no room."""
        lowered = around.lower()

        def make(number: int) -> str | None:
            made = (_like(word, value, number) if alike else None) or f"{word}_{number}"
            return None if number >= _MAX_NUMBER or (lowered and made.lower().encode() in lowered) else made

        return self._vault.pseudonym(f"{word} alike" if alike else word, value, make)

    def restored(self, text: bytes, write: Callable[[bytes, int], bytes] = lambda value, _place: value) -> bytes:
        """`text` with its pseudonyms taken back. `write(value, place)` spells a value as it must be at `place`."""
        at, parts = 0, list[bytes]()
        for start, end, value in self.found(text):
            parts += (text[at:start], write(value.encode("utf-8", "surrogateescape"), start))
            at = end
        return b"".join([*parts, text[at:]]) if parts else text

    def found(self, text: bytes, begin: int = 0) -> list[tuple[int, int, str]]:
        """Start, end and value of each pseudonym in `text` from `begin` on; what stands before is looked at."""
        found = []
        for match in self.forms.pattern.finditer(text, begin):
            one = self._known(match[0])
            if one is not None:
                start, end, value = one
                found.append((match.start() + start, match.start() + end, value))
        return found

    def may_go_on(self, text: bytes) -> bool:
        """`text` looks like a pseudonym, or the beginning of one: is there a longer one that begins so?"""
        number = re.search(rb"_([0-9]{1,9})\Z", text)
        return number is None or int(number[1]) * 10 <= self._vault.highest()

    def _known(self, match: bytes) -> tuple[int, int, str] | None:
        if b"_" in match and not match[:1].isdigit() and match[:1] not in b"+(":
            return self._named(match)
        if b"@" in match:
            return self._mail(match)
        return self._number(match)

    def _named(self, match: bytes) -> tuple[int, int, str] | None:
        """The word before it may run into a word of the text: what ends as the pseudonym does is it."""
        entry = self._vault.entry(int(match.rpartition(b"_")[2]))
        if entry is None or not match.lower().endswith(entry.pseudonym.lower().encode()):
            return None
        return len(match) - len(entry.pseudonym), len(match), entry.value

    def _mail(self, match: bytes) -> tuple[int, int, str] | None:
        entry = self._vault.entry(int(match[4 : match.index(b"@")]))
        if entry is None or entry.pseudonym.encode() != match.lower():
            return None
        return 0, len(match), entry.value

    def _number(self, match: bytes) -> tuple[int, int, str] | None:
        """Digits of a row may go on with others behind a blank: the pseudonym is as long as it is."""
        for end in reversed([found.end() for found in _RUN.finditer(match)]):
            digits = _NOT_DIGIT.sub(b"", match[:end]).decode()
            number = _number_of(digits)
            entry = None if number is None else self._vault.entry(number)
            if entry is None or _NOT_DIGIT.sub(b"", entry.pseudonym.encode()) != digits.encode():
                continue
            start = match.index(b"9")
            head = entry.pseudonym.encode().partition(b"9")[0]
            start -= len(head) if head and match[:start].endswith(head) else 0
            return start, end, entry.value
        return None


def _number_of(digits: str) -> int | None:
    if len(digits) >= _CARD_LEAST and digits.startswith(_CARD_HEAD) and luhn(digits.encode()):
        return int(digits[len(_CARD_HEAD) : -1])
    return int(digits[len(_PHONE_HEAD) :]) if digits.startswith(_PHONE_HEAD) else None


def _like(word: str, value: str, number: int) -> str | None:
    """A pseudonym of the form of `value`; None where there is none for this number."""
    if "@" in value:
        return f"user{number}@example.invalid"
    count = sum(sign in "0123456789" for sign in value)
    if word in (CARD, LITERAL) and count >= _CARD_LEAST:
        digits = f"{_CARD_HEAD}{number:0{count - len(_CARD_HEAD) - 1}d}"
        digits += next(last for last in "0123456789" if luhn((digits + last).encode()))
    elif count in _PHONE_DIGITS:
        digits = f"{_PHONE_HEAD}{number:0{count - len(_PHONE_HEAD)}d}"
    else:
        return None
    if len(digits) != count or _number_of(digits) != number:
        return None
    rest = iter(digits)
    shaped = "".join(next(rest) if sign in "0123456789" else sign for sign in value)
    return shaped if re.fullmatch(_DIGITS + rb"\)?", shaped.encode()) else None
