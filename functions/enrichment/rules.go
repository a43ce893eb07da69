package enrichment

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"parley.internal/functions/enrichment/rule"
	"parley.internal/shared/store"
)

const (
	// loadTimeout bounds a reading of the rules, which an event waits for.
	loadTimeout = 10 * time.Second

	// retryLoad is when a reading that failed is tried again, if the rules are kept for longer than that.
	retryLoad = 10 * time.Second
)

// ruleCache keeps the compiled rules. The first use after their time reads them again, while others go on with the old
// ones: a function has no time of its own between its calls.
type ruleCache struct {
	load func(context.Context) ([]store.Rule, map[string]error, error)
	ttl  time.Duration
	now  func() time.Time
	log  *slog.Logger

	firstLoad singleflight.Group

	mu            sync.Mutex
	set           *rule.Set // nil until it was loaded once
	expires       time.Time
	loading       bool
	broken        map[string]string // what is wrong with which rule, as it was logged
	failureLogged map[string]bool   // which rules failed for an event, and were logged, since they were loaded
}

// get gives the rules. It fails only if they were never loaded.
func (b *ruleCache) get(ctx context.Context) (*rule.Set, error) {
	b.mu.Lock()
	set := b.set
	stale := set != nil && !b.loading && !b.now().Before(b.expires)
	b.loading = b.loading || stale
	b.mu.Unlock()
	switch {
	case set == nil:
		v, err, _ := b.firstLoad.Do("", func() (any, error) { return b.reload(ctx, nil) })
		if err != nil {
			return nil, err
		}
		return v.(*rule.Set), nil
	case stale:
		if fresh, err := b.reload(ctx, set); err == nil {
			return fresh, nil
		}
	}
	return set, nil
}

// reload loads and compiles the rules in the place of old ones, or keeps these.
func (b *ruleCache) reload(ctx context.Context, old *rule.Set) (*rule.Set, error) {
	// others may wait for what this call reads, so it does not end with it
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTimeout)
	defer cancel()
	rules, malformed, err := b.load(ctx)
	if err != nil {
		b.mu.Lock()
		b.loading, b.expires = false, b.now().Add(min(b.ttl, retryLoad))
		b.mu.Unlock()
		if old != nil {
			b.log.ErrorContext(ctx, "rules not read again: the old ones stay", "error", err)
		}
		return nil, err
	}
	set, failures := rule.Compile(rules, old)
	broken := map[string]string{}
	for id, err := range malformed {
		broken[id] = err.Error()
	}
	for _, f := range failures {
		broken[f.ID] = f.Err.Error()
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	for id, what := range broken {
		if b.broken[id] != what { // said once, not at each reading
			b.log.WarnContext(ctx, "rule left out", "rule", id, "error", what)
		}
	}
	b.log.DebugContext(ctx, "rules loaded", "rules", set.Len(), "broken", len(broken))
	b.set, b.broken, b.failureLogged, b.loading, b.expires = set, broken, map[string]bool{}, false, b.now().Add(b.ttl)
	return set, nil
}

// logFailures logs rules that failed for an event, each once between two readings. What went wrong may quote the event, so
// it is told at debug level only.
func (b *ruleCache) logFailures(ctx context.Context, failures []rule.Failure) {
	for _, f := range failures {
		b.mu.Lock()
		said := b.failureLogged[f.ID]
		b.failureLogged[f.ID] = true
		b.mu.Unlock()
		if !said {
			b.log.WarnContext(ctx, "rule failed for an event: it added nothing", "rule", f.ID)
		}
		b.log.DebugContext(ctx, "rule failed", "rule", f.ID, "error", f.Err)
	}
}
