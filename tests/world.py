"""A small world for tests of plans: vault models, a price feed, and the loop of cut, ledger, plan, packets, Acks."""

from __future__ import annotations

from dataclasses import replace

from messages.bodies import Linked
from messages.documents import Cut, CutEntry, OpenPacket, OpenPackets, Parameters
from messages.outbox import Cursor
from relayer.rules.ledger import (
    apply_facts,
    compute_ledger,
    get_initial_state,
    get_vault_id,
    verify_conservation,
)
from relayer.rules.market import compute_snapshot, get_settlements_needed, verify_market
from relayer.rules.plan import compute_plan, compute_plan_digest, finalize_packet, verify_worth_unchanged
from tests.builders import (
    DECIMALS,
    START,
    TOKEN,
    TREASURER,
    UNIT,
    make_account,
    make_facts,
    make_mark,
    make_parameters,
    make_report,
    make_series,
    make_vault,
    series_id,
    sign_link,
)
from tests.vault_model import VaultModel

__all__ = ["DECIMALS", "START", "TOKEN", "TREASURER", "UNIT", "World", "make_account", "make_series", "series_id"]


class World:
    """Vaults 0, 1, ... on one clock. Amounts of helpers are in whole USDC, quantities in whole contracts."""

    def __init__(
        self,
        vaults: int = 2,
        *,
        parameters: Parameters | None = None,
        spot: int = 2000,
        tiers: dict[int, int] | None = None,
    ) -> None:
        self.parameters = parameters or make_parameters([make_vault(i) for i in range(vaults)])
        self.vaults = [VaultModel(v) for v in self.parameters.vaults]
        self.tiers = tiers or {}
        """Trust tier of a vault's facts by its number; 1 where nothing is said."""
        self.states = {get_vault_id(v): get_initial_state(v) for v in self.parameters.vaults}
        self.now = START
        self.spot = spot
        self.reports: list = []
        self.cumulative = START * 2000 * 10**8
        self.last_price_time = START
        self.marks: dict = {}
        self.k = 0
        self.nonce = 0
        self.open: list[OpenPacket] = []
        self.snapshot = None
        self.stalled: dict[bytes, int] = {}
        self.quiet = False
        self._report()

    # ------------------------------------------------------------ time and prices

    def _report(self) -> None:
        self.reports.append(make_report(self.now - self.now % 60, self.spot, cumulative=self.cumulative))

    def advance(self, seconds: int) -> None:
        """Move the clock in whole minutes; the feed reports each of the last minutes and every half hour."""
        end = self.now + seconds
        while self.now < end:
            step = min(60, end - self.now)
            self.now += step
            self.cumulative += step * self.spot * 10**8
            if not self.quiet:
                self._report()
        self.reports = self.reports[-400:]
        for vault in self.vaults:
            vault.time = max(vault.time, self.now)

    def jump(self, time: int) -> None:
        """Move far ahead: prices are constant on the way, reports at the end and at what was asked for."""
        self.cumulative += (time - self.now) * self.spot * 10**8
        self.now = time
        self.reports = []
        self._report()
        for vault in self.vaults:
            vault.time = max(vault.time, self.now)

    # ------------------------------------------------------------ users

    def deposit(self, who: str | bytes, amount: float, vault: int = 0) -> None:
        account = who if isinstance(who, bytes) else make_account(who)
        self.vaults[vault].deposit(TOKEN, round(amount * UNIT), account)

    def link(self, who: str, portfolio: str, vault: int = 0) -> None:
        body: Linked = sign_link(self.vaults[vault].id, make_account(who), portfolio, self.now + 86_400)
        self.vaults[vault].link(body.account, body.portfolio, body.valid_until, body.r, body.s, body.v)

    def trade(self, buyer: str, seller: str, definition, quantity: float, premium: float, vault: int = 0) -> bytes:
        """The seller offers, the buyer takes; returns the id of the trade."""
        model = self.vaults[vault]
        if series_id(definition) not in model.series:
            model.list_series(definition)
        size = round(quantity * 10**8)
        number = model.offer(
            make_account(seller), 1, series_id(definition), TOKEN, size, round(premium * UNIT), self.now + 86_400
        )
        self.nonce += 1
        return model.take(make_account(buyer), number, size, self.nonce)

    def request(self, who: str, amount: float, vault: int = 0) -> bytes:
        return self.vaults[vault].request_withdrawal(make_account(who), TOKEN, round(amount * UNIT))

    # ------------------------------------------------------------ the clearing

    def fold(self) -> None:
        """Fold everything the vaults said since: the ledger has what the vaults have, and conservation holds."""
        for number, model in enumerate(self.vaults):
            state = self.states[model.id]
            packets = model.packets[state.outbox_sequence :]
            if packets:
                cursor = Cursor(model.id, state.outbox_sequence, state.outbox_head)
                state = apply_facts(state, make_facts(model.id, packets, cursor=cursor, tier=self.tiers.get(number, 1)))
                self.states[model.id] = state
            assert (state.free, state.claimable, state.positions) == (model.free, model.claimable, model.position)
        verify_conservation(self.states, self.parameters)

    def get_cut(self) -> Cut:
        return Cut(
            tuple(
                CutEntry(
                    vault_id,
                    1,
                    bytes([1]) * 32,
                    self.stalled.get(vault_id, self.now),
                    state.outbox_sequence,
                    state.outbox_head,
                )
                for vault_id, state in sorted(self.states.items())
            )
        )

    def get_ledger(self):
        self.fold()
        return compute_ledger(self.states, self.get_cut(), self.parameters)

    def get_open(self) -> OpenPackets:
        return OpenPackets(tuple(sorted(self.open, key=lambda p: (p.vault_id, p.sequence, p.timeout))))

    def get_market(self, ledger):
        stamp = self.now - self.now % 60
        expiries = sorted({d.expiry for m in self.vaults for d in m.series.values() if d.expiry > self.now})
        marks = [] if self.quiet else [make_mark(stamp, e, self.spot) for e in expiries]
        snapshot = compute_snapshot(self.now, self.reports, marks, get_settlements_needed(ledger, self.now))
        verify_market(snapshot, self.parameters, 0, self.now)
        return snapshot

    def plan(self):
        """Compute the plan of now; the second look at it is part of it."""
        ledger = self.get_ledger()
        market = self.get_market(ledger)
        self.k += 1
        result = compute_plan(ledger, market, self.parameters, self.k, self.get_open())
        verify_worth_unchanged(ledger, market, self.parameters, self.get_open(), result.plan)
        self.ledger, self.snapshot, self.result = ledger, market, result
        return result

    def certify(self, result):
        """Sign the plan's packets: they are open from now on. Returns them as inbox packets by vault."""
        digest = compute_plan_digest(result.plan)
        out: dict[bytes, list] = {}
        for planned in result.plan.packets:
            packet = finalize_packet(planned, digest)
            self.open.append(
                OpenPacket(
                    planned.vault_id,
                    planned.operator_epoch,
                    planned.sequence,
                    planned.timeout,
                    packet.payloads[0].value,
                    digest,
                    (),
                )
            )
            out.setdefault(planned.vault_id, []).append(packet)
        return out

    def deliver(self, packets: dict[bytes, list]) -> list:
        """Bring certified packets to their vaults; returns the Acks. What is answered is not open any more after a fold."""
        acks = [model.recv(packet) for model in self.vaults for packet in packets.get(model.id, ())]
        self.settle_open()
        return acks

    def settle_open(self) -> None:
        """Drop what the facts have answered; what is absent stays until its number is used."""
        self.fold()
        self.open = [p for p in self.open if p.sequence > self.states[p.vault_id].inbox_sequence]

    def round(self) -> list:
        """One whole round: plan, certify, deliver, fold. Every Ack must be DONE."""
        acks = self.deliver(self.certify(self.plan()))
        assert all(ack.status == 1 for ack in acks), [(a.kind, a.reason) for a in acks]
        return acks

    def codes(self) -> set[str]:
        """Codes of the notes of the last plan."""
        return {note.code for note in self.result.notes}

    def free(self, who: str | bytes, vault: int = 0) -> int:
        account = who if isinstance(who, bytes) else make_account(who)
        return self.vaults[vault].free.get((account, TOKEN), 0)

    def with_parameters(self, **changes) -> None:
        self.parameters = replace(self.parameters, **changes)
