"""The Ethereum family for the contract suite: a simulated network, the real vault, a funded user and four operators."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from chains import base
from chains.evm.codec import (
    encode_approve,
    encode_deposit,
    encode_mint,
    encode_token_args,
    encode_vault_args,
)
from chains.evm.sim import ManualClock, SimNetwork
from chains.evm.sim_rpc import Lies
from chains.registry import build_sim_chain
from contracts.evm import get_artifact
from messages.bodies import InboxBody, make_inbox_packet
from messages.digests import Certificate, compute_packet_digest, get_address, sign_digest
from messages.ids import get_evm_account
from messages.outbox import get_start_cursor
from messages.packet import compute_commitment
from tests.builders import OPERATOR_KEYS, OPERATORS
from tests.chains.harness import HeaderHarness

START = 1_800_000_000
CHAIN_ID = 31337
CAP = 10**12


class EvmHarness(HeaderHarness):
    """See the head of `tests.chains.test_every_family`."""

    # how the family spells what the suite wants to see refused
    update_reasons: ClassVar = {
        "bad_signature": "bad_signature",
        "too_few": "participation",
        "future": "future",
        "forged_state": "bad_finality",
    }

    def __init__(self, n_endpoints: int = 2, **network: Any) -> None:
        self.clock = ManualClock(START)
        self.network = net = SimNetwork(CHAIN_ID, self.clock, n_endpoints, **network)
        self.user_key = net.make_key("user")
        self.submit_key = net.make_key("submitter")
        net.mine()
        self.token = net.deploy(get_artifact("erc20").bytecode, encode_token_args("USD Coin", "USDC", 6), self.user_key)
        self.asset = get_evm_account(self.token)
        self.user = get_evm_account(get_address(self.user_key))
        args = encode_vault_args(OPERATORS, 3, self.user, 86_400, [(self.asset, CAP, CAP, CAP)])
        self.vault = net.deploy(get_artifact("vault").bytecode, args, self.user_key)
        net.transact(self.user_key, self.token, encode_mint(get_address(self.user_key), CAP))
        net.transact(self.user_key, self.token, encode_approve(self.vault, 2**256 - 1))
        net.finalize()
        self.move_checkpoint()
        self.chain = self.make_chain()
        self.start = get_start_cursor(self.chain.vault_id)

    def move_checkpoint(self) -> None:
        self.checkpoint = self.network.get_checkpoint()

    def make_chain(self, **changes: Any) -> base.Chain[Any, Any, Any, Any]:
        """A chain object as after a restart: nothing is remembered but the configuration."""
        return build_sim_chain(self.network, self.vault, self.submit_key, checkpoint=self.checkpoint, **changes)

    def now(self) -> int:
        return self.clock()

    # ---- what happens on the chain

    def deposit(self, amount: int) -> None:
        """One outbox packet: Deposited(user, asset, amount), in a block, not yet final."""
        self.network.transact(self.user_key, self.vault, encode_deposit(self.asset, amount, self.user))
        self.network.mine()

    def mine(self) -> None:
        self.network.mine()

    def finalize(self) -> None:
        self.network.finalize()

    def reorg(self) -> None:
        """The newest block is replaced by one without its transactions; they wait again."""
        self.network.reorg(1)

    def certify(self, sequence: int, body: InboxBody, timeout_s: int = 1800) -> Certificate:
        packet = make_inbox_packet(self.chain.vault_id, sequence, self.now() + timeout_s, body)
        digest = compute_packet_digest(self.chain.vault_id, 0, sequence, compute_commitment(packet))
        signatures = tuple(sign_digest(key, digest) for key in OPERATOR_KEYS[:3])
        return Certificate(packet, self.chain.vault_id, 0, signatures)

    # ---- lies

    def lie(self, index: int, kind: str) -> None:
        """Make one endpoint misbehave in one way."""
        lies = self.network.endpoints[index].lies
        match kind:
            case "down":
                lies.down = True
            case "wrong_chain":
                lies.chain_id = 1
            case "stall":
                lies.stall_slot = self.network.beacon.blocks[0].slot + 1
            case "withhold_all":
                lies.drop_logs = True
            case "withhold_some":
                lies.drop_log_every = 2
            case "forge_packet":
                lies.forge_logs = True
            case "undone":
                lies.removed_logs = True
            case "forge_head":
                lies.forge_head = True
            case "forge_number":
                lies.forge_sequence = 7
            case "bad_signature":
                lies.forge_signature = True
            case "too_few":
                lies.participation = 341
            case "future":
                lies.clock_ahead_s = 3600
            case "forged_state":
                lies.forge_finality = True
            case "equivocate":
                lies.equivocate = True
            case _:
                raise ValueError(kind)

    def be_honest(self) -> None:
        for endpoint in self.network.endpoints:
            vars(endpoint.lies).update(vars(Lies()))

    def get_source(self, index: int) -> str:
        return self.network.endpoints[index].name

    # ---- the pieces of the road

    async def bootstrap(self) -> Any:
        return (await base.bootstrap(self.chain, self.now()))[1]

    async def get_update(self, trusted: Any, index: int = 0) -> Any:
        return await self.chain.reader.update(self.get_source(index), trusted)

    def change_packet(self, claim: Any) -> Any:
        """The same claim with another amount, still well formed."""
        payload = claim.packet.payloads[0]
        value = payload.value[:-1] + bytes([payload.value[-1] ^ 1])
        return replace(claim, packet=replace(claim.packet, payloads=(replace(payload, value=value),)))
