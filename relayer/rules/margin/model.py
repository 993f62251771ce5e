"""The interface every margin model stands behind, and the standard model (SRM) as the first one behind it.

Holdings and market come in as exact integers; a model converts them once, in the arithmetic it is asked for. What has no usable
price is never valued at 0 in silence: cash without a price counts nothing and is named in `warnings`; an option market without
a price freezes the whole computation (`Rejected`, reason "market_frozen"), so no request of that portfolio is accepted and none of
its positions is liquidated on a number nobody vouches for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, Generic, overload

from messages.amounts import ceil_div
from messages.bodies import SeriesDefinition
from messages.documents import Parameters
from messages.errors import Rejected
from relayer.rules.margin.black76 import compute_option_prices
from relayer.rules.margin.numbers import DECIMAL, FLOAT, N, Numbers, decide_sign
from relayer.rules.margin.srm import (
    SrmExpiry,
    SrmMarket,
    SrmOption,
    SrmParameters,
    compute_srm_market,
    verify_srm_parameters,
)
from relayer.rules.margin.svi import SviSlice, compute_svi_volatility
from relayer.rules.margin.tiers import (
    DEFAULT_TIERS,
    PPM,
    TierTable,
    compute_tier_haircut_ppm,
    compute_weight_ppm,
    get_required_tier,
    verify_tiers,
)
from relayer.rules.prices import Action, PriceState, SettlementKey, compute_payoff, get_settlement_key, is_usable

PAR_E8: Final = 10**8
# Bounds of one portfolio: the worst payoff of an expiry is quadratic in its strikes.
MAX_OPTIONS: Final = 2_048
MAX_CASH: Final = 1_024


# ---------------------------------------------------------------- what is held


@dataclass(frozen=True)
class OptionHolding:
    """A position in one series, netted over all vaults; quantity in 1e-8 contracts, negative when short."""

    series: bytes
    definition: SeriesDefinition
    quantity_e8: int


@dataclass(frozen=True)
class CashHolding:
    """Free cash of one asset at one vault, with everything its haircut depends on.

    `price_e8` is the asset against its class, 0 when there is no usable price; below `peg_low_e8` it counts as fallen.
    `age_s` is the age of the vault's newest proven state, `tier_level` how it was proven (protocol.md 10).
    """

    vault_id: bytes
    asset: bytes
    quote_class: bytes
    units: int
    decimals: int
    price_e8: int
    haircut_ppm: int
    tier_level: int
    age_s: int
    stale_haircut_ppm_per_hour: int = 0
    peg_low_e8: int = 0


@dataclass(frozen=True)
class DueHolding:
    """The due of one class, summed over all vaults: owed by the house (+) or to it (-), in units of 10^-decimals."""

    quote_class: bytes
    units: int
    decimals: int


@dataclass(frozen=True)
class ChainPart:
    """A vault whose facts are judged apart: how it is known, and which of the options (already among `options`) lie there.

    Its cash is that of `Holdings.cash` with this vault id. Dues belong to no vault: only their sum has a meaning (protocol.md 4.3).
    """

    vault_id: bytes
    tier_level: int
    age_s: int
    options: tuple[OptionHolding, ...] = ()


@dataclass(frozen=True)
class Holdings:
    """Everything one portfolio holds, over all vaults; `parts` names vaults that `compute_limited_margin` looks at apart."""

    cash: tuple[CashHolding, ...] = ()
    dues: tuple[DueHolding, ...] = ()
    options: tuple[OptionHolding, ...] = ()
    parts: tuple[ChainPart, ...] = ()


# ---------------------------------------------------------------- the market


@dataclass(frozen=True)
class ExpiryMark:
    """Forward and volatility of one expiry: an SVI slice in 1e-18 as signed, or one flat volatility in 1e-8; None when missing.

    `slice_forward_e8` is the forward the slice was published with; 0 says that it is `forward_e8`.
    """

    expiry: int
    forward_e8: int
    svi_e18: tuple[int, ...] | None = None
    volatility_e8: int | None = None
    confidence_e8: int = PAR_E8
    slice_forward_e8: int = 0


@dataclass(frozen=True)
class UnderlyingMark:
    """Spot and expiries of one underlying; `states` says what is wrong with the spot (prices.compute_price_states)."""

    underlying: bytes
    price_source: bytes
    spot_e8: int
    spot_confidence_e8: int
    expiries: Mapping[int, ExpiryMark]
    states: frozenset[PriceState] = frozenset()


@dataclass(frozen=True)
class MarketView:
    """Prices at one time. Prices of an underlying are in the quote class of its series.

    `class_prices_e8` converts other classes into the account currency; `stable_price_e8` is the account currency against its peg.
    `settlement_prices_e8` holds the prices of expired series that are not settled at every vault yet.
    """

    now: int
    underlyings: Mapping[bytes, UnderlyingMark]
    settlement_prices_e8: Mapping[SettlementKey, int]
    class_prices_e8: Mapping[bytes, int]
    stable_price_e8: int = PAR_E8


# ---------------------------------------------------------------- parameters


@dataclass(frozen=True)
class UnderlyingMargin:
    """How one underlying is margined: only series of this price source are valued (incidents.md H2, H3)."""

    price_source: bytes
    model: str
    srm: SrmParameters


@dataclass(frozen=True)
class MarginParameters:
    """All numbers of margin that are decided by the operators, not by the market."""

    currency: bytes  # quote class the account is margined in
    underlyings: Mapping[bytes, UnderlyingMargin]
    house_due_haircut_ppm: Mapping[bytes, int]  # by quote class: what a due owed by the house loses
    tiers: TierTable = field(default_factory=lambda: DEFAULT_TIERS)  # by level: what its facts count for


def verify_margin_parameters(parameters: Parameters, currency: bytes) -> MarginParameters:
    """Return the margin part of the operators' parameters, every number checked.

    Raises:
        Rejected: names the key, for example `underlyings[0].model_parameters.minimum_requirement`; reason "bad_parameters".
    """
    underlyings: dict[bytes, UnderlyingMargin] = {}
    for index, item in enumerate(parameters.underlyings):
        path = f"underlyings[{index}]"
        if item.underlying in underlyings:
            raise Rejected(f"{path}.underlying is named twice", got=item.underlying, reason="bad_parameters")
        if item.model not in MODELS:
            raise Rejected(
                f"{path}.model is not known", got=item.model, expected=sorted(MODELS), reason="bad_parameters"
            )
        raw: dict[str, object] = {}
        for number in item.model_parameters:
            if number.name in raw:
                raise Rejected(f"{path}.model_parameters.{number.name} is named twice", reason="bad_parameters")
            raw[number.name] = number.value
        srm = verify_srm_parameters(raw, f"{path}.model_parameters")
        underlyings[item.underlying] = UnderlyingMargin(item.price_source, item.model, srm)
    haircuts: dict[bytes, int] = {}
    for index, quote in enumerate(parameters.classes):
        path = f"classes[{index}]"
        if quote.quote_class in haircuts:
            raise Rejected(f"{path}.quote_class is named twice", got=quote.quote_class, reason="bad_parameters")
        if not 0 <= quote.house_due_haircut_ppm <= PPM:
            raise Rejected(
                f"{path}.house_due_haircut_ppm is out of range",
                got=quote.house_due_haircut_ppm,
                expected=f"0 to {PPM}",
                reason="bad_parameters",
            )
        haircuts[quote.quote_class] = quote.house_due_haircut_ppm
    if currency not in haircuts:
        raise Rejected("classes does not name the account currency", got=currency, reason="bad_parameters")
    decimals = next(quote.decimals for quote in parameters.classes if quote.quote_class == currency)
    return MarginParameters(currency, underlyings, haircuts, verify_tiers(parameters.tiers, decimals))


# ---------------------------------------------------------------- the result


@dataclass(frozen=True)
class OptionRow(Generic[N]):
    """One option line as it was valued: amount in units of the underlying, price per unit, value signed."""

    series: bytes
    definition: SeriesDefinition
    quantity_e8: int
    amount: N
    volatility: N
    price: N
    value: N


@dataclass(frozen=True)
class MarketRow(Generic[N]):
    """One group of options that settle at one price; initial and maintenance are what it adds to the account.

    They are <= 0 until the settlement price is fixed; from then on a net payoff counts, less the haircut of a due.
    """

    underlying: bytes
    expiry: int
    quote_class: bytes
    price_source: bytes
    seconds: int
    spot: N
    forward: N
    confidence_e8: int
    mark_to_market: N
    isolated_initial: N
    isolated_maintenance: N
    max_loss: N
    unpaired_initial: N
    unpaired_maintenance: N
    confidence_charge: N
    depeg_charge: N
    initial: N
    maintenance: N
    options: tuple[OptionRow[N], ...]


@dataclass(frozen=True)
class CashRow(Generic[N]):
    """One cash line: what it counts for, in the account currency, after price and haircut (ppm in force)."""

    vault_id: bytes  # empty for a due
    asset: bytes  # empty for a due
    quote_class: bytes
    units: int
    decimals: int
    haircut_ppm: int
    value: N


@dataclass(frozen=True)
class TierRow(Generic[N]):
    """What the facts of one vault carry of a portfolio's initial margin, and how much of that is not counted, account currency.

    `carried` is what initial margin would fall by without the vault's surplus (its deficit stays owed). `limit` is the most that
    facts of its tier may carry, None where there is no limit; `weight_ppm` is w_c.
    """

    vault_id: bytes
    tier_level: int
    age_s: int
    weight_ppm: int
    limit: N | None
    carried: N
    withheld: N
    required_tier: int
    """The worst tier whose facts may carry as much; 0 where none may."""


@dataclass(frozen=True)
class MarginResult(Generic[N]):
    """Margin of one portfolio in units of the account currency; positive is surplus.

    initial >= 0: may trade and withdraw. maintenance < 0: liquidatable. `equity` = cash + mark of the options.
    `gross` is the size of what was added up, for the rule of 1e-9 (protocol.md 7).
    """

    model: str
    initial: N
    maintenance: N
    mark_to_market: N
    cash: N
    gross: N
    per_market: tuple[MarketRow[N], ...]
    per_cash: tuple[CashRow[N], ...]
    warnings: tuple[str, ...]
    per_tier: tuple[TierRow[N], ...] = ()

    @property
    def equity(self) -> N:
        """Cash (after haircuts) plus the mark of all options: what the account is worth today."""
        return self.cash + self.mark_to_market


def to_units_floor(result: MarginResult[Any], decimals: int) -> tuple[int, int]:
    """Return (initial, maintenance) in units of 10^-decimals, both floored: rounding is against the account."""
    numbers: Numbers[Any] = DECIMAL if isinstance(result.initial, Decimal) else FLOAT
    return numbers.to_units_floor(result.initial, decimals), numbers.to_units_floor(result.maintenance, decimals)


# ---------------------------------------------------------------- models


class MarginModel(ABC):
    """A margin rule: pure function of (holdings, market, parameters)."""

    name: str

    @overload
    def compute_margin(
        self, holdings: Holdings, market: MarketView, parameters: MarginParameters
    ) -> MarginResult[float]: ...

    @overload
    def compute_margin(
        self, holdings: Holdings, market: MarketView, parameters: MarginParameters, numbers: Numbers[N]
    ) -> MarginResult[N]: ...

    def compute_margin(
        self,
        holdings: Holdings,
        market: MarketView,
        parameters: MarginParameters,
        numbers: Numbers[Any] = FLOAT,
    ) -> MarginResult[Any]:
        """Return the margin of a portfolio in the account currency, in float64 or, with `DECIMAL`, in 50 digits.

        Raises:
            Rejected: "market_frozen" (an option without usable spot, forward or volatility, of an unknown underlying or price
                source; `got` names them), "class_price_missing" (a class that cannot be converted), "too_many_holdings",
                "bad_holding".
        """
        with numbers.scope():
            return self._compute(_normalise(holdings), market, parameters, numbers)

    @abstractmethod
    def _compute(
        self, holdings: Holdings, market: MarketView, parameters: MarginParameters, numbers: Numbers[N]
    ) -> MarginResult[N]:
        """Compute on holdings in canonical order, inside the scope of the arithmetic."""


class SrmModel(MarginModel):
    """The standard risk margin of margin.md 4 on Black-76 marks with the signed volatility (data.md 3)."""

    name = "srm"

    def _compute(
        self, holdings: Holdings, market: MarketView, parameters: MarginParameters, numbers: Numbers[N]
    ) -> MarginResult[N]:
        frozen = get_frozen_markets(holdings, market, parameters)
        if frozen:
            raise Rejected(
                "a market of this portfolio has no usable price: its margin is frozen, nothing is valued at 0",
                got="; ".join(frozen),
                reason="market_frozen",
            )
        zero = numbers.zero
        cash_rows, warnings = compute_cash(numbers, holdings, market, parameters)
        cash = gross = zero
        for cash_row in cash_rows:
            cash += cash_row.value
            gross += abs(cash_row.value)
        rows: list[MarketRow[N]] = []
        initial = maintenance = cash
        mark = zero
        for (underlying, quote_class), groups in _group_options(holdings).items():
            terms = parameters.underlyings[underlying].srm
            rate = _compute_class_price(numbers, quote_class, market, parameters)
            for key, options in groups.items():
                if market.settlement_prices_e8.get(key, 0) > 0:
                    row = _compute_settled(numbers, key, quote_class, options, rate, market, parameters)
                else:
                    row = _compute_group(numbers, key, quote_class, options, rate, market, terms)
                rows.append(row)
                initial += row.initial
                maintenance += row.maintenance
                mark += row.mark_to_market
                for option in row.options:
                    gross += abs(option.amount) * max(row.spot, row.forward)
        return MarginResult(
            model=self.name,
            initial=initial,
            maintenance=maintenance,
            mark_to_market=mark,
            cash=cash,
            gross=gross,
            per_market=tuple(rows),
            per_cash=cash_rows,
            warnings=warnings,
        )


MODELS: Final[Mapping[str, MarginModel]] = {SrmModel.name: SrmModel()}


def get_model(name: str) -> MarginModel:
    """Return the margin model of that name.

    Raises:
        Rejected: no such model, reason "unknown_model".
    """
    if name not in MODELS:
        raise Rejected(
            "there is no margin model of this name", got=name, expected=sorted(MODELS), reason="unknown_model"
        )
    return MODELS[name]


def compute_limited_margin(
    model: MarginModel,
    holdings: Holdings,
    market: MarketView,
    parameters: MarginParameters,
    numbers: Numbers[N],
) -> MarginResult[N]:
    """Return the margin with what facts of low tiers may not carry taken off the initial one (margin.md 7.1, 7.7).

    For each part c, with LOCO_c = IM without c + min(0, IM of c alone), carried_c = max(0, IM - LOCO_c):

        initial = min over c of IM - max(w_c * carried_c, carried_c - limit_c), and never above IM.

    So a portfolio on one chain that is solvent stays at 0 or above, an empty part changes nothing, and no part is ever worth more
    than its limit. Maintenance is as without: a limit decides what may be released, not who is liquidated.

    Raises:
        Rejected: as `MarginModel.compute_margin`; "market_frozen" also where only netting between chains hid a frozen market.
    """
    whole = model.compute_margin(holdings, market, parameters, numbers)
    initial, gross = whole.initial, whole.gross
    rows: list[TierRow[N]] = []
    with numbers.scope():
        for part in sorted(holdings.parts, key=lambda p: p.vault_id):
            terms = parameters.tiers[part.tier_level]
            here, rest = _split(holdings, part)
            apart = model.compute_margin(here, market, parameters, numbers)
            without = model.compute_margin(rest, market, parameters, numbers)
            loco = without.initial + min(numbers.zero, apart.initial)
            carried = max(numbers.zero, whole.initial - loco)
            weight_ppm = compute_weight_ppm(terms, part.age_s)
            withheld = carried * numbers.from_ratio(weight_ppm, PPM)
            limit = None
            if terms.value_limit is not None:
                limit = numbers.from_ratio(terms.value_limit.numerator, terms.value_limit.denominator)
                withheld = max(withheld, carried - limit)
            required = get_required_tier(parameters.tiers, Fraction(carried))
            rows.append(
                TierRow(part.vault_id, part.tier_level, part.age_s, weight_ppm, limit, carried, withheld, required)
            )
            initial = min(initial, whole.initial - withheld)
            gross += apart.gross + without.gross
    return replace(whole, initial=initial, gross=gross, per_tier=tuple(rows))


def _split(holdings: Holdings, part: ChainPart) -> tuple[Holdings, Holdings]:
    """Return (what lies at the vault, all else); dues are with all else."""
    here = Holdings(cash=tuple(cash for cash in holdings.cash if cash.vault_id == part.vault_id), options=part.options)
    left: dict[bytes, OptionHolding] = {}
    for held, sign in [*((h, 1) for h in holdings.options), *((h, -1) for h in part.options)]:
        known = left.get(held.series, replace(held, quantity_e8=0))
        left[held.series] = replace(known, quantity_e8=known.quantity_e8 + sign * held.quantity_e8)
    rest = Holdings(
        cash=tuple(cash for cash in holdings.cash if cash.vault_id != part.vault_id),
        dues=holdings.dues,
        options=tuple(held for held in left.values() if held.quantity_e8),
    )
    return here, rest


def is_initial_met(model: MarginModel, holdings: Holdings, market: MarketView, parameters: MarginParameters) -> bool:
    """Return whether IM >= 0, limits of tiers included, decided alike on every node: decimals within 1e-9 of gross (protocol.md 7).

    Raises:
        Rejected: as `compute_limited_margin`.
    """

    def compute(numbers: Numbers[N]) -> tuple[N, N]:
        result = model.compute_margin(holdings, market, parameters, numbers)
        # Limits only take away: what is short without them needs no second look.
        if holdings.parts and result.initial >= numbers.zero:
            result = compute_limited_margin(model, holdings, market, parameters, numbers)
        return result.initial, result.gross

    return decide_sign(compute) >= 0


def is_maintenance_met(
    model: MarginModel, holdings: Holdings, market: MarketView, parameters: MarginParameters
) -> bool:
    """Return whether MM >= 0, decided alike on every node: decimals within 1e-9 of gross (protocol.md 7).

    Raises:
        Rejected: as `compute_margin`.
    """

    def compute(numbers: Numbers[N]) -> tuple[N, N]:
        result = model.compute_margin(holdings, market, parameters, numbers)
        return result.maintenance, result.gross

    return decide_sign(compute) >= 0


# ---------------------------------------------------------------- frozen markets


def get_frozen_markets(holdings: Holdings, market: MarketView, parameters: MarginParameters) -> tuple[str, ...]:
    """Return a sentence for every option market of the portfolio that cannot be valued, () when all can.

    Needed: parameters of the underlying, the price source they name, a spot usable for margin, and for each expiry a forward and
    a volatility; an expired series needs its settlement price, or a forward to stand for it until then.
    """
    problems: dict[str, None] = {}
    for option in holdings.options:
        if option.quantity_e8 != 0:
            problem = _get_problem(option.definition, market, parameters)
            if problem:
                problems[problem] = None
    return tuple(problems)


def _get_problem(definition: SeriesDefinition, market: MarketView, parameters: MarginParameters) -> str:
    name = _get_text(definition.underlying)
    terms = parameters.underlyings.get(definition.underlying)
    if terms is None:
        return f"{name} has no margin parameters"
    if definition.price_source != terms.price_source:
        return f"{name} of price source {_get_text(definition.price_source)} is not margined"
    if market.settlement_prices_e8.get(get_settlement_key(definition), 0) > 0:
        return ""
    mark = market.underlyings.get(definition.underlying)
    if mark is None or mark.price_source != terms.price_source:
        return f"{name} has no spot of its price source"
    if not is_usable(mark.states, Action.MARGIN) or mark.spot_e8 <= 0:
        words = ", ".join(sorted(state.value for state in mark.states)) or PriceState.NON_POSITIVE.value
        return f"{name} spot is {words}"
    expiry = mark.expiries.get(definition.expiry)
    if expiry is None or expiry.forward_e8 <= 0:
        return f"{name} {definition.expiry} has no forward"
    if expiry.svi_e18 is None and expiry.volatility_e8 is None and definition.expiry > market.now:
        return f"{name} {definition.expiry} has no volatility"
    return ""


def _get_text(name: bytes) -> str:
    """Return a name for people: its ASCII text without the padding, or hex."""
    bare = name.rstrip(b"\0")
    return bare.decode("ascii") if bare and bare.isascii() and bare.decode("ascii").isprintable() else "0x" + name.hex()


# ---------------------------------------------------------------- cash


def compute_effective_haircut_ppm(cash: CashHolding, tiers: TierTable = DEFAULT_TIERS) -> int:
    """Return the haircut in force, at most 100 %, rounded up: the asset's own, what the age of its vault's state adds, and its tier's.

    What is known by a tier that is never credited loses everything (protocol.md 10).
    """
    terms = tiers.get(cash.tier_level)
    if terms is None:
        return PPM
    aged = ceil_div(max(0, cash.age_s) * cash.stale_haircut_ppm_per_hour, 3_600)
    return min(PPM, cash.haircut_ppm + aged + compute_tier_haircut_ppm(terms, cash.age_s))


def compute_cash(
    numbers: Numbers[N], holdings: Holdings, market: MarketView, parameters: MarginParameters
) -> tuple[tuple[CashRow[N], ...], tuple[str, ...]]:
    """Return what each cash line and due counts for in the account currency, and the warnings.

    Own cash: units * min(price, par) * (1 - haircut); a price above par never credits more than par (incidents.md H1), a missing or
    fallen price or a tier that is never credited counts 0 and is named. Negative amounts count in full. A due owed by the portfolio
    counts in full, one owed by the house less its haircut. So nobody can stop a portfolio by depositing something odd into it.

    Raises:
        Rejected: "class_price_missing" for a debt in a class without a price; "bad_holding" for decimals or haircuts out of range.
    """
    rows: list[CashRow[N]] = []
    warnings: list[str] = []
    for cash in holdings.cash:
        if not (0 <= cash.decimals <= 36 and 0 <= cash.haircut_ppm <= PPM and cash.stale_haircut_ppm_per_hour >= 0):
            raise Rejected("a cash holding has impossible decimals or haircut", got=cash, reason="bad_holding")
        haircut = compute_effective_haircut_ppm(cash, parameters.tiers)
        price = min(cash.price_e8, PAR_E8)
        if cash.units < 0:
            haircut, price = 0, PAR_E8
        else:
            problem = ""
            if cash.tier_level not in parameters.tiers:
                problem = f"is only proven by tier {cash.tier_level}"
            elif cash.price_e8 <= 0:
                problem = "has no price"
            elif cash.price_e8 < cash.peg_low_e8:
                problem = f"has fallen out of its peg band ({cash.price_e8}e-8)"
            elif _find_class_price_e8(cash.quote_class, market, parameters) <= 0:
                problem = f"is in class {_get_text(cash.quote_class)}, which has no price"
            if problem:
                haircut, price = PPM, 0
                if cash.units:
                    warnings.append(f"asset 0x{cash.asset.hex()} at vault 0x{cash.vault_id.hex()} {problem}: counts 0")
        rate = _get_class_price_e8(cash.quote_class, market, parameters) if price and cash.units else 0
        value = numbers.from_ratio(
            cash.units * price * (PPM - haircut) * rate, 10**cash.decimals * PAR_E8 * PPM * PAR_E8
        )
        rows.append(CashRow(cash.vault_id, cash.asset, cash.quote_class, cash.units, cash.decimals, haircut, value))
    for due in holdings.dues:
        haircut = 0
        if due.units > 0:
            # A class without a stated haircut is not trusted at all.
            haircut = parameters.house_due_haircut_ppm.get(due.quote_class, PPM)
            if _find_class_price_e8(due.quote_class, market, parameters) <= 0:
                haircut = PPM
                warnings.append(f"due of class {_get_text(due.quote_class)}, which has no price: counts 0")
        rate = _get_class_price_e8(due.quote_class, market, parameters) if due.units and haircut < PPM else 0
        value = numbers.from_ratio(due.units * (PPM - haircut) * rate, 10**due.decimals * PPM * PAR_E8)
        rows.append(CashRow(b"", b"", due.quote_class, due.units, due.decimals, haircut, value))
    return tuple(rows), tuple(warnings)


def _find_class_price_e8(quote_class: bytes, market: MarketView, parameters: MarginParameters) -> int:
    """Return the price of a class in the account currency, 0 when there is none."""
    return PAR_E8 if quote_class == parameters.currency else market.class_prices_e8.get(quote_class, 0)


def _get_class_price_e8(quote_class: bytes, market: MarketView, parameters: MarginParameters) -> int:
    price = _find_class_price_e8(quote_class, market, parameters)
    if price <= 0:
        raise Rejected(
            "a debt or an option is in a class without a price in the account currency",
            got=_get_text(quote_class),
            expected=_get_text(parameters.currency),
            reason="class_price_missing",
        )
    return price


def _compute_class_price(
    numbers: Numbers[N], quote_class: bytes, market: MarketView, parameters: MarginParameters
) -> N:
    return numbers.from_scaled(_get_class_price_e8(quote_class, market, parameters), 8)


# ---------------------------------------------------------------- options


def _normalise(holdings: Holdings) -> Holdings:
    """Return the holdings in canonical order, series and dues netted: floats add up in one order on every node."""
    if len(holdings.options) > MAX_OPTIONS or len(holdings.cash) + len(holdings.dues) > MAX_CASH:
        raise Rejected(
            "a portfolio has too many holdings",
            got=(len(holdings.options), len(holdings.cash) + len(holdings.dues)),
            expected=f"<= {MAX_OPTIONS} series, {MAX_CASH} cash lines",
            reason="too_many_holdings",
        )
    options: dict[bytes, OptionHolding] = {}
    for option in sorted(holdings.options, key=lambda held: held.series):
        known = options.get(option.series)
        if known is None:
            options[option.series] = option
        elif known.definition != option.definition:
            raise Rejected("one series has two definitions", got=option.series, reason="bad_holding")
        else:
            options[option.series] = replace(known, quantity_e8=known.quantity_e8 + option.quantity_e8)
    dues: dict[tuple[bytes, int], DueHolding] = {}
    for due in sorted(holdings.dues, key=lambda held: (held.quote_class, held.decimals)):
        owed = dues.get((due.quote_class, due.decimals))
        dues[due.quote_class, due.decimals] = due if owed is None else replace(owed, units=owed.units + due.units)
    return Holdings(
        cash=tuple(sorted(holdings.cash, key=lambda held: (held.vault_id, held.asset, held.units))),
        dues=tuple(dues.values()),
        options=tuple(held for held in options.values() if held.quantity_e8 != 0),
    )


_Groups = dict[tuple[bytes, bytes], dict[SettlementKey, list[OptionHolding]]]


def _group_options(holdings: Holdings) -> _Groups:
    """Return options by (underlying, class), then by settlement key: only options that settle at one price may offset."""
    groups: _Groups = {}
    ordered = sorted(
        holdings.options,
        key=lambda held: (held.definition.underlying, held.definition.quote_class, get_settlement_key(held.definition)),
    )
    for option in ordered:
        market = groups.setdefault((option.definition.underlying, option.definition.quote_class), {})
        market.setdefault(get_settlement_key(option.definition), []).append(option)
    return groups


def _compute_group(
    numbers: Numbers[N],
    key: SettlementKey,
    quote_class: bytes,
    options: list[OptionHolding],
    rate: N,
    market: MarketView,
    terms: SrmParameters,
) -> MarketRow[N]:
    """Value and margin the options of one settlement price; all money is multiplied by the rate into the account currency."""
    mark = market.underlyings[key.underlying]
    expiry = mark.expiries[key.expiry]
    seconds = max(0, key.expiry - market.now)
    confidence_e8 = min(mark.spot_confidence_e8, expiry.confidence_e8)
    forward = numbers.from_scaled(expiry.forward_e8, 8)
    spot = numbers.from_scaled(mark.spot_e8, 8)
    lines: list[OptionRow[N]] = []
    for held in options:
        strike = numbers.from_scaled(held.definition.strike_e8, 8)
        volatility = numbers.zero
        if seconds:
            try:
                volatility = compute_mark_volatility(numbers, expiry, strike)
            except Rejected as why:
                # A slice that gives no volatility is a missing one: the market is frozen, not valued at 0.
                name = f"{_get_text(key.underlying)} {key.expiry}"
                raise Rejected(f"{name}: {why.what}", got=why.got, reason="market_frozen") from why
        call, put = compute_option_prices(
            numbers, forward=forward, strike=strike, volatility=volatility, seconds=seconds, discount=numbers.one
        )
        lines.append(_make_row(numbers, held, volatility, call if held.definition.right == 1 else put, rate))
    result = compute_srm_market(
        numbers,
        SrmMarket(
            spot=spot,
            spot_confidence=Decimal(mark.spot_confidence_e8).scaleb(-8),
            stable_price=numbers.from_scaled(market.stable_price_e8, 8),
            expiries=(
                SrmExpiry(
                    options=tuple(
                        SrmOption(
                            numbers.from_scaled(line.definition.strike_e8, 8),
                            line.definition.right == 1,
                            line.amount,
                            line.price,
                        )
                        for line in lines
                    ),
                    forward=forward,
                    confidence=Decimal(confidence_e8).scaleb(-8),
                ),
            ),
        ),
        terms,
    )
    part = result.expiries[0]
    return MarketRow(
        underlying=key.underlying,
        expiry=key.expiry,
        quote_class=quote_class,
        price_source=key.price_source,
        seconds=seconds,
        spot=spot,
        forward=forward,
        confidence_e8=confidence_e8,
        mark_to_market=part.mark_to_market * rate,
        isolated_initial=part.isolated_initial * rate,
        isolated_maintenance=part.isolated_maintenance * rate,
        max_loss=part.max_loss * rate,
        unpaired_initial=part.unpaired_initial * rate,
        unpaired_maintenance=part.unpaired_maintenance * rate,
        confidence_charge=part.confidence * rate,
        depeg_charge=part.depeg * rate,
        initial=result.initial * rate,
        maintenance=result.maintenance * rate,
        options=tuple(lines),
    )


def _compute_settled(
    numbers: Numbers[N],
    key: SettlementKey,
    quote_class: bytes,
    options: list[OptionHolding],
    rate: N,
    market: MarketView,
    parameters: MarginParameters,
) -> MarketRow[N]:
    """Value options whose settlement price is fixed: a payoff is a debt now, so a net loss counts in full and a net win as a due.

    No spot, volatility or confidence is needed any more, and no requirement is left beyond the payoff.
    """
    zero = numbers.zero
    price = numbers.from_scaled(market.settlement_prices_e8[key], 8)
    lines: list[OptionRow[N]] = []
    total = zero
    for held in options:
        move = price - numbers.from_scaled(held.definition.strike_e8, 8)
        if held.definition.right != 1:
            move = -move
        line = _make_row(numbers, held, zero, max(zero, move), rate)
        lines.append(line)
        total += line.value
    haircut_ppm = parameters.house_due_haircut_ppm.get(quote_class, PPM)
    counted = total * numbers.from_ratio(PPM - haircut_ppm, PPM) if total > zero else total
    return MarketRow(
        underlying=key.underlying,
        expiry=key.expiry,
        quote_class=quote_class,
        price_source=key.price_source,
        seconds=0,
        spot=price,
        forward=price,
        confidence_e8=PAR_E8,
        mark_to_market=total,
        isolated_initial=zero,
        isolated_maintenance=zero,
        max_loss=zero,
        unpaired_initial=zero,
        unpaired_maintenance=zero,
        confidence_charge=zero,
        depeg_charge=zero,
        initial=counted,
        maintenance=counted,
        options=tuple(lines),
    )


def _make_row(numbers: Numbers[N], held: OptionHolding, volatility: N, price: N, rate: N) -> OptionRow[N]:
    amount = numbers.from_ratio(held.quantity_e8 * held.definition.multiplier_e8, 10**16)
    return OptionRow(held.series, held.definition, held.quantity_e8, amount, volatility, price, amount * price * rate)


def compute_mark_volatility(numbers: Numbers[N], mark: ExpiryMark, strike: N) -> N:
    """Return the mark volatility at a strike: the signed slice where there is one, else the flat volatility.

    Raises:
        Rejected: the slice is invalid (margin.md 2.2), reason "invalid_slice", or neither is there, reason "market_frozen".
    """
    if mark.svi_e18 is not None:
        a, b, rho, m, s, tau = (numbers.from_scaled(value, 18) for value in mark.svi_e18)
        forward = numbers.from_scaled(mark.slice_forward_e8 or mark.forward_e8, 8)
        return compute_svi_volatility(numbers, SviSlice(a, b, rho, m, s, forward, tau), strike)
    if mark.volatility_e8 is None:
        raise Rejected("an expiry has no volatility", got=mark.expiry, reason="market_frozen")
    return numbers.from_scaled(mark.volatility_e8, 8)


# ---------------------------------------------------------------- worth


def compute_worth_units(
    holdings: Holdings,
    *,
    quote_class: bytes,
    decimals: int,
    settlement_prices_e8: Mapping[SettlementKey, int],
    open_value_units: int = 0,
) -> int:
    """Return the worth of a portfolio in one class over all vaults, in units of 10^-decimals, floored, in exact integers.

    Cash at par, dues in full, series with a settlement price at their payoff; no haircuts, because worth says who owes whom, not
    what may be lent on it. Options without a settlement price are the caller's, as `open_value_units` (their mark, from
    `compute_open_value_units`). Insurance pays max(0, -worth), never more (protocol.md 7.2).
    """
    total = Fraction(open_value_units, 10**decimals)
    for cash in holdings.cash:
        if cash.quote_class == quote_class:
            total += Fraction(cash.units, 10**cash.decimals)
    for due in holdings.dues:
        if due.quote_class == quote_class:
            total += Fraction(due.units, 10**due.decimals)
    for option in holdings.options:
        price_e8 = settlement_prices_e8.get(get_settlement_key(option.definition))
        if option.definition.quote_class == quote_class and price_e8 is not None:
            total += compute_payoff(option.definition, option.quantity_e8, price_e8)
    scale: int = 10**decimals
    return total.numerator * scale // total.denominator


def compute_open_value_units(
    rows: Iterable[MarketRow[N]],
    numbers: Numbers[N],
    *,
    decimals: int,
    settlement_prices_e8: Mapping[SettlementKey, int],
) -> int:
    """Return the mark of all options that have no settlement price, in units of the account currency, floored per option.

    For a number that reaches a leg pass rows computed with `DECIMAL`, so that every node gets the same unit.
    """
    total = 0
    for row in rows:
        for option in row.options:
            if get_settlement_key(option.definition) not in settlement_prices_e8:
                total += numbers.to_units_floor(option.value, decimals)
    return total
