# pragma version 0.4.3
# pragma optimize codesize
# pragma evm-version cancun
"""
@title Vault of optsettle-1: escrow and certified ledger of cash and option positions on one chain
@notice No owner, no proxy, no upgrade: it does what a certified packet says, inside its own invariants.
@dev
  The rules and the order of checks are protocol.md 2 to 4 and vault.md; names follow them.

  Ids are 32-byte words, addresses left-padded: accounts, assets, series, portfolios. HOUSE and INSURANCE are two more accounts.
  Amounts are base units of the asset below 2^96, quantities 1e-8 contracts below 2^96, times unix seconds.

  Every state change is an IBC v2 packet in the event Outbox, and outbox_head (storage slot 0) names the whole history:
  head_0 = vault id, head_n = keccak256(head_{n-1} || BE8(n) || commitment_n).

  Transport: a packet is the canonical `abi.encode` of the IBC v2 tuple. All texts in it have a fixed length, so 26 words
  precede the value, and two of them (sequence, timeout) and the length vary. recv rebuilds these words and compares:
  no other encoding of a packet exists here. The data of the events Outbox and Inbox is exactly these bytes.

  Bodies are read word by word from calldata (`_word`); lengths, offsets, counts and widths are checked first, so a value that
  is not canonical reverts and only a canonical one can be refused. recv calls no other contract: the only calls are the
  precompiles ecrecover and sha256. Tokens are called in deposit and claim alone, under a lock that all functions share.

  A change under delay needs no packet to come into force: `_control` and `_caps` read what is in force now.
"""

interface Token:
    def balanceOf(owner: address) -> uint256: view
    def transfer(to: address, amount: uint256) -> bool: nonpayable
    def transferFrom(owner: address, to: address, amount: uint256) -> bool: nonpayable


struct Leg:
    kind: uint256  # 0 cash, 1 position
    account: bytes32
    id: bytes32  # asset or series
    delta: int256

struct Payload:
    source_port: String[32]
    destination_port: String[32]
    version: String[32]
    encoding: String[32]
    value: Bytes[32928]

struct Packet:
    sequence: uint64
    source_client: String[32]
    destination_client: String[32]
    timeout_timestamp: uint64
    payloads: DynArray[Payload, 1]

struct Definition:
    underlying: bytes32
    expiry: uint64
    strike_e8: uint256
    right: uint8
    quote_class: bytes32
    multiplier_e8: uint256
    price_source: bytes32
    twap_seconds: uint32

struct AssetCaps:  # creation
    asset: bytes32
    per_packet: uint256
    per_hour: uint256
    per_day: uint256

struct Caps:  # in force now, and what follows at `pending_at` (0: nothing)
    per_packet: uint256
    per_hour: uint256
    per_day: uint256
    pending_at: uint256
    next_per_packet: uint256
    next_per_hour: uint256
    next_per_day: uint256

struct Control:  # in force now, and what follows
    threshold: uint256
    set: uint256  # which of the two stored operator sets is in force
    paused: bool
    epoch: uint256
    pending_at: uint256  # the other set takes over; 0: nothing pending
    pending_threshold: uint256
    unpause_at: uint256  # 0: nothing pending
    pause_used: uint256  # bit i: operator i of the set used its pause of this epoch

struct Offer:
    maker: bytes32
    side: uint256  # 0 the maker buys, 1 the maker sells
    series: bytes32
    asset: bytes32
    quantity: uint256
    left: uint256
    premium_per_contract: uint256  # base units for 1e8 quantity
    valid_until: uint256
    expiry: uint256
    cancelled: bool

struct OfferWords:  # storage form of Offer
    maker_quantity: uint256  # 160 | 96
    asset_premium: uint256  # 160 | 96
    series: bytes32
    state: uint256  # left 96 | valid_until 64 | expiry 64 | side 8 | cancelled 8

struct TradeWords:  # key (taker, offer, nonce)
    id: bytes32  # outbox head right after its packet
    terms: uint256  # quantity 96 | cost 96 | number of its packet 64

struct RequestWords:  # key (account, asset)
    id: bytes32
    terms: uint256  # amount 96 | made_at 64

struct Trade:
    id: bytes32
    quantity: uint256
    cost: uint256
    number: uint256

struct Request:
    id: bytes32
    amount: uint256
    made_at: uint256

struct Window:
    hour: uint256
    hour_used: uint256
    day: uint256
    day_used: uint256


event Outbox:
    sequence: indexed(uint64)
    packet: Packet

event Inbox:
    sequence: indexed(uint64)
    packet: Packet

event Certificate:  # the m signatures of the inbox packet, 65 bytes each
    sequence: indexed(uint64)
    signatures: Bytes[1300]


OUTBOX_TOPIC: constant(bytes32) = keccak256("Outbox(uint64,(uint64,string,string,uint64,(string,string,string,string,bytes)[]))")
INBOX_TOPIC: constant(bytes32) = keccak256("Inbox(uint64,(uint64,string,string,uint64,(string,string,string,string,bytes)[]))")

HOUSE: constant(bytes32) = keccak256("optsettle/house")
INSURANCE: constant(bytes32) = keccak256("optsettle/insurance")

# outbox kinds
DEPOSITED: constant(uint256) = 1
LINKED: constant(uint256) = 2
SERIES_LISTED: constant(uint256) = 3
TRADE_PENDING: constant(uint256) = 4
WITHDRAWAL_REQUESTED: constant(uint256) = 5
CLAIMED: constant(uint256) = 6
PAUSED: constant(uint256) = 7
ESCAPED: constant(uint256) = 8
ACK: constant(uint256) = 16
# inbox kinds
EXECUTE: constant(uint256) = 32
DECIDE_TRADES: constant(uint256) = 33
DECIDE_WITHDRAWALS: constant(uint256) = 34
ROTATE_OPERATORS: constant(uint256) = 35
SET_CAPS: constant(uint256) = 36
UNPAUSE: constant(uint256) = 37
# Ack status
DONE: constant(uint256) = 1
REFUSED: constant(uint256) = 2
# Ack reasons
R_NONE: constant(uint256) = 0
R_PAUSED: constant(uint256) = 1
R_LEG_KIND: constant(uint256) = 2
R_ZERO: constant(uint256) = 3
R_RANGE: constant(uint256) = 4
R_ACCOUNT: constant(uint256) = 5
R_ORDER: constant(uint256) = 6
R_ASSET: constant(uint256) = 7
R_SERIES: constant(uint256) = 8
R_CASH: constant(uint256) = 9
R_DIRECTION: constant(uint256) = 10
R_OVERFLOW: constant(uint256) = 11
R_SUM: constant(uint256) = 12
R_CAP: constant(uint256) = 13
R_EPOCH: constant(uint256) = 14
R_OPERATORS: constant(uint256) = 15
R_NOT_PAUSED: constant(uint256) = 16
R_DELAY: constant(uint256) = 17

MAX_OPERATORS: constant(uint256) = 20
MAX_LEGS: constant(uint256) = 64
MAX_ITEMS: constant(uint256) = 256
MAX_CAPS: constant(uint256) = 32  # assets named at creation
HEAD_BYTES: constant(uint256) = 832  # of a packet before its value
VALUE_BYTES: constant(uint256) = 32928  # 256 items of DecideTrades
PACKET_BYTES: constant(uint256) = 33760
VALUE_AT: constant(uint256) = 932  # calldata: selector 4, two offsets 64, length 32, then the packet

HOUR: constant(uint256) = 3600
DAY: constant(uint256) = 86400
ESCAPE_AFTER: constant(uint256) = 30 * 86400
LONGEST_SERIES: constant(uint256) = 400 * 86400
M32: constant(uint256) = 2**32 - 1
M64: constant(uint256) = 2**64 - 1
M96: constant(uint256) = 2**96 - 1
M160: constant(uint256) = 2**160 - 1
HALF_N: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168  # secp256k1 n // 2
DUE: constant(uint256) = 2**64  # value of `series` for a due, which has no expiry

# SHA-256 of the texts that occur in commitments
H_CLEARING: constant(bytes32) = 0xb6d91ae12e7d043c1402f2454b44d4d60e02c2879bfd1256c19933903bf723cb
H_PORT: constant(bytes32) = 0xc311d773405c064b1a2b841e7efc1e0509eaad5905c7f8621a37b1aa9b4fe131
H_VERSION: constant(bytes32) = 0xc4a1c62092548d52a6c072aeed2d3f40c15530c84ac3ad869ad0d7b7e258fb0b
H_ENCODING: constant(bytes32) = 0x173adda0029e29f33006fbeb9174b7f9faf23b8107d61e49faf7c5a0a1ab7f3a
# the texts as left-aligned words
CLEARING: constant(bytes32) = 0x6f7074736574746c652d636c656172696e670000000000000000000000000000
PORT: constant(bytes32) = 0x6f7074736574746c650000000000000000000000000000000000000000000000
VERSION: constant(bytes32) = 0x6f7074736574746c652d31000000000000000000000000000000000000000000
ENCODING: constant(bytes32) = 0x6170706c69636174696f6e2f782d736f6c69646974792d616269000000000000
CLEARING_CHARS: constant(uint256) = 18
CLIENT_CHARS: constant(uint256) = 22

VAULT_ID: immutable(bytes32)
CLIENT: immutable(bytes32)  # "vault-" and 16 hex digits as a left-aligned word
H_CLIENT: immutable(bytes32)
DOMAIN: immutable(bytes32)  # EIP-712 domain separator with salt = vault id
CHAIN_ID: immutable(uint256)
DELAY: immutable(uint256)


# ---- state -----------------------------------------------------------------------------------------------------------

outbox_head: public(bytes32)  # slot 0: what light clients prove
cursors: uint256  # slot 1: outbox_sequence | inbox_sequence | accepted_at | decided_upto, 64 bits each, lowest first

balances: HashMap[bytes32, HashMap[bytes32, uint256]]  # account -> asset -> free 96 | claimable 96
position: public(HashMap[bytes32, HashMap[bytes32, int128]])  # account -> series
negatives: public(HashMap[bytes32, uint256])  # account -> how many of its positions are negative; not kept for HOUSE, INSURANCE
# series -> expiry, DUE, or 0 (unknown). The id is the hash of the definition, and the definition is in its packet.
series: HashMap[bytes32, uint256]
offers: HashMap[uint256, OfferWords]
offer_count: public(uint256)
trades: HashMap[bytes32, TradeWords]
requests: HashMap[bytes32, HashMap[bytes32, RequestWords]]

# threshold 8 | set 8 | paused 8 | epoch 64 | pending_at 64 | pending_threshold 8 | unpause_at 64 | pause_used 32
control: uint256
operator_sets: DynArray[address, MAX_OPERATORS][2]
treasurers: bytes32[2]
# asset -> [per_packet 96 | per_hour 96 | pending_at 64], [per_day 96 | next_per_day 96], [next_per_packet 96 | next_per_hour 96]
caps: HashMap[bytes32, uint256[3]]
# asset -> hour 32 | used in it 96 | day 32 | used in it 96
settlement_windows: HashMap[bytes32, uint256]
withdrawal_windows: HashMap[bytes32, uint256]

# Sums of one packet, keyed by its inbox sequence (sums: 2 * sequence + leg kind), so that two packets in one transaction
# share nothing: of all deltas by asset or series, and of what counts against the caps of an asset.
sums: transient(HashMap[uint256, HashMap[bytes32, int256]])
debits: transient(HashMap[uint256, HashMap[bytes32, uint256]])


# ---- creation --------------------------------------------------------------------------------------------------------

@deploy
def __init__(
    operators: DynArray[address, MAX_OPERATORS],
    threshold: uint256,
    treasurer: bytes32,
    delay: uint256,
    caps: DynArray[AssetCaps, MAX_CAPS],
):
    """
    @param operators secp256k1 addresses, ascending, none zero
    @param threshold m, with 3m > 2n
    @param treasurer native account that may request withdrawals of HOUSE and is paid them
    @param delay seconds between a certified control change and its effect (production: at least 86,400)
    @param caps assets that are in force at once
    """
    self._require(self._is_set(operators, threshold) and self._is_native(treasurer), "operators")
    self._require(delay <= M32, "delay")
    self.operator_sets[0] = operators
    self.treasurers[0] = treasurer
    self.control = threshold
    for c: AssetCaps in caps:
        self._require(self._is_native(c.asset) and self.caps[c.asset][0] == 0, "asset")
        self._require(self._is_amount(c.per_packet) and self._is_amount(c.per_hour) and self._is_amount(c.per_day), "caps")
        self.caps[c.asset] = [c.per_packet | c.per_hour << 96, c.per_day, 0]

    vault_id: bytes32 = keccak256(
        concat(
            keccak256(concat("eip155:", uint2str(chain.id))),
            convert(convert(self, uint256), bytes32),
        )
    )
    client: uint256 = convert(b"vault-", uint256)  # "vault-"
    for i: uint256 in range(16):
        digit: uint256 = (convert(vault_id, uint256) >> (252 - 4 * i)) & 15
        client = client << 8 | (digit + (48 if digit < 10 else 87))
    word: bytes32 = convert(client << 80, bytes32)
    VAULT_ID = vault_id
    CLIENT = word
    H_CLIENT = sha256(slice(word, 0, CLIENT_CHARS))
    DOMAIN = keccak256(
        abi_encode(
            keccak256("EIP712Domain(string name,string version,bytes32 salt)"),
            keccak256("optsettle"),
            keccak256("1"),
            vault_id,
        )
    )
    CHAIN_ID = chain.id
    DELAY = delay
    self.outbox_head = vault_id
    self.cursors = block.timestamp << 128


# ---- predicates and values -------------------------------------------------------------------------------------------

@pure
@internal
def _require(ok: bool, reason: String[12]):
    # one place that reverts with a word: sixty places with one each would not fit into a contract
    assert ok, reason


@pure
@internal
def _is_native(id: bytes32) -> bool:
    # HOUSE and INSURANCE have bits above the 160th, so they are not native
    return id != empty(bytes32) and convert(id, uint256) <= M160


@pure
@internal
def _is_house(account: bytes32) -> bool:
    return account == HOUSE or account == INSURANCE


@pure
@internal
def _is_amount(amount: uint256) -> bool:
    return amount != 0 and amount <= M96


@pure
@internal
def _is_set(operators: DynArray[address, MAX_OPERATORS], threshold: uint256) -> bool:
    last: address = empty(address)
    for operator: address in operators:
        if convert(operator, uint256) <= convert(last, uint256):
            return False
        last = operator
    return threshold <= len(operators) and 3 * threshold > 2 * len(operators)


@view
@internal
def _account() -> bytes32:
    return convert(convert(msg.sender, uint256), bytes32)


@view
@internal
def _has_caps(asset: bytes32) -> bool:
    # caps in force are never 0, so 0 means that the asset is new or unknown
    word: uint256 = self.caps[asset][0]
    return word & M96 != 0 or (word != 0 and block.timestamp >= word >> 192)


@view
@internal
def _caps(asset: bytes32) -> Caps:
    a: uint256 = self.caps[asset][0]
    b: uint256 = self.caps[asset][1]
    c: Caps = Caps(
        per_packet=a & M96,
        per_hour=(a >> 96) & M96,
        per_day=b & M96,
        pending_at=a >> 192,
        next_per_packet=0,
        next_per_hour=0,
        next_per_day=0,
    )
    if c.pending_at != 0:
        d: uint256 = self.caps[asset][2]
        c.next_per_packet = d & M96
        c.next_per_hour = d >> 96
        c.next_per_day = b >> 96
        if block.timestamp >= c.pending_at:
            c.per_packet = c.next_per_packet
            c.per_hour = c.next_per_hour
            c.per_day = c.next_per_day
            c.pending_at = 0
    return c


@view
@internal
def _control() -> Control:
    w: uint256 = self.control
    c: Control = Control(
        threshold=w & 255,
        set=(w >> 8) & 255,
        paused=(w >> 16) & 255 != 0,
        epoch=(w >> 24) & M64,
        pending_at=(w >> 88) & M64,
        pending_threshold=(w >> 152) & 255,
        unpause_at=(w >> 160) & M64,
        pause_used=w >> 224,
    )
    if c.pending_at != 0 and block.timestamp >= c.pending_at:
        c.threshold = c.pending_threshold
        c.set = 1 - c.set
        c.epoch += 1
        c.pause_used = 0
        c.pending_at = 0
        c.pending_threshold = 0
    if c.unpause_at != 0 and block.timestamp >= c.unpause_at:
        c.paused = False
        c.unpause_at = 0
    return c


@internal
def _store_control(c: Control):
    self.control = (
        c.threshold
        | c.set << 8
        | convert(c.paused, uint256) << 16
        | c.epoch << 24
        | c.pending_at << 88
        | c.pending_threshold << 152
        | c.unpause_at << 160
        | c.pause_used << 224
    )


@view
@internal
def _require_open():
    # A fork with another chain id has no clearing: it takes nothing in, and its users leave by escape and claim
    self._require(chain.id == CHAIN_ID, "chain id")
    self._require(not self._control().paused, "paused")


@view
@internal
def _offer(number: uint256) -> Offer:
    o: OfferWords = self.offers[number]
    return Offer(
        maker=convert(o.maker_quantity & M160, bytes32),
        side=(o.state >> 224) & 255,
        series=o.series,
        asset=convert(o.asset_premium & M160, bytes32),
        quantity=o.maker_quantity >> 160,
        left=o.state & M96,
        premium_per_contract=o.asset_premium >> 160,
        valid_until=(o.state >> 96) & M64,
        expiry=(o.state >> 160) & M64,
        cancelled=o.state >> 232 != 0,
    )


@pure
@internal
def _trade_key(taker: bytes32, offer: uint256, nonce: uint256) -> bytes32:
    return keccak256(abi_encode(taker, offer, nonce))


@pure
@internal
def _due(quote_class: bytes32) -> bytes32:
    return keccak256(abi_encode("optsettle/due", quote_class))


@view
@internal
def _charge(window: uint256, amount: uint256, caps: Caps) -> uint256:
    """
    @return the window after `amount` more, or 0 if a cap would be passed (a window is never 0: its day is not)
    """
    hour: uint256 = block.timestamp // HOUR
    day: uint256 = block.timestamp // DAY
    in_hour: uint256 = amount
    in_day: uint256 = amount
    if window & M32 == hour:
        in_hour += (window >> 32) & M96
    if (window >> 128) & M32 == day:
        in_day += window >> 160
    if in_hour > caps.per_hour or in_day > caps.per_day:
        return 0
    return hour | in_hour << 32 | day << 128 | in_day << 160


@internal
def _set_position(account: bytes32, series: bytes32, new: int256):
    if not self._is_house(account):
        was_negative: bool = self.position[account][series] < 0
        if was_negative and new >= 0:
            self.negatives[account] -= 1
        elif not was_negative and new < 0:
            self.negatives[account] += 1
    self.position[account][series] = convert(new, int128)


# ---- packets ---------------------------------------------------------------------------------------------------------

@pure
@internal
def _packet_head(
    sequence: uint256,
    source_chars: uint256,
    source: bytes32,
    destination_chars: uint256,
    destination: bytes32,
    timeout: uint256,
    value_bytes: uint256,
) -> Bytes[HEAD_BYTES]:
    """
    @return abi.encode of an IBC v2 packet up to its value, with the offsets that the fixed texts give
    """
    return abi_encode(
        convert(32, uint256),
        sequence,
        convert(160, uint256),
        convert(224, uint256),
        timeout,
        convert(288, uint256),
        source_chars,
        source,
        destination_chars,
        destination,
        convert(1, uint256),
        convert(32, uint256),
        convert(160, uint256),
        convert(224, uint256),
        convert(288, uint256),
        convert(352, uint256),
        convert(416, uint256),
        convert(9, uint256),
        PORT,
        convert(9, uint256),
        PORT,
        convert(11, uint256),
        VERSION,
        convert(26, uint256),
        ENCODING,
        value_bytes,
    )


@pure
@internal
def _commitment(destination_hash: bytes32, timeout: uint256, value_hash: bytes32) -> bytes32:
    """
    @return IBC v2 packet commitment of a packet with one payload
    """
    payload: bytes32 = sha256(concat(H_PORT, H_PORT, H_VERSION, H_ENCODING, value_hash))
    return sha256(
        concat(
            b"\x02",
            destination_hash,
            sha256(slice(convert(timeout, bytes32), 24, 8)),
            sha256(payload),
        )
    )


@internal
def _emit(body: Bytes[352]) -> bytes32:
    """
    @notice The only way a packet leaves the vault
    @return the new outbox head
    """
    self.cursors += 1  # outbox_sequence is the lowest 64 bits
    sequence: uint256 = self.cursors & M64
    timeout: uint256 = block.timestamp + DAY
    head: bytes32 = keccak256(
        concat(
            self.outbox_head,
            slice(convert(sequence, bytes32), 24, 8),
            self._commitment(H_CLIENT, timeout, sha256(body)),
        )
    )
    self.outbox_head = head
    packet: Bytes[HEAD_BYTES + 352] = concat(
        self._packet_head(sequence, CLEARING_CHARS, CLEARING, CLIENT_CHARS, CLIENT, timeout, len(body)), body
    )
    raw_log([OUTBOX_TOPIC, convert(sequence, bytes32)], packet)
    return head


@view
@internal
def _digest(struct_hash: bytes32) -> bytes32:
    self._require(chain.id == CHAIN_ID, "chain id")
    return keccak256(concat(b"\x19\x01", DOMAIN, struct_hash))


@pure
@internal
def _recover(digest: bytes32, signature: Bytes[65]) -> address:
    """
    @notice r || s || v with v 27 or 28 and low s; everything else reverts, also what recovers to address zero
    """
    s: uint256 = convert(extract32(signature, 32), uint256)
    v: uint256 = convert(slice(signature, 64, 1), uint256)
    self._require(s <= HALF_N, "signatures")
    self._require(v == 27 or v == 28, "signatures")
    signer: address = ecrecover(digest, v, convert(extract32(signature, 0), uint256), s)
    self._require(signer != empty(address), "signatures")
    return signer


@view
@internal
def _word(i: uint256) -> bytes32:
    # word i of the value that recv was called with
    return convert(slice(msg.data, VALUE_AT + 32 * i, 32), bytes32)


@view
@internal
def _number(i: uint256) -> uint256:
    return convert(self._word(i), uint256)


# ---- recv ------------------------------------------------------------------------------------------------------------

@external
@nonreentrant
def recv(packet: Bytes[PACKET_BYTES], signatures: Bytes[MAX_OPERATORS * 65]):
    """
    @notice Take the next certified packet of the clearing; anyone may bring it
    @param packet canonical abi.encode of the IBC v2 packet (tuple with its leading offset word)
    @param signatures exactly m signatures r || s || v over the packet's digest, ascending by signer
    """
    # _word reads calldata at a fixed place: the packet that is hashed must lie there
    self._require(convert(slice(msg.data, 4, 32), uint256) == 64, "malformed")
    # 1. sequence
    sequence: uint256 = ((self.cursors >> 64) & M64) + 1
    self._require(convert(extract32(packet, 32), uint256) == sequence, "sequence")
    # 2. clients, ports, version, encoding, one payload: all words before the value are what they must be
    timeout: uint256 = convert(extract32(packet, 128), uint256)
    size: uint256 = len(packet) - HEAD_BYTES
    self._require(
        keccak256(slice(packet, 0, HEAD_BYTES))
        == keccak256(self._packet_head(sequence, CLIENT_CHARS, CLIENT, CLEARING_CHARS, CLEARING, timeout, size)),
        "envelope",
    )
    # 3. time
    self._require(block.timestamp < timeout and timeout <= block.timestamp + DAY, "timeout")
    # 4. signatures
    c: Control = self._control()
    # alone in its statement: the copy of the value is the last thing in memory, so an unused rest costs nothing
    value_hash: bytes32 = sha256(slice(packet, HEAD_BYTES, size))
    commitment: bytes32 = self._commitment(H_CLEARING, timeout, value_hash)
    digest: bytes32 = self._digest(
        keccak256(
            abi_encode(
                keccak256("Packet(uint64 operatorEpoch,uint64 sequence,bytes32 commitment)"), c.epoch, sequence, commitment
            )
        )
    )
    self._verify_signatures(digest, signatures, c)
    self._require(self._is_canonical(size), "malformed")

    raw_log([INBOX_TOPIC, convert(sequence, bytes32)], packet)
    log Certificate(sequence=convert(sequence, uint64), signatures=signatures)
    # inbox_sequence += 1, accepted_at = now; the other cursors stay
    upto: uint256 = self.cursors >> 192
    self.cursors = self.cursors & M64 | sequence << 64 | block.timestamp << 128 | upto << 192

    kind: uint256 = self._number(0)
    reason: uint256 = R_NONE
    bitmap: uint256 = 0
    if c.paused and kind <= DECIDE_WITHDRAWALS:
        reason = R_PAUSED
    elif kind == EXECUTE:
        reason = self._execute(sequence)
    elif kind == DECIDE_TRADES:
        reason, bitmap = self._decide_trades()
    elif kind == DECIDE_WITHDRAWALS:
        bitmap = self._decide_withdrawals(sequence, self.treasurers[c.set])
    elif kind == ROTATE_OPERATORS:
        reason = self._rotate_operators(c)
    elif kind == SET_CAPS:
        reason = self._set_caps()
    else:
        reason = self._unpause(c)
    status: uint256 = DONE if reason == R_NONE else REFUSED
    self._emit(abi_encode(ACK, sequence, commitment, kind, status, reason, bitmap))


@view
@internal
def _verify_signatures(digest: bytes32, signatures: Bytes[MAX_OPERATORS * 65], c: Control):
    self._require(len(signatures) == 65 * c.threshold, "signatures")
    operators: DynArray[address, MAX_OPERATORS] = self.operator_sets[c.set]
    last: address = empty(address)
    for i: uint256 in range(c.threshold, bound=MAX_OPERATORS):
        signer: address = self._recover(digest, slice(signatures, 65 * i, 65))
        self._require(convert(signer, uint256) > convert(last, uint256) and signer in operators, "signatures")
        last = signer


@view
@internal
def _is_canonical(size: uint256) -> bool:
    """
    @return whether the value of `size` bytes is the one encoding of an inbox body within the limits
    """
    if size % 32 != 0 or size == 0:
        return False
    words: uint256 = size // 32
    kind: uint256 = self._number(0)
    if kind == EXECUTE:
        # kind, plan digest, offset of prices, offset of legs, prices (2 words each), legs (4 words each)
        if words < 6 or self._number(2) != 128:
            return False
        prices: uint256 = self._number(4)
        if prices > MAX_LEGS or words < 6 + 2 * prices or self._number(3) != 160 + 64 * prices:
            return False
        legs: uint256 = self._number(5 + 2 * prices)
        if legs > MAX_LEGS or words != 6 + 2 * prices + 4 * legs:
            return False
        for i: uint256 in range(legs, bound=MAX_LEGS):
            if self._number(6 + 2 * prices + 4 * i) > 255:
                return False
        return True
    if kind == DECIDE_TRADES:
        # kind, plan digest, upto, offset of items, items (id, taker, offer, nonce)
        if words < 5 or self._number(2) > M64 or self._number(3) != 128:
            return False
        items: uint256 = self._number(4)
        if items > MAX_ITEMS or words != 5 + 4 * items:
            return False
        for i: uint256 in range(items, bound=MAX_ITEMS):
            if self._number(7 + 4 * i) > M64 or self._number(8 + 4 * i) > M64:
                return False
        return True
    if kind == DECIDE_WITHDRAWALS:
        # kind, plan digest, offset of items, items (id, account, asset)
        return words >= 4 and self._number(2) == 96 and self._number(3) <= MAX_ITEMS and words == 4 + 3 * self._number(3)
    if kind == ROTATE_OPERATORS:
        # kind, epoch, threshold, effective, treasurer, offset of operators, operators
        if words < 7 or self._number(1) > M64 or self._number(2) > 255 or self._number(3) > M64:
            return False
        operators: uint256 = self._number(6)
        if operators > MAX_OPERATORS or words != 7 + operators or self._number(5) != 192:
            return False
        for i: uint256 in range(operators, bound=MAX_OPERATORS):
            if self._number(7 + i) > M160:
                return False
        return True
    if kind == SET_CAPS:
        return words == 5
    return kind == UNPAUSE and words == 1


@view
@internal
def _leg(first: uint256, i: uint256) -> Leg:
    # leg i of Execute, whose legs begin at word `first`
    return abi_decode(slice(msg.data, VALUE_AT + 32 * first + 128 * i, 128), Leg)


@internal
def _execute(sequence: uint256) -> uint256:
    """
    @return R_NONE after all legs were applied, or the first reason against it, with nothing written
    """
    first: uint256 = self._number(4) * 2 + 6
    legs: uint256 = self._number(first - 1)
    cash_legs: uint256 = 0  # they come first
    news: int256[MAX_LEGS] = empty(int256[MAX_LEGS])  # free or position after the packet
    open_sums: uint256 = 0  # assets and series whose legs so far do not sum to 0
    charged: DynArray[bytes32, MAX_LEGS] = []  # assets with settlement debits
    last: Leg = empty(Leg)  # less than any leg, because no account is 0
    for i: uint256 in range(legs, bound=MAX_LEGS):
        leg: Leg = self._leg(first, i)
        is_house: bool = self._is_house(leg.account)
        if leg.kind > 1:
            return R_LEG_KIND
        if leg.delta == 0:
            return R_ZERO
        if leg.delta > convert(M96, int256) or leg.delta < -convert(M96, int256):
            return R_RANGE
        if not is_house and not self._is_native(leg.account):
            return R_ACCOUNT
        if not self._is_ascending(last, leg):
            return R_ORDER
        last = leg
        new: int256 = 0
        if leg.kind == 0:
            cash_legs += 1
            if not self._has_caps(leg.id):
                return R_ASSET
            new = convert(self.balances[leg.account][leg.id] & M96, int256) + leg.delta
            if new < 0:
                return R_CASH
            if new > convert(M96, int256):
                return R_OVERFLOW
            if leg.delta < 0 and not is_house:
                debit: uint256 = self.debits[sequence][leg.id]
                if debit == 0:
                    charged.append(leg.id)
                self.debits[sequence][leg.id] = debit + convert(-leg.delta, uint256)
        else:
            known: uint256 = self.series[leg.id]
            if known == 0:
                return R_SERIES
            old: int256 = convert(self.position[leg.account][leg.id], int256)
            new = old + leg.delta
            if known != DUE and not is_house:
                # only towards 0: against the sign of old, and no further than 0
                if old == 0 or (old > 0) == (leg.delta > 0) or (new != 0 and (old > 0) != (new > 0)):
                    return R_DIRECTION
            if new > convert(max_value(int128), int256) or new < convert(min_value(int128), int256):
                return R_OVERFLOW
        news[i] = new
        sum: int256 = self.sums[2 * sequence + leg.kind][leg.id]
        if sum == 0:
            open_sums += 1
        elif sum + leg.delta == 0:
            open_sums -= 1
        self.sums[2 * sequence + leg.kind][leg.id] = sum + leg.delta
    if open_sums != 0:
        return R_SUM
    windows: DynArray[uint256, MAX_LEGS] = []
    for asset: bytes32 in charged:
        caps: Caps = self._caps(asset)
        window: uint256 = self._charge(self.settlement_windows[asset], self.debits[sequence][asset], caps)
        if window == 0 or self.debits[sequence][asset] > caps.per_packet:
            return R_CAP
        windows.append(window)

    # every check is passed: write
    for i: uint256 in range(len(charged), bound=MAX_LEGS):
        self.settlement_windows[charged[i]] = windows[i]
    for i: uint256 in range(legs, bound=MAX_LEGS):
        leg: Leg = self._leg(first, i)
        if i < cash_legs:
            self.balances[leg.account][leg.id] = self.balances[leg.account][leg.id] >> 96 << 96 | convert(news[i], uint256)
        else:
            self._set_position(leg.account, leg.id, news[i])
    return R_NONE


@pure
@internal
def _is_ascending(last: Leg, leg: Leg) -> bool:
    # strictly, by (kind, account, id) as numbers
    if leg.kind != last.kind:
        return leg.kind > last.kind
    if leg.account != last.account:
        return convert(leg.account, uint256) > convert(last.account, uint256)
    return convert(leg.id, uint256) > convert(last.id, uint256)


@internal
def _decide_trades() -> (uint256, uint256):
    upto: uint256 = self._number(2)
    decided: uint256 = self.cursors >> 192
    if upto > self.cursors & M64 or upto < decided:
        return R_RANGE, 0
    bitmap: uint256 = 0
    for i: uint256 in range(self._number(4), bound=MAX_ITEMS):
        taker: bytes32 = self._word(6 + 4 * i)
        number: uint256 = self._number(7 + 4 * i)
        key: bytes32 = self._trade_key(taker, number, self._number(8 + 4 * i))
        if self._decide_trade(self._word(5 + 4 * i), taker, number, key, decided):
            bitmap |= 1 << i
    self.cursors = self.cursors & (2**192 - 1) | upto << 192
    return R_NONE, bitmap


@internal
def _decide_trade(id: bytes32, taker: bytes32, number: uint256, key: bytes32, decided: uint256) -> bool:
    """
    @return whether the trade took effect. An id that is not that of the open record names nothing.
    """
    if id == empty(bytes32) or self.trades[key].id != id:
        return False
    terms: uint256 = self.trades[key].terms
    if terms >> 192 <= decided:
        return False
    self.trades[key] = empty(TradeWords)  # over, whatever its bit
    quantity: uint256 = terms & M96
    cost: uint256 = (terms >> 96) & M96
    o: Offer = self._offer(number)
    buyer: bytes32 = o.maker if o.side == 0 else taker
    seller: bytes32 = taker if o.side == 0 else o.maker
    bought: int256 = convert(self.position[buyer][o.series], int256) + convert(quantity, int256)
    sold: int256 = convert(self.position[seller][o.series], int256) - convert(quantity, int256)
    if (
        block.timestamp >= min(o.valid_until, o.expiry)
        or o.left < quantity
        or self.balances[buyer][o.asset] & M96 < cost
        or (self.balances[seller][o.asset] & M96) + cost > M96
        or bought > convert(max_value(int128), int256)
        or sold < convert(min_value(int128), int256)
    ):
        return False
    self.offers[number].state -= quantity  # `left` is the lowest 96 bits
    self.balances[buyer][o.asset] -= cost  # free is the lowest 96 bits
    self.balances[seller][o.asset] += cost
    self._set_position(buyer, o.series, bought)
    self._set_position(seller, o.series, sold)
    return True


@internal
def _decide_withdrawals(sequence: uint256, treasurer: bytes32) -> uint256:
    bitmap: uint256 = 0
    for i: uint256 in range(self._number(3), bound=MAX_ITEMS):
        if self._decide_withdrawal(
            self._word(4 + 3 * i), self._word(5 + 3 * i), self._word(6 + 3 * i), sequence, treasurer
        ):
            bitmap |= 1 << i
    return bitmap


@internal
def _decide_withdrawal(id: bytes32, account: bytes32, asset: bytes32, sequence: uint256, treasurer: bytes32) -> bool:
    if id == empty(bytes32) or self.requests[account][asset].id != id:
        return False
    terms: uint256 = self.requests[account][asset].terms
    amount: uint256 = terms & M96
    payee: bytes32 = treasurer if account == HOUSE else account
    used: uint256 = self.debits[sequence][asset] + amount
    caps: Caps = self._caps(asset)
    window: uint256 = self._charge(self.withdrawal_windows[asset], amount, caps)
    if (
        block.timestamp > (terms >> 96) + DAY
        or self.balances[account][asset] & M96 < amount
        or (self.balances[payee][asset] >> 96) + amount > M96
        or used > caps.per_packet
        or window == 0
    ):
        return False
    self.debits[sequence][asset] = used
    self.withdrawal_windows[asset] = window
    self.requests[account][asset] = empty(RequestWords)
    self.balances[account][asset] -= amount
    self.balances[payee][asset] += amount << 96
    return True


@internal
def _rotate_operators(c: Control) -> uint256:
    threshold: uint256 = self._number(2)
    effective: uint256 = self._number(3)
    treasurer: bytes32 = self._word(4)
    operators: DynArray[address, MAX_OPERATORS] = []
    for i: uint256 in range(self._number(6), bound=MAX_OPERATORS):
        operators.append(convert(self._number(7 + i), address))
    if self._number(1) != c.epoch + 1:
        return R_EPOCH
    if not self._is_set(operators, threshold) or not self._is_native(treasurer):
        return R_OPERATORS
    if effective < block.timestamp + DELAY:
        return R_DELAY
    self.operator_sets[1 - c.set] = operators
    self.treasurers[1 - c.set] = treasurer
    new: Control = c
    new.pending_at = effective
    new.pending_threshold = threshold
    self._store_control(new)
    return R_NONE


@internal
def _set_caps() -> uint256:
    asset: bytes32 = self._word(1)
    per_packet: uint256 = self._number(2)
    per_hour: uint256 = self._number(3)
    per_day: uint256 = self._number(4)
    if not self._is_native(asset):
        return R_ASSET
    if not (self._is_amount(per_packet) and self._is_amount(per_hour) and self._is_amount(per_day)):
        return R_RANGE
    c: Caps = self._caps(asset)
    at: uint256 = 0
    if per_packet > c.per_packet or per_hour > c.per_hour or per_day > c.per_day:
        at = block.timestamp + DELAY
    self.caps[asset] = [
        min(per_packet, c.per_packet) | min(per_hour, c.per_hour) << 96 | at << 192,
        min(per_day, c.per_day) | per_day << 96,
        per_packet | per_hour << 96,
    ]
    return R_NONE


@internal
def _unpause(c: Control) -> uint256:
    if not c.paused:
        return R_NOT_PAUSED
    new: Control = c
    new.unpause_at = block.timestamp + DELAY
    self._store_control(new)
    return R_NONE


# ---- what users call -------------------------------------------------------------------------------------------------

@external
@nonreentrant
def deposit(asset: bytes32, amount: uint256, beneficiary: bytes32):
    """
    @notice Pull `amount` of `asset` from the caller and credit what really arrived to `beneficiary`
    """
    self._require_open()
    self._require(self._is_amount(amount), "amount")
    self._require(self._has_caps(asset), "asset")
    self._require(self._is_native(beneficiary) or self._is_house(beneficiary), "account")
    token: address = convert(convert(asset, uint256), address)
    before: uint256 = staticcall Token(token).balanceOf(self)
    # a token without code reverts; one that returns nothing is taken by what arrived
    self._require(extcall Token(token).transferFrom(msg.sender, self, amount, default_return_value=True), "transfer")
    arrived: uint256 = staticcall Token(token).balanceOf(self) - before
    self._require(self._is_amount(arrived), "amount")
    self._require((self.balances[beneficiary][asset] & M96) + arrived <= M96, "overflow")
    self.balances[beneficiary][asset] += arrived
    self._emit(abi_encode(DEPOSITED, beneficiary, asset, arrived))


@external
@nonreentrant
def link(portfolio: bytes32, valid_until: uint64, signature: Bytes[65]):
    """
    @notice Ask that the caller's account belongs to `portfolio`; the ledger judges the signature (protocol.md 6).
        A link gives the portfolio's owner full spending power over the account.
    """
    self._require(len(signature) == 65, "signature")
    self._emit(
        abi_encode(
            LINKED,
            self._account(),
            portfolio,
            convert(valid_until, uint256),
            extract32(signature, 0),
            extract32(signature, 32),
            convert(slice(signature, 64, 1), uint256),
        )
    )


@external
@nonreentrant
def list_series(definition: Definition) -> bytes32:
    """
    @notice Record a series and the due of its quote class; anyone, once
    @return id of the series
    """
    expiry: uint256 = convert(definition.expiry, uint256)
    self._require(block.timestamp < expiry and expiry <= block.timestamp + LONGEST_SERIES, "expiry")
    self._require(
        self._is_amount(definition.strike_e8)
        and self._is_amount(definition.multiplier_e8)
        and definition.right <= 1
        and definition.twap_seconds != 0,
        "definition",
    )
    id: bytes32 = keccak256(abi_encode(definition))
    self._require(self.series[id] == 0, "exists")
    self.series[id] = expiry
    self.series[self._due(definition.quote_class)] = DUE
    self._emit(abi_encode(SERIES_LISTED, id, definition))
    return id


@external
@nonreentrant
def offer(
    side: uint8, series: bytes32, asset: bytes32, quantity: uint256, premium_per_contract: uint256, valid_until: uint64
) -> uint256:
    """
    @notice Rest an offer; reserves nothing
    @param side 0 the caller buys, 1 the caller sells
    @param premium_per_contract base units of `asset` for 1e8 `quantity`
    @return number of the offer
    """
    self._require_open()
    expiry: uint256 = self.series[series]
    until: uint256 = convert(valid_until, uint256)
    self._require(side <= 1, "side")
    self._require(expiry != 0 and expiry != DUE, "series")
    self._require(self._has_caps(asset), "asset")
    self._require(self._is_amount(quantity) and self._is_amount(premium_per_contract), "amount")
    self._require(block.timestamp < min(until, expiry), "expired")
    number: uint256 = self.offer_count + 1
    self.offer_count = number
    self.offers[number] = OfferWords(
        maker_quantity=convert(self._account(), uint256) | quantity << 160,
        asset_premium=convert(asset, uint256) | premium_per_contract << 160,
        series=series,
        state=quantity | until << 96 | expiry << 160 | convert(side, uint256) << 224,
    )
    return number


@external
@nonreentrant
def cancel(number: uint256):
    """
    @notice The maker stops later takes; a taken trade lives on
    """
    o: Offer = self._offer(number)
    self._require(o.maker != empty(bytes32), "unknown")
    self._require(o.maker == self._account(), "owner")
    self._require(not o.cancelled and o.left != 0, "closed")
    self.offers[number].state |= 1 << 232


@external
@nonreentrant
def take(number: uint256, quantity: uint256, nonce: uint64, for_house: bool) -> bytes32:
    """
    @notice Take (part of) an offer; reserves nothing, the clearing decides
    @param for_house in the name of HOUSE: how liquidated positions are sold and bought back
    @return id of the trade
    """
    self._require_open()
    o: Offer = self._offer(number)
    taker: bytes32 = HOUSE if for_house else self._account()
    n: uint256 = convert(nonce, uint256)
    self._require(o.maker != empty(bytes32), "unknown")
    self._require(not o.cancelled and o.left != 0, "closed")
    self._require(block.timestamp < min(o.valid_until, o.expiry), "expired")
    self._require(taker != o.maker, "self")
    self._require(quantity != 0 and quantity <= o.left, "amount")
    key: bytes32 = self._trade_key(taker, number, n)
    self._require(self.trades[key].id == empty(bytes32) or self.trades[key].terms >> 192 <= self.cursors >> 192, "open")
    cost: uint256 = (quantity * o.premium_per_contract + (10**8 - 1)) // 10**8
    self._require(cost <= M96, "overflow")
    buyer: bytes32 = o.maker if o.side == 0 else taker
    seller: bytes32 = taker if o.side == 0 else o.maker
    self._require(self.balances[buyer][o.asset] & M96 >= cost, "cash")
    id: bytes32 = self._emit(
        abi_encode(TRADE_PENDING, buyer, seller, o.series, o.asset, quantity, cost, o.valid_until, taker, number, n)
    )
    self.trades[key] = TradeWords(id=id, terms=quantity | cost << 96 | (self.cursors & M64) << 192)
    return id


@external
@nonreentrant
def request_withdrawal(asset: bytes32, amount: uint256, for_house: bool) -> bytes32:
    """
    @notice Ask for `amount` of free cash; reserves nothing, replaces an older request, lapses after 24 h
    @param for_house by the treasurer, for HOUSE
    @return id of the request
    """
    account: bytes32 = self._account()
    if for_house:
        self._require(account == self.treasurers[self._control().set], "owner")
        account = HOUSE
    self._require(self._is_amount(amount), "amount")
    self._require(self._has_caps(asset), "asset")
    id: bytes32 = self._emit(abi_encode(WITHDRAWAL_REQUESTED, account, asset, amount))
    self.requests[account][asset] = RequestWords(id=id, terms=amount | block.timestamp << 96)
    return id


@external
@nonreentrant
def claim(account: bytes32, asset: bytes32):
    """
    @notice Pay what `account` may claim to `account`; anyone may call
    """
    self._require(self._is_native(account), "account")
    word: uint256 = self.balances[account][asset]
    amount: uint256 = word >> 96
    self._require(amount != 0, "amount")
    self.balances[account][asset] = word & M96
    self._emit(abi_encode(CLAIMED, account, asset, amount))
    token: address = convert(convert(asset, uint256), address)
    owner: address = convert(convert(account, uint256), address)
    self._require(extcall Token(token).transfer(owner, amount, default_return_value=True), "transfer")


@external
@nonreentrant
def pause(signature: Bytes[65]):
    """
    @notice One operator, once an epoch, stops deposits, offers, takes and settlement; anyone may bring its signature
    """
    c: Control = self._control()
    self._require(not c.paused, "paused")
    self._require(len(signature) == 65, "signature")
    digest: bytes32 = self._digest(keccak256(abi_encode(keccak256("Pause(uint64 operatorEpoch)"), c.epoch)))
    signer: address = self._recover(digest, signature)
    bit: uint256 = 0
    mask: uint256 = 1
    for operator: address in self.operator_sets[c.set]:
        if operator == signer:
            bit = mask
        mask = mask << 1
    self._require(bit != 0, "signature")
    self._require(c.pause_used & bit == 0, "used")
    c.paused = True
    c.pause_used |= bit
    self._store_control(c)
    self._emit(abi_encode(PAUSED, signer))


@external
@nonreentrant
def escape(asset: bytes32):
    """
    @notice After 30 days without an inbox packet an account without a negative position may leave with its free cash
    """
    account: bytes32 = self._account()
    self._require(block.timestamp >= ((self.cursors >> 128) & M64) + ESCAPE_AFTER, "early")
    self._require(self.negatives[account] == 0, "positions")
    word: uint256 = self.balances[account][asset]
    amount: uint256 = word & M96
    self._require(amount != 0, "amount")
    claimable: uint256 = (word >> 96) + amount
    self._require(claimable <= M96, "overflow")
    self.balances[account][asset] = claimable << 96
    self._emit(abi_encode(ESCAPED, account, asset, amount))


# ---- views -----------------------------------------------------------------------------------------------------------

@view
@external
def vault_id() -> bytes32:
    return VAULT_ID


@view
@external
def vault_client() -> String[22]:
    return convert(slice(CLIENT, 0, CLIENT_CHARS), String[22])


@view
@external
def delay() -> uint256:
    return DELAY


@view
@external
def outbox_sequence() -> uint256:
    return self.cursors & M64


@view
@external
def inbox_sequence() -> uint256:
    return (self.cursors >> 64) & M64


@view
@external
def accepted_at() -> uint256:
    """
    @return time of the last inbox packet, or of creation
    """
    return (self.cursors >> 128) & M64


@view
@external
def decided_upto() -> uint256:
    """
    @return every open trade with a packet number up to this is over
    """
    return self.cursors >> 192


@view
@external
def free(account: bytes32, asset: bytes32) -> uint256:
    return self.balances[account][asset] & M96


@view
@external
def claimable(account: bytes32, asset: bytes32) -> uint256:
    return self.balances[account][asset] >> 96


@view
@external
def series_expiry(series: bytes32) -> uint256:
    """
    @return expiry of a listed series, else 0
    """
    return self.series[series] & M64


@view
@external
def is_due(series: bytes32) -> bool:
    return self.series[series] == DUE


@view
@external
def get_offer(number: uint256) -> Offer:
    return self._offer(number)


@view
@external
def get_trade(taker: bytes32, offer: uint256, nonce: uint256) -> Trade:
    """
    @return the open trade under this key, all zero if there is none
    """
    t: TradeWords = self.trades[self._trade_key(taker, offer, nonce)]
    if t.terms >> 192 <= self.cursors >> 192:
        return empty(Trade)
    return Trade(id=t.id, quantity=t.terms & M96, cost=(t.terms >> 96) & M96, number=t.terms >> 192)


@view
@external
def get_request(account: bytes32, asset: bytes32) -> Request:
    """
    @return the open request under this key (it may be past its 24 h), all zero if there is none
    """
    r: RequestWords = self.requests[account][asset]
    return Request(id=r.id, amount=r.terms & M96, made_at=r.terms >> 96)


@view
@external
def get_control() -> Control:
    return self._control()


@view
@external
def get_operators(pending: bool) -> DynArray[address, MAX_OPERATORS]:
    """
    @param pending the set that takes over at `pending_at` of get_control (meaningless when that is 0)
    """
    c: Control = self._control()
    return self.operator_sets[1 - c.set if pending else c.set]


@view
@external
def get_treasurer(pending: bool) -> bytes32:
    c: Control = self._control()
    return self.treasurers[1 - c.set if pending else c.set]


@view
@external
def get_caps(asset: bytes32) -> Caps:
    return self._caps(asset)


@view
@external
def get_windows(asset: bytes32) -> (Window, Window):
    """
    @return settlement and withdrawal window: buckets of the last charge and what was used in them
    """
    return self._window(self.settlement_windows[asset]), self._window(self.withdrawal_windows[asset])


@pure
@internal
def _window(word: uint256) -> Window:
    return Window(hour=word & M32, hour_used=(word >> 32) & M96, day=(word >> 128) & M32, day_used=word >> 160)
