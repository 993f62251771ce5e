"""Liquidation: the discount falls, a sale restores the buffer and no more, the stated discount rounds against the portfolio."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messages.errors import Rejected
from relayer.rules.margin.auction import (
    MAIN_NET_AUCTION,
    compute_bid,
    compute_buffer_margin,
    compute_discount,
    compute_insolvent_price,
    compute_liquidation_cash_units,
    compute_liquidation_quantity_e8,
    compute_maximum_fraction,
    compute_start_fee,
)
from relayer.rules.margin.numbers import DECIMAL, FLOAT

E8 = 10**8


def test_the_discount_at_its_corners():
    for elapsed_s, expected in (
        (0, "0.95"),
        (450, "0.825"),
        (900, "0.7"),
        (900 + 21_600, "0.35"),
        (44_100, "0"),
        (10**9, "0"),
    ):
        assert compute_discount(DECIMAL, elapsed_s, MAIN_NET_AUCTION) == Decimal(expected)


@given(st.integers(0, 50_000), st.integers(0, 50_000))
def test_the_discount_never_rises(first, later):
    early, late = sorted((first, later))
    assert compute_discount(FLOAT, late, MAIN_NET_AUCTION) <= compute_discount(FLOAT, early, MAIN_NET_AUCTION)


def test_nothing_is_sold_before_the_start():
    for call in (
        lambda: compute_discount(FLOAT, -1, MAIN_NET_AUCTION),
        lambda: compute_insolvent_price(FLOAT, maintenance=-1.0, worth=0.0, elapsed_s=-1, parameters=MAIN_NET_AUCTION),
    ):
        with pytest.raises(Rejected) as error:
            call()
        assert error.value.reason == "bad_time"


@settings(max_examples=100)
@given(st.integers(-(10**9), 10**9), st.integers(1, 10**9), st.integers(0, 44_000), st.integers(0, 99))
def test_selling_the_largest_fraction_restores_the_buffer_and_no_more(maintenance, worth, elapsed_s, paid_percent):
    with DECIMAL.scope():
        worth_n = Decimal(worth)
        reserved = worth_n * paid_percent / 100
        buffer_margin = compute_buffer_margin(DECIMAL, Decimal(min(maintenance, worth)), worth_n, MAIN_NET_AUCTION)
        discount = compute_discount(DECIMAL, elapsed_s, MAIN_NET_AUCTION)
        most = compute_maximum_fraction(
            DECIMAL, buffer_margin=buffer_margin, worth=worth_n, reserved=reserved, discount=discount
        )
        assert 0 <= most <= 1
        # reserved cash does not leave with the share that is sold
        after = (buffer_margin - reserved) * (1 - most) + reserved + compute_bid(worth_n, reserved, discount) * most
        if buffer_margin >= 0:
            assert most == 0
        else:
            assert abs(after) <= Decimal("1e-30") * (abs(buffer_margin) + worth_n)


def test_a_portfolio_without_worth_is_not_sold_at_a_discount():
    for worth, reserved in ((0.0, 0.0), (-5.0, 0.0), (5.0, 5.0)):
        with pytest.raises(Rejected) as error:
            compute_maximum_fraction(FLOAT, buffer_margin=-10.0, worth=worth, reserved=reserved, discount=0.9)
        assert error.value.reason == "insolvent"


def test_the_start_fee_is_a_tenth_of_what_must_be_sold():
    # BM = -100 - .15 * 300 = -145; f = 145 / (145 + 200)
    fee = compute_start_fee(FLOAT, -100.0, 200.0, MAIN_NET_AUCTION)
    assert fee == pytest.approx(145 / 345 * 200 * 0.10)
    assert compute_start_fee(FLOAT, -100.0, -1.0, MAIN_NET_AUCTION) == 0
    assert compute_start_fee(FLOAT, 150.0, 200.0, MAIN_NET_AUCTION) == 0


def test_the_price_of_an_insolvent_portfolio_falls_from_its_debt_to_its_margin():
    def price(elapsed_s, worth=-30.0):
        return compute_insolvent_price(
            FLOAT, maintenance=-250.0, worth=worth, elapsed_s=elapsed_s, parameters=MAIN_NET_AUCTION
        )

    assert [price(t) for t in (0, 1800, 3600, 9999)] == [-30, -140, -250, -250]
    assert price(0, worth=10.0) == 0


# ---------------------------------------------------------------- the stated discount


def test_the_house_pays_less_than_the_mark_and_asks_more():
    mark = Decimal(50)
    assert compute_liquidation_cash_units(mark, 2 * E8, E8, discount_ppm=100_000, decimals=6) == 90 * 10**6
    assert compute_liquidation_cash_units(mark, -2 * E8, E8, discount_ppm=100_000, decimals=6) == -110 * 10**6
    assert compute_liquidation_cash_units(Decimal(0), -2 * E8, E8, discount_ppm=100_000, decimals=6) == 0


@settings(max_examples=100)
@given(st.integers(0, 10**60), st.integers(-(2**96), 2**96), st.integers(0, 10**6), st.integers(0, 18))
def test_a_liquidated_position_is_never_paid_more_than_its_discounted_mark(price, quantity, discount_ppm, decimals):
    mark = Decimal(price).scaleb(-50)
    units = compute_liquidation_cash_units(mark, quantity, E8, discount_ppm=discount_ppm, decimals=decimals)
    exact = Fraction(mark) * Fraction(quantity, E8) * 10**decimals
    loss = abs(exact) * Fraction(discount_ppm, 10**6)
    assert units <= exact - loss < units + 1


@given(st.integers(-(2**96), 2**96), st.integers(1, 10**6))
def test_every_step_moves_something_towards_zero_and_never_past_it(quantity, step_ppm):
    moved = compute_liquidation_quantity_e8(quantity, step_ppm)
    assert abs(moved) <= abs(quantity)
    assert (moved > 0) == (quantity > 0)
    assert (moved < 0) == (quantity < 0)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: compute_liquidation_quantity_e8(1, 0), "bad_parameters"),
        (lambda: compute_liquidation_quantity_e8(1, 10**6 + 1), "bad_parameters"),
        (lambda: compute_liquidation_cash_units(Decimal(1), 1, 1, discount_ppm=-1, decimals=6), "bad_parameters"),
        (lambda: compute_liquidation_cash_units(Decimal(-1), 1, 1, discount_ppm=1, decimals=6), "bad_market_value"),
        (lambda: compute_liquidation_cash_units(Decimal("NaN"), 1, 1, discount_ppm=1, decimals=6), "bad_market_value"),
    ],
)
def test_impossible_shares_and_marks_are_refused(call, reason):
    with pytest.raises(Rejected) as error:
        call()
    assert error.value.reason == reason
