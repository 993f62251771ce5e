"""How bytes reach an endpoint: one method for the Beacon API, one for JSON-RPC, each with limits and time-outs.

A transport returns parsed JSON or raises the product's errors; it judges nothing. Limits are those of `chains.http_json`, and a JSON-RPC answer
must carry the id that was asked (incident E7).
JSON-RPC travels through web3 providers, so that any provider of web3 (HTTP, IPC, a test chain) serves as an endpoint.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

import aiohttp
from web3.exceptions import Web3Exception
from web3.providers.async_base import AsyncBaseProvider
from web3.types import RPCEndpoint, RPCResponse

from chains.event_stream import follow_events
from chains.http_json import (
    MAX_ANSWER_BYTES,
    MAX_TEXT,
    TIMEOUT_S,
    JsonHttp,
    RpcError,
    decode_json,
    verify_status,
)
from messages.errors import Rejected, RelayerError, Unavailable

__all__ = [
    "TIMEOUT_S",
    "BeaconTransport",
    "HttpBeaconTransport",
    "HttpExecutionProvider",
    "RpcError",
    "call",
    "call_each",
    "decode_json",
    "get",
    "verify_chain_id",
    "verify_status",
]


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
        self._http = JsonHttp(self.timeout_s, self.max_bytes)

    async def get(self, path: str, params: Mapping[str, str]) -> Any:
        """See `BeaconTransport.get`."""
        status, body = await self._http.fetch("GET", self.base_url + path, params=dict(params))
        verify_status(status, body)
        return decode_json(body)

    async def follow(self, topic: str, hint: Callable[[bytes], None]) -> None:
        """Events of one topic of the Beacon API; see `chains.event_stream.follow_events`."""
        await follow_events(self.base_url + "/eth/v1/events", {"topics": topic}, hint)

    async def close(self) -> None:
        """Close the connection pool."""
        await self._http.close()


class HttpExecutionProvider(AsyncBaseProvider):
    """JSON-RPC over HTTP as a web3 provider that limits answers and checks ids; no silent retries."""

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S, max_bytes: int = MAX_ANSWER_BYTES) -> None:
        super().__init__()
        self._url = url
        self._http = JsonHttp(timeout_s, max_bytes)
        self._ids = count(1)
        self.takes_batches = True
        """False once the node has answered a batch with something else: some refuse them."""

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

    async def make_requests(self, asks: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """One batch of requests (method, parameters); the answers in the order asked, each to be judged like that of `make_request`."""
        asked = [next(self._ids) for _ in asks]
        request = [
            {"jsonrpc": "2.0", "id": i, "method": method, "params": list(params)}
            for i, (method, params) in zip(asked, asks, strict=True)
        ]
        status, body = await self._http.fetch("POST", self._url, json=request)
        verify_status(status, body)
        answers = decode_json(body)
        if not isinstance(answers, list) or not all(isinstance(a, dict) and a.get("jsonrpc") == "2.0" for a in answers):
            raise Rejected("not a JSON-RPC 2.0 batch", got=body[:80], reason="malformed")
        by_id = {a.get("id"): a for a in answers if type(a.get("id")) is int}
        if len(answers) != len(asked) or by_id.keys() != set(asked):
            raise Rejected("answers to other requests", got=len(answers), expected=len(asked), reason="wrong_id")
        return [by_id[i] for i in asked]

    async def disconnect(self) -> None:
        """Close the connection pool."""
        await self._http.close()


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
    return _get_result(answer)


async def call_each(
    provider: HttpExecutionProvider, method: str, params: Sequence[Sequence[Any]], timeout_s: float = TIMEOUT_S
) -> list[Any]:
    """The results of calls of one method in one round trip, in order; raises as `call` for the first that has none."""
    if not params:
        return []
    try:
        async with asyncio.timeout(timeout_s):
            answers = await provider.make_requests([(method, p) for p in params])
    except TimeoutError as error:
        raise Unavailable(f"no answer to {method}", expected=f"within {timeout_s} s", reason="timeout") from error
    return [_get_result(answer) for answer in answers]


BUSY = (429, 503)
"""HTTP statuses of a node that has too much to do."""


async def call_all(
    provider: AsyncBaseProvider, asks: Sequence[tuple[str, Sequence[Any]]], timeout_s: float = TIMEOUT_S
) -> list[Any]:
    """Results of several calls (method, parameters) in order; in the place of one that failed the error that `call` raises.

    In one round trip where the provider takes batches and its node does; a node that answers a batch with anything else is asked one by one.
    """
    if isinstance(provider, HttpExecutionProvider) and provider.takes_batches:
        try:
            async with asyncio.timeout(timeout_s):
                answers = await provider.make_requests(asks)
        except TimeoutError:
            late = Unavailable("no answer to a batch", expected=f"within {timeout_s} s", reason="timeout")
            return [late] * len(asks)
        except Unavailable as error:
            if error.reason in ("timeout", "unreachable") or error.got in BUSY:
                return [error] * len(asks)  # asked one by one it would only be busier
            provider.takes_batches = False
        except Rejected:
            provider.takes_batches = False
        else:
            return [_get_result_or_error(answer) for answer in answers]
    results = await asyncio.gather(
        *(call(provider, method, params, timeout_s) for method, params in asks), return_exceptions=True
    )
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, RelayerError):
            raise result
    return results


def _get_result_or_error(answer: Any) -> Any:
    try:
        return _get_result(answer)
    except RelayerError as error:
        return error


def _get_result(answer: Any) -> Any:
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
