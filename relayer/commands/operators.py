"""`relayer operators`: the set on every vault as its facts say, what is pending, and who took part in the last plans.

Sets of the past are found in the facts too: evidence against an operator must stay provable after a rotation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chains.solana.codec import decode_trusted
from chains.solana.rotation import get_set
from chains.solana.types import OperatorSet
from messages.bodies import Ack, AckStatus, RotateOperators
from messages.digests import compute_committee_id
from relayer.commands.view import View
from relayer.commands.words import Speaker
from relayer.render import Answer, Table, format_age, format_time, hex_of
from relayer.rules.quorum import Committee
from relayer.rules.vault_state import PendingOperators, VaultState


@dataclass(frozen=True)
class Participation:
    """What one operator did in the last plans: votes for them, and how many of their packets' plans it signed whole."""

    operator: bytes
    votes: int
    signed: int
    last_k: int


def get_committees(view: View) -> tuple[Committee, ...]:
    """Every operator set that a vault's facts know, oldest first: creation and each accepted rotation."""
    identifier = compute_committee_id(sorted(view.vault_ids))
    found: dict[tuple[int, tuple[bytes, ...], int], Committee] = {}
    for vault in view.vaults.values():
        first = Committee(identifier, 0, tuple(vault.operators), vault.threshold)
        found[0, first.operators, first.threshold] = first
    for vault_id in view.vault_ids:
        for fact in view.store.iterate_facts(vault_id):
            body = fact.inbox_body
            is_done = isinstance(fact.body, Ack) and fact.body.status == AckStatus.DONE
            if is_done and isinstance(body, RotateOperators):
                key = (body.epoch, body.operators, body.threshold)
                found[key] = Committee(identifier, body.epoch, body.operators, body.threshold)
    return tuple(found[key] for key in sorted(found))


def compute_participation(view: View, last: int) -> tuple[int, tuple[Participation, ...]]:
    """How many plans with m votes were looked at (the newest ``last``), and what each operator of the set in force did in them."""
    packets: dict[tuple[int, bytes], list[Any]] = {}
    for packet in view.store.get_packets():
        packets.setdefault((packet.k, packet.plan_digest), []).append(packet)
    plans = sorted(packets)[-last:]
    votes = {digest: {v.operator for v in view.store.get_votes(digest)} for _, digest in plans}
    signers = {
        digest: set.intersection(
            *(set(view.store.get_signatures(p.vault_id, p.sequence, p.commitment)) for p in packets[k, digest])
        )
        for k, digest in plans
    }
    out = []
    for operator in view.committee.operators:
        took_part = [k for k, digest in plans if operator in votes[digest] or operator in signers[digest]]
        out.append(
            Participation(
                operator,
                sum(operator in votes[digest] for _, digest in plans),
                sum(operator in signers[digest] for _, digest in plans),
                max(took_part, default=-1),
            )
        )
    return len(plans), tuple(out)


def show_operators(view: View, last: int, *, is_full: bool) -> Answer:
    """Sets and pending changes of every vault, participation, equivocations.

    Exit code 1 where vaults disagree about set or epoch and no change is pending.
    """
    speaker = Speaker(view, is_full=is_full)
    vaults = [_describe_vault(view, speaker, v) for v in view.shown_vault_ids]
    count, taken = compute_participation(view, last)
    accused: dict[bytes, int] = {}
    for operator, _, _ in view.store.get_evidence():
        accused[operator] = accused.get(operator, 0) + 1
    members = [
        {
            "operator": hex_of(p.operator),
            "votes": p.votes,
            "signed": p.signed,
            "last_k": p.last_k,
            "equivocations": accused.get(p.operator, 0),
        }
        for p in taken
    ]
    committee = view.committee
    is_one = len({(v["epoch"], tuple(v["operators"]), v["threshold"]) for v in vaults}) == 1
    instants = {v["pending"]["at"] for v in vaults if v["pending"]}
    is_pending_everywhere = len(instants) == 1 and all(v["pending"] for v in vaults)
    data = speaker.frame("operators") | {
        "epoch": committee.epoch,
        "threshold": committee.threshold,
        "plans": count,
        "operators": members,
        "vaults": vaults,
        "is_one_set": is_one,
    }
    parts: list[Table | str] = [speaker.heading(), _make_member_table(members, committee, count)]
    parts.append(_make_vault_table(vaults, view.now))
    parts += _make_remarks(vaults, is_one=is_one, is_pending_everywhere=is_pending_everywhere)
    return Answer(data, parts, 0 if is_one else 1)


def _describe_vault(view: View, speaker: Speaker, vault_id: bytes) -> dict[str, Any]:
    state: VaultState = view.newest_states[vault_id]
    pending = state.pending_operators
    return {
        "chain": speaker.chain(vault_id),
        "vault_id": hex_of(vault_id),
        "epoch": state.operator_epoch,
        "threshold": state.threshold,
        "operators": [hex_of(o) for o in state.operators],
        "treasurer": hex_of(state.treasurer),
        "delay_s": state.delay_s,
        "paused": state.paused,
        "pause_used_by": [hex_of(o) for o in sorted(state.pause_used)],
        "unpause_at": state.pending_unpause or 0,
        "pending": None
        if pending is None
        else {
            "at": pending.at,
            "epoch": state.operator_epoch + 1,
            "threshold": pending.threshold,
            "operators": [hex_of(o) for o in pending.operators],
            "treasurer": hex_of(pending.treasurer),
            "is_handed_over": _is_handed_over(view, vault_id, pending),
        },
        **view.get_trust(vault_id),
    }


def _is_handed_over(view: View, vault_id: bytes, pending: PendingOperators) -> bool:
    """Whether the statements of a pending set will count by what is proven here; always true where headers prove a vault's states."""
    vault = view.vaults[vault_id]
    if vault.family != "solana":
        return True
    found = view.store.get_trusted(vault.chain)
    next_set = OperatorSet(pending.at, pending.operators, pending.threshold)
    return found is not None and any(get_set(h.rotation) == next_set for h in decode_trusted(found[1]).handovers)


def _make_member_table(members: Sequence[dict[str, Any]], committee: Committee, count: int) -> Table:
    columns = ("operator", "voted", "signed", "last proposal", "equivocations")
    rows = [
        [
            m["operator"],
            f"{m['votes']} of {count}",
            f"{m['signed']} of {count}",
            str(m["last_k"]) if m["last_k"] >= 0 else "-",
            str(m["equivocations"]),
        ]
        for m in members
    ]
    title = (
        f"Operators in force: {committee.threshold} of {len(committee.operators)}, epoch {committee.epoch};"
        f" the last {count} plans on record here"
    )
    return Table(title, columns, rows, right=("voted", "signed", "last proposal", "equivocations"))


def _make_vault_table(vaults: Sequence[dict[str, Any]], now: int) -> Table:
    columns = ("chain", "epoch", "m of n", "pending set", "takes over", "paused", "age of what is known")
    rows = []
    for v in vaults:
        pending = v["pending"]
        takes_over = "-"
        if pending:
            takes_over = f"{format_time(pending['at'])} (in {format_age(max(0, pending['at'] - now))})"
        paused = "no"
        if v["paused"]:
            paused = f"until {format_time(v['unpause_at'])}" if v["unpause_at"] else "yes"
        rows.append(
            [
                v["chain"],
                str(v["epoch"]),
                f"{v['threshold']} of {len(v['operators'])}",
                f"epoch {pending['epoch']}: {pending['threshold']} of {len(pending['operators'])}" if pending else "-",
                takes_over,
                paused,
                format_age(v["age_s"]) if v["height"] else "nothing proven yet",
            ]
        )
    return Table("As each vault's facts say", columns, rows, right=("epoch",))


def _make_remarks(vaults: Sequence[dict[str, Any]], *, is_one: bool, is_pending_everywhere: bool) -> list[str]:
    remarks = []
    pending = [v for v in vaults if v["pending"]]
    if not is_one:
        remarks.append(
            "The vaults do not have one set: a rotation reached only some of them. Look at `relayer packets`."
        )
    if is_pending_everywhere:
        remarks.append("The new set takes over at one instant on every vault; until then the present one signs.")
    elif pending:
        names = ", ".join(v["chain"] for v in vaults if not v["pending"])
        remarks.append(
            f"The rotation is not accepted everywhere, or not for one instant: look at {names or 'the table'}."
        )
    remarks += [
        f"{v['chain']}: nobody in force has proven the next set here, so what it says will not count. Give it to the chain's settings by hand"
        " (operator_sets, since = its instant), or its vault stands still from then on."
        for v in pending
        if not v["pending"]["is_handed_over"]
    ]
    return remarks
