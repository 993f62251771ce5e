"""Family name -> the parts of a chain. Only this module and the service know concrete families.

A new family is a folder, a builder here, and a line in `FAMILIES`. Endpoints with an address that begins with "sim:" are the named endpoints
of a simulated network that the caller hands in; everything else is reached over HTTP. The adapter is the same for both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from chains.base import Chain, Codec, Verifier
from chains.evm.verifier import EvmCodec, EvmVerifier, build_rules, encode_settings
from messages.bodies import EVM_LIMITS, Limits
from messages.errors import Rejected
from messages.ids import get_evm_account

if TYPE_CHECKING:
    from chains.evm.light_client import LightClientConfig
    from chains.evm.probe import EvmProbe
    from chains.evm.reader import EvmEndpoint
    from chains.evm.sim import SimNetwork

# Readers and submitters bring client libraries that take seconds to load: commands that only verify must not wait for them.

SIM_PREFIX = "sim:"
DEFAULT_MAX_FEE_CAP_WEI = 500 * 10**9


@dataclass(frozen=True)
class EndpointConfig:
    """One source. ``execution_url`` and ``beacon_url``: http(s) addresses, or both "sim:<endpoint name>"."""

    name: str
    execution_url: str
    beacon_url: str


@dataclass(frozen=True)
class ChainConfig:
    """One vault on one chain, as the operator configures it.

    chain_id: CAIP-2, for example "eip155:1". vault_account: 32 bytes. checkpoint: 32 bytes, from people, not from an endpoint.
    start_height: block of the vault's creation or any earlier one. settings: the family's own choices as canonical JSON; for "evm" see
    `make_evm_settings`. fees: limits for transactions.
    """

    chain_id: str
    family: str
    endpoints: tuple[EndpointConfig, ...]
    vault_account: bytes
    checkpoint: bytes
    start_height: int
    settings: str
    timeout_s: float = 20.0
    retry_s: float = 0.25
    log_range: int = 10_000
    max_fee_cap_wei: int = DEFAULT_MAX_FEE_CAP_WEI


@dataclass(frozen=True)
class Rules:
    """What decides about claims of one vault, without network, clock or disk (for exported proofs and replays)."""

    vault_id: bytes
    limits: Limits
    verifier: Verifier[Any, Any, Any, Any]
    codec: Codec[Any, Any, Any, Any]


@dataclass(frozen=True)
class Family:
    """The builders of one family."""

    build_chain: Callable[[ChainConfig, bytes | None, Mapping[str, Any]], Chain[Any, Any, Any, Any]]
    build_rules: Callable[[str, bytes, bytes, str], Rules]
    build_probe: Callable[[ChainConfig, bytes | None, Mapping[str, Any]], Any] | None = None
    """For people's questions (`chains.evm.probe`); None where a family has none."""


def build_chain(
    config: ChainConfig, submit_key: bytes | None = None, sims: Mapping[str, Any] | None = None
) -> Chain[Any, Any, Any, Any]:
    """The chain of a configuration.

    Args:
        config: from the operator's file.
        submit_key: 32-byte key of the account that pays for transactions; None for a node that only reads.
        sims: simulated networks by CAIP-2 chain id, for endpoints with "sim:" addresses.

    Raises:
        Rejected: "unknown_family", "bad_config", "bad_address".
    """
    return _get_family(config.family).build_chain(config, submit_key, sims or {})


def build_rules_of(family: str, chain: str, vault_account: bytes, checkpoint: bytes, settings: str) -> Rules:
    """The rules of an anchor (relayer.proof_file); Rejected ("unknown_family", "bad_config", "bad_address")."""
    return _get_family(family).build_rules(chain, vault_account, checkpoint, settings)


def build_probe(config: ChainConfig, submit_key: bytes | None = None, sims: Mapping[str, Any] | None = None) -> Any:
    """The probe of a configured chain (`chains.evm.probe.EvmProbe` for "evm"); arguments and errors as `build_chain`."""
    builder = _get_family(config.family).build_probe
    if builder is None:
        raise Rejected("this family cannot be asked by hand", got=config.family, reason="unknown_family")
    return builder(config, submit_key, sims or {})


def _get_family(name: str) -> Family:
    family = FAMILIES.get(name)
    if family is None:
        raise Rejected("unknown chain family", got=name, expected=", ".join(FAMILIES), reason="unknown_family")
    return family


# ---- evm --------------------------------------------------------------------------------------------------------------


def make_evm_settings(config: LightClientConfig) -> str:
    """Settings text of a light-client configuration: network, participation floor, periods."""
    return encode_settings(config)


def make_sim_config(
    network: SimNetwork, vault: bytes, *, start_height: int = 0, checkpoint: bytes | None = None
) -> ChainConfig:
    """Configuration for a vault (20-byte address) on a simulated network, over all its endpoints.

    ``checkpoint`` defaults to what is finalized now.
    """
    from chains.evm.light_client import LightClientConfig

    return ChainConfig(
        chain_id=f"eip155:{network.chain_id}",
        family="evm",
        endpoints=tuple(EndpointConfig(e.name, SIM_PREFIX + e.name, SIM_PREFIX + e.name) for e in network.endpoints),
        vault_account=get_evm_account(vault),
        checkpoint=network.get_checkpoint() if checkpoint is None else checkpoint,
        start_height=start_height,
        settings=encode_settings(LightClientConfig(network.schedule)),
        retry_s=0.0,
    )


def build_sim_chain(
    network: SimNetwork,
    vault: bytes,
    submit_key: bytes | None = None,
    *,
    start_height: int = 0,
    checkpoint: bytes | None = None,
    **changes: Any,
) -> Chain[Any, Any, Any, Any]:
    """The chain of a vault on a simulated network; ``changes`` replace fields of its `ChainConfig`."""
    config = replace(make_sim_config(network, vault, start_height=start_height, checkpoint=checkpoint), **changes)
    return build_chain(config, submit_key, {config.chain_id: network})


def _build_evm_chain(
    config: ChainConfig, submit_key: bytes | None, sims: Mapping[str, Any]
) -> Chain[Any, Any, Any, Any]:
    from chains.evm.reader import EvmReader, ReaderSettings

    rules = build_rules(config.chain_id, config.vault_account, config.checkpoint, config.settings)
    if not config.endpoints or config.start_height < 0:
        raise Rejected("a chain needs an endpoint and a start height", got=config.start_height, reason="bad_config")
    endpoints = [_build_evm_endpoint(endpoint, config, sims) for endpoint in config.endpoints]
    number = rules.chain_number
    submitter = None
    if submit_key is not None:
        from eth_account import Account

        from chains.evm.submitter import EvmSubmitter, FeePolicy

        submitter = EvmSubmitter(
            config.chain_id,
            number,
            rules.vault_id,
            rules.vault,
            endpoints,
            Account.from_key(submit_key),
            FeePolicy(max_fee_cap_wei=config.max_fee_cap_wei),
            config.timeout_s,
        )
    return Chain(
        chain_id=config.chain_id,
        family=config.family,
        vault_id=rules.vault_id,
        start_height=config.start_height,
        limits=EVM_LIMITS,
        reader=EvmReader(
            number,
            rules.vault,
            config.checkpoint,
            rules.config.schedule,
            endpoints,
            ReaderSettings(config.timeout_s, config.retry_s, config.log_range),
        ),
        verifier=EvmVerifier(rules),
        codec=EvmCodec(rules.config.schedule),
        submitter=submitter,
    )


def _build_evm_probe(config: ChainConfig, submit_key: bytes | None, sims: Mapping[str, Any]) -> EvmProbe:
    from chains.evm.probe import EvmProbe
    from chains.evm.reader import EvmReader, ReaderSettings
    from chains.evm.submitter import EvmSubmitter, FeePolicy

    rules = build_rules(config.chain_id, config.vault_account, config.checkpoint, config.settings)
    endpoints = [_build_evm_endpoint(endpoint, config, sims) for endpoint in config.endpoints]
    settings = ReaderSettings(config.timeout_s, config.retry_s, config.log_range)
    reader = EvmReader(rules.chain_number, rules.vault, config.checkpoint, rules.config.schedule, endpoints, settings)
    submitter = None
    if submit_key is not None:
        from eth_account import Account

        submitter = EvmSubmitter(
            config.chain_id,
            rules.chain_number,
            rules.vault_id,
            rules.vault,
            endpoints,
            Account.from_key(submit_key),
            FeePolicy(max_fee_cap_wei=config.max_fee_cap_wei),
            config.timeout_s,
        )
    return EvmProbe(rules, reader, endpoints, submitter, config.timeout_s)


def _build_evm_endpoint(endpoint: EndpointConfig, config: ChainConfig, sims: Mapping[str, Any]) -> EvmEndpoint:
    from chains.evm.reader import EvmEndpoint
    from chains.evm.transport import HttpBeaconTransport, HttpExecutionProvider

    if endpoint.execution_url.startswith(SIM_PREFIX) or endpoint.beacon_url.startswith(SIM_PREFIX):
        name = endpoint.execution_url.removeprefix(SIM_PREFIX)
        network = sims.get(config.chain_id)
        found = None if network is None else next((e for e in network.endpoints if e.name == name), None)
        if found is None or endpoint.beacon_url != endpoint.execution_url:
            raise Rejected("no such simulated endpoint", got=endpoint.execution_url, reason="bad_config")
        return EvmEndpoint(endpoint.name, found.beacon, found.execution)
    for url in (endpoint.execution_url, endpoint.beacon_url):
        if not url.startswith(("http://", "https://")):
            raise Rejected("an endpoint's address is http:// or https://", got=endpoint.name, reason="bad_config")
    return EvmEndpoint(
        endpoint.name,
        HttpBeaconTransport(endpoint.beacon_url.rstrip("/"), config.timeout_s),
        HttpExecutionProvider(endpoint.execution_url, config.timeout_s),
    )


def _build_evm_rules(chain: str, vault_account: bytes, checkpoint: bytes, settings: str) -> Rules:
    rules = build_rules(chain, vault_account, checkpoint, settings)
    return Rules(rules.vault_id, EVM_LIMITS, EvmVerifier(rules), EvmCodec(rules.config.schedule))


FAMILIES: Mapping[str, Family] = {"evm": Family(_build_evm_chain, _build_evm_rules, _build_evm_probe)}
