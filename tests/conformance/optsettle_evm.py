"""Vectors of optsettle that concern the EVM vault, run on its committed bytecode.

`discover_traces`: the histories of family "evm" in traces.json, step by step and then the whole final state.
`discover_recv`: recv_cases and creation_cases of bytes.json, each on a fresh vault.
Called by `tests/conformance/kinds/optsettle.py` and by `tests/contracts`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from messages.packet import Packet, Payload
from tests.conformance.case import Case
from tests.contracts.harness import Reverted
from tests.contracts.vault_world import HOUSE, INSURANCE, World

Json = Any

RICH = 2**120  # callers hold what they deposit


def _read_files(folder: Path, section: str) -> Iterator[tuple[str, Json]]:
    """Yield (file name, content) of every JSON object in ``folder`` that has ``section``."""
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        if isinstance(record, dict) and section in record:
            yield path.name, record


def discover_traces(folder: Path) -> Iterator[Case]:
    """Yield one case per trace of family "evm" in the files of ``folder``."""
    for name, record in _read_files(folder, "traces"):
        for trace in record["traces"]:
            if trace["family"] == "evm":
                yield Case("optsettle", f"{name} {trace['id']}", partial(_run_trace, record, trace))


def discover_recv(folder: Path) -> Iterator[Case]:
    """Yield one case per recv_case and creation_case in the files of ``folder``."""
    for name, record in _read_files(folder, "recv_setup"):
        setup = record["recv_setup"]
        if setup["family"] != "evm":
            continue
        for i, case in enumerate(record.get("recv_cases", [])):
            yield Case("optsettle", f"{name} recv_cases[{i}] {case['why']}", partial(_run_recv, setup, case))
        for i, case in enumerate(record.get("creation_cases", [])):
            yield Case("optsettle", f"{name} creation_cases[{i}]", partial(_run_creation, setup, case))


def _get_chain_id(caip2: str) -> int:
    return int(caip2.removeprefix("eip155:"))


# ---- recv_cases and creation_cases ------------------------------------------------------------------------------------


def _make_packet(client: str, given: Json) -> Packet:
    """Return the packet of a recv step: what is not named has its right value (README of the vectors, 3)."""
    payload = Payload(
        given.get("source_port", "optsettle"),
        given.get("destination_port", "optsettle"),
        given.get("version", "optsettle-1"),
        given.get("encoding", "application/x-solidity-abi"),
        bytes.fromhex(given["value"]),
    )
    return Packet(
        given["sequence"],
        given.get("source_client", client),
        given.get("destination_client", "optsettle-clearing"),
        given["timeout"],
        (payload,) * given.get("payload_count", 1),
    )


def _create(setup: Json, caps: Mapping[bytes, list[int]]) -> World:
    world = World(
        operators=[bytes.fromhex(o) for o in setup["operators"]],
        threshold=setup["threshold"],
        treasurer=bytes.fromhex(setup["treasurer"]),
        caps=caps,
        delay=setup["delay"],
        time=setup["time"],
        at=bytes.fromhex(setup["vault_account"])[12:],
        chain_id=_get_chain_id(setup["caip2"]),
    )
    assert world.vault.read("vault_id") == world.vault_id
    return world


def _compare_revert(why: Reverted, word: str | None) -> None:
    """Check that a revert was expected, and for the reason that the vectors name.

    A packet that is shorter than any, or longer than the largest, reverts in the ABI decoder, without a word.
    """
    assert word is not None, f"reverted ({why.reason}), expected a result"
    assert why.reason in {word, ""}, f"reverted ({why.reason}), expected revert {word}"


def _run_recv(setup: Json, case: Json) -> None:
    world = _create(setup, {})
    world.set_time(case["t"])
    packet = _make_packet(world.client, case["packet"])
    signatures = [bytes.fromhex(s) for s in case["signatures"]]
    verdict, _, word = case["expect"].partition(" ")
    try:
        out = world.bring(packet, signatures)
    except Reverted as why:
        _compare_revert(why, word if verdict == "revert" else None)
    else:
        assert verdict == "accepted", f"accepted, expected {case['expect']}"
        assert out.out is not None
        assert out.out.hex() == word


def _run_creation(setup: Json, case: Json) -> None:
    caps = {bytes.fromhex(a): [int(n) for n in numbers] for a, numbers in case["caps"].items()}
    try:
        _create({**setup, **case}, caps)
    except Reverted:
        assert case["expect"] == "revert", "creation reverted"
    else:
        assert case["expect"] == "ok", "creation succeeded"


# ---- traces -----------------------------------------------------------------------------------------------------------


class _Names(dict[bytes, str]):
    """Names of ids; what has none is called by its hex."""

    def __missing__(self, key: bytes) -> str:
        return key.hex()


class _Trace:
    """One trace: names of the vectors on a World of its own."""

    def __init__(self, record: Json, trace: Json) -> None:
        family = record["families"]["evm"]
        self.steps, self.final, setup = trace["steps"], trace["final"], trace["setup"]
        self.accounts = {name: bytes.fromhex(a["id"]) for name, a in family["accounts"].items()}
        self.assets = {name: bytes.fromhex(a) for name, a in family["assets"].items()}
        self.series = {name: bytes.fromhex(s["id"]) for name, s in record["series"].items()}
        self.dues = {name: bytes.fromhex(d) for name, d in record["dues"].items()}
        self.definitions = record["series"]
        self.operators = {name: bytes.fromhex(o["address"]) for name, o in record["operators"].items()}
        self.ids = {
            "HOUSE": HOUSE,
            "INSURANCE": INSURANCE,
            **self.accounts,
            **self.assets,
            **self.series,
            **self.dues,
        }
        self.trade_keys: set[tuple[bytes, int, int]] = set()
        self.world = World(
            operators=[self.operators[o] for o in setup["operators"]],
            threshold=setup["threshold"],
            treasurer=self.accounts["treasurer"],
            caps={self.assets[a]: [int(n) for n in numbers] for a, numbers in setup["caps"].items()},
            delay=setup["delay"],
            time=setup["time"],
            deployer=self.accounts["deployer"][12:],
            chain_id=_get_chain_id(family["caip2"]),
        )
        assert self.world.vault_id.hex() == family["vault_id"]
        # a token that delivers less only where the trace asks for one
        is_short = any("arrived" in step["args"] for step in self.steps)
        for name, expected in self.assets.items():  # in the order of the deployer's nonces
            asset = self.world.deploy_token("short") if is_short else self.world.deploy_token()
            assert asset == expected
            for owner in {s["by"] for s in self.steps if s["call"] == "deposit" and s["args"]["asset"] == name}:
                self.world.fund(asset, self.accounts[owner][12:], RICH)

    def get_id(self, name: str) -> bytes:
        return self.ids[name] if name in self.ids else bytes.fromhex(name)

    def get_args(self, call: str, args: Json) -> list[object]:
        """Return the arguments of the contract's function of the same name."""
        take_id = self.get_id
        if call == "deposit":
            return [take_id(args["asset"]), int(args["amount"]), take_id(args["beneficiary"])]
        if call == "link":
            return [take_id(args["portfolio"]), args["valid_until"], bytes.fromhex(args["signature"])]
        if call == "list_series":
            return [self.get_definition(args["definition"])]
        if call == "offer":
            numbers = (int(args["quantity"]), int(args["premium_per_contract"]), args["valid_until"])
            return [args["side"], take_id(args["series"]), take_id(args["asset"]), *numbers]
        if call == "cancel":
            return [args["offer"]]
        if call == "take":
            return [args["offer"], int(args["quantity"]), args["nonce"], args.get("for_house", False)]
        if call == "request_withdrawal":
            return [take_id(args["asset"]), int(args["amount"]), args.get("for_house", False)]
        if call == "claim":
            return [take_id(args["account"]), take_id(args["asset"])]
        if call == "escape":
            return [take_id(args["asset"])]
        if call == "pause":
            return [bytes.fromhex(args["signature"])]
        raise AssertionError(f"unknown call {call}")

    def get_definition(self, name: str) -> tuple[object, ...]:
        d = self.definitions[name]
        return (
            bytes.fromhex(d["underlying"]),
            int(d["expiry"]),
            int(d["strike_e8"]),
            int(d["right"]),
            bytes.fromhex(d["quote_class"]),
            int(d["multiplier_e8"]),
            bytes.fromhex(d["price_source"]),
            int(d["twap_seconds"]),
        )

    def run_step(self, step: Json) -> None:
        world, call, args = self.world, step["call"], step["args"]
        world.set_time(step["t"])
        by = self.get_id(step["by"])[12:]
        if "arrived" in args:
            token = world.tokens[self.get_id(args["asset"])]
            token.write("set_fee", int(args["amount"]) - int(args["arrived"]), by=by)
        try:
            if call == "recv":
                packet = _make_packet(world.client, args)
                out = world.bring(packet, [bytes.fromhex(s) for s in args["signatures"]], by)
            else:
                out = world.write(call, *self.get_args(call, args), by=by)
        except Reverted as why:
            _compare_revert(why, step.get("revert"))
            return
        finally:
            if "arrived" in args:
                token.write("set_fee", 0, by=by)
        assert "revert" not in step, f"accepted, expected revert {step.get('revert')}"
        if call == "take":
            taker = HOUSE if args.get("for_house") else self.get_id(step["by"])
            self.trade_keys.add((taker, args["offer"], args["nonce"]))
        assert (out.out.hex() if out.out is not None else None) == step["out"]
        assert world.get_head().hex() == step["head"]
        value = out.value.hex() if isinstance(out.value, bytes) else out.value
        assert value == step["value"], f"returned {value}, expected {step['value']}"

    # ---- the final state ----

    def read_final(self) -> Json:
        """Return the state of the contract in the words of the vectors: everything that a getter shows."""
        read, names = self.world.vault.read, _Names({v: k for k, v in self.ids.items()})
        holders = {"HOUSE": HOUSE, "INSURANCE": INSURANCE, **self.accounts}
        for table in ("free", "claimable", "position"):  # accounts that have no name
            holders |= {a: bytes.fromhex(a) for a in self.final[table] if a not in holders}
        kinds = {**self.series, **self.dues}

        def get_table(getter: str, mapping: str, columns: Mapping[str, bytes]) -> Json:
            # empty slots are seen at once; the getter is asked for the others, which saves most of the time
            rows = {
                a: {c: read(getter, i, j) for c, j in columns.items() if self.world.get_entry(mapping, i, j)}
                for a, i in holders.items()
            }
            kept = {a: {c: str(n) for c, n in row.items() if n} for a, row in rows.items()}
            return {a: row for a, row in kept.items() if row}

        threshold, _, paused, epoch, pending_at, pending_threshold, unpause_at, pause_used = read("get_control")
        operator_names = _Names({v: k for k, v in self.operators.items()})

        def get_operators(pending: bool) -> list[str]:
            return [operator_names[bytes.fromhex(o[2:])] for o in read("get_operators", pending)]

        operators = get_operators(False)
        caps = {name: read("get_caps", asset) for name, asset in self.assets.items()}
        windows: Json = {"settlement": {}, "withdrawal": {}}
        for name, asset in self.assets.items():
            for kind, (hour, hour_used, day, day_used) in zip(windows, read("get_windows", asset), strict=True):
                if day:
                    windows[kind][name] = {
                        "hour": hour,
                        "hour_used": str(hour_used),
                        "day": day,
                        "day_used": str(day_used),
                    }
        return {
            "inbox_sequence": read("inbox_sequence"),
            "outbox_sequence": read("outbox_sequence"),
            "outbox_head": read("outbox_head").hex(),
            "accepted_at": read("accepted_at"),
            "free": get_table("free", "balances", self.assets),
            "claimable": get_table("claimable", "balances", self.assets),
            "position": get_table("position", "position", kinds),
            "series": sorted(
                name
                for name, i in self.series.items()
                if self.world.get_entry("series", i) and read("series_expiry", i)
            ),
            "dues": sorted(
                name for name, i in self.dues.items() if self.world.get_entry("series", i) and read("is_due", i)
            ),
            "denoms": [],
            "offers": self.read_offers(names),
            "offer_count": read("offer_count"),
            "trades": self.read_trades(names),
            "decided_upto": read("decided_upto"),
            "requests": self.read_requests(holders),
            "operators": operators,
            "threshold": threshold,
            "operator_epoch": epoch,
            "treasurer": names[read("get_treasurer", False)],
            "paused": paused,
            "pause_used": [o for i, o in enumerate(operators) if pause_used >> i & 1],
            "caps": {name: [str(n) for n in c[:3]] for name, c in caps.items() if c[0]},
            "pending_caps": {name: {"at": c[3], "caps": [str(n) for n in c[4:]]} for name, c in caps.items() if c[3]},
            "pending_operators": {
                "at": pending_at,
                "threshold": pending_threshold,
                "treasurer": names[read("get_treasurer", True)],
                "operators": get_operators(True),
            }
            if pending_at
            else None,
            "pending_unpause": unpause_at or None,
            "windows": windows,
        }

    def read_offers(self, names: Mapping[bytes, str]) -> Json:
        offers: Json = {}
        for number in range(1, self.world.vault.read("offer_count") + 1):
            o = self.world.vault.read("get_offer", number)
            maker, side, series, asset, quantity, left, premium, valid_until, _, cancelled = o
            if cancelled or not left:
                continue
            offers[str(number)] = {
                "maker": names[maker],
                "side": side,
                "series": names[series],
                "asset": names[asset],
                "quantity": str(quantity),
                "left": str(left),
                "premium_per_contract": str(premium),
                "valid_until": valid_until,
            }
        return offers

    def read_trades(self, names: Mapping[bytes, str]) -> Json:
        trades: Json = {}
        for taker, number, nonce in self.trade_keys:
            trade_id, quantity, cost, packet_number = self.world.vault.read("get_trade", taker, number, nonce)
            if not packet_number:
                continue
            maker, side, series, asset, _, _, _, valid_until, _, _ = self.world.vault.read("get_offer", number)
            buyer, seller = (maker, taker) if side == 0 else (taker, maker)
            trades[trade_id.hex()] = {
                "taker": names[taker],
                "offer": number,
                "nonce": nonce,
                "buyer": names[buyer],
                "seller": names[seller],
                "series": names[series],
                "asset": names[asset],
                "quantity": str(quantity),
                "cost": str(cost),
                "valid_until": valid_until,
                "number": packet_number,
            }
        return trades

    def read_requests(self, holders: Mapping[str, bytes]) -> Json:
        requests: Json = {}
        for account, i in holders.items():
            for asset, j in self.assets.items():
                if not self.world.get_entry("requests", i, j):
                    continue
                request_id, amount, made_at = self.world.vault.read("get_request", i, j)
                requests[request_id.hex()] = {
                    "account": account,
                    "asset": asset,
                    "amount": str(amount),
                    "made_at": made_at,
                }
        return requests


def _sort(record: Json) -> Json:
    """Return the final state with its unordered lists sorted."""
    return {k: sorted(v) if k in ("series", "dues", "denoms", "pause_used") else v for k, v in record.items()}


def _run_trace(record: Json, trace: Json) -> None:
    run = _Trace(record, trace)
    for i, step in enumerate(run.steps):
        try:
            run.run_step(step)
        except AssertionError as error:
            raise AssertionError(f"step {i} {step['call']} by {step['by']}: {error}") from error
    got, expected = _sort(run.read_final()), _sort(run.final)
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        assert got[key] == value, f"final {key}: {got[key]}, expected {value}"
