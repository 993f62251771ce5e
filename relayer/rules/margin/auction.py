"""Liquidation: the published Dutch auction of a whole portfolio (margin.md 5), and its simplest right form, a stated discount.

Pure functions, generic over the arithmetic. MM: maintenance margin; MtM: what the portfolio is worth at marks, cash included.
The plan uses the stated discount: positions go to HOUSE at mark less the discount, in steps, until the buffer is met
(protocol.md 7.4, `liquidation` of data.md 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final

from messages.amounts import ceil_div
from messages.errors import Rejected
from relayer.rules.margin.numbers import N, Numbers

PPM: Final = 1_000_000


@dataclass(frozen=True)
class AuctionParameters:
    """Table of margin.md 5: shares as exact decimals, lengths in seconds."""

    start: Decimal  # s0, share of worth asked at the start
    cutoff: Decimal  # c, share at the end of the fast part
    fast_s: int
    slow_s: int
    insolvent_s: int
    fee: Decimal
    buffer: Decimal  # bmPct


MAIN_NET_AUCTION: Final = AuctionParameters(
    start=Decimal("0.95"),
    cutoff=Decimal("0.70"),
    fast_s=900,
    slow_s=43_200,
    insolvent_s=3_600,
    fee=Decimal("0.10"),
    buffer=Decimal("0.15"),
)


def compute_buffer_margin(numbers: Numbers[N], maintenance: N, worth: N, parameters: AuctionParameters) -> N:
    """Return BM = MM + buffer * (MM - MtM): an auction that has begun goes on until this, not MM, is met."""
    return maintenance + numbers.from_decimal(parameters.buffer) * (maintenance - worth)


def compute_discount(numbers: Numbers[N], elapsed_s: int, parameters: AuctionParameters) -> N:
    """Return the share d(t) of worth that a bidder pays: falls fast from start to cutoff, then slowly to 0.

    Raises:
        Rejected: a time before the start, reason "bad_time".
    """
    if elapsed_s < 0:
        raise Rejected("an auction has no discount before its start", got=elapsed_s, expected=">= 0", reason="bad_time")
    start, cutoff = numbers.from_decimal(parameters.start), numbers.from_decimal(parameters.cutoff)
    if elapsed_s < parameters.fast_s:
        return start - (start - cutoff) * numbers.from_ratio(elapsed_s, parameters.fast_s)
    slow_s = elapsed_s - parameters.fast_s
    if slow_s < parameters.slow_s:
        return cutoff * (numbers.one - numbers.from_ratio(slow_s, parameters.slow_s))
    return numbers.zero


def compute_bid(worth: N, reserved: N, discount: N) -> N:
    """Return the price of the whole portfolio: (MtM - R) * d, where R is the cash already paid in this auction."""
    return (worth - reserved) * discount


def compute_maximum_fraction(numbers: Numbers[N], *, buffer_margin: N, worth: N, reserved: N, discount: N) -> N:
    """Return the largest share that may be sold: just what brings the buffer margin back to 0, never more than all.

    f = BM / (BM - MtM*d - R*(1-d)), BM capped at <= 0. Selling f at price f*(MtM-R)*d leaves (1-f)*BM + that cash.

    Raises:
        Rejected: the worth does not exceed what was paid already (not a solvent auction), reason "insolvent".
    """
    lacking = min(numbers.zero, buffer_margin)
    if lacking == numbers.zero:
        return numbers.zero
    if worth <= numbers.zero or reserved >= worth:
        raise Rejected("a portfolio without worth is not sold at a discount", got=worth, reason="insolvent")
    return min(numbers.one, lacking / (lacking - worth * discount - reserved * (numbers.one - discount)))


def compute_start_fee(numbers: Numbers[N], maintenance: N, worth: N, parameters: AuctionParameters) -> N:
    """Return what a solvent portfolio pays once to the insurance when its auction starts: f(d=1, R=0) * |MtM| * fee."""
    buffer_margin = compute_buffer_margin(numbers, maintenance, worth, parameters)
    if buffer_margin >= numbers.zero or worth <= numbers.zero:
        return numbers.zero
    fraction = compute_maximum_fraction(
        numbers, buffer_margin=buffer_margin, worth=worth, reserved=numbers.zero, discount=numbers.one
    )
    return fraction * abs(worth) * numbers.from_decimal(parameters.fee)


def compute_insolvent_price(
    numbers: Numbers[N], *, maintenance: N, worth: N, elapsed_s: int, parameters: AuctionParameters
) -> N:
    """Return the price (<= 0: the bidder is paid) of a whole insolvent portfolio: from min(MtM, 0) down to MM.

    Raises:
        Rejected: a time before the start, reason "bad_time".
    """
    if elapsed_s < 0:
        raise Rejected("an auction has no price before its start", got=elapsed_s, expected=">= 0", reason="bad_time")
    first = min(worth, numbers.zero)
    part = numbers.from_ratio(min(elapsed_s, parameters.insolvent_s), parameters.insolvent_s)
    return first + (maintenance - first) * part


# ---------------------------------------------------------------- the stated discount


def compute_liquidation_quantity_e8(quantity_e8: int, step_ppm: int) -> int:
    """Return how much of a position one step moves to HOUSE: the share, rounded up in size, with the sign of the holding.

    Rounding up makes every step move something, so a liquidation ends.

    Raises:
        Rejected: the step is not in (0, 1], reason "bad_parameters".
    """
    if not 0 < step_ppm <= PPM:
        raise Rejected(
            "a liquidation step is a share", got=step_ppm, expected=f"1 to {PPM} ppm", reason="bad_parameters"
        )
    size = ceil_div(abs(quantity_e8) * step_ppm, PPM)
    return size if quantity_e8 >= 0 else -size


def compute_liquidation_cash_units(
    price: Decimal, quantity_e8: int, multiplier_e8: int, *, discount_ppm: int, decimals: int
) -> int:
    """Return what the portfolio gets (+) or pays (-) for giving a signed quantity to HOUSE, in units of 10^-decimals.

    A long position is bought at mark * (1 - discount), a short one is taken over for mark * (1 + discount); floored, which is
    against the portfolio both ways. `price` is the mark per unit of the underlying from the DECIMAL arithmetic, so that every
    node gets the same unit.

    Raises:
        Rejected: the price is negative or not finite, or the discount not in [0, 1]; reason "bad_market_value", "bad_parameters".
    """
    if not price.is_finite() or price < 0:
        raise Rejected("a mark is not a number >= 0", got=price, expected=">= 0", reason="bad_market_value")
    if not 0 <= discount_ppm <= PPM:
        raise Rejected(
            "a liquidation discount is a share", got=discount_ppm, expected="0 to 1000000 ppm", reason="bad_parameters"
        )
    worth = Fraction(price) * Fraction(quantity_e8 * multiplier_e8, 10**16)
    factor = Fraction(PPM - discount_ppm if quantity_e8 > 0 else PPM + discount_ppm, PPM)
    scale: int = 10**decimals
    value = worth * factor
    return value.numerator * scale // value.denominator
