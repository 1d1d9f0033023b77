"""Every fuzz target by name: a new one adds its line here, and `make fuzz` and `make test` feed it."""

from __future__ import annotations

from tests.fuzz import (
    client_hello,
    dns_answers,
    dns_questions,
    http1_requests,
    http1_responses,
    http2_requests,
    http2_responses,
    mongodb,
    mysql,
    postgres,
    redis,
    websocket,
)

_MODULES = (
    http1_requests,
    http1_responses,
    http2_requests,
    http2_responses,
    client_hello,
    postgres,
    mongodb,
    mysql,
    redis,
    websocket,
    dns_questions,
    dns_answers,
)
TARGETS = {module.TARGET.name: module.TARGET for module in _MODULES}
