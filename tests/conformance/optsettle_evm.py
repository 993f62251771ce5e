"""Vectors of optsettle that concern the EVM vault, run on its committed bytecode; see `optsettle_vault`.

The histories of family "evm", and recv_cases and creation_cases that were made for it, each on a fresh vault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.conformance.optsettle_vault import (
    RICH,
    Json,
    Offer,
    Runner,
    Trade,
    VaultTrace,
    drop_zeros,
    get_creation,
    make_packet,
    read_caps,
)
from tests.contracts.harness import Reverted
from tests.contracts.vault_world import World


def _get_chain_id(caip2: str) -> int:
    return int(caip2.removeprefix("eip155:"))


# ---- recv_cases and creation_cases ------------------------------------------------------------------------------------


def _create(setup: Json, caps: Mapping[bytes, Sequence[int]]) -> World:
    world = World(
        **get_creation(setup, caps),
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


def _run_recv(setup: Json, _: Sequence[bytes], case: Json) -> None:
    world = _create(setup, {})
    world.set_time(case["t"])
    packet = make_packet(world.client, case["packet"])
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
    try:
        _create({**setup, **case}, read_caps(case["caps"]))
    except Reverted:
        assert case["expect"] == "revert", "creation reverted"
    else:
        assert case["expect"] == "ok", "creation succeeded"


# ---- traces -----------------------------------------------------------------------------------------------------------


class _Trace(VaultTrace):
    """One trace on a World of its own."""

    family = "evm"

    def make_world(self, record: Json, family: Json, creation: dict[str, Any]) -> None:
        self.world = World(**creation, deployer=self.accounts["deployer"][12:], chain_id=_get_chain_id(family["caip2"]))
        assert self.world.vault_id.hex() == family["vault_id"]
        # a token that delivers less only where the trace asks for one
        is_short = any("arrived" in step["args"] for step in self.steps)
        for name, expected in self.assets.items():  # in the order of the deployer's nonces
            asset = self.world.deploy_token("short") if is_short else self.world.deploy_token()
            assert asset == expected
            for owner in {s["by"] for s in self.steps if s["call"] == "deposit" and s["args"]["asset"] == name}:
                self.world.fund(asset, self.accounts[owner][12:], RICH)

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
                packet = make_packet(world.client, args)
                out = world.bring(packet, [bytes.fromhex(s) for s in args["signatures"]], by)
            else:
                out = world.write(call, *self.get_args(call, args), by=by)
        except Reverted as why:
            _compare_revert(why, step.get("revert"))
            return
        finally:
            if "arrived" in args:
                token.write("set_fee", 0, by=by)
        self.compare_outcome(step, out, world.get_head())

    # ---- the final state ----

    def read_final(self) -> Json:
        read, names, holders = self.world.vault.read, self.get_names(), self.get_holders()

        def get_table(getter: str, mapping: str, columns: Mapping[str, bytes]) -> Json:
            # empty slots are seen at once; the getter is asked for the others, which saves most of the time
            return drop_zeros(
                {
                    a: {c: read(getter, i, j) for c, j in columns.items() if self.world.get_entry(mapping, i, j)}
                    for a, i in holders.items()
                }
            )

        threshold, _, paused, epoch, pending_at, pending_threshold, unpause_at, pause_used = read("get_control")

        def get_operators(pending: bool) -> list[str]:
            return self.name_operators([bytes.fromhex(o[2:]) for o in read("get_operators", pending)])

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
            "position": get_table("position", "position", self.kinds),
            "series": sorted(
                name
                for name, i in self.series.items()
                if self.world.get_entry("series", i) and read("series_expiry", i)
            ),
            "dues": sorted(
                name for name, i in self.dues.items() if self.world.get_entry("series", i) and read("is_due", i)
            ),
            "denoms": [],
            "offers": self.read_offers(names, read("offer_count")),
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

    def get_offer(self, number: int) -> Offer:
        maker, side, series, asset, quantity, left, premium, valid_until, _, cancelled = self.world.vault.read(
            "get_offer", number
        )
        return Offer(maker, side, series, asset, quantity, left, premium, valid_until, cancelled)

    def get_trade(self, taker: bytes, offer: int, nonce: int) -> Trade | None:
        trade = Trade(*self.world.vault.read("get_trade", taker, offer, nonce))
        return trade if trade.number else None

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


RUNNER = Runner("evm", "", _Trace, _run_recv, _run_creation, takes_foreign=False)
