// Times go-ethereum's trie.VerifyProof on the account and storage proofs of one eth_getProof answer.
// Usage: go_mpt FILE SECONDS. Prints one line of JSON: verified pairs (account + storage) per second.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/common/hexutil"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/ethdb/memorydb"
	"github.com/ethereum/go-ethereum/rlp"
	"github.com/ethereum/go-ethereum/trie"
)

type input struct {
	StateRoot    common.Hash     `json:"state_root"`
	Address      common.Address  `json:"address"`
	AccountProof []hexutil.Bytes `json:"account_proof"`
	Slot         common.Hash     `json:"slot"`
	StorageProof []hexutil.Bytes `json:"storage_proof"`
}

// verify does what a verifier must do for every proof: hash the nodes, then walk them.
func verify(in *input) ([]byte, error) {
	db := memorydb.New()
	for _, node := range in.AccountProof {
		db.Put(crypto.Keccak256(node), node)
	}
	blob, err := trie.VerifyProof(in.StateRoot, crypto.Keccak256(in.Address[:]), db)
	if err != nil {
		return nil, err
	}
	var account types.StateAccount
	if err := rlp.DecodeBytes(blob, &account); err != nil {
		return nil, err
	}
	slots := memorydb.New()
	for _, node := range in.StorageProof {
		slots.Put(crypto.Keccak256(node), node)
	}
	value, err := trie.VerifyProof(account.Root, crypto.Keccak256(in.Slot[:]), slots)
	return bytes.Clone(value), err
}

func main() {
	raw, err := os.ReadFile(os.Args[1])
	if err != nil {
		panic(err)
	}
	var in input
	if err := json.Unmarshal(raw, &in); err != nil {
		panic(err)
	}
	seconds, err := strconv.ParseFloat(os.Args[2], 64)
	if err != nil {
		panic(err)
	}
	value, err := verify(&in)
	if err != nil || len(value) == 0 {
		panic(fmt.Sprintf("the proof does not verify: %v %x", err, value))
	}
	begin, count := time.Now(), 0
	for time.Since(begin).Seconds() < seconds {
		for range 100 {
			if _, err := verify(&in); err != nil {
				panic(err)
			}
		}
		count += 100
	}
	fmt.Printf("{\"per_second\": %.1f, \"value\": \"0x%x\"}\n", float64(count)/time.Since(begin).Seconds(), value)
}
