"""Why something is not settled, as stable codes with what each means and what to do next: the vocabulary of `relayer explain`.

The codes of the rules (notes of a plan) and those of the node's records are one list; a test holds it to the rules' source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

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
    "recorded": ("it is a fact: proven and folded", "`relayer prove` exports the proof."),
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
    # ---- notes of the rules: vaults
    "open_packet_on_vault": (
        "its vault has a certified packet whose Ack or absence is not proven yet, and gets no new one before",
        "`relayer explain CHAIN:NUMBER` of that packet says what it waits for.",
    ),
    "open_packet_on_portfolio": (
        "an open packet may still change what this portfolio owes",
        "Wait for the Ack of that packet: `relayer packets`.",
    ),
    "chain_stalled": (
        "the newest proven state of the chain is too old to build on",
        "Check whether the chain finalizes and whether the node's endpoints follow it; everything else goes on meanwhile.",
    ),
    "rotation": ("the operators of the vault change soon; a packet could arrive after that", WAIT),
    "paused": (
        "the vault is paused: it refuses settlement",
        "Find out which operator paused it and why; an Unpause by m operators takes effect after the vault's delay.",
    ),
    "packet_full": ("the packet holds no more items", WAIT),
    # ---- notes of the rules: prices
    "price_missing": (
        "a price it needs is missing, stale, uncertain or moved too fast",
        "Check the price feeds: signed reports of m price signers are needed each minute.",
    ),
    "expiry_not_priced": (
        "the series has expired and the two signed reports that make its settlement price are not here yet",
        "Wait for the report at expiry (at most 60 s later); then check the price feed.",
    ),
    "unknown_market": (
        "the parameters do not name its underlying, class, token or price source",
        "The operators can add it to the parameters; until then it is neither margined nor traded.",
    ),
    "off_peg": (
        "the token's price is missing or outside its peg band, so its cash serves only where it lies",
        "Wait until the token is back in its band, or pay with another token.",
    ),
    # ---- notes of the rules: margin and cash
    "margin_short": (
        "the portfolio would not have enough margin in every outcome of its undecided items",
        "Deposit, close positions, or ask for less. `relayer margin PORTFOLIO` shows the surplus.",
    ),
    "in_liquidation": (
        "the portfolio is being liquidated in steps",
        "Deposit to bring maintenance margin above 0; trades and withdrawals wait until then.",
    ),
    "no_cash": (
        "the account has not the cash for it at that vault (a premium has to lie there; a withdrawal may be moved there first)",
        "For a trade: deposit at that vault and take the offer again. For a withdrawal: wait for the move, or ask for less.",
    ),
    "no_house_inventory": (
        "the house has too little of this token at this vault, or its limit of shortfalls there is reached",
        "Wait until cash arrives there, or ask for a withdrawal on another chain.",
    ),
    "no_house_backing": (
        "the house cannot stand for what it would owe",
        "The treasurer has to add house cash or insurance.",
    ),
    "backing": (
        "withdrawals of the house wait: what it owes must stay backed at every vault",
        "Wait until dues are paid, or add cash.",
    ),
    "house_position": ("the house only trades towards 0 of what it took over", "Offer the other direction."),
    "house_price": (
        "the house trades at the mark less its discount, or better",
        "Make an offer nearer to the mark.",
    ),
    "below_minimum_notional": ("its notional is below the least that is settled", "Trade a larger quantity."),
    "too_many_undecided": (
        "the portfolio has as many undecided trades and withdrawals as it may",
        "Wait until some are decided.",
    ),
    "cap_window_full": (
        "the vault's caps of this packet, hour or day let no more pass now",
        "Wait for the next hour or day; m operators can raise caps, which takes effect after the vault's delay.",
    ),
    # ---- notes of the rules: moves between chains
    "lift_not_acked": ("cash that was lifted elsewhere is not acknowledged yet; it lands after that", WAIT),
    "landing": ("cash lands with this plan; the request is decided in a later one", WAIT),
    "lift_limit": (
        "the house may hold no more of this token at that vault",
        "Wait until some of it is paid out there.",
    ),
    "due_not_listed": (
        "the vault knows no due of this class, because no series of it was listed there",
        "List any series of the class at that vault.",
    ),
    "owes_house": ("part of its debt to the house waits for cash that may be moved", WAIT),
    "paid_by_due": ("it had too little cash there: the rest of its loss became a due, margined with all else", WAIT),
    "foreign_collateral": (
        "it owes in one class and has cash in another",
        "The owner has to deposit the class that is owed.",
    ),
    "account_insolvent": (
        "the portfolio is worth less than nothing; insurance takes over what it owes",
        "The operators should look at why liquidation came too late.",
    ),
    "loss_not_covered": (
        "insurance and all portfolios together cannot bear a loss",
        "The treasurer has to add insurance; nothing is dropped meanwhile.",
    ),
    # ---- ends
    "trade_waiting": (
        "the trade waits for a decision of the clearing",
        "`relayer plan --dry-run` shows what comes next.",
    ),
    "would_be_planned": ("the next plan has it", "Nothing to do: wait for m votes."),
    "in_open_packet": ("a certified packet that is still open decides it", "`relayer packets` shows that packet."),
    "trade_done": ("the trade was accepted and done", "Nothing to do."),
    "trade_not_done": (
        "the clearing accepted the trade, but at its vault the cash, the offer or the time was gone",
        "Take the offer again if it still stands.",
    ),
    "trade_over": (
        "the trade is over without being done: its time passed or the clearing did not accept it",
        "Take the offer again after putting right what stood against it (margin, cash, size, time).",
    ),
    "request_waiting": ("the withdrawal waits for a decision", "`relayer plan --dry-run` shows what comes next."),
    "request_replaced": ("a newer request of the same account and token replaced it", "Look at the newer request."),
    "request_lapsed": (
        "the request is older than 24 hours and lapsed",
        "Ask again at the vault; a request is good for 24 hours.",
    ),
    "withdrawal_done": (
        "the withdrawal was allowed: the tokens can be claimed at the vault by anyone for the owner",
        "Call `claim(account, asset)` at the vault.",
    ),
    "withdrawal_not_done": (
        "the vault could not do it then (free cash, caps); the request stays open",
        WAIT,
    ),
}

CODES: Final = frozenset(_TEXTS)


def make_cause(code: str, detail: str = "") -> Cause:
    """The cause of a code; an unknown one is told as it is."""
    meaning, next_step = _TEXTS.get(code, (code.replace("_", " "), "See docs/cli.md, or ask with the code."))
    return Cause(code, meaning, next_step, detail)
