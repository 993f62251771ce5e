"""What the submitter of a packet controls can only revert; what the committee certified is checked as written."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messages.bodies import (
    EVM_LIMITS,
    AckStatus,
    DecideWithdrawals,
    Execute,
    Leg,
    Reason,
    SetCaps,
    Unpause,
    WithdrawalItem,
    decode_inbox_body,
    encode_body,
)
from messages.digests import SECP256K1_N
from messages.errors import Rejected
from tests.contracts.harness import Contract, Reverted
from tests.contracts.setting import (
    ALICE,
    BOB,
    CAP,
    CAROL,
    DAY,
    OPERATORS,
    PLAN,
    START,
    execute,
    make_scene,
    make_world,
    move,
)
from tests.contracts.vault_world import HOUSE, World, compile_token, encode_packet, pad

EMPTY = Execute(PLAN, (), ())


def test_no_amount_of_gas_turns_an_accepted_packet_into_a_refused_one() -> None:
    scene = make_scene()
    world, asset = scene.world, scene.asset
    world.write("deposit", asset, 1000, pad(ALICE), by=ALICE)
    packet = world.make_inbox_packet(execute(*move(asset, pad(ALICE), pad(BOB), 5)))
    data = world.encode_recv(packet, world.sign(packet))
    full = world.vault.send("recv", data, BOB, keep=False).execution_gas
    # also the gas at which single precompile calls or the last write run dry
    for gas in [*range(20_000, full, full // 25), full - 3_000, full - 200, full - 1]:
        with pytest.raises(Reverted):
            world.send("recv", data, BOB, gas)
    assert world.send("recv", data, BOB, full).ack.status == AckStatus.DONE


def test_two_packets_in_one_transaction_do_not_share_their_sums() -> None:
    scene = make_scene(fund=10 * CAP)
    world, asset = scene.world, scene.asset
    world.write("deposit", asset, 5 * CAP, pad(ALICE), by=ALICE)
    abi, code = compile_token("batch")
    batch = Contract(world.chain, world.chain.deploy(world.deployer, code), abi)
    # refused for its sum, and then balanced: what the first counted must not be there for the second
    first = world.make_inbox_packet(execute(Leg(0, pad(ALICE), asset, -7)))
    second = world.make_inbox_packet(execute(*move(asset, pad(ALICE), pad(BOB), CAP)), sequence=2)
    calls = [world.encode_recv(p, world.sign(p)) for p in (first, second)]
    batch.write("call_twice", world.vault.address, *calls, by=BOB)
    assert world.vault.read("inbox_sequence") == 2
    assert world.vault.read("free", pad(BOB), asset) == CAP
    assert world.vault.read("free", pad(ALICE), asset) == 4 * CAP


def test_the_caps_of_a_packet_count_from_nothing_in_a_second_packet_of_the_same_transaction() -> None:
    scene = make_scene(fund=10 * CAP)
    world, asset = scene.world, scene.asset
    world.write("deposit", asset, 5 * CAP, pad(ALICE), by=ALICE)
    abi, code = compile_token("batch")
    batch = Contract(world.chain, world.chain.deploy(world.deployer, code), abi)
    packets = [
        world.make_inbox_packet(execute(*move(asset, pad(ALICE), pad(target), CAP)), sequence=i)
        for i, target in ((1, BOB), (2, CAROL))
    ]
    batch.write("call_twice", world.vault.address, *(world.encode_recv(p, world.sign(p)) for p in packets), by=BOB)
    assert world.vault.read("free", pad(BOB), asset) == world.vault.read("free", pad(CAROL), asset) == CAP


def test_an_empty_record_is_named_by_no_id() -> None:
    scene = make_scene()
    ack = scene.world.recv(DecideWithdrawals(PLAN, (WithdrawalItem(bytes(32), pad(ALICE), scene.asset),))).ack
    assert (ack.status, ack.bitmap) == (AckStatus.DONE, 0)


def test_a_refused_packet_is_consumed_and_says_why() -> None:
    scene = make_scene()
    out = scene.world.recv(execute(*move(scene.asset, pad(ALICE), pad(BOB), 5)))
    assert (out.ack.status, out.ack.reason) == (AckStatus.REFUSED, Reason.CASH)
    assert scene.world.vault.read("inbox_sequence") == 1


def test_a_paused_vault_still_lowers_caps_and_unpauses() -> None:
    scene = make_scene()
    world = scene.world
    world.write("pause", world.sign_pause(OPERATORS[1]), by=BOB)
    assert world.recv(EMPTY).ack.reason == Reason.PAUSED
    assert world.recv(SetCaps(scene.asset, 1, 1, 1)).ack.status == AckStatus.DONE
    assert world.vault.read("get_caps", scene.asset)[:3] == (1, 1, 1)
    assert world.recv(Unpause()).ack.status == AckStatus.DONE
    assert world.recv(EMPTY).ack.reason == Reason.PAUSED  # not before the delay
    world.set_time(START + DAY)
    assert world.recv(EMPTY).ack.status == AckStatus.DONE


def test_a_malformed_value_reverts_even_while_paused() -> None:
    world = make_world()
    world.write("pause", world.sign_pause(OPERATORS[1]), by=BOB)
    with pytest.raises(Reverted, match="malformed"):
        world.recv(encode_body(EMPTY) + bytes(32))


@pytest.mark.parametrize("signer", [CAROL, ALICE])
def test_anyone_may_bring_a_packet(signer: bytes) -> None:
    world = make_world()
    packet = world.make_inbox_packet(EMPTY)
    assert world.bring(packet, world.sign(packet), signer).ack.status == AckStatus.DONE


def test_every_kind_that_is_not_an_inbox_kind_reverts() -> None:
    world = make_world()
    for kind in (*range(32), *range(38, 256), 2**16 + 32, 2**255 + 37):
        value = kind.to_bytes(32, "big") + encode_body(EMPTY)[32:]
        packet = world.make_inbox_packet(value)
        if kind < 40 or kind > 250:  # the rest share one branch; signing them all would only cost time
            with pytest.raises(Reverted, match="malformed"):
                world.bring(packet, world.sign(packet))


def _word(number: int) -> bytes:
    return number.to_bytes(32, "big")


GOOD_R, GOOD_S = _word(7), _word(9)
BAD_SIGNATURES = {
    "all zero": bytes(65),
    "r zero": bytes(32) + GOOD_S + b"\x1b",
    "s zero": GOOD_R + bytes(32) + b"\x1b",
    "r is the order": _word(SECP256K1_N) + GOOD_S + b"\x1b",
    "r above the order": _word(2**256 - 1) + GOOD_S + b"\x1b",
    "s is the order": GOOD_R + _word(SECP256K1_N) + b"\x1b",
    "s above half the order": GOOD_R + _word(SECP256K1_N // 2 + 1) + b"\x1b",
    "r is no point": _word(5) + GOOD_S + b"\x1b",
    **{f"v is {v}": GOOD_R + GOOD_S + bytes([v]) for v in (0, 1, 26, 29, 255)},
}


@pytest.mark.parametrize("bad", BAD_SIGNATURES.values(), ids=BAD_SIGNATURES.keys())
def test_a_signature_that_nobody_made_is_no_signature(bad: bytes) -> None:
    world = get_shared_world()
    packet = world.make_inbox_packet(EMPTY)
    good = world.sign(packet)
    for place in range(3):
        signatures = [*good[:place], bad, *good[place + 1 :]]
        with pytest.raises(Reverted, match="signatures"):
            world.send("recv", world.encode_recv(packet, signatures), BOB)
    with pytest.raises(Reverted, match="signature"):
        world.write("pause", bad, by=BOB)


WORLD: list[World] = []


def get_shared_world() -> World:
    """Return one vault for many examples; each rolls back what it did."""
    if not WORLD:
        WORLD.append(make_world())
    return WORLD[0]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_signatures_with_random_bytes_are_never_a_certificate(data: st.DataObject) -> None:
    world = get_shared_world()
    packet = world.make_inbox_packet(EMPTY)
    signatures = b"".join(world.sign(packet))
    start = data.draw(st.integers(0, len(signatures) - 1))
    junk = data.draw(st.binary(min_size=1, max_size=len(signatures) - start))
    forged = signatures[:start] + junk + signatures[start + len(junk) :]
    if forged == signatures:
        return
    with pytest.raises(Reverted, match="signatures"):
        world.send("recv", world.vault.encode_call("recv", encode_packet(packet), forged), BOB)


BODIES = (
    EMPTY,
    Execute(PLAN, (), move(pad(b"\x55" * 20), pad(ALICE), pad(BOB), 5)),
    SetCaps(pad(b"\x55" * 20), 1, 2, 3),
    Unpause(),
    DecideWithdrawals(PLAN, (WithdrawalItem(PLAN, pad(ALICE), HOUSE),)),
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(BODIES), st.data())
def test_the_vault_takes_exactly_the_values_that_our_codec_takes(body: object, data: st.DataObject) -> None:
    world = get_shared_world()
    value = encode_body(body)  # type: ignore[arg-type]  # a body of BODIES
    word = data.draw(st.integers(0, len(value) // 32 - 1)) * 32
    number = data.draw(st.sampled_from([0, 1, 2, 31, 32, 33, 37, 64, 96, 128, 160, 192, 255, 256, 2**64, 2**255]))
    value = value[:word] + number.to_bytes(32, "big") + value[word + 32 :]
    value = value[: len(value) + data.draw(st.sampled_from([0, 0, 0, -32, -1]))]
    try:
        decode_inbox_body(value, EVM_LIMITS)
        is_canonical = True
    except Rejected:
        is_canonical = False
    packet = world.make_inbox_packet(value)
    call = world.encode_recv(packet, world.sign(packet))
    try:
        world.vault.send("recv", call, BOB, keep=False)
    except Reverted as why:
        reason = why.reason
    else:
        reason = ""
    # a length that is no multiple of 32 differs from the length of the packet already
    assert reason == ("" if is_canonical else "envelope" if len(value) % 32 else "malformed")
