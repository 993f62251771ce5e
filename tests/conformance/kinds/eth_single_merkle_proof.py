"""Official single-leaf branches: against the root of the object where it is given, else against the root they lead to.

Where the case names a leaf that the light client asks for, its generalised index must be the one of the product's fork table.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chains.evm import ssz
from chains.evm.forks import Fork, get_gindices
from messages.errors import Rejected
from tests.conformance.beacon_ssz import get_body_type, get_state_type
from tests.conformance.case import Case
from tests.conformance.evm_vectors import PRESETS, read_snappy, read_yaml, unhex

LEAVES = {  # word in the name of the case -> field of the fork table
    "current_sync_committee": "current_committee",
    "next_sync_committee": "next_committee",
    "finality_root": "finalized_root",
    "execution": "execution",
}


def discover(root: Path) -> Iterator[Case]:
    for proof in sorted(root.rglob("proof.yaml")):
        folder = proof.parent
        yield Case("eth_single_merkle_proof", str(folder.relative_to(root)), lambda folder=folder: run(folder))


def run(folder: Path) -> None:
    proof = read_yaml(folder / "proof.yaml")
    leaf, gindex = unhex(proof["leaf"]), proof["leaf_index"]
    branch = [unhex(chunk) for chunk in proof["branch"]]
    fork = next(Fork[part.upper()] for part in reversed(folder.parts) if part.upper() in Fork.__members__)
    minimal = next(part for part in reversed(folder.parts) if part in PRESETS) == "minimal"
    for word, field in LEAVES.items():
        if folder.name.startswith(word):
            assert gindex == getattr(get_gindices(fork), field), f"generalised index of {field}"
    path = folder / "object.ssz_snappy"
    if path.exists():
        get_type = {"BeaconState": get_state_type, "BeaconBlockBody": get_body_type}[folder.parent.name]
        kind = get_type(fork, minimal)
        data = read_snappy(path)
        value = kind.decode(data)
        assert kind.encode(value) == data
        root = kind.root(value)
    else:
        root = ssz.compute_branch_root(leaf, branch, gindex)
    assert ssz.is_valid_branch(leaf, branch, gindex, root)
    for i in range(len(branch)):
        other = [*branch[:i], bytes(b ^ 1 for b in branch[i]), *branch[i + 1 :]]
        assert not ssz.is_valid_branch(leaf, other, gindex, root), f"branch[{i}] flipped"
    assert not ssz.is_valid_branch(bytes(b ^ 1 for b in leaf), branch, gindex, root)
    with pytest.raises(Rejected):
        ssz.compute_branch_root(leaf, branch[1:], gindex)
