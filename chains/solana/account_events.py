"""Changes of an account over a node's websocket, as hints: "the vault's state is another one now, look". Never evidence of anything.

Only finalized changes are asked for: before that nobody signs anything. A stream may end, stall, lie or flood: whoever follows it looks by
itself from time to time all the same. So a flood is slowed down instead of read, and a message that is too long ends the stream.

Source: Solana documentation, RPC websocket methods (accountSubscribe).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp

from chains.http_json import decode_json
from chains.solana.rpc_json import get_object
from messages.errors import Rejected, Unavailable

MAX_MESSAGE_BYTES = 1 << 20
SILENCE_S = 3_600.0
"""An account may rest for long; whether the connection lives, its pings tell."""
PING_S = 30.0
CONNECT_S = 10.0
PAUSE_S = 0.05
"""Between two messages: twenty a second are more than any chain has reason for."""


async def follow_account(url: str, account: str, hint: Callable[[], None]) -> None:
    """Call ``hint`` whenever an account has changed for good, until the stream ends, and then raise.

    Args:
        url: of the node's websocket; may hold an access key, so no error names it.
        account: in base58.
        hint: must return at once.

    Raises:
        Unavailable: "not_found" where the endpoint has no such stream; "stream" when it ended. Rejected: "malformed", "bad_json".
    """
    if not url.startswith(("ws://", "wss://")):
        raise Rejected("a stream's address is ws:// or wss://", reason="bad_config")
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
    params = [account, {"encoding": "base64", "commitment": "finalized"}]
    request = {"jsonrpc": "2.0", "id": 1, "method": "accountSubscribe", "params": params}
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.ws_connect(url, max_msg_size=MAX_MESSAGE_BYTES, heartbeat=PING_S) as stream,
        ):
            await stream.send_json(request)
            while True:
                async with asyncio.timeout(SILENCE_S):
                    message = await stream.receive()
                if message.type is not aiohttp.WSMsgType.TEXT:
                    break
                if is_change(decode_json(message.data.encode())):
                    hint()
                await asyncio.sleep(PAUSE_S)
    except aiohttp.WSServerHandshakeError as error:
        raise Unavailable("the endpoint has no such stream", got=error.status, reason="not_found") from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(f"the stream failed: {type(error).__name__}", reason="stream") from error
    raise Unavailable("the stream ended", reason="stream")


def is_change(message: Any) -> bool:
    """Ask whether a message tells of a change; Unavailable ("not_found") where it refuses, Rejected ("bad_json")."""
    found = get_object(message, "message")
    if found.get("error") is not None:
        raise Unavailable(f"the endpoint gives no events: {str(found['error'])[:200]}", reason="not_found")
    return found.get("method") == "accountNotification"
