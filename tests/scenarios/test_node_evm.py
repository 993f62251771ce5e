"""Four nodes from four configuration files over two simulated Ethereum chains with the real vault and the real rules."""

from __future__ import annotations

import asyncio

import pytest

from chains.evm.forks import Preset
from chains.registry import make_sim_config
from messages.documents import compute_digest
from relayer.config import load_config
from relayer.demo import site_evm
from relayer.demo import world as demo_world
from relayer.demo.calls import ListSeries, Offer, RequestWithdrawal, Take
from relayer.demo.market import SimulatedFeed
from relayer.demo.scenario import load_scenario
from relayer.gossip import Faults, MemoryBus
from relayer.keys import Journal, Secret, create_key_file
from relayer.log import make_logger
from relayer.service import open_configured

UNIT = 10**6


def write_config(folder, i, world, parameters):
    """relayer.toml of one operator, as `relayer init` would leave it, over the named endpoints of the simulated networks."""
    home = folder / f"op{i}"
    home.mkdir()
    lines = [
        f'name = "op{i}"', 'store = "node.db"', 'journal = "journal.db"', 'parameters = "../parameters.toml"',
        f'genesis_parameters = "0x{compute_digest(parameters).hex()}"',
        "[operator]", 'key = "file:operator.json"', 'password = "file:password"', "allow_throwaway_key = true",
        "[gossip]", 'kind = "memory"', "[log]", 'level = "error"', "[timing]", "poll_s = 12.0",
    ]  # fmt: skip
    (home / "password").write_bytes(b"demo")
    (home / "password").chmod(0o600)
    create_key_file(home / "operator.json", Secret(world.operator_keys[i]), Secret(b"demo"), is_throwaway=True)
    for site in world.sites.values():
        config = make_sim_config(site.network, site.account[12:], start_height=site.start_height)
        create_key_file(
            home / f"gas-{site.name}.json", Secret(world.get_gas_key(site, i)), Secret(b"demo"), is_throwaway=True
        )
        table = f'chains."{config.chain_id}"'
        lines += [
            f"[{table}]", 'family = "evm"', f'vault = "0x{site.account[12:].hex()}"', f'checkpoint = "0x{config.checkpoint.hex()}"',
            f"start_height = {config.start_height}", f"settings = {_inline(config.settings)}",
            f'submit_key = "file:gas-{site.name}.json"', 'submit_password = "file:password"',
        ]  # fmt: skip
        for e in config.endpoints:
            lines += [
                f"[[{table}.endpoints]]",
                f'name = "{e.name}"',
                f'execution = "{e.execution_url}"',
                f'beacon = "{e.beacon_url}"',
            ]
    (home / "relayer.toml").write_text("\n".join(lines))
    config = load_config(home / "relayer.toml")
    assert compute_digest(config.parameters) == compute_digest(parameters)
    return config


def _inline(text):
    import json

    def dump(value):
        if isinstance(value, dict):
            return "{" + ", ".join(f"{json.dumps(k)} = {dump(v)}" for k, v in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(dump, value)) + "]"
        return json.dumps(value)

    return dump(json.loads(text))


def write_parameters(folder, parameters):
    """parameters.toml of a document: every field by its name."""
    import json

    from messages.documents import to_object

    def dump(value):
        if isinstance(value, dict):
            return "{" + ", ".join(f"{k} = {dump(v)}" for k, v in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(dump, value)) + "]"
        return json.dumps(value)

    obj = to_object(parameters)
    obj.pop("schema")
    (folder / "parameters.toml").write_text("\n".join(f"{k} = {dump(v)}" for k, v in obj.items()))


class Net:
    """World, bus and the four services of a test."""

    def __init__(self, folder, faults=None):
        self.folder = folder
        self.world = demo_world.World(1, load_scenario(1, ("evm", "evm")), 2)
        self.bus = MemoryBus(faults, 3)
        self.world.clock.sources.append(self.bus.flush)
        self.services, self.tasks = [], []

    async def __aenter__(self):
        await self.world.build()
        self.sites = list(self.world.sites.values())
        parameters = self.world.get_parameters()
        write_parameters(self.folder, parameters)
        sims = {s.chain: s.network for s in self.sites}
        for i in range(4):
            config = write_config(self.folder, i, self.world, parameters)
            Journal.create_first(config.journal_path, self.world.clock.now())
            service = open_configured(
                config,
                clock=self.world.clock,
                gossip=self.bus.connect(config.name),
                sims=sims,
                log=make_logger(level="error"),
            )
            service.node.feeds = (SimulatedFeed(self.world.reporters, self.world.clock.now()),)
            self.services.append(service)
            self.tasks.append(asyncio.create_task(service.run()))
        return self

    async def __aexit__(self, *_):
        for service in self.services:
            service.stop()
        await asyncio.gather(*self.tasks)
        for service in self.services:
            service.close()

    async def run_until(self, is_done, slots=160):
        for _ in range(slots):
            await self.world.pass_time(12)
            for task in self.tasks:
                if task.done():
                    task.result()
            if all(is_done(service) for service in self.services):
                return
        status = self.services[0].get_status()
        pytest.fail(f"not done after {slots} slots: {status.packets} {status.blames} {status.notes}")


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(site_evm, "DEMO_PRESET", Preset(slots_per_epoch=8, epochs_per_period=64, committee_size=32))


async def test_parameters_need_their_operators_signatures_and_their_time(tmp_path, small):
    from dataclasses import replace

    from messages.digests import compute_committee_id, sign_digest
    from messages.documents import encode_document
    from messages.errors import Rejected
    from relayer.rules.quorum import Committee, compute_parameters_statement
    from relayer.rules.statements import SignedParameters
    from relayer.service import verify_configured_parameters

    world = demo_world.World(1, load_scenario(1, ("evm", "evm")), 2)
    await world.build()
    parameters = world.get_parameters()
    write_parameters(tmp_path, parameters)
    config = write_config(tmp_path, 0, world, parameters)
    vault = parameters.vaults[0]
    committee_id = compute_committee_id(sorted(s.vault_id for s in world.sites.values()))
    digest = compute_digest(parameters)
    statement = compute_parameters_statement(Committee(committee_id, 0, vault.operators, 3), digest)
    signatures = tuple(sign_digest(key, statement) for key in world.operator_keys)
    path = tmp_path / "signed.json"
    config = replace(config, signatures_path=path, genesis_digest=None)
    now = world.clock.now()
    path.write_bytes(encode_document(SignedParameters(digest, signatures[:3])))
    verify_configured_parameters(config, now)
    for document, at, reason in (
        (SignedParameters(digest, signatures[:2]), now, "no_quorum"),
        (SignedParameters(bytes(32), signatures), now, "parameters_digest"),
        (SignedParameters(digest, signatures), parameters.effective - 1, "not_effective"),
    ):
        path.write_bytes(encode_document(document))
        with pytest.raises(Rejected) as caught:
            verify_configured_parameters(config, at)
        assert caught.value.reason == reason
    path.unlink()
    with pytest.raises(Rejected):
        verify_configured_parameters(config, now)


async def fund(net):
    world = net.world
    for site in net.sites:
        await world.deposit(site, "treasurer", 400_000, "HOUSE")
        await world.deposit(site, "treasurer", 20_000, "INSURANCE")
    await world.deposit(net.sites[0], "maker", 60_000)
    await world.deposit(net.sites[0], "alice", 60_000)


async def trade_and_withdraw(net):
    world, site = net.world, net.sites[0]
    await fund(net)
    await world.act(site, "maker", ListSeries(world.get_series()))
    until = world.clock.now() + 7200
    await world.act(site, "alice", Offer(1, world.get_series_id(), 10**8, 45 * UNIT, until))
    await world.act(site, "maker", Take(1, 10**8, 1))
    await net.run_until(lambda s: any(p.status == "done" for p in s.get_status().packets))
    maker = site.get_account("maker")
    for service in net.services:
        state = service.node.states.get_newest(site.vault_id)
        assert state.positions[maker, world.get_series_id()] == 10**8
        assert state.free[maker, site.asset] == (60_000 - 45) * UNIT
    await world.act(site, "alice", RequestWithdrawal(1_000 * UNIT))
    await net.run_until(lambda s: sum(p.status == "done" for p in s.get_status().packets) >= 2)
    return [service.node.states.get_newest(site.vault_id) for service in net.services]


async def test_a_trade_and_a_withdrawal_on_the_real_vault_through_proofs_alone(tmp_path, small):
    async with Net(tmp_path) as net:
        states = await trade_and_withdraw(net)
        assert all(s == states[0] for s in states)
        alice = net.sites[0].get_account("alice")
        assert states[0].claimable[alice, net.sites[0].asset] == 1_000 * UNIT
        for service in net.services:
            status = service.get_status()
            assert not status.halts
            assert service.node.store.verify_all()["facts"] > 0


async def test_the_same_end_with_a_lying_endpoint_and_a_lossy_carrier(tmp_path, small):
    async with Net(tmp_path, Faults(drop=50, duplicate=200, hold=200, replay=200)) as net:
        for site in net.sites:
            site.network.endpoints[0].lies.forge_logs = True
        states = await trade_and_withdraw(net)
        assert all(s == states[0] for s in states)
        blames = net.services[0].get_status().blames
        assert any(source == net.sites[0].network.endpoints[0].name for _, source, _, _ in blames), blames
