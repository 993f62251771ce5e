"""Written configurations are read back the same, and commands work from them without any help."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from messages.bodies import RotateOperators, SetCaps, Unpause, encode_body
from messages.documents import Amount, ControlParameters
from messages.errors import Rejected
from relayer.cli import app
from relayer.config import decode_parameters, load_config, load_parameters
from relayer.toml_writer import encode_parameters, encode_toml
from tests.builders import make_parameters, make_vault


def make_chain_tables(parameters):
    return {
        vault.chain: {
            "family": "evm",
            "vault": "0x" + vault.account.hex(),
            "checkpoint": "0x" + "31" * 32,
            "start_height": 17,
            "settings": {"network": "mainnet"},
            "timeout_s": 20.0,
            "log_range": 10_000,
            "endpoints": [
                {"name": f"e{i}", "execution": f"https://e{i}.test/x", "beacon": f"https://b{i}.test"} for i in range(2)
            ],
        }
        for vault in parameters.vaults
    }


def write(folder, parameters, **changes):
    folder.mkdir(exist_ok=True)
    (folder / "parameters.toml").write_text(encode_parameters(parameters))
    table = {
        "name": "op1",
        "store": "store.db",
        "journal": "journal.db",
        "parameters": "parameters.toml",
        "operator": {"key": "file:operator.json", "password": "file:password", "allow_throwaway_key": True},
        "gossip": {"kind": "memory"},
        "chains": make_chain_tables(parameters),
    } | changes
    path = folder / "relayer.toml"
    path.write_text(encode_toml(table, comment="written by a test"))
    return path


def test_parameters_are_read_back_equal(tmp_path):
    parameters = make_parameters([make_vault(0), make_vault(1)])
    path = tmp_path / "parameters.toml"
    path.write_text(encode_parameters(parameters))
    assert load_parameters(path) == parameters
    large = replace(
        parameters, assets=(replace(parameters.assets[0], lift_limit=Amount(2**95)), *parameters.assets[1:])
    )
    path.write_text(encode_parameters(large))
    assert load_parameters(path) == large


@pytest.mark.parametrize(
    "body",
    [
        RotateOperators(1, 3, 1_800_000_000, b"\x09" * 32, tuple(bytes([i]) * 20 for i in range(1, 5))),
        SetCaps(b"\x0a" * 32, 5, 6, 2**100),
        Unpause(),
    ],
)
def test_control_changes_are_read_back_equal_and_a_cut_one_is_refused(tmp_path, body):
    parameters = make_parameters([make_vault(0)])
    controls = (ControlParameters(b"\x11" * 32, encode_body(body)),)
    path = tmp_path / "parameters.toml"
    path.write_text(encode_parameters(replace(parameters, controls=controls)))
    assert load_parameters(path).controls == controls
    whole = "0x" + controls[0].value.hex()
    for spoiled in (whole[:-2], whole[:-64], "0x", whole.upper(), whole[2:]):
        control = f'[{{ vault_id = "0x{"11" * 32}", value = "{spoiled}" }}]'
        path.write_text(encode_parameters(parameters).replace("controls = []", f"controls = {control}"))
        with pytest.raises(Rejected) as caught:
            load_parameters(path)
        assert caught.value.reason == "bad_config"
        assert "controls[0].value" in str(caught.value)


def test_names_are_written_as_text_and_items_on_lines_of_their_own():
    parameters = make_parameters([make_vault(0), make_vault(1)])
    text = encode_parameters(parameters)
    assert 'quote_class = "USDC"' in text
    assert len([line for line in text.splitlines() if line.startswith("    { chain = ")]) == 2
    hex_like = replace(
        parameters, underlyings=(replace(parameters.underlyings[0], underlying=b"0x12".ljust(32, b"\0")),)
    )
    assert decode_parameters(tomllib.loads(encode_parameters(hex_like))) == hex_like


def test_a_configuration_is_read_back(tmp_path):
    parameters = make_parameters([make_vault(0), make_vault(1)])
    tables = make_chain_tables(parameters)
    tables["eip155:1000"] |= {"submit_key": "file:gas.json", "submit_password": "fd:3"}
    config = load_config(write(tmp_path, parameters, chains=tables))
    assert config.parameters == parameters
    assert config.name == "op1"
    assert config.store_path == tmp_path / "store.db"
    assert config.operator.allow_throwaway_key
    assert [(c.chain_id, c.start_height, c.settings, c.log_range) for c in config.chains] == [
        (v.chain, 17, '{"network":"mainnet"}', 10_000) for v in sorted(parameters.vaults, key=lambda v: v.chain)
    ]
    assert [c.vault_account for c in config.chains] == [v.account for v in parameters.vaults]
    assert config.submit_keys["eip155:1000"].key == "file:gas.json"
    assert config.submit_keys["eip155:1000"].password == "fd:3"


def test_commands_read_a_written_configuration(shell, tmp_path, monkeypatch):
    monkeypatch.undo()
    path = write(tmp_path / "op", shell.world.parameters, store=str(shell.store))
    for command in (
        ["status"],
        ["positions"],
        ["packets"],
        ["plan", "--dry-run"],
        ["margin", "0x376e"],
        ["explain", "1000:2"],
    ):
        result = CliRunner().invoke(app, [*command, "-c", str(path), "--json"])
        assert result.exit_code == (1 if command == ["status"] else 0), result.output
        assert json.loads(result.stdout)["node"] == "op1"


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("log_range = 10000", "log_range = 0", "log_range"),
        ("[gossip]", "[gossipp]", "gossipp"),
        ('name = "op1"', "", "name"),
        ('checkpoint = "0x31', 'checkpoint = "0x', "checkpoint"),
        ("[operator]", "[operator", "TOML"),
    ],
)
def test_a_wrong_configuration_ends_with_3_and_names_the_key(tmp_path, old, new, word):
    path = write(tmp_path, make_parameters([make_vault(0)]))
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    for command in (["status"], ["prove", "1000:1"], ["replay"]):
        result = CliRunner().invoke(app, [*command, "-c", str(path)])
        assert result.exit_code == 3, result.output
        assert word in result.stderr
        assert "Traceback" not in result.stderr


def test_a_missing_configuration_says_which(tmp_path):
    result = CliRunner().invoke(app, ["status", "-c", str(tmp_path / "none.toml")])
    assert result.exit_code == 3
    assert "none.toml" in result.stderr
