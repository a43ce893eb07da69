package websocket

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	gorilla "github.com/gorilla/websocket"
	"github.com/maypok86/otter/v2"

	"parley.internal/gateway/bearer"
	"parley.internal/gateway/throttle"
	"parley.internal/shared/identity"
	"parley.internal/shared/store"
)

// Accounts reads tokens by hash, and the documents of their users. [store.Store] implements the interface. Methods may be
// called concurrently.
type Accounts interface {
	// Token reads a token, and reports whether the token exists.
	Token(ctx context.Context, hash string) (store.Token, bool, error)
	// TouchToken stores the time of the last use of a token.
	TouchToken(ctx context.Context, hash string, at time.Time) error
	// User and LinkedUser are as in [store.Store].
	User(ctx context.Context, id identity.UserID) (store.User, store.Version, error)
	LinkedUser(ctx context.Context, id, expected identity.UserID) (person identity.UserID, u store.User, v store.Version, broken, err error)
}

// subprotocol is the sub-protocol selected by the gateway, if the client offers it.
const subprotocol = "parley.v1"

// bearerPrefix begins a sub-protocol with a token. Browsers use it, because a page can't set a WebSocket's headers.
const bearerPrefix = "bearer."

const (
	maxToken      = 512             // bytes of a raw token
	lookupTimeout = 5 * time.Second // for reading a token, and for storing its last use
	touchInterval = 5 * time.Minute // minimum time between two writes of a token's last use
	touchQueue    = 256             // pending writes of a last use; further ones are dropped, because only operators read the time
	maxTokens     = 100_000         // capacity of the token cache: about 20 MB
	maxKnown      = 20_000          // capacity of the list of known tokens: about 3 MB
	knownFor      = 24 * time.Hour  // how long a token is known after its last look-up
)

// rawToken returns the raw token of a request, or an empty string. The header has priority over the sub-protocol.
func rawToken(r *http.Request) string {
	if token, ok := bearer.Token(r); ok {
		return token
	}
	for _, p := range gorilla.Subprotocols(r) {
		if token, ok := strings.CutPrefix(p, bearerPrefix); ok {
			return token
		}
	}
	return ""
}

// selectProtocol selects a sub-protocol: parley.v1 if the client offers it. If the client offers only a token, the result
// is the token's sub-protocol: a browser fails a connection if the server selects none of the offered sub-protocols
// (https://websockets.spec.whatwg.org/, step "fail the WebSocket connection"), and only the sender of the token sees
// the answer. Otherwise the result is empty: RFC 6455 allows a connection without a sub-protocol.
func selectProtocol(r *http.Request) string {
	offered := gorilla.Subprotocols(r)
	withToken := ""
	for _, p := range offered {
		if p == subprotocol {
			return subprotocol
		}
		if strings.HasPrefix(p, bearerPrefix) {
			withToken = p
		}
	}
	if len(offered) == 1 {
		return withToken
	}
	return ""
}

// authenticator maps tokens to users.
type authenticator struct {
	accounts Accounts
	ttl      time.Duration // of a found token
	now      func() time.Time
	log      *slog.Logger
	cache    *otter.Cache[string, account]
	// known holds the tokens found by an earlier look-up. Their look-ups are not throttled.
	known   *otter.Cache[string, struct{}]
	lookups *throttle.Throttle
	// touched holds the tokens with a recently stored use.
	touched *otter.Cache[string, struct{}]
	uses    chan tokenUse
}

type tokenUse struct {
	hash string
	at   time.Time
}

func newAuthenticator(accounts Accounts, c Config, now func() time.Time, log *slog.Logger) (*authenticator, error) {
	cache, err1 := otter.New(&otter.Options[string, account]{
		MaximumSize: maxTokens,
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[string, account]) time.Duration {
			if e.Value.found {
				return c.TokenTTL
			}
			return c.TokenMissTTL
		}),
	})
	touched, err2 := otter.New(&otter.Options[string, struct{}]{
		MaximumSize: maxTokens, ExpiryCalculator: otter.ExpiryWriting[string, struct{}](touchInterval),
	})
	known, err3 := otter.New(&otter.Options[string, struct{}]{
		MaximumSize: maxKnown, ExpiryCalculator: otter.ExpiryWriting[string, struct{}](knownFor),
	})
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	return &authenticator{
		accounts: accounts, ttl: c.TokenTTL, now: now, log: log, cache: cache, known: known, lookups: throttle.New(), touched: touched,
		uses: make(chan tokenUse, touchQueue),
	}, nil
}

// close stops the goroutines of the caches.
func (a *authenticator) close() {
	a.cache.StopAllGoroutines()
	a.known.StopAllGoroutines()
	a.touched.StopAllGoroutines()
}

// authenticate returns the account of a raw token, or the reason for a refusal. The raw token appears neither in the
// results nor in the log.
//
// The lookup uses the token's SHA-256 as a key. No secret is compared, so the response time reveals nothing about a
// token. address is the client's address, for the throttle.
func (a *authenticator) authenticate(ctx context.Context, raw, address string) (account, RefusalCode) {
	if raw == "" {
		return account{}, RefuseNoToken
	}
	if len(raw) > maxToken {
		return account{}, RefuseUnknownToken
	}
	hash := store.TokenHash(raw)
	acc, err := a.read(ctx, hash, address, account{})
	if errors.Is(err, throttle.ErrLimited) {
		return account{}, RefuseLimited
	}
	if err != nil {
		a.log.ErrorContext(ctx, "token lookup failed", "error", err)
		return account{}, RefuseUnavailable
	}
	if refused := acc.refusal(a.now()); refused != "" {
		return account{}, refused
	}
	a.noteUse(hash, a.now())
	return acc, ""
}

// noteUse schedules a write of a token's last use, at most once per touchInterval. It does not block.
func (a *authenticator) noteUse(hash string, at time.Time) {
	if _, first := a.touched.SetIfAbsent(hash, struct{}{}); !first {
		return
	}
	select {
	case a.uses <- tokenUse{hash, at}:
	default:
		a.touched.Invalidate(hash) // the next use tries again
	}
}

// run stores the last uses of tokens until ctx is done.
func (a *authenticator) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case u := <-a.uses:
			touch, cancel := context.WithTimeout(ctx, lookupTimeout)
			if err := a.accounts.TouchToken(touch, u.hash, u.at); err != nil && ctx.Err() == nil {
				a.log.WarnContext(ctx, "storing the last use of a token failed", "error", err)
			}
			cancel()
		}
	}
}
