package credential_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/api/option"

	"parley.internal/emulator/emulatortest"
	"parley.internal/shared/credential"
	"parley.internal/shared/identity"
	"parley.internal/shared/store"
)

func TestMain(m *testing.M) { emulatortest.Main(m) }

// marker begins every secret of the test's server, for the search at the end of a test.
const marker = "s3cr3t"

// grant describes an access token.
type grant struct {
	user, login, refresh string
	scopes               []string
	expires              time.Time
}

// server answers with Twitch's documented JSON, rotates refresh tokens, and counts requests.
type server struct {
	*httptest.Server
	clock *emulatortest.Clock

	mu        sync.Mutex
	grants    map[string]grant // by access token
	refresh   map[string]grant // by refresh token; used once
	issued    int
	refreshes int
	validates int
	fail      int           // status of every answer; 0 for normal answers
	hold      chan struct{} // a refresh waits for a receive; nil for no wait
	held      chan struct{} // receives when a refresh waits
}

func newServer(t *testing.T, c *emulatortest.Clock) *server {
	s := &server{clock: c, grants: map[string]grant{}, refresh: map[string]grant{}, held: make(chan struct{}, 100)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /oauth2/token", s.serveToken)
	mux.HandleFunc("GET /oauth2/validate", s.serveValidate)
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// issue makes a token, like a login.
func (s *server) issue(user, login string, life time.Duration, scopes ...string) credential.Token {
	s.mu.Lock()
	defer s.mu.Unlock()
	access, g := s.add(grant{user: user, login: login, scopes: scopes, expires: s.clock.Now().Add(life)})
	return credential.Token{
		Access: credential.NewSecret(access), Refresh: credential.NewSecret(g.refresh), Scopes: scopes, Login: login,
		Expires: g.expires, Validated: s.clock.Now(),
	}
}

func (s *server) add(g grant) (string, grant) {
	s.issued++
	g.refresh = fmt.Sprintf("%s-refresh-%d", marker, s.issued)
	access := fmt.Sprintf("%s-access-%d", marker, s.issued)
	s.grants[access], s.refresh[g.refresh] = g, g
	return access, g
}

// revokeAll ends all tokens, like a user who disconnects the application.
func (s *server) revokeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.grants)
	clear(s.refresh)
}

// kill ends the access tokens and keeps the refresh tokens.
func (s *server) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.grants)
}

func (s *server) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *server) counts() (refreshes, validates int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refreshes, s.validates
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, status int, message string) {
	answer(w, status, map[string]any{"status": status, "message": message})
}

func (s *server) serveToken(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.refreshes++
	hold, fail := s.hold, s.fail
	s.mu.Unlock()
	if hold != nil {
		s.held <- struct{}{}
		<-hold
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.refresh[r.PostFormValue("refresh_token")]
	switch {
	case fail != 0: // quotes secrets, like a careless server
		refuse(w, fail, "cannot handle "+r.PostFormValue("refresh_token"))
	case r.PostFormValue("client_id") != "client" || r.PostFormValue("client_secret") != marker+"-client":
		refuse(w, http.StatusForbidden, "invalid client secret")
	case r.PostFormValue("grant_type") != "refresh_token" || !ok:
		refuse(w, http.StatusBadRequest, "Invalid refresh token")
	default:
		delete(s.refresh, old.refresh)
		old.expires = s.clock.Now().Add(4 * time.Hour)
		access, g := s.add(old)
		answer(w, http.StatusOK, map[string]any{
			"access_token": access, "refresh_token": g.refresh, "expires_in": 4 * 3600, "scope": g.scopes, "token_type": "bearer",
		})
	}
}

func (s *server) serveValidate(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.validates++
	access, ok := strings.CutPrefix(r.Header.Get("Authorization"), "OAuth ")
	g, known := s.grants[access]
	switch {
	case s.fail != 0:
		refuse(w, s.fail, "cannot handle "+access)
	case !ok || !known || !s.clock.Now().Before(g.expires):
		refuse(w, http.StatusUnauthorized, "invalid access token")
	default:
		answer(w, http.StatusOK, map[string]any{
			"client_id": "client", "login": g.login, "scopes": g.scopes, "user_id": g.user,
			"expires_in": int(g.expires.Sub(s.clock.Now()) / time.Second),
		})
	}
}

// world is a database, a platform and a clock, shared by any number of keepers.
type world struct {
	t         *testing.T
	env       emulatortest.Env
	clock     *emulatortest.Clock
	server    *server
	firestore *firestore.Client
	keyURI    string

	mu     sync.Mutex
	log    bytes.Buffer
	errors []error
}

// Write implements io.Writer for the log.
func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

// on runs a test on both Firestores, and searches logs, errors and documents for secrets afterwards.
func on(t *testing.T, run func(w *world)) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		c := emulatortest.NewClock(time.Now().UTC().Truncate(time.Microsecond))
		w := &world{t: t, env: env, clock: c, server: newServer(t, c), keyURI: "file:" + filepath.Join(t.TempDir(), "keys", "credentials.json")}
		w.firestore = w.connect(w.env.FirestoreOption(w.t))
		run(w)
		w.searchSecrets()
	})
}

func (w *world) connect(opts ...option.ClientOption) *firestore.Client {
	w.t.Helper()
	client, err := store.Connect(w.t.Context(), w.env.Deployment(), opts...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { client.Close() })
	return client
}

// keeper makes a keeper as in a separate process: keepers share only the database and the key.
func (w *world) keeper() *credential.Keeper { return w.keeperOn(w.firestore) }

func (w *world) keeperOn(client *firestore.Client) *credential.Keeper {
	w.t.Helper()
	key, err := credential.OpenKey(w.t.Context(), w.keyURI)
	if err != nil {
		w.t.Fatal(err)
	}
	return credential.NewKeeper(credential.Dependencies{
		Firestore: client, Key: key, Now: w.clock.Now,
		Log: slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Issuers: map[identity.Platform]credential.Issuer{identity.Twitch: credential.NewTwitch(credential.TwitchConfig{
			ClientID: "client", ClientSecret: credential.NewSecret(marker + "-client"), OAuthURL: w.server.URL,
		}, w.clock.Now)},
	})
}

// saw records an error for the search for secrets.
func (w *world) saw(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.errors = append(w.errors, err)
	return err
}

func (w *world) put(k *credential.Keeper, id identity.UserID, t credential.Token) {
	w.t.Helper()
	if err := k.Put(w.t.Context(), id, t); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) token(k *credential.Keeper, id identity.UserID) credential.Token {
	w.t.Helper()
	t, err := k.Token(w.t.Context(), id)
	if err != nil {
		w.t.Fatalf("Token: %v", err)
	}
	return t
}

// searchSecrets searches the log, the errors and all documents for issued secrets.
func (w *world) searchSecrets() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if strings.Contains(w.log.String(), marker) {
		w.t.Errorf("a secret was logged:\n%s", w.log.String())
	}
	for _, err := range w.errors {
		if err != nil && strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), marker) {
			w.t.Errorf("a secret is in an error: %v", err)
		}
	}
	snaps, err := w.firestore.Collection("credentials").Documents(w.t.Context()).GetAll()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, snap := range snaps {
		for name, value := range snap.Data() {
			raw, _ := value.([]byte)
			if strings.Contains(fmt.Sprint(value), marker) || bytes.Contains(raw, []byte(marker)) {
				w.t.Errorf("a secret is not encrypted in %s of %s", name, snap.Ref.Path)
			}
		}
	}
}

func user(t *testing.T, s string) identity.UserID {
	t.Helper()
	id, err := identity.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func same(a, b credential.Token) bool {
	return a.Access.Equal(b.Access) && a.Refresh.Equal(b.Refresh) && slices.Equal(a.Scopes, b.Scopes)
}

// immediately does not wait.
func immediately(ctx context.Context, _ time.Duration) error { return ctx.Err() }
