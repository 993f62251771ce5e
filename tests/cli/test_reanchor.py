"""`relayer reanchor`: an expired light client begins anew on people's word, and never against or behind a recorded fact."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from chains.evm.codec import encode_pause
from messages.digests import compute_pause_digest, compute_vault_id, sign_digest
from messages.outbox import Cursor
from relayer.anchors import get_checkpoints
from relayer.archive import read_archive
from relayer.cli import app
from relayer.commands import proofs
from relayer.commands import reanchor as reanchor_module
from relayer.commands.proofs import make_judge
from relayer.commands.view import ReadOnlyStore
from relayer.config import load_config
from relayer.gossip import MemoryBus
from relayer.log import make_logger
from relayer.service import open_configured
from relayer.store import Store
from tests.builders import OPERATOR_KEYS, make_parameters
from tests.cli.live_chain import LiveChain
from tests.cli.operator_files import write_folder

PERIOD_S = 1200
STATEMENT_S = 600
"""Proofs are judged this long after their statement: as with the true numbers, within the period."""


class Scene:
    """A node over a served chain whose light client may be away for twenty minutes; time stands where the chain's does."""

    def __init__(self, folder, chain, monkeypatch):
        self.chain = chain
        self.path = folder / "op" / "relayer.toml"
        monkeypatch.setattr(time, "time", lambda: float(chain.clock.now))
        monkeypatch.setattr(proofs, "make_judge", lambda a: replace(make_judge(a), statement_s=STATEMENT_S))
        config = chain.make_config()
        limits = json.loads(config.settings) | {"trusting_period_s": PERIOD_S, "max_checkpoint_age_s": PERIOD_S}
        settings = json.dumps(limits, sort_keys=True, separators=(",", ":"))
        parameters = make_parameters([chain.parameters], effective=1_700_000_000)
        write_folder(folder / "op", parameters=parameters, chains=[replace(config, settings=settings)])
        self.first = config.checkpoint
        self.watch()

    def watch(self):
        """What a node does in one look."""
        service = open_configured(
            load_config(self.path), gossip=MemoryBus().connect("op"), log=make_logger(level="error")
        )

        async def look():
            await service.run_once()
            for chain in service.node.chains.values():
                await chain.reader.close()

        try:
            asyncio.run(look())
            return service.get_status()
        finally:
            service.close()

    def pause(self):
        """The vault's first word; a fact once it is final."""
        vault = self.chain.parameters
        digest = compute_pause_digest(compute_vault_id(vault.chain, vault.account), 0)
        data = encode_pause(sign_digest(OPERATOR_KEYS[0], digest))
        self.chain.network.transact(self.chain.deployer, self.chain.vault, data)
        self.chain.network.finalize()

    def wait(self, seconds):
        self.chain.clock.now += seconds
        self.chain.network.tick()
        self.chain.network.finalize()

    def run(self, *arguments, checkpoint=None, people=("Ada", "Grace"), note="by phone"):
        root = checkpoint or "0x" + self.chain.network.get_checkpoint().hex()
        words = ["reanchor", "31337", "--checkpoint", root, "--note", note, "-c", str(self.path)]
        words += [w for p in people for w in ("--person", p)]
        result = CliRunner().invoke(app, [*words, *arguments])
        assert "Traceback" not in result.output, result.output
        return result

    def get_headers(self):
        store = ReadOnlyStore(self.path.parent / "store.db")
        try:
            return [h.kind for h in store.iterate_headers("eip155:31337")], get_checkpoints(store, "eip155:31337")
        finally:
            store.close()


@pytest.fixture
def scene(tmp_path, monkeypatch):
    with LiveChain() as chain:
        yield Scene(tmp_path, chain, monkeypatch)


def use(scene, command, *arguments):
    result = CliRunner().invoke(app, [*command.split(), *arguments, "-c", str(scene.path)])
    assert "Traceback" not in result.output, result.output
    return result


def test_an_expired_light_client_begins_anew_and_goes_on_from_its_facts(scene, tmp_path):
    scene.pause()
    assert scene.watch().chains[0].outbox_sequence == 1
    scene.wait(3 * PERIOD_S)
    scene.chain.network.finalize()
    stale = scene.watch()
    assert "stale_trusted" in {b[2] for b in stale.blames}
    result = scene.run("--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert data["facts_recorded"] == 1
    assert data["height"] > data["former_height"]
    assert data["people"] == ["ada", "grace"]
    kinds, taken = scene.get_headers()
    assert kinds.count("bootstrap") == 2
    assert [t.checkpoint for t in taken] == [scene.first, bytes.fromhex(data["checkpoint"][2:])]
    after = scene.watch()
    assert after.chains[0].height >= data["newest_height"]
    assert after.chains[0].outbox_sequence == 1
    # What is told to others holds under the checkpoint it is told under.
    for command in ("replay", "status", "prove 31337:1"):
        assert use(scene, command).exit_code == 0, use(scene, command).output
    assert use(scene, "archive export", str(tmp_path / "a.jsonl")).exit_code == 0
    with (tmp_path / "a.jsonl").open("rb") as file:
        start = next(iter(read_archive(file)))[1]
    assert [a.checkpoint for a in start.anchors] == [t.checkpoint for t in taken]
    result = CliRunner().invoke(app, ["replay", "--archive", str(tmp_path / "a.jsonl")])
    assert result.exit_code == 0, result.output
    scene.path.write_text(scene.path.read_text().replace(scene.first.hex(), taken[1].checkpoint.hex()))
    assert use(scene, "replay").exit_code == 0


def test_an_archive_that_begins_anew_under_no_named_anchor_is_refused(scene, tmp_path):
    from relayer.archive import write_archive

    scene.wait(3 * PERIOD_S)
    assert scene.run().exit_code == 0
    scene.watch()
    assert use(scene, "archive export", str(tmp_path / "a.jsonl")).exit_code == 0
    with (tmp_path / "a.jsonl").open("rb") as file:
        records = [record for _, record in read_archive(file)]
    records[0] = replace(records[0], anchors=records[0].anchors[:1])
    with (tmp_path / "b.jsonl").open("wb") as file:
        write_archive(iter(records[:-1]), file)
    result = CliRunner().invoke(app, ["replay", "--archive", str(tmp_path / "b.jsonl")])
    assert result.exit_code == 1
    assert "begins once" in result.output


def test_a_light_client_that_is_not_too_old_is_left_alone(scene):
    scene.wait(120)
    result = scene.run("--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"] == "still_fresh"
    assert scene.get_headers()[0].count("bootstrap") == 1
    assert scene.get_headers()[1] == ()


def test_a_checkpoint_behind_what_is_recorded_or_too_old_itself_is_refused(scene):
    scene.wait(3 * PERIOD_S)
    before = scene.get_headers()
    for root in ("0x" + scene.first.hex(), "0x" + "77" * 32):
        result = scene.run("--json", checkpoint=root)
        assert result.exit_code == 75, result.output  # no endpoint gives a bootstrap that verifies
        assert json.loads(result.stdout)["error"] == "no_bootstrap"
    assert scene.get_headers() == before


def test_a_chain_whose_outbox_does_not_go_on_from_the_records_is_refused_and_nothing_is_written(scene, monkeypatch):
    scene.pause()
    assert scene.watch().chains[0].outbox_sequence == 1
    scene.wait(3 * PERIOD_S)
    before = scene.get_headers()
    true = Store.get_cursor
    with monkeypatch.context() as other_history:
        other_history.setattr(Store, "get_cursor", lambda s, v: Cursor(v, true(s, v).sequence, b"\x66" * 32))
        result = scene.run("--json")
    assert result.exit_code == 75
    assert json.loads(result.stdout)["error"] == "not_continued"
    assert scene.get_headers() == before
    assert scene.run().exit_code == 0


def test_a_chain_that_is_far_ahead_by_now_is_gone_through_to_its_end_all_the_same(scene, monkeypatch):
    scene.wait(3 * PERIOD_S)
    scene.pause()
    build = reanchor_module.build_chain
    monkeypatch.setattr(reanchor_module, "build_chain", lambda *args: replace(build(*args), max_packets=0))
    result = scene.run("--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["facts_to_come"] == 1


def test_packets_that_are_withheld_since_then_are_no_reason_to_begin_without_them(scene):
    scene.wait(3 * PERIOD_S)
    scene.pause()
    before = scene.get_headers()
    scene.chain.network.endpoints[0].lies.drop_log_every = 1
    result = scene.run("--json")
    assert result.exit_code == 75
    assert json.loads(result.stdout)["error"] == "not_continued"
    assert scene.get_headers() == before
    scene.chain.network.endpoints[0].lies.drop_log_every = 0
    assert json.loads(scene.run("--json").stdout)["facts_to_come"] == 1


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"people": ("Ada",)}, "two different"),
        ({"people": ("Ada", " ADA ")}, "two different"),
        ({"note": " "}, "--note"),
        ({"checkpoint": "0x" + "0" * 64}, "block root"),
        ({"checkpoint": "77" * 32}, "block root"),
    ],
)
def test_what_people_have_to_say_is_asked_for(scene, changes, word):
    result = scene.run(**changes)
    assert result.exit_code == 2
    assert word in result.stderr


def test_the_node_has_to_stand_still_and_the_former_checkpoint_to_be_known(scene):
    scene.wait(3 * PERIOD_S)
    store = Store(scene.path.parent / "store.db")
    try:
        assert scene.run().exit_code == 75
    finally:
        store.close()
    text = scene.path.read_text()
    scene.path.write_text(text.replace(scene.first.hex(), "77" * 32))
    result = scene.run("--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"] == "wrong_checkpoint"
    scene.path.write_text(text)
    assert scene.run().exit_code == 0


def test_a_chain_that_is_asked_by_height_begins_anew_at_the_height_that_people_say(tmp_path):
    from types import SimpleNamespace

    from chains.base import advance, bootstrap, collect
    from chains.cosmos.verifier import CosmosSettings
    from chains.registry import build_chain, make_cosmos_settings, make_cosmos_sim_config
    from messages.errors import Rejected
    from relayer.commands.reanchor import reanchor
    from relayer.store import HeaderRecord, HeadRecord
    from tests.chains.harness_cosmos import CosmosHarness

    harness = CosmosHarness()
    net, sims = harness.network, {f"cosmos:{harness.network.chain_id}": harness.network}
    harness.deposit(7)
    harness.finalize()
    root, height = net.get_checkpoint()
    config = make_cosmos_sim_config(net, harness.vault, checkpoint=(root, height))
    settings = make_cosmos_settings(CosmosSettings(height, net.prefix, trusting_period_s=PERIOD_S))
    config = replace(config, settings=settings)
    path = tmp_path / "node.db"

    async def follow():
        chain = build_chain(config, None, sims)
        claim, trusted, _ = await bootstrap(chain, harness.now())
        headers = [
            HeaderRecord(
                chain.verifier.get_point(trusted),
                "bootstrap",
                chain.codec.encode_bootstrap(claim),
                chain.codec.encode_trusted(trusted),
            )
        ]
        for update, after in (await advance(chain, trusted, harness.now())).steps:
            trusted = after
            headers.append(
                HeaderRecord(
                    chain.verifier.get_point(after),
                    "update",
                    chain.codec.encode_update(update),
                    chain.codec.encode_trusted(after),
                )
            )
        store = Store(path)
        found = await collect(chain, trusted, store.get_cursor(chain.vault_id), 0)
        head = HeadRecord(
            chain.vault_id,
            headers[-1].point,
            found.head.sequence,
            found.head.head,
            chain.codec.encode_proof(found.proof),
        )
        store.record_collected(config.chain_id, headers, head, found.facts)
        store.close()
        return found.head.sequence

    assert asyncio.run(follow()) == 1
    harness.clock.now += 3 * PERIOD_S
    harness.deposit(8)
    harness.finalize()
    new_root, new_height = net.get_checkpoint()

    def begin(**changes):
        node = SimpleNamespace(store_path=path, chains=(config,))
        return reanchor(
            node,
            config.chain_id,
            "0x" + new_root.hex(),
            ["Ada", "Grace"],
            "by phone",
            harness.now(),
            sims=sims,
            **changes,
        )

    with pytest.raises(Rejected) as caught:
        begin()
    assert caught.value.reason == "usage"
    answer = begin(height=new_height)
    assert answer.data["facts_to_come"] == 1
    assert answer.data["former_height"] < answer.data["height"]
    store = Store(path)
    taken = get_checkpoints(store, config.chain_id)
    store.close()
    assert [json.loads(t.settings)["checkpoint_height"] for t in taken] == [height, new_height]


def test_a_height_means_nothing_where_roots_are_asked_for(scene):
    result = scene.run("--height", "5")
    assert result.exit_code == 2
    assert "--height" in result.stderr
