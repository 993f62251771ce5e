"""Four services over a real broker: whatever broker and publishers do, every plan and every holding stays the same byte for byte."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from dataclasses import replace

import aiomqtt
import pytest

from messages.digests import compute_committee_id
from messages.wire import MAX_ENVELOPE_BYTES, Envelope, decode_envelope, encode_envelope
from relayer.gossip import Faults
from relayer.keys import Journal, Secret, Signer
from relayer.node import MESSAGE_KINDS
from relayer.rules.quorum import MAX_PROPOSAL_ENVELOPE_BYTES
from tests.builders import OPERATORS, START, make_key
from tests.gossip.broker import PASSWORD, Broker, until
from tests.gossip.mqtt_committee import MqttCommittee, run_story

_endings = []


@pytest.fixture
async def undisturbed(tmp_path):
    """The ending of a run that nobody disturbs; made once."""
    if not _endings:
        (tmp_path / "plain").mkdir()
        with Broker(tmp_path / "plain") as broker:
            ending, _ = await run_story(tmp_path / "plain", broker)
        assert len(ending.packets) == 1  # all four nodes have the same plans
        assert len(ending.packets[0]) == 4
        _endings.append(ending)
    return _endings[0]


async def test_a_connection_that_drops_doubles_and_reorders_changes_no_plan(tmp_path, undisturbed):
    with Broker(tmp_path) as broker:
        ending, _ = await run_story(tmp_path / "run", broker, faults=Faults(drop=300, duplicate=300, hold=500))
    assert ending == undisturbed


async def listen_to_everything(client, heard):
    async for message in client.messages:
        heard.append((message.topic.value, message.payload))


@contextlib.asynccontextmanager
async def attack(broker, heard):
    """A client that may read and write everything."""
    async with broker.client() as client:
        await client.subscribe("optsettle/#", qos=1)
        listener = asyncio.create_task(listen_to_everything(client, heard))
        try:
            yield client
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)


def put_under(topic, operator):
    root, _, rest = topic.split("/", 2)
    return f"{root}/{operator.hex()}/{rest}"


async def test_replayed_reordered_and_renamed_messages_change_no_plan(tmp_path, undisturbed):
    sent, listens = 0, asyncio.Event()

    async def during(committee):
        nonlocal sent
        heard, chance = [], random.Random(5)
        async with attack(broker, heard) as client:
            listens.set()
            while True:
                await asyncio.sleep(0.02)
                for topic, data in chance.sample(heard, min(len(heard), 8)):
                    if sent < 1500:
                        await client.publish(put_under(topic, chance.choice(OPERATORS)), data, qos=1)
                        sent += 1

    with Broker(tmp_path, evil=True) as broker:
        ending, _ = await run_story(
            tmp_path / "run", broker, during=during, is_ready=listens.is_set, enough=lambda: sent > 300
        )
    assert ending == undisturbed


def forge(data, chance, stranger):
    """A message like ``data`` that no operator signed so."""
    envelope = decode_envelope(data, MAX_PROPOSAL_ENVELOPE_BYTES)
    i = chance.randrange(len(data))
    other = chance.choice([o for o in OPERATORS if o != envelope.operator])
    newer = replace(envelope, sequence=envelope.sequence + 10**6)
    if envelope.type == "proposal":
        signed = stranger._sign_envelope("proposal", envelope.body)
    else:
        signed = stranger.sign_envelope(envelope.type, envelope.body)
    return chance.choice(
        [
            data[:i] + bytes([data[i] ^ 1 << chance.randrange(8)]) + data[i + 1 :],
            encode_envelope(replace(envelope, operator=other), MAX_PROPOSAL_ENVELOPE_BYTES),
            encode_envelope(newer, MAX_PROPOSAL_ENVELOPE_BYTES),
            encode_envelope(replace(newer, boot_id=2**63), MAX_PROPOSAL_ENVELOPE_BYTES),
            encode_envelope(signed, MAX_PROPOSAL_ENVELOPE_BYTES),
            encode_envelope(replace(signed, operator=other), MAX_PROPOSAL_ENVELOPE_BYTES),
            data[:i],
            b"",
            b"{" * 5000,
        ]
    )


async def test_forged_and_rewritten_messages_change_no_plan_and_are_blamed(tmp_path, undisturbed):
    forged, listens = 0, asyncio.Event()

    async def during(committee):
        nonlocal forged
        heard, chance = [], random.Random(7)
        Journal.create_first(tmp_path / "stranger.db", START)
        journal = Journal(tmp_path / "stranger.db", START, 60)
        stranger = Signer(Secret(make_key("stranger")), journal, committee.services[0].node.committee_id)
        lies = set()
        try:
            async with attack(broker, heard) as client:
                listens.set()
                while True:
                    await asyncio.sleep(0.02)
                    true = [(t, d) for t, d in heard if d not in lies]
                    for topic, data in chance.sample(true, min(len(true), 6)):
                        lie = forge(data, chance, stranger)
                        lies.add(lie)
                        if forged < 1500:
                            await client.publish(put_under(topic, chance.choice(OPERATORS)), lie, qos=1)
                            forged += 1
        finally:
            journal.close()

    with Broker(tmp_path, evil=True) as broker:
        ending, _ = await run_story(
            tmp_path / "run", broker, during=during, is_ready=listens.is_set, enough=lambda: forged > 300
        )
        reasons = [{b.reason for b, _, _ in _get_blames_of_closed(tmp_path / "run" / f"node{i}.db")} for i in range(4)]
    assert ending == undisturbed
    assert all({"bad_signature", "not_operator", "bad_envelope"} <= r for r in reasons), reasons


def _get_blames_of_closed(path):
    from relayer.store import Store

    store = Store(path)
    try:
        return store.get_blames()
    finally:
        store.close()


async def test_oversize_messages_and_retained_garbage_change_no_plan(tmp_path, undisturbed):
    large = []
    with Broker(tmp_path, evil=True) as broker:

        async def during(committee):
            kinds = [committee.services[0].node.get_topic(k) for k in ("vote", "proposal", "signed_plan")]
            async with broker.client() as client:
                for i, topic in enumerate(kinds):
                    wire = put_under(topic.replace("/", "/x/", 1), OPERATORS[i])
                    await client.publish(wire, b"\x01" + bytes(MAX_PROPOSAL_ENVELOPE_BYTES + 3000), qos=1)
                    fat = encode_fat(OPERATORS[i], topic.rpartition("/")[2])
                    await client.publish(wire, fat, qos=1)
                # More than the broker takes: it ends this connection, and nobody else's.
                with contextlib.suppress(aiomqtt.MqttError):
                    await client.publish(wire, bytes(11 * 1024 * 1024), qos=1, timeout=2)
            large.append(wire)
            await asyncio.sleep(60)

        async with broker.client() as client:
            committee_id = get_committee_name(tmp_path, broker)
            for operator in OPERATORS:
                for kind in MESSAGE_KINDS:
                    topic = f"optsettle/{operator.hex()}/{committee_id}/{kind}"
                    await client.publish(topic, b"\x01retained garbage", qos=1, retain=True)
        ending, committee = await run_story(tmp_path / "run", broker, during=during, enough=lambda: large)
    assert ending == undisturbed
    assert sum(g.counts.get("oversize", 0) for g in committee.gossips) >= 1
    assert all(g.counts["connects"] == 1 for g in committee.gossips)


def encode_fat(operator, kind):
    """A well-formed envelope of nobody's that is larger than anything but a proposal may be."""
    return encode_envelope(
        Envelope(operator, 2**40, 1, kind, bytes(MAX_ENVELOPE_BYTES), b"\x11" * 64 + b"\x1b"),
        MAX_PROPOSAL_ENVELOPE_BYTES,
    )


def get_committee_name(tmp_path, broker):
    committee = MqttCommittee(tmp_path, broker)
    return compute_committee_id(sorted(c.vault_id for c in committee.chains)).hex()[:16]


def flood(broker, user, topic, payload, count):
    """Publish as fast as a socket takes it, by hand: a client library would be the brake."""

    def field(data):
        return len(data).to_bytes(2, "big") + data

    def packet(kind, body):
        size = len(body)
        return bytes([kind, size % 128 | 128, size // 128]) + body

    connect = field(b"MQTT") + bytes([5, 0xC2, 0, 60, 0]) + field(b"flood") + field(user.encode())
    with socket.create_connection(("127.0.0.1", broker.port)) as s:
        s.sendall(packet(0x10, connect + field(PASSWORD.encode())))
        answer = s.recv(100)
        assert (answer[0], answer[3]) == (0x20, 0)
        s.sendall(packet(0x30, field(topic.encode()) + b"\0" + payload) * count)
        s.sendall(bytes([0xE0, 0]))


async def test_ten_thousand_messages_of_one_publisher_change_no_plan(tmp_path, undisturbed):
    flooded = asyncio.Event()

    async def during(committee):
        # Operator 3's access to the broker is in other hands. The ACL holds them below its name.
        topic = put_under(committee.services[0].node.get_topic("vote").replace("/", "/x/", 1), OPERATORS[3])
        junk = encode_envelope(Envelope(OPERATORS[1], 2**40, 1, "vote", b"x" * 300, b"\x11" * 64 + b"\x1b"))
        await until(lambda: all(g.is_connected for g in committee.gossips))
        await asyncio.to_thread(flood, broker, OPERATORS[3].hex(), topic, junk, 10_000)
        flooded.set()
        await asyncio.sleep(60)

    with Broker(tmp_path) as broker:
        ending, committee = await run_story(tmp_path / "run", broker, during=during, enough=flooded.is_set)
    assert ending == undisturbed
    assert sum(committee.gossips[0].counts.get(k, 0) for k in ("rate", "delivered")) > 1000
    assert len(committee.services[0].node.inbox) <= 4096


async def test_a_broker_killed_in_the_middle_changes_no_plan(tmp_path, undisturbed):
    outages = 0

    async def during(committee):
        nonlocal outages
        for messages in (1, 5):
            await until(lambda n=messages: sum(g.counts.get("sent", 0) for g in committee.gossips) >= n)
            broker.kill()
            await asyncio.sleep(0.3)
            broker.start()
            outages += 1
        await asyncio.sleep(60)

    with Broker(tmp_path) as broker:
        ending, committee = await run_story(tmp_path / "run", broker, during=during, enough=lambda: outages == 2)
    assert ending == undisturbed
    assert outages == 2
    assert all(g.counts["connects"] >= 2 for g in committee.gossips)
