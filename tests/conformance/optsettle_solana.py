"""Traces of optsettle that concern the Solana vault, run on its committed program in LiteSVM.

A vault is a derived address there, so it cannot stand at the account of the vectors: as their README says (4), the ids that
follow from heads are replaced, packets are signed anew with the same keys and the same flaws, and heads are computed anew.
Everything else is compared as it is written. What the compact transport cannot say has `revert` as result: these steps
are skipped, and it is checked that the client refuses to say them.
Called by `tests/conformance/kinds/optsettle.py` and by `tests/contracts`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from contracts.solana import client as c
from messages import bodies as b
from messages.digests import (
    compute_packet_digest,
    compute_pause_digest,
    compute_vault_id,
    sign_digest,
)
from messages.errors import Rejected
from messages.ids import get_vault_client
from messages.packet import Packet, compute_commitment
from tests.conformance.case import Case
from tests.conformance.optsettle_cosmos import _make_packet, _sign_anew
from tests.contracts.solana_harness import CAIP2, HOUSE, INSURANCE, PROGRAM, Outcome, Reverted, SolanaWorld

Json = Any

KIND = "optsettle"
FAMILY = "solana"
UNSPEAKABLE = {"envelope", "malformed"}  # reverts of packets that the compact transport cannot say
EPOCHS = range(4)


def discover_traces(folder: Path) -> Iterator[Case]:
    """Yield one case per trace of family "solana" in the files of ``folder``."""
    for path in sorted(folder.rglob("*.json")):
        record = json.loads(path.read_text())
        if not isinstance(record, dict):
            continue
        for trace in record.get("traces", []):
            if trace["family"] == FAMILY:
                yield Case(KIND, f"{path.name} {trace['id']} in LiteSVM", partial(run_trace, record, trace))


def discover_recv(folder: Path) -> Iterator[Case]:
    """Yield one case per creation_case, and per recv_case that means the same here, in the files of ``folder``."""
    for path in sorted(folder.rglob("*.json")):
        record = json.loads(path.read_text())
        if not isinstance(record, dict) or "recv_setup" not in record:
            continue
        keys = [bytes.fromhex(o["private_key"]) for o in record["operators"].values()]
        for i, case in enumerate(record.get("recv_cases", [])):
            if not _means_another(bytes.fromhex(case["packet"]["value"])):
                name = f"{path.name} recv_cases[{i}] {case['why']} in LiteSVM"
                yield Case(KIND, name, partial(run_recv, record["recv_setup"], keys, case))
        for i, case in enumerate(record.get("creation_cases", [])):
            name = f"{path.name} creation_cases[{i}] in LiteSVM"
            yield Case(KIND, name, partial(run_creation, record["recv_setup"], case))


def _means_another(value: bytes) -> bool:
    """Tell whether a body is judged otherwise by the families: long ids, caps of 65 to 96 bits, more than fits."""
    try:
        body = b.decode_inbox_body(value, b.WIDEST_LIMITS)
    except Rejected:
        return False
    if isinstance(body, b.SetCaps):
        return any(2**64 <= cap < 2**96 for cap in (body.per_packet, body.per_hour, body.per_day))
    if isinstance(body, b.RotateOperators):
        return any(body.treasurer[:12]) and body.treasurer not in (HOUSE, INSURANCE)
    return isinstance(body, b.DecideTrades | b.DecideWithdrawals) and len(body.items) > c.MAX_RECORDS


def run_recv(setup: Json, keys: list[bytes], case: Json) -> None:
    """Run one recv_case on a fresh vault, signed anew with the flaws that it has; AssertionError names what differs."""
    world = SolanaWorld(
        operators=[bytes.fromhex(o) for o in setup["operators"]],
        threshold=setup["threshold"],
        treasurer=bytes.fromhex(setup["treasurer"]),
        caps={},
        delay=setup["delay"],
        time=setup["time"],
    )
    world.set_time(case["t"])
    given, (verdict, _, word) = case["packet"], case["expect"].partition(" ")
    old_id = compute_vault_id(setup["caip2"], bytes.fromhex(setup["vault_account"]))
    old_client = get_vault_client(old_id)
    old = _make_packet(old_client, given)
    packet = _make_packet(world.client, given, old_client)
    if word == "envelope":  # there is no place for an envelope in the compact form
        assert b.get_packet_flaw(packet, world.client, b.CLEARING_CLIENT)
        return
    signatures = _sign_anew([bytes.fromhex(s) for s in case["signatures"]], keys, old_id, old, world.vault_id, packet)
    try:
        out = world.bring(packet, signatures)
    except Reverted as why:
        _verify_revert(why, {"call": "recv", "revert": word} if verdict == "revert" else {"call": "recv"})
    except Rejected:  # the client cannot say it
        assert verdict == "revert", "the client cannot say it"
    else:
        assert verdict == "accepted", f"accepted, expected {case['expect']}"
        assert out.out is not None
        expected = bytes.fromhex(word)
        assert out.out == expected.replace(compute_commitment(old), compute_commitment(packet))


def run_creation(setup: Json, case: Json) -> None:
    """Create one vault; AssertionError if that ends otherwise than the case says, as it reads for this family.

    The cases are those of an EVM: amounts at the edge of 96 bits stand for amounts at the edge of 64 bits, and an id of 32
    bytes, which is no address there, is a key like any other here.
    """
    caps = {bytes.fromhex(a): [_narrow(int(n)) for n in numbers] for a, numbers in case["caps"].items()}
    treasurer = bytes.fromhex(case["treasurer"])
    operators = [bytes.fromhex(o) for o in case["operators"]]
    is_long = any(any(i[:12]) and i not in (HOUSE, INSURANCE) for i in (*caps, treasurer))
    expected = "ok" if is_long else case["expect"]
    if any(n >= 2**64 for numbers in caps.values() for n in numbers):
        assert expected == "revert", "an amount that this vault cannot hold"
        try:
            c.make_create(PROGRAM, PROGRAM, 1, CAIP2, operators, case["threshold"], treasurer, setup["delay"], caps)
        except struct.error:
            return
        raise AssertionError("the client can say an amount that this vault cannot hold")
    try:
        world = SolanaWorld(operators, case["threshold"], treasurer, caps, setup["delay"], setup["time"])
    except Reverted as why:
        _verify_revert(why, {"call": "create", "revert": ""} if expected == "revert" else {"call": "create"})
        return
    assert expected == "ok", "creation succeeded"
    state = world.state
    told = (state.sets[0].treasurer, list(state.sets[0].operators), state.threshold, state.delay, state.accepted_at)
    assert told == (treasurer, operators, case["threshold"], setup["delay"], setup["time"])
    for asset, numbers in caps.items():
        assert list(world.load(c.Id(c.Tag.ASSET, asset))) == numbers + [0] * 12


def _narrow(cap: int) -> int:
    """Return a cap of the EVM family as one of this family: the edge of one is the edge of the other."""
    return cap - 2**96 + 2**64 if cap >= 2**96 - 1 else cap


class _Names(dict[bytes, str]):
    """Names of ids; what has none is called by its hex."""

    def __missing__(self, key: bytes) -> str:
        return key.hex()


def _drop_zeros(table: Mapping[str, Mapping[str, int]]) -> Json:
    kept = {a: {k: str(n) for k, n in row.items() if n} for a, row in table.items()}
    return {a: row for a, row in kept.items() if row}


class _Trace:
    """One trace: names of the vectors on a vault of its own."""

    def __init__(self, record: Json, trace: Json) -> None:
        family = record["families"][FAMILY]
        self.steps, self.final, setup = trace["steps"], trace["final"], trace["setup"]
        self.old_vault_id = bytes.fromhex(family["vault_id"])
        self.old_client: str = family["vault_client"]
        self.accounts = {name: bytes.fromhex(a["id"]) for name, a in family["accounts"].items()}
        self.assets = {name: bytes.fromhex(a) for name, a in family["assets"].items()}
        self.series = {name: bytes.fromhex(s["id"]) for name, s in record["series"].items()}
        self.dues = {name: bytes.fromhex(d) for name, d in record["dues"].items()}
        self.definitions = record["series"]
        self.operators = {name: bytes.fromhex(o["address"]) for name, o in record["operators"].items()}
        self.operator_keys = [bytes.fromhex(o["private_key"]) for o in record["operators"].values()]
        houses = {"HOUSE": HOUSE, "INSURANCE": INSURANCE}
        self.ids = {**houses, **self.accounts, **self.assets, **self.series, **self.dues}
        self.new_of: dict[bytes, bytes] = {}  # ids and commitments of the vectors -> those of this vault
        self.trade_keys: set[tuple[bytes, int, int]] = set()
        self.world = SolanaWorld(
            operators=[self.operators[o] for o in setup["operators"]],
            threshold=setup["threshold"],
            treasurer=self.accounts["treasurer"],
            caps={self.assets[a]: [int(n) for n in numbers] for a, numbers in setup["caps"].items()},
            delay=setup["delay"],
            time=setup["time"],
        )
        for name, account in family["accounts"].items():
            assert self.world.add_key(bytes.fromhex(account["private_key"])) == self.accounts[name]
        deposits: dict[tuple[str, str], int] = {}
        for step in self.steps:
            if step["call"] == "deposit" and step["args"]["asset"] in self.assets:
                key = (step["args"]["asset"], step["by"])
                deposits[key] = deposits.get(key, 0) + int(step["args"]["amount"])
        for asset in self.assets.values():
            self.world.deploy_token(asset)
        for (asset_name, owner), amount in deposits.items():
            self.world.fund(self.assets[asset_name], self.accounts[owner], min(amount, 2**63))

    def get_id(self, name: str) -> bytes:
        return self.ids[name] if name in self.ids else bytes.fromhex(name)

    def translate(self, value: bytes) -> bytes:
        """Return a payload value with every word that follows from a head replaced."""
        words = [value[i : i + 32] for i in range(0, len(value), 32)]
        return b"".join(self.new_of.get(word, word) for word in words)

    # ---- steps ----

    def run_step(self, step: Json) -> None:
        self.world.set_time(step["t"])
        try:
            out = self._bring(step) if step["call"] == "recv" else self._call(step)
        except Reverted as why:
            _verify_revert(why, step)
            return
        except Rejected:
            assert "revert" in step, "the client cannot say it"
            return
        assert "revert" not in step, f"accepted, expected revert {step.get('revert')}"
        self._compare(step, out)

    def _compare(self, step: Json, out: Outcome) -> None:
        call, args = step["call"], step["args"]
        if step["out"] is None:
            assert out.out is None
        else:
            assert out.out == self.translate(bytes.fromhex(step["out"]))
        if call in ("take", "request_withdrawal"):
            self.new_of[bytes.fromhex(step["head"])] = self.world.head
            assert (step["value"], out.value) == (step["head"], self.world.head)
        elif call == "offer":
            assert int.from_bytes(out.value, "little") == step["value"]
        elif call == "list_series":
            assert out.value.hex() == step["value"]
        else:
            assert step["value"] is None
        if call == "take":
            taker = HOUSE if args.get("for_house") else self.get_id(step["by"])
            self.trade_keys.add((taker, args["offer"], args["nonce"]))

    def _bring(self, step: Json) -> Outcome:
        args, world = step["args"], self.world
        if step.get("revert") in UNSPEAKABLE:
            given = {k: v for k, v in args.items() if k != "signatures"}
            self._verify_unspeakable(given)
            raise Rejected("the compact form cannot say it", reason="not_compact")
        old = _make_packet(self.old_client, args)
        packet = _make_packet(world.client, {**args, "value": self.translate(bytes.fromhex(args["value"])).hex()})
        signatures = self._sign_anew([bytes.fromhex(s) for s in args["signatures"]], old, packet)
        self.new_of[compute_commitment(old)] = compute_commitment(packet)
        return world.bring(packet, signatures)

    def _sign_anew(self, signatures: list[bytes], old: Packet, packet: Packet) -> list[bytes]:
        """Return the signatures of a step for this vault: by the same keys over the same statement, or with the same flaw."""
        out = []
        for signature in signatures:
            made = self._sign_rightly(signature, old, packet)
            out.append(
                made
                or _sign_anew([signature], self.operator_keys, self.old_vault_id, old, self.world.vault_id, packet)[0]
            )
        return out

    def _sign_rightly(self, signature: bytes, old: Packet, packet: Packet) -> bytes | None:
        for epoch in EPOCHS:
            digest = compute_packet_digest(self.old_vault_id, epoch, old.sequence, compute_commitment(old))
            for key in self.operator_keys:
                if sign_digest(key, digest) == signature:
                    new = compute_packet_digest(self.world.vault_id, epoch, packet.sequence, compute_commitment(packet))
                    return sign_digest(key, new)
        return None

    def _verify_unspeakable(self, args: Json) -> None:
        """Check that a packet differs in its envelope or has a value that the client refuses."""
        packet = _make_packet(self.old_client, args)
        if b.get_packet_flaw(packet, self.old_client, b.CLEARING_CLIENT):
            return
        try:
            b.decode_inbox_body(bytes.fromhex(args["value"]), b.SOLANA_LIMITS)
        except Rejected:
            return
        raise AssertionError("the client could say this packet")

    def _call(self, step: Json) -> Outcome:
        call, args, by = step["call"], step["args"], self.get_id(step["by"])
        world, vault = self.world, self.world.vault
        caller = world.keys[by].pubkey()
        if call == "deposit":
            amount = _get_amount(args["amount"])
            make = c.make_deposit(vault, caller, self.get_id(args["asset"]), amount, self.get_id(args["beneficiary"]))
        elif call == "link":
            signature = bytes.fromhex(args["signature"])
            if len(signature) != 65:
                raise Rejected("a signature has another length", reason="not_compact")
            make = c.make_link(vault, caller, self.get_id(args["portfolio"]), args["valid_until"], signature)
        elif call == "list_series":
            make = c.make_list_series(vault, caller, _read_definition(self.definitions[args["definition"]]))
        elif call == "offer":
            ids = self.get_id(args["series"]), self.get_id(args["asset"])
            amounts = _get_amount(args["quantity"]), _get_amount(args["premium_per_contract"])
            number = world.state.offer_count + 1
            make = c.make_offer(vault, caller, number, args["side"], *ids, *amounts, args["valid_until"])
        elif call == "cancel":
            make = c.make_cancel(vault, caller, args["offer"])
        elif call == "take":
            make = self._take(args, by)
        elif call == "request_withdrawal":
            amount = _get_amount(args["amount"])
            is_house = bool(args.get("for_house"))
            make = c.make_request_withdrawal(vault, caller, self.get_id(args["asset"]), amount, for_house=is_house)
        elif call == "claim":
            account, asset = self.get_id(args["account"]), self.get_id(args["asset"])
            if asset in self.assets.values():
                world.open_tokens(asset, account)
            make = c.make_claim(vault, caller, account, asset)
        elif call == "escape":
            make = c.make_escape(vault, caller, self.get_id(args["asset"]))
        else:
            assert call == "pause", call
            make = c.make_pause(vault, caller, self._sign_pause(bytes.fromhex(args["signature"])))
        return world.send([make], by)

    def _take(self, args: Json, by: bytes) -> Any:
        is_house = bool(args.get("for_house"))
        maker, _, asset, *_, side, _ = self.world.load(c.get_offer_id(args["offer"]))
        taker = HOUSE if is_house else by
        assert isinstance(maker, bytes)
        assert isinstance(asset, bytes)
        buyer = maker if side == 0 else taker
        quantity, caller = _get_amount(args["quantity"]), self.world.keys[by].pubkey()
        terms = (args["offer"], quantity, args["nonce"], buyer, asset)
        return c.make_take(self.world.vault, caller, *terms, for_house=is_house)

    def _sign_pause(self, signature: bytes) -> bytes:
        for epoch in EPOCHS:
            for key in self.operator_keys:
                if sign_digest(key, compute_pause_digest(self.old_vault_id, epoch)) == signature:
                    return sign_digest(key, compute_pause_digest(self.world.vault_id, epoch))
        if len(signature) != 65:
            raise Rejected("a signature has another length", reason="not_compact")
        return signature

    # ---- the final state ----

    def read_final(self) -> Json:
        """Return the state of the vault in the words of the vectors, with the changes that are due in force."""
        world, names = self.world, _Names({v: k for k, v in self.ids.items()})
        names |= {new: old.hex() for old, new in self.new_of.items()}
        state, now = world.state, self.steps[-1]["t"]
        holders = {"HOUSE": HOUSE, "INSURANCE": INSURANCE, **self.accounts}
        for table in ("free", "claimable", "position"):  # accounts that have no name
            holders |= {a: bytes.fromhex(a) for a in self.final[table] if a not in holders}
        kinds = {**self.series, **self.dues}
        status = {name: world.load(c.Id(c.Tag.SERIES, i))[0] for name, i in kinds.items()}
        rotated = bool(state.pending_at) and now >= state.pending_at
        unpaused = bool(state.unpause_at) and now >= state.unpause_at
        current = state.sets[1 - state.set if rotated else state.set]
        pending = None
        if state.pending_at and not rotated:
            following = state.sets[1 - state.set]
            pending = {
                "at": state.pending_at,
                "threshold": state.pending_threshold,
                "treasurer": names[following.treasurer],
                "operators": self._name_operators(following.operators),
            }
        assets = {name: self._read_asset(i, now) for name, i in self.assets.items()}
        used = [] if rotated else [o for i, o in enumerate(current.operators) if state.pause_used >> i & 1]
        return {
            "inbox_sequence": state.inbox_sequence,
            "outbox_sequence": state.outbox_sequence,
            "accepted_at": state.accepted_at,
            "free": self._read_balances(holders, 0),
            "claimable": self._read_balances(holders, 1),
            "position": _drop_zeros(
                {a: {k: world.get_position(i, j) for k, j in kinds.items()} for a, i in holders.items()}
            ),
            "series": sorted(name for name in self.series if status[name] == 1),
            "dues": sorted(name for name in self.dues if status[name] == 2),
            "denoms": [],
            "offers": self._read_offers(names, state.offer_count),
            "offer_count": state.offer_count,
            "trades": self._read_trades(names, state.decided_upto),
            "decided_upto": state.decided_upto,
            "requests": self._read_requests(holders, names),
            "operators": self._name_operators(current.operators),
            "threshold": state.pending_threshold if rotated else state.threshold,
            "operator_epoch": state.epoch + int(rotated),
            "treasurer": names[current.treasurer],
            "paused": state.paused and not unpaused,
            "pause_used": self._name_operators(used),
            "caps": {name: a["caps"] for name, a in assets.items() if a["caps"][0] != "0"},
            "pending_caps": {name: a["pending"] for name, a in assets.items() if a["pending"]},
            "pending_operators": pending,
            "pending_unpause": state.unpause_at if state.unpause_at and not unpaused else None,
            "windows": {
                kind: {name: a[kind] for name, a in assets.items() if a[kind]["day"]}
                for kind in ("settlement", "withdrawal")
            },
        }

    def _name_operators(self, operators: Any) -> list[str]:
        names = _Names({v: k for k, v in self.operators.items()})
        return [names[o] for o in operators]

    def _read_balances(self, holders: Mapping[str, bytes], column: int) -> Json:
        load = self.world.load
        return _drop_zeros(
            {
                a: {n: int(load(c.get_balance_id(i, j))[column]) for n, j in self.assets.items()}
                for a, i in holders.items()
            }
        )

    def _read_asset(self, asset: bytes, now: int) -> Json:
        numbers = [int(n) for n in self.world.load(c.Id(c.Tag.ASSET, asset))]
        caps, at, following = numbers[:3], numbers[3], numbers[4:7]
        if at and now >= at:
            caps, at = following, 0

        def read_window(hour: int, hour_used: int, day: int, day_used: int) -> Json:
            return {"hour": hour, "hour_used": str(hour_used), "day": day, "day_used": str(day_used)}

        return {
            "caps": [str(n) for n in caps],
            "pending": {"at": at, "caps": [str(n) for n in following]} if at else None,
            "settlement": read_window(*numbers[7:11]),
            "withdrawal": read_window(*numbers[11:15]),
        }

    def _read_offers(self, names: Mapping[bytes, str], count: int) -> Json:
        offers: Json = {}
        for number in range(1, count + 1):
            fields: Any = self.world.load(c.get_offer_id(number))
            maker, series, asset, quantity, left, premium, valid_until, _, side, cancelled = fields
            if cancelled or not left:
                continue
            offers[str(number)] = {
                "maker": names[maker],
                "series": names[series],
                "asset": names[asset],
                "side": side,
                "quantity": str(quantity),
                "left": str(left),
                "premium_per_contract": str(premium),
                "valid_until": valid_until,
            }
        return offers

    def _read_trades(self, names: Mapping[bytes, str], decided_upto: int) -> Json:
        trades: Json = {}
        for taker, number, nonce in self.trade_keys:
            trade: Any = self.world.load(c.get_trade_id(taker, number, nonce))
            identity, quantity, cost, packet_number = trade
            if packet_number <= decided_upto:
                continue
            offer: Any = self.world.load(c.get_offer_id(number))
            maker, series, asset, *_, valid_until, _, side, _ = offer
            buyer, seller = (maker, taker) if side == 0 else (taker, maker)
            trades[names[identity]] = {
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

    def _read_requests(self, holders: Mapping[str, bytes], names: Mapping[bytes, str]) -> Json:
        requests: Json = {}
        for account, i in holders.items():
            for asset, j in self.assets.items():
                fields: Any = self.world.load(c.Id(c.Tag.REQUEST, i + j))
                identity, amount, made_at = fields
                if amount:
                    record = {"account": account, "asset": asset, "amount": str(amount), "made_at": made_at}
                    requests[names[identity]] = record
        return requests


def _verify_revert(why: Reverted, step: Json) -> None:
    """Check that a revert was expected, and for packets, where carriers act on words, which."""
    assert "revert" in step, f"reverted ({why.reason}), expected a result"
    assert why.reason in c.ERRORS.values(), f"failed outside of the program: {why.reason} {why.logs[-3:]}"
    if step["call"] == "recv":
        assert why.reason == step["revert"], f"reverted ({why.reason}), expected {step['revert']}"


def _get_amount(text: str) -> int:
    """Return an amount of a call; what is no u64 cannot be said to this vault."""
    amount = int(text)
    if amount >= 2**64:
        raise Rejected("an amount of 64 bits", got=text, reason="not_compact")
    return amount


def _read_definition(definition: Json) -> b.SeriesDefinition:
    numbers = ("expiry", "strike_e8", "right", "multiplier_e8", "twap_seconds")
    given = {k: v for k, v in definition.items() if k != "id"}
    fields: dict[str, Any] = {k: int(v) if k in numbers else bytes.fromhex(v) for k, v in given.items()}
    return b.SeriesDefinition(**fields)


def _sort(record: Json) -> Json:
    """Return the final state with its unordered lists sorted, and without the head, which is this vault's own."""
    kept = {k: v for k, v in record.items() if k != "outbox_head"}
    return {k: sorted(v) if k in ("series", "dues", "denoms", "pause_used") else v for k, v in kept.items()}


def run_trace(record: Json, trace: Json) -> None:
    """Run every step of a trace and compare the final state; AssertionError names what differs."""
    run = _Trace(record, trace)
    for i, step in enumerate(run.steps):
        try:
            run.run_step(step)
        except AssertionError as error:
            raise AssertionError(f"step {i} {step['call']} by {step['by']}: {error}") from error
    got, expected = _sort(run.read_final()), _sort(run.final)
    assert got.keys() == expected.keys(), got.keys() ^ expected.keys()
    for key, value in expected.items():
        assert got[key] == value, f"final {key}: {got[key]}, expected {value}"
