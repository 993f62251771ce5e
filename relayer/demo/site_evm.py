"""A simulated Ethereum chain of the demo's world."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

from chains.evm.codec import (
    compute_evm_vault_id,
    encode_approve,
    encode_call,
    encode_claim,
    encode_deposit,
    encode_link,
    encode_list_series,
    encode_mint,
    encode_offer,
    encode_request_withdrawal,
    encode_take,
    encode_token_args,
    encode_vault_args,
    get_revert_reason,
)
from chains.evm.forks import Preset
from chains.evm.sim import SimNetwork
from chains.registry import make_sim_config
from contracts.evm import get_artifact
from messages.canonical import decode_canonical
from messages.digests import get_address
from messages.ids import get_evm_account, get_evm_address
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

SLOT_S = 12
CALL_GAS = 3_000_000
DEPLOY_GAS = 16_000_000
DEMO_PRESET = Preset(slots_per_epoch=32, epochs_per_period=32, committee_size=512)
"""Main-net epochs and committees; shorter periods, so that the story sees the committee change."""


def encode_evm_call(call: Call, site: Site, token: bytes) -> tuple[bytes, bytes]:
    """Receiver (20 bytes) and calldata of a call at a site with an ERC-20 ``token`` (20 bytes)."""
    vault = get_evm_address(site.account)
    match call:
        case Mint(receiver, amount):
            return token, encode_mint(get_evm_address(receiver), amount)
        case Approve(amount):
            return token, encode_approve(vault, amount)
        case Deposit(amount, beneficiary):
            return vault, encode_deposit(site.asset, amount, beneficiary)
        case Link(portfolio, valid_until, signature):
            return vault, encode_link(portfolio, valid_until, signature)
        case ListSeries(definition):
            return vault, encode_list_series(definition)
        case Offer(side, series, quantity, premium, valid_until):
            return vault, encode_offer(side, series, site.asset, quantity, premium, valid_until)
        case Take(offer, quantity, nonce, for_house):
            return vault, encode_take(offer, quantity, nonce, for_house=for_house)
        case RequestWithdrawal(amount, for_house):
            return vault, encode_request_withdrawal(site.asset, amount, for_house=for_house)
        case Claim(account):
            return vault, encode_claim(account, site.asset)


class EvmSite(Site):
    """See `Site`; ``network`` is the simulated chain."""

    family: ClassVar = "evm"
    settle_s: ClassVar = 2 * SLOT_S

    def __init__(self, name: str, chain_number: int, clock: Callable[[], float], endpoints: int) -> None:
        super().__init__(name, f"eip155:{chain_number}")
        self.network: SimNetwork = SimNetwork(chain_number, clock, n_endpoints=endpoints, preset=DEMO_PRESET)
        self.start_height = self.network.chain.head.number
        self.token = b""

    def get_key(self, user: str) -> bytes:
        """See `Site`."""
        return self.network.make_key(user)

    def get_account_of(self, key: bytes) -> bytes:
        """See `Site`."""
        return get_evm_account(get_address(key))

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
        for key in gas_keys:
            self.network.fund(get_address(key))
        await pass_time(self.settle_s)
        token_code = get_artifact("erc20").bytecode + encode_token_args("Demo Dollar", "USDC", plan.decimals)
        self.token = await self._deploy(token_code, pass_time)
        self.asset = get_evm_account(self.token)
        args = encode_vault_args(
            plan.operators, plan.threshold, self.get_account(TREASURER), plan.delay_s, [(self.asset, *plan.caps)]
        )
        vault = await self._deploy(get_artifact("vault").bytecode + args, pass_time)
        self.account, self.vault_text = get_evm_account(vault), "0x" + vault.hex()
        self.vault_id = compute_evm_vault_id(self.network.chain_id, vault)
        self.caip19 = f"{self.chain}/erc20:0x{self.token.hex()}"
        self.created_at = self.network.chain.head.timestamp

    async def _deploy(self, code: bytes, pass_time: Callable[[float], Awaitable[None]]) -> bytes:
        sent = self.network.transact(self.get_key(DEPLOYER), None, code, gas=DEPLOY_GAS)
        await pass_time(self.settle_s)
        receipt = self.network.get_receipt(sent)
        if receipt is None or receipt.contract is None:
            raise RuntimeError(f"a contract was not created on {self.name}: {receipt}")
        return receipt.contract

    def send(self, user: str, call: Call) -> tuple[str, Call, bytes]:
        """See `Site`."""
        to, data = encode_evm_call(call, self, self.token)
        return user, call, self.network.transact(self.get_key(user), to, data, gas=CALL_GAS)

    def finish(self, sent: tuple[str, Call, bytes]) -> int:
        """See `Site`."""
        user, call, transaction = sent
        receipt = self.network.get_receipt(transaction)
        if receipt is None:
            raise RuntimeError(f"a transaction of {user} on {self.name} was not mined")
        self.verify_done(user, call, receipt.succeeded, get_revert_reason(receipt.output))
        return receipt.gas_used

    def spoil_endpoint(self, kind: str) -> str:
        """See `Site`."""
        endpoint = self.network.endpoints[0]
        if kind == "forge":
            endpoint.lies.forge_logs = True
            return f"{endpoint.name} changes one byte of each packet"
        endpoint.lies.drop_log_every = 2
        return f"{endpoint.name} withholds every second packet"

    def reorg(self) -> int | None:
        """See `Site`."""
        return int(self.network.reorg(1)[0].number)

    def tick(self) -> None:
        """See `Site`."""
        self.network.tick()

    def get_outbox_sequence(self) -> int:
        """See `Site`."""
        return int.from_bytes(self.network.call(get_evm_address(self.account), encode_call("outbox_sequence()")), "big")

    def get_tokens(self, account: bytes) -> int:
        """See `Site`."""
        data = encode_call("balanceOf(address)", get_evm_address(account))
        return int.from_bytes(self.network.call(self.token, data), "big")

    def make_table(self) -> dict[str, Any]:
        """See `Site`."""
        config = make_sim_config(self.network, get_evm_address(self.account))
        return {
            "family": "evm",
            "vault": self.vault_text,
            "checkpoint": "0x" + config.checkpoint.hex(),
            "start_height": self.start_height,
            "endpoints": [
                {"name": e.name, "execution": e.execution_url, "beacon": e.beacon_url} for e in config.endpoints
            ],
            "settings": decode_canonical(config.settings.encode()),
        }
