"""What one operator's endpoints must show before it signs, and who is named when they do not."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from hashlib import sha256

import pytest
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer

from chains.base import Unseen, bootstrap
from chains.registry import build_chain, make_solana_sim_config
from chains.solana.codec import decode_observation, decode_unsigned
from chains.solana.observations import Kind
from contracts.solana import client as c
from messages.errors import Rejected, Unavailable
from tests.chains.solana_site import KEYS, SETS, Site


@pytest.fixture
def site():
    site = Site("observer")
    site.deposit(5, 6)
    site.finalize()
    return site


def observe(site, chain=None):
    return asyncio.run((chain or site.chain).observer.observe(site.now()))


def get_unseen(site, chain=None):
    with pytest.raises(Unseen) as caught:
        observe(site, chain)
    return caught.value


def test_endpoints_that_agree_give_a_sighting_of_the_final_state(site):
    site.deposit(7)  # not final yet
    seen = observe(site)
    state = c.decode_state(site.sim.read(site.state))
    assert seen.sequence == 2
    assert seen.blames == ()
    claim = decode_unsigned(seen.claim)
    assert (claim.sequence, claim.head, claim.slot, claim.clock) == (seen.sequence, seen.head, seen.height, seen.time)
    assert claim.vault_id == site.chain.vault_id
    assert seen.time <= site.now()
    site.finalize()
    assert observe(site).head == c.decode_state(site.sim.read(site.state)).outbox_head != state.vault_id


@pytest.mark.parametrize(
    ("lie", "value", "reason"),
    [
        ("forge_head", True, "other_head"),
        ("forge_sequence", 0, None),
        ("other_owner", True, "wrong_owner"),
        ("missing_vault", True, "missing"),
        ("clock_ahead_s", 600, "future"),
        ("slot_ahead", 1_000_000, None),
        ("down", True, "unreachable"),
        ("hang", True, "timeout"),
        ("unhealthy", True, None),
        ("genesis_hash", "4uhcVJyU9pJkvQyS88uRDiswHXSCkY3zQawwpjk2NsNY", "wrong_chain_id"),
    ],
)
def test_one_endpoint_of_four_that_lies_or_is_away_changes_nothing_and_is_named(site, lie, value, reason):
    honest = observe(site)
    setattr(site.lies[2], lie, value)
    seen = observe(site, site.build())
    assert (seen.sequence, seen.head, seen.time) == (honest.sequence, honest.head, honest.time)
    if reason:
        assert [(blame.source, blame.reason) for blame in seen.blames] == [(site.chain.reader.sources[2], reason)]


@pytest.mark.parametrize("lie", ["forge_head", "other_owner", "missing_vault", "down"])
def test_two_endpoints_of_four_that_lie_or_are_away_make_the_operator_abstain(site, lie):
    for lies in site.lies[:2]:
        setattr(lies, lie, True)
    assert get_unseen(site).reason == "abstain"
    assert {blame.source for blame in get_unseen(site).blames} >= set(site.chain.reader.sources[:2])


def agree_among_those_that_answer(readings):
    """The fault of E1: who does not answer is left out, and silence lowers the bar."""
    heads = Counter(reading.observation.head for reading in readings if reading.kind is Kind.FOUND)
    head, count = heads.most_common(1)[0]
    return head if 3 * count > 2 * heads.total() else None


def test_silencing_honest_endpoints_never_lowers_the_bar_e1(site):
    """KelpDAO: two poisoned endpoints, and two that are kept from answering. The twin that leaves silence out signs the forgery."""
    honest = observe(site)
    for lies in site.lies[:2]:
        lies.forge_head = True
    for lies in site.lies[2:]:
        lies.down = True
    answers = asyncio.run(site.chain.observer._ask_all(site.now()))
    forged = agree_among_those_that_answer(answers.get_readings())
    assert forged is not None
    assert forged != honest.head
    assert get_unseen(site).reason == "abstain"


def test_endpoints_that_all_lie_alike_make_one_operator_wrong_and_no_fact_e1(site):
    poisoned = site.build()
    for lies in site.lies:
        lies.forge_head = True
    forged = observe(site, poisoned)
    for lies in site.lies:
        lies.forge_head = False
    honest = observe(site)
    assert forged.head != honest.head
    site.say(site.chain, forged, KEYS[0])
    for key in KEYS[1:3]:
        site.say(site.chain, honest, key)

    async def start():
        return await bootstrap(site.chain, site.now())

    with pytest.raises(Unavailable, match="not enough operators"):
        asyncio.run(start())
    site.say(site.chain, honest, KEYS[3])
    assert asyncio.run(start())[1].head == honest.head


def test_an_address_with_lamports_alone_is_no_vault_and_does_not_stand_in_the_way():
    """ibc-v2.md 8, hardening 7: dust on the address gave an error instead of "nothing there", so that absence could not be told."""
    site = Site("dust")
    address = Pubkey.from_bytes(sha256(b"an address where nobody made anything").digest())
    key = Pubkey.from_bytes(site.account)
    site.sim.send(site.maker, [transfer(TransferParams(from_pubkey=key, to_pubkey=address, lamports=10**9))])
    site.finalize()
    config = make_solana_sim_config(site.sim, bytes(address), SETS)
    chain = build_chain(config, None, {config.chain_id: site.sim})
    assert get_unseen(site, chain).reason == "vault_missing"
    # one that another program owns is no answer at all: it is neither there nor absent
    for lies in site.lies:
        lies.other_owner = True
    assert get_unseen(site).reason == "abstain"


def test_a_slow_endpoint_holds_nobody_up_once_enough_agree(site):
    site.lies[0].hang = True
    sources = site.chain.reader.sources
    assert [(blame.source, blame.reason) for blame in observe(site).blames] == [(sources[0], "timeout")]


def test_an_endpoint_that_shows_fewer_packets_at_a_later_slot_is_named(site):
    site.deposit(8)
    site.finalize()
    site.clock.advance(20)
    site.lies[3].forge_sequence = -1
    site.lies[0].stall_slot = site.sim.get_slot() - 5
    assert [(blame.source, blame.reason) for blame in observe(site).blames] == [
        (site.chain.reader.sources[3], "withheld")
    ]


def test_an_operator_never_signs_below_what_its_endpoints_agreed_on_before(site):
    """A balancer that leads back to nodes that sleep, or endpoints that change their mind: minContextSlot and the last agreement."""
    before = observe(site)
    site.deposit(8)
    site.finalize()
    slot = site.sim.get_slot()
    site.deposit(9)
    site.finalize()
    after = observe(site)
    assert after.sequence == before.sequence + 2
    for lies in site.lies:
        lies.stall_slot = slot
    unseen = get_unseen(site)
    assert unseen.reason == "abstain"
    assert {blame.reason for blame in unseen.blames} == {"behind"}
    assert (
        observe(site, site.build()).sequence == before.sequence + 1
    )  # one that knows nothing takes it: it is true, and old


def test_another_head_for_the_same_number_is_seen_for_the_journal_to_refuse_it(site):
    """Nobody may sign it, and people must look: that is the signer's to tell, who remembers over restarts."""
    before = observe(site)
    for lies in site.lies:
        lies.forge_head = True
    after = observe(site)
    assert after.sequence == before.sequence
    assert after.head != before.head


def test_the_genesis_hash_is_asked_again_after_an_endpoint_was_away(site):
    observe(site)
    site.lies[1].genesis_hash = "4uhcVJyU9pJkvQyS88uRDiswHXSCkY3zQawwpjk2NsNY"
    assert observe(site).blames == ()  # still the connection that was checked
    site.lies[1].down = True
    observe(site)
    site.lies[1].down = False
    assert [blame.reason for blame in observe(site).blames] == ["wrong_chain_id"]


def test_what_is_published_is_what_was_seen_and_signed(site):
    seen = observe(site)
    accepted = site.say(site.chain, seen, KEYS[1])
    assert (accepted.sequence, accepted.head, accepted.height, accepted.time) == (
        seen.sequence,
        seen.head,
        seen.height,
        seen.time,
    )
    signed = site.chain.observer.encode_signed(seen.claim, accepted.operator, bytes(65))
    assert decode_observation(signed).observation == decode_unsigned(seen.claim)
    with pytest.raises(Rejected):
        site.chain.observer.accept(signed, site.now())


def test_an_operator_that_signs_two_heads_for_one_number_is_caught(site):
    honest = observe(site)
    for lies in site.lies:
        lies.forge_head = True
    forged = observe(site, site.build())
    assert site.say(site.chain, honest, KEYS[0]).evidence is None
    evidence = site.say(site.chain, forged, KEYS[0]).evidence
    assert evidence is not None
    assert site.chain.observer.verify_evidence(*evidence) == site.say(site.chain, honest, KEYS[0]).operator
    with pytest.raises(Rejected):
        site.chain.observer.verify_evidence(evidence[0], evidence[0])


def test_a_chain_of_this_family_needs_four_endpoints():
    site = Site("four")
    config = site.make_config()
    build_chain(config, None, {config.chain_id: site.sim})
    with pytest.raises(Rejected) as caught:
        build_chain(replace(config, endpoints=config.endpoints[:3]), None, {config.chain_id: site.sim})
    assert caught.value.reason == "bad_config"
