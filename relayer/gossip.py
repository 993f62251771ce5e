"""Gossip between operators: two methods, bytes in, bytes out; the carrier is never trusted.

What a message says is worth its envelope's signature and nothing more (incidents.md 5); a carrier may drop, delay, duplicate,
reorder and replay. This file holds the protocol and the carrier inside one process, which does all of that on demand. The
MQTT carrier stands behind the same two methods.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from messages.errors import Rejected

MAX_MESSAGE_BYTES = 12 * 1024 * 1024
"""Largest message a carrier takes: a proposal of 8 MiB in its envelope."""

Handler = Callable[[str, bytes], None]


class Gossip(Protocol):
    """Best-effort broadcast to the other operators."""

    async def publish(self, topic: str, data: bytes) -> None:
        """Hand a message to the carrier; nothing is promised about its delivery."""

    def subscribe(self, topic: str, handler: Handler) -> Callable[[], None]:
        """Call ``handler(topic, data)`` for each message that arrives; returns the way to end it."""


@dataclass(frozen=True)
class Faults:
    """What the in-process carrier does to messages, in parts per thousand of deliveries."""

    drop: int = 0
    duplicate: int = 0
    hold: int = 0
    replay: int = 0


class MemoryBus:
    """The carrier between services of one process; seeded, so that a fault schedule can be repeated.

    Held messages are released in random order by `flush` (a virtual clock calls it when everybody rests) or after 32 of them
    are waiting. ``cut_off`` names ports that neither send nor receive: a partition, or a dead operator.
    """

    def __init__(self, faults: Faults | None = None, seed: int = 0) -> None:
        self.faults = faults or Faults()
        self.cut_off: set[str] = set()
        self.delivered = 0
        self._random = random.Random(seed)  # noqa: S311  a fault schedule, not a secret
        self._handlers: list[tuple[str, str, Handler]] = []
        self._held: list[tuple[str, Handler, str, bytes]] = []
        self._old: deque[tuple[str, bytes]] = deque(maxlen=64)

    def connect(self, name: str) -> Port:
        """One service's connection to the bus."""
        return Port(self, name)

    def flush(self) -> bool:
        """Release everything that is held back; True if there was anything."""
        held, self._held = self._held, []
        self._random.shuffle(held)
        for name, handler, topic, data in held:
            self._deliver(name, handler, topic, data)
        return bool(held)

    def inject(self, topic: str, data: bytes) -> None:
        """Deliver bytes of nobody's: a malicious publisher or broker."""
        self._broadcast("", topic, data)

    def add(self, name: str, topic: str, handler: Handler) -> Callable[[], None]:
        """Register a handler; used by `Port`."""
        entry = (name, topic, handler)
        self._handlers.append(entry)

        def end() -> None:
            if entry in self._handlers:
                self._handlers.remove(entry)

        return end

    def send(self, name: str, topic: str, data: bytes) -> None:
        """Send for a port; used by `Port`."""
        if len(data) > MAX_MESSAGE_BYTES:
            raise Rejected(
                "message too large for the carrier", got=len(data), expected=MAX_MESSAGE_BYTES, reason="size"
            )
        if name in self.cut_off:
            return
        self._broadcast(name, topic, data)
        self._old.append((topic, data))

    def _is(self, per_mille: int) -> bool:
        return per_mille > 0 and self._random.randrange(1000) < per_mille

    def _broadcast(self, sender: str, topic: str, data: bytes) -> None:
        for name, wanted, handler in list(self._handlers):
            if wanted != topic or name == sender:
                continue
            if self._is(self.faults.drop):
                continue
            for _ in range(2 if self._is(self.faults.duplicate) else 1):
                if self._is(self.faults.hold):
                    self._held.append((name, handler, topic, data))
                else:
                    self._deliver(name, handler, topic, data)
            if self._old and self._is(self.faults.replay):
                old_topic, old = self._random.choice(self._old)
                if old_topic == topic:
                    self._deliver(name, handler, topic, old)
        if len(self._held) >= 32:
            self.flush()

    def _deliver(self, name: str, handler: Handler, topic: str, data: bytes) -> None:
        if name not in self.cut_off:
            self.delivered += 1
            handler(topic, data)


class Port:
    """`Gossip` over a `MemoryBus`, under one name."""

    def __init__(self, bus: MemoryBus, name: str) -> None:
        self._bus = bus
        self.name = name

    async def publish(self, topic: str, data: bytes) -> None:
        """Send to every other port that listens."""
        self._bus.send(self.name, topic, data)

    def subscribe(self, topic: str, handler: Handler) -> Callable[[], None]:
        """Listen."""
        return self._bus.add(self.name, topic, handler)
