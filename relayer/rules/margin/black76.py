"""Black-76 option values on a forward (margin.md 2.1), generic over the arithmetic.

Source: F. Black, "The pricing of commodity contracts" (1976); edge rules as published with lyra-utils' Black76.
"""

from __future__ import annotations

from typing import Final

from messages.errors import Rejected
from relayer.rules.margin.numbers import N, Numbers

YEAR_S: Final = 365 * 86_400
# From this total volatility on the distribution has no middle: the call is worth the forward.
_TOTAL_VOLATILITY_LIMIT: Final = 24
# A total volatility of zero is taken as 1e-18, so that intrinsic value is the limit and not a division by zero.
_TOTAL_VOLATILITY_FLOOR_SCALE: Final = 18


def compute_option_prices(
    numbers: Numbers[N], *, forward: N, strike: N, volatility: N, seconds: int, discount: N
) -> tuple[N, N]:
    """Return (call, put) in units of the quote currency for one unit of the underlying (margin.md 2.1).

    forward, strike, volatility (per sqrt year) and discount are >= 0; `seconds` to expiry, negative counts as 0.
    call <= forward * discount and put <= strike * discount always hold.

    Raises:
        Rejected: a negative or non-finite input, reason "bad_market_value".
    """
    zero, one = numbers.zero, numbers.one
    for name, value in (("forward", forward), ("strike", strike), ("volatility", volatility), ("discount", discount)):
        if not value >= zero:
            raise Rejected(
                f"{name} of an option price is not a number >= 0", got=value, expected=">= 0", reason="bad_market_value"
            )
    if strike == zero:
        return forward * discount, zero
    if zero in {forward, discount}:
        return zero, strike * discount
    tau = numbers.from_ratio(max(seconds, 0), YEAR_S)
    total = volatility * numbers.sqrt(tau)
    if total == zero:
        total = numbers.from_ratio(1, 10**_TOTAL_VOLATILITY_FLOOR_SCALE)
    moneyness = strike / forward
    if total >= _TOTAL_VOLATILITY_LIMIT:
        upper, lower = one, zero
    else:
        d1 = (total * total / 2 - numbers.ln(moneyness)) / total
        upper, lower = numbers.ndtr(d1), numbers.ndtr(d1 - total)
    share = min(one, max(zero, upper - moneyness * lower))
    call = discount * forward * share
    # The put follows by parity from the clipped call, so that parity holds to the last digit that the cap leaves.
    put = discount * forward * max(zero, share + moneyness - one)
    return min(call, forward * discount), min(put, strike * discount)


def compute_tau(numbers: Numbers[N], seconds: int) -> N:
    """Return the time to expiry in years of 365 days (margin.md 1); negative seconds count as 0."""
    return numbers.from_ratio(max(seconds, 0), YEAR_S)
