"""Attacks on the Cosmos vault's wasm, each beside the honest call that it twists, and what only this family can be attacked with:
two lengths of addresses, JSON, fuel, fractions of a second, bank coins. Tokens are in `test_cosmos_tokens.py`.

Numbers are rows of incidents.md. That the same checks are missed when they are missing is shown in `test_lock_step.py`.
"""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messages.bodies import (
    COSMOS_LIMITS,
    AckStatus,
    DecideTrades,
    DecideWithdrawals,
    Execute,
    InboxBody,
    Leg,
    Reason,
    RotateOperators,
    SetCaps,
    TradeItem,
    TradePending,
    Unpause,
    WithdrawalItem,
    decode_inbox_body,
    encode_body,
)
from messages.digests import SECP256K1_N, compute_packet_digest, compute_vault_id, get_address, sign_digest
from messages.errors import Rejected
from messages.hashing import keccak256, sha256
from messages.packet import compute_commitment
from tests.contracts.attacks import flip_each_field
from tests.contracts.cosmos_harness import Reverted, encode_json, from_bech32, load_code, to_bech32
from tests.contracts.cosmos_world import CosmosWorld, encode_definition, encode_recv
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
    THRESHOLD,
    TREASURER,
    execute,
    move,
)
from tests.contracts.vault_world import HOUSE, INSURANCE, Outcome, pad

ASSET = b"\x22" * 32
CONTRACT = b"\x33" * 32  # a user that is a contract: its address has 32 bytes
DENOM = "factory/somebody/coin"
COIN = keccak256(DENOM.encode())
DEFINITION = encode_definition({name: getattr(CALL, name) for name in type(CALL).__dataclass_fields__})
EMPTY = Execute(PLAN, (), ())


def make_world(**changes: object) -> CosmosWorld:
    """Return a vault with one cw20 and one registered coin; users hold and have approved plenty."""
    arguments = {
        "operators": [get_address(k) for k in OPERATORS],
        "threshold": THRESHOLD,
        "treasurer": pad(TREASURER),
        "caps": dict.fromkeys((ASSET, COIN), (CAP, 2 * CAP, 4 * CAP)),
        "delay": DAY,
        "time": START,
        "operator_keys": OPERATORS,
        **changes,
    }
    world = CosmosWorld(**arguments)
    world.deploy_token(ASSET)
    world.add_denom(DENOM)
    world.write("register_denom", BOB, denom=DENOM)
    for owner in (ALICE, BOB, CONTRACT):
        for asset in (ASSET, COIN):
            world.fund(asset, owner, 10 * CAP)
    return world


@pytest.fixture
def world() -> CosmosWorld:
    return make_world()


def deposit(world: CosmosWorld, owner: bytes = ALICE, amount: int = 1_000, asset: bytes = ASSET) -> Outcome:
    return world.write("deposit", owner, asset=asset, amount=amount, beneficiary=owner.rjust(32, b"\0"))


def read_id(out: Outcome) -> bytes:
    assert isinstance(out.value, str)
    return bytes.fromhex(out.value)


def take(world: CosmosWorld, quantity: int = 10) -> TradeItem:
    """Let ALICE offer 100 for sale and BOB take some for as many base units."""
    if world.query("cursors")["offer_count"] == 0:
        world.write("list_series", ALICE, definition=DEFINITION)
        terms = {"side": 1, "series": CALL_ID, "asset": ASSET, "quantity": 100, "premium_per_contract": 10**8}
        world.write("offer", ALICE, **terms, valid_until=START + DAY)
    out = world.write("take", BOB, offer=1, quantity=quantity, nonce=0)
    assert isinstance(out.body, TradePending)
    return TradeItem(read_id(out), pad(BOB), 1, 0)


def request(world: CosmosWorld, owner: bytes, amount: int, asset: bytes = ASSET) -> DecideWithdrawals:
    out = world.write("request_withdrawal", owner, asset=asset, amount=amount)
    return DecideWithdrawals(PLAN, (WithdrawalItem(read_id(out), owner.rjust(32, b"\0"), asset),))


def get_position(world: CosmosWorld, account: bytes) -> int:
    return int(world.query("position", account=account, series=CALL_ID)["quantity"])


# ---- certificates ------------------------------------------------------------------------------------------------------


def _raise_s(signature: bytes) -> bytes:
    high = SECP256K1_N - int.from_bytes(signature[32:64], "big")
    return signature[:32] + high.to_bytes(32, "big") + bytes([55 - signature[64]])


def test_only_m_distinct_operators_in_order_make_a_certificate(world: CosmosWorld) -> None:
    packet = world.make_inbox_packet(EMPTY)
    good = world.sign(packet)
    (stranger,) = world.sign(packet, [STRANGER_KEY])
    (fourth,) = world.sign(packet, [OPERATORS[3]])
    twisted = [  # C10, D1, D5
        [],
        good[:2],
        [*good, fourth],
        good[::-1],
        [good[0]] * 3,
        sorted([*good[:2], stranger]),
        [good[0], good[1], stranger],
        *([*good[:i], _raise_s(good[i]), *good[i + 1 :]] for i in range(3)),
        *([*good[:2], bad] for bad in (bytes(65), b"", good[2][:64], good[2] + b"\0", good[2][:64] + b"\0")),
        good * 400,
    ]
    for signatures in twisted:
        with pytest.raises(Reverted, match="signatures"):
            world.bring(packet, signatures)
    assert world.bring(packet, good).ack.status == AckStatus.DONE


def test_an_operator_that_is_nobody_is_no_operator() -> None:  # B3
    with pytest.raises(Reverted, match="operators"):
        make_world(operators=[bytes(20), get_address(OPERATORS[0])], threshold=2)
    make_world(operators=[get_address(OPERATORS[0])], threshold=1)


def test_an_accepted_packet_is_accepted_once(world: CosmosWorld) -> None:  # C9, G5
    deposit(world)
    packet = world.make_inbox_packet(execute(*move(ASSET, pad(ALICE), pad(BOB), 5)))
    signatures = world.sign(packet)
    world.bring(packet, signatures)
    for _ in range(100):
        with pytest.raises(Reverted, match="sequence"):
            world.send(encode_recv(packet, signatures), BOB)
    assert world.get_free(pad(BOB), ASSET) == 5


def test_no_field_of_a_packet_can_be_changed_after_signing(world: CosmosWorld) -> None:  # C6, A9
    packet = world.make_inbox_packet(EMPTY)
    signatures = world.sign(packet)
    changed = [*flip_each_field(packet), replace(packet, source_client=packet.source_client + "0")]
    for other in changed:
        with pytest.raises(Reverted) as why:
            world.send(encode_recv(other, signatures), BOB)
        assert why.value.reason in {"sequence", "envelope", "timeout", "signatures"}
    world.bring(packet, signatures)


def test_a_signature_speaks_for_one_vault_one_epoch_and_one_number(world: CosmosWorld) -> None:
    packet = world.make_inbox_packet(EMPTY)
    commitment = compute_commitment(packet)
    for vault_id, epoch, sequence in (
        (bytes(32), 0, 1),
        (keccak256(b"another vault"), 0, 1),
        (compute_vault_id("cosmos:elsewhere-1", world.address), 0, 1),
        (world.vault_id, 1, 1),
        (world.vault_id, 0, 2),
    ):
        digest = compute_packet_digest(vault_id, epoch, sequence, commitment)
        with pytest.raises(Reverted, match="signatures"):
            world.bring(packet, [sign_digest(k, digest) for k in OPERATORS[:3]])
    world.bring(packet, world.sign(packet))


def test_old_operators_sign_nothing_from_the_instant_on(world: CosmosWorld) -> None:  # C6, G2
    new = (get_address(STRANGER_KEY),)
    world.recv(RotateOperators(1, 1, START + DAY, pad(TREASURER), new))
    world.set_time(START + DAY - 1)
    world.chain.nanoseconds = 999_999_999  # the last moment of the old set: seconds are truncated
    world.recv(EMPTY)
    world.set_time(START + DAY)
    world.chain.nanoseconds = 0
    packet = world.make_inbox_packet(EMPTY)
    with pytest.raises(Reverted, match="signatures"):
        world.bring(packet, world.sign(packet))
    world.epoch = 1
    with pytest.raises(Reverted, match="signatures"):
        world.bring(packet, world.sign(packet))
    world.bring(packet, world.sign(packet, [STRANGER_KEY]))


def test_a_timeout_is_past_in_the_second_it_names(world: CosmosWorld) -> None:
    packet = world.make_inbox_packet(EMPTY, timeout=START + 10)
    signatures = world.sign(packet)
    world.set_time(START + 10)
    with pytest.raises(Reverted, match="timeout"):
        world.bring(packet, signatures)
    world.set_time(START + 9)
    world.chain.nanoseconds = 999_999_999
    world.bring(packet, signatures)


def test_the_same_address_on_another_chain_is_another_vault() -> None:
    ids = {make_world(chain_id=c).vault_id for c in ("cosmoshub-4", "cosmoshub-5", "a_chain", "x" * 33)}
    assert len(ids) == 4
    # CAIP-2 takes no underscore: such a chain is named by the first 16 hex digits of the SHA-256 of its id
    name = "cosmos:hashed-" + sha256(b"a_chain")[:8].hex()
    assert compute_vault_id(name, b"\x11" * 32) in ids


# ---- money -------------------------------------------------------------------------------------------------------------


def test_no_cash_comes_out_of_nothing_and_no_cap_is_passed(world: CosmosWorld) -> None:  # A8
    deposit(world, amount=5 * CAP)
    assert world.recv(execute(Leg(0, pad(BOB), ASSET, 1))).ack.reason == Reason.SUM
    results = [world.recv(execute(*move(ASSET, pad(ALICE), pad(BOB), CAP))).ack.reason for _ in range(3)]
    assert results == [Reason.NONE, Reason.NONE, Reason.CAP]
    assert world.get_free(pad(BOB), ASSET) == 2 * CAP


def test_a_trade_settles_once_and_only_in_its_own_history(world: CosmosWorld) -> None:  # G4
    deposit(world, BOB)
    item = take(world)
    other = replace(item, id=keccak256(b"reorged away"))
    assert world.recv(DecideTrades(PLAN, 0, (other,))).ack.bitmap == 0
    assert world.recv(DecideTrades(PLAN, 0, (item, item))).ack.bitmap == 1
    assert world.recv(DecideTrades(PLAN, 0, (item,))).ack.bitmap == 0
    assert (get_position(world, pad(BOB)), get_position(world, pad(ALICE))) == (10, -10)


@pytest.mark.parametrize("asset", [ASSET, COIN], ids=["cw20", "bank coin"])
def test_a_withdrawal_is_paid_once_and_to_its_owner(world: CosmosWorld, asset: bytes) -> None:  # G5, G6
    for owner in (ALICE, BOB):
        deposit(world, owner, asset=asset)
    before = world.get_held(asset, ALICE)
    assert world.recv(request(world, ALICE, 10, asset)).ack.bitmap == 1
    world.write("claim", BOB, account=pad(ALICE), asset=asset)
    for _ in range(100):
        with pytest.raises(Reverted, match="amount"):
            world.write("claim", ALICE, account=pad(ALICE), asset=asset)
    assert world.get_held(asset) == 1_990
    assert world.get_held(asset, ALICE) == before + 10


def test_a_contract_is_an_account_like_any_other(world: CosmosWorld) -> None:
    deposit(world, CONTRACT)
    deposit(world, ALICE)
    assert world.recv(request(world, CONTRACT, 10)).ack.bitmap == 1
    world.write("claim", BOB, account=CONTRACT, asset=ASSET)
    assert world.get_free(CONTRACT, ASSET) == 990
    assert world.recv(execute(*move(ASSET, CONTRACT, pad(ALICE), 5))).ack.status == AckStatus.DONE


def test_a_long_address_that_reads_like_a_short_one_has_no_account(world: CosmosWorld) -> None:
    """32 bytes that begin with twelve zeros would be ALICE, left-padded."""
    deposit(world)
    fake = pad(ALICE)
    message = {"request_withdrawal": {"asset": ASSET.hex(), "amount": "1"}}
    info = {"sender": to_long_bech32(fake), "funds": []}
    assert from_bech32(info["sender"]) == fake
    with pytest.raises(Reverted, match="account"):
        world.chain._enter("execute", world.address, info, encode_json(message), 0)
    world.send(message, ALICE)


def to_long_bech32(address: bytes) -> str:
    """Return the text of all 32 bytes, whatever they begin with."""
    import bech32

    return str(bech32.bech32_encode("wasm", bech32.convertbits(address, 8, 5)))


def test_strangers_neither_cancel_nor_act_as_the_treasurer(world: CosmosWorld) -> None:  # C7
    deposit(world, BOB)
    take(world)
    with pytest.raises(Reverted, match="owner"):
        world.write("cancel", BOB, offer=1)
    world.write("cancel", ALICE, offer=1)
    with pytest.raises(Reverted, match="owner"):
        world.write("request_withdrawal", BOB, asset=ASSET, amount=1, for_house=True)
    world.write("request_withdrawal", TREASURER, asset=ASSET, amount=1, for_house=True)


def test_who_owes_does_not_escape(world: CosmosWorld) -> None:
    for owner in (ALICE, BOB):
        deposit(world, owner)
    item = take(world)
    world.recv(DecideTrades(PLAN, 0, (item,)))
    world.set_time(START + 31 * DAY)
    with pytest.raises(Reverted, match="positions"):
        world.write("escape", ALICE, asset=ASSET)
    world.write("escape", BOB, asset=ASSET)


@pytest.mark.parametrize("denom", ["optsettle/house", "optsettle/insurance"])
def test_no_coin_can_have_the_id_of_the_house(world: CosmosWorld, denom: str) -> None:
    assert keccak256(denom.encode()) in (HOUSE, INSURANCE)
    with pytest.raises(Reverted, match="denom"):
        world.write("register_denom", BOB, denom=denom)
    assert world.recv(SetCaps(keccak256(denom.encode()), 1, 1, 1)).ack.reason == Reason.ASSET


@pytest.mark.parametrize("denom", ["", "x" * 129, DENOM], ids=["empty", "too long", "again"])
def test_a_denom_is_registered_once_and_is_a_text_of_some_length(world: CosmosWorld, denom: str) -> None:
    with pytest.raises(Reverted):
        world.write("register_denom", BOB, denom=denom)
    world.write("register_denom", BOB, denom="x" * 128)


def test_a_token_that_is_no_contract_is_not_credited() -> None:  # B4
    ghost = pad(b"\x77" * 20)
    world = make_world(caps={ghost: (CAP, CAP, CAP)})
    with pytest.raises(Reverted, match="token"):
        deposit(world, asset=ghost)
    assert world.get_free(pad(ALICE), ghost) == 0


# ---- JSON, fuel and sizes ----------------------------------------------------------------------------------------------


def test_json_is_taken_in_one_form(world: CosmosWorld) -> None:
    good = {"request_withdrawal": {"asset": ASSET.hex(), "amount": "5", "for_house": False}}
    inner = good["request_withdrawal"]
    raw = encode_json(good)
    bad: list[bytes] = [
        encode_json({"request_withdrawal": {**inner, "extra": 1}}),
        encode_json({**good, "claim": {"account": pad(BOB).hex(), "asset": ASSET.hex()}}),
        encode_json({"request_withdrawal": {**inner, "asset": ASSET.hex().upper().replace("2", "A")}}),
        encode_json({"request_withdrawal": {**inner, "asset": "0x" + ASSET.hex()}}),
        encode_json({"request_withdrawal": {**inner, "asset": ASSET.hex()[:-2]}}),
        encode_json({"request_withdrawal": {**inner, "amount": 5}}),
        encode_json({"request_withdrawal": {**inner, "amount": "5.0"}}),
        encode_json({"request_withdrawal": {**inner, "amount": "-5"}}),
        encode_json({"request_withdrawal": {**inner, "amount": str(2**128)}}),
        encode_json({"Request_withdrawal": inner}),
        encode_json({"unknown": {}}),
        encode_json([good]),
        raw + b"x",
        raw[:-1],
        raw.replace(b'"amount":"5"', b'"amount":"5","amount":"6"'),
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"request_withdrawal":' * 1_000,
    ]
    for message in bad:
        with pytest.raises(Reverted):
            world.send(message, ALICE)
    world.send(raw, ALICE)


@pytest.mark.parametrize("size", [200_000, 2_000_000])
def test_a_huge_message_fails_and_changes_nothing(world: CosmosWorld, size: int) -> None:
    packet = world.make_inbox_packet(EMPTY)
    huge = replace(packet, payloads=(replace(packet.payloads[0], value=bytes(size)),))
    with pytest.raises(Reverted):
        world.bring(huge, world.sign(huge))
    with pytest.raises(Reverted):
        world.write("register_denom", BOB, denom="x" * size)
    world.bring(packet, world.sign(packet))


def test_the_largest_packets_fit_into_the_gas_of_a_block(world: CosmosWorld) -> None:
    """256 items, 128 legs; the SDK's gas is a 140,000th of the VM's, and blocks of such chains take tens of millions."""
    deposit(world, amount=10**6)
    trades = DecideTrades(PLAN, 0, tuple(TradeItem(keccak256(b"%d" % i), pad(BOB), i, 0) for i in range(256)))
    accounts = [i.to_bytes(32, "big") for i in range(1, 128)]
    legs = Execute(
        PLAN, (), (*(Leg(0, a, ASSET, 1) for a in accounts if a < pad(ALICE)), Leg(0, pad(ALICE), ASSET, -127))
    )
    for body in (trades, legs):
        out = world.recv(body)
        assert out.ack.status == AckStatus.DONE
        assert out.execution_gas // 140_000 < 5_000_000


def test_no_amount_of_gas_turns_an_accepted_packet_into_a_refused_one(world: CosmosWorld) -> None:
    deposit(world)
    packet = world.make_inbox_packet(execute(*move(ASSET, pad(ALICE), pad(BOB), 5)))
    message = encode_recv(packet, world.sign(packet))
    saved = world.chain._save()
    full = world.chain.execute(world.address, message, BOB).gas
    world.chain._restore(saved)
    for gas in [*range(0, full * 39 // 40, full // 40), full - 100_000, full - 5_000]:
        with pytest.raises(Reverted, match="out of gas"):
            world.send(message, BOB, gas=gas)
    assert world.send(message, BOB, gas=full).ack.status == AckStatus.DONE


SHARED: list[CosmosWorld] = []


def get_shared_world() -> CosmosWorld:
    """Return one vault for many examples; each takes back what it did."""
    if not SHARED:
        SHARED.append(make_world())
    return SHARED[0]


accounts = st.sampled_from([pad(ALICE), CONTRACT, HOUSE, bytes(32)])
legs = st.builds(
    Leg, st.integers(0, 2), accounts, st.sampled_from([ASSET, CALL_ID]), st.sampled_from([0, 1, -1, 2**96])
)
bodies: st.SearchStrategy[InboxBody] = st.one_of(
    st.lists(legs, max_size=4).map(lambda found: Execute(PLAN, (), tuple(found))),
    st.sampled_from([64, 65, 127, 128, 129]).map(lambda n: Execute(PLAN, (), (Leg(0, CONTRACT, ASSET, 1),) * n)),
    st.integers(0, 3).map(lambda n: DecideTrades(PLAN, 0, (TradeItem(PLAN, pad(BOB), 1, 0),) * n)),
    st.integers(0, 3).map(lambda n: DecideWithdrawals(PLAN, (WithdrawalItem(PLAN, pad(BOB), ASSET),) * n)),
    st.integers(0, 3).map(lambda n: RotateOperators(1, 1, START + DAY, pad(BOB), (get_address(STRANGER_KEY),) * n)),
    st.builds(SetCaps, accounts, st.just(1), st.just(2), st.just(3)),
    st.just(Unpause()),
)
NUMBERS = [0, 1, 2, 31, 32, 33, 37, 64, 96, 128, 160, 192, 255, 256, 2**64, 2**128, 2**255]


@settings(max_examples=120, deadline=None)
@given(bodies, st.data())
def test_exactly_the_canonical_values_are_taken(body: InboxBody, data: st.DataObject) -> None:
    world = get_shared_world()
    value = encode_body(body)
    if data.draw(st.booleans()):
        word = data.draw(st.integers(0, len(value) // 32 - 1)) * 32
        number = data.draw(st.sampled_from(NUMBERS))
        value = value[:word] + number.to_bytes(32, "big") + value[word + 32 :]
        value = value[: len(value) + data.draw(st.sampled_from([0, 0, 0, -32, -1]))]
    try:
        decode_inbox_body(value, COSMOS_LIMITS)
        is_canonical = True
    except Rejected:
        is_canonical = False
    packet = world.make_inbox_packet(value)
    message = encode_recv(packet, world.sign(packet))
    saved = world.chain._save()
    try:
        world.chain.execute(world.address, message)
        reason = ""
    except Reverted as why:
        reason = why.reason
    finally:
        world.chain._restore(saved)
    assert reason == ("" if is_canonical else "malformed")


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
        world.send(encode_recv(packet, [forged[i : i + 65] for i in range(0, len(forged), 65)]), BOB)


def test_a_vault_has_no_other_doors() -> None:
    code = load_code("vault")
    assert {name for name in ("instantiate", "execute", "query", "reply") if code.has_entry_point(name)} == {
        "instantiate",
        "execute",
        "query",
        "reply",
    }
    doors = ("migrate", "sudo", "ibc_channel_open", "ibc2_packet_receive", "ibc_packet_receive")
    assert not any(code.has_entry_point(name) for name in doors)


def test_an_event_carries_every_byte_of_its_packet(world: CosmosWorld) -> None:
    out = deposit(world, asset=COIN)
    assert out.packet is not None
    head = world.get_head()
    again = world.make_outbox_packet(base64.b64decode(base64.b64encode(out.packet.payloads[0].value)))
    assert again == out.packet
    assert keccak256(world.vault_id + (1).to_bytes(8, "big") + compute_commitment(again)) == head
    assert to_bech32(from_bech32(to_bech32(world.address))) == to_bech32(world.address)
