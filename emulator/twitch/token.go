package twitch

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"parley.internal/emulator/fake"
)

// App is a registered application.
// https://dev.twitch.tv/docs/authentication/register-app/
type App struct {
	// AddApp fills in an empty ID or Secret.
	ID, Secret   string
	Name         string
	RedirectURIs []string
}

// Token is an access token with its refresh token.
type Token struct {
	// AddToken fills in an empty Access or Refresh. An app access token has no Refresh.
	Access, Refresh string
	// UserID is empty for an app access token.
	UserID   string
	ClientID string
	Scopes   []string
	// ExpiresAt is the expiry. AddToken fills in a zero value as OAuth would.
	ExpiresAt time.Time
	// ValidatedAt is the last validation by the app, or zero. An app must validate at its start and every hour.
	// https://dev.twitch.tv/docs/authentication/validate-tokens/
	ValidatedAt time.Time

	revoked bool
}

func (t *Token) has(scopes ...string) bool {
	return slices.ContainsFunc(scopes, func(s string) bool { return slices.Contains(t.Scopes, s) })
}

// grantKey identifies the authorization of an app by a user. The granted scopes outlive the token; app access tokens
// rely on the grant.
type grantKey struct{ clientID, userID string }

// AddApp registers an application.
func (s *Server) AddApp(a App) (App, error) {
	a.ID = cmp.Or(a.ID, fake.Secret(15))
	a.Secret = cmp.Or(a.Secret, fake.Secret(15))
	a.Name = cmp.Or(a.Name, "app "+a.ID)
	a.RedirectURIs = slices.Clone(a.RedirectURIs)
	s.lock()
	defer s.unlock()
	if s.apps[a.ID] != nil {
		return App{}, fmt.Errorf("twitch: there is an app %s already", a.ID)
	}
	kept := a
	s.apps[a.ID] = &kept
	return a, nil
}

// AddToken makes an access token, as if the user had just authorized the app.
func (s *Server) AddToken(t Token) (Token, error) {
	s.lock()
	defer s.unlock()
	if s.apps[t.ClientID] == nil {
		return Token{}, fmt.Errorf("twitch: there is no app %q", t.ClientID)
	}
	if t.UserID != "" && s.users[t.UserID] == nil {
		return Token{}, fmt.Errorf("twitch: there is no user with the id %q", t.UserID)
	}
	if t.Access != "" && s.tokens[t.Access] != nil {
		return Token{}, fmt.Errorf("twitch: there is such a token already")
	}
	return *s.issue(t), nil
}

// issue completes and stores a token.
func (s *Server) issue(t Token) *Token {
	t.Access = cmp.Or(t.Access, fake.Secret(15))
	t.Scopes = slices.Clone(t.Scopes)
	if t.ExpiresAt.IsZero() {
		t.ExpiresAt = s.now().Add(s.options.timing.Token)
	}
	if t.UserID != "" {
		t.Refresh = cmp.Or(t.Refresh, fake.Secret(25))
		k := grantKey{t.ClientID, t.UserID}
		if s.grants[k] == nil {
			s.grants[k] = map[string]bool{}
		}
		for _, scope := range t.Scopes {
			s.grants[k][scope] = true
		}
	}
	kept := &t
	s.tokens[t.Access] = kept
	if t.Refresh != "" {
		s.refresh[t.Refresh] = kept
	}
	return kept
}

// Token returns the token with this access token, until its expiry or revocation.
func (s *Server) Token(access string) (Token, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.valid(access)
	if t == nil {
		return Token{}, false
	}
	return *t, true
}

func (s *Server) valid(access string) *Token {
	t := s.tokens[access]
	if t == nil || t.revoked || !s.now().Before(t.ExpiresAt) {
		return nil
	}
	return t
}

// Revoke revokes an access token and its refresh token, like the app itself would. It reports whether the token was
// valid. IRC connections with the token stay until dropped.
func (s *Server) Revoke(access string) bool {
	s.lock()
	defer s.unlock()
	t := s.valid(access)
	if t == nil {
		return false
	}
	t.revoked = true
	delete(s.refresh, t.Refresh)
	return true
}

// Disconnect disconnects an app, like a user on Twitch's connections page. All tokens of the app for the user become
// invalid, the grants end, and the EventSub subscriptions based on the grants are revoked with the status
// authorization_revoked.
func (s *Server) Disconnect(clientID, login string) error {
	s.lock()
	defer s.unlock()
	u, err := s.account(login)
	if err != nil {
		return err
	}
	for _, t := range s.tokens {
		if t.ClientID == clientID && t.UserID == u.ID {
			t.revoked = true
			delete(s.refresh, t.Refresh)
		}
	}
	delete(s.grants, grantKey{clientID, u.ID})
	for _, id := range s.subOrder {
		if sub := s.subs[id]; sub.clientID == clientID && sub.userID == u.ID {
			s.revokeSubscription(sub, "authorization_revoked")
		}
	}
	return nil
}
