"""The errors of the product, split by what the caller should do.

    RelayerError
    |-- Rejected     the input is wrong: record the reason, drop it, blame its source
    |-- Conflict     two statements exclude each other: freeze that chain or peer, tell a human
    `-- Unavailable  could not find out: bounded back-off, resume from the store

Anything else that is raised is our own bug: the process stops and restarts from the store.
"""

from __future__ import annotations


class RelayerError(Exception):
    """Base of the three named errors; carries what was got and what was expected.

    Args:
        what: one sentence that says what happened and, where one exists, what to do next.
        got: the offending value (shortened in the message).
        expected: what would have been right.
        reason: stable machine-readable word, for records and tests (for example ``"bad_signature"``).
        source: who supplied the input (endpoint, operator, file), where known.
    """

    def __init__(
        self, what: str, *, got: object = None, expected: object = None, reason: str = "", source: str = ""
    ) -> None:
        self.what = what
        self.got = got
        self.expected = expected
        self.reason = reason
        self.source = source
        super().__init__(what)

    def __str__(self) -> str:
        text = self.what
        if self.got is not None:
            text += f" (got {_shorten(self.got)}"
            text += f", expected {_shorten(self.expected)})" if self.expected is not None else ")"
        elif self.expected is not None:
            text += f" (expected {_shorten(self.expected)})"
        text = f"{self.source}: {text}" if self.source else text
        # a lone surrogate out of foreign JSON has no bytes: neither log nor database could take it
        return text.encode(errors="backslashreplace").decode()


class Rejected(RelayerError):
    """The input is wrong and stays wrong: record with its reason, drop it, blame the source."""


class Conflict(RelayerError):
    """Two statements exclude each other: freeze that chain or peer and tell a human."""


class Unavailable(RelayerError):
    """Could not find out: try again with bounded back-off, resume from the store."""


def _shorten(value: object, limit: int = 160) -> str:
    text = "0x" + value.hex() if isinstance(value, bytes | bytearray) else str(value)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
