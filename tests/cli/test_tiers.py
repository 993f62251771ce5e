"""The trust tier where numbers are shown: positions, margin, explain, status, packets, and an exported fact (protocol.md 10)."""

from __future__ import annotations

from decimal import Decimal

from messages.outbox import TrustTier
from relayer.commands.view import describe_tier
from tests.builders import make_account

MAKER = make_account("maker").hex()[24:36]
ATTESTED = {"tier": 3, "tier_m": 3, "tier_n": 4, "tier_text": "3 attested 3/4"}
PROVEN = {"tier": 1, "tier_m": 0, "tier_n": 0, "tier_text": "1 light client"}


def has(row, tier):
    return {key: row[key] for key in tier} == tier


def test_positions_tell_for_each_row_who_vouches_for_it(attested_shell):
    rows = [r for p in attested_shell.json("positions")["portfolios"] for r in p["rows"]]
    assert {r["chain"] for r in rows} == {"eip155:1000", "eip155:1001"}
    for row in rows:
        assert has(row, PROVEN if row["chain"] == "eip155:1000" else ATTESTED)
        assert row["height"] > 0
    text = attested_shell.text("positions")
    assert "3 attested 3/4" in text
    assert "1 light client" in text


def test_status_tells_the_tier_of_each_chain_and_of_one_without_facts_what_it_will_be(attested_shell):
    chains = {c["chain"]: c for c in attested_shell.json("status")["chains"]}
    assert has(chains["eip155:1000"], PROVEN)
    assert has(chains["eip155:1001"], ATTESTED)
    assert chains["eip155:1002"]["outbox_sequence"] == 0
    assert has(chains["eip155:1002"], ATTESTED)
    assert "3 attested 3/4" in attested_shell.text("status")


def test_margin_tells_haircut_weight_and_what_facts_of_a_low_tier_carry(attested_shell):
    data = attested_shell.json("margin", MAKER)
    total = data["together"]
    cash = {r["chain"]: r for r in total["cash_rows"]}
    assert has(cash["eip155:1001"], ATTESTED)
    age = cash["eip155:1001"]["age_s"]
    assert cash["eip155:1001"]["haircut_ppm"] >= 10_000
    assert Decimal(cash["eip155:1001"]["counts"]) < 4_950 + Decimal("0.01")
    (row,) = total["tier_rows"]
    assert (row["chain"], row["tier_text"], row["value_limit"]) == ("eip155:1001", "3 attested 3/4", "900.000000")
    assert row["weight_ppm"] >= 20_000
    assert row["age_s"] == age
    assert Decimal(row["withheld"]) == Decimal(row["carried"]) - 900
    assert row["needs_tier"] == 2
    # the plain margin less what is not counted; nothing of it is taken from maintenance
    assert Decimal(total["initial"]) < Decimal(row["carried"]) - Decimal(row["withheld"])
    assert Decimal(total["maintenance"]) > 4_000
    assert [line["where"] for line in data["apart"]] == ["eip155:1000", "eip155:1001"]
    assert data["apart"][0]["tier_rows"] == []
    text = attested_shell.text("margin", MAKER)
    for word in ("What initial margin owes to facts of low tiers", "3 attested 3/4", "may carry", "900.00"):
        assert word in text
    assert "What initial margin owes" not in attested_shell.text("margin", make_account("alice").hex()[24:36])


def test_a_request_that_the_tier_holds_is_explained_and_its_facts_name_their_tier(attested_shell):
    packets = attested_shell.json("packets")["outbox"]
    assert all(has(p, PROVEN if p["chain"] == "eip155:1000" else ATTESTED) for p in packets)
    request = next(p for p in packets if p["kind"] == "WithdrawalRequested")
    data = attested_shell.json("explain", request["head"])
    assert has(data["sections"][0], PROVEN)
    codes = {c["code"] for s in data["sections"] for c in s["causes"]}
    assert "tier_limit" in codes
    text = attested_shell.text("explain", request["head"])
    assert "trust tier 1 light client" in text
    assert "operators set value_limit per tier" in text
    deposit = next(p for p in packets if p["kind"] == "Deposited" and p["chain"] == "eip155:1001")
    fact = attested_shell.json("explain", deposit["head"])["sections"][0]
    assert has(fact, ATTESTED)
    assert "trust tier 3 attested 3/4" in attested_shell.text("explain", deposit["head"])


def test_the_explanation_of_a_portfolio_names_the_tier_of_each_of_its_chains(attested_shell):
    data = attested_shell.json("explain", MAKER)
    section = next(s for s in data["sections"] if s["kind"] == "portfolio")
    assert [has(t, PROVEN) or has(t, ATTESTED) for t in section["trust"]] == [True, True]
    assert "is known by trust tier 3 attested 3/4" in attested_shell.text("explain", MAKER)


def test_a_tier_is_told_with_its_parameters():
    assert describe_tier(TrustTier(1)) == "1 light client"
    assert describe_tier(TrustTier(2)) == "2 staked header"
    assert describe_tier(TrustTier(3, 5, 7)) == "3 attested 5/7"
