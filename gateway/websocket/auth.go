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

	"parley.internal/shared/identity"
	"parley.internal/shared/store"
)

// Tokens is where tokens are looked up by their hash; package store keeps them.
type Tokens interface {
	// Token finds a token and reports whether there is one.
	Token(ctx context.Context, hash string) (store.Token, bool, error)
	// TouchToken notes when a token was last used.
	TouchToken(ctx context.Context, hash string, at time.Time) error
}

// subprotocol is what the gateway selects among the sub-protocols that a client offers.
const subprotocol = "parley.v1"

// bearerPrefix begins the sub-protocol in which a browser, which can set no headers, carries its token.
const bearerPrefix = "bearer."

const (
	maxToken      = 512             // bytes of a raw token
	lookupTimeout = 5 * time.Second // of a token's look-up and of noting its use
	touchInterval = 5 * time.Minute // between two notes that the same token was used
	touchQueue    = 256             // notes that may wait; more are left out, as the note is of use only to people
	maxTokens     = 100_000         // in the cache: some 20 MB
)

// rawToken finds the raw token of a request. The header goes before the sub-protocol.
func rawToken(r *http.Request) string {
	if scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	for _, p := range gorilla.Subprotocols(r) {
		if token, ok := strings.CutPrefix(p, bearerPrefix); ok {
			return token
		}
	}
	return ""
}

// selectProtocol answers what sub-protocols a client offered. A client that offers parley.v1 gets it. One that offers
// nothing but its token gets the token's sub-protocol back: a browser gives up a connection whose server selects none
// of those offered (https://websockets.spec.whatwg.org/, step "fail the WebSocket connection"), and the answer goes to
// nobody but who sent it. Otherwise none is selected, which RFC 6455 allows.
func selectProtocol(r *http.Request) string {
	offered := gorilla.Subprotocols(r)
	bearer := ""
	for _, p := range offered {
		if p == subprotocol {
			return subprotocol
		}
		if strings.HasPrefix(p, bearerPrefix) {
			bearer = p
		}
	}
	if len(offered) == 1 {
		return bearer
	}
	return ""
}

// cachedToken is what a look-up found.
type cachedToken struct {
	token store.Token
	found bool
}

// authenticator tells whom a token lets in.
type authenticator struct {
	tokens Tokens
	now    func() time.Time
	log    *slog.Logger
	cache  *otter.Cache[string, cachedToken]
	// touched holds the tokens whose use was noted lately.
	touched *otter.Cache[string, struct{}]
	uses    chan tokenUse
}

type tokenUse struct {
	hash string
	at   time.Time
}

func newAuthenticator(tokens Tokens, c Config, now func() time.Time, log *slog.Logger) (*authenticator, error) {
	cache, err1 := otter.New(&otter.Options[string, cachedToken]{
		MaximumSize: maxTokens,
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[string, cachedToken]) time.Duration {
			if e.Value.found {
				return c.TokenTTL
			}
			return c.TokenMissTTL
		}),
	})
	touched, err2 := otter.New(&otter.Options[string, struct{}]{
		MaximumSize: maxTokens, ExpiryCalculator: otter.ExpiryWriting[string, struct{}](touchInterval),
	})
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	return &authenticator{tokens: tokens, now: now, log: log, cache: cache, touched: touched, uses: make(chan tokenUse, touchQueue)}, nil
}

// close stops what the caches run.
func (a *authenticator) close() {
	a.cache.StopAllGoroutines()
	a.touched.StopAllGoroutines()
}

// authenticate tells whom a raw token lets in, and until when (zero for no end). The code says why not; it is empty
// where the token is good. Nothing that it returns or logs holds the raw token.
//
// The token is found by its SHA-256, never compared: how long that takes tells nothing about any token.
func (a *authenticator) authenticate(ctx context.Context, raw string) (user identity.UserID, expires time.Time, refused RefusalCode) {
	if raw == "" {
		return user, expires, RefuseNoToken
	}
	if len(raw) > maxToken {
		return user, expires, RefuseUnknownToken
	}
	hash := store.TokenHash(raw)
	// others may wait for the same look-up: it goes on when this client leaves
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupTimeout)
	defer cancel()
	known, err := a.cache.Get(ctx, hash, otter.LoaderFunc[string, cachedToken](func(ctx context.Context, hash string) (cachedToken, error) {
		t, found, err := a.tokens.Token(ctx, hash)
		return cachedToken{t, found}, err
	}))
	if err != nil {
		a.log.ErrorContext(ctx, "token lookup failed", "error", err)
		return user, expires, RefuseUnavailable
	}
	now, t := a.now(), known.token
	switch {
	case !known.found:
		return user, expires, RefuseUnknownToken
	case !t.RevokedAt.IsZero():
		return user, expires, RefuseRevoked
	case !t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt):
		return user, expires, RefuseExpired
	}
	user, err = identity.Resolve(t.UserID, identity.APIGateway)
	if err != nil {
		a.log.ErrorContext(ctx, "a token's document names no user", "error", err, "document", hash)
		return user, expires, RefuseUnknownToken
	}
	a.noteUse(hash, now)
	return user, t.ExpiresAt, ""
}

// noteUse has it written down that a token was used, once in touchInterval, without waiting.
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

// run writes down the uses of tokens until ctx is done.
func (a *authenticator) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case u := <-a.uses:
			touch, cancel := context.WithTimeout(ctx, lookupTimeout)
			if err := a.tokens.TouchToken(touch, u.hash, u.at); err != nil && ctx.Err() == nil {
				a.log.WarnContext(ctx, "last use not noted", "error", err)
			}
			cancel()
		}
	}
}
