"""Questions of a person to single endpoints of one vault's cluster: for `relayer check --live` and `relayer pause`, never for facts."""

from __future__ import annotations

from chains.base import Coin, Probe, SignedTx, VaultControl
from chains.solana.address import decode_key, encode_key
from chains.solana.client import SolanaClient, VaultRead
from chains.solana.fees import LAMPORTS_PER_SOL, MAX_UNITS, PricePolicy, compute_fee
from chains.solana.rpc_json import Account, parse_account, parse_balance
from chains.solana.submitter import SolanaSubmitter
from contracts.solana import get_program
from contracts.solana.client import State
from messages.errors import Rejected

FIXED_LOADER = decode_key("BPFLoader2111111111111111111111111111111111")
"""Owner of a program that is its account's data, and that nobody can change."""
UPGRADEABLE_LOADER = decode_key("BPFLoaderUpgradeab1e11111111111111111111111")
"""Owner of a program whose account names another one with the bytes and with who may replace them."""
PROGRAM_HEADER, DATA_HEADER = 4, 45
LOW_BALANCE_PACKETS = 100
RECORD_LAMPORTS = 1_726_080
"""Rent of a balance or position record, which the one who opens it pays (chains.md 4)."""


class SolanaProbe(Probe):
    """One vault over its endpoints. ``submitter`` where the configuration names a key that pays."""

    header_door = "final state"

    def __init__(self, client: SolanaClient, policy: PricePolicy, submitter: SolanaSubmitter | None) -> None:
        self._client = client
        self._rules = client.rules
        self._policy = policy
        self.submitter: SolanaSubmitter | None = submitter

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the endpoints."""
        return self._client.sources

    @property
    def vault_text(self) -> str:
        """The state account in base58."""
        return encode_key(self._rules.vault)

    @property
    def coin(self) -> Coin:
        """SOL, in lamports; low below what a hundred packets cost at the price that is the least, with a record to open for each."""
        each = compute_fee(MAX_UNITS, self._policy.price) + RECORD_LAMPORTS
        return Coin("SOL", len(str(LAMPORTS_PER_SOL)) - 1, LOW_BALANCE_PACKETS * each)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()

    async def verify_chain_id(self, source: str) -> None:
        """See `Probe.verify_chain_id`."""
        await self._client.verify_genesis(source)

    async def get_newest(self, source: str) -> tuple[int, int]:
        """(slot, unix seconds) of the newest block that most validators have voted for."""
        found = await self._client.read_vault(source, "confirmed")
        return found.slot, found.clock.time

    async def verify_vault(self, source: str, delay_s: int) -> str:
        """Compare the program's bytes with the built ones, ask that nobody may change them, and what the vault was created with."""
        state = self._get_state(await self._client.read_vault(source, "finalized"), source)
        program = await self._get_account(source, self._rules.program)
        if program is None or not program.is_program:
            raise Rejected("there is no program at its address", reason="no_code", source=source)
        code, authority = program.data, b""
        if program.owner == UPGRADEABLE_LOADER:
            code, authority = await self._read_upgradeable(source, program.data)
        elif program.owner != FIXED_LOADER:
            raise Rejected(
                "a loader that is not known here runs the program",
                got=encode_key(program.owner),
                reason="wrong_code",
                source=source,
            )
        built = get_program("vault")
        if code[: len(built)] != built or any(code[len(built) :]):
            raise Rejected("another program is there, not the built vault", reason="wrong_code", source=source)
        if authority:
            raise Rejected(
                "the program has an upgrade authority who may replace it",
                got=encode_key(authority),
                reason="wrong_code",
                source=source,
            )
        if (state.vault_id, state.delay) != (self._rules.vault_id, delay_s):
            raise Rejected(
                "the built vault, created with another delay than the parameters say",
                got=state.delay,
                expected=delay_s,
                reason="wrong_immutables",
                source=source,
            )
        return f"the built vault (program {encode_key(self._rules.program)}, no upgrade authority)"

    async def _read_upgradeable(self, source: str, data: bytes) -> tuple[bytes, bytes]:
        """(bytes of the program, key that may replace it or none) behind a program account of the upgradeable loader."""
        if len(data) != PROGRAM_HEADER + 32 or data[:PROGRAM_HEADER] != (2).to_bytes(4, "little"):
            raise Rejected("not a program account", got=data[:40], reason="wrong_code", source=source)
        account = await self._get_account(source, data[PROGRAM_HEADER:])
        if account is None or account.owner != UPGRADEABLE_LOADER or account.data[:4] != (3).to_bytes(4, "little"):
            raise Rejected("the program's bytes are not there", reason="no_code", source=source)
        has_authority = account.data[12:13] != b"\0"
        return account.data[DATA_HEADER:], account.data[13:DATA_HEADER] if has_authority else b""

    async def get_control(self, source: str) -> VaultControl:
        """Operators, threshold, epoch and pause as the state account tells; a rotation that is due shows as done."""
        found = await self._client.read_vault(source, "confirmed")
        state = self._get_state(found, source)
        is_due = bool(state.pending_at) and found.clock.time >= state.pending_at
        chosen = state.sets[1 - state.set if is_due else state.set]
        return VaultControl(
            chosen.operators,
            state.pending_threshold if is_due else state.threshold,
            state.epoch + is_due,
            state.paused,
            0 if is_due else state.pending_at,
            state.unpause_at,
        )

    async def get_balance(self, source: str, account: str) -> int:
        """Lamports that an account (base58) has."""
        params = [encode_key(decode_key(account)), {"commitment": "confirmed"}]
        return await self._client.ask_parsed(source, "getBalance", params, parse_balance)

    async def get_finality_time(self, source: str) -> int:
        """Unix seconds of the newest final state."""
        return (await self._client.read_vault(source, "finalized")).clock.time

    async def get_checkpoint_time(self, source: str, now: int) -> int:
        """See `Probe.get_checkpoint_time`. The checkpoint is the genesis hash, which never grows old: a node starts at what operators say now."""
        del now
        await self._client.verify_genesis(source)
        return await self.get_finality_time(source)

    async def prepare_pause(self, signature: bytes) -> SignedTx:
        """See `Probe.prepare_pause`."""
        if self.submitter is None:
            raise Rejected(
                f"no key pays on {self._rules.chain}: submit_key in the configuration names one", reason="no_submit_key"
            )
        return await self.submitter.prepare_pause(signature)

    def _get_state(self, found: VaultRead, source: str) -> State:
        if found.state is None:
            raise Rejected("there is no vault at its address", reason="no_code", source=source)
        return found.state

    async def _get_account(self, source: str, key: bytes) -> Account | None:
        params = [encode_key(key), {"encoding": "base64", "commitment": "finalized"}]
        found = await self._client.ask_parsed(source, "getAccountInfo", params, parse_account)
        return found.accounts[0]
