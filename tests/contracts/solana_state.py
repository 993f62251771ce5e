"""The records of a Solana vault as numbers (layout: contracts/solana/README.md), in the same words as `evm_state.py`."""

from __future__ import annotations

from typing import Any

from contracts.solana import client as c
from tests.contracts.solana_harness import SolanaWorld

LISTED = 1


class RawSolana:
    """Readers of one vault; a record that nobody has opened is zero, as in the program."""

    def __init__(self, world: SolanaWorld) -> None:
        self.world = world
        self.state = world.state

    def load(self, tag: c.Tag, keys: bytes) -> tuple[Any, ...]:
        return self.world.load(c.Id(tag, keys))

    def get_cursors(self) -> dict[str, int]:
        names = ("outbox_sequence", "inbox_sequence", "accepted_at", "decided_upto", "offer_count")
        return {name: getattr(self.state, name) for name in names}

    def get_balance(self, account: bytes, asset: bytes) -> tuple[int, int]:
        free, claimable = self.load(c.Tag.BALANCE, account + asset)
        return free, claimable

    def get_position(self, account: bytes, series: bytes) -> int:
        return c.decode_position(self.load(c.Tag.POSITION, account + series)[0])

    def get_negatives(self, account: bytes) -> int:
        return int(self.load(c.Tag.ACCOUNT, account)[0])

    def get_series(self, series: bytes) -> int | None:
        """Return the expiry, 0 of a due, None if unknown."""
        status, expiry = self.load(c.Tag.SERIES, series)
        return None if not status else int(expiry) if status == LISTED else 0

    def get_offer(self, number: int) -> tuple[bytes, int, bytes, bytes, int, int, int, int, bool] | None:
        """Return (maker, side, series, asset, quantity, left, premium, valid_until, cancelled)."""
        offer = self.world.load(c.get_offer_id(number))
        maker, series, asset, quantity, left, premium, until, _, side, cancelled = offer
        return (maker, side, series, asset, quantity, left, premium, until, bool(cancelled)) if quantity else None  # type: ignore[return-value]  # the layout of the record

    def get_trade(self, taker: bytes, offer: int, nonce: int) -> tuple[bytes, int, int, int] | None:
        """Return (id, quantity, cost, number of its packet) of an open trade."""
        identity, quantity, cost, number = self.world.load(c.get_trade_id(taker, offer, nonce))
        return (identity, quantity, cost, number) if number > self.state.decided_upto else None  # type: ignore[return-value,operator]  # the layout of the record

    def get_request(self, account: bytes, asset: bytes) -> tuple[bytes, int, int] | None:
        """Return (id, amount, made_at)."""
        identity, amount, made_at = self.load(c.Tag.REQUEST, account + asset)
        return (identity, amount, made_at) if amount else None

    def get_caps(self, asset: bytes, now: int) -> tuple[tuple[int, ...], tuple[int, tuple[int, ...]] | None]:
        """Return (caps in force, (instant, caps that follow) or None)."""
        numbers = self.load(c.Tag.ASSET, asset)
        caps, at, following = numbers[:3], numbers[3], numbers[4:7]
        if not at:
            return caps, None
        return (following, None) if now >= at else (caps, (at, following))

    def get_windows(self, asset: bytes) -> tuple[tuple[int, ...] | None, ...]:
        """Return (hour, used, day, used) of settlement and of withdrawal, None where nothing was charged ever."""
        numbers = self.load(c.Tag.ASSET, asset)
        return tuple(row if any(row) else None for row in (numbers[7:11], numbers[11:15]))

    def get_control(self, now: int) -> dict[str, Any]:
        """Return what is in force at ``now`` and what follows."""
        s = self.state
        threshold, which, epoch, used, at = s.threshold, s.set, s.epoch, s.pause_used, s.pending_at
        paused, unpause_at = s.paused, s.unpause_at
        if at and now >= at:
            threshold, which, epoch, used, at = s.pending_threshold, 1 - which, epoch + 1, 0, 0
        if unpause_at and now >= unpause_at:
            paused, unpause_at = False, 0
        current, following = s.sets[which], s.sets[1 - which]
        operators = [o.hex() for o in current.operators]
        next_operators = [o.hex() for o in following.operators]
        return {
            "threshold": threshold,
            "operators": operators,
            "epoch": epoch,
            "treasurer": current.treasurer,
            "paused": paused,
            "used": [o for i, o in enumerate(operators) if used >> i & 1],
            "unpause_at": unpause_at,
            "next": (at, s.pending_threshold, following.treasurer, next_operators) if at else None,
        }
