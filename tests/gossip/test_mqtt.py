"""The MQTT carrier against a real broker: what is said arrives, what must not count is dropped, what breaks is mended."""

from __future__ import annotations

import asyncio
import contextlib
import signal

import aiomqtt
import pytest

from messages.errors import Rejected
from relayer.mqtt import MqttGossip, MqttSettings, check_broker, verify_settings
from tests.builders import OPERATORS
from tests.gossip.broker import EVIL, Broker, Running, until

TOPIC = "optsettle/00112233/vote"
OTHER = "optsettle/00112233/proposal"


def get_wire(i, topic=TOPIC):
    return topic.replace("optsettle/", f"optsettle/{OPERATORS[i].hex()}/", 1)


def listen(gossip, topic=TOPIC):
    got = []
    gossip.subscribe(topic, lambda t, d: got.append((t, d)))
    return got


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path) as b:
        yield b


@pytest.fixture
def evil_broker(tmp_path):
    with Broker(tmp_path, evil=True) as b:
        yield b


# ---- what it is for


async def test_what_one_operator_says_reaches_every_other_and_not_itself(broker):
    gossips = [MqttGossip(broker.settings(i)) for i in range(4)]
    got = [listen(g) for g in gossips]
    async with Running(*gossips):
        await gossips[0].publish(TOPIC, b"hello")
        await gossips[3].publish(TOPIC, b"\x00\xff" * 500_000)
        await until(lambda: [len(g) for g in got] == [1, 2, 2, 1])
    assert (get_wire(0), b"hello") in got[1]
    assert got[0] == [(get_wire(3), b"\x00\xff" * 500_000)]
    assert gossips[0].counts["sent"] == 1


async def test_a_handler_gets_its_topic_only_and_nothing_after_its_end(broker):
    a, b = MqttGossip(broker.settings(0)), MqttGossip(broker.settings(1))
    votes, proposals = [], []
    end = b.subscribe(TOPIC, lambda _, d: votes.append(d))
    async with Running(a, b):
        b.subscribe(OTHER, lambda _, d: proposals.append(d))  # while connected
        await until(lambda: len(b.topics) == 6)
        await a.publish(TOPIC, b"1")
        await a.publish(OTHER, b"2")
        await until(lambda: votes and proposals)
        end()
        await until(lambda: len(b.topics) == 3)
        await a.publish(TOPIC, b"3")
        await a.publish(OTHER, b"4")
        await until(lambda: len(proposals) == 2)
    assert (votes, proposals) == ([b"1"], [b"2", b"4"])


async def test_a_rotated_operator_is_heard_and_the_one_before_is_not(broker):
    a, b, c = (MqttGossip(broker.settings(i, operators=OPERATORS[:2])) for i in range(3))
    got = listen(a)
    async with Running(a, b, c):
        await c.publish(TOPIC, b"early")
        await b.publish(TOPIC, b"in time")
        await until(lambda: c.counts.get("sent") and got)
        a.set_operators([OPERATORS[0], OPERATORS[2]])
        await until(lambda: a.topics == {get_wire(2)})
        await b.publish(TOPIC, b"late")
        await c.publish(TOPIC, b"now")
        await until(lambda: len(got) == 2)
    assert [d for _, d in got] == [b"in time", b"now"]


async def test_what_was_queued_before_the_connection_is_sent_after_it_and_a_stop_sends_the_rest(broker):
    a, b = MqttGossip(broker.settings(0)), MqttGossip(broker.settings(1))
    got = listen(b)
    async with Running(b):
        await a.publish(TOPIC, b"before")
        async with Running(a):
            for i in range(200):
                await a.publish(TOPIC, b"%d" % i)
        await until(lambda: len(got) == 201)


# ---- what is dropped


async def test_an_acl_lets_nobody_speak_under_another_name(broker):
    a, b = MqttGossip(broker.settings(0)), MqttGossip(broker.settings(1))
    got = listen(a)
    async with Running(a, b):
        async with broker.client(user=OPERATORS[2].hex()) as forger:
            await forger.publish(get_wire(1), b"forged", qos=1)
            await forger.publish(get_wire(2), b"own name", qos=1)
        await b.publish(TOPIC, b"genuine")
        await until(lambda: len(got) == 2)
    assert sorted(d for _, d in got) == [b"genuine", b"own name"]


async def test_a_wrong_password_and_no_name_are_no_way_in(broker, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.touch(mode=0o600)
    wrong.write_text("not this one")
    for gossip in (
        MqttGossip(broker.settings(0, password_file=wrong)),
        MqttGossip(broker.settings(0, password_file=None)),
    ):
        task = asyncio.create_task(gossip.run())
        await until(lambda g=gossip: g.last_error != "never connected")
        assert not gossip.is_connected
        assert not gossip.counts.get("connects")
        gossip.stop()
        await asyncio.wait_for(task, 10)


async def test_retained_messages_of_an_attacked_broker_are_not_taken(evil_broker):
    a, b = MqttGossip(evil_broker.settings(0)), MqttGossip(evil_broker.settings(1))
    got = listen(a)
    async with evil_broker.client() as evil:
        await evil.publish(get_wire(1), b"stale", qos=1, retain=True)
        async with Running(a, b):
            await evil.publish(get_wire(1), b"live and retained", qos=1, retain=True)
            await b.publish(TOPIC, b"live")
            await until(lambda: got and a.counts.get("retained"))
    assert [d for _, d in got] == [b"live"]


async def test_an_oversize_message_is_dropped_by_both_ends(evil_broker):
    a = MqttGossip(evil_broker.settings(0, max_message_bytes=1000))
    b = MqttGossip(evil_broker.settings(1))
    got = listen(a)
    async with Running(a, b):
        with pytest.raises(Rejected) as caught:
            await a.publish(TOPIC, bytes(1001))
        assert caught.value.reason == "size"
        await b.publish(TOPIC, bytes(1001))  # within the slack of the packet: dropped here
        await b.publish(TOPIC, bytes(50_000))  # above it: the broker does not send it on
        await b.publish(TOPIC, bytes(1000))
        await until(lambda: got and a.counts.get("oversize"))
    assert [len(d) for _, d in got] == [1000]
    assert a.counts["oversize"] == 1
    assert a.counts["connects"] == 1


async def test_a_flood_costs_its_publisher_its_own_rate_and_nobody_elses(evil_broker):
    a = MqttGossip(evil_broker.settings(0, max_messages_per_s=50))
    b = MqttGossip(evil_broker.settings(1))
    got = listen(a)
    async with Running(a, b), evil_broker.client(max_inflight_messages=100) as evil:
        for _ in range(20):
            await asyncio.gather(*(evil.publish(get_wire(2), b"flood", qos=0) for _ in range(100)))
        await b.publish(TOPIC, b"genuine")
        await until(lambda: (get_wire(1), b"genuine") in got)
        await until(lambda: sum(a.counts.get(k, 0) for k in ("delivered", "rate")) >= 2001)
        assert a.counts["rate"] >= 1000
        assert a.counts["connects"] == 1


async def test_a_full_queue_drops_the_oldest_of_the_loudest_kind_and_counts_it(broker):
    a, b = MqttGossip(broker.settings(0, max_outgoing=10)), MqttGossip(broker.settings(1))
    votes, proposals = listen(b), listen(b, OTHER)
    await a.publish(TOPIC, b"a vote")
    for i in range(100):
        await a.publish(OTHER, b"%d" % i)
    assert a.counts["outgoing"] == 91
    async with Running(b), Running(a):
        await until(lambda: len(votes) == 1 and len(proposals) == 9)
    assert [d for _, d in proposals] == [b"%d" % i for i in range(91, 100)]


async def test_an_error_of_a_handler_is_ours_and_comes_out(broker):
    a, b = MqttGossip(broker.settings(0)), MqttGossip(broker.settings(1))

    def fail(_topic, _data):
        raise RuntimeError("a bug of ours")

    b.subscribe(TOPIC, fail)
    async with Running(a):
        task = asyncio.create_task(b.run())
        await until(lambda: b.is_connected)
        await a.publish(TOPIC, b"hello")
        with pytest.raises(RuntimeError, match="a bug of ours"):
            await asyncio.wait_for(task, 10)


# ---- what is mended


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_broker_that_dies_and_comes_back_is_found_again_and_the_node_is_told(broker, number):
    a, b = MqttGossip(broker.settings(0)), MqttGossip(broker.settings(1))
    told = []
    b.on_connect = lambda: told.append(len(b.topics))
    got = listen(b)
    async with Running(a, b) as gossips:
        await a.publish(TOPIC, b"first")
        await until(lambda: got)
        broker.kill(number)
        await until(lambda: not any(g.is_connected for g in gossips))
        await a.publish(TOPIC, b"while away")
        broker.start()
        await until(lambda: all(g.is_connected for g in gossips))
        await a.publish(TOPIC, b"after")
        await until(lambda: (get_wire(0), b"after") in got)
    assert told == [3, 3]
    assert b.counts["connects"] == 2


@pytest.mark.slow
async def test_a_hundred_restarts_of_the_broker_are_a_hundred_reconnects_and_leave_nothing_behind(broker):
    a, b = MqttGossip(broker.settings(0)), MqttGossip(broker.settings(1))
    got = listen(b)
    async with Running(a, b) as gossips:
        tasks = len(asyncio.all_tasks())
        for i in range(100):
            broker.kill()
            await until(lambda: not any(g.is_connected for g in gossips))
            broker.start()
            await until(lambda: all(g.is_connected for g in gossips))
            await a.publish(TOPIC, b"%d" % i)
            await until(lambda n=i: (get_wire(0), b"%d" % n) in got)
            assert len(asyncio.all_tasks()) <= tasks + 2  # the library ends its keep-alive tasks in their own time
    assert b.counts["connects"] == 101


async def test_a_broker_that_is_not_there_is_tried_again_and_a_stop_does_not_wait_for_it(tmp_path):
    broker = Broker(tmp_path)
    gossip = MqttGossip(broker.settings(0, backoff_max_s=600, backoff_min_s=500))
    task = asyncio.create_task(gossip.run())
    await until(lambda: gossip.last_error != "never connected")
    gossip.stop()
    await asyncio.wait_for(task, 10)
    assert not gossip.is_connected


async def test_a_second_node_with_the_same_key_takes_the_connection_and_the_first_says_so(broker):
    first, second = MqttGossip(broker.settings(0)), MqttGossip(broker.settings(0, backoff_min_s=60, backoff_max_s=60))
    async with Running(first):
        task = asyncio.create_task(second.run())
        await until(lambda: first.counts["connects"] >= 2)
        assert second.last_error != ""
        second.stop()
        await asyncio.wait_for(task, 10)


async def serve_lies(lies, served):
    """A broker that says yes to everything and then sends what no broker sends."""

    async def handle(reader, writer):
        served.append(1)
        try:
            await reader.read(1000)  # CONNECT
            writer.write(bytes([0x20, 3, 0, 0, 0]))
            data = await reader.read(1000)  # SUBSCRIBE with one topic: its packet id follows the fixed header
            packet_id = data[2:4]
            writer.write(bytes([0x90, 4]) + packet_id + bytes([0, 1]))
            writer.write(lies[min(len(served), len(lies)) - 1])
            await writer.drain()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1000), 0.3)
        finally:
            writer.close()

    return await asyncio.start_server(handle, "127.0.0.1", 0)


def make_publish(topic, payload):
    body = len(topic).to_bytes(2, "big") + topic + bytes([0]) + payload
    size = len(body)
    assert size < 128 * 128
    return bytes([0x30, size % 128 | 128, size // 128]) + body


async def test_a_lying_broker_costs_its_connection_and_nothing_else(tmp_path):
    wire = get_wire(1).encode()
    served = []
    lies = [
        bytes(range(256)) * 10,
        make_publish(b"a/+/#", b"a topic that is none"),
        make_publish(b"\xff\xfe\x00", b"no text"),
        make_publish(b"some/where/else", b"unasked"),
        bytes([0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]),
        bytes([0xE0, 2, 0x8B, 0]),
        make_publish(wire, b"genuine"),
    ]
    server = await serve_lies(lies, served)
    async with server:
        port = server.sockets[0].getsockname()[1]
        settings = MqttSettings(
            "127.0.0.1", port, OPERATORS[0], OPERATORS[:2], keepalive_s=5, backoff_min_s=0.05, backoff_max_s=0.1
        )
        gossip = MqttGossip(settings)
        got = listen(gossip)
        task = asyncio.create_task(gossip.run())
        await until(lambda: got, [task], seconds=60)
        gossip.stop()
        await asyncio.wait_for(task, 20)
    assert got == [(wire.decode(), b"genuine")]
    assert len(served) == len(lies)


# ---- settings


def get_reason(settings):
    with pytest.raises(Rejected) as caught:
        verify_settings(settings)
    return caught.value.reason


def test_settings_that_cannot_be_right_are_refused_with_words(tmp_path):
    good = {"host": "127.0.0.1", "port": 1883, "operator": OPERATORS[0], "operators": OPERATORS}
    verify_settings(MqttSettings(**good))
    verify_settings(MqttSettings(**good, root="a/b-c/d_1"))
    for changes in (
        {"host": ""},
        {"host": "a host"},
        {"port": 0},
        {"port": 65536},
        {"operator": b"short"},
        {"operators": ()},
        {"operators": (b"short",)},
        {"operators": OPERATORS * 6},
        {"root": "a/+"},
        {"root": "#"},
        {"root": "$SYS"},
        {"root": ""},
        {"root": "a/"},
        {"cert_file": tmp_path},
        {"keepalive_s": 0},
        {"backoff_min_s": 0},
        {"backoff_min_s": 60},
        {"max_message_bytes": 0},
        {"max_outgoing": 0},
        {"max_outgoing_bytes": 5},
        {"max_messages_per_s": 0},
        {"password_file": tmp_path / "none"},
    ):
        assert get_reason(MqttSettings(**{**good, **changes})) == "broker_settings", changes
    assert get_reason(MqttSettings(**{**good, "host": "broker.example"})) == "plain_broker"
    ca = tmp_path / "ca"
    ca.touch()
    verify_settings(MqttSettings(**{**good, "host": "broker.example"}, ca_file=ca))


def test_a_secret_that_others_can_read_is_refused(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o644)
    good = {"host": "127.0.0.1", "port": 1883, "operator": OPERATORS[0], "operators": OPERATORS}
    assert get_reason(MqttSettings(**good, password_file=secret)) == "file_mode"
    secret.chmod(0o600)
    verify_settings(MqttSettings(**good, password_file=secret))


async def test_a_password_file_that_goes_bad_stops_the_task_with_words_that_quote_nothing(broker, tmp_path):
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_bytes(b"\xff\xfe not text")
    gossip = MqttGossip(broker.settings(0, password_file=secret))
    with pytest.raises(Rejected) as caught:
        await gossip.run()
    assert caught.value.reason == "broker_settings"
    assert "not text" not in str(caught.value)
    secret.write_bytes(b"\n")
    with pytest.raises(Rejected):
        await gossip.run()


# ---- the check


async def test_the_check_finds_a_sound_broker_sound_and_an_open_one_open(broker, tmp_path):
    findings = {f.reason: f.level for f in await check_broker(broker.settings(0))}
    findings.pop("version", None)  # a distribution's broker may be old
    assert findings == {"publish": "ok", "acl": "ok", "anonymous": "ok"}
    (tmp_path / "open").mkdir()
    changes = {
        "allow_anonymous false": "allow_anonymous true",
        "acl_file operators.acl": "",
        "max_packet_size 10485760": "max_packet_size 100000",
    }
    with Broker(tmp_path / "open", changes=changes) as open_broker:
        settings = open_broker.settings(0)
        found = {f.reason: f.level for f in await check_broker(settings)}
        assert (found["acl"], found["broker"]) == ("warning", "error")  # it cuts the connection at a large message
        small = open_broker.settings(0, max_message_bytes=50_000)
        assert {f.reason: f.level for f in await check_broker(small)}["anonymous"] == "warning"
    found = await check_broker(open_broker.settings(0))
    assert [(f.level, f.reason) for f in found] == [("error", "broker")]


async def test_nobody_but_the_evil_user_of_these_tests_can_read_or_write_everything(broker):
    with pytest.raises(aiomqtt.MqttError):
        async with broker.client(user=EVIL):
            pass
