"""The vault program in LiteSVM: what it costs, what fits in one transaction, and the attacks that Solana invites."""

from __future__ import annotations

import hashlib
import struct

import pytest

pytest.importorskip("solders", reason="the Solana vault runs in LiteSVM of the package solders")

from solders.account import Account
from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM_PROGRAM
from solders.token import ID as TOKEN_PROGRAM

from contracts.solana import client as c
from messages import bodies as b
from messages.digests import get_address
from tests.contracts.solana_harness import (
    HOUSE,
    PROGRAM,
    Reverted,
    SolanaWorld,
    encode_token_account,
)

KEYS = [bytes([i + 1]) * 32 for i in range(7)]
USDC = hashlib.sha256(b"mint usdc").digest()
PLAN = b"\x01" * 32


def make_world(operators: int = 4, threshold: int = 3, users: int = 1) -> tuple[SolanaWorld, list[bytes]]:
    """Return a vault and users who each have deposited 1,000,000."""
    keys = KEYS[:operators]
    treasurer = hashlib.sha256(b"treasurer").digest()
    caps = {USDC: [10**12, 10**12, 10**12]}
    world = SolanaWorld(sorted(get_address(k) for k in keys), threshold, treasurer, caps, operator_keys=keys)
    world.deploy_token(USDC)
    accounts = [world.add_key(f"user {i}") for i in range(users)]
    for account in accounts:
        world.fund(USDC, account, 10**6)
        key = world.keys[account].pubkey()
        world.send([c.make_deposit(world.vault, key, USDC, 10**6, account)], account)
    return world, accounts


def make_execute(*legs: b.Leg) -> b.Execute:
    return b.Execute(PLAN, (), tuple(sorted(legs, key=lambda leg: (leg.kind, leg.account, leg.id))))


def make_payments(accounts: list[bytes], amount: int = 100) -> b.Execute:
    legs = [b.Leg(0, account, USDC, -amount) for account in accounts]
    return make_execute(*legs, b.Leg(0, HOUSE, USDC, amount * len(accounts)))


def test_a_certified_packet_moves_cash_and_is_acknowledged() -> None:
    world, [alice] = make_world()
    out = world.recv(make_payments([alice]))
    assert (out.ack.status, out.ack.reason, out.ack.kind) == (b.AckStatus.DONE, 0, 32)
    assert (world.get_free(alice, USDC), world.get_free(HOUSE, USDC)) == (10**6 - 100, 100)
    assert world.get_held(USDC) == 10**6


def test_a_packet_that_takes_too_much_is_refused_and_moves_nothing() -> None:
    world, [alice] = make_world()
    out = world.recv(make_payments([alice], 10**6 + 1))
    assert (out.ack.status, out.ack.reason) == (b.AckStatus.REFUSED, b.Reason.CASH)
    assert world.get_free(alice, USDC) == 10**6
    assert world.state.inbox_sequence == 1


def test_eight_legs_fit_in_one_plain_transaction_with_five_signatures() -> None:
    world, users = make_world(operators=7, threshold=5, users=7)
    out = world.recv(make_payments(users))
    assert out.ack.status == b.AckStatus.DONE
    assert out.transaction_bytes <= c.MAX_TRANSACTION_BYTES  # the harness asserts it for every call


def test_thirty_two_legs_fit_in_one_transaction_with_a_lookup_table_and_seven_signatures() -> None:
    world, users = make_world(operators=7, threshold=7, users=31)
    out = world.recv(make_payments(users))
    assert out.ack.status == b.AckStatus.DONE
    assert world.get_free(HOUSE, USDC) == 3_100
    assert out.transaction_bytes <= c.MAX_TRANSACTION_BYTES


def test_two_signatures_of_three_are_not_enough_and_a_changed_delta_is_not_signed() -> None:
    world, [alice] = make_world()
    world.open(c.get_balance_id(HOUSE, USDC))
    packet = world.make_inbox_packet(make_payments([alice]))
    signatures = world.sign(packet)
    with pytest.raises(Reverted, match="signatures"):
        world.bring(packet, signatures[:2])
    other = world.make_inbox_packet(make_payments([alice], 101))
    with pytest.raises(Reverted, match="signatures"):
        world.bring(other, signatures)
    assert world.bring(packet, signatures).ack.status == b.AckStatus.DONE
    with pytest.raises(Reverted, match="sequence"):
        world.bring(packet, signatures)


# ---- attacks ----------------------------------------------------------------------------------------------------------


def test_lamports_sent_ahead_to_the_address_of_a_record_do_not_stop_its_opening() -> None:
    world, [alice] = make_world()
    record = c.get_balance_id(HOUSE, USDC)
    world.machine.svm.set_account(world.vault.find(record), Account(1, b"", SYSTEM_PROGRAM))
    world.open(record)
    assert world.recv(make_payments([alice])).ack.status == b.AckStatus.DONE
    with pytest.raises(Reverted, match="exists"):
        world.send([c.make_open(world.vault, world.machine.payer.pubkey(), record)])


def test_records_in_another_order_are_another_packet_and_a_missing_one_forces_no_refusal() -> None:
    world, [alice] = make_world()
    world.open(c.get_balance_id(HOUSE, USDC))
    packet = world.make_inbox_packet(make_payments([alice]))
    delivery = c.make_recv(world.vault, packet, world.sign(packet), world.machine.read, world.time)
    good = delivery.instruction
    accounts = list(good.accounts)

    def send(changed: list[AccountMeta]) -> None:
        world.send([Instruction(PROGRAM, good.data, changed)])

    with pytest.raises(Reverted, match=r"signatures|record"):
        send([*accounts[:2], accounts[3], accounts[2], *accounts[4:]])
    for left_out in range(2, len(accounts)):
        with pytest.raises(Reverted, match=r"signatures|record"):
            send([a for i, a in enumerate(accounts) if i != left_out])
    stranger = AccountMeta(Pubkey.from_bytes(b"\x55" * 32), is_signer=False, is_writable=True)
    for replaced in range(2, len(accounts)):
        with pytest.raises(Reverted, match="record"):
            send([stranger if i == replaced else a for i, a in enumerate(accounts)])
    world.send([good])
    assert world.get_free(HOUSE, USDC) == 100


def test_an_opened_record_cannot_be_passed_off_as_unopened() -> None:
    world, [alice] = make_world()
    world.open(c.get_balance_id(HOUSE, USDC))
    packet = world.make_inbox_packet(make_payments([alice]))
    signatures = world.sign(packet)
    hidden = world.vault.find(c.get_balance_id(alice, USDC))

    def read(key: Pubkey) -> bytes | None:
        return None if key == hidden else world.machine.read(key)

    lying = c.make_recv(world.vault, packet, signatures, read, world.time).instruction
    with pytest.raises(Reverted, match="record"):
        world.send([lying])
    # nor by an address of the same keys with a bump below the canonical one
    seeds = [b"\x01", bytes(world.vault.state), alice, USDC]
    bump = Pubkey.find_program_address(seeds, PROGRAM)[1]
    other = Pubkey.find_program_address(seeds, PROGRAM)[0]
    while bytes(other) == bytes(hidden) or other.is_on_curve():
        bump -= 1
        preimage = b"".join(seeds) + bytes([bump]) + bytes(PROGRAM) + b"ProgramDerivedAddress"
        other = Pubkey.from_bytes(hashlib.sha256(preimage).digest())
    swapped = [
        AccountMeta(other if a.pubkey == hidden else a.pubkey, is_signer=False, is_writable=a.is_writable)
        for a in lying.accounts
    ]
    with pytest.raises(Reverted, match="record"):
        world.send([Instruction(PROGRAM, lying.data, swapped)])
    world.bring(packet, signatures)


def test_nobody_but_the_vault_can_send_its_events() -> None:
    world, _ = make_world()
    event = struct.pack("<BBQQ", c.EVENT, c.OUT, 2, world.time + 86_400) + bytes(32) + b"\x01" * 64
    accounts = [AccountMeta(world.vault.state, is_signer=False, is_writable=False)]
    with pytest.raises(Reverted, match="forged"):
        world.send([Instruction(PROGRAM, event, accounts)])
    payer = world.machine.payer.pubkey()
    with pytest.raises(Reverted, match="state"):
        world.send([Instruction(PROGRAM, event, [AccountMeta(payer, is_signer=True, is_writable=False)])])


def test_claim_pays_only_the_canonical_token_account_of_the_owner() -> None:
    world, [alice] = make_world()
    world.set_time(world.time + 31 * 86_400)
    key = world.keys[alice].pubkey()
    world.send([c.make_escape(world.vault, key, USDC)], alice)
    assert world.get_claimable(alice, USDC) == 10**6
    claim = c.make_claim(world.vault, world.machine.payer.pubkey(), alice, USDC)
    thief = hashlib.sha256(b"thief").digest()
    for owner in (thief, alice):  # another's account, and another account of the owner
        place = Pubkey.from_bytes(hashlib.sha256(b"token account" + owner).digest())
        world.machine.put(place, TOKEN_PROGRAM, encode_token_account(USDC, owner, 0))
        accounts = list(claim.accounts)
        accounts[6] = AccountMeta(place, is_signer=False, is_writable=True)
        with pytest.raises(Reverted, match="token"):
            world.send([Instruction(PROGRAM, claim.data, accounts)])
    canonical = claim.accounts[6].pubkey
    world.machine.put(canonical, TOKEN_PROGRAM, encode_token_account(USDC, thief, 0))  # given away since
    with pytest.raises(Reverted, match="token"):
        world.send([claim])
    world.machine.put(canonical, TOKEN_PROGRAM, encode_token_account(USDC, alice, 0))
    world.send([claim])
    assert (world.get_held(USDC, alice), world.get_held(USDC)) == (10**6, 0)
    with pytest.raises(Reverted, match="amount"):
        world.send([claim])


def test_a_vault_of_a_creator_cannot_be_made_by_another_nor_twice() -> None:
    world, [alice] = make_world()
    payer = world.machine.payer.pubkey()
    operators = [get_address(k) for k in KEYS[:1]]
    again = c.make_create(PROGRAM, payer, 1, "solana:x", operators, 1, alice, 0, {})
    with pytest.raises(Reverted, match="exists"):
        world.send([again])
    fresh = c.make_create(PROGRAM, payer, 2, "solana:x", operators, 1, alice, 0, {})
    accounts = list(fresh.accounts)
    accounts[2] = AccountMeta(world.keys[alice].pubkey(), is_signer=True, is_writable=True)
    with pytest.raises(Reverted, match="state"):
        world.send([Instruction(PROGRAM, fresh.data, accounts)], alice)


def test_a_record_of_another_vault_of_the_same_program_is_none_of_this_one() -> None:
    world, [alice] = make_world()
    payer = world.machine.payer.pubkey()
    world.open(c.get_balance_id(HOUSE, USDC))
    packet = world.make_inbox_packet(make_payments([alice]))
    good = c.make_recv(world.vault, packet, world.sign(packet), world.machine.read, world.time).instruction
    other = c.Vault(PROGRAM, c.find_state(PROGRAM, payer, 2))
    operators = sorted(get_address(k) for k in KEYS[:4])
    create = c.make_create(PROGRAM, payer, 2, "solana:x", operators, 3, alice, 0, {USDC: [1, 1, 1]})
    ids = [c.get_balance_id(alice, USDC), c.get_balance_id(HOUSE, USDC), c.Id(c.Tag.ASSET, USDC)]
    world.machine.svm.send_transaction(world.machine.sign([create, *(c.make_open(other, payer, i) for i in ids[:2])]))
    for record in ids:
        assert world.machine.read(other.find(record)) is not None
        swapped = [
            AccountMeta(other.find(record), is_signer=False, is_writable=a.is_writable)
            if a.pubkey == world.vault.find(record)
            else a
            for a in good.accounts
        ]
        assert swapped != good.accounts
        with pytest.raises(Reverted, match="record"):
            world.send([Instruction(PROGRAM, good.data, swapped)])
    world.send([good])
    assert world.get_free(HOUSE, USDC) == 100


def test_a_packet_that_writes_a_record_nobody_has_opened_fails_until_somebody_opens_it() -> None:
    world, [alice] = make_world()
    packet = world.make_inbox_packet(make_payments([alice]))
    signatures = world.sign(packet)
    delivery = c.make_recv(world.vault, packet, signatures, world.machine.read, world.time)
    assert delivery.to_open == (c.get_balance_id(HOUSE, USDC),)
    with pytest.raises(Reverted, match="unopened"):
        world.send([delivery.instruction])
    assert world.bring(packet, signatures).ack.status == b.AckStatus.DONE


def test_records_that_need_not_be_open_may_be_opened_where_a_transaction_would_be_too_long() -> None:
    world, _ = make_world()
    legs = [b.Leg(0, hashlib.sha256(b"account %d" % i).digest(), USDC, 2**63) for i in range(14)]
    packet = world.make_inbox_packet(make_execute(*legs))
    delivery = c.make_recv(world.vault, packet, world.sign(packet), world.machine.read, world.time)
    assert delivery.to_open == ()
    assert len(delivery.may_open) == len(legs)
    with pytest.raises(AssertionError, match="a transaction of"):
        world.send([delivery.instruction], table=[world.vault.find(record) for record in delivery.may_open])
    out = world.bring(packet, world.sign(packet))
    assert (out.ack.status, out.ack.reason) == (b.AckStatus.REFUSED, b.Reason.RANGE)
    assert out.transaction_bytes <= c.MAX_TRANSACTION_BYTES
