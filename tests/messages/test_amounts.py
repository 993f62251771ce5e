"""Amounts: exact units, payers up, receivers down."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messages import amounts as a
from tests.messages.builders import get_refusal

big = st.integers(-(2**256), 2**256)


@settings(max_examples=200)
@given(big, st.integers(1, 2**128))
def test_divisions_bracket_the_exact_quotient_by_less_than_one(x, y):
    exact = Fraction(x, y)
    assert a.floor_div(x, y) <= exact <= a.ceil_div(x, y)
    assert a.ceil_div(x, y) - a.floor_div(x, y) == (0 if x % y == 0 else 1)


@pytest.mark.parametrize("y", [0, -1])
def test_a_divisor_that_is_not_positive_is_refused(y):
    assert get_refusal(a.ceil_div, 1, y) == get_refusal(a.floor_div, 1, y) == "bad_divisor"


@settings(max_examples=200)
@given(big, st.integers(0, a.MAX_DECIMALS))
def test_a_text_of_units_comes_back_exactly(amount, decimals):
    text = a.format_units(amount, decimals)
    assert a.parse_units(text, decimals) == amount
    assert a.to_view_units(amount, decimals) == Decimal(text)
    assert Fraction(text) == Fraction(amount, 10**decimals)


def test_some_texts_by_hand():
    assert a.format_units(1_500_000, 6) == "1.500000"
    assert a.format_units(-5, 8) == "-0.00000005"
    assert a.format_units(12, 0) == "12"
    assert a.parse_units("1.5", 6) == 1_500_000
    assert a.parse_units("1.5000000", 6) == 1_500_000
    assert a.parse_units("-0.05", 2) == -5


@pytest.mark.parametrize(
    "text", ["", ".", "1.", ".5", "01", "1e3", "+1", "1,5", " 1", "1\n", "NaN", "1.23", "\uff11", "1" * 200]
)
def test_texts_that_are_no_exact_amount_are_refused(text):
    assert get_refusal(a.parse_units, text, 1) == "bad_amount"


@pytest.mark.parametrize("decimals", [-1, 78])
def test_decimals_beyond_256_bits_are_refused(decimals):
    assert get_refusal(a.format_units, 1, decimals) == "bad_decimals"
    assert get_refusal(a.parse_units, "1", decimals) == "bad_decimals"


def test_the_unit_of_a_class_is_that_of_its_coarsest_token():
    assert a.get_class_decimals([18, 6, 8]) == 6
    assert get_refusal(a.get_class_decimals, []) == "bad_decimals"
    assert a.get_unit_scale(18, 6) == 10**12
    assert get_refusal(a.get_unit_scale, 6, 8) == "bad_decimals"


@settings(max_examples=100)
@given(st.integers(-(2**128), 2**128), st.integers(0, 20), st.integers(0, 20))
def test_class_units_round_against_nobody_by_more_than_one_unit(units, first, second):
    token, cls = max(first, second), min(first, second)
    down, up = a.to_class_units_floor(units, token, cls), a.to_class_units_ceil(units, token, cls)
    assert a.to_token_units(down, token, cls) <= units <= a.to_token_units(up, token, cls)
    assert up - down in (0, 1)
    if up == down:
        assert a.to_class_units_exact(units, token, cls) == down
    else:
        assert get_refusal(a.to_class_units_exact, units, token, cls) == "not_whole"
