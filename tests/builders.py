"""Small real builders for tests of rules: parameters, signed prices, facts by the one road (claims folded into a head)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from messages.bodies import (
    COSMOS_LIMITS,
    InboxBody,
    Limits,
    OutboxBody,
    SeriesDefinition,
    compute_series_id,
    make_inbox_packet,
    make_outbox_packet,
)
from messages.digests import (
    compute_link_digest,
    compute_mark_digest,
    compute_report_digest,
    compute_vault_id,
    get_address,
    sign_digest,
)
from messages.documents import (
    Amount,
    AssetParameters,
    CapParameters,
    ClassParameters,
    Cut,
    CutEntry,
    FamilyParameters,
    LiquidationParameters,
    Mark,
    ModelParameter,
    Parameters,
    Report,
    SignedMark,
    SignedReport,
    UnderlyingParameters,
    VaultParameters,
)
from messages.hashing import keccak256
from messages.ids import encode_name, get_evm_account
from messages.outbox import Claim, Cursor, Fact, ProvenHead, TrustTier, compute_next_head, fold, get_start_cursor
from messages.packet import Packet, compute_commitment
from relayer.rules.ledger import VaultState, get_vault_id

START = 1_800_000_000  # a multiple of 60 and of 3,600
EXAMPLE_STAMP = START - 60
DAY = 86_400
USDC = encode_name("USDC")
ETH = encode_name("ETH")
FEED = encode_name("feed")
DECIMALS = 6
UNIT = 10**DECIMALS


def make_key(name: str) -> bytes:
    """Return the private key of a name."""
    return keccak256(b"test key " + name.encode())


def make_account(name: str) -> bytes:
    """Return the EVM account (32 bytes) of a name."""
    return get_evm_account(get_address(make_key(name)))


OPERATOR_KEYS = sorted((make_key(f"operator {i}") for i in range(4)), key=get_address)
OPERATORS = tuple(get_address(key) for key in OPERATOR_KEYS)
PRICE_KEYS = [make_key(f"price {i}") for i in range(3)]
TREASURER = make_account("treasurer")
TOKEN = make_account("token")


def make_vault(number: int, *, family: str = "evm", **changes) -> VaultParameters:
    """Return the parameters of test vault ``number``: 1 hour delay of controls would hide nothing, so one day it is."""
    vault = VaultParameters(
        chain=f"eip155:{1000 + number}",
        family=family,
        account=make_account(f"vault {number}"),
        operators=OPERATORS,
        threshold=3,
        treasurer=TREASURER,
        delay_s=DAY,
        created_at=START,
        caps=(CapParameters(TOKEN, Amount(10**12), Amount(4 * 10**12), Amount(16 * 10**12)),),
        inventory_limit=Amount(10**12),
    )
    return replace(vault, **changes)


def make_asset(vault: VaultParameters, **changes) -> AssetParameters:
    """Return the token of a vault: class USDC, 6 decimals, at par without a feed."""
    asset = AssetParameters(
        caip19=f"{vault.chain}/erc20:0x{TOKEN[12:].hex()}",
        vault_id=compute_vault_id(vault.chain, vault.account),
        asset=TOKEN,
        quote_class=USDC,
        decimals=DECIMALS,
        price_source=bytes(32),
        peg_low_e8=Amount(97_000_000),
        peg_high_e8=Amount(103_000_000),
        haircut_ppm=0,
        stale_haircut_ppm_per_hour=0,
        lift_limit=Amount(10**13),
    )
    return replace(asset, **changes)


SRM_NUMBERS = {
    "maximum_requirement": "0.15",
    "minimum_requirement": "0.13",
    "call_maintenance": "0.09",
    "put_maintenance": "0.09",
    "put_maintenance_of_mark": "0.09",
    "unpaired_initial": "1.2",
    "unpaired_maintenance": "1.1",
    "maintenance_offset": "1.05",
    "perp_initial": "0.10",
    "perp_maintenance": "0.065",
    "base_factor": "0.8",
    "base_initial_scale": "0.9375",
    "confidence_threshold": "0.55",
    "confidence_factor": "1",
    "depeg_threshold": "0.98",
    "depeg_factor": "1.2",
}


def make_parameters(vaults: Sequence[VaultParameters], **changes) -> Parameters:
    """Return parameters for the vaults, one asset each."""
    parameters = Parameters(
        version=1,
        effective=START,
        patience_s=30,
        heartbeat_s=7 * DAY,
        price_signers=tuple(sorted(get_address(key) for key in PRICE_KEYS)),
        price_threshold=2,
        vaults=tuple(vaults),
        assets=tuple(make_asset(vault) for vault in vaults),
        classes=(ClassParameters(USDC, DECIMALS, Amount(1 * UNIT), 0),),
        underlyings=(
            UnderlyingParameters(
                ETH, FEED, "srm", tuple(ModelParameter(name, value) for name, value in SRM_NUMBERS.items())
            ),
        ),
        families=(
            FamilyParameters("cosmos", 300, 128, 256),
            FamilyParameters("evm", 1800, 64, 256),
            FamilyParameters("solana", 300, 32, 11),
        ),
        liquidation=LiquidationParameters(discount_ppm=50_000, step_ppm=250_000),
    )
    return replace(parameters, **changes)


def make_series(strike: int, right: int = 1, expiry: int = START + 2 * DAY, **changes) -> SeriesDefinition:
    """Return a series on ETH in USDC; strike in whole USDC, multiplier 1."""
    definition = SeriesDefinition(ETH, expiry, strike * 10**8, right, USDC, 10**8, FEED, 1800)
    return replace(definition, **changes)


# ---------------------------------------------------------------- facts


def make_facts(
    vault_id: bytes,
    packets: Iterable[tuple[Packet, Packet | None]],
    *,
    cursor: Cursor | None = None,
    tier: int = 1,
    limits: Limits = COSMOS_LIMITS,
) -> tuple[Fact, ...]:
    """Fold outbox packets (with the inbox packets they answer) into facts: a head is computed, claimed as proven, and folded."""
    cursor = cursor or get_start_cursor(vault_id)
    claims = [Claim(packet, inbox) for packet, inbox in packets]
    head = cursor.head
    for claim in claims:
        head = compute_next_head(head, claim.packet.sequence, compute_commitment(claim.packet))
    level = TrustTier(tier, 3, 4) if tier == 3 else TrustTier(tier)
    proven = ProvenHead(vault_id, "eip155:1", 1, bytes([1]) * 32, START, head, level, bytes([2]) * 32)
    return fold(cursor, claims, proven, limits)[1]


class Outbox:
    """The outbox of one vault in a test: put bodies in, take facts out."""

    def __init__(self, vault: VaultParameters | bytes, time: int = START) -> None:
        self.vault_id = vault if isinstance(vault, bytes) else get_vault_id(vault)
        self.sequence = 0
        self.inbox_sequence = 0
        self.time = time
        self.packets: list[tuple[Packet, Packet | None]] = []

    def put(self, body: OutboxBody, *, time: int | None = None, inbox: Packet | None = None) -> None:
        """Append one packet at ``time``."""
        self.time = self.time if time is None else time
        self.sequence += 1
        self.packets.append((make_outbox_packet(self.vault_id, self.sequence, self.time, body), inbox))

    def ack(
        self, body: InboxBody, *, time: int | None = None, status: int = 1, reason: int = 0, bitmap: int = 0
    ) -> None:
        """Append the Ack of the next inbox packet."""
        from messages.bodies import Ack

        self.time = self.time if time is None else time
        self.inbox_sequence += 1
        inbox = make_inbox_packet(self.vault_id, self.inbox_sequence, self.time + 60, body)
        self.put(Ack(self.inbox_sequence, compute_commitment(inbox), body.KIND, status, reason, bitmap), inbox=inbox)

    def facts(self, **options) -> tuple[Fact, ...]:
        """Return all facts so far."""
        return make_facts(self.vault_id, self.packets, **options)


def sign_link(vault_id: bytes, account: bytes, name: str, valid_until: int = START + 10 * DAY):
    """Return the Linked body that puts an account into the portfolio of a name."""
    from messages.bodies import Linked

    portfolio = make_account(name)
    signature = sign_digest(make_key(name), compute_link_digest(vault_id, account, portfolio, valid_until))
    return Linked(account, portfolio, valid_until, signature[:32], signature[32:64], signature[64])


def make_cut(states: Iterable[VaultState], times: dict[bytes, int] | int) -> Cut:
    """Return the cut at the states; times per vault or one for all."""
    entries = [
        CutEntry(
            s.vault_id,
            1,
            bytes([1]) * 32,
            times if isinstance(times, int) else times[s.vault_id],
            s.outbox_sequence,
            s.outbox_head,
        )
        for s in states
    ]
    return Cut(tuple(sorted(entries, key=lambda e: e.vault_id)))


# ---------------------------------------------------------------- prices


def sign_report(report: Report, keys: Sequence[bytes] = tuple(PRICE_KEYS[:2])) -> SignedReport:
    """Return a report signed by price signers."""
    digest = compute_report_digest(
        report.source,
        report.underlying,
        report.stamp,
        report.cumulative_e8_seconds,
        report.spot_e8,
        report.confidence_e8,
    )
    return SignedReport(report, tuple(sign_digest(key, digest) for key in keys))


def make_report(stamp: int, spot: int, *, cumulative: int | None = None, underlying: bytes = ETH) -> SignedReport:
    """Return a signed report; spot in whole USDC; cumulative as if the spot had been constant since the epoch."""
    value = stamp * spot * 10**8 if cumulative is None else cumulative
    return sign_report(Report(FEED, underlying, stamp, Amount(value), Amount(spot * 10**8), Amount(10**8)))


def sign_mark(mark: Mark, keys: Sequence[bytes] = tuple(PRICE_KEYS[:2])) -> SignedMark:
    """Return a mark signed by price signers."""
    digest = compute_mark_digest(
        mark.source, mark.underlying, mark.expiry, mark.stamp, mark.forward_e8, mark.svi_e18, mark.confidence_e8
    )
    return SignedMark(mark, tuple(sign_digest(key, digest) for key in keys))


def make_mark(stamp: int, expiry: int, forward: int, *, volatility: float = 0.6, underlying: bytes = ETH) -> SignedMark:
    """Return a signed flat slice."""
    years = 10**18  # a flat slice over one year of total variance volatility^2
    variance = int(volatility * volatility * 10**18)
    return sign_mark(
        Mark(
            FEED,
            underlying,
            expiry,
            stamp,
            Amount(forward * 10**8),
            tuple(Amount(x) for x in (variance, 0, 0, 0, 10**17, years)),
            Amount(10**8),
        )
    )


def series_id(definition: SeriesDefinition) -> bytes:
    """Return the id of a series."""
    return compute_series_id(definition)
