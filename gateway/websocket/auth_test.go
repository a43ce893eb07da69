package websocket

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"parley.internal/shared/store"
)

func TestInvalidTokensAreRefused(t *testing.T) {
	t.Parallel()
	bearer := func(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }
	for _, test := range []struct {
		name      string
		header    http.Header
		protocols []string
		status    int
		code      RefusalCode
	}{
		{"no token", nil, nil, 401, RefuseNoToken},
		{"no token, protocol alone", nil, []string{"parley.v1"}, 401, RefuseNoToken},
		{"another scheme", http.Header{"Authorization": {"Basic eHg6eHg="}}, nil, 401, RefuseNoToken},
		{"empty token", bearer(""), nil, 401, RefuseNoToken},
		{"unknown", bearer("nobody"), nil, 401, RefuseUnknownToken},
		{"unknown, by protocol", nil, []string{"parley.v1", "bearer.nobody"}, 401, RefuseUnknownToken},
		{"absurdly long", bearer(strings.Repeat("x", 5000)), nil, 401, RefuseUnknownToken},
		{"expired", bearer("expired"), nil, 401, RefuseExpired},
		{"revoked", bearer("revoked"), nil, 401, RefuseRevoked},
		{"names no user", bearer("nameless"), nil, 401, RefuseUnknownToken},
		{"page of another host", http.Header{"Authorization": {"Bearer token-1"}, "Origin": {"https://evil.example"}}, nil, 403, RefuseOrigin},
		{"opaque origin", http.Header{"Authorization": {"Bearer token-1"}, "Origin": {"null"}}, nil, 403, RefuseOrigin},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, nil)
			now := time.Now()
			f.tokens.put("expired", store.Token{UserID: "twitch:1", ExpiresAt: now.Add(-time.Second)})
			f.tokens.put("revoked", store.Token{UserID: "twitch:1", ExpiresAt: now.Add(time.Hour), RevokedAt: now.Add(-time.Hour)})
			f.tokens.put("nameless", store.Token{})
			conn, resp := f.handshake(test.header, test.protocols...)
			if conn != nil {
				t.Fatal("was let in")
			}
			wantRefusal(t, resp, test.status, test.code)
		})
	}
}

func wantRefusal(t *testing.T, resp *http.Response, status int, code RefusalCode) {
	t.Helper()
	var body struct {
		Error struct{ Code, Message string }
	}
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &body); err != nil {
		t.Fatalf("%v in %q", err, data)
	}
	if resp.StatusCode != status || body.Error.Code != string(code) || body.Error.Message == "" {
		t.Errorf("%d %s; want %d %s", resp.StatusCode, data, status, code)
	}
}

func TestPlainRequestIsRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	resp, err := http.Get(f.http.URL + Path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	wantRefusal(t, resp, 426, RefuseNotSocket)
}

func TestAStoreErrorDoesNotCountAgainstTheToken(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	f.tokens.broken = true
	_, resp := f.handshake(http.Header{"Authorization": {"Bearer token-1"}})
	wantRefusal(t, resp, 503, RefuseUnavailable)
	f.tokens.mu.Lock()
	f.tokens.broken = false
	f.tokens.mu.Unlock()
	f.dial("1") // the error was not cached
}

func TestConnectionLimits(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *Config) { c.MaxConnections, c.MaxPerUser = 3, 2 })
	auth := func(n string) http.Header { return http.Header{"Authorization": {"Bearer token-" + n}} }
	first := f.dial("1")
	f.dial("1")
	_, resp := f.handshake(auth("1"))
	wantRefusal(t, resp, 429, RefusePerUser)
	f.dial("2")
	_, resp = f.handshake(auth("2"))
	wantRefusal(t, resp, 503, RefuseFull)
	if resp.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	first.Close()
	eventually(t, "room again", func() bool { conn, _ := f.handshake(auth("2")); return conn != nil })
}

func TestSubprotocols(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	for _, test := range []struct {
		name    string
		header  http.Header
		offered []string
		want    string
	}{
		{"as documented", nil, []string{"parley.v1", "bearer.token-1"}, "parley.v1"},
		{"the other way round", nil, []string{"bearer.token-1", "parley.v1"}, "parley.v1"},
		{"token alone, which a browser wants to see again", nil, []string{"bearer.token-1"}, "bearer.token-1"},
		{"header", http.Header{"Authorization": {"bearer token-1"}}, nil, ""},
		{"header and protocol", http.Header{"Authorization": {"Bearer token-1"}}, []string{"parley.v1"}, "parley.v1"},
		{"another protocol beside the token", nil, []string{"chat", "bearer.token-1"}, ""},
		{"same host's page", http.Header{"Authorization": {"Bearer token-1"}, "Origin": {f.http.URL}}, nil, ""},
	} {
		conn, resp := f.handshake(test.header, test.offered...)
		if conn == nil {
			t.Errorf("%s: refused with %s", test.name, resp.Status)
			continue
		}
		if got := resp.Header.Get("Sec-WebSocket-Protocol"); got != test.want {
			t.Errorf("%s: selected %q; want %q", test.name, got, test.want)
		}
		conn.Close()
	}
}

func TestConfiguredOriginsMayConnect(t *testing.T) {
	t.Parallel()
	for _, allowed := range []string{"https://chat.example", "*"} {
		f := newFixture(t, func(c *Config) { c.Origins = []string{allowed} })
		conn, resp := f.handshake(http.Header{"Authorization": {"Bearer token-1"}, "Origin": {"https://chat.example"}})
		if conn == nil {
			t.Errorf("%s: refused with %s", allowed, resp.Status)
		}
	}
}

func TestTokensAreReadAndTouchedOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	for range 3 {
		f.dial("1")
		f.handshake(http.Header{"Authorization": {"Bearer nobody"}})
	}
	f.tokens.mu.Lock()
	defer f.tokens.mu.Unlock()
	if f.tokens.lookups != 2 {
		t.Errorf("%d look-ups; want 2", f.tokens.lookups)
	}
}

func TestUseOfATokenIsStoredOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	for range 3 {
		f.dial("1")
	}
	f.dial("2")
	eventually(t, "both noted", func() bool {
		f.tokens.mu.Lock()
		defer f.tokens.mu.Unlock()
		return len(f.tokens.touched) >= 2
	})
	f.tokens.mu.Lock()
	defer f.tokens.mu.Unlock()
	if len(f.tokens.touched) != 2 || f.tokens.touched[0] != store.TokenHash("token-1") || f.tokens.touched[1] != store.TokenHash("token-2") {
		t.Errorf("touched %q", f.tokens.touched)
	}
}

func TestRevocationTakesEffectAfterTheTTL(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *Config) { c.TokenTTL = 20 * time.Millisecond })
	f.dial("1")
	f.tokens.put("token-1", store.Token{UserID: "twitch:1", RevokedAt: time.Now()})
	eventually(t, "refused", func() bool {
		_, resp := f.handshake(http.Header{"Authorization": {"Bearer token-1"}})
		return resp.StatusCode == 401
	})
}
