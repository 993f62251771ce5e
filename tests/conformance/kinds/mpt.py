"""RLP, tries and proofs. Files are told apart by the shape of their entries.

* ``{in, out}``: RLP; ``in`` = "INVALID" must be refused.
* ``{in, root}``: a trie (or secure trie, by the word in the name of the file) with its root; every key is proven besides, by a proof
  that py-trie makes, and so is an absent neighbour of it.
* ``{in, tests}``: keys with their neighbours in order; presence and absence of each is proven.
* ``{root, key, proof, expect}``: proof suites. ``policy`` may be accepted or refused, never crash.
* ``{state_root, proof}`` and ``{base, patch}``: answers of `eth_getProof`, whose claims must be what the walk finds.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import rlp
from trie import HexaryTrie

from chains.evm import mpt, proofs
from chains.evm.beacon_json import parse_hex, parse_integer, parse_proof_json
from messages.errors import Rejected
from messages.hashing import keccak256
from tests.conformance.case import Case
from tests.conformance.evm_vectors import unhex

EMPTY_CODE = keccak256(b"")


def discover(root: Path) -> Iterator[Case]:
    for path in sorted(root.rglob("*.json")):
        data = json.loads(path.read_text())
        file = str(path.relative_to(root))
        for name, check in find_cases(data, secure="secure" in path.name.lower()):
            yield Case("mpt", f"{file}: {name}", check)


def find_cases(data: dict[str, Any], *, secure: bool) -> Iterator[tuple[str, Callable[[], None]]]:
    bases = {base["name"]: base for base in data.get("base_cases", [])}
    for case in data.get("cases", []):
        if "base" in case:
            yield f"{case['base']}: {case['name']}", partial(run_mutation, bases[case["base"]], case)
        elif "state_root" in case:
            yield case["name"], partial(run_answer, case["proof"], case)
        else:
            yield case["name"], partial(run_proof, case)
    in_place = data.get("in_place")
    for path, value in in_place["nibble_cases"] if in_place else ():
        yield f"in place {path}", partial(run_nibbles, in_place, path, value)
    for name, entry in data.items():
        if not isinstance(entry, dict) or "in" not in entry:
            continue
        if "out" in entry:
            yield name, partial(run_rlp, entry)
        elif "root" in entry:
            yield name, partial(run_trie, entry, secure)
        elif "tests" in entry:
            for test in entry["tests"]:
                yield f"{name} {test}", partial(run_neighbours, entry["in"], test)


# ---- RLP --------------------------------------------------------------------------------------------------------------


def run_rlp(entry: dict[str, Any]) -> None:
    data = unhex(entry["out"])
    if entry["in"] == "INVALID":
        with pytest.raises(Rejected) as error:
            mpt.decode_rlp(data)
        assert error.value.reason == "bad_rlp"
        return
    if entry["in"] == "VALID":
        assert mpt.encode_rlp(mpt.decode_rlp(data)) == data
        return
    value = read_item(entry["in"])
    assert mpt.encode_rlp(value) == data
    assert mpt.decode_rlp(data) == value


def read_item(value: Any) -> Any:
    if isinstance(value, list):
        return [read_item(item) for item in value]
    if isinstance(value, str) and value.startswith("#"):
        value = int(value[1:])
    return mpt.encode_rlp_integer(value) if isinstance(value, int) else value.encode()


# ---- tries ------------------------------------------------------------------------------------------------------------


def read_text(text: str) -> bytes:
    return unhex(text) if text.startswith("0x") else text.encode()


def run_trie(entry: dict[str, Any], secure: bool) -> None:
    pairs = entry["in"].items() if isinstance(entry["in"], dict) else entry["in"]
    entries: dict[bytes, bytes] = {}
    for key, value in pairs:
        name = keccak256(read_text(key)) if secure else read_text(key)
        if value:
            entries[name] = read_text(value)
        else:
            entries.pop(name, None)
    root = mpt.compute_trie_root(entries)
    assert root == unhex(entry["root"])
    trie = HexaryTrie({})
    for key, value in entries.items():
        trie[key] = value
    for key, value in entries.items():
        assert mpt.verify_trie_value(root, key, get_nodes(trie, key)) == value
        absent = key[:-1] + bytes((key[-1] ^ 0x55,)) if key else b"x"
        assert mpt.verify_trie_value(root, absent, get_nodes(trie, absent)) == entries.get(absent)


def run_neighbours(keys: list[str], test: list[str]) -> None:
    entries = {read_text(key): read_text(key) for key in keys}
    trie = HexaryTrie({})
    for key, value in entries.items():
        trie[key] = value
    root = mpt.compute_trie_root(entries)
    assert root == trie.root_hash
    for text in test:
        key = read_text(text)
        if key or entries:
            assert mpt.verify_trie_value(root, key, get_nodes(trie, key)) == entries.get(key)


def get_nodes(trie: HexaryTrie, key: bytes) -> list[bytes]:
    """Return the proof of a key by py-trie, without the nodes that lie inside their parents."""
    nodes = [rlp.encode(node) for node in trie.get_proof(key)]
    return [node for i, node in enumerate(nodes) if i == 0 or len(node) >= 32]


# ---- proof suites -----------------------------------------------------------------------------------------------------


def judge(root: str, key: bytes, nodes: list[bytes]) -> tuple[str, bytes | None]:
    try:
        value = mpt.verify_trie_value(unhex(root), key, nodes)
    except Rejected:
        return "reject", None
    return ("exclusion" if value is None else "inclusion"), value


def run_proof(case: dict[str, Any]) -> None:
    expect = case["expect"]
    key = unhex(case["key"])
    nodes = [unhex(node) for node in case["proof"]]
    verdict, value = judge(case["root"], key, nodes)
    if expect == "policy":
        return
    if expect == "not_inclusion":
        assert verdict != "inclusion", value
        return
    assert verdict == expect, f"got {verdict}, expected {expect}"
    if expect == "inclusion":
        assert value == unhex(case["value"])
        hashed_only = [node for i, node in enumerate(nodes) if i == 0 or len(node) >= 32]
        assert judge(case["root"], key, hashed_only) == ("inclusion", value), "inlined nodes need not be listed"
        for i, node in enumerate(nodes):
            for at in {0, len(node) // 2, len(node) - 1}:
                flipped = node[:at] + bytes((node[at] ^ 1,)) + node[at + 1 :]
                assert judge(case["root"], key, [*nodes[:i], flipped, *nodes[i + 1 :]])[0] == "reject"


def run_nibbles(suite: dict[str, Any], path: str, value: str | None) -> None:
    got = mpt.verify_trie_path(unhex(suite["root"]), path, [unhex(node) for node in suite["proof"]])
    assert got == (None if value is None else unhex(value))


# ---- eth_getProof -----------------------------------------------------------------------------------------------------


def run_mutation(base: dict[str, Any], case: dict[str, Any]) -> None:
    answer = copy.deepcopy(base["proof"])
    for path, value in case["patch"]:
        target = answer
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value
    run_answer(answer, {**base, **case})


def run_answer(answer: dict[str, Any], case: dict[str, Any]) -> None:
    """The product reads nodes only; here every claim of the answer is compared with what the nodes prove."""
    try:
        is_true = is_answer_proven(answer, unhex(case["state_root"]), case.get("account_exists", True))
        verdict = "accept" if is_true else "reject"
    except Rejected as error:
        verdict = f"reject ({error.reason})"
    if case["expect"] != "policy":
        assert verdict.split()[0] == case["expect"], f"got {verdict}, expected {case['expect']}"


def is_answer_proven(answer: dict[str, Any], state_root: bytes, exists: bool) -> bool:
    address = parse_hex(answer["address"], "address", 20)
    nodes = tuple(unhex(node) for node in answer["accountProof"])
    account = proofs.verify_account(state_root, address, nodes)
    if (account is not None) != exists:
        return False
    if account is None:
        account = proofs.Account(0, 0, mpt.EMPTY_ROOT, EMPTY_CODE)
    claims = (
        parse_integer(answer["nonce"], "nonce"),
        parse_integer(answer["balance"], "balance", 256),
        parse_hex(answer["storageHash"], "storageHash", 32),
        parse_hex(answer["codeHash"], "codeHash", 32),
    )
    if claims != (account.nonce, account.balance_wei, account.storage_root, account.code_hash):
        return False
    for entry in answer["storageProof"]:
        key = entry["key"] if entry["key"].startswith("0x") else "0x" + entry["key"]
        proof = parse_proof_json(answer, address, int(key, 16))
        value = proofs.verify_slot(account.storage_root, proof.slot, proof.storage_nodes)
        if int.from_bytes(value, "big") != parse_integer(entry["value"], "value", 256):
            return False
    return True
