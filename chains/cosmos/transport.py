"""How bytes reach an endpoint of a CometBFT chain: one method, JSON-RPC over POST.

A transport returns the `result` of an answer or raises the product's errors; it judges nothing. Limits are those of `chains.http_json`, and an
answer must carry the id that was asked (incident E7). A simulated endpoint is a transport too.

Source: CometBFT RPC specification (`rpc/jsonrpc`), v0.38 and v0.39.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

import aiohttp

from chains.cosmos.comet_events import follow_vault
from chains.http_json import MAX_ANSWER_BYTES, MAX_TEXT, TIMEOUT_S, JsonHttp, RpcError, decode_json, verify_status
from messages.errors import Rejected, Unavailable

__all__ = ["TIMEOUT_S", "CometTransport", "HttpCometTransport", "RpcError", "call", "make_rpc_error"]


class CometTransport(Protocol):
    """One JSON-RPC call."""

    async def call(self, method: str, params: Mapping[str, Any]) -> Any:
        """The `result` of an answer.

        Raises RpcError: the node answered with an error. Unavailable: no answer in time, status 429 or 5xx. Rejected: other statuses, an
        answer too large or not JSON-RPC.
        """
        ...

    async def close(self) -> None:
        """Close the connections; the next call opens them again."""
        ...


@dataclass
class HttpCometTransport:
    """CometBFT's JSON-RPC over HTTP. ``url``: where the node's RPC listens, port 26657 as a rule."""

    url: str
    timeout_s: float = TIMEOUT_S
    max_bytes: int = MAX_ANSWER_BYTES

    def __post_init__(self) -> None:
        self._http = JsonHttp(self.timeout_s, self.max_bytes)
        self._ids = count(1)

    async def call(self, method: str, params: Mapping[str, Any]) -> Any:
        """See `CometTransport.call`."""
        asked = next(self._ids)
        request = {"jsonrpc": "2.0", "id": asked, "method": method, "params": dict(params)}
        status, body = await self._http.fetch("POST", self.url, json=request)
        answer: Any = None
        if status == 200 or body.lstrip()[:1] == b"{":  # CometBFT sends its JSON-RPC errors with status 500
            answer = decode_json(body)
        if status != 200 and not (isinstance(answer, dict) and answer.get("error")):
            verify_status(status, body)
        if not isinstance(answer, dict) or answer.get("jsonrpc") != "2.0":
            raise Rejected("not a JSON-RPC 2.0 answer", got=body[:80], reason="malformed")
        if answer.get("id") != asked or type(answer["id"]) is not int:  # True and 1.0 equal 1
            raise Rejected("answer to another request", got=answer.get("id"), expected=asked, reason="wrong_id")
        failure = answer.get("error")
        if failure is not None:
            raise make_rpc_error(failure)
        if "result" not in answer:
            raise Rejected("a JSON-RPC answer without result", reason="malformed")
        return answer["result"]

    async def follow(self, address: str, hint: Callable[[], None]) -> None:
        """Hint when packets of a vault have become provable; raises as `comet_events.follow_vault`."""
        await follow_vault(self.url, address, hint)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()


def make_rpc_error(failure: object) -> Rejected:
    """The error of a JSON-RPC error object; CometBFT says what happened in ``data``, not in ``message``."""
    if not isinstance(failure, dict):
        return Rejected("malformed JSON-RPC error", got=str(failure)[:80], reason="malformed")
    code, data = failure.get("code"), failure.get("data")
    words = [str(part) for part in (failure.get("message"), data) if isinstance(part, str) and part]
    text = ": ".join(words)
    if len(text) > MAX_TEXT:  # the cause stands at the end of a chain of wrapped errors as often as at its start
        text = f"{text[: MAX_TEXT // 2]} ... {text[-MAX_TEXT // 2 :]}"
    return RpcError(text, code if isinstance(code, int) else 0, data)


async def call(
    transport: CometTransport, method: str, params: Mapping[str, Any] | None = None, timeout_s: float = TIMEOUT_S
) -> Any:
    """One answer within ``timeout_s``; raises as `CometTransport.call`. Foreign errors are translated here and nowhere else."""
    try:
        async with asyncio.timeout(timeout_s):
            return await transport.call(method, params or {})
    except TimeoutError as error:
        raise Unavailable(f"no answer to {method}", expected=f"within {timeout_s} s", reason="timeout") from error
    except (OSError, aiohttp.ClientError) as error:
        raise Unavailable(f"no connection for {method}: {type(error).__name__}", reason="unreachable") from error
