"""A simulated Solana chain of the demo's world: the vault program and an SPL token."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, Protocol

from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM_PROGRAM
from solders.system_program import CreateAccountWithSeedParams, TransferParams, create_account_with_seed, transfer
from solders.token import ID as TOKEN_PROGRAM
from solders.token.associated import get_associated_token_address

from chains.registry import SIM_PREFIX
from chains.solana.address import decode_key
from chains.solana.codec import encode_observation
from chains.solana.observations import MIN_ENDPOINTS, compute_observation_digest
from chains.solana.sim import SimSolana
from chains.solana.types import Observation, OperatorSet, SignedObservation
from chains.solana.verifier import SolanaSettings, encode_settings
from contracts.solana import client as c
from messages.canonical import decode_canonical
from messages.digests import compute_vault_id, get_address, sign_digest
from messages.errors import Rejected
from messages.hashing import sha256
from messages.ids import HOUSE
from relayer.demo.calls import (
    Approve,
    Call,
    Claim,
    Deposit,
    Link,
    ListSeries,
    Mint,
    Offer,
    RequestWithdrawal,
    Take,
)
from relayer.demo.site import DEPLOYER, TREASURER, Site, VaultPlan

SETTLE_S = 2
"""A slot takes 0.4 s; virtual time goes by whole seconds."""
MINT_SEED = "demo dollar"
MINT_BYTES = 82
MINT_LAMPORTS = 2_000_000
"""More than an account of a mint must own to stay (1,461,600 lamports)."""
GIFT_LAMPORTS = 10 * 10**9
"""What an operator's wallet begins with: fees, and rent of the records that it opens for others."""
VAULT_NUMBER = 1
BUYS = 0
"""Side of an offer whose maker is the buyer."""
ASSOCIATED_PROGRAM = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")


class SolanaPlace(Protocol):
    """What a call needs to know of its site."""

    @property
    def vault(self) -> c.Vault:
        """Program and state account."""

    @property
    def asset(self) -> bytes:
        """The mint, 32 bytes."""

    def read(self, key: Pubkey) -> bytes | None:
        """Newest data of an account, None where there is none."""


def make_token_account(payer: Pubkey, owner: Pubkey, mint: Pubkey) -> Instruction:
    """Open the canonical token account of an owner; does nothing where it is open (associated token program, CreateIdempotent)."""
    accounts = [
        AccountMeta(payer, is_signer=True, is_writable=True),
        AccountMeta(get_associated_token_address(owner, mint), is_signer=False, is_writable=True),
        *(AccountMeta(k, is_signer=False, is_writable=False) for k in (owner, mint, SYSTEM_PROGRAM, TOKEN_PROGRAM)),
    ]
    return Instruction(ASSOCIATED_PROGRAM, bytes([1]), accounts)


def make_gifts(payer: Pubkey, targets: Sequence[Pubkey], lamports: int) -> list[Instruction]:
    """So many lamports for each of some wallets."""
    return [transfer(TransferParams(from_pubkey=payer, to_pubkey=target, lamports=lamports)) for target in targets]


def make_mint(authority: Pubkey, decimals: int) -> tuple[Pubkey, tuple[Instruction, ...]]:
    """A mint of the classic token program at an address that follows from its authority, which pays; (address, instructions)."""
    mint = Pubkey.create_with_seed(authority, MINT_SEED, TOKEN_PROGRAM)
    create = create_account_with_seed(
        CreateAccountWithSeedParams(
            from_pubkey=authority,
            to_pubkey=mint,
            base=authority,
            seed=MINT_SEED,
            lamports=MINT_LAMPORTS,
            space=MINT_BYTES,
            owner=TOKEN_PROGRAM,
        )
    )
    # InitializeMint2: decimals, mint authority, no freeze authority
    begin = Instruction(
        TOKEN_PROGRAM,
        bytes([20, decimals]) + bytes(authority) + bytes(33),
        [AccountMeta(mint, is_signer=False, is_writable=True)],
    )
    return mint, (create, begin)


def encode_solana_call(call: Call, caller: Pubkey, site: SolanaPlace) -> tuple[Instruction, ...]:
    """Instructions of a call, in one transaction signed by ``caller``; none where the family needs none (contracts/solana/README.md).

    Records and token accounts that the call fills are opened along with it; which they are is read from the newest state.

    Raises:
        Rejected: the offer to be taken is not there; reason ``reverted``.
    """
    vault, mint = site.vault, Pubkey.from_bytes(site.asset)
    match call:
        case Mint(receiver, amount):
            owner = Pubkey.from_bytes(receiver)
            accounts = [
                AccountMeta(mint, is_signer=False, is_writable=True),
                AccountMeta(get_associated_token_address(owner, mint), is_signer=False, is_writable=True),
                AccountMeta(caller, is_signer=True, is_writable=False),
            ]
            pay = Instruction(TOKEN_PROGRAM, struct.pack("<BQ", 7, amount), accounts)  # MintTo
            return make_token_account(caller, owner, mint), pay
        case Approve():
            return ()  # who deposits signs the transfer itself
        case Deposit(amount, beneficiary):
            deposit = c.make_deposit(vault, caller, site.asset, amount, beneficiary)
            return *_open(caller, site, c.get_balance_id(beneficiary, site.asset)), deposit
        case Link(portfolio, valid_until, signature):
            return (c.make_link(vault, caller, portfolio, valid_until, signature),)
        case ListSeries(definition):
            return (c.make_list_series(vault, caller, definition),)
        case Offer(side, series, quantity, premium, valid_until):
            number = c.decode_state(site.read(vault.state) or b"").offer_count + 1
            return (c.make_offer(vault, caller, number, side, series, site.asset, quantity, premium, valid_until),)
        case Take(number, quantity, nonce, for_house):
            return (_encode_take(number, quantity, nonce, caller, site, for_house=for_house),)
        case RequestWithdrawal(amount, for_house):
            return (c.make_request_withdrawal(vault, caller, site.asset, amount, for_house=for_house),)
        case Claim(account):
            claim = c.make_claim(vault, caller, account, site.asset)
            return make_token_account(caller, Pubkey.from_bytes(account), mint), claim


def _open(caller: Pubkey, site: SolanaPlace, record: c.Id) -> tuple[Instruction, ...]:
    is_open = site.read(site.vault.find(record)) is not None
    return () if is_open else (c.make_open(site.vault, caller, record),)


def _encode_take(
    number: int, quantity: int, nonce: int, caller: Pubkey, site: SolanaPlace, *, for_house: bool
) -> Instruction:
    record = c.get_offer_id(number)
    data = site.read(site.vault.find(record))
    if data is None:
        raise Rejected("no such offer", got=number, reason="reverted")
    maker, *_, side, _ = c.decode_record(record, data, bytes(site.vault.state))
    assert isinstance(maker, bytes)
    buyer = maker if side == BUYS else (HOUSE if for_house else bytes(caller))
    return c.make_take(site.vault, caller, number, quantity, nonce, buyer, site.asset, for_house=for_house)


class SolanaNetwork(Protocol):
    """What a site needs of its cluster, simulated or behind a door."""

    @property
    def program(self) -> Pubkey:
        """The vault program."""

    def read(self, address: Pubkey) -> bytes | None:
        """Newest data of an account, None where there is none."""

    def get_tokens(self, mint: bytes, owner: bytes) -> int:
        """Base units on the canonical token account of an owner."""


class VaultSite(Site):
    """A vault of this family, whatever makes the cluster's blocks: a site of it has its transactions sent and looked after."""

    family: ClassVar = "solana"
    network: SolanaNetwork

    def __init__(self, name: str, chain: str) -> None:
        super().__init__(name, chain)
        self.plan: VaultPlan | None = None
        """What the vault was created with; None before."""

    @property
    def vault(self) -> c.Vault:
        """See `SolanaPlace`."""
        return c.Vault(self.network.program, Pubkey.from_bytes(self.account))

    def read(self, key: Pubkey) -> bytes | None:
        """See `SolanaPlace`."""
        return self.network.read(key)

    def get_account_of(self, key: bytes) -> bytes:
        """See `Site`: the public key."""
        return bytes(Keypair.from_seed(key).pubkey())

    def make_creation(self, deployer: Pubkey, mint: Pubkey, plan: VaultPlan) -> tuple[Instruction, Instruction]:
        """Create the vault of a token, and open its token account; sets the site's attributes that are known beforehand."""
        program = self.network.program
        state = c.find_state(program, deployer, VAULT_NUMBER)
        self.plan, self.asset = plan, bytes(mint)
        self.account, self.vault_text = bytes(state), str(state)
        self.vault_id = compute_vault_id(self.chain, self.account)
        self.caip19 = f"{self.chain}/token:{mint}"
        create = c.make_create(
            program,
            deployer,
            VAULT_NUMBER,
            self.chain,
            plan.operators,
            plan.threshold,
            self.get_account(TREASURER),
            plan.delay_s,
            {self.asset: plan.caps},
        )
        return create, make_token_account(deployer, state, mint)

    def verify_creation(self) -> None:
        """Note when the vault was created; Rejected ("deployment") where it computes another id for itself."""
        state = self.get_state()
        self.created_at = state.accepted_at
        if state.vault_id != self.vault_id:
            raise Rejected(
                "the vault computes another id for itself",
                got=state.vault_id,
                expected=self.vault_id,
                reason="deployment",
            )

    def get_state(self) -> c.State:
        """The vault's newest state; Rejected ("bad_state") where there is none."""
        return c.decode_state(self.read(self.vault.state) or b"")

    def get_outbox_sequence(self) -> int:
        """See `Site`."""
        return self.get_state().outbox_sequence

    def get_tokens(self, account: bytes) -> int:
        """See `Site`."""
        return self.network.get_tokens(self.asset, account)


class SolanaSite(VaultSite):
    """See `Site`; ``network`` is the simulated chain. ``label``: what its genesis, and so its CAIP-2 name, is made from."""

    settle_s: ClassVar = SETTLE_S

    def __init__(self, name: str, label: str, clock: Callable[[], float], endpoints: int) -> None:
        network = SimSolana(label, clock, n_endpoints=max(endpoints, MIN_ENDPOINTS))
        super().__init__(name, network.chain)
        self.network: SimSolana = network

    def get_key(self, user: str) -> bytes:
        """See `Site`: an ed25519 seed."""
        return self.network.make_key(user)

    async def create(
        self,
        plan: VaultPlan,
        people: Sequence[str],
        gas_keys: Sequence[bytes],
        pass_time: Callable[[float], Awaitable[None]],
    ) -> None:
        """See `Site`."""
        for user in (DEPLOYER, TREASURER, *people):
            self.get_key(user)
        deployer = Keypair.from_seed(self.get_key(DEPLOYER)).pubkey()
        targets = [Keypair.from_seed(key).pubkey() for key in gas_keys]
        await self._include(make_gifts(deployer, targets, GIFT_LAMPORTS), pass_time)
        mint, instructions = make_mint(deployer, plan.decimals)
        await self._include(instructions, pass_time)
        self.start_height = self.network.get_slot()
        await self._include(self.make_creation(deployer, mint, plan), pass_time)
        self.verify_creation()

    async def _include(
        self, instructions: Sequence[Instruction], pass_time: Callable[[float], Awaitable[None]]
    ) -> None:
        sent = self.network.send(self.get_key(DEPLOYER), instructions)
        await pass_time(self.settle_s)
        result = self.network.get_result(sent)
        if result is None or result.error:
            raise RuntimeError(f"token and vault were not created on {self.name}: {result and result.error}")

    def send(self, user: str, call: Call) -> tuple[str, Call, Any] | None:
        """See `Site`."""
        key = self.get_key(user)
        instructions = encode_solana_call(call, Keypair.from_seed(key).pubkey(), self)
        return (user, call, self.network.send(key, instructions)) if instructions else None

    def finish(self, sent: tuple[str, Call, Any]) -> int:
        """See `Site`: compute units."""
        user, call, signature = sent
        result = self.network.get_result(signature)
        if result is None:
            raise RuntimeError(f"a transaction of {user} on {self.name} is in no block")
        self.verify_done(user, call, not result.error, result.error)
        return result.units

    def spoil_endpoint(self, kind: str) -> str:
        """See `Site`. Who forges here lies about the vault's account too, which is what operators sign."""
        endpoint = self.network.endpoints[0]
        if kind == "forge":
            endpoint.lies.forge_events = endpoint.lies.forge_head = True
            return f"{endpoint.name} changes one byte of each packet and of the vault's head"
        endpoint.lies.drop_event_every = 2
        return f"{endpoint.name} withholds every second packet"

    def reorg(self) -> int | None:
        """See `Site`: the transactions go into a block of the other branch."""
        slot = self.network.get_slot()
        return slot if self.network.fork(include=True) else None

    def forge_statement(self, operator_key: bytes) -> bytes | None:
        """See `Site`."""
        slot = self.network.compute_view().finalized
        account = self.network.bank.get_account(self.vault.state, slot)
        state = c.decode_state(bytes(account.data) if account is not None else b"")
        lie = Observation(
            self.vault_id, slot, self.network.bank.compute_time(slot), state.outbox_sequence, sha256(state.outbox_head)
        )
        signature = sign_digest(operator_key, compute_observation_digest(lie))
        return encode_observation(SignedObservation(lie, get_address(operator_key), signature))

    def tick(self) -> None:
        """See `Site`."""
        self.network.tick()

    def make_table(self) -> dict[str, Any]:
        """See `Site`. What they may believe is a cluster, by its genesis hash, and the operators that the vault was created with."""
        if self.plan is None:
            raise RuntimeError(f"the vault on {self.name} is not created yet")
        operators = OperatorSet(self.created_at, self.plan.operators, self.plan.threshold)
        settings = encode_settings(SolanaSettings(bytes(self.network.program), (operators,)))
        return {
            "family": "solana",
            "vault": self.vault_text,
            "checkpoint": "0x" + decode_key(self.network.genesis_hash).hex(),
            "start_height": self.start_height,
            "endpoints": [{"name": e.name, "rpc": SIM_PREFIX + e.name} for e in self.network.endpoints],
            "settings": decode_canonical(settings.encode()),
        }
