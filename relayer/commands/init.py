"""`relayer init`: an operator's folder from flags or from questions; what it writes it loads before it says that it is done.

It makes no key and asks no network. Nothing is overwritten.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chains.cosmos.address import encode_address
from chains.registry import FAMILIES, build_probe, make_solana_settings, parse_vault
from chains.solana.address import decode_key, encode_key
from chains.solana.types import OperatorSet
from chains.solana.verifier import SolanaSettings
from messages.canonical import decode_canonical, encode_canonical
from messages.digests import compute_vault_id
from messages.documents import FamilyParameters, Parameters, compute_digest
from messages.errors import Rejected
from relayer.config import load_config, load_parameters
from relayer.render import Answer, hex_of
from relayer.toml_writer import encode_parameters

NETWORKS: Mapping[str, tuple[int, int]] = {"mainnet": (1, 500), "sepolia": (11_155_111, 100), "gnosis": (100, 50)}
"""Name of a built-in network: its chain number, and the fee in gwei above which a node waits."""

MAX_SETTINGS_BYTES = 8192
_HEX32 = re.compile(r"0x[0-9a-f]{64}")
_HEX20 = re.compile(r"0x[0-9a-f]{40}")
_BECH32 = re.compile(r"[a-z][a-z0-9]{0,15}1[02-9ac-hj-np-z]{58}")
_BASE58 = re.compile(r"[1-9A-HJ-NP-Za-km-z]{32,44}")
_HEADER = re.compile(r"[1-9][0-9]{0,15},0x[0-9a-f]{64}")
_PRICE = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?[a-zA-Z][a-zA-Z0-9/:._-]{1,127}")
GENESIS: Mapping[str, str] = {
    "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp": "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d",
    "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1": "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG",
    "solana:4uhcVJyU9pJkvQyS88uRDiswHXSCkY3z": "4uhcVJyU9pJkvQyS88uRDiswHXSCkY3zQawwpjk2NsNY",
}
"""Genesis hashes of mainnet-beta, devnet and testnet, of which their names are the beginning (CAIP-2)."""
_URL = re.compile(r"https?://[^\s\"\\,]{1,2000}")


@dataclass(frozen=True)
class Wanted:
    """What flags said: values by chain, each text as "CHAIN=VALUE".

    CHAIN is a CAIP-2 name, the number of an Ethereum chain or the name of a built-in network.
    """

    folder: Path
    name: str | None = None
    parameters: Path | None = None
    vaults: Sequence[str] = ()
    checkpoints: Sequence[str] = ()
    endpoints: Sequence[str] = ()
    heights: Sequence[str] = ()
    settings: Sequence[str] = ()
    gas_prices: Sequence[str] = ()
    broker: str | None = None
    broker_ca: str | None = None
    feed: str | None = None
    metrics_port: int = 9464


@dataclass(frozen=True)
class ChainAnswers:
    """One chain of the new configuration. endpoints: address by door. settings: an inline TOML table. limits: (key, value, comment)."""

    chain: str
    family: str
    vault: str
    checkpoint: str
    endpoints: tuple[Mapping[str, str], ...]
    height: int
    settings: str
    limits: tuple[tuple[str, str, str], ...]

    @property
    def short(self) -> str:
        """Names its files."""
        return self.chain.partition(":")[2]


@dataclass(frozen=True)
class Answers:
    """Everything a new folder needs."""

    name: str
    chains: tuple[ChainAnswers, ...]
    broker: tuple[str, int]
    broker_ca: str | None
    feed: str | None
    metrics_port: int
    parameters: Parameters
    parameters_text: str
    is_example: bool


def initialise(wanted: Wanted, ask: Callable[[str, str], str] | None) -> Answer:
    """Make the folder.

    Args:
        wanted: the flags.
        ask: (question, default) -> answer of a person; None where nobody can be asked.

    Raises:
        Rejected: ``usage`` (a value is missing or wrong), ``file_exists``, or what is wrong with a given file.
    """
    folder = wanted.folder
    for name in ("relayer.toml", "parameters.toml"):
        if (folder / name).exists():
            raise Rejected(f"{folder / name} is there already: nothing was written", reason="file_exists")
    answers = collect(wanted, ask)
    for path in (folder, folder / "keys", folder / "data"):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write_new(folder / "parameters.toml", answers.parameters_text)
    _write_new(folder / "relayer.toml", format_folder(answers))
    config = load_config(folder / "relayer.toml")
    for chain in config.chains:
        build_probe(chain)
    digest = hex_of(compute_digest(config.parameters))
    data = {
        "schema": "relayer/init/1",
        "folder": str(folder),
        "config": str(folder / "relayer.toml"),
        "parameters": str(folder / "parameters.toml"),
        "parameters_digest": digest,
        "is_example": answers.is_example,
        "chains": [c.chain_id for c in config.chains],
    }
    return Answer(data, _get_next_steps(answers, folder, digest))


def _get_next_steps(answers: Answers, folder: Path, digest: str) -> list[str]:
    lines = [f"{folder} holds relayer.toml, parameters.toml, keys/ and data/; it loads.", "", "Next:"]
    if answers.is_example:
        lines.append(f"  edit {folder}/parameters.toml: it is an EXAMPLE; the operators agree on the real one first")
    keys = folder / "keys"
    lines += [
        f"  relayer keys new {keys}/{name}.json --new-password-file {keys}/{name}.password"
        for name in ("operator", *(f"gas-{c.short}" for c in answers.chains))
        if not (keys / f"{name}.json").exists()
    ]
    if not (keys / "broker.password").exists():
        lines.append(f"  write the broker's password to {keys}/broker.password (mode 0600)")
    lines += [
        f"  relayer keys first-journal --never-signed ADDRESS -c {folder}/relayer.toml   (only for a key that never signed)",
        f"  compare the digest of the parameters with the other operators: {digest}",
        f"  relayer check --live -c {folder}/relayer.toml",
        f"  relayer run -c {folder}/relayer.toml",
    ]
    return lines


def _write_new(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    with os.fdopen(handle, "w") as file:
        file.write(text)


# ---- answers ------------------------------------------------------------------------------------------------------------


def collect(wanted: Wanted, ask: Callable[[str, str], str] | None) -> Answers:
    """Flags first, then questions for what is missing.

    Raises:
        Rejected: ``usage``, naming the flag.
    """
    name = _need(wanted.name, "--name", "Name of this node", "operator-1", ask, re.compile(r"[a-zA-Z0-9_-]{1,32}"))
    vaults = _split_by_chain(wanted.vaults, "--vault")
    given = wanted.parameters
    if given is None and not vaults:
        text = _need(None, "--parameters", "Agreed parameters file (empty: make an example)", "", ask, None)
        given = Path(text) if text else None
        if given is None:
            question = "Network (mainnet, sepolia, gnosis), chain number or CAIP-2 name (cosmos:.., solana:..)"
            network = _need(None, "--vault", question, "sepolia", ask, None)
            chain = _get_chain(network, "--vault")
            vaults = {chain: [_need(None, "--vault", f"Address of the vault on {network}", "", ask, _get_form(chain))]}
    if given is not None:
        parameters = load_parameters(given)
        vaults = {v.chain: [_write_vault(v.chain, v.account)] for v in parameters.vaults}
    else:
        parameters = make_example_parameters(vaults)
    collectors = {"eip155": _collect_evm, "cosmos": _collect_cosmos, "solana": _collect_solana}
    chains = tuple(
        collectors[chain.partition(":")[0]](_Questions(chain, wanted, ask, parameters), vaults[chain][0])
        for chain in sorted(vaults)
    )
    broker = _need(
        wanted.broker, "--broker", "Broker, HOST:PORT", "127.0.0.1:1883", ask, re.compile(r"[^\s:]+:[0-9]{1,5}")
    )
    host, _, port = broker.rpartition(":")
    broker_ca = wanted.broker_ca
    if broker_ca is None and host not in ("127.0.0.1", "::1", "localhost"):
        broker_ca = _need(
            None, "--broker-ca", "File with the broker's CA (TLS)", "broker-ca.pem", ask, re.compile(r"[^\"\\\n]+")
        )
    for flag, path in (("--feed", wanted.feed), ("--broker-ca", broker_ca)):
        if path is not None and not re.fullmatch(r"[^\"\\\x00-\x1f]{1,1024}", path):
            raise Rejected(f"{flag} is not usable in a file", got=path, reason="usage")
    return Answers(
        name,
        chains,
        (host, int(port)),
        broker_ca,
        wanted.feed,
        wanted.metrics_port,
        parameters,
        encode_parameters(parameters, comment=EXAMPLE_NOTE) if given is None else given.read_text(),
        given is None,
    )


@dataclass(frozen=True)
class _Questions:
    """What is asked of every chain: flags first, then a person."""

    chain: str
    wanted: Wanted
    ask: Callable[[str, str], str] | None
    parameters: Parameters

    @property
    def words(self) -> str:
        """The chain as people call it."""
        return _get_network(self.chain) or self.chain.removeprefix("eip155:")

    def get(self, texts: Sequence[str], flag: str) -> list[str]:
        """What a flag says of this chain."""
        return _split_by_chain(texts, flag).get(self.chain, [])

    def need(
        self,
        texts: Sequence[str],
        flag: str,
        form: str,
        question: str,
        pattern: re.Pattern[str] | None,
        default: str = "",
    ) -> str:
        """The one value of a flag, or of a person; ``form`` says what it looks like."""
        found = next(iter(self.get(texts, flag)), None)
        return _need(found, f"{flag} {self.words}={form}", question, default, self.ask, pattern)

    def need_endpoints(self, doors: Sequence[str], default: str, least: int = 1) -> tuple[Mapping[str, str], ...]:
        """Addresses of ``least`` endpoints or more, each an address for every door."""
        form = ",".join(door.upper() for door in doors)
        texts = self.get(self.wanted.endpoints, "--endpoint")
        while not texts or (self.ask is not None and not self.wanted.endpoints and len(texts) < 16):
            is_enough = len(texts) >= least
            question = f"Endpoint {len(texts) + 1} of {self.words}: {form}" + (" (empty: no more)" if is_enough else "")
            text = _need(None, f"--endpoint {self.words}={form}", question, "" if texts else default, self.ask, None)
            if not text and is_enough:
                break
            texts.append(text)
        if len(texts) < least:
            raise Rejected(
                f"{self.words} needs {least} endpoints that do not depend on each other: operators sign what enough of them show",
                got=len(texts),
                expected=f"--endpoint {self.words}={form}, {least} times or more",
                reason="usage",
            )
        endpoints = []
        for text in texts:
            urls = text.split(",")
            if len(urls) != len(doors) or not all(_URL.fullmatch(url) for url in urls):
                raise Rejected(f"an endpoint is {form}, each http:// or https://", got=text, reason="usage")
            endpoints.append(dict(zip(doors, urls, strict=True)))
        return tuple(endpoints)

    def need_height(self) -> int:
        """A block before which the vault was not there."""
        heights = self.get(self.wanted.heights, "--start-height")
        question = f"Block of the vault's creation on {self.words}, or an earlier one"
        height = heights[0] if heights else "0" if self.ask is None else self.ask(question, "0")
        if not re.fullmatch(r"[0-9]{1,12}", height):
            raise Rejected("a start height is a block number", got=height, reason="usage")
        return int(height)


def _collect_evm(questions: _Questions, vault: str) -> ChainAnswers:
    wanted, network = questions.wanted, _get_network(questions.chain)
    question = f"Checkpoint of {questions.words}: a finalized block root from people you trust"
    checkpoint = questions.need(wanted.checkpoints, "--checkpoint", "0x..", question, _HEX32)
    endpoints = questions.need_endpoints(FAMILIES["evm"].doors, "http://127.0.0.1:8545,http://127.0.0.1:5052")
    height = questions.need_height()
    settings = f'{{ network = "{network}" }}'
    if network is None:
        question = f"File with the light-client settings of {questions.words} (JSON, as the sidecar writes them)"
        settings = _inline(_read_settings(Path(questions.need(wanted.settings, "--settings", "FILE", question, None))))
    fee = 500 if network is None else NETWORKS[network][1]
    limits = (("max_fee_gwei", str(fee), "dearer than this, the node waits"),)
    return ChainAnswers(questions.chain, "evm", vault, checkpoint, endpoints, height, settings, limits)


def _collect_cosmos(questions: _Questions, vault: str) -> ChainAnswers:
    wanted = questions.wanted
    question = f"Checkpoint of {questions.words}: height and hash of a header from people you trust, HEIGHT,0x.."
    text = questions.need(wanted.checkpoints, "--checkpoint", "HEIGHT,0x..", question, _HEADER)
    number, _, checkpoint = text.partition(",")
    endpoints = questions.need_endpoints(FAMILIES["cosmos"].doors, "http://127.0.0.1:26657")
    height = questions.need_height()
    files = questions.get(wanted.settings, "--settings")
    settings = _read_settings(Path(files[0])) if files else {}
    settings["checkpoint_height"] = int(number)
    if "prefix" not in settings:
        written = "" if vault.startswith("0x") else vault.rpartition("1")[0]
        question = f"What addresses on {questions.words} begin with, before the 1"
        settings["prefix"] = written or _need(
            None, f"--settings {questions.words}=FILE with prefix", question, "", questions.ask, re.compile("[a-z0-9]+")
        )
    question = f"Gas price on {questions.words}, with its denomination"
    price = questions.need(wanted.gas_prices, "--gas-price", "0.025utoken", question, _PRICE)
    limits = (
        ("gas_price", json.dumps(price), "or what nodes ask for as a minimum, if that is more; at most ten times"),
    )
    return ChainAnswers(questions.chain, "cosmos", vault, checkpoint, endpoints, height, _inline(settings), limits)


def _collect_solana(questions: _Questions, vault: str) -> ChainAnswers:
    wanted, family = questions.wanted, FAMILIES["solana"]
    question = f"Genesis hash of {questions.words}, from people you trust (relayer check asks every endpoint for it)"
    known = GENESIS.get(questions.chain, "")
    genesis = decode_key(questions.need(wanted.checkpoints, "--checkpoint", "HASH", question, _BASE58, known))
    endpoints = questions.need_endpoints(family.doors, "http://127.0.0.1:8899", family.min_endpoints)
    height = questions.need_height()
    files = questions.get(wanted.settings, "--settings")
    settings = _read_settings(Path(files[0])) if files else {}
    if "program" not in settings:
        flag = f"--settings {questions.words}=FILE with program"
        settings["program"] = _need(None, flag, "Program of the vault (base58)", "", questions.ask, _BASE58)
    if "operator_sets" not in settings:
        account = parse_account(questions.chain, vault)
        terms = next(v for v in questions.parameters.vaults if (v.chain, v.account) == (questions.chain, account))
        # from 0 on: who has a vault from its first second has it before that too
        first = OperatorSet(0, tuple(sorted(terms.operators)), terms.threshold)
        made = make_solana_settings(SolanaSettings(decode_key(settings["program"]), (first,)))
        settings = decode_canonical(made.encode(), max_bytes=MAX_SETTINGS_BYTES)
    limits = (
        ("unit_price_microlamports", "1000", "for a compute unit, or what blocks ask for lately, if that is more"),
        ("max_unit_price_microlamports", "1000000", "and never more than this"),
    )
    checkpoint = "0x" + genesis.hex()
    return ChainAnswers(questions.chain, "solana", vault, checkpoint, endpoints, height, _inline(settings), limits)


def _read_settings(path: Path) -> dict[str, Any]:
    """Settings of a light client from a file of canonical JSON."""
    if not path.is_file() or path.stat().st_size > MAX_SETTINGS_BYTES:
        raise Rejected(f"there is no usable file {path}", reason="no_file")
    found = decode_canonical(path.read_bytes().strip(), max_bytes=MAX_SETTINGS_BYTES)
    if not isinstance(found, dict):
        raise Rejected("settings are an object", got=type(found).__name__, reason="usage")
    return found


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_inline(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_inline(v) for v in value) + "]"
    return json.dumps(value)


def _need(
    value: str | None,
    flag: str,
    question: str,
    default: str,
    ask: Callable[[str, str], str] | None,
    form: re.Pattern[str] | None,
) -> str:
    """A value from its flag or from a person; asked again while it has not the form."""
    if value is None and ask is None:
        raise Rejected(f"{flag} is needed where nobody can be asked", reason="usage")
    while True:
        text = value if value is not None else ask(question, default) if ask is not None else ""
        if form is None or form.fullmatch(text):
            return text
        if value is not None or ask is None:
            raise Rejected(f"{flag} does not have its form", got=text, expected=form.pattern, reason="usage")
        sys.stderr.write(f"relayer: that does not have the form {form.pattern}\n")


def _split_by_chain(texts: Sequence[str], flag: str) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not value:
            raise Rejected(f"{flag} takes CHAIN=VALUE", got=text, expected=f"{flag} sepolia=..", reason="usage")
        chain = _get_chain(name, flag)
        if flag == "--vault" and not _get_form(chain).fullmatch(value):
            raise Rejected(
                "a vault is an address as its chain writes it: 0x and 40 lower-case hex digits, bech32 or base58",
                got=value,
                reason="usage",
            )
        out.setdefault(chain, []).append(value)
    return out


def _get_chain(name: str, flag: str) -> str:
    """The CAIP-2 name of what people call a chain."""
    if name in NETWORKS:
        return f"eip155:{NETWORKS[name][0]}"
    chain = f"eip155:{name}" if re.fullmatch(r"[1-9][0-9]{0,15}", name) else name
    if not re.fullmatch(r"eip155:[1-9][0-9]{0,15}|cosmos:[-a-zA-Z0-9]{1,32}|solana:[1-9A-HJ-NP-Za-km-z]{32}", chain):
        raise Rejected(
            f"{flag} names a chain by its number, as {', '.join(NETWORKS)}, or by its CAIP-2 name",
            got=name,
            expected="for example cosmos:osmosis-1",
            reason="usage",
        )
    return chain


def _get_network(chain: str) -> str | None:
    return next((name for name, (number, _) in NETWORKS.items() if chain == f"eip155:{number}"), None)


def _get_form(chain: str) -> re.Pattern[str]:
    """What an address of a vault looks like on a chain."""
    return {"eip155": _HEX20, "cosmos": _BECH32, "solana": _BASE58}[chain.partition(":")[0]]


def _write_vault(chain: str, account: bytes) -> str:
    if chain.startswith("solana:"):
        return encode_key(account)
    return "0x" + (account[12:] if chain.startswith("eip155:") else account).hex()


def parse_account(chain: str, vault: str) -> bytes:
    """The 32-byte account of a vault as its chain writes it; Rejected ("bad_address", "bad_config")."""
    family, settings = "evm", "{}"
    if chain.startswith("cosmos:"):
        family = "cosmos"
        settings = encode_canonical({"checkpoint_height": 1, "prefix": vault.rpartition("1")[0]}).decode()
    elif chain.startswith("solana:"):
        family = "solana"
    return parse_vault(family, vault, settings)


# ---- files --------------------------------------------------------------------------------------------------------------

EXAMPLE_NOTE = """\
EXAMPLE: operators, price signers, treasurer, delay and caps are placeholders. The operators agree on the real file and each
compares its digest (relayer parameters show) before the first start. Amounts in base units."""


FAMILY_TERMS = (
    FamilyParameters("cosmos", timeout_s=300, max_legs=128, max_items=256),
    FamilyParameters("solana", timeout_s=300, max_legs=20, max_items=7),
)
"""Terms of the families that the committed example does not name (protocol.md 11). On Solana a transaction locks 64 accounts, and a leg may need
three records of its own, a trade eight: with these terms the worst packet still fits."""


def make_example_parameters(vaults: Mapping[str, Sequence[str]]) -> Parameters:
    """The committed example with these vaults (address by chain) in place of its own."""
    import configs

    example = load_parameters(Path(str(configs.__file__)).parent / "parameters.example.toml")
    vault, asset = example.vaults[0], example.assets[0]
    made_vaults, made_assets = [], []
    for chain, (address, *_) in sorted(vaults.items()):
        family, token = "evm", f"erc20:0x{asset.asset[12:].hex()}"
        if chain.startswith("cosmos:"):
            family, token = "cosmos", f"cw20:{encode_address(asset.asset, address.rpartition('1')[0])}"
        elif chain.startswith("solana:"):
            family, token = "solana", f"token:{encode_key(asset.asset)}"
        account = parse_account(chain, address)
        made_vaults.append(dataclasses.replace(vault, chain=chain, family=family, account=account))
        made_assets.append(
            dataclasses.replace(asset, caip19=f"{chain}/{token}", vault_id=compute_vault_id(chain, account))
        )
    used = {vault.family for vault in made_vaults}
    families = tuple(f for f in FAMILY_TERMS if f.family in used) + tuple(
        f for f in example.families if f.family in used
    )
    return dataclasses.replace(example, vaults=tuple(made_vaults), assets=tuple(made_assets), families=families)


def format_folder(answers: Answers) -> str:
    """Text of the new relayer.toml, with a comment for each key."""
    parameters = answers.parameters
    host, port = answers.broker
    lines = [
        "# One operator's node. `relayer check -c relayer.toml` explains each key; `relayer check --live` also asks the endpoints.",
        "# Paths are relative to this file. No secret stands here: file:PATH (mode 0600) or fd:NUMBER.",
        "",
        f'name = "{answers.name}"',
        'store = "data/node.db"                   # what was proven, said and done',
        'journal = "data/journal.db"              # the signer\'s own memory; never copy it, never restore an old one',
        'parameters = "parameters.toml"           # what the operators decide together; the same for all',
    ]
    if parameters.version == 1:
        digest = hex_of(compute_digest(parameters))
        lines += [
            "# The digest of version 1 as the operators agreed on it, by voice; later versions are signed (relayer parameters sign).",
            f'genesis_parameters = "{digest}"',
        ]
    else:
        lines.append(
            'parameter_signatures = "parameters.signed.json"   # from the other operators, or relayer parameters sign'
        )
    lines += [
        '# next_parameters = "next.toml"           # a later set and its signatures: every node changes at its instant',
        '# next_parameter_signatures = "next.signed.json"',
        "",
        "[operator]",
        'key = "file:keys/operator.json"          # keystore v3: relayer keys new',
        'password = "file:keys/operator.password"',
        "",
        "[gossip]                                 # docs/mqtt.md",
        'kind = "mqtt"',
        f'host = "{host}"',
        f"port = {port}",
        'password_file = "keys/broker.password"   # mode 0600; the user name is the operator\'s address without 0x',
    ]
    if answers.broker_ca is not None:
        lines.append(f'ca_file = "{answers.broker_ca}"')
    for chain in answers.chains:
        lines += _format_chain(chain)
    if answers.feed is not None:
        key, kind = ("url", "http") if answers.feed.startswith(("http://", "https://")) else ("path", "file")
        lines += [
            "",
            "[[feeds]]                                # signed prices",
            f'kind = "{kind}"',
            f'{key} = "{answers.feed}"',
        ]
    else:
        lines += [
            "",
            "# [[feeds]]                              # signed prices: without them this node proposes nothing",
        ]
        lines += ['# kind = "file"', '# path = "prices.jsonl"']
    lines += [
        "",
        "[metrics]                                # /metrics, /health and /ready, on this machine only",
        f"port = {answers.metrics_port}",
        "",
        "[log]",
        'level = "info"',
        "json_lines = false                       # true: one JSON object a line",
    ]
    return "\n".join(lines) + "\n"


def _format_chain(chain: ChainAnswers) -> list[str]:
    table = f'chains."{chain.chain}"'
    what = {"evm": "a finalized block root", "cosmos": "a header hash", "solana": "the genesis hash"}[chain.family]
    lines = [
        "",
        f"[{table}]",
        f'family = "{chain.family}"',
        f'vault = "{chain.vault}"',
        f'checkpoint = "{chain.checkpoint}"   # {what} from people you trust; needed at the first start',
        f"start_height = {chain.height}                         # block of the vault's creation, or any earlier one",
        f"settings = {chain.settings}",
        f'submit_key = "file:keys/gas-{chain.short}.json"      # pays for transactions; never the operator key',
        f'submit_password = "file:keys/gas-{chain.short}.password"',
        *(f"{key} = {value}                       # {comment}" for key, value, comment in chain.limits),
    ]
    for n, endpoint in enumerate(chain.endpoints, 1):
        lines += [
            "",
            f"[[{table}.endpoints]]"
            + ("      # several: one that lies or fails is blamed and the next asked" if n == 1 else ""),
            f'name = "endpoint-{n}"',
            *(f'{door} = "{url}"' for door, url in endpoint.items()),
        ]
    return lines


def ask_person(question: str, default: str) -> str:
    """Ask on the terminal; the question goes to stderr, so that stdout stays the answer's."""
    import typer

    return str(typer.prompt(question, default=default, show_default=bool(default), err=True)).strip()
