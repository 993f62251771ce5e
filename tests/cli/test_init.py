"""`relayer init`: folders by flags and by questions that load, and nothing overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from chains.cosmos.address import encode_address
from chains.registry import build_probe, make_evm_settings
from chains.solana.address import encode_key
from messages.documents import compute_digest
from relayer.cli import app
from relayer.commands import keys
from relayer.config import load_config
from relayer.toml_writer import encode_parameters
from tests.builders import make_parameters, make_vault
from tests.cli.operator_files import DEVNET

CONFIGS = Path(__file__).parents[2] / "configs"
CHECKPOINT = "0x" + "31" * 32
VAULT = "0x" + "42" * 20
ENDPOINT = "http://127.0.0.1:8545,http://127.0.0.1:5052"
OTHER = "https://execution.example.org/key,https://beacon.example.org"


def run(*arguments, text=None):
    result = CliRunner().invoke(app, ["init", *map(str, arguments)], input=text)
    assert "Traceback" not in result.output, result.output
    return result


def get_flags(network="sepolia", **changes):
    flags = {
        "--name": "op1",
        "--vault": f"{network}={VAULT}",
        "--checkpoint": f"{network}={CHECKPOINT}",
        "--endpoint": f"{network}={ENDPOINT}",
        "--broker": "127.0.0.1:1883",
    } | changes
    return [word for key, value in flags.items() if value is not None for word in (key, value)]


@pytest.mark.parametrize(("network", "number"), [("mainnet", 1), ("sepolia", 11_155_111), ("gnosis", 100)])
def test_each_network_gets_a_folder_that_loads(tmp_path, network, number):
    result = run(tmp_path / "op", *get_flags(network), "--endpoint", f"{network}={OTHER}", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["is_example"] is True
    config = load_config(tmp_path / "op" / "relayer.toml")
    (chain,) = config.chains
    assert chain.chain_id == f"eip155:{number}"
    assert len(chain.endpoints) == 2
    assert config.genesis_digest == compute_digest(config.parameters)
    assert (tmp_path / "op" / "keys").stat().st_mode & 0o777 == 0o700
    assert "EXAMPLE" in (tmp_path / "op" / "parameters.toml").read_text()


def test_agreed_parameters_are_taken_as_they_are_with_all_their_chains(tmp_path):
    from chains.evm.light_client import LightClientConfig

    parameters = make_parameters([make_vault(0), make_vault(1)], effective=1_700_000_000)
    (tmp_path / "agreed.toml").write_text(encode_parameters(parameters))
    (tmp_path / "net.json").write_text(make_evm_settings(LightClientConfig(DEVNET)))
    flags = ["--name", "op1", "--parameters", tmp_path / "agreed.toml", "--broker", "broker.example.org:8883"]
    flags += ["--broker-ca", "ca.pem", "--feed", "prices.jsonl"]
    for number in (1000, 1001):
        flags += ["--checkpoint", f"{number}={CHECKPOINT}", "--endpoint", f"{number}={ENDPOINT}"]
        flags += ["--settings", f"{number}={tmp_path / 'net.json'}", "--start-height", f"{number}=17"]
    result = run(tmp_path / "op", *flags, "--json")
    assert result.exit_code == 0, result.output
    config = load_config(tmp_path / "op" / "relayer.toml")
    assert config.parameters == parameters
    assert [c.start_height for c in config.chains] == [17, 17]
    assert config.gossip.ca_file == "ca.pem"
    assert config.feeds[0].path == "prices.jsonl"


def test_nothing_is_overwritten(tmp_path):
    for name in ("relayer.toml", "parameters.toml"):
        home = tmp_path / name[:3]
        home.mkdir()
        (home / name).write_text("mine")
        assert run(home, *get_flags()).exit_code == 1
        assert [p.name for p in home.iterdir()] == [name]
        assert (home / name).read_text() == "mine"


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--checkpoint", None),
        ("--checkpoint", "sepolia=0x12"),
        ("--checkpoint", CHECKPOINT),
        ("--checkpoint", f"mainnet={CHECKPOINT}"),
        ("--endpoint", None),
        ("--endpoint", "sepolia=http://127.0.0.1:8545"),
        ("--endpoint", 'sepolia=http://a"b,http://c'),
        ("--endpoint", "sepolia=ftp://a,http://c"),
        ("--vault", "sepolia=0x42"),
        ("--vault", f"nowhere={VAULT}"),
        ("--name", "no name"),
        ("--name", None),
        ("--broker", "broker"),
        ("--broker", "broker.example.org:8883"),
        ("--feed", 'a"b'),
    ],
)
def test_a_missing_or_wrong_flag_is_wrong_usage_and_writes_nothing(tmp_path, flag, value):
    result = run(tmp_path / "op", *get_flags(**{flag: value}))
    assert result.exit_code == 2, result.output
    assert not (tmp_path / "op").exists()


def test_a_person_is_asked_for_what_no_flag_says(tmp_path, monkeypatch):
    monkeypatch.setattr(keys, "is_terminal", lambda: True)
    answers = ["op7", "", "gnosis", "nonsense", VAULT, "0x12", CHECKPOINT, ENDPOINT, "", "42", "127.0.0.1:1883"]
    result = run(tmp_path / "op", text="\n".join(answers) + "\n")
    assert result.exit_code == 0, result.output
    config = load_config(tmp_path / "op" / "relayer.toml")
    assert config.name == "op7"
    assert config.chains[0].chain_id == "eip155:100"
    assert config.chains[0].start_height == 42


@pytest.mark.parametrize("network", ["mainnet", "sepolia", "gnosis"])
def test_the_committed_example_of_each_network_loads_and_names_its_own_parameters(network):
    config = load_config(CONFIGS / f"{network}.toml")
    assert config.genesis_digest == compute_digest(config.parameters)
    (chain,) = config.chains
    assert network in chain.settings
    assert build_probe(chain).sources == ("own node", "provider")


# ---- a chain of another family


COSMOS_VAULT = encode_address(b"\x42" * 32, "osmo")


def get_cosmos_flags(**changes):
    chain = "cosmos:osmo-test-5"
    flags = {
        "--name": "op1",
        "--vault": f"{chain}={COSMOS_VAULT}",
        "--checkpoint": f"{chain}=7,{CHECKPOINT}",
        "--endpoint": f"{chain}=http://127.0.0.1:26657",
        "--gas-price": f"{chain}=0.025uosmo",
        "--broker": "127.0.0.1:1883",
    } | changes
    return [word for key, value in flags.items() if value is not None for word in (key, value)]


def test_a_cosmos_chain_gets_a_folder_that_loads_beside_another_one(tmp_path):
    flags = [*get_cosmos_flags(), "--vault", f"sepolia={VAULT}", "--checkpoint", f"sepolia={CHECKPOINT}"]
    result = run(tmp_path / "op", *flags, "--endpoint", f"sepolia={ENDPOINT}", "--json")
    assert result.exit_code == 0, result.output
    cosmos, evm = load_config(tmp_path / "op" / "relayer.toml").chains
    assert (cosmos.chain_id, cosmos.family, evm.family) == ("cosmos:osmo-test-5", "cosmos", "evm")
    assert cosmos.vault_account == b"\x42" * 32
    assert json.loads(cosmos.settings) == {"checkpoint_height": 7, "prefix": "osmo"}
    assert cosmos.gas_price == "0.025uosmo"
    assert build_probe(cosmos, b"\x01" * 32).vault_text == COSMOS_VAULT
    assert "gas-osmo-test-5" in (tmp_path / "op" / "relayer.toml").read_text()


def test_agreed_parameters_name_a_cosmos_vault_without_its_prefix(tmp_path):
    chain = "cosmos:osmo-test-5"
    parameters = make_parameters(
        [make_vault(0, chain=chain, family="cosmos", account=b"\x42" * 32)], effective=1_700_000_000
    )
    (tmp_path / "agreed.toml").write_text(encode_parameters(parameters))
    flags = [*get_cosmos_flags(**{"--vault": None}), "--parameters", tmp_path / "agreed.toml"]
    assert run(tmp_path / "a", *flags).exit_code == 2
    (tmp_path / "net.json").write_text('{"prefix":"osmo","trusting_period_s":86400}')
    result = run(tmp_path / "b", *flags, "--settings", f"{chain}={tmp_path / 'net.json'}")
    assert result.exit_code == 0, result.output
    (loaded,) = load_config(tmp_path / "b" / "relayer.toml").chains
    assert json.loads(loaded.settings) == {"checkpoint_height": 7, "prefix": "osmo", "trusting_period_s": 86400}


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--checkpoint", f"cosmos:osmo-test-5={CHECKPOINT}"),
        ("--checkpoint", f"cosmos:osmo-test-5=0,{CHECKPOINT}"),
        ("--endpoint", f"cosmos:osmo-test-5={ENDPOINT}"),
        ("--endpoint", "cosmos:osmo-test-5=tcp://127.0.0.1:26657"),
        ("--gas-price", None),
        ("--gas-price", "cosmos:osmo-test-5=cheap"),
        ("--vault", f"cosmos:osmo-test-5={VAULT}"),
        ("--vault", f"cosmos:an id={COSMOS_VAULT}"),
    ],
)
def test_a_missing_or_wrong_flag_of_a_cosmos_chain_is_wrong_usage(tmp_path, flag, value):
    result = run(tmp_path / "op", *get_cosmos_flags(**{flag: value}))
    assert result.exit_code == 2, result.output
    assert not (tmp_path / "op").exists()


# ---- a Solana cluster


DEVNET_NAME = "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1"
DEVNET_GENESIS = "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG"
SOLANA_VAULT = encode_key(b"\x42" * 32)
SOLANA_DOORS = [f"{DEVNET_NAME}=https://devnet-{i}.example.org/key" for i in range(4)]


def get_solana_flags(folder, doors=4, **changes):
    (folder / "net.json").write_text(f'{{"program":"{encode_key(bytes([0x24]) * 32)}"}}')
    flags = {
        "--name": "op1",
        "--vault": f"{DEVNET_NAME}={SOLANA_VAULT}",
        "--checkpoint": f"{DEVNET_NAME}={DEVNET_GENESIS}",
        "--settings": f"{DEVNET_NAME}={folder / 'net.json'}",
        "--broker": "127.0.0.1:1883",
    } | changes
    words = [word for key, value in flags.items() if value is not None for word in (key, value)]
    return [*words, *(word for door in SOLANA_DOORS[:doors] for word in ("--endpoint", door))]


def test_a_solana_cluster_gets_a_folder_that_loads_with_the_operators_of_the_parameters(tmp_path):
    result = run(tmp_path / "op", *get_solana_flags(tmp_path), "--json")
    assert result.exit_code == 0, result.output
    config = load_config(tmp_path / "op" / "relayer.toml")
    (chain,) = config.chains
    assert (chain.chain_id, chain.family, chain.vault_account) == (DEVNET_NAME, "solana", b"\x42" * 32)
    assert encode_key(chain.checkpoint) == DEVNET_GENESIS
    assert len(chain.endpoints) == 4
    settings = json.loads(chain.settings)
    (terms,) = config.parameters.vaults
    assert settings["program"] == encode_key(b"\x24" * 32)
    assert settings["operator_sets"] == [
        {"operators": ["0x" + o.hex() for o in terms.operators], "since": 0, "threshold": terms.threshold}
    ]
    assert build_probe(chain, b"\x01" * 32).vault_text == SOLANA_VAULT
    (family,) = config.parameters.families
    assert (family.family, family.max_legs) == ("solana", 20)


def test_agreed_parameters_name_a_solana_vault_too(tmp_path):
    vault = make_vault(0, chain=DEVNET_NAME, family="solana", account=b"\x42" * 32)
    (tmp_path / "agreed.toml").write_text(encode_parameters(make_parameters([vault], effective=1_700_000_000)))
    flags = [*get_solana_flags(tmp_path, **{"--vault": None}), "--parameters", tmp_path / "agreed.toml"]
    assert run(tmp_path / "b", *flags).exit_code == 0
    assert SOLANA_VAULT in (tmp_path / "b" / "relayer.toml").read_text()


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--checkpoint", f"{DEVNET_NAME}=0OIl"),
        ("--checkpoint", None),
        ("--settings", None),
        ("--vault", f"{DEVNET_NAME}={VAULT}"),
        ("--vault", f"solana:devnet={SOLANA_VAULT}"),
    ],
)
def test_a_missing_or_wrong_flag_of_a_solana_cluster_is_wrong_usage(tmp_path, flag, value):
    result = run(tmp_path / "op", *get_solana_flags(tmp_path, **{flag: value}))
    assert result.exit_code == 2, result.output
    assert not (tmp_path / "op").exists()


def test_three_endpoints_of_a_solana_cluster_are_one_too_few(tmp_path):
    result = run(tmp_path / "op", *get_solana_flags(tmp_path, doors=3))
    assert result.exit_code == 2, result.output
    assert "4 endpoints" in result.output
