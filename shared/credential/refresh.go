package credential

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"parley.internal/shared/identity"
	"parley.internal/shared/retry"
)

const (
	// early is how long before the end a token is replaced, so that no token ends during a request. Twitch's tokens last
	// about four hours.
	early = 5 * time.Minute
	// validity is the time for which a validation counts. Twitch demands a validation at least hourly, for every token of
	// an app (https://dev.twitch.tv/docs/authentication/validate-tokens/). Only Run validates unused tokens, so 10 minutes
	// remain for Run.
	validity = 50 * time.Minute
	// fresh is the age below which a token counts as just issued. If such a token is refused, it is validated before a
	// refresh.
	fresh = time.Minute
	// leaseTime bounds validating, refreshing and writing under a lease. Two requests take at most 10 s. The rest is for
	// the write and for differences between clocks.
	leaseTime = 20 * time.Second
	// retryTime is the pause after a failure of the platform, for all instances.
	retryTime = 5 * time.Second
	// waitTime bounds the wait for the lease's holder. It is longer than leaseTime, so the lease of a dead holder ends
	// within one wait.
	waitTime = 25 * time.Second
	// saveTime bounds storing an issued token. It is long, because a lost token may require a new login.
	saveTime = 10 * time.Second

	minPoll, maxPoll = 50 * time.Millisecond, time.Second
)

// due reports whether a token must be replaced or validated before use.
func (t Token) due(now time.Time) bool {
	return t.expiring(now) || !now.Before(t.Validated.Add(validity))
}

// expiring reports whether the rest of a token's life is too short for use. For a token with a life below 50 minutes, the
// margin is a tenth of the life. A token without a refresh token is used until its end.
func (t Token) expiring(now time.Time) bool {
	if t.Expires.IsZero() {
		return false
	}
	margin := early
	if life := t.Expires.Sub(t.issued); life < 10*margin {
		margin = max(life/10, 0)
	}
	if t.Refresh.IsZero() {
		margin = 0
	}
	return !now.Before(t.Expires.Add(-margin))
}

// obtain reads the credential. If the token is due, obtain renews the token under the lease, or waits for the lease's
// holder. bad is a token that must not be returned again; zero for none.
func (k *Keeper) obtain(ctx context.Context, id identity.UserID, bad Token) (Token, error) {
	issuer := k.issuers[id.Platform()]
	if issuer == nil {
		return Token{}, &LoginNeeded{User: id, Why: "no authorization server is configured for its platform"}
	}
	if err := k.saveLate(ctx, id); err != nil && !errors.Is(err, errChanged) {
		return Token{}, err
	}
	waited, backoff := time.Duration(0), retry.NewBackoff(minPoll, maxPoll)
	for {
		was, err := k.readCurrent(ctx, id)
		if err != nil {
			return Token{}, err
		}
		now := k.now()
		t, err := k.open(ctx, id, was.document)
		if err != nil {
			return Token{}, err
		}
		refused := bad.version != 0 && bad.version == t.version || !bad.Access.IsZero() && bad.Access.Equal(t.Access)
		usable := !refused && (t.Expires.IsZero() || now.Before(t.Expires)) // as a last resort
		switch {
		case !refused && !t.due(now):
			k.cache.add(id, t, now)
			return t, nil
		case usable && (now.Before(was.RetryAt) || now.Before(was.LeaseUntil)):
			return t, nil // another keeper renews the token, or just failed to: no need to wait
		case now.Before(was.RetryAt):
			return Token{}, fmt.Errorf("%w: the last attempt failed less than %s ago", ErrUnavailable, retryTime)
		}
		if !now.Before(was.LeaseUntil) {
			leased := was.document
			leased.LeaseHolder, leased.LeaseUntil = k.holder, now.Add(leaseTime)
			err := k.write(ctx, id, was, leased)
			if err == nil {
				t, err := k.renew(ctx, id, issuer, t, refused)
				switch {
				case err == nil:
					return t, nil
				case errors.Is(err, errChanged): // the result is about an old token
					continue
				case usable && (errors.Is(err, ErrUnavailable) || errors.Is(err, ErrRefused)):
					k.log.WarnContext(ctx, "credential renewal failed", "user", id.String(), "usableUntil", leased.ExpiresAt, "error", err)
					return k.open(ctx, id, leased)
				}
				return Token{}, err
			}
			if !errors.Is(err, errChanged) {
				return Token{}, err
			}
		}
		if waited >= waitTime {
			return Token{}, ErrBusy
		}
		wait := backoff.Next()
		if err := k.pause(ctx, wait); err != nil {
			return Token{}, fmt.Errorf("%w: %w", ErrBusy, err)
		}
		waited += wait
	}
}

// readCurrent reads a credential. It returns a [LoginNeeded] for a missing or revoked credential.
func (k *Keeper) readCurrent(ctx context.Context, id identity.UserID) (revision, error) {
	was, err := k.read(ctx, id)
	switch {
	case err != nil:
		return revision{}, err
	case was.seen.IsZero():
		err = &LoginNeeded{User: id, Why: "nobody has logged in as this user"}
	case !was.RevokedAt.IsZero():
		err = &LoginNeeded{User: id, Why: was.RevokedWhy}
	default:
		return was, nil
	}
	k.cache.remove(id)
	return revision{}, err
}

// renew validates or refreshes the token t and stores the result. This keeper must hold the lease. renew returns
// errChanged if the document has another token meanwhile.
func (k *Keeper) renew(ctx context.Context, id identity.UserID, issuer Issuer, t Token, refused bool) (Token, error) {
	// the whole lease time, however long the wait for the lease was: an interrupted refresh would lose the issued token
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseTime)
	defer cancel()
	now := k.now()
	young := now.Before(t.issued.Add(fresh))
	if !t.expiring(now) && (!refused || young) {
		valid, err := k.validate(ctx, id, issuer, t, refused)
		if !errors.Is(err, ErrInvalidToken) {
			return valid, err
		}
	}

	got, err := issuer.Refresh(ctx, t.Refresh)
	if errors.Is(err, ErrInvalidToken) {
		why := "its authorization was withdrawn or has run out"
		if t.Refresh.IsZero() {
			why = "it has run out and came without a refresh token"
		}
		return Token{}, k.revoke(ctx, id, t.version, why)
	}
	if err != nil {
		return Token{}, k.postpone(ctx, id, t.version, err)
	}
	got.User, got.Login = id, t.Login
	if got.Scopes == nil {
		got.Scopes = t.Scopes
	}
	// Twitch demands a validation at the start of a session. A token that Twitch has just issued is as good as validated.
	got.Validated = k.now()
	got.version, got.issued = nextVersion(t.version, k.now()), got.Validated
	k.cache.set(id, cachedToken{token: got, at: k.now(), unsaved: true, replaces: t.version})
	if err := k.saveLate(context.WithoutCancel(ctx), id); err != nil {
		k.log.ErrorContext(ctx, "storing a refreshed credential failed; the next use retries", "user", id.String(), "version", got.version, "error", err)
		return Token{}, err
	}
	k.log.InfoContext(ctx, "credential refreshed", "user", id.String(), "version", got.version, "expires", got.Expires)
	return got, nil
}

// validate asks the platform whether t is valid, and stores the answer. It returns ErrInvalidToken for an invalid token,
// and ErrRefused for a valid token that the platform refused in a request.
func (k *Keeper) validate(ctx context.Context, id identity.UserID, issuer Issuer, t Token, refused bool) (Token, error) {
	got, err := issuer.Validate(ctx, t.Access)
	switch {
	case errors.Is(err, ErrInvalidToken):
		return Token{}, ErrInvalidToken
	case err != nil:
		return Token{}, k.postpone(ctx, id, t.version, err)
	case got.User != id:
		return Token{}, k.revoke(ctx, id, t.version, "its token belongs to "+got.User.String())
	}
	t.Login, t.Scopes, t.Validated = got.Login, got.Scopes, k.now()
	if !got.Expires.IsZero() {
		t.Expires = got.Expires
	}
	if err := k.settle(ctx, id, t.version, func(d *document) {
		d.Login, d.Scopes, d.ExpiresAt, d.ValidatedAt = t.Login, t.Scopes, t.Expires, t.Validated
	}); err != nil {
		return Token{}, err
	}
	if refused {
		return Token{}, fmt.Errorf("%w: it answered 401 to a token that it calls valid; does the request have the same client id?", ErrRefused)
	}
	k.cache.add(id, t, k.now())
	return t, nil
}

// saveLate stores the token of this process if the token is still unsaved. If the document has a newer login, saveLate
// drops the token and returns errChanged.
func (k *Keeper) saveLate(ctx context.Context, id identity.UserID) error {
	got, ok := k.cache.get(id)
	if !ok || !got.unsaved {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, saveTime)
	defer cancel()
	t := got.token
	var sealed []byte
	for backoff := retry.NewBackoff(minPoll, maxPoll); ; {
		var err error
		if sealed == nil {
			sealed, err = k.seal(ctx, id, t)
		}
		if err == nil {
			err = k.settle(ctx, id, got.replaces, func(d *document) {
				d.Sealed, d.Version, d.Scopes, d.Login = sealed, t.version, t.Scopes, t.Login
				d.IssuedAt, d.ExpiresAt, d.ValidatedAt = t.issued, t.Expires, t.Validated
			})
		}
		if errors.Is(err, errChanged) {
			k.cache.remove(id)
			// a write with a lost answer has stored this very token
			if d, readErr := k.read(ctx, id); readErr == nil && bytes.Equal(d.Sealed, sealed) {
				err = nil
			}
		}
		if err == nil {
			k.cache.set(id, cachedToken{token: t, at: k.now()})
			return nil
		}
		if errors.Is(err, errChanged) || k.pause(ctx, backoff.Next()) != nil {
			return err
		}
	}
}

// settle changes the document and releases the lease, if the document still has this version of the token.
func (k *Keeper) settle(ctx context.Context, id identity.UserID, version int64, alter func(*document)) error {
	changed := true
	_, err := k.change(ctx, id, func(d document, exists bool) (document, bool) {
		if changed = !exists || d.Version != version; changed {
			return d, false
		}
		// A new token ends a revocation. Another keeper, too late with the replaced refresh token, may have marked the
		// credential as revoked.
		d.RetryAt, d.RevokedAt, d.RevokedWhy = time.Time{}, time.Time{}, ""
		alter(&d)
		if d.LeaseHolder == k.holder {
			d.LeaseHolder, d.LeaseUntil = "", time.Time{}
		}
		return d, true
	})
	if err == nil && changed {
		return errChanged
	}
	return err
}

// postpone stores the time of the next attempt, for all keepers, and returns cause.
func (k *Keeper) postpone(ctx context.Context, id identity.UserID, version int64, cause error) error {
	at := k.now().Add(retryTime)
	_, err := k.change(ctx, id, func(d document, exists bool) (document, bool) {
		if !exists || d.Version != version {
			return d, false
		}
		d.RetryAt = at
		if d.LeaseHolder == k.holder {
			d.LeaseHolder, d.LeaseUntil = "", time.Time{}
		}
		return d, true
	})
	return errors.Join(cause, err)
}

// revoke marks the credential as revoked and returns a [LoginNeeded]. It returns errChanged if the document has another
// token meanwhile.
func (k *Keeper) revoke(ctx context.Context, id identity.UserID, version int64, why string) error {
	err := k.settle(ctx, id, version, func(d *document) {
		d.RevokedAt, d.RevokedWhy, d.ValidatedAt = k.now(), why, time.Time{}
	})
	if err != nil {
		return err
	}
	k.cache.remove(id)
	k.log.ErrorContext(ctx, "credential revoked: a new login is needed", "user", id.String(), "why", why, "login", LoginPath(id.Platform()))
	return &LoginNeeded{User: id, Why: why}
}
