"""What surfpool lacks of a Solana node, before it: reads at "finalized" that show what is finalized.

    python -m relayer.testnet.surfnet_front --target http://127.0.0.1:8899

surfpool labels an answer with the slot of the commitment that was asked for, but what it answers is always its newest state: accounts half a
minute of slots ahead of the label, transactions as soon as they ran. Whoever believed it would act on what is not final. So this looks at the
accounts that are asked for together with the Clock, slot by slot, and answers a finalized read from the snapshot of the newest finalized slot;
transactions newer than that are not there yet. Everything else goes through as it is: other accounts at "finalized" are still the newest.

Source: Solana's RPC documentation (commitment, minContextSlot); surfpool 1.7's answers.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from relayer.testnet.json_door import JsonDoor, make_error

CLOCK = "SysvarC1ock11111111111111111111111111111111"
FINALIZED = "finalized"
POLL_S = 0.15
"""Less than half a slot."""
SNAPSHOTS = 128
MAX_WATCHED = 64
MIN_SLOT_NOT_REACHED = -32016
"""Solana's own code for an answer that would be older than was asked for."""

Account = Mapping[str, Any] | None


class History:
    """States of a few accounts at the slots that were seen. Pure."""

    def __init__(self) -> None:
        self._snapshots: deque[tuple[int, dict[str, Account]]] = deque(maxlen=SNAPSHOTS)
        self.finalized = 0
        """The newest finalized slot."""

    def record(self, finalized: int, accounts: Mapping[str, Account]) -> None:
        """Keep what was read in one call, the Clock with it; a later look at the same slot replaces an earlier one."""
        slot = decode_slot(accounts[CLOCK])
        if self._snapshots and self._snapshots[-1][0] >= slot:
            if self._snapshots[-1][0] > slot:
                return
            self._snapshots.pop()
        self._snapshots.append((slot, dict(accounts)))
        self.finalized = max(self.finalized, min(finalized, slot))

    def find(self, keys: Sequence[str]) -> tuple[int, list[Account]] | None:
        """The accounts at the newest finalized slot at which all of them were seen, with that slot; None before there is one."""
        for slot, accounts in reversed(self._snapshots):
            if slot <= self.finalized:
                # not an older one: an account that is not watched since then has no finalized state yet
                return (slot, [accounts[key] for key in keys]) if all(key in accounts for key in keys) else None
        return None


def decode_slot(clock: Account) -> int:
    """The slot in the Clock's account (base64): its first eight bytes, little-endian."""
    return int.from_bytes(base64.b64decode((clock or {})["data"][0])[:8], "little")


def get_config(params: Sequence[Any], at: int) -> Mapping[str, Any]:
    """The configuration object among a call's parameters, empty where there is none."""
    return params[at] if len(params) > at and isinstance(params[at], dict) else {}


def is_finalized(config: Mapping[str, Any]) -> bool:
    """Whether a call asks for what is finalized: Solana's default."""
    return str(config.get("commitment") or FINALIZED) == FINALIZED


class Front(JsonDoor):
    """See the module."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self._history = History()
        self._watched: dict[str, None] = {CLOCK: None}

    async def work(self) -> None:
        """Look at the watched accounts several times a slot."""
        while True:
            await self._look()
            await asyncio.sleep(POLL_S)

    async def _look(self) -> None:
        keys = list(self._watched)
        finalized = await self.ask("getSlot", [{"commitment": FINALIZED}])
        config = {"commitment": "processed", "encoding": "base64"}
        found = await self.ask("getMultipleAccounts", [keys, config])
        if "result" in finalized and "result" in found:
            self._history.record(int(finalized["result"]), dict(zip(keys, found["result"]["value"], strict=True)))

    async def answer(self, method: str, params: Sequence[Any]) -> dict[str, Any]:
        """See `JsonDoor`."""
        config = get_config(params, 1)
        if not is_finalized(config):
            return await self.ask(method, params)
        if method == "getMultipleAccounts" and params and CLOCK in params[0]:
            return self._read(params[0], config)
        found = await self.ask(method, params)
        if method == "getSignaturesForAddress" and "result" in found:
            found["result"] = [entry for entry in found["result"] if int(entry["slot"]) <= self._history.finalized]
        if method == "getTransaction" and found.get("result") is not None:
            is_there = int(found["result"]["slot"]) <= self._history.finalized
            found["result"] = found["result"] if is_there else None
        return found

    def _read(self, keys: Sequence[str], config: Mapping[str, Any]) -> dict[str, Any]:
        if config.get("encoding") != "base64":
            return make_error(-32602, "finalized states are kept in base64 only")
        for key in keys:
            if key not in self._watched and len(self._watched) < MAX_WATCHED:
                self._watched[key] = None
        found = self._history.find(keys)
        slot = found[0] if found is not None else 0
        if found is None or slot < int(config.get("minContextSlot") or 0):
            return make_error(MIN_SLOT_NOT_REACHED, "Minimum context slot has not been reached", {"contextSlot": slot})
        return {"result": {"context": {"apiVersion": "surfnet-front/1", "slot": slot}, "value": found[1]}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m relayer.testnet.surfnet_front", description="before surfpool")
    parser.add_argument("--target", required=True, help="URL of surfpool's JSON-RPC")
    parser.add_argument("--port", type=int, default=0, help="a free one by default")
    options = parser.parse_args(arguments)
    asyncio.run(Front(options.target).serve(options.port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
