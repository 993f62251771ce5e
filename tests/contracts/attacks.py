"""Attacks on a vault: each returns when the vault withstood and raises BrokenError when it did not.

`test_attacks.py` runs each against the real bytecode, where it must return, and against the twin with the check taken out
(`twins.py`), where it must raise: an attack that cannot succeed proves nothing. Numbers are rows of incidents.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from messages.bodies import (
    DecideTrades,
    Execute,
    Leg,
    RotateOperators,
    TradeItem,
    encode_body,
)
from messages.digests import SECP256K1_N, compute_packet_digest, get_address, sign_digest
from messages.hashing import keccak256
from messages.packet import Packet, compute_commitment
from tests.contracts.harness import Contract, Reverted
from tests.contracts.setting import (
    ALICE,
    BOB,
    CALL,
    CALL_ID,
    CAP,
    DAY,
    OPERATORS,
    PLAN,
    START,
    STRANGER_KEY,
    TREASURER,
    as_arguments,
    decide_trade,
    decide_withdrawal,
    execute,
    get_token_address,
    make_scene,
    make_world,
    move,
)
from tests.contracts.twins import Twin
from tests.contracts.vault_world import Outcome, World, encode_packet, pad

Weak = Twin | None  # the vault under attack; None: the artefact

EMPTY = Execute(PLAN, (), ())


class BrokenError(AssertionError):
    """The attack succeeded. A class of its own, so that no other failed check of a test can pass for it."""


def _must_hold(holds: bool, what: str) -> None:
    if not holds:
        raise BrokenError(what)


def _must_revert(act: Callable[[], object], what: str) -> None:
    try:
        act()
    except Reverted:
        return
    raise BrokenError(what)


def attack_with_the_zero_signer(twin: Weak) -> None:
    """B3: a signature that recovers to nobody counts for an operator whose address is zero."""
    key = OPERATORS[0]
    try:
        world = make_world(operators=[bytes(20), get_address(key)], threshold=2, operator_keys=[key], twin=twin)
    except Reverted:
        return  # no vault has such an operator
    packet = world.make_inbox_packet(EMPTY)
    _must_revert(lambda: world.bring(packet, [bytes(64) + b"\x1b", *world.sign(packet, [key])]), "nobody signed")


def attack_with_a_high_s(twin: Weak) -> None:
    """C10: the second form of a good signature (n - s, other v) is accepted."""
    world = make_world(twin=twin)
    packet = world.make_inbox_packet(EMPTY)
    signatures = world.sign(packet)
    first = signatures[0]
    high = SECP256K1_N - int.from_bytes(first[32:64], "big")
    twisted = first[:32] + high.to_bytes(32, "big") + bytes([55 - first[64]])
    _must_revert(lambda: world.bring(packet, [twisted, *signatures[1:]]), "two encodings of one signature")
    world.bring(packet, signatures)  # the low form is good


def attack_by_one_operator_signing_thrice(twin: Weak) -> None:
    """D1, protocol.md 3: fewer operators than the threshold make a certificate."""
    world = make_world(twin=twin)
    packet = world.make_inbox_packet(EMPTY)
    _must_revert(lambda: world.bring(packet, world.sign(packet, [OPERATORS[0]] * 3)), "one operator is no quorum")
    _must_revert(lambda: world.bring(packet, world.sign(packet, OPERATORS[2::-1])), "signers do not ascend")


def attack_by_strangers(twin: Weak) -> None:
    """D5: signatures of keys that are no operators."""
    world = make_world(twin=twin)
    packet = world.make_inbox_packet(EMPTY)
    keys = sorted([*OPERATORS[:2], STRANGER_KEY], key=get_address)
    _must_revert(lambda: world.bring(packet, world.sign(packet, keys)), "a stranger signed")


def attack_by_replay(twin: Weak) -> None:
    """C9, G5: an accepted packet is brought again."""
    scene = make_scene(twin=twin)
    world, asset = scene.world, scene.asset
    world.write("deposit", asset, 1000, pad(ALICE), by=ALICE)
    packet = world.make_inbox_packet(execute(*move(asset, pad(ALICE), pad(BOB), 5)))
    signatures = world.sign(packet)
    world.bring(packet, signatures)
    for _ in range(100):
        _must_revert(lambda: world.send("recv", world.encode_recv(packet, signatures), BOB), "paid twice")
    _must_hold(world.vault.read("free", pad(BOB), asset) == 5, "paid twice")


def attack_with_an_old_epoch(twin: Weak) -> None:
    """C6, G2: signatures of before a rotation count after it (the epoch lies outside the signed bytes)."""
    world = make_world(twin=twin)
    operators = tuple(get_address(k) for k in OPERATORS)
    world.recv(RotateOperators(1, 3, START + DAY, pad(TREASURER), operators))
    world.set_time(START + DAY)
    packet = world.make_inbox_packet(EMPTY)
    _must_revert(lambda: world.bring(packet, world.sign(packet)), "signed in epoch 0, brought in epoch 1")
    world.epoch = 1
    world.bring(packet, world.sign(packet))


def attack_with_another_envelope(twin: Weak) -> None:
    """C6, A9: fields that the commitment does not bind are changed after signing."""
    world = make_world(twin=twin)
    packet = world.make_inbox_packet(EMPTY)
    signatures = world.sign(packet)  # neither the source client nor offsets nor the number of payloads is signed
    for changed in (
        replace(packet, source_client="vault-0000000000000000"),
        replace(packet, source_client=packet.source_client + "0"),
    ):
        data = world.vault.encode_call("recv", encode_packet(changed), b"".join(signatures))
        _must_revert(lambda data=data: world.send("recv", data, BOB), "unbound source client")
    world.bring(packet, signatures)


def attack_with_two_packets_in_one_calldata(twin: Weak) -> None:
    """A11: the packet that is hashed is not the packet that is read."""
    scene = make_scene(twin=twin)
    world, asset = scene.world, scene.asset
    world.write("deposit", asset, 1000, pad(ALICE), by=ALICE)
    good = world.make_inbox_packet(execute(*move(asset, pad(ALICE), pad(BOB), 5)))
    evil = encode_packet(world.make_inbox_packet(execute(*move(asset, pad(ALICE), pad(BOB), 500))))
    signed, signatures = encode_packet(good), b"".join(world.sign(good))
    # canonical calldata up to the evil packet; the offsets point behind it
    first = 64 + 32 + len(evil)
    second = first + 32 + len(signed)
    data = world.encode_recv(good, [])[:4] + b"".join(
        (
            first.to_bytes(32, "big"),
            second.to_bytes(32, "big"),
            len(evil).to_bytes(32, "big"),
            evil,
            len(signed).to_bytes(32, "big"),
            signed,
            len(signatures).to_bytes(32, "big"),
            signatures,
            bytes(-len(signatures) % 32),
        )
    )
    _must_revert(lambda: world.send("recv", data, BOB), "one packet hashed, another applied")


def attack_from_another_chain(twin: Weak) -> None:
    """G2: a fork with another chain id accepts the certificates of the first chain."""
    world = make_world(twin=twin)
    packet = world.make_inbox_packet(EMPTY)
    world.chain.set_chain_id(10_001)
    _must_revert(lambda: world.bring(packet, world.sign(packet)), "a certificate of chain 1 on chain 10001")
    _must_revert(lambda: world.write("pause", world.sign_pause(OPERATORS[0]), by=BOB), "a pause of chain 1")


def attack_by_creating_cash(twin: Weak) -> None:
    """A8: a certified packet whose payouts are more than its payments."""
    scene = make_scene(twin=twin)
    world, asset = scene.world, scene.asset
    world.write("deposit", asset, 1000, pad(ALICE), by=ALICE)
    world.recv(execute(Leg(0, pad(BOB), asset, 1)))
    _must_hold(world.vault.read("free", pad(BOB), asset) == 0, "cash out of nothing")


def attack_by_passing_a_cap(twin: Weak) -> None:
    """Protocol.md 4.2: a quorum gone bad moves more in an hour than the cap says."""
    scene = make_scene(twin=twin, fund=10 * CAP)
    world, asset = scene.world, scene.asset
    world.write("deposit", asset, 5 * CAP, pad(ALICE), by=ALICE)
    for _ in range(3):
        world.recv(execute(*move(asset, pad(ALICE), pad(BOB), CAP)))
    _must_hold(world.vault.read("free", pad(BOB), asset) == 2 * CAP, "more than the cap of an hour")


def _take(world: World, asset: bytes) -> Outcome:
    """Let ALICE offer 10 contracts' units for sale and BOB take them for 10 base units."""
    world.write("list_series", as_arguments(CALL), by=ALICE)
    offer = world.write("offer", 1, CALL_ID, asset, 10, 10**8, START + DAY, by=ALICE)
    return world.write("take", offer.value, 10, 0, False, by=BOB)


def attack_by_settling_a_trade_twice(twin: Weak) -> None:
    """G4: one trade named twice, in one decision and in the next."""
    scene = make_scene(twin=twin)
    world, asset = scene.world, scene.asset
    world.write("deposit", asset, 1000, pad(BOB), by=BOB)
    world.write("list_series", as_arguments(CALL), by=ALICE)
    world.write("offer", 1, CALL_ID, asset, 100, 10**8, START + DAY, by=ALICE)
    decision = decide_trade(world.write("take", 1, 10, 0, False, by=BOB))
    world.recv(DecideTrades(PLAN, 0, decision.items * 2))
    world.recv(decision)
    _must_hold(world.vault.read("position", pad(BOB), CALL_ID) == 10, "a trade settled twice")


def attack_with_a_trade_of_another_history(twin: Weak) -> None:
    """Vault.md 4: a decision names a record by its key but another history by its id."""
    scene = make_scene(twin=twin)
    world, asset = scene.world, scene.asset
    world.write("deposit", asset, 1000, pad(BOB), by=BOB)
    item = decide_trade(_take(world, asset)).items[0]
    world.recv(DecideTrades(PLAN, 0, (TradeItem(keccak256(b"reorged away"), item.taker, item.offer, item.nonce),)))
    _must_hold(world.vault.read("position", pad(BOB), CALL_ID) == 0, "an id that names nothing settled a trade")


def attack_by_claiming_again(twin: Weak) -> None:
    """G5, G6: one withdrawal is claimed a hundred times."""
    scene = make_scene(twin=twin)
    world, asset = scene.world, scene.asset
    world.write("deposit", asset, 1000, pad(ALICE), by=ALICE)
    world.write("deposit", asset, 1000, pad(BOB), by=BOB)
    world.recv(decide_withdrawal(world.write("request_withdrawal", asset, 10, False, by=ALICE)))
    world.write("claim", pad(ALICE), asset, by=BOB)
    for _ in range(100):
        _must_revert(lambda: world.write("claim", pad(ALICE), asset, by=ALICE), "claimed twice")
    _must_hold(world.get_held(asset) == 1990, "paid twice")


def attack_by_cancelling_for_another(twin: Weak) -> None:
    """C7: the maker's authorisation is looked up under somebody else."""
    scene = make_scene(twin=twin)
    world, asset = scene.world, scene.asset
    world.write("list_series", as_arguments(CALL), by=ALICE)
    world.write("offer", 0, CALL_ID, asset, 10, 10**8, START + DAY, by=ALICE)
    _must_revert(lambda: world.write("cancel", 1, by=BOB), "cancelled by a stranger")


def attack_as_the_treasurer(twin: Weak) -> None:
    """C7: anyone requests a withdrawal in the name of HOUSE."""
    scene = make_scene(twin=twin)
    _must_revert(
        lambda: scene.world.write("request_withdrawal", scene.asset, 1, True, by=BOB), "HOUSE's money asked for by BOB"
    )


def attack_with_a_token_without_code(twin: Weak) -> None:
    """B4: a deposit of a token that is not there is credited."""
    ghost = pad(b"\x77" * 20)
    world = make_world({ghost: (CAP, CAP, CAP)}, twin=twin)
    _must_revert(lambda: world.write("deposit", ghost, 1000, pad(ALICE), by=ALICE), "credited without a token")


def attack_with_a_fee_token(twin: Weak) -> None:
    """B4, C4: the amount asked for is credited instead of what arrived."""
    scene = make_scene("short", twin=twin)
    world, asset = scene.world, scene.asset
    world.tokens[asset].write("set_fee", 3, by=ALICE)
    world.write("deposit", asset, 100, pad(ALICE), by=ALICE)
    _must_hold(
        world.vault.read("free", pad(ALICE), asset) == world.get_held(asset) == 97, "credited what did not arrive"
    )


def attack_by_reentering_deposit(twin: Weak) -> None:
    """G3: a token that deposits again while the vault measures what arrived counts the inner deposit twice."""
    asset = get_token_address()
    world = make_world({asset: (CAP, CAP, CAP)}, twin=twin)
    assert world.deploy_token("reentrant") == asset
    world.fund(asset, ALICE, 1000)
    token: Contract = world.tokens[asset]
    inner = world.vault.encode_call("deposit", asset, 100, pad(BOB))
    token.write("arm", world.vault.address, inner, by=ALICE)
    # the token swallows the inner failure, so the outer deposit goes on either way
    world.vault.write("deposit", asset, 50, pad(ALICE), by=ALICE)
    assert token.read("attempts") == 1, "the token never called back"
    credited = world.vault.read("free", pad(ALICE), asset) + world.vault.read("free", pad(BOB), asset)
    _must_hold(credited <= world.get_held(asset), "credited more than is held")


def attack_by_reentering_claim(twin: Weak) -> None:
    """G3: a token that claims again inside the payment is paid twice."""
    asset = get_token_address()
    world = make_world({asset: (CAP, CAP, CAP)}, twin=twin)
    assert world.deploy_token("reentrant") == asset
    for owner in (ALICE, BOB):
        world.fund(asset, owner, 1000)
        world.write("deposit", asset, 100, pad(owner), by=owner)
    world.recv(decide_withdrawal(world.write("request_withdrawal", asset, 40, False, by=ALICE)))
    token = world.tokens[asset]
    token.write("arm", world.vault.address, world.vault.encode_call("claim", pad(ALICE), asset), by=ALICE)
    world.vault.write("claim", pad(ALICE), asset, by=ALICE)
    assert token.read("attempts") == 1, "the token never called back"
    _must_hold(world.get_held(asset) == 160, "one claim was paid twice")


def attack_with_a_value_of_two_forms(twin: Weak) -> None:
    """Protocol.md 2: a value with a gap decodes to the same body as the canonical one."""
    world = make_world(twin=twin)
    value = encode_body(EMPTY)
    words = [value[i : i + 32] for i in range(0, len(value), 32)]
    words[3] = (192).to_bytes(32, "big")  # legs one word later
    gapped = b"".join([*words[:5], bytes(32), *words[5:]])
    _must_revert(lambda: world.recv(gapped), "two encodings of one body")


def attack_by_escaping_from_debt(twin: Weak) -> None:
    """Protocol.md 4.1: somebody who owes leaves with the cash after 30 quiet days."""
    scene = make_scene(twin=twin)
    world, asset = scene.world, scene.asset
    for owner in (ALICE, BOB):
        world.write("deposit", asset, 1000, pad(owner), by=owner)
    world.recv(decide_trade(_take(world, asset)))  # ALICE is short now
    world.set_time(START + 31 * DAY)
    _must_revert(lambda: world.write("escape", asset, by=ALICE), "escaped with a negative position")
    world.write("escape", asset, by=BOB)


def flip_each_field(packet: Packet) -> list[Packet]:
    """Return the packet with each signed or compared field changed, one at a time."""
    payload = packet.payloads[0]
    texts = ("source_port", "destination_port", "version", "encoding")
    return [
        replace(packet, sequence=packet.sequence + 1),
        replace(packet, source_client="optsettle-clearing"),
        replace(packet, destination_client=packet.source_client),
        replace(packet, timeout_timestamp=packet.timeout_timestamp + 1),
        replace(packet, payloads=()),
        replace(packet, payloads=(payload, payload)),
        *(replace(packet, payloads=(replace(payload, **{name: "other"}),)) for name in texts),
        replace(packet, payloads=(replace(payload, value=payload.value[:-1] + b"\1"),)),
    ]


def attack_by_changing_a_field(twin: Weak) -> None:
    """C6: any field of a certified packet, or of the statement that was signed, is changed."""
    world = make_world(twin=twin)
    packet = world.make_inbox_packet(execute(*move(pad(b"\x55" * 20), pad(ALICE), pad(BOB), 5)))
    signatures = world.sign(packet)
    for changed in flip_each_field(packet):
        data = world.encode_recv(changed, signatures)
        _must_revert(lambda data=data: world.send("recv", data, BOB), f"accepted {changed}")
    commitment = compute_commitment(packet)
    for vault_id, epoch, sequence, signed in (
        (keccak256(b"another vault"), 0, 1, commitment),
        (world.vault_id, 1, 1, commitment),
        (world.vault_id, 0, 2, commitment),
        (world.vault_id, 0, 1, keccak256(commitment)),
    ):
        digest = compute_packet_digest(vault_id, epoch, sequence, signed)
        others = [sign_digest(k, digest) for k in OPERATORS[:3]]
        _must_revert(lambda others=others: world.bring(packet, others), "signed for something else")
    world.bring(packet, signatures)
