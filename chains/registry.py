"""Family name -> the parts of a chain. Only this module and the service know concrete families.

A new family is a folder, a builder here, and a line in `FAMILIES`. Endpoints with an address that begins with "sim:" are the named endpoints
of a simulated network that the caller hands in; everything else is reached over HTTP. The adapter is the same for both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from chains.base import Chain, Codec, Probe, Verifier
from chains.cosmos import verifier as cosmos
from chains.cosmos.address import compute_chain_name
from chains.evm.verifier import EvmCodec, EvmVerifier, build_rules, encode_settings
from chains.solana import address as solana_address
from chains.solana import verifier as solana
from chains.solana.observations import MIN_ENDPOINTS
from messages.bodies import COSMOS_LIMITS, EVM_LIMITS, SOLANA_LIMITS, Limits
from messages.errors import Rejected
from messages.ids import get_evm_account

if TYPE_CHECKING:
    from chains.cosmos.client import CosmosClient, CosmosEndpoint
    from chains.cosmos.fees import GasPolicy
    from chains.cosmos.reader import CosmosReader
    from chains.cosmos.sim import SimCosmos
    from chains.cosmos.submitter import CosmosSubmitter
    from chains.evm.light_client import LightClientConfig
    from chains.evm.probe import EvmProbe
    from chains.evm.reader import EvmEndpoint
    from chains.evm.sim import SimNetwork
    from chains.solana.client import SolanaClient, SolanaEndpoint
    from chains.solana.fees import PricePolicy
    from chains.solana.sim import SimSolana
    from chains.solana.submitter import SolanaSubmitter
    from chains.solana.types import OperatorSet

# Readers and submitters bring client libraries that take seconds to load: commands that only verify must not wait for them.

SIM_PREFIX = "sim:"
DEFAULT_MAX_FEE_CAP_WEI = 500 * 10**9
DEFAULT_PRICE_MULTIPLE = 10
"""How much more than the configured gas price a Cosmos transaction pays at most, where the configuration does not say."""
DEFAULT_UNIT_PRICE = 1_000
DEFAULT_MAX_UNIT_PRICE = 1_000_000
"""Micro-lamports for a compute unit of Solana, at least and at most: a packet of 200,000 units then costs 5,200 to 205,000 lamports."""
STATEMENT_S = 10 * 86_400
"""How long after a header the statement that finalizes it may be made, in a family whose finality can stall."""


@dataclass(frozen=True)
class EndpointConfig:
    """One source: http(s) addresses of its doors, or "sim:<endpoint name>" for each.

    "evm" has ``execution_url`` and ``beacon_url``, "cosmos" and "solana" have ``rpc_url``; what a family does not have is empty. ``stream_url``
    is an optional websocket of "solana" (ws or wss), whose events are hints.
    """

    name: str
    execution_url: str = ""
    beacon_url: str = ""
    rpc_url: str = ""
    stream_url: str = ""


@dataclass(frozen=True)
class ChainConfig:
    """One vault on one chain, as the operator configures it.

    chain_id: CAIP-2, for example "eip155:1". vault_account: 32 bytes. checkpoint: 32 bytes, from people, not from an endpoint; of "solana" the
    whole genesis hash, whose first characters are in the name. start_height: block (of "solana" slot) of the vault's creation or any earlier
    one. settings: the family's own choices as canonical JSON; see `make_evm_settings`, `make_cosmos_settings`, `make_solana_settings`.
    max_fee_cap_wei: of "evm". gas_price, max_gas_price: of "cosmos", as "0.025utoken"; without a price nothing can be sent, and the highest is
    ten times the price where it is not said. unit_price_microlamports, max_unit_price_microlamports: of "solana", for one compute unit; what
    blocks ask for counts in between.
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
    gas_price: str = ""
    max_gas_price: str = ""
    unit_price_microlamports: int = DEFAULT_UNIT_PRICE
    max_unit_price_microlamports: int = DEFAULT_MAX_UNIT_PRICE


@dataclass(frozen=True)
class Rules:
    """What decides about claims of one vault, without network, clock or disk (for exported proofs and replays).

    statement_s: how long after a header the statement that finalizes it may be made (seconds).
    """

    vault_id: bytes
    limits: Limits
    verifier: Verifier[Any, Any, Any, Any]
    codec: Codec[Any, Any, Any, Any]
    statement_s: int = STATEMENT_S


@dataclass(frozen=True)
class Family:
    """The builders of one family, the doors of its endpoints, and how its people write a vault."""

    build_chain: Callable[[ChainConfig, bytes | None, Mapping[str, Any]], Chain[Any, Any, Any, Any]]
    build_rules: Callable[[str, bytes, bytes, str], Rules]
    build_probe: Callable[[ChainConfig, bytes | None, Mapping[str, Any]], Probe]
    parse_vault: Callable[[str, str], bytes]
    """(address text, settings text) -> 32-byte account; Rejected ("bad_address")."""
    doors: tuple[str, ...]
    """Names of the addresses that an endpoint of this family has in a configuration: fields of `EndpointConfig` without "_url"."""
    optional_doors: tuple[str, ...] = ()
    """Of those that it may have beside them."""
    min_endpoints: int = 1
    """How many endpoints a node needs at least."""


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


def build_probe(config: ChainConfig, submit_key: bytes | None = None, sims: Mapping[str, Any] | None = None) -> Probe:
    """The probe of a configured chain; arguments and errors as `build_chain`."""
    return _get_family(config.family).build_probe(config, submit_key, sims or {})


def parse_vault(family: str, text: str, settings: str) -> bytes:
    """The 32-byte account of a vault's address as people of its chain write it; Rejected ("bad_address", "bad_config")."""
    return _get_family(family).parse_vault(text, settings)


def verify_statements(vault_id: bytes, operators: Sequence[bytes], first: bytes, second: bytes) -> bytes:
    """The operator (20 bytes, of the set) that contradicts itself with two statements about a vault whose states nobody can prove.

    Families read their own bytes; one has such vaults.

    Raises:
        Rejected: "no_equivocation", or why one of the statements is not sound.
    """
    from chains.solana.pool import verify_statements as verify

    return verify(vault_id, operators, first, second)


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


def _find_sim(url: str, config: ChainConfig, sims: Mapping[str, Any]) -> Any:
    """Return the endpoint of a simulated network that an address with SIM_PREFIX names; Rejected ("bad_config") if there is none."""
    name, network = url.removeprefix(SIM_PREFIX), sims.get(config.chain_id)
    found = None if network is None else next((e for e in network.endpoints if e.name == name), None)
    if found is None:
        raise Rejected("no such simulated endpoint", got=url, reason="bad_config")
    return found


def _verify_web_address(name: str, url: str) -> None:
    """Rejected ("bad_config") for what HTTP cannot reach; the address itself may hold a secret and is not told."""
    if not url.startswith(("http://", "https://")):
        raise Rejected("an endpoint's address is http:// or https://", got=name, reason="bad_config")


def _build_evm_endpoint(endpoint: EndpointConfig, config: ChainConfig, sims: Mapping[str, Any]) -> EvmEndpoint:
    from chains.evm.reader import EvmEndpoint
    from chains.evm.transport import HttpBeaconTransport, HttpExecutionProvider

    if endpoint.execution_url.startswith(SIM_PREFIX) or endpoint.beacon_url.startswith(SIM_PREFIX):
        if endpoint.beacon_url != endpoint.execution_url:
            raise Rejected("one simulated endpoint has both doors", got=endpoint.execution_url, reason="bad_config")
        found = _find_sim(endpoint.execution_url, config, sims)
        return EvmEndpoint(endpoint.name, found.beacon, found.execution)
    for url in (endpoint.execution_url, endpoint.beacon_url):
        _verify_web_address(endpoint.name, url)
    return EvmEndpoint(
        endpoint.name,
        HttpBeaconTransport(endpoint.beacon_url.rstrip("/"), config.timeout_s),
        HttpExecutionProvider(endpoint.execution_url, config.timeout_s),
    )


def _build_evm_rules(chain: str, vault_account: bytes, checkpoint: bytes, settings: str) -> Rules:
    rules = build_rules(chain, vault_account, checkpoint, settings)
    return Rules(rules.vault_id, EVM_LIMITS, EvmVerifier(rules), EvmCodec(rules.config.schedule))


def _parse_evm_vault(text: str, settings: str) -> bytes:
    del settings
    if re.fullmatch(r"0x([0-9a-f]{40}|0{24}[0-9a-f]{40})", text) is None or not int(text, 16):
        raise Rejected(
            "not a non-zero address of a vault",
            got=text[:100],
            expected="0x and 40 lower-case hex digits",
            reason="bad_address",
        )
    return get_evm_account(bytes.fromhex(text[-40:]))


# ---- cosmos -----------------------------------------------------------------------------------------------------------


def make_cosmos_settings(settings: cosmos.CosmosSettings) -> str:
    """Settings text of an operator's choices: the checkpoint's height, prefix of addresses, trust level, periods."""
    return cosmos.encode_settings(settings)


def make_cosmos_sim_config(
    network: SimCosmos, vault: bytes, *, start_height: int = 1, checkpoint: tuple[bytes, int] | None = None
) -> ChainConfig:
    """Configuration for a vault (32-byte address) on a simulated Cosmos chain, over all its endpoints.

    ``checkpoint`` (header hash, height) defaults to the newest block.
    """
    header_hash, height = network.get_checkpoint() if checkpoint is None else checkpoint
    plain = compute_chain_name(network.chain_id).removeprefix("cosmos:") == network.chain_id
    settings = cosmos.CosmosSettings(height, network.prefix, None if plain else network.chain_id)
    return ChainConfig(
        chain_id=compute_chain_name(network.chain_id),
        family="cosmos",
        endpoints=tuple(EndpointConfig(e.name, rpc_url=SIM_PREFIX + e.name) for e in network.endpoints),
        vault_account=vault,
        checkpoint=header_hash,
        start_height=start_height,
        settings=make_cosmos_settings(settings),
        retry_s=0.0,
        gas_price=f"0.025{network.denom}",
    )


def build_cosmos_sim_chain(
    network: SimCosmos,
    vault: bytes,
    submit_key: bytes | None = None,
    *,
    start_height: int = 1,
    checkpoint: tuple[bytes, int] | None = None,
    **changes: Any,
) -> Chain[Any, Any, Any, Any]:
    """The chain of a vault on a simulated Cosmos chain; ``changes`` replace fields of its `ChainConfig`."""
    config = replace(
        make_cosmos_sim_config(network, vault, start_height=start_height, checkpoint=checkpoint), **changes
    )
    return build_chain(config, submit_key, {config.chain_id: network})


def _build_cosmos_parts(
    config: ChainConfig, submit_key: bytes | None, sims: Mapping[str, Any]
) -> tuple[CosmosClient, CosmosReader, GasPolicy | None, CosmosSubmitter | None]:
    from chains.cosmos.client import CosmosClient
    from chains.cosmos.reader import CosmosReader, ReaderSettings

    rules = cosmos.build_rules(config.chain_id, config.vault_account, config.checkpoint, config.settings)
    if not config.endpoints or config.start_height < 0:
        raise Rejected("a chain needs an endpoint and a start height", got=config.start_height, reason="bad_config")
    endpoints = [_build_cosmos_endpoint(endpoint, config, sims) for endpoint in config.endpoints]
    client = CosmosClient(rules, endpoints, config.timeout_s)
    settings = ReaderSettings(config.timeout_s, config.retry_s, config.log_range)
    policy = _make_gas_policy(config)
    submitter = None
    if submit_key is not None:
        from chains.cosmos.submitter import CosmosSubmitter

        if policy is None:
            raise Rejected(
                "a key pays on this chain and gas_price does not say how much",
                got=config.chain_id,
                expected='gas_price = "0.025utoken"',
                reason="bad_config",
            )
        submitter = CosmosSubmitter(client, submit_key, policy)
    return client, CosmosReader(rules, endpoints, settings), policy, submitter


def _make_gas_policy(config: ChainConfig) -> GasPolicy | None:
    from chains.cosmos.fees import GasPolicy, GasPrice, parse_gas_price

    if not config.gas_price:
        return None
    price = parse_gas_price(config.gas_price)
    if config.max_gas_price:
        return GasPolicy(price, parse_gas_price(config.max_gas_price))
    return GasPolicy(price, GasPrice(price.amount * DEFAULT_PRICE_MULTIPLE, price.denom))


def _build_cosmos_endpoint(endpoint: EndpointConfig, config: ChainConfig, sims: Mapping[str, Any]) -> CosmosEndpoint:
    from chains.cosmos.client import CosmosEndpoint
    from chains.cosmos.transport import HttpCometTransport

    if endpoint.rpc_url.startswith(SIM_PREFIX):
        return CosmosEndpoint(endpoint.name, _find_sim(endpoint.rpc_url, config, sims).rpc)
    _verify_web_address(endpoint.name, endpoint.rpc_url)
    return CosmosEndpoint(endpoint.name, HttpCometTransport(endpoint.rpc_url, config.timeout_s))


def _build_cosmos_chain(
    config: ChainConfig, submit_key: bytes | None, sims: Mapping[str, Any]
) -> Chain[Any, Any, Any, Any]:
    client, reader, _, submitter = _build_cosmos_parts(config, submit_key, sims)
    return Chain(
        chain_id=config.chain_id,
        family=config.family,
        vault_id=client.rules.vault_id,
        start_height=config.start_height,
        limits=COSMOS_LIMITS,
        reader=reader,
        verifier=cosmos.CosmosVerifier(client.rules),
        codec=cosmos.CosmosCodec(),
        submitter=submitter,
    )


def _build_cosmos_probe(config: ChainConfig, submit_key: bytes | None, sims: Mapping[str, Any]) -> Probe:
    from chains.cosmos.probe import CosmosProbe

    client, reader, policy, submitter = _build_cosmos_parts(config, submit_key, sims)
    return CosmosProbe(client, reader, None if policy is None else policy.price, submitter)


def _build_cosmos_rules(chain: str, vault_account: bytes, checkpoint: bytes, settings: str) -> Rules:
    rules = cosmos.build_rules(chain, vault_account, checkpoint, settings)
    # what is committed is final, so nobody may sign a header long after its time
    return Rules(rules.vault_id, COSMOS_LIMITS, cosmos.CosmosVerifier(rules), cosmos.CosmosCodec(), 60)


def _parse_cosmos_vault(text: str, settings: str) -> bytes:
    prefix = cosmos.decode_settings(settings).prefix
    return bytes.fromhex(text[2:]) if re.fullmatch(r"0x[0-9a-f]{64}", text) else cosmos.parse_vault(text, prefix)


# ---- solana -----------------------------------------------------------------------------------------------------------


def make_solana_settings(settings: solana.SolanaSettings) -> str:
    """Settings text of an operator's choices: the vault program, and who signs observations from when on."""
    return solana.encode_settings(settings)


def make_solana_sim_config(
    network: SimSolana, vault: bytes, operator_sets: Sequence[OperatorSet], *, start_height: int = 0
) -> ChainConfig:
    """Configuration for a vault (32-byte state account) on a simulated Solana cluster, over all its endpoints.

    ``operator_sets``: who signs observations, from when on (unix seconds of the chain).
    """
    return ChainConfig(
        chain_id=network.chain,
        family="solana",
        endpoints=tuple(EndpointConfig(e.name, rpc_url=SIM_PREFIX + e.name) for e in network.endpoints),
        vault_account=vault,
        checkpoint=solana_address.decode_key(network.genesis_hash),
        start_height=start_height,
        settings=make_solana_settings(solana.SolanaSettings(bytes(network.program), tuple(operator_sets))),
        retry_s=0.0,
    )


def build_solana_sim_chain(
    network: SimSolana,
    vault: bytes,
    submit_key: bytes | None = None,
    *,
    operator_sets: Sequence[OperatorSet],
    start_height: int = 0,
    **changes: Any,
) -> Chain[Any, Any, Any, Any]:
    """The chain of a vault on a simulated Solana cluster; ``changes`` replace fields of its `ChainConfig`."""
    config = replace(make_solana_sim_config(network, vault, operator_sets, start_height=start_height), **changes)
    return build_chain(config, submit_key, {config.chain_id: network})


def _build_solana_client(config: ChainConfig, sims: Mapping[str, Any]) -> SolanaClient:
    from chains.solana.client import SolanaClient

    rules = _build_solana_rules(config.chain_id, config.vault_account, config.checkpoint, config.settings)
    needed = FAMILIES["solana"].min_endpoints
    if len(config.endpoints) < needed or config.start_height < 0:
        raise Rejected(
            "a chain of family solana needs four endpoints that do not depend on each other, and a start height",
            got=(len(config.endpoints), config.start_height),
            expected=f">= {needed} endpoints",
            reason="bad_config",
        )
    endpoints = [_build_solana_endpoint(endpoint, config, sims) for endpoint in config.endpoints]
    return SolanaClient(rules, config.checkpoint, endpoints, config.timeout_s)


def _make_price_policy(config: ChainConfig) -> PricePolicy:
    from chains.solana.fees import PricePolicy

    return PricePolicy(config.unit_price_microlamports, config.max_unit_price_microlamports)


def _build_solana_submitter(
    client: SolanaClient, config: ChainConfig, submit_key: bytes | None
) -> SolanaSubmitter | None:
    policy = _make_price_policy(config)  # a price that makes no sense is told before a key is there
    if submit_key is None:
        return None
    from chains.solana.submitter import Patience, SolanaSubmitter

    # the small transactions of a packet land within a few slots; where time is moved by hand, waiting is of no use
    return SolanaSubmitter(client, submit_key, policy, Patience(16 * config.retry_s, 2 * config.retry_s))


def _build_solana_endpoint(endpoint: EndpointConfig, config: ChainConfig, sims: Mapping[str, Any]) -> SolanaEndpoint:
    from chains.solana.client import SolanaEndpoint
    from chains.solana.transport import HttpSolanaTransport

    if endpoint.rpc_url.startswith(SIM_PREFIX):
        return SolanaEndpoint(endpoint.name, _find_sim(endpoint.rpc_url, config, sims).rpc)
    _verify_web_address(endpoint.name, endpoint.rpc_url)
    if endpoint.stream_url and not endpoint.stream_url.startswith(("ws://", "wss://")):
        raise Rejected("an endpoint's stream is ws:// or wss://", got=endpoint.name, reason="bad_config")
    return SolanaEndpoint(endpoint.name, HttpSolanaTransport(endpoint.rpc_url, config.timeout_s, endpoint.stream_url))


def _build_solana_chain(
    config: ChainConfig, submit_key: bytes | None, sims: Mapping[str, Any]
) -> Chain[Any, Any, Any, Any]:
    from chains.solana.observer import SolanaObserver
    from chains.solana.pool import Pool
    from chains.solana.reader import ReaderSettings, SolanaReader

    client = _build_solana_client(config, sims)
    pool = Pool(client.rules)
    return Chain(
        chain_id=config.chain_id,
        family=config.family,
        vault_id=client.rules.vault_id,
        start_height=config.start_height,
        limits=SOLANA_LIMITS,
        reader=SolanaReader(client, pool, ReaderSettings(config.timeout_s, config.retry_s)),
        verifier=solana.SolanaVerifier(client.rules),
        codec=solana.SolanaCodec(),
        submitter=_build_solana_submitter(client, config, submit_key),
        observer=SolanaObserver(client, pool),
    )


def _build_solana_probe(config: ChainConfig, submit_key: bytes | None, sims: Mapping[str, Any]) -> Probe:
    from chains.solana.probe import SolanaProbe

    client = _build_solana_client(config, sims)
    return SolanaProbe(client, _make_price_policy(config), _build_solana_submitter(client, config, submit_key))


def _build_solana_rules(chain: str, vault_account: bytes, checkpoint: bytes, settings: str) -> solana.SolanaRules:
    if solana_address.compute_chain_name(checkpoint) != chain:
        raise Rejected(
            "the checkpoint of a Solana vault is the genesis hash of its cluster, and the cluster is named after it",
            got=checkpoint,
            expected=chain,
            reason="bad_config",
        )
    return solana.build_rules(chain, vault_account, settings)


def _make_solana_rules(chain: str, vault_account: bytes, checkpoint: bytes, settings: str) -> Rules:
    rules = _build_solana_rules(chain, vault_account, checkpoint, settings)
    # operators speak of the present: nobody may say much later what a clock was
    return Rules(rules.vault_id, SOLANA_LIMITS, solana.SolanaVerifier(rules), solana.SolanaCodec(), 60)


def _parse_solana_vault(text: str, settings: str) -> bytes:
    del settings
    return solana_address.parse_vault(text)


FAMILIES: Mapping[str, Family] = {
    "evm": Family(_build_evm_chain, _build_evm_rules, _build_evm_probe, _parse_evm_vault, ("execution", "beacon")),
    "cosmos": Family(_build_cosmos_chain, _build_cosmos_rules, _build_cosmos_probe, _parse_cosmos_vault, ("rpc",)),
    "solana": Family(
        _build_solana_chain,
        _make_solana_rules,
        _build_solana_probe,
        _parse_solana_vault,
        ("rpc",),
        ("stream",),
        MIN_ENDPOINTS,
    ),
}
