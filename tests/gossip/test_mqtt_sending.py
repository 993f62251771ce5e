"""What is said leaves at once, what is not acknowledged is bounded, and nothing calls for a writer that has nothing to write."""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from relayer import mqtt
from relayer.mqtt import MAX_UNCONFIRMED, MqttGossip
from tests.builders import OPERATORS
from tests.gossip.broker import PASSWORD, Broker, Running, until
from tests.gossip.test_mqtt_tls import Authority, make_settings, make_tls_broker

TOPIC = "optsettle/00112233/vote"
SUBSCRIBER = """
import sys
import paho.mqtt.client as paho
port, user, password, topic, out = int(sys.argv[1]), *sys.argv[2:6]
client = paho.Client(paho.CallbackAPIVersion.VERSION2)
client.username_pw_set(user, password)
client.on_subscribe = lambda *_: print("ready", flush=True)
client.on_message = lambda _, __, message: open(out, "ab").write(message.payload + b"\\n")
client.connect("127.0.0.1", port)
client.subscribe(topic, 1)
client.loop_forever()
"""


class Speaking(Running):
    """Gossips that are connected and may send: between the two is one turn of the event loop."""

    async def __aenter__(self):
        gossips = await super().__aenter__()
        await until(lambda: all(g._carrier is not None for g in gossips), self.tasks)
        return gossips


def listen(gossip):
    got = []
    gossip.subscribe(TOPIC, lambda _, d: got.append(d))
    return got


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path) as b:
        yield b


@pytest.fixture
def tls(tmp_path):
    """(broker, authority) as in the operators' configuration."""
    authority = Authority(tmp_path)
    with make_tls_broker(tmp_path, authority) as b:
        yield b, authority


def publish_without_a_turn(gossip, data):
    """Run `publish` to its end; fails if it gives the event loop a turn."""
    coroutine = gossip.publish(TOPIC, data)
    with pytest.raises(StopIteration):
        coroutine.send(None)


# ---- at once


async def test_what_is_said_has_left_when_publish_returns_without_a_turn_of_the_event_loop(broker):
    a, b = MqttGossip(broker.settings(0)), MqttGossip(broker.settings(1))
    got = listen(b)
    async with Speaking(a, b):
        for i in range(3):
            publish_without_a_turn(a, b"%d" % i)
            assert not a._carrier.want_write()
            assert a.queued == 0
        await until(lambda: got == [b"0", b"1", b"2"])


async def test_without_the_write_of_publish_it_waits_for_a_turn(broker, monkeypatch):
    """The twin of the test above: queued with the client library alone, nothing leaves before the event loop has a turn."""
    a, b = MqttGossip(broker.settings(0)), MqttGossip(broker.settings(1))
    got = listen(b)
    async with Speaking(a, b):
        with monkeypatch.context() as patch:
            patch.setattr(a._carrier, "loop_write", lambda: None)
            publish_without_a_turn(a, b"later")
            assert a._carrier.want_write()
        await until(lambda: got == [b"later"])


async def test_others_get_what_is_said_while_the_speaker_is_busy(broker, tmp_path):
    out = tmp_path / "heard"
    wire = TOPIC.replace("optsettle/", f"optsettle/{OPERATORS[0].hex()}/", 1)
    arguments = [str(broker.port), OPERATORS[1].hex(), PASSWORD, wire, str(out)]
    a = MqttGossip(broker.settings(0))
    with subprocess.Popen([sys.executable, "-c", SUBSCRIBER, *arguments], stdout=subprocess.PIPE) as other:  # noqa: ASYNC220  a moment
        try:
            assert (await asyncio.to_thread(other.stdout.readline)).strip() == b"ready"
            async with Speaking(a):
                publish_without_a_turn(a, b"hello")
                deadline = time.monotonic() + 20
                while not (out.exists() and out.read_bytes()) and time.monotonic() < deadline:
                    time.sleep(0.01)  # noqa: ASYNC251  this process is busy: that is the case
                assert out.read_bytes() == b"hello\n"
        finally:
            other.kill()


async def test_by_tls_too_what_is_said_has_left_when_publish_returns(tls):
    broker, authority = tls
    a, b = (MqttGossip(make_settings(broker, authority, i)) for i in range(2))
    got = listen(b)
    async with Speaking(a, b):
        publish_without_a_turn(a, b"hello")
        assert not a._carrier.want_write()
        large = b"\xff" * 900_000  # more than a socket takes at once: the rest follows by the event loop
        await a.publish(TOPIC, large)
        await until(lambda: got == [b"hello", large])
        await until(lambda: a.counts.get("sent") == 2)


# ---- nobody asks for a writer for ever


async def count_idle_writes(gossip):
    """Writers that the event loop calls over a moment in which nobody says anything."""
    calls = Counter()
    carrier = gossip._carrier
    true_write = carrier.loop_write

    def loop_write():
        calls["write"] += 1
        return true_write()

    carrier.loop_write = loop_write
    for _ in range(300):
        await asyncio.sleep(0.0005)
    return calls["write"]


async def test_once_everything_is_acknowledged_no_writer_is_called_for(broker):
    a = MqttGossip(broker.settings(0))
    async with Speaking(a):
        for i in range(20):
            await a.publish(TOPIC, b"%d" % i)
        await until(lambda: a.counts.get("sent") == 20)
        assert await count_idle_writes(a) < 10
        key = asyncio.get_running_loop()._selector.get_key(a._carrier.socket())
        assert not key.events & selectors.EVENT_WRITE


async def test_with_the_librarys_own_request_a_writer_is_called_for_ever(broker):
    """The twin: what the test above guards against."""
    a = MqttGossip(broker.settings(0))
    async with Speaking(a):
        carrier = a._carrier
        owner = carrier.on_socket_open.__self__
        carrier.on_socket_register_write = owner._on_socket_register_write
        for i in range(20):
            await a.publish(TOPIC, b"%d" % i)
        await until(lambda: a.counts.get("sent") == 20)
        assert await count_idle_writes(a) > 100


async def test_a_full_socket_is_emptied_by_the_event_loop_and_then_left_alone(broker):
    a, b = MqttGossip(broker.settings(0)), MqttGossip(broker.settings(1))
    got = listen(b)
    async with Speaking(a, b):
        os.kill(broker.process.pid, signal.SIGSTOP)
        try:
            for i in range(4):
                await a.publish(TOPIC, b"%d" % i * 1_900_000)
            assert a._carrier.want_write()
        finally:
            os.kill(broker.process.pid, signal.SIGCONT)
        await until(lambda: len(got) == 4)
        await until(lambda: a.counts.get("sent") == 4)
        assert await count_idle_writes(a) < 10
    assert [d[:1] for d in got] == [b"0", b"1", b"2", b"3"]
    assert a.counts["connects"] == 1


# ---- no more unacknowledged than allowed


async def test_not_more_than_allowed_wait_for_acknowledgement_and_the_rest_follows_in_order(broker):
    a, b = MqttGossip(broker.settings(0)), MqttGossip(broker.settings(1))
    got, sizes = listen(b), []
    async with Speaking(a, b):
        for i in range(100):
            publish_without_a_turn(a, b"%d" % i)
            sizes.append(len(a._unconfirmed))
        assert sizes[:MAX_UNCONFIRMED] == list(range(1, MAX_UNCONFIRMED + 1))
        assert set(sizes[MAX_UNCONFIRMED:]) == {MAX_UNCONFIRMED}
        assert a.queued == 100 - MAX_UNCONFIRMED
        while len(got) < 100:
            assert len(a._unconfirmed) <= MAX_UNCONFIRMED
            await asyncio.sleep(0)
        await until(lambda: a.counts.get("sent") == 100)
        assert a._unconfirmed == {}
    assert got == [b"%d" % i for i in range(100)]


async def test_a_broker_that_acknowledges_nothing_ends_the_connection_and_what_matters_is_said_anew(
    broker, monkeypatch
):
    monkeypatch.setattr(mqtt, "PUBLISH_TIMEOUT_S", 0.2)
    monkeypatch.setattr(mqtt, "CONFIRM_EVERY_S", 0.05)
    a, b = MqttGossip(broker.settings(0, connect_timeout_s=0.5)), MqttGossip(broker.settings(1))
    got = listen(b)
    said_anew = []

    def say_again():
        said_anew.append(asyncio.create_task(a.publish(TOPIC, b"anew")))

    async with Speaking(a, b):
        await a.publish(TOPIC, b"before")
        await until(lambda: a.counts.get("sent") == 1)
        a.on_connect = say_again
        os.kill(broker.process.pid, signal.SIGSTOP)
        try:
            for i in range(MAX_UNCONFIRMED + 3):
                await a.publish(TOPIC, b"unheard %d" % i)
            await until(lambda: not a.is_connected)
            assert a.counts["failed"] == MAX_UNCONFIRMED
            assert a.queued == 3
            assert a._unconfirmed == {}
            assert "acknowledges nothing" in a.last_error or "timed out" in a.last_error.lower()
        finally:
            os.kill(broker.process.pid, signal.SIGCONT)
        await until(lambda: a.is_connected and b"anew" in got)
        await until(lambda: a.counts["sent"] == 1 + 3 + 1)
    assert a.counts["connects"] == 2
    assert len(said_anew) == 1
    assert [d for d in got if d in {b"unheard 8", b"unheard 9", b"unheard 10", b"anew"}][-4:] == [
        b"unheard 8", b"unheard 9", b"unheard 10", b"anew",
    ]  # fmt: skip


async def test_a_broker_that_is_slow_within_the_time_keeps_its_connection(broker):
    a, b = MqttGossip(broker.settings(0)), MqttGossip(broker.settings(1))
    got = listen(b)
    async with Speaking(a, b):
        os.kill(broker.process.pid, signal.SIGSTOP)
        try:
            for i in range(MAX_UNCONFIRMED + 3):
                await a.publish(TOPIC, b"%d" % i)
            await asyncio.sleep(0.3)
            assert a.is_connected
            assert not a.counts.get("failed")
        finally:
            os.kill(broker.process.pid, signal.SIGCONT)
        await until(lambda: len(got) == MAX_UNCONFIRMED + 3)
    assert a.counts["connects"] == 1


async def test_a_connection_that_breaks_under_the_speaker_loses_what_was_on_its_way_and_keeps_what_was_not(broker):
    a, b = MqttGossip(broker.settings(0)), MqttGossip(broker.settings(1))
    got = listen(b)
    async with Speaking(a, b):
        broker.kill()
        for i in range(20):  # this loop has had no turn to see that the broker is gone
            publish_without_a_turn(a, b"%d" % i)
        assert a.is_connected
        await until(lambda: not a.is_connected and not b.is_connected)
        failed = a.counts["failed"]
        assert 0 < failed <= MAX_UNCONFIRMED
        assert failed + a.queued == 20
        broker.start()
        await until(lambda: b.is_connected and a.counts.get("sent") == 20 - failed)
        assert a.queued == 0
        await a.publish(TOPIC, b"after")
        await until(lambda: b"after" in got)
    assert a.counts["connects"] == 2


async def test_a_stop_lets_what_waits_for_acknowledgements_leave_in_order(broker):
    a, b = MqttGossip(broker.settings(0)), MqttGossip(broker.settings(1))
    got = listen(b)
    async with Speaking(b):
        async with Speaking(a):
            for i in range(50):
                publish_without_a_turn(a, b"%d" % i)
            assert a.queued == 50 - MAX_UNCONFIRMED
        await until(lambda: len(got) == 50)
    assert got == [b"%d" % i for i in range(50)]
    assert (a.counts["sent"], a.counts.get("failed", 0), a.queued) == (50, 0, 0)
