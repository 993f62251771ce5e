"""The pure verifiers beside the chain's own libraries: what is taken here and refused there would be a forgery.

Forged blocks and proofs, most of them whole but for the one thing that was changed (signatures made anew, roots computed anew, so that no
hash refuses what a rule should). Needs `go`, which builds the libraries from the module proxy; part of `make soak`.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from bench.cosmos import build_go, show_block, show_time, show_validators
from chains.cosmos import codec, ed25519, ics23
from chains.cosmos import light_client as lc
from chains.cosmos.ics23 import IAVL_SPEC, TENDERMINT_SPEC, ExistenceProof, InnerOp, LeafOp, NonExistenceProof
from chains.cosmos.light_client import Verdict
from chains.cosmos.protobuf import encode_varint
from messages.errors import Rejected
from tests.chains.cosmos_forge import (
    CHAIN,
    IAVL_LEAF,
    SIMPLE_LEAF,
    Forge,
    Tree,
    change_vote,
    get_name,
    make_set,
)

pytestmark = pytest.mark.slow

PERIOD_NS = 14 * 86_400 * 10**9
CONFIG = lc.LightClientConfig(CHAIN, trusting_period_ns=PERIOD_NS, max_clock_drift_ns=10**9)
NAMES = [f"v{i}" for i in range(24)]
ENTRIES = {b"key%03d" % i: b"v%d" % i for i in range(0, 64, 2)}
TREES = {"iavl": (Tree(ENTRIES, IAVL_LEAF), IAVL_SPEC), "tendermint": (Tree(ENTRIES, SIMPLE_LEAF), TENDERMINT_SPEC)}


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    program = build_go(Path(tmp_path_factory.mktemp("go")))
    if program is None:
        pytest.skip("no go, or its modules cannot be had: nothing to compare with")

    def judge(kind, cases):
        lines = "\n".join(json.dumps(case) for case in cases)
        done = subprocess.run([program, "judge", kind], input=lines, capture_output=True, text=True, check=True)
        return done.stdout.split()

    return judge


# ---- blocks -----------------------------------------------------------------------------------------------------------


def make_sets(random: Random):
    """Two sets: the same, strangers, or sharing some."""
    first = make_set(
        {name: random.choice([1, 1, 2, 3, 10, 100]) for name in random.sample(NAMES, random.choice([1, 3, 4, 7, 20]))}
    )
    kind = random.randrange(3)
    if kind == 0:
        return first, first
    names = random.sample(NAMES, random.choice([1, 2, 4]))
    if kind == 1:
        names += random.sample([get_name(v.key) for v in first.validators], (len(first.validators) + 1) // 2)
    return first, make_set({name: random.choice([1, 5, 10]) for name in names})


def change_header(random: Random, forge: Forge):
    options = [
        {"time_ns": forge.get_time(random.choice([2, 3, 20, 30])) + random.choice([0, 1, -1])},
        {random.choice(["data_hash", "app_hash", "evidence_hash"]): random.randbytes(random.choice([0, 20, 32, 64]))},
        {"version_block": random.choice([0, 10, 12])},
        {"proposer_address": random.randbytes(random.choice([0, 19, 20]))},
        {"chain_id": random.choice(["forge-2", "forge", "x" * 60])},
    ]
    return random.choice(options) if random.random() < 0.3 else {}


def spoil_block(random: Random, block):
    """Change one thing of a commit or a set; the header stays."""
    votes = list(block.commit.signatures)
    at, kind = random.randrange(len(votes)), random.randrange(8)
    vote = votes[at]
    if kind == 0:
        return change_vote(block, at, flag=random.randrange(5))
    if kind == 1 and vote.signature:
        return change_vote(block, at, signature=vote.signature[:-1] + bytes([vote.signature[-1] ^ 16]))
    if kind == 2 and vote.signature:
        s = int.from_bytes(vote.signature[32:], "little") + ed25519.ORDER
        return change_vote(block, at, signature=vote.signature[:32] + s.to_bytes(32, "little"))
    if kind == 3 and vote.signature:
        return change_vote(block, at, time_ns=vote.time_ns + random.choice([1, 10**9]))
    if kind == 4:
        return change_vote(block, at, address=random.choice([b"", random.randbytes(20), votes[0].address]))
    if kind == 5:
        votes[at], votes[0] = votes[0], votes[at]
        votes = random.choice([votes, votes[1:], [*votes, vote]])
        return replace(block, commit=replace(block.commit, signatures=tuple(votes))) if votes else block
    if kind == 6:
        change = random.choice([{"height": block.header.height + 1}, {"round": 1}, {"round": -1}])
        return replace(block, commit=replace(block.commit, **change))
    members = list(block.validators.validators)
    members[at % len(members)] = replace(members[at % len(members)], power=random.choice([0, -1, 1, 2**60]))
    return replace(block, validators=replace(block.validators, validators=tuple(members)))


def make_block_case(random: Random):
    first, second = make_sets(random)
    height = random.choice([4, 9])
    forge = Forge(((1, first), (height, second)))
    names = [get_name(v.key) for v in forge.get_set(height).validators]
    share = random.choice([1, 0.9, 0.7, 0.5])
    signers = [name for name in names if random.random() < share]
    nil = [name for name in names if name not in signers and random.random() < 0.5]
    block = forge.make_block(height, signers, nil, random.choice([0, 3]), **change_header(random, forge))
    for _ in range(random.choice([0, 0, 1, 2])):
        block = spoil_block(random, block)
    now = random.choice([forge.get_time(20)] * 4 + [forge.get_time(height), forge.get_time(3) + PERIOD_NS])
    return forge.make_block(3), forge.get_set(4), block, now + random.choice([0, 1, -1])


def judge_block(trusted, shown, now) -> str:
    try:
        block = codec.parse_light_block(shown["signed_header"], shown["validator_set"]["validators"])
        verdict = lc.judge_update(lc.make_trusted(trusted), block, now, CONFIG)
    except Rejected as error:
        return error.reason
    return "accepted" if verdict is Verdict.SUCCESS else "not_enough_trust"


def is_time_of_absent(shown) -> bool:
    """The time in an absent slot: signed by nobody, counted for nothing, left open here and refused there."""
    votes = shown["signed_header"]["commit"]["signatures"]
    return any(vote["block_id_flag"] == 1 and not vote["timestamp"].startswith("0001-") for vote in votes)


def test_no_forged_block_is_taken_that_cometbft_refuses(ask):
    random = Random(1)
    cases, ours = [], []
    for _ in range(1500):
        trusted, following, block, now = make_block_case(random)
        shown = show_block(block)
        cases.append(
            {
                "now": show_time(now),
                "trusted": show_block(trusted),
                "next_validators": show_validators(following),
                "block": shown,
            }
        )
        ours.append(judge_block(trusted, shown, now))
    theirs = ask("blocks", cases)
    tally = Counter(zip(ours, theirs, strict=True))
    forged = [c for c, a, b in zip(cases, ours, theirs, strict=True) if a == "accepted" and b != a]
    assert all(is_time_of_absent(case["block"]) for case in forged), tally
    # the other direction would only stop the client: a slot of another's name is refused here though it is nil or not needed (F4)
    stricter = {a for a, b in zip(ours, theirs, strict=True) if b == "accepted" and a != b}
    assert stricter <= {"commit_mismatch"}, tally
    assert tally[("accepted", "accepted")] > 100, tally
    assert tally[("not_enough_trust", "not_enough_trust")] > 20, tally


# ---- proofs -----------------------------------------------------------------------------------------------------------


def spoil_bytes(random: Random, data: bytes) -> bytes:
    kind = random.randrange(7)
    if kind == 0:
        return data + random.randbytes(random.choice([1, 2, 31, 32, 33, 34]))
    if kind == 1:
        return data[: -random.choice([1, 2, 32, 33, 34])]
    if kind == 2:
        return b""
    if kind == 3:
        return encode_varint(random.choice([0, 1, 2, 3, 2**31, 2**63, 2**64 - 1])) + data
    if not data:
        return data
    at = random.randrange(min(len(data), 6) if kind < 6 else len(data))
    middle = bytes([random.choice([0, 1, 2, 3, 4, 0x20, 0x7F, 0x80, 0x81, 0xFF])])
    return data[:at] + middle + data[at + (kind != 4) :]


def spoil_step(random: Random, step: InnerOp) -> InnerOp:
    kind = random.randrange(4)
    if kind == 0:
        return step._replace(prefix=spoil_bytes(random, step.prefix))
    if kind == 1:
        return step._replace(suffix=spoil_bytes(random, step.suffix))
    if kind == 2:
        return step._replace(hash=random.choice([0, 2, 4]))
    node = b"\x04\x08\x0a\x20"
    before = [step.prefix, b"\1", b"\1" + bytes(32), node, node + bytes(32) + b"\x20"]
    after = [b"", bytes(32), b"\x20" + bytes(32), bytes(64), bytes(33)]
    return InnerOp(1, random.choice(before), random.choice(after))


def spoil_proof(random: Random, proof: ExistenceProof) -> ExistenceProof:
    leaf, path, kind = proof.leaf, list(proof.path), random.randrange(6)
    assert leaf is not None
    at = random.randrange(len(path)) if path else 0
    if kind == 0:
        return proof._replace(leaf=leaf._replace(prefix=spoil_bytes(random, leaf.prefix)))
    if kind == 1:
        numbers = [
            random.choice([0, 1, 1, 2]),
            random.choice([0, 0, 1]),
            random.choice([0, 1, 1]),
            random.choice([0, 1, 7]),
        ]
        return proof._replace(leaf=LeafOp(*numbers, leaf.prefix))
    if kind == 2:
        return proof._replace(path=tuple(random.choice([path[at:], path[:at]])))
    if kind == 3 and path:
        return proof._replace(path=(*path[:at], spoil_step(random, path[at]), *path[at + 1 :]))
    if kind == 4 and path:
        return proof._replace(path=(*path[:at], spoil_step(random, path[at]), *path[at:]))
    return proof._replace(key=spoil_bytes(random, proof.key) or b"k")


def make_proof_case(random: Random):
    """(spec, root, key, value or None for absence, bytes); the root is the one to which the forged proof leads."""
    name = random.choice(list(TREES))
    tree, _ = TREES[name]
    keys = sorted(ENTRIES)
    if random.random() < 0.6:
        proof = tree.prove(random.choice(keys))
        for _ in range(random.choice([0, 1, 1, 2])):
            proof = spoil_proof(random, proof)
        return name, ics23.compute_existence_root(proof), proof.key, proof.value, ics23.encode_entry(proof)
    at = random.randrange(len(keys) - 2)
    left, right = tree.prove(keys[at]), tree.prove(keys[at + random.choice([0, 1, 1, 1, 2])])
    if random.random() < 0.3:
        left = spoil_proof(random, left)
    sides = random.choice([(left, right)] * 3 + [(left, None), (None, right), (right, left)])
    key = random.choice([keys[at] + b"\0", keys[at][:-1], b"\0", b"\xff", keys[at], keys[at + 1]])
    root = random.choice([tree.root, ics23.compute_existence_root(sides[0] or right)])
    return name, root, key, None, ics23.encode_entry(NonExistenceProof(key, *sides))


def judge_proof(name, root, key, value, raw) -> str:
    spec = TREES[name][1]
    try:
        proof = ics23.decode_proof(raw)
        if value is None:
            ics23.verify_non_membership(spec, root, proof, key)
        else:
            ics23.verify_membership(spec, root, proof, key, value)
    except Rejected as error:
        return error.reason
    return "accepted"


def test_no_forged_proof_is_taken_that_the_formats_own_library_refuses(ask):
    random = Random(2)
    cases, ours = [], []
    while len(cases) < 20_000:
        try:
            name, root, key, value, raw = make_proof_case(random)
        except Rejected:
            continue  # what has no root at all
        shown = {"Spec": name, "Root": root.hex(), "Key": key.hex(), "Value": (value or b"").hex(), "Proof": raw.hex()}
        cases.append({**shown, "Exists": value is not None})
        ours.append(judge_proof(name, root, key, value, raw))
    theirs = ask("proofs", cases)
    tally = Counter(zip(ours, theirs, strict=True))
    forged = [c for c, a, b in zip(cases, ours, theirs, strict=True) if a == "accepted" and b != a]
    assert forged == [], tally
    # what only we refuse: hidden bytes, steps and varints of no honest form (decision 0037)
    stricter = {a for a, b in zip(ours, theirs, strict=True) if b == "accepted" and a != b}
    assert stricter <= {"bad_leaf", "bad_inner", "bad_iavl_op", "bad_protobuf"}, tally
    assert tally[("accepted", "accepted")] > 2000, tally
