"""The testnet for operators with their own keys: whom it takes in, what it writes for them, what its user can ask. The whole: tests/test_quickstart.py."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from chains.evm.codec import compute_evm_vault_id
from messages.documents import Amount, CapParameters, VaultParameters
from messages.errors import Rejected, Unavailable
from messages.ids import get_evm_account
from relayer.cli import app
from relayer.config import load_parameters
from relayer.feeds import FileFeed
from relayer.keys import Secret, create_key_file
from relayer.rules.prices import verify_report
from relayer.testnet.group import (
    CHAIN_NUMBERS,
    GROUP_FILE,
    STATE_FILE,
    Place,
    _Prices,
    load_place,
    make_parameters,
    make_series,
    read_members,
    start_in_background,
)
from relayer.toml_writer import encode_parameters
from tests.builders import OPERATORS, START, TREASURER, make_key

PLACES = tuple(Place(n, "http://127.0.0.1:1", bytes([n % 251]) * 20, b"\x0a" * 20) for n in CHAIN_NUMBERS)


def make_folder(home, name, keys=("operator", "gas-31337", "gas-31338")):
    for key in keys:
        path = home / name / "keys" / f"{key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        create_key_file(path, Secret(make_key(f"{name} {key}")), Secret(b"a test's password"), is_throwaway=True)
    return home / name


def make_vaults():
    caps = (CapParameters(PLACES[0].asset, Amount(1), Amount(2), Amount(3)),)
    return [
        (
            p,
            5,
            VaultParameters(
                p.chain, "evm", get_evm_account(p.vault), OPERATORS, 3, TREASURER, 60, START, caps, Amount(9)
            ),
        )
        for p in PLACES
    ]


def test_members_are_named_by_their_folders_and_known_by_their_key_files(tmp_path):
    folders = [make_folder(tmp_path, f"op{i}") for i in range(4)]
    members = read_members(folders)
    assert [m.name for m in members] == ["op0", "op1", "op2", "op3"]
    assert len({m.address for m in members} | {a for m in members for a in m.gas.values()}) == 12
    shown = CliRunner().invoke(app, ["keys", "show", str(folders[0] / "keys" / "operator.json"), "--json"])
    assert json.loads(shown.stdout)["address_claimed"] == "0x" + members[0].address.hex()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda f: f.pop(), "usage"),
        (lambda f: f.append(f[0]), "usage"),
        (lambda f: f.extend([f[0]] * 17), "usage"),
        (lambda f: (f[1] / "keys" / "gas-31338.json").unlink(), "key_file"),
        (lambda f: (f[1] / "keys" / "operator.json").write_text("{}"), "key_file"),
        (
            lambda f: (f[1] / "keys" / "operator.json").write_bytes((f[0] / "keys" / "operator.json").read_bytes()),
            "usage",
        ),
    ],
)
def test_a_group_that_is_none_is_refused_before_anything_starts(tmp_path, spoil, reason):
    folders = [make_folder(tmp_path, f"op{i}") for i in range(4)]
    spoil(folders)
    with pytest.raises(Rejected) as caught:
        read_members(folders)
    assert caught.value.reason == reason
    words = [word for folder in folders for word in ("--operator", str(folder))]
    result = CliRunner().invoke(app, ["testnet", "up", "--folder", str(tmp_path / "net"), *words])
    assert result.exit_code in (1, 2)
    assert not (tmp_path / "net").exists()


def test_the_parameters_of_a_group_are_read_back_equal_and_name_its_vaults(tmp_path):
    made = make_parameters(make_vaults(), [b"\x01" * 20, b"\x02" * 20], START)
    path = tmp_path / "parameters.toml"
    path.write_text(encode_parameters(made))
    assert load_parameters(path) == made
    assert [a.vault_id for a in made.assets] == [compute_evm_vault_id(p.number, p.vault) for p in PLACES]
    assert make_series(START).quote_class == made.classes[0].quote_class


async def test_prices_are_signed_once_a_minute_as_the_parameters_demand(tmp_path):
    begin = START // 60 * 60
    prices = _Prices(tmp_path / "prices.jsonl", begin, PLACES, begin + 86_400)
    made = make_parameters(make_vaults(), prices.reporters.addresses, START)
    prices.write(begin)
    feed = FileFeed(tmp_path / "prices.jsonl")
    reports, marks = await feed.fetch(begin)
    assert (len(reports), len(marks)) == (3, 1)
    for signed in reports:
        verify_report(signed, signers=made.price_signers, threshold=made.price_threshold, now=begin)
    prices.write(begin + 59)
    assert await feed.fetch(begin) == ([], [])
    prices.write(begin + 61)
    assert len((await feed.fetch(begin + 61))[0]) == 3


def test_the_user_needs_a_testnet_that_runs_and_a_chain_that_is_there(tmp_path):
    chain = {"number": 31337, "url": "http://127.0.0.1:1", "vault": "11" * 20, "token": "22" * 20}
    (tmp_path / GROUP_FILE).write_text(json.dumps({"chains": [chain]}))
    with pytest.raises(Rejected) as caught:
        load_place(tmp_path, "31337")
    assert caught.value.reason == "no_testnet"
    (tmp_path / STATE_FILE).write_text("{}")
    assert load_place(tmp_path, "31337") == load_place(tmp_path, "eip155:31337")
    with pytest.raises(Rejected) as caught:
        load_place(tmp_path, "31338")
    assert caught.value.reason == "no_chain"
    words = ["--folder", str(tmp_path), "--chain", "31337", "--amount", "5", "--json"]
    result = CliRunner().invoke(app, ["testnet", "deposit", *words])
    assert result.exit_code == 75  # the node is gone
    assert json.loads(result.stdout)["error"] == "unreachable"


def test_a_testnet_that_does_not_start_in_the_background_says_why(tmp_path):
    with pytest.raises(Unavailable) as caught:
        start_in_background(
            ["testnet", "up", "--folder", str(tmp_path / "net"), "--operator", "nobody"], tmp_path / "net"
        )
    assert caught.value.reason == "not_started"
    assert "4 to 20 operators" in str(caught.value)
