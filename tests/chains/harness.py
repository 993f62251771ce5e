"""What the contract suite asks of a harness beyond its chain, with the answers of families whose headers prove states."""

from __future__ import annotations

from typing import Any, ClassVar

from chains import base


class HeaderHarness:
    """A family with a light client: whoever lies is an endpoint, and a node hears nothing but its endpoints."""

    chain: base.Chain[Any, Any, Any, Any]

    expires: ClassVar[bool] = True
    """Whether a trusted state grows too old to build on."""
    told: ClassVar[frozenset[str]] = frozenset()
    """Lies that must be told before operators speak of the state: afterwards they change nothing of what is believed."""
    is_spoken: ClassVar[bool] = False
    """Whether headers are words of operators instead of answers of endpoints."""

    waiting: ClassVar[base.Outcome] = base.Outcome.PENDING
    """What endpoints tell of a transaction that they were sent and that is in no block."""

    async def hear(self) -> tuple[base.Blame, ...]:
        """What operators say reaches the node; who is to blame for what they say or cannot say."""
        return ()

    async def restart(self, trusted: Any) -> Any:
        """A node that remembers nothing but the trusted state; the state from which it goes on."""
        self.chain = self.make_chain()
        return trusted

    def make_chain(self) -> base.Chain[Any, Any, Any, Any]:
        """A chain object as after a restart: nothing is remembered but the configuration."""
        raise NotImplementedError

    def get_source(self, index: int) -> str:
        """Name of an endpoint."""
        raise NotImplementedError

    def get_liar(self, index: int, kind: str) -> str:
        """Who must be named for a lie: the endpoint, or the operator where the lie is an operator's."""
        del kind
        return self.get_source(index)
