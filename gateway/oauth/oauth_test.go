package oauth_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/firestore"

	"parley.internal/emulator/emulatortest"
	"parley.internal/emulator/twitch"
	"parley.internal/gateway/oauth"
	"parley.internal/shared/config"
	"parley.internal/shared/credential"
	"parley.internal/shared/identity"
	"parley.internal/shared/store"
)

func TestMain(m *testing.M) { emulatortest.Main(m) }

const operatorSecret = "an operator's long secret"

// world is a gateway's login pages with a fake Twitch.
type world struct {
	*emulatortest.Clock
	t         *testing.T
	twitch    *twitch.Server
	gateway   *httptest.Server
	firestore *firestore.Client
	keeper    *credential.Keeper
	config    oauth.Config
	users     map[string]twitch.User // by login

	mu    sync.Mutex
	log   bytes.Buffer
	pages bytes.Buffer // all pages of the gateway
	seen  []string     // secrets sent through the browser
}

// Write collects the log.
func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

// on runs a test on both Firestores, with the users bot, ada (allowed) and eve (not allowed). env adds to the gateway's
// environment.
func on(t *testing.T, run func(w *world), env ...string) {
	emulatortest.Firestore(t, func(t *testing.T, e emulatortest.Env) {
		w := &world{t: t, Clock: emulatortest.NewClock(time.Now().UTC().Truncate(time.Microsecond)), users: map[string]twitch.User{}}
		var err error
		if w.twitch, err = twitch.New(twitch.WithClock(w.Now)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.twitch.Close() })
		for _, login := range []string{"bot", "ada", "eve"} {
			if w.users[login], err = w.twitch.AddUser(twitch.User{Login: login}); err != nil {
				t.Fatal(err)
			}
		}
		var handler http.Handler
		w.gateway = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { handler.ServeHTTP(rw, r) }))
		t.Cleanup(w.gateway.Close)
		app, err := w.twitch.AddApp(twitch.App{RedirectURIs: []string{w.gateway.URL + oauth.CallbackPath}})
		if err != nil {
			t.Fatal(err)
		}
		w.config, err = config.Load[oauth.Config](append([]string{
			"TWITCH_CLIENT_ID=" + app.ID, "TWITCH_CLIENT_SECRET=" + app.Secret, "TWITCH_OAUTH_URL=" + w.twitch.OAuthURL(),
			"CREDENTIAL_KEY=file:" + filepath.Join(t.TempDir(), "key"), "PUBLIC_URL=" + w.gateway.URL,
			"TWITCH_BOT_USER_ID=" + w.users["bot"].ID, "OAUTH_ALLOWED_USERS=twitch:" + w.users["ada"].ID,
		}, env...))
		if err != nil {
			t.Fatal(err)
		}
		if w.firestore, err = store.Connect(t.Context(), e.Deployment(), e.FirestoreOption(t)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.firestore.Close() })
		key, err := credential.OpenKey(t.Context(), w.config.Credential.Key)
		if err != nil {
			t.Fatal(err)
		}
		log := slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
		server := credential.NewTwitch(w.config.Credential.Twitch, w.Now)
		w.keeper = credential.NewKeeper(credential.Dependencies{
			Firestore: w.firestore, Key: key, Log: log, Now: w.Now, Issuers: map[identity.Platform]credential.Issuer{identity.Twitch: server},
		})
		if handler, err = oauth.New(w.config, oauth.Dependencies{
			Keeper: w.keeper, Server: server, Firestore: w.firestore, Log: log, Now: w.Now,
		}); err != nil {
			t.Fatal(err)
		}
		w.seen = append(w.seen, app.Secret, operatorSecret)
		run(w)
		w.searchSecrets()
	})
}

// browser keeps cookies and does not follow redirects by itself.
type browser struct {
	w      *world
	client *http.Client
}

func (w *world) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return &browser{w, &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

type page struct {
	status   int
	location string
	body     string // entities resolved
	header   http.Header
}

func (b *browser) do(req *http.Request) page {
	b.w.t.Helper()
	resp, err := b.client.Do(req)
	if err != nil {
		b.w.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.w.t.Fatal(err)
	}
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	if strings.HasPrefix(req.URL.String(), b.w.gateway.URL) {
		if resp.StatusCode != http.StatusSeeOther { // the body of a redirect repeats the address
			b.w.pages.Write(body)
		}
		for _, c := range resp.Cookies() {
			if c.Value != "" {
				b.w.seen = append(b.w.seen, c.Value)
			}
		}
	}
	if u, err := url.Parse(resp.Header.Get("Location")); err == nil {
		for _, name := range []string{"state", "code"} {
			if v := u.Query().Get(name); v != "" {
				b.w.seen = append(b.w.seen, v)
			}
		}
	}
	return page{resp.StatusCode, resp.Header.Get("Location"), html.UnescapeString(string(body)), resp.Header}
}

func (b *browser) get(address string) page {
	b.w.t.Helper()
	if strings.HasPrefix(address, "/") {
		address = b.w.gateway.URL + address
	}
	req, err := http.NewRequestWithContext(b.w.t.Context(), http.MethodGet, address, nil)
	if err != nil {
		b.w.t.Fatal(err)
	}
	return b.do(req)
}

func (b *browser) post(address string, form url.Values) page {
	b.w.t.Helper()
	if strings.HasPrefix(address, "/") {
		address = b.w.gateway.URL + address
	}
	req, err := http.NewRequestWithContext(b.w.t.Context(), http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		b.w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.do(req)
}

// consent follows the gateway's redirect to Twitch, agrees as a user, and returns the address of the callback.
func (b *browser) consent(p page, login string) string {
	b.w.t.Helper()
	if p.status != http.StatusSeeOther {
		b.w.t.Fatalf("login answered %d, want a redirect to Twitch:\n%s", p.status, p.body)
	}
	if err := b.w.twitch.LogIn(login); err != nil {
		b.w.t.Fatal(err)
	}
	back := b.get(p.location)
	if !strings.HasPrefix(back.location, b.w.gateway.URL+oauth.CallbackPath+"?") {
		b.w.t.Fatalf("Twitch answered %d %s\n%s", back.status, back.location, back.body)
	}
	return back.location
}

// login does a complete login.
func (b *browser) login(as, login string) page {
	b.w.t.Helper()
	return b.get(b.consent(b.get(oauth.LoginPath+"?as="+as), login))
}

// expect checks the status, the headers and some texts of a page.
func (w *world) expect(p page, status int, says ...string) {
	w.t.Helper()
	if p.status != status {
		w.t.Errorf("status %d; want %d:\n%s", p.status, status, p.body)
	}
	for _, s := range says {
		if !strings.Contains(p.body, s) {
			w.t.Errorf("the page doesn't say %q:\n%s", s, p.body)
		}
	}
	if p.header.Get("Cache-Control") != "no-store" || p.header.Get("Referrer-Policy") != "no-referrer" {
		w.t.Errorf("the page may be cached or sends a referrer: %v", p.header)
	}
	if csp := p.header.Get("Content-Security-Policy"); status != http.StatusSeeOther && !strings.Contains(csp, "frame-ancestors 'none'") {
		w.t.Errorf("the page may be framed: %q", csp)
	}
}

func (w *world) id(login string) identity.UserID {
	w.t.Helper()
	id, err := identity.New(identity.Twitch, w.users[login].ID)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// stored lists the documents of a collection.
func (w *world) stored(collection string) []string {
	w.t.Helper()
	refs, err := w.firestore.Collection(collection).DocumentRefs(w.t.Context()).GetAll()
	if err != nil {
		w.t.Fatal(err)
	}
	var ids []string
	for _, r := range refs {
		ids = append(ids, r.ID)
	}
	return ids
}

// searchSecrets fails the test if the log, a page or a document contains a state, code, cookie or token.
func (w *world) searchSecrets() {
	w.t.Helper()
	for login := range w.users {
		if t, err := w.keeper.Token(w.t.Context(), w.id(login)); err == nil {
			w.seen = append(w.seen, t.Access.Reveal(), t.Refresh.Reveal())
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var documents bytes.Buffer
	for _, c := range []string{"credentials", "logins"} {
		snaps, err := w.firestore.Collection(c).Documents(w.t.Context()).GetAll()
		if err != nil {
			w.t.Fatal(err)
		}
		for _, snap := range snaps {
			fmt.Fprintf(&documents, "%s\n", snap.Ref.ID)
			for name, v := range snap.Data() {
				fmt.Fprintf(&documents, "%s=%s %v\n", name, v, v)
			}
		}
	}
	for _, s := range w.seen {
		for where, text := range map[string]string{"the log": w.log.String(), "a page": w.pages.String(), "a document": documents.String()} {
			if len(s) >= 8 && strings.Contains(text, s) {
				w.t.Errorf("%s contains a secret", where)
			}
		}
	}
}

func TestTheBotLogsIn(t *testing.T) {
	on(t, func(w *world) {
		b := w.browser()
		started := b.get(oauth.LoginPath + "?as=bot")
		w.expect(started, http.StatusSeeOther)
		to, err := url.Parse(started.location)
		if err != nil {
			w.t.Fatal(err)
		}
		q := to.Query()
		for _, scope := range []string{"chat:read", "chat:edit", "user:write:chat", "user:manage:whispers"} {
			if !slices.Contains(strings.Fields(q.Get("scope")), scope) {
				w.t.Errorf("scope %s is not requested: %s", scope, q.Get("scope"))
			}
		}
		if q.Get("code_challenge_method") != "S256" || q.Get("code_challenge") == "" || q.Get("state") == "" || q.Get("response_type") != "code" {
			w.t.Errorf("redirect to %s", started.location)
		}
		cookie, err := http.ParseSetCookie(started.header.Get("Set-Cookie"))
		if err != nil {
			w.t.Fatal(err)
		}
		if !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode || cookie.MaxAge != 600 || cookie.Secure {
			w.t.Errorf("cookie %+v", cookie)
		}
		w.expect(b.get(b.consent(started, "bot")), http.StatusOK, "bot (twitch:"+w.users["bot"].ID+") is logged in")
		if got := w.stored("credentials"); !slices.Equal(got, []string{"twitch:" + w.users["bot"].ID}) {
			w.t.Errorf("credentials = %v; want one under the user's id", got)
		}
		token, err := w.keeper.Token(w.t.Context(), w.id("bot"))
		if err != nil {
			w.t.Fatal(err)
		}
		if known, ok := w.twitch.Token(token.Access.Reveal()); !ok || known.UserID != w.users["bot"].ID {
			w.t.Errorf("the stored token is not the bot's: %+v", known)
		}
		if err := token.Require(w.config.BotScopes...); err != nil {
			w.t.Error(err)
		}
		if left := w.stored("logins"); left != nil {
			w.t.Errorf("logins after the login: %v; want none", left)
		}
		// the token is refreshed after it expires
		w.Advance(5 * time.Hour)
		if next, err := w.keeper.Token(w.t.Context(), w.id("bot")); err != nil || next.Access.Equal(token.Access) {
			w.t.Errorf("refreshed: %v, %v", next, err)
		}
	})
}

func TestOnlyAllowedAccountsLogIn(t *testing.T) {
	on(t, func(w *world) {
		w.expect(w.browser().login("broadcaster", "ada"), http.StatusOK, "ada (twitch:", "is logged in")
		for _, tt := range []struct{ as, login, says string }{
			{"broadcaster", "eve", "not on this gateway's list"},
			{"broadcaster", "bot", "not on this gateway's list"}, // may log in only as the bot
			{"bot", "eve", "The bot's account is twitch:" + w.users["bot"].ID},
			{"bot", "ada", "The bot's account is"},
			{"bot,broadcaster", "bot", "not on this gateway's list"},
		} {
			w.expect(w.browser().login(tt.as, tt.login), http.StatusForbidden, "may not log in", tt.says)
		}
		if got := w.stored("credentials"); !slices.Equal(got, []string{"twitch:" + w.users["ada"].ID}) {
			w.t.Errorf("credentials = %v; want Ada's alone", got)
		}
		if revoked := w.twitch.Requests("/oauth2/revoke"); len(revoked) != 5 || revoked[0].Status != http.StatusOK {
			w.t.Errorf("revoked %v; want the token of each refused login", revoked)
		}
	})
}

func TestOperatorSecretAllowsAnyAccount(t *testing.T) {
	on(t, func(w *world) {
		b := w.browser()
		w.expect(b.get(oauth.LoginPath+"?as=broadcaster"), http.StatusOK, "Operator's secret", `value="broadcaster" checked`)
		w.expect(b.post(oauth.LoginPath, url.Values{"as": {"broadcaster"}, "secret": {"a guess"}}), http.StatusForbidden, "not the operator's secret")
		w.expect(b.post(oauth.LoginPath, url.Values{"secret": {operatorSecret}}), http.StatusBadRequest, "As what?")
		// a secret in the URL is ignored, because URLs appear in logs and histories
		w.expect(b.get(oauth.LoginPath+"?as=broadcaster&secret="+url.QueryEscape(operatorSecret)), http.StatusOK, "Operator's secret")
		if got := w.stored("logins"); got != nil {
			w.t.Errorf("logins started without the secret: %v", got)
		}
		started := b.post(oauth.LoginPath, url.Values{"as": {"broadcaster"}, "secret": {operatorSecret}})
		w.expect(b.get(b.consent(started, "eve")), http.StatusOK, "eve (twitch:", "is logged in")
		// without the secret, only allowed users may log in
		started = b.post(oauth.LoginPath, url.Values{"as": {"broadcaster"}})
		w.expect(b.get(b.consent(started, "eve")), http.StatusForbidden, "may not log in")
		// the secret does not make a different account the bot
		started = b.post(oauth.LoginPath, url.Values{"as": {"bot"}, "secret": {operatorSecret}})
		w.expect(b.get(b.consent(started, "eve")), http.StatusForbidden, "The bot's account is")
	}, "OAUTH_OPERATOR_SECRET="+operatorSecret)
}

func TestConcurrentCallbacksFinishALoginOnce(t *testing.T) {
	on(t, func(w *world) {
		b := w.browser()
		started := b.get(oauth.LoginPath + "?as=bot")
		back := b.consent(started, "bot")
		cookies := b.client.Jar.Cookies(&url.URL{Scheme: "http", Host: strings.TrimPrefix(w.gateway.URL, "http://"), Path: "/"})
		// several concurrent callbacks with the cookie: one succeeds
		statuses := make([]int, 5)
		var all sync.WaitGroup
		for i := range statuses {
			all.Go(func() {
				req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, back, nil)
				if err != nil {
					w.t.Error(err)
					return
				}
				for _, c := range cookies {
					req.AddCookie(c)
				}
				resp, err := http.DefaultTransport.RoundTrip(req)
				if err != nil {
					w.t.Error(err)
					return
				}
				statuses[i] = resp.StatusCode
				if err := resp.Body.Close(); err != nil {
					w.t.Error(err)
				}
			})
		}
		all.Wait()
		slices.Sort(statuses)
		if !slices.Equal(statuses, []int{200, 400, 400, 400, 400}) {
			w.t.Errorf("statuses %v; want one 200", statuses)
		}
		if n := len(w.twitch.Requests("/oauth2/token")); n != 1 {
			w.t.Errorf("%d codes were exchanged", n)
		}
	})
}

func TestReplayedForeignAndExpiredCallbacksAreRefused(t *testing.T) {
	on(t, func(w *world) {
		b := w.browser()
		back := b.consent(b.get(oauth.LoginPath+"?as=bot"), "bot")
		// the whole address in a different browser
		w.expect(w.browser().get(back), http.StatusForbidden, "not started in this browser")
		other := w.browser()
		other.get(oauth.LoginPath + "?as=bot")
		w.expect(other.get(back), http.StatusForbidden, "not started in this browser")
		if got := w.stored("credentials"); got != nil {
			w.t.Fatalf("stored %v", got)
		}
		// the login stays valid in its own browser
		w.expect(b.get(back), http.StatusOK, "is logged in")
		// a repeat is refused: the cookie is deleted
		w.expect(b.get(back), http.StatusForbidden, "not started in this browser")

		back = b.consent(b.get(oauth.LoginPath+"?as=bot"), "bot")
		w.Advance(10 * time.Minute)
		w.expect(b.get(back), http.StatusBadRequest, "This login is over")

		b.get(oauth.LoginPath + "?as=bot")
		for _, q := range []string{"", "?code=x", "?state=&code=x", "?state=made-up&code=x", "?error=access_denied"} {
			w.expect(b.get(oauth.CallbackPath+q), http.StatusBadRequest, "This login is over")
		}
		if n := len(w.twitch.Requests("/oauth2/token")); n != 1 {
			w.t.Errorf("%d codes were exchanged; want 1", n)
		}
	})
}

func TestCallbacksWithoutALoginAreLimited(t *testing.T) {
	on(t, func(w *world) {
		b := w.browser()
		back := b.consent(b.get("/oauth/twitch/login?as=broadcaster"), "ada")
		state := regexp.MustCompile(`state=[^&]+`)
		var mu sync.Mutex
		statuses := map[int]int{}
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				other := state.ReplaceAllString(back, fmt.Sprintf("state=%043d", i))
				if i%10 == 0 {
					other = state.ReplaceAllString(back, "state=malformed") // costs no read
				}
				p := b.get(other)
				mu.Lock()
				defer mu.Unlock()
				statuses[p.status]++
				if p.status == http.StatusTooManyRequests && p.header.Get("Retry-After") == "" {
					t.Error("no Retry-After")
				}
			})
		}
		all.Wait()
		if statuses[http.StatusBadRequest] < 10+20 || statuses[http.StatusBadRequest] > 10+30 || statuses[http.StatusTooManyRequests] < 50 || len(statuses) != 2 {
			t.Errorf("responses by status: %v", statuses)
		}
		w.expect(b.get(back), http.StatusOK, "is logged in")
	})
}

func TestErrorsFromTwitchAreShown(t *testing.T) {
	on(t, func(w *world) {
		state := func(b *browser) string {
			w.t.Helper()
			u, err := url.Parse(b.get(oauth.LoginPath + "?as=bot").location)
			if err != nil {
				w.t.Fatal(err)
			}
			return url.QueryEscape(u.Query().Get("state"))
		}
		b := w.browser()
		// the user declines on Twitch's page
		started := b.get(oauth.LoginPath + "?as=bot")
		declined := b.post(started.location, url.Values{"answer": {"deny"}})
		w.expect(b.get(declined.location), http.StatusForbidden, "You declined", "nothing was stored")

		w.expect(b.get(oauth.CallbackPath+"?error=redirect_mismatch&state="+state(b)), http.StatusBadGateway, "redirect_mismatch")
		evil := b.get(oauth.CallbackPath + "?error=" + url.QueryEscape("<script>alert(1)</script>") + "&state=" + state(b))
		w.expect(evil, http.StatusBadGateway, "Twitch could not finish the login")
		if strings.Contains(evil.body, "alert") {
			w.t.Errorf("the page repeats the text of the request:\n%s", evil.body)
		}
		w.expect(b.get(oauth.CallbackPath+"?state="+state(b)), http.StatusBadRequest, "Twitch sent nothing")
		w.expect(b.get(oauth.CallbackPath+"?code=stale-code&state="+state(b)), http.StatusBadRequest, "no longer accepts this login")

		for _, fault := range []twitch.HTTPFault{
			{Path: "/oauth2/token", Status: 503}, {Path: "/oauth2/token", Drop: true}, {Path: "/oauth2/validate", Status: 500},
		} {
			w.twitch.FailHTTP(fault)
			w.expect(b.login("bot", "bot"), http.StatusBadGateway, "can't be reached")
		}
		w.twitch.FailHTTP(twitch.HTTPFault{Path: "/oauth2/token", Status: 403})
		w.expect(b.login("bot", "bot"), http.StatusBadGateway, "Twitch refuses this gateway")
		if got := w.stored("credentials"); got != nil {
			w.t.Errorf("stored %v", got)
		}
	})
}

func TestMissingScopesAreShown(t *testing.T) {
	on(t, func(w *world) {
		b := w.browser()
		started := b.get(oauth.LoginPath + "?as=bot")
		// the user removes a scope from the address of Twitch's page
		started.location = strings.Replace(started.location, url.QueryEscape(" user:manage:whispers"), "", 1)
		w.expect(b.get(b.consent(started, "bot")), http.StatusOK, "but not for everything", "user:manage:whispers", "send whispers")
		token, err := w.keeper.Token(w.t.Context(), w.id("bot"))
		if err != nil {
			w.t.Fatal(err)
		}
		var missing *credential.MissingScopes
		if err := token.Require("chat:read", "user:manage:whispers"); !errors.As(err, &missing) || !slices.Equal(missing.Missing, []string{"user:manage:whispers"}) {
			w.t.Errorf("Require = %v", err)
		}
		w.expect(b.login("bot", "bot"), http.StatusOK, "is logged in")
	})
}

func TestLoginThatWouldLoseScopesIsRefused(t *testing.T) {
	on(t, func(w *world) {
		b := w.browser()
		w.expect(b.login("broadcaster", "ada"), http.StatusOK, "is logged in")
		before, err := w.keeper.Token(w.t.Context(), w.id("ada"))
		if err != nil {
			w.t.Fatal(err)
		}
		started := b.get(oauth.LoginPath + "?as=broadcaster")
		started.location = strings.Replace(started.location, url.QueryEscape(" channel:bot"), "", 1)
		w.expect(b.get(b.consent(started, "ada")), http.StatusConflict, "has granted more before", "channel:bot")
		if after, err := w.keeper.Token(w.t.Context(), w.id("ada")); err != nil || !after.Access.Equal(before.Access) {
			w.t.Errorf("credential after the refused login: %v, %v; want the credential from before", after, err)
		}
		// after a withdrawal of all scopes, a login with fewer scopes is accepted
		w.twitch.Revoke(before.Access.Reveal())
		if _, err := w.keeper.Invalid(w.t.Context(), w.id("ada"), before); !errors.As(err, new(*credential.LoginNeeded)) {
			w.t.Fatalf("Invalid = %v; want LoginNeeded", err)
		}
		started = b.get(oauth.LoginPath + "?as=broadcaster")
		started.location = strings.Replace(started.location, url.QueryEscape(" channel:bot"), "", 1)
		w.expect(b.get(b.consent(started, "ada")), http.StatusOK, "but not for everything")
	})
}

func TestLoginPageAndRateLimit(t *testing.T) {
	on(t, func(w *world) {
		b := w.browser()
		w.expect(b.get(oauth.LoginPath), http.StatusOK, "as the bot", "as a broadcaster")
		w.expect(b.get(oauth.LoginPath+"?as=king"), http.StatusBadRequest, "no role")
		w.expect(b.post(oauth.LoginPath, url.Values{"as": {"bot"}}), http.StatusSeeOther)
		if p := b.get("/oauth/twitch/other"); p.status != http.StatusNotFound {
			w.t.Errorf("unknown path: %d", p.status)
		}
		last := 0
		for range 50 {
			if last = b.get(oauth.LoginPath + "?as=bot").status; last == http.StatusTooManyRequests {
				break
			}
		}
		if last != http.StatusTooManyRequests {
			w.t.Errorf("50 logins at once: the last answered %d; want 429", last)
		}
	})
}

func TestCookieIsBoundToTheHostOverHTTPS(t *testing.T) {
	on(t, func(w *world) {
		c := w.config
		c.PublicURL = "https://chat.example.com/"
		h, err := oauth.New(c, oauth.Dependencies{
			Keeper: w.keeper, Server: credential.NewTwitch(c.Credential.Twitch, w.Now), Firestore: w.firestore,
			Log: slog.New(slog.DiscardHandler), Now: w.Now,
		})
		if err != nil {
			w.t.Fatal(err)
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequestWithContext(w.t.Context(), http.MethodGet, oauth.LoginPath+"?as=bot", nil))
		cookie := rec.Result().Cookies()[0]
		if !strings.HasPrefix(cookie.Name, "__Host-") || !cookie.Secure || cookie.Path != "/" || cookie.Domain != "" {
			w.t.Errorf("cookie %+v", cookie)
		}
		to, err := url.Parse(rec.Header().Get("Location"))
		if err != nil || to.Query().Get("redirect_uri") != "https://chat.example.com/oauth/twitch/callback" {
			w.t.Errorf("redirect URL %v, %v", to.Query().Get("redirect_uri"), err)
		}
	})
}

func TestLoggingInIsOffWithoutConfiguration(t *testing.T) {
	c, err := config.Load[oauth.Config](nil)
	if err != nil || c.Enabled() {
		t.Fatalf("with nothing set: %v, %v", c.Enabled(), err)
	}
	h, err := oauth.New(c, oauth.Dependencies{})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{oauth.LoginPath, oauth.CallbackPath} {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		if rec.Code != http.StatusNotFound {
			t.Errorf("%s answered %d", path, rec.Code)
		}
	}
}

// broken is a [oauth.Keeper] without a working database.
type broken struct{ granted error }

func (b broken) Put(context.Context, identity.UserID, credential.Token) error {
	return errors.New("no writing today")
}
func (b broken) Granted(context.Context, identity.UserID) ([]string, error) { return nil, b.granted }

func TestTokenIsRevokedIfStoringFails(t *testing.T) {
	for _, k := range []broken{{}, {errors.New("no reading today")}} {
		on(t, func(w *world) {
			h, err := oauth.New(w.config, oauth.Dependencies{
				Keeper: k, Server: credential.NewTwitch(w.config.Credential.Twitch, w.Now), Firestore: w.firestore,
				Log: slog.New(slog.NewTextHandler(w, nil)), Now: w.Now,
			})
			if err != nil {
				w.t.Fatal(err)
			}
			w.gateway.Config.Handler = h
			w.expect(w.browser().login("bot", "bot"), http.StatusServiceUnavailable, "could not be stored")
			if n := len(w.twitch.Requests("/oauth2/revoke")); n != 1 {
				w.t.Errorf("revoked %d tokens", n)
			}
		})
	}
}

func TestConfigIsChecked(t *testing.T) {
	base := []string{"TWITCH_CLIENT_ID=id", "TWITCH_CLIENT_SECRET=s", "CREDENTIAL_KEY=file:/tmp/k", "PUBLIC_URL=https://chat.example.com", "TWITCH_BOT_USER_ID=1"}
	tests := []struct {
		name  string
		env   []string
		wrong string // variable named by the error; empty for no error
	}{
		{"complete", nil, ""},
		{"nobody may", []string{"TWITCH_BOT_USER_ID="}, "OAUTH_OPERATOR_SECRET"},
		{"a login name for the bot", []string{"TWITCH_BOT_USER_ID=parleybot"}, "TWITCH_BOT_USER_ID"},
		{"the bot with its platform", []string{"TWITCH_BOT_USER_ID=twitch:1"}, "TWITCH_BOT_USER_ID"}, // the variable holds the bare id
		{"the bot elsewhere", []string{"TWITCH_BOT_USER_ID=discord:1"}, "TWITCH_BOT_USER_ID"},
		{"a login name", []string{"OAUTH_ALLOWED_USERS=twitch:ada"}, "OAUTH_ALLOWED_USERS"},
		{"no platform", []string{"OAUTH_ALLOWED_USERS=1"}, "OAUTH_ALLOWED_USERS"},
		{"a short secret", []string{"OAUTH_OPERATOR_SECRET=swordfish"}, "OAUTH_OPERATOR_SECRET"},
		{"an API in the clear", []string{"TWITCH_API_URL=http://example.com"}, "TWITCH_API_URL"},
		{"in the clear", []string{"PUBLIC_URL=http://chat.example.com"}, "PUBLIC_URL"},
		{"not a scope", []string{"TWITCH_BOT_SCOPES=chat:read chat:edit"}, "TWITCH_BOT_SCOPES"},
		{"too long", []string{"OAUTH_STATE_TTL=2h"}, "OAUTH_STATE_TTL"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := config.Load[oauth.Config](append(slices.Clone(base), tt.env...))
			if tt.wrong == "" && err != nil || tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong+":")) {
				t.Errorf("error = %v; want one about %q", err, tt.wrong)
			}
			if err != nil && strings.Contains(err.Error(), "swordfish") {
				t.Errorf("the error contains the secret: %v", err)
			}
		})
	}
}

func TestDefaultScopesMatchTheScopesTable(t *testing.T) {
	c, err := config.Load[oauth.Config](nil)
	if err != nil {
		t.Fatal(err)
	}
	for role, got := range map[oauth.Role][]string{oauth.Bot: c.BotScopes, oauth.Broadcaster: c.BroadcasterScopes} {
		var want []string
		for _, s := range oauth.Scopes {
			if slices.Contains(s.Roles, role) {
				want = append(want, s.Name)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: default %v; the table says %v", role, got, want)
		}
	}
}
