"""Latencies come from the operators' own lines, and the report is one file that fetches nothing."""

from __future__ import annotations

import copy
import json

import pytest

from relayer.testnet.latency import compute_latencies, compute_percentile, read_events
from relayer.testnet.report import make_html, make_timeline, shorten_chain
from relayer.testnet.sidecar_check import is_good

CHAINS = {"aabbccdd": "eip155:1"}


def line(at, event, node="op0", **fields):
    return {"at": at, "event": event, "node": node, **fields}


EVENTS = [
    line(10.0, "facts", chain="eip155:1"),
    line(10.1, "there is work", k=3),
    line(10.2, "propose", k=3),
    line(10.5, "certified", vault="aabbccdd", sequence=7, k=3),
    line(10.6, "certified", node="op1", vault="aabbccdd", sequence=7, k=3),
    line(10.9, "sent", node="op1", chain="eip155:1", sequence=7),
    line(12.4, "packet settled", node="op2", vault="aabbccdd", sequence=7, status="done"),
    line(12.9, "packet settled", node="op0", vault="aabbccdd", sequence=7, status="done"),
]


def test_a_packet_counts_from_the_facts_that_caused_it():
    (packet,) = compute_latencies(EVENTS, CHAINS)["packets"]
    assert packet["finality_to_proposal"] == 200
    assert packet["proposal_to_certificate"] == 300
    assert packet["certificate_to_submission"] == 400
    assert packet["finality_to_submission"] == 900
    assert packet["submission_to_proof"] == 1500
    assert packet["sent_by"] == "op1"


def test_a_packet_that_no_fact_caused_counts_from_its_proposal():
    events = [line(5.0, "facts", chain="eip155:1"), *EVENTS[1:]]
    (packet,) = compute_latencies(events, CHAINS)["packets"]
    assert "finality_to_submission" not in packet
    assert packet["proposal_to_certificate"] == 300


def test_a_packet_that_nobody_sent_does_not_count():
    assert compute_latencies([e for e in EVENTS if e["event"] != "sent"], CHAINS)["packets"] == []
    assert compute_latencies([], CHAINS)["summary"] == {}


def test_an_ack_that_nobody_saw_leaves_the_rest():
    (packet,) = compute_latencies(EVENTS[:-2], CHAINS)["packets"]
    assert "submission_to_proof" not in packet
    assert packet["finality_to_submission"] == 900


def test_each_chain_has_its_own_figures():
    chains = {**CHAINS, "eeff0011": "cosmos:two"}
    other = [
        line(10.3, "propose", k=4),
        line(10.4, "certified", vault="eeff0011", sequence=7, k=4),
        line(10.6, "sent", chain="cosmos:two", sequence=7),
        line(10.7, "packet settled", vault="eeff0011", sequence=7, status="done"),
    ]
    by_chain = compute_latencies(sorted([*EVENTS, *other], key=lambda e: e["at"]), chains)["by_chain"]
    assert by_chain["eip155:1"]["submission_to_proof"]["p50_ms"] == 1500
    assert by_chain["cosmos:two"]["submission_to_proof"] == {"count": 1, "p50_ms": 100.0, "p99_ms": 100.0}


def test_percentiles_are_of_the_nearest_rank():
    values = [float(i) for i in range(100, 0, -1)]
    assert (compute_percentile(values, 50), compute_percentile(values, 99)) == (50.0, 99.0)
    assert compute_percentile([7.0], 99) == 7.0


def test_lines_that_are_no_log_lines_are_passed_over(tmp_path):
    stamp = "2026-01-05T09:00:00.5Z"
    good = json.dumps({"event": "facts", "timestamp": stamp})
    (tmp_path / "op0.log").write_text(f"Traceback\n{good}\n[1]\n{json.dumps({'event': 'x'})}\n")
    (event,) = read_events(tmp_path, ["op0", "op1"])
    assert event["event"] == "facts"
    assert event["at"] % 1 == 0.5


RESULT = {
    "ok": True,
    "seed": 1,
    "faults": True,
    "nodes": "eip155:1",
    "facts": {"one": 3},
    "chains": {"one": {"chain": "eip155:1", "family": "evm", "nodes": "eip155:1 on anvil", "facts": 3, "transactions": 4, "gas": 400_004}},
    "packets": 2,
    "packets_refused": 0,
    "settlement": {"price_e8": "224000000000", "gross": "9000000", "net": "1000000", "moved": "2", "packets": "2", "legs": "9"},
    "conservation": {"difference": "0", "vaults": {"one": {"chain": "eip155:1", "held": "5", "owed": "5"}}},
    "operators_agree": True,
    "proof": {"verified": True},
    "replay": {"same": True, "plans": 4, "facts": 9},
    "stopped_cleanly": True,
    "timeline": [{"at_s": 0.0, "kind": "start", "text": "a <b>"}, {"at_s": 90.0, "kind": "fault", "text": "x" * 300}],
    "latency": compute_latencies(EVENTS, CHAINS),
    "margin": {"maker": {"apart": "9000000", "together": "0"}},
    "users": [{"user": "maker", "paid_in": "1000000", "got_out": "2000000", "result": "1000000"}],
    "incidents": {"op0": {"blames": [{"chain": "c", "source": "<script>", "reason": "r", "count": 1}]}},
}  # fmt: skip


def test_the_page_fetches_nothing_runs_nothing_and_escapes_what_others_said():
    page = make_html(RESULT)
    assert page.count("<svg") == 4
    for word in ("http", "src=", "href=", "<script", "@import", "url("):
        assert word not in page
    assert "&lt;script&gt;" in page
    assert "89 % less" in page
    assert "<td>100,001</td>" in page
    assert "<td>1,500 / 1,500</td>" in page
    assert "all checks hold" in page


def test_a_long_name_of_a_chain_fits_beside_its_bar():
    assert shorten_chain("solana:CB47DKVTVxpD1ohbDHEDiKExCv5jjfJX") == "CB47DKVTVxp…"
    assert shorten_chain("cosmos:optsettle-8") == "optsettle-8"


def test_the_page_tells_who_lied_and_who_named_it():
    lie = {
        "chain": "solana:1",
        "endpoint": "fourth",
        "endpoint_accusers": ["op0", "op1"],
        "operator": "op3",
        "operator_accusers": [],
    }
    page = make_html({**RESULT, "lies": [lie]})
    assert "<td>endpoint fourth</td><td>solana:1</td><td>op0, op1</td>" in page
    assert "<td>operator op3</td><td>solana:1</td><td>NOBODY</td>" in page
    assert "Who lied" not in make_html({**RESULT, "lies": []})


def test_the_page_says_when_something_failed():
    broken = copy.deepcopy(RESULT)
    broken["ok"] = False
    broken["conservation"]["vaults"]["one"]["held"] = "4"
    page = make_html(broken)
    assert "checks failed" in page
    assert "<td>-1</td>" in page


def test_an_empty_run_has_a_page_too():
    empty = {
        **copy.deepcopy(RESULT),
        "latency": compute_latencies([], CHAINS),
        "margin": {},
        "timeline": [],
        "incidents": {},
    }
    assert "No packet was sent" in make_html(empty)
    assert make_timeline([]) == "<p>Nothing happened.</p>"


CHECK = {
    "periods_followed": [0, 1],
    "committee_updates_inserted": 1,
    "requests_failed": 0,
    "warnings_and_errors": {"WARN Future signed head received": 3},
    "control_updates_inserted": 0,
    "control_checkpoint": -1,
}


@pytest.mark.parametrize(
    "change",
    [
        {"periods_followed": [0]},
        {"committee_updates_inserted": 0},
        {"requests_failed": 1},
        {"warnings_and_errors": {"WARN Synchronization with server failed": 1}},
        {"control_updates_inserted": 1},
        {"control_checkpoint": 8064},
    ],
)
def test_the_check_of_the_sidecar_fails_on_each_thing_that_it_asks_for(change):
    assert is_good(CHECK)
    assert not is_good({**CHECK, **change})
