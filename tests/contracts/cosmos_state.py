"""The raw storage of a Cosmos vault as numbers (layout: contracts/cosmos/README.md), read beside the contract's own queries.

Keys are one byte that names the table and fixed-width parts; values are big-endian fields without separators.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CURSORS, CONTROL, OPERATORS, LOCK, BALANCE, POSITION, NEGATIVES = 2, 3, 4, 5, 6, 7, 8
SERIES, OFFER, TRADE, REQUEST, CAPS, WINDOW, DENOM = 9, 10, 11, 12, 13, 14, 15
CURSOR_NAMES = ("outbox_sequence", "inbox_sequence", "accepted_at", "decided_upto", "offer_count")


def split(data: bytes, *widths: int) -> list[bytes]:
    """Return consecutive fields of ``data``, which must be as long as all widths together."""
    assert len(data) == sum(widths), (len(data), widths)
    fields, at = [], 0
    for width in widths:
        fields.append(data[at : at + width])
        at += width
    return fields


def read_numbers(data: bytes, *widths: int) -> tuple[int, ...]:
    """Return consecutive big-endian unsigned numbers."""
    return tuple(int.from_bytes(field, "big") for field in split(data, *widths))


def read_token(store: Mapping[bytes, bytes], owner: str) -> int:
    """Return what an owner (bech32) holds in the raw storage of the cw20 of contracts/cosmos."""
    return int.from_bytes(store.get(b"b/" + owner.encode()) or b"", "big")


@dataclass(frozen=True)
class RawState:
    """Readers over a copy of the store; what is not there is zero, as in the contract."""

    store: Mapping[bytes, bytes]

    def get(self, table: int, *parts: bytes) -> bytes | None:
        return self.store.get(bytes([table]) + b"".join(parts))

    def get_cursors(self) -> dict[str, int]:
        data = self.get(CURSORS)
        assert data is not None
        return dict(zip(CURSOR_NAMES, read_numbers(data, 8, 8, 8, 8, 8), strict=True))

    def get_balance(self, account: bytes, asset: bytes) -> tuple[int, int]:
        data = self.get(BALANCE, account, asset)
        free, claimable = read_numbers(data, 12, 12) if data else (0, 0)
        return free, claimable

    def get_position(self, account: bytes, series: bytes) -> int:
        return int.from_bytes(self.get(POSITION, account, series) or b"", "big", signed=True)

    def get_negatives(self, account: bytes) -> int:
        return int.from_bytes(self.get(NEGATIVES, account) or b"", "big")

    def get_series(self, series: bytes) -> int | None:
        """Return the expiry, 0 of a due, None if unknown."""
        data = self.get(SERIES, series)
        return None if data is None else int.from_bytes(data, "big")

    def get_offer(self, number: int) -> tuple[bytes, int, bytes, bytes, int, int, int, int, bool] | None:
        """Return (maker, side, series, asset, quantity, left, premium, valid_until, cancelled)."""
        data = self.get(OFFER, number.to_bytes(8, "big"))
        if data is None:
            return None
        maker, series, asset, rest = split(data, 32, 32, 32, 54)
        quantity, left, premium, until, _, side, cancelled = read_numbers(rest, 12, 12, 12, 8, 8, 1, 1)
        return maker, side, series, asset, quantity, left, premium, until, bool(cancelled)

    def get_trade(self, taker: bytes, offer: int, nonce: int) -> tuple[bytes, int, int, int] | None:
        """Return (id, quantity, cost, number of its packet) of an open trade."""
        data = self.get(TRADE, taker, offer.to_bytes(8, "big"), nonce.to_bytes(8, "big"))
        if data is None:
            return None
        identity, rest = split(data, 32, 32)
        quantity, cost, number = read_numbers(rest, 12, 12, 8)
        return (identity, quantity, cost, number) if number > self.get_cursors()["decided_upto"] else None

    def get_request(self, account: bytes, asset: bytes) -> tuple[bytes, int, int] | None:
        """Return (id, amount, made_at)."""
        data = self.get(REQUEST, account, asset)
        if data is None:
            return None
        identity, rest = split(data, 32, 20)
        amount, made_at = read_numbers(rest, 12, 8)
        return identity, amount, made_at

    def get_caps(self, asset: bytes, now: int) -> tuple[tuple[int, ...], tuple[int, tuple[int, ...]] | None]:
        """Return (caps in force, (instant, caps that follow) or None)."""
        data = self.get(CAPS, asset)
        if data is None:
            return (0, 0, 0), None
        caps = read_numbers(data[:36], 12, 12, 12)
        if len(data) == 36:
            return caps, None
        at, *following = read_numbers(data[36:], 8, 12, 12, 12)
        return (tuple(following), None) if now >= at else (caps, (at, tuple(following)))

    def get_windows(self, asset: bytes) -> tuple[tuple[int, ...] | None, ...]:
        """Return (hour, used, day, used) of settlement and of withdrawal, None where nothing was charged ever."""
        rows = (self.get(WINDOW, bytes([which]), asset) for which in (0, 1))
        return tuple(read_numbers(row, 8, 12, 8, 12) if row else None for row in rows)

    def get_operators(self, which: int) -> tuple[bytes, list[bytes]]:
        """Return (treasurer, operators) of one of the two stored sets."""
        data = self.get(OPERATORS, bytes([which])) or bytes(32)
        return data[:32], [data[i : i + 20] for i in range(32, len(data), 20)]

    def get_control(self, now: int) -> dict[str, object]:
        """Return what is in force at ``now`` and what follows."""
        data = self.get(CONTROL)
        assert data is not None
        threshold, which, paused, epoch, at, following, unpause_at, used = read_numbers(data, 1, 1, 1, 8, 8, 1, 8, 4)
        if at and now >= at:
            threshold, which, epoch, used, at = following, 1 - which, epoch + 1, 0, 0
        if unpause_at and now >= unpause_at:
            paused, unpause_at = 0, 0
        treasurer, operators = self.get_operators(which)
        next_treasurer, next_operators = self.get_operators(1 - which)
        return {
            "threshold": threshold,
            "operators": [o.hex() for o in operators],
            "epoch": epoch,
            "treasurer": treasurer,
            "paused": bool(paused),
            "used": [o.hex() for i, o in enumerate(operators) if used >> i & 1],
            "unpause_at": unpause_at,
            "next": (at, following, next_treasurer, [o.hex() for o in next_operators]) if at else None,
        }
