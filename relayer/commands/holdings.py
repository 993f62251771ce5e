"""`relayer positions` and `relayer margin`: who holds what over all chains, and what it is worth against what it needs."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from decimal import ROUND_DOWN, ROUND_FLOOR, Decimal, localcontext
from typing import Any

from messages.documents import OpenPackets
from messages.errors import Conflict, Rejected
from messages.ids import HOUSE, INSURANCE
from relayer.commands.view import View
from relayer.commands.words import SYSTEM_NAMES, Speaker, describe_contracts, describe_series, get_text
from relayer.render import Answer, Table, format_amount, format_time, hex_of
from relayer.rules.ledger import Portfolio, compute_backing, verify_conservation
from relayer.rules.margin.model import ExpiryMark, MarginResult, MarketView, UnderlyingMark

MAX_SHIFT = 10


# ---- positions ----------------------------------------------------------------------------------------------------------


def show_positions(view: View, wanted: str | None, *, is_full: bool) -> Answer:
    """Every portfolio over all chains, or one; HOUSE and INSURANCE too.

    Raises:
        Rejected: no cut yet, or no such portfolio.
    """
    speaker = Speaker(view, is_full=is_full)
    portfolios = [*view.ledger.portfolios.values(), *_get_system(view)]
    if wanted is not None:
        portfolios = [find_portfolio(view, wanted)]
    rows: list[list[str]] = []
    data: list[dict[str, Any]] = []
    for portfolio in portfolios:
        lines = list(_get_lines(view, speaker, portfolio))
        dues = _get_dues(view, speaker, portfolio)
        data.append(
            {
                "id": hex_of(portfolio.id),
                "name": _get_name(portfolio.id),
                "accounts": len(portfolio.places),
                "rows": lines,
                "dues": dues,
            }
        )
        for n, line in enumerate(lines):
            vault_id = bytes.fromhex(line["vault_id"][2:])
            trust, height, age = speaker.trust(vault_id)
            rows.append(
                [
                    speaker.names(portfolio.id) if n == 0 else "",
                    line["chain"],
                    line["kind"],
                    line["label"],
                    line["text"],
                    trust,
                    height,
                    age,
                ]
            )
        rows += [
            ["", "all chains", "due together", "", due["text"], "", "", ""]
            for due in dues
            if portfolio.id not in SYSTEM_NAMES
        ]
    check = _get_conservation(view)
    table = Table(
        "Positions",
        ("portfolio", "chain", "kind", "what", "amount", "trust", "height", "age"),
        rows,
        right=("amount", "height", "age"),
        empty="nobody holds anything yet",
    )
    answer = speaker.frame("positions") | {"portfolios": data, "conservation": check}
    is_whole = check["is_conserved"]
    closing = f"Conservation: {check['detail']}"
    return Answer(answer, (speaker.heading(), table, closing), 0 if is_whole else 1)


def _get_dues(view: View, speaker: Speaker, portfolio: Portfolio) -> list[dict[str, Any]]:
    """Dues of a portfolio by class, summed over all vaults: only the sum has a meaning (protocol.md 4.3)."""
    states = [view.ledger.states[vault_id] for vault_id in {vault_id for vault_id, _ in portfolio.places}]
    classes = {quote_class for state in states for quote_class in state.dues.values()}
    accounts = set(portfolio.places)
    out = []
    for quote_class in sorted(classes):
        held = [
            units
            for state in states
            for (account, series), units in state.positions.items()
            if state.dues.get(series) == quote_class and (state.vault_id, account) in accounts
        ]
        if held:
            decimals = speaker.class_decimals.get(quote_class, 0)
            total = sum(held)
            out.append(
                {
                    "class": get_text(quote_class),
                    "amount": str(total),
                    "decimals": decimals,
                    "text": speaker.due(quote_class, total),
                }
            )
    return out


def _get_system(view: View) -> list[Portfolio]:
    return [Portfolio(who, tuple((v, who) for v in view.shown_vault_ids)) for who in (HOUSE, INSURANCE)]


def _get_name(portfolio: bytes) -> str:
    return SYSTEM_NAMES.get(portfolio, "")


def _get_lines(view: View, speaker: Speaker, portfolio: Portfolio) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []

    def add(
        vault_id: bytes, account: bytes, kind: str, item: bytes, label: str, units: int, decimals: int, text: str
    ) -> None:
        lines.append(
            {
                "chain": speaker.chain(vault_id),
                "vault_id": hex_of(vault_id),
                "account": hex_of(account),
                "kind": kind,
                "item": hex_of(item),
                "label": label,
                "amount": str(units),
                "decimals": decimals,
                "text": text,
                **view.get_trust(vault_id),
            }
        )

    for vault_id, account in sorted(portfolio.places, key=lambda p: (speaker.chain(p[0]), p)):
        state = view.ledger.states[vault_id]
        for kind, balances in (("cash", state.free), ("claimable", state.claimable)):
            for (owner, asset), units in sorted(balances.items()):
                if owner == account:
                    decimals, unit = speaker.get_asset_unit(vault_id, asset)
                    add(vault_id, account, kind, asset, unit, units, decimals, speaker.cash(vault_id, asset, units))
        for (owner, series), units in sorted(state.positions.items()):
            if owner != account:
                continue
            quote_class = state.dues.get(series)
            if quote_class is not None:
                decimals = speaker.class_decimals.get(quote_class, 0)
                label = "owed by the house" if units > 0 else "owed to the house"
                if account == HOUSE:
                    label = "the house's side"
                add(vault_id, account, "due", series, label, units, decimals, speaker.due(quote_class, units))
            else:
                add(vault_id, account, "option", series, speaker.item(series), units, 8, describe_contracts(units))
        for trade in sorted(state.trades.values(), key=lambda t: t.sequence):
            if account in (trade.buyer, trade.seller):
                units = trade.quantity if account == trade.buyer else -trade.quantity
                label = f"{speaker.item(trade.series)} ({speaker.names(trade.id)})"
                add(vault_id, account, "trade waiting", trade.id, label, units, 8, describe_contracts(units))
        for request in sorted(state.requests.values(), key=lambda r: r.sequence):
            if request.account == account:
                decimals, unit = speaker.get_asset_unit(vault_id, request.asset)
                text = speaker.cash(vault_id, request.asset, request.amount)
                label = f"{unit} ({speaker.names(request.id)})"
                add(vault_id, account, "withdrawal asked", request.id, label, request.amount, decimals, text)
    return lines


def _get_conservation(view: View) -> dict[str, Any]:
    states = {vault_id: view.ledger.states[vault_id] for vault_id in view.vault_ids}
    backing = [
        {"class": get_text(b.quote_class), "surplus": str(b.surplus), "decimals": view.parameters.classes[i].decimals}
        for i, b in enumerate(compute_backing(states, view.parameters)[c.quote_class] for c in view.parameters.classes)
    ]
    try:
        verify_conservation(states, view.parameters)
    except Conflict as error:
        return {"is_conserved": False, "detail": f"BROKEN: {error}", "backing": backing}
    detail = "every asset and every series at every vault adds up to the unit; what the house owes is backed"
    return {"is_conserved": True, "detail": detail, "backing": backing}


def find_portfolio(view: View, text: str) -> Portfolio:
    """A portfolio by the first hex digits of its id, of an account in it, or by HOUSE and INSURANCE.

    Raises:
        Rejected: none or several; reason ``unknown_portfolio``.
    """
    for portfolio in _get_system(view):
        if text.upper() == _get_name(portfolio.id):
            return portfolio
    wanted = text.lower().removeprefix("0x")
    found: dict[bytes, Portfolio] = {}
    if len(wanted) >= 4:
        for portfolio in view.ledger.portfolios.values():
            ids = [portfolio.id, *(account for _, account in portfolio.places)]
            if any(wanted == i.hex() or _strip(i).startswith(wanted) for i in ids):
                found[portfolio.id] = portfolio
    if len(found) == 1:
        return next(iter(found.values()))
    raise Rejected(
        "no single portfolio has this id or account: `relayer positions` lists them"
        if not found
        else "several portfolios begin so",
        got=text,
        expected="at least 4 hex digits, HOUSE or INSURANCE"
        if not found
        else ", ".join("0x" + _strip(p)[:12] for p in found),
        reason="unknown_portfolio",
    )


def _strip(identifier: bytes) -> str:
    return identifier.hex()[24:] if identifier[:12] == bytes(12) else identifier.hex()


# ---- margin -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shift:
    """A what-if: relative changes of all spots (with their forwards) and of all volatilities, as ratios above 0."""

    spot: Decimal = Decimal(1)
    volatility: Decimal = Decimal(1)

    @property
    def is_none(self) -> bool:
        """Whether nothing changes."""
        return self.spot == 1 and self.volatility == 1


_SHIFT = re.compile(r"(spot|vol)=([+-]?[0-9]{1,4}(?:\.[0-9]{1,4})?)%")


def parse_shift(text: str) -> Shift:
    """Read "spot=-20%,vol=+30%".

    Raises:
        Rejected: reason ``what_if``.
    """
    factors: dict[str, Decimal] = {}
    for part in text.replace(" ", "").split(","):
        match = _SHIFT.fullmatch(part)
        factor = 1 + Decimal(match[2]) / 100 if match else Decimal(0)
        if match is None or match[1] in factors or not 0 < factor <= MAX_SHIFT:
            raise Rejected(
                "not a what-if",
                got=part,
                expected="spot=-20%,vol=+30% (each at most once, above -100% and up to +900%)",
                reason="what_if",
            )
        factors[match[1]] = factor
    return Shift(factors.get("spot", Decimal(1)), factors.get("vol", Decimal(1)))


def apply_shift(market: MarketView, shift: Shift) -> MarketView:
    """The market with spots, forwards and volatilities moved; settlement prices and asset prices stay."""

    def scale(value: int, factor: Decimal) -> int:
        return int((value * factor).to_integral_value())

    def shift_expiry(mark: ExpiryMark) -> ExpiryMark:
        # Total variance a + b(...) goes with the square of the volatility; the slice moves with its forward.
        variance = shift.volatility**2
        svi = mark.svi_e18
        return replace(
            mark,
            forward_e8=scale(mark.forward_e8, shift.spot),
            slice_forward_e8=scale(mark.slice_forward_e8, shift.spot),
            svi_e18=None if svi is None else (scale(svi[0], variance), scale(svi[1], variance), *svi[2:]),
            volatility_e8=None if mark.volatility_e8 is None else scale(mark.volatility_e8, shift.volatility),
        )

    def shift_underlying(mark: UnderlyingMark) -> UnderlyingMark:
        return replace(
            mark,
            spot_e8=scale(mark.spot_e8, shift.spot),
            expiries={at: shift_expiry(m) for at, m in mark.expiries.items()},
        )

    with localcontext() as context:
        context.prec = 60
        return replace(market, underlyings={u: shift_underlying(m) for u, m in market.underlyings.items()})


def show_margin(view: View, wanted: str, what_if: str | None, *, is_full: bool) -> Answer:
    """Margin of a portfolio: each chain apart, all together, and what the difference is; rows behind the numbers.

    Exit code 1 where maintenance margin is below 0 or a market is frozen.

    Raises:
        Rejected: no such portfolio, no cut, or not a what-if.
    """
    from relayer.rules.plan_context import Context

    shift = Shift() if what_if is None else parse_shift(what_if)
    speaker = Speaker(view, is_full=is_full)
    portfolio = find_portfolio(view, wanted)
    context = Context(view.ledger, view.market, view.parameters, OpenPackets(()))
    decimals, unit = speaker.class_decimals[context.currency], get_text(context.currency)
    market = context.view if shift.is_none else apply_shift(context.view, shift)
    parts: list[tuple[str, Any]] = []
    here = {vault for vault, _ in portfolio.places}
    for vault_id in (v for v in view.shown_vault_ids if v in here):
        places = [p for p in portfolio.places if p[0] == vault_id]
        book = context.make_book(places, context.get_place_dues(places))
        parts.append((speaker.chain(vault_id), book))
    whole = context.make_book(portfolio.places, context.get_place_dues(portfolio.places))
    results = [(name, _compute(context, book, market)) for name, book in parts]
    together = _compute(context, whole, market)
    lines = [_describe_result(speaker, name, result, decimals) for name, result in results]
    total = _describe_result(speaker, "all chains together", together, decimals)
    saved = _get_saving([r for _, r in results], together, decimals)
    data = speaker.frame("margin") | {
        "portfolio": hex_of(portfolio.id),
        "currency": unit,
        "decimals": decimals,
        "market_now": view.market.now,
        "what_if": {"spot": str(shift.spot), "volatility": str(shift.volatility)},
        "apart": lines,
        "together": total,
        "saved_initial": saved,
        "spots": _get_spots(market),
        "trust": [{"chain": speaker.chain(v), **view.get_trust(v)} for v in view.shown_vault_ids],
    }
    tables = [_make_margin_table([*lines, total], unit)]
    if isinstance(together, MarginResult):
        tables += _make_detail_tables(speaker, together, unit, decimals)
    head = f"Margin of {speaker.names(portfolio.id)}, prices of {format_time(view.market.now)}"
    if not shift.is_none:
        head += f", WHAT IF spot x {shift.spot} and volatility x {shift.volatility}"
    spots = ", ".join(_describe_spot(spot) for spot in data["spots"])
    closing = [f"Spot: {spots or 'none'}"]
    closing += _tell_saving(saved, unit)
    closing += [
        f"Trust of {r['chain']}: {', '.join(speaker.trust(view.find_vault(r['chain'])))}" for r in data["trust"]
    ]
    closing += [f"Warning: {w}" for w in total["warnings"]]
    closing.append(_get_verdict(together))
    is_good = isinstance(together, MarginResult) and together.maintenance >= 0
    return Answer(data, (speaker.heading(), head, *tables, "", *closing), 0 if is_good else 1)


def _compute(context: Any, book: Any, market: MarketView) -> MarginResult[Decimal] | Rejected:
    try:
        result: MarginResult[Decimal] = context.compute_exact_limited(book, market)
    except Rejected as error:
        return error
    return result


def _floor(value: Decimal, decimals: int) -> str:
    with localcontext() as context:
        context.prec = 80
        return f"{value.quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_FLOOR):f}"


def _group(text: str, places: int = 2) -> str:
    value = Decimal(text)
    shown = f"{value.quantize(Decimal(1).scaleb(-places), rounding=ROUND_FLOOR):,f}"
    return "0." + "0" * places if shown.strip("-0.,") == "" else shown


def _describe_result(
    speaker: Speaker, name: str, result: MarginResult[Decimal] | Rejected, decimals: int
) -> dict[str, Any]:
    if isinstance(result, Rejected):
        return {"where": name, "is_frozen": True, "why": str(result), "warnings": []}
    return {
        "where": name,
        "is_frozen": False,
        "equity": _floor(result.equity, decimals),
        "cash": _floor(result.cash, decimals),
        "mark_to_market": _floor(result.mark_to_market, decimals),
        "initial": _floor(result.initial, decimals),
        "maintenance": _floor(result.maintenance, decimals),
        "warnings": list(result.warnings),
        "cash_rows": [
            {
                "chain": speaker.chain(row.vault_id) if row.vault_id else "",
                "class": get_text(row.quote_class),
                "amount": str(row.units),
                "decimals": row.decimals,
                "haircut_ppm": row.haircut_ppm,
                "counts": _floor(row.value, decimals),
                **(speaker.view.get_trust(row.vault_id) if row.vault_id else {}),
            }
            for row in result.per_cash
        ],
        "tier_rows": [
            {
                "chain": speaker.chain(row.vault_id),
                **speaker.view.get_trust(row.vault_id),
                "weight_ppm": row.weight_ppm,
                "carried": _floor(row.carried, decimals),
                "value_limit": "" if row.limit is None else _floor(row.limit, decimals),
                "withheld": _floor(row.withheld, decimals),
                "needs_tier": row.required_tier,
            }
            for row in result.per_tier
        ],
    }


def _get_saving(apart: list[Any], together: Any, decimals: int) -> str:
    """How much more initial margin there is together than the chains' own sums; "" where one of them is frozen."""
    if isinstance(together, Rejected) or any(isinstance(r, Rejected) for r in apart) or len(apart) < 2:
        return ""
    return _floor(together.initial - sum((r.initial for r in apart), Decimal(0)), decimals)


def _tell_saving(saved: str, unit: str) -> list[str]:
    """Text of what `_get_saving` found, to the cent; none where it comes to less: the last of 50 digits are no news."""
    value = Decimal(saved or 0).quantize(Decimal("0.01"), rounding=ROUND_DOWN)
    if not value:
        return []
    word = "better" if value > 0 else "worse"
    return [f"Initial margin together is {word} by {abs(value):,f} {unit} than the chains apart."]


def _get_spots(market: MarketView) -> list[dict[str, Any]]:
    return [
        {
            "underlying": get_text(u),
            "spot_e8": str(mark.spot_e8),
            "problems": sorted(state.value for state in mark.states),
        }
        for u, mark in sorted(market.underlyings.items())
    ]


def _describe_spot(spot: dict[str, Any]) -> str:
    problems = f" ({', '.join(spot['problems'])})" if spot["problems"] else ""
    return f"{spot['underlying']} {format_amount(int(spot['spot_e8']), 8)}{problems}"


def _make_margin_table(lines: list[dict[str, Any]], unit: str) -> Table:
    rows = []
    for line in lines:
        if line["is_frozen"]:
            rows.append([line["where"], "frozen", "frozen", "frozen", "frozen", "frozen"])
        else:
            rows.append(
                [
                    line["where"],
                    *(_group(line[key]) for key in ("equity", "cash", "mark_to_market", "initial", "maintenance")),
                ]
            )
    columns = ("where", "equity", "cash after haircuts", "options at mark", "initial surplus", "maintenance surplus")
    return Table(f"Margin in {unit}", columns, rows, right=columns[1:])


def _make_detail_tables(speaker: Speaker, result: MarginResult[Decimal], unit: str, decimals: int) -> list[Table]:
    tables: list[Table] = []
    columns: tuple[str, ...]
    options = [
        [
            describe_series(option.definition),
            describe_contracts(option.quantity_e8),
            f"{float(option.volatility) * 100:.1f} %",
            _group(_floor(option.price, 8)),
            _group(_floor(option.value, decimals)),
        ]
        for market in result.per_market
        for option in market.options
    ]
    if options:
        columns = ("series", "contracts", "volatility", f"price in {unit}", f"value in {unit}")
        tables.append(Table("Options over all chains", columns, options, right=columns[1:]))
        columns = ("settles", "paired loss", "initial", "maintenance")
        rows = [
            [
                f"{get_text(m.underlying)} {format_time(m.expiry)[:16]}",
                _group(_floor(m.max_loss, decimals)),
                _group(_floor(m.initial, decimals)),
                _group(_floor(m.maintenance, decimals)),
            ]
            for m in result.per_market
        ]
        tables.append(Table(f"What the options need, in {unit}", columns, rows, right=columns[1:]))
    cash = [
        [
            "due" if not row.vault_id else speaker.chain(row.vault_id),
            "all chains" if not row.vault_id else speaker.trust(row.vault_id)[0],
            format_amount(row.units, row.decimals, get_text(row.quote_class)),
            f"{row.haircut_ppm / 10_000:.2f} %",
            _group(_floor(row.value, decimals)),
        ]
        for row in result.per_cash
    ]
    if cash:
        columns = ("cash at", "trust", "amount", "haircut", f"counts for, in {unit}")
        tables.append(Table("Cash and dues", columns, cash, right=columns[2:]))
    tiers = [
        [
            speaker.chain(row.vault_id),
            *speaker.trust(row.vault_id)[::2],
            _group(_floor(row.carried, decimals)),
            f"{row.weight_ppm / 10_000:.2f} %",
            "-" if row.limit is None else _group(_floor(row.limit, decimals)),
            _group(_floor(row.withheld, decimals)),
        ]
        for row in result.per_tier
    ]
    if tiers:
        columns = ("chain", "trust", "age", f"carries, in {unit}", "weight", "may carry", "not counted")
        tables.append(Table("What initial margin owes to facts of low tiers", columns, tiers, right=columns[2:]))
    return tables


def _get_verdict(result: MarginResult[Decimal] | Rejected) -> str:
    if isinstance(result, Rejected):
        return f"Frozen: {result}. Nothing is valued at 0 and nothing is liquidated until the price is back."
    if result.maintenance < 0:
        return "Maintenance margin is below 0: the next plan liquidates in steps. Deposit, or close positions."
    if result.initial < 0 and result.initial + max((row.withheld for row in result.per_tier), default=Decimal(0)) >= 0:
        return (
            "Initial margin is below 0 without what facts of low tiers may not carry: no trade and no withdrawal is accepted that"
            " needs it. What lies on those chains can be withdrawn there."
        )
    if result.initial < 0:
        return "Initial margin is below 0: no trade and no withdrawal is accepted. Deposit, or close positions."
    return "Good: trades and withdrawals are accepted up to the initial surplus."
