"""A plan for 10,000 portfolios: two vaults, six series, margin of every portfolio, an expiry, open trades and withdrawals."""

from __future__ import annotations

import random
import sys
from dataclasses import replace

from bench.figures import Figure, measure_median
from bench.run import print_figures
from messages.documents import OpenPackets
from messages.hashing import keccak256
from messages.ids import HOUSE
from relayer.rules.ledger import VaultState, compute_ledger, get_initial_state, verify_conservation
from relayer.rules.market import compute_snapshot, get_settlements_needed
from relayer.rules.plan import compute_plan, compute_plan_digest
from relayer.rules.vault_state import OpenRequest, OpenTrade
from tests.builders import (
    DAY,
    START,
    TOKEN,
    make_cut,
    make_mark,
    make_parameters,
    make_report,
    make_series,
    make_vault,
    series_id,
)

PORTFOLIOS = 10_000
TRADES = 200
REQUESTS = 100
SPOT = 2_000
MILLION = 10**12
NOW = START + DAY + 1_200


def make_state(vault, names: range, definitions, dice: random.Random) -> VaultState:
    """One vault with one account per name, three positions each; sums are zero against the house."""
    state = get_initial_state(vault)
    ids = [series_id(d) for d in definitions]
    accounts = [bytes(12) + keccak256(b"portfolio %d" % i)[:20] for i in names]
    free = {(account, TOKEN): 20_000 * 10**6 for account in accounts}
    free[HOUSE, TOKEN] = 1_000 * MILLION
    positions: dict[tuple[bytes, bytes], int] = {}
    for account in accounts:
        for series in dice.sample(ids, 3):
            quantity = dice.choice((-1, 1)) * dice.randint(1, 3) * 10**8
            positions[account, series] = quantity
            positions[HOUSE, series] = positions.get((HOUSE, series), 0) - quantity
    positions = {key: value for key, value in positions.items() if value}
    trades = {}
    for i in range(TRADES):
        buyer, seller = dice.sample(accounts, 2)
        trade = OpenTrade(
            keccak256(b"trade %d" % i),
            i + 1,
            NOW - 900,
            buyer,
            seller,
            ids[-1],
            TOKEN,
            10**7,
            3 * 10**6,
            NOW + DAY,
            buyer,
            i + 1,
            1,
        )
        trades[buyer, i + 1, 1] = trade
    requests = {
        (account, TOKEN): OpenRequest(
            keccak256(b"request" + account), TRADES + i + 1, NOW - 800, account, TOKEN, 50 * 10**6
        )
        for i, account in enumerate(dice.sample(accounts, REQUESTS))
    }
    return replace(
        state,
        outbox_sequence=1_000,
        outbox_head=keccak256(vault.account),
        last_stamp=NOW - 700,
        free=free,
        positions=positions,
        deposited={TOKEN: sum(free.values())},
        series=dict(zip(ids, definitions, strict=True)),
        trades=trades,
        requests=requests,
    )


def run(seconds: float) -> list[Figure]:
    """Seconds of one plan, everything included that a node does to have its own: ledger, market view, plan, digest."""
    dice = random.Random(1)
    vaults = [make_vault(i) for i in range(2)]
    parameters = make_parameters(vaults)
    expired = [make_series(strike, right, START + DAY) for strike, right in ((1900, 1), (2100, 0))]
    living = [
        make_series(strike, right, START + 3 * DAY) for strike, right in ((1800, 0), (2000, 1), (2200, 1), (2400, 1))
    ]
    half = PORTFOLIOS // 2
    states = {
        s.vault_id: s
        for s in (
            make_state(vaults[0], range(half), expired + living, dice),
            make_state(vaults[1], range(half, PORTFOLIOS), expired + living, dice),
        )
    }
    verify_conservation(states, parameters)
    cut = make_cut(states.values(), NOW - 600)
    stamps = [START + DAY - 1_800, START + DAY, NOW // 60 * 60]
    reports = [make_report(stamp, SPOT) for stamp in stamps]
    marks = [make_mark(NOW // 60 * 60, START + 3 * DAY, SPOT)]
    first = compute_ledger(states, cut, parameters)
    market = compute_snapshot(NOW, reports, marks, get_settlements_needed(first, NOW))
    sizes: list[tuple[int, int]] = []

    def plan() -> None:
        ledger = compute_ledger(states, cut, parameters)
        result = compute_plan(ledger, market, parameters, 1, OpenPackets(()))
        compute_plan_digest(result.plan)
        sizes.append((len(ledger.portfolios), len(result.plan.packets)))

    spent = measure_median(plan, seconds, least=3)
    if sizes[-1][0] != PORTFOLIOS or not sizes[-1][1]:
        raise RuntimeError(f"the book is not what it should be: {sizes[-1]}")
    return [
        Figure("plan: 10,000 portfolios, 30,000 positions, 400 trades", spent, "s", "< 5", is_met=spent < 5),
        Figure("plan: packets in it", sizes[-1][1], "packets"),
    ]


if __name__ == "__main__":
    print_figures(run(float(sys.argv[1])))
