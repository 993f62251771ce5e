"""Tokens that lie, stay silent, take a fee, call back or refuse: what counts is the difference of the vault's balance."""

from __future__ import annotations

from dataclasses import replace

import pytest

from messages.bodies import Deposited
from tests.contracts.harness import Reverted
from tests.contracts.setting import (
    ALICE,
    BOB,
    CALL,
    CALL_ID,
    CAP,
    DAY,
    START,
    Scene,
    as_arguments,
    decide_withdrawal,
    execute,
    get_token_address,
    make_scene,
    make_world,
    move,
)
from tests.contracts.vault_world import HOUSE, INSURANCE, pad


def deposit(scene: Scene, owner: bytes, amount: int) -> object:
    return scene.world.write("deposit", scene.asset, amount, pad(owner), by=owner).body


def withdraw(scene: Scene, owner: bytes, amount: int) -> None:
    request = scene.world.write("request_withdrawal", scene.asset, amount, False, by=owner)
    scene.world.recv(decide_withdrawal(request))


@pytest.mark.parametrize("token", ["", "silent", "odd", "short"])
def test_tokens_that_deliver_are_taken_in_and_paid_out(token: str) -> None:
    scene = make_scene(token)
    assert deposit(scene, ALICE, 100) == Deposited(pad(ALICE), scene.asset, 100)
    withdraw(scene, ALICE, 30)
    scene.world.write("claim", pad(ALICE), scene.asset, by=BOB)
    assert scene.world.get_held(scene.asset) == 70
    assert scene.world.tokens[scene.asset].read("balanceOf", ALICE) == 10**12 - 70


@pytest.mark.parametrize("beneficiary", [HOUSE, INSURANCE, pad(BOB)], ids=["house", "insurance", "somebody else"])
def test_a_deposit_is_credited_to_whom_the_caller_names(beneficiary: bytes) -> None:
    scene = make_scene()
    scene.world.write("deposit", scene.asset, 5, beneficiary, by=ALICE)
    assert scene.world.vault.read("free", beneficiary, scene.asset) == 5
    assert scene.world.vault.read("free", pad(ALICE), scene.asset) == 0


def test_a_token_that_answers_false_is_neither_credited_nor_paid() -> None:
    scene = make_scene("odd")
    deposit(scene, ALICE, 100)
    withdraw(scene, ALICE, 40)
    token = scene.world.tokens[scene.asset]
    token.write("set_answer", False, by=ALICE)
    with pytest.raises(Reverted, match="transfer"):
        deposit(scene, ALICE, 100)
    with pytest.raises(Reverted, match="transfer"):
        scene.world.write("claim", pad(ALICE), scene.asset, by=ALICE)
    assert scene.world.vault.read("claimable", pad(ALICE), scene.asset) == 40
    token.write("set_answer", True, by=ALICE)
    scene.world.write("claim", pad(ALICE), scene.asset, by=ALICE)
    assert scene.world.vault.read("claimable", pad(ALICE), scene.asset) == 0


def test_a_fee_on_transfer_is_not_credited() -> None:
    scene = make_scene("short")
    scene.world.tokens[scene.asset].write("set_fee", 3, by=ALICE)
    assert deposit(scene, ALICE, 100) == Deposited(pad(ALICE), scene.asset, 97)


def test_a_transfer_that_delivers_nothing_reverts() -> None:
    scene = make_scene("short")
    scene.world.tokens[scene.asset].write("set_fee", 100, by=ALICE)
    with pytest.raises(Reverted, match="amount"):
        deposit(scene, ALICE, 100)


def test_a_token_that_takes_instead_of_giving_reverts() -> None:
    scene = make_scene("odd")
    deposit(scene, ALICE, 100)
    scene.world.tokens[scene.asset].write("set_greedy", True, by=ALICE)
    with pytest.raises(Reverted):
        deposit(scene, ALICE, 50)
    assert scene.world.get_held(scene.asset) == scene.world.vault.read("free", pad(ALICE), scene.asset) == 100


def test_a_blacklisted_owner_blocks_only_its_own_claim() -> None:
    scene = make_scene("odd")
    for owner in (ALICE, BOB):
        deposit(scene, owner, 100)
        withdraw(scene, owner, 40)
    scene.world.tokens[scene.asset].write("block_account", ALICE, True, by=BOB)
    with pytest.raises(Reverted, match="blocked"):
        scene.world.write("claim", pad(ALICE), scene.asset, by=BOB)
    scene.world.write("claim", pad(BOB), scene.asset, by=BOB)
    scene.world.recv(execute(*move(scene.asset, pad(ALICE), pad(BOB), 60)))  # settlement needs no token call
    assert scene.world.vault.read("free", pad(BOB), scene.asset) == 120
    scene.world.tokens[scene.asset].write("block_account", ALICE, False, by=BOB)
    scene.world.write("claim", pad(ALICE), scene.asset, by=BOB)
    assert scene.world.get_held(scene.asset) == 120


@pytest.mark.parametrize("ghost", [b"\x77" * 20, b"\0" * 19 + b"\x04"], ids=["no code", "a precompile"])
def test_a_token_without_code_is_refused(ghost: bytes) -> None:
    world = make_world({pad(ghost): (CAP, CAP, CAP)})
    with pytest.raises(Reverted):
        world.write("deposit", pad(ghost), 1000, pad(ALICE), by=ALICE)


@pytest.mark.parametrize("asset", [bytes(32), HOUSE, b"\1" * 32], ids=["zero", "house", "not an address"])
def test_what_is_no_asset_is_refused(asset: bytes) -> None:
    with pytest.raises(Reverted, match="asset"):
        make_world({asset: (CAP, CAP, CAP)})
    with pytest.raises(Reverted, match="asset"):
        make_world().write("deposit", asset, 1000, pad(ALICE), by=ALICE)


def prepare_call_back(name: str) -> tuple[Scene, bytes]:
    """Return a vault with a calling-back token for which ALICE has cash and a claim, and calldata that the token may send."""
    asset = get_token_address()
    world = make_world({asset: (CAP, CAP, CAP)})
    assert world.deploy_token("reentrant") == asset
    scene = Scene(world, asset)
    world.fund(asset, ALICE, 10**6)
    deposit(scene, ALICE, 1000)
    world.write("deposit", asset, 500, asset, by=ALICE)  # for the token's own account, whose id is the asset's
    world.write("list_series", as_arguments(CALL), by=BOB)
    world.write("offer", 0, CALL_ID, asset, 10, 10**8, START + 40 * DAY, by=ALICE)
    withdraw(scene, ALICE, 10)
    if name == "escape":
        world.set_time(START + 31 * DAY)
    packet = world.make_inbox_packet(execute())
    call = world.vault.encode_call
    other = as_arguments(replace(CALL, right=0))
    calls = {
        "recv": world.encode_recv(packet, world.sign(packet)),
        "deposit": call("deposit", asset, 10, pad(BOB)),
        "claim": call("claim", pad(ALICE), asset),
        "link": call("link", pad(BOB), 0, bytes(65)),
        "list_series": call("list_series", other),
        "offer": call("offer", 0, CALL_ID, asset, 1, 1, START + DAY),
        "take": call("take", 1, 1, 0, False),
        "request_withdrawal": call("request_withdrawal", asset, 1, False),
        "pause": call("pause", world.sign_pause(world.operator_keys[0])),
        "escape": call("escape", asset),
    }
    return scene, calls[name]


CALLS = ["recv", "deposit", "claim", "link", "list_series", "offer", "take", "request_withdrawal", "pause", "escape"]


@pytest.mark.parametrize("inside", ["deposit", "claim", ""])
@pytest.mark.parametrize("name", CALLS)
def test_a_token_that_calls_back_can_do_nothing_inside_and_anything_outside(name: str, inside: str) -> None:
    scene, data = prepare_call_back(name)
    world, token = scene.world, scene.world.tokens[scene.asset]
    token.write("arm", world.vault.address, data, by=BOB)
    if inside == "deposit":
        deposit(scene, ALICE, 20)
    elif inside == "claim":
        world.write("claim", pad(ALICE), scene.asset, by=BOB)
    else:
        token.write("transfer", BOB, 1, by=ALICE)
    assert (token.read("attempts"), token.read("succeeded")) == (1, 0 if inside else 1)
