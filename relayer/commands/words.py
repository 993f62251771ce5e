"""How protocol objects are told to people and programs: series, assets, bodies, moments. Used by every reading command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from messages.bodies import (
    Ack,
    AckStatus,
    Claimed,
    DecideTrades,
    DecideWithdrawals,
    Deposited,
    Escaped,
    Execute,
    InboxBody,
    LegKind,
    Linked,
    OutboxBody,
    Paused,
    Reason,
    RotateOperators,
    SeriesDefinition,
    SeriesListed,
    SetCaps,
    TradePending,
    WithdrawalRequested,
)
from messages.documents import AssetParameters
from messages.ids import HOUSE, INSURANCE
from relayer.commands.view import View
from relayer.render import Names, format_age, format_amount, format_time, hex_of

SYSTEM_NAMES: Mapping[bytes, str] = {HOUSE: "HOUSE", INSURANCE: "INSURANCE"}
KIND_NAMES: Mapping[int, str] = {
    1: "Deposited",
    2: "Linked",
    3: "SeriesListed",
    4: "TradePending",
    5: "WithdrawalRequested",
    6: "Claimed",
    7: "Paused",
    8: "Escaped",
    16: "Ack",
    32: "Execute",
    33: "DecideTrades",
    34: "DecideWithdrawals",
    35: "RotateOperators",
    36: "SetCaps",
    37: "Unpause",
}


def get_text(name: bytes) -> str:
    """A right-padded name (underlying, class, source) for people, or hex."""
    bare = name.rstrip(b"\0")
    return bare.decode("ascii") if bare and bare.isascii() and bare.decode("ascii").isprintable() else hex_of(name)


def describe_series(definition: SeriesDefinition) -> str:
    """Text of a series: underlying, expiry in UTC, strike, right; "ETH 2026-01-05 13:00 2,050 call"."""
    expiry = format_time(definition.expiry)[:16]
    right = "call" if definition.right else "put"
    return f"{get_text(definition.underlying)} {expiry} {format_amount(definition.strike_e8, 8, places=0)} {right}"


def describe_contracts(quantity_e8: int) -> str:
    """Contracts of a series, from 1e-8."""
    return format_amount(quantity_e8, 8, places=0)


class Speaker:
    """Tells amounts and ids of one view; ids are shortened as far as they stay unique in it."""

    def __init__(self, view: View, *, is_full: bool = False) -> None:
        self.view = view
        self.assets: dict[tuple[bytes, bytes], AssetParameters] = {
            (a.vault_id, a.asset): a for a in view.parameters.assets
        }
        self.class_decimals = {c.quote_class: c.decimals for c in view.parameters.classes}
        self.series: dict[bytes, SeriesDefinition] = {}
        self.dues: dict[bytes, bytes] = {}
        ids: set[bytes] = set()
        for vault_id, state in view.newest_states.items():
            ids.add(vault_id)
            self.series.update(state.series)
            self.dues.update(state.dues)
            ids.update(state.series)
            ids.update(account for account, _ in state.free)
            ids.update(account for account, _ in state.positions)
            ids.update(link.portfolio for link in state.links.values())
            ids.update(trade.id for trade in state.trades.values())
            ids.update(request.id for request in state.requests.values())
        self.names = Names(ids, is_full=is_full, known=SYSTEM_NAMES)

    def get_asset_unit(self, vault_id: bytes, asset: bytes) -> tuple[int, str]:
        """(decimals, unit) of an asset; an asset outside the parameters counts in base units."""
        known = self.assets.get((vault_id, asset))
        return (0, "base units") if known is None else (known.decimals, get_text(known.quote_class))

    def cash(self, vault_id: bytes, asset: bytes, units: int) -> str:
        """Text of an amount of an asset at a vault."""
        return format_amount(units, *self.get_asset_unit(vault_id, asset))

    def due(self, quote_class: bytes, units: int) -> str:
        """Text of a due."""
        return format_amount(units, self.class_decimals.get(quote_class, 0), get_text(quote_class))

    def item(self, item: bytes) -> str:
        """Text of a series or due id."""
        if item in self.dues:
            return f"due {get_text(self.dues[item])}"
        return describe_series(self.series[item]) if item in self.series else self.names(item)

    def chain(self, vault_id: bytes) -> str:
        """Name of a vault's chain."""
        return self.view.get_chain(vault_id)

    # ---- bodies

    def outbox(self, vault_id: bytes, body: OutboxBody | None, void: str) -> str:
        """One line about an outbox packet."""
        name = self.names
        match body:
            case None:
                return f"void: {void}"
            case Deposited():
                return f"{self.cash(vault_id, body.asset, body.amount)} for {name(body.account)}"
            case Linked():
                return f"account {name(body.account)} to portfolio {name(body.portfolio)}"
            case SeriesListed():
                return describe_series(body.definition)
            case TradePending():
                return (
                    f"{name(body.buyer)} buys {describe_contracts(body.quantity)} {self.item(body.series)} from"
                    f" {name(body.seller)} for {self.cash(vault_id, body.asset, body.cost)}"
                )
            case WithdrawalRequested():
                return f"{name(body.account)} asks for {self.cash(vault_id, body.asset, body.amount)}"
            case Claimed() | Escaped():
                return f"{self.cash(vault_id, body.asset, body.amount)} of {name(body.account)}"
            case Paused():
                return f"by operator {name(body.operator)}"
            case Ack():
                return self._ack(body)
        return type(body).__name__

    def _ack(self, body: Ack) -> str:
        kind = KIND_NAMES.get(body.kind, str(body.kind))
        if body.status == AckStatus.REFUSED:
            return f"inbox {body.inbox_sequence} ({kind}) REFUSED: {get_reason_name(body.reason)}"
        return f"inbox {body.inbox_sequence} ({kind}) DONE"

    def inbox(self, vault_id: bytes, body: InboxBody) -> list[str]:
        """Lines about what an inbox packet does."""
        match body:
            case Execute():
                lines = [f"price {self.item(p.series)} at {format_amount(p.price_e8, 8)}" for p in body.prices]
                for leg in body.legs:
                    if leg.kind == LegKind.CASH:
                        what = f"cash {self.cash(vault_id, leg.id, leg.delta)}"
                    elif leg.id in self.dues:
                        what = f"due {self.due(self.dues[leg.id], leg.delta)}"
                    else:
                        what = f"position {describe_contracts(leg.delta)} {self.item(leg.id)}"
                    lines.append(f"{self.names(leg.account)}: {what}")
                return lines or ["heartbeat: no legs"]
            case DecideTrades():
                accepted = [f"accept trade {self.names(item.id)}" for item in body.items]
                return [*accepted, f"every other trade up to packet {body.upto} is over"]
            case DecideWithdrawals():
                return [f"allow withdrawal {self.names(item.id)} of {self.names(item.account)}" for item in body.items]
            case RotateOperators():
                return [
                    f"{len(body.operators)} operators, threshold {body.threshold}, from {format_time(body.effective)}"
                ]
            case SetCaps():
                unit = self.get_asset_unit(vault_id, body.asset)
                caps = (body.per_packet, body.per_hour, body.per_day)
                return ["caps " + " / ".join(format_amount(c, *unit) for c in caps) + " per packet / hour / day"]
        return [type(body).__name__]

    # ---- frames

    def trust(self, vault_id: bytes) -> tuple[str, str, str]:
        """Texts (trust, height, age) of what is known of a vault."""
        trust = self.view.get_trust(vault_id)
        height, age = trust["height"], trust["age_s"]
        if not isinstance(height, int) or not isinstance(age, int):
            raise TypeError("trust holds whole numbers")
        return str(trust["tier_text"]), f"{height:,}" if height else "-", format_age(age) if height else "-"

    def heading(self) -> str:
        """First line of an answer: whose records, and of when."""
        moment = self.view.moment
        if not moment.last_record:
            return f"{self.view.name}: nothing on record yet"
        if moment.is_live:
            return f"{self.view.name}, now {format_time(moment.now)}"
        return f"{self.view.name}, as of its last record {format_time(moment.now)} (the node is not running now, or its chains have their own clock)"

    def frame(self, command: str) -> dict[str, Any]:
        """The keys that every answer for programs begins with."""
        moment = self.view.moment
        return {
            "schema": f"relayer/{command}/1",
            "node": self.view.name,
            "as_of": moment.now,
            "last_record": moment.last_record,
            "is_live": moment.is_live,
        }


def get_reason_name(reason: int) -> str:
    """Stable word of a vault's reason code (vault.md 3)."""
    return Reason(reason).name if reason in set(Reason) else str(reason)
