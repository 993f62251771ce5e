"""Server-sent events of an endpoint, as hints: "there may be something newer, look". Never evidence of anything.

A stream may end, stall, lie or flood: whoever follows it looks by itself from time to time all the same, and a look verifies everything.
So a flood is slowed down instead of read, and a line that is too long ends the stream.

Source: WHATWG HTML 9.2 (event streams); Ethereum Beacon API, group Events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from messages.errors import Rejected, Unavailable

MAX_LINE_BYTES = 1 << 19
"""The client library takes lines of twice its buffer; an event of 512 seats has less than 10 kB."""
SILENCE_S = 90.0
"""A stream that says nothing for so long is taken for dead; main-net slots take 12 s."""
CONNECT_S = 10.0
PAUSE_S = 0.05
"""Between two events: twenty hints a second are more than any chain has reason for."""


async def follow_events(url: str, params: Mapping[str, str], hint: Callable[[bytes], None]) -> None:
    """Call ``hint`` with the data of each event until the stream ends, and then raise.

    Args:
        url: of the stream; may hold an access key, so no error names it.
        params: query.
        hint: must return at once.

    Raises:
        Unavailable: "not_found" where the endpoint has no such stream; "stream" when it ended. Rejected: "size" for a line too long.
    """
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
    headers = {"Accept": "text/event-stream"}
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers, read_bufsize=MAX_LINE_BYTES) as session,
            session.get(url, params=dict(params), allow_redirects=False) as answer,
        ):
            if answer.status != 200:
                raise Unavailable("the endpoint has no such stream", got=answer.status, reason="not_found")
            async for line in answer.content:
                if line.startswith(b"data:"):
                    hint(line[5:].strip())
                    await asyncio.sleep(PAUSE_S)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(f"the stream failed: {type(error).__name__}", reason="stream") from error
    except (HttpProcessingError, ValueError) as error:  # what a line is refused with differs from version to version
        raise Rejected(
            "a line of the stream is too long", expected=f"<= {2 * MAX_LINE_BYTES}", reason="size"
        ) from error
    raise Unavailable("the stream ended", reason="stream")
