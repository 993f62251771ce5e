"""The fold of facts gives the state the vault itself has: replay of the protocol's own histories."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from messages.bodies import (
    CLEARING_CLIENT,
    COSMOS_LIMITS,
    ENCODING,
    EVM_LIMITS,
    PORT,
    SOLANA_LIMITS,
    VERSION,
    Ack,
    decode_outbox_body,
    make_outbox_packet,
)
from messages.documents import Amount, CapParameters, VaultParameters
from messages.ids import HOUSE, INSURANCE, get_vault_client
from messages.packet import Packet, Payload
from relayer.rules.ledger import (
    apply_fact,
    apply_facts,
    decode_vault_state,
    encode_vault_state,
    get_initial_state,
    get_state_at,
)
from tests.builders import make_facts

ROOT = Path(os.environ.get("RELAYER_VECTORS") or Path(__file__).resolve().parents[2].parent / "shared" / "vectors")
FILE = ROOT / "optsettle" / "traces.json"
LIMITS = {"evm": EVM_LIMITS, "cosmos": COSMOS_LIMITS, "solana": SOLANA_LIMITS}


@pytest.fixture(scope="module")
def vectors():
    if not FILE.is_file():
        pytest.skip(f"no protocol vectors at {FILE}: set RELAYER_VECTORS")
    return json.loads(FILE.read_text())


def get_names(vectors, family):
    names = {"HOUSE": HOUSE, "INSURANCE": INSURANCE}
    for name, item in family["accounts"].items():
        names[name] = bytes.fromhex(item["id"])
    for name, item in family["assets"].items():
        names[name] = bytes.fromhex(item)
    for name, item in vectors["series"].items():
        names[name] = bytes.fromhex(item["id"])
    for name, item in vectors["dues"].items():
        names[name] = bytes.fromhex(item)
    return lambda text: names[text] if text in names else bytes.fromhex(text)


def get_vault(trace, family, operators, name):
    setup = trace["setup"]
    return VaultParameters(
        chain=family["caip2"],
        family=trace["family"],
        account=bytes.fromhex(family["vault_account"]),
        operators=tuple(bytes.fromhex(operators[o]["address"]) for o in setup["operators"]),
        threshold=setup["threshold"],
        treasurer=name("treasurer"),
        delay_s=setup["delay"],
        created_at=setup["time"],
        caps=tuple(CapParameters(name(a), *(Amount(int(c)) for c in caps)) for a, caps in setup["caps"].items()),
        inventory_limit=Amount(0),
    )


def get_packets(trace, vault_id):
    """(outbox packet, inbox packet or None) of every step that emitted one."""
    out = []
    for step in trace["steps"]:
        if step.get("out") is None:
            continue
        body = decode_outbox_body(bytes.fromhex(step["out"]))
        inbox = None
        if isinstance(body, Ack):
            args = step["args"]
            payload = Payload(PORT, PORT, VERSION, ENCODING, bytes.fromhex(args["value"]))
            inbox = Packet(args["sequence"], get_vault_client(vault_id), CLEARING_CLIENT, args["timeout"], (payload,))
        out.append((make_outbox_packet(vault_id, len(out) + 1, step["t"], body), inbox))
    return out


def compare(state, final, name, operators):
    def table(values, convert=int):
        return {name(k): convert(v) for k, v in values.items()}

    def pairs(values):
        return {(name(a), name(x)): int(v) for a, row in values.items() for x, v in row.items()}

    assert state.inbox_sequence == final["inbox_sequence"]
    assert state.outbox_sequence == final["outbox_sequence"]
    assert state.outbox_head.hex() == final["outbox_head"]
    assert state.accepted_at == final["accepted_at"]
    assert state.free == pairs(final["free"])
    assert state.claimable == pairs(final["claimable"])
    assert state.positions == pairs(final["position"])
    assert set(state.series) == {name(s) for s in final["series"]}
    assert set(state.dues) == {name(s) for s in final["dues"]}
    trades = {t.id.hex(): t for t in state.trades.values()}
    assert set(trades) == set(final["trades"])
    for trade_id, want in final["trades"].items():
        got = trades[trade_id]
        assert (got.taker, got.offer, got.nonce) == (name(want["taker"]), want["offer"], want["nonce"])
        assert (got.buyer, got.seller, got.series) == (name(want["buyer"]), name(want["seller"]), name(want["series"]))
        assert (got.quantity, got.cost) == (int(want["quantity"]), int(want["cost"]))
        assert (got.valid_until, got.sequence) == (want["valid_until"], want["number"])
    requests = {r.id.hex(): r for r in state.requests.values()}
    assert set(requests) == set(final["requests"])
    for request_id, want in final["requests"].items():
        got = requests[request_id]
        assert (got.account, got.asset, got.amount) == (name(want["account"]), name(want["asset"]), int(want["amount"]))
    assert state.decided_upto == final["decided_upto"]
    assert state.operators == tuple(bytes.fromhex(operators[o]["address"]) for o in final["operators"])
    assert (state.threshold, state.operator_epoch) == (final["threshold"], final["operator_epoch"])
    assert state.treasurer == name(final["treasurer"])
    assert state.paused == final["paused"]
    assert {o.hex() for o in state.pause_used} == {operators[o]["address"] for o in final["pause_used"]}
    caps = {a: [c.per_packet, c.per_hour, c.per_day] for a, c in state.caps.items()}
    assert caps == table(final["caps"], lambda v: [int(x) for x in v])
    pending = {a: (p.at, p.caps.per_packet, p.caps.per_hour, p.caps.per_day) for a, p in state.pending_caps.items()}
    assert pending == {name(a): (p["at"], *(int(x) for x in p["caps"])) for a, p in final["pending_caps"].items()}
    assert state.pending_unpause == final["pending_unpause"]
    want = final["pending_operators"]
    got = state.pending_operators
    assert (got is None) == (want is None)
    if want:
        assert (got.at, got.threshold, got.treasurer) == (want["at"], want["threshold"], name(want["treasurer"]))
        assert got.operators == tuple(bytes.fromhex(operators[o]["address"]) for o in want["operators"])
    for ours, theirs in (
        (state.settlement_windows, final["windows"]["settlement"]),
        (state.withdrawal_windows, final["windows"]["withdrawal"]),
    ):
        got = {a: (w.hour, w.hour_used, w.day, w.day_used) for a, w in ours.items()}
        assert got == {name(a): window(w) for a, w in theirs.items()}


def window(item):
    if isinstance(item, dict):
        return (item["hour"], int(item["hour_used"]), item["day"], int(item["day_used"]))
    hour, hour_used, day, day_used = item
    return (int(hour), int(hour_used), int(day), int(day_used))


def test_every_history_of_the_protocol_vectors_folds_to_the_state_of_the_vault(vectors):
    assert len(vectors["traces"]) >= 100
    for trace in vectors["traces"]:
        family = vectors["families"][trace["family"]]
        name = get_names(vectors, family)
        operators = vectors["operators"]
        vault = get_vault(trace, family, operators, name)
        vault_id = bytes.fromhex(family["vault_id"])
        facts = make_facts(vault_id, get_packets(trace, vault_id), limits=LIMITS[trace["family"]])
        state = apply_facts(get_initial_state(vault), facts)
        assert not state.contradictions, trace["id"]
        try:
            compare(get_state_at(state, trace["steps"][-1]["t"]), trace["final"], name, operators)
        except AssertionError as error:
            raise AssertionError(trace["id"]) from error
        assert decode_vault_state(encode_vault_state(state)) == state


def test_folding_one_by_one_and_in_bulk_is_the_same(vectors):
    trace = max(vectors["traces"], key=lambda t: len(t["steps"]))
    family = vectors["families"][trace["family"]]
    name = get_names(vectors, family)
    vault_id = bytes.fromhex(family["vault_id"])
    facts = make_facts(vault_id, get_packets(trace, vault_id), limits=LIMITS[trace["family"]])
    bulk = single = get_initial_state(get_vault(trace, family, vectors["operators"], name))
    for fact in facts:
        single = apply_fact(single, fact)
    assert encode_vault_state(apply_facts(bulk, facts)) == encode_vault_state(single)


def test_a_changed_amount_folds_to_another_state(vectors):
    trace = next(t for t in vectors["traces"] if t["features"] == ["trade"])
    family = vectors["families"][trace["family"]]
    name = get_names(vectors, family)
    vault_id = bytes.fromhex(family["vault_id"])
    final = json.loads(json.dumps(trace["final"]))
    who, row = next(iter(final["free"].items()))
    asset = next(iter(row))
    final["free"][who][asset] = str(int(row[asset]) + 1)
    facts = make_facts(vault_id, get_packets(trace, vault_id), limits=LIMITS[trace["family"]])
    state = apply_facts(get_initial_state(get_vault(trace, family, vectors["operators"], name)), facts)
    with pytest.raises(AssertionError):
        compare(state, final, name, vectors["operators"])
