"""Figures of a node: computed from its records, the same after a restart, and never with a secret in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from messages.bodies import Deposited
from relayer.metrics import HORIZON_S, compute_families, find_end_of_trust, render
from relayer.tasks.watch import RECORD_EVERY_S
from tests.builders import DAY, TOKEN, make_account
from tests.committee import Committee
from tests.scenarios.test_node_committee import trade

ALICE = make_account("alice")


def get_figures(service, carrier=None):
    """{(name without prefix, labels)} -> value."""
    return {
        (f.name.removeprefix("optsettle_"), tuple(v for _, v in s.labels)): s.value
        for f in compute_families(service, carrier)
        for s in f.samples
    }


class Carrier:
    def __init__(self):
        self.is_connected, self.queued, self.counts = True, 3, {"sent": 5, "delivered": 7, "rate": 2}


async def test_figures_say_what_happened(tmp_path):
    async with Committee(tmp_path) as c:
        chain, other = c.chains
        for h in c.chains:
            h.put(Deposited(ALICE, TOKEN, 100), c.clock.now())
        trade(chain, c.clock)
        await c.run_for(60)
        service = c.services[0]
        figures = get_figures(service, Carrier())
        name = chain.chain_id
        assert figures["outbox_sequence", (name,)] == 4  # deposit, series, trade, Ack
        assert figures["inbox_sequence", (name,)] == 1
        assert figures["inbox_sequence", (other.chain_id,)] == 0
        assert figures["open_packets", (name, "yes")] == figures["open_packets", (name, "no")] == 0
        assert figures["quorum_margin", ()] == 1
        assert figures["conservation_delta", ()] == 0
        assert figures["expiry_overdue_seconds", (name,)] == 0
        assert figures["node_halted", ()] == figures["signer_quarantined", ()] == 0
        assert 0 <= figures["head_age_seconds", (name,)] <= 10 + RECORD_EVERY_S
        assert figures["gossip_messages", ("delivered",)] == 7
        assert figures["commit_seconds", ("0.99",)] >= figures["commit_seconds", ("0.5",)] > 0
        assert {labels[0] for (n, labels) in figures if n == "loop_age_seconds"} == {
            "attest", "settle", "submit", *(f"watch {h.chain_id}" for h in c.chains)
        }  # fmt: skip
        sent = {
            i: sum(v for (n, labels), v in get_figures(s).items() if n == "transactions") for i, s in c.services.items()
        }
        assert sum(sent.values()) >= 1


async def test_a_restart_changes_no_figure_that_is_not_of_the_process(tmp_path):
    async with Committee(tmp_path) as c:
        c.chains[0].put(Deposited(ALICE, TOKEN, 100), c.clock.now())
        trade(c.chains[0], c.clock)
        c.services[0].node.chains[c.chains[0].vault_id].reader.faults["one"] = "down"
        await c.run_for(60)
        c.services[0].node.halt("chain:x", make_conflict())
        of_process = {
            "loop_age_seconds",
            "commit_seconds",
            "disk_free_bytes",
            "inbox_dropped",
            "inbox_messages",
            "store_bytes",
        }
        before = {k: v for k, v in get_figures(c.services[0]).items() if k[0] not in of_process}
        await c.stop(0)
        service = c.open(0)
        try:
            after = {k: v for k, v in get_figures(service).items() if k[0] not in of_process}
        finally:
            c.services.pop(0).close()
        assert after == before
        assert any(name == "blames" for name, _ in after)
        assert ("halt_active", ("chain:x", "test")) in after


def make_conflict():
    from messages.errors import Conflict

    return Conflict("a test halts this", reason="test")


async def test_the_text_is_what_prometheus_reads(tmp_path):
    async with Committee(tmp_path) as c:
        c.services[0].node.blame(
            "eip155:1", "https://user:pass@rpc.example/v2/abcdefghijklmnopqrstuvwxyz012345", "down", "x"
        )
        await c.run_for(10)
        text = render(c.services[0], Carrier()).decode()
        families = {f.name: f for f in text_string_to_metric_families(text)}
        assert families["optsettle_gossip_messages"].type == "counter"
        assert families["optsettle_head_age_seconds"].type == "gauge"
        assert {s.labels["chain"] for s in families["optsettle_head_age_seconds"].samples} == {
            h.chain_id for h in c.chains
        }
        assert "process_resident_memory_bytes" in families
        assert "pass@" not in text
        assert "abcdefghijklmnop" not in text


async def test_a_node_that_knows_nothing_yet_has_figures_too(tmp_path):
    c = Committee(tmp_path)
    service = c.open(0)
    try:
        figures = get_figures(service)
        names = {name for name, _ in figures}
        assert "head_age_seconds" not in names
        assert figures["k", ()] == 0
        assert render(service)
    finally:
        service.close()


@given(st.integers(0, 10**9), st.integers(0, 10**8), st.integers(-1, HORIZON_S))
def test_the_end_of_trust_is_found_to_the_second(since, ahead, lasts):
    now = since + ahead
    end = since + lasts
    found = find_end_of_trust(lambda at: at <= end, since, now)
    assert found == (since if lasts <= 0 else min(end, now + HORIZON_S))


async def test_the_expiry_of_trust_is_the_familys_own(tmp_path):
    async with Committee(tmp_path, count=1) as c:
        await c.run_for(10)
        figures = get_figures(c.services[0])
        expiry, age = (figures[n, (c.chains[0].chain_id,)] for n in ("light_client_expiry_seconds", "head_age_seconds"))
        assert expiry + age == pytest.approx(30 * DAY - 1)
