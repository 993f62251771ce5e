"""What those who left an operator set could still do with their keys, seen from outside."""

from __future__ import annotations

from dataclasses import replace

from chains.solana.types import Attested
from messages.hashing import sha256
from messages.outbox import compute_next_head
from tests.builders import DAY, OPERATOR_KEYS, Outbox
from tests.chains.test_solana_rotation import (
    MIXED,
    MIXED_KEYS,
    NEXT,
    NOW,
    STORY,
    T1,
    T2,
    TO_MIXED,
    VAULT_ID,
    VERIFIER,
    Story,
    get_reason,
    start,
)


def make_forged(*, observers, timers, clock, time_clock):
    """Three who say a forged history after the newest packet but one of the story, at two numbers, and three who say the time."""
    number = STORY.r1 + 2
    commitments = (sha256(b"forged 1"), sha256(b"forged 2"))
    lowest = compute_next_head(STORY.get_facts()[number - 1].head, number + 1, commitments[0])
    highest = compute_next_head(lowest, number + 2, commitments[1])
    slot = 10**9  # a slot is what its signer says
    said = [STORY.say(observers[0], number + 1, clock, head=lowest, slot=slot)]
    said += [STORY.say(key, number + 2, clock, head=highest, slot=slot) for key in observers[1:]]
    timed = STORY.stand(timers, number, time_clock).observations
    return Attested(tuple(sorted(said, key=lambda s: s.operator)), commitments[1:], timed)


def test_keys_that_left_cannot_borrow_the_time_of_those_who_followed():
    """Backdated words of the former set beside true words of the next, which are public: a node that passed the instant would be led away."""
    passed = replace(start(), handovers=(TO_MIXED,))
    passed = VERIFIER.verify_update(passed, STORY.stand(MIXED_KEYS[:3], STORY.r1 + 2, T1 + 60), NOW)
    forged = make_forged(observers=OPERATOR_KEYS[:3], timers=MIXED_KEYS[:3], clock=T1 - 1, time_clock=T1 + 90)
    assert get_reason(VERIFIER.verify_update, passed, forged, NOW) == "two_sets"
    assert get_reason(VERIFIER.verify_alone, passed, forged, NOW) == "two_sets"
    # the other way round
    late = make_forged(observers=MIXED_KEYS[:3], timers=OPERATOR_KEYS[:3], clock=T1 + 90, time_clock=T1 - 1)
    assert get_reason(VERIFIER.verify_alone, passed, late, NOW) == "two_sets"


def test_one_set_at_several_numbers_tells_its_own_time():
    passed = replace(start(), handovers=(TO_MIXED,))
    whole = make_forged(observers=MIXED_KEYS[:3], timers=MIXED_KEYS[:3], clock=T1 + 90, time_clock=T1 + 80)
    after = VERIFIER.verify_update(passed, whole, NOW)  # m of those in force: theirs is the word that counts
    assert (after.sequence, after.clock) == (STORY.r1 + 3, T1 + 80)
    assert after.vault_id == VAULT_ID


def test_a_rotation_that_was_replaced_hides_no_earlier_one_that_took_effect():
    story = Story.__new__(Story)
    story.outbox = Outbox(VAULT_ID)
    story.rotate(1, MIXED, T1)
    story.rotate(2, NEXT, T2, time=T1 + 600)
    story.rotate(2, MIXED, T2 + 5 * DAY, time=T2 - 600)
    clock = T2 + DAY  # the second was replaced and the third is pending: those of the first are in force
    assert get_reason(VERIFIER.verify_facts, replace(start(), clock=clock), story.get_facts()) == "former_set"
    VERIFIER.verify_facts(replace(start(), clock=clock, handovers=(TO_MIXED,)), story.get_facts())
