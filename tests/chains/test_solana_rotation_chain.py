"""A rotation on the real vault, read by one node that hears what operators say: nobody's former word counts, whatever it overlaps with."""

from __future__ import annotations

import pytest

from chains.base import FORMER_SET, advance, bootstrap, collect
from chains.solana.codec import encode_handovers
from chains.solana.rotation import make_handovers
from messages.bodies import RotateOperators
from messages.digests import get_address
from messages.errors import Unavailable
from messages.outbox import get_start_cursor
from tests.builders import make_key
from tests.chains.solana_site import DELAY_S, KEYS, Site
from tests.chains.test_solana_submitter import deliver

JOINING = make_key("joining")
STAYING = KEYS[1:]
NEXT_KEYS = sorted([*STAYING, JOINING], key=get_address)
NEXT = tuple(get_address(key) for key in NEXT_KEYS)


@pytest.fixture
def site():
    return Site("rotation")


async def rotate(site):
    """Bring a rotation to the vault; its instant."""
    site.deposit(1)
    instant = site.now() + DELAY_S + 60
    body = RotateOperators(1, 3, instant, site.account, NEXT)
    await deliver(site, site.build(site.gas_key), site.make_certificate(1, body))
    site.finalize()
    return instant


async def test_a_node_that_slept_takes_nothing_from_those_who_stayed_before_it_knows_who_else_is_there(site):
    instant = await rotate(site)
    awake, asleep = site.chain, site.build()
    await site.speak(*KEYS[:3])
    _, trusted, _ = await bootstrap(awake, site.now())
    found = await collect(awake, trusted, get_start_cursor(awake.vault_id), 0)
    (handover,) = make_handovers(awake.vault_id, found.facts, found.proof)
    assert handover.rotation.effective == instant

    site.clock.advance(DELAY_S + 120)
    site.deposit(2)
    site.finalize()
    # three of the next set, and all of them were of the first: m of it by what this node knows
    await site.speak(*STAYING, listener=asleep)
    _, early, _ = await bootstrap(asleep, site.now())
    assert (early.sequence, early.handovers) == (3, ())
    with pytest.raises(Unavailable) as refused:
        await collect(asleep, early, get_start_cursor(asleep.vault_id), 0)
    assert refused.value.reason == FORMER_SET

    assert asleep.observer.accept(encode_handovers((handover,)), site.now()) is None
    assert asleep.observer.get_operators(site.now()) == NEXT
    assert asleep.observer.get_operators(instant - 1) != NEXT
    site.clock.advance(20)
    site.finalize()
    await site.speak(JOINING, *STAYING[:2], listener=asleep)
    _, late, _ = await bootstrap(asleep, site.now())
    assert late.handovers == (handover,)
    facts = (await collect(asleep, late, get_start_cursor(asleep.vault_id), 0)).facts
    assert [fact.sequence for fact in facts] == [1, 2, 3]

    # who was awake goes on by the same word, from the state that the facts made
    step = awake.verifier.make_succession(trusted, awake.vault_id, found.facts, found.proof)
    trusted = awake.verifier.verify_update(trusted, step, site.now())
    assert trusted.handovers == (handover,)
    assert not (await advance(awake, trusted, site.now())).steps  # nothing was said to it; now it knows who will
    await site.speak(JOINING, *STAYING[:2])
    after = (await advance(awake, trusted, site.now())).steps[-1][1]
    assert (after.sequence, after.handovers) == (3, (handover,))
    assert [f.sequence for f in (await collect(awake, after, found.cursor, 0)).facts] == [3]
