"""The operator's files: relayer.toml and parameters.toml, read once, checked whole, handed down frozen (data.md 2, 4).

A wrong file gives one error that lists every wrong key with what it should be. Unknown keys are refused. No secret stands in
a file: keys and passwords are references, ``file:PATH`` (mode 0600) or ``fd:NUMBER``. Paths are relative to the file they
stand in.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from chains.registry import (
    DEFAULT_MAX_FEE_CAP_WEI,
    DEFAULT_MAX_UNIT_PRICE,
    DEFAULT_UNIT_PRICE,
    FAMILIES,
    ChainConfig,
    EndpointConfig,
    build_rules_of,
    parse_vault,
)
from messages.bodies import WIDEST_LIMITS, RotateOperators, SetCaps, Unpause, decode_inbox_body
from messages.canonical import encode_canonical
from messages.documents import Amount, Parameters
from messages.errors import Rejected
from messages.ids import encode_name
from relayer.keys import Secret
from relayer.node import Timing
from relayer.rules.margin.tiers import verify_tiers

MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_PASSWORD_BYTES = 1024
_CAIP2 = re.compile(r"[-a-z0-9]{3,8}:[-_a-zA-Z0-9]{1,32}")
_HEX = re.compile(r"0x[0-9a-f]*")
_NAMES_OF_FAMILY = {
    "evm": (r"eip155:[1-9][0-9]*", '"eip155:" and its number'),
    "cosmos": (r"cosmos:[-a-zA-Z0-9]{1,32}", '"cosmos:" and its chain id'),
    "solana": (r"solana:[1-9A-HJ-NP-Za-km-z]{32}", '"solana:" and the first 32 characters of its genesis hash'),
}

FilePath = Annotated[str, Field(pattern=r"^[^\x00-\x1f]{1,1024}$")]
Reference = Annotated[str, Field(pattern=r"^(file:[^\x00-\x1f]{1,1024}|fd:[0-9]{1,4})$")]
GasPriceText = Annotated[str, Field(pattern=r"^[0-9]{1,18}(\.[0-9]{1,18})?[a-zA-Z][a-zA-Z0-9/:._-]{1,127}$")]
Url = Annotated[str, Field(pattern=r"^(https?://|sim:).+", max_length=2048)]
StreamUrl = Annotated[str, Field(pattern=r"^wss?://.+", max_length=2048)]
MicroLamports = Annotated[int, Field(ge=0, le=10**12)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class EndpointTable(_Table):
    """One source of a chain: the doors of its family, or ``sim:NAME`` for each.

    evm: execution RPC and beacon API; cosmos: CometBFT RPC; solana: JSON-RPC, and its websocket (``stream``) where hints are wanted.
    """

    name: Annotated[str, Field(min_length=1, max_length=64)]
    execution: Url | None = None
    beacon: Url | None = None
    rpc: Url | None = None
    stream: StreamUrl | None = None

    def get_urls(self) -> dict[str, str]:
        """Door -> address, of the doors that are named."""
        named = {door: getattr(self, door) for door in ("execution", "beacon", "rpc", "stream")}
        return {door: url for door, url in named.items() if url is not None}


class ChainTable(_Table):
    """``[chains."eip155:1"]``: one vault on one chain."""

    family: Literal["evm", "cosmos", "solana"]
    vault: Annotated[str, Field(max_length=100)]
    checkpoint: str
    start_height: Annotated[int, Field(ge=0)]
    settings: dict[str, Any]
    endpoints: Annotated[list[EndpointTable], Field(min_length=1, max_length=16)]
    submit_key: Reference | None = None
    submit_password: Reference | None = None
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 20.0
    log_range: Annotated[int, Field(gt=0, le=100_000)] = 10_000
    max_fee_gwei: Annotated[int, Field(gt=0, le=100_000)] | None = None
    gas_price: GasPriceText | None = None
    max_gas_price: GasPriceText | None = None
    unit_price_microlamports: MicroLamports | None = None
    max_unit_price_microlamports: MicroLamports | None = None

    @field_validator("checkpoint")
    @classmethod
    def _checkpoint(cls, value: str) -> str:
        # A zero anchor would make anything provable (incident B1).
        if not _HEX.fullmatch(value) or len(value) != 66 or not int(value, 16):
            raise ValueError(
                "must be a non-zero block root, header hash or genesis hash: 0x and 64 lower-case hex digits"
            )
        return value

    def get_settings(self) -> str:
        """The family's settings as canonical JSON; Rejected where TOML has what JSON has not."""
        return encode_canonical(self.settings).decode()

    def get_account(self) -> bytes:
        """The vault's 32-byte account; Rejected ("bad_address", "bad_config")."""
        return parse_vault(self.family, self.vault, self.get_settings())

    def verify_rules(self, name: str) -> None:
        """Check what the family says of checkpoint and settings of the chain ``name``; ValueError."""
        checkpoint = bytes.fromhex(self.checkpoint[2:])
        try:
            build_rules_of(self.family, name, self.get_account(), checkpoint, self.get_settings())
        except Rejected as error:
            raise ValueError(f"{name}: {error}") from None

    @model_validator(mode="after")
    def _check(self) -> ChainTable:
        family = FAMILIES[self.family]
        doors = family.doors
        for endpoint in self.endpoints:
            if set(endpoint.get_urls()) - set(family.optional_doors) != set(doors):
                more = "".join(f", if wanted {door}," for door in family.optional_doors)
                raise ValueError(
                    f'endpoint "{endpoint.name}": one of family {self.family} has {" and ".join(doors)}{more} and nothing else'
                )
        if len(self.endpoints) < family.min_endpoints:
            raise ValueError(
                f"a chain of family {self.family} needs {family.min_endpoints} endpoints that do not depend on each other:"
                " operators sign what enough of them show"
            )
        try:
            self.get_account()
        except Rejected as error:
            raise ValueError(f"vault: {error}") from None
        self._check_prices()
        if (self.submit_key is None) != (self.submit_password is None):
            raise ValueError("submit_key and submit_password go together; leave both out for a node that only watches")
        names = [e.name for e in self.endpoints]
        if len(set(names)) != len(names):
            raise ValueError("endpoints need different names")
        urls = [e.get_urls()[doors[0]] for e in self.endpoints]
        if len(set(urls)) != len(urls):
            raise ValueError("two endpoints have one address: they would be one source")
        return self

    def _check_prices(self) -> None:
        """Each family has its own words for what a transaction may cost."""
        words = {
            "evm": ("max_fee_gwei",),
            "cosmos": ("gas_price", "max_gas_price"),
            "solana": ("unit_price_microlamports", "max_unit_price_microlamports"),
        }
        for family, keys in words.items():
            wrong = [key for key in keys if getattr(self, key) is not None]
            if family != self.family and wrong:
                limits = words[self.family]
                are = "is the limit here" if len(limits) == 1 else "are the limits here"
                raise ValueError(
                    f"{' and '.join(keys)} {'is' if len(keys) == 1 else 'are'} of family {family}; {' and '.join(limits)} {are}"
                )
        if self.family == "cosmos" and self.submit_key is not None and self.gas_price is None:
            raise ValueError('submit_key needs gas_price, for example "0.025utoken": what a unit of gas is paid with')
        low, high = self.get_unit_prices()
        if low > high:
            raise ValueError("unit_price_microlamports is above max_unit_price_microlamports")

    def get_unit_prices(self) -> tuple[int, int]:
        """Micro-lamports for a compute unit of Solana, at least and at most."""
        low, high = self.unit_price_microlamports, self.max_unit_price_microlamports
        return DEFAULT_UNIT_PRICE if low is None else low, DEFAULT_MAX_UNIT_PRICE if high is None else high


class OperatorTable(_Table):
    """``[operator]``: references to the operator's key; never the key itself."""

    key: Reference
    password: Reference
    allow_throwaway_key: bool = False


class GossipTable(_Table):
    """``[gossip]``: how operators reach each other. ``memory`` is for services of one process (demo, tests)."""

    kind: Literal["memory", "mqtt"]
    host: str | None = None
    port: Annotated[int, Field(gt=0, lt=65_536)] | None = None
    root: str = "optsettle"
    password_file: FilePath | None = None
    ca_file: FilePath | None = None
    cert_file: FilePath | None = None
    key_file: FilePath | None = None

    @model_validator(mode="after")
    def _check(self) -> GossipTable:
        if self.kind == "mqtt" and (not self.host or self.port is None):
            raise ValueError("kind mqtt needs host and port")
        if self.kind == "memory" and (self.host or self.port):
            raise ValueError("kind memory takes no host and no port")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        return self


class FeedTable(_Table):
    """``[[feeds]]``: a source of signed prices: ``path`` of a JSON-lines file, or ``url``."""

    kind: Literal["file", "http"]
    path: FilePath | None = None
    url: Annotated[str, Field(pattern=r"^https?://.+", max_length=2048)] | None = None

    @model_validator(mode="after")
    def _check(self) -> FeedTable:
        if (self.kind == "file") != (self.path is not None) or (self.kind == "http") != (self.url is not None):
            raise ValueError("kind file needs path, kind http needs url, and neither the other's")
        return self


class TimingTable(_Table):
    """``[timing]``: seconds; what is left out keeps its default."""

    poll_s: Annotated[float, Field(gt=0, le=3600)] = Timing.poll_s
    settle_s: Annotated[float, Field(gt=0, le=3600)] = Timing.settle_s
    look_again_s: Annotated[int, Field(gt=0, le=3600)] = Timing.look_again_s
    submit_s: Annotated[float, Field(gt=0, le=3600)] = Timing.submit_s
    republish_s: Annotated[int, Field(gt=0, le=3600)] = Timing.republish_s
    takeover_s: Annotated[int, Field(gt=0, le=3600)] = Timing.takeover_s
    bump_s: Annotated[int, Field(gt=0, le=3600)] = Timing.bump_s
    backoff_max_s: Annotated[float, Field(gt=0, le=3600)] = Timing.backoff_max_s
    observe_s: Annotated[int, Field(gt=0, le=3600)] = Timing.observe_s
    observe_idle_s: Annotated[int, Field(gt=0, le=3600)] = Timing.observe_idle_s


class MetricsTable(_Table):
    """``[metrics]``: where to serve Prometheus metrics; left out: nowhere. ``limits``: of alerts by name (docs/operations.md)."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(gt=0, lt=65_536)]
    limits: Annotated[dict[str, int | float], Field(max_length=64)] = {}

    @field_validator("limits")
    @classmethod
    def _limits(cls, value: dict[str, int | float]) -> dict[str, int | float]:
        if not all(math.isfinite(limit) and limit >= 0 for limit in value.values()):
            raise ValueError("limits are numbers, not below 0")
        return value


class LogTable(_Table):
    """``[log]``."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    json_lines: bool = False


class RelayerTable(_Table):
    """The whole of relayer.toml."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,32}$")]
    store: FilePath
    journal: FilePath
    parameters: FilePath
    parameter_signatures: FilePath | None = None
    genesis_parameters: Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$")] | None = None
    next_parameters: FilePath | None = None
    next_parameter_signatures: FilePath | None = None
    operator: OperatorTable
    gossip: GossipTable
    chains: Annotated[dict[str, ChainTable], Field(min_length=1, max_length=64)]
    feeds: Annotated[list[FeedTable], Field(max_length=64)] = []
    timing: TimingTable = TimingTable()
    metrics: MetricsTable | None = None
    log: LogTable = LogTable()

    @field_validator("chains")
    @classmethod
    def _chains(cls, value: dict[str, ChainTable]) -> dict[str, ChainTable]:
        for name, chain in value.items():
            if not _CAIP2.fullmatch(name):
                raise ValueError(f'"{name}" is no CAIP-2 chain id, for example "eip155:1"')
            pattern, words = _NAMES_OF_FAMILY[chain.family]
            if not re.fullmatch(pattern, name):
                raise ValueError(f'a chain of family {chain.family} is {words}, not "{name}"')
            if chain.family == "solana":
                chain.verify_rules(name)
        return value

    @model_validator(mode="after")
    def _check(self) -> RelayerTable:
        if self.store == self.journal:
            raise ValueError("store and journal are two files: the journal must survive a restored store")
        if (self.next_parameters is None) != (self.next_parameter_signatures is None):
            raise ValueError("next_parameters and next_parameter_signatures go together: nobody uses an unsigned set")
        for name, chain in self.chains.items():
            if chain.submit_key is not None and chain.submit_key == self.operator.key:
                raise ValueError(f'chains."{name}".submit_key is the operator key: gas is paid by a key of its own')
        return self


@dataclass(frozen=True)
class SubmitKey:
    """References to the key that pays for transactions on one chain."""

    key: str
    password: str


@dataclass(frozen=True)
class NextParameters:
    """A signed set that takes effect later, read with the present one so that every node changes at one instant."""

    path: Path
    parameters: Parameters
    signatures_path: Path


@dataclass(frozen=True)
class Config:
    """A checked configuration: paths absolute, parameters read, nothing opened and no secret in it."""

    path: Path
    name: str
    store_path: Path
    journal_path: Path
    parameters: Parameters
    signatures_path: Path | None
    chains: tuple[ChainConfig, ...]
    submit_keys: Mapping[str, SubmitKey]
    operator: OperatorTable
    gossip: GossipTable
    feeds: tuple[FeedTable, ...]
    timing: Timing
    metrics: MetricsTable | None
    log: LogTable
    parameters_path: Path
    genesis_digest: bytes | None = None
    """Digest of version 1, agreed by people before there was a committee: it stands for the signatures of that version alone."""
    next: NextParameters | None = None

    def at(self, now: int) -> Config:
        """The configuration at a time (unix seconds): from their instant on the next parameters take the place of the present ones."""
        if self.next is None or now < self.next.parameters.effective:
            return self
        n = self.next
        return dataclasses.replace(
            self, parameters=n.parameters, parameters_path=n.path, signatures_path=n.signatures_path, next=None
        )

    def resolve(self, path: str) -> Path:
        """A path of the configuration, relative to the file it stands in."""
        return _resolve(self.path, path)


def load_config(path: Path) -> Config:
    """Read relayer.toml and the parameters it names; opens no key, no store and no connection.

    Raises:
        Rejected: ``no_file``, ``bad_toml`` or ``bad_config``; the text names every wrong key and what it should be.
    """
    raw = _read_toml(path)
    try:
        table = RelayerTable.model_validate(raw)
    except ValidationError as error:
        raise Rejected(f"{path.name} is wrong:\n{_explain(error)}", reason="bad_config") from None
    parameters = load_parameters(_resolve(path, table.parameters))
    chains = tuple(_make_chain(name, chain) for name, chain in sorted(table.chains.items()))
    configured = {(c.chain_id, c.vault_account) for c in chains}
    expected = {(v.chain, v.account) for v in parameters.vaults}
    if configured != expected:
        raise Rejected(
            f"{path.name} and {table.parameters} name different vaults: every vault of the parameters needs its chain",
            got=sorted(f"{c} 0x{a.hex()}" for c, a in configured - expected),
            expected=sorted(f"{c} 0x{a.hex()}" for c, a in expected - configured),
            reason="bad_config",
        )
    keys = {
        name: SubmitKey(c.submit_key, c.submit_password)
        for name, c in table.chains.items()
        if c.submit_key is not None and c.submit_password is not None
    }
    return Config(
        path,
        table.name,
        _resolve(path, table.store),
        _resolve(path, table.journal),
        parameters,
        None if table.parameter_signatures is None else _resolve(path, table.parameter_signatures),
        chains,
        keys,
        table.operator,
        table.gossip,
        tuple(table.feeds),
        Timing(**table.timing.model_dump()),
        table.metrics,
        table.log,
        _resolve(path, table.parameters),
        None if table.genesis_parameters is None else bytes.fromhex(table.genesis_parameters[2:]),
        _load_next(path, table, parameters),
    )


def _load_next(path: Path, table: RelayerTable, present: Parameters) -> NextParameters | None:
    if table.next_parameters is None or table.next_parameter_signatures is None:
        return None
    file = _resolve(path, table.next_parameters)
    found = load_parameters(file)
    if found.version <= present.version or found.effective <= present.effective:
        raise Rejected(
            f"{table.next_parameters} does not follow {table.parameters}: a later set has a higher version and a later instant",
            got=f"version {found.version} from {found.effective}",
            expected=f"after version {present.version} from {present.effective}",
            reason="bad_config",
        )
    if {(v.chain, v.account) for v in found.vaults} != {(v.chain, v.account) for v in present.vaults}:
        raise Rejected(
            f"{table.next_parameters} names other vaults: a vault is added by changing the chains of {path.name} too, not at an"
            " instant",
            reason="bad_config",
        )
    return NextParameters(file, found, _resolve(path, table.next_parameter_signatures))


def _make_chain(name: str, chain: ChainTable) -> ChainConfig:
    return ChainConfig(
        chain_id=name,
        family=chain.family,
        endpoints=tuple(
            EndpointConfig(e.name, **{f"{door}_url": url for door, url in e.get_urls().items()})
            for e in chain.endpoints
        ),
        vault_account=chain.get_account(),
        checkpoint=bytes.fromhex(chain.checkpoint[2:]),
        start_height=chain.start_height,
        settings=chain.get_settings(),
        timeout_s=chain.timeout_s,
        log_range=chain.log_range,
        max_fee_cap_wei=DEFAULT_MAX_FEE_CAP_WEI if chain.max_fee_gwei is None else chain.max_fee_gwei * 10**9,
        gas_price=chain.gas_price or "",
        max_gas_price=chain.max_gas_price or "",
        unit_price_microlamports=chain.get_unit_prices()[0],
        max_unit_price_microlamports=chain.get_unit_prices()[1],
    )


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        where = ".".join(f'"{p}"' if ":" in str(p) else str(p) for p in item["loc"]) or "the file"
        what = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            what = "unknown key: remove it, or look for a typing mistake"
        lines.append(f"  {where}: {what}")
    return "\n".join(lines)


def _resolve(base: Path, path: str) -> Path:
    return (base.parent / Path(path).expanduser()).resolve()


def _read_toml(path: Path) -> dict[str, Any]:
    if path.is_dir():
        raise Rejected(f"{path} is a folder: name a file in it, such as {path / 'relayer.toml'}", reason="no_file")
    if not path.is_file():
        raise Rejected(
            f"there is no file {path}: relayer init makes one, or name another with --config", reason="no_file"
        )
    if path.stat().st_size > MAX_FILE_BYTES:
        raise Rejected(f"{path} is too large", got=path.stat().st_size, expected=MAX_FILE_BYTES, reason="bad_toml")
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected(f"{path} is not TOML: {error}", reason="bad_toml") from None


# ---- secrets ------------------------------------------------------------------------------------------------------------


def get_key_path(reference: str, base: Path) -> Path:
    """The path behind a ``file:`` reference of a key.

    Raises:
        Rejected: a key file is a file; reason ``bad_reference``.
    """
    if not reference.startswith("file:"):
        raise Rejected("a key is referred to by file:PATH", got=reference, reason="bad_reference")
    return _resolve(base, reference.removeprefix("file:"))


def read_password(reference: str, base: Path) -> Secret:
    """The password behind ``file:PATH`` (mode 0600) or ``fd:NUMBER``; one trailing line end is dropped.

    Raises:
        Rejected: ``bad_reference`` or ``file_mode``; the text holds nothing of the password.
    """
    kind, _, rest = reference.partition(":")
    if kind == "fd":
        try:
            with os.fdopen(int(rest), "rb", closefd=False) as file:
                data = file.read(MAX_PASSWORD_BYTES + 1)
        except OSError:
            raise Rejected(f"nothing can be read from {reference}", reason="bad_reference") from None
    else:
        path = _resolve(base, rest)
        if not path.is_file():
            raise Rejected(f"there is no password file {path}", reason="bad_reference")
        if path.stat().st_mode & 0o077:
            raise Rejected(f"the password file {path} can be read by others: chmod 600 it", reason="file_mode")
        with path.open("rb") as file:
            data = file.read(MAX_PASSWORD_BYTES + 1)
    if not data.strip() or len(data) > MAX_PASSWORD_BYTES:
        raise Rejected(f"the password of {reference} is empty or too long", reason="bad_reference")
    return Secret(data.removesuffix(b"\n").removesuffix(b"\r"))


# ---- parameters ---------------------------------------------------------------------------------------------------------


def load_parameters(path: Path) -> Parameters:
    """Read parameters.toml into the document that operators sign.

    Keys are those of `messages.documents.Parameters`; bytes are 0x hex (an address is padded to 32 bytes), names of classes,
    underlyings and price sources may be ASCII text, amounts are integers or decimal strings.

    Raises:
        Rejected: ``no_file``, ``bad_toml`` or ``bad_config``, naming the key and what it should be.
    """
    return decode_parameters(_read_toml(path), path.name)


def decode_parameters(raw: Mapping[str, Any], name: str = "parameters") -> Parameters:
    """The parameters of a TOML table; see `load_parameters`."""
    parameters: Parameters = _decode(Parameters, dict(raw), name, "")
    if not parameters.vaults or not parameters.price_signers or parameters.price_threshold < 1:
        raise Rejected(f"{name} names no vault or no price signers", reason="bad_config")
    if parameters.price_threshold > len(set(parameters.price_signers)):
        raise Rejected(
            f"{name}: price_threshold is more than there are price signers", got=parameters.price_threshold,
            expected=f"<= {len(set(parameters.price_signers))}", reason="bad_config",
        )  # fmt: skip
    if parameters.patience_s <= 0:
        raise Rejected(f"{name}: patience_s must be more than 0", got=parameters.patience_s, reason="bad_config")
    if parameters.classes:
        try:
            verify_tiers(parameters.tiers, parameters.classes[0].decimals)
        except Rejected as error:
            raise Rejected(
                f"{name}: {error.what}", got=error.got, expected=error.expected, reason="bad_config"
            ) from None
    for i, control in enumerate(parameters.controls):
        _verify_control(control.value, f"{name}.controls[{i}].value")
    return parameters


def _verify_control(value: bytes, where: str) -> None:
    """Refuse here what no vault could be told: a cut or other body is noticed before anybody signs it."""
    try:
        body = decode_inbox_body(value, WIDEST_LIMITS)
    except Rejected as error:
        raise Rejected(f"{where} is no control change: {error}", reason="bad_config") from None
    if not isinstance(body, RotateOperators | SetCaps | Unpause):
        raise Rejected(
            f"{where} is no control change", got=f"kind {body.KIND}", expected="35, 36 or 37", reason="bad_config"
        )


_NAMES = {"quote_class", "underlying", "price_source"}
_ADDRESSES = {"price_signers", "operators"}
_BODIES = {"value"}


def _decode(hint: Any, value: Any, where: str, field: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _decode_table(hint, value, where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise _wrong(where, value, "an array")
        item = typing.get_args(hint)[0]
        return tuple(_decode(item, x, f"{where}[{i}]", field) for i, x in enumerate(value))
    if hint is bytes:
        return _decode_bytes(value, where, field)
    if hint is Amount:
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,77}", value):
            return int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise _wrong(where, value, "an integer or a decimal string")
    if hint is int:
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 2**53:
            return value
        raise _wrong(where, value, "an integer")
    if hint is str and isinstance(value, str):
        return value
    raise _wrong(where, value, "text")


def _decode_table(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(where, value, f"a table of {kind.__name__}")
    hints = dict(zip((f.name for f in dataclasses.fields(kind)), _get_hints(kind), strict=True))
    optional = {f.name for f in dataclasses.fields(kind) if f.default is not dataclasses.MISSING}
    wrong = sorted((value.keys() - hints.keys()) | (hints.keys() - value.keys() - optional))
    if wrong:
        unknown = [k for k in wrong if k in value]
        missing = [k for k in wrong if k not in value]
        parts = [f"unknown key {', '.join(unknown)}"] if unknown else []
        parts += [f"missing key {', '.join(missing)}"] if missing else []
        raise Rejected(f"{where}: {'; '.join(parts)}", expected=", ".join(hints), reason="bad_config")
    return kind(**{name: _decode(hints[name], item, f"{where}.{name}", name) for name, item in value.items()})


def _get_hints(kind: Any) -> list[Any]:
    hints = typing.get_type_hints(kind)
    return [hints[f.name] for f in dataclasses.fields(kind)]


def _decode_bytes(value: Any, where: str, field: str) -> bytes:
    expected = "0x and lower-case hex, 20 or 32 bytes"
    if not isinstance(value, str):
        raise _wrong(where, value, expected)
    if not value.startswith("0x"):
        if field in _NAMES and value.isascii() and 0 < len(value) <= 32:
            return encode_name(value)
        raise _wrong(where, value, expected + (" or a name of up to 32 ASCII characters" if field in _NAMES else ""))
    if field in _BODIES and _HEX.fullmatch(value) and len(value) % 64 == 2:
        return bytes.fromhex(value[2:])
    if not _HEX.fullmatch(value) or len(value) not in (42, 66):
        raise _wrong(where, value, expected)
    data = bytes.fromhex(value[2:])
    if field in _ADDRESSES:
        if len(data) != 20 or not any(data):
            raise _wrong(where, value, "a non-zero address: 0x and 40 lower-case hex digits")
        return data
    return bytes(32 - len(data)) + data


def _wrong(where: str, got: object, expected: str) -> Rejected:
    return Rejected(f"{where} is wrong", got=got, expected=expected, reason="bad_config")
