"""The clock of simulated chains: it moves only when told to. Knows no family."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ManualClock:
    """Unix seconds that only move when told to."""

    now: int

    def __call__(self) -> int:
        """The time."""
        return self.now

    def advance(self, seconds: int) -> int:
        """Move forward; returns the new time."""
        if seconds < 0:
            raise ValueError("time does not run backwards")
        self.now += seconds
        return self.now
