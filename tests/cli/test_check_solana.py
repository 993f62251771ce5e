"""`relayer check --live` and `relayer pause` over a Solana cluster: the same words as for every family."""

from __future__ import annotations

from dataclasses import replace

import pytest
from aiohttp import web
from solders.pubkey import Pubkey
from typer.testing import CliRunner

from chains.registry import EndpointConfig, make_solana_sim_config
from chains.solana.address import encode_key
from chains.solana.sim import SimSolana
from chains.solana.types import OperatorSet
from contracts.solana.client import decode_state
from messages.documents import Amount, CapParameters
from relayer.cli import app
from tests.builders import DAY, OPERATORS, make_key, make_vault
from tests.cli.live_server import (
    CAP,
    CREATED_AT,
    LiveServer,
    assert_a_pause_is_sent_once,
    get_codes,
    hold_clock,
    run_json,
    write_live,
)
from tests.cli.operator_files import GONE

N_ENDPOINTS = 4


class LiveSolana(LiveServer):
    """Four endpoints of a chain with the built vault."""

    def __init__(self) -> None:
        self.start_clock(100)
        self.network = SimSolana("live", self.clock, N_ENDPOINTS)
        self.gas = self.network.make_key("gas of a Solana check")
        deployer = self.network.make_key("deployer")
        self.treasurer = self.network.get_account_key(deployer)
        self.mint = self.network.create_mint(6)
        self.vault = self.network.create_vault(
            deployer, OPERATORS, 3, self.treasurer, DAY, {self.mint: (CAP, 4 * CAP, 16 * CAP)}
        )
        self.network.finalize()
        self.reach_now()

    @property
    def parameters(self):
        caps = (CapParameters(self.mint, Amount(CAP), Amount(4 * CAP), Amount(16 * CAP)),)
        return make_vault(
            0,
            family="solana",
            chain=self.network.chain,
            account=self.vault,
            caps=caps,
            treasurer=self.treasurer,
            created_at=CREATED_AT,
        )

    def make_config(self):
        config = make_solana_sim_config(self.network, self.vault, [OperatorSet(0, OPERATORS, 3)])
        doors = tuple(EndpointConfig(f"http {i}", rpc_url=f"{self.url}{i}") for i in range(N_ENDPOINTS))
        return replace(config, endpoints=doors)

    async def answer(self, request: web.Request) -> web.Response:
        asked = await request.json()
        found = self.network.endpoints[int(request.match_info["path"])].rpc.handle(asked["method"], asked["params"])
        return web.json_response({"jsonrpc": "2.0", "id": asked["id"]} | found)


@pytest.fixture(scope="module")
def served():
    with LiveSolana() as live:
        yield live


@pytest.fixture
def chain(served, monkeypatch):
    return hold_clock(served, monkeypatch)


def write(folder, chain, *, gas=None, **changes):
    return write_live(folder, chain, gas=gas or chain.gas, **changes)


def test_a_live_cluster_is_found_to_be_what_the_files_say(tmp_path, chain):
    data = run_json("check", "-c", write(tmp_path, chain), "--live", code=1)
    assert {"endpoint", "vault_code", "operators", "finality", "checkpoint", "balance", "gas_key"} <= get_codes(
        data, "ok"
    )
    assert get_codes(data, "wrong") == {"broker"}  # nobody listens there
    texts = {f["code"]: f["text"] for f in data["findings"]}
    assert encode_key(chain.network.get_account_key(chain.gas)) in texts["gas_key"]
    assert encode_key(chain.vault) in texts["chain"]
    assert "SOL" in texts["balance"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (
            lambda c: {
                "config": replace(
                    c.make_config(),
                    endpoints=tuple(EndpointConfig(f"gone {i}", rpc_url=f"{GONE}/{i}") for i in range(4)),
                )
            },
            "unreachable",
        ),
        (lambda _: {"gas": make_key("poor")}, "low_balance"),
        (lambda c: {"terms": replace(c.parameters, delay_s=86_401)}, "wrong_immutables"),
        (lambda c: {"terms": replace(c.parameters, threshold=4)}, "wrong_operators"),
        (
            lambda c: {
                "terms": replace(c.parameters, account=b"\x99" * 32),
                "config": replace(c.make_config(), vault_account=b"\x99" * 32),
            },
            "no_code",
        ),
        (
            lambda c: {
                "terms": replace(c.parameters, account=c.mint),
                "config": replace(c.make_config(), vault_account=c.mint),
            },
            "wrong_owner",
        ),
    ],
)
def test_each_wrong_part_has_its_word(tmp_path, chain, change, code):
    data = run_json("check", "-c", write(tmp_path, chain, **change(chain)), "--live", code=1)
    assert code in get_codes(data, "wrong")


def test_another_cluster_is_told_by_its_genesis_hash(tmp_path, chain):
    chain.network.endpoints[2].lies.genesis_hash = encode_key(b"\x09" * 32)
    try:
        data = run_json("check", "-c", write(tmp_path, chain), "--live", code=1)
    finally:
        chain.network.endpoints[2].lies.genesis_hash = None
    subjects = {f["subject"] for f in data["findings"] if f["code"] == "wrong_chain_id"}
    assert all(subject.startswith(f"{chain.network.chain} http 2") for subject in subjects)
    assert subjects


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: replace(c, endpoints=c.endpoints[:3]), "needs 4 endpoints"),
        (lambda c: replace(c, checkpoint=b"\x09" * 32), "genesis hash"),
        (lambda c: replace(c, settings="{}"), "make no sense"),
        (lambda c: replace(c, settings=c.settings.replace('"program"', '"programme"')), "make no sense"),
        (lambda c: replace(c, gas_price="1utoken"), "unit_price_microlamports"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_with_words(tmp_path, chain, change, words):
    run_json("check", "-c", write(tmp_path / "good", chain), code=0)
    result = CliRunner().invoke(
        app, ["check", "-c", str(write(tmp_path / "bad", chain, config=change(chain.make_config())))]
    )
    assert result.exit_code != 0
    assert "Traceback" not in result.output
    assert words in result.output


def test_endpoints_of_one_host_are_worth_a_warning(tmp_path, chain):
    data = run_json("check", "-c", write(tmp_path / "one", chain), code=0)
    assert "same_host" in get_codes(data, "warning")
    doors = tuple(EndpointConfig(f"e{i}", rpc_url=f"https://rpc-{i}.example.org/") for i in range(4))
    config = replace(chain.make_config(), endpoints=doors)
    data = run_json("check", "-c", write(tmp_path / "four", chain, config=config), code=0)
    assert "same_host" not in get_codes(data, "warning")


def test_prices_and_streams_are_read_from_the_file(tmp_path, chain):
    from relayer.config import load_config

    path = write(tmp_path, chain)
    (config,) = load_config(path).chains
    assert (config.unit_price_microlamports, config.max_unit_price_microlamports) == (1_000, 1_000_000)
    text = path.read_text().replace('family = "solana"', 'family = "solana"\nunit_price_microlamports = 7', 1)
    text = text.replace(f'rpc = "{chain.url}0"', f'rpc = "{chain.url}0", stream = "ws://127.0.0.1:1"')
    path.write_text(text)
    (config,) = load_config(path).chains
    assert config.unit_price_microlamports == 7
    assert [e.stream_url for e in config.endpoints] == ["ws://127.0.0.1:1", "", "", ""]
    path.write_text(text.replace("unit_price_microlamports = 7", "unit_price_microlamports = 2000000"))
    with pytest.raises(Exception, match="is above"):
        load_config(path)
    path.write_text(text.replace("ws://", "http://"))
    with pytest.raises(Exception, match="stream"):
        load_config(path)


def test_a_pause_reaches_the_vault(tmp_path, chain):
    assert_a_pause_is_sent_once(
        tmp_path,
        chain,
        gas=chain.gas,
        is_paused=lambda: decode_state(chain.network.read(Pubkey.from_bytes(chain.vault))).paused,
    )
