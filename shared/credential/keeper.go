package credential

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/google/uuid"
	"golang.org/x/sync/singleflight"

	"parley.internal/shared/identity"
	"parley.internal/shared/retry"
)

// obtainTime bounds the work for one call, however long the callers would wait.
const obtainTime = 40 * time.Second

// Dependencies of a [Keeper]. All are required.
type Dependencies struct {
	Firestore *firestore.Client // the caller closes the client
	Key       Key
	Issuers   map[identity.Platform]Issuer
	Log       *slog.Logger
	Now       func() time.Time
}

// Keeper stores, refreshes and validates credentials. Any number of keepers, in any number of processes, may share a
// database. If several keepers need a new token at once, one keeper asks the platform and all get the result. A Keeper is
// safe for concurrent use.
//
// A lease on the credential's document chooses the keeper. Every write, the lease included, is conditional on the
// document's last update time. The lease only spares the platform. Safety comes from the version: a new token is stored
// only if the document still has the version before.
//
// One loss is unavoidable. If the platform's answer with a new token never arrives, or the process dies before storing
// the token, the old refresh token may be invalid. Then only a new login helps.
type Keeper struct {
	firestore *firestore.Client
	key       Key
	issuers   map[identity.Platform]Issuer
	log       *slog.Logger
	now       func() time.Time
	holder    string                                           // id of this keeper in leases
	pause     func(ctx context.Context, d time.Duration) error // retry.Sleep; tests replace it

	flights singleflight.Group
	flying  sync.WaitGroup
	cache   tokenCache
}

// NewKeeper makes a keeper. It starts no work; see [Keeper.Run].
func NewKeeper(d Dependencies) *Keeper {
	return &Keeper{
		firestore: d.Firestore, key: d.Key, issuers: d.Issuers, log: d.Log, now: d.Now,
		holder: uuid.NewString(), pause: retry.Sleep, cache: tokenCache{tokens: map[identity.UserID]cachedToken{}},
	}
}

// Put stores the token of a login. It replaces the stored credential of id, and ends a revocation. The caller must have
// checked that the token belongs to id.
func (k *Keeper) Put(ctx context.Context, id identity.UserID, t Token) error {
	if id.IsZero() || t.Access.IsZero() {
		return errors.New("store a credential: user or token is missing")
	}
	sealed, err := k.seal(ctx, id, t)
	if err != nil {
		return fmt.Errorf("store the credential of %s: %w", id, err)
	}
	validated := t.Validated
	if validated.IsZero() {
		validated = time.Unix(0, 0) // long ago, so that Check finds the document
	}
	d, err := k.change(ctx, id, func(was document, _ bool) (document, bool) {
		now := k.now()
		return document{
			Sealed: sealed, Version: nextVersion(was.Version, now), Scopes: t.Scopes, Login: t.Login,
			IssuedAt: now, ExpiresAt: t.Expires, ValidatedAt: validated,
		}, true
	})
	if err != nil {
		return fmt.Errorf("store the credential of %s: %w", id, err)
	}
	k.cache.remove(id)
	k.log.InfoContext(ctx, "credential stored", "user", id.String(), "version", d.Version, "scopes", t.Scopes)
	return nil
}

// Granted returns the granted scopes of id, without decrypting the credential. It returns none for a missing or revoked
// credential.
func (k *Keeper) Granted(ctx context.Context, id identity.UserID) ([]string, error) {
	d, err := k.read(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("credential of %s: %w", id, err)
	}
	if !d.RevokedAt.IsZero() {
		return nil, nil
	}
	return d.Scopes, nil
}

// Token returns a token of id that is valid as far as known: it has not expired, and the platform confirmed it within the
// last hour. Token refreshes the credential if necessary.
//
// The error is a [LoginNeeded] if only a login helps, or wraps [ErrUnavailable], [ErrBusy], [ErrRefused] or [ErrSealed].
// Token waits until ctx ends, and at most 40 s. A refresh continues after the end of ctx, because an issued token must be
// stored.
func (k *Keeper) Token(ctx context.Context, id identity.UserID) (Token, error) {
	if got, ok := k.cache.get(id); ok && !got.unsaved {
		now := k.now()
		if now.Before(got.at.Add(cacheTime)) && !got.token.due(now) {
			return got.token, nil
		}
	}
	return k.obtainShared(ctx, id, Token{})
}

// Invalid replaces a token that the platform answered with 401, and returns the successor. If another keeper has replaced
// the token already, Invalid returns that successor. If the platform refuses a token just after the issue,
// the error wraps [ErrRefused]: a further token would be refused, too.
func (k *Keeper) Invalid(ctx context.Context, id identity.UserID, used Token) (Token, error) {
	return k.obtainShared(ctx, id, used)
}

// Forget makes the next call of [Keeper.Token] read the credential of id from Firestore. Call it after a login at another
// instance; otherwise a keeper notices the login after up to a minute. A token not yet stored is kept.
func (k *Keeper) Forget(id identity.UserID) {
	k.cache.forget(id)
	k.flights.Forget(flightKey(id, 0)) // a running call may have read the credential before the login
}

// flightKey identifies the calls of one user that may share a result. bad is the version of a token that must be
// replaced, or 0.
func flightKey(id identity.UserID, bad int64) string { return fmt.Sprintf("%s %d", id, bad) }

// obtainShared obtains a token once for all concurrent callers with the same arguments.
func (k *Keeper) obtainShared(ctx context.Context, id identity.UserID, bad Token) (Token, error) {
	if err := ctx.Err(); err != nil {
		return Token{}, fmt.Errorf("credential of %s: %w", id, err)
	}
	key := flightKey(id, bad.version)
	if bad.version == 0 && !bad.Access.IsZero() {
		key = id.String() + " " + uuid.NewString() // the token is from no keeper: no other caller has the same
	}
	k.flying.Add(1)
	flight := k.flights.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), obtainTime)
		defer cancel()
		return k.obtain(ctx, id, bad)
	})
	select {
	case r := <-flight:
		k.flying.Done()
		if r.Err != nil {
			if login, ok := errors.AsType[*LoginNeeded](r.Err); ok {
				return Token{}, login
			}
			return Token{}, fmt.Errorf("credential of %s: %w", id, r.Err)
		}
		return r.Val.(Token), nil
	case <-ctx.Done():
		go func() { // ends with the flight, within obtainTime and leaseTime
			<-flight
			k.flying.Done()
		}()
		return Token{}, fmt.Errorf("credential of %s: %w", id, ctx.Err())
	}
}

// Drain waits for refreshes that continue after their callers' contexts. A process that ends during a refresh may lose
// the issued token. Call Drain after the last call of the other methods.
func (k *Keeper) Drain(ctx context.Context) error {
	done := make(chan struct{})
	go func() { // ends with the last flight
		k.flying.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("credentials are still being refreshed: %w", ctx.Err())
	}
}
