"""Step 4 of 6, inspect: names of people and of places, by a language model of this host's own.

Gets a whole text, hands on where names are in it. Nothing but a model tells names from other words, so these detectors
exist only where the extra `ner` is installed and a model configured, and no set holds them. Never fetches anything.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from enforcer.masking.errors import MaskError
from enforcer.masking.rows import Detector, everything

if TYPE_CHECKING:
    from spacy.language import Language

LONGEST: Final = 64 * 1024
"""Bytes of a text that is read: a second of a small model's work, in which a worker does nothing else."""

# What models call them: spaCy's of English and of most others.
_LABELS: Final = {
    "person_name": frozenset({"PERSON", "PER"}),
    "place": frozenset({"GPE", "LOC", "FAC"}),
}
ROWS: Final = tuple(
    Detector(
        name=name,
        candidates=(),
        reach=0,
        hide=everything,
        examples=(),
        counter_examples=(),
        source="the language model that is configured",
    )
    for name in _LABELS
)
NAMES: Final = frozenset(_LABELS)

# Signs of JSON, markup, forms and tables that stand between words without a blank: models take the whole for one word.
_GLUE: Final = re.compile(r"""\0|(?<=[^\s"{}\[\]<>=&|,;:])["{}\[\]<>=&|,;:]+(?=[^\s"{}\[\]<>=&|,;:])""")

Span = tuple[str, int, int]
"""A detector's name, and where what it found begins and ends, in bytes."""


class _Model:
    """The model that this process reads with: named once by its root, loaded when first needed."""

    name = ""


def use(model: str) -> None:
    """From now on `model` reads: a directory that spaCy wrote, or the name of an installed package; empty: none."""
    _Model.name = model


def missing(model: str, exists: bool) -> str:
    """What stands in the way of these detectors, in words; empty: nothing. `exists`: is `model` a directory?"""
    if find_spec("spacy") is None:
        return "needs a language model, and spaCy is not installed; pip install 'enforcer[ner]'"
    if not model:
        return "needs a language model; set language_model in enforcer.yaml to one of spaCy's"
    if not exists and (not model.isidentifier() or find_spec(model) is None):
        return f"needs the language model {model}, which is not there; correct language_model in enforcer.yaml"
    return ""


def load() -> None:
    """Loads the model. Raises MaskError where there is none."""
    _loaded(_Model.name)


def find(text: bytes) -> list[Span]:
    """The names in `text`. Raises MaskError where it is too long to be read."""
    if len(text) > LONGEST:
        raise MaskError(f"a text of more than {LONGEST >> 10} KiB cannot be searched for names; ask for less at a time")
    if not text:
        return []
    try:
        words, encoding = text.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        words, encoding = text.decode("latin-1"), "latin-1"
    found = []
    for entity in _loaded(_Model.name)(_GLUE.sub(_blanks, words)).ents:
        for name, labels in _LABELS.items():
            if entity.label_ in labels:
                start = len(words[: entity.start_char].encode(encoding))
                found.append((name, start, start + len(words[entity.start_char : entity.end_char].encode(encoding))))
    return found


def _blanks(match: re.Match[str]) -> str:
    return " " * len(match[0])


@lru_cache(maxsize=1)
def _loaded(model: str) -> Language:
    try:
        import spacy  # noqa: PLC0415 - large, and only where it is asked for
    except ImportError as error:
        raise MaskError(f"names cannot be found: {missing(model, exists=False)}") from error
    try:
        return spacy.load(model)
    except (OSError, ValueError) as error:
        raise MaskError(f"the language model {model or '(none)'} cannot be loaded; see language_model") from error
