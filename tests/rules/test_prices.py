"""Signed prices: who may say them, when they serve, and the settlement price and payoff that follow."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messages.bodies import SeriesDefinition
from messages.digests import get_address, sign_digest
from messages.documents import Mark, Report, SignedMark, SignedReport
from messages.errors import Rejected
from relayer.rules.prices import (
    Action,
    PriceState,
    SettlementKey,
    compute_average_e8,
    compute_payoff,
    compute_payoff_units,
    compute_price_states,
    compute_settlement_price,
    compute_window_forward_e8,
    get_mark_digest,
    get_report_digest,
    get_settlement_key,
    is_deviating,
    is_settlement_stamp,
    is_too_volatile,
    is_usable,
    verify_mark,
    verify_report,
    verify_settlement_price,
)

E8 = 10**8
NOW = 1_800_000_000  # a whole minute
KEYS = [bytes([i]) * 32 for i in range(1, 5)]
SIGNERS = [get_address(key) for key in KEYS]
ETH = b"ETH".ljust(32, b"\0")
SOURCE = b"index".ljust(32, b"\0")
OTHER = b"index18".ljust(32, b"\0")

REPORT = Report(SOURCE, ETH, NOW, 2000 * E8 * NOW, 2000 * E8, E8)
MARK = Mark(SOURCE, ETH, NOW + 86_400, NOW, 2001 * E8, (4 * 10**16, 0, 0, 0, 0, 10**17), E8)


def sign(report, keys=KEYS[:3]):
    digest = get_report_digest(report)
    return SignedReport(report, tuple(sign_digest(key, digest) for key in keys))


def sign_mark(mark, keys=KEYS[:3]):
    digest = get_mark_digest(mark)
    return SignedMark(mark, tuple(sign_digest(key, digest) for key in keys))


def verify(signed, **changes):
    return verify_report(signed, **{"signers": SIGNERS, "threshold": 3, "now": NOW + 30, **changes})


def check_mark(signed, **changes):
    return verify_mark(signed, **{"signers": SIGNERS, "threshold": 3, "now": NOW + 30, **changes})


def get_reason(call, *args, **kwargs):
    with pytest.raises(Rejected) as error:
        call(*args, **kwargs)
    return error.value.reason


# ---------------------------------------------------------------- reports


def test_a_report_of_three_distinct_signers_is_accepted():
    assert verify(sign(REPORT)) == REPORT
    assert verify(sign(REPORT, KEYS[1:])) == REPORT
    assert verify(sign(REPORT, KEYS)) == REPORT


def test_a_report_of_two_signers_is_refused():
    assert get_reason(verify, sign(REPORT, KEYS[:2])) == "too_few_signatures"


def test_one_signer_does_not_count_twice():
    assert get_reason(verify, sign(REPORT, [KEYS[0], KEYS[1], KEYS[1]])) == "duplicate_signer"


def test_a_stranger_does_not_count():
    assert get_reason(verify, sign(REPORT, [KEYS[0], KEYS[1], b"\x77" * 32])) == "unknown_signer"


def test_more_signatures_than_signers_are_refused_before_any_is_checked():
    signed = sign(REPORT, KEYS)
    flood = replace(signed, signatures=signed.signatures * 100)
    assert get_reason(verify, flood) == "too_many_signatures"


def test_a_threshold_of_zero_accepts_nothing():
    assert get_reason(verify, SignedReport(REPORT, ()), threshold=0) == "too_few_signatures"


@pytest.mark.parametrize(
    "changes",
    [
        {"spot_e8": REPORT.spot_e8 + 1},
        {"cumulative_e8_seconds": REPORT.cumulative_e8_seconds + 1},
        {"confidence_e8": E8 - 1},
        {"source": OTHER},
        {"underlying": SOURCE},
        {"stamp": NOW - 60},
    ],
)
def test_signatures_bind_every_field(changes):
    forged = replace(sign(REPORT), report=replace(REPORT, **changes))
    assert get_reason(verify, forged) in {"unknown_signer", "bad_signature"}
    assert verify(sign(replace(REPORT, **changes))) == replace(REPORT, **changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stamp": NOW + 60}, "bad_stamp"),
        ({"stamp": NOW - 1}, "bad_stamp"),
        ({"stamp": 0}, "bad_stamp"),
        ({"stamp": NOW - 180}, "stale"),
        ({"spot_e8": 0}, "bad_price"),
        ({"spot_e8": 2**96 + 1}, "bad_price"),
        ({"cumulative_e8_seconds": -1}, "bad_price"),
        ({"confidence_e8": E8 + 1}, "bad_confidence"),
        ({"confidence_e8": -1}, "bad_confidence"),
    ],
)
def test_impossible_values_are_refused_whoever_signs(changes, reason):
    report = replace(REPORT, **changes)
    # negative numbers cannot even be signed, so those carry signatures over another report
    signed = SignedReport(report, sign(REPORT).signatures) if min(changes.values()) < 0 else sign(report)
    assert get_reason(verify, signed) == reason


def test_a_stale_report_is_good_where_staleness_does_not_matter():
    old = sign(replace(REPORT, stamp=NOW - 180))
    assert verify(old, heartbeat_s=None).stamp == NOW - 180
    assert verify(old, now=NOW).stamp == NOW - 180  # exactly the heartbeat


def test_the_cumulative_price_never_falls():
    later = replace(REPORT, stamp=NOW, cumulative_e8_seconds=REPORT.cumulative_e8_seconds)
    before = replace(REPORT, stamp=NOW - 60)
    assert verify(sign(later), previous=before) == later
    higher = replace(before, cumulative_e8_seconds=before.cumulative_e8_seconds + 1)
    assert get_reason(verify, sign(later), previous=higher) == "cumulative_fell"


def test_a_feed_has_one_value_per_stamp_and_goes_forward():
    assert verify(sign(REPORT), previous=REPORT) == REPORT
    assert get_reason(verify, sign(replace(REPORT, spot_e8=1)), previous=REPORT) == "two_values"
    assert get_reason(verify, sign(REPORT), previous=replace(REPORT, stamp=NOW + 60)) == "old_stamp"


# ---------------------------------------------------------------- marks


def test_a_signed_mark_is_accepted():
    assert check_mark(sign_mark(MARK)) == MARK
    assert check_mark(sign_mark(replace(MARK, svi_e18=(1, 2, -3, -4, 5, 6)))).svi_e18[2] == -3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"expiry": NOW - 1}, "bad_expiry"),
        ({"expiry": NOW + 401 * 86_400}, "bad_expiry"),
        ({"forward_e8": 0}, "bad_price"),
        ({"svi_e18": (1, 0, 0, 0, 0, 0)}, "bad_slice"),
        ({"svi_e18": (10**24 + 1, 0, 0, 0, 0, 1)}, "bad_slice"),
        ({"confidence_e8": E8 + 1}, "bad_confidence"),
        ({"stamp": NOW - 1200}, "stale"),
    ],
)
def test_impossible_marks_are_refused_whoever_signs(changes, reason):
    assert get_reason(check_mark, sign_mark(replace(MARK, **changes))) == reason


def test_a_slice_of_five_numbers_is_refused():
    short = SignedMark(replace(MARK, svi_e18=(1, 2, 3, 4, 5)), sign_mark(MARK).signatures)
    assert get_reason(check_mark, short) == "bad_slice"


def test_a_mark_with_a_forged_forward_is_refused():
    forged = replace(sign_mark(MARK), mark=replace(MARK, forward_e8=1))
    assert get_reason(check_mark, forged) in {"unknown_signer", "bad_signature"}


# ---------------------------------------------------------------- validity per action


TABLE = """
    margin       non_positive too_volatile too_uncertain stale_for_margin missing
    matching     non_positive too_volatile too_uncertain missing
    liquidation  non_positive too_volatile missing
    settlement   non_positive too_volatile too_uncertain missing
    average      non_positive missing
"""


def test_each_action_refuses_what_the_published_table_says():
    table = {row.split()[0]: set(row.split()[1:]) for row in TABLE.strip().splitlines()}
    assert set(table) == {action.value for action in Action}
    for action in Action:
        assert is_usable((), action)
        for state in PriceState:
            assert is_usable({state}, action) == (state.value not in table[action.value]), (action, state)


def get_states(**changes):
    values = {"price_e8": 2000 * E8, "stamp": NOW, "confidence_e8": E8, "reference_e8": 2000 * E8, "now": NOW + 30}
    return compute_price_states(**{**values, **changes})


def test_a_good_price_has_no_bad_state():
    assert get_states() == frozenset()


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"price_e8": None}, PriceState.MISSING),
        ({"price_e8": 0, "reference_e8": None}, PriceState.NON_POSITIVE),
        ({"price_e8": 10_000 * E8 + 1}, PriceState.TOO_VOLATILE),
        ({"price_e8": 400 * E8 - 1}, PriceState.TOO_VOLATILE),
        ({"reference_e8": 0}, PriceState.TOO_VOLATILE),
        ({"confidence_e8": 9_999_999}, PriceState.TOO_UNCERTAIN),
        ({"now": NOW + 181}, PriceState.STALE_FOR_MARGIN),
    ],
)
def test_each_fault_gives_its_state(changes, state):
    assert get_states(**changes) == {state}


def test_a_factor_of_exactly_five_is_still_a_price():
    assert get_states(price_e8=10_000 * E8) == get_states(price_e8=400 * E8) == frozenset()


def test_a_thirteenfold_spike_is_held_against_its_average():
    """incidents.md H1: 13 times in half an hour, on the average of the window before it."""
    before = replace(REPORT, stamp=NOW - 1800, cumulative_e8_seconds=0, spot_e8=2 * E8)
    newest = replace(REPORT, cumulative_e8_seconds=2 * E8 * 1800, spot_e8=26 * E8)
    average = compute_average_e8(before, newest)
    assert average == 2 * E8
    states = get_states(price_e8=newest.spot_e8, reference_e8=average)
    assert not any(is_usable(states, action) for action in Action if action is not Action.AVERAGE)
    # the vulnerable twin holds the price against itself
    assert get_states(price_e8=newest.spot_e8, reference_e8=newest.spot_e8) == frozenset()
    assert get_reason(compute_average_e8, newest, newest) == "bad_stamp"


def test_two_sources_that_differ_by_more_than_the_tolerance_deviate():
    """incidents.md H7: a bad feed is caught by a second source."""
    assert not is_deviating(2000, 2020, 10_000)
    assert is_deviating(2000, 2021, 10_000)
    assert is_deviating(1, 0, 10**9)


def test_a_settlement_price_far_from_the_last_one_waits_for_a_human():
    """incidents.md H7 (Moonwell): a feed that says 1.12 where 2,200 was meant."""
    verify_settlement_price(2000 * E8, 2200 * E8)
    assert get_reason(verify_settlement_price, 112_000_000, 2200 * E8) == "too_volatile"
    assert is_too_volatile(112_000_000, 2200 * E8)


# ---------------------------------------------------------------- settlement


KEY = SettlementKey(ETH, NOW, SOURCE, 1800)
START = replace(REPORT, stamp=NOW - 1800, cumulative_e8_seconds=7)
END = replace(REPORT, stamp=NOW, cumulative_e8_seconds=7 + 1999 * E8 * 1800 + 1799)


def test_the_settlement_price_is_the_floored_average_of_the_window():
    assert compute_settlement_price(START, END, key=KEY) == 1999 * E8
    one_more = replace(END, cumulative_e8_seconds=END.cumulative_e8_seconds + 1)
    assert compute_settlement_price(START, one_more, key=KEY) == 1999 * E8 + 1


def test_an_expiry_inside_a_minute_takes_the_first_stamp_after():
    key = replace(KEY, expiry=NOW - 1)
    assert compute_settlement_price(START, END, key=key) == 1999 * E8
    assert is_settlement_stamp(NOW, NOW)
    assert is_settlement_stamp(NOW, NOW - 59)
    assert not is_settlement_stamp(NOW, NOW - 60)
    assert not is_settlement_stamp(NOW, NOW + 1)


def test_windows_of_other_lengths_divide_by_the_difference_of_the_stamps():
    key = replace(KEY, expiry=NOW - 30, twap_seconds=1770)
    assert compute_settlement_price(START, END, key=replace(key, twap_seconds=1770)) == 1999 * E8
    start = replace(START, stamp=NOW - 1740)
    assert (
        compute_settlement_price(start, END, key=replace(key, twap_seconds=1730)) == (1999 * E8 * 1800 + 1799) // 1740
    )


@pytest.mark.parametrize(
    ("start", "end", "reason"),
    [
        (replace(START, stamp=NOW - 1860), END, "bad_stamp"),
        (START, replace(END, stamp=NOW + 60), "bad_stamp"),
        (START, replace(END, stamp=NOW - 60), "bad_stamp"),
        (START, replace(END, cumulative_e8_seconds=6), "cumulative_fell"),
        (START, replace(END, cumulative_e8_seconds=7 + 1799), "bad_price"),
        (replace(START, underlying=SOURCE), END, "wrong_source"),
        (START, replace(END, source=OTHER), "wrong_source"),
    ],
)
def test_other_stamps_feeds_and_falls_give_no_settlement_price(start, end, reason):
    assert get_reason(compute_settlement_price, start, end, key=KEY) == reason


def test_a_window_that_rounds_to_nothing_is_refused():
    key = SettlementKey(ETH, NOW - 1, SOURCE, 58)
    assert get_reason(compute_settlement_price, END, END, key=key) == "bad_stamp"


def test_an_old_and_a_new_feed_of_one_underlying_never_mix():
    """incidents.md H2 (Ribbon): the new feed counts in 18 decimals; one report of each would give any price."""
    new_feed = replace(END, source=OTHER, cumulative_e8_seconds=END.cumulative_e8_seconds * 10**10)
    assert get_reason(compute_settlement_price, START, new_feed, key=KEY) == "wrong_source"
    assert get_reason(verify, sign(new_feed), previous=START) == "wrong_source"
    # the vulnerable twin takes the difference without looking where it comes from
    blind = (new_feed.cumulative_e8_seconds - START.cumulative_e8_seconds) // 1800
    assert blind > 10**9 * compute_settlement_price(START, END, key=KEY)


def test_the_forward_inside_the_window_is_what_is_fixed_and_the_rest():
    half = replace(START, stamp=NOW - 900, cumulative_e8_seconds=7 + 1000 * E8 * 900)
    assert compute_window_forward_e8(START, half, forward_e8=3000 * E8, key=KEY) == 2000 * E8
    assert compute_window_forward_e8(START, START, forward_e8=3000 * E8, key=KEY) == 3000 * E8
    assert compute_window_forward_e8(START, END, forward_e8=3000 * E8, key=KEY) == 1999 * E8
    assert get_reason(compute_window_forward_e8, half, START, forward_e8=1, key=KEY) == "bad_stamp"
    foreign = replace(half, source=OTHER)
    assert get_reason(compute_window_forward_e8, START, foreign, forward_e8=1, key=KEY) == "wrong_source"


# ---------------------------------------------------------------- payoff


CALL = SeriesDefinition(ETH, NOW, 2000 * E8, 1, b"USDC".ljust(32, b"\0"), E8, SOURCE, 1800)
PUT = replace(CALL, right=0)


def test_payoffs_of_calls_and_puts():
    assert compute_payoff_units(CALL, 2 * E8, 2100 * E8, 6) == 200 * 10**6
    assert compute_payoff_units(CALL, 2 * E8, 1900 * E8, 6) == 0
    assert compute_payoff_units(PUT, -3 * E8, 1900 * E8, 6) == -300 * 10**6
    assert compute_payoff_units(PUT, -3 * E8, 2000 * E8, 6) == 0
    assert compute_payoff_units(replace(CALL, multiplier_e8=E8 // 100), 2 * E8, 2100 * E8, 6) == 2 * 10**6


def test_payers_round_up_and_receivers_down():
    assert compute_payoff(CALL, 1, 2000 * E8 + 1) == Fraction(1, 10**16)
    assert compute_payoff_units(CALL, 1, 2000 * E8 + 1, 6) == 0
    assert compute_payoff_units(CALL, -1, 2000 * E8 + 1, 6) == -1


def test_a_series_that_is_neither_put_nor_call_pays_nothing_to_anyone():
    assert get_reason(compute_payoff, replace(CALL, right=2), 1, E8) == "bad_series"


@settings(max_examples=150)
@given(
    st.lists(st.integers(-(2**96), 2**96), min_size=1, max_size=6),
    st.integers(1, 2**96),
    st.integers(1, 2**96),
    st.integers(1, 2**96),
    st.sampled_from([0, 1]),
    st.integers(0, 18),
)
def test_payoffs_over_all_holders_never_pay_out_more_than_is_paid_in(
    holders, strike, multiplier, price, right, decimals
):
    definition = replace(CALL, strike_e8=strike, multiplier_e8=multiplier, right=right)
    quantities = [*holders, -sum(holders)]
    units = [compute_payoff_units(definition, q, price, decimals) for q in quantities]
    assert -len(quantities) < sum(units) <= 0
    assert sum(compute_payoff(definition, q, price) for q in quantities) == 0


def test_series_that_differ_only_in_strike_right_or_multiplier_settle_together():
    assert get_settlement_key(CALL) == get_settlement_key(replace(PUT, strike_e8=1, multiplier_e8=5)) == KEY
    assert get_settlement_key(replace(CALL, twap_seconds=60)) != KEY
