"""The demo is a test of the whole product: the same story with faults ends in the same balances, another seed in others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


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
    other = run_demo(tmp_path / "other", "--seed", "6")

    for result in (plain, broken, other):
        assert result["conservation"] == 0
        assert result["replay"] == "same"
        assert result["packets"] >= 10
        assert result["packets_refused"] == 0
        assert [proof["fact"].partition(":")[0] for proof in result["proofs"]] == ["eip155", "cosmos"]

    # What a lying endpoint, a reorg, a dead and a killed operator and a bad broker may change: times, never balances.
    assert broken["final"] == plain["final"]
    assert broken["final_digest"] == plain["final_digest"]
    caught = {(b["source"], b["reason"]) for b in broken["blames"]}
    assert ("sim-31337-0", "packets_missing") in caught
    assert ("sim-optsettle-8-0", "head_mismatch") in caught
    assert plain["blames"] == []

    assert other["final_digest"] != plain["final_digest"]
    assert other["settlement"]["price_e8"] != plain["settlement"]["price_e8"]

    # The margin maker's two chains are one account: it asks for far less than both alone.
    asked = plain["margin"]["maker"]
    assert int(asked["together"]) < int(asked["apart"]) / 10
