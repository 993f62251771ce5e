"""The arithmetic, Black-76, SVI and the single rules of SRM, against identities and numbers worked by hand."""

import math
from dataclasses import fields, replace
from decimal import Decimal, localcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messages.errors import Rejected
from relayer.rules.margin.black76 import YEAR_S, compute_option_prices, compute_tau
from relayer.rules.margin.numbers import DECIMAL, FLOAT, decide_not_negative, decide_sign, is_edge
from relayer.rules.margin.srm import (
    MAIN_NET,
    SrmExpiry,
    SrmMarket,
    SrmOption,
    SrmParameters,
    SrmPerp,
    compute_srm_isolated,
    compute_srm_market,
    compute_srm_max_loss,
    verify_srm_parameters,
)
from relayer.rules.margin.svi import (
    SviSlice,
    compute_svi_variance,
    compute_svi_volatility,
    get_svi_flags,
    is_calendar_free,
)

# ---------------------------------------------------------------- numbers


def test_the_decimal_normal_distribution_is_right_to_45_digits():
    # N(1) as tabulated to 50 digits; the others where both expansions agree at 70 digits of working precision.
    known = {
        "1": "0.84134474606854294858523254563203792247791296672660",
        "-2": "0.022750131948179207200282637166533437471776223701678",
        "-5": "0.00000028665157187919391167375233287464535385442301361189",
    }
    for x, expected in known.items():
        got, right = DECIMAL.ndtr(Decimal(x)), Decimal(expected)
        assert abs(got - right) <= abs(right) * Decimal("1e-45"), x


def test_the_two_expansions_meet_without_a_step():
    with localcontext() as context:
        context.prec = 60
        below, above = Decimal("3.99999999999999999999"), Decimal("4.00000000000000000001")
        step = DECIMAL.ndtr(above) - DECIMAL.ndtr(below)
        density = (Decimal(-8)).exp() / (2 * Decimal(str(math.pi))).sqrt()
        assert abs(step / (density * (above - below)) - 1) < Decimal("1e-14")


@given(st.floats(-38, 38))
def test_decimals_and_floats_agree_on_the_normal_distribution(x):
    exact = DECIMAL.ndtr(Decimal(x))
    assert FLOAT.ndtr(x) == pytest.approx(float(exact), rel=1e-11, abs=1e-300)
    assert abs(exact + DECIMAL.ndtr(Decimal(-x)) - 1) < Decimal("1e-48")


def test_far_tails_are_zero_and_one():
    assert DECIMAL.ndtr(Decimal(-(10**9))) == 0
    assert DECIMAL.ndtr(Decimal(10**9)) == 1


def test_amounts_are_floored_exactly():
    assert FLOAT.to_units_floor(0.1, 17) == 10_000_000_000_000_000  # 0.1 is a little more than a tenth
    assert FLOAT.to_units_floor(-0.1, 17) == -10_000_000_000_000_001
    assert FLOAT.to_units_floor(0.29, 2) == 28  # the float is below 0.29; a float product would say 28.999.. or 29
    assert DECIMAL.to_units_floor(Decimal("0.29"), 2) == 29
    assert DECIMAL.to_units_floor(Decimal("-0.291"), 2) == -30


def test_a_decision_at_the_edge_is_made_in_decimals():
    used = []

    def third(numbers):
        used.append(numbers.name)
        # 1/3 three times less 1: zero in floats by luck, one unit of the 50th digit below zero in decimals
        part = numbers.from_ratio(1, 3)
        return part + part + part - numbers.one, numbers.one

    assert decide_sign(third) == -1
    assert used == ["float", "decimal"]
    assert not decide_not_negative(third)


def test_a_clear_decision_needs_no_decimals():
    used = []

    def clear(numbers):
        used.append(numbers.name)
        return numbers.from_ratio(1, 10**6), numbers.one

    assert decide_sign(clear) == 1
    assert used == ["float"]
    assert decide_not_negative(clear)


def test_a_float_sum_that_lost_a_cent_is_decided_right():
    """The vulnerable twin trusts the float sign."""

    def lost(numbers):
        total = numbers.from_int(10**17)
        return total - numbers.from_ratio(1, 100) - total, total

    assert lost(FLOAT)[0] == 0
    assert decide_sign(lost) == -1


def test_what_is_not_a_number_is_an_edge():
    assert is_edge(math.nan, 1.0)
    assert is_edge(math.inf, 1.0)
    assert is_edge(1e-9, 1.0)
    assert not is_edge(1.1e-9, 1.0)


# ---------------------------------------------------------------- Black-76


def price(numbers=FLOAT, **changes):
    values = {"forward": 2000, "strike": 2100, "volatility": "0.8", "discount": "0.99"} | changes
    seconds = values.pop("seconds", 7 * 86_400)
    converted = {name: numbers.from_decimal(Decimal(value)) for name, value in values.items()}
    with numbers.scope():
        return compute_option_prices(numbers, seconds=seconds, **converted)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(0, 3000), st.integers(0, YEAR_S), st.integers(1, 100))
def test_put_call_parity_holds_and_prices_stay_inside_their_caps(forward, strike, vol, seconds, discount):
    changes = {
        "forward": forward,
        "strike": strike,
        "volatility": Decimal(vol) / 100,
        "discount": Decimal(discount) / 100,
    }
    for numbers, slack in ((FLOAT, 1e-12), (DECIMAL, Decimal("1e-44"))):
        call, put = price(numbers, seconds=seconds, **changes)
        d = numbers.from_decimal(changes["discount"])
        assert abs(call - put - d * (forward - strike)) <= slack * d * (forward + strike)
        assert 0 <= call <= d * forward
        assert 0 <= put <= d * strike


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 10**5), st.integers(1, 10**5), st.integers(1, 500), st.integers(60, YEAR_S))
def test_float_and_decimal_prices_agree_to_a_trillionth(forward, strike, vol, seconds):
    changes = {"forward": forward, "strike": strike, "volatility": Decimal(vol) / 100, "seconds": seconds}
    for rough, fine in zip(price(FLOAT, **changes), price(DECIMAL, **changes), strict=True):
        assert abs(rough - float(fine)) <= 1e-12 * (forward + strike)


@settings(max_examples=40, deadline=None)
@given(st.integers(100, 10_000), st.integers(100, 10_000), st.integers(1, 300), st.integers(1, 300))
def test_a_call_rises_with_volatility_and_falls_with_strike(forward, strike, vol, more):
    call, _ = price(forward=forward, strike=strike, volatility=Decimal(vol) / 100)
    assert price(forward=forward, strike=strike, volatility=Decimal(vol + more) / 100)[0] >= call - 1e-9
    assert price(forward=forward, strike=strike + more, volatility=Decimal(vol) / 100)[0] <= call + 1e-9


def test_edges_of_an_option():
    for numbers in (FLOAT, DECIMAL):
        d = numbers.from_decimal(Decimal("0.99"))
        assert price(numbers, strike=0) == (2000 * d, 0)
        assert price(numbers, forward=0) == (0, 2100 * d)
        assert price(numbers, discount=0) == (0, 0)
        call, put = price(numbers, volatility=0)
        assert call == 0
        assert abs(put - 100 * d) < 1e-9
        call, put = price(numbers, volatility=24, seconds=YEAR_S)
        assert call == 2000 * d
        assert abs(put - 2100 * d) < 1e-9
        assert abs(price(numbers, seconds=-5)[1] - 100 * d) < 1e-9


@pytest.mark.parametrize("name", ["forward", "strike", "volatility", "discount"])
def test_negative_inputs_are_refused(name):
    with pytest.raises(Rejected) as error:
        price(**{name: -1})
    assert error.value.reason == "bad_market_value"
    assert name in error.value.what


def test_not_a_number_is_refused():
    with pytest.raises(Rejected):
        compute_option_prices(FLOAT, forward=math.nan, strike=1.0, volatility=1.0, seconds=1, discount=1.0)


def test_a_year_has_365_days():
    assert compute_tau(FLOAT, YEAR_S) == 1
    assert compute_tau(FLOAT, -1) == 0


# ---------------------------------------------------------------- SVI


GOOD = SviSlice(a=0.02, b=0.05, rho=-0.3, m=0.0, s=0.1, forward=2000.0, tau=0.1)


def test_a_flat_slice_is_its_volatility_at_every_strike():
    flat = SviSlice(a=0.04, b=0.0, rho=0.0, m=0.0, s=0.0, forward=2000.0, tau=0.25)
    for strike in (1.0, 2000.0, 9999.0):
        assert compute_svi_volatility(FLOAT, flat, strike) == pytest.approx(0.4)


def test_the_log_strike_is_clipped_far_out():
    assert compute_svi_volatility(FLOAT, GOOD, 1e9) == compute_svi_volatility(FLOAT, GOOD, 1e12)
    bound = 4 * math.sqrt(0.02 + 0.05 * 0.1)
    edge = math.sqrt(compute_svi_variance(FLOAT, GOOD, bound) / 0.1)
    assert compute_svi_volatility(FLOAT, GOOD, 1e9) == pytest.approx(edge)


def test_variance_is_clipped_at_144_and_strike_zero_has_none():
    wild = replace(GOOD, a=1000.0)
    assert compute_svi_volatility(FLOAT, wild, 2000.0) == pytest.approx(12 / math.sqrt(0.1))
    assert compute_svi_volatility(FLOAT, GOOD, 0.0) == 0


@pytest.mark.parametrize(
    "changes", [{"forward": 0.0}, {"tau": 0.0}, {"a": -1.0}, {"a": -0.004, "rho": -0.99999, "m": -1.0}]
)
def test_a_slice_without_a_volatility_is_refused(changes):
    with pytest.raises(Rejected) as error:
        compute_svi_volatility(FLOAT, replace(GOOD, **changes), 2000.0)
    assert error.value.reason == "invalid_slice"


def test_a_good_slice_has_no_flags():
    assert get_svi_flags(FLOAT, GOOD) == ()


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"b": -0.01}, "b"),
        ({"rho": 1.0}, "rho"),
        ({"s": 0.0}, "s"),
        ({"a": -0.02}, "minimum"),
        ({"b": 1.9}, "wings"),
        ({"s": 0.0001, "b": 0.5}, "butterfly"),
    ],
)
def test_each_broken_condition_raises_its_flag_and_no_error(changes, flag):
    assert flag in get_svi_flags(FLOAT, replace(GOOD, **changes))


def test_calendar_arbitrage_is_seen():
    assert is_calendar_free(FLOAT, GOOD, replace(GOOD, a=0.03))
    assert not is_calendar_free(FLOAT, GOOD, replace(GOOD, a=0.01))


# ---------------------------------------------------------------- SRM, rule by rule


def option(strike, amount, *, is_call=True, value=50.0):
    return SrmOption(float(strike), is_call, float(amount), value)


def market(*options, spot=2000.0, confidence="1", stable=1.0, perp=None, base=None, forward=2000.0):
    expiry = SrmExpiry(options, forward, Decimal(confidence))
    return SrmMarket(spot, Decimal(confidence), stable, (expiry,) if options else (), perp, base)


def test_isolated_margin_by_hand():
    # at the money: 50 + .15 * 2000; .09 * 2000
    assert compute_srm_isolated(FLOAT, option(2000, -1), 2000.0, MAIN_NET) == pytest.approx((-350, -230))
    # far out: the minimum of .13
    assert compute_srm_isolated(FLOAT, option(4000, -1), 2000.0, MAIN_NET)[0] == pytest.approx(-310)
    # a deep put: .09 of its own mark is more than .09 of spot; initial is 1.05 times maintenance
    deep = compute_srm_isolated(FLOAT, option(8000, -1, is_call=False, value=6000.0), 2000.0, MAIN_NET)
    assert deep == pytest.approx((-6540 * 1.05, -6540))
    assert compute_srm_isolated(FLOAT, option(2000, 1), 2000.0, MAIN_NET) == (0, 0)


def test_max_loss_by_hand():
    spread = (option(1800, -1), option(2000, 1))
    assert compute_srm_max_loss(FLOAT, spread) == -200
    assert compute_srm_max_loss(FLOAT, (option(2000, -1, is_call=False),)) == -2000
    assert compute_srm_max_loss(FLOAT, (option(2000, -1),)) == 0  # the open side is charged by the forward
    result = compute_srm_market(FLOAT, market(*spread), MAIN_NET)
    assert (result.initial, result.maintenance) == (-200, -200)


def test_net_short_calls_are_charged_by_the_forward():
    deep = option(10, -1, value=6000.0)  # isolated margin would be above 6,000
    result = compute_srm_market(FLOAT, market(deep, spot=2000.0), MAIN_NET)
    assert result.expiries[0].unpaired_initial == pytest.approx(-2400)
    assert (result.initial, result.maintenance) == pytest.approx((-2400, -2200))


def test_perps_and_base_by_hand():
    perp = SrmPerp(-2.0, 2010.0, 30.0, Decimal("0.5"))
    result = compute_srm_market(FLOAT, market(perp=perp, base=3.0), MAIN_NET)
    assert result.perp_initial == pytest.approx(30 - 402)
    assert result.perp_maintenance == pytest.approx(30 - 261.3)
    assert result.base_maintenance == pytest.approx(4800)
    assert result.base_initial == pytest.approx(4500)
    assert result.confidence == pytest.approx(-0.5 * 2000 * 2)  # the perp's; spot itself is sure


def test_the_confidence_step_is_exact():
    just_below = compute_srm_market(FLOAT, market(option(2000, -1), confidence="0.549999999999999999"), MAIN_NET)
    at = compute_srm_market(FLOAT, market(option(2000, -1), confidence="0.55"), MAIN_NET)
    assert at.confidence == 0
    assert just_below.confidence == pytest.approx(-900)
    # the vulnerable twin compares floats: both are .55
    assert float("0.549999999999999999") == 0.55


def test_a_market_without_a_positive_spot_is_refused():
    for spot in (0.0, -1.0, math.nan):
        with pytest.raises(Rejected) as error:
            compute_srm_market(FLOAT, market(spot=spot), MAIN_NET)
        assert error.value.reason == "bad_market_value"


# ---------------------------------------------------------------- parameters


RAW = {field.name: str(getattr(MAIN_NET, field.name)) for field in fields(SrmParameters)}


def test_parameters_are_read_exactly():
    assert verify_srm_parameters(RAW, "underlyings[0]") == MAIN_NET
    assert verify_srm_parameters(RAW | {"confidence_factor": 1}, "x").confidence_factor == 1


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"call_maintenance": "abc"}, "call_maintenance"),
        ({"call_maintenance": 0.09}, "call_maintenance"),
        ({"call_maintenance": True}, "call_maintenance"),
        ({"call_maintenance": "1e3"}, "call_maintenance"),
        ({"call_maintenance": "NaN"}, "call_maintenance"),
        ({"call_maintenance": "-0.1"}, "call_maintenance"),
        ({"call_maintenance": "-"}, "call_maintenance"),
        ({"call_maintenance": "\u0663"}, "call_maintenance"),
        ({"call_maintenance": "0." + "1" * 40}, "call_maintenance"),
        ({"depeg_factor": "11"}, "depeg_factor"),
        ({"minimum_requirement": "0.2"}, "minimum_requirement"),
        ({"unpaired_maintenance": "1.3"}, "unpaired_maintenance"),
        ({"perp_maintenance": "0.2"}, "perp_maintenance"),
        ({"surprise": "1"}, "unknown key"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(changes, key):
    with pytest.raises(Rejected) as error:
        verify_srm_parameters(RAW | changes, "underlyings[3]")
    assert error.value.reason == "bad_parameters"
    assert "underlyings[3]" in error.value.what
    assert key in error.value.what


@pytest.mark.parametrize("name", sorted(RAW))
def test_every_parameter_is_needed(name):
    raw = {key: value for key, value in RAW.items() if key != name}
    with pytest.raises(Rejected) as error:
        verify_srm_parameters(raw, "p")
    assert f"p.{name}" in error.value.what
