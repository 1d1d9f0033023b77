"""JSON paths: the subset of RFC 9535 that policies may use."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.masking import jsonpath, members

# The bookstore of RFC 9535, section 1.5, shortened.
STORE = {
    "store": {
        "book": [
            {"title": "Sayings", "author": "Rees", "price": 8.95},
            {"title": "Sword", "author": "Waugh", "price": 12.99},
            {"title": "Moby", "author": "Melville", "isbn": "0-553", "price": 8.99},
        ],
        "bicycle": {"color": "red", "price": 399},
    }
}


def select(path: str, document: Any) -> list[Any]:
    found: list[Any] = []

    def note(value: Any) -> Any:
        found.append(value)
        return value

    assert jsonpath.apply(document, [jsonpath.parse(path)], note) == (document, 0)
    return found


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$.store.book[*].author", ["Rees", "Waugh", "Melville"]),
        ("$..author", ["Rees", "Waugh", "Melville"]),
        ("$.store.*", [STORE["store"]["book"], STORE["store"]["bicycle"]]),
        ("$.store..price", [8.95, 12.99, 8.99, 399]),
        ("$..book[2]", [STORE["store"]["book"][2]]),
        ("$..book[2].author", ["Melville"]),
        ("$..book[2].publisher", []),
        ("$..book[-1].isbn", ["0-553"]),
        ("$['store']['bicycle'].color", ["red"]),
        ('$["store"]["bicycle"]["color"]', ["red"]),
        ("$", [STORE]),
        ("$.store.book.title", []),
        ("$.store[0]", []),
        ("$.store.book[3]", []),
        ("$..bicycle[*]", ["red", 399]),
        ("$..['color']", ["red"]),
    ],
)
def test_rfc_examples(path: str, expected: list[Any]) -> None:
    """The examples of RFC 9535, table 2 (those in the subset), select what it says, whatever the order."""
    assert sorted(map(repr, select(path, STORE))) == sorted(map(repr, expected))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (r"$['it\'s']", "it's"),
        (r"""$['"']""", '"'),
        (r'$["\""]', '"'),
        (r"$['\u00e9']", "é"),
        (r"$['a b.c[0]']", "a b.c[0]"),
        (r"$['\\']", "\\"),
        ("$.größe", "größe"),
        ("$[ 'x' ]", "x"),
    ],
)
def test_names(path: str, name: str) -> None:
    """Quoted names take the escapes of RFC 9535, section 2.3.1."""
    assert select(path, {name: 1, "other": 2}) == [1]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "ssn",
        ".ssn",
        "$ssn",
        "$.",
        "$..",
        "$...a",
        "$.a-b",
        "$.1a",
        "$[",
        "$[]",
        "$[01]",
        "$[-0]",
        "$[1:2]",
        "$[?@.a]",
        "$['a]",
        "$['a\"]",
        "$.a b",
        "$.a.",
        r"$['\q']",
        "$[a]",
        "$[1,2]",
        "$.a ",
        "$$",
    ],
)
def test_bad_paths(path: str) -> None:
    """What is not understood is refused with the path in the message, never taken for something else."""
    with pytest.raises(ValueError, match="JSON path"):
        jsonpath.parse(path)


def test_replacing() -> None:
    """Selected values are replaced in place, and only changes count."""
    document = {"a": [{"ssn": "1"}, {"ssn": None}], "ssn": {"ssn": "2"}}
    hidden, changed = jsonpath.apply(document, [jsonpath.parse("$.a..ssn")], lambda _: None)
    assert (hidden, changed) == ({"a": [{"ssn": None}, {"ssn": None}], "ssn": {"ssn": "2"}}, 1)
    assert jsonpath.apply([1], [jsonpath.parse("$")], lambda _: "x") == ("x", 1)


def test_deep_documents() -> None:
    """A document deeper than Python's stack is walked all the same."""
    document: Any = {"ssn": "x"}
    for _ in range(5000):
        document = [document]
    assert jsonpath.apply(document, [jsonpath.parse("$..ssn")], lambda _: None)[1] == 1


def test_many_wildcards_stay_linear() -> None:
    """Descendants of descendants are visited once, not once per way that leads to them."""
    document: Any = "leaf"
    for _ in range(300):
        document = [document, document] if document == "leaf" else [document]
    assert jsonpath.apply(document, [jsonpath.parse("$" + "..*" * 6)], lambda value: value)[1] == 0


DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 10**9) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=40)
@given(DOCUMENTS, st.sampled_from([None, 1]))
def test_members_are_where_they_stand(document: Any, indent: int | None) -> None:
    """Each value of a document has a name, by which a path selects it alone, and stands where it is said to."""
    text = json.dumps(document, indent=indent).encode()
    spans = members.spans(text)
    every = {"$"}.union(*(members.selected(text, jsonpath.parse(path)) for path in ("$..*", "$")))
    assert set(spans) == every
    for name, (start, end) in spans.items():
        if "\\" not in name:
            assert members.selected(text, jsonpath.parse(name)) == [name]
        assert [json.loads(text[start:end])] == select(name, json.loads(text)) or "\\" in name
