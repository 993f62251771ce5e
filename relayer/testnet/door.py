"""One chain as users see it: signed transactions and reads over one JSON-RPC endpoint, local or public.

The same questions that the demo asks a simulated network (`transact`, `get_receipt`, `call`, `make_key`, `fund`), answered by a node. The
calls block; the harness runs them in threads. Keys are derived from a seed and a name; money comes from a faucet key that the caller hands in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount

from messages.errors import Rejected, Unavailable
from relayer.testnet.nodes import MNEMONIC, ask

CALL_GAS = 3_000_000
DEPLOY_GAS = 16_000_000
TRANSFER_GAS = 21_000
FUND_WEI = 10 * 10**18
RECEIPT_TIMEOUT_S = 60.0
RECEIPT_POLL_S = 0.1


def get_faucet_key(index: int = 0) -> bytes:
    """Key of a development account of `nodes.MNEMONIC`, 32 bytes."""
    Account.enable_unaudited_hdwallet_features()
    return bytes(Account.from_mnemonic(MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}").key)


@dataclass(frozen=True)
class Receipt:
    """What became of a transaction. ``contract``: 20 bytes, of a creation."""

    transaction: bytes
    succeeded: bool
    gas_used: int
    block_number: int
    contract: bytes | None


class Door:
    """See the module. ``wei`` is what `make_key` and `fund` give."""

    def __init__(self, url: str, chain_id: int, faucet_key: bytes, seed: bytes, wei: int = FUND_WEI) -> None:
        self.url = url
        self.chain_id = chain_id
        self._faucet = faucet_key
        self._seed = seed
        self._wei = wei
        self._accounts: dict[bytes, LocalAccount] = {}
        self._nonces: dict[bytes, int] = {}
        self._funded: set[bytes] = set()
        self._lock = threading.Lock()

    # ------------------------------------------------------------------ people

    def make_key(self, name: str) -> bytes:
        """`get_key`; its account is given ether the first time."""
        key = self.get_key(name)
        self.fund(self._get_address(key))
        return key

    def fund(self, *addresses: bytes) -> None:
        """Send ether to 20-byte addresses that have little, once, and wait until they own it."""
        sent = []
        for address in addresses:
            if address in self._funded:
                continue
            self._funded.add(address)
            if int(str(ask(self.url, "eth_getBalance", "0x" + address.hex(), "latest")), 16) < self._wei // 2:
                sent.append(self.transact(self._faucet, address, b"", value=self._wei, gas=TRANSFER_GAS))
        for transaction in sent:
            self.wait_for_receipt(transaction)

    def get_key(self, name: str) -> bytes:
        """A private key that depends on seed, chain and name alone."""
        return sha256(b"optsettle testnet key %d " % self.chain_id + self._seed + b" " + name.encode()).digest()

    def _get_account(self, key: bytes) -> LocalAccount:
        if key not in self._accounts:
            self._accounts[key] = Account.from_key(key)
        return self._accounts[key]

    def _get_address(self, key: bytes) -> bytes:
        return bytes.fromhex(str(self._get_account(key).address)[2:])

    # ------------------------------------------------------------------ transactions

    def transact(self, key: bytes, to: bytes | None, data: bytes, *, value: int = 0, gas: int = CALL_GAS) -> bytes:
        """Sign and send; returns the transaction hash. ``to`` None creates a contract.

        Raises:
            Unavailable: the node does not answer, or refuses the transaction in its own words.
        """
        account = self._get_account(key)
        with self._lock:
            base = int(str(ask(self.url, "eth_getBlockByNumber", "latest", False)["baseFeePerGas"]), 16)
            tip = int(str(ask(self.url, "eth_maxPriorityFeePerGas")), 16)
            if key not in self._nonces:
                self._nonces[key] = int(str(ask(self.url, "eth_getTransactionCount", account.address, "pending")), 16)
            fields: dict[str, Any] = {
                "type": 2,
                "chainId": self.chain_id,
                "nonce": self._nonces[key],
                "maxFeePerGas": 3 * base + tip,
                "maxPriorityFeePerGas": tip,
                "gas": gas,
                "value": value,
                "data": data,
            } | ({} if to is None else {"to": to})
            raw = bytes(account.sign_transaction(fields).raw_transaction)
            try:
                sent = str(ask(self.url, "eth_sendRawTransaction", "0x" + raw.hex()))
            except Unavailable:
                del self._nonces[key]
                raise
            self._nonces[key] += 1
        return bytes.fromhex(sent[2:])

    def get_receipt(self, transaction: bytes) -> Receipt | None:
        """The receipt, or None while it is not mined."""
        found = ask(self.url, "eth_getTransactionReceipt", "0x" + transaction.hex())
        if found is None:
            return None
        contract = found.get("contractAddress")
        return Receipt(
            transaction,
            int(found["status"], 16) == 1,
            int(found["gasUsed"], 16),
            int(found["blockNumber"], 16),
            bytes.fromhex(contract[2:]) if contract else None,
        )

    def wait_for_receipt(self, transaction: bytes, timeout_s: float = RECEIPT_TIMEOUT_S) -> Receipt:
        """The receipt; Unavailable ("not_mined") if it does not come."""
        deadline = time.monotonic() + timeout_s
        while (receipt := self.get_receipt(transaction)) is None:
            if time.monotonic() > deadline:
                raise Unavailable(
                    "a transaction was not mined", got=transaction, expected=f"within {timeout_s} s", reason="not_mined"
                )
            time.sleep(RECEIPT_POLL_S)
        return receipt

    def act(self, key: bytes, to: bytes, data: bytes, *, gas: int = CALL_GAS) -> Receipt:
        """Send, wait until it is mined; Rejected ("reverted") with the contract's word if it failed."""
        receipt = self.wait_for_receipt(self.transact(key, to, data, gas=gas))
        if not receipt.succeeded:
            raise Rejected(
                f"the contract refuses ({self._get_reason(key, to, data, receipt.block_number)})",
                got=data[:4],
                reason="reverted",
            )
        return receipt

    def deploy(self, key: bytes, code: bytes) -> tuple[bytes, Receipt]:
        """Create a contract: its 20-byte address and receipt; Rejected ("deployment") if that fails."""
        receipt = self.wait_for_receipt(self.transact(key, None, code, gas=DEPLOY_GAS))
        if not receipt.succeeded or receipt.contract is None:
            raise Rejected("a contract was not created", got=receipt.gas_used, reason="deployment")
        return receipt.contract, receipt

    # ------------------------------------------------------------------ reads

    def call(self, to: bytes, data: bytes, *, sender: bytes = bytes(20), tag: str = "latest") -> bytes:
        """Return data of a read at a block tag; Unavailable ("rpc_error") if it reverts."""
        request = {"from": "0x" + sender.hex(), "to": "0x" + to.hex(), "data": "0x" + data.hex()}
        return bytes.fromhex(str(ask(self.url, "eth_call", request, tag))[2:])

    def get_block(self, tag: str = "latest") -> tuple[int, int]:
        """(number, timestamp) of a block."""
        found = ask(self.url, "eth_getBlockByNumber", tag, False)
        return int(found["number"], 16), int(found["timestamp"], 16)

    def _get_reason(self, key: bytes, to: bytes, data: bytes, number: int) -> str:
        """The word of a revert: the call is made again on the state before its block."""
        try:
            self.call(to, data, sender=self._get_address(key), tag=hex(number - 1))
        except Unavailable as error:
            return error.what
        return "not reproducible by a call"


def wait_until(is_true: Callable[[], bool], what: str, timeout_s: float, poll_s: float = 0.25) -> None:
    """Wait for something that a node shows; Unavailable ("not_seen")."""
    deadline = time.monotonic() + timeout_s
    while not is_true():
        if time.monotonic() > deadline:
            raise Unavailable(f"waited in vain for: {what}", expected=f"within {timeout_s} s", reason="not_seen")
        time.sleep(poll_s)
