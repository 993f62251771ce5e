"""Every word of an endpoint's answer made odd, one at a time: it ends in a refusal that names the endpoint, or changes nothing. Never in anything else."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from chains.base import Span, Unseen
from chains.registry import build_probe
from contracts.solana import client as c
from messages.errors import Rejected, RelayerError, Unavailable
from tests.chains.solana_site import DELAY_S, Site

ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**63,
    2**64,
    1.5,
    "",
    "0",
    "1" * 44,
    "\ud800",
    [],
    {},
    [None],
    {"a": 1},
    "z" * 100_000,
)


def find_places(value, path=()):
    """Paths of every word of an answer; of long lists the first and the last item."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from find_places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in sorted({0, len(value) - 1}) if value else ():
            yield from find_places(value[index], (*path, index))


def replace_at(value, path, odd):
    """The answer with an odd word; as it is where it has no such place (another page, another account)."""
    if not path:
        return odd
    changed = copy.deepcopy(value)
    holder = changed
    try:
        for key in path[:-1]:
            holder = holder[key]
        if isinstance(holder, list) and path[-1] >= len(holder):
            return value
        holder[path[-1]] = odd
    except (KeyError, IndexError, TypeError):
        return value
    return changed


def judge(error, source=None):
    """A refusal has a reason, words that can be written down, and names nobody else."""
    assert error.reason, error
    assert source is None or error.source in (source, ""), error
    str(error).encode()


class Mouth:
    """An endpoint that records its answers to one method, and then says one of them with an odd word."""

    def __init__(self, site, method):
        self.rpc = site.sim.endpoints[0].rpc
        self.method = method
        self.told = None
        self.odd = None
        self.honest = self.rpc.request
        self.rpc.request = self.request

    async def request(self, method, params):
        answer = await self.honest(method, params)
        if method != self.method:
            return answer
        self.told = self.told or answer
        return answer if self.odd is None else replace_at(answer, *self.odd)


@pytest.fixture(scope="module")
def site():
    site = Site("hostile")
    site.deposit(500, 6)
    site.finalize()
    # the records of the packet that is sent are open and its table is filled, so that everything up to the signature is asked
    asyncio.run(open_everything(site))
    site.finalize()
    return site


async def open_everything(site):
    chain = site.build(site.gas_key)
    for _ in range(8):
        try:
            return await chain.submitter.prepare(site.make_certificate(1, make_large(site)), ())
        except Unavailable:
            site.sim.mine()
    raise AssertionError("never prepared")


def make_large(site):
    return site.make_payout(16)


async def look(site, mouth):
    """What is asked of the first endpoint alone."""
    probe = build_probe(site.make_config(), site.gas_key, {site.sim.chain: site.sim})
    source = probe.sources[0]
    for work in (
        lambda: probe.verify_vault(source, DELAY_S),
        lambda: probe.get_balance(source, probe.submitter.account),
        lambda: probe.get_control(source),
    ):
        await tell(work, source)
    reader = site.build().reader
    await tell(lambda: reader.packets(source, Span(0, 2, 0, 2**40)), source)
    del mouth


async def tell(work, source):
    try:
        await work()
    except RelayerError as error:
        judge(error, source)


async def send(site, mouth):
    """What a submitter asks: the other endpoints are honest, so it gets through or waits."""
    chain = site.build(site.gas_key)
    certificate = site.make_certificate(1, make_large(site))
    try:
        signed = await chain.submitter.prepare(certificate, ())
        await chain.submitter.outcome(signed)
        await chain.submitter.prepare(certificate, (signed,))
    except RelayerError as error:
        judge(error)
    del mouth


LOOKED = (
    "getGenesisHash",
    "getMultipleAccounts",
    "getAccountInfo",
    "getBalance",
    "getSignaturesForAddress",
    "getTransaction",
)
SENT = (
    "getMultipleAccounts",
    "getLatestBlockhash",
    "getBlockHeight",
    "simulateTransaction",
    "getRecentPrioritizationFees",
    "getSignatureStatuses",
    "getSignaturesForAddress",
    "getTransaction",
)


@pytest.mark.parametrize(("ask", "method"), [*((look, m) for m in LOOKED), *((send, m) for m in SENT)])
async def test_an_odd_word_ends_in_a_refusal_of_ours_or_nowhere(site, ask, method):
    mouth = Mouth(site, method)
    try:
        await ask(site, mouth)
        places = list(find_places(mouth.told))
        assert len(places) > (0 if not isinstance(mouth.told, dict | list) else 1)
        for number, path in enumerate(places):
            # each place with a few of the odd words, all words in turn
            for odd in ODD[number % 5 :: 5] if len(places) > 3 else ODD:
                mouth.odd = path, odd
                await ask(site, mouth)
    finally:
        mouth.rpc.request = mouth.honest


@pytest.mark.parametrize("method", ["getGenesisHash", "getMultipleAccounts"])
async def test_an_odd_word_of_one_endpoint_does_not_change_what_an_operator_says(site, method):
    honest = await site.build().observer.observe(site.now())
    mouth = Mouth(site, method)
    try:
        await site.build().observer.observe(site.now())
        for path in find_places(mouth.told):
            for odd in ODD:
                mouth.odd = path, odd
                try:
                    seen = await site.build().observer.observe(site.now())
                except Unseen as error:  # one endpoint of four never silences an operator
                    raise AssertionError(path, odd) from error
                assert (seen.sequence, seen.head, seen.time) == (honest.sequence, honest.head, honest.time)
    finally:
        mouth.rpc.request = mouth.honest


def test_bytes_of_accounts_that_the_program_never_wrote_are_refused():
    """What is behind base64: any length and any bytes end in a refusal of ours."""
    for size in (0, 1, 7, 8, 40, 1_079, 1_080, 1_081, 100_000):
        for fill in (b"\0", b"\xff"):
            for data in (fill * size, (c.STATE_MAGIC + fill * size)[:size]):
                if size == c.STATE_BYTES and data[:8] == c.STATE_MAGIC and fill == b"\0":
                    assert c.decode_state(data).outbox_sequence == 0  # its vault id is that of nobody
                    continue
                with pytest.raises(Rejected) as caught:
                    c.decode_state(data)
                assert caught.value.reason == "bad_state"
