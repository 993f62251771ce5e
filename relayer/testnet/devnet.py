"""One chain of a testnet, whatever its family: its processes or given endpoints, how users reach it, what operators are configured with.

The harness knows `Devnet` and no family. A family is one module with two ways to make one: `start` (node software on this machine) and
`open_given` (endpoints that exist already).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from messages.errors import Rejected
from relayer.demo.scenario import ChainPlan
from relayer.demo.site import Site
from relayer.testnet.processes import LOOPBACK, Group, Process
from relayer.testnet.proxy import start_proxy

if TYPE_CHECKING:
    from relayer.testnet.given import GivenTable

MODULES: Mapping[str, str] = {
    "evm": "relayer.testnet.devnet_evm",
    "cosmos": "relayer.testnet.devnet_cosmos",
    "solana": "relayer.testnet.devnet_solana",
}


class Devnet(ABC):
    """See the module.

    name: in the scenario. site: users' side of it. endpoints: tables as an operator's configuration has them, at least one; of a local chain
    the first goes through ``proxies``, whose end is an endpoint's end.
    """

    def __init__(
        self, name: str, site: Site, endpoints: list[dict[str, str]], proxies: tuple[Process, ...] = ()
    ) -> None:
        self.name = name
        self.site = site
        self.endpoints = endpoints
        self.proxies = proxies

    @property
    def chain(self) -> str:
        """CAIP-2."""
        return self.site.chain

    @abstractmethod
    def get_anchor(self, timeout_s: float) -> tuple[bytes, dict[str, Any]]:
        """Checkpoint (32 bytes) and settings for an operator, once what `Site.create` made is final; blocks.

        Raises:
            Unavailable: not within the time ("not_ready"), or a process ended.
        """

    @abstractmethod
    def describe(self) -> str:
        """The chain and what makes its blocks, in a few words."""

    def get_endpoints(self, operator: int) -> list[dict[str, str]]:  # noqa: ARG002  most chains have the same for all
        """The endpoints of one operator, by its number."""
        return self.endpoints

    def make_table(self, timeout_s: float) -> dict[str, Any]:
        """The chain's table of an operator's configuration, without submit key; raises as `get_anchor`."""
        checkpoint, settings = self.get_anchor(timeout_s)
        return {
            **self.site.make_table(),
            "checkpoint": "0x" + checkpoint.hex(),
            "endpoints": self.endpoints,
            "settings": settings,
        }

    # ------------------------------------------------------------------ what goes wrong

    def stop_endpoint(self) -> str:
        """Take the first endpoint away from everybody: its name. Endpoints of others cannot be stopped: they have no proxies."""
        for proxy in self.proxies:
            proxy.kill()
        return self.endpoints[0]["name"]

    def start_endpoint(self) -> None:
        """Bring it back."""
        for proxy in self.proxies:
            proxy.start()

    def start_lies(self) -> tuple[str, str]:
        """Let an endpoint of all operators, and all those of one operator, lie from now on: their names, "" where none can."""
        return "", ""

    def count_lies(self) -> int:
        """How many states the lying endpoints have forged, each number once an endpoint."""
        return 0

    def kill_node(self) -> str:
        """End a node by SIGKILL: what it was, "" where there is none that the chain can do without for a while."""
        return ""

    def start_node(self) -> None:  # noqa: B027  a chain without such a node has none to start
        """Start it again from its files, and wait until it follows the chain."""


class GivenDevnet(Devnet):
    """Endpoints of a file, which also says the checkpoint; ``get_settings`` is asked once the vault is there."""

    def __init__(
        self,
        name: str,
        site: Site,
        endpoints: list[dict[str, str]],
        checkpoint: bytes,
        get_settings: Callable[[], dict[str, Any]],
    ) -> None:
        super().__init__(name, site, endpoints)
        self._checkpoint, self._get_settings = checkpoint, get_settings

    def get_anchor(self, timeout_s: float) -> tuple[bytes, dict[str, Any]]:  # noqa: ARG002  operators wait themselves
        """See `Devnet`."""
        return self._checkpoint, self._get_settings()

    def describe(self) -> str:
        """See `Devnet`."""
        return f"{self.chain} through given endpoints"


def start_devnet(group: Group, plan: ChainPlan, secret: bytes, *, slots_per_epoch: int, faults: bool) -> Devnet:
    """Start the node software of a chain of the scenario.

    Args:
        group: owner of the processes.
        plan: the chain's name, family and CAIP-2 id.
        secret: that users' keys come from.
        slots_per_epoch: of a chain that has epochs.
        faults: whether endpoints that can lie are wanted, where the family has any.

    Raises:
        Unavailable: a program is missing or does not start; says what to do.
    """
    found: Devnet = _get_module(plan.family).start(group, plan, secret, slots_per_epoch=slots_per_epoch, faults=faults)
    return found


def open_given(path: Path, plan: ChainPlan, given: GivenTable, secret: bytes) -> Devnet:
    """A chain of the scenario through the endpoints of a file; Rejected: its key cannot be opened, or the chain is no such chain."""
    found: Devnet = _get_module(plan.family).open_given(path, plan.name, given, secret)
    return found


def find_reason(families: tuple[str, ...]) -> str:
    """Why chains of these families cannot be started here, or ""; installs what can be installed quickly."""
    reasons = (str(_get_module(family).find_reason()) for family in dict.fromkeys(families))
    return next((reason for reason in reasons if reason), "")


def _get_module(family: str) -> Any:
    if family not in MODULES:
        raise Rejected("the testnet knows no such family", got=family, expected=sorted(MODULES), reason="usage")
    return import_module(MODULES[family])


def start_endpoint_proxy(group: Group, name: str, target: int) -> tuple[Process, str]:
    """A proxy before a loopback port, and its URL."""
    process, port = start_proxy(group, f"proxy-{name}", target)
    return process, f"http://{LOOPBACK}:{port}"
