"""JSON over HTTP from strangers: one session, answers up to a limit and no further, JSON judged before it is parsed.

What every family's transport needs and no family owns. Answers are read up to a limit (incidents.md fault 27), redirects are not followed,
and an address, which may hold an access key, appears in no error.
"""

from __future__ import annotations

import json
from typing import Any

import aiohttp

from messages.errors import Rejected, Unavailable

MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""128 light-client updates are about 7 MB of JSON, 10,000 logs with full packets about 25 MB."""
TIMEOUT_S = 20.0
MAX_TEXT = 300
MAX_DEPTH = 32
MAX_CONTAINERS = 1 << 18
"""Arrays and objects of one answer: each takes sixty bytes of memory for two of text. 50,000 logs have 100,000."""
MAX_STRINGS = 1 << 21
"""Keys and values of one answer: 50,000 logs have 1,100,000."""


class RpcError(Rejected):
    """The node answered with a JSON-RPC error. ``code`` and ``data`` are the node's."""

    def __init__(self, message: str, code: int, data: object) -> None:
        super().__init__(message, got=code, reason="rpc_error")
        self.code = code
        self.data = data


def verify_status(status: int, body: bytes) -> None:
    """Raise what an HTTP status other than 200 means: Unavailable for 404, 429 and 5xx, Rejected for the rest."""
    if status == 200:
        return
    text = body[:MAX_TEXT].decode("utf-8", "replace")
    if status == 404:
        raise Unavailable(f"the endpoint does not have it: {text}", got=status, reason="not_found")
    if status == 429 or status >= 500:
        raise Unavailable(f"the endpoint is not able to answer: {text}", got=status, reason="http_status")
    raise Rejected(f"the endpoint refuses the request: {text}", got=status, expected=200, reason="http_status")


def decode_json(body: bytes) -> Any:
    """Parse JSON from outside; Rejected ("malformed", "depth") for anything else, also for duplicate keys and for NaN.

    The depth is judged before the parser sees the text: a parser that recurses can be made to overflow its stack, which no
    handler catches where a library has raised the interpreter's recursion limit (py-evm does).
    """
    _verify_depth(body)
    try:
        # as UTF-8 and nothing else: the parser would guess UTF-16 and 32 too, whose bytes the judge of depth misreads
        return json.loads(body.decode(), object_pairs_hook=_refuse_duplicates, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Rejected(f"the answer is not JSON: {error}", got=body[:80], reason="malformed") from error


_NO_MARKS = bytes(set(range(256)) - set(b'[]{}"'))


def _verify_depth(body: bytes) -> None:
    """Judge count and depth in a fixed number of passes: a pattern that backtracks takes hours for a string without an end.

    Without escapes the odd pieces between quotes are strings. A backslash outside a string stops the parser at that place.
    """
    if body.count(b'"') > 2 * MAX_STRINGS:
        raise Rejected("too many strings in one answer", expected=f"<= {MAX_STRINGS}", reason="size")
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = body.translate(None, _NO_MARKS)  # what is thrown away here stands in no other place's way
    brackets = b"".join(marks.split(b'"')[::2])
    if len(brackets) > 2 * MAX_CONTAINERS:
        raise Rejected("too many objects in one answer", expected=f"<= {MAX_CONTAINERS}", reason="size")
    for _ in range(MAX_DEPTH):
        if not brackets:
            return
        # each round takes away the innermost pairs; what does not match stays, and is refused here or by the parser
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    if brackets:
        raise Rejected(
            "JSON nested too deep, or brackets that do not match", expected=f"<= {MAX_DEPTH}", reason="depth"
        )


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


class JsonHttp:
    """One lazily opened session without redirects; each whole answer within ``timeout_s`` and ``max_bytes``."""

    def __init__(self, timeout_s: float, max_bytes: int) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._max_bytes = max_bytes
        self._session: aiohttp.ClientSession | None = None

    async def fetch(self, method: str, url: str, **options: Any) -> tuple[int, bytes]:
        """(HTTP status, body); Unavailable ("timeout", "unreachable") or Rejected ("size")."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout, headers={"Accept": "application/json"})
        try:
            async with self._session.request(method, url, allow_redirects=False, **options) as response:
                parts: list[bytes] = []
                size = 0
                async for part in response.content.iter_chunked(65_536):
                    size += len(part)
                    if size > self._max_bytes:
                        raise Rejected("answer too large", got=size, expected=f"<= {self._max_bytes}", reason="size")
                    parts.append(part)
                return response.status, b"".join(parts)
        except TimeoutError as error:
            raise Unavailable(
                "no answer in time", expected=f"within {self._timeout.total} s", reason="timeout"
            ) from error
        except aiohttp.ClientError as error:
            # the URL may hold an access key: name the kind of the error only
            raise Unavailable(f"HTTP failed: {type(error).__name__}", reason="unreachable") from error

    async def close(self) -> None:
        """Close the connections; the next `fetch` opens them again."""
        if self._session is not None:
            await self._session.close()
            self._session = None
