"""Rotation over three families: every vault's own facts name the next operators, and nobody edits the settings of any chain."""

from __future__ import annotations

from chains.solana.codec import decode_attested, decode_trusted
from messages.digests import get_address
from messages.documents import compute_digest
from relayer.config import load_config
from relayer.demo import world as demo_world
from relayer.demo.calls import RequestWithdrawal
from relayer.demo.scenario import load_scenario
from relayer.keys import Journal, Secret, create_key_file
from relayer.toml_writer import encode_toml
from tests.cli.test_control_rotation import Rotating, get_states, quick, rotate
from tests.scenarios.test_node_evm import UNIT, write_parameters

__all__ = ["quick"]  # the fixture: pytest finds it by its name here

FAMILIES = ("evm", "cosmos", "solana")


class Families(Rotating):
    """Four operators of three vaults, and two who join."""

    def __init__(self, folder):
        super().__init__(folder)
        self.world = demo_world.World(1, load_scenario(1, FAMILIES), 2)
        self.world.clock.sources.append(self.bus.flush)
        whole = self.world.get_parameters
        self.world.get_parameters = lambda: shorten(whole())
        self.keys[:4] = self.world.operator_keys

    async def __aenter__(self):
        await self.world.build()
        self.sites = list(self.world.sites.values())
        self.parameters = self.world.get_parameters()
        write_parameters(self.folder, self.parameters)
        self.tables = {site.chain: site.make_table() for site in self.sites}
        for i in range(4):
            self.write_home(i)
            self.open(i)
        return self

    def write_home(self, i):
        home = self.folder / f"op{i}"
        home.mkdir()
        for name, key in [
            ("operator", self.keys[i]),
            *((f"gas-{site.name}", self.world.get_gas_key(site, i)) for site in self.sites),
        ]:
            create_key_file(home / f"{name}.json", Secret(key), Secret(b"demo"), is_throwaway=True)
        (home / "password").write_bytes(b"demo")
        (home / "password").chmod(0o600)
        chains = {chain: dict(table) for chain, table in self.tables.items()}
        for site in self.sites:
            if i < 4:  # whoever joins leaves it to others to pay
                chains[site.chain] |= {
                    "submit_key": f"file:gas-{site.name}.json",
                    "submit_password": "file:password",
                }
        text = encode_toml(
            {
                "name": f"op{i}",
                "store": "node.db",
                "journal": "journal.db",
                "parameters": "../parameters.toml",
                "genesis_parameters": "0x" + compute_digest(self.parameters).hex(),
                "operator": {
                    "key": "file:operator.json",
                    "password": "file:password",
                    "allow_throwaway_key": True,
                },
                "gossip": {"kind": "memory"},
                "timing": {"poll_s": 12.0},
                "log": {"level": "error"},
                "chains": chains,
            }
        )
        (home / "relayer.toml").write_text(text)
        config = load_config(home / "relayer.toml")
        Journal.create_first(config.journal_path, self.world.clock.now())

    def write_joining(self, parameters):
        del parameters
        for i in (4, 5):
            self.world.operator_keys.append(self.keys[i])
            self.write_home(i)


def shorten(parameters):
    """Packets of five minutes in every family."""
    from dataclasses import replace

    return replace(parameters, families=tuple(replace(f, timeout_s=300) for f in parameters.families))


async def test_operators_of_three_families_change_and_no_settings_are_edited(tmp_path, quick):
    async with Families(tmp_path) as net:
        world = net.world
        solana = next(site for site in net.sites if site.family == "solana")
        await world.deposit(solana, "alice", 60_000)
        instant, old, new = await rotate(net, tmp_path)
        written = {i: (tmp_path / f"op{i}" / "relayer.toml").read_text() for i in range(6)}
        await net.run_to(instant + 60)
        account = solana.get_account("alice"), solana.asset
        await world.act(solana, "alice", RequestWithdrawal(1_000 * UNIT))
        await net.run_until(lambda s: get_states(s)[solana.vault_id].claimable.get(account) == 1_000 * UNIT)
        leaving = set(old) - set(new)
        for service in net.services:
            node = service.node
            status = service.get_status()
            assert not status.halts
            assert status.equivocations == 0
            committee = node.get_committee()
            assert (committee.epoch, committee.operators) == (1, new)
            (handover,) = decode_trusted(node.store.get_trusted(solana.chain)[1]).handovers
            assert (handover.rotation.effective, handover.rotation.operators) == (instant, new)
            signers = {s.operator for s in decode_attested(node.store.get_head(solana.vault_id).proof).observations}
            assert signers <= set(new)
            assert not signers & leaving
        packet = max(
            (p for p in net.services[0].get_status().packets if p.vault_id == solana.vault_id), key=lambda p: p.sequence
        )
        assert (packet.operator_epoch, packet.status) == (1, "done")
        assert {i: (tmp_path / f"op{i}" / "relayer.toml").read_text() for i in range(6)} == written
        for text in written.values():
            assert text.count('"since"') + text.count("since =") == 1
            assert get_address(net.keys[4]).hex() not in text
