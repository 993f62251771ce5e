"""What the simulated consensus writes and hashes is what a real node does: one block of a wasmd chain that ran for this test."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from hashlib import sha256

from chains.cosmos.codec import parse_block_id, parse_commit, parse_header
from chains.cosmos.comet_sim import (
    MAX_BLOCK_BYTES,
    MAX_BLOCK_GAS,
    CometSim,
    compute_parts,
    compute_results_hash,
    encode_block,
)
from chains.cosmos.hashing import compute_header_hash, compute_merkle_root
from chains.cosmos.protobuf import encode_commit_sig, encode_integer
from chains.cosmos.sim_rpc import describe_commit, describe_header

# Height 12 of a chain of two validators (wasmd v0.70.3, CometBFT v0.39): as `block` told it, and the results of height 11.
BLOCK_ID = json.loads(
    """{"hash": "511F06355E21CCDE8F416FAE32DDB5FCD5C26248EC6097FC0691F1C6E448EF75", "parts": {"total": 1, "hash": "968FC2011E8F4C597EA2508D63349CE42DBD6A709DBB636513699A4B486626D7"}}"""
)
BLOCK = json.loads(
    """
{
 "header": {
  "version": {
   "block": "11"
  },
  "chain_id": "optsettle-8",
  "height": "12",
  "time": "2026-11-21T15:20:27.993544148Z",
  "last_block_id": {
   "hash": "B105861FC622433F4E22E4501F171870A98670CD0ACC10137D22993F9E77B69A",
   "parts": {
    "total": 1,
    "hash": "9DD5FCB30039ED17C1CF87A9E4DA8F5CEC62D1D3F2BF8F571049CF7C61A29A26"
   }
  },
  "last_commit_hash": "F2389C77D838CFCD993CA67B828B2518692CC280F398F7320CFA411E15D31D0B",
  "data_hash": "03E929DDFB97C9EAA647AE8003324E96810B1267903A7D0401D57E5FBDCFCA45",
  "validators_hash": "8FDB155280B86CB91F85D3987B1008532A77EDD17ED704A549433561EE901AD8",
  "next_validators_hash": "8FDB155280B86CB91F85D3987B1008532A77EDD17ED704A549433561EE901AD8",
  "consensus_hash": "048091BC7DDC283F77BFBF91D73C44DA58C3DF8A9CBC867405D8B7F3DAADA22F",
  "app_hash": "279D78A2695378BC5E143D6692A8058A21CA417DCB1905F36815338EC6B0DAE1",
  "last_results_hash": "BDAA57519DFD7F357D2379965AC865B35E5401EBFFD120B29A553E3FFDD1479E",
  "evidence_hash": "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
  "proposer_address": "D1642A28DBBA41FD5EBAE4938B04923F8AE0BFED"
 },
 "data": {
  "txs": [
   "CtUCCtICCiQvY29zbXdhc20ud2FzbS52MS5Nc2dFeGVjdXRlQ29udHJhY3QSqQIKK3dhc20xNnFyaGR1ODMyOHp5dXl2M3Zlamp5NHJ2Y244eXQ1dDJmdDd6bTQSP3dhc20xbmM1dGF0YWZ2NmV5cTdsbGtyMmd2NTBmZjllMjJtbmY3MHFnamx2NzM3a3RtdDRlc3dycXI1ajJodBq4AXsiZGVwb3NpdCI6eyJhc3NldCI6ImFkZTRhNWY1ODAzYTQzOTgzNWM2MzYzOTVhOGQ2NDhkZWU1N2IyZmM5MGQ5OGRjMTdmYTg4NzE1OWI2OTYzOGIiLCJhbW91bnQiOiI0MDAiLCJiZW5lZmljaWFyeSI6IjAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMGQwMDc3NmYwZjE1MWM0NGUxMTkxNjY2NTIyNTQ2Y2M0Y2U0NWQxNmEifX0SZgpQCkYKHy9jb3Ntb3MuY3J5cHRvLnNlY3AyNTZrMS5QdWJLZXkSIwohAvLK/CRLlXw85T09ElCtEr7eT+EmTN+4q7mPgD9a2jIcEgQKAggBGAESEgoMCgVzdGFrZRIDMzc5EKyJFxpAAk9WcjJ/RA4Uz7fyMhj2L7eizJxKcZse+bVq7ecmIr03XdfHo+Gjn7R+n+UQ89JdkJdtMdUVMiVE0SU5IBDB3A=="
  ]
 },
 "evidence": {
  "evidence": []
 },
 "last_commit": {
  "height": "11",
  "round": 0,
  "block_id": {
   "hash": "B105861FC622433F4E22E4501F171870A98670CD0ACC10137D22993F9E77B69A",
   "parts": {
    "total": 1,
    "hash": "9DD5FCB30039ED17C1CF87A9E4DA8F5CEC62D1D3F2BF8F571049CF7C61A29A26"
   }
  },
  "signatures": [
   {
    "block_id_flag": 2,
    "validator_address": "7DA188CC974EA0273C67139BB7FA4B9C81976892",
    "timestamp": "2026-11-21T15:20:28.015018307Z",
    "signature": "xLOXXtBpTKZIDD0bkUY9jqVOB025Igk2TjYtjCLqYn/4W3LMxYmH/Xuj1s8PYr2/aa5D9vLq8YUUTtlyd2C5BQ=="
   },
   {
    "block_id_flag": 2,
    "validator_address": "D1642A28DBBA41FD5EBAE4938B04923F8AE0BFED",
    "timestamp": "2026-11-21T15:20:27.993544148Z",
    "signature": "okL2uuhmt039Nlv2+zWWUBbXT3eFm42FDriIE8YukUdMyVpeGQ2694/wB0X75Nod6/4w3a73v9tPlf9VWRAPCA=="
   }
  ]
 }
}
    """
)
RESULTS_BEFORE = [
    {
        "code": 0,
        "data": "Ei4KLC9jb3Ntd2FzbS53YXNtLnYxLk1zZ0V4ZWN1dGVDb250cmFjdFJlc3BvbnNl",
        "gas_wanted": "213065",
        "gas_used": "137618",
    }
]


def get_block():
    return (
        parse_header(BLOCK["header"]),
        tuple(base64.b64decode(raw) for raw in BLOCK["data"]["txs"]),
        parse_commit(BLOCK["last_commit"]),
    )


def test_a_real_block_has_these_bytes_parts_and_hashes():
    header, transactions, last = get_block()
    block_id = parse_block_id(BLOCK_ID)
    assert compute_header_hash(header) == block_id.hash
    assert compute_parts(encode_block(header, transactions, last)) == block_id.parts
    assert compute_merkle_root([encode_commit_sig(vote) for vote in last.signatures]) == header.last_commit_hash
    assert compute_merkle_root([sha256(raw).digest() for raw in transactions]) == header.data_hash
    assert compute_merkle_root([]) == header.evidence_hash
    limits = encode_integer(1, MAX_BLOCK_BYTES) + encode_integer(2, MAX_BLOCK_GAS)
    assert sha256(limits).digest() == header.consensus_hash


def test_a_real_block_with_one_thing_changed_has_other_ones():
    header, transactions, last = get_block()
    parts = parse_block_id(BLOCK_ID).parts
    for changed in (
        (replace(header, height=13), transactions, last),
        (header, (*transactions, b"x"), last),
        (header, transactions, replace(last, round=1)),
    ):
        assert compute_parts(encode_block(*changed)) != parts


def test_the_results_of_a_real_block_have_the_hash_that_the_next_header_names():
    results = [
        (r["code"], base64.b64decode(r["data"] or ""), int(r["gas_wanted"]), int(r["gas_used"])) for r in RESULTS_BEFORE
    ]
    header, _, _ = get_block()
    assert compute_results_hash(results) == header.last_results_hash
    assert compute_results_hash([(1, *results[0][1:])]) != header.last_results_hash


def test_headers_and_commits_are_told_as_the_node_tells_them():
    header, _, last = get_block()
    assert describe_header(header) == BLOCK["header"]
    assert describe_commit(last) == BLOCK["last_commit"]


def test_validators_sign_in_the_order_of_power_and_a_change_goes_through_every_height():
    comet = CometSim("sim-1", {"a": 1, "b": 5, "c": 3})
    assert [member.power for member in comet.get_set(1).validators] == [5, 3, 1]
    comet.change_validators({"a": 9})
    for height in (1, 2, 3):
        header = comet.make_header(height * 10**9, (), bytes(32), b"")
        comet.append(comet.make_block(header, ()))
    assert [len(block.validators.validators) for block in comet.blocks] == [3, 3, 1]
