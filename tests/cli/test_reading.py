"""Reading commands on a real store: what programs get, what people see, and every way it can go wrong."""

from __future__ import annotations

import json
import re
import sqlite3
from decimal import Decimal

import pytest

from messages.errors import Rejected, Unavailable
from relayer.commands import holdings, view
from relayer.commands.holdings import parse_shift
from relayer.render import Answer, Names, Table, format_age, format_amount, show_answer
from relayer.store import Store
from tests.builders import OPERATORS, UNIT, make_account

FRAME = {"schema", "node", "as_of", "last_record", "is_live"}


# ---- status


def test_status_tells_chains_committee_halts_and_blames(shell):
    data = shell.json("status", code=1)  # a halt is active
    assert data.keys() == FRAME | {"chains", "committee", "open_packets", "halts", "blames", "equivocations"}
    assert [c["chain"] for c in data["chains"]] == ["eip155:1000", "eip155:1001"]
    one = data["chains"][0]
    assert (one["tier"], one["open_packets"], one["requests_waiting"], one["state"]) == (1, 1, 1, "ok")
    assert one["outbox_sequence"] == shell.one.state.outbox_sequence
    assert one["age_s"] < 60
    assert data["committee"]["operators"] == ["0x" + o.hex() for o in OPERATORS]
    assert data["committee"]["threshold"] == 3
    assert [h["reason"] for h in data["halts"]] == ["test"]
    assert {b["reason"] for b in data["blames"]} >= {"head_mismatch"}
    text = shell.text("status", code=1)
    assert "Halts: a person has to look" in text
    assert "3 of 4 operators" in text


def test_status_without_halts_is_good(shell):
    with sqlite3.connect(shell.store) as db:
        db.execute("DELETE FROM halts")
    assert shell.json("status")["halts"] == []
    assert "Next: `relayer packets`" in shell.text("status")


# ---- positions


def _get_portfolio(data, account):
    return next(p for p in data["portfolios"] if any(r["account"] == "0x" + account.hex() for r in p["rows"]))


def test_positions_show_every_portfolio_with_trust_height_and_age(shell):
    data = shell.json("positions")
    assert data.keys() == FRAME | {"portfolios", "conservation"}
    maker = _get_portfolio(data, make_account("maker"))
    assert maker["id"] == "0x" + make_account("maker portfolio").hex()
    assert maker["accounts"] == 2
    cash = {r["chain"]: r["amount"] for r in maker["rows"] if r["kind"] == "cash"}
    assert cash == {"eip155:1000": str(20_000 * UNIT), "eip155:1001": str(20_120 * UNIT)}
    (option,) = [r for r in maker["rows"] if r["kind"] == "option"]
    assert (option["amount"], option["decimals"]) == (str(-3 * 10**8), 8)
    for portfolio in data["portfolios"]:
        for row in portfolio["rows"]:
            assert row["tier"] == 1
            assert row["height"] > 0
            assert 0 <= row["age_s"] < 60
            assert row["amount"] == str(int(row["amount"]))
    assert data["conservation"]["is_conserved"]
    carol = _get_portfolio(data, make_account("carol"))
    assert [r["amount"] for r in carol["rows"] if r["kind"] == "claimable"] == [str(500 * UNIT)]


def test_positions_for_people_have_units_separators_and_unique_short_ids(shell):
    text = shell.text("positions")
    assert "20,120.00 USDC" in text
    assert "1 light client" in text
    assert "Conservation: every asset and every series" in text
    assert "0x" + make_account("maker portfolio").hex() not in text
    assert "0x" + make_account("maker portfolio").hex() in shell.text("positions", "--full")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)


def test_one_portfolio_can_be_asked_for_by_id_account_or_name(shell):
    for name in (
        "0x" + make_account("maker").hex()[24:36],
        make_account("maker portfolio").hex(),
        "0x" + make_account("maker portfolio").hex()[24:32],
    ):
        (only,) = shell.json("positions", name)["portfolios"]
        assert only["id"] == "0x" + make_account("maker portfolio").hex()
    (house,) = shell.json("positions", "house")["portfolios"]
    assert house["name"] == "HOUSE"
    for nobody in ("0xabcdef12", "abc", "zzzz", ""):
        assert shell.json("positions", nobody, code=1)["error"] == "unknown_portfolio"


# ---- margin


def test_margin_apart_and_together_with_rows_behind_it(shell):
    portfolio = make_account("maker portfolio").hex()[24:34]
    data = shell.json("margin", portfolio)
    assert [line["where"] for line in data["apart"]] == ["eip155:1000", "eip155:1001"]
    together = {
        key: Decimal(data["together"][key]) for key in ("equity", "cash", "mark_to_market", "initial", "maintenance")
    }
    assert together["cash"] == 40_120
    assert -200 < together["mark_to_market"] < 0
    assert abs(together["equity"] - together["cash"] - together["mark_to_market"]) <= Decimal("0.000001")
    assert together["initial"] < together["maintenance"] < together["equity"]
    assert {
        "portfolio",
        "currency",
        "decimals",
        "market_now",
        "what_if",
        "saved_initial",
        "spots",
        "trust",
    } <= data.keys()
    for line in (*data["apart"], data["together"]):
        for key in ("equity", "cash", "mark_to_market", "initial", "maintenance"):
            assert re.fullmatch(r"-?[0-9]+\.[0-9]{6}", line[key])
    text = shell.text("margin", portfolio)
    assert "all chains together" in text
    assert "Options over all chains" in text


@pytest.mark.parametrize(
    ("saved", "words"),
    [
        ("7350.550000", ["better by 7,350.55"]),
        ("0.010000", ["better by 0.01"]),
        ("-12.005000", ["worse by 12.00"]),
        ("0.009999", []),
        ("-0.000001", []),
        ("", []),
    ],
)
def test_what_margin_together_saves_is_told_to_the_cent_or_not_at_all(saved, words):
    told = holdings._tell_saving(saved, "USDC")
    assert told == [f"Initial margin together is {w} USDC than the chains apart." for w in words]


def test_a_what_if_moves_prices_and_its_exit_code_says_who_would_be_liquidated(shell):
    alice = make_account("alice").hex()[24:34]
    before = shell.json("margin", alice)
    after = shell.json("margin", alice, "--what-if", "spot=+30%,vol=+10%")
    assert float(after["together"]["maintenance"]) < float(before["together"]["maintenance"])
    assert after["spots"][0]["spot_e8"] == str(2600 * 10**8)
    ruin = shell.json("margin", alice, "--what-if", "spot=+900%", code=1)
    assert float(ruin["together"]["maintenance"]) < 0
    assert "liquidates in steps" in shell.text("margin", alice, "--what-if", "spot=+900%", code=1)


def test_a_what_if_of_nothing_changes_nothing(shell):
    alice = make_account("alice").hex()[24:34]
    plain, moved = shell.json("margin", alice), shell.json("margin", alice, "--what-if", "spot=+0%,vol=-0%")
    assert plain["together"] == moved["together"]


@pytest.mark.parametrize(
    "text", ["", "spot", "spot=-100%", "spot=+901%", "spot=1%,spot=2%", "rate=1%", "spot=1e3%", "spot=nan%", "vol=+5"]
)
def test_a_bad_what_if_is_wrong_usage(shell, text):
    with pytest.raises(Rejected):
        parse_shift(text)
    assert shell.json("margin", make_account("alice").hex()[24:34], "--what-if", text, code=2)["error"] == "what_if"


# ---- packets, plan


def test_packets_tell_what_became_of_each(shell):
    data = shell.json("packets")
    states = {(p["chain"], p["sequence"]): p["state"] for p in data["inbox"]}
    assert states == {
        ("eip155:1000", 1): "done",
        ("eip155:1000", 2): "sent",
        ("eip155:1001", 1): "done",
        ("eip155:1001", 2): "done",
    }
    sent = next(p for p in data["inbox"] if p["state"] == "sent")
    assert sent["signatures"] == 3
    assert sent["effects"]
    assert [p["kind"] for p in data["outbox"]].count("Ack") == 3
    assert all(p["tier"] == 1 and p["height"] > 0 and p["age_s"] >= 0 for p in data["outbox"])
    only = shell.json("packets", "--chain", "1001", "--last", "2")
    assert {p["chain"] for p in (*only["inbox"], *only["outbox"])} == {"eip155:1001"}
    assert len(only["outbox"]) == 2
    assert shell.json("packets", "--chain", "7", code=1)["error"] == "unknown_vault"
    assert "acknowledged: the vault did it" in shell.text("packets")


def test_a_dry_run_says_what_is_planned_and_why_the_rest_is_not(shell):
    data = shell.json("plan", "--dry-run")
    assert {n["code"] for n in data["notes"]} >= {"open_packet_on_vault", "margin_short"}
    assert data["open_packets"] == 1
    assert re.fullmatch(r"0x[0-9a-f]{64}", data["plan_digest"])
    assert data == shell.json("plan", "--dry-run")
    assert "nothing is signed or sent" in shell.text("plan", "--dry-run")


def test_a_dry_run_shows_packets_that_would_be_made(shell):
    # As if the last committee decision had not been recorded: then the withdrawal of bob would be planned now.
    with sqlite3.connect(shell.store) as db:
        db.execute("DELETE FROM packets WHERE status = 'open'")
    data = shell.json("plan", "--dry-run")
    (packet,) = data["packets"]
    assert (packet["chain"], packet["sequence"], packet["kind"]) == ("eip155:1000", 2, "DecideWithdrawals")
    assert "allow withdrawal" in shell.text("plan", "--dry-run")


def test_a_plan_is_only_a_dry_run(shell):
    assert shell("plan").exit_code == 2


# ---- the store


def test_reading_changes_no_byte_of_the_store(shell):
    before = shell.store.read_bytes()
    for command in (["status"], ["positions"], ["packets"], ["plan", "--dry-run"], ["replay"], ["explain", "1000:2"]):
        shell(*command)
    assert shell.store.read_bytes() == before


def test_reading_works_beside_a_running_node_and_sees_what_it_wrote(shell):
    store = Store(shell.store)
    try:
        assert shell.json("positions")["conservation"]["is_conserved"]
        store.record_halt("node", "conflict", "written meanwhile", 1_800_000_930)
        assert any(h["reason"] == "conflict" for h in shell.json("status", code=1)["halts"])
    finally:
        store.close()


def test_a_missing_store_is_said_with_what_to_do(shell):
    shell.store.unlink()
    error = shell.json("status", code=4)
    assert error["error"] == "no_store"
    assert "start the node once" in error["detail"]
    assert not shell.store.exists()


def test_a_file_that_is_no_store_is_refused(shell):
    shell.store.write_bytes(b"hello" * 1000)
    assert shell.json("status", code=4)["error"] == "corrupt"
    shell.store.unlink()
    with sqlite3.connect(shell.store) as db:
        db.execute("CREATE TABLE other (x)")
    assert shell.json("status", code=4)["error"] == "too_new"


def test_a_store_of_a_newer_version_or_an_unfinished_one_is_refused(shell):
    with sqlite3.connect(shell.store) as db:
        db.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('relayer_store', '9999_later', '')"
        )
    assert shell.json("positions", code=4)["error"] == "too_new"
    with sqlite3.connect(shell.store) as db:
        db.execute("DELETE FROM _sqlite_migrations WHERE name <> '0001_chain_records'")
    assert shell.json("positions", code=4)["error"] == "too_old"


def test_a_store_that_was_changed_is_refused(shell):
    with sqlite3.connect(shell.store) as db:
        db.execute("UPDATE facts SET record = CAST(record || x'00' AS BLOB) WHERE sequence = x'0000000000000003'")
    error = shell.json("positions", code=4)
    assert error["error"] == "chain_broken"
    assert "fact 3" in error["detail"]


def test_a_wrong_configuration_has_its_own_exit_code(shell, monkeypatch):
    def refuse(_path):
        raise Rejected("chains.eip155:1.checkpoint is missing", reason="bad_config")

    monkeypatch.setattr(view, "load", refuse)
    for command in (
        ["status"],
        ["positions"],
        ["prove", "1000:1"],
        ["replay"],
        ["archive", "export", "x.jsonl"],
        ["verify", "x", "-c", "y"],
    ):
        assert shell.json(*command, code=3)["error"] == "config"


def test_what_is_not_there_yet_asks_to_try_again(shell, monkeypatch):
    shell.store.unlink()
    Store(shell.store).close()
    assert shell.json("positions", code=75)["error"] == "no_cut"
    assert "no proven state yet" in shell.text("status", code=1)

    def busy(_path):
        raise Unavailable("no answer", reason="down")

    monkeypatch.setattr(view, "load", busy)
    assert shell.json("status", code=75)["error"] == "down"


def test_errors_go_to_stderr_and_have_no_traceback(shell):
    result = shell("positions", "0xabcdef")
    assert result.stdout == ""
    assert result.stderr.startswith("relayer: no single portfolio")
    assert "Traceback" not in result.stderr


# ---- rendering


def test_names_are_as_short_as_they_stay_unique():
    ids = [bytes.fromhex("aabbccdd11" + "00" * 27), bytes.fromhex("aabbccdd22" + "00" * 27)]
    names = Names(ids)
    assert [names(i) for i in ids] == ["0xaabbccdd1", "0xaabbccdd2"]
    assert Names(ids, is_full=True)(ids[0]) == "0x" + ids[0].hex()
    assert Names(ids, known={ids[0]: "HOUSE"})(ids[0]) == "HOUSE"
    account = bytes(12) + bytes.fromhex("1234567890" + "00" * 15)
    assert Names([account])(account) == "0x12345678"


def test_amounts_are_exact_and_readable():
    assert format_amount(1_234_567_890_000, 6, "USDC") == "1,234,567.89 USDC"
    assert format_amount(-1, 6, "USDC") == "-0.000001 USDC"
    assert format_amount(5, 0, "base units") == "5 base units"
    assert format_amount(10**40, 18) == f"{10**22:,}.00"
    assert [format_age(s) for s in (5, 900, 12_000, 200_000)] == ["5 s", "15 min", "3 h 20 min", "2 d 7 h"]


def test_control_characters_of_strangers_do_not_reach_a_terminal(capsys):
    show_answer(Answer({}, ["a\x1b[31mb", Table("t\x07", ("c",), [["x\x1b]0;evil\x07"]])]), as_json=False)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x07" not in out


def test_json_is_one_object_without_floats(shell):
    def walk(value):
        assert not isinstance(value, float)
        for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(child)

    for command in (
        ["status"],
        ["positions"],
        ["packets"],
        ["plan", "--dry-run"],
        ["replay"],
        ["margin", "0x376e"],
        ["explain", "1000:2"],
        ["version"],
    ):
        data = json.loads(shell(*command, "--json").stdout)
        assert data["schema"].startswith("relayer/")
        walk(data)
