"""The door of a simulated Solana endpoint, JSON-RPC, and the ways in which an endpoint can lie.

Several endpoints stand over one chain, each with its own `Lies`; the adapter cannot tell them from real ones. Without lies a door answers as a
node of Agave does: `context.slot` beside the value, `minContextSlot` refused with -32016, null for what there is none of, base58 and base64,
inner instructions, addresses loaded from tables, failures of preflight with the program's own code.

Source: Agave `rpc/src/rpc.rs`, `rpc-client-api/src/custom_error.rs`, `transaction-status-client-types`; Solana RPC documentation.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, TypeGuard

import base58
from solders.account import Account
from solders.hash import Hash
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from chains.solana.sim_chain import (
    CLOCK_ID,
    FIRST_SLOT,
    MAX_BLOCKHASH_AGE,
    SLOTS_PER_EPOCH,
    TokenBalance,
    View,
    compute_height,
    is_skipped,
    read_inner,
    read_transaction,
)
from chains.solana.transport import make_rpc_error
from contracts.solana.client import EVENT, HEAD_AT, OUT, SEQUENCE_AT, STATE_MAGIC
from messages.errors import Rejected, Unavailable

if TYPE_CHECKING:
    from chains.solana.sim import SimSolana
    from chains.solana.sim_chain import Landed

NODE_VERSION: Final = "3.0.6"
MAX_KEYS: Final = 100
MAX_SIGNATURES: Final = 1_000
MAX_STATUSES: Final = 256
MAX_FEE_ACCOUNTS: Final = 128
MAX_BASE58_BYTES: Final = 128
RECENT_SLOTS: Final = 150
UINT64_MAX: Final = 2**64 - 1
LEVELS: Final = ("processed", "confirmed", "finalized")
OTHER_PROGRAM: Final = Pubkey.from_bytes(sha256(b"optsettle sim other program").digest())
INVALID_REQUEST, NO_METHOD, INVALID_PARAMS = -32600, -32601, -32602
PREFLIGHT, BAD_SIGNATURE, UNHEALTHY, BAD_VERSION, TOO_YOUNG = -32002, -32003, -32005, -32015, -32016


@dataclass
class Lies:
    """How one endpoint misbehaves; all off by default. Change the fields at any time.

    Reachability: ``down`` refuses connections, ``hang`` never answers, ``fail_every`` n fails each n-th request with status 503, ``slow_s`` waits
    real seconds before each answer, ``unhealthy`` says that it is behind. Staleness: ``stall_slot`` answers everything as if that slot were the
    running one. Events: ``drop_events`` tells no transaction of the vault (E5), ``drop_event_every`` n leaves out each n-th, ``reorder_events`` turns
    the order round, ``forge_events`` changes the last byte of each outbox packet, ``other_program`` tells events as another program's,
    ``null_inner`` keeps no inner instructions, ``undo_results`` tells every transaction as one that failed, ``hide_failures`` every failed one as
    one that did not. State: ``missing_vault``, ``other_owner``, ``forge_head`` (last byte of the outbox head), ``forge_sequence`` (added to the
    outbox number). Time: ``clock_ahead_s``, ``slot_ahead``. Finality: ``early_finality`` shows what is newest as finalized, ``follow_fork`` stays
    on the branch that the last fork left.
    """

    down: bool = False
    hang: bool = False
    fail_every: int = 0
    slow_s: float = 0.0
    unhealthy: bool = False
    stall_slot: int | None = None
    genesis_hash: str | None = None
    no_index: bool = False
    """Keeps no transactions: not a lie, but a node that has none of the past."""
    drop_events: bool = False
    drop_event_every: int = 0
    reorder_events: bool = False
    forge_events: bool = False
    other_program: bool = False
    null_inner: bool = False
    undo_results: bool = False
    hide_failures: bool = False
    missing_vault: bool = False
    other_owner: bool = False
    forge_head: bool = False
    forge_sequence: int = 0
    clock_ahead_s: int = 0
    slot_ahead: int = 0
    early_finality: bool = False
    follow_fork: bool = False
    drop_sent: bool = False
    """Accepts transactions and forgets them (fault 16)."""


class _RpcFailure(Exception):
    """An error of RPC."""

    def __init__(self, message: str, code: int = INVALID_PARAMS, data: Any = None) -> None:
        super().__init__(message)
        self.error: dict[str, Any] = {"code": code, "message": message} | ({} if data is None else {"data": data})


class SimSolanaRpc:
    """The JSON-RPC of one endpoint: a `transport.SolanaTransport`."""

    def __init__(self, chain: SimSolana, lies: Lies, name: str) -> None:
        self._chain = chain
        self._lies = lies
        self._name = name
        self.requests = 0
        self.asked: dict[str, int] = {}
        """How often each method was called."""
        self._methods: dict[str, Callable[[Sequence[Any]], Any]] = {
            "getAccountInfo": self._get_account,
            "getBalance": self._get_balance,
            "getBlockHeight": lambda p: compute_height(self._stand(_read_options(p, 0))[1]),
            "getBlockTime": self._get_block_time,
            "getEpochInfo": self._get_epoch,
            "getFirstAvailableBlock": lambda _: FIRST_SLOT,
            "getGenesisHash": lambda _: self._lies.genesis_hash or self._chain.genesis_hash,
            "getHealth": lambda _: self._get_health(),
            "getLatestBlockhash": self._get_blockhash,
            "getMinimumBalanceForRentExemption": self._get_rent,
            "getMultipleAccounts": self._get_accounts,
            "getRecentPrioritizationFees": self._get_fees,
            "getSignatureStatuses": self._get_statuses,
            "getSignaturesForAddress": self._get_signatures,
            "getSlot": lambda p: self._stand(_read_options(p, 0))[1] + self._lies.slot_ahead,
            "getTokenAccountBalance": self._get_tokens,
            "getTransaction": self._get_transaction,
            "getVersion": lambda _: {"feature-set": 3_604_001_754, "solana-core": NODE_VERSION},
            "isBlockhashValid": self._is_blockhash_valid,
            "sendTransaction": self._send,
            "simulateTransaction": self._simulate,
        }

    async def request(self, method: str, params: Sequence[Any]) -> Any:
        """See `transport.SolanaTransport.request`."""
        self.requests += 1
        self.asked[method] = self.asked.get(method, 0) + 1
        if self._lies.down:
            raise Unavailable(f"no connection for {method}", reason="unreachable")
        if self._lies.hang:
            await asyncio.Event().wait()
        if self._lies.slow_s:
            await asyncio.sleep(self._lies.slow_s)
        if self._lies.fail_every and self.requests % self._lies.fail_every == 0:
            raise Unavailable("the endpoint is not able to answer: busy", got=503, reason="http_status")
        answer = self.handle(method, params)
        if "error" in answer:
            raise make_rpc_error(answer["error"])
        return answer["result"]

    async def close(self) -> None:
        """See `transport.SolanaTransport.close`."""

    def handle(self, method: str, params: Sequence[Any]) -> dict[str, Any]:
        """{"result": ...} or {"error": ...} of one call: all a server needs to wrap."""
        self._chain.tick()
        function = self._methods.get(method)
        try:
            if function is None:
                raise _RpcFailure("Method not found", NO_METHOD)
            if not isinstance(params, list | tuple):
                raise _RpcFailure("Invalid params: invalid type: map, expected a sequence.")
            return {"result": function(params)}
        except _RpcFailure as failure:
            return {"error": failure.error}

    # ------------------------------------------------------------------ where the endpoint stands

    def _get_view(self) -> View:
        """The branch and its slots as this endpoint tells them."""
        lies, chain = self._lies, self._chain
        branches = chain.bank.branches
        ledger = branches[-1] if lies.follow_fork and branches else None
        newest = chain.get_slot() if lies.stall_slot is None else min(lies.stall_slot, chain.get_slot())
        view = chain.compute_view(ledger, newest)
        return replace(view, finalized=view.processed) if lies.early_finality else view

    def _stand(self, options: Mapping[str, Any], default: str = "finalized") -> tuple[View, int]:
        """(view, slot) that a request with these options is answered from; -32016 where the endpoint is not there yet."""
        level = _read_level(options, default)
        view = self._get_view()
        slot = view.get_slot(level)
        least = options.get("minContextSlot")
        if least is not None:
            if not _is_u64(least):
                raise _RpcFailure("Invalid params: invalid type, expected u64.")
            if slot + self._lies.slot_ahead < least:
                data = {"contextSlot": slot + self._lies.slot_ahead}
                raise _RpcFailure("Minimum context slot has not been reached", TOO_YOUNG, data)
        return view, slot

    def _answer(self, slot: int, value: Any) -> dict[str, Any]:
        return {"context": {"apiVersion": NODE_VERSION, "slot": slot + self._lies.slot_ahead}, "value": value}

    def _get_health(self) -> str:
        self._verify_healthy()
        return "ok"

    def _verify_healthy(self) -> None:
        if self._lies.unhealthy:
            raise _RpcFailure("Node is behind by 217 slots", UNHEALTHY, {"numSlotsBehind": 217})

    def _get_epoch(self, params: Sequence[Any]) -> dict[str, Any]:
        view, slot = self._stand(_read_options(params, 0))
        return {
            "absoluteSlot": slot,
            "blockHeight": compute_height(slot),
            "epoch": slot // SLOTS_PER_EPOCH,
            "slotIndex": slot % SLOTS_PER_EPOCH,
            "slotsInEpoch": SLOTS_PER_EPOCH,
            "transactionCount": len(view.ledger.by_signature),
        }

    def _get_block_time(self, params: Sequence[Any]) -> int:
        slot = _read_u64(params, 0)
        if slot > self._get_view().processed:
            raise _RpcFailure(f"Block not available for slot {slot}", -32004)
        if slot < FIRST_SLOT or is_skipped(slot):
            raise _RpcFailure(f"Slot {slot} was skipped, or missing in long-term storage", -32009)
        return self._compute_time(slot)

    def _compute_time(self, slot: int) -> int:
        return self._chain.bank.compute_time(slot) + self._lies.clock_ahead_s

    def _get_blockhash(self, params: Sequence[Any]) -> dict[str, Any]:
        view, slot = self._stand(_read_options(params, 0))
        blockhash = base58.b58encode(view.ledger.compute_hash(slot)).decode()
        last = compute_height(slot) + MAX_BLOCKHASH_AGE
        return self._answer(slot, {"blockhash": blockhash, "lastValidBlockHeight": last})

    def _is_blockhash_valid(self, params: Sequence[Any]) -> dict[str, Any]:
        view, slot = self._stand(_read_options(params, 1))
        blockhash = _read_base58(params, 0, 32)
        return self._answer(slot, view.ledger.find_hash_age(blockhash, slot) is not None)

    # ------------------------------------------------------------------ accounts

    def _get_account(self, params: Sequence[Any]) -> dict[str, Any]:
        options = _read_options(params, 1)
        key = Pubkey.from_bytes(_read_base58(params, 0, 32))
        view, slot = self._stand(options)
        return self._answer(slot, _describe_account(self._read_account(view, key, slot), options))

    def _get_accounts(self, params: Sequence[Any]) -> dict[str, Any]:
        options = _read_options(params, 1)
        keys = params[0] if params else None
        if not isinstance(keys, list | tuple):
            raise _RpcFailure("Invalid params: invalid type, expected a sequence.")
        if len(keys) > MAX_KEYS:
            raise _RpcFailure(f"Too many inputs provided; max {MAX_KEYS}")
        read = [Pubkey.from_bytes(_read_base58(keys, index, 32)) for index in range(len(keys))]
        view, slot = self._stand(options)
        return self._answer(slot, [_describe_account(self._read_account(view, key, slot), options) for key in read])

    def _read_account(self, view: View, key: Pubkey, slot: int) -> Account | None:
        """An account at a slot, as this endpoint tells it."""
        lies = self._lies
        account = self._chain.bank.get_account(key, slot, view.ledger)
        if account is None:
            return None
        data = bytearray(account.data)
        owner = account.owner
        if key == CLOCK_ID:
            _add_u64(data, 0, lies.slot_ahead)
            _add_u64(data, 32, lies.clock_ahead_s)
        if owner == self._chain.program:
            if lies.missing_vault:
                return None
            if lies.other_owner:
                owner = OTHER_PROGRAM
            if data[:8] == STATE_MAGIC:
                data[HEAD_AT + 31] ^= lies.forge_head
                _add_u64(data, SEQUENCE_AT, lies.forge_sequence)
        return Account(account.lamports, bytes(data), owner, account.executable, account.rent_epoch)

    def _get_balance(self, params: Sequence[Any]) -> dict[str, Any]:
        view, slot = self._stand(_read_options(params, 1))
        account = self._read_account(view, Pubkey.from_bytes(_read_base58(params, 0, 32)), slot)
        return self._answer(slot, 0 if account is None else account.lamports)

    def _get_tokens(self, params: Sequence[Any]) -> dict[str, Any]:
        view, slot = self._stand(_read_options(params, 1))
        account = self._read_account(view, Pubkey.from_bytes(_read_base58(params, 0, 32)), slot)
        if account is None:
            raise _RpcFailure("Invalid param: could not find account")
        found = self._chain.bank.read_tokens([account])
        if not found:
            raise _RpcFailure("Invalid param: not a Token account")
        return self._answer(slot, _describe_amount(found[0]))

    def _get_rent(self, params: Sequence[Any]) -> int:
        return self._chain.bank.compute_rent(_read_u64(params, 0))

    def _get_fees(self, params: Sequence[Any]) -> list[dict[str, int]]:
        """The lowest price of a compute unit that got into each of the newest blocks; 0 where there was room for all."""
        if params and (not isinstance(params[0], list | tuple) or len(params[0]) > MAX_FEE_ACCOUNTS):
            raise _RpcFailure(f"Too many inputs provided; max {MAX_FEE_ACCOUNTS}")
        newest = self._get_view().processed
        slots = [slot for slot in range(newest - RECENT_SLOTS + 1, newest + 1) if not is_skipped(slot)]
        return [{"prioritizationFee": self._chain.unit_price, "slot": slot} for slot in slots]

    # ------------------------------------------------------------------ transactions of the past

    def _is_withheld(self, landed: Landed) -> bool:
        lies = self._lies
        if lies.no_index:
            return True
        if not (lies.drop_events or lies.drop_event_every) or str(self._chain.program) not in landed.keys:
            return False
        return lies.drop_events or _get_number(landed) % lies.drop_event_every == 0

    def _get_signatures(self, params: Sequence[Any]) -> list[dict[str, Any]]:
        options = _read_options(params, 1)
        key = base58.b58encode(_read_base58(params, 0, 32)).decode()
        limit = options.get("limit", MAX_SIGNATURES)
        if not _is_u64(limit) or not 0 < limit <= MAX_SIGNATURES:
            raise _RpcFailure(f"Invalid limit; max {MAX_SIGNATURES}")
        view, slot = self._stand(options)
        _verify_history_level(options)
        found = [one for one in view.ledger.by_address.get(key, ()) if one.slot <= slot][::-1]
        for name, is_start in (("before", True), ("until", False)):
            if options.get(name) is None:
                continue
            at = next((i for i, one in enumerate(found) if one.signature == options[name]), None)
            if at is None and is_start:
                found = []  # nodes know no place for a signature that they do not know
            elif at is not None:
                found = found[at + 1 :] if is_start else found[:at]
        told = [one for one in found if not self._is_withheld(one)]
        if self._lies.reorder_events:
            told.reverse()
        return [
            {
                "blockTime": self._compute_time(one.slot),
                "confirmationStatus": view.get_status(one.slot),
                "err": self._get_error(one),
                "memo": None,
                "signature": one.signature,
                "slot": one.slot,
            }
            for one in told[:limit]
        ]

    def _get_error(self, landed: Landed) -> Any:
        """The error of a transaction, as this endpoint tells it."""
        if landed.error is not None:
            return None if self._lies.hide_failures else landed.error
        is_undone = self._lies.undo_results and str(self._chain.program) in landed.keys
        return {"InstructionError": [0, {"Custom": 6}]} if is_undone else None

    def _get_transaction(self, params: Sequence[Any]) -> dict[str, Any] | None:
        options = _read_options(params, 1, other="encoding")
        signature = base58.b58encode(_read_base58(params, 0, 64)).decode()
        encoding = options.get("encoding", "json")
        if encoding not in ("json", "base64", "base58"):
            raise _RpcFailure(f"Invalid params: unknown variant `{encoding}`.")
        view, slot = self._stand({k: v for k, v in options.items() if k != "minContextSlot"})
        _verify_history_level(options)
        landed = view.ledger.by_signature.get(signature)
        if landed is None or landed.slot > slot or self._is_withheld(landed):
            return None
        message = landed.transaction.message
        is_v0 = isinstance(message, MessageV0)
        if is_v0 and options.get("maxSupportedTransactionVersion") is None:
            text = (
                "Transaction version (0) is not supported by the requesting client. Please try the request again with the "
                'following configuration parameter: "maxSupportedTransactionVersion": 0'
            )
            raise _RpcFailure(text, BAD_VERSION)
        if encoding == "json":
            transaction: Any = _describe_transaction(landed.transaction)
        else:
            transaction = [_encode(landed.raw, encoding), encoding]
        answer = {
            "blockTime": self._compute_time(landed.slot),
            "meta": self._describe_meta(landed),
            "slot": landed.slot,
            "transaction": transaction,
        }
        return answer | ({"version": 0 if is_v0 else "legacy"} if "maxSupportedTransactionVersion" in options else {})

    def _describe_meta(self, landed: Landed) -> dict[str, Any]:
        error = self._get_error(landed)
        n_static = len(landed.keys) - sum(landed.loaded)
        middle = n_static + landed.loaded[0]
        meta: dict[str, Any] = {
            "computeUnitsConsumed": landed.units,
            "costUnits": landed.units + 1_000,
            "err": error,
            "fee": landed.fee,
            "innerInstructions": None if self._lies.null_inner else self._describe_inner(landed),
            "loadedAddresses": {
                "readonly": list(landed.keys[middle:]),
                "writable": list(landed.keys[n_static:middle]),
            },
            "logMessages": list(landed.logs),
            "postBalances": list(landed.balances[1]),
            "postTokenBalances": [_describe_tokens(one) for one in landed.tokens[1]],
            "preBalances": list(landed.balances[0]),
            "preTokenBalances": [_describe_tokens(one) for one in landed.tokens[0]],
            "rewards": [],
            "status": {"Ok": None} if error is None else {"Err": error},
        }
        if landed.returned is not None:
            meta["returnData"] = _describe_returned(landed.returned)
        return meta

    def _describe_inner(self, landed: Landed) -> list[dict[str, Any]]:
        return [
            {
                "index": index,
                "instructions": [
                    _describe_inner_instruction(*self._distort_inner(landed, *one))
                    for one in (instructions[::-1] if self._lies.reorder_events else instructions)
                ],
            }
            for index, instructions in enumerate(landed.inner)
            if instructions
        ]

    def _distort_inner(
        self, landed: Landed, program: int, accounts: bytes, data: bytes, height: int | None
    ) -> tuple[int, bytes, bytes, int | None]:
        """An inner instruction as this endpoint tells it."""
        if landed.keys[program] == str(self._chain.program) and data[:1] == bytes([EVENT]):
            if self._lies.forge_events and data[1] == OUT:
                # the amount of a deposit, still well formed
                data = data[:-1] + bytes([data[-1] ^ 1])
            if self._lies.other_program:
                program = next(i for i, key in enumerate(landed.keys) if key != str(self._chain.program))
        return program, accounts, data, height

    def _get_statuses(self, params: Sequence[Any]) -> dict[str, Any]:
        options = _read_options(params, 1)
        asked = params[0] if params else None
        if not isinstance(asked, list | tuple):
            raise _RpcFailure("Invalid params: invalid type, expected a sequence.")
        if len(asked) > MAX_STATUSES:
            raise _RpcFailure(f"Too many inputs provided; max {MAX_STATUSES}")
        names = [base58.b58encode(_read_base58(asked, index, 64)).decode() for index in range(len(asked))]
        view = self._get_view()
        is_deep = options.get("searchTransactionHistory", False)
        return self._answer(view.processed, [self._describe_status(view, name, is_deep=is_deep) for name in names])

    def _describe_status(self, view: View, signature: str, *, is_deep: bool) -> dict[str, Any] | None:
        landed = view.ledger.by_signature.get(signature)
        if landed is None or landed.slot > view.processed or self._lies.no_index:
            return None
        if landed.slot < view.finalized - RECENT_SLOTS and not is_deep:
            return None
        status = view.get_status(landed.slot)
        error = self._get_error(landed)
        return {
            "confirmationStatus": status,
            "confirmations": None if status == "finalized" else view.processed - landed.slot,
            "err": error,
            "slot": landed.slot,
            "status": {"Ok": None} if error is None else {"Err": error},
        }

    # ------------------------------------------------------------------ transactions to come

    def _send(self, params: Sequence[Any]) -> str:
        options = _read_options(params, 1)
        raw, transaction = _read_sent(params, options)
        if not options.get("skipPreflight", False):
            level = {"commitment": options.get("preflightCommitment", options.get("commitment"))}
            _, slot = self._stand({k: v for k, v in options.items() if k == "minContextSlot"} | level)
            self._verify_healthy()
            _verify_signatures(transaction)
            result = self._run(transaction, slot)
            if result["err"] is not None:
                text = f"Transaction simulation failed: {describe_error(result['err'])}"
                raise _RpcFailure(text, PREFLIGHT, result)
        # without preflight a node passes on whatever it gets, and the leader throws away what is not signed
        if not self._lies.drop_sent and all(transaction.verify_with_results()):
            self._chain.send_raw(raw)
        return str(transaction.signatures[0])

    def _simulate(self, params: Sequence[Any]) -> dict[str, Any]:
        options = _read_options(params, 1)
        _, transaction = _read_sent(params, options)
        view, slot = self._stand(options)
        is_replaced, is_verified = options.get("replaceRecentBlockhash", False), options.get("sigVerify", False)
        if is_replaced and is_verified:
            raise _RpcFailure("sigVerify may not be used with replaceRecentBlockhash")
        replacement = None
        if is_replaced:
            blockhash = view.ledger.compute_hash(slot)
            last = compute_height(slot) + MAX_BLOCKHASH_AGE
            replacement = {"blockhash": base58.b58encode(blockhash).decode(), "lastValidBlockHeight": last}
            transaction = _replace_blockhash(transaction, Hash(blockhash))
        if is_verified:
            _verify_signatures(transaction)
        result = self._run(transaction, slot, with_inner=bool(options.get("innerInstructions", False)), options=options)
        if replacement is not None:
            result["replacementBlockhash"] = replacement
        return self._answer(slot, result)

    def _run(
        self,
        transaction: VersionedTransaction,
        slot: int,
        *,
        with_inner: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The result of a simulation, as nodes tell it."""
        bank = self._chain.bank
        why = bank.verify(transaction, slot)
        result: dict[str, Any] = {
            "accounts": None,
            "err": why,
            "innerInstructions": None,
            "logs": [],
            "replacementBlockhash": None,
            "returnData": None,
            "unitsConsumed": 0,
        }
        if why is not None:
            return result
        error, meta, accounts = bank.simulate(transaction, slot)
        result |= {"err": error, "logs": list(meta.logs()), "unitsConsumed": meta.compute_units_consumed()}
        returned = meta.return_data()
        if returned.data:
            result["returnData"] = _describe_returned((str(returned.program_id), bytes(returned.data)))
        if with_inner:
            result["innerInstructions"] = [
                {"index": index, "instructions": [_describe_inner_instruction(*one) for one in instructions]}
                for index, instructions in enumerate(read_inner(meta))
                if instructions
            ]
        wanted = (options or {}).get("accounts")
        if wanted is not None:
            if not isinstance(wanted, dict) or not isinstance(wanted.get("addresses"), list):
                raise _RpcFailure("Invalid params: accounts.")
            known = dict(accounts)
            result["accounts"] = [
                _describe_account(known.get(str(address)), {"encoding": "base64"}) for address in wanted["addresses"]
            ]
        return result


def _get_number(landed: Landed) -> int:
    """Number of the outbox packet that a transaction of a vault tells of; 1 for one that tells of none."""
    found = [data for one in landed.inner for _, _, data, _ in one if data[:2] == bytes([EVENT, OUT])]
    return int.from_bytes(found[0][2:10], "little") if found else 1


# ---- requests ---------------------------------------------------------------------------------------------------------


def _read_options(params: Sequence[Any], place: int, other: str = "") -> Mapping[str, Any]:
    """The object of options at a place; ``other``: what a plain text there means."""
    found = params[place] if len(params) > place else None
    if found is None:
        return {}
    if isinstance(found, str) and other:
        return {other: found}
    if not isinstance(found, dict):
        raise _RpcFailure("Invalid params: invalid type, expected a struct of options.")
    return found


def _read_level(options: Mapping[str, Any], default: str) -> str:
    level = options.get("commitment") or default
    if level not in LEVELS:
        raise _RpcFailure(f"Invalid params: unknown variant `{level}`, expected one of {', '.join(LEVELS)}.")
    return str(level)


def _verify_history_level(options: Mapping[str, Any]) -> None:
    if options.get("commitment") == "processed":
        raise _RpcFailure("Method does not support commitment below `confirmed`")


def _read_u64(params: Sequence[Any], place: int) -> int:
    value = params[place] if len(params) > place else None
    if not _is_u64(value):
        raise _RpcFailure("Invalid params: invalid type, expected u64.")
    return int(value)


def _is_u64(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= UINT64_MAX


def _read_base58(values: Sequence[Any], place: int, size: int) -> bytes:
    value = values[place] if len(values) > place else None
    try:
        data = base58.b58decode(value) if isinstance(value, str) and len(value) <= 100 else b""
    except ValueError as error:
        raise _RpcFailure("Invalid param: Invalid") from error
    if len(data) != size:
        raise _RpcFailure("Invalid param: WrongSize")
    return data


def _read_sent(params: Sequence[Any], options: Mapping[str, Any]) -> tuple[bytes, VersionedTransaction]:
    """(bytes, transaction) of a request; its signatures are not judged."""
    encoding = options.get("encoding", "base58")
    text = params[0] if params else None
    if encoding not in ("base58", "base64") or not isinstance(text, str):
        raise _RpcFailure(f"unsupported encoding: {encoding}. Supported encodings: base58, base64")
    if len(text) > 4 * 1_232:
        raise _RpcFailure("encoded solana_transaction::versioned::VersionedTransaction too large")
    try:
        raw = base64.b64decode(text, validate=True) if encoding == "base64" else base58.b58decode(text)
    except (ValueError, binascii.Error) as error:
        raise _RpcFailure(f"invalid {encoding} encoding") from error
    try:
        return raw, read_transaction(raw, is_verified=False)
    except Rejected as error:
        if error.reason == "size":
            text = f"too large: {len(raw)} bytes (max: encoded/raw 1644/1232)"
            raise _RpcFailure(f"decoded solana_transaction::versioned::VersionedTransaction {text}") from error
        what = "failed to deserialize solana_transaction::versioned::VersionedTransaction"
        raise _RpcFailure(f"{what}: {error.what}") from error


def _verify_signatures(transaction: VersionedTransaction) -> None:
    if not all(transaction.verify_with_results()):
        raise _RpcFailure("Transaction signature verification failure", BAD_SIGNATURE)


def _replace_blockhash(transaction: VersionedTransaction, blockhash: Hash) -> VersionedTransaction:
    """The same transaction under another block hash; its signatures are wrong then, and nobody looks at them."""
    raw, message = bytearray(bytes(transaction)), transaction.message
    # counts of at most 127 have one byte: signatures, then the version of all but legacy messages, three counts, keys
    at = 1 + 64 * len(transaction.signatures) + isinstance(message, MessageV0) + 3 + 1 + 32 * len(message.account_keys)
    raw[at : at + 32] = bytes(blockhash)
    return VersionedTransaction.from_bytes(bytes(raw))


# ---- JSON forms -------------------------------------------------------------------------------------------------------


def _encode(data: bytes, encoding: str) -> str:
    return base64.b64encode(data).decode() if encoding == "base64" else base58.b58encode(data).decode()


def _add_u64(data: bytearray, at: int, amount: int) -> None:
    data[at : at + 8] = (int.from_bytes(data[at : at + 8], "little") + amount).to_bytes(8, "little")


def _describe_account(account: Account | None, options: Mapping[str, Any]) -> dict[str, Any] | None:
    if account is None:
        return None
    encoding = options.get("encoding", "base58")
    if encoding not in ("base58", "base64"):
        raise _RpcFailure(f"Invalid params: unknown variant `{encoding}`, expected one of `base58`, `base64`.")
    data = bytes(account.data)
    piece = options.get("dataSlice")
    if piece is not None:
        if not isinstance(piece, dict) or not _is_u64(piece.get("offset")) or not _is_u64(piece.get("length")):
            raise _RpcFailure("Invalid params: dataSlice.")
        data = data[piece["offset"] : piece["offset"] + piece["length"]]
    if encoding == "base58" and len(data) > MAX_BASE58_BYTES:
        text = "Encoded binary (base 58) data should be less than 128 bytes, please use Base64 encoding."
        raise _RpcFailure(text, INVALID_REQUEST)
    return {
        "data": [_encode(data, encoding), encoding],
        "executable": account.executable,
        "lamports": account.lamports,
        "owner": str(account.owner),
        "rentEpoch": UINT64_MAX,
        "space": len(account.data),
    }


def _describe_transaction(transaction: VersionedTransaction) -> dict[str, Any]:
    message = transaction.message
    header = message.header
    described: dict[str, Any] = {
        "accountKeys": [str(key) for key in message.account_keys],
        "header": {
            "numReadonlySignedAccounts": header.num_readonly_signed_accounts,
            "numReadonlyUnsignedAccounts": header.num_readonly_unsigned_accounts,
            "numRequiredSignatures": header.num_required_signatures,
        },
        "instructions": [
            {
                "accounts": list(one.accounts),
                "data": base58.b58encode(bytes(one.data)).decode(),
                "programIdIndex": one.program_id_index,
                "stackHeight": 1,
            }
            for one in message.instructions
        ],
        "recentBlockhash": str(message.recent_blockhash),
    }
    if isinstance(message, MessageV0):
        described["addressTableLookups"] = [
            {
                "accountKey": str(lookup.account_key),
                "readonlyIndexes": list(lookup.readonly_indexes),
                "writableIndexes": list(lookup.writable_indexes),
            }
            for lookup in message.address_table_lookups
        ]
    return {"message": described, "signatures": [str(signature) for signature in transaction.signatures]}


def _describe_inner_instruction(program: int, accounts: bytes, data: bytes, height: int | None) -> dict[str, Any]:
    return {
        "accounts": list(accounts),
        "data": base58.b58encode(data).decode(),
        "programIdIndex": program,
        "stackHeight": height,
    }


def _describe_amount(balance: TokenBalance) -> dict[str, Any]:
    amount, decimals = balance.amount, balance.decimals
    whole, rest = divmod(amount, 10**decimals)
    text = f"{whole}.{rest:0{decimals}d}".rstrip("0") if rest else str(whole)
    return {
        "amount": str(amount),
        "decimals": decimals,
        "uiAmount": amount / 10**decimals,
        "uiAmountString": text,
    }


def _describe_tokens(balance: TokenBalance) -> dict[str, Any]:
    return {
        "accountIndex": balance.index,
        "mint": balance.mint,
        "owner": balance.owner,
        "programId": "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA",
        "uiTokenAmount": _describe_amount(balance),
    }


def _describe_returned(returned: tuple[str, bytes]) -> dict[str, Any]:
    program, data = returned
    return {"data": [base64.b64encode(data).decode(), "base64"], "programId": program}


_ERRORS: Final = {
    "AccountNotFound": "Attempt to debit an account but found no record of a prior credit.",
    "AlreadyProcessed": "This transaction has already been processed",
    "BlockhashNotFound": "Blockhash not found",
    "InsufficientFundsForFee": "Insufficient funds for fee",
    "AddressLookupTableNotFound": "Transaction loads an address table account that doesn't exist",
    "InvalidAddressLookupTableIndex": "Transaction address table lookup uses an invalid index",
    "ProgramAccountNotFound": "Attempt to load a program that does not exist",
}


def describe_error(error: Any) -> str:
    """The text of a transaction's error, as nodes write it behind "Transaction simulation failed:"."""
    if isinstance(error, dict) and "InstructionError" in error:
        index, what = error["InstructionError"]
        if isinstance(what, dict) and "Custom" in what:
            what = f"custom program error: {what['Custom']:#x}"
        return f"Error processing Instruction {index}: {what}"
    return _ERRORS.get(error, error) if isinstance(error, str) else str(error)
