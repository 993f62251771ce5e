"""Every file in configs/ loads, and `relayer check` finds nothing wrong once its keys and files are there; the wheel carries all of them."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from relayer.cli import app
from relayer.config import load_config, load_parameters
from relayer.keys import Secret, create_key_file, generate_private_key
from tests.cli.operator_files import write_secret

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
NODES = ("example", "gnosis", "local", "mainnet", "osmosis-testnet", "sepolia", "solana-devnet")


def check(path):
    result = CliRunner().invoke(app, ["check", "-c", str(path), "--json"])
    assert "Traceback" not in result.output
    return result.exit_code, json.loads(result.stdout)


@pytest.fixture
def folder(tmp_path):
    """A copy of configs/ in which operators' files can be made."""
    shutil.copytree(CONFIGS, tmp_path / "configs")
    return tmp_path / "configs"


def fill(path, ca):
    """Make the keys, passwords and the CA that a configuration names, as an operator would."""
    table = tomllib.loads(path.read_text())
    chains = table["chains"].values()
    pairs = [(table["operator"]["key"], table["operator"]["password"])]
    pairs += [(c["submit_key"], c["submit_password"]) for c in chains]
    for key, password in pairs:
        for reference in (key, password):
            (path.parent / reference.removeprefix("file:")).parent.mkdir(exist_ok=True)
        write_secret(path.parent / password.removeprefix("file:"), b"a password of a test")
        create_key_file(
            path.parent / key.removeprefix("file:"),
            generate_private_key(),
            Secret(b"a password of a test"),
            is_throwaway=True,
        )
    write_secret(path.parent / table["gossip"]["password_file"])
    if "ca_file" in table["gossip"]:
        shutil.copy(ca, path.parent / table["gossip"]["ca_file"])
    path.write_text(path.read_text().replace("[operator]\n", "[operator]\nallow_throwaway_key = true\n"))


@pytest.fixture(scope="module")
def ca():
    certifi = pytest.importorskip("certifi")
    return certifi.where()


def test_each_file_of_the_folder_is_known_to_these_tests():
    nodes = {p.stem for p in CONFIGS.glob("*.toml") if "parameters" not in p.stem}
    assert nodes == set(NODES)


@pytest.mark.parametrize("name", sorted(p.name for p in CONFIGS.glob("*parameters*.toml")))
def test_each_parameters_file_loads_and_names_its_vaults_by_their_right_ids(name):
    from messages.digests import compute_vault_id

    parameters = load_parameters(CONFIGS / name)
    ids = {compute_vault_id(v.chain, v.account) for v in parameters.vaults}
    assert {a.vault_id for a in parameters.assets} == ids
    assert all(a.caip19.startswith(parameters.vaults[0].chain + "/") for a in parameters.assets)


@pytest.mark.parametrize("name", NODES)
def test_check_finds_nothing_wrong_in_a_committed_example_once_its_files_are_made(folder, name, ca):
    path = folder / f"{name}.toml"
    code, found = check(path)
    wrong = {f["subject"].split()[-1] for f in found["findings"] if f["level"] == "wrong"}
    assert code == 1
    assert wrong <= {"key", "gossip"}, found
    fill(path, ca)
    code, found = check(path)
    assert code == 0, [f for f in found["findings"] if f["level"] == "wrong"]
    assert load_config(path).gossip.kind == "mqtt"


def test_an_example_with_settings_of_another_network_is_found_wrong(folder, ca):
    path = folder / "local.toml"
    text = path.read_text()
    line = next(line for line in text.splitlines() if line.startswith("settings ="))
    path.write_text(text.replace(line, 'settings = { network = "sepolia" }'))
    fill(path, ca)
    code, found = check(path)
    assert code == 1
    assert [f["subject"] for f in found["findings"] if f["level"] == "wrong"] == ["eip155:31337"]


def test_the_package_carries_every_file_of_the_folder():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["configs"]
    carried = {p for pattern in data for p in CONFIGS.glob(pattern)}
    there = {p for p in CONFIGS.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    assert there - carried == set()
    assert len(there) > 10
