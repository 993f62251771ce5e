"""What a kind of vectors gives to the runner: named cases that pass, fail or skip with a reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


class SkippedError(Exception):
    """Raised by a case (or a discoverer) that can't be run here; the text says why."""


@dataclass(frozen=True)
class Case:
    """One vector. ``run`` returns on success; any exception but SkippedError is a failure.

    A case asserts the *exact* expected verdict of its vector, accept or reject, so that it can fail.
    """

    kind: str  # first folder below the root, e.g. "eth_lc_sync"
    name: str  # path and key that find the vector again
    run: Callable[[], None]
