"""`relayer halts` and `relayer evidence`: what two people have to look at, and proofs against an operator that anybody can check."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from chains.registry import verify_statements
from messages.documents import decode_document, encode_document
from messages.errors import Rejected
from relayer.commands.operators import get_committees
from relayer.commands.view import View
from relayer.render import Answer, Table, format_time, hex_of
from relayer.rules.quorum import Committee, verify_equivocation
from relayer.rules.statements import Equivocation
from relayer.store import Halt, Store

MAX_EVIDENCE_BYTES = 40 * 1024 * 1024
"""Two proposals of the largest size as hex, and room."""


# ---- halts --------------------------------------------------------------------------------------------------------------


def list_halts(view: View, *, is_all: bool) -> Answer:
    """Active halts (all with ``is_all``); exit code 1 while one is active."""
    halts = [h for h in view.store.get_halts() if is_all or h.is_active]
    active = [h for h in halts if h.is_active]
    data = {
        "schema": "relayer/halts/1",
        "node": view.name,
        "halts": [_describe(h) for h in halts],
        "active": len(active),
    }
    columns = ("no", "stopped", "since", "reason", "what happened", "agreed to clear", "state")
    rows = [
        [
            str(h.id),
            h.subject,
            format_time(h.raised_at),
            h.reason,
            h.detail,
            ", ".join(h.cleared_by) or "nobody",
            "active" if h.is_active else "cleared",
        ]
        for h in halts
    ]
    parts: list[Table | str] = [Table("Halts", columns, rows, right=("no",), empty="none")]
    if active:
        parts.append(
            f"Next: find out why; then two different people, each: relayer halts clear {active[0].id} --person NAME --note WHY"
        )
    return Answer(data, parts, 1 if active else 0)


def _describe(halt: Halt) -> dict[str, object]:
    return {
        "id": halt.id,
        "subject": halt.subject,
        "reason": halt.reason,
        "detail": halt.detail,
        "raised_at": halt.raised_at,
        "cleared_by": list(halt.cleared_by),
        "is_active": halt.is_active,
    }


def clear_halt(store_path: Path, number: int, person: str, note: str) -> Answer:
    """One person's agreement; the halt ends with the second one. The node must be stopped: a store has one writer.

    Raises:
        Rejected: ``no_store``, ``in_use``, ``no_halt``, ``no_person``, ``already_cleared``, ``same_person``.
    """
    if not store_path.is_file():
        raise Rejected(f"there is no store at {store_path}: nothing was ever halted here", reason="no_store")
    if not note.strip():
        raise Rejected("say in --note what was found: it stays on record", reason="no_note")
    store = Store(store_path)
    try:
        before = next((h for h in store.get_halts() if h.id == number), None)
        if before is not None and not before.is_active:
            raise Rejected(f"halt {number} is cleared already", got=list(before.cleared_by), reason="already_cleared")
        if before is not None and person.strip().casefold() in before.cleared_by:
            raise Rejected(
                "the second agreement must be another person's",
                got=person,
                expected=f"not {', '.join(before.cleared_by)}",
                reason="same_person",
            )
        if before is None:
            numbers = ", ".join(str(h.id) for h in store.get_halts())
            raise Rejected(
                "there is no such halt",
                got=number,
                expected=numbers or "none: nothing was ever halted",
                reason="no_halt",
            )
        is_over = store.record_halt_clearance(number, person, note, int(time.time()))
        halt = next(h for h in store.get_halts() if h.id == number)
    finally:
        store.close()
    text = (
        f"halt {number} ({halt.subject}) is cleared by {' and '.join(halt.cleared_by)}: start the node."
        if is_over
        else f"{person} agrees to clear halt {number} ({halt.subject}); it needs one more, different person."
    )
    return Answer({"schema": "relayer/halts/1", "halt": _describe(halt), "is_cleared": is_over}, [text])


# ---- evidence -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CommitteeDocument:
    """The operator set that evidence is judged by."""

    id: bytes
    epoch: int
    operators: tuple[bytes, ...]
    threshold: int


@dataclass(frozen=True, slots=True)
class EvidenceFile:
    """A portable proof: the set an operator belonged to, and its two statements that exclude each other."""

    SCHEMA: ClassVar[str] = "optsettle/evidence-file/1"
    committee: CommitteeDocument
    equivocation: Equivocation


def list_evidence(view: View) -> Answer:
    """Every proof on record; exit code 1 where there is one."""
    found = [(operator, kind) for operator, kind, _ in view.store.get_evidence()]
    data = {
        "schema": "relayer/evidence/1",
        "node": view.name,
        "evidence": [{"no": n, "operator": hex_of(o), "kind": k} for n, (o, k) in enumerate(found, 1)],
    }
    rows = [[str(n), hex_of(o), _WORDS.get(k, k)] for n, (o, k) in enumerate(found, 1)]
    parts: list[Table | str] = [
        Table("Proofs of equivocation", ("no", "operator", "what it did"), rows, right=("no",), empty="none")
    ]
    if found:
        parts.append("Next: relayer evidence export FILE --number 1 writes one for the other operators and the public.")
    return Answer(data, parts, 1 if found else 0)


_WORDS = {
    "vote": "voted for two plans in one slot",
    "proposal": "proposed two things in one slot",
    "packets": "signed packets of two plans of one k",
    "observation": "signed two states of a vault under one number",
}


def export_evidence(view: View, path: Path, number: int) -> Answer:
    """Write one proof with the set it is judged by to a new file; it is verified before it is written.

    Raises:
        Rejected: ``no_evidence``, ``file_exists``, or why the record does not prove anything.
    """
    known = view.store.get_evidence()
    if not known:
        raise Rejected("there is no proof of equivocation on record", reason="no_evidence")
    if not 1 <= number <= len(known):
        raise Rejected(
            "there is no proof of that number", got=number, expected=f"1 to {len(known)}", reason="no_evidence"
        )
    equivocation = decode_document(Equivocation, known[number - 1][2], max_bytes=MAX_EVIDENCE_BYTES)
    committee = _find_committee(equivocation, get_committees(view))
    document = EvidenceFile(
        CommitteeDocument(committee.id, committee.epoch, committee.operators, committee.threshold), equivocation
    )
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        raise Rejected(f"there is a file {path} already: nothing was written", reason="file_exists") from None
    with os.fdopen(handle, "wb") as file:
        file.write(encode_document(document) + b"\n")
    data = {
        "schema": "relayer/evidence/1",
        "file": str(path),
        "operator": hex_of(equivocation.operator),
        "kind": equivocation.kind,
        "epoch": committee.epoch,
    }
    return Answer(data, [f"{path}: operator {hex_of(equivocation.operator)} {_WORDS.get(equivocation.kind, '')}."])


def _find_committee(equivocation: Equivocation, committees: Sequence[Committee]) -> Committee:
    refused: Rejected | None = None
    for committee in reversed(committees):
        try:
            _verify(equivocation, committee)
        except Rejected as error:
            refused = error
            continue
        return committee
    raise refused or Rejected("no operator set is known", reason="no_evidence")


def _verify(equivocation: Equivocation, committee: Committee) -> None:
    verify_equivocation(
        equivocation,
        committee,
        lambda vault_id, first, second: verify_statements(vault_id, committee.operators, first, second),
    )


def verify_evidence(path: Path, committees: Sequence[Committee] | None) -> Answer:
    """Judge a file of `export_evidence`: by the sets of one's own records, or by the set that the file names.

    Raises:
        Rejected: ``no_file``, ``size``, ``malformed``, ``foreign_set``, or why the statements prove nothing.
    """
    if not path.is_file():
        raise Rejected(f"there is no file {path}", reason="no_file")
    if path.stat().st_size > MAX_EVIDENCE_BYTES:
        raise Rejected("the file is too large", got=path.stat().st_size, expected=MAX_EVIDENCE_BYTES, reason="size")
    document = decode_document(EvidenceFile, path.read_bytes().strip(), max_bytes=MAX_EVIDENCE_BYTES)
    named = document.committee
    committee = Committee(named.id, named.epoch, named.operators, named.threshold)
    if committees is not None and committee not in committees:
        raise Rejected(
            "the file names an operator set that your records do not know",
            got=f"epoch {named.epoch} of {hex_of(named.id)[:18]}..",
            expected=", ".join(f"epoch {c.epoch} of {hex_of(c.id)[:18]}.." for c in committees),
            reason="foreign_set",
        )
    _verify(document.equivocation, committee)
    operator, kind = document.equivocation.operator, document.equivocation.kind
    data = {
        "schema": "relayer/evidence/1",
        "verified": True,
        "operator": hex_of(operator),
        "kind": kind,
        "epoch": named.epoch,
        "set_is_known": committees is not None,
    }
    lines = [f"proven: operator {hex_of(operator)} {_WORDS.get(kind, kind)} (epoch {named.epoch})."]
    if committees is None:
        lines.append(
            "Judged by the operator set that the file names: give -c relayer.toml to judge by the sets your node has proven."
        )
    return Answer(data, lines)
