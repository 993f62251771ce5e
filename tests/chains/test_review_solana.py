"""Holes of the Solana family that a review looked for: what one lying endpoint, one lying operator or anybody with lamports could do."""

from __future__ import annotations

from hashlib import sha256

import pytest

from chains.solana.address import encode_key
from messages.bodies import AckStatus, Execute
from messages.errors import Unavailable
from tests.chains.solana_site import Site
from tests.chains.test_solana_submitter import read_acks

FOREVER = 2**60


@pytest.fixture
def site():
    site = Site("review")
    site.deposit(1_000_000)
    site.finalize()
    return site


def forge(site, index, method, change):
    """Let an endpoint change its answers to one method."""
    rpc = site.sim.endpoints[index].rpc
    honest = rpc.request

    async def request(asked, params):
        answer = await honest(asked, params)
        return change(answer, params) if asked == method else answer

    rpc.request = request


# ---- block hashes that never were --------------------------------------------------------------------------------------


def forge_blockhash(last_height):
    def change(answer, params):
        del params
        value = {
            "blockhash": encode_key(b"\7" * 32),
            "lastValidBlockHeight": last_height or answer["value"]["lastValidBlockHeight"],
        }
        return {**answer, "value": value}

    return change


async def deliver(site, chain, certificate, rounds=8):
    """What the submit task does with a packet, a round for each time that a block hash lasts (150 blocks of 0.4 s)."""
    sent = []
    for _ in range(rounds):
        try:
            signed = await chain.submitter.prepare(certificate, sent)
            await chain.submitter.send(signed)
            sent += [signed] if signed not in sent else []
        except Unavailable as error:
            if error.reason != "preparing":
                raise
        site.clock.advance(70)
        site.sim.tick()
        if read_acks(site):
            break
    return sent


@pytest.mark.parametrize("is_writing", [False, True])
@pytest.mark.parametrize("last_height", [FOREVER, None])
async def test_an_endpoint_that_gives_block_hashes_that_never_were_delays_a_packet_and_does_not_keep_it_out(
    site, last_height, is_writing
):
    """What is signed over such a hash never lands; whoever believes that it may for ever waits for ever."""
    forge(site, 0, "getLatestBlockhash", forge_blockhash(last_height))
    chain = site.build(site.gas_key)
    body = site.make_payout(1) if is_writing else Execute(sha256(b"a heartbeat").digest(), (), ())
    certificate = site.make_certificate(1, body, timeout=site.now() + 10_000)
    await deliver(site, chain, certificate)
    assert read_acks(site) == {1: AckStatus.DONE}
