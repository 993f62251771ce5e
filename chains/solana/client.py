"""Questions to named endpoints of a Solana cluster that every impure part of the family asks alike.

An endpoint is asked for its genesis hash before anything it says is used, and again after it was away and every few minutes: an address may
come to lead elsewhere. Errors carry the endpoint's name. What comes back is a claim.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from chains.solana.address import decode_key, encode_key
from chains.solana.rpc_json import (
    MAX_ACCOUNTS,
    MAX_SIGNATURES,
    Account,
    Accounts,
    Clock,
    Listed,
    PacketEvent,
    parse_accounts,
    parse_clock,
    parse_events,
    parse_genesis,
    parse_signatures,
)
from chains.solana.transport import TIMEOUT_S, HttpSolanaTransport, RpcError, SolanaTransport, call
from chains.solana.verifier import SolanaRules
from contracts.solana.client import State, decode_state
from messages.errors import Rejected, RelayerError, Unavailable
from messages.ids import get_vault_client

ResultT = TypeVar("ResultT")

CLOCK_KEY = decode_key("SysvarC1ock11111111111111111111111111111111")
SYSVAR_OWNER = decode_key("Sysvar1111111111111111111111111111111111111")
SYSTEM_OWNER = bytes(32)
GENESIS_AGAIN_S = 300.0
UNSUPPORTED_VERSION = -32015
"""Code of a node for a transaction of a later version than was asked for."""
ANY_VERSION = {"maxSupportedTransactionVersion": 255}
MAX_CLOCK_LAG_SLOTS = 32
"""How far the slot in the Clock may be behind the slot of the answer: they are one bank's, but not every node reads both at once."""


@dataclass(frozen=True)
class SolanaEndpoint:
    """A named source: its RPC."""

    name: str
    rpc: SolanaTransport


@dataclass(frozen=True)
class VaultRead:
    """A vault as one endpoint shows it: the slot that was read, the Clock of that state, and the vault, None where there is none."""

    slot: int
    clock: Clock
    state: State | None


class SolanaClient:
    """The endpoints of one vault's cluster. ``genesis``: the cluster's genesis hash, 32 bytes."""

    def __init__(
        self,
        rules: SolanaRules,
        genesis: bytes,
        endpoints: Sequence[SolanaEndpoint],
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.rules = rules
        self.timeout_s = timeout_s
        self.vault_client = get_vault_client(rules.vault_id)
        self._genesis = genesis
        self._endpoints = {endpoint.name: endpoint for endpoint in endpoints}
        self._checked: dict[str, float] = {}
        """When (the event loop's seconds) a source was last seen to serve the right cluster."""
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
        self._checked.clear()

    async def verify_genesis(self, source: str) -> None:
        """Ask a source for its cluster; Rejected ("wrong_chain_id") where it serves another one."""
        found = parse_genesis(await self._ask(source, "getGenesisHash", []))
        if found != self._genesis:
            raise Rejected(
                "the endpoint serves another cluster: check its URL",
                got=encode_key(found),
                expected=encode_key(self._genesis),
                reason="wrong_chain_id",
                source=source,
            )
        self._checked[source] = asyncio.get_running_loop().time()

    async def ask(self, source: str, method: str, params: Sequence[Any] = ()) -> Any:
        """The result of one call, from a source that serves the right cluster.

        Raises RpcError: the node refuses. Unavailable, Rejected: as `SolanaTransport.request`, `verify_genesis`.
        """
        now = asyncio.get_running_loop().time()
        if self._checked.get(source, now - GENESIS_AGAIN_S) <= now - GENESIS_AGAIN_S:
            await self.verify_genesis(source)
        return await self._ask(source, method, params)

    async def read_accounts(
        self, source: str, keys: Sequence[bytes], commitment: str, min_slot: int = 0
    ) -> tuple[int, tuple[Account | None, ...]]:
        """(slot of the answer, accounts in the order of the keys) of one bank; at most `MAX_ACCOUNTS` keys.

        Raises Unavailable where the node has not reached ``min_slot``; Rejected ("old_slot") where it answers from an earlier one all the
        same, and for answers of another form.
        """
        if len(keys) > MAX_ACCOUNTS:
            raise Rejected("too many accounts at once", got=len(keys), expected=f"<= {MAX_ACCOUNTS}", reason="size")
        options: dict[str, Any] = {"encoding": "base64", "commitment": commitment}
        if min_slot:
            options["minContextSlot"] = min_slot
        names = [encode_key(key) for key in keys]
        found: Accounts = await self.ask_parsed(
            source, "getMultipleAccounts", [names, options], _make_parser(len(keys))
        )
        if found.slot < min_slot:
            raise Rejected(
                "an answer from an earlier slot than was asked for",
                got=found.slot,
                expected=f">= {min_slot}",
                reason="old_slot",
                source=source,
            )
        return found.slot, found.accounts

    async def read_vault(self, source: str, commitment: str, min_slot: int = 0) -> VaultRead:
        """The vault and the Clock in one answer.

        An account that the program does not own is no vault. One that nobody has made anything of, though somebody sent lamports there, is
        as none (ibc-v2.md 8, hardening 7).

        Raises Rejected: "wrong_owner", "bad_state", "wrong_vault", "bad_clock"; and as `read_accounts`.
        """
        slot, (account, clock_account) = await self.read_accounts(
            source, (self.rules.vault, CLOCK_KEY), commitment, min_slot
        )
        try:
            clock = parse_clock(clock_account, SYSVAR_OWNER)
            if not slot - MAX_CLOCK_LAG_SLOTS <= clock.slot <= slot:
                raise Rejected("a Clock of another slot", got=clock.slot, expected=slot, reason="bad_clock")
            return VaultRead(slot, clock, self._read_state(account))
        except RelayerError as error:
            error.source = source
            raise

    def _read_state(self, account: Account | None) -> State | None:
        if account is None or (account.owner == SYSTEM_OWNER and not account.data):
            return None
        if account.owner != self.rules.program or account.is_program:
            raise Rejected(
                "the vault program does not own the account",
                got=encode_key(account.owner),
                expected=encode_key(self.rules.program),
                reason="wrong_owner",
            )
        state = decode_state(account.data)
        if state.vault_id != self.rules.vault_id:
            raise Rejected(
                "the state of another vault", got=state.vault_id, expected=self.rules.vault_id, reason="wrong_vault"
            )
        return state

    async def list_transactions(
        self, source: str, account: bytes, *, before: str = "", until: str = "", limit: int = MAX_SIGNATURES
    ) -> tuple[Listed, ...]:
        """Finalized transactions that name an account, newest first: before one signature, down to another (exclusive)."""
        options: dict[str, Any] = {"commitment": "finalized", "limit": limit}
        if before:
            options["before"] = before
        if until:
            options["until"] = until
        params = [encode_key(account), options]
        return await self.ask_parsed(
            source, "getSignaturesForAddress", params, lambda value: parse_signatures(value, limit)
        )

    async def read_transaction(self, source: str, signature: str) -> Any:
        """The JSON of a finalized transaction, None where the node does not have it; nothing of it is judged."""
        options = {"encoding": "json", "commitment": "finalized", "maxSupportedTransactionVersion": 0}
        try:
            return await self.ask(source, "getTransaction", [signature, options])
        except RpcError as error:
            if error.code != UNSUPPORTED_VERSION:
                raise
        # whatever form a later version has, keys and inner instructions are told alike; what is never read would hide what is behind it
        return await self.ask(source, "getTransaction", [signature, options | ANY_VERSION])

    async def read_events(self, source: str, listed: Listed) -> tuple[PacketEvent, ...]:
        """The vault's packets in a listed transaction; raises as `rpc_json.parse_events`."""
        value = await self.read_transaction(source, listed.signature)
        try:
            return parse_events(value, listed, self.rules.program, self.rules.vault, self.vault_client)
        except RelayerError as error:
            error.source = source
            raise

    async def follow(self, source: str, hint: Callable[[], None]) -> None:
        """Hint when the vault's state has changed for good by a source's word; returns at once where it has no stream."""
        rpc = self._endpoints[source].rpc
        if isinstance(rpc, HttpSolanaTransport):
            try:
                await rpc.follow(encode_key(self.rules.vault), hint)
            except RelayerError as error:
                error.source = error.source or source
                raise

    async def ask_parsed(
        self, source: str, method: str, params: Sequence[Any], parse: Callable[[object], ResultT]
    ) -> ResultT:
        """The answer to one call in its form, raised errors named after the source; raises as `ask` and ``parse``."""
        value = await self.ask(source, method, params)
        try:
            return parse(value)
        except RelayerError as error:
            error.source = source
            raise

    async def _ask(self, source: str, method: str, params: Sequence[Any]) -> Any:
        try:
            return await call(self._endpoints[source].rpc, method, params, self.timeout_s)
        except RelayerError as error:
            if isinstance(error, Unavailable):
                self._checked.pop(source, None)  # what answers next may be another machine
            error.source = error.source or source
            raise


def _make_parser(count: int) -> Callable[[object], Accounts]:
    return lambda value: parse_accounts(value, count)
