"""One Solana chain as users see it: signed transactions and reads over one JSON-RPC, local or public.

What `relayer.testnet.door` is for Ethereum. The calls block; the harness runs them in threads. Keys are seeds derived from a seed and a name;
lamports come from a faucet key that the caller hands in. The relayer's own way to this family is `chains.solana`: nothing here is used by it.

Source: Solana's JSON-RPC documentation; `contracts/solana/README.md`.
"""

from __future__ import annotations

import base64
import re
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.token.associated import get_associated_token_address
from solders.transaction import VersionedTransaction

from contracts.solana.client import ERRORS
from messages.errors import Rejected, Unavailable
from relayer.testnet.surfpool import ask_solana

FUND_LAMPORTS = 1_000_000_000
COMMITMENT = "confirmed"
"""What a user waits for; operators wait for more."""
UNITS = 1_400_000
UNIT_PRICE = 1
"""Micro-lamports a compute unit."""
TX_TIMEOUT_S = 60.0
TX_POLL_S = 0.2
MAX_TRANSFERS = 18
"""In one transaction of at most 1,232 bytes: each names one more account, 32 bytes, and takes about 20 more."""
TOKEN_AMOUNT_AT = 64
"""Of a token account: mint and owner come before it, 32 bytes each."""


@dataclass(frozen=True)
class Done:
    """What became of a transaction that succeeded. ``signature``: base58. ``units``: compute units it used."""

    signature: str
    slot: int
    units: int


class SolanaDoor:
    """See the module. ``program``: the vault program's id. ``lamports`` is what `fund` gives each account."""

    def __init__(
        self, url: str, program: Pubkey, faucet_key: bytes, seed: bytes, lamports: int = FUND_LAMPORTS
    ) -> None:
        self.url = url
        self.program = program
        self._faucet = faucet_key
        self._seed = seed
        self._lamports = lamports
        self._lock = threading.Lock()

    def ask(self, method: str, *params: Any) -> Any:
        """The result of one call; raises as `ask_solana`."""
        return ask_solana(self.url, method, params)

    # ------------------------------------------------------------------ people

    def get_key(self, name: str) -> bytes:
        """An ed25519 seed, 32 bytes, that depends on seed, program and name alone."""
        return sha256(b"optsettle testnet key " + bytes(self.program) + self._seed + b" " + name.encode()).digest()

    def fund(self, *accounts: bytes) -> None:
        """Send lamports to 32-byte accounts that have little, and wait until they own them."""
        sender = Keypair.from_seed(self._faucet).pubkey()
        poor = [a for a in dict.fromkeys(accounts) if self.get_lamports(a) < self._lamports // 2]
        for begin in range(0, len(poor), MAX_TRANSFERS):
            self.act(
                self._faucet,
                [
                    transfer(
                        TransferParams(from_pubkey=sender, to_pubkey=Pubkey.from_bytes(a), lamports=self._lamports)
                    )
                    for a in poor[begin : begin + MAX_TRANSFERS]
                ],
            )

    def get_lamports(self, account: bytes) -> int:
        """Lamports of an account."""
        return int(self.ask("getBalance", str(Pubkey.from_bytes(account)), {"commitment": COMMITMENT})["value"])

    # ------------------------------------------------------------------ reads

    def read(self, key: Pubkey) -> bytes | None:
        """Data of an account as it is now, None where there is none."""
        config = {"commitment": COMMITMENT, "encoding": "base64"}
        found = self.ask("getAccountInfo", str(key), config)["value"]
        return None if found is None else base64.b64decode(found["data"][0])

    def get_tokens(self, mint: bytes, owner: bytes) -> int:
        """Tokens on the owner's canonical token account, in base units."""
        data = self.read(get_associated_token_address(Pubkey.from_bytes(owner), Pubkey.from_bytes(mint)))
        return 0 if data is None else int(struct.unpack_from("<Q", data, TOKEN_AMOUNT_AT)[0])

    def get_slot(self, commitment: str = COMMITMENT) -> int:
        """The newest slot of a commitment."""
        return int(self.ask("getSlot", {"commitment": commitment}))

    # ------------------------------------------------------------------ transactions

    def act(self, key: bytes, instructions: Sequence[Instruction]) -> Done:
        """Sign and send a transaction and wait until it is confirmed.

        Raises:
            Rejected: it fails ("reverted", with the vault's word), or the node does not take it. Unavailable: "not_mined", "unreachable".
        """
        with self._lock:
            signature = self._send(key, instructions)
        deadline = time.monotonic() + TX_TIMEOUT_S
        while (found := self._find(signature)) is None:
            if time.monotonic() > deadline:
                raise Unavailable(
                    "a transaction is in no block",
                    got=signature,
                    expected=f"within {TX_TIMEOUT_S} s",
                    reason="not_mined",
                )
            time.sleep(TX_POLL_S)
        return found

    def _send(self, key: bytes, instructions: Sequence[Instruction]) -> str:
        signer = Keypair.from_seed(key)
        newest = self.ask("getLatestBlockhash", {"commitment": COMMITMENT})["value"]["blockhash"]
        budget = [set_compute_unit_limit(UNITS), set_compute_unit_price(UNIT_PRICE)]
        message = MessageV0.try_compile(signer.pubkey(), [*budget, *instructions], [], Hash.from_string(newest))
        raw = bytes(VersionedTransaction(message, [signer]))
        config = {"encoding": "base64", "preflightCommitment": COMMITMENT}
        try:
            return str(self.ask("sendTransaction", base64.b64encode(raw).decode(), config))
        except Rejected as error:
            raise Rejected(f"the chain refuses ({tell(error.what)})", reason="reverted") from error

    def _find(self, signature: str) -> Done | None:
        config = {"commitment": COMMITMENT, "encoding": "json", "maxSupportedTransactionVersion": 0}
        found = self.ask("getTransaction", signature, config)
        if found is None:
            return None
        if found["meta"]["err"] is not None:
            raise Rejected(f"the chain refuses ({tell(str(found['meta']['err']))})", reason="reverted")
        return Done(signature, int(found["slot"]), int(found["meta"]["computeUnitsConsumed"]))


def tell(error: str) -> str:
    """The vault's word for a custom error code in what a node says, else the end of the whole."""
    found = re.search(r"['\"]Custom['\"]: ?(\d+)", error)
    if found is None or int(found[1]) not in ERRORS:
        return error[-400:]
    return ERRORS[int(found[1])]
