"""Each alert fires on a real node when its cause is there and is silent when it is not; what is served says the same."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
import yaml

from messages.bodies import Claimed, Deposited
from messages.documents import encode_document
from messages.errors import Conflict, Rejected
from messages.wire import encode_envelope
from relayer.database import encode_u64
from relayer.health import ALERTS, Level, Monitor, get_missing, judge, render_rules, set_limits
from relayer.keys import Journal, Secret, Signer, Statement
from relayer.metrics import compute_families
from relayer.tasks import observe
from tests.builders import DAY, OPERATOR_KEYS, OPERATORS, TOKEN, make_account, make_series, series_id
from tests.committee import Committee
from tests.gossip.broker import until
from tests.scenarios.test_node_committee import trade

ROOT = Path(__file__).resolve().parents[2]
ALICE = make_account("alice")


class Carrier:
    """A connection of which only the state matters here."""

    def __init__(self, *, is_connected=True):
        self.is_connected = is_connected
        self.queued = 0
        self.counts = {}


def get_firing(service, carrier=None, **limits):
    return {r.alert for r in judge(compute_families(service, carrier or Carrier()), set_limits(limits)).reasons}


async def settle_one_trade(c):
    for chain in c.chains:
        chain.put(Deposited(ALICE, TOKEN, 100), c.clock.now())
        trade(chain, c.clock)
    await c.run_for(60)


async def jump(c, seconds):
    """Let time pass while nobody runs."""
    alive = list(c.tasks)
    for i in alive:
        await c.stop(i)
    await c.clock.advance(seconds)
    for i in alive:
        c.start(i)


# ---- one cause for each alert; the same node without it is silent (checked before and, where it heals, after)


async def cause_conservation(c):
    c.chains[0].put(Claimed(ALICE, TOKEN, 1), c.clock.now())  # a right vault never pays what is not claimable
    await c.run_for(20)


async def cause_node_halted(c):
    c.services[0].node.halt("node", Conflict("a test", reason="test"))


async def cause_chain_halted(c):
    c.services[0].node.halt(f"chain:{c.chains[0].chain_id}", Conflict("a test", reason="test"))


async def cause_signer_quarantined(c):
    await c.stop(0)
    (c.folder / "journal0.db").unlink()
    c.start(0)
    await c.run_for(10)


async def cause_signer_refused(c):
    node = c.services[0].node
    k = node.progress.base_k
    # Another process with this key (fault 19) has signed another plan of the k that comes next.
    node.signer.journal.record_statements([Statement("plan", encode_u64(k), b"\7" * 32, k)], {})
    trade(c.chains[0], c.clock, nonce=2)
    await c.run_for(30)


async def cause_equivocation(c):
    node = c.services[0].node
    for number, digest in enumerate((b"\1" * 32, b"\2" * 32)):
        path = c.folder / f"stolen{number}.db"
        Journal.create_first(path, c.clock.now())
        journal = Journal(path, c.clock.now() + 100 + number, 60)
        key = Signer(Secret(OPERATOR_KEYS[3]), journal, node.committee_id)
        vote = key.sign_vote(node.progress.base_k, 0, digest)
        c.bus.inject(node.get_topic("vote"), encode_envelope(key.sign_envelope("vote", encode_document(vote))))
        journal.close()
    await c.run_for(10)


async def cause_observer_silent(c):
    node = c.services[0].node
    node.heard_at[c.chains[0].vault_id] = {OPERATORS[2]: c.clock.now(), OPERATORS[3]: c.clock.now() - 301}


async def cause_wrong_head(c):
    node, vault_id = c.services[0].node, c.chains[0].vault_id
    node.heard_heads[vault_id] = {(OPERATORS[3], 1): b"\7" * 32}  # what it said of a packet that comes now
    c.chains[0].put(Deposited(ALICE, TOKEN, 100), c.clock.now())
    await c.run_for(20)
    observe.judge_heard(node, vault_id)


async def cause_head_old(c):
    c.chains[0].is_stalled_at = c.chains[0].get_finalized()
    await jump(c, 3700)
    await c.run_for(20)


async def cause_proof_old(c):
    await jump(c, 3700)
    reader = c.services[0].node.chains[c.chains[0].vault_id].reader

    async def head(source, trusted):
        raise Rejected("no proof", reason="bad_proof", source=source)

    reader.head = head
    await c.run_for(20)


async def cause_light_client_expiring(c):
    c.chains[0].is_stalled_at = c.chains[0].get_finalized()
    await jump(c, 28 * DAY + 3600)
    await c.run_for(20)


async def cause_source_blamed(c):
    c.services[0].node.chains[c.chains[0].vault_id].reader.faults["one"] = "forge"
    c.chains[0].put(Deposited(ALICE, TOKEN, 5), c.clock.now())
    await c.run_for(20)


async def cause_feed_blamed(c):
    class Feed:
        async def fetch(self, now):
            raise Rejected("a price nobody signed", reason="bad_signature", source="feed one")

    c.services[0].node.feeds = (Feed(),)
    await c.run_for(20)


async def cause_plan_late(c):
    await c.kill(2)
    await c.kill(3)
    trade(c.chains[0], c.clock, nonce=2)
    await c.run_for(400, step=20)


async def cause_quorum_thin(c):
    await c.kill(3)
    trade(c.chains[0], c.clock, nonce=2)
    await c.run_for(120)


async def cause_packet_unsettled(c):
    c.chains[0].drop_transactions = True
    trade(c.chains[0], c.clock, nonce=2)
    await c.run_for(60)
    c.chains[0].is_stalled_at = c.chains[0].get_finalized()
    await jump(c, 1900)
    await c.run_for(20)


async def cause_request_waiting(c):
    await c.kill(2)
    await c.kill(3)
    trade(c.chains[0], c.clock, nonce=2)
    await c.run_for(20)
    await jump(c, 7300)
    await c.run_for(20)


async def cause_expiry_overdue(c):
    assert c.chains[0].state.positions[ALICE, series_id(make_series(3000))]
    await jump(c, 2 * DAY + 4000)
    await c.run_for(20)  # the toy planner settles no expiry


async def cause_gossip_flooded(c):
    for i in range(3000):
        c.services[0].node.inbox.put("flood", b"%d" % i)


async def cause_loop_stuck(c):
    service = c.services[0]
    hang = asyncio.Event()

    async def never(source, trusted):
        # As if an endpoint held the connection open; it rests, so that the virtual clock goes on.
        await c.clock.sleep(10**6)
        await hang.wait()

    service.node.chains[c.chains[0].vault_id].reader.update = never
    await c.run_for(400, step=20)


CAUSES = {name.removeprefix("cause_"): f for name, f in list(globals().items()) if name.startswith("cause_")}
BY_LIMIT = {"disk_low": 2.0**62, "disk_slow": 0.0}
BY_CARRIER = {"gossip_disconnected"}


def test_every_alert_has_a_cause_here():
    assert {a.name for a in ALERTS} == set(CAUSES) | set(BY_LIMIT) | BY_CARRIER
    assert len({a.name for a in ALERTS}) == len(ALERTS)


@pytest.mark.parametrize("name", sorted(CAUSES))
async def test_an_alert_fires_when_its_cause_is_there_and_not_before(tmp_path, name):
    async with Committee(tmp_path, count=1) as c:
        await settle_one_trade(c)
        assert get_firing(c.services[0]) == set()
        await CAUSES[name](c)
        health = judge(compute_families(c.services[0], Carrier()))
        assert name in {r.alert for r in health.reasons}
        alert = next(a for a in ALERTS if a.name == name)
        assert health.level >= alert.level


async def test_alerts_of_disk_and_broker_fire_at_their_limits(tmp_path):
    async with Committee(tmp_path, count=1) as c:
        await settle_one_trade(c)
        for name, limit in BY_LIMIT.items():
            assert get_firing(c.services[0], **{name: limit}) == {name}
        assert get_firing(c.services[0], Carrier(is_connected=False)) == {"gossip_disconnected"}


async def test_an_alert_ends_with_its_cause(tmp_path):
    async with Committee(tmp_path, count=1) as c:
        await settle_one_trade(c)
        await cause_head_old(c)
        assert "head_old" in get_firing(c.services[0])
        c.chains[0].is_stalled_at = None
        await c.run_for(20)
        assert "head_old" not in get_firing(c.services[0])


def test_an_unknown_limit_is_refused():
    with pytest.raises(Rejected) as caught:
        set_limits({"head_olds": 1})
    assert caught.value.reason == "unknown_alert"
    assert next(a for a in set_limits({"head_old": 7}) if a.name == "head_old") == replace(
        next(a for a in ALERTS if a.name == "head_old"), limit=7.0
    )


# ---- served


async def fetch(monitor, path):
    host, port = monitor.address
    async with aiohttp.ClientSession() as session, session.get(f"http://{host}:{port}{path}") as answer:
        return answer.status, await answer.text() if path == "/metrics" else await answer.json()


async def wait_for_address(monitor):
    await until(lambda: monitor.address is not None)


async def test_what_is_served_says_how_the_node_is(tmp_path):
    async with Committee(tmp_path, count=1) as c:
        carrier = Carrier()
        monitor = Monitor(c.services[0], carrier)
        task = asyncio.create_task(monitor.run())
        await wait_for_address(monitor)
        await settle_one_trade(c)
        assert await fetch(monitor, "/health") == (200, {"status": "ok", "reasons": []})
        assert await fetch(monitor, "/ready") == (200, {"ready": True, "missing": []})
        status, text = await fetch(monitor, "/metrics")
        assert (status, "optsettle_head_age_seconds" in text) == (200, True)
        carrier.is_connected = False
        status, body = await fetch(monitor, "/health")
        assert (status, body["status"], body["reasons"][0]["alert"]) == (200, "degraded", "gossip_disconnected")
        assert (await fetch(monitor, "/ready"))[0] == 503
        await cause_node_halted(c)
        status, body = await fetch(monitor, "/health")
        assert (status, body["status"]) == (503, "halted")
        assert "the node is halted" in get_missing(c.services[0], carrier)
        monitor.stop()
        await asyncio.wait_for(task, 10)
        assert monitor.address is None


async def test_a_node_that_has_not_begun_says_what_it_lacks(tmp_path):
    c = Committee(tmp_path, count=1)
    service = c.open(0)
    try:
        missing = get_missing(service, Carrier(is_connected=False))
        assert missing == (
            f"no proven head of {c.chains[0].chain_id}",
            "the loops do not run",
            "the broker is not connected",
        )
        monitor = Monitor(service)
        task = asyncio.create_task(monitor.run())
        await wait_for_address(monitor)
        assert await fetch(monitor, "/ready") == (503, {"ready": False, "missing": list(missing[:2])})
        assert (await fetch(monitor, "/metrics"))[0] == 200
        monitor.stop()
        await asyncio.wait_for(task, 10)
    finally:
        service.close()


async def test_a_taken_port_and_an_open_host_are_refused_with_words(tmp_path):
    c = Committee(tmp_path)
    service = c.open(0)
    try:
        first = Monitor(service)
        task = asyncio.create_task(first.run())
        await wait_for_address(first)
        with pytest.raises(Rejected) as caught:
            await Monitor(service, port=first.address[1]).run()
        assert caught.value.reason == "metrics_port"
        first.stop()
        await task
        for host in ("0.0.0.0", "192.168.1.1", "localhost.example", ""):
            with pytest.raises(Rejected) as caught:
                Monitor(service, host=host)
            assert caught.value.reason == "metrics_host"
    finally:
        service.close()


# ---- one source


def test_the_rule_file_of_prometheus_is_written_from_the_table():
    text = (ROOT / "configs" / "prometheus" / "alerts.yml").read_text()
    assert text == render_rules()
    rules = yaml.safe_load(text)["groups"][0]["rules"]
    assert [r["alert"] for r in rules] == [a.name for a in ALERTS]
    assert all(set(r) == {"alert", "expr", "for", "labels", "annotations"} for r in rules)


def test_the_manual_tells_what_to_do_for_every_alert():
    text = (ROOT / "docs" / "operations.md").read_text()
    rows = re.findall(r"^\| `([a-z_]+)` \| `([^`]+)` \| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    assert [(name, expression) for name, expression, _, _ in rows] == [(a.name, a.get_expression()) for a in ALERTS]
    assert all(len(cause) > 10 and len(action) > 20 for _, _, cause, action in rows)


def test_levels_are_ordered_and_the_worst_counts():
    assert Level.OK < Level.DEGRADED < Level.HALTED
    assert judge(()).level is Level.OK
