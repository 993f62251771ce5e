"""A vault that is more than one collect ahead: gone in parts, for every family, and believed only under the head at the end of the way."""

from dataclasses import replace

import pytest

from chains import base
from chains.cosmos import reader as cosmos_reader
from chains.evm import reader as evm_reader
from chains.solana import history
from messages.bodies import RotateOperators
from messages.errors import Rejected, Unavailable
from messages.outbox import Walk, fold_part, is_rotation
from tests.chains.test_every_family import HARNESSES, advance, get_amounts

AMOUNTS = [1_000_000 * n for n in range(1, 12)]
WITHHELD = ["withhold_all", "withhold_some", "forge_packet", "undone", "down"]


@pytest.fixture(params=HARNESSES.values(), ids=HARNESSES)
def harness(request):
    return request.param()


async def make_long_way(harness):
    """Eleven deposits, and a chain that folds four packets in one collect and three in one part."""
    trusted, _ = await advance(harness, await harness.bootstrap())
    for i, amount in enumerate(AMOUNTS, 1):
        harness.deposit(amount)
        if not i % 4:
            harness.finalize()
    harness.finalize()
    trusted, _ = await advance(harness, trusted)
    harness.chain = replace(harness.chain, max_packets=4, part_packets=3)
    return trusted


async def catch_up(harness, trusted, cursor=None, tell=None):
    """Trace and collect in parts; returns the parts."""
    chain, cursor = harness.chain, cursor or harness.start
    told = tell or (lambda *_: None)
    traced = await base.trace(chain, trusted, cursor, chain.start_height, told)
    return traced, [part async for part in base.collect_parts(chain, traced, cursor, chain.start_height, told)]


async def test_a_far_head_is_refused_in_one_step_and_reached_in_parts(harness):
    trusted = await make_long_way(harness)
    with pytest.raises(Unavailable) as caught:
        await base.collect(harness.chain, trusted, harness.start, harness.chain.start_height)
    assert caught.value.reason == base.FAR
    steps = []
    traced, parts = await catch_up(harness, trusted, tell=lambda *said: steps.append(said))
    assert [len(part.facts) for part in parts] == [3, 3, 3, 2]
    assert get_amounts(fact for part in parts for fact in part.facts) == AMOUNTS
    assert parts[-1].head == traced.head
    recorded = [done for what, done, total in steps if (what, total) == ("recorded", 11)]
    assert recorded == sorted(recorded)
    assert {3, 6, 9, 11} <= {*recorded} <= {0, 3, 6, 9, 11}
    assert ("read", 11, 11) in steps
    whole = await base.collect(
        replace(harness.chain, max_packets=20), trusted, harness.start, harness.chain.start_height
    )
    assert tuple(fact for part in parts for fact in part.facts) == whole.facts
    assert parts[-1].cursor == whole.cursor


async def test_a_way_is_gone_on_from_any_part(harness):
    trusted = await make_long_way(harness)
    _, parts = await catch_up(harness, trusted)
    _, rest = await catch_up(harness, trusted, parts[1].cursor)
    assert get_amounts(fact for part in rest for fact in part.facts) == AMOUNTS[6:]


@pytest.mark.parametrize("kind", WITHHELD)
async def test_one_liar_of_two_on_a_long_way_is_named_and_changes_nothing(harness, kind):
    trusted = await make_long_way(harness)
    harness.lie(0, kind)
    traced, parts = await catch_up(harness, trusted)
    assert get_amounts(fact for part in parts for fact in part.facts) == AMOUNTS
    assert {blame.source for blame in traced.blames} == {harness.get_source(0)}


@pytest.mark.parametrize("kind", WITHHELD)
async def test_when_every_source_lies_on_a_long_way_there_are_no_facts_e1(harness, kind):
    trusted = await make_long_way(harness)
    for index in range(len(harness.chain.reader.sources)):
        harness.lie(index, kind)
    with pytest.raises(Unavailable):
        await catch_up(harness, trusted)


async def test_a_source_that_lies_the_second_time_is_blamed_and_another_goes_on_from_there(harness):
    trusted = await make_long_way(harness)
    chain, start = harness.chain, harness.start
    traced = await base.trace(chain, trusted, start, chain.start_height, lambda *_: None)
    seen, blames = [], []
    async for part in base.collect_parts(
        Liar.over(chain, harness, 7), traced, start, chain.start_height, lambda *_: None
    ):
        seen += get_amounts(part.facts)
        blames += part.blames
    assert seen == AMOUNTS
    assert [(blame.source, blame.reason) for blame in blames] == [(traced.source, "head_mismatch")]


class Liar:
    """A reader over another one whose first source changes one packet of the second reading."""

    def __init__(self, inner, harness, number):
        self.inner, self.harness, self.number, self.liar = inner, harness, number, inner.sources[0]

    @classmethod
    def over(cls, chain, harness, number):
        return replace(chain, reader=cls(chain.reader, harness, number))

    def __getattr__(self, name):
        return getattr(self.inner, name)

    async def walk(self, source, span):
        async for claims in self.inner.walk(source, span):
            yield [
                self.harness.change_packet(claim)
                if source == self.liar and claim.packet.sequence == self.number
                else claim
                for claim in claims
            ]


async def test_facts_that_are_taken_before_the_end_of_the_way_are_a_robbery(harness):
    """Why a way is gone twice: the twin folds what comes as it comes, and has recorded a forged deposit before it could know."""
    trusted = await make_long_way(harness)
    chain = Liar.over(harness.chain, harness, 2)
    source = chain.reader.liar
    head, proof = await chain.reader.head(source, trusted)
    proven = chain.verifier.verify_head(trusted, head, proof)
    span = base.Span(0, head.sequence, chain.start_height, proven.height)
    walk, recorded = Walk(harness.start, 3), []
    async for claims in chain.reader.walk(source, span):
        walk.take(claims)
        recorded += [int.from_bytes(claim.packet.payloads[0].value[-32:], "big") for claim in claims]
    assert recorded != AMOUNTS
    with pytest.raises(Rejected) as caught:
        walk.finish(proven, chain.limits)
    assert caught.value.reason == "head_mismatch"
    # the real road names the liar and takes the other source's word for nothing but the same head
    traced, parts = await catch_up(replace_chain(harness, chain), trusted)
    assert get_amounts(fact for part in parts for fact in part.facts) == AMOUNTS
    assert [(blame.source, blame.reason) for blame in traced.blames] == [(source, "head_mismatch")]


def replace_chain(harness, chain):
    harness.chain = chain
    return harness


async def test_no_part_is_folded_to_a_head_that_is_not_on_the_trail(harness):
    trusted = await make_long_way(harness)
    traced, _ = await catch_up(harness, trusted)
    chain = harness.chain
    claims = []
    span = base.Span(0, 11, chain.start_height, traced.trail.proven.height)
    async for piece in chain.reader.walk(traced.source, span):
        claims += piece
    assert len(fold_part(harness.start, claims[:3], traced.trail, chain.limits)[1]) == 3
    for wrong in (claims[:2], claims[:4], claims[1:4], [*claims[:2], harness.change_packet(claims[2])]):
        with pytest.raises(Rejected):
            fold_part(harness.start, wrong, traced.trail, chain.limits)


NARROW = {
    "evm": lambda chain, monkeypatch: narrow(chain.reader, 2),
    "cosmos": lambda chain, monkeypatch: narrow(chain.reader, 2),
    "solana": lambda chain, monkeypatch: monkeypatch.setattr(history, "MAX_SIGNATURES", 3),
}


def narrow(reader, blocks):
    """Ask for so many blocks at once."""
    reader._settings = replace(reader._settings, log_range=blocks)
    reader._range = dict.fromkeys(reader.sources, blocks)


@pytest.mark.parametrize("kind", [None, *WITHHELD])
async def test_a_long_way_comes_in_small_pieces(harness, kind, monkeypatch):
    trusted = await make_long_way(harness)
    NARROW[harness.chain.family](harness.chain, monkeypatch)
    if kind is not None:
        harness.lie(0, kind)
    span = base.Span(0, 11, harness.chain.start_height, harness.chain.verifier.get_point(trusted).height)
    pieces = [len(claims) async for claims in harness.chain.reader.walk(harness.get_source(1), span)]
    assert len([count for count in pieces if count]) > 2
    assert sum(pieces) == 11
    traced, parts = await catch_up(harness, trusted)
    assert get_amounts(fact for part in parts for fact in part.facts) == AMOUNTS
    assert {blame.source for blame in traced.blames} == ({harness.get_source(0)} if kind else set())


BOUNDS = {
    "evm": [(evm_reader, "MAX_LOGS", 4), (evm_reader, "MAX_QUERIES", 3)],
    "cosmos": [(cosmos_reader, "MAX_TRANSACTIONS", 4), (cosmos_reader, "MAX_PACKET_EVENTS", 4)],
    "solana": [(history, "MAX_PACKETS", 4)],
}


@pytest.mark.parametrize("index", [0, 1])
async def test_what_a_reader_takes_at_once_bounds_no_long_way(harness, index, monkeypatch):
    """In one answer or one collect so much is refused; the same packets are walked over within the same bounds."""
    trusted = await make_long_way(harness)
    chain = harness.chain
    bounds = BOUNDS[chain.family]
    module, name, value = bounds[index % len(bounds)]
    monkeypatch.setattr(module, name, value)
    if name == "MAX_QUERIES":
        narrow(chain.reader, 2)
    if chain.family == "cosmos":  # else its records would do
        monkeypatch.setattr(cosmos_reader, "KEPT_PACKETS", 0)
    span = base.Span(0, 11, chain.start_height, chain.verifier.get_point(trusted).height)
    with pytest.raises((Rejected, Unavailable)) as caught:
        await chain.reader.packets(harness.get_source(0), span)
    assert caught.value.reason in {"size", "log_limit"}
    traced, parts = await catch_up(harness, trusted)
    assert traced.blames == ()
    assert get_amounts(fact for part in parts for fact in part.facts) == AMOUNTS


async def test_a_walk_may_begin_and_end_in_the_middle(harness, monkeypatch):
    trusted = await make_long_way(harness)
    NARROW[harness.chain.family](harness.chain, monkeypatch)
    span = base.Span(4, 9, harness.chain.start_height, harness.chain.verifier.get_point(trusted).height)
    claims = [c async for piece in harness.chain.reader.walk(harness.get_source(0), span) for c in piece]
    assert [claim.packet.sequence for claim in claims] == [5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("ahead", "reason"), [(1, "packets_missing"), (10**4, "packets_missing"), (10**12, "head_number")]
)
async def test_a_number_that_is_too_high_is_named_and_the_lower_one_is_tried_first(harness, ahead, reason):
    """A number is a claim of its source, where the header proves the head alone; Solana's operators sign the number too."""
    trusted = await make_long_way(harness)
    chain = replace(harness.chain, reader=Boaster(harness.chain.reader, ahead))
    traced = await base.trace(chain, trusted, harness.start, chain.start_height, lambda *_: None)
    assert traced.head.sequence == 11
    is_signed = harness.chain.family == "solana"
    is_named = is_signed or reason == "head_number"
    assert {blame.source for blame in traced.blames} == ({harness.get_source(0)} if is_named else set())
    harness.chain = chain
    for index in range(1, len(chain.reader.sources)):
        harness.lie(index, "down")
    with pytest.raises(Unavailable) as caught:
        await base.trace(chain, trusted, harness.start, chain.start_height, lambda *_: None)
    assert f"{harness.get_source(0)}: {'wrong_number' if is_signed else reason}" in str(caught.value)


class Boaster:
    """A reader over another one whose first source claims a higher number under the right head."""

    def __init__(self, inner, ahead):
        self.inner, self.ahead = inner, ahead

    def __getattr__(self, name):
        return getattr(self.inner, name)

    async def head(self, source, trusted):
        head, proof = await self.inner.head(source, trusted)
        if source == self.inner.sources[0]:
            head = replace(head, sequence=head.sequence + self.ahead)
        return head, proof


class Doubter:
    """A verifier over another one that believes no way on which operators were changed (what Solana's says of a former set)."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def verify_facts(self, trusted, facts):
        del trusted
        if any(is_rotation(fact) for fact in facts):
            raise Rejected("the operators that say so were no operators any more", reason=base.FORMER_SET)


@pytest.mark.parametrize("number", [1, 6, 11])
async def test_who_vouches_for_the_end_is_judged_by_the_whole_way_before_its_first_part(harness, number):
    """Else the first parts of a way that only former operators stand for would be on record before a later part says so."""
    trusted, _ = await advance(harness, await harness.bootstrap())
    for n in range(1, 12):
        if n == number:
            await rotate(harness)
        else:
            harness.deposit(n)
        harness.mine()
    harness.finalize()
    trusted, _ = await advance(harness, trusted)
    chain = harness.chain = replace(harness.chain, max_packets=4, part_packets=3)
    traced, parts = await catch_up(harness, trusted)
    facts = [fact for part in parts for fact in part.facts]
    assert traced.trail.rotations == (facts[number - 1],)
    assert isinstance(facts[number - 1].inbox_body, RotateOperators)
    harness.chain = replace(chain, verifier=Doubter(chain.verifier))
    with pytest.raises(Unavailable) as caught:
        await catch_up(harness, trusted)
    assert caught.value.reason == base.FORMER_SET
    # the twin looks at each part by itself: what comes before the rotation is on record by then
    recorded = 0
    for part in parts:
        try:
            base.verify_vouched(harness.chain, trusted, part.facts)
        except Unavailable:
            break
        recorded += len(part.facts)
    assert recorded == (number - 1) // 3 * 3


async def rotate(harness):
    """The vault's first inbox packet: other operators from a week on."""
    operators = tuple(sorted(bytes([n]) * 20 for n in (5, 6, 7, 8)))
    treasurer = bytes(12) + bytes([9]) * 20 if harness.chain.family == "evm" else bytes([9]) * 32
    body = RotateOperators(1, 3, harness.now() + 7 * 86_400, treasurer, operators)
    certificate = harness.certify(1, body)
    signed = await harness.chain.submitter.prepare(certificate, [])
    await harness.chain.submitter.send(signed)
