"""Four real processes over a real broker: they settle, survive a kill and a broker that restarts, and stop when they are asked to."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import aiohttp

from messages.bodies import Deposited, WithdrawalRequested
from relayer.keys import Secret, create_key_file
from relayer.store import Store
from tests.builders import OPERATOR_KEYS, START, TOKEN, make_account
from tests.gossip.broker import PASSWORD, Broker, until
from tests.operability import child
from tests.operability.test_canary import find_secrets, make_needles, read_files
from tests.scenarios.test_node_committee import trade

ROOT = Path(__file__).resolve().parents[2]
ALICE, BOB = make_account("alice"), make_account("bob")


class Processes:
    """Four operators' processes over one folder."""

    def __init__(self, folder, broker):
        self.folder, self.broker = folder, broker
        self.shift_s = START + 600 - int(time.time())
        self.clock = child.ShiftedClock(self.shift_s)
        self.chains = child.open_chains(folder)
        self.running = {}
        for i, key in enumerate(OPERATOR_KEYS):
            create_key_file(folder / f"key{i}.json", Secret(key), Secret(child.KEY_PASSWORD), is_throwaway=True)

    def start(self, i):
        arguments = [self.folder, i, self.broker.port, self.shift_s]
        (self.folder / f"port{i}").unlink(missing_ok=True)
        with (self.folder / f"output{i}").open("ab") as output:
            self.running[i] = subprocess.Popen(
                [sys.executable, "-m", "tests.operability.child", *map(str, arguments)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=output,
                stderr=output,
            )

    def end(self, i, number):
        process = self.running.pop(i)
        process.send_signal(number)
        return process.wait(30)

    def __enter__(self):
        for i in range(4):
            self.start(i)
        return self

    def __exit__(self, *_):
        for process in self.running.values():
            process.kill()
            process.wait(10)

    def verify_alive(self):
        for i, process in self.running.items():
            assert process.poll() is None, (self.folder / f"output{i}").read_text()[-3000:]

    async def until(self, condition, seconds=60):
        def look():
            self.verify_alive()
            for chain in self.chains:
                chain.sync()
            return condition()

        await until(look, seconds=seconds)

    async def ask(self, i, path):
        port = (self.folder / f"port{i}").read_text()
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.status, await answer.text() if path == "/metrics" else await answer.json()

    async def until_ready(self, i):
        await self.until(lambda: (self.folder / f"port{i}").exists() and (self.folder / f"port{i}").read_text())
        while (await self.ask(i, "/ready"))[0] != 200:  # noqa: ASYNC110  another process says so
            await asyncio.sleep(0.1)


async def test_four_processes_settle_through_a_kill_and_a_broker_restart_and_stop_cleanly(tmp_path):
    with Broker(tmp_path) as broker, Processes(tmp_path, broker) as p:
        for chain in p.chains:
            chain.put(Deposited(ALICE, TOKEN, 100), p.clock.now())
            trade(chain, p.clock)
        await p.until(lambda: all(c.state.inbox_sequence == 1 for c in p.chains))
        for i in range(4):
            await p.until_ready(i)
        assert p.end(3, signal.SIGKILL) == -signal.SIGKILL
        broker.kill()
        for chain in p.chains:
            chain.put(WithdrawalRequested(BOB, TOKEN, 30), p.clock.now())
        await until_disconnected(p, 0)
        broker.start()
        await p.until(lambda: all(c.state.inbox_sequence == 2 for c in p.chains))
        p.start(3)
        await p.until_ready(3)
        status, figures = await p.ask(3, "/metrics")
        assert (status, "optsettle_gossip_connected 1.0" in figures) == (200, True)
        assert {p.end(i, signal.SIGTERM if i % 2 else signal.SIGINT) for i in range(4)} == {0}
    for chain in p.chains:
        assert (chain.state.free[BOB, TOKEN], chain.state.claimable[BOB, TOKEN]) == (10, 30)
        assert [s for s, accepted in chain.received if accepted] == [1, 2]
    for i in range(4):
        output = (tmp_path / f"output{i}").read_text()
        assert "Traceback" not in output
        assert "never retrieved" not in output
        store = Store(tmp_path / f"node{i}.db")
        try:
            store.verify_all()
            assert store.get_halts() == ()
            assert store.get_evidence() == ()
        finally:
            store.close()
    files = read_files(tmp_path)
    assert find_secrets(files) == []
    passwords = make_needles(PASSWORD.encode()) | make_needles(child.KEY_PASSWORD)
    assert [name for name, data in files.items() if name != "broker/secret" and any(n in data for n in passwords)] == []


async def until_disconnected(p, i):
    while True:
        status, body = await p.ask(i, "/health")
        if status == 200 and "gossip_disconnected" in {r["alert"] for r in body["reasons"]}:
            return
        await asyncio.sleep(0.1)


async def test_a_stop_while_the_broker_is_away_is_as_clean(tmp_path):
    broker = Broker(tmp_path)  # not started
    p = Processes(tmp_path, broker)
    p.start(0)
    try:
        await p.until(lambda: (tmp_path / "port0").exists() and (tmp_path / "port0").read_text())
        assert (await p.ask(0, "/ready"))[0] == 503
        assert p.end(0, signal.SIGTERM) == 0
    finally:
        p.__exit__()
    assert "Traceback" not in (tmp_path / "output0").read_text()
