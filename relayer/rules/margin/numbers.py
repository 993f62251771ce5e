"""One formula text, two arithmetics: float64 for speed, 50-digit decimals where floats may not decide.

A formula takes `numbers: Numbers[N]` and values of N, and uses nothing but + - * / on N, comparisons and the methods here.
Decimals are correctly rounded everywhere (IBM decimal arithmetic), so every node gets the same digits; floats may differ in the
last bit between libraries, which is why `decide_sign` does not trust them near zero (protocol.md 7, last paragraph).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from decimal import ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal, localcontext
from typing import Final, Generic, Protocol, TypeVar

N = TypeVar("N", float, Decimal)

DIGITS: Final = 50
# Guard digits of the normal distribution, so that its own rounding stays below the 50th digit.
_WIDE_DIGITS: Final = 70
_PI: Final = Decimal(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211706798"
)
# Exponents are bounded so that no input can ask for an endless exp; 1e-999999 is zero for every amount of money.
_EDGE: Final = 999_999
_DECIMAL_CONTEXT: Final = Context(prec=DIGITS, rounding=ROUND_HALF_EVEN, Emin=-_EDGE, Emax=_EDGE)
_WIDE_CONTEXT: Final = Context(prec=_WIDE_DIGITS, rounding=ROUND_HALF_EVEN, Emin=-_EDGE, Emax=_EDGE)
# Below this point a power series would need more than a hundred terms; above it the continued fraction is short.
_SERIES_LIMIT: Final = Decimal(4)
_FRACTION_TERMS: Final = 320
# N(-40) is below 1e-349: nothing in any account can notice it.
_TAIL: Final = 40

# |margin| at or below this share of gross is decided in decimals (protocol.md 7).
EDGE_SHARE: Final = Decimal("1e-9")


class Numbers(ABC, Generic[N]):
    """The arithmetic a formula runs in: conversions from exact values and the few functions margin needs."""

    name: str
    zero: N
    one: N

    @abstractmethod
    def scope(self) -> AbstractContextManager[object]:
        """Return the context in which operators on N have the stated precision; every entry point opens it."""

    @abstractmethod
    def from_int(self, value: int) -> N:
        """Return the integer as N, correctly rounded."""

    @abstractmethod
    def from_ratio(self, numerator: int, denominator: int) -> N:
        """Return numerator / denominator, correctly rounded once; denominator is not 0."""

    @abstractmethod
    def from_decimal(self, value: Decimal) -> N:
        """Return an exact decimal (a parameter) as N."""

    @abstractmethod
    def exp(self, value: N) -> N:
        """Return e to the value."""

    @abstractmethod
    def ln(self, value: N) -> N:
        """Return the natural logarithm of a positive value."""

    @abstractmethod
    def sqrt(self, value: N) -> N:
        """Return the square root of a value >= 0."""

    @abstractmethod
    def ndtr(self, value: N) -> N:
        """Return the normal cumulative distribution function at the value."""

    @abstractmethod
    def power(self, value: N, exponent: N) -> N:
        """Return value ** exponent for a positive value."""

    @abstractmethod
    def to_units_floor(self, value: N, decimals: int) -> int:
        """Return floor(value * 10**decimals): the amount rounded against the account; the value is finite."""

    def from_scaled(self, value: int, scale: int) -> N:
        """Return value * 10**-scale, correctly rounded once (`1500_00000000, 8` is 1500)."""
        return self.from_ratio(value, 10**scale)


class _Float(Numbers[float]):
    """IEEE 754 binary64."""

    name = "float"
    zero = 0.0
    one = 1.0

    def scope(self) -> AbstractContextManager[object]:
        return nullcontext()

    def from_int(self, value: int) -> float:
        return float(value)

    def from_ratio(self, numerator: int, denominator: int) -> float:
        return numerator / denominator

    def from_decimal(self, value: Decimal) -> float:
        return float(value)

    def exp(self, value: float) -> float:
        return math.exp(value)

    def ln(self, value: float) -> float:
        return math.log(value)

    def sqrt(self, value: float) -> float:
        return math.sqrt(value)

    def ndtr(self, value: float) -> float:
        # erfc keeps the relative precision of the lower tail, where 1 + erf loses it.
        return 0.5 * math.erfc(-value / math.sqrt(2.0))

    def power(self, value: float, exponent: float) -> float:
        return math.pow(value, exponent)

    def to_units_floor(self, value: float, decimals: int) -> int:
        # Through the exact rational value of the float: a float product could round up to the next unit.
        numerator, denominator = value.as_integer_ratio()
        scale: int = 10**decimals
        return numerator * scale // denominator


class _Decimal(Numbers[Decimal]):
    """Decimal floating point of 50 digits."""

    name = "decimal"
    zero = Decimal(0)
    one = Decimal(1)

    def scope(self) -> AbstractContextManager[object]:
        return localcontext(_DECIMAL_CONTEXT)

    def from_int(self, value: int) -> Decimal:
        return _DECIMAL_CONTEXT.create_decimal(value)

    def from_ratio(self, numerator: int, denominator: int) -> Decimal:
        return _DECIMAL_CONTEXT.divide(Decimal(numerator), Decimal(denominator))

    def from_decimal(self, value: Decimal) -> Decimal:
        return _DECIMAL_CONTEXT.create_decimal(value)

    def exp(self, value: Decimal) -> Decimal:
        return value.exp(_DECIMAL_CONTEXT)

    def ln(self, value: Decimal) -> Decimal:
        return value.ln(_DECIMAL_CONTEXT)

    def sqrt(self, value: Decimal) -> Decimal:
        return value.sqrt(_DECIMAL_CONTEXT)

    def ndtr(self, value: Decimal) -> Decimal:
        with localcontext(_WIDE_CONTEXT):
            wide = _compute_ndtr(value)
        return _DECIMAL_CONTEXT.create_decimal(wide)

    def power(self, value: Decimal, exponent: Decimal) -> Decimal:
        return _DECIMAL_CONTEXT.power(value, exponent)

    def to_units_floor(self, value: Decimal, decimals: int) -> int:
        return int(value.scaleb(decimals, _WIDE_CONTEXT).to_integral_value(rounding=ROUND_FLOOR))


def _compute_ndtr(value: Decimal) -> Decimal:
    """Normal distribution function in the ambient precision.

    Near zero: 1/2 + phi(x) * (x + x^3/3 + x^5/(3*5) + ...), all terms of one sign (Abramowitz and Stegun 26.2.11).
    Tail: phi(x) / (x + 1/(x + 2/(x + 3/(x + ...)))) (26.2.14), evaluated from its end.
    """
    if value == 0:
        return Decimal("0.5")
    size = abs(value)
    if size > _TAIL:
        return Decimal(1) if value > 0 else Decimal(0)
    density = (-(size * size) / 2).exp() / (2 * _PI).sqrt()
    if size < _SERIES_LIMIT:
        term = total = size
        square = size * size
        divisor = 1
        while True:
            divisor += 2
            term = term * square / divisor
            if total + term == total:
                break
            total += term
        half = density * total
        return Decimal("0.5") + half if value > 0 else Decimal("0.5") - half
    fraction = size
    for index in range(_FRACTION_TERMS, 0, -1):
        fraction = size + index / fraction
    tail = density / fraction
    return 1 - tail if value > 0 else tail


FLOAT: Final[Numbers[float]] = _Float()
DECIMAL: Final[Numbers[Decimal]] = _Decimal()


class Computation(Protocol):
    """A margin that can be computed in either arithmetic."""

    def __call__(self, numbers: Numbers[N], /) -> tuple[N, N]:
        """Return (margin, gross); gross >= 0 is the size of what was added up."""


def is_edge(margin: float, gross: float) -> bool:
    """Return whether a float margin is too close to zero to decide by: |margin| <= 1e-9 * gross, or not finite."""
    return not math.isfinite(margin) or not math.isfinite(gross) or abs(margin) <= float(EDGE_SHARE) * gross


def decide_sign(compute: Computation) -> int:
    """Return the sign (-1, 0, 1) of a margin so that every node gets the same answer (protocol.md 7).

    Floats decide where they are clear; within 1e-9 of gross the same formula runs in 50-digit decimals.
    """
    margin, gross = compute(FLOAT)
    if not is_edge(margin, gross):
        return 1 if margin > 0 else -1
    with DECIMAL.scope():
        exact, _ = compute(DECIMAL)
    return (exact > 0) - (exact < 0)


def decide_not_negative(compute: Computation) -> bool:
    """Return whether the margin is >= 0, decided as `decide_sign` does."""
    return decide_sign(compute) >= 0
