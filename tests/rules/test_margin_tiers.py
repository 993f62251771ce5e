"""What facts of low tiers count for: haircut, weight and value limit (protocol.md 10, margin.md 7.1 and 7.7)."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from messages.documents import Amount, TierParameters
from messages.errors import Rejected
from relayer.rules.margin.model import (
    CashHolding,
    ChainPart,
    DueHolding,
    Holdings,
    OptionHolding,
    compute_effective_haircut_ppm,
    compute_limited_margin,
    is_initial_met,
    is_maintenance_met,
)
from relayer.rules.margin.numbers import DECIMAL, FLOAT
from relayer.rules.margin.tiers import (
    DEFAULT_TIERS,
    PPM,
    TierTerms,
    compute_tier_haircut_ppm,
    compute_weight_ppm,
    get_required_tier,
    verify_tiers,
)
from tests.builders import USDC as CLASS
from tests.rules.test_margin_model import MARKET, MODEL, PARAMETERS, USDC, cash, hold

HERE, THERE = b"\1" * 32, b"\2" * 32
FREE = TierTerms(3, 0, 0, 0, 0, None)


def with_tier(terms):
    return replace(PARAMETERS, tiers={**DEFAULT_TIERS, terms.level: terms})


def limit_to(value, **changes):
    return with_tier(replace(FREE, value_limit=Fraction(value), **changes))


def judge(held, apart=(), *, parameters=PARAMETERS, numbers=DECIMAL, age_s=0, tier=3, dues=()):
    """Margin of what is held in all, of which `apart` lies at HERE, whose facts have the tier."""
    holdings = Holdings(
        cash=tuple(h for h in (*held, *apart) if isinstance(h, CashHolding)),
        dues=tuple(dues),
        options=tuple(h for h in (*held, *apart) if isinstance(h, OptionHolding)),
        parts=(ChainPart(HERE, tier, age_s, tuple(h for h in apart if isinstance(h, OptionHolding))),),
    )
    return compute_limited_margin(MODEL, holdings, MARKET, parameters, numbers), holdings


def at(amount, vault_id=HERE, tier=3, **changes):
    return cash(amount, vault_id=vault_id, tier_level=tier, **changes)


# ---------------------------------------------------------------- haircut


def test_what_a_light_client_proves_loses_nothing_and_counts_as_it_always_did():
    assert compute_effective_haircut_ppm(at(1, tier=1, haircut_ppm=7, age_s=10**6)) == 7
    assert DEFAULT_TIERS[1].is_limiting is False


def test_attested_cash_loses_its_own_haircut_that_of_its_age_and_that_of_its_tier():
    assert compute_effective_haircut_ppm(at(1)) == 5_000
    assert compute_effective_haircut_ppm(at(1, haircut_ppm=20_000)) == 25_000
    assert compute_effective_haircut_ppm(at(1, age_s=3_600)) == 15_000
    assert compute_effective_haircut_ppm(at(1, age_s=3_600, stale_haircut_ppm_per_hour=10_000)) == 25_000
    assert compute_effective_haircut_ppm(at(1, age_s=1)) == 5_003, "rounded against the account"
    assert compute_effective_haircut_ppm(at(1, tier=2)) == 2_500


@pytest.mark.parametrize("tier", [4, 5])
def test_what_no_tier_credits_loses_everything(tier):
    assert compute_effective_haircut_ppm(at(1, tier=tier)) == PPM


TERMS = st.builds(
    TierParameters,
    level=st.just(0),
    haircut_ppm=st.integers(0, PPM),
    haircut_ppm_per_hour=st.integers(0, 10**7),
    weight_ppm=st.integers(0, PPM),
    weight_ppm_per_hour=st.integers(0, 10**7),
    value_limit=st.integers(0, 10**15).map(Amount),
)
TABLES = st.lists(TERMS, min_size=3, max_size=3).map(
    lambda rows: tuple(
        TierParameters(
            level,
            sorted(row.haircut_ppm for row in rows)[level - 1],
            sorted(row.haircut_ppm_per_hour for row in rows)[level - 1],
            sorted(row.weight_ppm for row in rows)[level - 1],
            sorted(row.weight_ppm_per_hour for row in rows)[level - 1],
            sorted((row.value_limit for row in rows), reverse=True)[level - 1],
        )
        for level in (1, 2, 3)
    )
)


@given(TABLES, st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, PPM), st.integers(0, 10**5))
def test_haircut_and_weight_never_fall_with_tier_or_age_and_are_never_more_than_all(rows, young, more, own, hourly):
    table = verify_tiers(rows, 6)
    for get in (
        lambda level, age: compute_effective_haircut_ppm(
            at(1, tier=level, age_s=age, haircut_ppm=own, stale_haircut_ppm_per_hour=hourly), table
        ),
        lambda level, age: compute_weight_ppm(table[level], age),
        lambda level, age: compute_tier_haircut_ppm(table[level], age),
    ):
        values = [[get(level, age) for age in (young, young + more)] for level in (1, 2, 3)]
        assert all(0 <= value <= PPM for row in values for value in row)
        assert all(row[0] <= row[1] for row in values), "older is never better"
        for better, worse in ((0, 1), (1, 2)):
            assert all(a <= b for a, b in zip(values[better], values[worse], strict=True)), "worse is never better"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from([1, 2, 3, 4, 5]), st.integers(0, 10**6), st.integers(0, PPM))
def test_cash_never_counts_for_more_than_its_value_nor_for_less_than_nothing(amount, tier, age, own):
    held = at(amount, tier=tier, age_s=age, haircut_ppm=own)
    result = MODEL.compute_margin(Holdings(cash=(held,)), MARKET, PARAMETERS, DECIMAL)
    assert 0 <= result.cash <= amount
    owed = MODEL.compute_margin(Holdings(cash=(replace(held, units=-held.units),)), MARKET, PARAMETERS, DECIMAL)
    assert owed.cash == -amount, "a debt is owed in full however it is known"


# ---------------------------------------------------------------- value limit and weight


def test_cash_of_a_low_tier_carries_a_debt_elsewhere_up_to_its_limit_and_not_one_unit_more():
    owed = [DueHolding(USDC, -500 * 10**6, 6)]
    for limit, good in ((500, True), (499, False)):
        result, holdings = judge((), (at(2_000),), dues=owed, parameters=limit_to(limit))
        assert is_initial_met(MODEL, holdings, MARKET, limit_to(limit)) is good
        assert result.initial == limit - 500
        (row,) = result.per_tier
        assert (row.carried, row.limit, row.withheld) == (2_000, limit, 2_000 - limit)
    # the same cash proven by a light client carries all of it
    assert is_initial_met(MODEL, replace(holdings, parts=()), MARKET, limit_to(499))


def test_a_limit_never_makes_anybody_liquidatable():
    result, holdings = judge((), (at(2_000),), dues=[DueHolding(USDC, -500 * 10**6, 6)], parameters=limit_to(0))
    assert result.initial == -500
    assert result.maintenance == 1_500
    assert is_maintenance_met(MODEL, holdings, MARKET, limit_to(0))
    assert not is_initial_met(MODEL, holdings, MARKET, limit_to(0))


def test_a_long_that_is_only_attested_offsets_a_proven_short_up_to_the_limit():
    """Nobody empties a proven chain against a position that only operators tell of."""
    short, long = hold(-10, series=b"s" * 32), hold(10, series=b"s" * 32)
    proven = at(100, THERE, tier=1)
    needed = -MODEL.compute_margin(Holdings(cash=(proven,), options=(short,)), MARKET, PARAMETERS, DECIMAL).initial
    assert needed > 3_000
    netted, holdings = judge((proven, short), (long,), parameters=limit_to(10**9))
    assert netted.initial == 100
    assert is_initial_met(MODEL, holdings, MARKET, limit_to(10**9))
    limited, holdings = judge((proven, short), (long,), parameters=limit_to(1_000))
    assert abs(limited.initial - (1_000 - needed)) < Decimal("1e-30")
    assert not is_initial_met(MODEL, holdings, MARKET, limit_to(1_000))


def test_a_deficit_on_a_low_tier_is_owed_in_full():
    short = hold(-1)
    result, _ = judge((at(10_000, THERE, tier=1),), (short,), parameters=limit_to(0, weight_ppm=PPM))
    plain = MODEL.compute_margin(
        Holdings(cash=(at(10_000, THERE, tier=1),), options=(short,)), MARKET, PARAMETERS, DECIMAL
    )
    assert result.initial == plain.initial
    assert result.per_tier[0].carried == 0


def test_the_weight_takes_its_share_of_what_a_chain_carries_and_grows_with_the_age_of_its_head():
    terms = with_tier(replace(FREE, weight_ppm=100_000, weight_ppm_per_hour=200_000))
    owed = [DueHolding(USDC, -500 * 10**6, 6)]
    for age, weight, initial in ((0, 100_000, 1_300), (3_600, 300_000, 900), (100 * 3_600, PPM, -500)):
        result, _ = judge((), (at(2_000),), dues=owed, parameters=terms, age_s=age)
        assert result.per_tier[0].weight_ppm == weight
        assert result.initial == initial


def test_two_low_chains_are_each_left_out_in_turn_and_the_worst_counts():
    parts = (ChainPart(HERE, 3, 0), ChainPart(THERE, 3, 0))
    holdings = Holdings(cash=(at(1_000), at(3_000, THERE)), dues=(DueHolding(USDC, -2_000 * 10**6, 6),), parts=parts)
    result = compute_limited_margin(MODEL, holdings, MARKET, limit_to(1_200), DECIMAL)
    assert [row.carried for row in result.per_tier] == [1_000, 3_000]
    assert [row.withheld for row in result.per_tier] == [0, 1_800]
    assert result.initial == 2_000 - 1_800


def test_a_market_that_only_netting_hid_is_frozen_when_a_chain_is_left_out():
    series = b"s" * 32
    long, short = hold(1, series=series), hold(-1, series=series)
    market = replace(MARKET, underlyings={})
    holdings = Holdings(cash=(at(5),), options=(long, short), parts=(ChainPart(HERE, 3, 0, (long,)),))
    assert MODEL.compute_margin(holdings, market, PARAMETERS).initial == pytest.approx(4.975)
    with pytest.raises(Rejected) as error:
        is_initial_met(MODEL, holdings, market, PARAMETERS)
    assert error.value.reason == "market_frozen"
    assert is_maintenance_met(MODEL, holdings, market, PARAMETERS), "nobody is liquidated for it"


def test_a_portfolio_of_as_many_series_as_there_may_be_is_still_judged_without_a_chain():
    """Leaving a chain out takes its options away; it does not put as many against them."""
    apart = [hold(1, 1_000 + i) for i in range(1_500)]
    result, _ = judge((), (*apart, at(10)), parameters=limit_to(0))
    assert result.initial == 0
    assert result.per_tier[0].carried == 10


POSITIONS = st.lists(
    st.tuples(st.integers(-20, 20), st.sampled_from([1500, 2000, 2500]), st.sampled_from([0, 1]), st.booleans()),
    max_size=5,
)


@settings(max_examples=80, deadline=None)
@given(
    POSITIONS,
    st.integers(0, 5_000),
    st.integers(0, 5_000),
    st.integers(-3_000, 3_000),
    st.integers(0, 4_000),
    st.integers(0, 4_000),
    st.integers(0, PPM),
    st.integers(0, PPM),
)
def test_the_limited_margin_is_a_monotone_add_on(lines, mine, theirs, due, limit, more, weight, heavier):
    """margin.md 7.1: never above the plain one, w = 0 without a limit gives it, and each w and limit only ever takes away."""
    held = [hold(q, strike, right) for q, strike, right, is_apart in lines if q and not is_apart]
    apart = [hold(q, strike, right) for q, strike, right, is_apart in lines if q and is_apart]
    held.append(at(theirs, THERE, tier=1))
    apart.append(at(mine))
    dues = [DueHolding(USDC, due * 10**6, 6)]

    def initial(terms):
        return judge(held, apart, parameters=with_tier(terms), dues=dues)[0].initial

    plain = MODEL.compute_margin(
        Holdings(
            cash=(at(theirs, THERE, tier=1), at(mine)),
            dues=tuple(dues),
            options=tuple(h for h in (*held, *apart) if isinstance(h, OptionHolding)),
        ),
        MARKET,
        with_tier(FREE),
        DECIMAL,
    )
    slack = Decimal("1e-30") * (plain.gross + 1)
    assert initial(FREE) == plain.initial
    tight = replace(FREE, value_limit=Fraction(limit), weight_ppm=min(PPM, weight + heavier))
    assert initial(tight) <= plain.initial
    assert initial(tight) <= initial(replace(tight, value_limit=Fraction(limit + more))) + slack
    assert initial(tight) <= initial(replace(tight, weight_ppm=weight)) + slack
    result, holdings = judge(held, apart, parameters=with_tier(tight), dues=dues)
    (row,) = result.per_tier
    assert 0 <= row.withheld <= row.carried
    assert row.carried - row.withheld <= limit + slack, "no chain carries more than its limit"
    assert result.maintenance == plain.maintenance
    rough = compute_limited_margin(MODEL, holdings, MARKET, with_tier(tight), FLOAT)
    assert abs(rough.initial - float(result.initial)) <= 1e-12 * (rough.gross + 1)
    # whoever decides: the sign is that of the exact number
    assume(result.initial != 0)
    assert is_initial_met(MODEL, holdings, MARKET, with_tier(tight)) is (result.initial > 0)


@settings(max_examples=40, deadline=None)
@given(POSITIONS, st.integers(0, 5_000), st.integers(0, 4_000), st.integers(0, PPM))
def test_a_solvent_account_on_one_chain_alone_stays_solvent(lines, mine, limit, weight):
    apart = [hold(q, strike, right) for q, strike, right, _ in lines if q] + [at(mine)]
    terms = with_tier(replace(FREE, value_limit=Fraction(limit), weight_ppm=weight))
    plain = judge((), apart, parameters=with_tier(FREE))[0].initial
    limited = judge((), apart, parameters=terms)[0].initial
    assert limited >= 0 if plain >= 0 else limited == plain


# ---------------------------------------------------------------- parameters


def row(level, *numbers, limit=10**12):
    return TierParameters(level, *(numbers or (5_000, 10_000, 20_000, 40_000)), Amount(limit))


def test_tiers_that_the_parameters_do_not_name_keep_their_defaults():
    assert verify_tiers((), 6) == DEFAULT_TIERS
    table = verify_tiers((row(3, 7_000, 10_000, 20_000, 40_000, limit=25 * 10**5),), 6)
    assert table[3] == TierTerms(3, 7_000, 10_000, 20_000, 40_000, Fraction(5, 2))
    assert table[2] == DEFAULT_TIERS[2]


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        ((row(4),), "level"),
        ((row(0),), "level"),
        ((row(3), row(3)), "level"),
        ((row(3), row(2)), "level"),
        ((row(3, PPM + 1, 10_000, 20_000, 40_000),), "tiers[0].haircut_ppm"),
        ((row(3, 5_000, 3_600 * PPM + 1, 20_000, 40_000),), "tiers[0].haircut_ppm_per_hour"),
        ((row(3, 5_000, 10_000, PPM + 1, 40_000),), "tiers[0].weight_ppm"),
        ((row(3, 5_000, 10_000, 20_000, 3_600 * PPM + 1),), "tiers[0].weight_ppm_per_hour"),
        ((row(3, limit=-1),), "tiers[0].value_limit"),
        ((row(3, 2_499, 10_000, 20_000, 40_000),), "haircut_ppm of tier 3"),
        ((row(3, 5_000, 2_499, 20_000, 40_000),), "haircut_ppm_per_hour of tier 3"),
        ((row(3, 5_000, 10_000, 9_999, 40_000),), "weight_ppm of tier 3"),
        ((row(3, 5_000, 10_000, 20_000, 19_999),), "weight_ppm_per_hour of tier 3"),
        ((row(3, limit=10**13 + 1),), "value_limit of tier 3"),
        ((row(1, 0, 0, 0, 0, limit=10**11),), "value_limit of tier 2"),
    ],
)
def test_a_tier_that_is_out_of_range_or_better_than_a_better_one_is_refused_by_the_name_of_its_key(rows, word):
    with pytest.raises(Rejected) as error:
        verify_tiers(rows, 6)
    assert error.value.reason == "bad_parameters"
    assert word in error.value.what


def test_the_value_at_stake_asks_for_a_tier():
    for value, tier in ((0, 3), (10**6, 3), (10**6 + 1, 2), (10**7, 2), (10**7 + 1, 1), (10**30, 1)):
        assert get_required_tier(DEFAULT_TIERS, Fraction(value)) == tier
    nothing = {level: replace(FREE, level=level, value_limit=Fraction(0)) for level in (1, 2, 3)}
    assert get_required_tier(nothing, Fraction(1)) == 0
    assert CLASS == USDC
