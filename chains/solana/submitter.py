"""Builds, signs, sends and follows the transaction that carries a certified packet to a vault on Solana. Proves nothing.

`prepare` depends only on the certificate, on what was stored before (`previous`) and on what the endpoints say now, so it gives the right
answer after any restart. How this family differs from the others:

* A transaction has no number; it names a final block and may land until 150 blocks after it, most of a minute. While it may, it is sent again and nothing
  is made in its place; afterwards another one with a higher price. Two that land are harmless: the vault takes a packet once.
* The records that a packet writes must be there before. Where one is missing, anybody's small transaction opens it; the same for the keys that a
  large packet needs in a lookup table. Both are harmless, and made here as they are needed; until they are there, `prepare` has nothing to
  give ("preparing").
* Accounts are named in the transaction, and which they are depends on the vault's state: they are read from one endpoint, and the transaction is
  tried there. Where that fails the next endpoint is asked, and each new try for a packet begins with another one: no endpoint can keep
  a packet out alone.
* No endpoint is believed alone where that costs money or time: rent is paid on two endpoints' word, what has landed is what two say, a block hash
  that is said to last for ever is waited for by nobody, and after one that did not land another endpoint is the first to be asked.
* fees: a tight limit of compute units from the trial, and a price from what blocks asked for lately, between the operator's limits.

Source: Solana documentation, JSON-RPC and transactions; `solana-transaction-error`.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import ID as SYSTEM_PROGRAM
from solders.transaction import VersionedTransaction

from chains.base import Outcome, SignedTx, Submitter
from chains.sending import compute_bumped_fee, get_middle
from chains.solana.address import encode_key
from chains.solana.client import CLOCK_KEY, SYSVAR_OWNER, SolanaClient
from chains.solana.fees import MAX_UNITS, PricePolicy, compute_estimate, compute_unit_limit
from chains.solana.rpc_json import (
    MAX_ACCOUNTS,
    Account,
    Blockhash,
    Failure,
    Simulation,
    Status,
    parse_blockhash,
    parse_clock,
    parse_fees,
    parse_number,
    parse_simulation,
    parse_statuses,
)
from chains.solana.tables import (
    KEYS_PER_EXTENSION,
    MAX_FOUND,
    Table,
    choose_table,
    decode_table,
    find_tables,
    make_extension,
    make_table,
)
from chains.solana.transport import RpcError
from contracts.solana import client as vault
from messages.digests import Certificate
from messages.errors import Rejected, RelayerError, Unavailable
from messages.packet import Packet

ResultT = TypeVar("ResultT")
KeyT = TypeVar("KeyT")

LEVEL = "confirmed"
"""What is read and built upon: newer than final, and hardly ever taken back; a transaction that it was taken back from fails its trial."""
MAX_ROUNDS = 8
"""Reads until every record that a packet names is known: the state, what it names, and what that names."""
MAX_REBUILDS = 3
"""Builds of one transaction where the vault's state moves in between."""
MOVED = frozenset({"revert_record", "revert_unopened"})
"""What the vault says of a transaction whose records were chosen for another state."""
NO_LAMPORTS = 1
"""Code of the system program where an account has less than it should give."""
POOR = ("AccountNotFound", "InsufficientFundsForFee", "InsufficientFundsForRent")
OPENINGS = 7
"""Records that one transaction opens."""
GRACE_S = 1.0
"""How long endpoints are waited for once more than half have answered."""
OPINION_S = 5.0
"""How long another endpoint's opinion is waited for before rent is paid."""
LASTING_BLOCKS = 300
"""A block hash lasts 150 blocks; who says that one lasts more than twice as long has made it up, and nothing is waited for."""
MAX_REMEMBERED = 64
"""Small transactions, and turns of packets, that are remembered."""


@dataclass(frozen=True)
class Patience:
    """How long `prepare` waits for its small transactions, and how often it looks (seconds)."""

    wait_s: float = 4.0
    look_s: float = 0.5


@dataclass
class _Side:
    """A small transaction that was sent: nothing is made in its place while it may land."""

    raw: bytes
    last_height: int


@dataclass(frozen=True)
class _Built:
    """A vault instruction that is ready to be signed, and the lookup table that it needs."""

    instruction: Instruction
    table: Table | None


@dataclass
class _Accounts:
    """Accounts as one endpoint showed them, and those that are asked for next."""

    found: dict[Pubkey, Account | None] = field(default_factory=dict)
    missing: dict[Pubkey, None] = field(default_factory=dict)


class SolanaSubmitter(Submitter):
    """Submitter for one vault with one account. ``key``: 32-byte ed25519 seed, handed in; it stays in here."""

    def __init__(self, client: SolanaClient, key: bytes, policy: PricePolicy, patience: Patience | None = None) -> None:
        self._client = client
        self._rules = client.rules
        self._policy = policy
        self._patience = patience or Patience()
        self._key = Keypair.from_seed(key)
        self._payer = self._key.pubkey()
        self._vault = vault.Vault(Pubkey.from_bytes(self._rules.program), Pubkey.from_bytes(self._rules.vault))
        self._sides: dict[bytes, _Side] = {}
        self._first = 0
        """The endpoint with which a new packet begins: another one after each transaction that has not landed in its time."""
        self._turns: dict[int, int] = {}
        """How often a packet's transaction was built or waited for: each time another endpoint is the first to be asked."""
        self._tables: list[Pubkey] | None = None
        """Addresses of this account's tables for the vault, newest first; None until they were looked for."""

    @property
    def account(self) -> str:
        """Key that pays, in base58."""
        return str(self._payer)

    # ------------------------------------------------------------------ prepare

    async def prepare(self, certificate: Certificate, previous: Sequence[SignedTx]) -> SignedTx:
        """See `chains.base.Submitter.prepare`. Rejected: "wrong_vault"; "revert_..." with the vault's word; "too_large"; "not_compact".

        Unavailable: "no_endpoint"; "preparing" (records or tables are on their way: try again); "insufficient_funds".
        """
        if certificate.vault_id != self._rules.vault_id:
            raise Rejected(
                "a certificate for another vault",
                got=certificate.vault_id,
                expected=self._rules.vault_id,
                reason="wrong_vault",
            )
        packet = certificate.packet
        mine = [p for p in previous if p.account == self.account and p.vault_id == certificate.vault_id]
        tries = [p for p in mine if p.packet_sequence == packet.sequence]
        signatures = certificate.signatures
        # a twin from another plan has the same number and other signatures
        same = next((p for p in reversed(tries) if b"".join(signatures) in p.raw), None)
        if same is not None and await self._may_land(same, len(tries)):
            return same
        if same is not None:
            self._first += 1

        async def build(source: str) -> _Built:
            return await self._build_recv(source, packet, signatures)

        old = max((p.max_fee for p in tries), default=None)
        return await self._prepare(packet.sequence, build, old)

    async def prepare_call(self, instruction: Instruction) -> SignedTx:
        """A transaction with any instruction of the vault; its packet number is 0. Raises as `prepare`."""

        async def build(source: str) -> _Built:
            del source
            return _Built(instruction, None)

        return await self._prepare(0, build, None)

    async def prepare_pause(self, signature: bytes) -> SignedTx:
        """A transaction with one operator's pause (65 bytes). Raises as `prepare`."""
        return await self.prepare_call(vault.make_pause(self._vault, self._payer, signature))

    async def _prepare(
        self, packet_sequence: int, build: Callable[[str], Awaitable[_Built]], old: int | None
    ) -> SignedTx:
        price = await self._get_price(old)
        sources = self._client.sources
        turn = self._turns.pop(packet_sequence, 0)
        _remember(self._turns, packet_sequence, turn + 1)
        turn = (turn + self._first) % len(sources)
        refused: RelayerError | None = None
        last: RelayerError | None = None
        for source in (*sources[turn:], *sources[:turn]):
            try:
                return await self._prepare_at(source, packet_sequence, build, price)
            except Rejected as error:
                error.source = error.source or source
                if error.reason.startswith("revert_"):
                    refused = refused or error  # one that lags may not even know the vault: ask the others
                else:
                    last = error
            except Unavailable as error:
                if error.reason == "preparing":
                    raise  # what is on its way is on its way to all
                last = error
        if last is not None and last.reason in ("insufficient_funds", "too_large", "not_compact"):
            raise refused or last
        raise refused or self._get_nobody("simulateTransaction", last)

    async def _prepare_at(
        self, source: str, packet_sequence: int, build: Callable[[str], Awaitable[_Built]], price: int
    ) -> SignedTx:
        for attempt in range(MAX_REBUILDS):
            try:
                built = await build(source)
                tables = [built.table] if built.table is not None else []
                units = await self._simulate(source, [built.instruction], tables)
                break
            except Rejected as error:
                if error.reason not in MOVED or attempt == MAX_REBUILDS - 1:
                    raise
        block = await self._get_block(source)
        limit = compute_unit_limit(units)
        signed = self._sign([built.instruction], tables, limit, price, Hash(block.blockhash))
        raw = bytes(signed)
        _verify_size(raw)
        return SignedTx(
            chain=self._rules.chain,
            vault_id=self._rules.vault_id,
            packet_sequence=packet_sequence,
            account=self.account,
            nonce=block.last_height,
            max_fee=price,
            priority_fee=limit,
            tx_id=str(signed.signatures[0]),
            raw=raw,
        )

    async def _may_land(self, tx: SignedTx, tries: int) -> bool:
        """Whether a transaction's block hash is still young enough, by the highest word of the endpoints (by the middle every fourth try)."""
        heights = await self._ask_all("getBlockHeight", self._get_height)
        # lagging is common and boasting is not, and no boast counts every time
        height = get_middle(heights) if tries % 4 == 3 else max(heights)
        return height <= tx.nonce <= get_middle(heights) + LASTING_BLOCKS

    async def _is_open(self, last_height: int) -> bool:
        """Whether a small transaction may still land, by the middle: one that boasts must not have it made and paid for again each time."""
        height = get_middle(await self._ask_all("getBlockHeight", self._get_height))
        return height <= last_height <= height + LASTING_BLOCKS

    async def _get_height(self, source: str) -> int:
        return await self._client.ask_parsed(source, "getBlockHeight", [{"commitment": LEVEL}], parse_number)

    async def _get_block(self, source: str) -> Blockhash:
        """A final block: where a fork takes newer ones back, the transaction lands in the other branch all the same."""
        return await self._client.ask_parsed(
            source, "getLatestBlockhash", [{"commitment": "finalized"}], parse_blockhash
        )

    async def _get_price(self, old: int | None) -> int:
        """Micro-lamports a compute unit: what blocks ask for, bumped above ``old``, within the operator's limits."""

        async def ask(source: str) -> tuple[int, ...]:
            accounts = [encode_key(self._rules.vault)]
            return await self._client.ask_parsed(source, "getRecentPrioritizationFees", [accounts], parse_fees)

        try:
            estimate = self._policy.clamp(compute_estimate(await self._ask_all("getRecentPrioritizationFees", ask)))
        except Unavailable:
            estimate = self._policy.price  # a node may keep no such record
        return estimate if old is None else self._policy.clamp(compute_bumped_fee(old, estimate))

    # ------------------------------------------------------------------ recv

    async def _build_recv(self, source: str, packet: Packet, signatures: Sequence[bytes]) -> _Built:
        """The recv of a packet for the state that the source shows, with its records open and its keys in a table where need be."""
        delivery = await self._choose_records(source, packet, signatures)
        if delivery.to_open:
            missing = set(delivery.to_open)

            async def is_missing(other: str) -> bool:
                return missing <= set((await self._choose_records(other, packet, signatures)).to_open)

            await self._confirm(source, is_missing)
            await self._open(source, delivery.to_open)
            delivery = await self._choose_records(source, packet, signatures)
            if delivery.to_open:
                raise _preparing("records that the packet writes are being opened", source)
        if self._measure([delivery.instruction], []) <= vault.MAX_TRANSACTION_BYTES:
            return _Built(delivery.instruction, None)
        wanted = list(
            dict.fromkeys(meta.pubkey for meta in delivery.instruction.accounts if meta.pubkey != self._vault.program)
        )

        async def names(other: str) -> bool:
            seen = await self._choose_records(other, packet, signatures)
            return set(wanted) <= {meta.pubkey for meta in seen.instruction.accounts}

        table = await self._get_table(source, wanted, names)
        if self._measure([delivery.instruction], [table]) > vault.MAX_TRANSACTION_BYTES:
            raise Rejected(
                "the packet does not fit into a transaction, with a lookup table either",
                got=self._measure([delivery.instruction], [table]),
                expected=f"<= {vault.MAX_TRANSACTION_BYTES} bytes",
                reason="too_large",
                source=source,
            )
        return _Built(delivery.instruction, table)

    async def _choose_records(self, source: str, packet: Packet, signatures: Sequence[bytes]) -> vault.Delivery:
        """`make_recv` over what the source shows: run again with more accounts until it asks for no other one."""
        accounts = _Accounts()
        slot = await self._load(source, accounts, [self._vault.state, Pubkey.from_bytes(CLOCK_KEY)], 0)
        now = parse_clock(accounts.found[Pubkey.from_bytes(CLOCK_KEY)], SYSVAR_OWNER).time
        if self._read(accounts, self._vault.state) is None:
            raise Unavailable("the endpoint does not know the vault", reason="no_state", source=source)
        for _ in range(MAX_ROUNDS):
            accounts.missing.clear()
            delivery, refused = self._try_recv(packet, signatures, accounts, now)
            if not accounts.missing:
                break
            await self._load(source, accounts, list(accounts.missing), slot)
        if delivery is None:
            raise refused or Unavailable("the records of the packet lead on and on", reason="no_state", source=source)
        return delivery

    def _try_recv(
        self, packet: Packet, signatures: Sequence[bytes], accounts: _Accounts, now: int
    ) -> tuple[vault.Delivery | None, Rejected | None]:
        try:
            return vault.make_recv(self._vault, packet, signatures, lambda key: self._read(accounts, key), now), None
        except Rejected as error:
            return None, error  # it may be for want of an account that is read next

    def _read(self, accounts: _Accounts, key: Pubkey) -> bytes | None:
        if key not in accounts.found:
            accounts.missing[key] = None
            return None
        account = accounts.found[key]
        return account.data if account is not None and account.owner == self._rules.program else None

    async def _load(self, source: str, accounts: _Accounts, keys: Sequence[Pubkey], min_slot: int) -> int:
        slot = min_slot
        for start in range(0, len(keys), MAX_ACCOUNTS):
            part = keys[start : start + MAX_ACCOUNTS]
            slot, found = await self._client.read_accounts(source, [bytes(key) for key in part], LEVEL, min_slot)
            accounts.found.update(zip(part, found, strict=True))
        return slot

    # ------------------------------------------------------------------ small transactions

    async def _open(self, source: str, records: Sequence[vault.Id]) -> None:
        """Open records and wait for them a little; Unavailable ("preparing") where they are not there yet."""
        what = "records that the packet writes are being opened"
        for start in range(0, len(records), OPENINGS):
            part = records[start : start + OPENINGS]
            try:
                await self._send_side(source, [vault.make_open(self._vault, self._payer, record) for record in part])
            except Rejected as error:
                if error.reason != "revert_exists":
                    raise
                raise _preparing(what, source) from error  # somebody else has opened one of them just now
        keys = [bytes(self._vault.find(record)) for record in records]

        async def is_there() -> bool:
            _, found = await self._client.read_accounts(source, keys, LEVEL)
            return all(account is not None and account.owner == self._rules.program for account in found)

        await self._wait(is_there, what, source)

    async def _get_table(self, source: str, wanted: Sequence[Pubkey], names: Callable[[str], Awaitable[bool]]) -> Table:
        """A table with all these keys, made or extended where need be; Unavailable ("preparing") where it is not ready yet.

        ``names``: whether the packet names these keys by another endpoint's word too.
        """
        if self._tables is None:
            self._tables = await find_tables(self._client, source, self._payer)
        for _ in range(2 + len(wanted) // KEYS_PER_EXTENSION):
            table = choose_table(await self._read_tables(source), wanted)
            lacking = wanted if table is None else [key for key in wanted if key not in table.keys]
            if table is not None and not lacking:
                break
            await self._confirm_lacking(source, wanted, lacking, names)
            await self._grow(source, table, lacking)
        else:
            raise _preparing("a lookup table for the packet is being filled", source)

        async def is_ready() -> bool:
            ready = choose_table(await self._read_tables(source), wanted)
            return ready is not None and all(key in ready.ready for key in wanted)

        await self._wait(is_ready, "a lookup table for the packet has just been filled", source)
        ready = choose_table(await self._read_tables(source), wanted)
        if ready is None:
            raise _preparing("a lookup table for the packet is being filled", source)
        return ready

    async def _confirm_lacking(
        self, source: str, wanted: Sequence[Pubkey], lacking: Sequence[Pubkey], names: Callable[[str], Awaitable[bool]]
    ) -> None:
        async def is_lacking(other: str) -> bool:
            table = choose_table(await self._read_tables(other), wanted)
            return (table is None or not set(lacking) & set(table.keys)) and await names(other)

        await self._confirm(source, is_lacking)

    async def _confirm(self, source: str, agrees: Callable[[str], Awaitable[bool]]) -> None:
        """Ask the others before rent is paid on one endpoint's word: it is never given back, and one that lies could ask for it each time.

        One that agrees is enough; where nobody else answers, the one has to do. Unavailable ("unconfirmed") where all who answer see it otherwise.
        """
        is_doubted = False
        for other in self._client.sources:
            if other == source:
                continue
            try:
                async with asyncio.timeout(OPINION_S):
                    if await agrees(other):
                        return
                is_doubted = True
            except (Rejected, Unavailable, TimeoutError):
                continue  # no opinion
        if is_doubted:
            raise Unavailable(
                "no other endpoint sees that the account has anything to pay for", reason="unconfirmed", source=source
            )

    async def _grow(self, source: str, table: Table | None, lacking: Sequence[Pubkey]) -> None:
        """Add keys to a table, or make one with them, and wait a little until it shows."""
        keys = lacking[:KEYS_PER_EXTENSION]
        if table is not None:
            address = table.address
            await self._send_side(source, [make_extension(self._payer, address, keys)])
        else:
            slot = await self._client.ask_parsed(source, "getSlot", [{"commitment": "finalized"}], parse_number)
            instructions = make_table(self._payer, self._rules.vault, slot, keys)
            address = instructions[1].accounts[0].pubkey
            await self._send_side(source, instructions, name=b"table" + b"".join(bytes(key) for key in keys))
        assert self._tables is not None
        if address not in self._tables:
            self._tables.insert(0, address)
            del self._tables[MAX_FOUND:]

        async def is_there() -> bool:
            found = {found.address: found for found in await self._read_tables(source)}.get(address)
            return found is not None and all(key in found.keys for key in keys)

        await self._wait(is_there, "a lookup table for the packet is being filled", source)

    async def _read_tables(self, source: str) -> list[Table]:
        assert self._tables is not None
        if not self._tables:
            return []
        slot, found = await self._client.read_accounts(source, [bytes(key) for key in self._tables], LEVEL)
        read = [decode_table(*pair, slot, self._payer) for pair in zip(self._tables, found, strict=True)]
        return [table for table in read if table is not None]

    async def _send_side(self, source: str, instructions: Sequence[Instruction], name: bytes = b"") -> None:
        """Send a small transaction of this account's, or again the one that was sent for the same and may still land.

        Nothing is stored: it is harmless, and where it was lost it is made again. Raises as `_simulate`.
        """
        name = name or b"".join(bytes(one.data) + bytes(one.accounts[-1].pubkey) for one in instructions)
        known = self._sides.get(name)
        if known is None or not await self._is_open(known.last_height):
            if known is not None:
                self._first += 1
            units = await self._simulate(source, instructions, [])
            price = await self._get_price(None)
            block = await self._get_block(source)
            signed = self._sign(instructions, [], compute_unit_limit(units), price, Hash(block.blockhash))
            _verify_size(bytes(signed))
            known = _Side(bytes(signed), block.last_height)
            _remember(self._sides, name, known)
        await self._hand_over(known.raw)

    async def _wait(self, is_done: Callable[[], Awaitable[bool]], what: str, source: str) -> None:
        clock = asyncio.get_running_loop().time
        end = clock() + self._patience.wait_s
        while not await is_done():
            if clock() >= end:
                raise _preparing(what, source)
            await asyncio.sleep(self._patience.look_s)

    # ------------------------------------------------------------------ bytes

    def _compile(
        self, instructions: Sequence[Instruction], tables: Sequence[Table], limit: int, price: int, blockhash: Hash
    ) -> MessageV0:
        budget = [set_compute_unit_limit(limit), set_compute_unit_price(price)]
        known = [table.as_account() for table in tables]
        return MessageV0.try_compile(self._payer, [*budget, *instructions], known, blockhash)

    def _sign(
        self, instructions: Sequence[Instruction], tables: Sequence[Table], limit: int, price: int, blockhash: Hash
    ) -> VersionedTransaction:
        return VersionedTransaction(self._compile(instructions, tables, limit, price, blockhash), [self._key])

    def _make_unsigned(self, instructions: Sequence[Instruction], tables: Sequence[Table]) -> bytes:
        message = self._compile(instructions, tables, MAX_UNITS, 0, Hash.default())
        return bytes(VersionedTransaction.populate(message, [Signature.default()]))

    def _measure(self, instructions: Sequence[Instruction], tables: Sequence[Table]) -> int:
        return len(self._make_unsigned(instructions, tables))

    async def _simulate(self, source: str, instructions: Sequence[Instruction], tables: Sequence[Table]) -> int:
        """Compute units that the source says a transaction needs.

        Raises Rejected: "revert_..." with the vault's word, "refused"; Unavailable: "insufficient_funds", "preparing", "stale".
        """
        raw = self._make_unsigned(instructions, tables)
        _verify_size(raw)
        options = {"encoding": "base64", "commitment": LEVEL, "sigVerify": False, "replaceRecentBlockhash": True}
        params = [base64.b64encode(raw).decode(), options]
        found: Simulation = await self._client.ask_parsed(source, "simulateTransaction", params, parse_simulation)
        if found.failure is None:
            return found.units
        programs = {index: one.program_id for index, one in enumerate(instructions, 2)}  # after limit and price
        raise translate_failure(found.failure, programs, self._vault.program, source)

    # ------------------------------------------------------------------ send

    async def send(self, signed: SignedTx) -> str:
        """Hand the transaction to every endpoint; its id when at least one took it. Sending again is safe.

        Unavailable: "no_endpoint". Rejected: "refused" with the node's words. Nobody tries the transaction again here: `prepare` has.
        """
        await self._hand_over(signed.raw)
        return signed.tx_id

    async def _hand_over(self, raw: bytes) -> None:
        options = {"encoding": "base64", "skipPreflight": True}
        params = [base64.b64encode(raw).decode(), options]
        answers = await self._hear_all("sendTransaction", lambda s: self._client.ask(s, "sendTransaction", params))
        failures: list[RelayerError] = []
        for source, answer in zip(self._client.sources, answers, strict=True):
            if isinstance(answer, RpcError):
                failures.append(Rejected(f"the node refuses it: {answer.what}", reason="refused", source=source))
            elif isinstance(answer, Rejected | Unavailable):
                failures.append(answer)
            elif isinstance(answer, BaseException):
                raise answer
        if len(failures) == len(answers):
            # what a node said of the transaction tells more than that another was not reachable
            failures.sort(key=lambda error: error.reason != "refused")
            raise failures[0] if failures[0].reason == "refused" else self._get_nobody("sendTransaction", failures[0])

    # ------------------------------------------------------------------ outcome

    async def outcome(self, signed: SignedTx) -> Outcome:
        """INCLUDED or FAILED once it is in a confirmed block, PENDING in a newer one, else UNKNOWN; Unavailable if nobody answers.

        In a block is what two endpoints say, or the only one that answers: what has landed is not sent again, so one that makes it up would
        keep a packet out.
        """
        found = await self._ask_all("getSignatureStatuses", lambda source: self._get_status(source, signed.tx_id))
        said = [_read_outcome(status) for status in found]
        if len(said) == 1:
            return said[0]
        for landed in (Outcome.INCLUDED, Outcome.FAILED):
            if said.count(landed) > 1:
                return landed
        return Outcome.UNKNOWN if set(said) == {Outcome.UNKNOWN} else Outcome.PENDING

    async def _get_status(self, source: str, tx_id: str) -> Status | None:
        params: list[Any] = [[tx_id], {"searchTransactionHistory": True}]
        found = await self._client.ask_parsed(
            source, "getSignatureStatuses", params, lambda value: parse_statuses(value, 1)
        )
        return found[0]

    # ------------------------------------------------------------------ asking

    async def _ask_all(self, what: str, ask: Callable[[str], Awaitable[ResultT]]) -> list[ResultT]:
        """What every endpoint that answers says, at least one; asked at the same time."""
        answers: list[ResultT] = []
        last: RelayerError | None = None
        for answer in await self._hear_all(what, ask):
            if isinstance(answer, Rejected | Unavailable):
                last = answer
            elif isinstance(answer, BaseException):
                raise answer
            else:
                answers.append(answer)
        if not answers:
            raise self._get_nobody(what, last)
        return answers

    async def _hear_all(self, what: str, ask: Callable[[str], Awaitable[ResultT]]) -> list[ResultT | BaseException]:
        """The answer or error of each endpoint, asked at the same time; once more than half have answered, the others are not waited for."""
        sources = self._client.sources
        tasks = [asyncio.ensure_future(ask(source)) for source in sources]
        pending = set(tasks)
        try:
            while pending:
                answered = sum(task not in pending and task.exception() is None for task in tasks)
                grace_s = GRACE_S if 2 * answered > len(tasks) else None
                done, pending = await asyncio.wait(pending, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
        late = Unavailable(f"no answer to {what} while the others answered", reason="timeout")
        return [late if task in pending else task.exception() or task.result() for task in tasks]

    def _get_nobody(self, what: str, last: RelayerError | None) -> Unavailable:
        return Unavailable(f"no endpoint of {self._rules.chain} answers {what}: {last}", reason="no_endpoint")


def _read_outcome(status: Status | None) -> Outcome:
    if status is None:
        return Outcome.UNKNOWN
    if status.level == "processed":
        return Outcome.PENDING
    return Outcome.INCLUDED if status.failure is None else Outcome.FAILED


# ---- words of nodes -----------------------------------------------------------------------------------------------------


def translate_failure(
    failure: Failure, programs: dict[int, Pubkey], program: Pubkey, source: str
) -> Rejected | Unavailable:
    """What a failed trial means; ``programs``: of the instructions by their place, ``program``: the vault's."""
    failed = failure.program or str(programs.get(failure.instruction or 0))
    if failed == str(SYSTEM_PROGRAM) and failure.code == NO_LAMPORTS:
        return Unavailable(f"the account cannot pay: {failure.text}", reason="insufficient_funds", source=source)
    if failure.code is not None and failed == str(program):
        word = vault.ERRORS.get(failure.code, f"custom_{failure.code}")
        return Rejected(f"the vault would refuse this: {word}", reason=f"revert_{word}", source=source)
    if any(failure.text.strip('{"').startswith(word) for word in POOR):
        return Unavailable(f"the account cannot pay: {failure.text}", reason="insufficient_funds", source=source)
    if failure.text.startswith("BlockhashNotFound"):
        return Unavailable("the endpoint does not know its own block hash", reason="stale", source=source)
    if "AddressLookupTable" in failure.text:
        return _preparing(f"the endpoint does not know the lookup table yet: {failure.text}", source)
    if failure.text == "TooManyAccountLocks":
        return Rejected("the packet names more accounts than a transaction may", reason="too_large", source=source)
    return Rejected(f"the transaction would fail: {failure.text}", reason="refused", source=source)


def _remember(place: dict[KeyT, ResultT], key: KeyT, value: ResultT) -> None:
    place[key] = value
    while len(place) > MAX_REMEMBERED:
        del place[next(iter(place))]


def _preparing(what: str, source: str) -> Unavailable:
    return Unavailable(f"{what}: try again in a moment", reason="preparing", source=source)


def _verify_size(raw: bytes) -> None:
    if len(raw) > vault.MAX_TRANSACTION_BYTES:
        raise Rejected(
            "a transaction is too large", got=len(raw), expected=vault.MAX_TRANSACTION_BYTES, reason="too_large"
        )
