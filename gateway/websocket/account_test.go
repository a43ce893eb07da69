package websocket

import (
	"net/http"
	"testing"
	"time"

	"parley.internal/shared/identity"
	"parley.internal/shared/store"
)

// mustUser parses a user id.
func mustUser(t *testing.T, id string) identity.UserID {
	t.Helper()
	user, err := identity.Parse(id)
	if err != nil {
		t.Fatal(err)
	}
	return user
}

func TestOpenSocketsCloseWhenTheirAccountMayNotBeUsed(t *testing.T) {
	revoked := func(f *fixture) {
		hash := store.TokenHash("token-1")
		token := f.tokens.byHash[hash]
		token.RevokedAt = time.Now()
		f.tokens.byHash[hash] = token
	}
	for _, test := range []struct {
		name   string
		change func(f *fixture)
		want   CloseCode
	}{
		{"revoked", revoked, CloseTokenRevoked},
		{"deleted", func(f *fixture) { delete(f.tokens.byHash, store.TokenHash("token-1")) }, CloseTokenRevoked},
		{"expiry moved to the past", func(f *fixture) {
			f.tokens.byHash[store.TokenHash("token-1")] = store.Token{UserID: "twitch:1", ExpiresAt: time.Now().Add(-time.Hour)}
		}, CloseTokenExpired},
		{"blocked", func(f *fixture) { f.tokens.users[mustUser(t, "twitch:1")] = store.User{Status: "blocked"} }, CloseUserBlocked},
		{"banned", func(f *fixture) { f.tokens.users[mustUser(t, "twitch:1")] = store.User{Status: "Banned"} }, CloseUserBlocked},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, func(c *Config) { c.TokenTTL = 50 * time.Millisecond })
			one, two, other := f.dial("1"), f.dial("1"), f.dial("2")
			f.tokens.update(func() { test.change(f) })
			for _, c := range []*client{one, two} {
				if code := c.closeCode(); code != test.want {
					t.Errorf("closed with %d; want %d", code, test.want)
				}
			}
			other.join("a") // still open
		})
	}
}

func TestPersonOfALinkedUserIsBlocked(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.TokenTTL = 50 * time.Millisecond })
	ada := mustUser(t, "discord:7")
	f.tokens.links[mustUser(t, "twitch:1")] = ada
	c := f.dial("1")
	f.tokens.update(func() { f.tokens.users[ada] = store.User{Status: "blocked"} })
	if code := c.closeCode(); code != CloseUserBlocked {
		t.Errorf("closed with %d; want %d", code, CloseUserBlocked)
	}
	_, resp := f.handshake(http.Header{"Authorization": {"Bearer token-1"}})
	wantRefusal(t, resp, 403, RefuseBlocked)
}

func TestFailingAccountCheckKeepsTheConnectionOpen(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.TokenTTL = 20 * time.Millisecond })
	c := f.dial("1")
	f.tokens.update(func() { f.tokens.broken = true })
	before := f.lookups()
	eventually(t, "several failed checks", func() bool { return f.lookups() > before+3 })
	c.join("a")
	f.tokens.update(func() { f.tokens.broken = false; f.tokens.byHash = map[string]store.Token{} })
	if code := c.closeCode(); code != CloseTokenRevoked {
		t.Errorf("closed with %d; want %d", code, CloseTokenRevoked)
	}
}

func (f *fixture) lookups() int {
	f.tokens.mu.Lock()
	defer f.tokens.mu.Unlock()
	return f.tokens.lookups
}

func TestConnectionsOfOneTokenShareTheAccountCheck(t *testing.T) {
	const ttl = 200 * time.Millisecond
	f := newFixture(t, func(c *Config) { c.TokenTTL = ttl })
	began := time.Now()
	for range 10 {
		f.dial("1")
	}
	eventually(t, "several checks", func() bool { return f.lookups() >= 4 })
	f.tokens.mu.Lock()
	defer f.tokens.mu.Unlock()
	most := int(time.Since(began)/ttl) + 1
	if f.tokens.lookups > most || f.tokens.people > most {
		t.Errorf("%d reads of the token and %d of the user; want at most %d of each", f.tokens.lookups, f.tokens.people, most)
	}
}
