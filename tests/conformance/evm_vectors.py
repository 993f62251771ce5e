"""What the Ethereum kinds share: raw snappy, YAML, fork schedules from a network's config.yaml, and the store of the consensus suite."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cramjam
import yaml

from chains.evm import light_client as lc
from chains.evm.forks import FAR_FUTURE_EPOCH, MAINNET_PRESET, MINIMAL_PRESET, Fork, ForkSchedule, Preset
from chains.evm.types import Trusted, Update

PRESETS: dict[str, Preset] = {"mainnet": MAINNET_PRESET, "minimal": MINIMAL_PRESET}
ANYBODY = (0, 1)  # MIN_SYNC_COMMITTEE_PARTICIPANTS = 1: the consensus suite's floor, never the product's
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path) -> Any:
    return yaml.load(path.read_text(), Loader=_Loader)


def read_snappy(path: Path) -> bytes:
    """Return the bytes of a raw snappy block (no framing)."""
    return bytes(cramjam.snappy.decompress_raw(path.read_bytes()))


def unhex(text: str | int, size: int | None = None) -> bytes:
    """Return bytes of 0x hex; YAML 1.1 reads unquoted hex as an integer, which needs a size."""
    if isinstance(text, int):
        assert size is not None
        return text.to_bytes(size, "big")
    return bytes.fromhex(text.removeprefix("0x"))


def build_schedule(config: dict[str, Any], genesis_validators_root: bytes) -> ForkSchedule:
    """Return the schedule of a consensus config.yaml; forks it omits never come."""
    forks = [(Fork.PHASE0, 0, unhex(config["GENESIS_FORK_VERSION"], 4))]
    for fork in list(Fork)[1:]:
        version = config.get(f"{fork.name}_FORK_VERSION")
        if version is not None:
            forks.append((fork, config.get(f"{fork.name}_FORK_EPOCH", FAR_FUTURE_EPOCH), unhex(version, 4)))
    seconds = config.get("SECONDS_PER_SLOT") or config["SLOT_DURATION_MS"] // 1000
    return ForkSchedule(
        name=str(config.get("CONFIG_NAME", "vectors")),
        genesis_time=config.get("MIN_GENESIS_TIME", 0),
        genesis_validators_root=genesis_validators_root,
        seconds_per_slot=seconds,
        preset=PRESETS[config["PRESET_BASE"]],
        forks=tuple(forks),
        blob_schedule=tuple(
            (entry["EPOCH"], entry["MAX_BLOBS_PER_BLOCK"]) for entry in config.get("BLOB_SCHEDULE") or ()
        ),
        electra_max_blobs=config.get("MAX_BLOBS_PER_BLOCK_ELECTRA", 9),
    )


@dataclass
class SpecStore:
    """`LightClientStore` of the consensus specs, with what the product refuses: one participant, and the forced update.

    It exists to run the official sync vectors over the product's rules. Nothing in the product can do `force` (incident F10).
    """

    trusted: Trusted
    schedule: ForkSchedule
    best: Update | None = None
    previous_max: int = 0
    current_max: int = 0

    def process(self, update: Update, current_slot: int) -> None:
        """`process_light_client_update`; raises Rejected or Conflict for an invalid update."""
        schedule = self.schedule
        lc.verify_statement(self.trusted, update, current_slot, schedule, ANYBODY)
        if self.best is None or lc.is_better_update(update, self.best, schedule):
            self.best = update
        participants = lc.count_participants(update.aggregate.bits)
        self.current_max = max(self.current_max, participants)
        if (
            participants > max(self.previous_max, self.current_max) // 2
            and update.attested.beacon.slot > self.trusted.optimistic.beacon.slot
        ):
            self.trusted = replace(self.trusted, optimistic=update.attested)
        finalized_slot = lc.get_finalized_slot(update)
        if lc.has_participation(update.aggregate.bits, lc.TWO_THIRDS) and (
            finalized_slot > self.trusted.finalized.beacon.slot or lc.is_finalized_news(self.trusted, update, schedule)
        ):
            self._apply(update)
            self.best = None

    def force(self, current_slot: int) -> None:
        """`process_light_client_store_force_update`."""
        preset = self.schedule.preset
        timeout = preset.slots_per_epoch * preset.epochs_per_period
        if current_slot <= self.trusted.finalized.beacon.slot + timeout or self.best is None:
            return
        best, self.best = self.best, None
        if lc.get_finalized_slot(best) <= self.trusted.finalized.beacon.slot:
            best = replace(best, finalized=best.attested)
        self._apply(best)

    def _apply(self, update: Update) -> None:
        before = self.trusted.current_committee
        self.trusted = lc.apply_update(self.trusted, update, self.schedule)
        if self.trusted.current_committee is not before:
            self.previous_max, self.current_max = self.current_max, 0
