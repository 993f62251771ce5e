"""ICS-23 vectors. The kind of tree is the name of the folder or the ``spec`` of the entry; files are told apart by content.

* ``{root, proof, key, value}``: a proof of membership, or of absence where the value is empty; ``items`` list the entries of a batch.
  Each is also broken in every byte in turn (sampled), and never accepted then.
* ``inner_op_checks``: rules of single steps; ``cases``: proofs changed on purpose with what the verdict must be.
* the tables of the reference's own tests, by the fields of their entries: Leaf and Spec, Op and Key, Op and Child, Proof and Spec, ...
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from chains.cosmos import ics23
from chains.cosmos.ics23 import (
    IAVL_SPEC,
    SMT_SPEC,
    TENDERMINT_SPEC,
    ExistenceProof,
    InnerOp,
    InnerSpec,
    LeafOp,
    ProofSpec,
)
from messages.errors import Rejected
from tests.conformance.case import Case

SPECS = {"iavl": IAVL_SPEC, "tendermint": TENDERMINT_SPEC, "smt": SMT_SPEC}
MUTATIONS = 40


def discover(root: Path) -> Iterator[Case]:
    for path in sorted(root.rglob("*.json")):
        name = str(path.relative_to(root))
        cases = list(find_cases(path, json.loads(path.read_text())))
        for label, run in cases or [("", partial(fail, "no known layout of vectors"))]:
            yield Case("ics23", f"{name}: {label}", run)


def fail(why: str) -> None:
    raise AssertionError(why)


def find_cases(path: Path, data: Any) -> Iterator[tuple[str, Callable[[], None]]]:
    if not isinstance(data, dict):
        return
    if "proof" in data and "root" in data:
        spec = SPECS[next(part for part in reversed(path.parts) if part in SPECS)]
        if "items" in data:
            for i, item in enumerate(data["items"]):
                yield f"item {i}", partial(run_proof, spec, {**data, **item})
        else:
            yield "proof", partial(run_proof, spec, data)
        return
    for i, case in enumerate(data.get("inner_op_checks", [])):
        yield f"{i} {case['name']}", partial(run_inner_op_check, case)
    for i, case in enumerate(data.get("cases", [])):
        yield f"{i} {case['spec']} {case['check']} {case['name']}", partial(run_mutation, case)
    for i, case in enumerate(data.get("forged", data.get("forge", [])) or []):
        if isinstance(case, dict) and "check" in case:
            yield f"forged {i}", partial(run_mutation, case)
    for name, entry in data.items():
        if isinstance(entry, dict):
            run = find_table(entry)
            if run is not None:
                yield name, partial(run, entry)


def find_table(entry: dict[str, Any]) -> Callable[[dict[str, Any]], None] | None:
    keys = entry.keys()
    if {"Leaf", "Spec"} <= keys:
        return run_check_leaf
    if {"Proof", "Spec"} <= keys:
        return run_check_spec
    if {"Op", "Key"} <= keys:
        return run_leaf_op
    if {"Op", "Child"} <= keys:
        return run_inner_op
    if "HashOp" in keys:
        return run_hash
    if "Proof" in keys:
        return run_existence
    return None


# ---- whole proofs -----------------------------------------------------------------------------------------------------


def verify(spec: ProofSpec, root: bytes, proof: bytes, key: bytes, value: bytes, check: str) -> None:
    decoded = ics23.decode_proof(proof)
    if check == "membership":
        ics23.verify_membership(spec, root, decoded, key, value)
    else:
        ics23.verify_non_membership(spec, root, decoded, key)


def is_accepted(*args: Any) -> bool:
    return attempt(partial(verify, *args))


def run_proof(spec: ProofSpec, data: dict[str, Any]) -> None:
    root, proof, key, value = (bytes.fromhex(data.get(name) or "") for name in ("root", "proof", "key", "value"))
    check = "membership" if value else "non_membership"
    verify(spec, root, proof, key, value, check)
    assert not is_accepted(spec, root[:-1] + bytes([root[-1] ^ 1]), proof, key, value, check)
    assert not is_accepted(spec, b"", proof, key, value, check)
    if value:
        assert not is_accepted(spec, root, proof, key, value + b"\0", check)
        assert not is_accepted(spec, root, proof, key, b"", "non_membership")
    entries = ics23.decode_proof(proof)
    if len(entries) > 1:
        assert ics23.decode_proof(ics23.encode_batch(entries)) == entries
        assert ics23.decode_proof(ics23.encode_compressed_batch(entries)) == entries
        return
    assert ics23.encode_entry(entries[0]) == proof
    for at in range(0, len(proof), max(1, len(proof) // MUTATIONS)):
        broken = proof[:at] + bytes([proof[at] ^ (1 << at % 8)]) + proof[at + 1 :]
        try:
            entry = ics23.decode_proof(broken)[0]
        except Rejected:
            continue
        if isinstance(entry, ics23.NonExistenceProof) and entry._replace(key=entries[0].key) == entries[0]:
            continue  # the prover's own name of the key decides nothing
        assert not is_accepted(spec, root, broken, key, value, check), f"accepted with byte {at} changed"


def run_mutation(case: dict[str, Any]) -> None:
    parts = [bytes.fromhex(case.get(name) or "") for name in ("root", "proof", "key", "value")]
    assert is_accepted(SPECS[case["spec"]], *parts, case["check"]) == case["expect"]


def run_inner_op_check(case: dict[str, Any]) -> None:
    op = case["op"]
    step = InnerOp(op["hash"], bytes.fromhex(op["prefix"]), bytes.fromhex(op["suffix"]))
    spec = SPECS[case["spec"]]
    assert attempt(lambda: ics23.verify_inner_op(step, spec, case["layer"])) == case["expect_ok"]


# ---- tables of the reference ------------------------------------------------------------------------------------------


def attempt(call: Callable[[], object]) -> bool:
    """Tell whether a call accepts; a refusal must say why."""
    try:
        call()
    except Rejected as error:
        reason = error.reason
    else:
        return True
    assert reason
    return False


def unbase(value: str | None) -> bytes:
    return base64.b64decode(value) if value else b""


def read_leaf(value: dict[str, Any] | None) -> LeafOp | None:
    if value is None:
        return None
    numbers = [value.get(name, 0) for name in ("hash", "prehash_key", "prehash_value", "length")]
    return LeafOp(*numbers, unbase(value.get("prefix")))


def read_step(value: dict[str, Any]) -> InnerOp:
    return InnerOp(value.get("hash", 0), unbase(value.get("prefix")), unbase(value.get("suffix")))


def read_proof(value: dict[str, Any]) -> ExistenceProof:
    path = tuple(read_step(step) for step in value.get("path") or [])
    return ExistenceProof(unbase(value.get("key")), unbase(value.get("value")), read_leaf(value.get("leaf")), path)


def read_spec(value: dict[str, Any]) -> ProofSpec:
    inner = value["inner_spec"]
    leaf = read_leaf(value["leaf_spec"])
    assert leaf is not None
    return replace(
        IAVL_SPEC,
        leaf=leaf,
        inner=InnerSpec(
            tuple(inner["child_order"]),
            inner["child_size"],
            inner.get("min_prefix_length", 0),
            inner.get("max_prefix_length", 0),
            ics23.HashOp(inner.get("hash", 0)),
            unbase(inner.get("empty_child")),
        ),
        min_depth=value.get("min_depth", 0),
        max_depth=value.get("max_depth", 0),
    )


def run_check_leaf(entry: dict[str, Any]) -> None:
    leaf, spec = read_leaf(entry["Leaf"]), read_leaf(entry["Spec"])
    assert attempt(lambda: ics23.verify_leaf_op(leaf, spec)) != entry["IsErr"]


def run_check_spec(entry: dict[str, Any]) -> None:
    proof, spec = read_proof(entry["Proof"]), read_spec(entry["Spec"])
    assert attempt(lambda: ics23.verify_against_spec(proof, spec)) == (not entry["Err"])


def run_leaf_op(entry: dict[str, Any]) -> None:
    run_computation(
        entry, lambda: ics23.compute_leaf(read_leaf(entry["Op"]), unbase(entry["Key"]), unbase(entry["Value"]))
    )


def run_inner_op(entry: dict[str, Any]) -> None:
    run_computation(entry, lambda: ics23.compute_inner(read_step(entry["Op"]), unbase(entry["Child"])))


def run_existence(entry: dict[str, Any]) -> None:
    run_computation(entry, lambda: ics23.compute_existence_root(read_proof(entry["Proof"])))


def run_computation(entry: dict[str, Any], compute: Callable[[], bytes]) -> None:
    try:
        got = compute()
    except Rejected:
        assert entry["IsErr"], "refused"
        return
    assert not entry["IsErr"], "accepted"
    assert got == unbase(entry["Expected"])


def run_hash(entry: dict[str, Any]) -> None:
    text = entry.get("Preimage", entry.get("PreImage"))
    assert ics23.compute_hash(entry["HashOp"], text.encode()).hex() == entry["ExpectedHash"]
