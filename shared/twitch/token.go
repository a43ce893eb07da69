package twitch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"parley.internal/shared/credential"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/identity"
)

// Tokens provides access tokens. [credential.Keeper] implements it.
type Tokens interface {
	// Token returns a token of id that is valid as far as known.
	Token(ctx context.Context, id identity.UserID) (credential.Token, error)
	// Invalid reports that Twitch answered 401 to a token, and returns the token's successor.
	Invalid(ctx context.Context, id identity.UserID, used credential.Token) (credential.Token, error)
}

// TokenError maps the failure to obtain a token. No request was sent.
//
//	missing scopes                 Unauthorized, missing_scope
//	no login, or a withdrawn one   Unauthorized, login_needed
//	the client is refused          Unauthorized, sender_refused
//	everything else                NotDone, platform_unavailable
func TokenError(err error) *Error {
	e := &Error{Outcome: NotDone, Reason: deadletter.PlatformUnavailable, Err: err}
	_, scopes := errors.AsType[*credential.MissingScopes](err)
	_, login := errors.AsType[*credential.LoginNeeded](err)
	switch {
	case scopes:
		e.Outcome, e.Reason = Unauthorized, deadletter.MissingScope
	case login:
		e.Outcome, e.Reason = Unauthorized, deadletter.LoginNeeded
	case errors.Is(err, credential.ErrRefused):
		e.Outcome, e.Reason = Unauthorized, deadletter.SenderRefused
	}
	return e
}

// Account obtains the tokens of one Twitch user.
type Account struct {
	User    identity.UserID
	Tokens  Tokens
	Scopes  []string      // every token must have them
	Timeout time.Duration // for obtaining a token; 0 for no limit but the context's
}

// Token returns a token with the account's scopes.
func (a Account) Token(ctx context.Context) (credential.Token, *Error) {
	return a.obtain(ctx, func(ctx context.Context) (credential.Token, error) { return a.Tokens.Token(ctx, a.User) })
}

func (a Account) obtain(ctx context.Context, from func(context.Context) (credential.Token, error)) (credential.Token, *Error) {
	if a.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.Timeout)
		defer cancel()
	}
	token, err := from(ctx)
	if err == nil {
		err = token.Require(a.Scopes...)
	}
	if err != nil {
		return credential.Token{}, TokenError(err)
	}
	return token, nil
}

// Do calls send with the token, and once more with the token's successor if Twitch answers that the token is invalid.
func (a Account) Do(ctx context.Context, token credential.Token, send func(credential.Token) *Error) *Error {
	e := send(token)
	if e.expired() {
		successor, failed := a.obtain(ctx, func(ctx context.Context) (credential.Token, error) { return a.Tokens.Invalid(ctx, a.User, token) })
		if failed != nil && errors.Is(failed.Err, credential.ErrRefused) && !blamesClient(e) {
			// the token is valid: Twitch's words are the reason, such as a missing moderator's role
			e.Err = fmt.Errorf("%w (Twitch calls the token valid)", e.Err)
			return e
		}
		if failed != nil {
			failed.Status, failed.Err = e.Status, fmt.Errorf("%w (after %w)", failed.Err, e.Err)
			return failed
		}
		e = send(successor)
	}
	if e != nil && e.Status != 0 && e.Reason == deadletter.MissingScope && len(a.Scopes) > 0 {
		// Twitch's word counts more than the scopes stored at the login
		e.Err = fmt.Errorf("%w; %w", e.Err, &credential.MissingScopes{User: a.User, Missing: a.Scopes})
	}
	return e
}

// blamesClient reports whether Twitch's words on a 401 are about the token or the client id, or missing.
func blamesClient(e *Error) bool {
	words := strings.ToLower(e.Words)
	for _, part := range []string{"client id", "client-id", "invalid oauth token", "invalid access token"} {
		if strings.Contains(words, part) {
			return true
		}
	}
	return words == ""
}

// expired reports whether another token may be accepted.
func (e *Error) expired() bool {
	return e != nil && e.Outcome == Unauthorized && e.Reason == deadletter.SenderRefused
}
