"""Techniques that send on every interface: one that is down, as a module's own are, hides no way by another."""

from __future__ import annotations

import socket

import pytest

from enforcer.probe.inside import packets
from enforcer.probe.inside.kit import each_interface


def test_an_interface_that_refuses_does_not_end_the_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those after it are tried; only where none took it is the last failure told."""
    tried = []

    def send(index: int, name: str) -> None:
        tried.append(index)
        if name == "down":
            raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "down"), (3, "up")])
    each_interface(send)
    assert tried == [1, 2, 3]
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(2, "down")])
    with pytest.raises(OSError, match="unreachable"):
        each_interface(send)


@pytest.mark.kernel
def test_no_xdp_on_an_interface_is_a_refusal() -> None:
    """An interface that takes none, here one that is not there, is told as such, and the shared memory is closed."""
    with pytest.raises(OSError, match="bind"):
        packets._send_by_xdp(0x7FFFFFFF, bytes(60))
