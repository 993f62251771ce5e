"""How long things took, from the operators' own log lines (JSON, with times): finality seen, proposal, certificate, transaction handed over.

A packet counts from the moment at which the first operator had the new facts on record that gave it work. Packets that prices or expiry
caused have no such moment: they count from their proposal on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

TRIGGER_S = 2.0
"""Work that shows within this time after new facts, at one node, was caused by them; a look is taken each second."""
STAGES = (
    "finality_to_proposal",
    "proposal_to_certificate",
    "certificate_to_submission",
    "finality_to_submission",
    "submission_to_proof",
)
"""The last one is the chain's own: its block, its finality, and the look that finds the Ack."""


def read_events(folder: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """Log lines of the operators in the order of time; ``at`` in unix seconds. What is no JSON object with a time is passed over."""
    events = []
    for name in names:
        path = folder / f"{name}.log"
        for line in path.read_text(errors="replace").splitlines() if path.is_file() else ():
            try:
                found = json.loads(line)
                found["at"] = datetime.fromisoformat(found["timestamp"]).timestamp()
            except (ValueError, KeyError, TypeError):
                continue
            events.append(found)
    return sorted(events, key=lambda e: float(e["at"]))


def compute_percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that at least ``percent`` of all do not exceed (nearest rank); values need not be sorted."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def compute_latencies(events: Iterable[Mapping[str, Any]], chains: Mapping[str, str]) -> dict[str, Any]:
    """Stages of every packet in milliseconds, with median and 99th percentile, of all and chain by chain.

    Args:
        events: from `read_events`.
        chains: CAIP-2 name by the first eight hex digits of the vault id, which is how certificates are logged.
    """
    events = list(events)
    packets: list[dict[str, Any]] = []
    seen: set[tuple[str, int]] = set()
    for certified in (e for e in events if e.get("event") == "certified"):
        chain, sequence, k = chains.get(str(certified["vault"]), ""), int(certified["sequence"]), int(certified["k"])
        if (chain, sequence) in seen:
            continue
        seen.add((chain, sequence))
        sent = _find(events, "sent", certified["at"], chain=chain, sequence=sequence)
        proposed = _find_last(events, "propose", certified["at"], k=k)
        if sent is None or proposed is None:
            continue
        facts_at = _find_trigger(events, k)
        packet: dict[str, Any] = {
            "chain": chain,
            "sequence": sequence,
            "k": k,
            "sent_by": sent.get("node"),
            "proposal_to_certificate": _ms(proposed["at"], certified["at"]),
            "certificate_to_submission": _ms(certified["at"], sent["at"]),
        }
        proven = _find(events, "packet settled", sent["at"], vault=certified["vault"], sequence=sequence)
        if proven is not None:
            packet["submission_to_proof"] = _ms(sent["at"], proven["at"])
        if facts_at is not None and facts_at <= proposed["at"]:
            packet["finality_to_proposal"] = _ms(facts_at, proposed["at"])
            packet["finality_to_submission"] = _ms(facts_at, sent["at"])
        packets.append(packet)
    by_chain = {
        chain: _summarize([p for p in packets if p["chain"] == chain])
        for chain in dict.fromkeys(str(p["chain"]) for p in packets)
    }
    return {"summary": _summarize(packets), "by_chain": by_chain, "packets": packets}


def _summarize(packets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    summary = {}
    for stage in STAGES:
        values = [float(p[stage]) for p in packets if stage in p]
        if values:
            summary[stage] = {
                "count": len(values),
                "p50_ms": compute_percentile(values, 50),
                "p99_ms": compute_percentile(values, 99),
            }
    return summary


def _find(events: Iterable[Mapping[str, Any]], name: str, after: float, **fields: Any) -> Mapping[str, Any] | None:
    return next((e for e in events if e.get("event") == name and e["at"] >= after and _fits(e, fields)), None)


def _find_last(
    events: Sequence[Mapping[str, Any]], name: str, before: float, **fields: Any
) -> Mapping[str, Any] | None:
    return next(
        (e for e in reversed(events) if e.get("event") == name and e["at"] <= before and _fits(e, fields)), None
    )


def _fits(event: Mapping[str, Any], fields: Mapping[str, Any]) -> bool:
    return all(event.get(key) == value for key, value in fields.items())


def _find_trigger(events: Sequence[Mapping[str, Any]], k: int) -> float | None:
    """When the first node had the facts on record that gave it the work of slot ``k``."""
    found = []
    for work in (e for e in events if e.get("event") == "there is work" and e.get("k") == k):
        facts = _find_last(events, "facts", work["at"], node=work.get("node"))
        if facts is not None and work["at"] - facts["at"] <= TRIGGER_S:
            found.append(float(facts["at"]))
    return min(found, default=None)


def _ms(begin: float, end: float) -> float:
    return round((end - begin) * 1000, 1)
