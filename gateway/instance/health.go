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
	storeCheckWait = 2 * time.Second
	// storeCheckKeep is how long a check counts, so that probes cost at most one read in this time.
	storeCheckKeep = 5 * time.Second
)

// storeCheck finds out whether the store can be reached.
type storeCheck struct {
	read func(ctx context.Context) error
	now  func() time.Time

	mu  sync.Mutex
	at  time.Time
	err error
}

func newStoreCheck(s *store.Store, now func() time.Time) *storeCheck {
	nobody := store.TokenHash("") // reading a document that is not there is an answer, too
	return &storeCheck{now: now, read: func(ctx context.Context) error {
		_, _, err := s.Token(ctx, nobody)
		return err
	}}
}

func (c *storeCheck) check(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() || c.now().Sub(c.at) >= storeCheckKeep {
		ctx, cancel := context.WithTimeout(ctx, storeCheckWait)
		defer cancel()
		c.err, c.at = c.read(ctx), c.now()
	}
	return c.err
}

// serveHealth answers that the process lives. It asks nobody else: an instance is not to be killed because a service
// that it needs is away.
func serveHealth(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// serveReady answers whether this instance should be sent clients.
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
		i.log.WarnContext(r.Context(), "the store can't be reached", "error", err)
		fail("store", "unreachable") // the details are for the log: anybody may ask here
	}
	writeJSON(w, code, checks)
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(v) // a client that is gone needs no answer
}
