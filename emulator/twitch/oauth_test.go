package twitch_test

import (
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nicklaw5/helix/v2"

	"parley.internal/emulator/twitch"
)

// oauthClient redirects helix's OAuth requests to a server, because helix has a fixed address.
type oauthClient struct{ url string }

func (c oauthClient) Do(r *http.Request) (*http.Response, error) {
	if rest, ok := strings.CutPrefix(r.URL.String(), helix.AuthBaseURL); ok {
		u, err := url.Parse(c.url + rest)
		if err != nil {
			return nil, err
		}
		r.URL, r.Host = u, u.Host
	}
	return http.DefaultClient.Do(r)
}

// oauth returns a client without a token.
func (w *world) oauth() *helix.Client {
	w.t.Helper()
	c, err := helix.NewClient(&helix.Options{
		ClientID: w.app.ID, ClientSecret: w.app.Secret, RedirectURI: w.app.RedirectURIs[0],
		APIBaseURL: w.HelixURL(), HTTPClient: oauthClient{w.OAuthURL()},
	})
	w.must(err)
	return c
}

// visit opens the authorization page, with some changed query parameters.
func (w *world) visit(t *testing.T, c *helix.Client, change map[string]string) reply {
	t.Helper()
	u, err := url.Parse(w.OAuthURL() + strings.TrimPrefix(c.GetAuthorizationURL(&helix.AuthorizationURLParams{
		ResponseType: "code", Scopes: []string{"chat:read", "chat:edit"}, State: "s1",
	}), helix.AuthBaseURL))
	w.must(err)
	q := u.Query()
	for k, v := range change {
		q.Set(k, v)
	}
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(t.Context(), "GET", u.String(), nil)
	w.must(err)
	return do(t, req)
}

func TestOAuthCodeFlow(t *testing.T) {
	w := newWorld(t)
	w.must(w.LogIn("viewer"))
	c := w.oauth()
	r := w.visit(t, c, nil)
	back, err := url.Parse(r.header.Get("Location"))
	if err != nil || r.status != http.StatusFound || !strings.HasPrefix(back.String(), "http://localhost/back?") || back.Query().Get("state") != "s1" {
		t.Fatalf("redirected to %q with %d", r.header.Get("Location"), r.status)
	}
	code := back.Query().Get("code")
	first, err := c.RequestUserAccessToken(code)
	if err != nil || first.StatusCode != 200 || first.Data.ExpiresIn != int((4*time.Hour).Seconds()) ||
		!slices.Equal(first.Data.Scopes, []string{"chat:read", "chat:edit"}) {
		t.Fatalf("RequestUserAccessToken: %+v, %v", first, err)
	}
	if again, err := c.RequestUserAccessToken(code); err != nil || again.StatusCode != 400 || again.ErrorMessage != "Invalid authorization code" {
		t.Errorf("the second use of the code: %+v, %v", again, err)
	}

	w.clock.Advance(time.Minute)
	valid, v, err := c.ValidateToken(first.Data.AccessToken)
	if err != nil || !valid || v.Data.Login != "viewer" || v.Data.UserID != w.viewer.ID || v.Data.ClientID != w.app.ID ||
		v.Data.ExpiresIn != int((4*time.Hour-time.Minute).Seconds()) || len(v.Data.Scopes) != 2 {
		t.Errorf("ValidateToken: %v, %+v, %v", valid, v, err)
	}
	if tok, ok := w.Token(first.Data.AccessToken); !ok || !tok.ValidatedAt.Equal(w.clock.Now()) {
		t.Errorf("the token is %+v, %v", tok, ok)
	}

	second, err := c.RefreshUserAccessToken(first.Data.RefreshToken)
	if err != nil || second.StatusCode != 200 || second.Data.RefreshToken == first.Data.RefreshToken || second.Data.AccessToken == first.Data.AccessToken {
		t.Fatalf("RefreshUserAccessToken: %+v, %v", second, err)
	}
	if again, err := c.RefreshUserAccessToken(first.Data.RefreshToken); err != nil || again.StatusCode != 400 || again.ErrorMessage != "Invalid refresh token" {
		t.Errorf("the second use of the refresh token: %+v, %v", again, err)
	}

	if r, err := c.RevokeUserAccessToken(second.Data.AccessToken); err != nil || r.StatusCode != 200 {
		t.Errorf("RevokeUserAccessToken: %+v, %v", r, err)
	}
	if valid, v, err := c.ValidateToken(second.Data.AccessToken); err != nil || valid || v.StatusCode != 401 || v.ErrorMessage != "invalid access token" {
		t.Errorf("the revoked token: %v, %+v, %v", valid, v, err)
	}
	w.clock.Advance(4 * time.Hour)
	if valid, _, err := c.ValidateToken(first.Data.AccessToken); err != nil || valid {
		t.Errorf("the expired token: %v, %v", valid, err)
	}
	if r, err := c.RevokeUserAccessToken("nonsense"); err != nil || r.StatusCode != 400 {
		t.Errorf("revocation of an unknown token: %+v, %v", r, err)
	}
}

func TestOAuthRefusesInvalidAuthorizationRequests(t *testing.T) {
	w := newWorld(t)
	w.must(w.LogIn("viewer"))
	for _, c := range []struct {
		name   string
		change map[string]string
		status int
		want   string // part of the message or of the Location
	}{
		{"unknown app", map[string]string{"client_id": "x"}, 400, "invalid client"},
		{"no app", map[string]string{"client_id": ""}, 400, "missing client id"},
		{"foreign address", map[string]string{"redirect_uri": "http://evil.example/back"}, 400, "redirect_uri"},
		{"implicit flow", map[string]string{"response_type": "token"}, 302, "error=unsupported_response_type"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := w.visit(t, w.oauth(), c.change)
			if r.status != c.status || !strings.Contains(r.message()+r.header.Get("Location"), c.want) {
				t.Errorf("response %d %v %q", r.status, r.body, r.header.Get("Location"))
			}
		})
	}
}

func TestOAuthPageAsksForTheUserAndTheConsent(t *testing.T) {
	w := newWorld(t)
	jar, err := cookiejar.New(nil)
	w.must(err)
	browser := &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	page := w.OAuthURL() + "/authorize?response_type=code&client_id=" + w.app.ID + "&redirect_uri=http://localhost/back&state=s1&scope=chat:read"
	if r := w.visit(t, w.oauth(), nil); r.status != 200 || !strings.HasPrefix(r.header.Get("Content-Type"), "text/html") {
		t.Fatalf("response %d %v", r.status, r.header)
	}
	for answer, want := range map[string]string{"allow": "code=", "deny": "error=access_denied"} {
		r, err := browser.PostForm(page, url.Values{"login": {"bot"}, "answer": {answer}})
		w.must(err)
		r.Body.Close()
		if at := r.Header.Get("Location"); r.StatusCode != 302 || !strings.Contains(at, want) || !strings.Contains(at, "state=s1") {
			t.Errorf("%s redirected to %q with %d", answer, at, r.StatusCode)
		}
	}
	browser.CloseIdleConnections()
}

func TestOAuthRefusesInvalidTokenRequests(t *testing.T) {
	w := newWorld(t)
	other, err := w.AddApp(twitch.App{})
	w.must(err)
	mine := w.tokens["bot"].Refresh
	for _, c := range []struct {
		name   string
		form   url.Values
		status int
		want   string
	}{
		{"no app", url.Values{}, 400, "missing client id"},
		{"unknown app", url.Values{"client_id": {"x"}}, 400, "invalid client"},
		{"no secret", url.Values{"client_id": {w.app.ID}}, 400, "missing client secret"},
		{"wrong secret", url.Values{"client_id": {w.app.ID}, "client_secret": {"x"}}, 403, "invalid client secret"},
		{"no grant", url.Values{"client_id": {w.app.ID}, "client_secret": {w.app.Secret}}, 400, "missing grant type"},
		{"unknown grant", url.Values{"client_id": {w.app.ID}, "client_secret": {w.app.Secret}, "grant_type": {"x"}}, 400, "unsupported grant type"},
		{"bad code", url.Values{"client_id": {w.app.ID}, "client_secret": {w.app.Secret}, "grant_type": {"authorization_code"}, "code": {"x"}}, 400, "Invalid authorization code"},
		{"another app's refresh token", url.Values{"client_id": {other.ID}, "client_secret": {other.Secret}, "grant_type": {"refresh_token"}, "refresh_token": {mine}}, 400, "Invalid refresh token"},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), "POST", w.OAuthURL()+"/token", strings.NewReader(c.form.Encode()))
			w.must(err)
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if r := do(t, req); r.status != c.status || r.message() != c.want || r.body["status"] != float64(c.status) {
				t.Errorf("response %d %v; want %d %q", r.status, r.body, c.status, c.want)
			}
		})
	}
}

func TestOAuthAppToken(t *testing.T) {
	w := newWorld(t)
	c := w.oauth()
	r, err := c.RequestAppAccessToken(nil)
	if err != nil || r.StatusCode != 200 || r.Data.AccessToken == "" || r.Data.RefreshToken != "" {
		t.Fatalf("RequestAppAccessToken: %+v, %v", r, err)
	}
	c.SetAppAccessToken(r.Data.AccessToken)
	if users, err := c.GetUsers(&helix.UsersParams{Logins: []string{"bot"}}); err != nil || len(users.Data.Users) != 1 {
		t.Errorf("GetUsers: %+v, %v", users, err)
	}
	if valid, v, err := c.ValidateToken(r.Data.AccessToken); err != nil || !valid || v.Data.UserID != "" {
		t.Errorf("ValidateToken: %v, %+v, %v", valid, v, err)
	}
}

func TestDisconnectRevokesAllTokensOfTheUser(t *testing.T) {
	w := newWorld(t)
	w.must(w.Disconnect(w.app.ID, "bot"))
	if _, ok := w.Token(w.tokens["bot"].Access); ok {
		t.Error("the token is still valid")
	}
	if r, err := w.oauth().RefreshUserAccessToken(w.tokens["bot"].Refresh); err != nil || r.StatusCode != 400 {
		t.Errorf("RefreshUserAccessToken: %+v, %v", r, err)
	}
	if _, ok := w.Token(w.tokens["viewer"].Access); !ok {
		t.Error("the token of another user was revoked too")
	}
}
