"""Step 7 of a plan: units become packets by the family's limits and caps, each balanced by HOUSE (protocol.md 7.6, 7.7)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from messages.bodies import (
    WIDEST_LIMITS,
    DecideTrades,
    DecideWithdrawals,
    Execute,
    InboxBody,
    Leg,
    LegKind,
    RotateOperators,
    SeriesPrice,
    SetCaps,
    Unpause,
    decode_inbox_body,
    encode_body,
)
from messages.documents import PlannedPacket
from messages.errors import Rejected
from messages.ids import HOUSE, ZERO32
from relayer.rules.ledger import Caps, VaultState
from relayer.rules.plan_context import SYSTEM, Context, LegKey, Unit
from relayer.rules.plan_requests import Decisions

MAX_EXECUTES: Final = 6
"""Execute packets of one plan for one vault: a carrier has one timeout to bring them all, one after the other (decision 0016)."""

LEG_RANGES: Final = {"solana": 2**63}
"""|delta| of a leg is below this; 2^96 elsewhere (protocol.md 4)."""

CONTROL: Final = "control"
TRADES: Final = "trades"
WITHDRAWALS: Final = "withdrawals"
HEARTBEAT: Final = "heartbeat"


class _Draft:
    """One Execute packet while it is filled."""

    def __init__(self, context: Context, vault_id: bytes) -> None:
        self.context = context
        self.vault_id = vault_id
        self.limit = context.get_leg_limit(vault_id)
        self.range = LEG_RANGES.get(context.get_family(vault_id).family, 2**96)
        self.legs: dict[LegKey, int] = {}
        self.prices: dict[bytes, int] = {}
        self.purposes: set[str] = set()

    def try_add(self, unit: Unit) -> bool:
        """Add a unit if the packet stays within leg limit and the cap per packet; change nothing otherwise."""
        legs = dict(self.legs)
        for key, delta in unit.legs.items():
            legs[key] = legs.get(key, 0) + delta
        prices = {**self.prices, **unit.prices}
        balanced = get_balanced(legs)
        if len(balanced) > self.limit or len(prices) > self.limit or not self._is_under_caps(legs):
            return False
        # The house's leg is a sum: it must stay a number the vault can hold, whatever the single legs are.
        if any(abs(delta) >= self.range for _, delta in balanced):
            return False
        self.legs, self.prices = legs, prices
        self.purposes.add(unit.purpose)
        return True

    def _is_under_caps(self, legs: dict[LegKey, int]) -> bool:
        debits: dict[bytes, int] = {}
        for (kind, account, asset), delta in legs.items():
            if kind == LegKind.CASH and delta < 0 and account not in SYSTEM:
                debits[asset] = debits.get(asset, 0) - delta
        caps = self.context.ledger.states[self.vault_id].caps
        return all(asset in caps and amount <= caps[asset].per_packet for asset, amount in debits.items())

    def get_body(self) -> Execute:
        """Return the body: legs with the house's against them, ascending, prices ascending."""
        legs = tuple(Leg(kind, account, item, delta) for (kind, account, item), delta in get_balanced(self.legs))
        return Execute(ZERO32, tuple(SeriesPrice(s, p) for s, p in sorted(self.prices.items())), legs)


def get_balanced(legs: dict[LegKey, int]) -> list[tuple[LegKey, int]]:
    """Return the legs that are not 0 and those of HOUSE that make every asset and series sum to 0, ascending."""
    sums: dict[tuple[int, bytes], int] = {}
    for (kind, _, item), delta in legs.items():
        sums[kind, item] = sums.get((kind, item), 0) + delta
    out = [(key, delta) for key, delta in legs.items() if delta]
    out += [((kind, HOUSE, item), -total) for (kind, item), total in sums.items() if total]
    return sorted(out)


def pack(context: Context, decisions: dict[bytes, Decisions]) -> tuple[PlannedPacket, ...]:
    """Return the packets of the plan, ascending by (vault id, number); plan digests inside are zero."""
    out: list[PlannedPacket] = []
    for vault_id in sorted(context.ledger.states):
        bodies = _get_bodies(context, vault_id, decisions[vault_id])
        state = context.ledger.states[vault_id]
        for index, (purpose, body) in enumerate(bodies):
            out.append(
                PlannedPacket(
                    vault_id=vault_id,
                    operator_epoch=state.operator_epoch,
                    sequence=state.inbox_sequence + 1 + index,
                    timeout=context.get_timeout(vault_id),
                    value=encode_body(body),
                    purpose=purpose,
                )
            )
    return tuple(out)


def _get_bodies(context: Context, vault_id: bytes, decision: Decisions) -> list[tuple[str, InboxBody]]:
    controls = list(_get_controls(context, vault_id))
    if any(isinstance(body, RotateOperators) for _, body in controls):
        # A rotation goes alone: what follows it would race with the change.
        return [row for row in controls if isinstance(row[1], RotateOperators)][:1]
    # Caps that fall at once would refuse what was planned under the old ones.
    if vault_id in context.blocked or controls:
        return controls
    bodies: list[tuple[str, InboxBody]] = [
        ("+".join(sorted(draft.purposes)), draft.get_body()) for draft in _fill(context, vault_id)
    ]
    if decision.is_judged:
        bodies.append((TRADES, DecideTrades(ZERO32, decision.upto, decision.get_trade_items())))
    if decision.withdrawals:
        bodies.append((WITHDRAWALS, DecideWithdrawals(ZERO32, decision.get_withdrawal_items())))
    state = context.ledger.states[vault_id]
    quiet_s = context.ledger.entries[vault_id].time - state.accepted_at
    if not bodies and quiet_s >= context.parameters.heartbeat_s:
        bodies.append((HEARTBEAT, Execute(ZERO32, (), ())))
    return bodies


def _fill(context: Context, vault_id: bytes) -> list[_Draft]:
    """First fit in order (payers first), the last packet only: later packets may rely on what earlier ones brought the house."""
    drafts: list[_Draft] = []
    units = sorted(context.units[vault_id], key=lambda u: (u.order, u.purpose, u.key))
    for index, unit in enumerate(units):
        if not any(unit.legs.values()):
            continue
        if drafts and drafts[-1].try_add(unit):
            continue
        if len(drafts) == MAX_EXECUTES:
            context.note("packet_full", vault_id, unit.key[0], f"{len(units) - index} units wait for the next plan")
            break
        draft = _Draft(context, vault_id)
        if not draft.try_add(unit):
            context.note("packet_full", vault_id, unit.key[0], "a unit does not fit into a packet of its own")
            continue
        drafts.append(draft)
    return drafts


# ---------------------------------------------------------------- control changes


def _get_controls(context: Context, vault_id: bytes) -> Iterable[tuple[str, InboxBody]]:
    """Yield the control changes that the parameters want and the facts do not show yet (protocol.md 8.5)."""
    state = context.ledger.states[vault_id]
    reason = context.blocked.get(vault_id, "")
    if reason not in ("", "paused"):
        return
    for control in context.parameters.controls:
        if control.vault_id != vault_id:
            continue
        try:
            body = decode_inbox_body(control.value, WIDEST_LIMITS)
        except Rejected as error:
            raise Rejected("a control change does not decode", got=error.what, reason="bad_parameters") from error
        if is_wanted(state, body, context.get_timeout(vault_id), context.parameters.effective):
            yield CONTROL, body


def is_wanted(state: VaultState, body: InboxBody, timeout: int, effective: int) -> bool:
    """Whether a control change of parameters in force since ``effective`` still has to be brought to a vault that takes it until ``timeout``.

    An Unpause names no pause: it ends those of before the instant of its parameters. Who pauses later objects to something that the quorum
    could not know when it signed.
    """
    if isinstance(body, RotateOperators):
        # The instant must still lie `delay` ahead whenever the packet arrives, or the vault refuses it.
        in_time = body.effective >= timeout + state.delay_s
        return body.epoch == state.operator_epoch + 1 and state.pending_operators is None and in_time
    if isinstance(body, SetCaps):
        pending = state.pending_caps.get(body.asset)
        target = pending.caps if pending is not None else state.caps.get(body.asset)
        return target != Caps(body.per_packet, body.per_hour, body.per_day)
    is_meant = state.paused and state.paused_at < effective and state.pending_unpause is None
    return isinstance(body, Unpause) and is_meant
