"""The virtual clock and the carrier inside one process."""

from __future__ import annotations

import asyncio

import pytest

from messages.errors import Rejected
from relayer.clock import SystemClock, VirtualClock, Wake
from relayer.gossip import MAX_MESSAGE_BYTES, Faults, MemoryBus


async def test_time_moves_from_sleeper_to_sleeper_in_order():
    clock, seen = VirtualClock(1000), []

    async def loop(name, period):
        while True:
            await clock.sleep(period)
            seen.append((clock.now(), name))

    tasks = [asyncio.create_task(clock.run(n, loop(n, p))) for n, p in (("a", 3), ("b", 5))]
    await clock.advance(10)
    assert seen == [(1003, "a"), (1005, "b"), (1006, "a"), (1009, "a"), (1010, "b")]
    assert clock.now() == 1010
    for task in tasks:
        task.cancel()


async def test_settle_waits_for_a_chain_of_wakes_without_moving_time():
    clock = VirtualClock(1000)
    wakes = [Wake(str(i)) for i in range(5)]
    seen = []

    async def loop(i):
        while True:
            if await clock.wait(wakes[i], 1e6):
                for _ in range(10):
                    await asyncio.sleep(0)  # work that yields is still work
                seen.append(i)
                if i + 1 < len(wakes):
                    wakes[i + 1].set()

    tasks = [asyncio.create_task(clock.run(str(i), loop(i))) for i in range(5)]
    await clock.settle()
    wakes[0].set()
    await clock.settle()
    assert seen == [0, 1, 2, 3, 4]
    assert clock.now() == 1000
    for task in tasks:
        task.cancel()


async def test_settle_waits_for_a_thread():
    import time

    clock, done = VirtualClock(1000), []

    async def loop():
        await asyncio.to_thread(time.sleep, 0.05)
        done.append(1)
        await clock.sleep(1e6)

    task = asyncio.create_task(clock.run("thread", loop()))
    await asyncio.sleep(0)
    await clock.settle()
    assert done == [1]
    task.cancel()


async def test_a_wake_that_was_set_before_the_wait_is_not_lost_and_counts_once():
    for clock in (VirtualClock(1000), SystemClock()):
        wake = Wake("w")
        wake.set()
        wake.set()
        assert await clock.wait(wake, 0.01)
        task = asyncio.create_task(clock.wait(wake, 0.01))
        await asyncio.sleep(0)
        if isinstance(clock, VirtualClock):
            await clock.advance(1)
        assert not await task


async def test_a_loop_that_never_rests_is_named(monkeypatch):
    monkeypatch.setattr("relayer.clock.MAX_SETTLE_SPINS", 200)
    clock = VirtualClock(1000)

    async def loop():
        await asyncio.Event().wait()  # outside the clock: that counts as work

    task = asyncio.create_task(clock.run("busy bee", loop()))
    with pytest.raises(RuntimeError, match="busy bee"):
        await clock.settle()
    task.cancel()


async def test_a_cancelled_or_ended_loop_leaves_the_clock_at_rest():
    clock = VirtualClock(1000)

    async def end():
        await clock.sleep(1)

    tasks = [asyncio.create_task(clock.run("x", end())), asyncio.create_task(clock.run("y", end()))]
    await clock.settle()
    tasks[0].cancel()
    await clock.advance(5)
    assert not clock.busy
    assert tasks[1].done()


async def test_a_message_reaches_every_other_port_and_not_its_sender():
    bus, got = MemoryBus(), []
    ports = [bus.connect(str(i)) for i in range(3)]
    ends = [p.subscribe("t", lambda _t, d, p=p: got.append((p.name, d))) for p in ports]
    await ports[0].publish("t", b"x")
    await ports[0].publish("other", b"y")
    assert got == [("1", b"x"), ("2", b"x")]
    ends[1]()
    await ports[0].publish("t", b"z")
    assert got[2:] == [("2", b"z")]


async def test_faults_follow_the_seed_and_nothing_but_drops_is_lost():
    def run(seed, **faults):
        bus, got = MemoryBus(Faults(**faults), seed), []
        sender, receiver = bus.connect("a"), bus.connect("b")
        receiver.subscribe("t", lambda _t, d: got.append(d))
        for i in range(200):
            bus.send(sender.name, "t", b"%d" % i)
        while bus.flush():
            pass
        return got

    every = {b"%d" % i for i in range(200)}
    mixed = run(1, duplicate=300, hold=400, replay=300)
    assert set(mixed) == every
    assert len(mixed) > 200
    assert mixed != sorted(mixed, key=int)
    assert mixed == run(1, duplicate=300, hold=400, replay=300) != run(2, duplicate=300, hold=400, replay=300)
    assert 0 < len(run(1, drop=500)) < 200


async def test_settle_releases_what_the_bus_holds_back():
    clock, bus, got = VirtualClock(1000), MemoryBus(Faults(hold=1000)), []
    clock.sources.append(bus.flush)
    bus.connect("b").subscribe("t", lambda _t, d: got.append(d))
    await bus.connect("a").publish("t", b"x")
    assert got == []
    await clock.settle()
    assert got == [b"x"]


async def test_a_port_that_is_cut_off_neither_sends_nor_receives():
    bus, got = MemoryBus(), []
    a, b = bus.connect("a"), bus.connect("b")
    b.subscribe("t", lambda _t, d: got.append(d))
    bus.cut_off.add("a")
    await a.publish("t", b"1")
    bus.cut_off = {"b"}
    await a.publish("t", b"2")
    bus.cut_off = set()
    await a.publish("t", b"3")
    assert got == [b"3"]


async def test_a_message_beyond_the_limit_is_refused_at_the_sender():
    with pytest.raises(Rejected) as caught:
        await MemoryBus().connect("a").publish("t", bytes(MAX_MESSAGE_BYTES + 1))
    assert caught.value.reason == "size"
