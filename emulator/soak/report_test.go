package soak

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"parley.internal/shared/identity"
)

// wantRows checks that a report has rows with these words. Spaces between the words do not count.
func wantRows(t *testing.T, report string, rows ...string) {
	t.Helper()
	spaces := regexp.MustCompile(` +`)
	flat := spaces.ReplaceAllString(report, " ")
	for _, row := range rows {
		if !strings.Contains(flat, "\n"+row) {
			t.Errorf("no row %q in:\n%s", row, report)
		}
	}
}

func TestClientReportShowsCountsFaultsAndViolations(t *testing.T) {
	r := &ClientReport{
		Summary: Summary{Seed: 7, Elapsed: 90 * time.Second, Gateways: 5, Faults: map[Kind]int{Roll: 2, AcksLost: 1}},
		Sent:    10, Accepted: 9, Forgone: 1, Delivered: 8, Dead: map[string]int{"no_connection": 1}, Hits: map[Kind]int{AcksLost: 3},
		Departed: Departures{Slowest: 1500 * time.Millisecond, Late: 1},
	}
	r.add(Violation{What: "an answer was lost", Lost: true}, true, func() []string { return []string{"ledger: nothing"} })
	r.add(Violation{What: "a part ended"}, false, nil)
	var out strings.Builder
	if err := r.Write(&out); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out.String(), "VIOLATION: an answer was lost\n    ledger: nothing\nVIOLATION: a part ended\n") {
		t.Errorf("the report does not begin with the violations:\n%s", out.String())
	}
	wantRows(t, out.String(), "seed 7", "time 1m30s", "gateways started 5", "questions sent 10", "not accepted before the user left 1",
		"dead-lettered: no_connection 1", "roll 2", "acks-lost 1 3", "all 3", "slowest end after SIGTERM 1.5s", "killed 10 s after SIGTERM 1",
		"other violations 1", "LOST 1", "DOUBLED 0")
}

func TestPlatformReportHasAColumnForEachPlatform(t *testing.T) {
	r := &PlatformReport{
		Summary:   Summary{Faults: map[Kind]int{StopGateway: 4}},
		Platforms: map[identity.Platform]PlatformTally{identity.Twitch: {Asked: 3, Missed: 1, GapTime: time.Second}, identity.Discord: {Asked: 5, Answered: 5}},
	}
	var out strings.Builder
	if err := r.Write(&out); err != nil {
		t.Fatal(err)
	}
	wantRows(t, out.String(), "stop-gateway 4", " discord twitch", "questions asked 5 3", "missed, in a recorded gap 0 1", "answered once 5 0",
		" duration, all channels together 0s 1s", "other violations 0", "LOST 0")
}

func TestOnlyTheFirstViolationsHaveAHistory(t *testing.T) {
	var s Summary
	for range maxHistories + 5 {
		s.add(Violation{Doubled: true}, true, func() []string { return []string{"line"} })
	}
	histories := 0
	for _, v := range s.Violations {
		histories += len(v.History)
	}
	if histories != maxHistories || s.Doubled != maxHistories+5 || len(s.Violations) != maxHistories+5 {
		t.Errorf("%d histories, %d doubled, %d violations", histories, s.Doubled, len(s.Violations))
	}
}

func TestLoggedFindsIDsInEveryLog(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"gateway0.log": "start\nsent d1\nother d2\n" + strings.Repeat("again d1\n", 10), "dlq.log": "swept c1\n", "notes.txt": "d1\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h := &harness{Common: Common{Dir: dir}}
	want := []string{"dlq.log: swept c1", "gateway0.log: sent d1"}
	for range maxLogged - 1 {
		want = append(want, "gateway0.log: again d1")
	}
	if got := h.logged("d1", "", "c1"); !slices.Equal(got, want) {
		t.Errorf("got %q; want %q", got, want)
	}
}

func TestFaultsBetweenIncludesAMargin(t *testing.T) {
	began := time.Now()
	at := func(seconds int) time.Time { return began.Add(time.Duration(seconds) * time.Second) }
	h := &harness{began: began}
	for i, seconds := range [][2]int{{0, 2}, {14, 16}, {30, 31}} {
		h.faults = append(h.faults, madeFault{fault: fault{kind: Kind(fmt.Sprint("fault", i)), rate: 1}, target: "gateway0", began: at(seconds[0]), ended: at(seconds[1])})
	}
	got := h.faultsBetween(at(10), at(20))
	if len(got) != 1 || got[0] != "fault: fault1 for 0s gateway0, from 14.000s until 16.000s" {
		t.Errorf("got %q; want fault1 only", got)
	}
	if got := h.faultsBetween(at(6), at(26)); len(got) != 3 {
		t.Errorf("with both borders inside the margin, got %q; want three faults", got)
	}
}
