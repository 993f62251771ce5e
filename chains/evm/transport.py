"""How bytes reach an endpoint: one method for the Beacon API, one for JSON-RPC, each with limits and time-outs.

A transport returns parsed JSON or raises the product's errors; it judges nothing. Answers are read up to a limit and no further
(incidents.md fault 27), redirects are not followed, and a JSON-RPC answer must carry the id that was asked (incident E7).
JSON-RPC travels through web3 providers, so that any provider of web3 (HTTP, IPC, a test chain) serves as an endpoint.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

import aiohttp
from web3.exceptions import Web3Exception
from web3.providers.async_base import AsyncBaseProvider
from web3.types import RPCEndpoint, RPCResponse

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


class BeaconTransport(Protocol):
    """GET of one Beacon API route."""

    async def get(self, path: str, params: Mapping[str, str]) -> Any:
        """The JSON value of the answer.

        Raises Unavailable: no answer in time, status 429 or 5xx, or 404 (reason "not_found": the node does not have it).
        Rejected: other statuses, an answer too large or not JSON.
        """
        ...


@dataclass
class HttpBeaconTransport:
    """Beacon API over HTTP. ``base_url`` without a trailing slash."""

    base_url: str
    timeout_s: float = TIMEOUT_S
    max_bytes: int = MAX_ANSWER_BYTES

    def __post_init__(self) -> None:
        self._http = _Http(self.timeout_s, self.max_bytes)

    async def get(self, path: str, params: Mapping[str, str]) -> Any:
        """See `BeaconTransport.get`."""
        status, body = await self._http.fetch("GET", self.base_url + path, params=dict(params))
        verify_status(status, body)
        return decode_json(body)

    async def close(self) -> None:
        """Close the connection pool."""
        await self._http.close()


class HttpExecutionProvider(AsyncBaseProvider):
    """JSON-RPC over HTTP as a web3 provider that limits answers and checks ids; no silent retries."""

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S, max_bytes: int = MAX_ANSWER_BYTES) -> None:
        super().__init__()
        self._url = url
        self._http = _Http(timeout_s, max_bytes)
        self._ids = count(1)

    async def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """One request, one answer with the same id; raises as `BeaconTransport.get`."""
        asked = next(self._ids)
        request = {"jsonrpc": "2.0", "id": asked, "method": method, "params": params}
        status, body = await self._http.fetch("POST", self._url, json=request)
        answer: Any = None
        if status == 200 or body.lstrip()[:1] == b"{":  # some nodes send their JSON-RPC error with status 4xx
            answer = decode_json(body)
        if status != 200 and not (isinstance(answer, dict) and "error" in answer):
            verify_status(status, body)
        if not isinstance(answer, dict) or answer.get("jsonrpc") != "2.0":
            raise Rejected("not a JSON-RPC 2.0 answer", got=body[:80], reason="malformed")
        if answer.get("id") != asked or type(answer["id"]) is not int:  # True and 1.0 equal 1
            raise Rejected("answer to another request", got=answer.get("id"), expected=asked, reason="wrong_id")
        return answer  # type: ignore[return-value]  # web3's TypedDict; fields are checked by `call`

    async def disconnect(self) -> None:
        """Close the connection pool."""
        await self._http.close()


class RpcError(Rejected):
    """The node answered with a JSON-RPC error. ``code`` and ``data`` are the node's."""

    def __init__(self, message: str, code: int, data: object) -> None:
        super().__init__(message, got=code, reason="rpc_error")
        self.code = code
        self.data = data


async def call(provider: AsyncBaseProvider, method: str, params: Sequence[Any], timeout_s: float = TIMEOUT_S) -> Any:
    """The ``result`` of one JSON-RPC call.

    Raises RpcError for an error answer, Rejected for a malformed one, Unavailable when nothing came in time. Foreign errors
    of providers are translated here and in `get`, nowhere else.
    """
    try:
        async with asyncio.timeout(timeout_s):
            answer: Any = await provider.make_request(RPCEndpoint(method), list(params))
    except TimeoutError as error:
        raise Unavailable(f"no answer to {method}", expected=f"within {timeout_s} s", reason="timeout") from error
    except (OSError, aiohttp.ClientError, Web3Exception) as error:
        # other providers than ours raise their libraries' errors; their texts may hold the URL with its key
        raise Unavailable(f"no connection for {method}: {type(error).__name__}", reason="unreachable") from error
    if not isinstance(answer, dict):
        raise Rejected("not a JSON-RPC answer", got=type(answer).__name__, reason="malformed")
    failure = answer.get("error")
    if failure is not None:
        if not isinstance(failure, dict):
            raise Rejected("malformed JSON-RPC error", got=failure, reason="malformed")
        code = failure.get("code")
        message = str(failure.get("message", ""))[:MAX_TEXT]
        raise RpcError(message, code if isinstance(code, int) else 0, failure.get("data"))
    if "result" not in answer:
        raise Rejected("a JSON-RPC answer without result", reason="malformed")
    return answer["result"]


async def verify_chain_id(provider: AsyncBaseProvider, expected: int, timeout_s: float = TIMEOUT_S) -> None:
    """Ask an endpoint for its chain id; Rejected ("wrong_chain_id", "malformed") unless it is the expected one."""
    answer = await call(provider, "eth_chainId", [], timeout_s)
    if not isinstance(answer, str) or not answer.startswith("0x") or not 3 <= len(answer) <= 66:
        raise Rejected("not a chain id", got=answer, reason="malformed")
    try:
        chain_id = int(answer, 16)
    except ValueError:
        raise Rejected("not a chain id", got=answer, reason="malformed") from None
    if chain_id != expected:
        raise Rejected(
            "the endpoint serves another chain: check its URL", got=chain_id, expected=expected, reason="wrong_chain_id"
        )


async def get(
    transport: BeaconTransport, path: str, params: Mapping[str, str] | None = None, timeout_s: float = TIMEOUT_S
) -> Any:
    """One Beacon API answer within ``timeout_s``; raises as `BeaconTransport.get`."""
    try:
        async with asyncio.timeout(timeout_s):
            return await transport.get(path, params or {})
    except TimeoutError as error:
        raise Unavailable(f"no answer to {path}", expected=f"within {timeout_s} s", reason="timeout") from error
    except (OSError, aiohttp.ClientError) as error:
        raise Unavailable(f"no connection for {path}: {type(error).__name__}", reason="unreachable") from error


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


_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def _verify_depth(body: bytes) -> None:
    """Judge count and depth in a fixed number of passes: a pattern that backtracks takes hours for a string without an end.

    Without escapes the odd pieces between quotes are strings. A backslash outside a string stops the parser at that place.
    """
    if body.count(b'"') > 2 * MAX_STRINGS:
        raise Rejected("too many strings in one answer", expected=f"<= {MAX_STRINGS}", reason="size")
    outside = b"".join(body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    brackets = outside.translate(None, _NO_BRACKETS)
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


class _Http:
    """One lazily opened session; whole answer within ``timeout_s`` and ``max_bytes``."""

    def __init__(self, timeout_s: float, max_bytes: int) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._max_bytes = max_bytes
        self._session: aiohttp.ClientSession | None = None

    async def fetch(self, method: str, url: str, **options: Any) -> tuple[int, bytes]:
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
        if self._session is not None:
            await self._session.close()
            self._session = None
