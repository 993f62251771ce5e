package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	cmtjson "github.com/cometbft/cometbft/libs/json"
	"github.com/cometbft/cometbft/light"
	"github.com/cometbft/cometbft/types"
	ics23 "github.com/cosmos/ics23/go"
)

// Verdicts, one a line of input, as the Python side spells them.
const (
	accepted  = "accepted"
	tooFar    = "not_enough_trust"
	refused   = "refused"
	lineLimit = 1 << 26
)

type blockCase struct {
	Now     time.Time           `json:"now"`
	Trusted *types.LightBlock   `json:"trusted"`
	Next    *types.ValidatorSet `json:"next_validators"`
	Block   *types.LightBlock   `json:"block"`
}

type storeCase struct {
	Spec, Root, Key, Value, Proof string
	Exists                        bool
}

// judge reads cases, one a line, and writes a verdict for each. What makes a library panic is refused.
func judge(kind string, in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 1<<20), lineLimit)
	for lines.Scan() {
		verdict := judgeProof
		if kind == "blocks" {
			verdict = judgeBlock
		}
		if _, err := fmt.Fprintln(out, guard(verdict, lines.Bytes())); err != nil {
			return err
		}
	}
	return lines.Err()
}

func guard(verdict func([]byte) string, line []byte) (result string) {
	defer func() {
		if recover() != nil {
			result = refused
		}
	}()
	return verdict(line)
}

func judgeBlock(line []byte) string {
	var in blockCase
	if err := cmtjson.Unmarshal(line, &in); err != nil {
		return refused
	}
	err := light.Verify(in.Trusted.SignedHeader, in.Next, in.Block.SignedHeader, in.Block.ValidatorSet,
		period, in.Now, time.Second, light.DefaultTrustLevel)
	var far light.ErrNewValSetCantBeTrusted
	switch {
	case err == nil:
		return accepted
	case errors.As(err, &far):
		return tooFar
	default:
		return refused
	}
}

func judgeProof(line []byte) string {
	var in storeCase
	if err := json.Unmarshal(line, &in); err != nil {
		panic(err)
	}
	var proof ics23.CommitmentProof
	if err := proof.Unmarshal(unhex(in.Proof)); err != nil {
		return refused
	}
	spec := ics23.TendermintSpec
	if in.Spec == "iavl" {
		spec = ics23.IavlSpec
	}
	isShown := ics23.VerifyNonMembership(spec, unhex(in.Root), &proof, unhex(in.Key))
	if in.Exists {
		isShown = ics23.VerifyMembership(spec, unhex(in.Root), &proof, unhex(in.Key), unhex(in.Value))
	}
	if isShown {
		return accepted
	}
	return refused
}

func unhex(text string) []byte {
	data, err := hex.DecodeString(text)
	if err != nil {
		panic(err)
	}
	return data
}
