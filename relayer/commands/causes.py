"""Why something is not settled, as stable codes with what each means and what to do next: the vocabulary of `relayer explain`.

What the rules can note has its words in `relayer.rules.explain`; here are those of the node's records. Together they are one
vocabulary; a test holds it to the rules' source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from relayer.rules.explain import CAUSES

WAIT = "Nothing to do: the next plans look again by themselves."


@dataclass(frozen=True)
class Cause:
    """One reason: stable code, what it means, what to do next; ``detail`` is about the case at hand."""

    code: str
    meaning: str
    next_step: str
    detail: str = ""

    def to_object(self) -> dict[str, Any]:
        """For programs."""
        return {"code": self.code, "meaning": self.meaning, "next": self.next_step, "detail": self.detail}


_TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    # ---- on the way of a fact
    "not_recorded": (
        "no proven head of this vault covers this number yet",
        (
            "Wait for finality (about 15 minutes on Ethereum) and for the node to run; `relayer status` shows how far it is. If the"
            " transaction is final already, look at the blamed sources there."
        ),
    ),
    "no_proven_state": (
        "the light client of this chain has no proven state yet",
        "Start the node; if it runs, check its endpoints and its checkpoint in the configuration.",
    ),
    "recorded": ("it is a fact: proven and folded", "`relayer prove CHAIN:NUMBER` exports the proof."),
    "void": (
        "the vault accepted the packet, but its content makes no sense to the clearing, so it counts for nothing",
        "The sender has to send a right one: see the reason (for a link: its signature, its time, or an earlier link).",
    ),
    "withheld": (
        "sources of this chain failed or lied lately; what they said was not believed",
        "Add an endpoint of somebody else; one honest source is enough, and its number never lowers the bar.",
    ),
    # ---- on the way of a settlement packet
    "no_votes": (
        "no plan with m votes has this packet",
        "`relayer plan --dry-run` shows what would be planned now and why the rest is not.",
    ),
    "quorum_missing": (
        "fewer than m operators voted for one plan",
        "Ask the operators that did not vote: their node may be down, behind, or compute another plan (versions, parameters).",
    ),
    "voted": (
        "the plan has m votes; packet signatures are still coming in",
        "Wait a minute. If it stays so, ask the operators that are missing: their journal may be in quarantine.",
    ),
    "certified": (
        "certified by m operators; the transaction that carries it is not made yet",
        "Wait for the operator whose turn it is; after some seconds the next one takes over. Anybody may carry it to the vault.",
    ),
    "prepared": (
        "the transaction is stored and was not handed to an endpoint yet",
        "Let the node run; if it runs, check that the endpoints accept transactions.",
    ),
    "sent": (
        "the transaction was sent; its outcome counts only when the vault's Ack is proven",
        "Wait for inclusion and finality. The node raises the fee by itself; check the submitter's balance if it stays pending.",
    ),
    "tx_failed": (
        "the chain says that the transaction failed; most often another operator's was first",
        "Wait for the Ack; if none comes, the node sends again.",
    ),
    "timed_out": (
        "its time is over and no Ack is proven yet",
        "Wait for a head proven after the timeout: it shows either the Ack or that the packet never takes effect.",
    ),
    "done": ("the vault did it; the Ack is a fact", "Nothing to do."),
    "refused": (
        "the vault refused it and did nothing else; the number is used",
        "The next plan takes the refusal into account. If the reason repeats, look at caps, pauses and operator changes.",
    ),
    "absent": (
        "proven that it never takes effect: its time was over without an Ack",
        "Nothing is lost: the next plan uses the number again. If it repeats, check who submits and at what fee.",
    ),
    # ---- stops
    "chain_halted": (
        "this chain is halted on this node: two proven statements exclude each other",
        "Read the halt in `relayer status`. Two people must clear it after they understood it.",
    ),
    "node_halted": (
        "the whole node is halted",
        "Read the halt in `relayer status`. Two people must clear it after they understood it.",
    ),
    # ---- ends
    "trade_waiting": (
        "the trade waits for a decision of the clearing",
        "`relayer plan --dry-run` shows what comes next.",
    ),
    "would_be_planned": ("the next plan has it", "Nothing to do: wait for m votes."),
    "in_open_packet": ("a certified packet that is still open decides it", "`relayer packets` shows that packet."),
    "request_waiting": ("the withdrawal waits for a decision", "`relayer plan --dry-run` shows what comes next."),
    "withdrawal_not_done": (
        "the vault could not do it then (free cash, caps); the request stays open",
        WAIT,
    ),
}

CODES: Final = frozenset(_TEXTS) | frozenset(CAUSES)


def make_cause(code: str, detail: str = "") -> Cause:
    """The cause of a code; an unknown one is told as it is."""
    if code in CAUSES:
        return Cause(code, CAUSES[code].text, CAUSES[code].next_step, detail)
    meaning, next_step = _TEXTS.get(code, (code.replace("_", " "), "See docs/cli.md, or ask with the code."))
    return Cause(code, meaning, next_step, detail)
