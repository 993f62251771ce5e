"""What a person learns of a vault and its program before trusting them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from solders.account import Account
from solders.pubkey import Pubkey

from chains.registry import build_probe
from chains.solana.address import encode_key
from chains.solana.probe import FIXED_LOADER, UPGRADEABLE_LOADER
from contracts.solana import get_program
from messages.digests import compute_pause_digest, sign_digest
from messages.errors import Rejected, Unavailable
from tests.chains.solana_site import DELAY_S, KEYS, OPERATORS, Site

ADDRESS = Pubkey.from_bytes(bytes([8]) * 32)


@pytest.fixture
def site():
    site = Site("probe")
    site.finalize()
    return site


def build(site, key=None, **changes):
    config = replace(site.make_config(), **changes)
    return build_probe(config, key, {config.chain_id: site.sim})


def install(site, data, authority=None, *, owner=UPGRADEABLE_LOADER, tag=3):
    """Put the program there as a deployment with the upgradeable loader leaves it."""
    option = b"\0" + bytes(32) if authority is None else b"\1" + authority
    header = tag.to_bytes(4, "little") + (5).to_bytes(8, "little") + option
    loader = Pubkey.from_bytes(UPGRADEABLE_LOADER)
    put(site, ADDRESS, Account(10**9, header + data, Pubkey.from_bytes(owner)))
    program = (2).to_bytes(4, "little") + bytes(ADDRESS)
    put(site, site.sim.program, Account(10**9, program, loader, executable=True))


def put(site, key, account):
    """Show an account as if it had been there since the first slot; nothing runs it."""
    site.sim.bank.ledger.versions.pop(key, None)
    site.sim.bank.ledger.record_account(key, 0, account)


async def get_reason(probe):
    with pytest.raises((Rejected, Unavailable)) as caught:
        await probe.verify_vault(probe.sources[0], DELAY_S)
    return caught.value.reason


async def test_the_built_program_without_upgrade_authority_is_good(site):
    probe = build(site)
    source = probe.sources[0]
    assert "no upgrade authority" in await probe.verify_vault(source, DELAY_S)
    assert probe.vault_text == encode_key(site.state)
    await probe.verify_chain_id(source)
    slot, time = await probe.get_newest(source)
    assert slot > 0
    assert abs(time - site.now()) <= 2
    assert await probe.get_finality_time(source) < time
    assert await probe.get_checkpoint_time(source, site.now()) == await probe.get_finality_time(source)
    await probe.close()


async def test_another_program_or_one_that_can_be_replaced_is_told(site):
    probe, built = build(site), get_program("vault")
    install(site, built + bytes(1_000))
    assert "no upgrade authority" in await probe.verify_vault(probe.sources[0], DELAY_S)
    install(site, built, authority=bytes([3]) * 32)
    assert await get_reason(probe) == "wrong_code"
    install(site, built[:-1] + bytes([built[-1] ^ 1]))
    assert await get_reason(probe) == "wrong_code"
    install(site, built + b"\1")
    assert await get_reason(probe) == "wrong_code"
    install(site, built[:-1])
    assert await get_reason(probe) == "wrong_code"
    install(site, built, tag=1)
    assert await get_reason(probe) == "no_code"
    install(site, built, owner=bytes([3]) * 32)
    assert await get_reason(probe) == "no_code"
    put(site, site.sim.program, Account(1, built, Pubkey.from_bytes(bytes([3]) * 32), executable=True))
    assert await get_reason(probe) == "wrong_code"
    put(site, site.sim.program, Account(1, built, Pubkey.from_bytes(FIXED_LOADER), executable=True))
    assert "no upgrade authority" in await probe.verify_vault(probe.sources[0], DELAY_S)


async def test_a_vault_that_is_not_there_or_another_is_told(site):
    probe = build(site)
    with pytest.raises(Rejected) as caught:
        await probe.verify_vault(probe.sources[0], DELAY_S + 1)
    assert caught.value.reason == "wrong_immutables"
    empty = build(site, vault_account=bytes([4]) * 32)
    assert await get_reason(empty) == "no_code"
    site.lies[0].other_owner = True
    assert await get_reason(probe) == "wrong_owner"
    site.lies[0].other_owner = False
    site.lies[0].genesis_hash = "4uhcVJyU9pJkvQyS88uRDiswHXSCkY3zQawwpjk2NsNY"
    with pytest.raises(Rejected) as caught:
        await probe.verify_chain_id(probe.sources[0])
    assert caught.value.reason == "wrong_chain_id"


async def test_control_and_balance_are_what_the_chain_has(site):
    probe = build(site, site.gas_key)
    control = await probe.get_control(probe.sources[0])
    assert (control.operators, control.threshold, control.epoch) == (OPERATORS, 3, 0)
    assert not control.paused
    assert not control.pending_at
    account = probe.submitter.account
    assert await probe.get_balance(probe.sources[0], account) == site.sim.get_balance(Pubkey.from_string(account)) > 0
    assert await probe.get_balance(probe.sources[0], encode_key(bytes([9]) * 32)) == 0
    assert (probe.coin.name, probe.coin.decimals) == ("SOL", 9)
    assert 0 < probe.coin.low < 10**9


async def test_one_operators_pause_stops_the_vault(site):
    signature = sign_digest(KEYS[0], compute_pause_digest(site.chain.vault_id, 0))
    with pytest.raises(Rejected) as caught:
        await build(site).prepare_pause(signature)
    assert caught.value.reason == "no_submit_key"
    probe = build(site, site.gas_key)
    with pytest.raises(Rejected) as caught:
        await probe.prepare_pause(sign_digest(KEYS[0], compute_pause_digest(site.chain.vault_id, 1)))
    assert caught.value.reason.startswith("revert_")
    signed = await probe.prepare_pause(signature)
    await probe.submitter.send(signed)
    site.sim.mine()
    assert (await probe.get_control(probe.sources[0])).paused
