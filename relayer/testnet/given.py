"""A testnet on chains that exist already: endpoints, checkpoints and a funded key from a file instead of local nodes.

wait_s = 2400                     # how long one wait of the story may take: finality takes a quarter of an hour on Ethereum
expiry_minutes = 240

[chains.one]                      # and chains.two: the names of the scenario
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
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from messages.canonical import encode_canonical
from messages.errors import Rejected
from relayer.config import EndpointTable, get_key_path, read_password
from relayer.keys import load_key_file

MAX_FILE_BYTES = 1 << 20


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class GivenChainTable(_Table):
    """``[chains.NAME]``."""

    chain_id: Annotated[int, Field(gt=0)]
    settings: dict[str, Any]
    checkpoint: Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$")]
    faucet_key: str
    faucet_password: str
    is_throwaway_key: bool = False
    fund_wei: Annotated[str, Field(pattern=r"^[0-9]{1,24}$")]
    endpoints: Annotated[list[EndpointTable], Field(min_length=1, max_length=16)]


class GivenTable(_Table):
    """The whole file."""

    wait_s: Annotated[int, Field(gt=0, le=86_400)] = 2400
    expiry_minutes: Annotated[int, Field(gt=0, le=10_000)] = 240
    chains: dict[str, GivenChainTable]


@dataclass(frozen=True)
class GivenChain:
    """One chain of the file, its faucet key opened. ``settings``: canonical text."""

    name: str
    chain_id: int
    settings: str
    checkpoint: bytes
    faucet_key: bytes
    fund_wei: int
    endpoints: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Given:
    """The file, read."""

    wait_s: int
    expiry_minutes: int
    chains: dict[str, GivenChain]


def load_given(path: Path, names: tuple[str, ...]) -> Given:
    """Read the file; ``names`` are the chains that the scenario needs.

    Raises:
        Rejected: "no_file", "bad_config" (every wrong key is named), or what is wrong with the key file.
    """
    if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
        raise Rejected(f"there is no usable file {path}", reason="no_file")
    try:
        table = GivenTable.model_validate(tomllib.loads(path.read_text()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Rejected(f"{path} is not TOML: {error}", reason="bad_config") from None
    except ValidationError as error:
        lines = [f"  {'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors()]
        raise Rejected(f"{path.name} is wrong:\n" + "\n".join(lines), reason="bad_config") from None
    if set(table.chains) != set(names):
        raise Rejected(
            f"{path.name} must name the chains of the scenario",
            got=sorted(table.chains),
            expected=sorted(names),
            reason="bad_config",
        )
    return Given(
        table.wait_s, table.expiry_minutes, {name: _open_chain(path, name, c) for name, c in table.chains.items()}
    )


def _open_chain(path: Path, name: str, chain: GivenChainTable) -> GivenChain:
    key = load_key_file(
        get_key_path(chain.faucet_key, path),
        read_password(chain.faucet_password, path),
        is_throwaway=chain.is_throwaway_key,
    )
    return GivenChain(
        name,
        chain.chain_id,
        encode_canonical(chain.settings).decode(),
        bytes.fromhex(chain.checkpoint[2:]),
        key.reveal(),
        int(chain.fund_wei),
        tuple((e.name, e.execution, e.beacon) for e in chain.endpoints),
    )
