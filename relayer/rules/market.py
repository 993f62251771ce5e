"""The market snapshot of a plan: what goes in, what every node checks before it votes, and the view that margin reads.

A snapshot is a document that the proposer names (data.md 3). Staleness never refuses a snapshot, because a silent feed must not
stop what does not need it; it makes the price unusable for the actions that margin.md 6 lists, in the view.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final

from messages.documents import (
    AssetParameters,
    MarketSnapshot,
    Parameters,
    Report,
    Settlement,
    SignedMark,
    SignedReport,
)
from messages.errors import Rejected
from messages.hashing import keccak256
from messages.ids import ZERO32
from relayer.rules.ledger import Key, Ledger
from relayer.rules.margin.model import PAR_E8, ExpiryMark, MarketView, UnderlyingMark
from relayer.rules.prices import (
    MARK_HEARTBEAT_S,
    SPOT_HEARTBEAT_S,
    Action,
    PriceLimits,
    PriceState,
    SettlementKey,
    compute_price_states,
    compute_settlement_price,
    get_settlement_key,
    is_settlement_stamp,
    is_usable,
    verify_mark,
    verify_report,
    verify_settlement_price,
)

CLOCK_SKEW_S: Final = 30
"""``now`` of a snapshot is within this of each signer's own clock (protocol.md 5)."""

LIMITS: Final = PriceLimits(stale_for_margin_s=120)
"""Reports are stamped on whole minutes, so the newest one is up to a minute old before the next can be signed."""

REFERENCE_MIN_AGE_S: Final = 1_800
REFERENCE_MAX_AGE_S: Final = 7_200
"""The report beside the newest one: their time average is what a spot is held against (margin.md 6, rule 2)."""

MAX_REPORTS: Final = 2_048
MAX_MARKS: Final = 8_192
MAX_SETTLEMENTS: Final = 2_048

Feed = tuple[bytes, bytes]
"""(source, underlying)."""


def get_asset_feed(asset: AssetParameters) -> Feed:
    """Return the feed of an asset's price against its class: underlying = keccak256 of its CAIP-19 id (data.md 3)."""
    return asset.price_source, keccak256(asset.caip19.encode())


# ---------------------------------------------------------------- building


def get_settlements_needed(ledger: Ledger, now: int) -> tuple[SettlementKey, ...]:
    """Return the keys of expired series that somebody still holds and that have no price on record, ascending."""
    held = {series for table in ledger.positions.values() for series in table}
    keys = set()
    for series in held:
        definition = ledger.series.get(series)
        if definition is not None and definition.expiry <= now:
            key = get_settlement_key(definition)
            if key not in ledger.prices_e8:
                keys.add(key)
    return tuple(sorted(keys))


def compute_snapshot(
    now: int,
    reports: Iterable[SignedReport],
    marks: Iterable[SignedMark],
    settlements_needed: Iterable[SettlementKey] = (),
) -> MarketSnapshot:
    """Choose a snapshot from everything that was received: deterministic, whatever the order.

    Args:
        now: unix seconds; nothing stamped later is used.
        reports: signed reports, all that are known; the newest of each feed is taken, one older as its reference, and
            the pairs that settle ``settlements_needed``.
        marks: signed marks; the newest of each (source, underlying, expiry).
        settlements_needed: from `get_settlements_needed`; those without both reports are left out and wait.
    """
    feeds: dict[Feed, dict[int, SignedReport]] = {}
    for signed in reports:
        report = signed.report
        if report.stamp <= now:
            by_stamp = feeds.setdefault((report.source, report.underlying), {})
            known = by_stamp.get(report.stamp)
            if known is None or _get_report_key(signed) < _get_report_key(known):
                by_stamp[report.stamp] = signed
    chosen: list[SignedReport] = []
    for by_stamp in feeds.values():
        newest = max(by_stamp)
        chosen.append(by_stamp[newest])
        older = [s for s in by_stamp if REFERENCE_MIN_AGE_S <= newest - s <= REFERENCE_MAX_AGE_S]
        if older:
            chosen.append(by_stamp[max(older)])
    best: dict[tuple[bytes, bytes, int], SignedMark] = {}
    for mark in marks:
        if mark.mark.stamp > now or mark.mark.expiry <= now:
            continue
        key = (mark.mark.source, mark.mark.underlying, mark.mark.expiry)
        old = best.get(key)
        if old is None or _get_mark_rank(mark) > _get_mark_rank(old):
            best[key] = mark
    return MarketSnapshot(
        now=now,
        reports=tuple(sorted(chosen, key=_get_report_key)),
        marks=tuple(best[key] for key in sorted(best)),
        settlements=tuple(_find_settlements(feeds, sorted(set(settlements_needed)))),
    )


def _get_report_key(signed: SignedReport) -> tuple[bytes, bytes, int, int, int, int, tuple[bytes, ...]]:
    r = signed.report
    return r.source, r.underlying, r.stamp, r.cumulative_e8_seconds, r.spot_e8, r.confidence_e8, signed.signatures


def _get_mark_rank(signed: SignedMark) -> tuple[int, int, tuple[int, ...], int, tuple[bytes, ...]]:
    m = signed.mark
    return m.stamp, m.forward_e8, m.svi_e18, m.confidence_e8, signed.signatures


def _find_settlements(
    feeds: Mapping[Feed, Mapping[int, SignedReport]], needed: Sequence[SettlementKey]
) -> Iterable[Settlement]:
    for key in needed:
        by_stamp = feeds.get((key.price_source, key.underlying), {})
        start = [s for s in by_stamp if is_settlement_stamp(s, key.expiry - key.twap_seconds)]
        end = [s for s in by_stamp if is_settlement_stamp(s, key.expiry)]
        if not start or not end:
            continue
        settlement = Settlement(
            key.underlying,
            key.price_source,
            key.expiry,
            key.twap_seconds,
            by_stamp[start[0]],
            by_stamp[end[0]],
        )
        try:
            _verify_settlement(settlement, key)
        except Rejected:
            continue  # what these reports give may not settle anything: it waits, and `explain` says so
        yield settlement


# ---------------------------------------------------------------- checking


def verify_market(snapshot: MarketSnapshot, parameters: Parameters, previous_now: int, own_now: int) -> None:
    """Check a proposed snapshot before any plan is computed from it.

    Args:
        snapshot: as proposed.
        parameters: price signers and their threshold.
        previous_now: ``now`` of the last snapshot this node voted for (0 at first): now never decreases.
        own_now: this node's clock, unix seconds.

    Raises:
        Rejected: "now_fell", "clock_skew", "too_many_prices", "not_canonical" (order or a feed named too often), or whatever
            `prices.verify_report`, `verify_mark`, `compute_settlement_price` and `verify_settlement_price` say.
    """
    now = snapshot.now
    if now < previous_now:
        raise Rejected("the time of a snapshot fell", got=now, expected=f">= {previous_now}", reason="now_fell")
    if abs(now - own_now) > CLOCK_SKEW_S:
        raise Rejected(
            "the time of a snapshot is too far from the own clock",
            got=now,
            expected=f"{own_now} +- {CLOCK_SKEW_S}",
            reason="clock_skew",
        )
    sizes = (len(snapshot.reports), len(snapshot.marks), len(snapshot.settlements))
    if sizes[0] > MAX_REPORTS or sizes[1] > MAX_MARKS or sizes[2] > MAX_SETTLEMENTS:
        raise Rejected("too many prices in a snapshot", got=sizes, reason="too_many_prices")
    feed_keys = [(s.report.source, s.report.underlying, s.report.stamp) for s in snapshot.reports]
    mark_keys = [(s.mark.source, s.mark.underlying, s.mark.expiry) for s in snapshot.marks]
    keys = [_get_key(s) for s in snapshot.settlements]
    for name, ids in (("reports", feed_keys), ("marks", mark_keys), ("settlements", keys)):
        # Strictly ascending: one order, nothing twice. No node may see another document in the same prices.
        if any(not a < b for a, b in pairwise(ids)):  # type: ignore[operator]  # rows of one type each
            raise Rejected(f"{name} of a snapshot do not ascend", reason="not_canonical")
    per_feed: dict[Feed, int] = {}
    for source, underlying, _ in feed_keys:
        per_feed[source, underlying] = per_feed.get((source, underlying), 0) + 1
        if per_feed[source, underlying] > 2:
            raise Rejected("a feed has the newest report and one reference", got=underlying, reason="not_canonical")
    signers, threshold = parameters.price_signers, parameters.price_threshold
    for signed in snapshot.reports:
        verify_report(signed, signers=signers, threshold=threshold, now=now, heartbeat_s=None)
    for mark in snapshot.marks:
        verify_mark(mark, signers=signers, threshold=threshold, now=now, heartbeat_s=None)
    for settlement, key in zip(snapshot.settlements, keys, strict=True):
        for part in (settlement.start, settlement.end):
            verify_report(part, signers=signers, threshold=threshold, now=now, heartbeat_s=None)
        _verify_settlement(settlement, key)


def _verify_settlement(settlement: Settlement, key: SettlementKey) -> None:
    """Check that the two reports give a price that may settle: their confidence, and its distance from the last spot."""
    for part in (settlement.start.report, settlement.end.report):
        if part.confidence_e8 < LIMITS.minimum_confidence_e8:
            raise Rejected("a settlement report is too uncertain", got=part.confidence_e8, reason="too_uncertain")
    price_e8 = compute_settlement_price(settlement.start.report, settlement.end.report, key=key)
    verify_settlement_price(price_e8, settlement.end.report.spot_e8)


def _get_key(settlement: Settlement) -> SettlementKey:
    return SettlementKey(settlement.underlying, settlement.expiry, settlement.price_source, settlement.twap_seconds)


# ---------------------------------------------------------------- reading


def compute_settlement_prices(snapshot: MarketSnapshot) -> dict[SettlementKey, int]:
    """Return the settlement prices (e8) that the snapshot's reports give; Rejected as `compute_settlement_price`."""
    return {
        _get_key(s): compute_settlement_price(s.start.report, s.end.report, key=_get_key(s))
        for s in snapshot.settlements
    }


def _get_newest(snapshot: MarketSnapshot) -> tuple[dict[Feed, Report], dict[Feed, Report]]:
    """Return (newest, reference) report per feed; reports ascend by stamp within a feed."""
    newest: dict[Feed, Report] = {}
    reference: dict[Feed, Report] = {}
    for signed in snapshot.reports:
        feed = (signed.report.source, signed.report.underlying)
        if feed in newest:
            reference[feed] = newest[feed]
        newest[feed] = signed.report
    return newest, reference


def _get_states(report: Report | None, reference: Report | None, now: int) -> frozenset[PriceState]:
    if report is None or now - report.stamp > SPOT_HEARTBEAT_S:
        return frozenset({PriceState.MISSING})
    average = None
    if reference is not None and report.stamp > reference.stamp:
        gained = report.cumulative_e8_seconds - reference.cumulative_e8_seconds
        average = gained // (report.stamp - reference.stamp)
    return compute_price_states(
        price_e8=report.spot_e8,
        stamp=report.stamp,
        confidence_e8=report.confidence_e8,
        reference_e8=average,
        now=now,
        limits=LIMITS,
    )


def compute_asset_prices(snapshot: MarketSnapshot, parameters: Parameters) -> dict[Key, int]:
    """Return the price (e8) of each asset against its class by (vault id, asset); 0 where none may be used for margin.

    An asset whose price source is zero counts at par by decision of the operators.
    """
    newest, reference = _get_newest(snapshot)
    out: dict[Key, int] = {}
    for asset in parameters.assets:
        if asset.price_source == ZERO32:
            out[asset.vault_id, asset.asset] = PAR_E8
            continue
        feed = get_asset_feed(asset)
        report = newest.get(feed)
        usable = is_usable(_get_states(report, reference.get(feed), snapshot.now), Action.MARGIN)
        out[asset.vault_id, asset.asset] = report.spot_e8 if report is not None and usable else 0
    return out


def compute_market_view(
    snapshot: MarketSnapshot,
    parameters: Parameters,
    bound_prices_e8: Mapping[SettlementKey, int] | None = None,
    action: Action = Action.MARGIN,
) -> MarketView:
    """Return the market as margin reads it for one action.

    Args:
        snapshot: verified.
        parameters: which feed each underlying is margined by. A class other than the first is converted at the spot of the
            underlying of the same name; a class without one has no price.
        bound_prices_e8: settlement prices in acknowledged or open packets; they outrank what the snapshot gives.
        action: states that this action tolerates are left out (margin.md 6, rule 2).
    """
    newest, reference = _get_newest(snapshot)
    marks: dict[Feed, dict[int, ExpiryMark]] = {}
    for signed in snapshot.marks:
        mark = signed.mark
        if snapshot.now - mark.stamp <= MARK_HEARTBEAT_S:
            marks.setdefault((mark.source, mark.underlying), {})[mark.expiry] = ExpiryMark(
                expiry=mark.expiry,
                forward_e8=mark.forward_e8,
                svi_e18=tuple(mark.svi_e18),
                confidence_e8=mark.confidence_e8,
            )
    underlyings: dict[bytes, UnderlyingMark] = {}
    for item in parameters.underlyings:
        feed = (item.price_source, item.underlying)
        report = newest.get(feed)
        states = _get_states(report, reference.get(feed), snapshot.now)
        underlyings[item.underlying] = UnderlyingMark(
            underlying=item.underlying,
            price_source=item.price_source,
            spot_e8=0 if report is None else report.spot_e8,
            spot_confidence_e8=0 if report is None else report.confidence_e8,
            expiries=marks.get(feed, {}),
            states=frozenset() if is_usable(states, action) else states,
        )
    prices = compute_settlement_prices(snapshot)
    prices.update(bound_prices_e8 or {})
    classes: dict[bytes, int] = {}
    stable_e8 = PAR_E8
    for index, item_class in enumerate(parameters.classes):
        spot = underlyings.get(item_class.quote_class)
        if spot is None or spot.states or spot.spot_e8 <= 0:
            continue
        if index == 0:
            stable_e8 = spot.spot_e8
        else:
            classes[item_class.quote_class] = spot.spot_e8
    return MarketView(snapshot.now, underlyings, prices, classes, stable_e8)
