"""`relayer prove`, `verify`, `replay` and `archive export`: numbers that another machine can check without trusting this one."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from chains.base import Head, Point
from messages.digests import compute_committee_id, compute_vault_id
from messages.documents import Parameters, Plan, Proposal, compute_digest, decode_document
from messages.errors import Conflict, Rejected
from messages.outbox import ATTESTED
from messages.packet import compute_commitment
from messages.wire import Envelope, decode_envelope, verify_envelope
from relayer.anchors import get_anchors
from relayer.archive import (
    ArchivedParameters,
    ArchivedPlan,
    Record,
    iterate_archive,
    read_archive,
    write_archive,
)
from relayer.commands.view import View, get_tier_data
from relayer.commands.words import KIND_NAMES, Speaker
from relayer.proof_file import (
    MAX_PACKETS,
    MAX_PROOF_BYTES,
    Anchor,
    Judge,
    ProofStep,
    VerifiedFact,
    compute_proof_digest,
    decode_proof_file,
    encode_proof_file,
    make_proof_file,
    verify_proof,
)
from relayer.render import Answer, Table, format_age, format_time, hex_of
from relayer.replay import Replay, ReplayReport
from relayer.rules.ledger import compute_ledger, compute_ledger_digest, get_state_at
from relayer.rules.plan import compute_plan, finalize_packet
from relayer.rules.quorum import MAX_PROPOSAL_ENVELOPE_BYTES, Ballot, Committee, get_quorum_votes

HEX32 = re.compile(r"0x[0-9a-fA-F]{64}")


def make_judge(anchor: Anchor) -> Judge:
    """The verifier of an anchor, from the registry of families; Rejected where the anchor makes none."""
    from chains.registry import build_rules_of

    rules = build_rules_of(anchor.family, anchor.chain, anchor.vault_account, anchor.checkpoint, anchor.settings)
    return Judge(rules.vault_id, rules.limits, rules.verifier, rules.codec, rules.statement_s)


# ---- prove --------------------------------------------------------------------------------------------------------------


def prove_fact(view: View, anchors: Mapping[bytes, Anchor], subject: str) -> bytes:
    """The proof file of a fact, named CHAIN:NUMBER or by the first hex digits of its id; verified before it is returned.

    Raises:
        Rejected: no such fact ("unknown_fact"), or what is recorded does not prove it.
    """
    vault_id, sequence = _find_fact(view, subject)
    anchor = anchors[vault_id]
    store = view.store
    record = store.get_head_covering(vault_id, sequence)
    if record is None:
        raise Rejected(
            "this node is on the way to the head that proves this fact: ask again once it has caught up",
            got=subject,
            reason="unknown_fact",
        )
    if record.sequence - sequence >= MAX_PACKETS:
        raise Rejected(
            "this node joined long after this fact and has no head near it on record: ask a node that was there at the time",
            got=record.sequence,
            expected=f"a head before {sequence + MAX_PACKETS}",
            reason="unknown_fact",
        )
    bootstrap: ProofStep | None = None
    updates: list[ProofStep] = []
    later = list(get_anchors(store, anchor))
    for header in store.iterate_headers(anchor.chain):
        step = ProofStep(header.point.time, header.claim)
        if header.kind == "bootstrap":
            # A later bootstrap is a new anchor: what came before it is not needed.
            bootstrap, updates = step, []
            anchor = later.pop(0) if later else anchor
        else:
            updates.append(step)
        if header.point.height == record.point.height:
            break
    previous = store.get_fact_head(vault_id, sequence - 1)
    if bootstrap is None or previous is None:
        raise Rejected(
            "the records do not hold together: rebuild the store from the chains", got=subject, reason="chain_broken"
        )
    proof = make_proof_file(
        anchor,
        make_judge(anchor),
        bootstrap=bootstrap,
        updates=updates,
        point=Point(record.point.height, record.point.header_hash, record.point.time),
        head=Head(record.sequence, record.head),
        proof=record.proof,
        facts=store.iterate_facts(vault_id, sequence - 1, record.sequence),
        previous_head=previous,
        now=view.judge_time,
    )
    return encode_proof_file(proof) + b"\n"


def _find_fact(view: View, subject: str) -> tuple[bytes, int]:
    name, colon, number = subject.rpartition(":")
    if colon and number.isascii() and number.isdigit() and len(number) <= 19:
        vault_id = view.find_vault(name)
        if view.store.get_fact(vault_id, int(number)) is None:
            raise Rejected(
                "this packet is no fact yet: `relayer explain` says what it waits for",
                got=subject,
                expected=f"1 to {view.store.get_cursor(vault_id).sequence}",
                reason="unknown_fact",
            )
        return vault_id, int(number)
    digits = subject.lower().removeprefix("0x")
    found = view.store.find_facts(digits) if re.fullmatch(r"[0-9a-f]{4,64}", digits) else []
    if len(found) != 1:
        raise Rejected(
            "no single fact has this name" if not found else "several facts begin so: give more digits",
            got=subject,
            expected="CHAIN:NUMBER, or at least 4 hex digits of the id of a fact (`relayer packets --json` shows them as head)",
            reason="unknown_fact",
        )
    return found[0]


# ---- verify -------------------------------------------------------------------------------------------------------------


def verify_file(
    path: Path, anchors: Mapping[bytes, Anchor] | None, checkpoint: str | None, vault_id: str | None, at: int | None
) -> Answer:
    """Check a proof file; exit code 0 verified, 1 rejected. Nothing but the file and the given anchor is read.

    Args:
        path: of the file; "-" for stdin.
        anchors: of the checker's own configuration, by vault id; None without one.
        checkpoint: 0x and 64 hex digits that the checker trusts, instead of the file's own.
        vault_id: 0x and 64 hex digits the fact has to be about.
        at: unix seconds to judge at; the time that the file names by default.
    """
    wall = int(time.time())
    schema = "relayer/verify/1"
    try:
        proof = decode_proof_file(_read_limited(path))
        own_id = compute_vault_id(proof.anchor.chain, proof.anchor.vault_account)
        if vault_id is not None and own_id != bytes.fromhex(_require_hex32(vault_id)):
            raise Rejected("the file is about another vault", got=own_id, expected=vault_id, reason="wrong_vault")
        anchor, believed = _choose_anchor(proof.anchor, own_id, anchors, checkpoint)
        verified = verify_proof(proof, make_judge(anchor), proof.judged_at if at is None else at)
    except (Rejected, Conflict) as error:
        if error.reason == "usage":
            raise
        data = {
            "schema": schema,
            "verified": False,
            "reason": error.reason,
            "source": error.source,
            "detail": str(error),
        }
        return Answer(data, (f"REJECTED [{error.reason}] {error}",), 1)
    data = {
        "schema": schema,
        "verified": True,
        "anchor": believed,
        "checkpoint": hex_of(anchor.checkpoint),
        "chain": anchor.chain,
        "vault_id": hex_of(own_id),
        "proof_digest": hex_of(compute_proof_digest(proof)),
        "judged_at": proof.judged_at,
        "is_ahead_of_clock": verified.point.time > wall + 60,
        "updates": verified.updates,
        "packets": len(proof.packets),
        "height": verified.point.height,
        "header_hash": hex_of(verified.point.header_hash),
        "time": verified.point.time,
        "age_s": wall - verified.point.time,
        "could_go_on": verified.is_fresh,
        "fact": describe_fact(verified),
    }
    return Answer(data, _tell_verified(data, believed))


_ANCHOR_WORDS = {
    "config": "The anchor (vault, checkpoint, {settings}) is that of your configuration.",
    "checkpoint": "The checkpoint is yours; vault and {settings} are the file's own: compare them with what you know.",
    "file": (
        "RELATIVE TO THE FILE'S OWN ANCHOR: whoever made the file chose checkpoint and {settings}. Compare them with what you trust, or"
        " give --checkpoint or --config."
    ),
}


def _tell_verified(data: Mapping[str, Any], believed: str) -> list[Table | str]:
    fact = data["fact"]
    is_attested = fact["tier"] == ATTESTED
    evidence = (
        f"the word of {fact['tier_m']} of {fact['tier_n']} operators"
        if is_attested
        else f"{data['updates']} light-client update(s), one storage proof"
    )
    lines: list[Table | str] = [
        f"VERIFIED packet {fact['sequence']} of {data['chain']}: {fact['kind']}",
        *(f"  {key} {value}" for key, value in fact["body"].items()),
        f"  block time {format_time(fact['stamp'])}, id {fact['head']}, trust tier {fact['tier_text']}",
        f"Proven at height {data['height']:,} ({format_time(data['time'])}) by {evidence} and {data['packets']} packet(s).",
        f"Vault {data['vault_id']}, checkpoint {data['checkpoint']}",
        _ANCHOR_WORDS[believed].format(settings="operators" if is_attested else "settings"),
    ]
    if fact["void"]:
        lines.insert(1, f"  The vault accepted it, but its content counts for nothing: {fact['void']}")
    if data["is_ahead_of_clock"]:
        lines.append(
            "The proven state is ahead of this machine's clock: a simulated chain has its own, otherwise distrust it."
        )
    elif data["age_s"] > 86_400:
        lines.append(f"The proven state is {format_age(data['age_s'])} old; what happened since is not in this file.")
    return lines


def _choose_anchor(
    claimed: Anchor, vault_id: bytes, anchors: Mapping[bytes, Anchor] | None, checkpoint: str | None
) -> tuple[Anchor, str]:
    """The anchor to believe and where it comes from: the checker chooses, never the proof."""
    anchor, source = claimed, "file"
    if anchors is not None:
        if vault_id not in anchors:
            raise Rejected(
                "the configuration has no vault of this file",
                got=vault_id,
                expected=", ".join(hex_of(v) for v in anchors),
                reason="wrong_vault",
            )
        anchor, source = anchors[vault_id], "config"
    if checkpoint is not None:
        anchor = replace(anchor, checkpoint=bytes.fromhex(_require_hex32(checkpoint)))
        source = "config" if source == "config" else "checkpoint"
    return anchor, source


def _require_hex32(text: str) -> str:
    if HEX32.fullmatch(text) is None:
        raise Rejected("not a 32-byte value", got=text, expected="0x and 64 hex digits", reason="usage")
    return text[2:]


def _read_limited(path: Path) -> bytes:
    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(MAX_PROOF_BYTES + 2)
        else:
            with path.open("rb") as file:
                data = file.read(MAX_PROOF_BYTES + 2)
    except OSError as error:
        raise Rejected(f"cannot read {path}", got=error.strerror, expected="a file", reason="usage") from error
    if len(data) > MAX_PROOF_BYTES + 1:
        raise Rejected("larger than any proof", got=len(data), expected=MAX_PROOF_BYTES, reason="size")
    return data


def describe_fact(verified: VerifiedFact) -> dict[str, Any]:
    """A fact for programs: its frame and the fields of its body; amounts as decimal strings."""
    fact = verified.fact
    kind = KIND_NAMES.get(fact.body.KIND, "packet") if fact.body is not None else "void"
    return {
        "kind": kind,
        "sequence": fact.sequence,
        "head": hex_of(fact.head),
        "commitment": hex_of(fact.commitment),
        "stamp": fact.stamp,
        **get_tier_data(fact.tier),
        "void": fact.void,
        "body": {} if fact.body is None else _to_plain(fact.body),
        "answers": {}
        if fact.inbox_body is None
        else {"kind": KIND_NAMES[fact.inbox_body.KIND], **_to_plain(fact.inbox_body)},
    }


def _to_plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _to_plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, bytes):
        return hex_of(value)
    if isinstance(value, tuple | list):
        return [_to_plain(v) for v in value]
    return str(int(value)) if isinstance(value, int) and not isinstance(value, bool) else value


# ---- archive ------------------------------------------------------------------------------------------------------------


def iterate_plans(view: View, problems: list[str] | None = None) -> Iterator[Record]:
    """Parameters, and every proposal whose plan got m votes as far as this node saw, by slot; each under its own digest.

    ``problems`` collects documents that are not what their digest says; without it the first is raised.

    Raises:
        Rejected: a stored document was changed; reason ``chain_broken``.
    """
    yield ArchivedParameters(view.parameters)
    parameters_digest = compute_digest(view.parameters)
    proposals: list[tuple[Proposal, Envelope]] = []
    for digest, body in view.store.iterate_documents("proposal"):
        with _noting(f"proposal {hex_of(digest)}", problems):
            envelope = decode_envelope(body, MAX_PROPOSAL_ENVELOPE_BYTES)
            proposal = decode_document(Proposal, envelope.body)
            _verify_same(compute_digest(proposal), digest)
            proposals.append((proposal, envelope))
    for digest, body in view.store.iterate_documents("plan"):
        with _noting(f"plan {hex_of(digest)}", problems):
            _verify_same(compute_digest(decode_document(Plan, body)), digest)
    for proposal, envelope in sorted(proposals, key=lambda item: (item[0].k, item[0].r)):
        if proposal.parameters_digest != parameters_digest:
            continue
        states = {e.vault_id: view.states.get_at(e.vault_id, e.outbox_sequence) for e in proposal.cut.entries}
        ledger = compute_ledger(states, proposal.cut, view.parameters)
        newest = max(
            (get_state_at(s, max(proposal.market.now, s.last_stamp)) for s in ledger.states.values()),
            key=lambda s: s.operator_epoch,
        )
        committee = Committee(
            compute_committee_id(sorted(ledger.states)), newest.operator_epoch, newest.operators, newest.threshold
        )
        with _noting(f"the envelope of proposal ({proposal.k}, {proposal.r})", problems):
            verify_envelope(envelope, committee.operators, committee.id)
        ballot = Ballot(proposal.k, view.store.get_votes(proposal.plan_digest))
        votes = get_quorum_votes(ballot, proposal.plan_digest, committee)
        if votes:
            yield ArchivedPlan(proposal, votes, compute_ledger_digest(ledger))


@contextlib.contextmanager
def _noting(what: str, problems: list[str] | None) -> Iterator[None]:
    try:
        yield
    except Rejected as error:
        text = f"{what} is not what was recorded: {error}"
        if problems is None:
            raise Rejected(text, reason="chain_broken") from error
        problems.append(text)


def _verify_same(got: bytes, expected: bytes) -> None:
    if got != expected:
        raise Rejected("another digest", got=got, expected=expected, reason="chain_broken")


def iterate_store_records(
    view: View, anchors: Mapping[bytes, Anchor], problems: list[str] | None = None
) -> Iterator[Record]:
    """The archive of a node, straight from its store."""
    ordered = [anchors[v] for v in view.vault_ids]
    return iterate_archive(view.store, ordered, view.vault_ids, iterate_plans(view, problems), view.judge_time)


def export_archive(view: View, anchors: Mapping[bytes, Anchor], path: Path) -> Answer:
    """Write the archive to a new file; a half-written one never carries the final name.

    Raises:
        Rejected: the file exists or cannot be written ("usage"), or the store does not hold together.
    """
    if path.exists():
        raise Rejected(f"{path} exists already: nothing was written", expected="a new file name", reason="usage")
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as out:
            count = write_archive(iterate_store_records(view, anchors), out)
            out.flush()
            os.fsync(out.fileno())
        partial.rename(path)
    except OSError as error:
        raise Rejected(f"cannot write {path}", got=error.strerror, reason="usage") from error
    finally:
        partial.unlink(missing_ok=True)
    size = path.stat().st_size
    data = {"schema": "relayer/archive-export/1", "file": str(path), "lines": count, "bytes": size}
    text = f"Wrote {count:,} lines, {size:,} bytes to {path}. `relayer replay --archive {path}` computes everything in it again."
    return Answer(data, (text,))


# ---- replay -------------------------------------------------------------------------------------------------------------


def replay_store(view: View, anchors: Mapping[bytes, Anchor], cut: str | None, *, is_full: bool) -> Answer:
    """Compute the node's own records again and compare; exit code 1 where anything differs.

    Raises:
        Rejected: the store does not hold together.
    """
    speaker = Speaker(view, is_full=is_full)
    problems: list[str] = []
    try:
        view.store.verify_all()
    except sqlite3.DatabaseError as error:
        raise Rejected("the store cannot be read to its end", got=str(error), reason="corrupt") from error
    problems += _get_packet_problems(view)
    replay = Replay(
        make_judge,
        _compute_plan,
        only_cut=_parse_cut(cut),
        recorded=view.store.get_fact_head,
    )
    records = enumerate(iterate_store_records(view, anchors, problems), start=1)
    report, failure = _run(replay, records)
    return _tell_replay(
        report, [*problems, *failure], cut, f"the records of {speaker.heading()}", "config", speaker.frame("replay")
    )


def replay_file(
    path: Path, anchors: Mapping[bytes, Anchor] | None, parameters: Parameters | None, cut: str | None
) -> Answer:
    """Compute an archive file again, on any machine; exit code 1 where it is damaged, false, or differs.

    Raises:
        Rejected: the file cannot be read ("usage").
    """

    def judge_by_config(anchor: Anchor) -> Judge:
        if anchors is None:
            return make_judge(anchor)
        chosen, _ = _choose_anchor(anchor, compute_vault_id(anchor.chain, anchor.vault_account), anchors, None)
        return make_judge(chosen)

    believed_digests = None if parameters is None else (compute_digest(parameters),)
    replay = Replay(judge_by_config, _compute_plan, only_cut=_parse_cut(cut), believed_parameters=believed_digests)
    try:
        with path.open("rb") as source:
            report, failure = _run(replay, read_archive(source))
    except OSError as error:
        raise Rejected(f"cannot read {path}", got=error.strerror, expected="an archive file", reason="usage") from error
    believed = "file" if anchors is None else "config"
    return _tell_replay(report, failure, cut, str(path), believed, {"schema": "relayer/replay/1"})


def _run(replay: Replay, records: Any) -> tuple[ReplayReport | None, list[str]]:
    try:
        return replay.run(records), []
    except (Rejected, Conflict) as error:
        return None, [f"[{error.reason}] {error}"]


def _compute_plan(ledger: Any, market: Any, parameters: Any, k: int, open_packets: Any) -> Plan:
    return compute_plan(ledger, market, parameters, k, open_packets).plan


def _parse_cut(cut: str | None) -> bytes:
    if cut is None:
        return b""
    digits = cut.lower().removeprefix("0x")
    digits = digits[: len(digits) // 2 * 2]
    if re.fullmatch(r"[0-9a-f]{4,64}", digits) is None:
        raise Rejected("not a cut", got=cut, expected="at least 4 hex digits of a cut digest", reason="usage")
    return bytes.fromhex(digits)


def _get_packet_problems(view: View) -> list[str]:
    """Settlement packets on record that are not those of the plan they name."""
    problems = []
    plans: dict[bytes, set[tuple[bytes, int, bytes, bytes]]] = {}
    for packet in view.store.get_packets():
        if packet.plan_digest not in plans:
            data = view.store.get_document(packet.plan_digest)
            made: set[tuple[bytes, int, bytes, bytes]] = set()
            with contextlib.suppress(Rejected):  # a plan that is not readable is told among the documents
                plan = decode_document(Plan, data or b"")
                for planned in plan.packets:
                    final = finalize_packet(planned, packet.plan_digest)
                    made.add((planned.vault_id, planned.sequence, compute_commitment(final), final.payloads[0].value))
            plans[packet.plan_digest] = made
        key = (packet.vault_id, packet.sequence, packet.commitment, packet.value)
        if key not in plans[packet.plan_digest]:
            where = f"settlement packet {packet.sequence} of {view.get_chain(packet.vault_id)}"
            problems.append(f"{where} on record is not the one of its plan {hex_of(packet.plan_digest)}")
    return problems


def _tell_replay(
    report: ReplayReport | None,
    problems: Sequence[str],
    cut: str | None,
    what: str,
    believed: str,
    frame: Mapping[str, Any],
) -> Answer:
    differences = [*problems, *(report.differences if report is not None else ())]
    plans = report.plans if report is not None else ()
    if cut is not None and report is not None and not plans:
        differences.append(f"no certified proposal has a cut that begins with {cut}")
    chains = report.chains if report is not None else ()
    data = dict(frame) | {
        "is_same": not differences,
        "anchor": believed,
        "differences": differences,
        "uncovered": list(report.uncovered) if report is not None else [],
        "acknowledged": report.acknowledged if report is not None else 0,
        "chains": [
            {
                "chain": c.chain,
                "vault_id": hex_of(c.vault_id),
                "headers": c.headers,
                "heads": c.heads,
                "facts": c.facts,
                "height": c.height,
                "outbox_head": hex_of(c.head),
            }
            for c in chains
        ],
        "plans": [
            {
                "k": p.k,
                "r": p.r,
                "market_now": p.now,
                "cut_digest": hex_of(p.cut_digest),
                "ledger_digest": hex_of(p.ledger_digest),
                "plan_digest": hex_of(p.plan_digest),
                "votes": p.votes,
                "packets": p.packets,
                "is_same": p.is_same,
            }
            for p in plans
        ],
    }
    return Answer(data, _tell_report(data, report, differences, what, believed), 1 if differences else 0)


def _tell_report(
    data: Mapping[str, Any], report: ReplayReport | None, differences: Sequence[str], what: str, believed: str
) -> list[Table | str]:
    parts: list[Table | str] = [f"Replay of {what}"]
    if report is not None:
        columns: tuple[str, ...] = ("chain", "headers", "proven heads", "facts", "height", "outbox head")
        rows = [
            [c.chain, f"{c.headers:,}", f"{c.heads:,}", f"{c.facts:,}", f"{c.height:,}", hex_of(c.head)]
            for c in report.chains
        ]
        parts.append(Table("Facts from proofs alone", columns, rows, right=columns[1:5]))
        columns = ("proposal", "prices of", "cut", "ledger", "plan", "packets", "votes", "same")
        rows = [
            [
                f"{p.k}.{p.r}",
                format_time(p.now),
                hex_of(p.cut_digest)[:18],
                hex_of(p.ledger_digest)[:18],
                hex_of(p.plan_digest)[:18],
                str(p.packets),
                str(p.votes),
                "yes" if p.is_same else "NO",
            ]
            for p in report.plans
        ]
        parts.append(
            Table(
                "Ledgers and plans computed again (digests; whole in --json)",
                columns,
                rows,
                empty="no certified proposal",
            )
        )
        covered = report.acknowledged - len(report.uncovered)
        parts.append("")
        parts.append(
            f"{covered} of {report.acknowledged} acknowledged settlement packets are in a plan that was computed again."
        )
    parts += [f"Not covered: {line}" for line in data["uncovered"]]
    parts += [f"DIFFERENT: {line}" for line in differences]
    if believed == "file":
        parts.append(
            "Relative to the archive's own anchors and parameters: compare checkpoints and operators with what you trust, or give --config."
        )
    parts.append("DIFFERS" if differences else "SAME: everything came out as it is recorded.")
    return parts
