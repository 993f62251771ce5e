"""Prices of the demo: a seeded path, three reporters that sign it, a feed per node that hands out what is new.

The path is a walk in integers over whole minutes, so that every machine gets the same reports for one seed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from messages.digests import compute_mark_digest, compute_report_digest, get_address, sign_digest
from messages.documents import Amount, Mark, Report, SignedMark, SignedReport
from messages.hashing import keccak256, sha256

MINUTE_S = 60
E8 = 10**8
E18 = 10**18
YEAR_S = 31_536_000
MARK_EVERY_S = 300
MAX_CATCH_UP_MINUTES = 24 * 60


@dataclass
class Path:
    """Spot price of one underlying by minute, in 1e-8, with its running sum in 1e-8 seconds.

    Args:
        seed: same seed, same walk.
        start: unix seconds of the first minute (a whole minute).
        spot_e8: price there.
        step_ppm: largest move at once, in parts per million.
        hold_minutes: the price moves once in so many minutes. Between moves it stands still, so that a decision made a little
            later because of a fault is made at the same price: a run with faults must end like one without.
    """

    seed: str
    start: int
    spot_e8: int
    step_ppm: int
    hold_minutes: int = 30
    shocks: dict[int, int] = field(default_factory=dict)
    """minute index -> factor in parts per million, applied from that minute on"""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311  a price path, not a secret
        self._spots = [self.spot_e8]
        self._sums = [0]

    def shock(self, now: int, factor_ppm: int) -> None:
        """From the next unmade minute on the price is multiplied by factor_ppm / 1e6."""
        index = max(len(self._spots), (now - self.start) // MINUTE_S + 1)
        self.shocks[index] = factor_ppm

    def get(self, stamp: int) -> tuple[int, int]:
        """(spot_e8, cumulative_e8_seconds) at a whole minute at or after the start."""
        index = (stamp - self.start) // MINUTE_S
        while len(self._spots) <= index:
            moves = len(self._spots) % self.hold_minutes == 0
            move_ppm = self._random.randint(-self.step_ppm, self.step_ppm) if moves else 0
            spot = self._spots[-1] * (1_000_000 + move_ppm) // 1_000_000
            spot = spot * self.shocks.get(len(self._spots), 1_000_000) // 1_000_000
            self._sums.append(self._sums[-1] + self._spots[-1] * MINUTE_S)
            self._spots.append(spot)
        return self._spots[index], self._sums[index]


@dataclass(frozen=True)
class Line:
    """One thing the reporters watch: an underlying, or an asset against its class."""

    source: bytes
    underlying: bytes
    path: Path


class Reporters:
    """Three price signers over one set of lines; each report carries the signatures of all three, ascending by address."""

    def __init__(self, seed: int, lines: Sequence[Line], volatility_ppm: int, count: int = 3) -> None:
        keys = [sha256(b"optsettle demo reporter %d %d" % (seed, i)) for i in range(count)]
        self._keys = sorted(keys, key=get_address)
        self.addresses = tuple(get_address(key) for key in self._keys)
        self.lines = tuple(lines)
        self.volatility_ppm = volatility_ppm
        self.expiries: dict[bytes, list[int]] = {}
        self._reports: dict[int, tuple[SignedReport, ...]] = {}
        self._marks: dict[int, tuple[SignedMark, ...]] = {}

    def watch_expiry(self, underlying: bytes, expiry: int) -> None:
        """From now on publish forward and volatility of this expiry."""
        self.expiries.setdefault(underlying, []).append(expiry)

    def get_reports(self, stamp: int) -> tuple[SignedReport, ...]:
        """The reports of one whole minute."""
        if stamp not in self._reports:
            self._reports[stamp] = tuple(self._sign_report(line, stamp) for line in self.lines)
        return self._reports[stamp]

    def get_marks(self, stamp: int) -> tuple[SignedMark, ...]:
        """The marks of one whole minute, for every watched expiry that has not passed."""
        if stamp not in self._marks:
            self._marks[stamp] = tuple(
                self._sign_mark(line, expiry, stamp)
                for line in self.lines
                for expiry in self.expiries.get(line.underlying, ())
                if expiry > stamp
            )
        return self._marks[stamp]

    def _sign_report(self, line: Line, stamp: int) -> SignedReport:
        spot, cumulative = line.path.get(stamp)
        report = Report(line.source, line.underlying, stamp, Amount(cumulative), Amount(spot), Amount(E8))
        digest = compute_report_digest(
            report.source,
            report.underlying,
            report.stamp,
            report.cumulative_e8_seconds,
            report.spot_e8,
            report.confidence_e8,
        )
        return SignedReport(report, tuple(sign_digest(key, digest) for key in self._keys))

    def _sign_mark(self, line: Line, expiry: int, stamp: int) -> SignedMark:
        spot, _ = line.path.get(stamp)
        tau_e18 = (expiry - stamp) * E18 // YEAR_S
        variance_e18 = self.volatility_ppm**2 * tau_e18 // 10**12
        svi = tuple(Amount(x) for x in (variance_e18, 0, 0, 0, E18 // 10, tau_e18))
        mark = Mark(line.source, line.underlying, expiry, stamp, Amount(spot), svi, Amount(E8))
        digest = compute_mark_digest(
            mark.source, mark.underlying, mark.expiry, mark.stamp, mark.forward_e8, mark.svi_e18, mark.confidence_e8
        )
        return SignedMark(mark, tuple(sign_digest(key, digest) for key in self._keys))


class SimulatedFeed:
    """What one node's feed hands out: every report since the last time it asked, marks every five minutes."""

    def __init__(self, reporters: Reporters, start: int) -> None:
        self._reporters = reporters
        self._next = -(-start // MINUTE_S) * MINUTE_S

    async def fetch(self, now: int) -> tuple[Sequence[SignedReport], Sequence[SignedMark]]:
        """Reports and marks stamped up to ``now`` that were not handed out yet; after a long sleep the last day's."""
        newest = now // MINUTE_S * MINUTE_S
        self._next = max(self._next, newest - MAX_CATCH_UP_MINUTES * MINUTE_S)
        reports: list[SignedReport] = []
        marks: list[SignedMark] = []
        while self._next <= newest:
            reports += self._reporters.get_reports(self._next)
            if self._next % MARK_EVERY_S == 0 or self._next == newest:
                marks = list(self._reporters.get_marks(self._next))
            self._next += MINUTE_S
        return reports, marks


def compute_asset_underlying(caip19: str) -> bytes:
    """The ``underlying`` under which the price of an asset against its class is reported: keccak256 of its CAIP-19 id."""
    return keccak256(caip19.encode())
