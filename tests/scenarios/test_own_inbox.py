"""An Ack whose transaction no node can tell: the packet it answers is known to those who certified it."""

import pytest

from chains import base
from messages.bodies import Execute
from messages.errors import Rejected, Unavailable
from messages.packet import compute_commitment
from relayer.store import PacketRecord, Store
from relayer.tasks.watch import EvidenceReader, OwnInboxReader, PeerReader
from tests.chains.harness_cosmos import CosmosHarness


async def answer_a_packet_and_bloat(harness, monkeypatch):
    """A certified packet takes effect, then nobody can read the transaction that carried it."""
    certificate = harness.certify(1, Execute(bytes(32), (), ()))
    signed = await harness.chain.submitter.prepare(certificate, [])
    await harness.chain.submitter.send(signed)
    harness.mine()
    harness.finalize()
    for endpoint in harness.network.endpoints:
        true_call = endpoint.rpc.call

        async def call(method, params, true_call=true_call):
            if method in {"tx_search", "block_results"}:
                raise Rejected("answer too large", reason="size")
            return await true_call(method, params)

        monkeypatch.setattr(endpoint.rpc, "call", call)
    trusted = (await base.advance(harness.chain, await harness.bootstrap(), harness.now())).steps[-1][1]
    return certificate.packet, trusted


async def collect(harness, store, trusted):
    own = OwnInboxReader(harness.chain.reader, store, harness.chain.vault_id)
    chain = base.Chain(**{**vars(harness.chain), "reader": own})
    return await base.collect(chain, trusted, harness.start, 1)


async def test_the_own_packets_stand_beside_an_ack_that_came_alone(tmp_path, monkeypatch):
    harness = CosmosHarness()
    packet, trusted = await answer_a_packet_and_bloat(harness, monkeypatch)
    store = Store(tmp_path / "store.db")
    try:
        with pytest.raises(Unavailable) as caught:
            await collect(harness, store, trusted)
        assert "missing_inbox" in str(caught.value)
        value, timeout = packet.payloads[0].value, packet.timeout_timestamp
        known = (
            harness.chain.vault_id,
            1,
            compute_commitment(packet),
            0,
            timeout,
            value,
            bytes([1]) * 32,
            1,
            "",
            "open",
            0,
        )
        store.record_open_packets([PacketRecord(*known)], ())
        (fact,) = (await collect(harness, store, trusted)).facts
        assert fact.inbox == packet
    finally:
        store.close()


@pytest.mark.parametrize("kind", [OwnInboxReader, PeerReader, EvidenceReader])
async def test_a_reader_round_another_lets_it_forget_what_it_read_ahead(kind, tmp_path, monkeypatch):
    harness, store = CosmosHarness(), Store(tmp_path / "store.db")
    forgotten = []
    monkeypatch.setattr(harness.chain.reader, "forget", lambda source: forgotten.append(source) or True)
    arguments = {OwnInboxReader: (store, harness.chain.vault_id), PeerReader: ({},), EvidenceReader: (None,)}
    # else a branch that ended would be its source's lie
    assert kind(harness.chain.reader, *arguments[kind]).forget("a")
    assert forgotten == ["a"]
    store.close()
