"""Compressed and encrypted bytes pass as they are. Values in texts, and in binary forms, do not."""

from __future__ import annotations

import gzip
import random
import zlib
from collections import Counter

import pytest

from enforcer.masking.masker import masker_for
from enforcer.verdict import MaskSpec

MASKER = masker_for(MaskSpec(("credit_card", "iban", "email")))
# Bytes of noise. Before noise was told from text, some 18 values in each MB were found in it.
SIZE = 1 << 20


def masked(data: bytes) -> tuple[bytes, Counter[str]]:
    counts: Counter[str] = Counter()
    return MASKER.text("application/octet-stream").feed(data, True, counts), counts


@pytest.mark.parametrize("noise", ["random", "deflated"])
def test_noise_is_not_changed(noise: str) -> None:
    """A download that holds no text comes out byte for byte."""
    chance = random.Random(7)
    data = chance.randbytes(SIZE)
    if noise == "deflated":
        words = [chance.randbytes(chance.randrange(2, 9)).hex().encode() for _ in range(5000)]
        data = zlib.compress(b" ".join(chance.choices(words, k=SIZE // 4)), 9)
    out, counts = masked(data)
    assert counts == {}
    assert out == data


@pytest.mark.parametrize(
    ("words", "charset"),
    [
        ("Grüße an die Käufer, schöne Tage für Übermorgen: ", "latin-1"),
        ("Gr\u00fc\u00dfe \u2013 \u201esch\u00f6ne\u201c Tage\u2026: ", "cp1252"),
        ("Напишите нам сегодня же, адрес для писем: ", "cp1251"),
        ("Γράψτε μας σήμερα κιόλας στη διεύθυνση: ", "iso8859-7"),
        ("เขียนถึงเราวันนี้ที่อยู่อีเมลของเรา ", "iso8859-11"),
        ("Напишите нам сегодня же, адрес для писем: ", "utf-8"),
    ],
)
def test_texts_are_read_in_whatever_character_set(words: str, charset: str) -> None:
    """Letters beyond ASCII all around do not hide an address."""
    out, counts = masked((words * 4).encode(charset) + b" ada@example.org " + (words * 4).encode(charset))
    assert b"ada@" not in out
    assert counts["email"] == 1


def test_values_in_binary_forms_are_found() -> None:
    """Short fields with tags, lengths and numbers between them, as in protocol buffers, and strings that end with
    NUL."""
    fields = b"".join(
        bytes((number << 3 | 2, 15)) + b"ada@example.org" + bytes((number << 3, 150, 1)) for number in range(1, 9)
    )
    out, counts = masked(fields)
    assert counts["email"] == 8
    assert b"ada@" not in out
    assert masked(b"\0\0\x10\0ada@example.org\0\0\x11\0\0")[1]["email"] == 1


def test_what_is_stored_in_an_archive_uncompressed_is_found() -> None:
    """Level 0 of deflate keeps a text as it is."""
    out, counts = masked(gzip.compress(b"name,mail\nAda,ada@example.org\n", 0))
    assert counts["email"] == 1
    assert b"ada@" not in out
