"""Who missed how a round ended is told again, though everybody else is done with it."""

from __future__ import annotations

from messages.wire import decode_envelope
from relayer.rules.quorum import MAX_PROPOSAL_ENVELOPE_BYTES, get_proposer
from relayer.tasks import attest
from tests.committee import Committee
from tests.scenarios.test_review_committee import put_trade


async def test_an_operator_that_heard_no_votes_learns_of_packets_that_are_done(tmp_path, monkeypatch):
    async with Committee(tmp_path) as c:
        await c.run_for(10)
        committee = c.services[0].node.get_committee()
        proposer = get_proposer(committee, 0, 0)
        late = next(s.node for s in c.services.values() if s.node.signer.operator != proposer)
        others = [s.node for s in c.services.values() if s.node is not late]
        read, is_deaf = attest.read, True

        async def read_some(node, data):
            kind = decode_envelope(data, MAX_PROPOSAL_ENVELOPE_BYTES).type
            if not (is_deaf and node is late and kind in {"vote", "signed_plan"}):
                await read(node, data)

        monkeypatch.setattr(attest, "read", read_some)
        put_trade(c.chains[0], c.clock)
        await c.run_for(120)
        for node in others:
            assert [p.status for p in node.store.get_packets()] == ["done"]
        assert late.store.get_packets() == ()
        is_deaf = False
        await c.run_for(120)
        assert [p.status for p in late.store.get_packets()] == ["done"]
