"""The corpus of request smuggling: what of each case goes upstream, and what real servers take that for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz import readers, smuggling
from tests.fuzz.http1_requests import Played, play
from tests.fuzz.readers import Reader
from tests.fuzz.smuggling import Case

CASES = {case.name: case for case in smuggling.cases()}
END = "/end-of-the-case"
GONE = "and then no more"
SENTINEL = f"GET {END} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with readers.nginx(tmp_path_factory.mktemp("nginx")) as running:
        yield running


@pytest.fixture(scope="module")
def haproxy(nginx: Reader, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with readers.haproxy(tmp_path_factory.mktemp("haproxy"), nginx.port) as running:
        yield running


def test_the_corpus_is_one() -> None:
    """At least eighty cases, each with a name of its own, a technique and where it was published."""
    assert len(smuggling.cases()) == len(CASES) >= 80
    assert all(case.technique and case.source and case.raw for case in CASES.values())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_goes_upstream(case: Case) -> None:
    """The requests that the case is said to be, whole, however it is cut; the rest is refused with our 400."""
    for step in (0, 1, 7):
        played = play(case.raw, step, 0)
        assert tuple(f"{one.method} {one.target}" for one in played.server.messages) == case.upstream
        judged = [request.text for request in played.requests]
        assert played.refused or len(judged) == len(case.upstream)
        assert (b"HTTP/1.1 400 Bad Request\r\n" in played.to_client) == played.refused


def disagreements(reader: Reader) -> dict[str, tuple[list[str], list[str]]]:
    """Cases of which the reader takes what we send on for other requests than were judged: (judged, read)."""
    found = {}
    for case in CASES.values():
        played = play(case.raw, 0, 0)
        if played.server.received:
            judged, read = [request.text for request in played.requests], _read(reader, played)
            if read not in (judged, judged[: len(played.server.messages)]):
                found[case.name] = (judged, read)
    return found


def _read(reader: Reader, played: Played) -> list[str]:
    """Behind what is whole comes one request more, which has to be read as well: so nothing was left over."""
    cut_short = played.server.unfinished is not None
    last = not cut_short and b"close" in played.server.messages[-1].head.values(b"connection")
    follows = b"" if cut_short or last else SENTINEL
    read = reader.reads(played.server.received + follows, ended=cut_short)
    if not follows:
        return read
    return read[:-1] if read[-1:] == [f"GET {END}"] else [*read, GONE]


def test_nginx_reads_what_was_judged(nginx: Reader) -> None:
    """Of every case: the same requests, in the same order, and nothing beside them."""
    found = disagreements(nginx)
    # It refuses an encoded NUL and TRACE, and closes.
    assert found.pop("encoded-nul")[1] == ["GET /encoded-nul%00", GONE]
    assert found.pop("trace-body")[1] == ["TRACE /trace-body", GONE]
    assert found == {}


def test_haproxy_reads_what_was_judged(haproxy: Reader) -> None:
    """The same for HAProxy, which has to find the end of every body to go on."""
    found = disagreements(haproxy)
    # It refuses field names that long since they once overflowed it.
    assert found.pop("cl-header-overflow")[1] == ["<BADREQ> <BADREQ>", GONE]
    assert found == {}
