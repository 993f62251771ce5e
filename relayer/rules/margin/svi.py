"""Mark volatility: one SVI slice per expiry (margin.md 2.2) and its arbitrage flags (margin.md 6, rule 6).

Sources: J. Gatheral, "A parsimonious arbitrage-free implied volatility parameterization" (2004); Gatheral and Jacquier,
"Arbitrage-free SVI volatility surfaces" (2014) for the flags; the clips as published with lyra-utils' SVI.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic

from messages.errors import Rejected
from relayer.rules.margin.numbers import N, Numbers

# Highest total variance a slice may give: sqrt(144) = 12 is far beyond any quoted market.
_VARIANCE_LIMIT: Final = 144
# Log-strikes of the flag grid: 61 points over +-3 cover strikes from 5 % to 2000 % of the forward.
_GRID_HALF: Final = 30
_GRID_STEP_DENOMINATOR: Final = 10


@dataclass(frozen=True)
class SviSlice(Generic[N]):
    """Raw SVI in total variance: w(k) = a + b * (rho * (k - m) + sqrt((k - m)^2 + s^2)), k = ln(strike / forward).

    `forward` and `tau` (years) are those the slice was published with, never today's.
    """

    a: N
    b: N
    rho: N
    m: N
    s: N
    forward: N
    tau: N


def compute_svi_variance(numbers: Numbers[N], svi: SviSlice[N], log_strike: N) -> N:
    """Return w(k) without clips; the raw value may be negative for a bad slice."""
    shifted = log_strike - svi.m
    return svi.a + svi.b * (svi.rho * shifted + numbers.sqrt(shifted * shifted + svi.s * svi.s))


def compute_svi_volatility(numbers: Numbers[N], svi: SviSlice[N], strike: N) -> N:
    """Return the volatility (per sqrt year) at a strike >= 0; 0 at strike 0 (margin.md 2.2).

    The log-strike is clipped to +-4*sqrt(a + b*s) and the variance to 144, as published; violent slices are clipped, not refused.

    Raises:
        Rejected: forward or tau not positive, a + b*s < 0, or w < 0; reason "invalid_slice".
    """
    zero = numbers.zero
    if strike == zero:
        return zero
    if not (svi.forward > zero and svi.tau > zero and strike > zero):
        raise Rejected(
            "a volatility slice needs a positive forward, time to expiry and strike",
            got=(svi.forward, svi.tau, strike),
            expected="> 0",
            reason="invalid_slice",
        )
    middle = svi.a + svi.b * svi.s
    if not middle >= zero:
        raise Rejected("a volatility slice has a + b*s < 0", got=middle, expected=">= 0", reason="invalid_slice")
    bound = 4 * numbers.sqrt(middle)
    log_strike = max(-bound, min(bound, numbers.ln(strike / svi.forward)))
    variance = compute_svi_variance(numbers, svi, log_strike)
    if not variance >= zero:
        raise Rejected(
            "a volatility slice has negative variance", got=variance, expected=">= 0", reason="invalid_slice"
        )
    return numbers.sqrt(min(variance, numbers.from_int(_VARIANCE_LIMIT)) / svi.tau)


def get_svi_flags(numbers: Numbers[N], svi: SviSlice[N]) -> tuple[str, ...]:
    """Return the names of the no-arbitrage conditions a slice breaks, () for a clean one (margin.md 6, rule 6).

    Words: "b", "rho", "s", "minimum", "wings", "butterfly". Flags never stop anything: they are shown, and cut confidence.
    """
    zero, one = numbers.zero, numbers.one
    flags = []
    if svi.b < zero:
        flags.append("b")
    if not abs(svi.rho) < one:
        flags.append("rho")
    if svi.s <= zero:
        flags.append("s")
    if abs(svi.rho) <= one and svi.a + svi.b * svi.s * numbers.sqrt(one - svi.rho * svi.rho) < zero:
        flags.append("minimum")
    if svi.b * (one + abs(svi.rho)) > 2:
        flags.append("wings")
    if any(_compute_durrleman(numbers, svi, k) < zero for k in _get_grid(numbers)):
        flags.append("butterfly")
    return tuple(flags)


def is_calendar_free(numbers: Numbers[N], near: SviSlice[N], far: SviSlice[N]) -> bool:
    """Return whether total variance does not fall from the nearer to the farther slice at any log-strike of the grid."""
    return all(
        compute_svi_variance(numbers, far, k) >= compute_svi_variance(numbers, near, k) for k in _get_grid(numbers)
    )


def _get_grid(numbers: Numbers[N]) -> list[N]:
    return [numbers.from_ratio(i, _GRID_STEP_DENOMINATOR) for i in range(-_GRID_HALF, _GRID_HALF + 1)]


def _compute_durrleman(numbers: Numbers[N], svi: SviSlice[N], log_strike: N) -> N:
    """Durrleman's g(k): the risk-neutral density is non-negative where g >= 0. A variance <= 0 counts as a breach."""
    shifted = log_strike - svi.m
    root = numbers.sqrt(shifted * shifted + svi.s * svi.s)
    variance = compute_svi_variance(numbers, svi, log_strike)
    if variance <= numbers.zero or root == numbers.zero:
        return -numbers.one
    slope = svi.b * (svi.rho + shifted / root)
    curvature = svi.b * svi.s * svi.s / (root * root * root)
    ratio = numbers.one - log_strike * slope / (2 * variance)
    quarter = numbers.from_ratio(1, 4)
    return ratio * ratio - slope * slope / 4 * (numbers.one / variance + quarter) + curvature / 2
