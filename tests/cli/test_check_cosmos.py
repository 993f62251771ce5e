"""`relayer check --live` and `relayer pause` over a Cosmos chain: the same words as for every family."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from dataclasses import replace

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from typer.testing import CliRunner

from chains.cosmos.sim import ManualClock, SimCosmos
from chains.cosmos.vault_json import make_instantiation
from chains.registry import EndpointConfig, make_cosmos_sim_config
from contracts.cosmos import get_wasm
from messages.documents import Amount, CapParameters
from relayer.cli import app
from tests.builders import DAY, OPERATORS, TOKEN, TREASURER, make_key, make_parameters, make_vault
from tests.cli.operator_files import GONE, write_folder

GAS_KEY = make_key("gas of a Cosmos check")
CAP = 10**12


class LiveCosmos:
    """One endpoint over HTTP on the loopback, by a thread of its own; the clock stands at the machine's time when it was made."""

    def __init__(self) -> None:
        self.clock = ManualClock(int(time.time()) - 100)
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
        self.clock.now = max(self.clock.now, int(time.time()))
        self.network.tick()

    @property
    def parameters(self):
        """The vault's terms as it was created."""
        caps = (CapParameters(TOKEN, Amount(CAP), Amount(4 * CAP), Amount(16 * CAP)),)
        return make_vault(
            0, family="cosmos", chain="cosmos:live-1", account=self.vault, caps=caps, created_at=1_700_000_000
        )

    def make_config(self):
        config = make_cosmos_sim_config(self.network, self.vault)
        return replace(config, endpoints=(EndpointConfig("http", rpc_url=self.url),))

    async def _answer(self, request: web.Request) -> web.Response:
        asked = await request.json()
        found = self.network.endpoints[0].rpc.handle(asked["method"], asked["params"])
        status = 500 if "error" in found else 200
        return web.json_response({"jsonrpc": "2.0", "id": asked["id"]} | found, status=status)

    def __enter__(self):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        served = web.Application(client_max_size=2**22)
        served.router.add_route("*", "/{path:.*}", self._answer)
        self._server = TestServer(served)
        asyncio.run_coroutine_threadsafe(self._server.start_server(), self._loop).result(30)
        self.url = str(self._server.make_url("/"))
        return self

    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self._server.close(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()


@pytest.fixture(scope="module")
def served():
    with LiveCosmos() as live:
        yield live


@pytest.fixture
def chain(served, monkeypatch):
    """The chain, with this machine's clock standing where the chain's stands: a slow machine changes no age."""
    now = float(served.clock.now)
    monkeypatch.setattr(time, "time", lambda: now)
    return served


def run(*arguments, code):
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert "Traceback" not in result.output, result.output
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def write(folder, chain, *, terms=None, config=None, gas=GAS_KEY):
    terms = terms or chain.parameters
    return write_folder(
        folder,
        parameters=make_parameters([terms], effective=1_700_000_000),
        chains=[config or chain.make_config()],
        gas_keys={terms.chain: gas},
    )


def get_codes(data, level):
    return {f["code"] for f in data["findings"] if f["level"] == level}


def test_a_live_chain_is_found_to_be_what_the_files_say(tmp_path, chain):
    data = run("check", "-c", str(write(tmp_path, chain)), "--live", code=1)
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
    data = run("check", "-c", str(write(tmp_path, chain, **change(chain))), "--live", code=1)
    assert code in get_codes(data, "wrong")


def test_another_chain_is_told_by_its_name(tmp_path, chain):
    chain.network.endpoints[0].lies.chain_id = "live-2"
    try:
        data = run("check", "-c", str(write(tmp_path, chain)), "--live", code=1)
    finally:
        chain.network.endpoints[0].lies.chain_id = None
    assert "wrong_chain_id" in get_codes(data, "wrong")


def test_a_pause_reaches_the_vault(tmp_path, chain):
    data = run("pause", "-c", str(write(tmp_path, chain)), "--yes", code=0)
    (result,) = data["vaults"]
    assert result["state"] == "sent"
    chain.network.finalize()
    assert chain.network.query(chain.vault, {"control": {}})["paused"] is True
    (again,) = run("pause", "-c", str(tmp_path / "relayer.toml"), "--yes", code=0)["vaults"]
    assert again["state"] == "paused_already"
