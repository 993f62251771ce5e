"""`relayer check --live` and `relayer pause` over a Cosmos chain: the same words as for every family."""

from __future__ import annotations

from dataclasses import replace

import pytest
from aiohttp import web

from chains.cosmos.sim import SimCosmos
from chains.cosmos.vault_json import make_instantiation
from chains.registry import EndpointConfig, make_cosmos_sim_config
from contracts.cosmos import get_wasm
from messages.documents import Amount, CapParameters
from tests.builders import DAY, OPERATORS, TOKEN, TREASURER, make_key, make_vault
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

GAS_KEY = make_key("gas of a Cosmos check")


class LiveCosmos(LiveServer):
    """One endpoint of a chain with the built vault."""

    def __init__(self) -> None:
        self.start_clock(100)
        self.network = SimCosmos("live-1", self.clock, n_endpoints=1)
        self.network.mint(self.network.denom, self.network.get_address_bytes(GAS_KEY), 10**12)
        key = self.network.make_key("deployer")
        self.network.mine()
        caps = [(TOKEN, CAP, 4 * CAP, 16 * CAP)]
        message = make_instantiation(OPERATORS, 3, TREASURER, DAY, caps)
        self.vault = self.network.deploy(get_wasm("vault"), message, key)
        self.token = self.network.deploy(
            get_wasm("cw20"),
            {"name": "Token", "symbol": "TOK", "decimals": 6, "initial_balances": [], "mint": None},
            key,
        )
        self.reach_now()

    @property
    def parameters(self):
        caps = (CapParameters(TOKEN, Amount(CAP), Amount(4 * CAP), Amount(16 * CAP)),)
        return make_vault(
            0, family="cosmos", chain="cosmos:live-1", account=self.vault, caps=caps, created_at=CREATED_AT
        )

    def make_config(self):
        config = make_cosmos_sim_config(self.network, self.vault)
        return replace(config, endpoints=(EndpointConfig("http", rpc_url=self.url),))

    async def answer(self, request: web.Request) -> web.Response:
        asked = await request.json()
        found = self.network.endpoints[0].rpc.handle(asked["method"], asked["params"])
        status = 500 if "error" in found else 200
        return web.json_response({"jsonrpc": "2.0", "id": asked["id"]} | found, status=status)


@pytest.fixture(scope="module")
def served():
    with LiveCosmos() as live:
        yield live


@pytest.fixture
def chain(served, monkeypatch):
    return hold_clock(served, monkeypatch)


def write(folder, chain, *, gas=GAS_KEY, **changes):
    return write_live(folder, chain, gas=gas, **changes)


def test_a_live_chain_is_found_to_be_what_the_files_say(tmp_path, chain):
    data = run_json("check", "-c", write(tmp_path, chain), "--live", code=1)
    assert {"endpoint", "vault_code", "operators", "finality", "checkpoint", "balance", "gas_key"} <= get_codes(
        data, "ok"
    )
    assert get_codes(data, "wrong") == {"broker"}  # nobody listens there
    texts = {f["code"]: f["text"] for f in data["findings"]}
    assert chain.network.get_address(GAS_KEY) in texts["gas_key"]
    assert chain.network.app.encode(chain.vault) in texts["chain"]
    assert "utoken" in texts["balance"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (
            lambda c: {"config": replace(c.make_config(), endpoints=(EndpointConfig("gone", rpc_url=GONE),))},
            "unreachable",
        ),
        (lambda c: {"gas": make_key("poor")}, "low_balance"),
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
                "terms": replace(c.parameters, account=c.token),
                "config": replace(c.make_config(), vault_account=c.token),
            },
            "wrong_code",
        ),
    ],
)
def test_each_wrong_part_has_its_word(tmp_path, chain, change, code):
    data = run_json("check", "-c", write(tmp_path, chain, **change(chain)), "--live", code=1)
    assert code in get_codes(data, "wrong")


def test_another_chain_is_told_by_its_name(tmp_path, chain):
    chain.network.endpoints[0].lies.chain_id = "live-2"
    try:
        data = run_json("check", "-c", write(tmp_path, chain), "--live", code=1)
    finally:
        chain.network.endpoints[0].lies.chain_id = None
    assert "wrong_chain_id" in get_codes(data, "wrong")


def test_a_pause_reaches_the_vault(tmp_path, chain):
    assert_a_pause_is_sent_once(
        tmp_path,
        chain,
        gas=GAS_KEY,
        is_paused=lambda: chain.network.query(chain.vault, {"control": {}})["paused"],
    )
