"""Logs: to stderr, structured, with secrets taken out in one place."""

from __future__ import annotations

import re
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

_SECRET_KEYS = re.compile(r"(?i)(password|secret|private|passphrase|seed|mnemonic|api_?key|token|authorization)")
_URL_CREDENTIALS = re.compile(r"(?i)([a-z][a-z0-9+.-]*://)[^/@\s]+@")
_URL_PATH_KEYS = re.compile(r"(?i)(https?://[^\s/]+/)[^\s]*[0-9a-z_-]{20,}[^\s]*")
_LONG_HEX = re.compile(r"(?i)\b(?:0x)?[0-9a-f]{64}\b")
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def redact(text: str) -> str:
    """Text without credentials of an endpoint (user, password, key in the path)."""
    return _URL_PATH_KEYS.sub(r"\1<redacted>", _URL_CREDENTIALS.sub(r"\1<redacted>@", text))


def _redact_event(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in list(event.items()):
        if _SECRET_KEYS.search(key):
            event[key] = "<redacted>"
        elif isinstance(value, bytes):
            event[key] = "0x" + value.hex() if len(value) != 32 else f"0x{value.hex()[:12]}.."
        elif isinstance(value, str):
            event[key] = redact(value)
    return event


def make_logger(*, level: str = "warning", as_json: bool = False, stream: TextIO | None = None) -> Any:
    """A logger of its own (nothing global is configured): events with fields, one line each.

    Args:
        level: debug, info, warning or error.
        as_json: one JSON object a line; otherwise text for people.
        stream: where to; stderr by default.
    """
    lowest = LEVELS[level]

    def drop_below(logger: Any, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        del logger
        if LEVELS.get(name, 50) < lowest:
            raise structlog.DropEvent
        return event

    renderer: Any = structlog.processors.JSONRenderer() if as_json else structlog.processors.LogfmtRenderer()
    return structlog.wrap_logger(
        structlog.PrintLogger(stream or sys.stderr),
        processors=[
            drop_below,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _redact_event,
            renderer,
        ],
        wrapper_class=structlog.BoundLogger,
    )
