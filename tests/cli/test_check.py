"""`relayer check [--live]`: what is right says so, each thing that is wrong has its own word and what to do."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from messages.digests import get_address
from messages.documents import encode_document
from relayer.cli import app
from tests.builders import OPERATOR_KEYS, make_key, make_report
from tests.cli.live_chain import LiveChain
from tests.cli.live_server import get_codes, hold_clock, run_json, write_live
from tests.cli.operator_files import GONE, write_folder

GAS_KEY = make_key("gas of a check")


def check(path, *arguments, code):
    return run_json("check", "-c", path, *arguments, code=code)


# ---- files


def test_a_good_folder_is_good_and_says_what_is_missing_for_comfort(tmp_path):
    data = check(write_folder(tmp_path), code=0)
    assert data["is_good"]
    assert {"operator_key", "member", "gas_key", "journal", "signed"} <= get_codes(data, "ok")
    assert {"one_endpoint", "no_feeds", "no_metrics", "throwaway"} <= get_codes(data, "warning")
    assert all(f["todo"] for f in data["findings"] if f["level"] != "ok")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"operator": {"key": "file:none.json", "password": "file:password"}}, "key_file"),
        ({"operator": {"key": "file:operator.json", "password": "file:password"}}, "weak_key_file"),
        ({"genesis_parameters": None}, "unsigned_parameters"),
        ({"gossip": {"kind": "memory"}}, "memory_gossip"),
        ({"gossip": {"kind": "mqtt", "host": "broker.example.org", "port": 1883}}, "plain_broker"),
        ({"metrics": {"host": "0.0.0.0", "port": 9464}}, "metrics_host"),
        ({"next_parameters": "next.toml", "next_parameter_signatures": "none.json"}, "no_file"),
    ],
)
def test_each_wrong_part_has_its_word(tmp_path, changes, code):
    from relayer.toml_writer import encode_parameters
    from tests.cli.test_control import make_two_vaults

    parameters = make_two_vaults()
    path = write_folder(tmp_path, parameters=parameters, **changes)
    (tmp_path / "next.toml").write_text(encode_parameters(replace(parameters, version=2, effective=4_000_000_000)))
    assert code in get_codes(check(path, code=1), "wrong")


def test_a_gas_key_that_is_the_operator_key_and_a_stranger_are_noticed(tmp_path):
    keys = {"eip155:1000": OPERATOR_KEYS[0]}
    assert "same_key" in get_codes(check(write_folder(tmp_path / "a", gas_keys=keys), code=1), "wrong")
    path = write_folder(tmp_path / "b", key=make_key("stranger"))
    assert "not_member" in get_codes(check(path, code=0), "warning")


def test_a_missing_journal_is_explained(tmp_path):
    data = check(write_folder(tmp_path, is_first=False), code=0)
    found = next(f for f in data["findings"] if f["code"] == "no_journal")
    assert "first-journal" in found["todo"]


def test_a_file_that_cannot_be_read_has_its_own_code(tmp_path):
    path = write_folder(tmp_path)
    path.write_text(path.read_text().replace("name = ", "nmae = ", 1))
    result = CliRunner().invoke(app, ["check", "-c", str(path)])
    assert result.exit_code == 3
    assert "nmae" in result.stderr


# ---- live


@pytest.fixture
def chain(served, monkeypatch):
    return hold_clock(served, monkeypatch)


@pytest.fixture(scope="module")
def served():
    with LiveChain(funded=(get_address(GAS_KEY),)) as live:
        yield live


def write_evm(folder, chain, *, gas=GAS_KEY, **changes):
    return write_live(folder, chain, gas=gas, **changes)


def test_a_live_chain_is_found_to_be_what_the_files_say(tmp_path, chain):
    data = check(write_evm(tmp_path, chain), "--live", code=1)
    assert {"endpoint", "vault_code", "operators", "finality", "checkpoint", "balance"} <= get_codes(data, "ok"), data
    assert get_codes(data, "wrong") == {"broker"}  # nobody listens there


def test_a_dead_endpoint_is_named(tmp_path, chain):
    config = chain.make_config()
    dead = replace(config.endpoints[0], name="dead", execution_url=GONE, beacon_url=GONE)
    data = check(
        write_evm(tmp_path, chain, config=replace(config, endpoints=(*config.endpoints, dead))), "--live", code=1
    )
    wrong = [f for f in data["findings"] if f["level"] == "wrong" and "dead" in f["subject"]]
    assert {f["code"] for f in wrong} == {"unreachable"}
    assert "balance" in get_codes(data, "ok")


def test_another_chain_is_told_by_its_number(tmp_path, chain):
    chain.network.endpoints[0].lies.chain_id = 5
    try:
        data = check(write_evm(tmp_path, chain), "--live", code=1)
    finally:
        chain.network.endpoints[0].lies.chain_id = None
    assert "wrong_chain_id" in get_codes(data, "wrong")


def test_an_account_without_money_is_told(tmp_path, chain):
    data = check(write_evm(tmp_path, chain, gas=make_key("poor")), "--live", code=1)
    assert "low_balance" in get_codes(data, "wrong")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"delay_s": 86_401}, "wrong_immutables"),
        ({"threshold": 4}, "wrong_operators"),
    ],
)
def test_a_vault_created_otherwise_than_the_parameters_say_is_told(tmp_path, chain, changes, code):
    data = check(write_evm(tmp_path, chain, terms=replace(chain.parameters, **changes)), "--live", code=1)
    assert code in get_codes(data, "wrong")


def test_nothing_or_something_else_at_the_vaults_address_is_told(tmp_path, chain):
    empty = b"\x00" * 12 + b"\x99" * 20
    config = replace(chain.make_config(), vault_account=empty)
    path = write_evm(tmp_path / "a", chain, terms=replace(chain.parameters, account=empty), config=config)
    assert "no_code" in get_codes(check(path, "--live", code=1), "wrong")
    with LiveChain(31338, is_vault=False) as other:
        data = check(write_evm(tmp_path / "b", other), "--live", code=1)
    assert "wrong_code" in get_codes(data, "wrong")


def test_a_clock_that_is_behind_is_told(tmp_path, chain):
    now = chain.clock.now
    chain.clock.advance(300)
    chain.network.tick()
    try:
        data = check(write_evm(tmp_path, chain), "--live", code=1)
    finally:
        assert chain.clock.now > now
    assert "clock_behind" in get_codes(data, "wrong")


def test_prices_are_looked_at_like_everybodys(tmp_path, chain):
    now = int(time.time())
    good = make_report(now - now % 60, 2000)
    for folder, line in (
        ("fresh", good),
        ("old", make_report(now - now % 60 - 7200, 2000)),
        ("unsigned", replace(good, signatures=good.signatures[:1])),
    ):
        path = write_evm(tmp_path / folder, chain, feeds=[{"kind": "file", "path": "prices.jsonl"}])
        (tmp_path / folder / "prices.jsonl").write_bytes(encode_document(line) + b"\n")
        data = check(path, "--live", code=1)
        (found,) = [f for f in data["findings"] if f["subject"] == "feed prices.jsonl"]
        assert (found["level"] == "ok") is (folder == "fresh"), found
