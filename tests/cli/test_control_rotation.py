"""Rotation end to end: four services on the real vault, signed parameters from the operators' commands, one instant on both vaults."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from chains.evm.codec import encode_recv
from chains.evm.forks import Preset
from messages.bodies import Execute, make_inbox_packet
from messages.digests import Certificate, compute_packet_digest, get_address, sign_digest
from messages.documents import compute_digest
from messages.packet import compute_commitment
from relayer.commands.control import (
    get_earliest_rotation,
    get_standing,
    make_rotation,
    read_target,
    sign_parameters,
    verify_signed,
    write_next,
)
from relayer.config import load_config
from relayer.demo import site_evm
from relayer.demo import world as demo_world
from relayer.demo.calls import RequestWithdrawal
from relayer.demo.market import SimulatedFeed
from relayer.keys import Journal
from relayer.log import make_logger
from relayer.rules.vault_state import get_state_at
from relayer.service import open_configured
from tests.builders import make_key
from tests.scenarios.test_node_evm import UNIT, Net, write_config

DELAY_S = 300
LIFETIME_S = 300


class Rotating(Net):
    """Four operators, and two more who join; short delays, so that a rotation takes minutes."""

    def __init__(self, folder):
        super().__init__(folder)
        whole = self.world.get_parameters

        def get_parameters():
            found = whole()
            families = tuple(replace(f, timeout_s=LIFETIME_S) for f in found.families)
            return replace(found, families=families)

        self.world.get_parameters = get_parameters
        self.keys = [*self.world.operator_keys, make_key("joining 1"), make_key("joining 2")]

    def open(self, i):
        config = load_config(self.folder / f"op{i}" / "relayer.toml").at(self.world.clock.now())
        service = open_configured(
            config,
            clock=self.world.clock,
            gossip=self.bus.connect(config.name),
            sims={s.chain: s.network for s in self.sites},
            log=make_logger(level="error"),
        )
        service.node.feeds = (SimulatedFeed(self.world.reporters, self.world.clock.now()),)
        self.services.append(service)
        self.tasks.append(asyncio.create_task(service.run()))
        return service

    async def stop_all(self):
        for service in self.services:
            service.stop()
        await asyncio.gather(*self.tasks)
        for service in self.services:
            service.close()
        self.services, self.tasks = [], []

    def write_joining(self, parameters):
        for i in (4, 5):
            self.world.operator_keys.append(self.keys[i])
            for site in self.sites:
                site.network.fund(get_address(self.world.get_gas_key(site, i)))
            config = write_config(self.folder, i, self.world, parameters)
            Journal.create_first(config.journal_path, self.world.clock.now())

    async def run_to(self, time):
        while self.world.clock.now() < time:
            await self.world.pass_time(12)
            self.check()

    def check(self):
        for task in self.tasks:
            if task.done():
                task.result()


def get_states(service):
    return service.node.states.get_all_newest()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(site_evm, "DEMO_PRESET", Preset(slots_per_epoch=4, epochs_per_period=128, committee_size=32))
    monkeypatch.setattr(demo_world, "DELAY_S", DELAY_S)


def write_next_keys(folder, i):
    path = folder / f"op{i}" / "relayer.toml"
    lines = ['next_parameters = "../next.toml"', 'next_parameter_signatures = "../next.signed.json"']
    path.write_text("\n".join([*lines, path.read_text()]))


def make_old_certificate(net, site, state, keys):
    """What the former operators could still sign for the next number, had they no journals."""
    now = net.world.clock.now()
    packet = make_inbox_packet(site.vault_id, state.inbox_sequence + 1, now + 120, Execute(b"\x01" * 32, (), ()))
    digest = compute_packet_digest(site.vault_id, 0, packet.sequence, compute_commitment(packet))
    signatures = tuple(sign_digest(key, digest) for key in sorted(keys, key=get_address)[:3])
    return Certificate(packet, site.vault_id, 0, signatures)


async def rotate(net, folder):
    """Write, sign and install a rotation, start all six nodes, and wait until both vaults hold it; (instant, old set, new set)."""
    world, clock = net.world, net.world.clock
    old = tuple(sorted(get_address(k) for k in net.keys[:4]))
    new = tuple(sorted(get_address(net.keys[i]) for i in (0, 1, 4, 5)))
    await world.deposit(net.sites[0], "alice", 60_000)
    await net.run_until(lambda s: s.node.get_cut() is not None and get_states(s)[net.sites[0].vault_id].deposited)
    parameters = load_config(folder / "op0" / "relayer.toml").parameters

    # one operator writes the next set, three sign it, everybody installs it
    standing = get_standing(parameters, get_states(net.services[0]), clock.now())
    (folder / "set.toml").write_text(
        f"threshold = 3\noperators = [{', '.join(repr('0x' + o.hex()) for o in reversed(new))}]\n"
    )
    effective = clock.now() + 120
    instant = get_earliest_rotation(standing, effective) + 480
    wanted = make_rotation(standing, read_target(folder / "set.toml"), instant, effective, clock.now())
    await net.stop_all()
    config = load_config(folder / "op0" / "relayer.toml")
    answer = write_next(standing, wanted, folder / "next.toml", config, clock.now())
    for i in (0, 2, 3):
        path = folder / f"op{i}" / "relayer.toml"
        if i == 3:
            assert verify_signed(path, folder / "next.toml", None, clock.now()).code == 1
        sign_parameters(path, folder / "next.toml", answer.data["digest"], None, clock.now())
    assert verify_signed(path, folder / "next.toml", None, clock.now()).code == 0
    net.write_joining(parameters)
    for i in range(6):
        write_next_keys(folder, i)
    await net.run_to(effective)
    for i in range(6):
        assert net.open(i).node.parameters_digest == compute_digest(wanted)

    # the vaults accept it, and until the instant the former operators go on
    await net.run_until(lambda s: all(x.pending_operators is not None for x in get_states(s).values()))
    assert clock.now() < instant
    states = get_states(net.services[0])
    for state in states.values():
        assert state.pending_operators.at == instant
        assert get_state_at(state, instant - 1).operators == old
        assert get_state_at(state, instant).operators == new
    assert all(s.node.get_committee().operators == old for s in net.services)
    return instant, old, new


async def withdraw(net, new):
    """A withdrawal that the new set settles, and nobody halted or lied."""
    site = net.sites[0]
    account = site.get_account("alice"), site.asset
    await net.run_until(lambda s: get_states(s)[site.vault_id].claimable.get(account) == 1_000 * UNIT)
    packet = max(net.services[0].get_status().packets, key=lambda p: (p.operator_epoch, p.k))
    assert packet.operator_epoch == 1
    votes = net.services[0].node.store.get_votes(packet.plan_digest)
    assert {v.operator for v in votes} <= set(new)
    for service in net.services:
        status = service.get_status()
        assert not status.halts
        assert status.equivocations == 0


async def test_a_signed_rotation_takes_over_on_both_vaults_at_one_instant(tmp_path, quick):
    async with Rotating(tmp_path) as net:
        world = net.world
        instant, _, new = await rotate(net, tmp_path)
        # at the instant all change; a packet of the former epoch is worth nothing any more
        await net.run_to(instant)
        for service in net.services:
            committee = service.node.get_committee()
            assert (committee.epoch, committee.operators) == (1, new)
        for site in net.sites:
            certificate = make_old_certificate(net, site, get_states(net.services[0])[site.vault_id], net.keys[:4])
            key = world.get_gas_key(site, 0)
            sent = site.network.transact(key, site.account[12:], encode_recv(certificate))
            await world.pass_time(12)
            assert not site.network.get_receipt(sent).succeeded
        await world.act(net.sites[0], "alice", RequestWithdrawal(1_000 * UNIT))
        await withdraw(net, new)


async def test_a_packet_that_died_before_the_rotation_does_not_hold_up_the_new_set(tmp_path, quick):
    """It is absent, its number is still free, and its votes are the former operators': the new ones go on over it."""
    async with Rotating(tmp_path) as net:
        instant, _, new = await rotate(net, tmp_path)
        site = net.sites[0]
        for endpoint in site.network.endpoints:
            endpoint.lies.drop_sent = True
        await net.world.act(site, "alice", RequestWithdrawal(1_000 * UNIT))
        await net.run_until(lambda s: any(p.status in ("open", "absent") for p in s.get_status().packets))
        await net.run_to(instant)
        for endpoint in site.network.endpoints:
            endpoint.lies.drop_sent = False
        await withdraw(net, new)
        dead = [p for p in net.services[0].get_status().packets if p.status == "absent"]
        assert dead
        assert {(p.vault_id, p.operator_epoch) for p in dead} == {(site.vault_id, 0)}
