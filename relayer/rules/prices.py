"""Prices: what makes a signed report or mark acceptable, for which action, and the settlement price and payoff it gives.

Pure. Sources: data.md 3 (documents), margin.md 6 (rules of consumption), protocol.md 7.1 (settlement price, payoff).
Everything here is integer arithmetic in 1e-8 of the quote class per unit of the underlying; a float never reaches a payoff.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import Final

from messages.bodies import SeriesDefinition
from messages.digests import compute_mark_digest, compute_report_digest, recover_signer
from messages.documents import Mark, Report, SignedMark, SignedReport
from messages.errors import Rejected
from messages.ids import Digest

MINUTE_S: Final = 60
PRICE_SCALE_E8: Final = 10**8
# A settlement report may carry the first stamp within this time after the instant it is for (protocol.md 7.1).
SETTLEMENT_SLACK_S: Final = 60
# Heartbeats of margin.md 6, rule 1: a spot report serves 180 s, a forward 3,600 s, a volatility slice 1,200 s.
SPOT_HEARTBEAT_S: Final = 180
MARK_HEARTBEAT_S: Final = 1_200
# Stamps are whole minutes, so the published 60 s would refuse a report that is merely waiting for the next one.
STALE_FOR_MARGIN_S: Final = 180
# margin.md 6, rule 2: more than 5 times (or less than a fifth of) its average.
VOLATILE_RATIO: Final = 5
# Our reports carry a confidence in [0, 1] instead of an interval; below a tenth the signers say they do not know.
MINIMUM_CONFIDENCE_E8: Final = 10**7
EXPIRY_HORIZON_S: Final = 400 * 86_400
# Bounds on what comes from outside; 2^96 is the vault's own bound of strikes and amounts.
MAX_PRICE_E8: Final = 2**96
MAX_CUMULATIVE: Final = 2**160
MAX_SIGNATURES: Final = 64
SVI_LENGTH: Final = 6
MAX_SVI_E18: Final = 10**24


class PriceState(Enum):
    """What can be wrong with a price (margin.md 6, rule 2)."""

    NON_POSITIVE = "non_positive"
    TOO_VOLATILE = "too_volatile"
    TOO_UNCERTAIN = "too_uncertain"
    STALE_FOR_MARGIN = "stale_for_margin"
    MISSING = "missing"


class Action(Enum):
    """What a price is used for; validity is a matter of the action, not of the price alone."""

    MARGIN = "margin"
    MATCHING = "matching"
    LIQUIDATION = "liquidation"
    SETTLEMENT = "settlement"
    AVERAGE = "average"


# margin.md 6, rule 2, as data. A price that is not there serves nothing.
REFUSED: Final[Mapping[Action, frozenset[PriceState]]] = {
    Action.MARGIN: frozenset(PriceState),
    Action.MATCHING: frozenset(
        {
            PriceState.NON_POSITIVE,
            PriceState.TOO_VOLATILE,
            PriceState.TOO_UNCERTAIN,
            PriceState.MISSING,
        }
    ),
    Action.LIQUIDATION: frozenset({PriceState.NON_POSITIVE, PriceState.TOO_VOLATILE, PriceState.MISSING}),
    Action.SETTLEMENT: frozenset(
        {
            PriceState.NON_POSITIVE,
            PriceState.TOO_VOLATILE,
            PriceState.TOO_UNCERTAIN,
            PriceState.MISSING,
        }
    ),
    Action.AVERAGE: frozenset({PriceState.NON_POSITIVE, PriceState.MISSING}),
}


def is_usable(states: Collection[PriceState], action: Action) -> bool:
    """Return whether a price with these states may serve the action (margin.md 6, rule 2)."""
    return REFUSED[action].isdisjoint(states)


@dataclass(frozen=True)
class PriceLimits:
    """When a price counts as stale, uncertain or too volatile; parameters, with the published values as defaults."""

    stale_for_margin_s: int = STALE_FOR_MARGIN_S
    volatile_ratio: int = VOLATILE_RATIO
    minimum_confidence_e8: int = MINIMUM_CONFIDENCE_E8  # below: TOO_UNCERTAIN


DEFAULT_LIMITS: Final = PriceLimits()


def compute_price_states(
    *,
    price_e8: int | None,
    stamp: int,
    confidence_e8: int,
    reference_e8: int | None,
    now: int,
    limits: PriceLimits = DEFAULT_LIMITS,
) -> frozenset[PriceState]:
    """Return what is wrong with a price now, an empty set for a good one.

    `reference_e8` is what the price is held against: its own time average, the last settlement price or a second source
    (incidents.md H1, H7); None leaves the spike test out, which only a first price may.
    """
    if price_e8 is None:
        return frozenset({PriceState.MISSING})
    states = set()
    if price_e8 <= 0:
        states.add(PriceState.NON_POSITIVE)
    if reference_e8 is not None and is_too_volatile(price_e8, reference_e8, limits.volatile_ratio):
        states.add(PriceState.TOO_VOLATILE)
    if confidence_e8 < limits.minimum_confidence_e8:
        states.add(PriceState.TOO_UNCERTAIN)
    if now - stamp > limits.stale_for_margin_s:
        states.add(PriceState.STALE_FOR_MARGIN)
    return frozenset(states)


def is_too_volatile(price_e8: int, reference_e8: int, ratio: int = VOLATILE_RATIO) -> bool:
    """Return whether a price is more than `ratio` times its reference, or less than the ratio-th part of it.

    A reference that is not positive cannot vouch for anything: the price counts as too volatile.
    """
    return reference_e8 <= 0 or price_e8 > ratio * reference_e8 or price_e8 * ratio < reference_e8


def compute_average_e8(older: Report, newer: Report) -> int:
    """Return the time-weighted average price in e8 between two reports of one feed, floored: the reference of a spike test.

    Raises:
        Rejected: another feed or a falling cumulative (as `verify_report_follows`); equal stamps, reason "bad_stamp".
    """
    verify_report_follows(newer, older)
    seconds = newer.stamp - older.stamp
    if seconds <= 0:
        raise Rejected("an average needs two stamps", got=seconds, expected="> 0", reason="bad_stamp")
    return (newer.cumulative_e8_seconds - older.cumulative_e8_seconds) // seconds


def is_deviating(price_e8: int, second_e8: int, tolerance_ppm: int) -> bool:
    """Return whether two sources of one price differ by more than the tolerance (parts per million of the smaller)."""
    smaller = min(price_e8, second_e8)
    return smaller <= 0 or abs(price_e8 - second_e8) * 1_000_000 > tolerance_ppm * smaller


# ---------------------------------------------------------------- signed documents


def get_report_digest(report: Report) -> Digest:
    """Return what a price signer signs for a report (data.md 3).

    Raises:
        Rejected: a field does not fit its type, reason "range" or "bad_word".
    """
    return compute_report_digest(
        report.source,
        report.underlying,
        report.stamp,
        report.cumulative_e8_seconds,
        report.spot_e8,
        report.confidence_e8,
    )


def get_mark_digest(mark: Mark) -> Digest:
    """Return what a price signer signs for a mark (data.md 3).

    Raises:
        Rejected: a field does not fit its type, reason "range" or "bad_word".
    """
    return compute_mark_digest(
        mark.source, mark.underlying, mark.expiry, mark.stamp, mark.forward_e8, mark.svi_e18, mark.confidence_e8
    )


def verify_report(
    signed: SignedReport,
    *,
    signers: Collection[bytes],
    threshold: int,
    now: int,
    heartbeat_s: int | None = SPOT_HEARTBEAT_S,
    previous: Report | None = None,
) -> Report:
    """Return the report if m distinct price signers signed exactly its values and the values are possible (data.md 3).

    `heartbeat_s` None leaves staleness out (a settlement report is read long after its stamp); `previous` is the newest
    accepted report of the same (source, underlying).

    Raises:
        Rejected: "bad_stamp" (not a whole minute, or after now), "stale", "bad_price", "bad_confidence", "wrong_source",
            "cumulative_fell", "too_many_signatures", "bad_signature", "unknown_signer", "duplicate_signer",
            "too_few_signatures".
    """
    report = signed.report
    _verify_stamp(report.stamp, now, heartbeat_s)
    _verify_range("spot_e8", report.spot_e8, 1, MAX_PRICE_E8, "bad_price")
    _verify_range("cumulative_e8_seconds", report.cumulative_e8_seconds, 0, MAX_CUMULATIVE, "bad_price")
    _verify_range("confidence_e8", report.confidence_e8, 0, PRICE_SCALE_E8, "bad_confidence")
    if previous is not None:
        verify_report_follows(report, previous)
    # Signatures last: everything above costs nothing.
    _verify_signatures(get_report_digest(report), signed.signatures, signers, threshold)
    return report


def verify_report_follows(report: Report, previous: Report) -> None:
    """Check that a report can follow an accepted one of its feed.

    Raises:
        Rejected: "wrong_source" (another feed), "old_stamp" (older), "cumulative_fell", "two_values" (same stamp, other values).
    """
    if (report.source, report.underlying) != (previous.source, previous.underlying):
        raise Rejected(
            "a report follows another feed",
            got=report.source + report.underlying,
            expected=previous.source + previous.underlying,
            reason="wrong_source",
        )
    if report.stamp < previous.stamp:
        raise Rejected(
            "a report is older than the accepted one", got=report.stamp, expected=previous.stamp, reason="old_stamp"
        )
    if report.stamp == previous.stamp and report != previous:
        raise Rejected("a feed gave two values for one stamp", got=report, expected=previous, reason="two_values")
    if report.cumulative_e8_seconds < previous.cumulative_e8_seconds:
        raise Rejected(
            "the cumulative price of a feed fell",
            got=report.cumulative_e8_seconds,
            expected=f">= {previous.cumulative_e8_seconds}",
            reason="cumulative_fell",
        )


def verify_mark(
    signed: SignedMark,
    *,
    signers: Collection[bytes],
    threshold: int,
    now: int,
    heartbeat_s: int | None = MARK_HEARTBEAT_S,
) -> Mark:
    """Return the mark if m distinct price signers signed exactly its values and the values are possible (data.md 3).

    Raises:
        Rejected: as `verify_report`; "bad_expiry" (before the stamp, or more than 400 days after it), "bad_slice" (not six
            values, out of range, or a reference time that is not positive).
    """
    mark = signed.mark
    _verify_stamp(mark.stamp, now, heartbeat_s)
    if not mark.stamp <= mark.expiry <= mark.stamp + EXPIRY_HORIZON_S:
        raise Rejected(
            "the expiry of a mark is out of range", got=mark.expiry, expected="within 400 days", reason="bad_expiry"
        )
    _verify_range("forward_e8", mark.forward_e8, 1, MAX_PRICE_E8, "bad_price")
    _verify_range("confidence_e8", mark.confidence_e8, 0, PRICE_SCALE_E8, "bad_confidence")
    if len(mark.svi_e18) != SVI_LENGTH:
        raise Rejected(
            "a volatility slice has six values", got=len(mark.svi_e18), expected=SVI_LENGTH, reason="bad_slice"
        )
    for value in mark.svi_e18:
        _verify_range("svi_e18", value, -MAX_SVI_E18, MAX_SVI_E18, "bad_slice")
    _verify_range("svi_e18[5] (reference time)", mark.svi_e18[5], 1, MAX_SVI_E18, "bad_slice")
    _verify_signatures(get_mark_digest(mark), signed.signatures, signers, threshold)
    return mark


def _verify_stamp(stamp: int, now: int, heartbeat_s: int | None) -> None:
    if stamp <= 0 or stamp % MINUTE_S:
        raise Rejected("a stamp is not a whole minute", got=stamp, expected="a multiple of 60", reason="bad_stamp")
    if stamp > now:
        raise Rejected("a stamp lies in the future", got=stamp, expected=f"<= {now}", reason="bad_stamp")
    if heartbeat_s is not None and stamp + heartbeat_s < now:
        raise Rejected("a price is stale", got=stamp, expected=f">= {now - heartbeat_s}", reason="stale")


def _verify_range(name: str, value: int, low: int, high: int, reason: str) -> None:
    if not low <= value <= high:
        raise Rejected(f"{name} is out of range", got=value, expected=f"{low} to {high}", reason=reason)


def _verify_signatures(
    digest: bytes, signatures: tuple[bytes, ...], signers: Collection[bytes], threshold: int
) -> None:
    """Check for at least `threshold` signatures, each by another whitelisted signer; one bad signature spoils the document."""
    if threshold < 1:
        raise Rejected("a price threshold is at least 1", got=threshold, expected=">= 1", reason="too_few_signatures")
    if len(signatures) > min(MAX_SIGNATURES, len(signers)):
        raise Rejected(
            "a price carries more signatures than there are signers",
            got=len(signatures),
            expected=f"<= {len(signers)}",
            reason="too_many_signatures",
        )
    if len(signatures) < threshold:
        raise Rejected(
            "a price carries too few signatures",
            got=len(signatures),
            expected=f">= {threshold}",
            reason="too_few_signatures",
        )
    seen: set[bytes] = set()
    for signature in signatures:
        signer = recover_signer(digest, signature)
        if signer not in signers:
            raise Rejected("a price is signed by a stranger", got=signer, reason="unknown_signer")
        if signer in seen:
            raise Rejected("a price signer signed twice", got=signer, reason="duplicate_signer")
        seen.add(signer)


# ---------------------------------------------------------------- settlement


@dataclass(frozen=True, order=True)
class SettlementKey:
    """Series with equal keys settle at one price on every vault (protocol.md 7.1)."""

    underlying: bytes
    expiry: int
    price_source: bytes
    twap_seconds: int


def get_settlement_key(definition: SeriesDefinition) -> SettlementKey:
    """Return the key under which a series settles."""
    return SettlementKey(definition.underlying, definition.expiry, definition.price_source, definition.twap_seconds)


def is_settlement_stamp(stamp: int, instant: int) -> bool:
    """Return whether a stamp serves an instant: the instant itself or the first whole minute after it."""
    return stamp == instant + (-instant) % MINUTE_S


def compute_settlement_price(start: Report, end: Report, *, key: SettlementKey) -> int:
    """Return the settlement price in e8: difference of two cumulative reports over the difference of their stamps, floored.

    `start` is stamped expiry - twap_seconds and `end` expiry, or the first stamp after, less than 60 s later (protocol.md 7.1).

    Raises:
        Rejected: "wrong_source", "bad_stamp", "cumulative_fell"; "bad_price" when the average is not positive.
    """
    for report in (start, end):
        if (report.source, report.underlying) != (key.price_source, key.underlying):
            raise Rejected(
                "a settlement report is of another feed",
                got=report.source + report.underlying,
                expected=key.price_source + key.underlying,
                reason="wrong_source",
            )
    for report, instant, name in ((start, key.expiry - key.twap_seconds, "start"), (end, key.expiry, "end")):
        if not is_settlement_stamp(report.stamp, instant):
            raise Rejected(
                f"the {name} report of a settlement has the wrong stamp",
                got=report.stamp,
                expected=f"first whole minute from {instant}",
                reason="bad_stamp",
            )
    seconds = end.stamp - start.stamp
    if seconds <= 0:
        raise Rejected("a settlement window is empty", got=seconds, expected="> 0", reason="bad_stamp")
    gained = end.cumulative_e8_seconds - start.cumulative_e8_seconds
    if gained < 0:
        raise Rejected("the cumulative price of a feed fell", got=gained, expected=">= 0", reason="cumulative_fell")
    price_e8 = gained // seconds
    _verify_range("settlement price", price_e8, 1, MAX_PRICE_E8, "bad_price")
    return price_e8


def verify_settlement_price(price_e8: int, reference_e8: int, limits: PriceLimits = DEFAULT_LIMITS) -> None:
    """Check a settlement price against a second source or the last settlement (incidents.md H1, H7).

    Raises:
        Rejected: more than `volatile_ratio` times away from the reference, reason "too_volatile".
    """
    if is_too_volatile(price_e8, reference_e8, limits.volatile_ratio):
        raise Rejected(
            "a settlement price is too far from its reference: settlement waits for a human",
            got=price_e8,
            expected=f"within a factor {limits.volatile_ratio} of {reference_e8}",
            reason="too_volatile",
        )


def compute_window_forward_e8(start: Report, newest: Report, *, forward_e8: int, key: SettlementKey) -> int:
    """Return the expected settlement price inside the averaging window: the part that is fixed plus forward for the rest.

    margin.md 2.3: fixed = (cumulative now - cumulative at start) / window, variable = forward * remaining / window; floored.
    Before the window it is the forward itself.

    Raises:
        Rejected: reports of another feed, reason "wrong_source"; the newest is before the start, reason "bad_stamp".
    """
    for report in (start, newest):
        if (report.source, report.underlying) != (key.price_source, key.underlying):
            raise Rejected("a report of the window is of another feed", got=report.source, reason="wrong_source")
    if newest.stamp < start.stamp or newest.cumulative_e8_seconds < start.cumulative_e8_seconds:
        raise Rejected(
            "the newest report is older than the window", got=newest.stamp, expected=start.stamp, reason="bad_stamp"
        )
    passed = min(newest.stamp - start.stamp, key.twap_seconds)
    fixed = newest.cumulative_e8_seconds - start.cumulative_e8_seconds
    return (fixed + forward_e8 * (key.twap_seconds - passed)) // key.twap_seconds


def compute_payoff(definition: SeriesDefinition, quantity_e8: int, price_e8: int) -> Fraction:
    """Return the exact payoff of a signed quantity in whole units of the quote class (negative for the payer).

    max(0, +-(S - K)) * multiplier * quantity / 10^24, with S, K, multiplier and quantity in e8 (protocol.md 7.1).

    Raises:
        Rejected: the right is not 0 (put) or 1 (call), reason "bad_series".
    """
    if definition.right not in {0, 1}:
        raise Rejected("a series is neither put nor call", got=definition.right, expected="0 or 1", reason="bad_series")
    move = price_e8 - definition.strike_e8 if definition.right == 1 else definition.strike_e8 - price_e8
    return Fraction(max(0, move) * definition.multiplier_e8 * quantity_e8, 10**24)


def compute_payoff_units(definition: SeriesDefinition, quantity_e8: int, price_e8: int, decimals: int) -> int:
    """Return the payoff in units of 10^-decimals of the class: receivers down, payers up, so the sum over all is <= 0.

    Both are one floor of the signed value; what is left goes to HOUSE (protocol.md 7).
    """
    payoff = compute_payoff(definition, quantity_e8, price_e8)
    scale: int = 10**decimals
    return payoff.numerator * scale // payoff.denominator
