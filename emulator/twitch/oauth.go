package twitch

import (
	"cmp"
	"encoding/json"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"parley.internal/emulator/fake"
)

// OAuth: https://dev.twitch.tv/docs/authentication/getting-tokens-oauth/

// code is the result of an authorization. A client can exchange it once.
type code struct {
	clientID, redirectURI, userID string
	scopes                        []string
	expires                       time.Time
}

// codeLife is the lifetime of a code. Twitch documents none; a client exchanges its code at once.
const codeLife = 10 * time.Minute

func (s *Server) routeOAuth(mux *http.ServeMux) {
	mux.HandleFunc("GET "+oauthPath+"/authorize", s.authorize)
	mux.HandleFunc("POST "+oauthPath+"/authorize", s.authorize)
	mux.HandleFunc("POST "+oauthPath+"/token", s.token)
	mux.HandleFunc("GET "+oauthPath+"/validate", s.validate)
	mux.HandleFunc("POST "+oauthPath+"/revoke", s.revoke)
	mux.HandleFunc(oauthPath+"/", func(w http.ResponseWriter, _ *http.Request) {
		oauthError(w, http.StatusNotFound, "not found")
	})
}

// LogIn logs in a user at the authorization page for every browser; the user consents to everything at once. Without a
// logged-in user, or with an empty login, the page asks for the user and the consent.
func (s *Server) LogIn(login string) error {
	s.lock()
	defer s.unlock()
	if login == "" {
		s.loggedIn = ""
		return nil
	}
	a, err := s.account(login)
	if err != nil {
		return err
	}
	s.loggedIn = a.Login
	return nil
}

var consentPage = template.Must(template.New("consent").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Authorize {{.App}}</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:30rem;margin:4rem auto;padding:0 1rem}button,select{font:inherit;padding:.4rem .8rem}</style>
<h1>{{.App}} wants to access an account</h1>
<p>This stands in for Twitch. Choose whom you want to be.</p>
{{if .Scopes}}<ul>{{range .Scopes}}<li><code>{{.}}</code></li>{{end}}</ul>{{end}}
<form method="post">
<p><label>User <select name="login">{{range .Users}}<option value="{{.Login}}">{{.DisplayName}}</option>{{end}}</select></label></p>
<p><button name="answer" value="allow">Authorize</button> <button name="answer" value="deny">Cancel</button></p>
</form>
</html>
`))

func (s *Server) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	redirect := q.Get("redirect_uri")
	s.lock()
	defer s.unlock()
	app := s.apps[q.Get("client_id")]
	// Without a known app and redirect address, an error cannot be redirected.
	switch {
	case q.Get("client_id") == "":
		oauthError(w, http.StatusBadRequest, "missing client id")
		return
	case app == nil:
		oauthError(w, http.StatusBadRequest, "invalid client")
		return
	case !slices.Contains(app.RedirectURIs, redirect):
		oauthError(w, http.StatusBadRequest, "Parameter redirect_uri does not match registered URI")
		return
	}
	back, err := url.Parse(redirect)
	if err != nil {
		oauthError(w, http.StatusBadRequest, "Parameter redirect_uri does not match registered URI")
		return
	}
	answer := func(pairs ...string) {
		out := back.Query()
		for i := 0; i < len(pairs); i += 2 {
			out.Set(pairs[i], pairs[i+1])
		}
		if state := q.Get("state"); state != "" {
			out.Set("state", state)
		}
		back.RawQuery = out.Encode()
		http.Redirect(w, r, back.String(), http.StatusFound)
	}
	if q.Get("response_type") != "code" {
		answer("error", "unsupported_response_type", "error_description", "this fake supports the authorization code flow only")
		return
	}
	login := s.loggedIn
	if r.Method == http.MethodPost {
		if r.PostFormValue("answer") != "allow" {
			answer("error", "access_denied", "error_description", "The user denied you access")
			return
		}
		login = r.PostFormValue("login")
	}
	scopes := strings.Fields(q.Get("scope"))
	u := s.logins[login]
	if u == nil {
		var users []User
		for _, a := range s.logins {
			users = append(users, a.User)
		}
		slices.SortFunc(users, func(a, b User) int { return cmp.Compare(a.Login, b.Login) })
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		// The browser may be gone; then the page is not needed.
		_ = consentPage.Execute(w, map[string]any{"App": app.Name, "Scopes": scopes, "Users": users})
		return
	}
	c := fake.Secret(15)
	s.codes[c] = code{app.ID, redirect, u.ID, scopes, s.now().Add(codeLife)}
	answer("code", c, "scope", strings.Join(scopes, " "))
}

// token issues tokens for a code, a refresh token, or the app itself.
// https://dev.twitch.tv/docs/authentication/refresh-tokens/
func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	s.lock()
	defer s.unlock()
	clientID := r.FormValue("client_id")
	if clientID == "" {
		oauthError(w, http.StatusBadRequest, "missing client id")
		return
	}
	app := s.apps[clientID]
	if app == nil {
		oauthError(w, http.StatusBadRequest, "invalid client")
		return
	}
	if r.FormValue("client_secret") == "" {
		oauthError(w, http.StatusBadRequest, "missing client secret")
		return
	}
	if r.FormValue("client_secret") != app.Secret {
		oauthError(w, http.StatusForbidden, "invalid client secret")
		return
	}
	var t *Token
	switch r.FormValue("grant_type") {
	case "authorization_code":
		key := r.FormValue("code")
		c, ok := s.codes[key]
		if !ok || c.clientID != app.ID || s.now().After(c.expires) {
			oauthError(w, http.StatusBadRequest, "Invalid authorization code")
			return
		}
		if c.redirectURI != r.FormValue("redirect_uri") {
			oauthError(w, http.StatusBadRequest, "Parameter redirect_uri does not match registered URI")
			return
		}
		delete(s.codes, key)
		t = s.issue(Token{UserID: c.userID, ClientID: app.ID, Scopes: c.scopes})
	case "refresh_token":
		old := s.refresh[r.FormValue("refresh_token")]
		if old == nil || old.ClientID != app.ID {
			oauthError(w, http.StatusBadRequest, "Invalid refresh token")
			return
		}
		// The next refresh needs the new refresh token; the old access token stays valid until its expiry.
		delete(s.refresh, old.Refresh)
		t = s.issue(Token{UserID: old.UserID, ClientID: app.ID, Scopes: old.Scopes})
	case "client_credentials":
		t = s.issue(Token{ClientID: app.ID, ExpiresAt: s.now().Add(60 * 24 * time.Hour)})
	case "":
		oauthError(w, http.StatusBadRequest, "missing grant type")
		return
	default:
		oauthError(w, http.StatusBadRequest, "unsupported grant type")
		return
	}
	out := map[string]any{
		"access_token": t.Access,
		"expires_in":   s.secondsLeft(t),
		"token_type":   "bearer",
	}
	if t.UserID != "" {
		out["refresh_token"] = t.Refresh
		out["scope"] = orEmpty(t.Scopes)
	}
	writeJSON(w, http.StatusOK, out)
}

// validate describes a token. https://dev.twitch.tv/docs/authentication/validate-tokens/
func (s *Server) validate(w http.ResponseWriter, r *http.Request) {
	access, ok := authorization(r, "OAuth", "Bearer")
	if !ok {
		oauthError(w, http.StatusUnauthorized, "missing authorization token")
		return
	}
	s.lock()
	defer s.unlock()
	t := s.valid(access)
	if t == nil {
		oauthError(w, http.StatusUnauthorized, "invalid access token")
		return
	}
	t.ValidatedAt = s.now()
	out := map[string]any{"client_id": t.ClientID, "scopes": orEmpty(t.Scopes), "expires_in": s.secondsLeft(t)}
	if t.UserID != "" {
		out["user_id"], out["login"] = t.UserID, s.users[t.UserID].Login
	}
	writeJSON(w, http.StatusOK, out)
}

// revoke revokes a token. https://dev.twitch.tv/docs/authentication/revoke-tokens/
func (s *Server) revoke(w http.ResponseWriter, r *http.Request) {
	clientID, access := r.FormValue("client_id"), r.FormValue("token")
	s.lock()
	defer s.unlock()
	switch t := s.valid(access); {
	case clientID == "":
		oauthError(w, http.StatusBadRequest, "missing client id")
	case s.apps[clientID] == nil:
		oauthError(w, http.StatusNotFound, "client does not exist")
	case access == "":
		oauthError(w, http.StatusBadRequest, "missing oauth token")
	case t == nil || t.ClientID != clientID:
		oauthError(w, http.StatusBadRequest, "Invalid token")
	default:
		t.revoked = true
		delete(s.refresh, t.Refresh)
		w.WriteHeader(http.StatusOK)
	}
}

func (s *Server) secondsLeft(t *Token) int { return int(t.ExpiresAt.Sub(s.now()) / time.Second) }

// authorization returns the token of the Authorization header, if the header uses one of the schemes.
func authorization(r *http.Request, schemes ...string) (string, bool) {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || token == "" {
		return "", false
	}
	return token, slices.ContainsFunc(schemes, func(want string) bool { return strings.EqualFold(want, scheme) })
}

func oauthError(w http.ResponseWriter, status int, text string) {
	writeJSON(w, status, map[string]any{"status": status, "message": text})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	// A disconnected client is not an error of the server.
	_ = json.NewEncoder(w).Encode(v)
}

// orEmpty returns a list that encodes as [] instead of null.
func orEmpty(scopes []string) []string { return append([]string{}, scopes...) }
