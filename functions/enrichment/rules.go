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
	// loadTimeout bounds one read of the rules, because an event waits for the result.
	loadTimeout = 10 * time.Second

	// retryLoad is the pause after a failed read, unless the cache time is shorter.
	retryLoad = 10 * time.Second
)

// ruleCache caches the compiled rules. The first use after the cache time reads the rules again, while concurrent uses
// continue with the old rules. A background refresh is impossible: a Cloud Function has no CPU between calls.
type ruleCache struct {
	load func(context.Context) ([]store.Rule, map[string]error, error)
	ttl  time.Duration
	now  func() time.Time
	log  *slog.Logger

	firstLoad singleflight.Group

	mu            sync.Mutex
	set           *rule.Set // nil before the first load
	expires       time.Time
	loading       bool
	broken        map[string]string // by rule id: the logged compile error
	failureLogged map[string]bool   // by rule id: a failure was logged since the last load
}

// get returns the rules. It fails only if no load has succeeded yet.
func (c *ruleCache) get(ctx context.Context) (*rule.Set, error) {
	c.mu.Lock()
	set := c.set
	stale := set != nil && !c.loading && !c.now().Before(c.expires)
	c.loading = c.loading || stale
	c.mu.Unlock()
	switch {
	case set == nil:
		v, err, _ := c.firstLoad.Do("", func() (any, error) { return c.reload(ctx, nil) })
		if err != nil {
			return nil, err
		}
		return v.(*rule.Set), nil
	case stale:
		if fresh, err := c.reload(ctx, set); err == nil {
			return fresh, nil
		}
	}
	return set, nil
}

// reload replaces the rules, or keeps the old rules if the read fails.
func (c *ruleCache) reload(ctx context.Context, old *rule.Set) (*rule.Set, error) {
	// Other events may wait for this read, so the context of one event must not cancel it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTimeout)
	defer cancel()
	rules, malformed, err := c.load(ctx)
	if err != nil {
		c.mu.Lock()
		c.loading, c.expires = false, c.now().Add(min(c.ttl, retryLoad))
		c.mu.Unlock()
		if old != nil {
			c.log.ErrorContext(ctx, "rules not reloaded, old rules stay in force", "error", err)
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

	c.mu.Lock()
	defer c.mu.Unlock()
	for id, message := range broken {
		if c.broken[id] != message { // log once, not after each reload
			c.log.WarnContext(ctx, "rule failed to compile", "rule", id, "error", message)
		}
	}
	c.log.DebugContext(ctx, "rules loaded", "rules", set.Len(), "broken", len(broken))
	c.set, c.broken, c.failureLogged, c.loading, c.expires = set, broken, map[string]bool{}, false, c.now().Add(c.ttl)
	return set, nil
}

// logFailures logs the rules that failed for an event, each rule once between two reloads. An error may quote the event,
// so errors are logged at debug level only.
func (c *ruleCache) logFailures(ctx context.Context, failures []rule.Failure) {
	for _, f := range failures {
		c.mu.Lock()
		logged := c.failureLogged[f.ID]
		c.failureLogged[f.ID] = true
		c.mu.Unlock()
		if !logged {
			c.log.WarnContext(ctx, "rule failed for an event", "rule", f.ID)
		}
		c.log.DebugContext(ctx, "rule failure details", "rule", f.ID, "error", f.Err)
	}
}
