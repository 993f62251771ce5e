"""`relayer explain`: for each way of not being settled, the right cause and what to do next."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from chains.base import Blame
from relayer.commands.causes import CODES, make_cause
from relayer.database import encode_u64
from relayer.rules import plan
from relayer.store import Store
from tests.builders import make_account

RULES = Path(plan.__file__).parent


def get_codes(data: dict) -> list[str]:
    return [c["code"] for s in data["sections"] for c in s["causes"]]


def get_facts(shell, kind):
    return [p for p in shell.json("packets")["outbox"] if p["kind"] == kind]


def change(shell, statement, *values):
    with sqlite3.connect(shell.store) as db:
        assert db.execute(statement, values).rowcount > 0


def test_a_fact_is_recorded_and_can_be_proven(shell):
    data = shell.json("explain", "1000:2")
    assert get_codes(data)[0] == "recorded"
    assert data["sections"][0]["kind"] == "outbox"


def test_a_number_behind_the_newest_proven_head_is_not_recorded_yet(shell):
    data = shell.json("explain", "1000:500")
    assert "not_recorded" in get_codes(data)
    assert "finality" in shell.text("explain", "1000:500")


def test_a_source_that_lied_is_named_where_something_is_missing(shell):
    causes = shell.json("explain", "1001:500")["sections"][0]["causes"]
    assert [c["detail"] for c in causes if c["code"] == "withheld"] == ["one: head_mismatch"]


def test_a_trade_that_was_done(shell):
    trade = next(p for p in get_facts(shell, "TradePending") if p["chain"] == "eip155:1001")
    assert "trade_done" in get_codes(shell.json("explain", trade["head"][:20]))


def test_a_trade_that_was_not_accepted_is_over(shell):
    poor = next(p for p in get_facts(shell, "TradePending") if "0x" + make_account("dave").hex()[24:32] in p["text"])
    codes = get_codes(shell.json("explain", poor["head"]))
    assert codes[:3] == [
        "recorded",
        "trade_over",
        "no_cash",
    ]  # the reason is computed again from what its proposal names
    assert "trade_over" in get_codes(shell.json("explain", f"eip155:1000:{poor['sequence']}"))


def test_a_withdrawal_that_was_allowed_can_be_claimed(shell):
    done = next(p for p in get_facts(shell, "WithdrawalRequested") if "500.00" in p["text"])
    assert "withdrawal_done" in get_codes(shell.json("explain", done["head"]))
    assert "claimable" in shell.text("explain", done["head"])


def test_a_withdrawal_beyond_the_margin_says_so(shell):
    large = next(p for p in get_facts(shell, "WithdrawalRequested") if "900,000.00" in p["text"])
    codes = get_codes(shell.json("explain", large["head"]))
    assert codes[:3] == ["recorded", "request_waiting", "margin_short"]


def test_a_withdrawal_in_an_open_packet_waits_for_its_ack(shell):
    waiting = next(p for p in get_facts(shell, "WithdrawalRequested") if "700.00" in p["text"])
    assert get_codes(shell.json("explain", waiting["head"])) == ["recorded", "in_open_packet", "sent"]


def test_a_sent_packet_and_its_neighbours(shell):
    def explain():
        return shell.json("explain", "1000:2")["sections"][-1]["causes"][-1]["code"]

    assert explain() == "sent"
    change(shell, "UPDATE transactions SET outcome = 'failed'")
    assert explain() == "tx_failed"
    change(shell, "UPDATE transactions SET sent_at = NULL, outcome = 'unknown'")
    assert explain() == "prepared"
    change(shell, "UPDATE packets SET timeout = ? WHERE status = 'open'", encode_u64(1_800_000_100))
    assert explain() == "timed_out"
    change(shell, "UPDATE packets SET timeout = ? WHERE status = 'open'", encode_u64(1_900_000_000))
    change(shell, "DELETE FROM transactions")
    assert explain() == "certified"
    change(shell, "DELETE FROM certificates")
    change(shell, "DELETE FROM signatures")
    causes = shell.json("explain", "1000:2")["sections"][-1]["causes"]
    assert causes[-1]["code"] == "voted"
    assert "0 of 3" in causes[-1]["detail"]
    for status in ("absent", "refused", "done"):
        change(
            shell,
            "UPDATE packets SET status = ? WHERE vault_id = ? AND sequence = ?",
            status,
            shell.one.vault_id,
            encode_u64(2),
        )
        assert explain() == status


def test_a_packet_that_nobody_planned(shell):
    sections = shell.json("explain", "1001:3")["sections"]
    inbox = next(s for s in sections if s["kind"] == "inbox")
    assert [c["code"] for c in inbox["causes"]] == ["no_votes"]


def test_a_packet_that_would_be_planned_names_who_has_not_voted(shell):
    change(shell, "DELETE FROM packets WHERE status = 'open'")
    change(
        shell,
        "INSERT INTO votes SELECT ?, r, operator, plan_digest, signature FROM votes WHERE k = ? LIMIT 1",
        encode_u64(2),
        encode_u64(1),
    )
    causes = next(s for s in shell.json("explain", "1000:2")["sections"] if s["kind"] == "inbox")["causes"]
    assert [c["code"] for c in causes] == ["would_be_planned", "quorum_missing"]
    assert "1 of 3" in causes[1]["detail"]
    assert causes[1]["detail"].count("0x") == 3


def test_halts_come_first(shell):
    store = Store(shell.store)
    store.record_halt("chain:eip155:1000", "two_headers", "two finalized headers at one height", 1_800_000_900)
    store.record_halt("node", "conservation", "one unit of difference", 1_800_000_901)
    store.close()
    for subject in ("1000:2", "1000:500"):
        codes = get_codes(shell.json("explain", subject))
        assert {"chain_halted", "node_halted"} <= set(codes)
    assert "Two people must clear it" in shell.text("explain", "1000:500")


def test_an_endpoint_that_is_down_is_told_with_the_packet_that_waits(shell):
    store = Store(shell.store)
    store.record_blames([Blame("eip155:1000", "two", "down", "no answer")], 1_800_000_900)
    store.close()
    assert "withheld" in get_codes(shell.json("explain", "1000:2"))


def test_a_plan_by_its_digest_with_its_votes(shell):
    digest = shell.json("packets")["inbox"][0]["plan_digest"]
    (section,) = shell.json("explain", digest[:18])["sections"]
    assert section["kind"] == "plan"
    assert section["votes"] >= 3
    change(shell, "DELETE FROM votes WHERE operator = (SELECT min(operator) FROM votes)")
    change(shell, "DELETE FROM votes WHERE operator = (SELECT min(operator) FROM votes)")
    assert get_codes(shell.json("explain", digest[:18])) == ["quorum_missing"]


def test_a_portfolio_with_everything_that_stands_against_it(shell):
    data = shell.json("explain", "0x376e399d")
    (section,) = data["sections"]
    assert section["kind"] == "portfolio"
    assert "margin_short" in get_codes(data)


def test_a_chain_without_any_proven_state(shell):
    shell.store.unlink()
    Store(shell.store).close()
    assert "no_proven_state" in get_codes(shell.json("explain", "1000:1"))


@pytest.mark.parametrize("subject", ["0xffffffff", "abc", "hello", "", "1000:", ":5"])
def test_what_nobody_knows_is_said(shell, subject):
    data = shell.json("explain", subject, code=1)
    assert data.get("sections") == [] or data["error"] == "unknown_vault"


def test_every_cause_says_what_to_do_next_and_an_unknown_one_is_told_as_it_is():
    assert len(CODES) >= 25
    for code in CODES:
        cause = make_cause(code)
        assert len(cause.meaning) > 10, code
        assert cause.next_step, code
    assert make_cause("brand_new").meaning == "brand new"


def test_every_code_that_the_rules_can_note_is_explained():
    found = set()
    for path in RULES.glob("plan*.py"):
        text = path.read_text()
        found |= set(re.findall(r'(?:note|_Over|_Wait|PlanNote)\(\s*"([a-z_]+)"', text))
        found |= set(re.findall(r'code(?:, text)? = "([a-z_]+)"', text))
        found |= set(re.findall(r'else "([a-z_]+)"\n', text)) & {"paid_by_due"}
    assert len(found) > 20
    assert found - CODES == set()
