"""An endpoint of a Solana chain that lies: a proxy that on request forges the head in a vault's state. For runs with faults.

    python -m relayer.testnet.lying_proxy --target http://127.0.0.1:8899 [--ahead]

It is honest until SIGUSR1. From then on it puts another head into every state of a vault that goes through it, wherever the number is higher
than the first one it met since. With --ahead it tells of one packet more than there is: an operator that has only such endpoints signs heads
that never were, before anybody can know better, and never two for one number. SIGUSR2 makes it honest again. On stdout stand
{"event": "lying"}, {"event": "honest"} and {"event": "forged", "sequence": N}, once a number.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import signal
import struct
import sys
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from contracts.solana.client import HEAD_AT, SEQUENCE_AT, STATE_BYTES, STATE_MAGIC
from relayer.testnet.json_door import JsonDoor, tell
from relayer.testnet.processes import LOOPBACK, Group, Process


class Forger:
    """Changes heads of states; pure but for what it remembers. ``since``: numbers by vault id that were true when it began."""

    def __init__(self, *, is_ahead: bool = False) -> None:
        self.is_ahead = is_ahead
        self.since: dict[bytes, int] = {}

    def forge(self, data: bytes) -> tuple[bytes, int]:
        """The data of an account with another head in it, and its number; unchanged and 0 where there is nothing to forge."""
        if len(data) != STATE_BYTES or data[:8] != STATE_MAGIC:
            return data, 0
        (sequence,) = struct.unpack_from("<Q", data, SEQUENCE_AT)
        vault_id = data[HEAD_AT + 32 : HEAD_AT + 64]
        if self.is_ahead:
            sequence += 1
        elif sequence <= self.since.setdefault(vault_id, sequence):
            return data, 0
        head = sha256(b"forged" + data[HEAD_AT : HEAD_AT + 32]).digest()
        return data[:SEQUENCE_AT] + struct.pack("<Q", sequence) + head + data[HEAD_AT + 32 :], sequence


class LyingProxy(JsonDoor):
    """See the module."""

    def __init__(self, target: str, *, is_ahead: bool = False) -> None:
        super().__init__(target)
        self._is_ahead = is_ahead
        self._forger: Forger | None = None
        self._told: set[int] = set()

    async def work(self) -> None:
        """Hear the signals."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self._set, Forger(is_ahead=self._is_ahead), "lying")
        loop.add_signal_handler(signal.SIGUSR2, self._set, None, "honest")
        await super().work()

    def _set(self, forger: Forger | None, event: str) -> None:
        self._forger = forger
        tell({"event": event})

    async def answer(self, method: str, params: Sequence[Any]) -> dict[str, Any]:
        """See `JsonDoor`."""
        found = await self.ask(method, params)
        result = found.get("result")
        if (
            self._forger is not None
            and method in {"getMultipleAccounts", "getAccountInfo"}
            and isinstance(result, dict)
        ):
            value = result.get("value")
            for account in value if isinstance(value, list) else [value]:
                self._forge(account, self._forger)
        return found

    def _forge(self, account: dict[str, Any] | None, forger: Forger) -> None:
        content = (account or {}).get("data")
        if account is None or not isinstance(content, list) or content[1:] != ["base64"]:
            return
        data, sequence = forger.forge(base64.b64decode(content[0]))
        account["data"] = [base64.b64encode(data).decode(), "base64"]
        if sequence and sequence not in self._told:
            self._told.add(sequence)
            tell({"event": "forged", "sequence": sequence})


def start_lying_proxy(group: Group, name: str, target: int, *, is_ahead: bool = False) -> tuple[Process, int]:
    """Start one, honest for the time being, before a loopback port; the process and its own port."""
    command = [sys.executable, "-m", "relayer.testnet.lying_proxy", "--target", f"http://{LOOPBACK}:{target}"]
    command += ["--ahead"] if is_ahead else []
    process = group.add(name, command)
    process.start()
    url = str(process.wait_for_event("ready")["url"])
    return process, int(url.rpartition(":")[2])


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m relayer.testnet.lying_proxy", description="a lying endpoint")
    parser.add_argument("--target", required=True, help="URL of the endpoint behind")
    parser.add_argument("--port", type=int, default=0, help="a free one by default")
    parser.add_argument("--ahead", action="store_true", help="tell of one packet more than there is")
    options = parser.parse_args(arguments)
    asyncio.run(LyingProxy(options.target, is_ahead=options.ahead).serve(options.port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
