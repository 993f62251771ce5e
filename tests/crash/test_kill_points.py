"""SIGKILL at every named point, restart from files: nothing is lost, nothing is settled twice (incidents.md, fault 1)."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from messages.bodies import Deposited, SeriesListed, TradePending
from relayer import killpoints
from relayer.store import Store
from tests.builders import TOKEN, make_account, make_series, series_id
from tests.crash import child

ROOT = Path(__file__).resolve().parents[2]
ALICE, BOB = make_account("alice"), make_account("bob")


def prepare(folder):
    """A deposit and a trade wait on every chain."""
    committee = child.open_committee(folder)
    for chain in committee.chains:
        now = committee.clock.now()
        series = make_series(3000)
        chain.put(Deposited(ALICE, TOKEN, 100), now)
        chain.put(SeriesListed(series_id(series), series), now)
        chain.put(TradePending(ALICE, BOB, series_id(series), TOKEN, 10**8, 40, now + 36_000, ALICE, 1, 1), now)


def run_child(folder, kill_at="", seconds=60):
    """Fork a process of four nodes; returns how it ended (0, or minus the signal)."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.environ["RELAYER_KILL_AT"] = kill_at
            killpoints.arm()
            asyncio.run(child.main(folder, seconds))
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def verify_settled_once(folder):
    for chain in child.open_committee(folder).chains:
        assert chain.state.positions[ALICE, series_id(make_series(3000))] == 10**8
        assert chain.state.free == {(ALICE, TOKEN): 60, (BOB, TOKEN): 40}
        assert chain.state.inbox_sequence == 1
        assert [s for s, accepted in chain.received if accepted] == [1]
        assert chain.state.contradictions == ()
    for i in range(4):
        store = Store(folder / f"node{i}.db")
        store.verify_all()
        assert {p.status for p in store.get_packets()} == {"done"}
        assert store.get_halts() == ()
        assert store.get_evidence() == ()
        store.close()


@pytest.mark.parametrize("name", killpoints.NAMES)
def test_a_kill_at_a_named_point_loses_nothing_and_settles_nothing_twice(tmp_path, name):
    prepare(tmp_path)
    assert run_child(tmp_path, name) == -signal.SIGKILL
    assert run_child(tmp_path, seconds=90) == 0
    verify_settled_once(tmp_path)


@pytest.mark.parametrize("name", ["after_vote:3", "after_certificate:4", "after_facts:3", "after_packet_journal:2"])
def test_a_later_passage_of_a_point_is_no_better_place_to_die(tmp_path, name):
    prepare(tmp_path)
    assert run_child(tmp_path, name) == -signal.SIGKILL
    assert run_child(tmp_path, seconds=90) == 0
    verify_settled_once(tmp_path)


def test_three_kills_in_a_row_are_survived(tmp_path):
    prepare(tmp_path)
    for name in ("after_vote", "after_packet_journal:2", "after_send"):
        assert run_child(tmp_path, name) == -signal.SIGKILL
    assert run_child(tmp_path, seconds=120) == 0
    verify_settled_once(tmp_path)


def test_a_real_process_dies_at_the_point_that_its_environment_names(tmp_path):
    prepare(tmp_path)
    environment = {**os.environ, "RELAYER_KILL_AT": "after_raw_tx", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-m", "tests.crash.child", str(tmp_path), "60"], env=environment, cwd=ROOT, check=False
    )
    assert result.returncode == -signal.SIGKILL
    chain = child.open_committee(tmp_path).chains[0]
    assert chain.received == []  # stored, and not sent yet
    assert run_child(tmp_path, seconds=90) == 0
    verify_settled_once(tmp_path)


def test_an_unarmed_point_does_nothing(tmp_path):
    prepare(tmp_path)
    assert run_child(tmp_path, "no_such_point", seconds=90) == 0
    verify_settled_once(tmp_path)
