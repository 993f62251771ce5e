"""Time as an argument: the system's clock, and a virtual one that also knows when everybody is at rest.

A service consists of loops. Each loop waits in exactly one place, `Clock.wait(wake, timeout_s)`, until something happened or
time passed. The virtual clock counts the loops that are between two such waits (busy); a loop counts as busy from the moment
its wake is *set*, not from the moment it runs again, so there is no gap in which nobody seems busy though work is due. This
is what lets four services run on one virtual clock without touching any private field of asyncio (incidents.md 7 names the
price of the other way).
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

ResultT = TypeVar("ResultT")

MAX_SETTLE_SPINS = 2_000_000
"""Passes of the event loop after which `settle` gives up: a loop that never rests is a bug and must be visible."""


class Wake:
    """A level-triggered flag that one loop waits on; setting it twice is setting it once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._is_set = False
        self._waiter: _Waiter | None = None

    def set(self) -> None:
        """Say that there is something to do."""
        if self._waiter is not None:
            self._waiter.fire(by_wake=True)
        else:
            self._is_set = True

    def __repr__(self) -> str:
        return f"Wake({self.name!r}, set={self._is_set}, waiting={self._waiter is not None})"


class Clock(Protocol):
    """What the node knows of time."""

    def now(self) -> int:
        """Unix seconds."""

    async def sleep(self, seconds: float) -> None:
        """Rest for a while."""

    async def wait(self, wake: Wake, timeout_s: float) -> bool:
        """Rest until ``wake`` is set (True; the flag is taken) or the time is over (False)."""

    async def run(self, name: str, loop: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Run one loop of a service; what it awaits outside `wait` and `sleep` counts as work."""


class _Member:
    """One running loop: whether it counts as busy now."""

    def __init__(self, owner: VirtualClock, name: str) -> None:
        self.owner = owner
        self.name = name
        self.is_busy = False

    def work(self) -> None:
        if not self.is_busy:
            self.is_busy = True
            self.owner.busy.add(self)

    def rest(self) -> None:
        if self.is_busy:
            self.is_busy = False
            self.owner.busy.discard(self)


_member: ContextVar[_Member | None] = ContextVar("relayer_clock_member", default=None)


class _Waiter:
    """One pending wait: a future that a wake or a deadline completes, whichever is first."""

    def __init__(self, member: _Member | None) -> None:
        self.future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.member = member

    def fire(self, *, by_wake: bool) -> bool:
        """Complete the wait; False if it is over already."""
        if self.future.done():
            return False
        if self.member is not None:
            self.member.work()
        self.future.set_result(by_wake)
        return True


class SystemClock:
    """The clock of the machine."""

    def now(self) -> int:
        """Unix seconds."""
        return int(time.time())

    async def sleep(self, seconds: float) -> None:
        """Rest for a while."""
        await asyncio.sleep(seconds)

    async def wait(self, wake: Wake, timeout_s: float) -> bool:
        """Rest until ``wake`` is set or the time is over."""
        if wake._is_set:  # noqa: SLF001  the two classes are one mechanism
            wake._is_set = False  # noqa: SLF001
            return True
        waiter = _Waiter(None)
        wake._waiter = waiter  # noqa: SLF001
        handle = asyncio.get_running_loop().call_later(timeout_s, lambda: waiter.fire(by_wake=False))
        try:
            return await waiter.future
        finally:
            handle.cancel()
            wake._waiter = None  # noqa: SLF001

    async def run(self, name: str, loop: Coroutine[Any, Any, ResultT]) -> ResultT:  # noqa: ARG002  see Clock
        """Run one loop of a service."""
        return await loop


class VirtualClock:
    """Time that moves only when told to, from one sleeper to the next, and only when everybody rests.

    Args:
        start: unix seconds to begin with.

    ``sources`` are asked when all loops rest: each returns True if it released something it held back (an in-process bus
    with delayed messages); then the clock settles again. So "settled" means: nobody is busy, nothing is undelivered.
    """

    def __init__(self, start: int) -> None:
        self._now_ms = start * 1000
        self._timers: list[tuple[int, int, _Waiter]] = []
        self._order = itertools.count()
        self.busy: set[_Member] = set()
        self.sources: list[Callable[[], bool]] = []

    def now(self) -> int:
        """Unix seconds."""
        return self._now_ms // 1000

    async def sleep(self, seconds: float) -> None:
        """Rest until the clock has been moved that far."""
        await self._wait(None, seconds)

    async def wait(self, wake: Wake, timeout_s: float) -> bool:
        """Rest until ``wake`` is set or the clock has been moved that far."""
        if wake._is_set:  # noqa: SLF001  the two classes are one mechanism
            wake._is_set = False  # noqa: SLF001
            return True
        return await self._wait(wake, timeout_s)

    async def run(self, name: str, loop: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Run one loop as a member: `settle` waits for it whenever it is not in `wait` or `sleep`."""
        member = _Member(self, name)
        token = _member.set(member)
        member.work()
        try:
            return await loop
        finally:
            member.rest()
            _member.reset(token)

    async def _wait(self, wake: Wake | None, seconds: float) -> bool:
        waiter = _Waiter(_member.get())
        due = self._now_ms + max(0, round(seconds * 1000))
        heapq.heappush(self._timers, (due, next(self._order), waiter))
        if wake is not None:
            wake._waiter = waiter  # noqa: SLF001
        if waiter.member is not None:
            waiter.member.rest()
        try:
            return await waiter.future
        finally:
            # Also after a cancellation: a loop that is being stopped works until it has ended.
            if waiter.member is not None:
                waiter.member.work()
            waiter.future.cancel()
            if wake is not None:
                wake._waiter = None  # noqa: SLF001

    async def settle(self) -> None:
        """Let every loop run until all of them rest and nothing is undelivered. Moves no time.

        Raises:
            RuntimeError: some loop never rests; its name is in the text.
        """
        quiet = 0
        for spin in range(MAX_SETTLE_SPINS):
            # A loop may wait for a thread; then spinning must not take its processor time away.
            await asyncio.sleep(0 if spin % 64 else 0.0005)
            if self.busy:
                quiet = 0
                continue
            quiet += 1
            if quiet >= 3:
                released = [source() for source in self.sources]  # every source is asked, none is skipped
                if not any(released):
                    return
                quiet = 0
        raise RuntimeError(f"these loops never rest: {sorted(member.name for member in self.busy)}")

    async def advance(self, seconds: float) -> None:
        """Move time forward, stopping at every sleeper that is due and letting everybody settle there."""
        target = self._now_ms + round(seconds * 1000)
        await self.settle()
        while self._timers and self._timers[0][0] <= target:
            due, _, waiter = heapq.heappop(self._timers)
            if waiter.future.done():
                continue
            self._now_ms = max(self._now_ms, due)
            waiter.fire(by_wake=False)
            # Sleepers of the same instant wake together: their order must not matter, and settling once is cheaper.
            while self._timers and self._timers[0][0] <= self._now_ms:
                heapq.heappop(self._timers)[2].fire(by_wake=False)
            await self.settle()
        self._now_ms = target
        await self.settle()
