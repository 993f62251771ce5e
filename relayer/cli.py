"""The command line: each command parses, calls one function, prints its answer (style.md 6). What commands do is in `relayer.commands`.

Results go to stdout, progress and errors to stderr. Everything heavy is imported inside the command that needs it, so that help and
light commands start at once. Errors of the user or of the world never show a traceback; a traceback is always a bug of ours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relayer.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    ExpiryOption,
    FamiliesOption,
    FolderOption,
    FromOption,
    FullOption,
    GivenOption,
    JsonOption,
    KeyArgument,
    NetChainOption,
    NewKeyArgument,
    NewPasswordFileOption,
    OldFolderOption,
    OutOption,
    ParametersArgument,
    PasswordOption,
    SeedOption,
    SignaturesOutOption,
    ThrowawayOption,
    WholeOption,
    make_epilog,
    make_group,
)  # fmt: skip

if TYPE_CHECKING:
    from relayer.commands.view import View
    from relayer.render import Answer


class Shell(StrEnum):
    """Shells whose completion is known."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


OK, NO, USAGE, CONFIG, STORE, BUG, TRY_AGAIN = 0, 1, 2, 3, 4, 70, 75

USAGE_REASONS = frozenset({"usage", "what_if", "short_password"})
STORE_REASONS = frozenset(
    {
        "no_store", "too_new", "too_old", "corrupt", "chain_broken", "file_mode", "network_file_system", "sqlite_version", "pragma",
    }
)  # fmt: skip
TRY_AGAIN_REASONS = frozenset({"in_use", "no_cut"})

app = typer.Typer(
    name="relayer",
    help="Cross-chain option settlement: proofs in, one margin view, netted settlement out, exactly once.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Every command takes --help (with an example and its exit codes) and --json. Start with: relayer demo",
)
archive_app = make_group(app, "archive", "Everything a stranger needs to compute all again.")
keys_app = make_group(app, "keys", "Encrypted key files; nothing in the clear.")
halts_app = make_group(app, "halts", "What is stopped until two people agree.")
evidence_app = make_group(app, "evidence", "Proofs that an operator said two things in one slot.")
operators_app = make_group(app, "operators", "The operator set on every vault, and its change.", is_command=True)
caps_app = make_group(app, "caps", "Caps of the vaults, changed by a quorum.")
parameters_app = make_group(app, "parameters", "What the operators' quorum decides: read, sign, verify.")
testnet_app = make_group(app, "testnet", "Real nodes, a broker and four operators on this machine.")


# ---- running ------------------------------------------------------------------------------------------------------------


class _ConfigError(Exception):
    """A configuration that cannot be used; carries what was wrong with it."""


class _StoreError(Exception):
    """The store failed while it was written: what became durable is read at the next start."""


def _run(command: Callable[[], Answer], *, as_json: bool) -> None:
    """Run a command, print its answer, end with its exit code; every expected error becomes words and a code."""
    import sqlite3

    from messages.errors import RelayerError
    from relayer.render import show_answer

    code: int
    try:
        answer = command()
        show_answer(answer, as_json=as_json)
        sys.stdout.flush()
        code = answer.code
    except BrokenPipeError:
        # The reader (head, less) has gone: that is no error. Python must not flush into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = OK
    except _ConfigError as error:
        code = _say_error("config", str(error), CONFIG, as_json=as_json)
    except _StoreError as error:
        code = _say_error("store_failed", str(error), TRY_AGAIN, as_json=as_json)
    except RelayerError as error:
        code = _say_error(error.reason or type(error).__name__.lower(), str(error), _get_code(error), as_json=as_json)
    except sqlite3.OperationalError as error:
        text = f"the store cannot be read now: {error}. If a node is starting, try again in some seconds"
        code = _say_error("store_busy", text, TRY_AGAIN, as_json=as_json)
    except sqlite3.DatabaseError as error:
        text = f"the store cannot be read: {error}. Keep it for analysis and rebuild it from the chains"
        code = _say_error("corrupt", text, STORE, as_json=as_json)
    raise typer.Exit(code)


def _get_code(error: Exception) -> int:
    """Exit code of an expected error."""
    from messages.errors import RelayerError, Unavailable

    if isinstance(error, Unavailable):
        return TRY_AGAIN
    reason = error.reason if isinstance(error, RelayerError) else ""
    for reasons, code in ((USAGE_REASONS, USAGE), (STORE_REASONS, STORE), (TRY_AGAIN_REASONS, TRY_AGAIN)):
        if reason in reasons:
            return code
    return NO


def _say_error(reason: str, text: str, code: int, *, as_json: bool) -> int:
    if as_json:
        import json

        sys.stdout.write(
            json.dumps({"schema": "relayer/error/1", "error": reason, "detail": text, "code": code}) + "\n"
        )
    sys.stderr.write(f"relayer: {text} [{reason}]\n")
    return code


def _load(config: Path, *, is_whole: bool = False) -> Any:
    """What reading needs of the configuration, or the whole; its errors are told apart from all others by their own exit code."""
    from messages.errors import Rejected
    from relayer.commands import view
    from relayer.config import load_config

    try:
        return load_config(config) if is_whole else view.load(config)
    except Rejected as error:
        raise _ConfigError(str(error)) from error


def _read_loaded(config: Path, command: Callable[[Any, View], Answer]) -> Callable[[], Answer]:
    """A command over the configuration and the records of a node."""

    def run() -> Answer:
        from relayer.commands.view import open_view

        loaded = _load(config)
        with open_view(loaded) as view:
            return command(loaded, view)

    return run


def _read(config: Path, command: Callable[[View], Answer]) -> Callable[[], Answer]:
    """A command over the records of a node."""
    return _read_loaded(config, lambda _, view: command(view))


def _configure(config: Path, command: Callable[[Any, int], Answer]) -> Callable[[], Answer]:
    """A command over the whole configuration and the time."""

    def run() -> Answer:
        import time

        return command(_load(config, is_whole=True), int(time.time()))

    return run


# ---- commands -----------------------------------------------------------------------------------------------------------


@app.command(epilog=make_epilog("relayer demo --seed 11 --faults", no="the story did not end as it must", codes="2"))
def demo(
    seed: SeedOption = 7,
    faults: Annotated[bool, typer.Option("--faults", help="Everything goes wrong; the same digests come out.")] = False,
    keep: Annotated[
        Path | None, typer.Option("--keep", help="Keep the four operators' folders here (a new or empty folder).")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Logs of the nodes on stderr.")] = False,
    chains: Annotated[
        str,
        typer.Option(
            "--chains", help="Families of the chains, two or three, for example evm,evm; default: evm,cosmos,solana."
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Tell the whole story on three chains in this process: trades, margin, netting, expiry, settlement, replay."""
    if keep is not None and keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        sys.stderr.write(f"relayer: {keep} is there and not empty: name a new folder, nothing was changed [usage]\n")
        raise typer.Exit(USAGE)
    try:
        from relayer.demo.run import run_demo
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("relayer", "chains", "messages", "contracts"):
            raise
        sys.stderr.write(
            f"relayer: the demo needs {error.name}: install the extra with pip install 'settlement-relayer[sim]'\n"
        )
        raise typer.Exit(USAGE) from error
    raise typer.Exit(run_demo(seed, faults, keep, as_json, verbose, tuple(filter(None, chains.split(",")))))


@app.command(epilog=make_epilog("relayer run -c relayer.toml", no="the node ended with a reason of its own"))
def run(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Run the node: follow chains, prove, plan, sign, settle. SIGTERM or Ctrl-C stops it cleanly; start it again any time."""
    from relayer.commands.run import NotStartable, StoreStopped, run_node

    def command() -> Answer:
        try:
            return run_node(config, as_json=as_json)
        except NotStartable as error:
            raise _ConfigError(str(error)) from error
        except StoreStopped as error:
            raise _StoreError(f"{error}; start the node again, it reads what really happened") from error

    _run(command, as_json=as_json)


@app.command(
    epilog=make_epilog("relayer status -c op1/relayer.toml", no="something is halted, or a chain has no proven state")
)
def status(config: ConfigOption = DEFAULT_CONFIG, full: FullOption = False, as_json: JsonOption = False) -> None:
    """What the node has proven and how old it is, what waits, what is stopped, who misbehaved."""
    from relayer.commands.state import show_status

    _run(_read(config, lambda view: show_status(view, is_full=full)), as_json=as_json)


@app.command(
    epilog=make_epilog("relayer positions -c op1/relayer.toml", no="no such portfolio, or the books do not add up")
)
def positions(
    portfolio: Annotated[
        str | None, typer.Argument(help="Only this one: hex digits of its id or of an account, HOUSE, INSURANCE.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    full: FullOption = False,
    as_json: JsonOption = False,
) -> None:
    """Every portfolio over all chains: cash, options, dues, what waits; with trust tier, height and age."""
    from relayer.commands.holdings import show_positions

    _run(_read(config, lambda view: show_positions(view, portfolio, is_full=full)), as_json=as_json)


@app.command(
    epilog=make_epilog(
        "relayer margin 0x3f2a --what-if spot=-20%,vol=+30% -c op1/relayer.toml",
        no="no such portfolio, maintenance below 0, or a market is frozen",
    )
)
def margin(
    portfolio: Annotated[str, typer.Argument(help="At least 4 hex digits of its id or of an account in it.")],
    what_if: Annotated[
        str | None, typer.Option("--what-if", help="Moved prices, for example spot=-20%,vol=+30%.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    full: FullOption = False,
    as_json: JsonOption = False,
) -> None:
    """Margin of a portfolio: each chain apart against all together, and the rows behind the numbers."""
    from relayer.commands.holdings import show_margin

    _run(_read(config, lambda view: show_margin(view, portfolio, what_if, is_full=full)), as_json=as_json)


@app.command(epilog=make_epilog("relayer packets --chain 31337 -c op1/relayer.toml", no="no such chain"))
def packets(
    chain: Annotated[
        str | None, typer.Option("--chain", help="Only this chain: CAIP-2 name, its number, or digits of the vault id.")
    ] = None,
    last: Annotated[int, typer.Option("--last", min=1, max=10_000, help="How many of the newest per chain.")] = 20,
    config: ConfigOption = DEFAULT_CONFIG,
    full: FullOption = False,
    as_json: JsonOption = False,
) -> None:
    """Settlement packets with what became of each, and what the vaults said."""
    from relayer.commands.state import show_packets

    _run(_read(config, lambda view: show_packets(view, chain, last, is_full=full)), as_json=as_json)


@app.command(epilog=make_epilog("relayer plan --dry-run -c op1/relayer.toml", no="parameters and prices make no plan"))
def plan(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Required: this command never signs or sends anything.")
    ] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    full: FullOption = False,
    as_json: JsonOption = False,
) -> None:
    """What the rules would plan from the newest cut now, and why the rest is not in it."""
    if not dry_run:
        sys.stderr.write(
            "relayer: plans are made by the committee; say --dry-run to see what would be planned now [usage]\n"
        )
        raise typer.Exit(USAGE)
    from relayer.commands.planning import show_plan

    _run(_read(config, lambda view: show_plan(view, is_full=full)), as_json=as_json)


@app.command(epilog=make_epilog("relayer explain 31337:12 -c op1/relayer.toml", no="nothing on record has this name"))
def explain(
    subject: Annotated[
        str, typer.Argument(help="CHAIN:NUMBER, or hex digits of a trade, request, portfolio, account or plan.")
    ],
    config: ConfigOption = DEFAULT_CONFIG,
    full: FullOption = False,
    as_json: JsonOption = False,
) -> None:
    """Why something is not settled yet, or what became of it, and what to do next."""
    from relayer.commands.explain import show_explanation

    _run(_read(config, lambda view: show_explanation(view, subject, is_full=full)), as_json=as_json)


@app.command(
    epilog=make_epilog(
        "relayer prove 31337:12 -c op1/relayer.toml > fact.json", no="no such fact, or the records do not prove it"
    )
)
def prove(
    fact: Annotated[str, typer.Argument(help="CHAIN:NUMBER of an outbox packet, or hex digits of its id.")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: Annotated[
        bool, typer.Option("--json", help="The proof is JSON anyhow; errors are too with this.")
    ] = False,
) -> None:
    """A fact with everything that proves it, as a file for `relayer verify` on another machine."""
    from relayer.commands.proofs import prove_fact

    def write(loaded: Any, view: View) -> Answer:
        sys.stdout.buffer.write(prove_fact(view, loaded.anchors, fact))
        raise typer.Exit(OK)

    _run(_read_loaded(config, write), as_json=as_json)


@app.command(
    epilog=make_epilog("relayer verify fact.json -c relayer.toml", no="rejected: the reason is printed", codes="2 3")
)
def verify(
    file: Annotated[Path, typer.Argument(help="A file of `relayer prove`, or - for stdin.")],
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", help="Take the anchor (vault, checkpoint, fork schedule) from this relayer.toml."
        ),
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", help="0x and 64 hex digits: the block root that you trust.")
    ] = None,
    vault_id: Annotated[
        str | None, typer.Option("--vault-id", help="0x and 64 hex digits: the vault it has to be about.")
    ] = None,
    at: Annotated[
        int | None,
        typer.Option("--at", min=1, help="Judge at this time (unix seconds), not at the one the file names."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check an exported fact: no network, no store, no trust in who made the file."""
    from relayer.commands.proofs import verify_file

    def run() -> Answer:
        anchors = None if config is None else _load(config).anchors
        return verify_file(file, anchors, checkpoint, vault_id, at)

    _run(run, as_json=as_json)


@app.command(
    epilog=make_epilog("relayer replay -c op1/relayer.toml", no="something differs or is damaged: it is named")
)
def replay(
    archive: Annotated[
        Path | None, typer.Option("--archive", help="Replay this file instead of the node's own records.")
    ] = None,
    cut: Annotated[
        str | None, typer.Option("--cut", help="Only proposals whose cut digest begins with these hex digits.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", envvar="RELAYER_CONFIG", help="The operator's relayer.toml.")
    ] = None,
    full: FullOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compute facts, ledgers and plans again from proofs alone, without network, and compare digests."""
    from relayer.commands.proofs import replay_file, replay_store

    def run() -> Answer:
        if archive is not None:
            known = None if config is None else _load(config)
            return replay_file(
                archive, None if known is None else known.anchors, None if known is None else known.parameters, cut
            )
        return _read_loaded(
            config or DEFAULT_CONFIG, lambda loaded, view: replay_store(view, loaded.anchors, cut, is_full=full)
        )()

    _run(run, as_json=as_json)


@archive_app.command(
    "export",
    epilog=make_epilog("relayer archive export run.jsonl -c op1/relayer.toml", no="the records do not hold together"),
)
def archive_export(
    file: Annotated[Path, typer.Argument(help="A new file; JSON lines.")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Write bootstraps, updates, packets, head proofs, parameters and certified proposals with their votes to a file."""
    from relayer.commands.proofs import export_archive

    _run(_read_loaded(config, lambda loaded, view: export_archive(view, loaded.anchors, file)), as_json=as_json)


@app.command(
    epilog=make_epilog(
        "relayer attest 31337 --first 1 --last 5 --out attestation.json -c op1/relayer.toml",
        no="no such packets are proven, or this key attested otherwise",
    )
)
def attest(
    vault: Annotated[str, typer.Argument(help="CHAIN, its number, or hex digits of a vault id.")],
    out: Annotated[Path, typer.Option("--out", help="A new file; JSON with each envelope in hex.")],
    first: Annotated[int | None, typer.Option("--first", min=1, help="First packet; 16 of them otherwise.")] = None,
    last: Annotated[int | None, typer.Option("--last", min=1, help="Last packet; the newest otherwise.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Sign the newest proven head and packets in the attestations format of other stacks. The node must be stopped for the moment."""
    from relayer.commands.attest import attest as attest_head

    _run(_configure(config, lambda _, now: attest_head(config, vault, first, last, out, now)), as_json=as_json)


def _many(flag: str, text: str) -> Any:
    return typer.Option(flag, help=text)


@app.command(
    epilog=make_epilog(
        "relayer init op1 --parameters agreed.toml --checkpoint sepolia=0x1111111111111111111111111111111111111111111111111111111111111111"
        " --endpoint sepolia=http://127.0.0.1:8545,http://127.0.0.1:5052 --broker 127.0.0.1:1883 --name op1",
        no="a file is in the way: nothing is overwritten",
        codes="2",
    )
)
def init(
    folder: Annotated[Path, typer.Argument(help="A new folder, or one without relayer.toml.")],
    name: Annotated[str | None, typer.Option("--name", help="Of this node, in its logs.")] = None,
    parameters: Annotated[
        Path | None,
        typer.Option("--parameters", help="The file that the operators agreed on; its vaults are the chains."),
    ] = None,
    vault: Annotated[
        list[str] | None, _many("--vault", "CHAIN=ADDRESS, without --parameters: an example is written for it.")
    ] = None,
    checkpoint: Annotated[
        list[str] | None,
        _many(
            "--checkpoint",
            "CHAIN=0xROOT: a finalized block root; on a Cosmos chain CHAIN=HEIGHT,0xHASH of a header; on Solana CHAIN=GENESIS, base58.",
        ),
    ] = None,
    endpoint: Annotated[
        list[str] | None,
        _many(
            "--endpoint",
            "CHAIN=EXECUTION,BEACON, on a Cosmos or Solana chain CHAIN=RPC; repeat it: several are better, Solana needs four.",
        ),
    ] = None,
    start_height: Annotated[list[str] | None, _many("--start-height", "CHAIN=BLOCK of the vault's creation.")] = None,
    settings: Annotated[
        list[str] | None, _many("--settings", "CHAIN=FILE: light-client settings of a private chain.")
    ] = None,
    gas_price: Annotated[list[str] | None, _many("--gas-price", "CHAIN=0.025utoken, on a Cosmos chain.")] = None,
    broker: Annotated[str | None, typer.Option("--broker", help="HOST:PORT of the MQTT broker.")] = None,
    broker_ca: Annotated[str | None, typer.Option("--broker-ca", help="Its CA; needed for another machine.")] = None,
    feed: Annotated[str | None, typer.Option("--feed", help="Signed prices: a file or an address.")] = None,
    metrics_port: Annotated[int, typer.Option("--metrics-port", min=1, max=65_535, help="On this machine.")] = 9464,
    as_json: JsonOption = False,
) -> None:
    """Make an operator's folder: by questions on a terminal, by flags in scripts. CHAIN: mainnet, sepolia, gnosis, a number, cosmos:ID or solana:ID."""

    def command() -> Answer:
        from relayer.commands.init import Wanted, ask_person, initialise
        from relayer.commands.keys import is_terminal

        wanted = Wanted(
            folder,
            name,
            parameters,
            tuple(vault or ()),
            tuple(checkpoint or ()),
            tuple(endpoint or ()),
            tuple(start_height or ()),
            tuple(settings or ()),
            tuple(gas_price or ()),
            broker,
            broker_ca,
            feed,
            metrics_port,
        )
        return initialise(wanted, ask_person if is_terminal() and not as_json else None)

    _run(command, as_json=as_json)


@app.command(
    epilog=make_epilog(
        "relayer check --live -c relayer.toml", no="something is wrong: the table says what and what to do"
    )
)
def check(
    live: Annotated[bool, typer.Option("--live", help="Also ask endpoints, vaults, broker and feeds.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Explain each part of the configuration: what it is, whether it is right, what to do. Signs and sends nothing."""
    from relayer.commands.check import check as look

    _run(_configure(config, lambda loaded, now: look(loaded, now, is_live=live)), as_json=as_json)


@app.command(
    epilog=make_epilog(
        'relayer reanchor 1 --checkpoint 0x1111111111111111111111111111111111111111111111111111111111111111 --person "Ada" --person "Grace"'
        ' --note "read to each other by phone" -c relayer.toml',
        no="the light client is not too old, or this checkpoint does not go on from what is recorded: the reason is printed",
    )
)
def reanchor(
    chain: Annotated[str, typer.Argument(help="Its CAIP-2 name, or the part after the colon.")],
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", help="A finalized block root, newer than what is recorded.")
    ],
    person: Annotated[
        list[str],
        typer.Option("--person", help="Who compared it with other operators; repeat it: two different people."),
    ],
    note: Annotated[str, typer.Option("--note", help="Where it is from; it stays on record.")],
    height: Annotated[
        int | None,
        typer.Option("--height", min=1, help="Of the header it is the hash of; Cosmos chains are asked by it."),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Let a light client that is too old begin anew from another checkpoint. Stop the node first: its store has one writer."""
    from relayer.commands.reanchor import reanchor as begin_anew

    _run(
        _configure(
            config,
            lambda loaded, now: begin_anew(loaded.at(now), chain, checkpoint, person, note, now, height=height),
        ),
        as_json=as_json,
    )


# ---- operators, halts, evidence -----------------------------------------------------------------------------------------


@operators_app.callback(
    invoke_without_command=True,
    epilog=make_epilog("relayer operators -c relayer.toml", no="the vaults do not have one and the same set"),
)
def operators(
    context: typer.Context,
    last: Annotated[
        int, typer.Option("--last", min=1, max=10_000, help="How many of the newest plans to look at.")
    ] = 20,
    config: ConfigOption = DEFAULT_CONFIG,
    full: FullOption = False,
    as_json: JsonOption = False,
) -> None:
    """The set on every vault by its facts, a pending rotation, and who voted for and signed how many of the last plans."""
    if context.invoked_subcommand is not None:
        return
    from relayer.commands.operators import show_operators

    _run(_read(config, lambda view: show_operators(view, last, is_full=full)), as_json=as_json)


# ---- decisions of the quorum --------------------------------------------------------------------------------------------

ChainOption = Annotated[str | None, typer.Option("--chain", help="CAIP-2 name or number; every vault otherwise.")]


def _decide(config: Path, out: Path, make: Callable[[Any, int], Any]) -> Callable[[], Answer]:
    """A command that writes the next set of parameters: ``make`` gets where things stand and the time."""

    def decide(loaded: Any, now: int) -> Answer:
        from relayer.commands.control import read_standing, write_next

        current = loaded.at(now)
        standing = read_standing(current, now)
        return write_next(standing, make(standing, now), out, current, now)

    return _configure(config, decide)


@operators_app.command(
    "rotate",
    epilog=make_epilog(
        "relayer operators rotate --to set.toml --at 2027-01-10T12:00Z --from 2027-01-08T12:00Z --out next.toml -c relayer.toml",
        no="no vault would accept it: too soon, one pending, or no quorum in it",
    ),
)
def operators_rotate(
    to: Annotated[Path, typer.Option("--to", help="TOML with operators, threshold and, if they change, [treasurers].")],
    at: Annotated[str, typer.Option("--at", help="The one instant at which every vault changes.")],
    since: FromOption,
    out: OutOption,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Write the next parameters with a rotation of every vault at one instant, for the quorum to sign. Sends nothing."""
    from relayer.commands.control import make_rotation, read_target, read_time

    def make(standing: Any, now: int) -> Any:
        return make_rotation(standing, read_target(to), read_time(at), read_time(since), now)

    _run(_decide(config, out, make), as_json=as_json)


@caps_app.command(
    "set",
    epilog=make_epilog(
        "relayer caps set --chain 1 --asset USDC --packet 50000 --hour 100000 --day 500000 --from 2027-01-08T12:00Z --out next.toml",
        no="no such asset or chain, or the caps do not rise from packet to day",
    ),
)
def caps_set(
    chain: Annotated[str, typer.Option("--chain", help="CAIP-2 name or number.")],
    asset: Annotated[str, typer.Option("--asset", help="Name of its class, or its address.")],
    packet: Annotated[str, typer.Option("--packet", help="Per packet, in whole units of the asset.")],
    hour: Annotated[str, typer.Option("--hour", help="Per hour.")],
    day: Annotated[str, typer.Option("--day", help="Per day.")],
    since: FromOption,
    out: OutOption,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Write the next parameters with new caps of one asset. A vault lowers at once and raises after its delay. Sends nothing."""
    from relayer.commands.control import find_asset, make_caps, read_amount, read_time
    from relayer.rules.vault_state import Caps

    def make(standing: Any, now: int) -> Any:
        (vault_id,) = standing.find_vaults(chain)
        found, decimals = find_asset(standing, vault_id, asset)
        caps = Caps(read_amount(packet, decimals), read_amount(hour, decimals), read_amount(day, decimals))
        return make_caps(standing, chain, found, caps, read_time(since), now)

    _run(_decide(config, out, make), as_json=as_json)


@app.command(
    epilog=make_epilog(
        "relayer unpause --from 2027-01-08T12:00Z --out next.toml -c relayer.toml",
        no="no vault is paused, as far as the facts on record say",
    )
)
def unpause(
    since: FromOption,
    out: OutOption,
    chain: ChainOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Write the next parameters with an end of the pause, for the quorum to sign. In force after the vault's delay."""
    from relayer.commands.control import make_unpause, read_time

    _run(
        _decide(config, out, lambda standing, now: make_unpause(standing, chain, read_time(since), now)),
        as_json=as_json,
    )


@app.command(
    epilog=make_epilog(
        "relayer pause --chain 1 --yes -c relayer.toml",
        no="some vault's pause was not handed over: the reason is printed",
    )
)
def pause(
    chain: Annotated[
        list[str] | None, typer.Option("--chain", help="CAIP-2 name or number, repeatable; every vault otherwise.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Required: it stops users, and an operator has one per epoch.")
    ] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Stop vaults now, with this operator's signature alone. Works beside a running node. Claims and withdrawals' claims go on."""
    from relayer.commands.pause import pause as stop_vaults

    _run(
        _configure(config, lambda loaded, _: stop_vaults(loaded, tuple(chain or ()), is_confirmed=yes)), as_json=as_json
    )


@parameters_app.command(
    "next",
    epilog=make_epilog(
        "relayer parameters next --from 2027-01-08T12:00Z --out next.toml -c relayer.toml",
        no="the instant is not ahead",
    ),
)
def parameters_next(
    since: FromOption, out: OutOption, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False
) -> None:
    """Write the next version without the control changes that are done: to be edited by hand, or signed as it is."""
    from relayer.commands.control import make_next, read_time

    _run(_decide(config, out, lambda standing, now: make_next(standing, [], read_time(since), now)), as_json=as_json)


@parameters_app.command(
    "show", epilog=make_epilog("relayer parameters show next.toml -c relayer.toml", no="the file cannot be read")
)
def parameters_show(
    file: Annotated[Path | None, typer.Argument(help="A parameters file; the present one otherwise.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """A set in words: version, instant, digest, control changes, what differs from the present one, who signed."""
    from relayer.commands.control import show_parameters

    _run(_configure(config, lambda _, now: show_parameters(config, file, now)), as_json=as_json)


@parameters_app.command(
    "sign",
    epilog=make_epilog(
        "relayer parameters sign next.toml --digest 0x1111111111111111111111111111111111111111111111111111111111111111 -c relayer.toml",
        no="this key signed another set under this version, is no operator, or the set is none to sign",
    ),
)
def parameters_sign(
    file: ParametersArgument,
    digest: Annotated[
        str | None, typer.Option("--digest", help="Repeat the digest that `relayer parameters show` told you.")
    ] = None,
    out: SignaturesOutOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Add this operator's signature over a set, once per version. The node must be stopped for the moment: its journal has one writer."""
    from relayer.commands.control import sign_parameters

    _run(_configure(config, lambda _, now: sign_parameters(config, file, digest, out, now)), as_json=as_json)


@parameters_app.command(
    "merge",
    epilog=make_epilog(
        "relayer parameters merge next.toml from-ada.json from-grace.json -c relayer.toml",
        no="a file holds signatures of another set, or of nobody in the committee",
    ),
)
def parameters_merge(
    file: ParametersArgument,
    sources: Annotated[list[Path], typer.Argument(help="Signature files of other operators.")],
    out: SignaturesOutOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Put signatures from several operators into one file."""
    from relayer.commands.control import merge_signatures

    _run(_configure(config, lambda _, now: merge_signatures(config, file, sources, out, now)), as_json=as_json)


@parameters_app.command(
    "verify",
    epilog=make_epilog(
        "relayer parameters verify next.toml -c relayer.toml", no="fewer than m operators of the set in force signed it"
    ),
)
def parameters_verify(
    file: ParametersArgument,
    signatures: Annotated[
        Path | None, typer.Option("--signatures", help="Signatures file; beside the parameters otherwise.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Who signed a set and who did not, and whether nodes would use it."""
    from relayer.commands.control import verify_signed

    _run(_configure(config, lambda _, now: verify_signed(config, file, signatures, now)), as_json=as_json)


@halts_app.command("list", epilog=make_epilog("relayer halts list -c relayer.toml", no="something is halted"))
def halts_list(
    is_all: Annotated[bool, typer.Option("--all", help="Also those that were cleared.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """What is stopped, since when, why, and who has agreed to go on."""
    from relayer.commands.halts import list_halts

    _run(_read(config, lambda view: list_halts(view, is_all=is_all)), as_json=as_json)


@halts_app.command(
    "clear",
    epilog=make_epilog(
        'relayer halts clear 1 --person "Ada" --note "the endpoint served a fork; it is gone" -c relayer.toml',
        no="no such halt, cleared already, or the same person again",
    ),
)
def halts_clear(
    number: Annotated[int, typer.Argument(min=1, help="Its number in `relayer halts list`.")],
    person: Annotated[str, typer.Option("--person", help="Who agrees. Two different people have to.")],
    note: Annotated[str, typer.Option("--note", help="What was found; it stays on record.")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Agree to end a halt. Stop the node first: its store has one writer. The halt ends with the second person's agreement."""
    from relayer.commands.halts import clear_halt

    _run(lambda: clear_halt(_load(config).store_path, number, person, note), as_json=as_json)


@evidence_app.command("list", epilog=make_epilog("relayer evidence list -c relayer.toml", no="there is evidence"))
def evidence_list(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Every proof of equivocation on record."""
    from relayer.commands.halts import list_evidence

    _run(_read(config, list_evidence), as_json=as_json)


@evidence_app.command(
    "export",
    epilog=make_epilog(
        "relayer evidence export evidence.json --number 1 -c relayer.toml",
        no="no such proof, or a file is in the way",
    ),
)
def evidence_export(
    file: Annotated[Path, typer.Argument(help="A new file.")],
    number: Annotated[int, typer.Option("--number", min=1, help="Its number in `relayer evidence list`.")] = 1,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Write one proof to a file that anybody can check without this node."""
    from relayer.commands.halts import export_evidence

    _run(_read(config, lambda view: export_evidence(view, file, number)), as_json=as_json)


@evidence_app.command(
    "verify",
    epilog=make_epilog(
        "relayer evidence verify evidence.json -c relayer.toml", no="it proves nothing: the reason is printed"
    ),
)
def evidence_verify(
    file: Annotated[Path, typer.Argument(help="A file of `relayer evidence export`.")],
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Judge by the operator sets that this node has proven.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check such a file: two statements of one operator that exclude each other, signed by its key."""
    from relayer.commands.halts import verify_evidence

    def alone() -> Answer:
        return verify_evidence(file, None)

    def beside_records() -> Answer:
        from relayer.commands.operators import get_committees

        return _read(config or DEFAULT_CONFIG, lambda view: verify_evidence(file, get_committees(view)))()

    _run(alone if config is None else beside_records, as_json=as_json)


# ---- keys ---------------------------------------------------------------------------------------------------------------


@keys_app.command(
    "new",
    epilog=make_epilog(
        "relayer keys new operator.json --new-password-file operator.password",
        no="a file is in the way, or the password is not usable",
        codes="2 4",
    ),
)
def keys_new(
    file: NewKeyArgument,
    password: PasswordOption = None,
    new_password_file: NewPasswordFileOption = None,
    throwaway: ThrowawayOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a fresh key in an encrypted file (keystore v3, mode 0600) and print its address."""
    from relayer.commands.keys import new_key

    _run(lambda: new_key(file, password, new_password_file, is_throwaway=throwaway), as_json=as_json)


@keys_app.command(
    "import",
    epilog=make_epilog(
        "relayer keys import operator.json --from old.json --from-password file:old.password --password file:operator.password",
        no="a file is in the way, the password is wrong, or the source is no keystore v3",
        codes="2 4",
    ),
)
def keys_import(
    file: NewKeyArgument,
    source: Annotated[Path, typer.Option("--from", help="A keystore v3 of any program; it stays as it is.")],
    from_password: Annotated[
        str | None, typer.Option("--from-password", help="Of the source: file:PATH or fd:NUMBER; asked otherwise.")
    ] = None,
    password: PasswordOption = None,
    new_password_file: NewPasswordFileOption = None,
    throwaway: ThrowawayOption = False,
    as_json: JsonOption = False,
) -> None:
    """Encrypt the key of another keystore v3 anew, at full cost, into a file of its own. Keys in the clear are not taken."""
    from relayer.commands.keys import import_key

    _run(
        lambda: import_key(file, source, from_password, password, new_password_file, is_throwaway=throwaway),
        as_json=as_json,
    )


@keys_app.command(
    "show",
    epilog=make_epilog("relayer keys show operator.json", no="a node would not take this file as it is", codes="2"),
)
def keys_show(file: KeyArgument, as_json: JsonOption = False) -> None:
    """What a key file says of itself: address, cost, mode. Opens nothing and asks for no password."""
    from relayer.commands.keys import show_key

    _run(lambda: show_key(file), as_json=as_json)


@keys_app.command(
    "export-public",
    epilog=make_epilog(
        "relayer keys export-public operator.json --password file:operator.password",
        no="the password is wrong, or the file names another address than its key has",
        codes="2 4",
    ),
)
def keys_export_public(file: KeyArgument, password: PasswordOption = None, as_json: JsonOption = False) -> None:
    """Open a key file and print the address of its key: what the other operators and the broker need to know."""
    from relayer.commands.keys import export_public

    _run(lambda: export_public(file, password), as_json=as_json)


@keys_app.command(
    "first-journal",
    epilog=make_epilog(
        "relayer keys first-journal --never-signed 0x1111111111111111111111111111111111111111 -c relayer.toml",
        no="there is a journal or a store already, or the key file cannot be used",
    ),
)
def keys_first_journal(
    never_signed: Annotated[
        str | None,
        typer.Option("--never-signed", help="The key's address, repeated by who knows that it never signed."),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Make the journal of a fresh key: you say that it has never signed anything. Without it a node waits first."""
    from relayer.commands.keys import create_first_journal

    _run(lambda: (_load(config), create_first_journal(config, never_signed))[1], as_json=as_json)


# ---- testnet, completion ------------------------------------------------------------------------------------------------


def _testnet(action: str, as_json: bool, **options: Any) -> None:
    from relayer.commands.testnet import run as run_harness

    _end_with(lambda: run_harness(action, as_json=as_json, **options), as_json=as_json)


def _end_with(command: Callable[[], int], *, as_json: bool) -> None:
    """Run what prints its own answer and end with its exit code."""
    from messages.errors import RelayerError

    try:
        code = command()
    except RelayerError as error:
        code = _say_error(error.reason or "testnet", str(error), _get_code(error), as_json=as_json)
    raise typer.Exit(code)


@testnet_app.command(
    "run", epilog=make_epilog("relayer testnet run --faults", no="the run did not end as it must", codes="2")
)
def net_run(
    folder: FolderOption = None,
    config: GivenOption = None,
    faults: Annotated[
        bool, typer.Option("--faults", help="Kill an operator, stop an endpoint, restart the broker.")
    ] = False,
    seed: SeedOption = 1,
    chains: FamiliesOption = "evm,evm",
    expiry_minutes: ExpiryOption = 10,
    as_json: JsonOption = False,
) -> None:
    """Start nodes, sidecars, broker and four operator processes, play the story, write a report, stop everything."""
    _testnet(
        "run", as_json, folder=folder, config=config, seed=seed, chains=chains, is_faulty=faults,
        expiry_minutes=expiry_minutes,
    )  # fmt: skip


@testnet_app.command(
    "up", epilog=make_epilog("relayer testnet up --folder net --background", no="something did not start", codes="2 75")
)
def net_up(
    folder: FolderOption = None,
    config: GivenOption = None,
    seed: SeedOption = 1,
    chains: FamiliesOption = "evm,evm",
    expiry_minutes: ExpiryOption = 10,
    operator: Annotated[
        list[Path] | None,
        typer.Option(
            "--operator",
            help="Folder of an operator with its own keys (keys/operator.json, keys/gas-31337.json, keys/gas-31338.json);"
            " repeat it, four at least. No operator is started then.",
        ),
    ] = None,
    background: Annotated[
        bool, typer.Option("--background", help="Return once it is ready and leave it running; stop it with down.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Start the same and leave it running until Ctrl-C or `testnet down`. With --operator: without operators, for people's own."""
    operators = tuple(operator or ())
    if (operators or background) and folder is None:
        raise typer.BadParameter("name a folder", param_hint="--folder")
    if folder is not None and background:
        from relayer.commands.testnet import start_in_background

        words = ["testnet", "up", "--folder", str(folder), "--seed", str(seed), "--expiry-minutes", str(expiry_minutes)]
        words += ["--chains", chains]
        words += [] if config is None else ["--config", str(config)]
        words += [word for path in operators for word in ("--operator", str(path))]
        _run(lambda: start_in_background(words, folder), as_json=as_json)
    if folder is not None and operators:
        from relayer.commands.testnet import run_for_operators

        _end_with(lambda: run_for_operators(folder, operators), as_json=as_json)
    _testnet(
        "up", as_json, folder=folder, config=config, seed=seed, chains=chains, is_faulty=False,
        expiry_minutes=expiry_minutes,
    )  # fmt: skip


def _act_as_user(folder: Path, action: str, chain: str, whole: int, as_json: bool) -> None:
    from relayer.commands.testnet import act_as_user

    _run(lambda: act_as_user(folder, action, chain, whole), as_json=as_json)


@testnet_app.command(
    "deposit",
    epilog=make_epilog(
        "relayer testnet deposit --folder net --chain 31337 --amount 1000", no="the vault refuses", codes="2 75"
    ),
)
def net_deposit(
    folder: OldFolderOption, chain: NetChainOption, amount: WholeOption, as_json: JsonOption = False
) -> None:
    """As the user of a testnet for operators with their own keys: pay USDC into a vault."""
    _act_as_user(folder, "deposit", chain, amount, as_json)


@testnet_app.command(
    "withdraw",
    epilog=make_epilog(
        "relayer testnet withdraw --folder net --chain 31338 --amount 400", no="the vault refuses", codes="2 75"
    ),
)
def net_withdraw(
    folder: OldFolderOption, chain: NetChainOption, amount: WholeOption, as_json: JsonOption = False
) -> None:
    """As the same user: ask for USDC on a chain; the operators decide."""
    _act_as_user(folder, "withdraw", chain, amount, as_json)


@testnet_app.command(
    "claim",
    epilog=make_epilog("relayer testnet claim --folder net --chain 31338", no="the vault refuses", codes="2 75"),
)
def net_claim(folder: OldFolderOption, chain: NetChainOption, as_json: JsonOption = False) -> None:
    """As the same user: take what was granted out of the vault."""
    _act_as_user(folder, "claim", chain, 0, as_json)


@testnet_app.command(
    "down", epilog=make_epilog("relayer testnet down --folder net", no="nothing runs there", codes="2")
)
def net_down(folder: OldFolderOption, as_json: JsonOption = False) -> None:
    """Stop what `up` or an interrupted `run` started in a folder."""
    _testnet("down", as_json, folder=folder)


@testnet_app.command(
    "report", epilog=make_epilog("relayer testnet report --folder net", no="there is no report", codes="2")
)
def net_report(folder: OldFolderOption, as_json: JsonOption = False) -> None:
    """Show the report of a finished run."""
    _testnet("report", as_json, folder=folder)


@app.command(epilog=make_epilog("relayer completion bash", no="never", codes="2"))
def completion(
    shell: Annotated[Shell, typer.Argument(help="Which shell.")],
    as_json: JsonOption = False,
) -> None:
    """Print the script that lets a shell complete commands and options."""
    from relayer.commands.completion import show_completion

    def run() -> Answer:
        answer = show_completion(shell.value)
        if as_json:
            return answer
        sys.stdout.write(answer.data["script"] + "\n")
        raise typer.Exit(OK)

    _run(run, as_json=as_json)


@app.command(epilog=make_epilog("relayer version --json", no="never", codes="2"))
def version(as_json: JsonOption = False) -> None:
    """Versions of the program, of Python and of SQLite, and of the documents it reads."""
    from relayer.commands.version import show_version

    _run(show_version, as_json=as_json)


def main() -> None:
    """Entry point of the `relayer` script."""
    if "_RELAYER_COMPLETE" in os.environ:
        # A shell asks what could follow (`relayer completion`).
        from typer.completion import completion_init  # type: ignore[attr-defined]  # typer keeps it there

        completion_init()
    try:
        app(prog_name="relayer")
    except KeyboardInterrupt:
        sys.stderr.write("\nrelayer: stopped\n")
        sys.exit(130)
    except Exception:  # noqa: BLE001  the last door: a bug is shown whole and told apart from every answer
        import traceback

        traceback.print_exc()
        sys.stderr.write(
            "relayer: this is a bug of the program, not of what you did: please report it with the lines above\n"
        )
        sys.exit(BUG)


if __name__ == "__main__":
    main()
