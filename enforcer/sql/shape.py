"""Step 4 of 6, inspect: a statement without its literals and comments, so that statements that differ only in values
share one reading.

Gets the text as it goes to the server; hands on its shape, or what is in doubt. It follows the lexical rules of the
server (PostgreSQL 15 manual 4.1; MySQL 8.0 manual 9.1 and 9.7). Where servers or their settings may read the text in
two ways it is in doubt: a literal must never hide a second statement. Pure.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

POSTGRES: Final = "postgres"
MYSQL: Final = "mysql"

MAX_TEXT: Final = 1 << 20
"""Characters of a text that is looked at. mysqldump writes rows in statements of up to 1 MiB."""

MAX_SHAPE: Final = 64 << 10
"""Characters of a shape that is parsed: some 20,000 words, half a second of work."""

MAX_DEPTH: Final = 64
"""Parentheses and brackets within each other: the parser recurses through them."""

MAX_BRACKETS: Final = 1000
"""Square brackets: the time that the parser takes grows with their square."""

EXECUTED_BELOW: Final = 50700
"""MySQL runs what is in `/*!50699 ... */` where it is of that version or newer, and so do all that are still in use.
MariaDB passes over 50700 to 50999."""

# A character that continues a name, and one that begins it: to both servers, all beyond ASCII do. (Said by what they
# are not: Python takes 30 ms to compile a set with a range of all of Unicode.)
WORD: Final = r"[^\x00-#%-/:-@\[-\^`{-\x7f]"
NAME_START: Final = r"[^\x00-@\[-\^`{-\x7f]"
# A literal that ends at the same quote whether a backslash escapes or not; and one in which it does. Neither may end
# before a quote. (No possessive quantifiers around alternatives: Python 3.11.2 takes some of them wrong.)
_PLAIN = r"'[^'\\]*(?:(?:''|\\[^'])[^'\\]*)*'(?!')"
_ESCAPED = r"'[^'\\]*(?:(?:''|\\.)[^'\\]*)*'(?!')"
_NUMBER = rf"[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?(?!{WORD}|\.)"


def _nested(depth: int) -> str:
    inner = f"|{_nested(depth - 1)}" if depth else ""
    return rf"/\*(?:[^*/]|\*(?!/)|/(?!\*){inner})*\*/"


# Where something may begin that is not simply a word, a sign or white space, which to both is without \v.
_BEGINS: Final = {
    POSTGRES: re.compile(r"[^ \t\n\r\f!#%&()*+,.:;<=>?@A-Z\[\]^_a-z|~]"),
    MYSQL: re.compile(r"[^ \t\n\r\f!$%&()+,.:;<=>@A-Z\[\]^_a-z|~]"),
}
# What is there. `cut` characters before it belong to it.
_TOKENS: Final = {
    POSTGRES: rf"""(?P<literal>(?<![eExXbBnN&]){_PLAIN}
            |\$(?P<tag>(?:{NAME_START}(?:(?!\$){WORD})*)?)\$.*?\$(?P=tag)\$)
          | (?P<number>{_NUMBER})
          | (?P<cut1>(?<!{WORD}[eE])(?<=[eE]){_ESCAPED}|(?<!{WORD}[xXbBnN])(?<=[xXbBnN]){_PLAIN})
          | (?P<cut2>(?<!{WORD}[uU]&)(?<=[uU]&){_PLAIN})
          | (?P<glued>(?<=[eExXbBnN&]){_PLAIN})
          | (?P<parameter>\$[0-9]+(?!{WORD}))
          | (?P<name>(?<!&)"(?:[^"]|"")+")
          | (?P<comment>--[^\n\r]*|{_nested(4)})
          | (?P<sign>-|/(?!\*))
        """,
    MYSQL: rf"""(?P<literal>(?<![xXbBnN]){_ESCAPED}|"[^"\\]*(?:(?:""|\\.)[^"\\]*)*"(?!"))
          | (?P<number>0x[0-9A-Fa-f]+(?!{WORD}|\.)|0b[01]+(?!{WORD}|\.)|{_NUMBER})
          | (?P<cut1>(?<!{WORD}[xXbBnN])(?<=[xXbBnN]){_ESCAPED})
          | (?P<glued>(?<=[xXbBnN]){_ESCAPED})
          | (?P<parameter>\?)
          | (?P<name>`(?:[^`]|``)+`)
          | (?P<comment>--(?=[\x00-\x20\x7f]|\Z)[^\n]*|\#[^\n]*|/\*(?!!|M!).*?\*/)
          | (?P<minus>--)
          | (?P<version>/\*!(?:[0-9]{{5}}(?![0-9])|(?![0-9])))
          | (?P<end>\*/)
          | (?P<sign>-|\*|/(?!\*))
        """,
}


@cache
def _token_at(dialect: str) -> re.Pattern[str]:
    """Compiled with the first text that needs it."""
    return re.compile(_TOKENS[dialect], re.VERBOSE | re.DOTALL)


_WORD_RUN: Final = re.compile(rf"{WORD}+")
_WORD_BEFORE: Final = re.compile(WORD)
_NAME_DOT: Final = re.compile(rf"(?:{WORD}|[\"`])\.")

# What most statements are made of, in one pass: strings without a backslash, plain names in quotes, and the code
# between them, if that holds nothing that may begin anything else.
_SIMPLE_TOKENS: Final = {
    POSTGRES: re.compile(r"""('[^'\\]*'|"[A-Za-z_][A-Za-z0-9_]*")"""),
    MYSQL: re.compile(r"""('[^'\\]*'|`[A-Za-z_][A-Za-z0-9_]*`)"""),
}
_NOT_SIMPLE: Final = {
    POSTGRES: re.compile(r"['\"$\\`{}\x00-\x08\x0b\x0e-\x1f\x7f]"),
    MYSQL: re.compile(r"['\"#?\\`{}\x00-\x08\x0b\x0e-\x1f\x7f]"),
}
_SIMPLE_NUMBER: Final = re.compile(r"[0-9](?<![\w$.][0-9])[0-9]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![\w$.])", re.ASCII)
_NO_NUMBER: Final = re.compile(r"[0-9](?<![\w$][0-9])(?:[\w$.]|(?<!1)|(?<=\.1))", re.ASCII)
_GLUED: Final = re.compile(r"[\w$&]\Z", re.ASCII)

# MySQL's: all that is there is executed, or nothing.
_EXECUTED_OR_NOT: Final = re.compile(r"\s*/\*M?![0-9]{5,6}\s([^*/]*)\*/[\s;]*")

# What is set is said by words, which stay.
_SETS: Final = re.compile(r"\s*(?:/\*![0-9]*\s*)?set\s", re.IGNORECASE)
_WORDS: Final = re.compile(r"'[A-Za-z_,]*'")

# Rows of literals, and lists of them: how many there are makes no difference.
_LITERAL = r"[-+]?(?:'s'|1|null|true|false|default)"
_ROW = rf"\( ?{_LITERAL}(?: ?, ?{_LITERAL})* ?\)"
_ROWS: Final = re.compile(rf"({_ROW})(?: ?, ?{_ROW})+", re.IGNORECASE)
_VALUES: Final = re.compile(r"\bvalues? ?\(", re.IGNORECASE)
_LIST: Final = re.compile(rf"(\bin ?\( ?{_LITERAL})(?: ?, ?{_LITERAL})+(?= ?\))", re.IGNORECASE)
_STRINGS: Final = re.compile(r"'s'(?: ?'s')+")


class Doubtful(Exception):
    """The statement may be read in two ways, or not at all; `str()` says why in a few words."""


# Of what may begin something: goes on where a word was before it.
_IN_WORDS: Final = frozenset("$0123456789")


class _Shaper:
    """Reads one text from its beginning to its end."""

    __slots__ = ("keep", "odd_names", "parameters", "versions")

    def __init__(self, keep: bool) -> None:
        self.keep = keep
        self.parameters = 0
        self.odd_names = False
        self.versions = False

    def read(self, text: str, dialect: str) -> str:
        begins, token_at = _BEGINS[dialect].search, _token_at(dialect).match
        out: list[str] = []
        taken = at = 0
        while (begin := begins(text, at)) is not None:
            at = begin.start()
            if text[at] > "\x7f" or (at and _WORD_BEFORE.match(text, at - 1) and text[at] in _IN_WORDS):
                at = self._word(text, at)
                continue
            token = token_at(text, at)
            if token is None:
                raise Doubtful(f"{text[at]!a} may be read in several ways here")
            kind, at = token.lastgroup, token.end()
            if kind == "sign":
                continue
            if kind == "number" and at - len(token[0]) > 1 and _NAME_DOT.match(text, token.start() - 2):
                raise Doubtful("a name that begins with a digit")
            cut = 1 if kind == "cut1" else 2 if kind == "cut2" else 0
            out.append(text[taken : token.start() - cut])
            out.append("1" if kind == "number" else self._replace(kind or "", token[0]))
            taken = at
        out.append(text[taken:])
        return "".join(out)

    def _word(self, text: str, at: int) -> int:
        """The end of the word that goes on or begins here."""
        run = _WORD_RUN.match(text, at)
        if run is None or not (run[0].isascii() or all(letter.isascii() or letter.isalpha() for letter in run[0])):
            raise Doubtful("a sign that is not an ASCII one")
        return run.end()

    def _replace(self, kind: str, token: str) -> str:
        if kind in ("literal", "glued", "cut1", "cut2"):
            return token if self.keep and _WORDS.fullmatch(token) else "'s'"
        if kind == "name":
            return self._name(token)
        if kind == "comment":
            if self.versions and token.startswith("/*"):
                raise Doubtful("comments within each other")
            return " "
        if kind == "parameter":
            self.parameters += 1
            return f"`${self.parameters}`" if token == "?" else f'"{token}"'  # noqa: S105
        if kind == "minus":
            return "- -"
        return self._version(kind, token)

    def _version(self, kind: str, token: str) -> str:
        """The beginning or the end of a comment that servers execute."""
        if self.versions is (kind == "version"):
            raise Doubtful("comments within each other")
        if kind == "version" and token > f"/*!{EXECUTED_BELOW - 1}":
            raise Doubtful("a comment that only some servers execute")
        self.versions = kind == "version"
        return " "

    def _name(self, name: str) -> str:
        if ";" in name or name[1] == "$":
            raise Doubtful("a name that is no plain name")
        self.odd_names = self.odd_names or not name[1:-1].isidentifier()
        return name


def shape_of(text: str, dialect: str) -> str:
    """The text with `'s'` for every string (but words that are set), `1` for every number, a space for every comment,
    and parameters as quoted names: `"$1"`. Raises Doubtful."""
    if len(text) > MAX_TEXT:
        raise Doubtful(f"it is longer than {MAX_TEXT} characters")
    wholly = _EXECUTED_OR_NOT.fullmatch(text) if dialect == MYSQL and "/*" in text else None
    if wholly is not None:
        text = wholly[1]
    keep = _SETS.match(text) is not None or "set_config" in text
    shape = _simple_shape(text, dialect, keep) or _shape(text, dialect, keep)
    if len(shape) > MAX_SHAPE:
        raise Doubtful(f"it is longer than {MAX_SHAPE} characters without its values")
    return shape


def _simple_shape(text: str, dialect: str, keep: bool = False) -> str | None:
    """The shape of a text that has nothing of what takes care to read; None of any other."""
    parts = _SIMPLE_TOKENS[dialect].split(text)
    # With something between them that joins no two signs.
    code = text if len(parts) == 1 else "\n".join(parts[::2])
    if not code.isascii() or _NOT_SIMPLE[dialect].search(code) is not None:
        return None
    if "--" in code or "/*" in code or "*/" in code:
        return None
    for number in range(1, len(parts), 2):
        if _GLUED.search(parts[number - 1]) is not None:  # of a literal of another kind, or the second part of a name
            return None
        if parts[number][0] == "'" and not (keep and _WORDS.fullmatch(parts[number])):
            parts[number] = "'s'"
    shape = _SIMPLE_NUMBER.sub("1", text if len(parts) == 1 else "".join(parts))
    return None if _NO_NUMBER.search(shape) is not None else _shortened(shape)


def _shape(text: str, dialect: str, keep: bool = False) -> str:
    shaper = _Shaper(keep)
    shape = shaper.read(text, dialect)
    if shaper.versions:
        raise Doubtful("a comment without its end")
    if not shape.isascii() and any(
        letter.upper().isascii() or letter.lower().isascii() for letter in set(shape) if not letter.isascii()
    ):
        raise Doubtful("a letter that is nearly an ASCII one")
    return shape.strip() if shaper.odd_names else _shortened(shape)


def _shortened(shape: str) -> str:
    """Without the repetitions that come with values. Within quoted names must be nothing that looks like these."""
    if "'s''s'" in shape or "'s' 's'" in shape:
        shape = _STRINGS.sub("'s'", shape)
    folded = shape.lower()
    if "in (" in folded or "in(" in folded:
        shape = _LIST.sub(r"\1", shape)
    if "),(" in folded or "), (" in folded:
        values = _VALUES.search(shape)
        if values is not None:
            shape = shape[: values.end() - 1] + _ROWS.sub(r"\1", shape[values.end() - 1 :])
    return shape.strip()
