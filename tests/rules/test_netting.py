"""Netting conserves value, never moves more than gross, and never lets the house pay what it has not got (protocol.md 7.2)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from relayer.rules.netting import (
    Node,
    compute_insurance_payment,
    compute_netting,
    compute_socialised_shares,
    compute_statistics,
)

PORTFOLIOS = [bytes([i]) * 32 for i in range(1, 6)]
VAULTS = [bytes([i]) * 32 for i in range(11, 14)]


def make_node(portfolio, vault, result, cash=0, part=0):
    return Node(portfolio, vault, portfolio, part, result, cash)


@st.composite
def books(draw):
    """Results that sum to 0 (or a little less, by rounding) at every vault, as those of positions do."""
    nodes = []
    for vault in VAULTS:
        values = draw(st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=len(PORTFOLIOS) - 1))
        last = -sum(values) - draw(st.integers(0, 3))
        for portfolio, value in zip(PORTFOLIOS, [*values, last], strict=False):
            nodes.append(make_node(portfolio, vault, value, draw(st.integers(0, 10**9)) if value < 0 else 0))
    dues = {p: draw(st.integers(-(10**9), 10**9)) for p in PORTFOLIOS}
    house = {v: draw(st.integers(0, 10**9)) for v in VAULTS}
    return nodes, dues, house


@settings(max_examples=200, deadline=None)
@given(books(), st.randoms(use_true_random=False))
def test_every_node_gets_exactly_its_result_and_the_house_never_more_than_it_has(book, rnd):
    nodes, dues, house = book
    netting = compute_netting(nodes, dues, house)
    for outcome in netting.outcomes:
        assert outcome.cash + outcome.due == outcome.node.result
        assert outcome.cash >= -outcome.node.cash
        assert outcome.cash * outcome.node.result >= 0
    for vault in VAULTS:
        assert netting.house_paid.get(vault, 0) <= house[vault]
    shuffled = list(nodes)
    rnd.shuffle(shuffled)
    assert compute_netting(shuffled, dues, house) == netting


@settings(max_examples=200, deadline=None)
@given(books())
def test_netted_transfers_and_amounts_never_exceed_gross(book):
    nodes, dues, house = book
    statistics = compute_statistics([n.result for n in nodes], compute_netting(nodes, dues, house))
    assert statistics.net_transfers <= statistics.gross_transfers
    losses = -sum(n.result for n in nodes if n.result < 0)
    assert statistics.net <= max(statistics.gross, losses)


def test_a_winner_takes_a_due_exactly_as_far_as_it_owes_elsewhere():
    p, q = PORTFOLIOS[:2]
    nodes = [
        make_node(p, VAULTS[0], -100, 30),
        make_node(p, VAULTS[1], 90),
        make_node(q, VAULTS[0], 100),
        make_node(q, VAULTS[1], -90, 90),
    ]
    out = {
        (o.node.portfolio, o.node.vault_id): o
        for o in compute_netting(nodes, {}, dict.fromkeys(VAULTS, 1_000)).outcomes
    }
    assert (out[p, VAULTS[1]].cash, out[p, VAULTS[1]].due) == (20, 70)
    assert (out[q, VAULTS[0]].cash, out[q, VAULTS[0]].due) == (100, 0)


def test_what_the_house_owes_already_is_set_against_new_shortfalls_first():
    p = PORTFOLIOS[0]
    nodes = [make_node(p, VAULTS[0], -100, 30), make_node(p, VAULTS[1], 90)]
    out = compute_netting(nodes, {p: 50}, dict.fromkeys(VAULTS, 1_000)).outcomes
    assert [(o.cash, o.due) for o in out] == [(-30, -70), (70, 20)]


def test_surplus_vaults_give_largest_first_and_ties_by_id():
    p = PORTFOLIOS[0]
    nodes = [make_node(p, VAULTS[0], -60), make_node(p, VAULTS[2], 50), make_node(p, VAULTS[1], 50)]
    out = {o.node.vault_id: o for o in compute_netting(nodes, {}, dict.fromkeys(VAULTS, 1_000)).outcomes}
    assert out[VAULTS[1]].due == 50
    assert out[VAULTS[2]].due == 10


def test_too_little_cash_is_shared_pro_rata_and_the_rest_stays_with_the_house():
    nodes = [make_node(p, VAULTS[0], r) for p, r in zip(PORTFOLIOS, (10, 20, 40), strict=False)]
    netting = compute_netting(nodes, {}, {VAULTS[0]: 50})
    assert [o.cash for o in netting.outcomes] == [7, 14, 28]
    assert [o.due for o in netting.outcomes] == [3, 6, 12]
    assert netting.house_paid[VAULTS[0]] == 49


def test_enough_cash_leaves_no_due():
    nodes = [make_node(p, VAULTS[0], r) for p, r in zip(PORTFOLIOS, (10, 20, 40), strict=False)]
    netting = compute_netting(nodes, {}, {VAULTS[0]: 70})
    assert [o.due for o in netting.outcomes] == [0, 0, 0]


@given(st.integers(-(10**12), 10**12))
def test_insurance_pays_negative_worth_and_nothing_else(worth):
    assert compute_insurance_payment(worth) == (-worth if worth < 0 else 0)


@given(st.integers(1, 10**9), st.dictionaries(st.sampled_from(PORTFOLIOS), st.integers(-(10**9), 10**9)))
def test_a_socialised_loss_is_covered_and_nobody_bears_more_than_its_equity(loss, equity):
    shares = compute_socialised_shares(loss, equity)
    positive = {p: e for p, e in equity.items() if e > 0}
    assert all(0 < share <= positive[p] for p, share in shares.items())
    total = sum(shares.values())
    if sum(positive.values()) >= loss:
        assert loss <= total <= loss + len(shares)
    else:
        assert total == sum(positive.values())
