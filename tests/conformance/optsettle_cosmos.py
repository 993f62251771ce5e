"""Vectors of optsettle that concern the Cosmos vault, run on its committed wasm; see `optsettle_vault`.

The histories of family "cosmos", at the very ids of the file, and recv_cases and creation_cases of every family, each on a fresh vault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from messages import bodies as b
from messages.digests import compute_vault_id
from messages.errors import Rejected
from messages.ids import get_vault_client
from tests.conformance.case import SkippedError
from tests.conformance.optsettle_vault import (
    RICH,
    Json,
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
from tests.contracts.cosmos_harness import Reverted
from tests.contracts.cosmos_world import CosmosWorld, encode_definition

FAMILY = "cosmos"
HOME_CHAIN = "cosmoshub-4"  # where cases of another family are run
LONG_ID = "names an id above 20 bytes, which is an address here and none where the case was made for"


def _get_chain_id(caip2: str) -> str:
    """Return the chain id of a CAIP-2 text of this family, else that of the chain where such cases are run."""
    return caip2.removeprefix("cosmos:") if caip2.startswith("cosmos:") else HOME_CHAIN


# ---- recv_cases and creation_cases ------------------------------------------------------------------------------------


def _create(setup: Json, caps: Mapping[bytes, Sequence[int]]) -> CosmosWorld:
    world = CosmosWorld(
        **get_creation(setup, caps),
        at=bytes.fromhex(setup["vault_account"]),
        chain_id=_get_chain_id(setup["caip2"]),
    )
    assert world.query("vault")["vault_id"] == world.vault_id.hex()
    return world


def _compare_revert(why: Reverted, word: str | None, call: str) -> None:
    """Check that a revert was expected. Words are compared for packets only, where carriers act on them.

    What is no message at all (a number beyond its type) fails before the contract has a say: "kind: Serialization".
    """
    if word is None:
        raise AssertionError(f"reverted ({why.text}), expected a result")
    if why.reason in ("trap", "coins", "address", "no"):  # the machine's own reasons, not the contract's
        raise AssertionError(f"failed outside of the contract ({why.text}), expected revert {word}")
    if call == "recv" and why.reason not in (word, "kind"):
        raise AssertionError(f"reverted ({why.text}), expected revert {word}")


def _names_long_id(value: bytes) -> bool:
    """Tell whether a body names an id above 20 bytes: an address on Cosmos, none on the family the case was made for."""
    body = decode_wide(value)
    ids: list[bytes] = []
    if isinstance(body, b.RotateOperators):
        ids = [body.treasurer]
    elif isinstance(body, b.SetCaps):
        ids = [body.asset]
    elif isinstance(body, b.Execute):
        ids = [leg.account for leg in body.legs] + [leg.id for leg in body.legs if leg.kind == 0]
    return any(is_long(i) for i in ids)


def _run_recv(setup: Json, keys: Sequence[bytes], case: Json) -> None:
    is_foreign = setup["family"] != FAMILY
    world = _create(setup, {})
    world.set_time(case["t"])
    given = case["packet"]
    old_id = compute_vault_id(setup["caip2"], bytes.fromhex(setup["vault_account"]))
    old_client = get_vault_client(old_id)
    old = make_packet(old_client, given)
    packet = make_packet(world.client, given, old_client)
    signatures = sign_anew([bytes.fromhex(s) for s in case["signatures"]], keys, old_id, old, world.vault_id, packet)
    verdict, _, word = case["expect"].partition(" ")
    value = bytes.fromhex(given["value"])
    if is_foreign and verdict == "accepted" and _names_long_id(value):
        raise SkippedError(LONG_ID)
    is_wider = is_foreign and word == "malformed" and _is_canonical(value)
    try:
        out = world.bring(packet, signatures)
    except Reverted as why:
        _compare_revert(why, word if verdict == "revert" and not is_wider else None, "recv")
    else:
        assert out.out is not None
        assert is_wider or verdict == "accepted", f"accepted, expected {case['expect']}"
        assert is_wider or out.out.hex() == word


def _is_canonical(value: bytes) -> bool:
    """Tell whether a vault of this family decodes a value."""
    try:
        b.decode_inbox_body(value, b.COSMOS_LIMITS)
    except Rejected:
        return False
    return True


def _run_creation(setup: Json, case: Json) -> None:
    caps = read_caps(case["caps"])
    if setup["family"] != FAMILY and any(is_long(i) for i in (*caps, bytes.fromhex(case["treasurer"]))):
        raise SkippedError(LONG_ID)
    try:
        _create({**setup, **case}, caps)
    except Reverted as why:
        _compare_revert(why, "" if case["expect"] == "revert" else None, "creation")
    else:
        assert case["expect"] == "ok", "creation succeeded"


# ---- traces -----------------------------------------------------------------------------------------------------------


class _Trace(VaultTrace):
    """One trace on a vault of its own, at the ids of the vectors."""

    family = FAMILY

    def make_world(self, record: Json, family: Json, creation: dict[str, Any]) -> None:
        self.denoms: dict[str, str] = family["denoms"]
        self.world = CosmosWorld(
            **creation, at=bytes.fromhex(family["vault_account"]), chain_id=_get_chain_id(family["caip2"])
        )
        assert self.world.vault_id.hex() == family["vault_id"]
        assert self.world.client == family["vault_client"]
        named = set(self.denoms.values()) | {s["args"]["denom"] for s in self.steps if s["call"] == "register_denom"}
        self.coins = {self.world.add_denom(denom): denom for denom in sorted(named)}
        for name, denom in self.denoms.items():
            assert self.coins[self.assets[name]] == denom
        for asset in self.assets.values():
            if asset not in self.coins:
                self.world.deploy_token(asset)
        deposits = {(s["args"]["asset"], s["by"]) for s in self.steps if s["call"] == "deposit"}
        for name, owner in sorted(deposits):
            asset = self.get_id(name)
            if asset in self.coins or asset in self.assets.values():
                self.world.fund(asset, self.get_id(owner), RICH)

    def get_args(self, call: str, args: Json) -> dict[str, object]:
        """Return the fields of the contract's message of the same name."""
        out: dict[str, object] = {}
        for key, value in args.items():
            if key in ("asset", "beneficiary", "account", "series", "portfolio"):
                out[key] = self.get_id(value)
            elif key == "signature":
                out[key] = bytes.fromhex(value)
            elif key == "definition":
                out[key] = encode_definition(self.definitions[value])
            elif key in ("amount", "quantity", "premium_per_contract"):
                out[key] = int(value)
            else:
                assert key in ("side", "valid_until", "offer", "nonce", "for_house", "denom"), f"{call} {key}"
                out[key] = value
        return out

    def run_step(self, step: Json) -> None:
        world, call, args = self.world, step["call"], step["args"]
        world.set_time(step["t"])
        by = self.get_id(step["by"])
        try:
            if call == "recv":
                packet = make_packet(world.client, args)
                out = world.bring(packet, [bytes.fromhex(s) for s in args["signatures"]], by)
            else:
                out = world.write(call, by, **self.get_args(call, args))
        except Reverted as why:
            _compare_revert(why, step.get("revert"), call)
            return
        self.compare_outcome(step, out, world.get_head())

    # ---- the final state ----

    def read_final(self) -> Json:
        query, names, holders, columns = self.world.query, self.get_names(), self.get_holders(), self.get_columns()
        balances = {
            (a, c): query("balance", account=i, asset=j) for a, i in holders.items() for c, j in columns.items()
        }

        def get_balances(column: str) -> Json:
            return drop_zeros({a: {c: int(balances[a, c][column]) for c in columns} for a in holders})

        cursors, control = query("cursors"), query("control")

        def name_operators(operators: Sequence[str]) -> list[str]:
            return self.name_operators([bytes.fromhex(o) for o in operators])

        pending = control["pending_operators"]
        caps = {name: query("caps", asset=asset) for name, asset in columns.items()}
        windows: Json = {"settlement": {}, "withdrawal": {}}
        for name, asset in columns.items():
            for kind, window in query("windows", asset=asset).items():
                if window["day"]:
                    windows[kind][name] = window
        known = {name: query("series", id=i) for name, i in self.kinds.items()}
        return {
            **{key: cursors[key] for key in ("inbox_sequence", "outbox_sequence", "outbox_head", "accepted_at")},
            "free": get_balances("free"),
            "claimable": get_balances("claimable"),
            "position": drop_zeros(
                {
                    a: {c: int(query("position", account=i, series=j)["quantity"]) for c, j in self.kinds.items()}
                    for a, i in holders.items()
                }
            ),
            "series": sorted(name for name in self.series if known[name] and not known[name]["is_due"]),
            "dues": sorted(name for name in self.dues if known[name] and known[name]["is_due"]),
            "denoms": sorted(names[i] for i, denom in self.coins.items() if query("asset", id=i)["denom"] == denom),
            "offers": self.read_offers(names, cursors["offer_count"]),
            "offer_count": cursors["offer_count"],
            "trades": self.read_trades(names),
            "decided_upto": cursors["decided_upto"],
            "requests": self.read_requests(holders),
            "operators": name_operators(control["operators"]),
            "threshold": control["threshold"],
            "operator_epoch": control["operator_epoch"],
            "treasurer": names[bytes.fromhex(control["treasurer"])],
            "paused": control["paused"],
            "pause_used": name_operators(control["pause_used"]),
            "caps": {n: _get_triple(c) for n, c in caps.items() if c and c["per_packet"] != "0"},
            "pending_caps": {
                n: {"at": c["pending"]["at"], "caps": _get_triple(c["pending"])}
                for n, c in caps.items()
                if c and c["pending"]
            },
            "pending_operators": pending
            and {
                "at": pending["at"],
                "threshold": pending["threshold"],
                "treasurer": names[bytes.fromhex(pending["treasurer"])],
                "operators": name_operators(pending["operators"]),
            },
            "pending_unpause": control["pending_unpause"],
            "windows": windows,
        }

    def get_columns(self) -> dict[str, bytes]:
        """Return every asset of the trace by name; a coin that only a step names is called by its id."""
        return {**self.assets, **{i.hex(): i for i in self.coins if i not in self.assets.values()}}

    def get_offer(self, number: int) -> Offer:
        offer = self.world.query("offer", number=number)
        ids = {key: bytes.fromhex(offer[key]) for key in ("maker", "series", "asset")}
        amounts = {key: int(offer[key]) for key in ("quantity", "left", "premium_per_contract")}
        return Offer(
            **ids, **amounts, side=offer["side"], valid_until=offer["valid_until"], is_cancelled=offer["cancelled"]
        )

    def read_offers(self, names: Mapping[bytes, str], count: int) -> Json:
        assert self.world.query("offer", number=count + 1) is None
        return super().read_offers(names, count)

    def get_trade(self, taker: bytes, offer: int, nonce: int) -> Trade | None:
        trade = self.world.query("trade", taker=taker, offer=offer, nonce=nonce)
        if trade is None:
            return None
        return Trade(bytes.fromhex(trade["id"]), int(trade["quantity"]), int(trade["cost"]), trade["number"])

    def read_requests(self, holders: Mapping[str, bytes]) -> Json:
        requests: Json = {}
        columns = self.get_columns()
        for account, i in holders.items():
            for asset, j in columns.items():
                request = self.world.query("request", account=i, asset=j)
                if request is not None:
                    requests[request["id"]] = {
                        "account": account,
                        "asset": asset,
                        "amount": request["amount"],
                        "made_at": request["made_at"],
                    }
        return requests


def _get_triple(caps: Json) -> list[str]:
    return [caps["per_packet"], caps["per_hour"], caps["per_day"]]


RUNNER = Runner(FAMILY, " on wasm", _Trace, _run_recv, _run_creation)
