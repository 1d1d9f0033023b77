"""A loop that a test drives step by step, as the supervisor's own never stands still."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE = 10.0
"""Seconds any condition may take; generous, for busy machines."""


class Loop:
    """`call` runs one callback inside; `until` lets time pass. Errors that nobody handles are in `faults`."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.faults: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _loop, context: self.faults.append(context))

    def make(self, factory: Callable[[], Any]) -> Any:
        """What `factory` makes, inside the running loop."""

        async def run() -> Any:
            return factory()

        return self.loop.run_until_complete(run())

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        self.make(lambda: function(*arguments))
        self.until(lambda: True)

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            self.loop.run_until_complete(asyncio.sleep(0.002))
            if condition():
                return
            assert time.monotonic() < deadline, "it never came to that"


@contextmanager
def driven() -> Iterator[Loop]:
    loop = Loop()
    try:
        yield loop
        assert not loop.faults, f"errors that nobody handled: {loop.faults}"
    finally:
        loop.loop.run_until_complete(loop.loop.shutdown_default_executor())
        loop.loop.close()
