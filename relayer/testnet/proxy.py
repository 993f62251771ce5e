"""A TCP proxy in front of an endpoint, as a process of its own: stopping it is how an endpoint goes away without the chain.

python -m relayer.testnet.proxy PORT TARGET_PORT
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence

from relayer.testnet.processes import LOOPBACK, Group, Process, get_free_port, is_listening

CHUNK_BYTES = 65_536


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        return  # one side went away: closing the other tells it
    finally:
        writer.close()


async def _serve(port: int, target: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            other_reader, other_writer = await asyncio.open_connection(LOOPBACK, target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(reader, other_writer), _copy(other_reader, writer))

    server = await asyncio.start_server(connect, LOOPBACK, port)
    await stop.wait()
    server.close()


def start_proxy(group: Group, name: str, target: int) -> tuple[Process, int]:
    """Start a proxy to a loopback port; the process and its own port."""
    port = get_free_port()
    process = group.add(name, [sys.executable, "-m", "relayer.testnet.proxy", str(port), str(target)])
    process.start()
    process.wait_until(lambda: is_listening(port), "accepting connections")
    return process, port


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    port, target = (int(a) for a in (sys.argv[1:] if arguments is None else arguments))
    asyncio.run(_serve(port, target))
    return 0


if __name__ == "__main__":
    sys.exit(main())
