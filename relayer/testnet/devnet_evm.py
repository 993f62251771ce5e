"""An Ethereum chain of a testnet: anvil with a consensus sidecar beside it, or given endpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from messages.canonical import decode_canonical
from messages.errors import Unavailable
from relayer.demo.scenario import ChainPlan
from relayer.testnet.devnet import Devnet, GivenDevnet, start_endpoint_proxy
from relayer.testnet.door import Door, get_faucet_key
from relayer.testnet.given import GivenEvm, open_key
from relayer.testnet.nodes import Beacon, SidecarSizes, find_anvil, install_anvil, start_anvil, start_sidecar
from relayer.testnet.processes import Group, Process
from relayer.testnet.site_evm import LiveEvmSite

BLOCK_S = 2
"""Twice the slot of the sidecar: on a busy machine anvil stamps two blocks with one second if they are a second apart, and no slot has two."""


class AnvilDevnet(Devnet):
    """See the module."""

    def __init__(
        self,
        name: str,
        site: LiveEvmSite,
        beacon: Beacon,
        endpoints: list[dict[str, str]],
        proxies: tuple[Process, ...],
    ) -> None:
        super().__init__(name, site, endpoints, proxies)
        self._beacon = beacon

    def get_anchor(self, timeout_s: float) -> tuple[bytes, dict[str, Any]]:
        """See `Devnet`: the first finalized block that the vault stands in."""
        checkpoint, _ = self._beacon.wait_for_finalized(self.site.start_height, timeout_s)
        return checkpoint, decode_canonical(self._beacon.settings.encode())

    def describe(self) -> str:
        """See `Devnet`."""
        sizes = self._beacon.sizes
        return f"{self.chain} on anvil with a sidecar (epochs of {sizes.slots_per_epoch} slots of {sizes.seconds_per_slot} s)"


def start(group: Group, plan: ChainPlan, secret: bytes, *, slots_per_epoch: int, faults: bool) -> AnvilDevnet:  # noqa: ARG001  nobody lies here
    """See `start_devnet`."""
    number = int(plan.chain.partition(":")[2])
    node = start_anvil(group, f"anvil-{plan.name}", number, BLOCK_S)
    beacon = start_sidecar(group, f"sidecar-{plan.name}", node, SidecarSizes(slots_per_epoch=slots_per_epoch))
    execution, execution_url = start_endpoint_proxy(group, f"execution-{plan.name}", node.port)
    consensus, beacon_url = start_endpoint_proxy(group, f"beacon-{plan.name}", beacon.port)
    endpoints = [
        {"name": "proxied", "execution": execution_url, "beacon": beacon_url},
        {"name": "direct", "execution": node.url, "beacon": beacon.url},
    ]
    site = LiveEvmSite(plan.name, plan.chain, Door(node.url, number, get_faucet_key(), secret))
    return AnvilDevnet(plan.name, site, beacon, endpoints, (execution, consensus))


def open_given(path: Path, name: str, given: GivenEvm, secret: bytes) -> GivenDevnet:
    """See `devnet.open_given`."""
    door = Door(given.endpoints[0].execution, given.chain_id, open_key(path, given), secret, int(given.fund_wei))
    endpoints = [e.model_dump() for e in given.endpoints]
    checkpoint = bytes.fromhex(given.checkpoint[2:])
    return GivenDevnet(
        name, LiveEvmSite(name, f"eip155:{given.chain_id}", door), endpoints, checkpoint, lambda: given.settings
    )


def find_reason() -> str:
    """See `devnet.find_reason`."""
    if find_anvil() is None:
        try:
            install_anvil()
        except Unavailable as error:
            return str(error)
    return ""
