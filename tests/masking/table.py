"""How examples in the detectors' table are written."""

from __future__ import annotations


def parsed(example: bytes) -> tuple[bytes, int, int]:
    """The text, and where its value begins and ends: between `<<` and `>>`, or behind `: `, or all of it."""
    if b"<<" in example:
        start, end = example.index(b"<<"), example.index(b">>") - 2
        return example.replace(b"<<", b"").replace(b">>", b""), start, end
    label = example.rfind(b": ")
    return example, label + 2 if label >= 0 else 0, len(example)
