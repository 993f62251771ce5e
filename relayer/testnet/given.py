"""A testnet on chains that exist already: endpoints, checkpoints and a funded key from a file instead of local nodes.

wait_s = 2400                     # how long one wait of the story may take: finality takes a quarter of an hour on Ethereum
expiry_minutes = 240

[chains.one]                      # and chains.two: the names of the scenario
family = "evm"
chain_id = 11155111
settings = { network = "sepolia" }
checkpoint = "0x..."              # a finalized block root from people you trust
faucet_key = "file:faucet.json"   # keystore v3; pays for deployment, users and operators
faucet_password = "file:faucet.password"
fund_wei = "20000000000000000"    # what each throw-away account is given

[[chains.one.endpoints]]
name = "provider"
execution = "https://..."
beacon = "https://..."

[chains.two]
family = "cosmos"
chain = "cosmos:osmo-test-5"      # CAIP-2; with chain_id where that holds only a hash
prefix = "osmo"
denom = "uosmo"                   # fees and what throw-away accounts are given
gas_price = "0.025"
fund_amount = "500000"
settings = { checkpoint_height = 1234, prefix = "osmo", trusting_period_s = 86400 }
checkpoint = "0x..."              # hash of the header at that height
faucet_key = "file:faucet.json"
faucet_password = "file:faucet.password"

[[chains.two.endpoints]]
name = "provider"
rpc = "https://..."

[chains.three]
family = "solana"
genesis_hash = "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG"
program = "..."                   # the vault program, deployed there; with no upgrade authority wherever it is of worth
faucet_key = "file:faucet.json"   # of a 32-byte ed25519 seed
faucet_password = "file:faucet.password"
fund_lamports = "200000000"

[[chains.three.endpoints]]        # at least four, of different people: three of them must agree
name = "provider"
rpc = "https://..."

The story is told on two chains or on all three.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chains.solana.observations import MIN_ENDPOINTS
from messages.errors import Rejected
from relayer.config import get_key_path, read_password
from relayer.demo.scenario import MIN_CHAINS
from relayer.keys import load_key_file

MAX_FILE_BYTES = 1 << 20
Url = Annotated[str, Field(pattern=r"^https?://.+", max_length=2048)]
Amount = Annotated[str, Field(pattern=r"^[0-9]{1,24}$")]
Base58 = Annotated[str, Field(pattern=r"^[1-9A-HJ-NP-Za-km-z]{32,44}$")]
Name = Annotated[str, Field(min_length=1, max_length=64)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class GivenEvmEndpoint(_Table):
    """A source of an Ethereum chain."""

    name: Name
    execution: Url
    beacon: Url


class GivenCosmosEndpoint(_Table):
    """A source of a Cosmos chain."""

    name: Name
    rpc: Url


class GivenSolanaEndpoint(_Table):
    """A source of a Solana chain."""

    name: Name
    rpc: Url


class GivenChain(_Table):
    """``[chains.NAME]`` of every family."""

    faucet_key: str
    faucet_password: str
    is_throwaway_key: bool = False


class GivenProvable(GivenChain):
    """A chain whose headers prove something. ``settings`` as in an operator's configuration."""

    settings: dict[str, Any]
    checkpoint: Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$")]


class GivenEvm(GivenProvable):
    """An Ethereum chain."""

    family: Literal["evm"]
    chain_id: Annotated[int, Field(gt=0)]
    fund_wei: Amount
    endpoints: Annotated[list[GivenEvmEndpoint], Field(min_length=1, max_length=16)]


class GivenCosmos(GivenProvable):
    """A Cosmos chain."""

    family: Literal["cosmos"]
    chain: Annotated[str, Field(pattern=r"^cosmos:[-a-zA-Z0-9]{1,32}$")]
    chain_id: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    prefix: Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{0,15}$")]
    denom: Annotated[str, Field(pattern=r"^[a-zA-Z][a-zA-Z0-9/:._-]{2,127}$")]
    gas_price: Annotated[str, Field(pattern=r"^[0-9]{1,12}(\.[0-9]{1,18})?$")]
    fund_amount: Amount
    endpoints: Annotated[list[GivenCosmosEndpoint], Field(min_length=1, max_length=16)]


class GivenSolana(GivenChain):
    """A Solana cluster. Nothing there is proven, so all there is to trust is the genesis hash; settings follow from program and operators."""

    family: Literal["solana"]
    genesis_hash: Base58
    program: Base58
    fund_lamports: Amount
    endpoints: Annotated[list[GivenSolanaEndpoint], Field(min_length=MIN_ENDPOINTS, max_length=16)]


GivenTable = GivenEvm | GivenCosmos | GivenSolana


class _File(_Table):
    wait_s: Annotated[int, Field(gt=0, le=86_400)] = 2400
    expiry_minutes: Annotated[int, Field(gt=0, le=10_000)] = 240
    chains: dict[str, Annotated[GivenTable, Field(discriminator="family")]]


@dataclass(frozen=True)
class Given:
    """The file, read; ``path`` its own, which its references are relative to."""

    path: Path
    wait_s: int
    expiry_minutes: int
    chains: dict[str, GivenTable]


def load_given(path: Path, names: tuple[str, ...]) -> Given:
    """Read the file; ``names`` are the chains that the scenario can be told on: the file has the first two or more of them.

    Raises:
        Rejected: "no_file", "bad_config" (every wrong key is named).
    """
    if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
        raise Rejected(f"there is no usable file {path}", reason="no_file")
    try:
        table = _File.model_validate(tomllib.loads(path.read_text()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Rejected(f"{path} is not TOML: {error}", reason="bad_config") from None
    except ValidationError as error:
        lines = [f"  {_tell_place(e['loc'])}: {e['msg']}" for e in error.errors()]
        raise Rejected(f"{path.name} is wrong:\n" + "\n".join(lines), reason="bad_config") from None
    told = names[: max(MIN_CHAINS, len(table.chains))]
    if set(table.chains) != set(told):
        raise Rejected(
            f"{path.name} must name the chains of the scenario",
            got=sorted(table.chains),
            expected=list(told),
            reason="bad_config",
        )
    return Given(path, table.wait_s, table.expiry_minutes, {name: table.chains[name] for name in told})


def _tell_place(place: tuple[int | str, ...]) -> str:
    """Where in the file: without the family that the check itself puts after a chain's name."""
    parts = [str(p) for p in place]
    if len(parts) > 3 and parts[0] == "chains":
        del parts[2]
    return ".".join(parts)


def open_key(path: Path, chain: GivenChain) -> bytes:
    """The faucet key of a chain, 32 bytes; Rejected says what is wrong with the key file."""
    key = load_key_file(
        get_key_path(chain.faucet_key, path),
        read_password(chain.faucet_password, path),
        is_throwaway=chain.is_throwaway_key,
    )
    return key.reveal()
