package soak

import (
	"slices"
	"testing"
	"time"
)

// TestScheduleIsTheSameForTheSameSeed draws two schedules with one seed and a third schedule with another seed.
func TestScheduleIsTheSameForTheSameSeed(t *testing.T) {
	draw := func(seed uint64) (faults []fault) {
		s := newSchedule(seed, Short, names(Kinds))
		for range 100 {
			faults = append(faults, s.next())
		}
		return faults
	}
	if !slices.Equal(draw(7), draw(7)) {
		t.Error("seed 7 draws two different sequences")
	}
	if slices.Equal(draw(7), draw(8)) {
		t.Error("seeds 7 and 8 draw the same sequence")
	}
}

func TestScheduleDrawsEveryKindBeforeAnyRepeats(t *testing.T) {
	s := newSchedule(1, Short, names(Kinds))
	for round := range 5 {
		seen := map[Kind]bool{}
		for range Kinds {
			seen[s.next().kind] = true
		}
		if len(seen) != len(Kinds) {
			t.Errorf("round %d has %d kinds; want %d", round, len(seen), len(Kinds))
		}
	}
}

func TestScheduleKeepsToThePace(t *testing.T) {
	pace := Pace{Gap: 100 * time.Millisecond, Longest: 800 * time.Millisecond, Skew: 10 * time.Second}
	s := newSchedule(1, pace, names(Kinds))
	for range 1000 {
		f := s.next()
		if f.after < 50*time.Millisecond || f.after > 150*time.Millisecond {
			t.Fatalf("%s comes after %s", f, f.after)
		}
		if f.length < 100*time.Millisecond || f.length > 800*time.Millisecond {
			t.Fatalf("%s takes %s", f, f.length)
		}
		least, most := 0.02, 0.3
		switch f.kind {
		case KillGateway, KillBeforeSettling, KillFunction, Roll, PauseGateway, CutPubSub, CutFirestore, CutClients:
			least, most = 1, 1
		case PublishUnavailable, PublishTimeout:
			least, most = 0.62, 0.9
		}
		if f.rate < least || f.rate > most {
			t.Fatalf("%s has the rate %v; want %v to %v", f, f.rate, least, most)
		}
		if skew := s.skew(); skew.Abs() > pace.Skew {
			t.Fatalf("a clock is wrong by %s", skew)
		}
	}
}

func TestEveryKindIsExplainedOnce(t *testing.T) {
	for name, table := range map[string][]KindInfo{"Kinds": Kinds, "PlatformKinds": PlatformKinds} {
		seen := map[Kind]bool{}
		for _, k := range table {
			if seen[k.Kind] || k.Meaning == "" {
				t.Errorf("%s: %q stands twice, or has no meaning", name, k.Kind)
			}
			seen[k.Kind] = true
		}
	}
}
