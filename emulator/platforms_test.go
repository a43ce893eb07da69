package main

import (
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"parley.internal/emulator/soak"
	"parley.internal/emulator/stack"
	"parley.internal/shared/identity"
)

// TestEachQuestionOnAPlatformIsHeardAndAnsweredOnce is a short one of go run ./emulator soak --platforms.
func TestEachQuestionOnAPlatformIsHeardAndAnsweredOnce(t *testing.T) {
	seed, err := stack.ParseSeed(defaultSeed)
	if err != nil {
		t.Fatal(err)
	}
	o := soak.PlatformOptions{
		Binary: binary, Dir: t.TempDir(), Environ: os.Environ(), Seed: rand.Uint64(), Gateways: 3, Channels: 6, Guilds: 2,
		Messages: 100, Every: 80 * time.Millisecond, Faults: 5, Gap: 1500 * time.Millisecond, Hurry: true, Documents: seed,
	}
	t.Logf("seed %d", o.Seed)
	report, err := soak.RunPlatforms(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := report.Write(&out); err != nil {
		t.Fatal(err)
	}
	t.Log(out.String())
	if !report.Clean() {
		t.Errorf("the promise was broken; the faults come again with the seed %d", report.Seed)
	}
	for _, k := range soak.PlatformFaults {
		if report.Faults[k.Kind] == 0 {
			t.Errorf("%s was never made", k.Kind)
		}
	}
	for _, p := range []identity.Platform{identity.Twitch, identity.Discord} {
		tally := report.Platforms[p]
		if tally.Asked < o.Messages || tally.Heard+tally.Missed != tally.Asked || tally.Answered+tally.Unknown != tally.Heard {
			t.Errorf("%s: %+v: not everything has an outcome that a kill explains", p, tally)
		}
		if tally.Answered < o.Messages/2 {
			t.Errorf("%s: only %d of %d questions were answered", p, tally.Answered, tally.Asked)
		}
	}
}
