"""Vectors of optsettle that concern the Cosmos vault, run on its committed wasm.

`discover_traces`: the histories of family "cosmos" in traces.json, step by step and then the whole final state, at the very ids
of the file. `discover_recv`: recv_cases and creation_cases of bytes.json, each on a fresh vault. Cases that were made for
another family are signed anew with the same keys and the same flaws, as the README of the vectors says (4).
Called by `tests/conformance/kinds/optsettle.py` and by `tests/contracts`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from messages import bodies as b
from messages.digests import SECP256K1_N, compute_packet_digest, compute_vault_id, sign_digest
from messages.errors import Rejected
from messages.ids import get_vault_client
from messages.packet import Packet, Payload, compute_commitment
from tests.conformance.case import Case, SkippedError
from tests.contracts.cosmos_harness import Reverted
from tests.contracts.cosmos_world import CosmosWorld, encode_definition
from tests.contracts.vault_world import HOUSE, INSURANCE

Json = Any

KIND = "optsettle"
FAMILY = "cosmos"
RICH = 2**120  # callers hold what they deposit
HOME_CHAIN = "cosmoshub-4"  # where cases of another family are run
EPOCHS = range(3)  # of which a flawed certificate may be


def _read_files(folder: Path, section: str) -> Iterator[tuple[str, Json]]:
    """Yield (file name, content) of every JSON object below ``folder`` that has ``section``."""
    for path in sorted(folder.rglob("*.json")):
        record = json.loads(path.read_text())
        if isinstance(record, dict) and section in record:
            yield path.name, record


def discover_traces(folder: Path) -> Iterator[Case]:
    """Yield one case per trace of family "cosmos" in the files of ``folder``."""
    for name, record in _read_files(folder, "traces"):
        for trace in record["traces"]:
            if trace["family"] == FAMILY:
                yield Case(KIND, f"{name} {trace['id']} on wasm", partial(_run_trace, record, trace))


def discover_recv(folder: Path) -> Iterator[Case]:
    """Yield one case per recv_case and creation_case in the files of ``folder``."""
    for name, record in _read_files(folder, "recv_setup"):
        setup = record["recv_setup"]
        keys = [bytes.fromhex(o["private_key"]) for o in record.get("operators", {}).values()]
        for i, case in enumerate(record.get("recv_cases", [])):
            yield Case(KIND, f"{name} recv_cases[{i}] {case['why']} on wasm", partial(_run_recv, setup, keys, case))
        for i, case in enumerate(record.get("creation_cases", [])):
            yield Case(KIND, f"{name} creation_cases[{i}] on wasm", partial(_run_creation, setup, case))


def _get_chain_id(caip2: str) -> str:
    """Return the chain id of a CAIP-2 text of this family, else that of the chain where such cases are run."""
    return caip2.removeprefix("cosmos:") if caip2.startswith("cosmos:") else HOME_CHAIN


# ---- recv_cases and creation_cases ------------------------------------------------------------------------------------


def _make_packet(client: str, given: Json, old_client: str = "") -> Packet:
    """Return the packet of a recv step: what is not named has its right value (README of the vectors, 3).

    ``old_client`` is the client that the case was written for, if another: its forms become those of ``client``.
    """

    def get(name: str, right: str) -> str:
        text: str = given.get(name, right)
        if old_client:
            for form in (str, str.upper, lambda t: t[:-1]):
                text = text.replace(form(old_client), form(client))
        return text

    payload = Payload(
        get("source_port", b.PORT),
        get("destination_port", b.PORT),
        get("version", b.VERSION),
        get("encoding", b.ENCODING),
        bytes.fromhex(given["value"]),
    )
    return Packet(
        given["sequence"],
        get("source_client", client),
        get("destination_client", b.CLEARING_CLIENT),
        given["timeout"],
        (payload,) * given.get("payload_count", 1),
    )


def _create(setup: Json, caps: Mapping[bytes, Sequence[int]]) -> CosmosWorld:
    world = CosmosWorld(
        operators=[bytes.fromhex(o) for o in setup["operators"]],
        threshold=setup["threshold"],
        treasurer=bytes.fromhex(setup["treasurer"]),
        caps=caps,
        delay=setup["delay"],
        time=setup["time"],
        at=bytes.fromhex(setup["vault_account"]),
        chain_id=_get_chain_id(setup["caip2"]),
    )
    assert world.query("vault")["vault_id"] == world.vault_id.hex()
    return world


@dataclass(frozen=True)
class _Statement:
    """What a certificate of a case may have been signed for, rightly or not: epoch and number beside the packet's own."""

    epoch: int
    sequence: int

    def sign(self, key: bytes, vault_id: bytes, packet: Packet) -> bytes:
        return sign_digest(key, compute_packet_digest(vault_id, self.epoch, self.sequence, compute_commitment(packet)))


def _translate_signature(signature: bytes, made: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the signature for the new vault with the flaw that ``signature`` has for the old one.

    ``made``: (right signature for the old vault, for the new one) of every key and statement. A signature near to none of them
    was made by nobody or for something else, and says as little about the new vault.
    """
    for old, new in made:
        for is_high in (False, True):
            before, after = (_flip(old), _flip(new)) if is_high else (old, new)
            if sum(x != y for x, y in zip(before[:64], signature[:64], strict=False)) > 1 or len(signature) < 64:
                continue
            changed = bytes(x ^ y ^ z for x, y, z in zip(before[:64], signature[:64], after[:64], strict=True))
            v = bytes(
                (given - x + y) % 256 for given, x, y in zip(signature[64:65], before[64:], after[64:], strict=False)
            )
            return changed + v + signature[65:]
    return signature


def _flip(signature: bytes) -> bytes:
    """Return the other form of a signature: n - s with the other v."""
    s = SECP256K1_N - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])


def _sign_anew(
    signatures: Sequence[bytes], keys: Sequence[bytes], old_id: bytes, old: Packet, new_id: bytes, new: Packet
) -> list[bytes]:
    """Return the signatures of a case for another vault."""
    if (old_id, old) == (new_id, new) or not new.payloads:  # what has no payload has no commitment
        return list(signatures)
    statements = [_Statement(epoch, s) for epoch in EPOCHS for s in {old.sequence, 1}]
    made = [(st.sign(key, old_id, old), st.sign(key, new_id, new)) for key in keys for st in statements]
    return [_translate_signature(signature, made) for signature in signatures]


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
    try:
        body = b.decode_inbox_body(value, b.WIDEST_LIMITS)
    except Rejected:
        return False
    ids: list[bytes] = []
    if isinstance(body, b.RotateOperators):
        ids = [body.treasurer]
    elif isinstance(body, b.SetCaps):
        ids = [body.asset]
    elif isinstance(body, b.Execute):
        ids = [leg.account for leg in body.legs] + [leg.id for leg in body.legs if leg.kind == 0]
    return any(_is_long(i) for i in ids)


def _is_long(identity: bytes) -> bool:
    return any(identity[:12]) and identity not in (HOUSE, INSURANCE)


def _run_recv(setup: Json, keys: Sequence[bytes], case: Json) -> None:
    is_foreign = setup["family"] != FAMILY
    world = _create(setup, {})
    world.set_time(case["t"])
    given = case["packet"]
    old_id = compute_vault_id(setup["caip2"], bytes.fromhex(setup["vault_account"]))
    old_client = get_vault_client(old_id)
    old = _make_packet(old_client, given)
    packet = _make_packet(world.client, given, old_client)
    signatures = _sign_anew([bytes.fromhex(s) for s in case["signatures"]], keys, old_id, old, world.vault_id, packet)
    verdict, _, word = case["expect"].partition(" ")
    value = bytes.fromhex(given["value"])
    if is_foreign and verdict == "accepted" and _names_long_id(value):
        raise SkippedError("names an id above 20 bytes, which is an address here and none where the case was made for")
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
    caps = {bytes.fromhex(a): [int(n) for n in numbers] for a, numbers in case["caps"].items()}
    if setup["family"] != FAMILY and any(_is_long(i) for i in (*caps, bytes.fromhex(case["treasurer"]))):
        raise SkippedError("names an id above 20 bytes, which is an address here and none where the case was made for")
    try:
        _create({**setup, **case}, caps)
    except Reverted as why:
        _compare_revert(why, "" if case["expect"] == "revert" else None, "creation")
    else:
        assert case["expect"] == "ok", "creation succeeded"


# ---- traces -----------------------------------------------------------------------------------------------------------


class _Names(dict[bytes, str]):
    """Names of ids; what has none is called by its hex."""

    def __missing__(self, key: bytes) -> str:
        return key.hex()


def _drop_zeros(table: Mapping[str, Mapping[str, str]]) -> Json:
    kept = {a: {c: n for c, n in row.items() if n != "0"} for a, row in table.items()}
    return {a: row for a, row in kept.items() if row}


class _Trace:
    """One trace: names of the vectors on a vault of its own, at the ids of the vectors."""

    def __init__(self, record: Json, trace: Json) -> None:
        family = record["families"][FAMILY]
        self.steps, self.final, setup = trace["steps"], trace["final"], trace["setup"]
        self.accounts = {name: bytes.fromhex(a["id"]) for name, a in family["accounts"].items()}
        self.assets = {name: bytes.fromhex(a) for name, a in family["assets"].items()}
        self.denoms: dict[str, str] = family["denoms"]
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
        self.world = CosmosWorld(
            operators=[self.operators[o] for o in setup["operators"]],
            threshold=setup["threshold"],
            treasurer=self.accounts["treasurer"],
            caps={self.assets[a]: [int(n) for n in numbers] for a, numbers in setup["caps"].items()},
            delay=setup["delay"],
            time=setup["time"],
            at=bytes.fromhex(family["vault_account"]),
            chain_id=_get_chain_id(family["caip2"]),
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

    def get_id(self, name: str) -> bytes:
        return self.ids[name] if name in self.ids else bytes.fromhex(name)

    def get_args(self, call: str, args: Json) -> dict[str, object]:
        """Return the fields of the contract's message of the same name."""
        out: dict[str, object] = {}
        for key, value in args.items():
            if key in ("asset", "beneficiary", "account", "series", "portfolio"):
                out[key] = self.get_id(value)
            elif key == "signature":
                out[key] = bytes.fromhex(value)
            elif key == "definition":
                out[key] = encode_definition(_get_definition(self.definitions[value]))
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
                packet = _make_packet(world.client, args)
                out = world.bring(packet, [bytes.fromhex(s) for s in args["signatures"]], by)
            else:
                out = world.write(call, by, **self.get_args(call, args))
        except Reverted as why:
            _compare_revert(why, step.get("revert"), call)
            return
        assert "revert" not in step, f"accepted, expected revert {step.get('revert')}"
        if call == "take":
            taker = HOUSE if args.get("for_house") else by
            self.trade_keys.add((taker, args["offer"], args["nonce"]))
        assert (out.out.hex() if out.out is not None else None) == step["out"]
        assert world.get_head().hex() == step["head"]
        assert out.value == step["value"], f"returned {out.value}, expected {step['value']}"

    # ---- the final state ----

    def read_final(self) -> Json:
        """Return the state of the contract in the words of the vectors: everything that a query shows."""
        query, names = self.world.query, _Names({v: k for k, v in self.ids.items()})
        holders = {"HOUSE": HOUSE, "INSURANCE": INSURANCE, **self.accounts}
        columns = self.get_columns()
        for table in ("free", "claimable", "position"):  # accounts that have no name
            holders |= {a: bytes.fromhex(a) for a in self.final[table] if a not in holders}
        kinds = {**self.series, **self.dues}
        balances = {
            (a, c): query("balance", account=i, asset=j) for a, i in holders.items() for c, j in columns.items()
        }

        def get_balances(column: str) -> Json:
            return _drop_zeros({a: {c: balances[a, c][column] for c in columns} for a in holders})

        cursors, control = query("cursors"), query("control")
        operator_names = _Names({v: k for k, v in self.operators.items()})

        def name_operators(operators: Sequence[str]) -> list[str]:
            return [operator_names[bytes.fromhex(o)] for o in operators]

        pending = control["pending_operators"]
        caps = {name: query("caps", asset=asset) for name, asset in columns.items()}
        windows: Json = {"settlement": {}, "withdrawal": {}}
        for name, asset in columns.items():
            for kind, window in query("windows", asset=asset).items():
                if window["day"]:
                    windows[kind][name] = window
        known = {name: query("series", id=i) for name, i in kinds.items()}
        return {
            **{key: cursors[key] for key in ("inbox_sequence", "outbox_sequence", "outbox_head", "accepted_at")},
            "free": get_balances("free"),
            "claimable": get_balances("claimable"),
            "position": _drop_zeros(
                {
                    a: {c: query("position", account=i, series=j)["quantity"] for c, j in kinds.items()}
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

    def read_offers(self, names: Mapping[bytes, str], count: int) -> Json:
        offers: Json = {}
        for number in range(1, count + 1):
            offer = self.world.query("offer", number=number)
            if offer["cancelled"] or offer["left"] == "0":
                continue
            ids = {key: names[bytes.fromhex(offer[key])] for key in ("maker", "series", "asset")}
            plain = ("side", "quantity", "left", "premium_per_contract", "valid_until")
            offers[str(number)] = {**ids, **{key: offer[key] for key in plain}}
        assert self.world.query("offer", number=count + 1) is None
        return offers

    def read_trades(self, names: Mapping[bytes, str]) -> Json:
        trades: Json = {}
        for taker, number, nonce in self.trade_keys:
            trade = self.world.query("trade", taker=taker, offer=number, nonce=nonce)
            if trade is None:
                continue
            offer = self.world.query("offer", number=number)
            maker = bytes.fromhex(offer["maker"])
            buyer, seller = (maker, taker) if offer["side"] == 0 else (taker, maker)
            trades[trade["id"]] = {
                "taker": names[taker],
                "offer": number,
                "nonce": nonce,
                "buyer": names[buyer],
                "seller": names[seller],
                "series": names[bytes.fromhex(offer["series"])],
                "asset": names[bytes.fromhex(offer["asset"])],
                "quantity": trade["quantity"],
                "cost": trade["cost"],
                "valid_until": offer["valid_until"],
                "number": trade["number"],
            }
        return trades

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


def _get_definition(definition: Json) -> Json:
    return {key: value for key, value in definition.items() if key != "id"}


def _get_triple(caps: Json) -> list[str]:
    return [caps["per_packet"], caps["per_hour"], caps["per_day"]]


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
    assert got.keys() == expected.keys(), got.keys() ^ expected.keys()
    for key, value in expected.items():
        assert got[key] == value, f"final {key}: {got[key]}, expected {value}"
