package main

import (
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"parley.internal/emulator/soak"
	"parley.internal/emulator/stack"
	"parley.internal/shared/identity"
)

// soakCommon returns the options of a soak with three gateways and a random seed.
func soakCommon(t *testing.T, faults int) soak.Common {
	t.Helper()
	seed, err := stack.ParseSeed(defaultSeed)
	if err != nil {
		t.Fatal(err)
	}
	c := soak.Common{
		Binary: binary, Dir: t.TempDir(), Environ: commandEnviron(), Seed: rand.Uint64(), Gateways: 3, Faults: faults, Documents: seed,
	}
	t.Logf("seed %d", c.Seed)
	return c
}

// logReport writes a soak's report to the test's log.
func logReport(t *testing.T, report interface{ Write(io.Writer) error }) {
	t.Helper()
	var out strings.Builder
	if err := report.Write(&out); err != nil {
		t.Fatal(err)
	}
	t.Log(out.String())
}

// "go run ./emulator soak" runs the same soak for minutes.
func TestAnswersArriveOnceDespiteFaults(t *testing.T) {
	t.Parallel()
	o := soak.ClientOptions{Common: soakCommon(t, len(soak.Kinds)), Users: 20, InFlight: 8, Messages: 400, Pace: soak.Short}
	report, err := soak.RunClients(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	logReport(t, report)
	if !report.Clean() {
		t.Errorf("the audit found violations; seed %d draws the same faults", report.Seed)
	}
	// A user who leaves may disconnect before the ingress topic accepts the last questions.
	if report.Sent < o.Messages || report.Accepted+report.Forgone != report.Sent || report.Delivered == 0 {
		t.Errorf("%d questions sent, %d accepted, %d forgone; %d answers delivered", report.Sent, report.Accepted, report.Forgone, report.Delivered)
	}
	for _, k := range soak.Kinds {
		if report.Faults[k.Kind] == 0 {
			t.Errorf("fault %s was never injected", k.Kind)
		}
	}
}

// The test replaces every gateway three times while users ask, like Cloud Run with a new revision. There are no other
// faults, so every question must be answered and no delivery may be dead-lettered.
func TestRollingDeployLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	o := soak.ClientOptions{
		Common: soakCommon(t, 9), InFlight: 16,
		Users: 9, // a tenth user would leave for good
		Kinds: []soak.Kind{soak.Roll}, Messages: 400, Pace: soak.Rolling,
	}
	o.Bounded = true
	report, err := soak.RunClients(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	logReport(t, report)
	if !report.Clean() || report.Lost != 0 || report.Doubled != 0 || len(report.Dead) != 0 {
		t.Errorf("%d answers lost, %d doubled, dead letters by reason: %v", report.Lost, report.Doubled, report.Dead)
	}
	if report.Sent < o.Messages || report.Accepted != report.Sent || report.Delivered != report.Sent {
		t.Errorf("%d questions sent, %d accepted; %d answers delivered", report.Sent, report.Accepted, report.Delivered)
	}
	if report.Faults[soak.Roll] < o.Faults || report.Gateways < o.Gateways+o.Faults { // the gateways take turns
		t.Errorf("%d rolls, %d gateways started", report.Faults[soak.Roll], report.Gateways)
	}
	if report.Connections <= o.Users {
		t.Errorf("%d connections of %d users: no user had to reconnect", report.Connections, o.Users)
	}
	if d := report.Departed; d.Late != 0 || d.Failed != 0 || d.LeftSubscriptions != 0 {
		t.Errorf("ends of the rolled gateways: %+v", d)
	}
}

// "go run ./emulator soak platforms" runs the same soak for minutes.
func TestPlatformQuestionsAreIngestedAndAnsweredOnce(t *testing.T) {
	t.Parallel()
	o := soak.PlatformOptions{
		Common: soakCommon(t, 5), Channels: 6, Guilds: 2,
		Answers: 60, Every: 80 * time.Millisecond, Gap: 1500 * time.Millisecond, ExpireClaims: true,
	}
	o.Bounded = true // a busy machine answers the questions after the last fault
	report, err := soak.RunPlatforms(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	logReport(t, report)
	if !report.Clean() {
		t.Errorf("the audit found violations; seed %d draws the same faults", report.Seed)
	}
	for _, k := range soak.PlatformKinds {
		if report.Faults[k.Kind] == 0 {
			t.Errorf("fault %s was never injected", k.Kind)
		}
	}
	for _, p := range []identity.Platform{identity.Twitch, identity.Discord} {
		tally := report.Platforms[p]
		if tally.Answered < o.Answers || tally.Ingested+tally.Missed != tally.Asked || tally.Answered+tally.Unknown != tally.Ingested {
			t.Errorf("%s: %+v: some questions have an outcome that no kill explains", p, tally)
		}
	}
}
