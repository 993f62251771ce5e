"""Questions to named CometBFT endpoints that every impure part of the family asks alike.

An endpoint is asked for its chain before anything it says is used. Errors carry the endpoint's name. What comes back is a claim.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from chains.cosmos.comet_json import QueryAnswer, Status, parse_query, parse_status
from chains.cosmos.protobuf import Field, Kind, decode_message, encode_bytes
from chains.cosmos.transport import TIMEOUT_S, CometTransport, HttpCometTransport, RpcError, call
from chains.cosmos.vault_json import decode_json_answer, encode_json
from chains.cosmos.verifier import CosmosRules
from messages.errors import Rejected, RelayerError, Unavailable

FirstT = TypeVar("FirstT")
SecondT = TypeVar("SecondT")

SMART_QUERY_PATH = "/cosmwasm.wasm.v1.Query/SmartContractState"


@dataclass(frozen=True)
class CosmosEndpoint:
    """A named source: its RPC."""

    name: str
    rpc: CometTransport


class CosmosClient:
    """The endpoints of one vault's chain."""

    def __init__(self, rules: CosmosRules, endpoints: Sequence[CosmosEndpoint], timeout_s: float = TIMEOUT_S) -> None:
        self.rules = rules
        self.timeout_s = timeout_s
        self._endpoints = {endpoint.name: endpoint for endpoint in endpoints}
        self._checked: set[str] = set()
        if len(self._endpoints) != len(endpoints) or not endpoints:
            raise Rejected("endpoints need distinct names", got=[e.name for e in endpoints], reason="bad_config")

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the endpoints in the order of configuration."""
        return tuple(self._endpoints)

    async def close(self) -> None:
        """Close the connections of every endpoint; the next question opens them again."""
        for endpoint in self._endpoints.values():
            await endpoint.rpc.close()

    async def get_status(self, source: str) -> Status:
        """Where a source says it stands; Rejected ("wrong_chain_id") where it serves another chain."""
        status = parse_status(await self._ask(source, "status", {}))
        if status.network != self.rules.config.chain_id:
            raise Rejected(
                "the endpoint serves another chain: check its URL",
                got=status.network,
                expected=self.rules.config.chain_id,
                reason="wrong_chain_id",
                source=source,
            )
        self._checked.add(source)
        return status

    async def ask(self, source: str, method: str, params: Mapping[str, Any]) -> Any:
        """The result of one call, from a source that serves the right chain.

        Raises RpcError: the node refuses. Unavailable, Rejected: as `CometTransport.call`, `get_status`.
        """
        if source not in self._checked:
            await self.get_status(source)
        return await self._ask(source, method, params)

    async def query(self, source: str, path: str, data: bytes, *, height: int = 0, prove: bool = False) -> QueryAnswer:
        """What the application of a source answers at a height (0: the newest); its code is not judged."""
        params = {"path": path, "data": data.hex(), "height": str(height), "prove": prove}
        return parse_query(await self.ask(source, "abci_query", params))

    async def query_vault(self, source: str, message: Mapping[str, Any], *, height: int = 0) -> Any:
        """The vault's answer to a smart query at a height (0: the newest): a source's word, not proven.

        Raises Unavailable ("no_state"): the node refuses. Rejected ("bad_json", "bad_protobuf").
        """
        request = encode_bytes(1, self.rules.vault_address.encode()) + encode_bytes(2, encode_json(message))
        try:
            answer = await self.query(source, SMART_QUERY_PATH, request, height=height)
        except RpcError as error:
            raise Unavailable(
                f"the endpoint cannot ask the vault: {error.what}", got=height, reason="no_state", source=source
            ) from error
        if answer.code:
            raise Unavailable(
                f"the endpoint cannot ask the vault at this height: {answer.log}",
                got=height,
                reason="no_state",
                source=source,
            )
        return decode_json_answer(decode_message(answer.value, {1: Field("data", Kind.BYTES)})["data"])

    async def follow(self, source: str, hint: Callable[[], None]) -> None:
        """Hint when packets of the vault have become provable by a source's word; returns at once where it has no stream."""
        rpc = self._endpoints[source].rpc
        if isinstance(rpc, HttpCometTransport):
            try:
                await rpc.follow(self.rules.vault_address, hint)
            except RelayerError as error:
                error.source = error.source or source
                raise

    @staticmethod
    async def ask_both(first: Awaitable[FirstT], second: Awaitable[SecondT]) -> tuple[FirstT, SecondT]:
        """Two questions at the same time; raises the first one's failure before the second one's, when both have ended."""
        one, two = await asyncio.gather(first, second, return_exceptions=True)
        if isinstance(one, BaseException):
            raise one
        if isinstance(two, BaseException):
            raise two
        return one, two

    async def _ask(self, source: str, method: str, params: Mapping[str, Any]) -> Any:
        try:
            return await call(self._endpoints[source].rpc, method, params, self.timeout_s)
        except RelayerError as error:
            error.source = error.source or source
            raise
