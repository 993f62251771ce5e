"""What a compute unit is paid with, in micro-lamports: the operator's limits, and what blocks ask for lately. Pure.

Source: Solana documentation, fees (prioritization fee = compute-unit price x compute-unit limit).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chains.sending import get_middle
from messages.errors import Rejected

MAX_UNITS = 1_400_000
"""Of one transaction, by the chain's own limit."""
SIGNATURE_LAMPORTS = 5_000
LAMPORTS_PER_SOL = 10**9
MICRO = 10**6
MARGIN_PERCENT = 15
MARGIN_UNITS = 1_000
PERCENTILE = 75


@dataclass(frozen=True)
class PricePolicy:
    """Limits of the operator: micro-lamports for a compute unit, at least and at most."""

    price: int
    max_price: int

    def __post_init__(self) -> None:
        if not 0 <= self.price <= self.max_price:
            raise Rejected(
                "unit_price_microlamports is not above max_unit_price_microlamports, and none is negative",
                got=(self.price, self.max_price),
                reason="bad_config",
            )

    def clamp(self, price: int) -> int:
        """A price within the limits."""
        return min(max(price, self.price), self.max_price)


def compute_unit_limit(used: int) -> int:
    """The limit for a transaction that needed ``used`` units when it was tried: a margin above it, and never above the chain's own.

    Tight, because the whole limit is paid for and counts against the room in a block.
    """
    return min(used * (100 + MARGIN_PERCENT) // 100 + MARGIN_UNITS, MAX_UNITS)


def compute_estimate(samples: Sequence[Sequence[int]]) -> int:
    """What to offer, from each endpoint's list of what the newest blocks asked for: its 75th percentile, and of these the lower median."""
    offers = [sorted(found)[(len(found) - 1) * PERCENTILE // 100] for found in samples if found]
    return get_middle(offers) if offers else 0


def compute_fee(units: int, price: int) -> int:
    """Lamports of a transaction with one signature, rounded up."""
    return SIGNATURE_LAMPORTS - (-units * price // MICRO)
