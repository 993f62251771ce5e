// Times CometBFT's light client and the ICS-23 verifier of Go on the cases of the Cosmos bench.
// Usage: go_comet FILE SECONDS KIND, where KIND is "adjacent", "skipping" or "proof". Prints one line of JSON: verifications per second of
// processor time.
// Or: go_comet judge KIND, where KIND is "blocks" or "proofs". Reads cases from standard input, prints a verdict for each.
package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	cmtjson "github.com/cometbft/cometbft/libs/json"
	"github.com/cometbft/cometbft/light"
	"github.com/cometbft/cometbft/types"
	ics23 "github.com/cosmos/ics23/go"
)

type input struct {
	Now     time.Time           `json:"now"`
	Trusted *types.LightBlock   `json:"trusted"`
	Next    *types.LightBlock   `json:"adjacent"`
	Later   *types.LightBlock   `json:"skipping"`
	Next2   *types.ValidatorSet `json:"next_validators"`
	Proof   proofCase           `json:"proof"`
}

type proofCase struct {
	Root  string `json:"root"`
	Store string `json:"store"`
	Key   string `json:"key"`
	Value string `json:"value"`
	Inner string `json:"iavl"`
	Outer string `json:"simple"`
}

const (
	period = 14 * 24 * time.Hour
	drift  = 10 * time.Second
)

func adjacent(in *input) error {
	return light.VerifyAdjacent(in.Trusted.SignedHeader, in.Next.SignedHeader, in.Next.ValidatorSet, period, in.Now, drift)
}

func skipping(in *input) error {
	return light.VerifyNonAdjacent(in.Trusted.SignedHeader, in.Next2, in.Later.SignedHeader, in.Later.ValidatorSet,
		period, in.Now, drift, light.DefaultTrustLevel)
}

func decode(text string) []byte {
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		panic(err)
	}
	return data
}

// proof does what a client of a chain does for every answer: read both steps, check the value, check the store's root.
func proof(in *input) func() error {
	root, store, key, value := decode(in.Proof.Root), decode(in.Proof.Store), decode(in.Proof.Key), decode(in.Proof.Value)
	innerBytes, outerBytes := decode(in.Proof.Inner), decode(in.Proof.Outer)
	return func() error {
		var inner, outer ics23.CommitmentProof
		if err := inner.Unmarshal(innerBytes); err != nil {
			return err
		}
		if err := outer.Unmarshal(outerBytes); err != nil {
			return err
		}
		subroot, err := inner.Calculate()
		if err != nil {
			return err
		}
		if !ics23.VerifyMembership(ics23.IavlSpec, subroot, &inner, key, value) {
			return fmt.Errorf("the value is not proven")
		}
		if !ics23.VerifyMembership(ics23.TendermintSpec, root, &outer, store, subroot) {
			return fmt.Errorf("the store is not proven")
		}
		return nil
	}
}

// spent returns the processor time of this process in seconds, the collector's included.
func spent() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

func main() {
	if os.Args[1] == "judge" {
		if err := judge(os.Args[2], os.Stdin, os.Stdout); err != nil {
			panic(err)
		}
		return
	}
	raw, err := os.ReadFile(os.Args[1])
	if err != nil {
		panic(err)
	}
	var in input
	if err := cmtjson.Unmarshal(raw, &in); err != nil {
		panic(err)
	}
	seconds, err := strconv.ParseFloat(os.Args[2], 64)
	if err != nil {
		panic(err)
	}
	var run func() error
	switch os.Args[3] {
	case "adjacent":
		run = func() error { return adjacent(&in) }
	case "skipping":
		run = func() error { return skipping(&in) }
	default:
		run = proof(&in)
	}
	if err := run(); err != nil {
		panic(fmt.Sprintf("the case does not verify: %v", err))
	}
	begin, used, count := time.Now(), spent(), 0
	for time.Since(begin).Seconds() < seconds {
		for range 10 {
			if err := run(); err != nil {
				panic(err)
			}
		}
		count += 10
	}
	out, err := json.Marshal(map[string]float64{"per_second": float64(count) / (spent() - used)})
	if err != nil {
		panic(err)
	}
	fmt.Println(string(out))
}
