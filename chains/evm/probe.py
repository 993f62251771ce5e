"""Questions of a person to single endpoints of one vault's chain: for `relayer check --live` and `relayer pause`, never for facts.

Each question names its endpoint. The answers are the endpoint's word about its newest block: good enough to find a wrong address
or an empty account, and worth nothing as evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eth_abi.abi import decode as decode_abi
from eth_abi.exceptions import DecodingError

from chains.base import Coin, Probe, SignedTx, VaultControl
from chains.evm.beacon_json import parse_update_json
from chains.evm.codec import decode_data, decode_quantity, encode_call, encode_data, encode_pause
from chains.evm.reader import EvmEndpoint, EvmReader
from chains.evm.submitter import EvmSubmitter
from chains.evm.transport import TIMEOUT_S, HttpBeaconTransport, HttpExecutionProvider, call, get, verify_chain_id
from chains.evm.verifier import EvmRules, EvmVerifier
from contracts.evm import get_artifact
from messages.errors import Rejected, RelayerError

MAX_CODE_BYTES = 24_576 + 1
MAX_RETURN_BYTES = 8192
UINT256_MAX = 2**256 - 1
ETHER_DECIMALS = 18
LOW_BALANCE_WEI = 5 * 10**16
_CONTROL = ("uint256", "uint256", "bool", "uint256", "uint256", "uint256", "uint256", "uint256")


class EvmProbe(Probe):
    """One vault over its endpoints. ``submitter`` where the configuration names a key that pays."""

    header_door = "beacon"

    def __init__(
        self,
        rules: EvmRules,
        reader: EvmReader,
        endpoints: Sequence[EvmEndpoint],
        submitter: EvmSubmitter | None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._rules = rules
        self._reader = reader
        self._endpoints = {e.name: e for e in endpoints}
        self._timeout_s = timeout_s
        self.submitter: EvmSubmitter | None = submitter

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the endpoints."""
        return tuple(self._endpoints)

    @property
    def vault_text(self) -> str:
        """0x and 40 hex digits."""
        return encode_data(self._rules.vault)

    @property
    def coin(self) -> Coin:
        """Ether, whatever the chain calls it."""
        return Coin("ether", ETHER_DECIMALS, LOW_BALANCE_WEI)

    async def close(self) -> None:
        """Close every connection."""
        for endpoint in self._endpoints.values():
            if isinstance(endpoint.beacon, HttpBeaconTransport):
                await endpoint.beacon.close()
            if isinstance(endpoint.execution, HttpExecutionProvider):
                await endpoint.execution.disconnect()

    # ---- execution

    async def verify_chain_id(self, source: str) -> None:
        """Ask for the chain id; Rejected ("wrong_chain_id", "malformed") or Unavailable."""
        await verify_chain_id(self._endpoints[source].execution, self._rules.chain_number, self._timeout_s)

    async def get_newest(self, source: str) -> tuple[int, int]:
        """(number, unix seconds) of the newest block."""
        block = await self._call(source, "eth_getBlockByNumber", "latest", False)
        if not isinstance(block, dict):
            raise Rejected("no newest block", got=type(block).__name__, reason="malformed", source=source)
        return decode_quantity(block.get("number")), decode_quantity(block.get("timestamp"))

    async def verify_vault(self, source: str, delay_s: int) -> str:
        """Compare the code at the vault's address with the built one, and its immutables with id, chain and delay."""
        artifact = get_artifact("vault")
        answer = await self._call(source, "eth_getCode", encode_data(self._rules.vault), "latest")
        code = decode_data(answer, max_bytes=MAX_CODE_BYTES)
        size = len(artifact.runtime_bytecode)
        if not code:
            raise Rejected("there is no contract at the vault's address", reason="no_code", source=source)
        if code[:size] != artifact.runtime_bytecode or len(code) != size + artifact.immutables_bytes:
            raise Rejected("another contract is there, not the built vault", reason="wrong_code", source=source)
        words = {code[i : i + 32] for i in range(size, len(code) - 31, 32)}
        chain = self._rules.chain_number.to_bytes(32, "big")
        if not {self._rules.vault_id, chain, delay_s.to_bytes(32, "big")} <= words:
            raise Rejected(
                "the built vault, created with another vault id, chain or delay than the parameters say",
                reason="wrong_immutables",
                source=source,
            )
        return f"the built vault ({artifact.compiler})"

    async def get_balance(self, source: str, account: str) -> int:
        """Wei of an account (0x address)."""
        return decode_quantity(await self._call(source, "eth_getBalance", account, "latest"), UINT256_MAX)

    async def get_control(self, source: str) -> VaultControl:
        """Operators, threshold, epoch and pause as the vault itself answers."""
        words = await self._view(source, encode_call("get_control()"), _CONTROL)
        (operators,) = await self._view(source, encode_call("get_operators(bool)", False), ("address[]",))
        return VaultControl(
            tuple(bytes.fromhex(o[2:]) for o in operators), words[0], words[3], words[2], words[4], words[6]
        )

    async def _view(self, source: str, data: bytes, types: Sequence[str]) -> tuple[Any, ...]:
        request = {"to": encode_data(self._rules.vault), "data": encode_data(data)}
        answer = decode_data(await self._call(source, "eth_call", request, "latest"), max_bytes=MAX_RETURN_BYTES)
        try:
            return tuple(decode_abi(list(types), answer))
        except (DecodingError, OverflowError, ValueError) as error:
            raise Rejected(
                "this is not how the vault answers: another contract is at its address",
                got=f"{len(answer)} bytes",
                reason="no_vault",
                source=source,
            ) from error

    async def _call(self, source: str, method: str, *params: Any) -> Any:
        try:
            return await call(self._endpoints[source].execution, method, params, self._timeout_s)
        except RelayerError as error:
            error.source = error.source or source
            raise

    # ---- beacon

    async def get_checkpoint_time(self, source: str, now: int) -> int:
        """Unix seconds of the configured checkpoint, after verifying what the endpoint has for it.

        Raises:
            Unavailable: ``not_found`` (the endpoint does not know it). Rejected: as the light client.
        """
        verifier = EvmVerifier(self._rules)
        return verifier.get_point(verifier.verify_bootstrap(await self._reader.bootstrap(source), now)).time

    async def get_finality_time(self, source: str) -> int:
        """Unix seconds at which the slot of the newest finality update begins."""
        answer = await get(
            self._endpoints[source].beacon, "/eth/v1/beacon/light_client/finality_update", timeout_s=self._timeout_s
        )
        schedule = self._rules.config.schedule
        slot = parse_update_json(answer, schedule).attested.beacon.slot
        return schedule.genesis_time + slot * schedule.seconds_per_slot

    # ---- pause

    async def prepare_pause(self, signature: bytes) -> SignedTx:
        """The transaction that brings one operator's signed pause to the vault.

        Raises:
            Rejected: ``no_submit_key``, or ``revert_...`` with the vault's word.
        """
        if self.submitter is None:
            raise Rejected(
                f"no key pays on {self._rules.chain}: submit_key in the configuration names one", reason="no_submit_key"
            )
        return await self.submitter.prepare_call(encode_pause(signature))
