"""What facts of each trust tier may count for (protocol.md 10, ibc-v2.md 12, margin.md 7.7): haircut, weight, most value. Pure.

Three numbers per tier, each stricter the higher the tier, the first two growing with the age of the newest proven head:

* haircut: what cash known by such facts loses beyond its token's own haircut;
* weight w_c: how far a portfolio's initial margin is judged as if that chain's surplus were not there (margin.md 7.1);
* value limit: the most that such facts may carry of one portfolio's initial margin, and of the house's cash at one vault. What goes
  beyond needs a better tier: there w_c = 1.

A light client (tier 1) has none of them unless the operators say so; tiers 4 and 5 are never credited at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Final

from messages.amounts import ceil_div
from messages.documents import TierParameters
from messages.errors import Rejected
from messages.outbox import CREDITED_LEVELS

PPM: Final = 1_000_000
HOUR_S: Final = 3_600
MAX_PPM_PER_HOUR: Final = 3_600 * PPM  # everything is gone within a second


@dataclass(frozen=True, slots=True)
class TierTerms:
    """What facts of one tier count for. `value_limit` is in whole units of the account currency, None where there is no limit."""

    level: int
    haircut_ppm: int
    haircut_ppm_per_hour: int
    weight_ppm: int
    weight_ppm_per_hour: int
    value_limit: Fraction | None

    @property
    def is_limiting(self) -> bool:
        """Whether a chain of this tier is looked at apart when initial margin is judged."""
        return bool(self.weight_ppm or self.weight_ppm_per_hour) or self.value_limit is not None


TierTable = Mapping[int, TierTerms]
"""Terms by level, for every level that is credited."""

DEFAULT_TIERS: Final[TierTable] = {
    1: TierTerms(1, 0, 0, 0, 0, None),
    2: TierTerms(2, 2_500, 2_500, 10_000, 20_000, Fraction(10_000_000)),
    3: TierTerms(3, 5_000, 10_000, 20_000, 40_000, Fraction(1_000_000)),
}
"""In force where the operators' parameters say nothing of a tier (decision 0041)."""


def verify_tiers(rows: tuple[TierParameters, ...], decimals: int) -> TierTable:
    """Return the terms of every credited tier: those of the parameters, the defaults for the others.

    Args:
        rows: the table `tiers` of the parameters, ascending by level.
        decimals: of the account currency; value limits are in its smallest unit.

    Raises:
        Rejected: names the key; reason "bad_parameters". A worse tier may never be better in anything.
    """
    table = dict(DEFAULT_TIERS)
    levels = [row.level for row in rows]
    if levels != sorted(set(levels)) or not set(levels) <= set(CREDITED_LEVELS):
        raise Rejected(
            "tiers[].level: each credited tier at most once, ascending",
            got=levels,
            expected=CREDITED_LEVELS,
            reason="bad_parameters",
        )
    for index, row in enumerate(rows):
        for name, value, most in (
            ("haircut_ppm", row.haircut_ppm, PPM),
            ("haircut_ppm_per_hour", row.haircut_ppm_per_hour, MAX_PPM_PER_HOUR),
            ("weight_ppm", row.weight_ppm, PPM),
            ("weight_ppm_per_hour", row.weight_ppm_per_hour, MAX_PPM_PER_HOUR),
            ("value_limit", row.value_limit, None),
        ):
            if value < 0 or (most is not None and value > most):
                raise Rejected(
                    f"tiers[{index}].{name} is out of range",
                    got=value,
                    expected="0 or more" if most is None else f"0 to {most}",
                    reason="bad_parameters",
                )
        table[row.level] = TierTerms(
            row.level,
            row.haircut_ppm,
            row.haircut_ppm_per_hour,
            row.weight_ppm,
            row.weight_ppm_per_hour,
            Fraction(row.value_limit, 10**decimals),
        )
    for better, worse in pairwise(CREDITED_LEVELS):
        _verify_order(table[better], table[worse])
    return table


def _verify_order(better: TierTerms, worse: TierTerms) -> None:
    for name in ("haircut_ppm", "haircut_ppm_per_hour", "weight_ppm", "weight_ppm_per_hour"):
        low, high = getattr(better, name), getattr(worse, name)
        if low > high:
            raise Rejected(
                f"tiers: {name} of tier {worse.level} is less than that of tier {better.level}, which is the better one",
                got=high,
                expected=f">= {low}",
                reason="bad_parameters",
            )
    if better.value_limit is not None and (worse.value_limit is None or worse.value_limit > better.value_limit):
        raise Rejected(
            f"tiers: value_limit of tier {worse.level} is more than that of tier {better.level}, which is the better one",
            got=worse.value_limit,
            expected=f"<= {better.value_limit}",
            reason="bad_parameters",
        )


def compute_tier_haircut_ppm(terms: TierTerms, age_s: int) -> int:
    """Return what cash loses because of how it is known, in parts per million, rounded up, at most all of it."""
    return _grow(terms.haircut_ppm, terms.haircut_ppm_per_hour, age_s)


def compute_weight_ppm(terms: TierTerms, age_s: int) -> int:
    """Return w_c of a chain (margin.md 7.1) in parts per million, rounded up, at most 1."""
    return _grow(terms.weight_ppm, terms.weight_ppm_per_hour, age_s)


def _grow(start_ppm: int, ppm_per_hour: int, age_s: int) -> int:
    return min(PPM, start_ppm + ceil_div(max(0, age_s) * ppm_per_hour, HOUR_S))


def get_required_tier(table: TierTable, value: Fraction) -> int:
    """Return the worst tier whose facts may carry a value (whole units of the account currency); 0 where none may."""
    return max((level for level, t in table.items() if t.value_limit is None or value <= t.value_limit), default=0)
