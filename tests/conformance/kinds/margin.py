"""Margin vectors: published portfolios, auctions and rules, found by the manifest and the content of each file.

A family is recognised by the fields of its cases, so a file under another name is still run. Reference models that the product does
not have are skipped with that reason; the three small published rules are written out here, because only the vectors need them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from relayer.rules.margin.auction import (
    AuctionParameters,
    compute_bid,
    compute_buffer_margin,
    compute_discount,
    compute_maximum_fraction,
    compute_start_fee,
)
from relayer.rules.margin.black76 import compute_option_prices
from relayer.rules.margin.numbers import DECIMAL, FLOAT, Numbers
from relayer.rules.margin.srm import SrmExpiry, SrmMarket, SrmOption, SrmParameters, SrmPerp, compute_srm_market
from relayer.rules.margin.svi import SviSlice, compute_svi_volatility
from tests.conformance import pm1
from tests.conformance.case import Case, SkippedError
from tests.conformance.pm1 import compute_pm1

E18 = 18
SETTLEMENT_WINDOW_S = 3600
ARITHMETICS: tuple[Numbers[Any], ...] = (FLOAT, DECIMAL)


def discover(root: Path) -> Iterator[Case]:
    """Yield every case of every family below the folder."""
    manifest = json.loads((root / "MANIFEST.json").read_text())["families"]
    for path in sorted(root.rglob("*.json")):
        name = str(path.relative_to(root))
        if path.name == "MANIFEST.json" or path.parent.name == "params":
            continue
        content = json.loads(path.read_text())
        family = path.parent.name if path.parent != root else path.stem
        terms = manifest.get(family, {})
        if "auction_params" in terms:
            # The auctions' own `params` only say in words that they are those of the PM1 scenarios.
            terms = {**terms, "pm1": manifest["derive_pmrm1_scenarios"]["params"]}
        cases = content if all(isinstance(case, dict) for case in content.values()) else {"": content}
        if "Parameters" in content:
            cases = {"": content}
        for key, case in cases.items():
            run = get_runner(case)
            yield Case("margin", f"{name}/{key}".rstrip("/"), partial(run, case, terms))


def get_runner(case: dict[str, Any]) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """Return the check that fits the fields of a case."""
    keys = set(case)
    scenario = set(case.get("Scenario", {})) if isinstance(case.get("Scenario"), dict) else set()
    if {"sec", "forward", "strike", "call", "put"} <= keys:
        return run_black76
    if {"a", "b", "rho", "m", "sigma", "vol"} <= keys:
        return run_svi
    if "Parameters" in keys:
        return partial(_skip, "PM2 model is not built yet")
    if {"FeedExpiries", "SettlementPriceETH"} <= scenario:
        return run_srm_case
    if {"ForwardsFixed", "ForwardsVariable"} <= scenario:
        return run_pm1_case
    if {"options", "perps", "results"} <= keys:
        return run_portfolio
    if "InitialPortfolio" in keys:
        return run_auction
    if "running_balance" in keys:
        return run_across
    if "initial_margin_ppm" in keys:
        return run_dydx
    if "weeks_bucket_upper_bound" in keys:
        return run_opyn
    return partial(_skip, "model is not part of the product yet")


def _skip(reason: str, case: dict[str, Any], terms: dict[str, Any]) -> None:
    raise SkippedError(reason)


# ---------------------------------------------------------------- Black-76, SVI


def run_black76(case: dict[str, Any], terms: dict[str, Any]) -> None:
    for numbers in ARITHMETICS:
        with numbers.scope():
            call, put = compute_option_prices(
                numbers,
                forward=exact(numbers, case["forward"]),
                strike=exact(numbers, case["strike"]),
                volatility=exact(numbers, case["vol"]),
                seconds=case["sec"],
                discount=exact(numbers, case["discount"]),
            )
        expect_near(float(call), case["call"], absolute=case["abs_tol"])
        expect_near(float(put), case["put"], absolute=case["abs_tol"])


def run_svi(case: dict[str, Any], terms: dict[str, Any]) -> None:
    for numbers in ARITHMETICS:
        with numbers.scope():
            names = ("a", "b", "rho", "m", "sigma", "forward", "tau")
            svi = SviSlice(*(exact(numbers, case[name]) for name in names))
            volatility = compute_svi_volatility(numbers, svi, exact(numbers, case["strike"]))
        expect_near(float(volatility), case["vol"], absolute=case["abs_tol"])


# ---------------------------------------------------------------- SRM


def get_srm_parameters(params: dict[str, Any]) -> SrmParameters:
    option, oracle, perp = params["option"], params["oracle"], params["perp"]
    thresholds = {oracle[name] for name in ("perpThreshold", "optionThreshold", "baseThreshold")}
    assert len(thresholds) == 1, "the vectors use one confidence threshold"
    return SrmParameters(
        maximum_requirement=decimal(option["maxSpotReq"]),
        minimum_requirement=decimal(option["minSpotReq"]),
        call_maintenance=decimal(option["mmCallSpotReq"]),
        put_maintenance=decimal(option["mmPutSpotReq"]),
        put_maintenance_of_mark=decimal(option["MMPutMtMReq"]),
        unpaired_initial=decimal(option["unpairedIMScale"]),
        unpaired_maintenance=decimal(option["unpairedMMScale"]),
        maintenance_offset=decimal(option["mmOffsetScale"]),
        perp_initial=decimal(perp["im"]),
        perp_maintenance=decimal(perp["mm"]),
        base_factor=decimal(params["base"]["marginFactor"]),
        base_initial_scale=decimal(params["base"]["IMScale"]),
        confidence_threshold=decimal(thresholds.pop()),
        confidence_factor=decimal(oracle["OCFactor"]),
        depeg_threshold=decimal(params["depeg"]["threshold"]),
        depeg_factor=decimal(params["depeg"]["factor"]),
    )


def run_srm_case(case: dict[str, Any], terms: dict[str, Any]) -> None:
    expected = case["Result"]
    for numbers in ARITHMETICS:
        with numbers.scope():
            initial, maintenance, mark = compute_srm_case(
                numbers, case["Scenario"], get_srm_parameters(terms["params"])
            )
        expect_near(float(initial), expected["realIM"] / 1e18, relative=1e-12)
        expect_near(float(maintenance), expected["realMM"] / 1e18, relative=1e-12)
        expect_near(float(mark), expected["PortfolioMtM"] / 1e18, relative=1e-12, absolute=1e-15)


def compute_srm_case(
    numbers: Numbers[Any], scenario: dict[str, Any], parameters: SrmParameters
) -> tuple[Any, Any, Any]:
    """Return (IM, MM, mark of everything but cash) of one case of 1e18 integers over both underlyings."""
    initial = maintenance = numbers.from_scaled(scenario["Cash"], E18)
    mark = numbers.zero
    for index, name in enumerate(("ETH", "BTC")):
        spot_confidence, perp_confidence = (Decimal(c).scaleb(-E18) for c in scenario["SpotPerpConfidences"][index])
        groups: dict[int, list[int]] = {}
        for line, underlying in enumerate(scenario["OptionUnderlying"]):
            if underlying == name:
                groups.setdefault(scenario["OptionExpiries"][line], []).append(line)
        expiries = []
        for seconds, lines in groups.items():
            forward = numbers.from_scaled(scenario["Forwards"][lines[-1]], E18)
            if seconds < SETTLEMENT_WINDOW_S:
                forward = numbers.from_scaled(scenario[f"SettlementPrice{name}"], E18)
            options = []
            for line in lines:
                # The source lost the last digits of a strike in a float; the vectors' note drops them.
                strike = numbers.from_scaled(scenario["OptionStrikes"][line] // 10**10 * 10**10, E18)
                call, put = compute_option_prices(
                    numbers,
                    forward=forward,
                    strike=strike,
                    volatility=numbers.from_scaled(scenario["OptionVols"][line], E18),
                    seconds=seconds,
                    discount=numbers.one,
                )
                is_call = bool(scenario["OptionIsCall"][line])
                amount = numbers.from_scaled(scenario["OptionAmounts"][line], E18)
                options.append(SrmOption(strike, is_call, amount, call if is_call else put))
            confidence = min(scenario["OptionVolConfidences"][lines[-1]], scenario["ForwardConfidences"][lines[-1]])
            expiries.append(SrmExpiry(tuple(options), forward, min(spot_confidence, Decimal(confidence).scaleb(-E18))))
        amount_e18 = scenario[f"Perps_{name}"]
        perp = None
        if amount_e18:
            amount = numbers.from_scaled(amount_e18, E18)
            price = numbers.from_scaled(scenario["PerpPrice"][index], E18)
            entry = numbers.from_scaled(scenario[f"LastEntry{name}"] or 0, E18)
            funding = scenario[f"{name}GlobalFundingIndex"] - (scenario[f"Account{name}FundingIndex"] or 0)
            unrealised = (price - entry) * amount - amount * numbers.from_scaled(funding, E18)
            perp = SrmPerp(amount, price, unrealised, min(spot_confidence, perp_confidence))
        result = compute_srm_market(
            numbers,
            SrmMarket(
                spot=numbers.from_scaled(scenario[f"{name}SpotPrice"], E18),
                spot_confidence=spot_confidence,
                stable_price=numbers.from_scaled(scenario["USDCValue"], E18),
                expiries=tuple(expiries),
                perp=perp,
                base=numbers.from_scaled(scenario[f"w{name}"], E18),
            ),
            parameters,
        )
        initial += result.initial
        maintenance += result.maintenance
        mark += result.mark_to_market
    return initial, maintenance, mark


def run_portfolio(case: dict[str, Any], terms: dict[str, Any]) -> None:
    """A named portfolio of 1e8 integers, by SRM or by PM1 as the parameters of its family say."""
    is_srm = "option" in terms["params"]
    for numbers in ARITHMETICS:
        with numbers.scope():
            if is_srm:
                parameters = get_srm_parameters(terms["params"])
                initial, maintenance = compute_srm_portfolio(numbers, case, terms["env"], parameters)
            else:
                initial, maintenance = compute_pm1_portfolio(numbers, case, terms["env"], terms["params"])
        # The source truncates the result toward zero to an integer.
        expect_near(int(float(initial)), case["results"]["im"], absolute=1)
        expect_near(int(float(maintenance)), case["results"]["mm"], absolute=1)


def compute_srm_portfolio(
    numbers: Numbers[Any], case: dict[str, Any], env: dict[str, Any], parameters: SrmParameters
) -> tuple[Any, Any]:
    """Return (IM, MM) of a named portfolio in the environment of the manifest with the case's own overrides."""
    override = case["env_override"]
    initial = maintenance = numbers.from_scaled(case["cash"], 8)
    default = parse_confidence(env["default_conf"])
    labels = list(env["seconds_to_expiry"])
    spot_confidence = parse_confidence(override.get("spot_conf", default))
    for name in ("eth", "btc"):
        spot = exact(numbers, env[f"{name}_spot"])
        groups: dict[str, list[dict[str, Any]]] = {}
        for option in case["options"]:
            if option["underlying"] == name:
                groups.setdefault(option["expiry"], []).append(option)
        expiries = []
        for label, lines in groups.items():
            forward = spot + exact(numbers, env[f"{name}_forward_minus_spot"][labels.index(label)])
            confidence = min(spot_confidence, default)
            if label in override.get("fwd", {}):
                value, doubt = override["fwd"][label]
                forward, confidence = exact(numbers, value), min(confidence, parse_confidence(doubt))
            options = []
            for option in lines:
                volatility, doubt = override.get("vol", {}).get(
                    f"{label}/{option['strike']}", [env["default_vol"], default]
                )
                confidence = min(confidence, parse_confidence(doubt))
                strike = exact(numbers, option["strike"])
                call, put = compute_option_prices(
                    numbers,
                    forward=forward,
                    strike=strike,
                    volatility=exact(numbers, volatility),
                    seconds=env["seconds_to_expiry"][label],
                    discount=numbers.one,
                )
                is_call = option["type"] == "call"
                amount = numbers.from_scaled(option["amount"], 8)
                options.append(SrmOption(strike, is_call, amount, call if is_call else put))
            expiries.append(SrmExpiry(tuple(options), forward, confidence))
        perp = None
        for held in case["perps"]:
            if held["underlying"] == name:
                assert perp is None, "one perpetual of an underlying"
                price, doubt = override.get("perp", [env[f"{name}_perp_mark"], default])
                amount, mark = numbers.from_scaled(held["amount"], 8), exact(numbers, price)
                entry = numbers.from_scaled(held["entryPrice"], 8)
                confidence = min(spot_confidence, parse_confidence(doubt))
                perp = SrmPerp(amount, mark, (mark - entry) * amount, confidence)
        base = sum(
            (numbers.from_scaled(b["amount"], 8) for b in case["bases"] if b["underlying"] == name), numbers.zero
        )
        market = SrmMarket(
            spot, spot_confidence, exact(numbers, override.get("stable", 1)), tuple(expiries), perp, base
        )
        result = compute_srm_market(numbers, market, parameters)
        initial += result.initial
        maintenance += result.maintenance
    return initial, maintenance


def parse_confidence(value: Any) -> Decimal:
    """Return a confidence exactly; one of the vectors is written as a difference."""
    if isinstance(value, str) and " - " in value:
        whole, _, part = value.partition(" - ")
        return Decimal(whole) - Decimal(part)
    return decimal(value)


# ---------------------------------------------------------------- PM1


def run_pm1_case(case: dict[str, Any], terms: dict[str, Any]) -> None:
    expected = case["Result"]
    for numbers in ARITHMETICS:
        with numbers.scope():
            initial, maintenance, worth = compute_pm1(numbers, read_pm1(numbers, case["Scenario"]), terms["params"])
        expect_near(float(initial), expected["InitialMarginHand"] / 1e18, relative=1e-12)
        expect_near(float(maintenance), expected["MaintenanceMarginHand"] / 1e18, relative=1e-12)
        assert worth >= maintenance


def read_pm1(numbers: Numbers[Any], scenario: dict[str, Any], elapsed_s: int = 0) -> pm1.Portfolio:
    """Return one case of 1e18 integers as a portfolio, `elapsed_s` after the times to expiry it states."""

    def scale(value: Any) -> Any:
        return numbers.from_scaled(int(value), E18)

    groups: dict[int, list[int]] = {}
    for line, seconds in enumerate(scenario["OptionExpiries"]):
        groups.setdefault(seconds, []).append(line)
    expiries = []
    for seconds, lines in groups.items():
        doubts = [
            scenario[name][i]
            for i in lines
            for name in ("OptionVolConfidences", "ForwardConfidences", "RateConfidences")
        ]
        options = tuple(
            pm1.Option(
                scale(scenario["OptionStrikes"][i] // 10**10 * 10**10),
                bool(scenario["OptionIsCall"][i]),
                scale(scenario["OptionAmounts"][i]),
                scale(scenario["OptionVols"][i]),
            )
            for i in lines
        )
        first = lines[0]
        expiries.append(
            pm1.Expiry(
                seconds - elapsed_s,
                scale(scenario["ForwardsVariable"][first]),
                scale(scenario["ForwardsFixed"][first]),
                scale(scenario["Rates"][first]),
                Decimal(min(doubts)).scaleb(-E18),
                options,
            )
        )
    return pm1.Portfolio(
        cash=scale(scenario["Cash"]),
        spot=scale(scenario["SpotPrice"]),
        spot_confidence=Decimal(scenario["SpotConfidence"]).scaleb(-E18),
        stable=scale(scenario["StablePrice"]),
        perp=scale(scenario["Perps"]),
        perp_price=scale(scenario["PerpPrice"]),
        perp_confidence=Decimal(scenario["PerpConfidence"]).scaleb(-E18),
        perp_cash=scale(scenario["UnrealisedPerpPNL"]) + scale(scenario["UnrealisedFunding"]),
        base=scale(scenario["Base"]),
        expiries=tuple(expiries),
    )


def compute_pm1_portfolio(
    numbers: Numbers[Any], case: dict[str, Any], env: dict[str, Any], params: dict[str, Any]
) -> tuple[Any, Any]:
    """Return (IM, MM) of a named portfolio of one underlying."""
    override = case["env_override"]
    held = [*case["options"], *case["perps"], *case["bases"]]
    names = {item["underlying"] for item in held}
    assert len(names) <= 1, "PM1 margins one underlying"
    name = names.pop() if names else "eth"
    default = parse_confidence(env["default_conf"])
    labels = list(env["seconds_to_expiry"])
    spot = exact(numbers, env[f"{name}_spot"])
    expiries = []
    for label in dict.fromkeys(option["expiry"] for option in case["options"]):
        seconds = env["seconds_to_expiry"][label]
        forward = spot + exact(numbers, env[f"{name}_forward_minus_spot"][labels.index(label)])
        confidence = default
        if label in override.get("fwd", {}):
            value, doubt = override["fwd"][label]
            forward, confidence = exact(numbers, value), min(confidence, parse_confidence(doubt))
        options = []
        for option in case["options"]:
            if option["expiry"] == label:
                marks = override.get("vol", {})
                volatility, doubt = marks.get(f"{label}/{option['strike']}", [env["default_vol"], default])
                confidence = min(confidence, parse_confidence(doubt))
                amount = numbers.from_scaled(option["amount"], 8)
                strike = exact(numbers, option["strike"])
                options.append(pm1.Option(strike, option["type"] == "call", amount, exact(numbers, volatility)))
        rate = exact(numbers, env["rate"])
        expiries.append(pm1.Expiry(seconds, forward, numbers.zero, rate, confidence, tuple(options)))
    price, doubt = override.get("perp", [env[f"{name}_perp_mark"], default])
    mark = exact(numbers, price)
    perp = perp_cash = numbers.zero
    for item in case["perps"]:
        amount = numbers.from_scaled(item["amount"], 8)
        perp += amount
        perp_cash += (mark - numbers.from_scaled(item["entryPrice"], 8)) * amount
    portfolio = pm1.Portfolio(
        cash=numbers.from_scaled(case["cash"], 8),
        spot=spot,
        spot_confidence=parse_confidence(override.get("spot_conf", default)),
        stable=exact(numbers, override.get("stable", 1)),
        perp=perp,
        perp_price=mark,
        perp_confidence=parse_confidence(doubt),
        perp_cash=perp_cash,
        base=sum((numbers.from_scaled(item["amount"], 8) for item in case["bases"]), numbers.zero),
        expiries=tuple(expiries),
    )
    initial, maintenance, _ = compute_pm1(numbers, portfolio, params)
    return initial, maintenance


# ---------------------------------------------------------------- auctions


def run_auction(case: dict[str, Any], terms: dict[str, Any]) -> None:
    """Margins by PM1, prices and fractions by the product's auction."""
    if not case["upstream_enabled"]:
        raise SkippedError("disabled at its source: an older rule, for illustration only")
    table = terms["auction_params"]
    parameters = AuctionParameters(
        start=decimal(table["startingMtMPercentage"]),
        cutoff=decimal(table["fastAuctionCutoffPercentage"]),
        fast_s=table["fastAuctionLength_s"],
        slow_s=table["slowAuctionLength_s"],
        insolvent_s=table["insolventAuctionLength_s"],
        fee=decimal(table["liquidatorFeeRate"]),
        buffer=decimal(table["bufferMarginPercentage"]),
    )
    for numbers in ARITHMETICS:
        with numbers.scope():
            _run_auction(numbers, case, parameters, terms["pm1"])


def _run_auction(
    numbers: Numbers[Any], case: dict[str, Any], parameters: AuctionParameters, margin: dict[str, Any]
) -> None:
    def near(got: Any, expected: int) -> None:
        expect_near(float(got), expected / 1e18, relative=1e-9, absolute=1e-9)

    _, maintenance, worth = compute_pm1(numbers, read_pm1(numbers, case["InitialPortfolio"]), margin)
    fee = compute_start_fee(numbers, maintenance, worth, parameters)
    expect_near(float(fee), case["LiquidationFee"], relative=1e-9)
    reserved = numbers.zero
    for action in case["Actions"]:
        expected = action["Results"]
        held = read_pm1(numbers, action["PortfolioAndFeeds"], action["Time"] - case["StartTime"])
        _, maintenance, worth = compute_pm1(numbers, held, margin)
        buffer_margin = compute_buffer_margin(numbers, maintenance, worth, parameters)
        discount = compute_discount(numbers, action["Time"] - case["StartTime"], parameters)
        most = compute_maximum_fraction(
            numbers, buffer_margin=buffer_margin, worth=worth, reserved=reserved, discount=discount
        )
        near(worth, expected["PreMtM"])
        near(maintenance, expected["PreMM"])
        near(buffer_margin, expected["PreBM"])
        near(most, expected["PreFMax"])
        taken = min(most, numbers.from_scaled(action["Liquidator"]["PercentWant"], E18))
        near(taken, expected["FinalPercentageReceived"])
        paid = compute_bid(worth, reserved, discount) * taken
        near(paid, expected["ExpectedBidPrice"])
        # What was sold leaves in equal parts, cash already paid stays: it is reserved.
        kept = numbers.one - taken
        near((worth - reserved) * kept + reserved + paid, expected["PostMtM"])
        near((maintenance - reserved) * kept + reserved + paid, expected["PostMM"])
        near((buffer_margin - reserved) * kept + reserved + paid, expected["PostBM"])
        reserved += paid


# ---------------------------------------------------------------- small published rules, for the vectors only


def run_across(case: dict[str, Any], terms: dict[str, Any]) -> None:
    """Running balance: a surplus is sent; a debt at or above the threshold is returned down to the target; else it is carried."""
    balance, threshold, target = case["running_balance"], case["threshold"], case["target"]
    sent = 0
    if balance > 0:
        sent = balance
    elif -balance >= threshold:
        sent = balance + target
    assert sent == case["net_send_amount"], (sent, case["net_send_amount"])
    assert balance - sent == case["new_running_balance"], (balance - sent, case["new_running_balance"])


def run_dydx(case: dict[str, Any], terms: dict[str, Any]) -> None:
    """Initial margin that grows with open interest between two caps, in parts per million, rounded up."""
    factor = Decimal(case["initial_margin_ppm"])
    interest, lower, upper = case["oi_notional"], case["oi_lower_cap"], case["oi_upper_cap"]
    if upper and interest >= upper:
        factor = Decimal(10**6)
    elif upper and interest > lower:
        factor += (10**6 - factor) * (interest - lower) / (upper - lower)
    initial = -(-(case["quote_quantums"] * int(factor)) // 10**6)
    assert initial == case["expected_im"], (initial, case["expected_im"])


def run_opyn(case: dict[str, Any], terms: dict[str, Any]) -> None:
    """Margin of a naked option; calls in units of the underlying."""
    upper, strike, spot = (Decimal(str(case[name])) for name in ("weeks_bucket_upper_bound", "strike", "spot"))
    shocked = spot * Decimal(str(case["spot_shock"]))
    if case["is_put"]:
        margin = upper * min(strike, shocked) + max(strike - shocked, Decimal(0))
    else:
        share = strike / shocked
        margin = upper * min(Decimal(1), share) + max(1 - share, Decimal(0))
    margin *= case["short_amount"]
    expect_near(float(margin), case["expected_margin"], relative=1e-12)
    expect_near(float(margin), case["quoted_in_test"], absolute=case["quoted_tol"])


# ---------------------------------------------------------------- helpers


def decimal(value: Any) -> Decimal:
    return Decimal(str(value))


def exact(numbers: Numbers[Any], value: Any) -> Any:
    """Return a number of a JSON file in the arithmetic; the shortest decimal text of a float is what its author wrote."""
    return numbers.from_decimal(decimal(value))


def expect_near(got: float, expected: float, *, relative: float = 0.0, absolute: float = 0.0) -> None:
    tolerance = max(absolute, relative * abs(expected))
    assert abs(got - expected) <= tolerance, f"got {got!r}, expected {expected!r}, tolerance {tolerance!r}"
