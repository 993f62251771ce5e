"""Exported proofs of the Ethereum family: real light client, real storage proofs, real vault; one changed byte and they fall."""

from __future__ import annotations

import asyncio
import random
import socket
from dataclasses import replace

import pytest

from chains import base
from chains.base import Point
from chains.evm.forks import Preset
from chains.evm.light_client import LightClientConfig
from chains.registry import make_evm_settings
from messages.bodies import Deposited
from messages.canonical import decode_canonical, encode_canonical
from messages.errors import Conflict, Rejected
from messages.ids import get_evm_account
from relayer.commands.proofs import make_judge, verify_file
from relayer.proof_file import (
    Anchor,
    ProofStep,
    compute_proof_digest,
    decode_proof_file,
    encode_proof_file,
    make_proof_file,
    verify_proof,
)
from tests.chains.harness_evm import EvmHarness

PRESET = Preset(slots_per_epoch=8, epochs_per_period=8, committee_size=32)


class Recorded:
    """What a node would have on record: bootstrap, every update, the newest head, all facts."""

    def __init__(self) -> None:
        harness = EvmHarness(1, preset=PRESET)
        self.harness = harness
        self.anchor = Anchor(
            harness.chain.chain_id,
            "evm",
            get_evm_account(harness.vault),
            harness.checkpoint,
            make_evm_settings(LightClientConfig(harness.network.schedule)),
        )
        self.updates: list[ProofStep] = []
        self.facts: list = []
        asyncio.run(self._live())

    async def _live(self) -> None:
        h, chain = self.harness, self.harness.chain
        claim, trusted, _ = await base.bootstrap(chain, h.now())
        self.bootstrap = ProofStep(chain.verifier.get_point(trusted).time, chain.codec.encode_bootstrap(claim))
        cursor = h.start
        for amount in range(1, 15):
            h.deposit(amount * 1000)
            h.finalize()
            h.clock.advance(300)
            advanced = await base.advance(chain, trusted, h.now())
            for update, after in advanced.steps:
                trusted = after
                time = chain.verifier.get_point(after).time
                self.updates.append(ProofStep(time, chain.codec.encode_update(update)))
            collected = await base.collect(chain, trusted, cursor, 0)
            cursor = collected.cursor
            self.facts += collected.facts
        self.point: Point = chain.verifier.get_point(trusted)
        self.head = collected.head
        self.proof = chain.codec.encode_proof(collected.proof)

    def prove(self, sequence: int):
        return make_proof_file(
            self.anchor,
            make_judge(self.anchor),
            bootstrap=self.bootstrap,
            updates=self.updates,
            point=self.point,
            head=self.head,
            proof=self.proof,
            facts=self.facts[sequence - 1 :],
            previous_head=self.facts[sequence - 2].head if sequence > 1 else self.harness.chain.vault_id,
            now=self.harness.now(),
        )


@pytest.fixture(scope="module")
def recorded():
    return Recorded()


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)


def test_a_fact_is_proven_from_the_checkpoint_alone(recorded, no_network):
    proof = decode_proof_file(encode_proof_file(recorded.prove(3)))
    verified = verify_proof(proof, make_judge(proof.anchor), recorded.harness.now())
    assert isinstance(verified.fact.body, Deposited)
    assert verified.fact.body.amount == 3000
    assert verified.fact.sequence == 3
    assert verified.fact.tier.level == 1
    assert verified.point == recorded.point


def test_updates_that_can_be_jumped_over_are_left_out_and_committees_are_handed_on(recorded):
    schedule = recorded.harness.network.schedule
    periods = (recorded.point.time - recorded.bootstrap.time) // (8 * 8 * schedule.seconds_per_slot)
    assert periods >= 2  # otherwise nothing is handed on
    proof = recorded.prove(1)
    assert periods <= len(proof.updates) < len(recorded.updates)


def test_an_old_proof_stays_checkable_and_says_that_the_client_could_not_go_on(recorded):
    proof = recorded.prove(14)
    later = recorded.harness.now() + 400 * 86_400
    assert not verify_proof(proof, make_judge(proof.anchor), later).is_fresh
    assert verify_proof(proof, make_judge(proof.anchor), recorded.harness.now()).is_fresh


def test_a_header_from_the_future_is_refused(recorded):
    proof = recorded.prove(14)
    with pytest.raises(Rejected) as error:
        verify_proof(proof, make_judge(proof.anchor), recorded.point.time - 3600)
    assert error.value.reason == "future"


def _flips(data: bytes, count: int, seed: int) -> list[bytes]:
    chooser = random.Random(seed)
    places = chooser.sample(range(len(data)), min(count, len(data)))
    return [data[:i] + bytes([data[i] ^ 1 << chooser.randrange(8)]) + data[i + 1 :] for i in places]


def _get_mutants(proof):
    """One byte changed in each part; of large parts a sample."""
    for data in _flips(proof.bootstrap.claim, 12, 1):
        yield "bootstrap", replace(proof, bootstrap=replace(proof.bootstrap, claim=data))
    for n, step in enumerate(proof.updates):
        for data in _flips(step.claim, 8, n):
            yield (
                f"update {n}",
                replace(proof, updates=(*proof.updates[:n], replace(step, claim=data), *proof.updates[n + 1 :])),
            )
    for data in _flips(proof.proof, 16, 3):
        yield "head proof", replace(proof, proof=data)
    for n, packet in enumerate(proof.packets):
        for data in _flips(packet.packet, 6, 4):
            packets = (*proof.packets[:n], replace(packet, packet=data), *proof.packets[n + 1 :])
            yield f"packet {n}", replace(proof, packets=packets)
    for data in _flips(proof.head, 3, 5):
        yield "head", replace(proof, head=data)
    for data in _flips(proof.previous_head, 3, 6):
        yield "previous head", replace(proof, previous_head=data)
    for data in _flips(proof.anchor.checkpoint, 3, 7):
        yield "checkpoint", replace(proof, anchor=replace(proof.anchor, checkpoint=data))
    for data in _flips(proof.anchor.vault_account[12:], 3, 8):
        yield "vault", replace(proof, anchor=replace(proof.anchor, vault_account=bytes(12) + data))
    yield "number", replace(proof, sequence=proof.sequence + 1)
    yield "head number", replace(proof, head_sequence=proof.head_sequence + 1)
    yield "chain", replace(proof, anchor=replace(proof.anchor, chain="eip155:31338"))
    yield "time", replace(proof, bootstrap=replace(proof.bootstrap, time=proof.bootstrap.time + 1))
    yield "order", replace(proof, packets=proof.packets[::-1])
    yield "withheld", replace(proof, packets=proof.packets[:-1])
    yield "invented", replace(proof, packets=(*proof.packets, proof.packets[-1]))
    if len(proof.updates) > 1:
        yield "no updates", replace(proof, updates=())
        yield "order of updates", replace(proof, updates=proof.updates[::-1])


def test_one_changed_byte_anywhere_is_refused(recorded):
    proof = recorded.prove(11)
    now = recorded.harness.now()
    verify_proof(proof, make_judge(proof.anchor), now)
    accepted = []
    for place, mutant in _get_mutants(proof):
        try:
            verify_proof(mutant, make_judge(mutant.anchor), now)
        except (Rejected, Conflict):
            continue
        else:
            accepted.append(place)
    assert accepted == []


def test_the_fork_schedule_is_part_of_the_anchor(recorded):
    proof = recorded.prove(14)
    settings = decode_canonical(proof.anchor.settings.encode())
    changed = proof.anchor.settings.replace(str(recorded.harness.network.schedule.genesis_time), "1700000000")
    assert isinstance(settings, dict)
    assert changed != proof.anchor.settings
    with pytest.raises(Rejected):
        verify_proof(proof, make_judge(replace(proof.anchor, settings=changed)), recorded.harness.now())


def test_the_command_verifies_a_file_and_says_whose_anchor_it_believed(recorded, tmp_path, no_network):
    path = tmp_path / "fact.json"
    path.write_bytes(encode_proof_file(recorded.prove(5)) + b"\n")
    own = verify_file(path, None, None, None, None)
    assert own.code == 0
    assert own.data["anchor"] == "file"
    assert any("RELATIVE TO THE FILE'S OWN ANCHOR" in str(part) for part in own.parts)
    vault_id = recorded.harness.chain.vault_id
    mine = verify_file(path, {vault_id: recorded.anchor}, None, None, None)
    assert (mine.code, mine.data["anchor"]) == (0, "config")
    other = replace(recorded.anchor, checkpoint=b"\x22" * 32)
    assert verify_file(path, {vault_id: other}, None, None, None).data["reason"] == "wrong_checkpoint"
    assert verify_file(path, {b"\x33" * 32: other}, None, None, None).data["reason"] == "wrong_vault"
    given = verify_file(path, None, "0x" + recorded.anchor.checkpoint.hex(), "0x" + vault_id.hex(), None)
    assert (given.code, given.data["anchor"]) == (0, "checkpoint")
    assert verify_file(path, None, "0x" + "22" * 32, None, None).code == 1
    assert verify_file(path, None, None, "0x" + "22" * 32, None).data["reason"] == "wrong_vault"
    assert own.data["fact"]["body"]["amount"] == "5000"
    assert own.data["proof_digest"] == "0x" + compute_proof_digest(recorded.prove(5)).hex()


def _rewrite(data: bytes, change) -> bytes:
    obj = decode_canonical(data, max_bytes=1 << 25)
    return encode_canonical(change(obj))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("empty", lambda d: b""),
        ("not JSON", lambda d: b"\xff\xfe"),
        ("deep", lambda d: b"[" * 100_000 + b"]" * 100_000),
        ("another schema", lambda d: _rewrite(d, lambda o: o | {"schema": "optsettle/fact-proof/2"})),
        ("an unknown key", lambda d: _rewrite(d, lambda o: o | {"more": 1})),
        ("a missing key", lambda d: _rewrite(d, lambda o: {k: v for k, v in o.items() if k != "proof"})),
        ("another type", lambda d: _rewrite(d, lambda o: o | {"packets": "0x"})),
        ("no packets", lambda d: _rewrite(d, lambda o: o | {"packets": []})),
        ("a short checkpoint", lambda d: _rewrite(d, lambda o: o | {"anchor": o["anchor"] | {"checkpoint": "0x00"}})),
        ("an unknown family", lambda d: _rewrite(d, lambda o: o | {"anchor": o["anchor"] | {"family": "evil"}})),
        ("settings of nonsense", lambda d: _rewrite(d, lambda o: o | {"anchor": o["anchor"] | {"settings": "[]"}})),
        ("number zero", lambda d: _rewrite(d, lambda o: o | {"sequence": 0})),
        ("a negative number", lambda d: _rewrite(d, lambda o: o | {"sequence": -5})),
        ("a negative head number", lambda d: _rewrite(d, lambda o: o | {"head_sequence": -5})),
        ("a huge number", lambda d: _rewrite(d, lambda o: o | {"sequence": 2**53})),
        ("a negative time", lambda d: _rewrite(d, lambda o: o | {"judged_at": -1})),
        ("a colour escape", lambda d: _rewrite(d, lambda o: o | {"anchor": o["anchor"] | {"chain": "\x1b[31m"}})),
        ("spaces", lambda d: d.replace(b":", b": ", 1)),
        ("cut off", lambda d: d[:-50]),
    ],
)
def test_hostile_files_are_refused_with_words(recorded, tmp_path, name, make):
    path = tmp_path / "hostile.json"
    path.write_bytes(make(encode_proof_file(recorded.prove(14))))
    answer = verify_file(path, None, None, None, None)
    assert answer.code == 1, name
    assert answer.data["reason"], name
    assert not answer.data["verified"]


def test_a_huge_file_is_not_read_to_its_end(tmp_path):
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    assert verify_file(path, None, None, None, None).data["reason"] == "size"
