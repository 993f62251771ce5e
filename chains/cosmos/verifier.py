"""Binds one vault's configuration to the pure rules of the Cosmos family. No network, clock or disk.

`CosmosVerifier` adds nothing to `light_client`, `evidence` and `proofs` but the operator's choices: chain, checkpoint, trust level, periods,
vault. They come from the configuration, never from what is verified (style.md 4, habit 15), and have one canonical text (`encode_settings`)
that also travels in exported proofs. Seconds outside, nanoseconds inside.

A checkpoint is a header hash and its height: a node gives blocks by height, and the hash alone decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chains.base import Codec, Head, Point, Verifier
from chains.cosmos import codec, evidence, light_client, proofs
from chains.cosmos.address import decode_address, encode_address, get_comet_chain_id, is_valid_prefix
from chains.cosmos.light_client import LightClientConfig
from chains.cosmos.types import NANOSECONDS, Bootstrap, Proof, Trusted, Update
from messages.canonical import decode_canonical, encode_canonical
from messages.digests import compute_vault_id
from messages.errors import Rejected
from messages.ids import ChainId
from messages.outbox import ProvenHead

MAX_SETTINGS_BYTES = 8192
DEFAULT_PREFIX = "wasm"
MAX_PERIOD_S = 366 * 86_400
_SETTINGS = {"checkpoint_height", "prefix", "chain_id", "trusting_period_s", "max_clock_drift_s", "trust_level"}


@dataclass(frozen=True)
class CosmosSettings:
    """What an operator chooses besides chain, vault and checkpoint.

    checkpoint_height: of the checkpoint's header. prefix: of the chain's addresses. chain_id: the chain's own id, where its CAIP-2 name holds
    only the hash. trusting_period_s: must be shorter than the chain's unbonding period.
    """

    checkpoint_height: int
    prefix: str = DEFAULT_PREFIX
    chain_id: str | None = None
    trusting_period_s: int = 7 * 86_400
    max_clock_drift_s: int = 10
    trust_level: tuple[int, int] = (1, 3)


@dataclass(frozen=True)
class CosmosRules:
    """What decides about claims of one vault: ``vault`` the contract's 32-byte address, ``checkpoint`` a 32-byte header hash."""

    chain: str
    vault: bytes
    checkpoint: bytes
    settings: CosmosSettings
    config: LightClientConfig

    @property
    def vault_id(self) -> bytes:
        """The vault id (protocol.md 2)."""
        return compute_vault_id(self.chain, self.vault)

    @property
    def vault_address(self) -> str:
        """The contract's address as the chain writes it."""
        return encode_address(self.vault, self.settings.prefix)


def build_rules(chain: str, vault_account: bytes, checkpoint: bytes, settings: str) -> CosmosRules:
    """The rules of a vault: CAIP-2 chain, 32-byte account, header hash and settings text; Rejected ("bad_config", "bad_address")."""
    if len(checkpoint) != 32 or not any(checkpoint):
        raise Rejected("a checkpoint is 32 non-zero bytes", got=checkpoint, reason="bad_config")
    if len(vault_account) != 32 or not any(vault_account):
        raise Rejected("a vault's address has 32 bytes and is not zero", got=vault_account, reason="bad_address")
    if not any(vault_account[:12]):
        raise Rejected("this is a key's address: a contract's has 32 bytes", got=vault_account, reason="bad_address")
    found = decode_settings(settings)
    config = LightClientConfig(
        get_comet_chain_id(chain, found.chain_id),
        found.trust_level,
        found.trusting_period_s * NANOSECONDS,
        found.max_clock_drift_s * NANOSECONDS,
    )
    return CosmosRules(chain, vault_account, checkpoint, found, config)


# ---- verifier ---------------------------------------------------------------------------------------------------------


class CosmosVerifier(Verifier[Bootstrap, Trusted, Update, Proof]):
    """The rules of one vault. Reasons of refusals: see `light_client`, `evidence` and `proofs`."""

    def __init__(self, rules: CosmosRules) -> None:
        self._rules = rules

    def verify_bootstrap(self, bootstrap: Bootstrap, now: int) -> Trusted:
        """See `light_client.verify_bootstrap`."""
        rules = self._rules
        height = rules.settings.checkpoint_height
        return light_client.verify_bootstrap(bootstrap, height, rules.checkpoint, now * NANOSECONDS, rules.config)

    def verify_update(self, trusted: Trusted, update: Update, now: int) -> Trusted:
        """See `light_client.verify_update`; what the validators signed against the trusted header is a Conflict first."""
        now_ns = now * NANOSECONDS
        evidence.verify_no_conflict(trusted, update, now_ns, self._rules.config)
        return light_client.verify_update(trusted, update, now_ns, self._rules.config)

    def verify_head(self, trusted: Trusted, head: Head, proof: Proof) -> ProvenHead:
        """See `proofs.verify_head`; the number in ``head`` is not proven here but by the fold."""
        return proofs.verify_head(
            trusted,
            head.head,
            proof,
            vault_id=self._rules.vault_id,
            chain=ChainId(self._rules.chain),
            contract=self._rules.vault,
        )

    def get_point(self, trusted: Trusted) -> Point:
        """Height, hash and time of the header that carries the app hash; the state is that after the block before it."""
        return Point(trusted.height, trusted.header_hash, trusted.time_ns // NANOSECONDS)

    def is_fresh(self, trusted: Trusted, now: int) -> bool:
        """Tell whether the trusted header is within the trusting period."""
        return not light_client.is_expired(trusted, now * NANOSECONDS, self._rules.config)


# ---- bytes ------------------------------------------------------------------------------------------------------------


class CosmosCodec(Codec[Bootstrap, Trusted, Update, Proof]):
    """Bytes of the family's objects (see `codec`). Decoders: Rejected ("bad_protobuf", "size")."""

    def encode_trusted(self, trusted: Trusted) -> bytes:
        """See `codec.encode_trusted`."""
        return codec.encode_trusted(trusted)

    def decode_trusted(self, data: bytes) -> Trusted:
        """The state of exactly these bytes."""
        return codec.decode_trusted(data)

    def encode_bootstrap(self, bootstrap: Bootstrap) -> bytes:
        """A light block."""
        return codec.encode_update(bootstrap)

    def decode_bootstrap(self, data: bytes) -> Bootstrap:
        """The light block of exactly these bytes."""
        return codec.decode_update(data)

    def encode_update(self, update: Update) -> bytes:
        """A light block."""
        return codec.encode_update(update)

    def decode_update(self, data: bytes) -> Update:
        """The light block of exactly these bytes."""
        return codec.decode_update(data)

    def encode_proof(self, proof: Proof) -> bytes:
        """See `codec.encode_proof`."""
        return codec.encode_proof(proof)

    def decode_proof(self, data: bytes) -> Proof:
        """The proof of exactly these bytes."""
        return codec.decode_proof(data)


# ---- settings ---------------------------------------------------------------------------------------------------------


def encode_settings(settings: CosmosSettings) -> str:
    """Canonical JSON of an operator's choices: the checkpoint's height, the prefix, and what differs from the defaults."""
    default = CosmosSettings(settings.checkpoint_height)
    found: dict[str, Any] = {"checkpoint_height": settings.checkpoint_height, "prefix": settings.prefix}
    for name in ("chain_id", "trusting_period_s", "max_clock_drift_s"):
        if getattr(settings, name) != getattr(default, name):
            found[name] = getattr(settings, name)
    if settings.trust_level != default.trust_level:
        found["trust_level"] = list(settings.trust_level)
    return encode_canonical(found).decode()


def decode_settings(text: str) -> CosmosSettings:
    """The choices of a settings text; Rejected ("bad_config") for unknown keys, other types, or values out of range."""
    found = decode_canonical(text.encode(), max_bytes=MAX_SETTINGS_BYTES)
    if not isinstance(found, dict) or not set(found) <= _SETTINGS or "checkpoint_height" not in found:
        raise _refuse_settings(found)
    default = CosmosSettings(1)
    numbers = {
        name: found.get(name, getattr(default, name))
        for name in ("checkpoint_height", "trusting_period_s", "max_clock_drift_s")
    }
    level = found.get("trust_level", list(default.trust_level))
    prefix, chain_id = found.get("prefix", DEFAULT_PREFIX), found.get("chain_id")
    if (
        not all(_is_number(number) for number in numbers.values())
        or numbers["trusting_period_s"] > MAX_PERIOD_S
        or numbers["max_clock_drift_s"] > MAX_PERIOD_S
        or not isinstance(level, list)
        or len(level) != 2
        or not all(_is_number(part) for part in level)
        or not isinstance(prefix, str)
        or not is_valid_prefix(prefix)
        or not isinstance(chain_id, str | None)
    ):
        raise _refuse_settings(found)
    return CosmosSettings(prefix=prefix, chain_id=chain_id, trust_level=(level[0], level[1]), **numbers)


def parse_vault(text: str, prefix: str) -> bytes:
    """The 32-byte account in a contract's bech32 address; Rejected ("bad_address")."""
    data = decode_address(text, prefix)
    if len(data) != 32:
        raise Rejected("this is a key's address: a contract's has 32 bytes", got=text, reason="bad_address")
    return data


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**53


def _refuse_settings(got: object) -> Rejected:
    return Rejected("settings of a Cosmos chain that make no sense", got=got, reason="bad_config")
