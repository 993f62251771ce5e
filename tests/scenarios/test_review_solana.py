"""Holes of the committee over a Solana vault that a review looked for."""

from __future__ import annotations

from relayer.node import Timing
from tests.scenarios.test_solana_committee import Net


async def test_a_node_signs_after_an_absence_that_only_a_proposals_evidence_has_shown_it(tmp_path):
    """Its own endpoints give it no newer state; with one operator away, nothing for this vault would get m signatures any more."""
    async with Net(tmp_path, honest=3, timing=Timing(poll_s=5.0)) as net:
        net.deposit(1_000)
        for endpoint in net.network.endpoints:
            endpoint.lies.drop_sent = True
        net.request(300)
        await net.run_until(lambda node: bool(node.store.get_packets("open")), 180)
        (packet,) = net.services[0].node.store.get_packets("open")
        await net.pass_time(30, step=10)
        node = net.services[0].node

        async def hear_nothing(source, trusted):
            del source, trusted

        node.chains[net.vault_id].reader.update = hear_nothing
        await net.pass_time(packet.timeout - net.clock.now() + 20, step=30)
        for endpoint in net.network.endpoints:
            endpoint.lies.drop_sent = False
        others = [net.services[i].node for i in (1, 2)]
        for _ in range(30):
            if all({p.status for p in other.store.get_packets()} == {"absent", "done"} for other in others):
                break
            await net.pass_time(10, step=10)
        for other in others:
            assert {p.status for p in other.store.get_packets()} == {"absent", "done"}
