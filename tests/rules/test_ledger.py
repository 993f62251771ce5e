"""The ledger: links, voids, conservation, control by time, snapshots (protocol.md 6, vault.md 2)."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages.bodies import (
    Ack,
    Claimed,
    DecideTrades,
    DecideWithdrawals,
    Deposited,
    Escaped,
    Execute,
    Leg,
    Paused,
    SeriesListed,
    SeriesPrice,
    SetCaps,
    TradeItem,
    TradePending,
    Unpause,
    WithdrawalItem,
    WithdrawalRequested,
    make_inbox_packet,
    make_outbox_packet,
)
from messages.errors import Conflict, Rejected
from messages.hashing import keccak256
from messages.ids import HOUSE, INSURANCE, compute_due_id, compute_own_portfolio
from messages.outbox import TrustTier, combine_tiers
from messages.packet import Packet, compute_commitment
from relayer.rules.ledger import (
    apply_fact,
    apply_facts,
    compute_backing,
    compute_ledger,
    compute_ledger_digest,
    compute_state_digest,
    decode_vault_state,
    encode_vault_state,
    get_initial_state,
    get_room,
    get_state_at,
    verify_conservation,
)
from tests.builders import (
    DAY,
    OPERATORS,
    START,
    TOKEN,
    UNIT,
    USDC,
    Outbox,
    make_account,
    make_cut,
    make_facts,
    make_parameters,
    make_series,
    make_vault,
    series_id,
    sign_link,
)

VAULT = make_vault(0)
PARAMETERS = make_parameters([VAULT])
ALICE, BOB = make_account("alice"), make_account("bob")
CALL = make_series(2000)
DUE = compute_due_id(USDC)
ZERO = bytes(32)


def fold(outbox):
    return apply_facts(get_initial_state(VAULT), outbox.facts())


def make_outbox():
    outbox = Outbox(VAULT)
    outbox.put(Deposited(ALICE, TOKEN, 1_000))
    outbox.put(SeriesListed(series_id(CALL), CALL))
    return outbox


def check(state):
    verify_conservation({state.vault_id: state}, PARAMETERS)


# ---------------------------------------------------------------- links


def get_portfolio(outbox, account=ALICE):
    state = fold(outbox)
    ledger = compute_ledger({state.vault_id: state}, make_cut([state], outbox.time), PARAMETERS)
    return ledger.portfolio_of[state.vault_id, account]


def test_an_account_without_a_link_is_its_own_portfolio():
    outbox = make_outbox()
    assert get_portfolio(outbox) == compute_own_portfolio(outbox.vault_id, ALICE)


def test_a_valid_link_puts_an_account_into_its_portfolio():
    outbox = make_outbox()
    outbox.put(sign_link(outbox.vault_id, ALICE, "fund"))
    assert get_portfolio(outbox) == make_account("fund")


def test_the_first_valid_link_counts_and_later_ones_are_void():
    outbox = make_outbox()
    outbox.put(sign_link(outbox.vault_id, ALICE, "fund"))
    outbox.put(sign_link(outbox.vault_id, ALICE, "thief"))
    assert get_portfolio(outbox) == make_account("fund")
    assert fold(outbox).voids[-1].reason == "already_linked"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"portfolio": make_account("other")}, "link_signer"),
        ({"account": BOB}, "link_signer"),
        ({"valid_until": START + 11 * DAY}, "link_signer"),
        ({"portfolio": bytes([1]) + make_account("fund")[1:]}, "link_bad_address"),
        ({"portfolio": bytes(32)}, "link_signer"),
        ({"s": bytes([255]) * 32}, "link_bad_signature"),
        ({"v": 29}, "link_bad_signature"),
    ],
)
def test_a_link_that_is_not_what_was_signed_is_void_and_a_later_good_one_counts(change, reason):
    outbox = make_outbox()
    good = sign_link(outbox.vault_id, ALICE, "fund")
    outbox.put(replace(good, **change))
    state = fold(outbox)
    assert state.voids[-1].reason == reason
    assert not state.links
    outbox.put(good)
    assert get_portfolio(outbox) == make_account("fund")


@pytest.mark.parametrize(("stamp", "is_valid"), [(START + 100, True), (START + 101, False)])
def test_a_link_is_good_until_its_time(stamp, is_valid):
    outbox = make_outbox()
    outbox.put(sign_link(outbox.vault_id, ALICE, "fund", START + 100), time=stamp)
    assert bool(fold(outbox).links) == is_valid


def test_a_link_for_another_vault_is_void():
    outbox = make_outbox()
    outbox.put(sign_link(compute_own_portfolio(ALICE, BOB), ALICE, "fund"))
    assert not fold(outbox).links


# ---------------------------------------------------------------- void and contradiction


def test_content_that_makes_no_sense_is_recorded_and_the_fold_goes_on():
    outbox = make_outbox()
    packet = make_outbox_packet(outbox.vault_id, 3, START, Deposited(BOB, TOKEN, 5))
    payload = replace(packet.payloads[0], value=packet.payloads[0].value + b"\0")
    outbox.packets.append((replace(packet, payloads=(payload,)), None))
    outbox.sequence += 1
    outbox.put(Deposited(BOB, TOKEN, 7))
    state = fold(outbox)
    assert (state.void_count, state.voids[-1].sequence) == (1, 3)
    assert state.free[BOB, TOKEN] == 7
    check(state)


IMPOSSIBLE = {
    "claimed_too_much": Claimed(ALICE, TOKEN, 1),
    "escaped_too_much": Escaped(ALICE, TOKEN, 1_001),
    "series_twice": SeriesListed(series_id(CALL), CALL),
    "trade_record": TradePending(ALICE, BOB, ZERO, TOKEN, 1, 1, START + DAY, ALICE, 1, 1),
    "pause": Paused(make_account("stranger")[12:]),
}


@pytest.mark.parametrize("reason", sorted(IMPOSSIBLE))
def test_what_no_right_vault_can_say_never_raises_in_the_fold_and_halts_afterwards(reason):
    outbox = make_outbox()
    check(fold(outbox))
    outbox.put(IMPOSSIBLE[reason])
    state = fold(outbox)
    assert state.contradictions[0].reason == reason
    with pytest.raises(Conflict):
        check(state)


def test_a_done_execute_that_takes_more_than_there_is_halts():
    outbox = make_outbox()
    legs = (Leg(0, ALICE, TOKEN, -1_001), Leg(0, HOUSE, TOKEN, 1_001))
    outbox.ack(Execute(ZERO, (), legs))
    with pytest.raises(Conflict) as caught:
        check(fold(outbox))
    assert caught.value.reason == "contradiction"
    fine = make_outbox()
    fine.ack(Execute(ZERO, (), (Leg(0, ALICE, TOKEN, -1_000), Leg(0, HOUSE, TOKEN, 1_000))))
    check(fold(fine))


def test_a_done_execute_in_a_series_that_was_never_listed_halts():
    outbox = make_outbox()
    outbox.ack(Execute(ZERO, (), (Leg(1, ALICE, TOKEN, -5), Leg(1, HOUSE, TOKEN, 5))))
    assert fold(outbox).contradictions[0].reason == "unknown_series"
    fine = make_outbox()
    fine.ack(Execute(ZERO, (), (Leg(1, ALICE, DUE, -5), Leg(1, HOUSE, DUE, 5))))
    assert not fold(fine).contradictions


def test_a_refused_execute_moves_nothing_but_its_price_binds():
    outbox = make_outbox()
    body = Execute(ZERO, (SeriesPrice(series_id(CALL), 77),), (Leg(0, ALICE, TOKEN, -5), Leg(0, HOUSE, TOKEN, 5)))
    outbox.ack(body, status=2, reason=13)
    state = fold(outbox)
    assert state.free == {(ALICE, TOKEN): 1_000}
    assert (state.inbox_sequence, state.refused_count, state.refusals[0].reason) == (1, 1, "13")
    assert state.prices == {series_id(CALL): 77}


def test_a_settlement_price_is_immutable_once_it_is_on_record():
    """Incident H2: an expiry price that can be set again is no price."""
    outbox = make_outbox()
    outbox.ack(Execute(ZERO, (SeriesPrice(series_id(CALL), 77),), ()))
    outbox.ack(Execute(ZERO, (SeriesPrice(series_id(CALL), 78),), ()))
    state = fold(outbox)
    assert state.prices == {series_id(CALL): 77}
    assert state.voids[-1].reason == "second_price"


def test_an_ack_out_of_turn_is_a_contradiction():
    outbox = make_outbox()
    inbox = make_inbox_packet(outbox.vault_id, 2, START + 60, Unpause())
    outbox.put(Ack(2, compute_commitment(inbox), 37, 1, 0, 0), inbox=inbox)
    assert fold(outbox).contradictions[0].reason == "inbox_sequence"


# ---------------------------------------------------------------- decisions


def make_trade_outbox():
    outbox = make_outbox()
    outbox.put(TradePending(ALICE, BOB, series_id(CALL), TOKEN, 10**8, 40, START + DAY, ALICE, 1, 1))
    outbox.put(TradePending(ALICE, BOB, series_id(CALL), TOKEN, 10**8, 30, START + DAY, ALICE, 1, 2))
    first, second = (f.head for f in outbox.facts()[2:4])
    return outbox, TradeItem(first, ALICE, 1, 1), TradeItem(second, ALICE, 1, 2)


def test_a_decision_moves_what_its_bits_say_and_ends_the_rest_up_to_its_number():
    outbox, first, _ = make_trade_outbox()
    outbox.ack(DecideTrades(ZERO, 4, (first,)), bitmap=1)
    state = fold(outbox)
    assert state.free == {(ALICE, TOKEN): 960, (BOB, TOKEN): 40}
    assert state.positions == {(ALICE, series_id(CALL)): 10**8, (BOB, series_id(CALL)): -(10**8)}
    assert not state.trades
    assert [n.reason for n in state.endings] == ["trade_done", "trade_over"]
    check(state)


def test_what_lies_beyond_the_number_stays_open():
    outbox, first, _ = make_trade_outbox()
    outbox.ack(DecideTrades(ZERO, 3, (first,)), bitmap=0)
    state = fold(outbox)
    assert [t.sequence for t in state.trades.values()] == [4]
    assert state.free == {(ALICE, TOKEN): 1_000}


def test_an_item_with_another_id_names_nothing():
    outbox, first, second = make_trade_outbox()
    outbox.ack(DecideTrades(ZERO, 0, (replace(first, id=second.id),)), bitmap=0)
    assert len(fold(outbox).trades) == 2


def test_settle_and_end_exclude_each_other_in_every_order():
    """Incident G4: settle, then cancel pays twice. A trade that was done can't be done or ended again, and the other way round."""
    orders = [(1, 1), (0, 1), (1, 0), (0, 0)]
    for bits in orders:
        outbox, first, _ = make_trade_outbox()
        outbox.ack(DecideTrades(ZERO, 0, (first,)), bitmap=bits[0])
        outbox.ack(DecideTrades(ZERO, 0, (first,)), bitmap=0)
        state = fold(outbox)
        assert not state.contradictions
        assert state.free[ALICE, TOKEN] == (960 if bits[0] else 1_000)
    outbox, first, _ = make_trade_outbox()
    outbox.ack(DecideTrades(ZERO, 0, (first,)), bitmap=1)
    outbox.ack(DecideTrades(ZERO, 0, (first,)), bitmap=1)
    assert fold(outbox).contradictions[0].reason == "unknown_trade"


def test_one_claim_is_closed_when_it_is_paid_and_paid_once():
    """Incidents G3, G5: closed before it is paid, so the same request is worth nothing a second time."""
    outbox = make_outbox()
    outbox.put(WithdrawalRequested(ALICE, TOKEN, 300))
    item = WithdrawalItem(outbox.facts()[-1].head, ALICE, TOKEN)
    outbox.ack(DecideWithdrawals(ZERO, (item, item)), bitmap=1)
    state = fold(outbox)
    assert state.claimable == {(ALICE, TOKEN): 300}
    assert not state.requests
    check(state)
    outbox.ack(DecideWithdrawals(ZERO, (item,)), bitmap=1)
    state = fold(outbox)
    assert state.claimable == {(ALICE, TOKEN): 300}
    assert state.contradictions[0].reason == "unknown_request"


# ---------------------------------------------------------------- conservation


def test_one_unit_of_difference_is_a_conflict():
    state = fold(make_outbox())
    check(state)
    for change in ({"free": {(ALICE, TOKEN): 1_001}}, {"claimable": {(BOB, TOKEN): 1}}, {"positions": {(BOB, DUE): 1}}):
        with pytest.raises(Conflict) as caught:
            check(replace(state, **change))
        assert caught.value.reason == "conservation"


def test_what_the_house_owes_is_backed_over_all_vaults():
    vaults = [make_vault(0), make_vault(1)]
    parameters = make_parameters(vaults)
    states = {}
    for number, vault in enumerate(vaults):
        outbox = Outbox(vault)
        outbox.put(SeriesListed(series_id(CALL), CALL))
        if number == 0:
            outbox.put(Deposited(HOUSE, TOKEN, 100))
            outbox.put(Deposited(INSURANCE, TOKEN, 20))
        state = apply_facts(get_initial_state(vault), outbox.facts())
        states[state.vault_id] = state
    ids = list(states)

    def owe(amount):
        return {**states, ids[1]: replace(states[ids[1]], positions={(ALICE, DUE): amount, (HOUSE, DUE): -amount})}

    verify_conservation(owe(120), parameters)
    assert compute_backing(owe(120), parameters)[USDC].surplus == 0
    with pytest.raises(Conflict) as caught:
        verify_conservation(owe(121), parameters)
    assert caught.value.reason == "backing"


def test_dues_of_one_portfolio_cancel_over_vaults_in_the_backing():
    vaults = [make_vault(0), make_vault(1)]
    states = {}
    for number, vault in enumerate(vaults):
        outbox = Outbox(vault)
        outbox.put(SeriesListed(series_id(CALL), CALL))
        outbox.put(sign_link(outbox.vault_id, ALICE, "fund"))
        state = apply_facts(get_initial_state(vault), outbox.facts())
        amount = 500 if number else -500
        states[state.vault_id] = replace(state, positions={(ALICE, DUE): amount, (HOUSE, DUE): -amount})
    backing = compute_backing(states, make_parameters(vaults))[USDC]
    assert (backing.owed_by_house, backing.owed_to_house, backing.surplus) == (0, 0, 0)
    unlinked = {v: replace(s, links={}) for v, s in states.items()}
    backing = compute_backing(unlinked, make_parameters(vaults))[USDC]
    assert (backing.owed_by_house, backing.owed_to_house) == (500, 500)


# ---------------------------------------------------------------- time and control


def test_a_cap_falls_at_once_and_rises_after_the_delay():
    outbox = make_outbox()
    caps = VAULT.caps[0]
    body = SetCaps(TOKEN, caps.per_packet - 1, caps.per_hour + 1, caps.per_day)
    outbox.ack(body, time=START + 60)
    state = fold(outbox)
    assert state.caps[TOKEN].per_packet == caps.per_packet - 1
    assert state.caps[TOKEN].per_hour == caps.per_hour
    assert get_state_at(state, START + 60 + DAY - 1).caps[TOKEN].per_hour == caps.per_hour
    assert get_state_at(state, START + 60 + DAY).caps[TOKEN].per_hour == caps.per_hour + 1


def test_a_pause_ends_by_time_without_a_packet():
    outbox = make_outbox()
    outbox.put(Paused(OPERATORS[0]))
    outbox.ack(Unpause(), time=START + 60)
    state = fold(outbox)
    assert state.paused
    assert get_state_at(state, START + 60 + DAY - 1).paused
    assert not get_state_at(state, START + 60 + DAY).paused


def test_windows_count_user_debits_only_and_lapse_with_their_bucket():
    outbox = make_outbox()
    outbox.put(Deposited(HOUSE, TOKEN, 500))
    legs = (Leg(0, ALICE, TOKEN, -100), Leg(0, HOUSE, TOKEN, 100))
    outbox.ack(Execute(ZERO, (), legs), time=START + 10)
    outbox.ack(Execute(ZERO, (), (Leg(0, ALICE, TOKEN, 50), Leg(0, HOUSE, TOKEN, -50))), time=START + 20)
    state = fold(outbox)
    caps = state.caps[TOKEN]
    assert get_room(caps, state.settlement_windows, TOKEN, START + 3_599) == caps.per_hour - 100
    assert get_room(caps, state.settlement_windows, TOKEN, START + 3_600) == caps.per_hour
    assert get_room(None, state.settlement_windows, TOKEN, START) == 0


def test_deposits_are_remembered_for_a_day():
    outbox = make_outbox()
    outbox.put(Deposited(BOB, TOKEN, 1), time=START + DAY)
    assert len(fold(outbox).recent_deposits) == 2
    outbox.put(Deposited(BOB, TOKEN, 1), time=START + DAY + 1)
    assert [d.account for d in fold(outbox).recent_deposits] == [BOB, BOB]


# ---------------------------------------------------------------- snapshots, cuts


def test_a_snapshot_is_strict_and_independent_of_the_order_of_tables():
    outbox, first, _ = make_trade_outbox()
    outbox.put(sign_link(outbox.vault_id, ALICE, "fund"))
    outbox.put(WithdrawalRequested(ALICE, TOKEN, 3))
    outbox.ack(SetCaps(TOKEN, 10**13, 10**13, 10**14))
    outbox.ack(DecideTrades(ZERO, 3, (first,)), bitmap=1)
    state = fold(outbox)
    data = encode_vault_state(state)
    assert decode_vault_state(data) == state
    assert encode_vault_state(replace(state, free=dict(reversed(state.free.items())))) == data
    for broken in (data[:-1], data + b"\0", b"x" + data[1:], data[:40] + bytes([data[40] ^ 1]) + data[41:]):
        try:
            assert decode_vault_state(broken) != state
        except Rejected as error:
            assert error.reason == "malformed"  # noqa: PT017  either outcome is right; both are checked


def test_folding_goes_on_from_a_snapshot():
    outbox, first, _ = make_trade_outbox()
    facts = outbox.facts()
    state = apply_facts(get_initial_state(VAULT), facts[:3])
    again = apply_fact(decode_vault_state(encode_vault_state(state)), facts[3])
    assert again == fold(outbox)
    assert first.id == facts[2].head


def test_facts_out_of_order_or_of_another_vault_are_refused():
    facts = make_outbox().facts()
    state = get_initial_state(VAULT)
    with pytest.raises(Rejected) as caught:
        apply_fact(state, facts[1])
    assert caught.value.reason == "bad_sequence"
    with pytest.raises(Rejected) as caught:
        apply_fact(get_initial_state(make_vault(1)), facts[0])
    assert caught.value.reason == "wrong_vault"


def test_a_cut_fits_exactly_the_states_it_is_computed_from():
    state = fold(make_outbox())
    cut = make_cut([state], START)
    states = {state.vault_id: state}
    digest = compute_ledger_digest(compute_ledger(states, cut, PARAMETERS))
    assert digest == compute_ledger_digest(compute_ledger(states, cut, PARAMETERS))
    entry = cut.entries[0]
    for changed in (replace(entry, outbox_sequence=1), replace(entry, outbox_head=ZERO)):
        with pytest.raises(Rejected) as caught:
            compute_ledger(states, replace(cut, entries=(changed,)), PARAMETERS)
        assert caught.value.reason == "cut_mismatch"
    with pytest.raises(Rejected):
        compute_ledger({}, cut, PARAMETERS)
    with pytest.raises(Rejected):
        compute_ledger(states, replace(cut, entries=()), PARAMETERS)


def test_a_ledger_digest_sees_one_unit():
    state = fold(make_outbox())
    cut = make_cut([state], START)
    other = replace(state, free={(ALICE, TOKEN): 1_001})
    digests = {compute_ledger_digest(compute_ledger({s.vault_id: s}, cut, PARAMETERS)) for s in (state, other)}
    assert len(digests) == 2


def test_tier_of_a_vault_is_the_worst_of_its_facts():
    outbox = make_outbox()
    assert fold(outbox).tier == TrustTier(1)
    facts = make_facts(outbox.vault_id, outbox.packets, tier=3)
    assert apply_facts(get_initial_state(VAULT), facts).tier == TrustTier(3, 3, 4)
    assert isinstance(outbox.packets[0][0], Packet)
    assert UNIT == 10**6


TIERS = st.builds(TrustTier, st.integers(1, 3), st.integers(0, 20), st.integers(0, 20))


@given(st.lists(TIERS, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_a_later_better_proof_of_other_facts_never_makes_a_vault_look_better(tiers, rnd):
    outbox = Outbox(VAULT)
    for amount in range(1, len(tiers) + 1):
        outbox.put(Deposited(ALICE, TOKEN, amount))
    facts = outbox.facts()
    state = apply_facts(get_initial_state(VAULT), [replace(f, tier=tier) for f, tier in zip(facts, tiers, strict=True)])
    assert state.tier in tiers
    assert state.tier.level == max(tier.level for tier in tiers)
    assert all(state.tier.sort_key >= tier.sort_key for tier in tiers)
    rnd.shuffle(tiers)
    assert functools.reduce(combine_tiers, tiers) == state.tier, "the order of combining changes nothing"


def test_fewer_signatures_are_the_worse_word_and_of_equal_ones_those_of_the_larger_set():
    assert combine_tiers(TrustTier(3, 3, 4), TrustTier(3, 5, 7)) == TrustTier(3, 3, 4)
    assert combine_tiers(TrustTier(3, 5, 7), TrustTier(3, 5, 6)) == TrustTier(3, 5, 7)
    assert combine_tiers(TrustTier(3, 7, 7), TrustTier(2)) == TrustTier(3, 7, 7)


@pytest.mark.parametrize(
    ("family", "tier"), [("evm", TrustTier(1)), ("cosmos", TrustTier(1)), ("solana", TrustTier(3, 3, 4))]
)
def test_a_vault_without_facts_has_the_tier_that_its_family_will_give(family, tier):
    assert get_initial_state(replace(VAULT, family=family)).tier == tier


def test_what_is_expected_of_a_vault_is_no_fact_and_its_first_fact_decides():
    facts = make_outbox().facts()
    state = apply_facts(get_initial_state(replace(VAULT, family="solana")), facts)
    assert state.tier == TrustTier(1)


def test_a_snapshot_keeps_m_of_n_and_the_digest_that_nodes_compare_covers_the_level_alone():
    state = fold(make_outbox())
    three, five, staked = (replace(state, tier=TrustTier(*t)) for t in ((3, 3, 4), (3, 5, 7), (2,)))
    for one in (state, three, five, staked):
        assert decode_vault_state(encode_vault_state(one)) == one
    assert len({encode_vault_state(one) for one in (state, three, five, staked)}) == 4
    # around a rotation two honest nodes may fold one packet under heads that different sets attested
    assert compute_state_digest(three) == compute_state_digest(five)
    assert len({compute_state_digest(one) for one in (state, three, staked)}) == 3


def test_a_snapshot_of_version_2_is_still_read_and_its_digest_is_what_it_was():
    state = fold(make_outbox())
    old = b"optsettle/state/2" + encode_vault_state(state)[19:]
    assert decode_vault_state(old) == state
    assert compute_state_digest(state) == keccak256(old)
    with pytest.raises(Rejected):
        decode_vault_state(b"optsettle/state/1" + old[17:])
    with pytest.raises(Rejected):
        decode_vault_state(old + b"\0")
