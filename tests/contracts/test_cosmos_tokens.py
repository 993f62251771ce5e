"""cw20 tokens that take a fee, give too much, burn, refuse, stay silent or call back, on the committed wasm: what counts is the
difference of the vault's balance, and nothing enters the vault while a token runs.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest

from messages.bodies import Claimed, DecideWithdrawals, Deposited, Execute, Leg, WithdrawalItem
from messages.digests import get_address
from messages.hashing import keccak256
from messages.ids import HOUSE
from tests.contracts.cosmos_harness import Reverted, encode_json, load_code, to_bech32
from tests.contracts.cosmos_world import CosmosWorld, encode_recv

KEYS = sorted((keccak256(b"cosmos token operator %d" % i) for i in range(4)), key=get_address)
TOKEN = b"\x22" * 32
ALICE, BOB = b"\x0a" * 20, b"\x0b" * 20
CAPS = (10**9, 10**9, 10**9)
DENOM = "utoken"


def pad(address: bytes) -> bytes:
    return address.rjust(32, b"\0")


class Scene:
    """A vault with one token that behaves as it is told, and a bank coin."""

    def __init__(self) -> None:
        operators = [get_address(key) for key in KEYS]
        caps = {TOKEN: CAPS, keccak256(DENOM.encode()): CAPS}
        self.world = world = CosmosWorld(operators, 3, pad(ALICE), caps, operator_keys=KEYS)
        self.coin = world.add_denom(DENOM)
        world.write("register_denom", BOB, denom=DENOM)
        world.chain.deploy(load_code("hostile"), {"behaviour": {}}, BOB, TOKEN)
        for owner in (ALICE, BOB, TOKEN):
            mint = {"mint": {"recipient": to_bech32(owner), "amount": "1000"}}
            world.chain.execute(TOKEN, mint, owner)
            world.fund(self.coin, owner, 1000)

    def behave(self, **behaviour: Any) -> None:
        self.world.chain.execute(TOKEN, {"set": {"behaviour": behaviour}}, BOB)

    def call_back(self, message: Mapping[str, Any], *, catches: bool = False) -> None:
        """Let the token call the vault at the end of its next transfers."""
        msg = base64.b64encode(encode_json(message)).decode()
        call = {"contract": to_bech32(self.world.address), "msg": msg, "catches": catches}
        self.behave(calls=call)

    def deposit(self, owner: bytes = ALICE, amount: int = 100) -> object:
        return self.world.write("deposit", owner, asset=TOKEN, amount=amount, beneficiary=pad(owner)).body

    def withdraw(self, owner: bytes, amount: int) -> None:
        out = self.world.write("request_withdrawal", owner, asset=TOKEN, amount=amount)
        item = WithdrawalItem(bytes.fromhex(str(out.value)), pad(owner), TOKEN)
        assert self.world.recv(DecideWithdrawals(bytes(32), (item,))).ack.bitmap == 1

    def claim(self, owner: bytes = ALICE) -> object:
        return self.world.write("claim", BOB, asset=TOKEN, account=pad(owner)).body

    def get_all(self) -> tuple[int, int, int]:
        """Return what the vault holds, owes to Alice as free and owes her as claimable."""
        world = self.world
        return world.get_held(TOKEN), world.get_free(pad(ALICE), TOKEN), world.get_claimable(pad(ALICE), TOKEN)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_token_that_behaves_comes_in_and_goes_out(scene: Scene) -> None:
    assert scene.deposit() == Deposited(pad(ALICE), TOKEN, 100)
    scene.withdraw(ALICE, 30)
    assert scene.get_all() == (100, 70, 30)
    assert scene.claim() == Claimed(pad(ALICE), TOKEN, 30)
    assert scene.get_all() == (70, 70, 0)
    assert scene.world.get_held(TOKEN, ALICE) == 930


@pytest.mark.parametrize(("behaviour", "arrived"), [({"fee": "3"}, 97), ({"bonus": "5"}, 105)])
def test_what_arrives_is_credited_whatever_was_named(scene: Scene, behaviour: dict[str, str], arrived: int) -> None:
    scene.behave(**behaviour)
    assert scene.deposit() == Deposited(pad(ALICE), TOKEN, arrived)
    assert scene.get_all() == (arrived, arrived, 0)


@pytest.mark.parametrize(
    ("behaviour", "word"),
    [({"fee": "100"}, "amount"), ({"burns": True}, "amount"), ({"fails": True}, "kind"), ({"mute": True}, "token")],
)
def test_a_token_that_delivers_nothing_takes_refuses_or_says_nothing_reverts(
    scene: Scene, behaviour: dict[str, Any], word: str
) -> None:
    scene.deposit()
    before = scene.get_all()
    scene.behave(**behaviour)
    with pytest.raises(Reverted) as caught:
        scene.deposit(amount=50)
    assert caught.value.reason == word
    scene.behave()
    assert scene.get_all() == before
    scene.deposit(amount=50)
    assert scene.get_all() == (150, 150, 0)


def test_a_token_that_does_not_pay_blocks_its_own_claim_and_nothing_else(scene: Scene) -> None:
    scene.deposit()
    scene.withdraw(ALICE, 40)
    scene.behave(fails=True)
    with pytest.raises(Reverted):
        scene.claim()
    assert scene.get_all() == (100, 60, 40)
    legs = sorted((Leg(0, pad(ALICE), TOKEN, -10), Leg(0, pad(BOB), TOKEN, 10)), key=lambda leg: leg.account)
    assert scene.world.recv(Execute(bytes(32), (), tuple(legs))).ack.status == 1  # settlement calls no token
    scene.world.write("deposit", ALICE, asset=scene.coin, amount=5, beneficiary=pad(ALICE))
    scene.behave()
    scene.claim()
    assert scene.get_all() == (60, 50, 0)


def _make_calls(scene: Scene) -> dict[str, dict[str, Any]]:
    """Return every call that somebody could slip in, as the token's own or as anybody's."""
    world = scene.world
    packet = world.make_inbox_packet(Execute(bytes(32), (), ()))
    definition = {
        "underlying": "11" * 32,
        "expiry": world.time + 1000,
        "strike_e8": "1",
        "right": 0,
        "quote_class": "22" * 32,
        "multiplier_e8": "1",
        "price_source": "33" * 32,
        "twap_seconds": 1,
    }
    asset, account = TOKEN.hex(), pad(ALICE).hex()
    return {
        "deposit": {"deposit": {"asset": asset, "amount": "7", "beneficiary": account}},
        "claim": {"claim": {"account": account, "asset": asset}},
        "request": {"request_withdrawal": {"asset": asset, "amount": "1"}},
        "escape": {"escape": {"asset": asset}},
        "link": {"link": {"portfolio": account, "valid_until": 1, "signature": "00" * 65}},
        "list": {"list_series": {"definition": definition}},
        "register": {"register_denom": {"denom": "other"}},
        "recv": encode_recv(packet, world.sign(packet)),
    }


CALLS = ("deposit", "claim", "request", "escape", "link", "list", "register", "recv")


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("inside", ["deposit", "claim"])
def test_nothing_enters_while_a_token_is_called(scene: Scene, inside: str, name: str) -> None:
    scene.deposit()
    scene.withdraw(ALICE, 40)
    before = scene.get_all()
    run = scene.deposit if inside == "deposit" else scene.claim

    scene.call_back(_make_calls(scene)[name])
    with pytest.raises(Reverted, match="locked"):
        run()
    assert scene.get_all() == before

    scene.call_back(
        _make_calls(scene)[name], catches=True
    )  # it swallows the refusal: then only its own transfer counts
    run()
    assert scene.get_all() == ((200, 160, 40) if inside == "deposit" else (60, 60, 0))
    assert scene.world.inbox_sequence == scene.world.query("cursors")["inbox_sequence"]


@pytest.mark.parametrize("name", ["deposit", "link", "list", "register", "recv", "request"])
def test_the_same_calls_are_taken_when_no_token_runs(scene: Scene, name: str) -> None:
    scene.world.chain.execute(scene.world.address, _make_calls(scene)[name], TOKEN)


def test_the_lock_is_gone_after_every_transaction(scene: Scene) -> None:
    def get_lock() -> bytes | None:
        return scene.world.chain.stores[scene.world.address].get(b"\x05")

    scene.deposit()
    assert get_lock() is None
    scene.withdraw(ALICE, 40)
    scene.claim()
    assert get_lock() is None
    scene.behave(fails=True)
    with pytest.raises(Reverted):
        scene.deposit()
    assert get_lock() is None


def test_an_answer_that_nobody_waits_for_is_refused(scene: Scene) -> None:
    for number in (1, 2, 3):
        answer: dict[str, Any] = {
            "id": number,
            "payload": "",
            "gas_used": 0,
            "result": {"ok": {"events": [], "data": None, "msg_responses": []}},
        }
        with pytest.raises(Reverted, match="reply"):
            scene.world.chain.reply(scene.world.address, answer)


def test_tokens_sent_unasked_are_nobodys(scene: Scene) -> None:
    send = {"transfer": {"recipient": to_bech32(scene.world.address), "amount": "9"}}
    scene.world.chain.execute(TOKEN, send, ALICE)
    scene.deposit()
    assert scene.get_all() == (109, 100, 0)


def test_a_cw20_send_hook_is_no_deposit(scene: Scene) -> None:
    hook = {"receive": {"sender": to_bech32(ALICE), "amount": "9", "msg": ""}}
    run = {"run": {"contract": to_bech32(scene.world.address), "msg": base64.b64encode(encode_json(hook)).decode()}}
    with pytest.raises(Reverted, match="unknown variant"):
        scene.world.chain.execute(TOKEN, run, ALICE)


@pytest.mark.parametrize("funds", [[], [(DENOM, 4)], [(DENOM, 6)], [("other", 5)], [("other", 1), (DENOM, 5)]])
def test_a_coin_deposit_brings_its_coin_and_no_other(scene: Scene, funds: list[tuple[str, int]]) -> None:
    world = scene.world
    world.chain.mint(ALICE, "other", 10)
    with pytest.raises(Reverted, match="funds"):
        world.write("deposit", ALICE, sorted(funds), asset=scene.coin, amount=5, beneficiary=pad(ALICE))
    world.write("deposit", ALICE, [(DENOM, 5)], asset=scene.coin, amount=5, beneficiary=HOUSE)
    assert (world.get_held(scene.coin), world.get_free(HOUSE, scene.coin)) == (5, 5)


@pytest.mark.parametrize("name", CALLS)
def test_no_other_call_takes_coins(scene: Scene, name: str) -> None:
    with pytest.raises(Reverted, match="funds"):
        scene.world.chain.execute(scene.world.address, _make_calls(scene)[name], ALICE, [(DENOM, 1)])


def test_the_vaults_json_is_read_strictly(scene: Scene) -> None:
    good = json.dumps({"escape": {"asset": TOKEN.hex()}})
    for bad in (
        good.replace("22", "2G", 1),
        good.replace('"asset"', '"more": 1, "asset"'),
        good.replace('"asset"', '"asset": "' + "00" * 32 + '", "asset"'),
        good + " {}",
        good.replace("escape", "migrate"),
    ):
        with pytest.raises(Reverted, match="Serialization"):
            scene.world.chain.execute(scene.world.address, bad.encode(), ALICE)
    with pytest.raises(Reverted, match="early"):
        scene.world.chain.execute(scene.world.address, good.encode(), ALICE)
