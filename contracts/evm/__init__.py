"""Reader of the built contracts of the Ethereum family (`build/*.json`); needs no compiler.

The artefacts are committed and made by `python -m contracts.evm.compile`; `build/manifest.json` says from which sources.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

BUILD_FOLDER: Final = Path(__file__).resolve().parent / "build"


@dataclass(frozen=True)
class Artifact:
    """One compiled contract."""

    name: str
    abi: Sequence[Mapping[str, Any]]  # Solidity JSON ABI
    bytecode: bytes  # creation code; constructor arguments are appended to it
    runtime_bytecode: bytes  # deployed code before its immutables
    immutables_bytes: int  # values of the immutables, appended to the runtime code at creation
    storage_slots: Mapping[str, int]  # state variable -> first storage slot
    compiler: str
    evm_version: str


@cache
def get_artifact(name: str) -> Artifact:
    """Return the built contract ``name`` ("vault" or "erc20"); FileNotFoundError if there is none of that name."""
    record = json.loads((BUILD_FOLDER / f"{name}.json").read_text())
    return Artifact(
        name=record["name"],
        abi=tuple(record["abi"]),
        bytecode=bytes.fromhex(record["bytecode"].removeprefix("0x")),
        runtime_bytecode=bytes.fromhex(record["runtime_bytecode"].removeprefix("0x")),
        immutables_bytes=record["immutables_bytes"],
        storage_slots=record["storage_slots"],
        compiler=record["compiler"],
        evm_version=record["evm_version"],
    )


_SLOTS: Final = get_artifact("vault").storage_slots

OUTBOX_HEAD_SLOT: Final[int] = _SLOTS["outbox_head"]
"""Storage slot of the vault's outbox head, 32 bytes, never zero: what `eth_getProof` is asked for."""

OUTBOX_SEQUENCE_SLOT: Final[int] = _SLOTS["cursors"]
"""Storage slot whose lowest 64 bits are the outbox sequence; see `get_outbox_sequence`."""


def get_outbox_sequence(cursors: int) -> int:
    """Return the outbox sequence out of the word at OUTBOX_SEQUENCE_SLOT.

    The word is outbox_sequence | inbox_sequence << 64 | accepted_at << 128 | decided_upto << 192.
    """
    return cursors & (2**64 - 1)
