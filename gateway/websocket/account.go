package websocket

import (
	"context"
	"time"

	"github.com/maypok86/otter/v2"

	"parley.internal/gateway/throttle"
	"parley.internal/shared/identity"
	"parley.internal/shared/store"
)

// linkInterval is the interval between two reads of a user's identity link. Between two reads, an account costs one
// read of the token and one of the person's document. A change of a link is rare, and an operator makes it.
const linkInterval = time.Hour

// account is a token with its user. The zero value is an unknown token.
type account struct {
	hash   string // of the token
	token  store.Token
	found  bool
	user   identity.UserID
	person identity.UserID // user, or the person to whom an operator linked user
	status string          // of the person
	// moderator reports that the person has permission for moderation actions, by a role given by hand
	moderator bool
	readAt    time.Time // by the system's clock
	linkAt    time.Time // last read of the link
}

// refusal returns the reason against using the account, or empty.
func (a account) refusal(now time.Time) RefusalCode {
	switch {
	case !a.found:
		return RefuseUnknownToken
	case !a.token.RevokedAt.IsZero():
		return RefuseRevoked
	case !a.token.ExpiresAt.IsZero() && !now.Before(a.token.ExpiresAt):
		return RefuseExpired
	case store.Blocked(a.status):
		return RefuseBlocked
	}
	return ""
}

// read returns the account of a token from the cache, or from Firestore. Callers that need the same account at the same
// time share a single read. before is an earlier state of the account, or zero. address is the client's address, for the
// throttle. The error is [throttle.ErrLimited] before any read, or a failure of Firestore.
func (a *authenticator) read(ctx context.Context, hash, address string, before account) (account, error) {
	// the shared read must not end with the first caller's request
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), throttle.MaxWait+lookupTimeout)
	defer cancel()
	return a.cache.Get(ctx, hash, otter.LoaderFunc[string, account](func(ctx context.Context, hash string) (account, error) {
		return a.load(ctx, hash, address, before)
	}))
}

// token reads a token. It reads unknown tokens only as often as the throttle allows for the client's address. known
// reports that the token was found before.
func (a *authenticator) token(ctx context.Context, hash, address string, known bool) (t store.Token, found bool, err error) {
	done := func(bool) {}
	if _, cached := a.known.GetIfPresent(hash); !cached && !known {
		if done, err = a.lookups.Wait(ctx, address); err != nil {
			return store.Token{}, false, err
		}
	}
	missed := false
	defer func() { done(missed) }()
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	t, found, err = a.accounts.Token(ctx, hash)
	if err != nil {
		return store.Token{}, false, err
	}
	if missed = !found; found {
		a.known.Set(hash, struct{}{})
	} else {
		a.known.Invalidate(hash)
	}
	return t, found, nil
}

func (a *authenticator) load(ctx context.Context, hash, address string, before account) (account, error) {
	t, found, err := a.token(ctx, hash, address, before.found)
	if err != nil {
		return account{}, err
	}
	acc := account{hash: hash, token: t, found: found}
	if !found {
		return acc, nil
	}
	if acc.user, err = identity.Resolve(t.UserID, identity.APIGateway); err != nil {
		a.log.ErrorContext(ctx, "token document has an invalid user id", "error", err, "document", hash)
		acc.found = false
		return acc, nil
	}
	if acc.refusal(a.now()) == "" {
		ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
		defer cancel()
		if err := a.loadUser(ctx, &acc, before); err != nil {
			return account{}, err
		}
	}
	acc.readAt = time.Now()
	return acc, nil
}

// loadUser reads the person, with the status and the permission for moderation actions.
func (a *authenticator) loadUser(ctx context.Context, acc *account, before account) error {
	var u store.User
	var err error
	acc.person = acc.user
	if before.user == acc.user {
		acc.person, acc.linkAt = before.person, before.linkAt
	}
	if time.Since(acc.linkAt) < linkInterval {
		u, _, err = a.accounts.User(ctx, acc.person)
	} else {
		acc.linkAt = time.Now()
		acc.person, u, _, _, err = a.accounts.LinkedUser(ctx, acc.user, acc.person) // enrichment reports a broken link
	}
	acc.status, acc.moderator = u.Status, mayModerate(u)
	return err
}

// recheckAccount reads the connection's account again whenever the cached state expires, updates the permission for
// moderation actions, and closes the connection if the account may no longer be used. While Firestore fails, the
// connection stays open: a failure of Firestore must not disconnect every client.
func (c *conn) recheckAccount(ctx context.Context) {
	acc, ttl := c.account, c.server.auth.ttl
	timer := time.NewTimer(time.Until(acc.readAt.Add(ttl)))
	defer timer.Stop()
	for {
		select {
		case <-c.closing.Done():
			return
		case <-timer.C:
		}
		next, err := c.server.auth.read(ctx, acc.hash, "", acc)
		switch {
		case err != nil:
			c.log.WarnContext(ctx, "rechecking the account failed", "error", err)
			timer.Reset(max(ttl/10, time.Millisecond))
			continue
		case next.readAt.Equal(acc.readAt): // the cached state expires a little later
			timer.Reset(max(ttl/100, time.Millisecond))
			continue
		}
		acc = next
		c.moderator.Store(acc.moderator)
		switch acc.refusal(c.server.now()) {
		case "":
		case RefuseExpired:
			c.end(CloseTokenExpired)
		case RefuseBlocked:
			c.end(CloseUserBlocked)
		default:
			c.end(CloseTokenRevoked)
		}
		timer.Reset(time.Until(acc.readAt.Add(ttl)))
	}
}
