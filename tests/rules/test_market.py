"""The market snapshot: chosen deterministically, judged by every node, read by margin (data.md 3, margin.md 6)."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from messages.documents import MarketSnapshot
from messages.errors import Rejected
from relayer.rules.market import (
    compute_asset_prices,
    compute_market_view,
    compute_settlement_prices,
    compute_snapshot,
    get_asset_feed,
    verify_market,
)
from relayer.rules.prices import Action, PriceState, SettlementKey
from tests.builders import (
    DAY,
    ETH,
    FEED,
    PRICE_KEYS,
    START,
    TOKEN,
    make_key,
    make_mark,
    make_parameters,
    make_report,
    make_vault,
    sign_report,
)

PARAMETERS = make_parameters([make_vault(0)])
NOW = START + 10 * 3_600
EXPIRY = START + 8 * 3_600
KEY = SettlementKey(ETH, EXPIRY, FEED, 1_800)


def make_reports(spot=2000, jump=None):
    out, cumulative, price = [], START * spot * 10**8, spot
    for stamp in range(START, NOW + 1, 60):
        out.append(make_report(stamp, price, cumulative=cumulative))
        if jump is not None and stamp >= jump[0]:
            price = jump[1]
        cumulative += 60 * price * 10**8
    return out


REPORTS = make_reports()
MARKS = [
    make_mark(NOW - 60, START + 2 * DAY, 2000),
    make_mark(NOW, START + 2 * DAY, 2010),
    make_mark(NOW, START + 3 * DAY, 2020),
]
SNAPSHOT = compute_snapshot(NOW, REPORTS, MARKS, [KEY])


def judge(snapshot, previous=NOW - 30, own=NOW):
    verify_market(snapshot, PARAMETERS, previous, own)


def get_reason(snapshot, **clocks):
    with pytest.raises(Rejected) as caught:
        judge(snapshot, **clocks)
    return caught.value.reason


def test_the_choice_does_not_depend_on_the_order_of_arrival():
    reports, marks = list(REPORTS), list(MARKS)
    random.Random(1).shuffle(reports)
    assert compute_snapshot(NOW, reports, marks[::-1], [KEY]) == SNAPSHOT
    judge(SNAPSHOT)


def test_the_newest_mark_and_report_are_chosen_with_one_reference():
    assert [s.mark.forward_e8 // 10**8 for s in SNAPSHOT.marks] == [2010, 2020]
    assert [s.report.stamp for s in SNAPSHOT.reports] == [NOW - 1_800, NOW]


def test_nothing_stamped_after_now_is_used():
    snapshot = compute_snapshot(NOW - 90, REPORTS, MARKS, [KEY])
    assert max(s.report.stamp for s in snapshot.reports) <= NOW - 90
    assert not snapshot.marks


@pytest.mark.parametrize(
    ("own", "reason"), [(NOW + 30, None), (NOW - 30, None), (NOW + 31, "clock_skew"), (NOW - 31, "clock_skew")]
)
def test_now_is_within_thirty_seconds_of_the_own_clock(own, reason):
    if reason is None:
        judge(SNAPSHOT, own=own)
    else:
        assert get_reason(SNAPSHOT, own=own) == reason


def test_now_never_falls():
    judge(SNAPSHOT, previous=NOW)
    assert get_reason(SNAPSHOT, previous=NOW + 1) == "now_fell"


def test_a_report_by_a_stranger_or_by_too_few_is_refused():
    report = SNAPSHOT.reports[-1].report
    strange = sign_report(report, [PRICE_KEYS[0], make_key("stranger")])
    lonely = sign_report(report, PRICE_KEYS[:1])
    twice = sign_report(report, [PRICE_KEYS[0], PRICE_KEYS[0]])
    for signed, reason in ((strange, "unknown_signer"), (lonely, "too_few_signatures"), (twice, "duplicate_signer")):
        assert get_reason(replace(SNAPSHOT, reports=(SNAPSHOT.reports[0], signed))) == reason


def test_a_changed_price_is_not_what_was_signed():
    """Incident class A9: every field of a price is under the signatures."""
    signed = SNAPSHOT.reports[-1]
    for field in ("spot_e8", "cumulative_e8_seconds", "confidence_e8"):
        value = getattr(signed.report, field) - 1
        forged = replace(signed, report=replace(signed.report, **{field: value}))
        assert get_reason(replace(SNAPSHOT, reports=(SNAPSHOT.reports[0], forged))) == "unknown_signer"


def test_an_unordered_or_doubled_feed_is_refused():
    assert get_reason(replace(SNAPSHOT, reports=SNAPSHOT.reports[::-1])) == "not_canonical"
    assert get_reason(replace(SNAPSHOT, reports=(*SNAPSHOT.reports, SNAPSHOT.reports[-1]))) == "not_canonical"
    three = tuple(r for r in REPORTS if r.report.stamp in (NOW - 1_800, NOW - 60, NOW))
    assert get_reason(replace(SNAPSHOT, reports=three)) == "not_canonical"


def test_a_settlement_price_is_the_average_of_the_window_floored():
    assert compute_settlement_prices(SNAPSHOT) == {KEY: 2000 * 10**8}
    reports = make_reports(jump=(EXPIRY - 600, 2_300))
    snapshot = compute_snapshot(NOW, reports, MARKS, [KEY])
    assert compute_settlement_prices(snapshot) == {KEY: 2_100 * 10**8}


def test_settlement_reports_of_the_wrong_minute_are_refused():
    settlement = SNAPSHOT.settlements[0]
    late = next(r for r in REPORTS if r.report.stamp == EXPIRY + 60)
    assert get_reason(replace(SNAPSHOT, settlements=(replace(settlement, end=late),))) == "bad_stamp"


def test_a_settlement_that_is_not_known_yet_waits():
    snapshot = compute_snapshot(NOW, [r for r in REPORTS if r.report.stamp != EXPIRY], MARKS, [KEY])
    assert snapshot.settlements == ()


def test_an_uncertain_settlement_report_settles_nothing():
    bad = sign_report(replace(SNAPSHOT.settlements[0].end.report, confidence_e8=10**7 - 1))
    reports = [bad if r.report.stamp == EXPIRY else r for r in REPORTS]
    assert compute_snapshot(NOW, reports, MARKS, [KEY]).settlements == ()
    forged = replace(SNAPSHOT, settlements=(replace(SNAPSHOT.settlements[0], end=bad),))
    assert get_reason(forged) == "too_uncertain"


def test_a_spike_of_thirteen_times_freezes_margin_and_liquidation():
    """Incident H1: 13 times in half an hour. A price far from its own average vouches for nothing."""
    reports = make_reports(jump=(NOW - 120, 26_000))
    view = compute_market_view(compute_snapshot(NOW, reports, MARKS), PARAMETERS)
    assert PriceState.TOO_VOLATILE in view.underlyings[ETH].states
    view = compute_market_view(compute_snapshot(NOW, reports, MARKS), PARAMETERS, action=Action.LIQUIDATION)
    assert view.underlyings[ETH].states
    calm = compute_market_view(SNAPSHOT, PARAMETERS)
    assert not calm.underlyings[ETH].states


@pytest.mark.parametrize(("age", "margin", "liquidation"), [(120, True, True), (121, False, True), (181, False, False)])
def test_staleness_is_judged_by_action(age, margin, liquidation):
    snapshot = replace(SNAPSHOT, now=NOW + age)
    assert (not compute_market_view(snapshot, PARAMETERS).underlyings[ETH].states) == margin
    view = compute_market_view(snapshot, PARAMETERS, action=Action.LIQUIDATION)
    assert (not view.underlyings[ETH].states) == liquidation


def test_a_bound_price_outranks_what_the_reports_say():
    view = compute_market_view(SNAPSHOT, PARAMETERS, {KEY: 1_999 * 10**8})
    assert view.settlement_prices_e8[KEY] == 1_999 * 10**8


def test_an_asset_without_a_feed_is_at_par_and_one_with_a_silent_feed_counts_nothing():
    vault_id = PARAMETERS.assets[0].vault_id
    assert compute_asset_prices(SNAPSHOT, PARAMETERS) == {(vault_id, TOKEN): 10**8}
    fed = replace(PARAMETERS, assets=(replace(PARAMETERS.assets[0], price_source=FEED),))
    assert compute_asset_prices(SNAPSHOT, fed) == {(vault_id, TOKEN): 0}
    feed = get_asset_feed(fed.assets[0])
    report = replace(SNAPSHOT.reports[-1].report, underlying=feed[1], spot_e8=99_000_000)
    reports = tuple(
        sorted((*SNAPSHOT.reports, sign_report(report)), key=lambda s: (s.report.underlying, s.report.stamp))
    )
    snapshot = replace(SNAPSHOT, reports=reports)
    judge(snapshot)
    assert compute_asset_prices(snapshot, fed) == {(vault_id, TOKEN): 99_000_000}


def test_an_empty_snapshot_is_sound_and_prices_nothing():
    snapshot = MarketSnapshot(NOW, (), (), ())
    judge(snapshot)
    assert compute_market_view(snapshot, PARAMETERS).underlyings[ETH].states == {PriceState.MISSING}
