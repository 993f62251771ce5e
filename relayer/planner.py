"""The pure rules between ledger and plan as the node uses them: market, margin, netting, plan (protocol.md 7)."""

from __future__ import annotations

from collections.abc import Sequence

from messages.documents import MarketSnapshot, OpenPackets, Parameters, SignedMark, SignedReport
from relayer.rules import market as market_rules
from relayer.rules import plan as plan_rules
from relayer.rules.ledger import Ledger


class RulesPlanner:
    """`relayer.node.Planner` by the rules of this repository."""

    def compute_market(
        self,
        now: int,
        ledger: Ledger,
        parameters: Parameters,
        reports: Sequence[SignedReport],
        marks: Sequence[SignedMark],
    ) -> MarketSnapshot:
        """The market snapshot of a proposal: newest prices, and the reports that settle what has expired."""
        del parameters
        return market_rules.compute_snapshot(now, reports, marks, market_rules.get_settlements_needed(ledger, now))

    def verify_market(self, market: MarketSnapshot, parameters: Parameters, previous_now: int, own_now: int) -> None:
        """Check another's snapshot; Rejected says why."""
        market_rules.verify_market(market, parameters, previous_now, own_now)

    def compute_plan(
        self, ledger: Ledger, market: MarketSnapshot, parameters: Parameters, k: int, open_packets: OpenPackets
    ) -> plan_rules.PlanResult:
        """The plan, after checking that it changes nobody's worth except as named."""
        result = plan_rules.compute_plan(ledger, market, parameters, k, open_packets)
        plan_rules.verify_worth_unchanged(ledger, market, parameters, open_packets, result.plan)
        return result
