package twitch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"parley.internal/shared/credential"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/identity"
)

func TestTokenError(t *testing.T) {
	for _, tt := range []struct {
		err     error
		outcome Outcome
		reason  deadletter.Reason
	}{
		{&credential.MissingScopes{Missing: []string{"x"}}, Unauthorized, deadletter.MissingScope},
		{&credential.LoginNeeded{Why: "no login"}, Unauthorized, deadletter.LoginNeeded},
		{fmt.Errorf("refresh: %w", credential.ErrRefused), Unauthorized, deadletter.SenderRefused},
		{credential.ErrUnavailable, NotDone, deadletter.PlatformUnavailable},
		{credential.ErrBusy, NotDone, deadletter.PlatformUnavailable},
		{credential.ErrSealed, NotDone, deadletter.PlatformUnavailable},
		{context.DeadlineExceeded, NotDone, deadletter.PlatformUnavailable},
	} {
		if e := TokenError(fmt.Errorf("wrapped: %w", tt.err)); e.Outcome != tt.outcome || e.Reason != tt.reason || !errors.Is(e, tt.err) {
			t.Errorf("%v: %+v; want %d, %q", tt.err, e, tt.outcome, tt.reason)
		}
	}
}

// successors returns the tokens 1, 2 and so on.
type successors struct {
	scopes []string
	err    error // of Invalid
	n      int
}

func (s *successors) token(id identity.UserID) credential.Token {
	s.n++
	return credential.Token{User: id, Access: credential.NewSecret(fmt.Sprint(s.n)), Scopes: s.scopes}
}

func (s *successors) Token(_ context.Context, id identity.UserID) (credential.Token, error) {
	return s.token(id), nil
}

func (s *successors) Invalid(_ context.Context, id identity.UserID, _ credential.Token) (credential.Token, error) {
	return s.token(id), s.err
}

func TestAnExpiredTokenIsReplacedOnce(t *testing.T) {
	expired := &Error{Outcome: Unauthorized, Reason: deadletter.SenderRefused, Status: 401, Err: errors.New("status 401 from Twitch: invalid token")}
	scope := &Error{Outcome: Unauthorized, Reason: deadletter.MissingScope, Status: 401, Err: errors.New("status 401 from Twitch: missing scope")}
	words := func(said string) []*Error {
		return []*Error{{Outcome: Unauthorized, Reason: deadletter.SenderRefused, Status: 401, Words: said, Err: errors.New("status 401 from Twitch: " + said)}}
	}
	wrongClient := fmt.Errorf("%w: does the request have the same client id?", credential.ErrRefused)
	for _, tt := range []struct {
		name    string
		answers []*Error
		invalid error
		sent    []string // the tokens of the requests
		reason  deadletter.Reason
		words   []string
	}{
		{"success", []*Error{nil}, nil, []string{"1"}, "", nil},
		{"expired", []*Error{expired, nil}, nil, []string{"1", "2"}, "", nil},
		{"expired twice", []*Error{expired, expired}, nil, []string{"1", "2"}, deadletter.SenderRefused, []string{"invalid token"}},
		{"withdrawn", []*Error{expired}, &credential.LoginNeeded{Why: "withdrawn"}, []string{"1"}, deadletter.LoginNeeded, []string{"withdrawn", "invalid token"}},
		{"a valid token", []*Error{expired}, credential.ErrRefused, []string{"1"}, deadletter.SenderRefused, []string{"invalid token"}},
		{"no moderator", words("The user in moderator_id is not one of the broadcaster's moderators."), wrongClient, []string{"1"}, deadletter.SenderRefused,
			[]string{"status 401 from Twitch: The user in moderator_id is not one of the broadcaster's moderators."}},
		{"another client", words("Client ID and OAuth token do not match"), wrongClient, []string{"1"}, deadletter.SenderRefused,
			[]string{"same client id?", "do not match"}},
		{"no words", words(""), wrongClient, []string{"1"}, deadletter.SenderRefused, []string{"same client id?", "status 401"}},
		{"no scope", []*Error{scope}, nil, []string{"1"}, deadletter.MissingScope, []string{"/oauth/", "chat"}},
	} {
		tokens := &successors{scopes: []string{"chat"}, err: tt.invalid}
		bot, err := identity.New(identity.Twitch, "9")
		if err != nil {
			t.Fatal(err)
		}
		account := Account{User: bot, Tokens: tokens, Scopes: []string{"chat"}}
		token, failed := account.Token(t.Context())
		if failed != nil {
			t.Fatal(failed)
		}
		var sent []string
		failed = account.Do(t.Context(), token, func(token credential.Token) *Error {
			sent = append(sent, token.Access.Reveal())
			if e := tt.answers[len(sent)-1]; e != nil {
				copied := *e
				return &copied
			}
			return nil
		})
		if !slices.Equal(sent, tt.sent) || (failed == nil) != (tt.reason == "") {
			t.Errorf("%s: requests with %v ended in %v; want %v, %q", tt.name, sent, failed, tt.sent, tt.reason)
			continue
		}
		if failed != nil && failed.Reason != tt.reason {
			t.Errorf("%s: reason %q; want %q", tt.name, failed.Reason, tt.reason)
		}
		if tt.name == "no moderator" && strings.Contains(failed.Error(), "client id") {
			t.Errorf("%s: %q blames the client", tt.name, failed)
		}
		for _, part := range tt.words {
			if !strings.Contains(failed.Error(), part) {
				t.Errorf("%s: %q; want %q in it", tt.name, failed, part)
			}
		}
	}
	if _, failed := (Account{Tokens: &successors{}, Scopes: []string{"chat"}}).Token(t.Context()); failed == nil || failed.Reason != deadletter.MissingScope {
		t.Errorf("a token without the scope: %v", failed)
	}
}
