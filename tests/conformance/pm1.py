"""PM1, an older published portfolio margin (margin.md 3): a reference that judges vectors; the product margins nobody by it.

Written from the formulas of margin.md 2 and 3, generic over the arithmetic like the product's own models.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from relayer.rules.margin.black76 import YEAR_S, compute_option_prices
from relayer.rules.margin.numbers import Numbers

MONTH_S = 30 * 86_400
SPOTS = ("1.15", "1.1", "1.05", "1", "0.95", "0.9", "0.85")


@dataclass(frozen=True)
class Option:
    strike: Any
    is_call: bool
    amount: Any
    volatility: Any


@dataclass(frozen=True)
class Expiry:
    seconds: int
    variable: Any  # forward that moves with spot
    fixed: Any
    rate: Any
    confidence: Decimal  # min of forward, rate and volatilities
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Portfolio:
    cash: Any
    spot: Any
    spot_confidence: Decimal
    stable: Any
    perp: Any
    perp_price: Any
    perp_confidence: Decimal
    perp_cash: Any  # unrealised and unsettled
    base: Any
    expiries: tuple[Expiry, ...]


def compute_pm1(numbers: Numbers[Any], held: Portfolio, params: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Return (IM, MM, worth at marks with cash)."""

    def number(value: Any) -> Any:
        return numbers.from_decimal(Decimal(str(value)))

    def compute_value(expiry: Expiry, spot: Any, volatility: Any) -> Any:
        total = numbers.zero
        for option in expiry.options:
            call, put = compute_option_prices(
                numbers,
                forward=expiry.variable * spot + expiry.fixed,
                strike=option.strike,
                volatility=option.volatility * volatility,
                seconds=expiry.seconds,
                discount=numbers.one,
            )
            total += option.amount * (call if option.is_call else put)
        return total

    other, terms, basis_terms = params["other"], params["margin"], params["basis"]
    base_value = held.base * held.spot / held.stable
    marks = [compute_value(expiry, numbers.one, numbers.one) for expiry in held.expiries]
    worst = numbers.zero
    for text in SPOTS:
        spot = number(text)
        for direction in ("up", "none", "down"):
            total = (held.perp * held.perp_price + base_value) * (spot - numbers.one)
            for expiry, mark in zip(held.expiries, marks, strict=True):
                value = compute_value(expiry, spot, _compute_shock(numbers, direction, expiry.seconds, params["vol"]))
                if value > numbers.zero:
                    tau = numbers.from_ratio(expiry.seconds, YEAR_S)
                    rate = expiry.rate * number(terms["rateMultScale"]) + number(terms["rateAddScale"])
                    value *= number(terms["baseStaticDiscount"]) * numbers.exp(-tau * rate)
                total += value - mark
            worst = min(worst, total)
    basis = numbers.zero
    for expiry, mark in zip(held.expiries, marks, strict=True):
        moves = [compute_value(expiry, number(basis_terms[side]), numbers.one) - mark for side in ("up", "down")]
        tau = numbers.from_ratio(expiry.seconds, YEAR_S)
        basis += min(numbers.zero, *moves) * (number(basis_terms["add"]) + number(basis_terms["mult"]) * tau)
    loss = min(worst, basis)

    naked = numbers.zero
    for expiry in held.expiries:
        nets: dict[Any, Any] = {}
        for option in expiry.options:
            nets[option.strike] = nets.get(option.strike, numbers.zero) + option.amount
        naked += sum((max(numbers.zero, -net) for net in nets.values()), numbers.zero)
    static = held.spot * (
        abs(held.perp) * number(other["perpPercent"])
        + held.base * number(other["basePercent"])
        + naked * number(other["optionPercent"])
    )

    def compute_doubt(confidence: Decimal, amount: Any) -> Any:
        if confidence >= Decimal(str(other["confThreshold"])):
            return numbers.zero
        return numbers.from_decimal(1 - confidence) * number(other["confMargin"]) * amount * held.spot

    sure = min(held.spot_confidence, held.perp_confidence) if held.perp != 0 else held.spot_confidence
    doubt = compute_doubt(sure, abs(held.perp) + held.base)
    for expiry in held.expiries:
        size = sum((abs(option.amount) for option in expiry.options), numbers.zero)
        doubt += compute_doubt(min(sure, expiry.confidence), size)

    worth = held.cash + held.perp_cash + base_value + sum(marks, numbers.zero)
    gap = max(numbers.zero, number(other["pegLossThreshold"]) - held.stable)
    factor = number(terms["imFactor"]) + gap * number(other["pegLossFactor"])
    return worth + (loss - static) * factor - doubt, worth + loss - static, worth


def _compute_shock(numbers: Numbers[Any], direction: str, seconds: int, vol: dict[str, Any]) -> Any:
    """Return the factor on volatility (margin.md 2.4)."""
    if direction == "none":
        return numbers.one
    power = vol["shortTermPower"] if seconds <= MONTH_S else vol["longTermPower"]
    base = numbers.from_ratio(MONTH_S, max(seconds, vol["dteFloor_s"]))
    scale = numbers.power(base, numbers.from_decimal(Decimal(str(power))))
    if direction == "up":
        return numbers.one + numbers.from_decimal(Decimal(str(vol["volRangeUp"]))) * scale
    return max(numbers.zero, numbers.one - numbers.from_decimal(Decimal(str(vol["volRangeDown"]))) * scale)
