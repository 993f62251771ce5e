"""Events of a CometBFT node over its websocket, as hints: "the vault did something that is provable now, look". Never evidence of anything.

What a transaction did is provable under the header of the next block, so the hint comes with that one. A stream may end, stall, lie or flood:
whoever follows it looks by itself from time to time all the same, and a look verifies everything. So a flood is slowed down instead of read,
and a message that is too long ends the stream.

Source: CometBFT RPC specification, "subscribe"; `types/events.go`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp

from chains.cosmos.codec import get_object, parse_integer
from chains.cosmos.comet_json import ADDRESS_KEY, OUTBOX_EVENT
from chains.http_json import decode_json
from messages.errors import Rejected, Unavailable

MAX_MESSAGE_BYTES = 4 << 20
SILENCE_S = 60.0
"""A stream without a new header for so long is taken for dead."""
CONNECT_S = 10.0
PAUSE_S = 0.02
"""Between two messages: fifty a second are more than any chain has reason for."""
HEADERS = "tm.event='NewBlockHeader'"


def build_event_query(address: str) -> str:
    """Return the subscription to the transactions in which a vault sent packets."""
    return f"tm.event='Tx' AND {OUTBOX_EVENT}.{ADDRESS_KEY}='{address}'"


async def follow_vault(url: str, address: str, hint: Callable[[], None]) -> None:
    """Call ``hint`` whenever packets of a vault have become provable, until the stream ends, and then raise.

    Args:
        url: of the node's RPC; may hold an access key, so no error names it.
        address: the vault's, as the chain writes it.
        hint: must return at once.

    Raises:
        Unavailable: "not_found" where the endpoint has no such stream; "stream" when it ended. Rejected: "malformed", "bad_json".
    """
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
    listener = _Listener(hint)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.ws_connect(_get_stream(url), max_msg_size=MAX_MESSAGE_BYTES, heartbeat=SILENCE_S / 2) as stream,
        ):
            for number, query in enumerate((HEADERS, build_event_query(address)), 1):
                request = {"jsonrpc": "2.0", "id": number, "method": "subscribe", "params": {"query": query}}
                await stream.send_json(request)
            while True:
                async with asyncio.timeout(SILENCE_S):
                    message = await stream.receive()
                if message.type is not aiohttp.WSMsgType.TEXT:
                    break
                listener.hear(decode_json(message.data.encode()))
                await asyncio.sleep(PAUSE_S)
    except aiohttp.WSServerHandshakeError as error:
        raise Unavailable("the endpoint has no such stream", got=error.status, reason="not_found") from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(f"the stream failed: {type(error).__name__}", reason="stream") from error
    raise Unavailable("the stream ended", reason="stream")


class _Listener:
    """Turns events into hints. A header that comes before the transactions of its block makes none."""

    def __init__(self, hint: Callable[[], None]) -> None:
        self._hint = hint
        self._acted_at: int | None = None

    def hear(self, message: Any) -> None:
        found = get_object(message, "message")
        if found.get("error") is not None:
            raise Unavailable(f"the endpoint gives no events: {str(found['error'])[:200]}", reason="not_found")
        result = get_object(found.get("result") or {}, "result")
        if "data" not in result:
            return  # the answer to a subscription
        data = get_object(result["data"], "data")
        value = get_object(data.get("value"), "value")
        if data.get("type") == "tendermint/event/Tx":
            height = parse_integer(get_object(value.get("TxResult"), "TxResult").get("height"), "height")
            self._acted_at = max(height, self._acted_at or 0)
        elif data.get("type") == "tendermint/event/NewBlockHeader":
            self._hear_header(value)

    def _hear_header(self, value: Mapping[str, Any]) -> None:
        height = parse_integer(get_object(value.get("header"), "header").get("height"), "height")
        if self._acted_at is not None and height > self._acted_at:
            self._acted_at = None
            self._hint()


def _get_stream(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise Rejected("a stream's address is http:// or https://", reason="bad_config")
    return "ws" + url.removeprefix("http").rstrip("/") + "/websocket"
