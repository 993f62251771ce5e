"""A Solana chain of a testnet: surfpool with its front on this machine, or given endpoints."""

from __future__ import annotations

import os
import signal
from hashlib import sha256
from pathlib import Path
from typing import Any

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from chains.solana.address import decode_key, encode_key
from chains.solana.types import OperatorSet
from chains.solana.verifier import SolanaSettings, encode_settings
from contracts.solana import get_program
from messages.canonical import decode_canonical
from messages.errors import Rejected
from relayer.demo.scenario import ChainPlan
from relayer.testnet.devnet import Devnet, GivenDevnet, start_endpoint_proxy
from relayer.testnet.door import wait_until
from relayer.testnet.given import GivenSolana, open_key
from relayer.testnet.lying_proxy import start_lying_proxy
from relayer.testnet.processes import LOOPBACK, Group, Process
from relayer.testnet.site_solana import LiveSolanaSite
from relayer.testnet.solana_door import SolanaDoor
from relayer.testnet.surfnet_front import CLOCK
from relayer.testnet.surfpool import Surfnet, ask_solana, find_surfnet, start_surfnet

ENDPOINTS = ("proxied", "second", "third", "fourth")
"""Names of the proxies before the one front; the first is taken away, the last lies in a run with faults."""
CAIP2_CHARACTERS = 32
"""How much of the genesis hash names a cluster (CAIP-30)."""
FAUCET_LAMPORTS = 10**12
CAPTURED = 3
"""The operator whose endpoints all lie in a run with faults."""


class SurfnetDevnet(Devnet):
    """See the module. ``liars``: processes of endpoints that can lie: the fourth of everybody, and all those of one operator."""

    site: LiveSolanaSite

    def __init__(
        self,
        name: str,
        site: LiveSolanaSite,
        network: Surfnet,
        endpoints: list[dict[str, str]],
        proxies: tuple[Process, ...],
        liars: tuple[Process, ...],
        captured: list[dict[str, str]],
    ) -> None:
        super().__init__(name, site, endpoints, proxies)
        self._network = network
        self.liars = liars
        self._captured = captured

    def get_endpoints(self, operator: int) -> list[dict[str, str]]:
        """See `Devnet`: one operator believes only endpoints of the liar in a run with faults."""
        return self._captured if operator == CAPTURED and self._captured else self.endpoints

    def get_anchor(self, timeout_s: float) -> tuple[bytes, dict[str, Any]]:
        """See `Devnet`: every endpoint answers with the vault's finalized state."""
        config = {"commitment": "finalized", "encoding": "base64", "minContextSlot": self.site.start_height}
        keys = [self.site.vault_text, CLOCK]

        def is_final() -> bool:
            try:
                found = [ask_solana(e["rpc"], "getMultipleAccounts", [keys, config]) for e in self.endpoints]
            except Rejected:
                return False
            return all(one["value"][0] is not None for one in found)

        wait_until(is_final, f"finality of slot {self.site.start_height} of {self.chain}", timeout_s)
        return get_genesis(self._network.url), make_settings(self.site)

    def describe(self) -> str:
        """See `Devnet`."""
        return f"{self.chain} on surfpool, finalized about 31 slots behind, four endpoints"

    def start_lies(self) -> tuple[str, str]:
        """See `Devnet`."""
        if not self.liars:
            return "", ""
        for liar in self.liars:
            os.kill(liar.pid, signal.SIGUSR1)
        return ENDPOINTS[-1], f"op{CAPTURED}"

    def count_lies(self) -> int:
        """See `Devnet`."""
        return sum(event.get("event") == "forged" for liar in self.liars for event in liar.get_events())


def make_settings(site: LiveSolanaSite) -> dict[str, Any]:
    """The settings table of an operator's configuration: the program, and the operators that the vault was created with, from the beginning."""
    if site.plan is None:
        raise RuntimeError("there is no vault yet")
    operators = OperatorSet(0, tuple(site.plan.operators), site.plan.threshold)
    found: dict[str, Any] = decode_canonical(
        encode_settings(SolanaSettings(bytes(site.network.program), (operators,))).encode()
    )
    return found


def get_chain(genesis: bytes) -> str:
    """CAIP-2 name of a cluster by its genesis hash (32 bytes)."""
    return f"solana:{encode_key(genesis)[:CAIP2_CHARACTERS]}"


def get_genesis(url: str) -> bytes:
    """The genesis hash (32 bytes) of the cluster that an endpoint serves."""
    return decode_key(str(ask_solana(url, "getGenesisHash")))


def start(group: Group, plan: ChainPlan, secret: bytes, *, slots_per_epoch: int, faults: bool) -> SurfnetDevnet:  # noqa: ARG001  no epochs here
    """See `start_devnet`."""
    network = start_surfnet(group, f"surfnet-{plan.name}")
    program = Keypair.from_seed(sha256(secret + b" program " + plan.name.encode()).digest()).pubkey()
    network.install_program(str(program), get_program("vault"))
    faucet = sha256(secret + b" faucet " + plan.name.encode()).digest()
    ask_solana(network.url, "requestAirdrop", [str(Keypair.from_seed(faucet).pubkey()), FAUCET_LAMPORTS])
    endpoints, proxies = [], []
    for name in ENDPOINTS:
        if faults and name == ENDPOINTS[-1]:
            continue
        proxy, url = start_endpoint_proxy(group, f"rpc-{plan.name}-{name}", network.port)
        endpoints.append({"name": name, "rpc": url})
        proxies.append(proxy)
    liars: list[Process] = []
    captured: list[dict[str, str]] = []
    if faults:
        liar, port = start_lying_proxy(group, f"liar-{plan.name}", network.port)
        captor, captor_port = start_lying_proxy(group, f"captor-{plan.name}", network.port, is_ahead=True)
        liars = [liar, captor]
        endpoints.append({"name": ENDPOINTS[-1], "rpc": f"http://{LOOPBACK}:{port}"})
        captured = [{"name": n, "rpc": f"http://{LOOPBACK}:{captor_port}/{n}"} for n in ENDPOINTS]
    door = SolanaDoor(network.url, program, faucet, secret)
    site = LiveSolanaSite(plan.name, get_chain(get_genesis(network.url)), door)
    return SurfnetDevnet(plan.name, site, network, endpoints, tuple(proxies[:1]), tuple(liars), captured)


def open_given(path: Path, name: str, given: GivenSolana, secret: bytes) -> GivenDevnet:
    """See `devnet.open_given`: the endpoints must be of the chain that the file names."""
    url = given.endpoints[0].rpc
    door = SolanaDoor(url, Pubkey.from_string(given.program), open_key(path, given), secret, int(given.fund_lamports))
    genesis, expected = get_genesis(url), decode_key(given.genesis_hash)
    if genesis != expected:
        raise Rejected("the endpoint serves another cluster", got=genesis, expected=expected, reason="bad_config")
    site = LiveSolanaSite(name, get_chain(genesis), door)
    endpoints = [e.model_dump() for e in given.endpoints]
    # the genesis hash is all that there is of a checkpoint in this family
    return GivenDevnet(name, site, endpoints, genesis, lambda: make_settings(site))


def find_reason() -> str:
    """See `devnet.find_reason`: half an hour of building is not done unasked."""
    if find_surfnet() is None:
        return "surfpool is not built: `make surfpool` builds it with cargo"
    return ""
