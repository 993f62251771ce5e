"""`relayer plan --dry-run`: what the real rules would plan from the newest cut now, and why the rest is not in it."""

from __future__ import annotations

from typing import Any

from messages.documents import compute_digest
from relayer.commands.view import View
from relayer.commands.words import KIND_NAMES, Speaker, get_text
from relayer.render import Answer, Table, format_time, hex_of
from relayer.rules.ledger import compute_ledger_digest
from relayer.rules.netting import NettingStatistics
from relayer.rules.plan import PlanResult, compute_plan, get_body


def compute_dry_plan(view: View) -> PlanResult:
    """The plan of a proposal that would be made now; nothing is signed, sent or recorded.

    Raises:
        Rejected: no cut yet, or parameters and prices that make no plan. Conflict: as the rules.
    """
    return compute_plan(view.ledger, view.market, view.parameters, view.store.get_number("base_k"), view.open_packets)


def show_plan(view: View, *, is_full: bool) -> Answer:
    """The packets of the plan with what each does, and every note of the rules about what is left out."""
    speaker = Speaker(view, is_full=is_full)
    result = compute_dry_plan(view)
    packets: list[dict[str, Any]] = []
    for planned in result.plan.packets:
        body = get_body(planned)
        packets.append(
            {
                "chain": speaker.chain(planned.vault_id),
                "vault_id": hex_of(planned.vault_id),
                "sequence": planned.sequence,
                "kind": KIND_NAMES[body.KIND],
                "purpose": planned.purpose,
                "operator_epoch": planned.operator_epoch,
                "timeout": planned.timeout,
                "effects": speaker.inbox(planned.vault_id, body),
            }
        )
    notes = [
        {
            "code": note.code,
            "chain": speaker.chain(note.vault_id) if note.vault_id in view.vaults else "",
            "subject": hex_of(note.subject) if note.subject else "",
            "text": note.text,
        }
        for note in result.notes
    ]
    netting = [_describe_netting(speaker, quote_class, s) for quote_class, s in sorted(result.netting.items())]
    data: dict[str, Any] = speaker.frame("plan") | {
        "k": result.plan.k,
        "plan_digest": hex_of(compute_digest(result.plan)),
        "cut_digest": hex_of(result.plan.cut_digest),
        "ledger_digest": hex_of(compute_ledger_digest(view.ledger)),
        "market_digest": hex_of(result.plan.market_digest),
        "market_now": view.market.now,
        "parameters_digest": hex_of(result.plan.parameters_digest),
        "open_packets": len(view.open_packets.packets),
        "packets": packets,
        "notes": notes,
        "netting": netting,
        "cut": [{"chain": speaker.chain(v), **view.get_trust(v)} for v in view.shown_vault_ids],
    }
    rows = []
    for packet in packets:
        for n, line in enumerate(packet["effects"]):
            head = [packet["chain"], str(packet["sequence"]), packet["kind"], packet["purpose"]] if n == 0 else [""] * 4
            rows.append([*head, line])
    parts: list[Table | str] = [
        speaker.heading(),
        f"Dry run of proposal {result.plan.k:,} at prices of {format_time(view.market.now)}: nothing is signed or sent.",
        Table(
            "Planned packets", ("chain", "no", "kind", "purpose", "does"), rows, right=("no",), empty="nothing to do"
        ),
        Table(
            "Why the rest is not in it",
            ("code", "chain", "about", "why"),
            [
                [n["code"], n["chain"], speaker.names(note.subject) if note.subject else "", n["text"]]
                for n, note in zip(notes, result.notes, strict=True)
            ],
            empty="nothing is left out",
        ),
    ]
    parts += [
        f"Netting in {n['class']}: gross obligations {n['gross_text']} in {n['gross_transfers']} positions, cash moved {n['net_text']}"
        f" in {n['net_transfers']} legs, new dues {n['dues_text']}"
        for n in netting
    ]
    parts.append("")
    parts += [f"Cut of {c['chain']}: {', '.join(speaker.trust(view.find_vault(c['chain'])))} old" for c in data["cut"]]
    parts.append(f"Plan digest {data['plan_digest']}")
    return Answer(data, parts)


def _describe_netting(speaker: Speaker, quote_class: bytes, statistics: NettingStatistics) -> dict[str, Any]:
    return {
        "class": get_text(quote_class),
        "decimals": speaker.class_decimals.get(quote_class, 0),
        "gross": str(statistics.gross),
        "gross_text": speaker.due(quote_class, statistics.gross),
        "gross_transfers": statistics.gross_transfers,
        "net": str(statistics.net),
        "net_text": speaker.due(quote_class, statistics.net),
        "net_transfers": statistics.net_transfers,
        "dues": str(statistics.dues),
        "dues_text": speaker.due(quote_class, statistics.dues),
    }
