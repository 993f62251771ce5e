"""The archive: everything a stranger needs to compute again what this node computed, and nothing that is computed (data.md 7).

JSON lines, each canonical (data.md 1): bootstraps and updates, outbox packets with the inbox packets they answer, proven heads,
parameters, certified proposals with their votes. Each line carries a running check over all lines before it, so damage is found
at its own line and named; what the lines claim is believed only after `relayer.replay` has verified it.

Order per chain: a header, then for each head proven there its packets and the head itself. So a reader needs little memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, ClassVar

from messages.canonical import decode_canonical, encode_canonical
from messages.documents import MAX_DOCUMENT_DEPTH, Parameters, Proposal, Vote, from_object, to_object
from messages.errors import Rejected
from messages.hashing import keccak256
from relayer.anchors import get_anchors
from relayer.proof_file import Anchor, encode_claim
from relayer.store import HeaderRecord, HeadRecord, Store

MAX_LINE_BYTES = 12 * 1024 * 1024
MAX_LINES = 5_000_000
CHECK_BYTES = 16


# ---- records ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ArchiveStart:
    """First line. judged_at: unix seconds, not before the last claim was taken; claims are judged at it.

    Anchors ascending by vault id; several of one vault, in order, where its light client began anew (`relayer.anchors`).
    """

    SCHEMA: ClassVar[str] = "optsettle/archive-start/1"
    judged_at: int
    anchors: tuple[Anchor, ...]


@dataclass(frozen=True, slots=True)
class ArchivedHeader:
    """One step of a light client: where it came to, and the claim (kind ``bootstrap`` or ``update``) it came by."""

    SCHEMA: ClassVar[str] = "optsettle/archived-header/1"
    chain: str
    kind: str
    height: int
    header_hash: bytes
    time: int
    claim: bytes


@dataclass(frozen=True, slots=True)
class ArchivedPacket:
    """An outbox packet (ABI) with the inbox packet it answers (ABI, empty where it answers none)."""

    SCHEMA: ClassVar[str] = "optsettle/archived-packet/1"
    vault_id: bytes
    sequence: int
    packet: bytes
    answered: bytes


@dataclass(frozen=True, slots=True)
class ArchivedHead:
    """An outbox position proven under the header at a height."""

    SCHEMA: ClassVar[str] = "optsettle/archived-head/1"
    vault_id: bytes
    height: int
    sequence: int
    head: bytes
    proof: bytes


@dataclass(frozen=True, slots=True)
class ArchivedParameters:
    """A parameter set that a proposal names by its digest."""

    SCHEMA: ClassVar[str] = "optsettle/archived-parameters/1"
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class ArchivedPlan:
    """A proposal whose plan got m votes, the votes, and the ledger digest that the node itself computed at its cut."""

    SCHEMA: ClassVar[str] = "optsettle/archived-plan/1"
    proposal: Proposal
    votes: tuple[Vote, ...]
    ledger_digest: bytes


@dataclass(frozen=True, slots=True)
class ArchiveEnd:
    """Last line: how many records came before it. An archive without it was cut off."""

    SCHEMA: ClassVar[str] = "optsettle/archive-end/1"
    records: int


Record = ArchiveStart | ArchivedHeader | ArchivedPacket | ArchivedHead | ArchivedParameters | ArchivedPlan | ArchiveEnd

_KINDS: dict[str, Any] = {
    kind.SCHEMA: kind
    for kind in (
        ArchiveStart,
        ArchivedHeader,
        ArchivedPacket,
        ArchivedHead,
        ArchivedParameters,
        ArchivedPlan,
        ArchiveEnd,
    )
}


def describe_record(record: Record) -> str:
    """Return what a record is, for people and for the name of a damaged place."""
    match record:
        case ArchiveStart():
            return "start of the archive"
        case ArchivedHeader():
            return f"{record.kind} of {record.chain} to height {record.height:,}"
        case ArchivedPacket():
            return f"packet {record.sequence} of vault 0x{record.vault_id.hex()[:8]}"
        case ArchivedHead():
            return f"head of vault 0x{record.vault_id.hex()[:8]} at height {record.height:,}"
        case ArchivedParameters():
            return f"parameters version {record.parameters.version}"
        case ArchivedPlan():
            return f"proposal ({record.proposal.k}, {record.proposal.r})"
        case ArchiveEnd():
            return "end of the archive"


# ---- lines --------------------------------------------------------------------------------------------------------------


def write_archive(records: Iterable[Record], out: IO[bytes]) -> int:
    """Write records as lines, with an `ArchiveEnd` behind them. Returns the number of lines."""
    check, count = bytes(CHECK_BYTES), 0
    for record in _with_end(records):
        count += 1
        line, check = _encode_line(record, count, check)
        out.write(line)
    return count


def _with_end(records: Iterable[Record]) -> Iterator[Record]:
    count = 0
    for record in records:
        count += 1
        yield record
    yield ArchiveEnd(count)


def _encode_line(record: Record, number: int, check: bytes) -> tuple[bytes, bytes]:
    body = to_object(record)
    after = _compute_check(check, number, body)
    return encode_canonical({"check": "0x" + after.hex(), "line": number, "record": body}) + b"\n", after


def _compute_check(previous: bytes, number: int, body: object) -> bytes:
    return keccak256(previous + number.to_bytes(8, "big") + encode_canonical(body))[:CHECK_BYTES]


def read_archive(source: IO[bytes]) -> Iterator[tuple[int, Record]]:
    """Yield (line number, record) of an archive, checked line by line.

    Raises:
        Rejected: the first line that was changed, is missing, too long or unknown; reasons ``damaged_line``, ``cut_off``, ``size``,
            with the line as source.
    """
    check, number = bytes(CHECK_BYTES), 0
    is_over: bool = False
    while line := source.readline(MAX_LINE_BYTES + 1):
        number += 1
        if is_over:
            raise _damaged(number, "there is something after the end of the archive")
        if number > MAX_LINES or len(line) > MAX_LINE_BYTES:
            raise Rejected(
                "the archive passes the limits of a reader", expected=MAX_LINES, reason="size", source=f"line {number}"
            )
        record, check = _decode_line(line, number, check)
        if isinstance(record, ArchiveEnd):
            if record.records != number - 1:
                raise _damaged(number, "the end counts other records than there are")
            is_over = True
        yield number, record
    if not is_over:
        raise Rejected(
            "the archive stops before its end: it was cut off, export it again",
            reason="cut_off",
            source=f"line {number + 1}",
        )


def _decode_line(line: bytes, number: int, check: bytes) -> tuple[Record, bytes]:
    try:
        frame = decode_canonical(line.removesuffix(b"\n"), max_bytes=MAX_LINE_BYTES, max_depth=MAX_DOCUMENT_DEPTH + 2)
        if not isinstance(frame, dict) or frame.keys() != {"check", "line", "record"}:
            raise Rejected("not a line of an archive", reason="malformed")
        body = frame["record"]
        kind = _KINDS.get(_get_schema(body))
        if kind is None:
            raise Rejected("not a record of this version", got=_get_schema(body), reason="malformed")
        record: Record = from_object(kind, body)
    except Rejected as error:
        raise _damaged(number, str(error)) from error
    after = _compute_check(check, number, body)
    if frame["line"] != number or frame["check"] != "0x" + after.hex():
        raise _damaged(
            number, f"{describe_record(record)}: it is not what was written here, or a line before it is missing"
        )
    return record, after


def _get_schema(body: object) -> str:
    return str(body.get("schema")) if isinstance(body, dict) else "no object"


def _damaged(number: int, why: str) -> Rejected:
    return Rejected(f"this line was changed: {why}", reason="damaged_line", source=f"line {number}")


# ---- from a store -------------------------------------------------------------------------------------------------------


def iterate_chain_records(store: Store, chain: str, vault_id: bytes) -> Iterator[Record]:
    """Yield what a node has on record of one chain and its vault: claims and proofs, nothing computed."""
    heads = store.iterate_heads(vault_id)
    head = next(heads, None)
    seen: set[int] = set()
    sequence = 0
    for header in store.iterate_headers(chain):
        yield _get_header_record(chain, header)
        seen.add(header.point.height)
        while head is not None and head.point.height in seen:
            yield from _iterate_packets(store, vault_id, sequence, head)
            sequence = max(sequence, head.sequence)
            head = next(heads, None)
    if head is not None:
        raise Rejected(
            f"a proven head of {chain} has no header on record: the store does not hold together, rebuild it from the chain",
            got=head.point.height,
            reason="chain_broken",
        )


def _get_header_record(chain: str, header: HeaderRecord) -> ArchivedHeader:
    point = header.point
    return ArchivedHeader(chain, header.kind, point.height, point.header_hash, point.time, header.claim)


def _iterate_packets(store: Store, vault_id: bytes, after: int, head: HeadRecord) -> Iterator[Record]:
    for fact in store.iterate_facts(vault_id, after, head.sequence):
        claim = encode_claim(fact)
        yield ArchivedPacket(vault_id, fact.sequence, claim.packet, claim.answered)
    yield ArchivedHead(vault_id, head.point.height, head.sequence, head.head, head.proof)


def iterate_archive(
    store: Store, anchors: Sequence[Anchor], vault_ids: Sequence[bytes], plans: Iterable[Record], now: int
) -> Iterator[Record]:
    """Yield the whole archive of a node.

    Args:
        store: of the node.
        anchors: as configured, one per vault, in the order of ``vault_ids``.
        vault_ids: ascending.
        plans: parameters and certified proposals, each parameter set before the first proposal that names it.
        now: unix seconds.
    """
    yield ArchiveStart(now, tuple(each for anchor in anchors for each in get_anchors(store, anchor)))
    for anchor, vault_id in zip(anchors, vault_ids, strict=True):
        yield from iterate_chain_records(store, anchor.chain, vault_id)
    yield from plans
