"""`relayer status` and `relayer packets`: what the node knows and does, and what became of every packet."""

from __future__ import annotations

from typing import Any

from messages.bodies import WIDEST_LIMITS, Ack, decode_inbox_body, get_kind
from messages.errors import Rejected
from relayer.commands.view import View, get_tier_data
from relayer.commands.words import KIND_NAMES, Speaker, get_reason_name
from relayer.render import Answer, Table, format_age, format_time, hex_of
from relayer.rules.quorum import get_proposer
from relayer.store import PacketRecord

MAX_SHOWN_BLAMES = 20


# ---- status -------------------------------------------------------------------------------------------------------------


def show_status(view: View, *, is_full: bool) -> Answer:
    """What the node has proven and how old it is, who sits in the committee, what waits, what is stopped, who misbehaved.

    Exit code 1 where something is halted or a chain has no proven state.
    """
    speaker = Speaker(view, is_full=is_full)
    chains = [_describe_chain(view, speaker, vault_id) for vault_id in view.shown_vault_ids]
    k = view.store.get_number("base_k")
    committee = view.committee
    halts: list[dict[str, Any]] = [
        {
            "id": halt.id,
            "subject": halt.subject,
            "reason": halt.reason,
            "detail": halt.detail,
            "raised_at": halt.raised_at,
            "cleared_by": list(halt.cleared_by),
        }
        for halt in view.store.get_halts()
        if halt.is_active
    ]
    blames: list[dict[str, Any]] = [
        {"chain": b.chain, "source": b.source, "reason": b.reason, "detail": b.detail, "count": count, "last_at": last}
        for b, count, last in view.store.get_blames()
    ]
    data = speaker.frame("status") | {
        "chains": chains,
        "committee": {
            "epoch": committee.epoch,
            "threshold": committee.threshold,
            "operators": [hex_of(o) for o in committee.operators],
            "next_k": k,
            "next_proposer": hex_of(get_proposer(committee, k, 0)),
        },
        "open_packets": sum(c["open_packets"] for c in chains),
        "halts": halts,
        "blames": blames,
        "equivocations": len(view.store.get_evidence()),
    }
    rows = [
        [
            c["chain"],
            f"{c['height']:,}" if c["height"] else "-",
            format_time(c["time"]) if c["time"] else "-",
            format_age(c["age_s"]) if c["height"] else "-",
            c["tier_text"],
            f"{c['outbox_sequence']:,}",
            f"{c['inbox_sequence']:,}",
            str(c["open_packets"]),
            f"{c['trades_waiting']} / {c['requests_waiting']}",
            c["state"],
        ]
        for c in chains
    ]
    columns: tuple[str, ...] = (
        "chain",
        "height",
        "proven time",
        "age",
        "trust",
        "outbox",
        "inbox",
        "open",
        "trades / withdrawals waiting",
        "state",
    )
    parts: list[Table | str] = [
        speaker.heading(),
        Table("Chains", columns, rows, right=("height", "age", "outbox", "inbox", "open")),
        "",
        (
            f"Committee: {committee.threshold} of {len(committee.operators)} operators, epoch {committee.epoch}; next proposal {k:,}"
            f" by {speaker.names(get_proposer(committee, k, 0))}"
        ),
    ]
    if halts:
        columns = ("no", "stopped", "since", "reason", "what happened", "agreed to clear")
        rows = [
            [
                str(h["id"]),
                h["subject"],
                format_time(h["raised_at"]),
                h["reason"],
                h["detail"],
                ", ".join(h["cleared_by"]) or "nobody",
            ]
            for h in halts
        ]
        parts += [Table("Halts: a person has to look; two have to clear each", columns, rows)]
    if blames:
        columns = ("chain", "source", "reason", "times", "last", "detail")
        rows = [
            [b["chain"], b["source"], b["reason"], str(b["count"]), format_time(b["last_at"]), b["detail"][:100]]
            for b in blames[:MAX_SHOWN_BLAMES]
        ]
        parts += [
            Table("Sources that failed or lied (what they said was not believed)", columns, rows, right=("times",))
        ]
    if data["equivocations"]:
        parts.append(
            f"{data['equivocations']} proof(s) of operators signing two different things: see `relayer explain`."
        )
    parts.append(_get_next_step(chains, halts))
    is_good = not halts and all(c["height"] for c in chains)
    return Answer(data, parts, 0 if is_good else 1)


def _describe_chain(view: View, speaker: Speaker, vault_id: bytes) -> dict[str, Any]:
    state = view.newest_states[vault_id]
    chain = speaker.chain(vault_id)
    open_count = sum(1 for p in view.store.get_packets("open") if p.vault_id == vault_id)
    words = "ok"
    if vault_id not in view.heads:
        words = "no proven state yet"
    elif view.store.is_halted(f"chain:{chain}"):
        words = "HALTED"
    elif state.paused:
        words = "paused"
    elif state.contradictions:
        words = "CONTRADICTS ITSELF"
    return {
        "chain": chain,
        "family": view.vaults[vault_id].family,
        "vault_id": hex_of(vault_id),
        **view.get_trust(vault_id),
        "outbox_sequence": view.store.get_cursor(vault_id).sequence,
        "inbox_sequence": state.inbox_sequence,
        "open_packets": open_count,
        "trades_waiting": len(state.trades),
        "requests_waiting": len(state.requests),
        "done": state.done_count,
        "refused": state.refused_count,
        "void": state.void_count,
        "state": words,
    }


def _get_next_step(chains: list[dict[str, Any]], halts: list[dict[str, Any]]) -> str:
    if halts:
        return (
            "Next: read the halts above; nothing of a halted subject is believed or signed until two people clear it."
        )
    missing = [c["chain"] for c in chains if not c["height"]]
    if missing:
        return f"Next: start the node and wait for the first finalized header of {', '.join(missing)}."
    if any(c["open_packets"] for c in chains):
        return "Next: `relayer packets` shows what is on its way, `relayer explain CHAIN:NUMBER` why it is not done."
    return "Next: `relayer positions`, `relayer packets`, `relayer plan --dry-run`."


# ---- packets ------------------------------------------------------------------------------------------------------------


def get_packet_state(view: View, packet: PacketRecord) -> tuple[str, str]:
    """(stable word, sentence) of a packet with m votes: certified, sent, done, refused, absent and what lies between."""
    if packet.status == "done":
        return "done", "acknowledged: the vault did it"
    if packet.status == "refused":
        return "refused", "acknowledged: the vault refused it and did nothing"
    if packet.status == "absent":
        return "absent", "proven absent: it never takes effect, its number is free again"
    certificate = view.store.get_certificate_signatures(packet)
    if certificate is None:
        have = len(view.store.get_signatures(packet.vault_id, packet.sequence, packet.commitment))
        return "voted", f"m votes, {have} of {view.committee.threshold} signatures"
    transactions = view.store.get_transactions(packet=packet)
    head = view.heads.get(packet.vault_id)
    if head is not None and head.point.time >= packet.timeout:
        return "timed_out", "its time is over and no Ack is proven: absence is recorded at the next look"
    if not transactions:
        is_mine = view.store.is_intended(packet.vault_id, packet.sequence, packet.commitment)
        return (
            "certified",
            "certified; this node is about to send it" if is_mine else "certified; another operator's turn to send it",
        )
    last = transactions[-1]
    if last.sent_at is None:
        return "prepared", f"transaction {_shorten(last.signed.tx_id)} is stored and not handed over yet"
    return "sent", f"transaction {_shorten(last.signed.tx_id)} is {last.outcome}; only a proven Ack counts"


def _shorten(tx_id: str) -> str:
    return tx_id if len(tx_id) <= 20 else f"{tx_id[:18]}.."


def get_inbox_kind(value: bytes) -> str:
    """Name of the kind of an inbox body."""
    try:
        kind = get_kind(value)
    except Rejected:
        return "unreadable"
    return KIND_NAMES.get(kind, str(kind))


def show_packets(view: View, chain: str | None, last: int, *, is_full: bool) -> Answer:
    """Settlement packets with their state, and the newest outbox packets of each vault."""
    speaker = Speaker(view, is_full=is_full)
    vault_ids = view.shown_vault_ids if chain is None else (view.find_vault(chain),)
    inbox = [_describe_inbox(view, speaker, p) for p in view.store.get_packets() if p.vault_id in vault_ids]
    inbox = sorted(inbox, key=lambda p: (p["chain"], p["sequence"], p["k"]))[-last * len(vault_ids) :]
    outbox = []
    for vault_id in vault_ids:
        cursor = view.store.get_cursor(vault_id).sequence
        outbox += [
            _describe_outbox(view, speaker, fact) for fact in view.store.iterate_facts(vault_id, max(0, cursor - last))
        ]
    data = speaker.frame("packets") | {"inbox": inbox, "outbox": outbox}
    columns: tuple[str, ...] = ("chain", "no", "kind", "purpose", "proposal", "state", "what is known", "timeout")
    rows = [
        [
            p["chain"],
            str(p["sequence"]),
            p["kind"],
            p["purpose"],
            str(p["k"]),
            p["state"],
            p["state_text"] + (f" ({p['reason']})" if p["reason"] else ""),
            format_time(p["timeout"]),
        ]
        for p in inbox
    ]
    parts: list[Table | str] = [
        speaker.heading(),
        Table(
            "Settlement packets (clearing to vault)",
            columns,
            rows,
            right=("no", "proposal"),
            empty="none has m votes yet",
        ),
    ]
    columns = ("chain", "no", "kind", "what happened", "block time", "trust", "proven at")
    rows = [
        [
            p["chain"],
            str(p["sequence"]),
            p["kind"],
            p["text"],
            format_time(p["stamp"]),
            p["tier_text"],
            f"{p['height']:,}",
        ]
        for p in outbox
    ]
    parts.append(
        Table(
            f"Outbox packets (vault to clearing), the last {last} of each",
            columns,
            rows,
            right=("no", "proven at"),
            empty="none",
        )
    )
    return Answer(data, parts)


def _describe_inbox(view: View, speaker: Speaker, packet: PacketRecord) -> dict[str, Any]:
    state, text = get_packet_state(view, packet)
    certificate = view.store.get_certificate_signatures(packet)
    transactions = view.store.get_transactions(packet=packet)
    return {
        "chain": speaker.chain(packet.vault_id),
        "vault_id": hex_of(packet.vault_id),
        "sequence": packet.sequence,
        "commitment": hex_of(packet.commitment),
        "kind": get_inbox_kind(packet.value),
        "purpose": packet.purpose,
        "plan_digest": hex_of(packet.plan_digest),
        "k": packet.k,
        "operator_epoch": packet.operator_epoch,
        "timeout": packet.timeout,
        "state": state,
        "state_text": text,
        "reason": get_refusal(view, packet),
        "signatures": 0 if certificate is None else len(certificate[1]),
        "transactions": [{"id": t.signed.tx_id, "sent_at": t.sent_at or 0, "outcome": t.outcome} for t in transactions],
        "effects": describe_effects(speaker, packet),
    }


def describe_effects(speaker: Speaker, packet: PacketRecord) -> list[str]:
    """Lines about what a packet does; one line that says so where it cannot be read."""
    try:
        return speaker.inbox(packet.vault_id, decode_inbox_body(packet.value, WIDEST_LIMITS))
    except Rejected as error:
        return [f"unreadable: {error}"]


def find_ack(view: View, packet: PacketRecord) -> tuple[int, Ack] | None:
    """(outbox sequence, Ack) that answers a packet; None where none is on record."""
    if packet.status not in ("done", "refused"):
        return None
    for fact in view.store.iterate_facts(packet.vault_id):
        if isinstance(fact.body, Ack) and fact.body.inbox_commitment == packet.commitment:
            return fact.sequence, fact.body
    return None


def get_refusal(view: View, packet: PacketRecord) -> str:
    """Name of the reason a vault refused a packet with; "" where it did not."""
    if packet.status != "refused":
        return ""
    found = find_ack(view, packet)
    return "" if found is None else get_reason_name(found[1].reason)


def _describe_outbox(view: View, speaker: Speaker, fact: Any) -> dict[str, Any]:
    try:
        kind = KIND_NAMES.get(get_kind(fact.packet.payloads[0].value), "unknown")
    except (Rejected, IndexError):
        kind = "unreadable"
    return {
        "chain": speaker.chain(fact.vault_id),
        "vault_id": hex_of(fact.vault_id),
        "sequence": fact.sequence,
        "kind": kind,
        "text": speaker.outbox(fact.vault_id, fact.body, fact.void),
        "void": fact.void,
        "head": hex_of(fact.head),
        "stamp": fact.stamp,
        **get_tier_data(fact.tier),
        "height": fact.height,
        "time": fact.time,
        "age_s": max(0, view.now - fact.time),
        "proof_digest": hex_of(fact.proof_digest),
    }
