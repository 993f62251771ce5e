"""The file that names endpoints and keys of chains that exist already."""

from __future__ import annotations

import json

import pytest
from solders.keypair import Keypair

from contracts.solana import get_program
from messages.canonical import decode_canonical
from messages.errors import Rejected
from messages.hashing import sha256
from relayer.keys import Secret, create_key_file
from relayer.testnet.cosmos_door import CosmosDoor
from relayer.testnet.door import get_faucet_key
from relayer.testnet.given import load_given, open_key
from relayer.testnet.nodes import SidecarSizes, start_anvil, start_sidecar
from relayer.testnet.processes import Group
from relayer.testnet.run import Options, get_unavailable_reason, run_testnet
from relayer.testnet.surfpool import ask_solana, start_surfnet
from relayer.testnet.wasmd import DENOM, GAS_PRICE, PREFIX, start_wasmd
from relayer.toml_writer import encode_toml

NAMES = ("one", "two", "three")
PASSWORD = "of a test"


def write_key(folder, key):
    create_key_file(folder / "faucet.json", Secret(key), Secret(PASSWORD.encode()), is_throwaway=True)
    (folder / "faucet.password").touch(mode=0o600)
    (folder / "faucet.password").write_text(PASSWORD)


def make_chain(**changes):
    return {
        "family": "evm",
        "chain_id": 11155111,
        "settings": {"network": "sepolia"},
        "checkpoint": "0x" + "ab" * 32,
        "faucet_key": "file:faucet.json",
        "faucet_password": "file:faucet.password",
        "is_throwaway_key": True,
        "fund_wei": str(10**17),
        "endpoints": [{"name": "p", "execution": "https://e.example.org", "beacon": "https://b.example.org"}],
        **changes,
    }


def make_cosmos_chain(**changes):
    return {
        "family": "cosmos",
        "chain": "cosmos:testnet-1",
        "prefix": "wasm",
        "denom": "utoken",
        "gas_price": "0.025",
        "fund_amount": "1000000",
        "settings": {"checkpoint_height": 5, "prefix": "wasm"},
        "checkpoint": "0x" + "ab" * 32,
        "faucet_key": "file:faucet.json",
        "faucet_password": "file:faucet.password",
        "is_throwaway_key": True,
        "endpoints": [{"name": "p", "rpc": "https://r.example.org"}],
        **changes,
    }


def make_solana_chain(**changes):
    return {
        "family": "solana",
        "genesis_hash": "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG",
        "program": "11111111111111111111111111111112",
        "fund_lamports": "1000000000",
        "faucet_key": "file:faucet.json",
        "faucet_password": "file:faucet.password",
        "is_throwaway_key": True,
        "endpoints": [{"name": f"p{i}", "rpc": f"https://r{i}.example.org"} for i in range(4)],
        **changes,
    }


def write(folder, chains, **more):
    path = folder / "testnet.toml"
    path.write_text(encode_toml({**more, "chains": chains}))
    return path


def test_the_file_is_read_with_its_key(tmp_path):
    write_key(tmp_path, bytes([3]) * 32)
    given = load_given(write(tmp_path, {"one": make_chain(), "two": make_cosmos_chain()}, wait_s=99), NAMES)
    assert (given.wait_s, given.expiry_minutes) == (99, 240)
    assert open_key(given.path, given.chains["one"]) == bytes([3]) * 32
    assert given.chains["one"].settings == {"network": "sepolia"}
    assert [e.rpc for e in given.chains["two"].endpoints] == ["https://r.example.org"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"checkpoint": "0xab"}, "chains.one.checkpoint"),
        ({"fund_wei": "much"}, "chains.one.fund_wei"),
        ({"endpoints": []}, "chains.one.endpoints"),
        ({"faucet_privat_key": "0x03"}, "chains.one.faucet_privat_key"),
    ],
)
def test_a_wrong_key_is_named(tmp_path, change, named):
    write_key(tmp_path, bytes([3]) * 32)
    path = write(tmp_path, {"one": make_chain(**change), "two": make_chain()})
    with pytest.raises(Rejected) as caught:
        load_given(path, NAMES)
    assert caught.value.reason == "bad_config"
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"chain": "eip155:1"}, "chains.two.chain"),
        ({"gas_price": "-1"}, "chains.two.gas_price"),
        ({"endpoints": [{"name": "p", "execution": "https://e.example.org"}]}, "chains.two.endpoints.0.rpc"),
        ({"family": "other"}, "chains.two"),
    ],
)
def test_a_wrong_key_of_a_cosmos_chain_is_named(tmp_path, change, named):
    path = write(tmp_path, {"one": make_chain(), "two": make_cosmos_chain(**change)})
    with pytest.raises(Rejected) as caught:
        load_given(path, NAMES)
    assert caught.value.reason == "bad_config"
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"genesis_hash": "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZB0"}, "chains.three.genesis_hash"),
        ({"program": "vault"}, "chains.three.program"),
        ({"checkpoint": "0x" + "ab" * 32}, "chains.three.checkpoint"),
        ({"endpoints": make_solana_chain()["endpoints"][:3]}, "chains.three.endpoints"),
    ],
)
def test_a_wrong_key_of_a_solana_chain_is_named(tmp_path, change, named):
    chains = {"one": make_chain(), "two": make_cosmos_chain(), "three": make_solana_chain(**change)}
    with pytest.raises(Rejected) as caught:
        load_given(write(tmp_path, chains), NAMES)
    assert caught.value.reason == "bad_config"
    assert named in str(caught.value)


def test_two_chains_or_three_are_given_in_the_order_of_the_scenario(tmp_path):
    chains = {"three": make_solana_chain(), "two": make_cosmos_chain(), "one": make_chain()}
    given = load_given(write(tmp_path, chains), NAMES)
    assert [(name, chain.family) for name, chain in given.chains.items()] == [
        ("one", "evm"), ("two", "cosmos"), ("three", "solana"),
    ]  # fmt: skip
    del chains["three"]
    assert list(load_given(write(tmp_path, chains), NAMES).chains) == ["one", "two"]
    del chains["two"]
    with pytest.raises(Rejected, match="must name the chains"):
        load_given(write(tmp_path, chains), NAMES)


def test_chains_that_the_scenario_does_not_have_are_refused(tmp_path):
    write_key(tmp_path, bytes([3]) * 32)
    with pytest.raises(Rejected) as caught:
        load_given(write(tmp_path, {"one": make_chain(), "three": make_chain()}), NAMES)
    assert caught.value.reason == "bad_config"
    with pytest.raises(Rejected) as caught:
        load_given(tmp_path / "missing.toml", NAMES)
    assert caught.value.reason == "no_file"


def start_given_evm(group, name, number):
    node = start_anvil(group, f"anvil-{name}", number)
    beacon = start_sidecar(group, f"sidecar-{name}", node, SidecarSizes(slots_per_epoch=4))
    return make_chain(
        chain_id=node.chain_id,
        settings=decode_canonical(beacon.settings.encode()),
        checkpoint="0x" + beacon.wait_for_checkpoint().hex(),
        fund_wei=str(10**18),
        endpoints=[{"name": "given", "execution": node.url, "beacon": beacon.url}],
    ), get_faucet_key()


def start_given_cosmos(group, name, number):
    network = start_wasmd(group, f"wasmd-{name}", f"given-{number}")
    url = network.validators[0].url
    checkpoint, height, _ = CosmosDoor(url, network.chain_id, network.faucet_key, b"").get_header()
    return make_cosmos_chain(
        chain=f"cosmos:{network.chain_id}",
        denom=DENOM,
        gas_price=GAS_PRICE,
        settings={"checkpoint_height": height, "prefix": PREFIX},
        checkpoint="0x" + checkpoint.hex(),
        endpoints=[{"name": "given", "rpc": url}],
    ), network.faucet_key


def start_given_solana(group, name, number):
    network = start_surfnet(group, f"surfnet-{name}")
    program = Keypair.from_seed(sha256(b"program %d" % number)).pubkey()
    network.install_program(str(program), get_program("vault"))
    faucet = sha256(b"faucet %d" % number)
    ask_solana(network.url, "requestAirdrop", [str(Keypair.from_seed(faucet).pubkey()), 10**12])
    return make_solana_chain(
        genesis_hash=ask_solana(network.url, "getGenesisHash"),
        program=str(program),
        endpoints=[{"name": f"p{i}", "rpc": f"{network.url}/{i}"} for i in range(4)],
    ), faucet


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("families", [("evm", "evm"), ("evm", "cosmos"), ("evm", "solana")], ids="-".join)
def test_the_story_runs_through_given_endpoints(tmp_path, families):
    reason = get_unavailable_reason(families)
    if reason:
        pytest.skip(reason)
    chains = {}
    starters = {"evm": start_given_evm, "cosmos": start_given_cosmos, "solana": start_given_solana}
    with Group(tmp_path / "nodes") as group:
        for number, (name, family) in enumerate(zip(NAMES[: len(families)], families, strict=True)):
            chain, key = starters[family](group, name, 31501 + number)
            folder = tmp_path / name
            folder.mkdir()
            write_key(folder, key)
            references = {
                key: chain[key].replace("file:", f"file:{name}/") for key in ("faucet_key", "faucet_password")
            }
            chains[name] = chain | references
        config = write(tmp_path, chains, wait_s=300, expiry_minutes=4)
        folder = tmp_path / "run"
        assert run_testnet(Options("run", folder, seed=3, config=config)) == 0
    result = json.loads((folder / "report.json").read_text())
    assert result["conservation"]["difference"] == "0"
    assert result["nodes"].count("given endpoints") == 2
    assert [c["family"] for c in result["chains"].values()] == list(families)
