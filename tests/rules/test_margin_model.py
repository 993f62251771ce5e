"""The margin interface on portfolios of exact integers: what counts, what freezes, what nets to nothing."""

from dataclasses import fields, replace
from decimal import Decimal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from messages.bodies import SeriesDefinition
from messages.documents import (
    Amount,
    ClassParameters,
    ModelParameter,
    Parameters,
    UnderlyingParameters,
)
from messages.errors import Rejected
from relayer.rules.margin.model import (
    PAR_E8,
    CashHolding,
    DueHolding,
    ExpiryMark,
    Holdings,
    MarginParameters,
    MarketView,
    OptionHolding,
    UnderlyingMargin,
    UnderlyingMark,
    compute_open_value_units,
    compute_worth_units,
    get_frozen_markets,
    get_model,
    is_initial_met,
    is_maintenance_met,
    to_units_floor,
    verify_margin_parameters,
)
from relayer.rules.margin.numbers import DECIMAL, FLOAT
from relayer.rules.margin.srm import MAIN_NET, SrmParameters
from relayer.rules.prices import PriceState, SettlementKey, compute_price_states

NOW = 1_800_000_000
EXPIRY = NOW + 7 * 86_400
ETH = b"ETH".ljust(32, b"\0")
USDC = b"USDC".ljust(32, b"\0")
EURC = b"EURC".ljust(32, b"\0")
SOURCE = b"index".ljust(32, b"\0")
MODEL = get_model("srm")


def define(strike=2000, right=1, **changes):
    definition = SeriesDefinition(
        underlying=ETH,
        expiry=EXPIRY,
        strike_e8=strike * PAR_E8,
        right=right,
        quote_class=USDC,
        multiplier_e8=PAR_E8,
        price_source=SOURCE,
        twap_seconds=1800,
    )
    return replace(definition, **changes)


def hold(quantity, strike=2000, right=1, series=None, **changes):
    definition = define(strike, right, **changes)
    name = series or f"{strike}/{right}/{sorted(changes.items())}".encode()[:32].ljust(32, b"\0")
    return OptionHolding(name, definition, round(quantity * PAR_E8))


def cash(amount, **changes):
    held = CashHolding(
        vault_id=b"\1" * 32,
        asset=b"\2" * 32,
        quote_class=USDC,
        units=amount * 10**6,
        decimals=6,
        price_e8=PAR_E8,
        haircut_ppm=0,
        tier_level=1,
        age_s=0,
    )
    return replace(held, **changes)


def look(spot=2000, volatility=0.8, confidence_e8=PAR_E8, states=frozenset(), **changes):
    mark = ExpiryMark(EXPIRY, spot * PAR_E8, volatility_e8=round(volatility * PAR_E8))
    underlying = UnderlyingMark(ETH, SOURCE, spot * PAR_E8, confidence_e8, {EXPIRY: mark}, states)
    return replace(MarketView(NOW, {ETH: underlying}, {}, {}), **changes)


PARAMETERS = MarginParameters(USDC, {ETH: UnderlyingMargin(SOURCE, "srm", MAIN_NET)}, {USDC: 100_000})
MARKET = look()


def margin(*held, market=MARKET, numbers=FLOAT):
    holdings = Holdings(
        cash=tuple(h for h in held if isinstance(h, CashHolding)),
        dues=tuple(h for h in held if isinstance(h, DueHolding)),
        options=tuple(h for h in held if isinstance(h, OptionHolding)),
    )
    return MODEL.compute_margin(holdings, market, PARAMETERS, numbers)


def test_cash_alone_is_margin():
    result = margin(cash(1000))
    assert (result.initial, result.maintenance, result.cash, result.warnings) == (1000, 1000, 1000, ())


def test_a_long_option_needs_and_gives_nothing():
    result = margin(cash(10), hold(1))
    assert result.initial == result.maintenance == 10
    assert result.mark_to_market > 80
    assert result.equity == result.cash + result.mark_to_market


def test_a_short_call_at_the_money_asks_its_mark_and_15_percent_of_spot():
    result = margin(hold(-1))
    assert result.initial == pytest.approx(result.mark_to_market - 300)
    assert result.maintenance == pytest.approx(result.mark_to_market - 180)


def test_long_and_short_of_one_series_on_two_vaults_need_nothing():
    result = margin(cash(5), hold(3, series=b"s" * 32), hold(-3, series=b"s" * 32))
    assert (result.initial, result.maintenance, result.mark_to_market, result.per_market) == (5, 5, 0, ())
    # the same two apart would ask for much
    assert margin(cash(5), hold(-3)).initial < -900


def test_the_multiplier_scales_the_contract():
    ten = margin(hold(-1, multiplier_e8=10 * PAR_E8))
    assert ten.initial == pytest.approx(margin(hold(-10)).initial)


def test_options_of_other_settlement_prices_do_not_offset_a_spread():
    near = margin(hold(-1), hold(1, 2100)).initial
    assert near == pytest.approx(-100)
    apart = margin(hold(-1), hold(1, 2100, twap_seconds=600)).initial
    assert apart < -300


def test_one_definition_under_one_series_name_only():
    with pytest.raises(Rejected) as error:
        margin(hold(1, series=b"s" * 32), hold(1, 2100, series=b"s" * 32))
    assert error.value.reason == "bad_holding"


# ---------------------------------------------------------------- cash and dues


def test_a_due_owed_by_the_house_loses_its_haircut_and_one_owed_to_it_counts_in_full():
    assert margin(DueHolding(USDC, 100 * 10**6, 6)).initial == 90
    assert margin(DueHolding(USDC, -100 * 10**6, 6)).initial == -100


def test_dues_of_one_class_net_before_the_haircut():
    assert margin(DueHolding(USDC, 100 * 10**6, 6), DueHolding(USDC, -100 * 10**6, 6)).initial == 0


def test_the_haircut_of_cash_grows_with_the_age_of_its_chain():
    fresh = cash(100, haircut_ppm=10_000, stale_haircut_ppm_per_hour=20_000)
    assert margin(fresh).initial == 99
    assert margin(replace(fresh, age_s=7200)).initial == 95
    assert margin(replace(fresh, age_s=10**9)).initial == 0


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"price_e8": 0}, "no price"),
        ({"price_e8": 90_000_000, "peg_low_e8": 97_000_000}, "fallen"),
        ({"tier_level": 4}, "tier 4"),
        ({"quote_class": EURC}, "class EURC"),
    ],
)
def test_cash_without_a_good_price_or_proof_counts_nothing_and_is_named(changes, word):
    result = margin(cash(100, **changes))
    assert result.initial == 0
    assert len(result.warnings) == 1
    assert word in result.warnings[0]


def test_cash_at_98_cents_inside_its_band_counts_98_percent():
    assert margin(cash(100, price_e8=98_000_000, peg_low_e8=97_000_000)).initial == 98


def test_debts_and_options_in_a_class_without_a_price_are_refused():
    for held in (DueHolding(EURC, -1, 6), cash(-1, quote_class=EURC), hold(1, quote_class=EURC)):
        with pytest.raises(Rejected) as error:
            margin(held)
        assert error.value.reason == "class_price_missing"


def test_another_class_converts_by_its_price():
    market = look(class_prices_e8={EURC: 110_000_000})
    assert margin(cash(100, quote_class=EURC), market=market).initial == pytest.approx(110)
    short = margin(hold(-1, quote_class=EURC), market=market)
    assert short.initial == pytest.approx(1.1 * margin(hold(-1)).initial)


# ---------------------------------------------------------------- frozen markets


def remove_expiry():
    underlying = MARKET.underlyings[ETH]
    return replace(MARKET, underlyings={ETH: replace(underlying, expiries={})})


def remove_volatility():
    underlying = MARKET.underlyings[ETH]
    mark = replace(underlying.expiries[EXPIRY], volatility_e8=None)
    return replace(MARKET, underlyings={ETH: replace(underlying, expiries={EXPIRY: mark})})


def break_slice():
    underlying = MARKET.underlyings[ETH]
    mark = replace(underlying.expiries[EXPIRY], volatility_e8=None, svi_e18=(-(10**18), 0, 0, 0, 0, 10**18))
    return replace(MARKET, underlyings={ETH: replace(underlying, expiries={EXPIRY: mark})})


@pytest.mark.parametrize(
    "market",
    [
        replace(MARKET, underlyings={}),
        look(states=frozenset({PriceState.STALE_FOR_MARGIN})),
        look(states=frozenset({PriceState.TOO_VOLATILE})),
        remove_expiry(),
        remove_volatility(),
        break_slice(),
    ],
    ids=["no spot", "stale", "volatile", "no forward", "no volatility", "broken slice"],
)
def test_a_market_without_a_usable_price_freezes_margin_and_is_not_valued_at_zero(market):
    for quantity in (1, -1):
        with pytest.raises(Rejected) as error:
            margin(cash(10**6), hold(quantity), market=market)
        assert error.value.reason == "market_frozen"
        assert "ETH" in str(error.value)
    # cash alone is not touched by it
    assert margin(cash(10), market=market).initial == 10


def test_a_series_of_an_unknown_source_or_underlying_freezes():
    for changes in ({"price_source": b"amm".ljust(32, b"\0")}, {"underlying": b"DOGE".ljust(32, b"\0")}):
        with pytest.raises(Rejected) as error:
            margin(hold(1, **changes))
        assert error.value.reason == "market_frozen"
    assert get_frozen_markets(Holdings(options=(hold(1),)), MARKET, PARAMETERS) == ()


def test_a_spot_of_another_source_is_never_taken():
    """incidents.md H3 (Sharwa): collateral was valued at a pool that one transaction could move."""
    pool = replace(look(spot=20_000).underlyings[ETH], price_source=b"amm".ljust(32, b"\0"))
    moved = replace(MARKET, underlyings={ETH: pool})
    with pytest.raises(Rejected) as error:
        margin(hold(1), market=moved)
    assert error.value.reason == "market_frozen"
    # the vulnerable twin takes any number that calls itself ETH
    blind = replace(moved, underlyings={ETH: replace(pool, price_source=SOURCE)})
    assert margin(hold(1), market=blind).mark_to_market > 100 * margin(hold(1)).mark_to_market


def test_a_thirteenfold_spike_freezes_margin_and_never_credits():
    """incidents.md H1 (Mango): a price pumped 13 times must not lend anything against it."""
    states = compute_price_states(
        price_e8=13 * 2000 * PAR_E8, stamp=NOW, confidence_e8=PAR_E8, reference_e8=2000 * PAR_E8, now=NOW
    )
    pumped = look(spot=26_000, states=states)
    with pytest.raises(Rejected) as error:
        margin(hold(100), market=pumped)
    assert error.value.reason == "market_frozen"
    # the vulnerable twin: without the gate the position is marked at 13 times its price
    blind = look(spot=26_000)
    assert margin(hold(100), market=blind).mark_to_market > 20 * margin(hold(100)).mark_to_market
    # and even then a long option gives no margin, and a pumped stablecoin gives no more than par
    assert margin(hold(100), market=blind).initial == 0
    assert margin(cash(100, price_e8=13 * PAR_E8)).initial == 100


# ---------------------------------------------------------------- expiry


def test_an_expired_series_is_valued_at_its_settlement_price_and_no_other():
    key = SettlementKey(ETH, EXPIRY, SOURCE, 1800)
    market = look(now=EXPIRY + 60, settlement_prices_e8={key: 2100 * PAR_E8})
    won, lost = margin(hold(1), market=market), margin(hold(-1), market=market)
    assert (won.mark_to_market, won.initial, won.maintenance) == (100, 90, 90)  # a payoff is a due of the house
    assert (lost.mark_to_market, lost.initial, lost.maintenance) == (-100, -100, -100)  # and nothing beyond it is asked
    assert margin(hold(1), hold(-1, 2050), market=market).initial == 45
    blind = replace(market, underlyings={})
    assert margin(hold(-1), market=blind).initial == -100  # a fixed price needs no spot
    without = replace(market, settlement_prices_e8={})
    assert margin(hold(1), market=without).mark_to_market == 0  # intrinsic value at the forward of 2000
    stripped = replace(without, underlyings=remove_expiry().underlyings)
    with pytest.raises(Rejected) as error:
        margin(hold(1), market=stripped)
    assert error.value.reason == "market_frozen"


# ---------------------------------------------------------------- charges


def test_low_confidence_charges_shorts_and_only_initial_margin():
    sure, unsure = margin(hold(-1)), margin(hold(-1), market=look(confidence_e8=54_999_999))
    assert unsure.maintenance == sure.maintenance
    assert unsure.initial == pytest.approx(sure.initial - 0.45000001 * 2000)
    assert margin(hold(-1), market=look(confidence_e8=55_000_000)).initial == sure.initial


def test_a_fallen_account_currency_charges_shorts():
    fallen = margin(hold(-1), market=look(stable_price_e8=90_000_000))
    assert fallen.initial == pytest.approx(margin(hold(-1)).initial - 0.08 * 1.2 * 2000)
    assert fallen.maintenance == margin(hold(-1)).maintenance


# ---------------------------------------------------------------- rounding and deciding


def test_amounts_are_floored_against_the_account():
    result = margin(cash(0, units=1, haircut_ppm=1))
    assert to_units_floor(result, 6) == (0, 0)
    assert to_units_floor(margin(cash(0, units=1, haircut_ppm=1), numbers=DECIMAL), 6) == (0, 0)
    result = margin(cash(0, units=-1, decimals=8))
    assert to_units_floor(result, 6) == (-1, -1)


def test_a_margin_of_exactly_zero_is_met_and_one_unit_less_is_not():
    short = margin(hold(-1), hold(1, 2100), numbers=DECIMAL)
    assert short.initial == -100
    for units, met in ((100 * 10**6, True), (100 * 10**6 - 1, False)):
        holdings = Holdings(cash=(cash(0, units=units),), options=(hold(-1), hold(1, 2100)))
        assert is_initial_met(MODEL, holdings, MARKET, PARAMETERS) is met
        assert is_maintenance_met(MODEL, holdings, MARKET, PARAMETERS) is met


positions = st.lists(
    st.tuples(st.integers(-(10**10), 10**10), st.sampled_from([1500, 1900, 2000, 2100, 3000]), st.sampled_from([0, 1])),
    max_size=6,
)


@settings(max_examples=40, deadline=None)
@given(positions, st.integers(500, 8000), st.integers(1, 300))
def test_floats_and_decimals_agree_to_a_trillionth_of_gross(lines, spot, volatility):
    held = [hold(q / PAR_E8, strike, right) for q, strike, right in lines]
    market = look(spot, volatility / 100)
    rough, fine = margin(cash(77), *held, market=market), margin(cash(77), *held, market=market, numbers=DECIMAL)
    bound = 1e-12 * (rough.gross + 1)
    assert abs(rough.initial - float(fine.initial)) <= bound
    assert abs(rough.maintenance - float(fine.maintenance)) <= bound
    assert abs(rough.mark_to_market - float(fine.mark_to_market)) <= bound
    assert isinstance(fine.initial, Decimal)


@settings(max_examples=60, deadline=None)
@given(positions, st.integers(0, 10**6), st.integers(1, 10**6))
def test_more_cash_is_more_margin_and_maintenance_is_never_above_what_initial_leaves(lines, money, more):
    held = [hold(q / PAR_E8, strike, right) for q, strike, right in lines]
    poor, rich = margin(cash(money), *held), margin(cash(money + more), *held)
    slack = 1e-9 * (rich.gross + 1)
    assert rich.initial - poor.initial == pytest.approx(more, abs=slack)
    assert poor.initial <= poor.maintenance + slack


@settings(max_examples=60, deadline=None)
@given(positions, st.integers(1, 10**10), st.sampled_from([1500, 2000, 3000]), st.sampled_from([0, 1]))
def test_a_further_long_option_never_lowers_margin(lines, quantity, strike, right):
    held = [hold(q / PAR_E8, k, r) for q, k, r in lines]
    before = margin(*held)
    # The published worst payoff looks at strikes only: a new highest strike lets it see what net short calls lose up to there.
    assume(strike <= max((line.definition.strike_e8 // PAR_E8 for line in get_lines(before)), default=0))
    after = margin(*held, hold(quantity / PAR_E8, strike, right))
    slack = 1e-9 * (after.gross + 1)
    assert after.initial >= before.initial - slack
    assert after.maintenance >= before.maintenance - slack


def get_lines(result):
    return [line for row in result.per_market for line in row.options]


@settings(max_examples=30, deadline=None)
@given(st.permutations([hold(-1), hold(2, 2100), hold(-3, 1900, 0), cash(5), cash(7, asset=b"\3" * 32)]))
def test_the_order_of_holdings_changes_no_bit(held):
    assert margin(*held) == margin(*reversed(held))


def test_too_many_series_are_refused():
    held = [hold(1, 1000 + i) for i in range(2049)]
    with pytest.raises(Rejected) as error:
        margin(*held)
    assert error.value.reason == "too_many_holdings"


def test_an_unknown_model_is_refused():
    with pytest.raises(Rejected) as error:
        get_model("pm9")
    assert error.value.reason == "unknown_model"


# ---------------------------------------------------------------- parameters


def read(**changes):
    values = {"underlying": ETH, "price_source": SOURCE, "model": "srm"} | changes
    repeat = values.pop("repeat", 1)
    numbers = tuple(ModelParameter(field.name, str(getattr(MAIN_NET, field.name))) for field in fields(SrmParameters))
    numbers += values.pop("extra", ())
    haircut = values.pop("haircut", 100_000)
    currency = values.pop("currency", USDC)
    # Margin reads two tables; what the others hold is nothing to it.
    values_of_all = {field.name: () for field in fields(Parameters)} | {
        "classes": (ClassParameters(USDC, 6, Amount(0), haircut),),
        "underlyings": (UnderlyingParameters(model_parameters=numbers, **values),) * repeat,
    }
    parameters = Parameters(**values_of_all)
    return verify_margin_parameters(parameters, currency)


def test_the_margin_part_of_the_operators_parameters_is_read():
    assert read() == PARAMETERS


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"model": "pm9"}, "underlyings[0].model"),
        ({"repeat": 2}, "underlyings[1].underlying"),
        (
            {"extra": (ModelParameter("depeg_factor", "1"),)},
            "underlyings[0].model_parameters.depeg_factor is named twice",
        ),
        ({"extra": (ModelParameter("surprise", "1"),)}, "underlyings[0].model_parameters has an unknown key"),
        ({"haircut": 1_000_001}, "classes[0].house_due_haircut_ppm"),
        ({"currency": EURC}, "account currency"),
    ],
)
def test_wrong_parameters_are_refused_by_the_name_of_their_key(changes, word):
    with pytest.raises(Rejected) as error:
        read(**changes)
    assert error.value.reason == "bad_parameters"
    assert word in error.value.what


# ---------------------------------------------------------------- worth


def test_worth_is_cash_dues_and_payoffs_in_exact_integers_floored():
    key = SettlementKey(ETH, EXPIRY, SOURCE, 1800)
    holdings = Holdings(
        cash=(cash(10, price_e8=1, haircut_ppm=500_000),),  # worth knows no haircut
        dues=(DueHolding(USDC, -3, 6),),
        options=(hold(-0.33333333, 2000),),
    )
    worth = compute_worth_units(holdings, quote_class=USDC, decimals=6, settlement_prices_e8={key: 2000 * PAR_E8 + 7})
    # payoff -7e-8 * 0.33333333 = -2.33e-8: one more whole unit to pay
    assert worth == 10 * 10**6 - 3 - 1
    assert compute_worth_units(holdings, quote_class=USDC, decimals=6, settlement_prices_e8={}) == 10 * 10**6 - 3


def test_open_options_count_their_mark_and_settled_ones_do_not():
    result = margin(hold(1), hold(-1, 2100), numbers=DECIMAL)
    key = SettlementKey(ETH, EXPIRY, SOURCE, 1800)
    value = compute_open_value_units(result.per_market, DECIMAL, decimals=6, settlement_prices_e8={})
    assert abs(value - int(result.mark_to_market * 10**6)) <= 2
    assert compute_open_value_units(result.per_market, DECIMAL, decimals=6, settlement_prices_e8={key: 1}) == 0
