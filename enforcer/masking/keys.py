"""Step 4 of 6, inspect: the secret keys of a deployment, by which values become the same token again and again.

Gets keys as they lie in their file; hands on HMACs with the id of the key in front, and keys for what is sealed. Pure.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

KEY_BYTES: Final = 32
_ID_DIGITS: Final = 6
_SHOWN_DIGITS: Final = 32
"""128 bits of an HMAC: nobody finds two values with the same ones."""


@dataclass(frozen=True, slots=True)
class Key:
    """`secret`: 32 bytes of chance. `ident`: six hexadecimal digits, which tell nothing of it."""

    secret: bytes

    @property
    def ident(self) -> str:
        return hashlib.sha256(b"enforcer mask key id" + self.secret).hexdigest()[:_ID_DIGITS]

    def derived(self, purpose: str) -> bytes:
        """A key of 32 bytes for this purpose and no other."""
        return hmac.digest(self.secret, b"enforcer " + purpose.encode(), "sha256")

    def token(self, value: bytes) -> str:
        """`hmac-KEYID-...`: of the same value always the same."""
        digest = hmac.digest(self.derived("mask hmac"), value, "sha256").hex()
        return f"hmac-{self.ident}-{digest[:_SHOWN_DIGITS]}"


@dataclass(frozen=True, slots=True)
class Keys:
    """The key in use first, then those before it, which open what was sealed with them."""

    keys: tuple[Key, ...] = ()

    @classmethod
    def parse(cls, lines: Iterable[str]) -> Keys:
        """One key per line, 64 hexadecimal digits. Raises ValueError with the number of a line that is none."""
        keys = []
        for number, line in enumerate(lines, 1):
            digits = line.strip()
            if not digits:
                continue
            try:
                secret = bytes.fromhex(digits)
            except ValueError:
                secret = b""
            if len(secret) != KEY_BYTES:
                raise ValueError(f"line {number} is not a key of {2 * KEY_BYTES} hexadecimal digits")
            keys.append(Key(secret))
        return cls(tuple(dict.fromkeys(keys)))

    def lines(self) -> list[str]:
        return [key.secret.hex() for key in self.keys]
