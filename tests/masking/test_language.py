"""Names of people and places: with a model where there is one, and never silently without."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.config import Settings
from enforcer.errors import ConfigError, PolicyError
from enforcer.masking import language
from enforcer.masking.errors import MaskError
from enforcer.masking.masker import Masker
from enforcer.policy.loader import read_policy
from enforcer.supervisor.generation import read_content, vocabulary
from enforcer.verdict import MaskSpec

POLICY = """\
policy: letters
rules:
  - name: all
    to: {region: [EEA]}
    action: allow
    mask: {response: [email, person_name]}
"""
SPEC = MaskSpec(("email", "credit_card", "person_name", "place"))
HAS_SPACY = importlib.util.find_spec("spacy") is not None


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """No test leaves its model to the next."""
    yield
    language.use("")


def faults(settings: Settings) -> list[str]:
    path = settings.root / "letters.yaml"
    path.write_text(POLICY)
    with pytest.raises(PolicyError) as caught:
        read_policy(path, vocabulary(settings))
    return caught.value.faults


def test_without_spacy_a_policy_with_names_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line at the check, the start and the reload, which all read policies like this, says what to install."""
    monkeypatch.setattr(language, "find_spec", lambda _name: None)
    (fault,) = faults(Settings(root=tmp_path, language_model=str(tmp_path)))
    assert fault.endswith(
        "letters.yaml:6: rules[0].mask.response[1]: 'person_name' needs a language model, and spaCy is not installed; "
        "pip install 'enforcer[ner]'"
    )


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("", "needs a language model; set language_model in enforcer.yaml to one of spaCy's"),
        ("/no/such", "needs the language model /no/such, which is not there; correct language_model in enforcer.yaml"),
        ("no.such.model", "needs the language model no.such.model, which"),
        ("no_such_model", "needs the language model no_such_model, which is not there; correct language_model"),
    ],
)
def test_without_a_model_a_policy_with_names_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, words: str
) -> None:
    """The extra alone finds nothing."""
    monkeypatch.setattr(language, "find_spec", lambda name: name if name == "spacy" else None)
    (fault,) = faults(Settings(root=tmp_path, language_model=model))
    assert words in fault


def test_without_a_model_nothing_is_masked_silently(tmp_path: Path) -> None:
    """A masker that was asked for names does not come to be where they cannot be found."""
    language.use(str(tmp_path))
    with pytest.raises(MaskError, match=r"spaCy is not installed|cannot be loaded; see language_model"):
        Masker(SPEC)


def test_records_cannot_have_them(tmp_path: Path) -> None:
    """What is recorded is masked at every request, where no model has the time to read."""
    with pytest.raises(ConfigError, match="record_mask: unknown detector 'place'"):
        read_content(Settings(root=tmp_path, record_mask=("place",)))


# --- with a model


class Entity:
    """What spaCy says of one."""

    def __init__(self, text: str, word: str, label: str) -> None:
        self.start_char = text.index(word)
        self.end_char = self.start_char + len(word)
        self.label_ = label


class Words:
    """A model that knows three names, and reads like one of spaCy's."""

    KNOWN = (("Jürgen Groß", "PER"), ("Ada Lovelace", "PERSON"), ("Zürich", "GPE"), ("Acme", "ORG"))

    def __call__(self, text: str) -> Words:
        self.ents = [Entity(text, word, label) for word, label in self.KNOWN if word in text]
        return self


@pytest.fixture
def masker(monkeypatch: pytest.MonkeyPatch) -> Masker:
    """Masks by that model, without spaCy."""
    model = Words()
    monkeypatch.setattr(language, "_loaded", lambda _name: model)
    return Masker(MaskSpec(("email", "person_name", "place")))


def stars(word: str) -> str:
    return " ".join("*" * len(part.encode()) for part in word.split(" "))


@pytest.mark.parametrize("pieces", [1, 3, 40])
@pytest.mark.parametrize("media", ["text/plain", "application/json", "text/html"])
def test_names_are_hidden_beside_other_values(masker: Masker, media: str, pieces: int) -> None:
    """What the model finds is a value like others, counted by its detector, in texts of any cut."""
    text = '{"to": "Jürgen Groß, Zürich", "mail": "ada@example.org", "by": "Acme", "n": 5}'.encode()
    counts: Counter[str] = Counter()
    mask, size = masker.text(media), -(-len(text) // pieces)
    out = b"".join(mask.feed(text[at : at + size], at + size >= len(text), counts) for at in range(0, len(text), size))
    expected = text.decode().replace("Jürgen Groß", stars("Jürgen Groß")).replace("Zürich", stars("Zürich"))
    assert out.decode() == expected.replace("ada@", "***@")
    assert counts == {"person_name": 1, "place": 1, "email": 1}


def test_names_in_rows_and_spellings(masker: Masker) -> None:
    """Each cell is read by itself; percent-encoding hides no name."""
    counts: Counter[str] = Counter()
    cells: list[bytes | None] = [b"1", b"Ada Lovelace", b"by Ada%20Lovelace", None]
    row = masker.rows(("id", "name", "note", "x"), cells, (False,) * 4, counts)
    assert row == [b"1", b"*** ********", b"by ***%20********", None]
    assert counts == {"person_name": 2}


class Tokens(Words):
    """The same, of one that takes what no blank parts for one word."""

    def __call__(self, text: str) -> Words:
        read = " ".join(word.strip('"{}[]<>.,;') for word in text.split())
        self.ents = [Entity(text, word, label) for word, label in self.KNOWN if f" {word} " in f" {read} "]
        return self


@pytest.mark.parametrize(
    "text",
    [
        '{"to":"Ada Lovelace","of":["Zürich"]}',
        "<tr><td>Ada Lovelace</td><td>Zürich</td></tr>",
        "id,name,town\n1,Ada Lovelace,Zürich\n",
        "name=Ada Lovelace&town=Zürich",
        'She said: "I, Ada Lovelace, am in Zürich."',
    ],
)
def test_names_are_read_apart_from_what_frames_them(text: str, masker: Masker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of JSON, markup and tables do not run into names: a model would take them for one word."""
    monkeypatch.setattr(language, "_loaded", lambda _name: Tokens())
    masked = masker.mask(text.encode(), Counter()).decode()
    assert masked == text.replace("Ada Lovelace", "*** ********").replace("Zürich", stars("Zürich"))


def test_longer_texts_are_refused(masker: Masker) -> None:
    """What the model could not read in time does not pass unread, whole or in pieces."""
    with pytest.raises(MaskError, match="names"):
        masker.mask(b"a" * (language.LONGEST + 1), Counter())
    mask = masker.text("text/plain")
    assert mask.feed(b"a " * (language.LONGEST // 2), False, Counter()) == b""
    with pytest.raises(MaskError, match="names"):
        mask.feed(b"a", True, Counter())


@pytest.mark.full
@pytest.mark.skipif(not HAS_SPACY, reason="needs the extra ner")
def test_a_pipeline_of_spacy(tmp_path: Path) -> None:
    """A real pipeline, written to disk and named in the configuration: the policy is right, and names are hidden."""
    import spacy

    made = spacy.blank("en")
    ruler = made.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "PERSON", "pattern": "Ada Lovelace"}, {"label": "GPE", "pattern": "London"}])
    made.to_disk(tmp_path / "model")
    settings = Settings(root=tmp_path, language_model=str(tmp_path / "model"))
    (tmp_path / "letters.yaml").write_text(POLICY)
    (rule,) = read_policy(tmp_path / "letters.yaml", vocabulary(settings)).policy.rules
    assert rule.mask.detectors == ("email", "person_name")
    language.use(settings.language_model)
    counts: Counter[str] = Counter()
    masked = Masker(SPEC).mask(b"Ada Lovelace of London, ada@example.org, 4111111111111111", counts)
    assert masked == b"*** ******** of ******, ***@example.org, ************1111"
    assert counts == {"person_name": 1, "place": 1, "email": 1, "credit_card": 1}
