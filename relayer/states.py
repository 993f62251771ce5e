"""Folded vault states at any recorded sequence, from the newest one down: cached, rebuilt from stored snapshots and facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from messages.documents import Parameters
from messages.errors import Rejected
from messages.hashing import keccak256
from messages.outbox import Fact
from relayer.rules.ledger import (
    VaultState,
    apply_facts,
    decode_vault_state,
    encode_vault_state,
    get_initial_state,
    get_vault_id,
)
from relayer.rules.prices import get_settlement_key
from relayer.store import SNAPSHOT_EVERY, SNAPSHOTS_KEPT, SPARSE_SNAPSHOT_EVERY, Store

KEPT_STATES = 12
"""States per vault that stay in memory: the newest, and those of cuts that are being agreed on."""


class VaultStates:
    """The fold of every vault of the parameters."""

    def __init__(self, store: Store, parameters: Parameters) -> None:
        self._store = store
        self._initial = {get_vault_id(v): get_initial_state(v) for v in parameters.vaults}
        self._kept: dict[bytes, dict[int, VaultState]] = {vault_id: {} for vault_id in self._initial}
        self._newest: dict[bytes, VaultState] = {}  # who records facts says so (`record`): asked for with every message

    def get_newest(self, vault_id: bytes) -> VaultState:
        """The state after the last recorded fact."""
        if vault_id not in self._newest:
            self._newest[vault_id] = self.get_at(vault_id, self._store.get_cursor(vault_id).sequence)
        return self._newest[vault_id]

    def get_all_newest(self) -> dict[bytes, VaultState]:
        """Every vault's newest state."""
        return {vault_id: self.get_newest(vault_id) for vault_id in self._initial}

    def get_at(self, vault_id: bytes, sequence: int) -> VaultState:
        """The state after a recorded sequence.

        Raises:
            Rejected: that far nothing is recorded; reason ``not_recorded``.
        """
        kept = self._kept[vault_id]
        if sequence in kept:
            return kept[sequence]
        base = max((s for s in kept if s < sequence), default=-1)
        state = kept[base] if base >= 0 else self._initial[vault_id]
        stored = self._store.get_snapshot(vault_id, sequence)
        if stored is not None and stored[0] > max(base, 0):
            state = decode_vault_state(stored[1])
        state = apply_facts(state, self._store.iterate_facts(vault_id, state.outbox_sequence, sequence))
        if state.outbox_sequence != sequence:
            raise Rejected(
                "these facts are not recorded",
                got=sequence,
                expected=f"<= {state.outbox_sequence}",
                reason="not_recorded",
            )
        self._keep(vault_id, state)
        return state

    def compute_after(
        self, vault_id: bytes, facts: Sequence[Fact], *, upto: int = 0
    ) -> tuple[VaultState, tuple[tuple[int, bytes], ...]]:
        """The state after facts that are about to be recorded, and the snapshots that go with them.

        ``upto``: the number that they are a part of the way to: of states long before it only those that would be kept are written.
        """
        dense = upto - SNAPSHOTS_KEPT * SNAPSHOT_EVERY
        state = self.get_newest(vault_id)
        snapshots: list[tuple[int, bytes]] = []
        at = 0
        while at < len(facts):
            room = SNAPSHOT_EVERY - state.outbox_sequence % SNAPSHOT_EVERY
            state = apply_facts(state, facts[at : at + room])
            at += room
            at_hand = state.outbox_sequence >= dense or state.outbox_sequence % SPARSE_SNAPSHOT_EVERY == 0
            if state.outbox_sequence % SNAPSHOT_EVERY == 0 and at_hand:
                snapshots.append((state.outbox_sequence, encode_vault_state(state)))
        return state, tuple(snapshots)

    def record(self, vault_id: bytes, state: VaultState) -> None:
        """Remember a state whose facts have just been recorded."""
        self._newest[vault_id] = state
        self._keep(vault_id, state)

    def record_part(self, vault_id: bytes, state: VaultState) -> None:
        """As `record`, for facts whose proven head comes later: no cut names this state, so it takes no place from one that is named."""
        self._newest[vault_id] = state

    def _keep(self, vault_id: bytes, state: VaultState) -> None:
        kept = self._kept[vault_id]
        kept[state.outbox_sequence] = state
        while len(kept) > KEPT_STATES:
            del kept[min(kept)]


def get_price_slots(states: Iterable[VaultState]) -> dict[bytes, bytes]:
    """Per listed series the hash of what its settlement price depends on: (underlying, expiry, source, window)."""
    slots: dict[bytes, bytes] = {}
    for state in states:
        for series, definition in state.series.items():
            key = get_settlement_key(definition)
            numbers = key.expiry.to_bytes(32, "big") + key.twap_seconds.to_bytes(32, "big")
            slots[series] = keccak256(key.underlying + key.price_source + numbers)
    return slots


def get_positions(states: Mapping[bytes, VaultState], times: Mapping[bytes, int]) -> dict[bytes, tuple[int, int]]:
    """(inbox sequence, state time) per vault: what decides the fate of open packets."""
    return {vault_id: (states[vault_id].inbox_sequence, times[vault_id]) for vault_id in states}
