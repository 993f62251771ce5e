"""The simulated Solana cluster: it answers as a node does (the reference library reads it), and forgets, forks and lies as told."""

from __future__ import annotations

import asyncio
import base64
import json
import struct

import base58
import pytest
from solders.address_lookup_table_account import AddressLookupTable
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.rpc import responses
from solders.signature import Signature
from solders.system_program import ID as SYSTEM_PROGRAM
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from chains.http_json import RpcError
from chains.solana.sim import ManualClock, SimSolana
from chains.solana.sim_chain import CLOCK_ID, TABLE_PROGRAM, compute_height, get_block_slot, is_skipped
from contracts.solana import client as c
from contracts.solana import get_program
from messages.digests import compute_vault_id
from messages.errors import Rejected, Unavailable
from messages.ids import get_vault_client
from messages.outbox import compute_next_head
from messages.packet import compute_commitment
from tests.builders import OPERATORS

START = 1_800_000_000
CAP = 10**12
NOBODY = Pubkey.from_bytes(bytes(31) + b"\x07")
LOADER = "BPFLoaderUpgradeab1e11111111111111111111111"


class World:
    """A cluster with a vault and a user that has tokens and an open balance; everything final."""

    def __init__(self):
        self.clock = ManualClock(START)
        self.chain = chain = SimSolana("sim-1", self.clock)
        self.key = chain.make_key("user")
        self.user = chain.get_account_key(self.key)
        self.mint = chain.create_mint(6)
        chain.mint_to(self.mint, self.user, CAP)
        self.state = chain.create_vault(self.key, OPERATORS, 3, self.user, 86_400, {self.mint: (CAP, CAP, CAP)})
        self.vault = c.Vault(chain.program, Pubkey.from_bytes(self.state))
        self.payer = Pubkey.from_bytes(self.user)
        chain.send(self.key, [c.make_open(self.vault, self.payer, c.get_balance_id(self.user, self.mint))])
        chain.finalize()

    def make_deposit(self, amount):
        return c.make_deposit(self.vault, self.payer, self.mint, amount, self.user)

    def deposit(self, amount):
        return self.chain.send(self.key, [self.make_deposit(amount)])

    def get_state(self):
        return c.decode_state(self.chain.read(self.state))

    def make_raw(self, instructions, commitment="finalized"):
        blockhash = Hash.from_string(self.ask("getLatestBlockhash", {"commitment": commitment})["value"]["blockhash"])
        return bytes(self.chain.make_transaction(self.key, instructions, (), (), blockhash))

    def ask(self, method, *params, index=0):
        return asyncio.run(self.chain.endpoints[index].rpc.request(method, list(params)))

    def handle(self, method, *params):
        return self.chain.endpoints[0].rpc.handle(method, params)

    def read_state(self, commitment="finalized", index=0):
        options = {"encoding": "base64", "commitment": commitment}
        answer = self.ask("getMultipleAccounts", [str(self.vault.state), str(CLOCK_ID)], options, index=index)
        account, clock = answer["value"]
        state = None if account is None else c.decode_state(base64.b64decode(account["data"][0]))
        return answer["context"]["slot"], state, struct.unpack("<QqQQq", base64.b64decode(clock["data"][0]))

    def get_transaction(self, signature, index=0, commitment="finalized"):
        options = {"encoding": "json", "commitment": commitment, "maxSupportedTransactionVersion": 0}
        return self.ask("getTransaction", signature, options, index=index)

    def list_signatures(self, index=0, **options):
        rows = self.ask("getSignaturesForAddress", str(self.vault.state), options, index=index)
        return [row["signature"] for row in rows]

    def get_events(self, transaction):
        """The packets of the vault in a transaction, read as the documentation says."""
        message, meta = transaction["transaction"]["message"], transaction["meta"]
        loaded = meta["loadedAddresses"]
        keys = message["accountKeys"] + loaded["writable"] + loaded["readonly"]
        client = get_vault_client(compute_vault_id(self.chain.chain, self.state))
        return [
            c.decode_event(base58.b58decode(one["data"]), client)
            for group in meta["innerInstructions"]
            for one in group["instructions"]
            if keys[one["programIdIndex"]] == str(self.chain.program)
        ]


@pytest.fixture
def world():
    return World()


def encode(raw):
    return base64.b64encode(raw).decode()


# ---- the chain --------------------------------------------------------------------------------------------------------


def test_the_real_program_runs_and_its_event_folds_into_the_head_of_its_account(world):
    signature = world.deposit(5)
    world.chain.finalize()
    assert world.chain.get_result(signature).error == ""
    assert world.chain.get_tokens(world.mint, world.state) == 5
    state = world.get_state()
    (event,) = world.get_events(world.get_transaction(signature))
    assert state.outbox_sequence == 1
    assert event.head == state.outbox_head
    assert event.head == compute_next_head(state.vault_id, 1, compute_commitment(event.packet))
    assert state.vault_id == compute_vault_id(world.chain.chain, world.state)
    assert base64.b64decode(
        world.ask("getAccountInfo", find_program_data(world), {"encoding": "base64"})["value"]["data"][0]
    )[45:] == get_program("vault")


def find_program_data(world):
    """The account that holds the code of the program, as its program account names it."""
    value = world.ask("getAccountInfo", str(world.chain.program), {"encoding": "base64"})["value"]
    data = base64.b64decode(value["data"][0])
    assert (value["owner"], value["executable"], data[:4]) == (LOADER, True, b"\x02\0\0\0")
    return str(Pubkey.from_bytes(data[4:36]))


def test_a_refusal_of_the_program_costs_its_fee_and_changes_nothing_else(world):
    before, lamports = world.chain.read(world.state), world.chain.get_balance(world.user)
    refused = world.chain.send(world.key, [c.make_cancel(world.vault, world.payer, 9)])
    beyond = world.deposit(CAP + 1)
    world.chain.mine()
    assert world.chain.get_result(refused).error == "unknown"
    assert world.chain.get_result(beyond).error.endswith(": custom 1"), "the token program's own code keeps its name"
    assert world.chain.read(world.state) == before
    assert world.chain.get_balance(world.user) == lamports - 2 * 5_000


def test_the_same_calls_at_the_same_times_give_the_same_chain():
    first, second = World(), World()
    for world in (first, second):
        world.deposit(5)
        world.chain.finalize()
    assert first.list_signatures() == second.list_signatures()
    assert first.read_state() == second.read_state()
    assert first.ask("getLatestBlockhash") == second.ask("getLatestBlockhash")


def test_finalized_state_and_its_clock_are_those_of_32_slots_ago(world):
    world.deposit(5)
    world.chain.mine()
    newest, now, _ = world.read_state("processed")
    slot, then, clock = world.read_state("finalized")
    assert (now.outbox_sequence, then.outbox_sequence) == (1, 0)
    assert newest - 34 <= slot <= newest - 32
    assert clock[0] == slot
    assert 12 <= world.clock() - clock[4] <= 15
    world.clock.advance(14)
    slot, then, clock = world.read_state("finalized")
    assert then.outbox_sequence == 1
    assert clock[0] == slot


def test_a_transaction_lands_in_a_later_slot_than_it_was_sent_in(world):
    signature = world.deposit(5)
    assert world.chain.get_result(signature) is None
    slot = world.chain.get_slot()
    world.clock.advance(1)
    assert slot < world.chain.get_result(signature).slot <= world.chain.get_slot()


def test_in_a_month_of_silence_no_block_is_made(world):
    before = len(world.chain.bank.ledger.blocks)
    slot = world.ask("getSlot")
    world.clock.advance(30 * 86_400)
    assert world.ask("getSlot") - slot == pytest.approx(30 * 86_400 * 2.5, abs=2)
    assert len(world.chain.bank.ledger.blocks) == before
    world.deposit(5)
    world.chain.finalize()
    assert world.read_state()[1].outbox_sequence == 1
    assert len(world.chain.bank.ledger.blocks) == before + 1


def test_heights_count_the_slots_that_have_a_block():
    for slot in range(440_000_000, 440_000_100):
        assert compute_height(slot + 1) - compute_height(slot) == (not is_skipped(slot + 1))
        assert not is_skipped(get_block_slot(slot))


def test_no_transaction_lands_in_a_slot_without_block(world):
    signatures = []
    for _ in range(60):
        signatures.append(world.deposit(1))
        world.clock.advance(1)
    world.chain.finalize()
    slots = [world.chain.get_result(signature).slot for signature in signatures]
    assert slots == sorted(slots)
    assert not any(is_skipped(slot) for slot in slots)


def test_priority_is_paid_for_and_equal_calls_are_two_transactions(world):
    before = world.chain.get_balance(world.user)
    budget = [set_compute_unit_limit(200_000), set_compute_unit_price(1_000_000)]
    dear = world.chain.send(world.key, [*budget, world.make_deposit(1)])
    first, second = world.deposit(1), world.deposit(1)
    world.chain.mine()
    assert first != second
    assert world.chain.get_result(dear).fee == 5_000 + 200_000
    assert world.chain.get_balance(world.user) == before - 205_000 - 2 * 5_000
    assert world.get_state().outbox_sequence == 3


def test_a_block_hash_lasts_150_blocks_and_no_longer(world):
    answer = world.ask("getLatestBlockhash", {"commitment": "processed"})["value"]
    raw = world.make_raw([world.make_deposit(1)], "processed")
    late = world.make_raw([world.make_deposit(2)], "processed")
    while world.ask("getBlockHeight", {"commitment": "processed"}) < answer["lastValidBlockHeight"] - 4:
        world.clock.advance(1)
    assert world.ask("isBlockhashValid", answer["blockhash"], {"commitment": "processed"})["value"]
    good = world.chain.send_raw(raw)
    world.chain.mine()
    assert world.chain.get_result(good).error == ""
    world.clock.advance(4)
    assert not world.ask("isBlockhashValid", answer["blockhash"], {"commitment": "processed"})["value"]
    expired = world.chain.send_raw(late)
    world.chain.finalize()
    assert world.chain.get_result(expired) is None
    assert world.chain.dropped[expired] == "BlockhashNotFound"


def test_a_lookup_table_can_be_made_and_used_in_the_next_slot(world):
    slot = world.ask("getSlot")
    table, bump = Pubkey.find_program_address([world.user, struct.pack("<Q", slot)], TABLE_PROGRAM)
    keys = [world.vault.find(c.get_balance_id(world.user, world.mint)), world.vault.find_tokens(world.mint)]
    accounts = [
        AccountMeta(table, is_signer=False, is_writable=True),
        AccountMeta(world.payer, is_signer=True, is_writable=True),
        AccountMeta(world.payer, is_signer=True, is_writable=True),
        AccountMeta(SYSTEM_PROGRAM, is_signer=False, is_writable=False),
    ]
    make = Instruction(TABLE_PROGRAM, struct.pack("<IQB", 0, slot, bump), accounts)
    extend = Instruction(TABLE_PROGRAM, struct.pack("<IQ", 2, 2) + b"".join(map(bytes, keys)), accounts)
    made = world.chain.send(world.key, [make, extend])
    world.chain.mine()
    assert world.chain.get_result(made).error == ""
    assert AddressLookupTable.deserialize(world.chain.read(table)).addresses == keys
    signature = world.chain.send(world.key, [world.make_deposit(7)], tables=[table])
    world.chain.finalize()
    told = world.get_transaction(signature)
    assert told["meta"]["loadedAddresses"] == {"readonly": [], "writable": [str(keys[1]), str(keys[0])]}
    assert [event.packet.sequence for event in world.get_events(told)] == [1]
    # a table of a slot that is not recent is refused by the real program
    old = Instruction(TABLE_PROGRAM, struct.pack("<IQB", 0, slot - 5_000, bump), accounts)
    refused = world.chain.send(world.key, [old])
    world.chain.mine()
    assert world.chain.get_result(refused).error


def test_who_has_no_money_for_the_fee_waits_until_the_block_hash_is_too_old(world):
    poor = b"\x05" * 32
    target = Pubkey.from_bytes(world.chain.get_account_key(poor))
    pay = transfer(TransferParams(from_pubkey=target, to_pubkey=world.payer, lamports=1))
    waiting = world.chain.send(poor, [pay])
    world.clock.advance(4)
    assert world.chain.get_result(waiting) is None
    give = transfer(TransferParams(from_pubkey=world.payer, to_pubkey=target, lamports=10**9))
    world.chain.send(world.key, [give])
    world.clock.advance(5)
    assert world.chain.get_result(waiting).error == ""
    never = world.chain.send(b"\x06" * 32, [pay], signers=[poor])
    world.chain.finalize()
    assert world.chain.dropped[never] == "BlockhashNotFound"


def test_what_is_no_transaction_is_not_taken(world):
    raw = world.make_raw([world.make_deposit(1)])
    forged = raw[:5] + bytes([raw[5] ^ 1]) + raw[6:]
    for wrong, reason in ((b"", "malformed"), (raw + b"\0", "malformed"), (forged, "bad_signature"), (raw * 4, "size")):
        with pytest.raises(Rejected) as caught:
            world.chain.send_raw(wrong)
        assert caught.value.reason == reason
    world.chain.send_raw(raw)
    world.chain.send_raw(raw)
    world.chain.finalize()
    assert world.get_state().outbox_sequence == 1


# ---- forks ------------------------------------------------------------------------------------------------------------


def test_a_fork_takes_back_what_was_not_final_and_it_lands_again(world):
    world.deposit(5)
    world.chain.finalize()
    kept = world.chain.read(world.state)
    signature = world.deposit(7)
    world.chain.mine()
    slot = world.chain.get_result(signature).slot
    hash_before = world.chain.bank.ledger.compute_hash(slot)
    assert world.chain.fork() == (signature,)
    assert world.chain.read(world.state) == kept
    assert world.chain.get_result(signature) is None
    assert world.chain.bank.ledger.compute_hash(slot) != hash_before
    assert world.ask("getSignatureStatuses", [signature])["value"] == [None]
    world.chain.finalize()
    assert world.get_state().outbox_sequence == 2
    assert world.chain.get_result(signature).slot > slot


def test_what_a_fork_drops_never_comes_back(world):
    signature = world.deposit(7)
    world.chain.mine()
    world.chain.fork(drop=True)
    world.chain.finalize()
    assert world.get_state().outbox_sequence == 0
    assert world.chain.get_tokens(world.mint, world.user) == CAP
    assert world.chain.dropped == {signature: "forked"}


def test_what_is_final_is_not_forked_away(world):
    signature = world.deposit(7)
    world.chain.finalize()
    assert world.chain.fork() == ()
    assert world.chain.get_result(signature).error == ""
    assert world.get_state().outbox_sequence == 1


def test_a_transaction_with_a_hash_of_the_other_branch_never_lands(world):
    world.chain.mine()
    signature = world.chain.send_raw(world.make_raw([world.make_deposit(1)], "processed"))
    world.chain.mine()
    world.chain.fork()
    world.chain.finalize()
    assert world.chain.dropped[signature] == "BlockhashNotFound"


def test_an_endpoint_on_the_other_branch_shows_what_never_was(world):
    signature = world.deposit(7)
    world.chain.mine()
    world.chain.fork(drop=True)
    world.chain.finalize()
    world.chain.endpoints[0].lies.follow_fork = True
    assert world.read_state()[1].outbox_sequence == 1
    assert world.get_transaction(signature) is not None
    assert world.read_state(index=1)[1].outbox_sequence == 0
    assert world.get_transaction(signature, index=1) is None


# ---- answers as nodes give them ---------------------------------------------------------------------------------------


def read_as(kind, answer):
    """What the reference library reads in an answer, as JSON of its own."""
    found = kind.from_json(json.dumps({"jsonrpc": "2.0", "id": 0} | answer))
    assert isinstance(found, kind), found
    return json.loads(found.to_json())["result"]


@pytest.fixture
def cases(world):
    good, bad = world.deposit(5), world.deposit(2 * CAP)
    world.chain.finalize()
    world.deposit(6)
    world.chain.mine()
    state, nobody = str(world.vault.state), str(NOBODY)
    blockhash = world.ask("getLatestBlockhash")["value"]["blockhash"]
    in_base64 = {"encoding": "base64"}
    version = {"maxSupportedTransactionVersion": 0}
    raw, wrong = world.make_raw([world.make_deposit(9)]), world.make_raw([world.make_deposit(3 * CAP)])
    return {
        "account": (responses.GetAccountInfoResp, "getAccountInfo", [state, in_base64]),
        "no account": (responses.GetAccountInfoResp, "getAccountInfo", [nobody]),
        "accounts": (responses.GetMultipleAccountsResp, "getMultipleAccounts", [[state, nobody], in_base64]),
        "balance": (responses.GetBalanceResp, "getBalance", [str(world.payer)]),
        "block hash": (responses.GetLatestBlockhashResp, "getLatestBlockhash", []),
        "valid hash": (responses.IsBlockhashValidResp, "isBlockhashValid", [blockhash]),
        "slot": (responses.GetSlotResp, "getSlot", [{"commitment": "confirmed"}]),
        "height": (responses.GetBlockHeightResp, "getBlockHeight", []),
        "time": (responses.GetBlockTimeResp, "getBlockTime", [world.ask("getSlot")]),
        "epoch": (responses.GetEpochInfoResp, "getEpochInfo", []),
        "genesis": (responses.GetGenesisHashResp, "getGenesisHash", []),
        "version": (responses.GetVersionResp, "getVersion", []),
        "health": (responses.GetHealthResp, "getHealth", []),
        "rent": (responses.GetMinimumBalanceForRentExemptionResp, "getMinimumBalanceForRentExemption", [1_080]),
        "fees": (responses.GetRecentPrioritizationFeesResp, "getRecentPrioritizationFees", [[state]]),
        "signatures": (responses.GetSignaturesForAddressResp, "getSignaturesForAddress", [state]),
        "statuses": (responses.GetSignatureStatusesResp, "getSignatureStatuses", [[good, bad, "1" * 64]]),
        "transaction": (responses.GetTransactionResp, "getTransaction", [good, version]),
        "failed": (responses.GetTransactionResp, "getTransaction", [bad, version]),
        "as bytes": (responses.GetTransactionResp, "getTransaction", [good, version | in_base64]),
        "no transaction": (responses.GetTransactionResp, "getTransaction", ["1" * 64, version]),
        "tokens": (
            responses.GetTokenAccountBalanceResp,
            "getTokenAccountBalance",
            [str(world.vault.find_tokens(world.mint))],
        ),
        "would fail": (responses.SimulateTransactionResp, "simulateTransaction", [encode(wrong), in_base64]),
        "would work": (
            responses.SimulateTransactionResp,
            "simulateTransaction",
            [encode(raw), in_base64 | {"commitment": "processed", "innerInstructions": True}],
        ),
        "sent": (responses.SendTransactionResp, "sendTransaction", [encode(raw), in_base64]),
    }


def test_the_reference_library_reads_every_answer_and_finds_nothing_else_in_it(world, cases):
    """solders holds the node's own types: what it would write again is what was told, but for fields that it adds or does not know."""
    for name, (kind, method, params) in cases.items():
        answer = world.handle(method, *params)
        assert find_differences(answer["result"], read_as(kind, answer)) == set(), name


def find_differences(told, read, at=""):
    """Paths at which what was told is not what was read; ``space`` the library leaves out."""
    if isinstance(told, dict) and isinstance(read, dict):
        names = {name for name in told.keys() | read.keys() if told.get(name) != read.get(name)} - {"space"}
        return {path for name in names for path in find_differences(told.get(name), read.get(name), f"{at}.{name}")}
    if isinstance(told, list) and isinstance(read, list) and len(told) == len(read):
        pairs = enumerate(zip(told, read, strict=True))
        return {path for i, (a, b) in pairs for path in find_differences(a, b, f"{at}[{i}]")}
    return set() if told == read else {at}


def test_the_comparison_with_the_reference_library_can_fail(world, cases):
    kind, method, params = cases["transaction"]
    answer = world.handle(method, *params)
    read = read_as(kind, answer)
    answer["result"]["meta"]["fee"] += 1
    assert find_differences(answer["result"], read) == {".meta.fee"}
    del answer["result"]["slot"]
    with pytest.raises(Exception, match=r"slot|data did not match"):
        read_as(kind, answer)


def test_errors_are_those_of_nodes(world):
    good = world.deposit(5)
    world.chain.finalize()
    state = str(world.vault.state)
    raw = world.make_raw([world.make_deposit(CAP)])
    forged = raw[:5] + bytes([raw[5] ^ 1]) + raw[6:]
    in_base64 = {"encoding": "base64"}
    asked = {
        ("getSlot", (("minContextSlot", 2**40),)): -32016,
        ("getTransaction", (good,)): -32015,
        ("nothing", ()): -32601,
        ("getAccountInfo", ("0OIl",)): -32602,
        ("getAccountInfo", (state[:-5],)): -32602,
        ("getAccountInfo", (state,)): -32600,  # more than 128 bytes in base58
        ("getSignaturesForAddress", (state, (("commitment", "processed"),))): -32602,
        ("getSignaturesForAddress", (state, (("limit", 1_001),))): -32602,
        ("getSlot", (("commitment", "soon"),)): -32602,
        ("getBlockTime", (440_000_007,)): -32009,
        ("getBlockTime", (2**40,)): -32004,
        ("sendTransaction", ("!", (("encoding", "base64"),))): -32602,
        ("sendTransaction", (encode(b"\x01" * 1_233), (("encoding", "base64"),))): -32602,
        ("sendTransaction", (encode(raw)[:40], (("encoding", "base64"),))): -32602,
        ("sendTransaction", (encode(forged), (("encoding", "base64"),))): -32003,
    }
    for (method, params), code in asked.items():
        # options stand as pairs, so that the table can be a table
        answer = world.handle(method, *(unfold(one) for one in params))
        assert answer["error"]["code"] == code, (method, params, answer)
    assert world.handle("getMultipleAccounts", [state] * 101, in_base64)["error"]["code"] == -32602
    assert len(world.handle("getMultipleAccounts", [state] * 100, in_base64)["result"]["value"]) == 100


def unfold(param):
    if isinstance(param, str | int):
        return param
    return dict([param] if isinstance(param[0], str) else param)


def test_preflight_tells_the_programs_own_code_and_sends_nothing(world):
    raw = world.make_raw([c.make_cancel(world.vault, world.payer, 9)])
    answer = world.handle("sendTransaction", encode(raw), {"encoding": "base64"})
    read = responses.SendTransactionResp.from_json(json.dumps({"jsonrpc": "2.0", "id": 0} | answer))
    assert isinstance(read, responses.SendTransactionPreflightFailureMessage)
    assert answer["error"]["message"].endswith("Error processing Instruction 1: custom program error: 0x12")
    assert answer["error"]["data"]["err"] == {"InstructionError": [1, {"Custom": 18}]}
    with pytest.raises(RpcError) as caught:
        world.ask("sendTransaction", encode(raw), {"encoding": "base64"})
    assert (caught.value.code, caught.value.data["err"]) == (-32002, {"InstructionError": [1, {"Custom": 18}]})
    assert not world.chain.pool
    unseen = {"encoding": "base64", "skipPreflight": True}
    forged = raw[:5] + bytes([raw[5] ^ 1]) + raw[6:]
    assert world.ask("sendTransaction", encode(forged), unseen)  # taken, and forgotten by whoever checks it
    assert not world.chain.pool
    assert world.ask("sendTransaction", encode(raw), unseen)
    assert len(world.chain.pool) == 1


def test_preflight_stands_at_the_commitment_that_was_asked_for(world):
    world.chain.mine()
    raw = world.make_raw([world.make_deposit(1)], "processed")
    refused = world.handle("sendTransaction", encode(raw), {"encoding": "base64"})["error"]
    assert (refused["code"], refused["data"]["err"]) == (-32002, "BlockhashNotFound")
    options = {"encoding": "base64", "preflightCommitment": "processed"}
    signature = world.ask("sendTransaction", encode(raw), options)
    world.chain.mine()
    assert world.chain.get_result(signature).error == ""
    again = world.handle("sendTransaction", encode(raw), options)["error"]
    assert again["data"]["err"] == "AlreadyProcessed"


def test_a_simulation_sees_the_state_of_its_commitment_and_changes_none(world):
    world.chain.mint_to(world.mint, world.user, 5)
    world.chain.mine()
    raw = world.make_raw([world.make_deposit(CAP + 5)], "finalized")
    before = world.chain.read(world.state)
    results = {
        level: world.ask("simulateTransaction", encode(raw), {"encoding": "base64", "commitment": level})["value"]
        for level in ("processed", "finalized")
    }
    assert results["processed"]["err"] is None
    assert results["processed"]["unitsConsumed"] > 1_000
    assert results["finalized"]["err"] == {"InstructionError": [1, {"Custom": 1}]}  # the money was not there
    assert world.chain.read(world.state) == before
    world.chain.send_raw(raw)
    world.chain.mine()
    assert world.get_state().outbox_sequence == 1


def test_a_simulation_may_replace_the_block_hash_and_need_no_signature(world):
    raw = world.make_raw([world.make_deposit(5)])
    world.clock.advance(300)
    forged = encode(raw[:5] + bytes([raw[5] ^ 1]) + raw[6:])
    in_base64 = {"encoding": "base64"}
    assert world.ask("simulateTransaction", forged, in_base64)["value"]["err"] == "BlockhashNotFound"
    replaced = world.ask("simulateTransaction", forged, in_base64 | {"replaceRecentBlockhash": True})["value"]
    assert replaced["err"] is None
    assert replaced["replacementBlockhash"]["blockhash"] == world.ask("getLatestBlockhash")["value"]["blockhash"]
    empty = VersionedTransaction.from_bytes(raw).message
    unsigned = MessageV0(empty.header, empty.account_keys, Hash.default(), empty.instructions, [])
    blank = encode(bytes(VersionedTransaction.populate(unsigned, [Signature.default()])))
    assert world.ask("simulateTransaction", blank, in_base64)["value"]["err"] == "BlockhashNotFound"
    assert world.ask("simulateTransaction", blank, in_base64 | {"replaceRecentBlockhash": True})["value"]["err"] is None
    assert world.handle("simulateTransaction", forged, in_base64 | {"sigVerify": True})["error"]["code"] == -32003


def test_the_list_of_an_account_is_cut_by_before_until_and_limit(world):
    made = [world.deposit(number) for number in range(1, 6)]
    world.chain.finalize()
    newest_first = made[::-1]
    listed = world.list_signatures()
    assert listed[:5] == newest_first
    assert world.list_signatures(limit=2) == newest_first[:2]
    assert world.list_signatures(limit=2, before=newest_first[1]) == newest_first[2:4]
    assert world.list_signatures(until=newest_first[2]) == newest_first[:2]
    assert world.list_signatures(before=newest_first[0], until=newest_first[3]) == newest_first[1:3]
    assert world.list_signatures(before="1" * 64) == []


def test_statuses_are_forgotten_unless_history_is_searched(world):
    signature = world.deposit(5)
    world.chain.mine()
    (fresh,) = world.ask("getSignatureStatuses", [signature])["value"]
    assert (fresh["confirmationStatus"], fresh["err"], fresh["confirmations"] is None) == ("confirmed", None, False)
    world.chain.finalize()
    (final,) = world.ask("getSignatureStatuses", [signature])["value"]
    assert (final["confirmationStatus"], final["confirmations"]) == ("finalized", None)
    world.clock.advance(120)
    assert world.ask("getSignatureStatuses", [signature])["value"] == [None]
    (found,) = world.ask("getSignatureStatuses", [signature], {"searchTransactionHistory": True})["value"]
    assert found["slot"] == final["slot"]


def test_what_is_not_final_is_in_no_finalized_answer(world):
    signature = world.deposit(5)
    world.chain.mine()
    assert signature not in world.list_signatures()
    assert world.list_signatures(commitment="confirmed")[0] == signature
    assert world.get_transaction(signature) is None
    assert world.get_transaction(signature, commitment="confirmed")["slot"] == world.chain.get_result(signature).slot


# ---- lies -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def told(world):
    """Two deposits and a failed call, final; what an honest endpoint tells."""
    world.signatures = [world.deposit(1), world.deposit(2)]
    world.failed = world.deposit(2 * CAP)
    world.chain.finalize()
    return world


def set_lie(world, **lies):
    for name, value in lies.items():
        assert hasattr(world.chain.endpoints[0].lies, name)
        setattr(world.chain.endpoints[0].lies, name, value)


def compare(world):
    """(what the first endpoint tells, what the second tells) of everything an observer or a reader asks."""
    answers = []
    for index in (0, 1):
        slot, state, clock = world.read_state(index=index)
        listed = world.list_signatures(index=index)
        transactions = [world.get_transaction(signature, index) for signature in [*world.signatures, world.failed]]
        genesis = world.ask("getGenesisHash", index=index)
        place = (state.outbox_sequence, state.outbox_head) if state else None
        answers.append(
            {
                "slot": slot,
                "state": place,
                "clock": (clock[0], clock[4]),
                "list": listed,
                "transactions": transactions,
                "genesis": genesis,
            }
        )
    return answers


@pytest.mark.parametrize(
    ("lies", "changed"),
    [
        ({}, set()),
        ({"stall_slot": 440_001_030}, {"slot", "state", "clock", "list", "transactions"}),
        ({"genesis_hash": "1" * 32}, {"genesis"}),
        ({"drop_events": True}, {"list", "transactions"}),
        ({"drop_event_every": 2}, {"list", "transactions"}),
        ({"no_index": True}, {"list", "transactions"}),
        ({"reorder_events": True}, {"list", "transactions"}),
        ({"forge_events": True}, {"transactions"}),
        ({"other_program": True}, {"transactions"}),
        ({"null_inner": True}, {"transactions"}),
        ({"undo_results": True}, {"transactions"}),
        ({"hide_failures": True}, {"transactions"}),
        ({"missing_vault": True}, {"state"}),
        ({"forge_head": True}, {"state"}),
        ({"forge_sequence": 7}, {"state"}),
        ({"clock_ahead_s": 3_600}, {"clock", "transactions"}),  # a transaction tells its block's time
        ({"slot_ahead": 50}, {"slot", "clock"}),
        ({"early_finality": True}, {"slot", "clock"}),
    ],
    ids=lambda value: "+".join(sorted(value)) or "nothing",
)
def test_each_lie_changes_what_it_says_and_nothing_else(told, lies, changed):
    set_lie(told, **lies)
    lying, honest = compare(told)
    assert {name for name in honest if lying[name] != honest[name]} == changed


def test_forged_events_are_still_well_formed_and_do_not_fold(told):
    set_lie(told, forge_events=True)
    (lying,) = told.get_events(told.get_transaction(told.signatures[0], 0))
    (honest,) = told.get_events(told.get_transaction(told.signatures[0], 1))
    assert lying.head == honest.head
    amounts = [int.from_bytes(event.packet.payloads[0].value[-32:], "big") for event in (lying, honest)]
    assert amounts == [0, 1]


def test_events_that_are_told_as_another_programs_are_not_the_vaults(told):
    set_lie(told, other_program=True)
    assert told.get_events(told.get_transaction(told.signatures[0], 0)) == []


def test_a_hidden_failure_is_told_as_success(told):
    set_lie(told, hide_failures=True)
    lying, honest = (told.get_transaction(told.failed, index)["meta"] for index in (0, 1))
    assert (lying["err"], lying["status"]) == (None, {"Ok": None})
    assert honest["err"] == {"InstructionError": [1, {"Custom": 1}]}


def test_another_owner_is_told_of_every_account_of_the_program(told):
    set_lie(told, other_owner=True)
    owners = {
        told.ask("getAccountInfo", str(told.vault.state), {"encoding": "base64"}, index=index)["value"]["owner"]
        for index in (0, 1)
    }
    assert len(owners) == 2
    assert str(told.chain.program) in owners


def test_early_finality_shows_what_a_fork_takes_back(world):
    set_lie(world, early_finality=True)
    world.deposit(5)
    world.chain.mine()
    assert world.read_state(index=0)[1].outbox_sequence == 1
    assert world.read_state(index=1)[1].outbox_sequence == 0
    world.chain.fork(drop=True)
    set_lie(world, follow_fork=True)
    assert world.read_state(index=0)[1].outbox_sequence == 1


async def test_an_endpoint_can_be_away_busy_silent_or_behind(world):
    rpc, lies = world.chain.endpoints[0].rpc, world.chain.endpoints[0].lies
    assert await rpc.request("getHealth", []) == "ok"
    lies.unhealthy = True
    with pytest.raises(Unavailable):
        await rpc.request("getHealth", [])
    lies.fail_every = 1
    with pytest.raises(Unavailable) as busy:
        await rpc.request("getSlot", [])
    lies.down = True
    with pytest.raises(Unavailable) as away:
        await rpc.request("getSlot", [])
    assert (busy.value.reason, away.value.reason) == ("http_status", "unreachable")
    lies.down, lies.fail_every, lies.hang = False, 0, True
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await rpc.request("getSlot", [])


def test_an_endpoint_that_forgets_what_it_was_sent_says_that_it_sent_it(world):
    set_lie(world, drop_sent=True)
    raw = world.make_raw([world.make_deposit(5)])
    signature = world.ask("sendTransaction", encode(raw), {"encoding": "base64"})
    world.chain.finalize()
    assert world.chain.get_result(signature) is None
    assert world.ask("sendTransaction", encode(raw), {"encoding": "base64"}, index=1) == signature
    world.chain.finalize()
    assert world.chain.get_result(signature).error == ""
