"""Facts that operators stand for, exported and computed again: with the statements of m operators in the file, and nothing else believed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from chains.registry import make_solana_sim_config
from chains.solana.codec import decode_attested, encode_attested
from messages.bodies import EVM_LIMITS
from messages.canonical import decode_canonical, encode_canonical
from relayer.commands import proofs
from relayer.commands.proofs import prove_fact, replay_store, verify_file
from relayer.commands.view import ReadOnlyStore, View
from relayer.proof_file import Anchor, Judge, decode_proof_file
from tests.fakes import ToyCodec, ToyVerifier
from tests.scenarios.test_solana_committee import Net


def make_anchors(net, monkeypatch):
    """What an auditor believes: the first set of the Solana vault, and the key of the toy chain."""
    config = make_solana_sim_config(net.network, net.vault, net.sets)
    toy = Anchor(net.toy.chain_id, "evm", net.toy.vault.account, b"\7" * 32, "{}")
    solana = Anchor(config.chain_id, "solana", config.vault_account, config.checkpoint, config.settings)
    real = proofs.make_judge

    def make_judge(anchor):
        if anchor != toy:
            return real(anchor)
        return Judge(net.toy.vault_id, EVM_LIMITS, ToyVerifier(net.toy.vault), ToyCodec())

    monkeypatch.setattr(proofs, "make_judge", make_judge)
    monkeypatch.setattr(proofs, "_compute_plan", lambda *what: net.planner.compute_plan(*what).plan)
    return {net.vault_id: solana, net.toy.vault_id: toy}


@pytest.fixture
async def told(tmp_path, monkeypatch):
    """A view of node 0's records after deposits, a withdrawal and a restart, with the anchors of its configuration."""
    async with Net(tmp_path) as net:
        net.deposit(1_000)
        net.request(300)
        await net.run_until(lambda node: {p.status for p in node.store.get_packets()} == {"done"}, 180)
        await net.kill(0)
        net.start(0)
        net.deposit(50)
        net.request(30)
        await net.run_until(lambda node: [p.status for p in node.store.get_packets()] == ["done"] * 2, 180)
        await net.kill(0)
        anchors = make_anchors(net, monkeypatch)
        store = ReadOnlyStore(tmp_path / "node0.db")
        view = View("node0", store, net.parameters, net.clock.now())
        yield net, view, anchors
        store.close()


async def test_every_fact_is_proven_and_the_whole_record_comes_out_the_same(told, tmp_path):
    net, view, anchors = told
    count = view.store.get_cursor(net.vault_id).sequence
    assert count == 6  # two deposits, two requests, two answers
    for number in range(1, count + 1):
        path = tmp_path / f"{number}.json"
        path.write_bytes(prove_fact(view, anchors, f"{net.network.chain}:{number}"))
        found = verify_file(path, anchors, None, None, net.clock.now())
        assert found.data["verified"], found.data
        assert found.data["fact"]["head"] == "0x" + view.store.get_fact_head(net.vault_id, number).hex()
        assert found.data["header_hash"] == "0x" + bytes(32).hex()
    answer = replay_store(view, anchors, None, is_full=False)
    assert answer.code == 0, answer.data
    assert len(answer.data["plans"]) >= 2


async def test_a_proof_with_fewer_or_other_statements_is_refused(told, tmp_path):
    net, view, anchors = told
    data = prove_fact(view, anchors, f"{net.network.chain}:2")
    proof = decode_proof_file(data)
    last = decode_attested(proof.updates[-1].claim if proof.updates else proof.bootstrap.claim)
    weak = encode_attested(type(last)(last.observations[:2], last.commitments, last.timed))
    path = tmp_path / "weak.json"
    document = decode_canonical(data.strip(), max_bytes=10**7)
    for place, value in (
        ("proof", "0x" + weak.hex()),
        ("head_sequence", proof.head_sequence + 1),
        ("head", "0x" + "07" * 32),
        ("previous_head", "0x" + "07" * 32),
    ):
        path.write_bytes(encode_canonical({**document, place: value}))
        found = verify_file(path, anchors, None, None, net.clock.now())
        assert found.code == 1, place
        assert not found.data["verified"]
    other = json.loads(anchors[net.vault_id].settings)
    other["operator_sets"][0]["operators"] = [f"0x{n:040x}" for n in range(1, 5)]
    path.write_bytes(data)
    changed = {**anchors, net.vault_id: replace(anchors[net.vault_id], settings=encode_canonical(other).decode())}
    refused = verify_file(path, changed, None, None, net.clock.now())
    assert not refused.data["verified"]
    assert refused.data["reason"] == "unknown_signer"
    assert verify_file(path, anchors, None, None, net.clock.now()).data["verified"]
