"""How bytes reach an endpoint of a Solana cluster: one method, JSON-RPC over POST.

A transport returns the `result` of an answer or raises the product's errors; it judges nothing. Limits are those of `chains.http_json`, and an
answer must carry the id that was asked (incident E7). A simulated endpoint is a transport too.

Source: Solana documentation, JSON-RPC; `rpc-client-api/src/custom_error.rs` of Agave for the codes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

import aiohttp

from chains.http_json import MAX_ANSWER_BYTES, MAX_TEXT, TIMEOUT_S, JsonHttp, RpcError, decode_json, verify_status
from chains.solana.account_events import follow_account
from messages.errors import Rejected, Unavailable

__all__ = ["TIMEOUT_S", "HttpSolanaTransport", "RpcError", "SolanaTransport", "call", "make_rpc_error"]

_BEHIND = frozenset({-32001, -32004, -32005, -32007, -32009, -32011, -32014, -32016, 429})
"""Codes of a node that cannot answer: it is behind or busy, has cleaned up, or keeps no history. It has not lied."""


class SolanaTransport(Protocol):
    """One JSON-RPC call."""

    async def request(self, method: str, params: list[Any]) -> Any:
        """The `result` of an answer.

        Raises RpcError: the node answered with an error. Unavailable: no answer in time, status 429 or 5xx, or the node is behind.
        Rejected: other statuses, an answer too large or not JSON-RPC.
        """
        ...

    async def close(self) -> None:
        """Close the connections; the next request opens them again."""
        ...


@dataclass
class HttpSolanaTransport:
    """JSON-RPC over HTTP, and hints over a websocket where ``stream_url`` names its door."""

    url: str
    timeout_s: float = TIMEOUT_S
    stream_url: str = ""
    max_bytes: int = MAX_ANSWER_BYTES

    def __post_init__(self) -> None:
        self._http = JsonHttp(self.timeout_s, self.max_bytes)
        self._ids = count(1)

    async def request(self, method: str, params: list[Any]) -> Any:
        """See `SolanaTransport.request`."""
        asked = next(self._ids)
        request = {"jsonrpc": "2.0", "id": asked, "method": method, "params": params}
        status, body = await self._http.fetch("POST", self.url, json=request)
        answer: Any = None
        if status == 200 or body.lstrip()[:1] == b"{":  # some nodes send JSON-RPC errors with another status
            answer = decode_json(body)
        if status != 200 and not (isinstance(answer, dict) and isinstance(answer.get("error"), dict)):
            verify_status(status, body)
        if not isinstance(answer, dict) or answer.get("jsonrpc") != "2.0":
            raise Rejected("not a JSON-RPC 2.0 answer", got=body[:80], reason="malformed")
        failure = answer.get("error")
        if failure is not None and status != 200:
            raise make_rpc_error(failure)  # a gateway that refuses does not know the id
        if answer.get("id") != asked or type(answer["id"]) is not int:  # True and 1.0 equal 1
            raise Rejected("answer to another request", got=answer.get("id"), expected=asked, reason="wrong_id")
        if failure is not None:
            raise make_rpc_error(failure)
        if "result" not in answer:
            raise Rejected("a JSON-RPC answer without result", reason="malformed")
        return answer["result"]

    async def follow(self, account: str, hint: Callable[[], None]) -> None:
        """Hint when an account has changed; returns at once without a stream; raises as `account_events.follow_account`."""
        if self.stream_url:
            await follow_account(self.stream_url, account, hint)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()


def make_rpc_error(failure: object) -> Rejected | Unavailable:
    """The error of a JSON-RPC error object: Unavailable where the node is behind or busy, else RpcError."""
    if not isinstance(failure, dict):
        return Rejected("malformed JSON-RPC error", got=str(failure)[:80], reason="malformed")
    code, message = failure.get("code"), failure.get("message")
    text = message[:MAX_TEXT] if isinstance(message, str) else ""
    number = code if type(code) is int else 0
    if number in _BEHIND:
        return Unavailable(f"the endpoint is not able to answer: {text}", got=number, reason="behind")
    return RpcError(text, number, failure.get("data"))


async def call(
    transport: SolanaTransport, method: str, params: Sequence[Any] = (), timeout_s: float = TIMEOUT_S
) -> Any:
    """One answer within ``timeout_s``; raises as `SolanaTransport.request`. Foreign errors are translated here and nowhere else."""
    try:
        async with asyncio.timeout(timeout_s):
            return await transport.request(method, list(params))
    except TimeoutError as error:
        raise Unavailable(f"no answer to {method}", expected=f"within {timeout_s} s", reason="timeout") from error
    except (OSError, aiohttp.ClientError) as error:
        raise Unavailable(f"no connection for {method}: {type(error).__name__}", reason="unreachable") from error
