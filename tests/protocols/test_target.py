"""Paths of request targets: one normal form, and no answer where two readers could differ."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.protocols.target import Ambiguous, parameters, plain_path


@pytest.mark.parametrize(
    ("sent", "normal"),
    [
        ("/", "/"),
        ("/v1/users/7", "/v1/users/7"),
        ("/v1/users/", "/v1/users/"),
        ("/v1/users?x=/../y", "/v1/users"),
        ("/%7Esmith/home", "/~smith/home"),
        ("/%61%2D%5f", "/a-_"),
        ("/a%c3%a9", "/a%C3%A9"),
        ("/a%3ab", "/a%3Ab"),
        ("/100%25", "/100%25"),
        ("/.well-known/a", "/.well-known/a"),
        ("/a/...", "/a/..."),
        ("/a.b/c:d@e!$&'()*+,=", "/a.b/c:d@e!$&'()*+,="),
    ],
)
def test_a_plain_path_has_one_form(sent: str, normal: str) -> None:
    """Unreserved characters are decoded, escapes in capitals, all else as it was sent (RFC 3986 section 6.2.2)."""
    assert plain_path(sent) == normal
    assert plain_path(normal) == normal


TRICKS = [
    "",
    "*",
    "a",
    "http://a/b",
    "/a/../b",
    "/a/..",
    "/./a",
    "//a",
    "/a//b",
    "/a//",
    "/a/%2e%2e/b",
    "/a/.%2E/b",
    "/a/%2e/b",
    "/a%2fb",
    "/a%2Fb",
    "/a\\b",
    "/a%5cb",
    "/a/..\\b",
    "/a;x=1/b",
    "/a/..;/b",
    "/a%3bx",
    "/a%00b",
    "/a%0d%0ab",
    "/a%7f",
    "/a%252e%252e%252fb",
    "/a%25252e",
    "/a%255cb",
    "/a%c0%ae%c0%ae/b",
    "/a%c0%afb",
    "/a%e0%80%af",
    "/a%f0%80%80%ae",
    "/a%ed%a0%80",
    "/a%ff",
    "/a%u002e%u002e/b",
    "/a%",
    "/a%2",
    "/a%zz",
    "/a%ef%bc%8e%ef%bc%8e/b",
    "/a%ef%bc%8fb",
    "/a%e2%80%a5/b",
    "/a%e2%80%8b/b",
    "/a%c2%85",
    "/a b",
    "/a\tb",
    "/a\u00e9",
    "/a#b",
]


@pytest.mark.parametrize("sent", TRICKS, ids=repr)
def test_a_path_that_may_be_read_in_two_ways_is_ambiguous(sent: str) -> None:
    """Dot segments, empty segments, parameters; dividers encoded, encoded twice, overlong, fullwidth or half."""
    with pytest.raises(Ambiguous):
        plain_path(sent)


PIECES = st.sampled_from(
    [
        "/",
        ".",
        "a",
        "B",
        "%2e",
        "%2E",
        "%2f",
        "%5C",
        "\\",
        ";",
        "%25",
        "2e",
        "%c0",
        "%ae",
        "%c3%a9",
        "%41",
        "%",
        "?",
        "#",
        " ",
    ]
)


@given(st.lists(PIECES, max_size=10).map(lambda pieces: "/" + "".join(pieces)))
def test_servers_that_decode_and_resolve_come_to_the_same_path(sent: str) -> None:
    """What is not ambiguous stays where it is: decoding once or twice and resolving dots changes no segment."""
    try:
        normal = plain_path(sent)
    except Ambiguous:
        return
    once = unquote_to_bytes(sent.partition("?")[0]).decode()
    twice = unquote_to_bytes(once).decode("utf-8", "replace")
    for read in (once, twice):
        assert read.count("/") == normal.count("/")
        assert posixpath.normpath(read).rstrip("/") == read.rstrip("/")
        assert "\\" not in read
    assert unquote_to_bytes(normal).decode() == once


@given(st.text(max_size=40))
def test_any_text_has_a_path_or_is_ambiguous(sent: str) -> None:
    """Nothing but Ambiguous is raised, and what comes out is ASCII without a query."""
    try:
        normal = plain_path(sent)
    except Ambiguous:
        return
    assert normal.isascii()
    assert normal.startswith("/")
    assert "?" not in normal


def test_parameters_of_a_query() -> None:
    """Decoded as forms are, in order, with duplicates; what cannot be decoded is ambiguous."""
    assert parameters("/a?x=1&y=%7Ba+b%7D&x=&z&=q") == [("x", "1"), ("y", "{a b}"), ("x", ""), ("z", ""), ("", "q")]
    assert parameters("/a") == []
    for malformed in ("/a?x=%", "/a?%zz=1", "/a?x=%ff"):
        with pytest.raises(Ambiguous):
            parameters(malformed)
