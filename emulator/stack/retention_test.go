package stack

import (
	"strings"
	"testing"
	"time"

	"parley.internal/emulator/firestore"
	"parley.internal/shared/store"
)

func TestTTLPoliciesAreThoseOfTheCollections(t *testing.T) {
	t.Parallel()
	for _, retention := range []time.Duration{0, 15 * time.Minute} {
		got := map[string]firestore.TTLPolicy{}
		for _, p := range ttlPolicies(retention) {
			got[p.Collection] = p
		}
		limited := 0
		for _, c := range store.Collections {
			p := got[c.Name]
			delete(got, c.Name)
			if p.Field != c.TTLField {
				t.Errorf("%s has the TTL field %q, want %q", c.Name, p.Field, c.TTLField)
			}
			if p.Limit != 0 && (p.Limit != retention || !c.PerEvent) {
				t.Errorf("%s has the limit %s", c.Name, p.Limit)
			}
			if p.Limit != 0 {
				limited++
			}
		}
		if len(got) > 0 {
			t.Errorf("policies of unknown collections: %v", got)
		}
		if (limited > 0) != (retention > 0) {
			t.Errorf("with a retention of %s, %d collections have a limit", retention, limited)
		}
		srv, err := firestore.New(firestore.WithTTL(ttlPolicies(retention)...))
		if err != nil {
			t.Fatal(err)
		}
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestRetentionOutlivesTheSweepOfADelivery(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		retention, sweep time.Duration
		deadline         string
		valid            bool
	}{
		{15 * time.Minute, time.Minute, "2m", true},
		{4*time.Minute + 20*time.Second, time.Minute, "2m", true}, // SWEEP_GRACE is 20 s by default
		{4*time.Minute + 19*time.Second, time.Minute, "2m", false},
		{15 * time.Minute, time.Hour, "2m", false},
		{15 * time.Minute, time.Minute, "1h", false},
		{0, time.Minute, "1h", true},
	} {
		err := checkRetention(c.retention, c.sweep, []string{"EGRESS_DEADLINE=" + c.deadline})
		if (err == nil) != c.valid || err != nil && !strings.Contains(err.Error(), "--retention: ") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
