"""The report of a run as one HTML file: plots are inline SVG, nothing is fetched, no script runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

WIDTH = 900
UNIT = 10**6
MAX_LABEL = 12
MAX_CELL = 24
COLOURS = {"chapter": "#1f5fa8", "fault": "#b3261e", "start": "#6b7280", "note": "#3d8b40", "failure": "#b3261e"}

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c1e21; max-width: 960px; margin: 2em auto; padding: 0 1em; background: #fff }
h1 { font-size: 1.5em; margin-bottom: .2em } h2 { font-size: 1.15em; margin: 2em 0 .4em; border-bottom: 1px solid #d7dbe0 }
table { border-collapse: collapse; margin: .6em 0 } td, th { padding: .25em .9em .25em 0; text-align: right; font-variant-numeric: tabular-nums }
td:first-child, th:first-child { text-align: left } th { color: #57606a; font-weight: 600; border-bottom: 1px solid #d7dbe0 }
.badge { display: inline-block; padding: .15em .7em; border-radius: 1em; color: #fff; font-weight: 600 }
.good { background: #2e7d32 } .bad { background: #b3261e } .grey { color: #57606a } svg { display: block; margin: .5em 0 } svg text { font: 12px system-ui, sans-serif }
"""


def write_html(result: Mapping[str, Any], path: Path) -> None:
    """Write the report of a run's result (report.json)."""
    path.write_text(make_html(result))


def make_html(result: Mapping[str, Any]) -> str:
    """The whole page."""
    verdict = (
        '<span class="badge good">all checks hold</span>'
        if result["ok"]
        else '<span class="badge bad">checks failed</span>'
    )
    parts = [
        "<!DOCTYPE html><html lang=en><head><meta charset=utf-8><title>Testnet run</title>",
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>Testnet run {verdict}</h1>",
        (
            f"<p class=grey>seed {result['seed']}, {'with faults' if result['faults'] else 'without faults'};"
            f" {escape(str(result['nodes']))}; mosquitto, four operator processes, three signatures make a packet.</p>"
        ),
        _make_summary(result),
        "<h2>Timeline</h2>",
        make_timeline(result["timeline"]),
        "<h2>The chains</h2>",
        _make_chains(result["chains"], result["latency"]["by_chain"]),
        "<h2>From finality to the transaction</h2>",
        _make_latency(result["latency"]),
        "<h2>Gross against net</h2>",
        _make_settlement(result["settlement"]),
        "<h2>Margin: each chain alone, and one account over all</h2>",
        _make_margin(result["margin"]),
        "<h2>Conservation</h2>",
        _make_conservation(result["conservation"]),
        "<h2>Users</h2>",
        make_table(
            ("user", "paid in", "got out", "result"),
            [(u["user"], *(show(u[key]) for key in ("paid_in", "got_out", "result"))) for u in result["users"]],
        ),
        "<h2>Who was caught at what</h2>",
        _make_incidents(result["incidents"]),
        *_make_lies(result.get("lies", ())),
        "</body></html>",
    ]
    return "\n".join(parts)


def show(units: object) -> str:
    """Base units of the class as whole units with two decimals."""
    return f"{int(str(units)) / UNIT:,.2f}"


def shorten_chain(chain: str) -> str:
    """What tells a chain (CAIP-2) in a plot: its reference, without the end where that is long."""
    reference = chain.rpartition(":")[2]
    return reference if len(reference) <= MAX_LABEL else reference[: MAX_LABEL - 1] + "…"


def _shorten_long(text: str) -> str:
    """A name that would not fit into a table: its beginning; whole ones are in report.json."""
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"


def make_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table; every cell is escaped."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _svg(height: int, parts: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" width="100%" role="img"'
        f' aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", colour: str = "#1c1e21") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


# ---- parts ------------------------------------------------------------------------------------------------------------


def _make_summary(result: Mapping[str, Any]) -> str:
    settlement, replay = result["settlement"], result["replay"]
    return make_table(
        ("what", "value"),
        [
            ("facts proven", ", ".join(f"{name} {count}" for name, count in result["facts"].items())),
            ("packets acknowledged", f"{result['packets']} ({result['packets_refused']} refused)"),
            ("settlement price", f"{int(settlement['price_e8']) / 1e8:,.2f}"),
            ("difference of conservation", result["conservation"]["difference"]),
            ("four operators agree on every head", "yes" if result["operators_agree"] else "NO"),
            ("exported fact verifies from its file", "yes" if result["proof"]["verified"] else "NO"),
            (
                "replay gives the same digests",
                f"{'yes' if replay['same'] else 'NO'} ({replay['plans']} plans, {replay['facts']} facts)",
            ),
            ("operators stopped cleanly", "yes" if result["stopped_cleanly"] else "NO"),
        ],
    )


def _make_chains(chains: Mapping[str, Any], latency: Mapping[str, Any]) -> str:
    """What differs from family to family: how a block becomes final, and what a call costs there."""
    rows = []
    for name, found in chains.items():
        stages = latency.get(found["chain"], {})
        count = max((int(stage["count"]) for stage in stages.values()), default=0)
        gas = int(found["gas"]) // max(1, int(found["transactions"]))
        cells = [_show_stage(stages.get(stage)) for stage in ("finality_to_submission", "submission_to_proof")]
        rows.append((f"{name}: {found['nodes']}", str(found["transactions"]), f"{gas:,}", str(count), *cells))
    header = (
        "chain",
        "users' calls",
        "gas a call",
        "packets",
        "finality to transaction, ms (p50 / p99)",
        "transaction to proven Ack, ms (p50 / p99)",
    )
    return make_table(header, rows)


def _show_stage(stage: Mapping[str, Any] | None) -> str:
    return "-" if stage is None else f"{stage['p50_ms']:,.0f} / {stage['p99_ms']:,.0f}"


def make_timeline(lines: Sequence[Mapping[str, Any]]) -> str:
    """Events from top to bottom, spaced by time as far as their texts allow."""
    if not lines:
        return "<p>Nothing happened.</p>"
    end = max(float(line["at_s"]) for line in lines) or 1.0
    row, scale_height = 19.0, max(420.0, 19.0 * len(lines))
    parts, last = [], -row
    ticks = range(0, int(end) + 1, 60)
    for tick in ticks:
        y = 14 + tick / end * scale_height
        parts.append(f'<line x1="46" x2="56" y1="{y:.1f}" y2="{y:.1f}" stroke="#9aa2ab"/>')
        parts.append(_text(42, y + 4, f"{tick // 60} min", anchor="end", colour="#57606a"))
    bottom = 14 + scale_height
    parts.append(f'<line x1="56" x2="56" y1="14" y2="{bottom:.1f}" stroke="#9aa2ab"/>')
    for line in lines:
        at = 14 + float(line["at_s"]) / end * scale_height
        y = max(at, last + row)
        last = y
        colour = COLOURS.get(str(line["kind"]), COLOURS["note"])
        parts.append(f'<circle cx="56" cy="{at:.1f}" r="4" fill="{colour}"/>')
        parts.append(
            f'<path d="M60 {at:.1f} L84 {y:.1f}" stroke="{colour}" stroke-width="1" fill="none" opacity=".5"/>'
        )
        text = str(line["text"])
        parts.append(
            _text(
                90, y + 4, f"{float(line['at_s']):.0f} s  {text[:118]}{'…' if len(text) > 118 else ''}", colour=colour
            )
        )
    return _svg(int(max(bottom, last) + 20), parts, "timeline of the run")


def _make_latency(latency: Mapping[str, Any]) -> str:
    summary = latency["summary"]
    if not summary:
        return "<p>No packet was sent.</p>"
    table = make_table(
        ("stage", "packets", "p50 ms", "p99 ms"),
        [
            (name.replace("_", " "), str(s["count"]), f"{s['p50_ms']:,.0f}", f"{s['p99_ms']:,.0f}")
            for name, s in summary.items()
        ],
    )
    stages = ("finality_to_proposal", "proposal_to_certificate", "certificate_to_submission")
    colours = ("#8fb3d9", "#1f5fa8", "#3d8b40")
    packets = latency["packets"][:60]
    longest = max((sum(float(p.get(s, 0)) for s in stages) for p in packets), default=1.0) or 1.0
    parts = []
    for i, (stage, colour) in enumerate(zip(stages, colours, strict=True)):
        parts.append(f'<rect x="{130 + 230 * i}" y="2" width="12" height="12" fill="{colour}"/>')
        parts.append(_text(147 + 230 * i, 12, stage.replace("_", " ")))
    for i, packet in enumerate(packets):
        y, x = 24 + 17 * i, 130.0
        parts.append(_text(124, y + 11, f"{shorten_chain(str(packet['chain']))} #{packet['sequence']}", anchor="end"))
        for stage, colour in zip(stages, colours, strict=True):
            width = float(packet.get(stage, 0)) / longest * (WIDTH - 230)
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="{max(width, 0.5):.1f}" height="13" fill="{colour}"/>')
            x += width
        total = sum(float(packet.get(s, 0)) for s in stages)
        parts.append(_text(x + 5, y + 11, f"{total:,.0f} ms", colour="#57606a"))
    note = "<p class=grey>A packet that a price or the expiry caused has no first part. Each operator looks at least once a second.</p>"
    return table + _svg(34 + 17 * len(packets), parts, "latency of each packet") + note


def make_bars(rows: Sequence[tuple[str, float, str]]) -> str:
    """Horizontal bars: (label, value, colour)."""
    longest = max((abs(value) for _, value, _ in rows), default=1.0) or 1.0
    parts = []
    for i, (label, value, colour) in enumerate(rows):
        y = 6 + 30 * i
        width = max(value, 0) / longest * (WIDTH - 420)
        parts.append(_text(250, y + 15, label, anchor="end"))
        parts.append(f'<rect x="260" y="{y}" width="{max(width, 1):.1f}" height="21" fill="{colour}"/>')
        parts.append(_text(268 + width, y + 15, f"{value:,.2f}"))
    return _svg(12 + 30 * len(rows), parts, "bars")


def _make_settlement(settlement: Mapping[str, str]) -> str:
    gross, net, moved = (int(settlement[key]) / UNIT for key in ("gross", "net", "moved"))
    saved = 100 - 100 * net / gross if gross else 0.0
    bars = make_bars(
        [
            ("obligations chain by chain", gross, "#b0b8c1"),
            ("netted over all chains", net, "#1f5fa8"),
            ("cash that changed hands", moved, "#3d8b40"),
        ]
    )
    return bars + (
        f"<p>{saved:.0f} % less to carry between chains; {settlement['packets']} packets with {settlement['legs']} legs.</p>"
    )


def _make_margin(margin: Mapping[str, Mapping[str, str]]) -> str:
    if not margin:
        return "<p>Nobody holds positions on more than one chain.</p>"
    rows = []
    for user, row in margin.items():
        rows.append((f"{user}, each chain alone", int(row["apart"]) / UNIT, "#b0b8c1"))
        rows.append((f"{user}, together", int(row["together"]) / UNIT, "#1f5fa8"))
    return make_bars(rows)


def _make_conservation(found: Mapping[str, Any]) -> str:
    rows = [
        (f"vault {name} ({v['chain']})", show(v["held"]), show(v["owed"]), str(int(v["held"]) - int(v["owed"])))
        for name, v in found["vaults"].items()
    ]
    return make_table(("where", "tokens held", "owed to accounts", "difference"), rows)


def _make_lies(lies: Sequence[Mapping[str, Any]]) -> list[str]:
    """Who lied on purpose in a run with faults, and who noticed; nothing where nobody did."""
    if not lies:
        return []
    rows = []
    for lie in lies:
        rows.append((f"endpoint {lie['endpoint']}", lie["chain"], ", ".join(lie["endpoint_accusers"]) or "NOBODY"))
        rows.append((f"operator {lie['operator']}", lie["chain"], ", ".join(lie["operator_accusers"]) or "NOBODY"))
    return ["<h2>Who lied, and who named it</h2>", make_table(("liar", "chain", "named by"), rows)]


def _make_incidents(incidents: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (name, _shorten_long(str(b["chain"])), _shorten_long(str(b["source"])), str(b["reason"]), str(b["count"]))
        for name, found in incidents.items()
        for b in found["blames"]
    ]
    if not rows:
        return "<p>Nobody.</p>"
    return make_table(("operator", "chain", "source", "reason", "times"), rows)
