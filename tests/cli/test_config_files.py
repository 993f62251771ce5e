"""Written configurations are read back the same, and commands work from them without any help."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from chains.evm.light_client import LightClientConfig
from chains.registry import ChainConfig, EndpointConfig, make_evm_settings
from messages.documents import Amount
from relayer.cli import app
from relayer.config import load_config, load_parameters
from relayer.config_file import format_config, format_parameters
from tests.builders import make_parameters, make_vault


def make_chains(parameters):
    from chains.evm.forks import MAINNET

    return [
        ChainConfig(
            vault.chain,
            "evm",
            tuple(EndpointConfig(f"e{i}", f"https://e{i}.test/x", f"https://b{i}.test") for i in range(2)),
            vault.account,
            b"\x31" * 32,
            17,
            make_evm_settings(LightClientConfig(MAINNET)),
        )
        for vault in parameters.vaults
    ]


def write(folder, parameters, **changes):
    folder.mkdir(exist_ok=True)
    (folder / "parameters.toml").write_text(format_parameters(parameters))
    options = {
        "name": "op1",
        "chains": make_chains(parameters),
        "store": "store.db",
        "journal": "journal.db",
        "parameters": "parameters.toml",
        "operator_key": "file:operator.json",
        "operator_password": "file:password",
        "note": "written by a test",
    } | changes
    path = folder / "relayer.toml"
    path.write_text(format_config(**options))
    return path


def test_parameters_are_read_back_equal(tmp_path):
    parameters = make_parameters([make_vault(0), make_vault(1)])
    path = tmp_path / "parameters.toml"
    path.write_text(format_parameters(parameters))
    assert load_parameters(path) == parameters
    large = replace(
        parameters, assets=(replace(parameters.assets[0], lift_limit=Amount(2**95)), *parameters.assets[1:])
    )
    path.write_text(format_parameters(large))
    assert load_parameters(path) == large


def test_a_configuration_is_read_back(tmp_path):
    parameters = make_parameters([make_vault(0), make_vault(1)])
    submit = {"eip155:1000": ("file:gas.json", "fd:3")}
    config = load_config(write(tmp_path, parameters, submit_keys=submit, allow_throwaway_key=True))
    assert config.parameters == parameters
    assert config.name == "op1"
    assert config.store_path == tmp_path / "store.db"
    assert config.operator.allow_throwaway_key
    assert [replace(c, retry_s=0.25) for c in config.chains] == sorted(
        make_chains(parameters), key=lambda c: c.chain_id
    )
    assert (config.submit_keys["eip155:1000"].key, config.submit_keys["eip155:1000"].password) == submit["eip155:1000"]


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
