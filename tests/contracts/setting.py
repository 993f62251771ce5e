"""The small cast of the contract tests: five operators, three users, one vault with one funded token."""

from __future__ import annotations

from dataclasses import dataclass

from messages.bodies import (
    DecideTrades,
    DecideWithdrawals,
    Execute,
    Leg,
    SeriesDefinition,
    TradeItem,
    TradePending,
    WithdrawalItem,
    WithdrawalRequested,
    compute_series_id,
)
from messages.digests import get_address
from messages.hashing import keccak256
from messages.ids import encode_name
from tests.contracts.vault_world import Outcome, World, pad

START = 1_800_000_000
DAY = 86_400
CAP = 10**15
KEYS = sorted((keccak256(b"operator %d" % i) for i in range(6)), key=get_address)
OPERATORS, STRANGER_KEY = KEYS[:4], KEYS[4]
THRESHOLD = 3
ALICE, BOB, CAROL, TREASURER = (keccak256(name)[12:] for name in (b"alice", b"bob", b"carol", b"treasurer"))
PLAN = keccak256(b"plan")

CALL = SeriesDefinition(
    encode_name("ETH"),
    START + 30 * DAY,
    2_000 * 10**8,
    1,
    encode_name("USDC"),
    10**8,
    encode_name("ETH/USD index"),
    1_800,
)
CALL_ID = compute_series_id(CALL)


def as_arguments(definition: SeriesDefinition) -> tuple[object, ...]:
    """Return the tuple that list_series takes."""
    return (
        definition.underlying,
        definition.expiry,
        definition.strike_e8,
        definition.right,
        definition.quote_class,
        definition.multiplier_e8,
        definition.price_source,
        definition.twap_seconds,
    )


@dataclass
class Scene:
    """A world with its one asset."""

    world: World
    asset: bytes


def make_world(caps: dict[bytes, tuple[int, int, int]] | None = None, **changes: object) -> World:
    """Return a vault with four operators, three of whom must sign; ``changes`` are arguments of World."""
    arguments = {
        "operators": [get_address(k) for k in OPERATORS],
        "threshold": THRESHOLD,
        "treasurer": pad(TREASURER),
        "caps": caps or {},
        "delay": DAY,
        "time": START,
        "operator_keys": OPERATORS,
        **changes,
    }
    return World(**arguments)  # type: ignore[arg-type]  # the keys are World's


def get_token_address(deployer: bytes = b"\xdd" * 20, nonce: int = 1) -> bytes:
    """Return the asset id of what the deployer creates at ``nonce`` (Yellow Paper: keccak of the RLP list)."""
    body = b"\x94" + deployer + bytes([nonce or 0x80])
    return pad(keccak256(bytes([0xC0 + len(body)]) + body)[12:])


def make_scene(token: str = "", fund: int = 10**12, **changes: object) -> Scene:
    """Return a vault whose asset is ``token`` (default: the plain ERC-20), with ALICE and BOB holding ``fund`` of it."""
    asset = get_token_address()
    world = make_world({asset: (CAP, 2 * CAP, 4 * CAP)}, **changes)
    assert world.deploy_token(token) == asset
    for owner in (ALICE, BOB, CAROL, TREASURER):
        if fund:
            world.fund(asset, owner, fund)
    return Scene(world, asset)


def move(asset: bytes, source: bytes, target: bytes, amount: int) -> tuple[Leg, ...]:
    """Return the two cash legs of a payment between 32-byte accounts."""
    return tuple(sorted((Leg(0, source, asset, -amount), Leg(0, target, asset, amount)), key=get_leg_key))


def get_leg_key(leg: Leg) -> tuple[int, bytes, bytes]:
    return leg.kind, leg.account, leg.id


def execute(*legs: Leg) -> Execute:
    return Execute(PLAN, (), tuple(sorted(legs, key=get_leg_key)))


def decide_trade(out: Outcome, upto: int = 0) -> DecideTrades:
    """Return the decision that accepts the trade of a take."""
    body = out.body
    assert isinstance(body, TradePending)
    assert isinstance(out.value, bytes)
    return DecideTrades(PLAN, upto, (TradeItem(out.value, body.taker, body.offer, body.nonce),))


def decide_withdrawal(out: Outcome) -> DecideWithdrawals:
    """Return the decision that accepts a request."""
    body = out.body
    assert isinstance(body, WithdrawalRequested)
    assert isinstance(out.value, bytes)
    return DecideWithdrawals(PLAN, (WithdrawalItem(out.value, body.account, body.asset),))
