package main

import (
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"parley.internal/emulator/soak"
	"parley.internal/emulator/stack"
)

// TestWhateverBreaksEachAnswerComesOnce is a short soak; go run ./emulator soak is a long one.
func TestWhateverBreaksEachAnswerComesOnce(t *testing.T) {
	seed, err := stack.ParseSeed(defaultSeed)
	if err != nil {
		t.Fatal(err)
	}
	o := soak.Options{
		Binary: binary, Dir: t.TempDir(), Environ: os.Environ(), Seed: rand.Uint64(), Gateways: 3, Users: 20, InFlight: 8,
		Messages: 1500, Faults: len(soak.Kinds), Documents: seed, Pace: soak.Short,
	}
	t.Logf("seed %d", o.Seed)
	report, err := soak.Run(t.Context(), o)
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
	// Those who go away may go before the ingress topic takes what they asked last.
	if report.Sent < o.Messages || report.Accepted+report.Forgone != report.Sent || report.Delivered == 0 {
		t.Errorf("%d questions were sent, %d accepted and %d forgone, and %d answers delivered", report.Sent, report.Accepted, report.Forgone, report.Delivered)
	}
	for _, k := range soak.Kinds {
		if report.Faults[k.Kind] == 0 {
			t.Errorf("%s was never made", k.Kind)
		}
	}
}

// TestARollingDeployLosesAndDoublesNothing replaces every gateway three times while people ask, as Cloud Run does it with
// a new revision. Nothing else is wrong, so every question is answered: none has to be given up.
func TestARollingDeployLosesAndDoublesNothing(t *testing.T) {
	seed, err := stack.ParseSeed(defaultSeed)
	if err != nil {
		t.Fatal(err)
	}
	o := soak.Options{
		Binary: binary, Dir: t.TempDir(), Environ: os.Environ(), Seed: rand.Uint64(), Gateways: 3, InFlight: 16,
		Users: 9, // the tenth would go away for good
		Kinds: []soak.Kind{soak.Roll}, Messages: 1500, Faults: 9, Bounded: true, Documents: seed, Pace: soak.Rolling,
	}
	report, err := soak.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := report.Write(&out); err != nil {
		t.Fatal(err)
	}
	t.Log(out.String())
	if !report.Clean() || report.Lost != 0 || report.Doubled != 0 || len(report.Dead) != 0 {
		t.Errorf("%d answers are lost, %d doubled, and dead-lettered are %v", report.Lost, report.Doubled, report.Dead)
	}
	if report.Sent < o.Messages || report.Accepted != report.Sent || report.Delivered != report.Sent {
		t.Errorf("%d questions were sent, %d accepted, and %d answers delivered", report.Sent, report.Accepted, report.Delivered)
	}
	if report.Faults[soak.Roll] < o.Faults || report.Gateways < o.Gateways+o.Faults { // they take turns
		t.Errorf("%d gateways were replaced, by %d", report.Faults[soak.Roll], report.Gateways)
	}
	if report.Connections <= o.Users {
		t.Errorf("%d connections of %d users: nobody had to come back", report.Connections, o.Users)
	}
	if d := report.Departed; d.Late != 0 || d.Failed != 0 || d.LeftSubscriptions != 0 {
		t.Errorf("gateways that were told to end: %+v", d)
	}
}
