"""Which number and which fee a transaction gets: the rules that all families share. Pure.

Fees: price = max(min(max(old * 1.10, estimate), 3 * estimate), old). Numbers (nonces, account sequences): see `choose_nonce`.

Source: the fee rule is that of the field's best (anchors.md 3, gas and nonces).
"""

from __future__ import annotations

from collections.abc import Sequence

from chains.base import SignedTx

BUMP_PERCENT = 10
ESTIMATE_MULTIPLE = 3


def compute_bumped_fee(old: int, estimate: int) -> int:
    """Fee of a replacement: max(min(max(old + 10 %, estimate), 3 * estimate), old), rounded up."""
    bumped = -(-old * (100 + BUMP_PERCENT) // 100)
    return max(min(max(bumped, estimate), ESTIMATE_MULTIPLE * estimate), old)


def is_replacement(old: int, new: int) -> bool:
    """Tell whether nodes would take ``new`` in place of ``old`` (go-ethereum: 10 % more of both fees)."""
    return new * 100 >= old * (100 + BUMP_PERCENT)


def choose_nonce(
    counts: Sequence[int], pending: Sequence[int], previous: Sequence[SignedTx], same: SignedTx | None
) -> tuple[int, bool]:
    """Nonce for a packet, and whether it replaces ``same``.

    ``counts`` and ``pending``: next nonce by each endpoint's word without and with its pool, at least one each. ``previous``: stored
    transactions of the account without an outcome. ``same``: the newest of them for this packet.
    """
    taken = {p.nonce for p in previous if same is None or p.nonce != same.nonce}
    # Endpoints lag far more often than they boast, so the highest word counts. A boast makes the transaction wait behind a gap for ever;
    # so every fourth try for one packet goes by the median instead.
    tries = sum(same is not None and p.packet_sequence == same.packet_sequence for p in previous)
    pick = get_middle if tries % 4 == 3 else max
    lowest = _get_free(pick(counts), taken)
    if same is not None and same.nonce == lowest:
        return lowest, True
    if lowest < pick(pending):
        # a pool holds something that is not stored here: another instance with this key, or an older store
        lowest = _get_free(pick(pending), taken)
    if same is not None and pick(counts) <= same.nonce < lowest:
        return same.nonce, True
    return lowest, False


def get_middle(numbers: Sequence[int]) -> int:
    """The median, the lower one of two: one endpoint of two or more cannot push it up."""
    return sorted(numbers)[(len(numbers) - 1) // 2]


def _get_free(start: int, taken: set[int]) -> int:
    while start in taken:
        start += 1
    return start
