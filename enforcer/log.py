"""Logging for people who run the daemon: few lines, to standard error, never per request, never payload."""

from __future__ import annotations

import sys

from enforcer.lean import without

# It draws with rich where a host has it, and loads it at every start: 5 MB in each process, for nothing that is used.
with without("rich"):
    import structlog

get_logger = structlog.get_logger


def configure() -> None:
    """Key-value lines on a terminal, JSON lines elsewhere (journald, files)."""
    renderer = (
        # The plain traceback: the pretty one prints local variables, and with them what executors sent.
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer(sort_keys=True)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if sys.stderr.isatty() else [structlog.processors.format_exc_info]),
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
