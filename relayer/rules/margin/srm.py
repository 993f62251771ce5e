"""The standard risk margin (SRM): published rules of margin.md 4, generic over the arithmetic.

Needs spot, forward and a mark only. Options are margined one by one, or by the worst payoff of their expiry where that asks
for less; there are no scenarios. Positive numbers are surplus. Source: the StandardManager rules re-implemented from margin.md 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Final, Generic

from messages.errors import Rejected
from relayer.rules.margin.numbers import N, Numbers


@dataclass(frozen=True)
class SrmParameters:
    """Parameters of margin.md 4, exact decimals; requirements are shares of spot."""

    maximum_requirement: Decimal  # initial, short option at the money
    minimum_requirement: Decimal  # initial, short option far out of the money
    call_maintenance: Decimal
    put_maintenance: Decimal
    put_maintenance_of_mark: Decimal  # a deep put is asked for this share of its own value instead
    unpaired_initial: Decimal  # times forward, per net short call of an expiry
    unpaired_maintenance: Decimal
    maintenance_offset: Decimal  # initial of a short put is at least this multiple of its maintenance
    perp_initial: Decimal
    perp_maintenance: Decimal
    base_factor: Decimal  # share of spot that base collateral counts for
    base_initial_scale: Decimal
    confidence_threshold: Decimal
    confidence_factor: Decimal
    depeg_threshold: Decimal
    depeg_factor: Decimal


# Published main-net table (margin.md 4, ETH base factors); configurations may name other values.
MAIN_NET: Final = SrmParameters(
    maximum_requirement=Decimal("0.15"),
    minimum_requirement=Decimal("0.13"),
    call_maintenance=Decimal("0.09"),
    put_maintenance=Decimal("0.09"),
    put_maintenance_of_mark=Decimal("0.09"),
    unpaired_initial=Decimal("1.2"),
    unpaired_maintenance=Decimal("1.1"),
    maintenance_offset=Decimal("1.05"),
    perp_initial=Decimal("0.10"),
    perp_maintenance=Decimal("0.065"),
    base_factor=Decimal("0.8"),
    base_initial_scale=Decimal("0.9375"),
    confidence_threshold=Decimal("0.55"),
    confidence_factor=Decimal(1),
    depeg_threshold=Decimal("0.98"),
    depeg_factor=Decimal("1.2"),
)


@dataclass(frozen=True)
class SrmOption(Generic[N]):
    """One option line: amount signed, in units of the underlying; price per unit, undiscounted."""

    strike: N
    is_call: bool
    amount: N
    price: N


@dataclass(frozen=True)
class SrmExpiry(Generic[N]):
    """The options that settle at one price. confidence = min(spot, forward, volatility), exact, in [0, 1]."""

    options: tuple[SrmOption[N], ...]
    forward: N
    confidence: Decimal


@dataclass(frozen=True)
class SrmPerp(Generic[N]):
    """A perpetual position: amount signed, unrealised cash included in margin, confidence = min(spot, perp)."""

    amount: N
    price: N
    unrealised: N
    confidence: Decimal


@dataclass(frozen=True)
class SrmMarket(Generic[N]):
    """All holdings of one underlying. `base` is an amount of the underlying itself held as collateral."""

    spot: N
    spot_confidence: Decimal
    stable_price: N
    expiries: tuple[SrmExpiry[N], ...]
    perp: SrmPerp[N] | None = None
    base: N | None = None


@dataclass(frozen=True)
class SrmExpiryResult(Generic[N]):
    """Parts of one expiry; initial and maintenance are the requirement (<= 0) with no cash, confidence and depeg."""

    mark_to_market: N
    isolated_initial: N
    isolated_maintenance: N
    max_loss: N
    unpaired_initial: N
    unpaired_maintenance: N
    initial: N
    maintenance: N
    confidence: N  # initial only, <= 0
    depeg: N  # initial only, <= 0
    shorts: N  # sum of short amounts, >= 0


@dataclass(frozen=True)
class SrmMarketResult(Generic[N]):
    """Parts of one underlying; initial and maintenance are complete but for cash."""

    expiries: tuple[SrmExpiryResult[N], ...]
    mark_to_market: N
    perp_initial: N
    perp_maintenance: N
    base_initial: N
    base_maintenance: N
    confidence: N
    depeg: N
    initial: N
    maintenance: N


def compute_srm_isolated(numbers: Numbers[N], option: SrmOption[N], spot: N, parameters: SrmParameters) -> tuple[N, N]:
    """Return (initial, maintenance) of one option alone; longs give and need nothing (margin.md 4)."""
    convert = numbers.from_decimal
    zero = numbers.zero
    if option.amount >= zero:
        return zero, zero
    mark = option.amount * option.price
    out_of_the_money = option.strike - spot
    if not option.is_call:
        out_of_the_money = -out_of_the_money
    out_of_the_money = max(zero, out_of_the_money)
    requirement = max(
        convert(parameters.maximum_requirement) - out_of_the_money / spot, convert(parameters.minimum_requirement)
    )
    initial = mark + requirement * spot * option.amount
    if option.is_call:
        return initial, mark + convert(parameters.call_maintenance) * spot * option.amount
    maintenance = mark + min(
        convert(parameters.put_maintenance) * spot * option.amount, convert(parameters.put_maintenance_of_mark) * mark
    )
    return min(initial, maintenance * convert(parameters.maintenance_offset)), maintenance


def compute_srm_max_loss(numbers: Numbers[N], options: tuple[SrmOption[N], ...]) -> N:
    """Return the worst joint payoff (<= 0) at prices 0 and every strike, before the charge for unpaired calls.

    Payoffs are piecewise linear between strikes, so no other price up to the last strike can be worse; beyond it only net short
    calls lose more, and those are charged by the forward.
    """
    worst = numbers.zero
    prices = {numbers.zero}
    prices.update(option.strike for option in options)
    for price in sorted(prices):
        total = numbers.zero
        for option in options:
            move = price - option.strike
            if not option.is_call:
                move = -move
            total += option.amount * max(numbers.zero, move)
        worst = min(worst, total)
    return worst


def compute_srm_expiry(
    numbers: Numbers[N], expiry: SrmExpiry[N], spot: N, stable_price: N, parameters: SrmParameters
) -> SrmExpiryResult[N]:
    """Return the margin of the options of one expiry: the better of isolated margins and worst payoff (margin.md 4)."""
    convert = numbers.from_decimal
    zero = numbers.zero
    isolated_initial = isolated_maintenance = mark = net_calls = shorts = zero
    for option in expiry.options:
        initial, maintenance = compute_srm_isolated(numbers, option, spot, parameters)
        isolated_initial += initial
        isolated_maintenance += maintenance
        mark += option.amount * option.price
        shorts += max(zero, -option.amount)
        if option.is_call:
            net_calls += option.amount
    max_loss = compute_srm_max_loss(numbers, expiry.options)
    unpaired = expiry.forward * min(zero, net_calls)
    unpaired_initial = convert(parameters.unpaired_initial) * unpaired
    unpaired_maintenance = convert(parameters.unpaired_maintenance) * unpaired
    return SrmExpiryResult(
        mark_to_market=mark,
        isolated_initial=isolated_initial,
        isolated_maintenance=isolated_maintenance,
        max_loss=max_loss,
        unpaired_initial=unpaired_initial,
        unpaired_maintenance=unpaired_maintenance,
        initial=max(isolated_initial, max_loss + unpaired_initial),
        maintenance=max(isolated_maintenance, max_loss + unpaired_maintenance),
        confidence=-_compute_confidence_charge(numbers, expiry.confidence, spot, shorts, parameters),
        depeg=-_compute_depeg_charge(numbers, stable_price, spot, shorts, parameters),
        shorts=shorts,
    )


def compute_srm_market(numbers: Numbers[N], market: SrmMarket[N], parameters: SrmParameters) -> SrmMarketResult[N]:
    """Return the margin of everything held in one underlying, cash excepted (margin.md 4).

    Raises:
        Rejected: spot is not positive, reason "bad_market_value".
    """
    convert = numbers.from_decimal
    zero = numbers.zero
    spot = market.spot
    if not spot > zero:
        raise Rejected(
            "a market is margined at a positive spot price only", got=spot, expected="> 0", reason="bad_market_value"
        )
    results = tuple(
        compute_srm_expiry(numbers, expiry, spot, market.stable_price, parameters) for expiry in market.expiries
    )
    mark = initial = maintenance = confidence = depeg = zero
    for result in results:
        mark += result.mark_to_market
        initial += result.initial
        maintenance += result.maintenance
        confidence += result.confidence
        depeg += result.depeg
    perp_initial = perp_maintenance = zero
    if market.perp is not None:
        perp = market.perp
        perp_size = abs(perp.amount)
        perp_initial = perp.unrealised - perp_size * perp.price * convert(parameters.perp_initial)
        perp_maintenance = perp.unrealised - perp_size * perp.price * convert(parameters.perp_maintenance)
        mark += perp.unrealised
        confidence -= _compute_confidence_charge(numbers, perp.confidence, spot, perp_size, parameters)
        depeg -= _compute_depeg_charge(numbers, market.stable_price, spot, perp_size, parameters)
    base_initial = base_maintenance = zero
    if market.base is not None:
        base_maintenance = market.base * spot * convert(parameters.base_factor)
        base_initial = base_maintenance * convert(parameters.base_initial_scale)
        mark += market.base * spot
        confidence -= _compute_confidence_charge(numbers, market.spot_confidence, spot, market.base, parameters)
    return SrmMarketResult(
        expiries=results,
        mark_to_market=mark,
        perp_initial=perp_initial,
        perp_maintenance=perp_maintenance,
        base_initial=base_initial,
        base_maintenance=base_maintenance,
        confidence=confidence,
        depeg=depeg,
        initial=initial + perp_initial + base_initial + confidence + depeg,
        maintenance=maintenance + perp_maintenance + base_maintenance,
    )


def _compute_confidence_charge(
    numbers: Numbers[N], confidence: Decimal, spot: N, amount: N, parameters: SrmParameters
) -> N:
    """Return (1 - c) * factor * spot * amount below the threshold, else 0; the step is decided on exact decimals."""
    if confidence >= parameters.confidence_threshold:
        return numbers.zero
    return numbers.from_decimal(1 - confidence) * numbers.from_decimal(parameters.confidence_factor) * spot * amount


def _compute_depeg_charge(numbers: Numbers[N], stable_price: N, spot: N, amount: N, parameters: SrmParameters) -> N:
    """Return amount * gap below the depeg threshold * factor * spot."""
    gap = max(numbers.zero, numbers.from_decimal(parameters.depeg_threshold) - stable_price)
    return amount * gap * numbers.from_decimal(parameters.depeg_factor) * spot


def verify_srm_parameters(raw: Mapping[str, object], path: str) -> SrmParameters:
    """Return the parameters read from a table of decimal strings or integers; `path` names the table in errors.

    Raises:
        Rejected: a key is missing, unknown, not a decimal or outside [0, 10]; reason "bad_parameters".
    """
    names = [field.name for field in fields(SrmParameters)]
    unknown = sorted(set(raw) - set(names))
    if unknown:
        raise Rejected(f"{path} has an unknown key", got=unknown[0], expected=names, reason="bad_parameters")
    values: dict[str, Decimal] = {}
    for name in names:
        if name not in raw:
            raise Rejected(f"{path}.{name} is missing", expected="a decimal string", reason="bad_parameters")
        values[name] = parse_decimal(raw[name], f"{path}.{name}", low=Decimal(0), high=Decimal(10))
    result = SrmParameters(**values)
    for smaller, larger in (
        ("minimum_requirement", "maximum_requirement"),
        ("unpaired_maintenance", "unpaired_initial"),
        ("perp_maintenance", "perp_initial"),
        ("call_maintenance", "minimum_requirement"),
    ):
        # Otherwise an account could be accepted (initial) and be liquidated (maintenance) in the same breath.
        if values[smaller] > values[larger]:
            raise Rejected(
                f"{path}.{smaller} is above {path}.{larger}",
                got=values[smaller],
                expected=f"<= {values[larger]}",
                reason="bad_parameters",
            )
    return result


def parse_decimal(value: object, path: str, *, low: Decimal, high: Decimal) -> Decimal:
    """Return a decimal string or an integer as an exact decimal in [low, high]; `path` names the key in errors.

    Raises:
        Rejected: another type (floats are not exact), not a plain decimal of at most 30 characters, or out of range;
            reason "bad_parameters".
    """
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if (
        not isinstance(text, str)
        or len(text) > 30
        or not text.replace("-", "", 1).replace(".", "", 1).isdecimal()
        or not text.isascii()
    ):
        raise Rejected(
            f"{path} is not a decimal string or an integer", got=value, expected='"0.15"', reason="bad_parameters"
        )
    try:
        result = Decimal(text)
    except ArithmeticError as why:
        raise Rejected(f"{path} is not a decimal", got=value, expected='"0.15"', reason="bad_parameters") from why
    if not low <= result <= high:
        raise Rejected(f"{path} is out of range", got=value, expected=f"{low} to {high}", reason="bad_parameters")
    return result
