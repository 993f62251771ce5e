"""The committed artefacts are what the sources compile to, fit on chain and contain no way to be changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import pytest

from contracts.evm import BUILD_FOLDER, OUTBOX_HEAD_SLOT, OUTBOX_SEQUENCE_SLOT, get_artifact, get_outbox_sequence
from contracts.evm.compile import CONTRACTS, FOLDER, MAX_CODE_BYTES, MAX_INITCODE_BYTES, VYPER_VERSION, build
from messages.hashing import keccak256
from tests.contracts.harness import get_signature
from tests.contracts.setting import make_world

MANIFEST = json.loads((BUILD_FOLDER / "manifest.json").read_text())


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_manifest_names_the_sources_and_artefacts_that_are_here(name: str) -> None:
    entry = MANIFEST["contracts"][name]
    assert entry["source_sha256"] == hashlib.sha256((FOLDER / f"{name}.vy").read_bytes()).hexdigest()
    assert entry["artifact_sha256"] == hashlib.sha256((BUILD_FOLDER / f"{name}.json").read_bytes()).hexdigest()
    assert MANIFEST["compiler"] == get_artifact(name).compiler == f"vyper {VYPER_VERSION}"


def test_compiling_the_sources_gives_the_committed_bytes() -> None:
    pytest.importorskip("vyper", reason="vyper is a development dependency")
    files = build()
    assert set(files) == {p.name for p in BUILD_FOLDER.iterdir()}
    for name, data in files.items():
        assert data == (BUILD_FOLDER / name).read_bytes(), f"{name} is stale: run make contracts"


def test_a_changed_source_would_be_noticed() -> None:
    changed = (FOLDER / "vault.vy").read_bytes() + b"\n"
    assert MANIFEST["contracts"]["vault"]["source_sha256"] != hashlib.sha256(changed).hexdigest()


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_code_is_within_the_limits_of_the_chain(name: str) -> None:
    artifact = get_artifact(name)
    assert len(artifact.runtime_bytecode) + artifact.immutables_bytes <= MAX_CODE_BYTES
    assert len(artifact.bytecode) <= MAX_INITCODE_BYTES


def test_the_deployed_code_is_the_artefact_followed_by_its_immutables() -> None:
    artifact = get_artifact("vault")
    world = make_world()
    code = world.chain.get_code(world.vault.address)
    assert code[: len(artifact.runtime_bytecode)] == artifact.runtime_bytecode
    assert len(code) == len(artifact.runtime_bytecode) + artifact.immutables_bytes
    assert world.vault_id in code[len(artifact.runtime_bytecode) :]


def _opcodes(code: bytes) -> Iterator[int]:
    at = 0
    while at < len(code):
        yield code[at]
        at += 1 + (code[at] - 0x5F if 0x60 <= code[at] <= 0x7F else 0)


def _get_instructions(code: bytes) -> bytes:
    """Return the code without its data section: all before the last jump target's end is instructions."""
    out = get_artifact("vault")
    assert code == out.runtime_bytecode
    return code[: -_get_data_bytes(code)]


def _get_data_bytes(code: bytes) -> int:
    # vyper appends its selector table after the last instruction; it ends the runtime code
    return len(code) - code.rindex(bytes.fromhex("5f80fd")) - 3


def test_no_instruction_delegates_creates_or_destroys() -> None:
    instructions = set(_opcodes(_get_instructions(get_artifact("vault").runtime_bytecode)))
    forbidden = {0xF0: "CREATE", 0xF2: "CALLCODE", 0xF4: "DELEGATECALL", 0xF5: "CREATE2", 0xFF: "SELFDESTRUCT"}
    assert not instructions & set(forbidden)
    assert 0xF1 in instructions  # CALL: the tokens; so the scan does see calls


def test_nothing_in_the_interface_is_an_owner_or_an_upgrade() -> None:
    artifact = get_artifact("vault")
    writes = {f["name"] for f in artifact.abi if f["type"] == "function" and f["stateMutability"] != "view"}
    calls = "deposit link list_series offer cancel take request_withdrawal claim pause escape recv"
    assert writes == set(calls.split())
    assert not [f for f in artifact.abi if f.get("stateMutability") == "payable"]


def test_events_are_emitted_under_the_topics_that_the_interface_declares() -> None:
    events = {
        e["name"]: keccak256(get_signature(e).encode()) for e in get_artifact("vault").abi if e["type"] == "event"
    }
    assert set(events) == {"Outbox", "Inbox", "Certificate"}
    code = get_artifact("vault").runtime_bytecode
    for name in ("Outbox", "Inbox"):  # written by hand in the source, see raw_log there
        assert events[name] in code


def test_the_head_lies_in_the_exported_slot_from_creation_on() -> None:
    world = make_world()
    assert world.chain.get_storage(world.vault.address, OUTBOX_HEAD_SLOT).to_bytes(32, "big") == world.vault_id
    world.write("link", b"\1" * 32, 0, bytes(65), by=b"\x11" * 20)
    assert get_outbox_sequence(world.chain.get_storage(world.vault.address, OUTBOX_SEQUENCE_SLOT)) == 1
    assert world.vault.read("outbox_head") == world.head != world.vault_id
