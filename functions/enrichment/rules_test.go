package enrichment

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"parley.internal/shared/store"
)

func newRulebook(load func(context.Context) ([]store.Rule, map[string]error, error), now *time.Time, log *strings.Builder) *ruleCache {
	return &ruleCache{load: load, ttl: time.Minute, now: func() time.Time { return *now }, log: slog.New(slog.NewTextHandler(log, nil))}
}

func TestOldRulesStayAfterFailedReload(t *testing.T) {
	now, log := noon, &strings.Builder{}
	loads, down := 0, errors.New("no database")
	var err error = down
	b := newRulebook(func(context.Context) ([]store.Rule, map[string]error, error) {
		loads++
		return []store.Rule{{ID: "a", Enabled: true, When: "true", Slip: []string{"personality"}}, {ID: "b", Enabled: true, When: "tru"}}, nil, err
	}, &now, log)
	if _, got := b.get(t.Context()); !errors.Is(got, down) {
		t.Fatalf("error = %v; want why there are no rules at all", got)
	}
	expect := func(wantLoads int) {
		t.Helper()
		set, err := b.get(t.Context())
		if err != nil || set.Len() != 1 || loads != wantLoads {
			t.Errorf("%v rules, error %v, after %d readings; want 1, none, %d", set, err, loads, wantLoads)
		}
	}
	err = nil
	expect(2)
	expect(2)
	err = down
	now = now.Add(time.Minute)
	expect(3)
	expect(3) // not at each event
	if !strings.Contains(log.String(), "no database") {
		t.Errorf("log = %s", log)
	}
	err = nil
	now = now.Add(retryLoad)
	expect(4)
	expect(4)
	if n := strings.Count(log.String(), "rule failed to compile"); n != 1 {
		t.Errorf("what is wrong with b was logged %d times; want 1\n%s", n, log)
	}
}

func TestConcurrentUsesShareOneReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now, loads := noon, 0
		gate := make(chan struct{})
		b := newRulebook(func(context.Context) ([]store.Rule, map[string]error, error) {
			loads++
			<-gate
			return nil, nil, nil
		}, &now, &strings.Builder{})
		var wg sync.WaitGroup
		use := func() {
			wg.Go(func() {
				if _, err := b.get(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		for range 5 {
			use() // all wait for the one that reads
		}
		synctest.Wait()
		gate <- struct{}{}
		wg.Wait()
		if loads != 1 {
			t.Errorf("%d readings; want 1", loads)
		}

		now = now.Add(time.Hour)
		use()
		synctest.Wait()
		if _, err := b.get(t.Context()); err != nil || loads != 2 { // does not wait for the one that reads
			t.Errorf("error %v, %d readings; want none, 2", err, loads)
		}
		gate <- struct{}{}
		wg.Wait()
	})
}
