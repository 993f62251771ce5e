"""The demo is a test of the whole product: the same story with faults ends in the same balances, another seed in others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from messages.errors import Rejected
from relayer.demo.scenario import load_scenario


def run_demo(folder: Path, *options: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "relayer.cli", "demo", "--json", "--keep", str(folder), *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
        env=os.environ | {"PYTHONHASHSEED": "random"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_faults_change_nothing_in_the_end_and_another_seed_changes_the_numbers(tmp_path: Path):
    plain = run_demo(tmp_path / "plain", "--seed", "5")
    broken = run_demo(tmp_path / "broken", "--seed", "5", "--faults")
    other = run_demo(tmp_path / "other", "--seed", "6", "--chains", "solana,evm")

    for result in (plain, broken, other):
        assert result["conservation"] == 0
        assert result["replay"] == "same"
        assert result["packets"] >= 10
        assert result["packets_refused"] == 0
    known = [("evm", "1 light client"), ("cosmos", "1 light client"), ("solana", "3 attested 3/4")]
    for result in (plain, broken):
        assert [(proof["family"], proof["tier"]) for proof in result["proofs"]] == known
    assert [(proof["family"], proof["tier"]) for proof in other["proofs"]] == [known[2], known[0]]

    # What a lying endpoint, a reorg, a dead and a killed operator and a bad broker may change: times, never balances.
    assert broken["final"] == plain["final"]
    assert broken["final_digest"] == plain["final_digest"]
    caught = {(b["name"], b["reason"]) for b in broken["blames"]}
    assert ("sim-31337-0", "packets_missing") in caught
    assert ("sim-optsettle-8-0", "head_mismatch") in caught
    # On Solana the endpoint forges the vault's account, which is what operators sign, and one operator signs a lie of its own.
    assert ("sim-optsettle-9-0", "other_head") in caught
    assert {("op3", "wrong_head"), ("op3", "equivocation")} <= caught
    assert not any(name in {"op0", "op1", "op2"} for name, reason in caught if reason in {"wrong_head", "equivocation"})
    assert "equivocation" in (tmp_path / "broken" / "op0" / "node.log").read_text()
    assert plain["blames"] == []

    assert other["final_digest"] != plain["final_digest"]
    assert other["settlement"]["price_e8"] != plain["settlement"]["price_e8"]

    # The margin maker's chains are one account: it asks for far less than all of them alone.
    asked = plain["margin"]["maker"]
    assert int(asked["together"]) < int(asked["apart"]) / 5


def test_the_story_on_two_chains_is_that_of_three_with_the_third_played_on_the_second():
    three, two = load_scenario(5), load_scenario(5, ("evm", "solana"))

    assert [(c.name, c.family) for c in three.chains] == [("one", "evm"), ("two", "cosmos"), ("three", "solana")]
    assert [(c.name, c.family) for c in two.chains] == [("one", "evm"), ("two", "solana")]
    # the same trades, so that the maker is as hedged as before, and nobody pays in twice on the chain that is there
    moved = [(t.name, t.seller, t.buyer, t.contracts, t.premium_units) for t in three.trades]
    assert moved == [(t.name, t.seller, t.buyer, t.contracts, t.premium_units) for t in two.trades]
    assert [t.chain for t in three.trades] == ["one", "two", "three", "two"]
    assert [t.chain for t in two.trades] == ["one", "two", "two", "two"]
    in_three, in_two = (next(u.deposits for u in plan.users if u.name == "maker") for plan in (three, two))
    assert in_two == {"one": in_three["one"], "two": in_three["two"]}
    assert (three.withdrawal.chain, two.withdrawal.chain) == ("three", "two")


@pytest.mark.parametrize("families", [("evm",), ("evm", "cosmos", "solana", "evm"), ("evm", "bitcoin")], ids=",".join)
def test_the_story_is_not_told_on_one_chain_or_on_more_than_it_has_or_on_a_family_without_a_simulated_chain(families):
    with pytest.raises(Rejected) as refused:
        load_scenario(5, families)
    assert refused.value.reason == "scenario"
