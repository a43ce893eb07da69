package instance

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"parley.internal/shared/store"
)

const (
	// storeCheckTimeout bounds one check.
	storeCheckTimeout = 2 * time.Second
	// storeCheckTTL is the lifetime of a check's result. Probes cost at most one Firestore read in this time.
	storeCheckTTL = 5 * time.Second
)

// storeCheck reports whether Firestore is reachable, and caches the result. It is safe for concurrent use.
type storeCheck struct {
	read func(ctx context.Context) error
	now  func() time.Time

	mu  sync.Mutex
	at  time.Time
	err error
}

func newStoreCheck(s *store.Store, now func() time.Time) *storeCheck {
	missing := store.TokenHash("") // reading a missing document also proves that Firestore answers
	return &storeCheck{now: now, read: func(ctx context.Context) error {
		_, _, err := s.Token(ctx, missing)
		return err
	}}
}

// check returns the result for all callers within storeCheckTTL. The end of ctx does not end the read: a caller that hangs
// up must not become a failure of the store for the next caller.
func (c *storeCheck) check(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() || c.now().Sub(c.at) >= storeCheckTTL {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeCheckTimeout)
		defer cancel()
		c.err, c.at = c.read(ctx), c.now()
	}
	return c.err
}

// serveHealth is the liveness probe: it always answers 200. It checks no dependency, because Cloud Run must not kill an
// instance during an outage of Firestore or Pub/Sub.
func serveHealth(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// serveReady is the readiness probe. It answers 503 while the instance drains, has no subscription, or cannot reach
// Firestore.
func (i *Instance) serveReady(w http.ResponseWriter, r *http.Request) {
	checks := map[string]string{"instance": "ok", "subscription": "ok", "store": "ok"}
	code := http.StatusOK
	fail := func(what, why string) { checks[what], code = why, http.StatusServiceUnavailable }
	if i.draining.Load() {
		fail("instance", "draining")
	}
	if !i.subscribed.Load() {
		fail("subscription", "missing")
	}
	if err := i.storeCheck.check(r.Context()); err != nil {
		i.log.WarnContext(r.Context(), "store unreachable", "error", err)
		fail("store", "unreachable") // the path is public, so the details are only in the log
	}
	writeJSON(w, code, checks)
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(v) // fails only if the client has disconnected
}
