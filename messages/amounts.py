"""Integer amounts in base units, and the only roads between units (protocol.md 4, 7).

Money is `int` everywhere. A text or Decimal made here is for people; it never comes back into a calculation except through
`parse_units`, which refuses what does not fit the unit exactly.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal

from messages.errors import Rejected

MAX_DECIMALS = 77  # 10^77 is the largest power of ten below 2^256
E8 = 10**8

_NUMBER = re.compile(r"(-?)(0|[1-9][0-9]{0,77})(?:\.([0-9]{1,77}))?")


def ceil_div(a: int, b: int) -> int:
    """Return ceil(a / b) for integers, b > 0: what payers owe (protocol.md 7)."""
    _verify_divisor(b)
    return -(-a // b)


def floor_div(a: int, b: int) -> int:
    """Return floor(a / b) for integers, b > 0: what receivers get (protocol.md 7)."""
    _verify_divisor(b)
    return a // b


def _verify_divisor(b: int) -> None:
    if b <= 0:
        raise Rejected("a divisor must be positive", got=b, reason="bad_divisor")


def verify_decimals(decimals: int) -> int:
    """Return ``decimals`` if 0 <= decimals <= 77; Rejected ("bad_decimals") otherwise."""
    if not 0 <= decimals <= MAX_DECIMALS:
        raise Rejected("decimals out of range", got=decimals, expected=f"0 to {MAX_DECIMALS}", reason="bad_decimals")
    return decimals


def format_units(amount: int, decimals: int) -> str:
    """Return base units as an exact decimal text with all its decimals: (1500000, 6) -> "1.500000". For people."""
    verify_decimals(decimals)
    digits = str(abs(amount)).rjust(decimals + 1, "0")
    sign = "-" if amount < 0 else ""
    return sign + digits if decimals == 0 else f"{sign}{digits[:-decimals]}.{digits[-decimals:]}"


def to_view_units(amount: int, decimals: int) -> Decimal:
    """Return base units as an exact Decimal (no context rounding). For views only."""
    verify_decimals(decimals)
    return Decimal(format_units(amount, decimals))


def parse_units(text: str, decimals: int) -> int:
    """Return the base units of a decimal text; Rejected ("bad_amount") if it is no number or finer than the unit."""
    verify_decimals(decimals)
    match = _NUMBER.fullmatch(text) if len(text) <= 160 else None
    if match is None:
        raise Rejected("not a decimal number", got=text, reason="bad_amount")
    fraction = (match[3] or "").rstrip("0")
    if len(fraction) > decimals:
        raise Rejected("finer than the smallest unit", got=text, expected=f"{decimals} decimals", reason="bad_amount")
    value = int(match[2] + fraction.ljust(decimals, "0"))
    return -value if match[1] else value


def get_class_decimals(token_decimals: Iterable[int]) -> int:
    """Return the decimals of a class: those of the coarsest of its tokens (protocol.md 4.3); Rejected if none."""
    decimals = [verify_decimals(d) for d in token_decimals]
    if not decimals:
        raise Rejected("a class needs a token", reason="bad_decimals")
    return min(decimals)


def get_unit_scale(token_decimals: int, class_decimals: int) -> int:
    """Return how many token units make one class unit; Rejected ("bad_decimals") if the class is finer."""
    verify_decimals(token_decimals)
    verify_decimals(class_decimals)
    if token_decimals < class_decimals:
        raise Rejected(
            "a class unit can't be finer than a token unit",
            got=class_decimals,
            expected=f"<= {token_decimals}",
            reason="bad_decimals",
        )
    return int(10 ** (token_decimals - class_decimals))


def to_class_units_floor(token_units: int, token_decimals: int, class_decimals: int) -> int:
    """Return token units in class units, rounded down (for receivers)."""
    return token_units // get_unit_scale(token_decimals, class_decimals)


def to_class_units_ceil(token_units: int, token_decimals: int, class_decimals: int) -> int:
    """Return token units in class units, rounded up (for payers)."""
    return -(-token_units // get_unit_scale(token_decimals, class_decimals))


def to_class_units_exact(token_units: int, token_decimals: int, class_decimals: int) -> int:
    """Return token units in class units; Rejected ("not_whole") unless they are whole: moves are (protocol.md 4.3)."""
    units, rest = divmod(token_units, get_unit_scale(token_decimals, class_decimals))
    if rest:
        raise Rejected("not a whole number of class units", got=token_units, reason="not_whole")
    return units


def to_token_units(class_units: int, token_decimals: int, class_decimals: int) -> int:
    """Return class units in token units (always exact)."""
    return class_units * get_unit_scale(token_decimals, class_decimals)
