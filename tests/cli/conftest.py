"""Real stores for the commands: four nodes of the toy family under the real rules, run once; each test reads node 0's files."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from messages.bodies import EVM_LIMITS, Deposited, SeriesListed, TradePending, WithdrawalRequested
from messages.documents import Amount, TierParameters
from messages.errors import Rejected
from messages.ids import HOUSE, INSURANCE
from relayer.commands import proofs, view
from relayer.commands.view import Loaded
from relayer.planner import RulesPlanner
from relayer.proof_file import Anchor, Judge
from tests.builders import (
    DAY,
    START,
    TOKEN,
    UNIT,
    make_account,
    make_mark,
    make_report,
    make_series,
    series_id,
    sign_link,
)
from tests.committee import Committee
from tests.fakes import ToyCodec, ToyVerifier

CALL = make_series(2050)
CHECKPOINT = b"\x07" * 32


class Feed:
    """A constant price, signed for the newest whole minute."""

    async def fetch(self, now):
        stamp = now - now % 60
        return (make_report(stamp, 2000),), (make_mark(stamp, CALL.expiry, 2000),)


class PricedCommittee(Committee):
    """Four toy nodes under the real rules, with prices."""

    def __init__(self, folder: Path, **options) -> None:
        super().__init__(folder, planner=RulesPlanner(), feeds=[Feed()], **options)


def make_trade(buyer: str, seller: str, contracts: int, cost: int, number: int, until: int) -> TradePending:
    return TradePending(
        make_account(buyer),
        make_account(seller),
        series_id(CALL),
        TOKEN,
        contracts * 10**8,
        cost * UNIT,
        until,
        make_account(buyer),
        number,
        number,
    )


async def tell_story(folder: Path) -> Committee:
    """Deposits, a link, trades accepted and refused, a withdrawal done and one that waits, a packet that stays open."""
    async with PricedCommittee(folder) as world:
        one, two = world.chains
        now = world.clock.now
        for chain in world.chains:
            chain.put(SeriesListed(series_id(CALL), CALL), now())
            chain.put(Deposited(HOUSE, TOKEN, 50_000 * UNIT), now())
            chain.put(Deposited(INSURANCE, TOKEN, 5_000 * UNIT), now())
            chain.put(Deposited(make_account("maker"), TOKEN, 20_000 * UNIT), now())
            chain.put(sign_link(chain.vault_id, make_account("maker"), "maker portfolio"), now())
        one.put(Deposited(make_account("alice"), TOKEN, 10_000 * UNIT), now())
        one.put(Deposited(make_account("bob"), TOKEN, 5_000 * UNIT), now())
        two.put(Deposited(make_account("carol"), TOKEN, 3_000 * UNIT), now())
        node = world.services[0].node
        node.chains[two.vault_id].reader.faults["one"] = "forge"
        await world.run_for(60, step=12)
        until = now() + DAY
        one.put(make_trade("bob", "alice", 2, 90, 1, until), now())
        one.put(make_trade("dave", "alice", 1, 45, 2, until), now())
        two.put(make_trade("carol", "maker", 3, 120, 1, until), now())
        two.put(WithdrawalRequested(make_account("carol"), TOKEN, 500 * UNIT), now())
        await world.run_for(240, step=12)
        one.drop_transactions = True
        one.put(WithdrawalRequested(make_account("bob"), TOKEN, 700 * UNIT), now())
        two.put(WithdrawalRequested(make_account("maker"), TOKEN, 900_000 * UNIT), now())
        await world.run_for(96, step=12)
        node.halt("operator:test", Rejected("only for the page of halts", reason="test"))
    return world


async def tell_attested_story(folder: Path) -> Committee:
    """A vault that a light client proves, one that three of four operators tell of, and one of which nothing is on record yet."""
    tier = TierParameters(3, 10_000, 10_000, 20_000, 40_000, Amount(900 * UNIT))
    async with PricedCommittee(folder, families=("evm", "solana", "solana"), tiers=(tier,)) as world:
        one, two, _ = world.chains
        now = world.clock.now
        for chain in (one, two):
            chain.put(SeriesListed(series_id(CALL), CALL), now())
            chain.put(sign_link(chain.vault_id, make_account("maker"), "maker portfolio"), now())
            chain.put(Deposited(HOUSE, TOKEN, 400 * UNIT), now())
        one.put(Deposited(make_account("alice"), TOKEN, 10_000 * UNIT), now())
        two.put(Deposited(make_account("maker"), TOKEN, 5_000 * UNIT), now())
        await world.run_for(48, step=12)
        one.put(make_trade("alice", "maker", 1, 90, 1, now() + DAY), now())
        one.put(WithdrawalRequested(make_account("maker"), TOKEN, 1_500 * UNIT), now())
        await world.run_for(120, step=12)
    return world


def get_anchors(world: Committee) -> dict[bytes, Anchor]:
    return {
        c.vault_id: Anchor(c.chain_id, "evm", c.vault.account, CHECKPOINT, "{}")
        for c in sorted(world.chains, key=lambda c: c.vault_id)
    }


@pytest.fixture(scope="session")
def story(tmp_path_factory):
    """(folder, world) of the run; do not write there."""
    folder = tmp_path_factory.mktemp("story")
    return folder, asyncio.run(tell_story(folder))


@pytest.fixture(scope="session")
def attested_story(tmp_path_factory):
    """(folder, world) of the run with an attested vault; do not write there."""
    folder = tmp_path_factory.mktemp("attested")
    return folder, asyncio.run(tell_attested_story(folder))


class Shell:
    """Runs commands as a person would, on a copy of node 0's store."""

    def __init__(self, folder: Path, world: Committee, base: Path) -> None:
        self.world = world
        self.folder = base
        self.store = base / "node0.db"
        shutil.copy(folder / "node0.db", self.store)
        self.one, self.two = world.chains[:2]

    def __call__(self, *arguments: str):
        from relayer.cli import app

        return CliRunner().invoke(app, [str(a) for a in arguments])

    def json(self, *arguments: str, code: int = 0) -> dict:
        result = self(*arguments, "--json")
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    def text(self, *arguments: str, code: int = 0) -> str:
        result = self(*arguments)
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result.stdout


@pytest.fixture
def shell(story, tmp_path, monkeypatch):
    """A shell over the story. Configuration and chain family are the toy's; store, rules and commands are the real ones."""
    return open_shell(story, tmp_path, monkeypatch)


@pytest.fixture
def attested_shell(attested_story, tmp_path, monkeypatch):
    """A shell over the story with an attested vault."""
    return open_shell(attested_story, tmp_path, monkeypatch)


def open_shell(story, tmp_path, monkeypatch):
    """A shell over a story, the only one of its test."""
    folder, world = story
    shell = Shell(folder, world, tmp_path)
    vaults = {c.vault.account: c for c in world.chains}

    def make_judge(anchor: Anchor) -> Judge:
        if anchor.checkpoint != CHECKPOINT or anchor.settings != "{}" or anchor.vault_account not in vaults:
            raise Rejected("another anchor", reason="wrong_checkpoint")
        chain = vaults[anchor.vault_account]
        return Judge(chain.vault_id, EVM_LIMITS, ToyVerifier(chain.vault), ToyCodec())

    loaded = Loaded("node0", shell.store, world.parameters, get_anchors(world))
    monkeypatch.setattr(view, "load", lambda _path: loaded)
    monkeypatch.setattr(proofs, "make_judge", make_judge)
    monkeypatch.chdir(tmp_path)
    return shell


__all__ = ["CALL", "START", "attested_shell", "attested_story", "shell", "story"]
