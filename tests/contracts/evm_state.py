"""The raw storage of an EVM vault as numbers (layout: contracts/evm/vault.vy): far quicker than its getters."""

from __future__ import annotations

from typing import Any

from contracts.evm import OUTBOX_SEQUENCE_SLOT, get_artifact
from messages.hashing import keccak256
from tests.contracts.vault_world import World, compute_slot

SLOTS = get_artifact("vault").storage_slots
M32, M64, M96, M160 = (2**bits - 1 for bits in (32, 64, 96, 160))
SET_SLOTS = 21  # of one stored set: its length and 20 operators
DUE = 2**64
NAMES = ("outbox_sequence", "inbox_sequence", "accepted_at", "decided_upto")


def _word(number: int) -> bytes:
    return number.to_bytes(32, "big")


class RawEvm:
    """Readers of one vault; what was never written is zero, as in the contract."""

    def __init__(self, world: World) -> None:
        self.chain, self.address = world.chain, world.vault.address

    def get(self, name: str, *keys: bytes, word: int = 0) -> int:
        return self.chain.get_storage(self.address, compute_slot(SLOTS[name], *keys) + word)

    def get_cursors(self) -> dict[str, int]:
        cursors = self.chain.get_storage(self.address, OUTBOX_SEQUENCE_SLOT)
        found = {name: cursors >> 64 * i & M64 for i, name in enumerate(NAMES)}
        return {**found, "offer_count": self.get("offer_count")}

    def get_balance(self, account: bytes, asset: bytes) -> tuple[int, int]:
        both = self.get("balances", account, asset)
        return both & M96, both >> 96

    def get_position(self, account: bytes, series: bytes) -> int:
        number = self.get("position", account, series)
        return number - 2**256 if number >> 255 else number

    def get_negatives(self, account: bytes) -> int:
        return self.get("negatives", account)

    def get_series(self, series: bytes) -> int | None:
        """Return the expiry, 0 of a due, None if unknown."""
        found = self.get("series", series)
        return None if not found else 0 if found == DUE else found

    def get_offer(self, number: int) -> tuple[bytes, int, bytes, bytes, int, int, int, int, bool]:
        """Return (maker, side, series, asset, quantity, left, premium, valid_until, cancelled)."""
        first, second, series, state = (self.get("offers", _word(number), word=i) for i in range(4))
        return (
            _word(first & M160),
            state >> 224 & 255,
            _word(series),
            _word(second & M160),
            first >> 160,
            state & M96,
            second >> 160,
            state >> 96 & M64,
            bool(state >> 232),
        )

    def get_trade(self, taker: bytes, offer: int, nonce: int) -> tuple[bytes, int, int, int] | None:
        """Return (id, quantity, cost, number of its packet) of an open trade."""
        key = keccak256(taker + _word(offer) + _word(nonce))
        identity, terms = (self.get("trades", key, word=i) for i in range(2))
        if terms >> 192 <= self.get_cursors()["decided_upto"]:
            return None
        return _word(identity), terms & M96, terms >> 96 & M96, terms >> 192

    def get_request(self, account: bytes, asset: bytes) -> tuple[bytes, int, int] | None:
        """Return (id, amount, made_at)."""
        identity, terms = (self.get("requests", account, asset, word=i) for i in range(2))
        return (_word(identity), terms & M96, terms >> 96) if identity else None

    def get_caps(self, asset: bytes, now: int) -> tuple[tuple[int, ...], tuple[int, tuple[int, ...]] | None]:
        """Return (caps in force, (instant, caps that follow) or None)."""
        a, b, c = (self.get("caps", asset, word=i) for i in range(3))
        caps, at, following = (a & M96, a >> 96 & M96, b & M96), a >> 192, (c & M96, c >> 96, b >> 96)
        if not at:
            return caps, None
        return (following, None) if now >= at else (caps, (at, following))

    def get_windows(self, asset: bytes) -> tuple[tuple[int, ...] | None, ...]:
        """Return (hour, used, day, used) of settlement and of withdrawal, None where nothing was charged ever."""
        words = (self.get(name, asset) for name in ("settlement_windows", "withdrawal_windows"))
        return tuple((w & M32, w >> 32 & M96, w >> 128 & M32, w >> 160) if w else None for w in words)

    def get_operators(self, which: int) -> list[str]:
        """Return one of the two stored sets, in hex."""
        at = SLOTS["operator_sets"] + which * SET_SLOTS
        count = self.chain.get_storage(self.address, at)
        return [_word(self.chain.get_storage(self.address, at + 1 + i))[12:].hex() for i in range(count)]

    def get_control(self, now: int) -> dict[str, Any]:
        """Return what is in force at ``now`` and what follows."""
        w = self.get("control")
        threshold, which, paused, epoch = w & 255, w >> 8 & 255, w >> 16 & 255, w >> 24 & M64
        at, following, unpause_at, used = w >> 88 & M64, w >> 152 & 255, w >> 160 & M64, w >> 224
        if at and now >= at:
            threshold, which, epoch, used, at = following, 1 - which, epoch + 1, 0, 0
        if unpause_at and now >= unpause_at:
            paused, unpause_at = 0, 0
        treasurers = [_word(self.chain.get_storage(self.address, SLOTS["treasurers"] + i)) for i in range(2)]
        operators = self.get_operators(which)
        return {
            "threshold": threshold,
            "operators": operators,
            "epoch": epoch,
            "treasurer": treasurers[which],
            "paused": bool(paused),
            "used": [o for i, o in enumerate(operators) if used >> i & 1],
            "unpause_at": unpause_at,
            "next": (at, following, treasurers[1 - which], self.get_operators(1 - which)) if at else None,
        }
