"""Pseudonyms of executors: shared by workers, sealed at rest, bounded, and forgotten in time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from enforcer.masking.errors import MaskError
from enforcer.masking.keys import Key, Keys
from enforcer.masking.pseudonyms import Entry
from enforcer.proxy import vaults
from enforcer.proxy.vaults import ExecutorVault, Store

KEYS = Keys((Key(b"k" * 32),))
VALUE = "anna@example.org"
HOUR = 3600


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def worker(tmp_path: Path, clock: Clock) -> Callable[..., Store]:
    """Makes the store of one more worker, as the supervisor opens it for each."""

    def make(keys: Keys = KEYS) -> Store:
        descriptor = os.open(tmp_path / "sealed", os.O_RDWR | os.O_CREAT, 0o600)
        store = Store(descriptor, clock)
        store.keys = keys
        return store

    return make


def put(vault: ExecutorVault, value: str, kind: str = "EMAIL") -> str:
    return vault.pseudonym(kind, value, lambda number: f"{kind}_{number}")


def test_workers_share_pseudonyms_and_a_new_one_finds_them(worker: Callable[..., Store], tmp_path: Path) -> None:
    """Two workers give the same value the same name and different values different ones; a third reads them all; no
    value lies readable in the file."""
    first, second = (worker().vault("agent-1", HOUR) for _ in range(2))
    assert [put(first, VALUE), put(second, "b@example.org"), put(second, VALUE)] == ["EMAIL_1", "EMAIL_2", "EMAIL_1"]
    assert put(first, VALUE, "NAME") == "NAME_3"
    third = worker().vault("agent-1", HOUR)
    assert third.entry(1) == Entry("EMAIL_1", VALUE)
    assert third.highest() == 3
    assert second.entry(3) == Entry("NAME_3", VALUE)
    raw = (tmp_path / "sealed").read_bytes()
    assert b"anna" not in raw
    assert b"agent-1" not in raw


def test_executors_do_not_see_each_other(worker: Callable[..., Store]) -> None:
    """A pseudonym of one executor stands for nothing in another."""
    store = worker()
    put(store.vault("agent-1", HOUR), VALUE)
    assert store.vault("agent-2", HOUR).entry(1) is None
    assert put(store.vault("agent-2", HOUR), "b@example.org") == "EMAIL_1"


def test_what_has_expired_is_forgotten(worker: Callable[..., Store], clock: Clock, tmp_path: Path) -> None:
    """After its time a pseudonym stands for nothing, and leaves the file; in its second half a value gets another."""
    store, other = worker(), worker()
    vault = store.vault("agent-1", HOUR)
    put(vault, VALUE)
    clock.now += HOUR * 0.6
    assert put(vault, VALUE) == "EMAIL_2"
    assert vault.entry(1) == Entry("EMAIL_1", VALUE)
    clock.now += HOUR * 0.6
    assert vault.entry(1) is None
    size = (tmp_path / "sealed").stat().st_size
    store.purge()
    assert (tmp_path / "sealed").stat().st_size < size
    assert other.vault("agent-1", HOUR).entry(2) == Entry("EMAIL_2", VALUE)
    assert put(other.vault("agent-1", HOUR), "c@example.org") == "EMAIL_3"
    assert vault.entry(3) == Entry("EMAIL_3", "c@example.org")


def test_a_forgotten_pseudonym_is_given_to_nobody(worker: Callable[..., Store], clock: Clock, tmp_path: Path) -> None:
    """Who wrote it down long ago must not be told another's value for it: numbers go on in every worker, with all that
    they stood for gone, for thirty days."""
    store, other = worker(), worker()
    for value in (VALUE, "b@example.org"):
        put(store.vault("agent-1", HOUR), value)
    put(other.vault("agent-2", HOUR), VALUE)
    clock.now += 2 * HOUR
    store.purge()
    size = (tmp_path / "sealed").stat().st_size
    store.purge()
    assert (tmp_path / "sealed").stat().st_size == size
    assert put(other.vault("agent-1", HOUR), "c@example.org") == "EMAIL_3"
    assert put(worker().vault("agent-2", HOUR), VALUE) == "EMAIL_2"
    assert [store.vault("agent-1", HOUR).entry(number) for number in (1, 2)] == [None, None]
    clock.now += vaults.REMEMBERED + 2 * HOUR
    store.purge()
    assert put(worker().vault("agent-1", HOUR), VALUE) == "EMAIL_1"


def test_a_full_vault_refuses(worker: Callable[..., Store], clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its bound nothing is let through, until something has expired."""
    monkeypatch.setattr(vaults, "LIMIT", 2)
    vault = worker().vault("agent-1", HOUR)
    assert [put(vault, "a"), put(vault, "b")] == ["EMAIL_1", "EMAIL_2"]
    with pytest.raises(MaskError, match="no room"):
        put(vault, "c")
    clock.now += 2 * HOUR
    assert put(vault, "c") == "EMAIL_3"


def test_keys_that_were_rotated_open_what_they_sealed(worker: Callable[..., Store]) -> None:
    """With another key in front, old pseudonyms still open; without theirs, they are gone."""
    put(worker().vault("agent-1", HOUR), VALUE)
    rotated = Keys((Key(b"n" * 32), *KEYS.keys))
    assert worker(rotated).vault("agent-1", HOUR).entry(1) == Entry("EMAIL_1", VALUE)
    assert worker(Keys(rotated.keys[:1])).vault("agent-1", HOUR).entry(1) is None


def test_a_damaged_file_refuses(worker: Callable[..., Store], tmp_path: Path) -> None:
    """One changed byte, and nothing is taken for a pseudonym's value; what a dying worker left in part is written
    over."""
    put(worker().vault("agent-1", HOUR), VALUE)
    path = tmp_path / "sealed"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[16:40])
    assert put(worker().vault("agent-1", HOUR), "b@example.org") == "EMAIL_2"
    assert worker().vault("agent-1", HOUR).entry(2) == Entry("EMAIL_2", "b@example.org")
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(MaskError, match="damaged"):
        worker().vault("agent-1", HOUR).entry(1)


def test_a_file_that_cannot_be_written_refuses(tmp_path: Path, clock: Clock) -> None:
    """Without room to keep a pseudonym, the message does not go."""
    (tmp_path / "sealed").write_bytes(b"h" * 16)
    store = Store(os.open(tmp_path / "sealed", os.O_RDONLY), clock)
    store.keys = KEYS
    with pytest.raises(MaskError, match="cannot be used"):
        put(store.vault("agent-1", HOUR), VALUE)
