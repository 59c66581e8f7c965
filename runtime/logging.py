"""JSON log lines on stderr. Never a spec, a secret or a body: a line names resources and positions only (I6)."""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from typing import TextIO, cast

import structlog


class LossyStream:
    """A text stream that drops what it cannot write: a full disk or a closed pipe must never stop a role."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def configure_logging(role: str, zone: str, level: str = "info") -> None:
    """Set up structlog for one role's process; standard-library loggers (uvicorn, grpc) only pass warnings."""
    stream = LossyStream(sys.stderr)
    logging.basicConfig(
        stream=cast(TextIO, stream), level=logging.WARNING, format='{"level":"warning","event":"%(message)s"}'
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, stream)),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(role=role, zone=zone)


def where(error: BaseException) -> str:
    """`file:line` an error came from: what may be logged of an error whose text may hold configuration (I6)."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown"
