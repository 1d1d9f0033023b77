"""Step 4 of 6, inspect: a Redis command as it is recorded, and the words of a refusal.

Gets a command's arguments; hands on one line in the spelling of redis-cli, without the credentials among them. What is
left out never depends on policy: credentials are in no record.
"""

from __future__ import annotations

import re
from typing import Final

from enforcer.protocols.redis.commands import Command
from enforcer.verdict import Denial

TEXT_LIMIT: Final = 4096
"""Characters of a command that are recorded: enough to recognise it, and a row stays a row."""
ARGUMENTS_SHOWN: Final = 512
"""Arguments that are looked at for that."""
HIDDEN: Final = b"(hidden)"

_PLAIN: Final = re.compile(rb"[!#-&(-\[\]-~]+")
"""An argument that needs no quotes."""
_PLAIN_LINE: Final = re.compile(rb"[!#-&(-\[\]-~]+(?: [!#-&(-\[\]-~]+)*")
_QUOTED: Final = {ord('"'): '\\"', ord("\\"): "\\\\", 10: "\\n", 13: "\\r", 9: "\\t", 7: "\\a", 8: "\\b"}
_SECRET_NAMES: Final = re.compile(rb"pass|auth|secret|masteruser|user", re.IGNORECASE)
_PASSWORD_RULE: Final = (b">", b"<", b"#", b"!")
"""What a password begins with among the rules of ACL SETUSER."""
_UNCERTAIN_TAIL: Final = re.compile(r"[\w.%+'@ -]{1,400}\Z")
"""What a recorded beginning must not end in: a part of a value would not be recognised, and so not be masked."""


def describe(command: Command, args: list[bytes]) -> str:
    """`SET key "a value"`, at most TEXT_LIMIT characters. Credentials are replaced."""
    shown = without_credentials(command, args[:ARGUMENTS_SHOWN])
    if len(args) <= ARGUMENTS_SHOWN:
        joined = b" ".join(shown)
        if len(joined) <= TEXT_LIMIT and _PLAIN_LINE.fullmatch(joined) and joined.count(b" ") == len(args) - 1:
            return joined.decode("ascii")  # the usual case
    parts: list[str] = []
    size = 0
    for arg in shown:
        parts.append(spelt(arg[:TEXT_LIMIT]))
        size += len(parts[-1]) + 1
        if size > TEXT_LIMIT or len(arg) > TEXT_LIMIT:
            break
    text = " ".join(parts)
    if len(parts) == len(args) and size <= TEXT_LIMIT + 1 and len(shown[-1]) <= TEXT_LIMIT:
        return text
    return _UNCERTAIN_TAIL.sub("", text[:TEXT_LIMIT]) + "…"


def spelt(arg: bytes) -> str:
    """One argument: as it is, or in quotes with escapes where it is empty, has blanks or is no text."""
    if _PLAIN.fullmatch(arg):
        return arg.decode("ascii")
    try:
        text = arg.decode("utf-8")
    except UnicodeDecodeError:
        return '"' + "".join(_QUOTED.get(c) or (chr(c) if 32 <= c < 127 else f"\\x{c:02x}") for c in arg) + '"'
    plain = "".join(_QUOTED.get(ord(c)) or (c if c.isprintable() else _escaped(c)) for c in text)
    return plain if plain == text and " " not in text and text else f'"{plain}"'


def _escaped(character: str) -> str:
    return "".join(f"\\x{c:02x}" for c in character.encode("utf-8"))


def without_credentials(command: Command, args: list[bytes]) -> list[bytes]:
    """`args` with the passwords in them replaced."""
    hide = _HIDE.get(command.name.partition(" ")[0])
    return args if hide is None else hide(command, args)


def _auth(_command: Command, args: list[bytes]) -> list[bytes]:
    """AUTH [user] password."""
    return args[:2] + [HIDDEN] * (len(args) - 2) if len(args) > 2 else args[:1] + [HIDDEN] * (len(args) - 1)


def _after_auth(_command: Command, args: list[bytes]) -> list[bytes]:
    """HELLO 3 AUTH user password, MIGRATE ... AUTH password, MIGRATE ... AUTH2 user password."""
    shown = list(args)
    for at, word in enumerate(args):
        named = word.upper() == b"AUTH2" or (word.upper() == b"AUTH" and args[0].upper() == b"HELLO")
        if word.upper() in (b"AUTH", b"AUTH2"):
            place = at + (2 if named else 1)
            if place < len(shown):
                shown[place] = HIDDEN
    return shown


def _setuser(command: Command, args: list[bytes]) -> list[bytes]:
    """ACL SETUSER name rule ...; a rule in quotes or parts is taken for a password as well where it begins as one."""
    if command.name != "ACL SETUSER":
        return args
    return [HIDDEN if place > 2 and arg.lstrip()[:1] in _PASSWORD_RULE else arg for place, arg in enumerate(args)]


def _settings(_command: Command, args: list[bytes]) -> list[bytes]:
    """CONFIG SET name value ..., SENTINEL SET master name value: what follows a name that speaks of secrets."""
    shown = list(args)
    for place in range(2, len(args) - 1):
        if _SECRET_NAMES.search(args[place]):
            shown[place + 1] = HIDDEN
    return shown


_HIDE: Final = {
    "AUTH": _auth,
    "HELLO": _after_auth,
    "MIGRATE": _after_auth,
    "ACL": _setuser,
    "CONFIG": _settings,
    "SENTINEL": _settings,
}


def refusal_line(denial: Denial) -> bytes:
    """A refusal in one line: what, where and why, and how to ask. `ERR` where policy allowed it."""
    if denial.unreachable:
        text = f"ERR {denial.title}"
    else:
        text = f"NOPERM {denial.title} ({denial.explanation}); {denial.how_to_ask}"
    return b"-" + text.encode("utf-8", "replace").replace(b"\r", b" ").replace(b"\n", b" ") + b"\r\n"
