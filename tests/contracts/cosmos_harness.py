"""A chain in memory that runs contract *wasm*: accounts with coins, contracts at chosen addresses, submessages with replies.

Nothing here knows what a vault should do; callers compare. What the module of wasmd does around a contract is done here too:
coins move before the call, a submessage runs in a state of its own and is rolled back when it fails, a failure that nobody
asked to hear of fails the whole transaction, custom events get the prefix "wasm-".
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import bech32

from chains.cosmos.wasm_vm import DEFAULT_GAS, ContractError, GasMeter, MemoryStorage, WasmCode, WasmTrap
from contracts.cosmos import get_wasm

Json = Any
Funds = Sequence[tuple[str, int]]

PREFIX = "wasm"
MAX_DEPTH = 8
STRANGER = b"\xaa" * 20


class Reverted(Exception):
    """A transaction failed; ``reason`` is the first word of the contract's error, ``text`` all of it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
        self.reason = text.split(" ", maxsplit=1)[0].rstrip(":") if text else ""


@dataclass(frozen=True)
class Event:
    """One event as wasmd would show it: "wasm" or "wasm-..." with the 20- or 32-byte address of its contract first."""

    kind: str
    contract: bytes
    attributes: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Result:
    """What a successful transaction gave."""

    data: bytes | None
    events: tuple[Event, ...]
    gas: int  # of wasmvm; the SDK's is a 140,000th of it, and storage and messages cost besides


@cache
def load_code(name: str) -> WasmCode:
    """Return a built contract, compiled once."""
    return WasmCode(get_wasm(name))


def shorten(account: bytes) -> bytes:
    """Return the canonical address of a 32-byte id: 20 bytes when the upper 12 are zero (vault.md 1)."""
    return account[12:] if len(account) == 32 and not any(account[:12]) else account


def to_bech32(address: bytes) -> str:
    """Return the text of a canonical address (20 or 32 bytes) or of a 32-byte id."""
    words = bech32.convertbits(shorten(address), 8, 5)
    return str(bech32.bech32_encode(PREFIX, words))


def from_bech32(text: str) -> bytes:
    """Return the canonical address of a text; Reverted when it is none."""
    prefix, words = bech32.bech32_decode(text)
    data = bech32.convertbits(words, 5, 8, False) if words is not None else None
    if prefix != PREFIX or data is None or len(data) not in (20, 32):
        raise Reverted(f"address {text!r} is none")
    return bytes(data)


def encode_json(message: Json) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def _encode_coins(funds: Funds) -> list[dict[str, str]]:
    return [{"denom": denom, "amount": str(amount)} for denom, amount in funds]


def _decode_coins(coins: Iterable[Mapping[str, str]]) -> Funds:
    return [(c["denom"], int(c["amount"])) for c in coins]


class Chain:
    """One chain with a clock that is set by hand; every `execute` is a transaction of its own."""

    def __init__(self, chain_id: str = "cosmoshub-4", time: int = 1_800_000_000) -> None:
        self.chain_id = chain_id
        self.time = time
        self.nanoseconds = 0  # of a second: block times are finer than the vault's
        self.height = 1
        self.codes: dict[bytes, WasmCode] = {}
        self.stores: dict[bytes, MemoryStorage] = {}
        self.coins: dict[tuple[bytes, str], int] = {}
        self.meter = GasMeter()

    # ---- coins ----

    def mint(self, owner: bytes, denom: str, amount: int) -> None:
        key = (shorten(owner), denom)
        self.coins[key] = self.coins.get(key, 0) + amount

    def get_coins(self, owner: bytes, denom: str) -> int:
        return self.coins.get((shorten(owner), denom), 0)

    def _move_coins(self, source: bytes, target: bytes, funds: Funds) -> None:
        denoms = [denom for denom, _ in funds]
        if denoms != sorted(set(denoms)) or any(amount <= 0 for _, amount in funds):
            raise Reverted("coins: not sorted, doubled or not positive")  # as the SDK validates a list of coins
        for denom, amount in funds:
            if self.get_coins(source, denom) < amount:
                raise Reverted("coins: insufficient funds")
            self.mint(source, denom, -amount)
            self.mint(target, denom, amount)

    # ---- transactions ----

    def deploy(
        self, code: WasmCode, message: Json, sender: bytes, at: bytes, funds: Funds = ()
    ) -> tuple[bytes, Result]:
        """Instantiate ``code`` at a chosen address (20 or 32 bytes, or an id); Reverted when creation fails."""
        address = shorten(at)
        if address in self.codes:
            raise Reverted("address is taken")
        before = self._save()
        try:
            self.codes[address] = code
            self.stores[address] = MemoryStorage()
            self.meter = GasMeter()
            self._move_coins(sender, address, funds)
            data, events = self._enter("instantiate", address, self._make_info(sender, funds), encode_json(message), 0)
        except Reverted:
            self._restore(before)
            raise
        self.height += 1
        return address, Result(data, tuple(events), self.meter.used)

    def execute(
        self,
        contract: bytes,
        message: Json | bytes,
        sender: bytes = STRANGER,
        funds: Funds = (),
        gas: int = DEFAULT_GAS,
    ) -> Result:
        """Run one transaction with ``gas`` of the VM; on failure nothing is changed and Reverted is raised."""
        before = self._save()
        self.meter = GasMeter(gas)
        try:
            raw = message if isinstance(message, bytes) else encode_json(message)
            data, events = self._execute(shorten(contract), sender, raw, funds, 0)
        except Reverted:
            self._restore(before)
            raise
        self.height += 1
        return Result(data, tuple(events), self.meter.used)

    def query(self, contract: bytes, message: Json) -> Json:
        """Return the decoded answer of a smart query; Reverted with the contract's error."""
        self.meter = GasMeter()
        return json.loads(self._query_smart(shorten(contract), encode_json(message)))

    def reply(self, contract: bytes, reply: Json) -> Json:
        """Call the entry point ``reply`` outside of any transaction of the contract's own making."""
        before = self._save()
        try:
            return self._enter("reply", shorten(contract), None, encode_json(reply), 0)
        except Reverted:
            self._restore(before)
            raise

    def _save(self) -> tuple[dict[bytes, WasmCode], dict[bytes, MemoryStorage], dict[tuple[bytes, str], int]]:
        return dict(self.codes), {a: MemoryStorage(store) for a, store in self.stores.items()}, dict(self.coins)

    def _restore(
        self, saved: tuple[dict[bytes, WasmCode], dict[bytes, MemoryStorage], dict[tuple[bytes, str], int]]
    ) -> None:
        self.codes, self.stores, self.coins = saved

    # ---- what surrounds a contract ----

    def _make_env(self, contract: bytes) -> Json:
        return {
            "block": {
                "height": self.height,
                "time": str(self.time * 10**9 + self.nanoseconds),
                "chain_id": self.chain_id,
            },
            "transaction": {"index": 0},
            "contract": {"address": to_bech32(contract)},
        }

    def _make_info(self, sender: bytes, funds: Funds) -> Json:
        return {"sender": to_bech32(sender), "funds": _encode_coins(funds)}

    def _execute(
        self, contract: bytes, sender: bytes, raw: bytes, funds: Funds, depth: int
    ) -> tuple[bytes | None, list[Event]]:
        if contract not in self.codes:
            raise Reverted("no such contract")
        self._move_coins(sender, contract, funds)
        return self._enter("execute", contract, self._make_info(sender, funds), raw, depth)

    def _enter(
        self, entry: str, contract: bytes, info: Json | None, raw: bytes, depth: int
    ) -> tuple[bytes | None, list[Event]]:
        """Call one entry point and carry out what it answers; (data, events)."""
        if depth > MAX_DEPTH:
            raise Reverted("depth of calls")
        response = self._run(entry, contract, info, raw)
        events = self._read_events(contract, response)
        data = base64.b64decode(response["data"]) if response["data"] is not None else None
        for sub in response["messages"]:
            replied, sub_events = self._run_submessage(contract, sub, depth)
            events += sub_events
            data = replied if replied is not None else data
        return data, events

    def _run(self, entry: str, contract: bytes, info: Json | None, raw: bytes) -> Json:
        code, store, env = self.codes[contract], self.stores[contract], self._make_env(contract)
        try:
            if entry == "reply":
                return code.reply(store, env, raw, self._answer, self.meter)
            call = code.instantiate if entry == "instantiate" else code.execute
            return call(store, env, info or {}, raw, self._answer, self.meter)
        except ContractError as error:
            raise Reverted(error.what) from error
        except WasmTrap as error:
            raise Reverted(f"trap {error.what}") from error

    @staticmethod
    def _read_events(contract: bytes, response: Json) -> list[Event]:
        def read(pairs: Json) -> tuple[tuple[str, str], ...]:
            return tuple((p["key"], p["value"]) for p in pairs)

        own = [Event("wasm", contract, read(response["attributes"]))] if response["attributes"] else []
        return own + [Event("wasm-" + e["type"], contract, read(e["attributes"])) for e in response["events"]]

    def _run_submessage(self, contract: bytes, sub: Json, depth: int) -> tuple[bytes | None, list[Event]]:
        """Return (data of the reply or None, events)."""
        saved = self._save()
        wants = sub["reply_on"]
        events: list[Event] = []
        try:
            data, events = self._carry_out(contract, sub["msg"], depth + 1)
        except Reverted as error:
            self._restore(saved)
            if wants not in ("always", "error"):
                raise
            result: Json = {"error": error.text}
        else:
            if wants not in ("always", "success"):
                return None, events
            encoded = None if data is None else base64.b64encode(data).decode()
            shown = [{"type": e.kind, "attributes": [{"key": k, "value": v} for k, v in e.attributes]} for e in events]
            result = {"ok": {"events": shown, "data": encoded, "msg_responses": []}}
        reply = {"id": sub["id"], "payload": sub.get("payload", ""), "gas_used": 0, "result": result}
        data, replied = self._enter("reply", contract, None, encode_json(reply), depth + 1)
        return data, events + replied

    def _carry_out(self, contract: bytes, message: Json, depth: int) -> tuple[bytes | None, list[Event]]:
        (module, inner), *_ = message.items()
        (action, given), *_ = inner.items()
        if (module, action) == ("wasm", "execute"):
            raw = base64.b64decode(given["msg"])
            funds = _decode_coins(given["funds"])
            return self._execute(from_bech32(given["contract_addr"]), contract, raw, funds, depth)
        if (module, action) == ("bank", "send"):
            self._move_coins(contract, from_bech32(given["to_address"]), _decode_coins(given["amount"]))
            return None, []
        raise Reverted(f"unsupported message {module} {action}")

    # ---- queries ----

    def _query_smart(self, contract: bytes, raw: bytes) -> bytes:
        if contract not in self.codes:
            raise Reverted("no such contract")
        try:
            code, store = self.codes[contract], self.stores[contract]
            return code.query(store, self._make_env(contract), raw, self._answer, self.meter)
        except ContractError as error:
            raise Reverted(error.what) from error
        except WasmTrap as error:
            raise Reverted(f"trap {error.what}") from error

    def _answer(self, request: bytes) -> bytes:
        """Answer a query of a contract: bytes of SystemResult<ContractResult<Binary>>."""
        (module, inner), *_ = json.loads(request).items()
        (kind, given), *_ = inner.items()
        try:
            if (module, kind) == ("wasm", "smart"):
                answer = self._query_smart(from_bech32(given["contract_addr"]), base64.b64decode(given["msg"]))
            elif (module, kind) == ("bank", "balance"):
                amount = self.get_coins(from_bech32(given["address"]), given["denom"])
                answer = encode_json({"amount": {"denom": given["denom"], "amount": str(amount)}})
            else:
                return encode_json({"error": {"unsupported_request": {"kind": f"{module} {kind}"}}})
        except Reverted as error:
            if error.text == "no such contract":
                return encode_json({"error": {"no_such_contract": {"addr": given["contract_addr"]}}})
            return encode_json({"ok": {"error": error.text}})
        return encode_json({"ok": {"ok": base64.b64encode(answer).decode()}})
