"""A vault on a simulated Solana cluster, with its operators and what they say: for the tests of the adapter."""

from __future__ import annotations

from hashlib import sha256

from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer

from chains.registry import build_solana_sim_chain, make_solana_sim_config
from chains.sim_clock import ManualClock
from chains.solana.codec import decode_unsigned
from chains.solana.observations import compute_observation_digest
from chains.solana.sim import SimSolana
from chains.solana.types import OperatorSet
from contracts.solana import client as c
from messages import bodies as b
from messages.digests import Certificate, compute_packet_digest, get_address, sign_digest
from messages.ids import get_vault_client
from messages.packet import Packet, Payload, compute_commitment
from tests.builders import OPERATOR_KEYS

START = 1_800_000_000
KEYS = tuple(sorted(OPERATOR_KEYS[:4], key=get_address))
OPERATORS = tuple(get_address(key) for key in KEYS)
SETS = (OperatorSet(0, OPERATORS, 3),)
CAP = 10**12
DELAY_S = 86_400


class Site:
    """One cluster, one vault, a maker with tokens, and the chain object of one node over all endpoints."""

    def __init__(self, name, *, n_endpoints=4, **changes):
        self.clock = ManualClock(START)
        self.sim = SimSolana(name, self.clock, n_endpoints)
        self.maker = self.sim.make_key("maker")
        self.account = self.sim.get_account_key(self.maker)
        self.mint = self.sim.create_mint(6)
        self.sim.mint_to(self.mint, self.account, 10**12)
        self.state = self.sim.create_vault(self.maker, OPERATORS, 3, self.account, DELAY_S, {self.mint: (CAP,) * 3})
        self.vault = c.Vault(self.sim.program, Pubkey.from_bytes(self.state))
        self.gas_key = self.sim.make_key("gas")
        self.chain = self.build(**changes)
        self.client = get_vault_client(self.chain.vault_id)
        self.lies = [endpoint.lies for endpoint in self.sim.endpoints]

    def build(self, submit_key=None, **changes):
        """A chain object that knows nothing yet, as after a restart."""
        return build_solana_sim_chain(self.sim, self.state, submit_key, operator_sets=SETS, **changes)

    def make_config(self):
        return make_solana_sim_config(self.sim, self.state, SETS)

    def now(self):
        return int(self.clock())

    # ---- what happens on the chain ----

    def deposit(self, *amounts):
        key = Pubkey.from_bytes(self.account)
        for amount in amounts:
            self.sim.send(self.maker, [c.make_deposit(self.vault, key, self.mint, amount, self.account)])

    def spam(self, count):
        """Transactions that name the vault's account and do nothing with the vault."""
        key = Pubkey.from_bytes(self.account)
        nothing = transfer(TransferParams(from_pubkey=key, to_pubkey=self.vault.state, lamports=0))
        for _ in range(count):
            self.sim.send(self.maker, [nothing])

    def finalize(self):
        self.sim.finalize()

    # ---- what operators say ----

    async def speak(self, *keys, chain=None, listener=None):
        """Operators sign what ``chain``'s endpoints show; ``listener`` (default: the site's chain) hears it."""
        chain, listener = chain or self.chain, listener or self.chain
        seen = await chain.observer.observe(self.now())
        for key in keys or KEYS:
            self.say(chain, seen, key, listener)
        return seen

    def say(self, chain, seen, key, listener=None):
        digest = compute_observation_digest(decode_unsigned(seen.claim))
        data = chain.observer.encode_signed(seen.claim, get_address(key), sign_digest(key, digest))
        return (listener or self.chain).observer.accept(data, self.now())

    # ---- what the clearing decides ----

    def make_certificate(self, sequence, body, *, timeout=None, keys=KEYS[:3]):
        payload = Payload(b.PORT, b.PORT, b.VERSION, b.ENCODING, b.encode_body(body))
        timeout = self.now() + 300 if timeout is None else timeout
        packet = Packet(sequence, self.client, b.CLEARING_CLIENT, timeout, (payload,))
        digest = compute_packet_digest(self.chain.vault_id, 0, sequence, compute_commitment(packet))
        return Certificate(packet, self.chain.vault_id, 0, tuple(sign_digest(key, digest) for key in keys))

    def make_payout(self, count):
        """An Execute that moves one unit from the maker to each of ``count`` accounts that have no record yet."""
        accounts = sorted(sha256(b"payee %d" % i).digest() for i in range(count))
        legs = [b.Leg(0, account, self.mint, 1) for account in accounts] + [b.Leg(0, self.account, self.mint, -count)]
        return b.Execute(sha256(b"a plan").digest(), (), tuple(sorted(legs, key=lambda leg: (leg.account, leg.kind))))
