"""Checkpoints that a node's light clients began from: the configured one, and later ones where a client had to begin anew.

A light client whose newest state is older than its trusting period believes no update any more. People then give another checkpoint
(`relayer reanchor`); which, when and on whose word stays on record, because every proof says relative to which checkpoint it is true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from messages.documents import decode_document, encode_document

if TYPE_CHECKING:
    from relayer.proof_file import Anchor
    from relayer.store import Store

MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class TakenCheckpoint:
    """One beginning. checkpoint: 32 bytes. settings: of the light client, canonical JSON. height: of the header it led to.

    taken_at: unix seconds; 0: the configured one.
    """

    checkpoint: bytes
    settings: str
    height: int
    taken_at: int
    people: tuple[str, ...]
    note: str


@dataclass(frozen=True, slots=True)
class TakenCheckpoints:
    """All beginnings of one chain's light client, in order; recorded once there was a second one."""

    SCHEMA: ClassVar[str] = "optsettle/taken-checkpoints/1"
    taken: tuple[TakenCheckpoint, ...]


def get_checkpoints(store: Store, chain: str) -> tuple[TakenCheckpoint, ...]:
    """All beginnings on record; () where the configured checkpoint was the only one. Rejected ("malformed"): damaged."""
    found = store.get_setting(_get_key(chain))
    return () if found is None else decode_document(TakenCheckpoints, found, max_bytes=MAX_BYTES).taken


def record_checkpoints(store: Store, chain: str, taken: Sequence[TakenCheckpoint]) -> None:
    """Write all beginnings, in order."""
    store.record_setting(_get_key(chain), encode_document(TakenCheckpoints(tuple(taken))))


def get_anchors(store: Store, anchor: Anchor) -> tuple[Anchor, ...]:
    """The anchor of each bootstrap on record, in order; ``anchor``: as configured, of the only one or of none yet."""
    taken = get_checkpoints(store, anchor.chain)
    return tuple(replace(anchor, checkpoint=t.checkpoint, settings=t.settings) for t in taken) or (anchor,)


def _get_key(chain: str) -> str:
    return f"checkpoints/{chain}"
