"""A bounded box for messages of strangers: whoever sends too much loses its own messages, nobody else's.

One lane per topic. Taking goes round the lanes; when the box is too full, the longest lane (or, where bytes are short, the
heaviest) loses its oldest message. So a flood can't push out what others said, and no share has to be fixed beforehand.
The box decides nothing: what a lane is worth is decided by who can write to its topic (docs/decisions/0031).
"""

from __future__ import annotations

from collections import OrderedDict, deque

MAX_LANES = 1024
"""Topics kept apart: 20 operators with seven kinds of messages, and room. Beyond it further topics share one lane."""

_SHARED = ""


class Mailbox:
    """Messages by topic, bounded in number and bytes.

    Args:
        max_messages: kept at most.
        max_bytes: sum of their sizes at most; one message that is larger than this by itself is dropped.
    """

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._lanes: OrderedDict[str, deque[tuple[str, bytes]]] = OrderedDict()  # first = next to be read
        self._bytes: dict[str, int] = {}
        self._count = 0
        self._total_bytes = 0
        self.dropped = 0

    def __len__(self) -> int:
        return self._count

    @property
    def total_bytes(self) -> int:
        """Bytes waiting."""
        return self._total_bytes

    def put(self, topic: str, data: bytes) -> None:
        """Add a message; some lane's oldest goes if there is no room (`dropped` counts it)."""
        if len(data) > self._max_bytes:
            self.dropped += 1
            return
        name = topic if topic in self._lanes or len(self._lanes) < MAX_LANES else _SHARED
        self._lanes.setdefault(name, deque()).append((topic, data))
        self._account(name, 1, len(data))
        while self._count > self._max_messages:
            self._drop_oldest(max(self._lanes, key=lambda n: len(self._lanes[n])))
        while self._total_bytes > self._max_bytes:
            self._drop_oldest(max(self._bytes, key=lambda n: self._bytes[n]))

    def take(self) -> tuple[str, bytes]:
        """The oldest message of the lane whose turn it is; IndexError if there is none."""
        if not self._lanes:
            raise IndexError("the box is empty")
        name = next(iter(self._lanes))
        topic, data = self._lanes[name].popleft()
        self._lanes.move_to_end(name)
        self._account(name, -1, -len(data))
        return topic, data

    def _drop_oldest(self, name: str) -> None:
        _, data = self._lanes[name].popleft()
        self._account(name, -1, -len(data))
        self.dropped += 1

    def _account(self, name: str, count: int, size: int) -> None:
        self._count += count
        self._total_bytes += size
        self._bytes[name] = self._bytes.get(name, 0) + size
        if not self._lanes[name]:
            del self._lanes[name], self._bytes[name]
