"""Named places where a crash test ends the process with SIGKILL, as the machine might (incidents.md, fault 1).

A point does nothing unless RELAYER_KILL_AT names it: ``name`` for its first passage, ``name:3`` for its third. The variable
is read when this module is imported (or by `arm`, after a fork); only the child processes of tests/crash set it.
"""

from __future__ import annotations

import os
import signal

NAMES = (
    "before_facts",
    "after_facts",
    "after_fates",
    "after_vote_journal",
    "after_vote",
    "after_packet_journal",
    "after_signatures",
    "after_certificate",
    "after_intent",
    "after_raw_tx",
    "after_send",
    "after_sent_record",
)
"""Every point, in the order of a settlement."""


def _parse(text: str) -> tuple[str, int]:
    name, _, count = text.partition(":")
    return name, int(count or 1)


_target, _passages_left = _parse(os.environ.get("RELAYER_KILL_AT", ""))


def arm() -> None:
    """Read the variable again: for a child that was forked after the import."""
    global _target, _passages_left
    _target, _passages_left = _parse(os.environ.get("RELAYER_KILL_AT", ""))


def reach(name: str) -> None:
    """Pass a named point; ends the process at once if a crash test asked for it."""
    global _passages_left  # noqa: PLW0603  one process, one target
    if _target and name == _target:
        _passages_left -= 1
        if _passages_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
