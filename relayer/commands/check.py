"""`relayer check [--live]`: every part of a configuration, what it is, whether it is right, and what to do where it is not.

Without ``--live`` nothing is asked from a network. With it each endpoint, the vault, balances, clock, broker and feeds are; what they
answer is only compared, never believed for anything else.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chains.base import Probe
from chains.registry import FAMILIES, ChainConfig, build_probe
from messages.digests import get_address
from messages.documents import compute_digest
from messages.errors import Rejected, RelayerError, Unavailable
from relayer.commands.control import Standing, read_standing
from relayer.config import Config, get_key_path, read_password
from relayer.render import Answer, Table, format_age, format_amount, format_time, hex_of

OK, WARNING, WRONG = "ok", "warning", "wrong"
CLOCK_BEHIND_S = 5
BLOCK_OLD_S = 90
FINALITY_OLD_S = 3600
CHECKPOINT_OLD_S = 10 * 86_400


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. ``code``: a stable word; ``todo``: "" where nothing has to be done."""

    subject: str
    code: str
    level: str
    text: str
    todo: str = ""


class _Findings(list[Finding]):
    def good(self, subject: str, code: str, text: str) -> None:
        self.append(Finding(subject, code, OK, text))

    def warn(self, subject: str, code: str, text: str, todo: str) -> None:
        self.append(Finding(subject, code, WARNING, text, todo))

    def bad(self, subject: str, code: str, text: str, todo: str) -> None:
        self.append(Finding(subject, code, WRONG, text, todo))


def check(config: Config, now: int, *, is_live: bool) -> Answer:
    """Look at everything; exit code 1 where something is wrong.

    Args:
        config: as loaded; what cannot be loaded has its own error and exit code.
        now: unix seconds of this machine's clock.
        is_live: also ask endpoints, broker and feeds.

    Raises:
        Rejected: the node's store cannot be used.
    """
    present = config.at(now)
    began_s = time.time()
    out = _Findings()
    standing = read_standing(present, now)
    address = _check_operator(present, standing, out)
    submit = _check_submit_keys(present, address, out)
    _check_files(present, out)
    _check_parameters(config, present, standing, now, out)
    _check_gossip(present, out)
    for chain in present.chains:
        _check_chain(chain, out, has_key=chain.chain_id in present.submit_keys)
    _check_rest(present, out)
    if is_live:
        # Opening keys takes seconds: without them a block of this moment would seem to come from the future.
        now += int(time.time() - began_s)
        out.extend(asyncio.run(_check_live(present, standing, address, submit, now)))
    return _answer(present, out, is_live=is_live)


def _answer(config: Config, found: Sequence[Finding], *, is_live: bool) -> Answer:
    wrong = [f for f in found if f.level == WRONG]
    data = {
        "schema": "relayer/check/1",
        "node": config.name,
        "is_live": is_live,
        "is_good": not wrong,
        "findings": [
            {"subject": f.subject, "code": f.code, "level": f.level, "text": f.text, "todo": f.todo} for f in found
        ],
    }
    rows = [[f.subject, f.level if f.level != WRONG else "WRONG", f.text, f.todo] for f in found]
    warned = sum(f.level == WARNING for f in found)
    words = f"{len(wrong)} wrong, {warned} to look at, {len(found) - len(wrong) - warned} ok."
    if wrong:
        words += " A node is not started before the wrong ones are right."
    elif not is_live:
        words += " Next: relayer check --live asks endpoints, vaults, broker and feeds too."
    else:
        words += " Next: relayer run."
    return Answer(data, [Table("", ("what", "is", "found", "what to do"), rows), words], 1 if wrong else 0)


# ---- files --------------------------------------------------------------------------------------------------------------


def _open_key(config: Config, key: str, password: str) -> bytes:
    from relayer.keys import load_key_file

    secret = load_key_file(
        get_key_path(key, config.path),
        read_password(password, config.path),
        is_throwaway=config.operator.allow_throwaway_key,
    )
    return secret.reveal()


def _check_operator(config: Config, standing: Standing, out: _Findings) -> bytes | None:
    try:
        address = get_address(_open_key(config, config.operator.key, config.operator.password))
    except Rejected as error:
        out.bad("operator key", error.reason, str(error), "relayer keys new or import, or correct [operator]")
        return None
    out.good("operator key", "operator_key", f"{hex_of(address)} opens")
    if config.operator.allow_throwaway_key:
        out.warn(
            "operator key",
            "throwaway",
            "allow_throwaway_key is on: keys may be cheaply guarded",
            "only for tests: remove it",
        )
    if address in standing.committee.operators:
        out.good(
            "committee", "member", f"member of {standing.committee.threshold} of {len(standing.committee.operators)}"
        )
    else:
        out.warn(
            "committee",
            "not_member",
            f"not in the set of epoch {standing.committee.epoch} that this node knows: it watches and signs nothing that counts",
            "wait for a rotation that names it, or correct [operator]",
        )
    return address


def _check_submit_keys(config: Config, operator: bytes | None, out: _Findings) -> dict[str, bytes]:
    """Keys that pay, by chain, where they open."""
    keys = {}
    for chain, reference in config.submit_keys.items():
        subject = f"{chain} gas key"
        try:
            key = _open_key(config, reference.key, reference.password)
        except Rejected as error:
            out.bad(subject, error.reason, str(error), "relayer keys new, or correct submit_key")
            continue
        if get_address(key) == operator:
            out.bad(subject, "same_key", "it is the operator key", "pay gas with a key of its own")
            continue
        keys[chain] = key
        out.good(subject, "gas_key", f"{_get_payer(config, chain, key)} opens")
    return keys


def _get_payer(config: Config, chain_id: str, key: bytes) -> str:
    """The account of a key as people of its chain write it, so that they can send it money."""
    chain = next(c for c in config.chains if c.chain_id == chain_id)
    try:
        submitter = build_probe(chain, key).submitter
    except Rejected:
        return hex_of(get_address(key))  # what is wrong with the chain is said where chains are looked at
    assert submitter is not None  # a key was given
    return submitter.account


def _check_files(config: Config, out: _Findings) -> None:
    if config.journal_path.is_file():
        out.good("journal", "journal", str(config.journal_path))
    else:
        out.warn(
            "journal",
            "no_journal",
            "there is none: the node makes one and signs nothing until every packet it might have signed is dead",
            "for a key that never signed: relayer keys first-journal",
        )
    for name, path in (("store", config.store_path), ("journal", config.journal_path)):
        if path.is_file() and path.stat().st_mode & 0o077:
            out.bad(name, "file_mode", f"others can read {path}", f"chmod 600 {path}")
    if config.store_path.is_file():
        out.good("store", "store", str(config.store_path))
    else:
        out.good(
            "store", "first_start", "none yet: the first start makes it and proves everything from the checkpoints"
        )


def _check_parameters(config: Config, present: Config, standing: Standing, now: int, out: _Findings) -> None:
    from relayer.service import ACCEPTED_PARAMETERS, verify_configured_parameters

    parameters = present.parameters
    digest = compute_digest(parameters)
    text = f"version {parameters.version} {hex_of(digest)}"
    if now < parameters.effective:
        out.bad(
            "parameters",
            "not_effective",
            f"{text} is in force from {format_time(parameters.effective)}",
            "use the former set",
        )
    elif _read_setting(present.store_path, ACCEPTED_PARAMETERS)[8:] == digest:
        out.good("parameters", "accepted", f"{text}, in use here")
    else:
        _check_signed(lambda: verify_configured_parameters(present, now), present, standing, text, "parameters", out)
    later = config.next
    if later is not None and present is config:
        at = later.parameters.effective
        text = f"version {later.parameters.version} {hex_of(compute_digest(later.parameters))} from {format_time(at)}"
        _check_signed(
            lambda: verify_configured_parameters(config.at(at), at),
            config.at(at),
            standing,
            text,
            "next parameters",
            out,
        )


def _check_signed(
    verify_created: Callable[[], None], config: Config, standing: Standing, text: str, subject: str, out: _Findings
) -> None:
    """Signed by the set in force (or named as genesis); the sets at creation judge where the node has no records."""
    from relayer.commands.control import get_signers, read_signatures

    try:
        if standing.is_recorded and config.signatures_path is not None:
            signers = get_signers(read_signatures(config.signatures_path), config.parameters, standing.committee)
            if len(signers) < standing.committee.threshold:
                raise Rejected("too few", got=len(signers), expected=standing.committee.threshold, reason="no_quorum")
        else:
            verify_created()
    except Rejected as error:
        todo = "relayer parameters verify says who signed; m operators have to (relayer parameters sign)"
        out.bad(subject, error.reason, f"{text}: {error}", todo)
    else:
        out.good(subject, "signed", text)


def _read_setting(store_path: Path, key: str) -> bytes:
    import contextlib
    import sqlite3

    from relayer.database import open_reader

    if not store_path.is_file():
        return b""
    with contextlib.closing(open_reader(store_path)) as db, contextlib.suppress(sqlite3.OperationalError):
        row = db.execute("SELECT value FROM settings WHERE key = ?", (key,)).fetchone()
        return b"" if row is None else bytes(row[0])
    return b""


def _check_gossip(config: Config, out: _Findings) -> None:
    from relayer.log import make_logger
    from relayer.service import make_gossip

    if config.gossip.kind == "memory":
        out.bad(
            "gossip",
            "memory_gossip",
            "kind memory reaches only nodes of one process",
            'kind = "mqtt" with host and port',
        )
        return
    where = f"{config.gossip.host}:{config.gossip.port}"
    try:
        make_gossip(config, b"\x01" * 20, make_logger(level="error"))
    except Rejected as error:
        out.bad("gossip", error.reason, str(error), "correct [gossip] (docs/mqtt.md)")
        return
    words = "TLS" if config.gossip.ca_file else "plain, on this machine"
    out.good("gossip", "gossip", f"mqtt {where}, {words}")
    if config.gossip.password_file is None and config.gossip.cert_file is None:
        out.warn(
            "gossip", "anonymous", "neither password_file nor cert_file: the broker cannot know us", "see docs/mqtt.md"
        )


def _check_chain(chain: ChainConfig, out: _Findings, *, has_key: bool) -> None:
    subject = chain.chain_id
    try:
        probe = build_probe(chain)
    except Rejected as error:
        out.bad(subject, error.reason, str(error), "correct this chain's table")
        return
    out.good(subject, "chain", f"vault {probe.vault_text}, checkpoint {hex_of(chain.checkpoint)[:18]}..")
    if len(chain.endpoints) < 2:
        out.warn(
            subject,
            "one_endpoint",
            "one endpoint only: when it fails or withholds, this node stands still",
            "add another",
        )
    else:
        out.good(subject, "endpoints", f"{len(chain.endpoints)} endpoints")
    hosts = Counter(urlsplit(endpoint.rpc_url).hostname or "" for endpoint in chain.endpoints)
    shared = sorted(host for host, count in hosts.items() if count > 1)
    if FAMILIES[chain.family].min_endpoints > 1 and shared:
        out.warn(
            subject,
            "same_host",
            f"several endpoints are one host ({', '.join(shared)}): who runs it says what this operator signs",
            "endpoints of companies that do not depend on each other, or nodes of your own on other machines",
        )
    if not has_key:
        out.warn(
            subject,
            "no_submit_key",
            "no key pays here: this node leaves sending to others",
            "submit_key, submit_password",
        )


def _check_rest(config: Config, out: _Findings) -> None:
    from relayer.health import ALERTS

    for feed in config.feeds:
        if feed.path is not None and not config.resolve(feed.path).is_file():
            out.warn(
                "feeds", "no_file", f"there is no price file {config.resolve(feed.path)} yet", "start what writes it"
            )
    if not config.feeds:
        out.warn("feeds", "no_feeds", "no price feed: this node can check proposals and hardly make one", "[[feeds]]")
    else:
        out.good("feeds", "feeds", f"{len(config.feeds)} configured")
    if config.metrics is None:
        out.warn(
            "metrics",
            "no_metrics",
            "nobody will be told when something is wrong",
            "[metrics] port (docs/operations.md)",
        )
    elif config.metrics.host not in ("127.0.0.1", "::1"):
        out.bad("metrics", "metrics_host", f"{config.metrics.host}: served on this machine only", 'host = "127.0.0.1"')
    elif unknown := sorted(set(config.metrics.limits) - {alert.name for alert in ALERTS}):
        out.bad(
            "metrics",
            "unknown_alert",
            f"[metrics] limits names alerts that there are not: {', '.join(unknown)}",
            "docs/operations.md lists their names",
        )
    else:
        out.good("metrics", "metrics", f"http://{config.metrics.host}:{config.metrics.port}/metrics")


# ---- live ---------------------------------------------------------------------------------------------------------------


async def _check_live(
    config: Config, standing: Standing, address: bytes | None, submit: dict[str, bytes], now: int
) -> list[Finding]:
    works: list[Awaitable[list[Finding]]] = [
        _check_live_chain(chain, standing, submit.get(chain.chain_id), now) for chain in config.chains
    ]
    works.append(_check_broker(config, address))
    works.append(_check_feeds(config, now))
    return [finding for findings in await asyncio.gather(*works) for finding in findings]


async def _check_live_chain(chain: ChainConfig, standing: Standing, key: bytes | None, now: int) -> list[Finding]:
    out = _Findings()
    try:
        probe = build_probe(chain, key)
    except Rejected:
        return out  # said already
    try:
        for source in probe.sources:
            subject = f"{chain.chain_id} {source}"
            if await _ask(out, subject, _check_execution(probe, chain, source, now, out)):
                await _ask(out, f"{subject} vault", _check_vault(probe, chain, source, standing, out))
            headers = f"{subject} {probe.header_door}"
            await _ask(out, headers, _check_headers(probe, headers, source, now, out))
        await _check_balance(probe, chain, out)
    finally:
        await probe.close()
    return out


async def _ask(out: _Findings, subject: str, work: Awaitable[None]) -> bool:
    """Do one piece of work; whatever is wrong with the source becomes a finding with the source's reason."""
    try:
        await work
    except RelayerError as error:
        todo = (
            "wait or use another endpoint"
            if isinstance(error, Unavailable)
            else "use another endpoint, or correct its URL"
        )
        out.bad(subject, error.reason or "unavailable", str(error), todo)
        return False
    return True


async def _check_execution(probe: Probe, chain: ChainConfig, source: str, now: int, out: _Findings) -> None:
    subject = f"{chain.chain_id} {source}"
    await probe.verify_chain_id(source)
    number, time = await probe.get_newest(source)
    if time > now + CLOCK_BEHIND_S:
        out.bad(
            subject,
            "clock_behind",
            f"its newest block is {format_age(time - now)} ahead of this machine's clock",
            "set the clock (chrony, systemd-timesyncd): signers must be within 30 s of each other",
        )
    elif now - time > BLOCK_OLD_S:
        out.bad(
            subject,
            "block_old",
            f"its newest block {number:,} is {format_age(now - time)} old: it lags, or this machine's clock is ahead",
            "look at the node; compare the clock with another machine",
        )
    else:
        out.good(subject, "endpoint", f"right chain, block {number:,}, {format_age(now - time)} old")


async def _check_vault(probe: Probe, chain: ChainConfig, source: str, standing: Standing, out: _Findings) -> None:
    from messages.digests import compute_vault_id

    subject = f"{chain.chain_id} {source} vault"
    vault_id = compute_vault_id(chain.chain_id, chain.vault_account)
    terms = next(v for v in standing.parameters.vaults if (v.chain, v.account) == (chain.chain_id, chain.vault_account))
    todo = {
        "no_code": "correct vault, or use a synced endpoint",
        "wrong_code": "do not use it; find out who told you",
        "wrong_immutables": "correct the parameters, or do not use it",
    }
    try:
        what = await probe.verify_vault(source, terms.delay_s)
    except Rejected as error:
        if error.reason not in todo:
            raise
        out.bad(subject, error.reason, error.what, todo[error.reason])
        return
    out.good(subject, "vault_code", f"{what}, created as the parameters say")
    control = await probe.get_control(source)
    known = standing.states[vault_id]
    if (control.epoch, control.threshold, control.operators) != (
        known.operator_epoch,
        known.threshold,
        known.operators,
    ):
        whose = "this node's facts" if standing.is_recorded else "the parameters"
        out.bad(
            subject,
            "wrong_operators",
            f"epoch {control.epoch}, {control.threshold} of {len(control.operators)}; {whose} say epoch"
            f" {known.operator_epoch}, {known.threshold} of {len(known.operators)}",
            "if a rotation took place lately, let the node catch up; otherwise this is another committee's vault",
        )
    else:
        out.good(
            subject,
            "operators",
            f"epoch {control.epoch}, {control.threshold} of {len(control.operators)}, as known here",
        )
    if control.pending_at:
        out.warn(
            subject, "rotation", f"another set takes over at {format_time(control.pending_at)}", "relayer operators"
        )
    if control.paused:
        out.warn(subject, "paused", "the vault is paused: nothing settles there", "relayer operators; relayer unpause")


async def _check_headers(probe: Probe, subject: str, source: str, now: int, out: _Findings) -> None:
    age_s = now - await probe.get_finality_time(source)
    if age_s > FINALITY_OLD_S:
        out.bad(subject, "finality_old", f"its newest final state is {format_age(age_s)} old", "look at the node")
    else:
        out.good(subject, "finality", f"newest final state {format_age(age_s)} old")
    try:
        time = await probe.get_checkpoint_time(source, now)
    except Unavailable as error:
        if error.reason != "not_found":
            raise
        out.warn(
            subject,
            "unknown_checkpoint",
            "it does not serve the configured checkpoint",
            "needed at the first start only, from one endpoint at least; take a younger checkpoint if none has it",
        )
        return
    age_s = now - time
    if age_s > CHECKPOINT_OLD_S:
        out.warn(
            subject,
            "checkpoint_old",
            f"the checkpoint is {format_age(age_s)} old",
            "for a first start take a younger one",
        )
    else:
        out.good(subject, "checkpoint", f"knows the checkpoint, {format_age(age_s)} old")


async def _check_balance(probe: Probe, chain: ChainConfig, out: _Findings) -> None:
    subject = f"{chain.chain_id} gas"
    if probe.submitter is None:
        return
    account, coin = probe.submitter.account, probe.coin
    last: RelayerError | None = None
    for source in probe.sources:
        try:
            amount = await probe.get_balance(source, account)
        except RelayerError as error:
            last = error
            continue
        text = f"{account} has {format_amount(amount, coin.decimals, coin.name, places=4)}"
        if amount < coin.low:
            out.bad(subject, "low_balance", text, f"send it {format_amount(coin.low, coin.decimals)} or more")
        else:
            out.good(subject, "balance", text)
        return
    out.bad(subject, "no_endpoint", f"nobody tells the balance of {account}: {last}", "see the endpoints above")


async def _check_broker(config: Config, address: bytes | None) -> list[Finding]:
    from relayer.log import make_logger
    from relayer.mqtt import check_broker
    from relayer.service import make_gossip

    out = _Findings()
    if config.gossip.kind != "mqtt" or address is None:
        return out
    try:
        carrier: Any = make_gossip(config, address, make_logger(level="error"))
        found = await check_broker(carrier.settings)
    except Rejected:
        return out  # said already
    levels = {"ok": OK, "warning": WARNING, "error": WRONG}
    for f in found:
        todo = "" if f.level == "ok" else "docs/mqtt.md; a node that runs with this name must be stopped for this check"
        out.append(Finding("broker", f.reason, levels[f.level], f.text, todo))
    return out


async def _check_feeds(config: Config, now: int) -> list[Finding]:
    from relayer.rules.prices import verify_report
    from relayer.service import make_feed

    out = _Findings()
    for table in config.feeds:
        name = f"feed {table.path or table.url}"
        try:
            reports, marks = await make_feed(config, table).fetch(now)
        except RelayerError as error:
            out.bad(name, error.reason or "unavailable", str(error), "start what signs and serves prices")
            continue
        newest: dict[tuple[bytes, bytes], Any] = {}
        for signed in reports:
            key = (signed.report.source, signed.report.underlying)
            if key not in newest or signed.report.stamp > newest[key].report.stamp:
                newest[key] = signed
        if not newest:
            out.bad(name, "no_prices", "it has no report", "start what signs prices")
        p = config.parameters
        refused = []
        for signed in newest.values():
            try:
                verify_report(signed, signers=p.price_signers, threshold=p.price_threshold, now=now)
            except Rejected as error:
                refused.append(error)
        if refused:
            text = f"{len(refused)} of {len(newest)} newest reports are not usable: {refused[0]}"
            out.bad(
                name, refused[0].reason, text, "fresh reports of m price signers are needed; look at signers and clock"
            )
        elif newest:
            out.good(name, "prices", f"{len(newest)} fresh signed prices, {len(marks)} marks")
    return out
