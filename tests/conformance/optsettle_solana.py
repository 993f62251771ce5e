"""Traces of optsettle that concern the Solana vault, run on its committed program in LiteSVM.

A vault is a derived address there, so it cannot stand at the account of the vectors: as their README says (4), the ids that
follow from heads are replaced, packets are signed anew with the same keys and the same flaws, and heads are computed anew.
Everything else is compared as it is written. What the compact transport cannot say has `revert` as result: these steps
are skipped, and it is checked that the client refuses to say them.
See `optsettle_vault`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
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
from tests.conformance.optsettle_vault import (
    EPOCHS,
    Json,
    Names,
    Offer,
    Runner,
    Trade,
    VaultTrace,
    decode_wide,
    drop_zeros,
    get_creation,
    is_long,
    make_packet,
    read_caps,
    sign_anew,
)
from tests.contracts.solana_harness import CAIP2, PROGRAM, Outcome, Reverted, SolanaWorld

UNSPEAKABLE = {"envelope", "malformed"}  # reverts of packets that the compact transport cannot say


def _is_judged_alike(case: Json) -> bool:
    """Tell whether a body is judged alike by the families: no long ids, caps of 65 to 96 bits, more than fits."""
    body = decode_wide(bytes.fromhex(case["packet"]["value"]))
    if isinstance(body, b.SetCaps):
        return not any(2**64 <= cap < 2**96 for cap in (body.per_packet, body.per_hour, body.per_day))
    if isinstance(body, b.RotateOperators):
        return not is_long(body.treasurer)
    return not (isinstance(body, b.DecideTrades | b.DecideWithdrawals) and len(body.items) > c.MAX_RECORDS)


def _run_recv(setup: Json, keys: Sequence[bytes], case: Json) -> None:
    """Run one recv_case on a fresh vault, signed anew with the flaws that it has; AssertionError names what differs."""
    world = SolanaWorld(**get_creation(setup, {}))
    world.set_time(case["t"])
    given, (verdict, _, word) = case["packet"], case["expect"].partition(" ")
    old_id = compute_vault_id(setup["caip2"], bytes.fromhex(setup["vault_account"]))
    old_client = get_vault_client(old_id)
    old = make_packet(old_client, given)
    packet = make_packet(world.client, given, old_client)
    if word == "envelope":  # there is no place for an envelope in the compact form
        assert b.get_packet_flaw(packet, world.client, b.CLEARING_CLIENT)
        return
    signatures = sign_anew([bytes.fromhex(s) for s in case["signatures"]], keys, old_id, old, world.vault_id, packet)
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


def _run_creation(setup: Json, case: Json) -> None:
    """Create one vault; AssertionError if that ends otherwise than the case says, as it reads for this family.

    The cases are those of an EVM: amounts at the edge of 96 bits stand for amounts at the edge of 64 bits, and an id of 32
    bytes, which is no address there, is a key like any other here.
    """
    caps = {asset: [_narrow(n) for n in numbers] for asset, numbers in read_caps(case["caps"]).items()}
    treasurer = bytes.fromhex(case["treasurer"])
    operators = [bytes.fromhex(o) for o in case["operators"]]
    expected = "ok" if any(is_long(i) for i in (*caps, treasurer)) else case["expect"]
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


class _Trace(VaultTrace):
    """One trace on a vault of its own, which stands elsewhere than that of the vectors."""

    family = "solana"
    has_own_head = True

    def make_world(self, record: Json, family: Json, creation: dict[str, Any]) -> None:
        self.old_vault_id = bytes.fromhex(family["vault_id"])
        self.old_client: str = family["vault_client"]
        self.operator_keys = [bytes.fromhex(o["private_key"]) for o in record["operators"].values()]
        self.new_of: dict[bytes, bytes] = {}  # ids and commitments of the vectors -> those of this vault
        self.world = SolanaWorld(**creation)
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
        call = step["call"]
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
        self.note_take(step)

    def _bring(self, step: Json) -> Outcome:
        args, world = step["args"], self.world
        if step.get("revert") in UNSPEAKABLE:
            given = {k: v for k, v in args.items() if k != "signatures"}
            self._verify_unspeakable(given)
            raise Rejected("the compact form cannot say it", reason="not_compact")
        old = make_packet(self.old_client, args)
        packet = make_packet(world.client, {**args, "value": self.translate(bytes.fromhex(args["value"])).hex()})
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
                or sign_anew([signature], self.operator_keys, self.old_vault_id, old, self.world.vault_id, packet)[0]
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
        packet = make_packet(self.old_client, args)
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
            make = self._take(args, by, self.get_taker(step))
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

    def _take(self, args: Json, by: bytes, taker: bytes) -> Any:
        maker, _, asset, *_, side, _ = self.world.load(c.get_offer_id(args["offer"]))
        assert isinstance(maker, bytes)
        assert isinstance(asset, bytes)
        buyer = maker if side == 0 else taker
        quantity, caller = _get_amount(args["quantity"]), self.world.keys[by].pubkey()
        terms = (args["offer"], quantity, args["nonce"], buyer, asset)
        return c.make_take(self.world.vault, caller, *terms, for_house=taker != by)

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
        world, holders, names = self.world, self.get_holders(), self.get_names()
        state, now = world.state, self.steps[-1]["t"]
        status = {name: world.load(c.Id(c.Tag.SERIES, i))[0] for name, i in self.kinds.items()}
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
                "operators": self.name_operators(following.operators),
            }
        assets = {name: self._read_asset(i, now) for name, i in self.assets.items()}
        used = [] if rotated else [o for i, o in enumerate(current.operators) if state.pause_used >> i & 1]
        return {
            "inbox_sequence": state.inbox_sequence,
            "outbox_sequence": state.outbox_sequence,
            "accepted_at": state.accepted_at,
            "free": self._read_balances(holders, 0),
            "claimable": self._read_balances(holders, 1),
            "position": drop_zeros(
                {a: {k: world.get_position(i, j) for k, j in self.kinds.items()} for a, i in holders.items()}
            ),
            "series": sorted(name for name in self.series if status[name] == 1),
            "dues": sorted(name for name in self.dues if status[name] == 2),
            "denoms": [],
            "offers": self.read_offers(names, state.offer_count),
            "offer_count": state.offer_count,
            "trades": self.read_trades(names),
            "decided_upto": state.decided_upto,
            "requests": self._read_requests(holders, names),
            "operators": self.name_operators(current.operators),
            "threshold": state.pending_threshold if rotated else state.threshold,
            "operator_epoch": state.epoch + int(rotated),
            "treasurer": names[current.treasurer],
            "paused": state.paused and not unpaused,
            "pause_used": self.name_operators(used),
            "caps": {name: a["caps"] for name, a in assets.items() if a["caps"][0] != "0"},
            "pending_caps": {name: a["pending"] for name, a in assets.items() if a["pending"]},
            "pending_operators": pending,
            "pending_unpause": state.unpause_at if state.unpause_at and not unpaused else None,
            "windows": {
                kind: {name: a[kind] for name, a in assets.items() if a[kind]["day"]}
                for kind in ("settlement", "withdrawal")
            },
        }

    def get_names(self) -> Names:
        names = super().get_names()
        names |= {new: old.hex() for old, new in self.new_of.items()}
        return names

    def _read_balances(self, holders: Mapping[str, bytes], column: int) -> Json:
        load = self.world.load
        return drop_zeros(
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

    def get_offer(self, number: int) -> Offer:
        fields: Any = self.world.load(c.get_offer_id(number))
        maker, series, asset, quantity, left, premium, valid_until, _, side, cancelled = fields
        return Offer(maker, side, series, asset, quantity, left, premium, valid_until, cancelled)

    def get_trade(self, taker: bytes, offer: int, nonce: int) -> Trade | None:
        trade = Trade(*self.world.load(c.get_trade_id(taker, offer, nonce)))
        return trade if trade.number > self.world.state.decided_upto else None

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
    fields: dict[str, Any] = {k: int(v) if k in numbers else bytes.fromhex(v) for k, v in definition.items()}
    return b.SeriesDefinition(**fields)


RUNNER = Runner("solana", " in LiteSVM", _Trace, _run_recv, _run_creation, is_judged_alike=_is_judged_alike)
