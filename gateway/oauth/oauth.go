// Package oauth serves the pages for logging in with Twitch. A login gives Parley a credential to act as the bot or as
// a broadcaster. Start at [New]. The flow is the authorization code grant
// (https://dev.twitch.tv/docs/authentication/getting-tokens-oauth/):
//
//	GET  /oauth/twitch/login?as=bot            start; also as=broadcaster, and as=bot,broadcaster for an account with both roles
//	POST /oauth/twitch/login                   start from the form with the operator's secret
//	GET  /oauth/twitch/callback                return from Twitch
//
// Package credential stores the credential under the user id reported by Twitch (twitch:123), never under a name. This
// package alone reads and writes the Firestore collection logins. It knows nothing about chat.
//
// # Permission to log in
//
// An open login page would let strangers fill the database and have Parley act with their accounts. An account is
// accepted only if
//
//   - the login started with the operator's secret (OAUTH_OPERATOR_SECRET), or
//   - the account's id is on the list of allowed users (OAUTH_ALLOWED_USERS), or
//   - the account is the bot (TWITCH_BOT_USER_ID) and logs in as the bot.
//
// If TWITCH_BOT_USER_ID is set, no different account is accepted as the bot, even with the secret: a browser logged in
// to Twitch with a personal account is the most common mistake. The token of a refused account is revoked at once.
//
// # Protection of a login
//
// The state is random and valid for one return within [Config.StateTTL]. Firestore stores only the hash of the state. A
// cookie with the PKCE verifier (RFC 7636) binds the state to the browser, so that an attacker cannot make a victim's
// browser finish the attacker's login. Pages forbid framing and caching, and send no referrer.
package oauth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/firestore"
	"golang.org/x/oauth2"
	"golang.org/x/time/rate"

	"parley.internal/gateway/throttle"
	"parley.internal/shared/credential"
	"parley.internal/shared/identity"
)

// The paths that the handler serves.
const (
	LoginPath    = "/oauth/twitch/login"
	CallbackPath = "/oauth/twitch/callback"
)

const (
	// maxForm is the maximum size of the login form, in bytes.
	maxForm = 4 << 10
	// startRate (per second) and startBurst limit the logins started at one instance: each login costs a write.
	startRate, startBurst = 10, 30
	// callbackTimeout bounds the work of one callback: three requests to Twitch and three to Firestore.
	callbackTimeout = 25 * time.Second
)

// Keeper stores credentials. [credential.Keeper] implements it.
type Keeper interface {
	// Put stores a credential and replaces the user's previous credential.
	Put(ctx context.Context, id identity.UserID, t credential.Token) error
	// Granted returns the scopes of the stored credential, or none if there is no credential or it was revoked.
	Granted(ctx context.Context, id identity.UserID) ([]string, error)
}

// Server is the client of Twitch's authorization server. [credential.Twitch] implements it.
type Server interface {
	AuthorizeURL(redirectURI, state, challenge string, scopes []string) string
	Exchange(ctx context.Context, code credential.Secret, redirectURI string, verifier credential.Secret) (credential.Token, error)
	Validate(ctx context.Context, access credential.Secret) (credential.Token, error)
	Revoke(ctx context.Context, access credential.Secret) error
}

// Dependencies are the collaborators of a [Handler]. All fields except Proxies and LoggedIn must be set.
type Dependencies struct {
	Keeper    Keeper
	Server    Server
	Firestore *firestore.Client // stores the states of started logins; the caller closes it
	Log       *slog.Logger
	Now       func() time.Time
	Proxies   int // number of trusted proxies in front of the handler; see [throttle.Address]

	// LoggedIn is called after the credential of a login was stored, before the answer to the browser. Nil for nothing.
	LoggedIn func(context.Context, identity.UserID)
}

// Handler serves the login pages. A Handler is safe for concurrent use.
type Handler struct {
	config   Config
	d        Dependencies
	attempts attemptStore
	starts   *rate.Limiter
	lookups  *throttle.Throttle // limits the reads for callbacks without a login
	bot      identity.UserID
	allowed  map[identity.UserID]bool
	secret   [sha256.Size]byte // SHA-256 of the operator's secret
	mux      *http.ServeMux
}

// New makes the handler of all paths under /oauth/. The handler answers 404 to every request unless [Config.Enabled].
func New(c Config, d Dependencies) (*Handler, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("log in with Twitch: %w", err)
	}
	c.PublicURL = strings.TrimSuffix(c.PublicURL, "/")
	h := &Handler{
		config: c, d: d, attempts: attemptStore{d.Firestore, d.Now}, starts: rate.NewLimiter(startRate, startBurst), lookups: throttle.New(),
		allowed: map[identity.UserID]bool{}, secret: sha256.Sum256([]byte(c.OperatorSecret.Reveal())), mux: http.NewServeMux(),
	}
	if !c.Enabled() {
		return h, nil
	}
	var err error
	if h.bot, err = c.Credential.Twitch.Bot(); err != nil {
		return nil, fmt.Errorf("log in with Twitch: %w", err)
	}
	for _, s := range c.AllowedUsers {
		id, err := identity.Parse(s)
		if err != nil {
			return nil, fmt.Errorf("log in with Twitch: %w", err)
		}
		h.allowed[id] = true
	}
	h.mux.HandleFunc("GET "+LoginPath, h.serveLogin)
	h.mux.HandleFunc("POST "+LoginPath, h.serveForm)
	h.mux.HandleFunc("GET "+CallbackPath, h.serveCallback)
	return h, nil
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// serveLogin redirects to Twitch at once if the role is given and no secret is configured. Otherwise it shows the form.
func (h *Handler) serveLogin(w http.ResponseWriter, r *http.Request) {
	as, err := parseRoles(r.URL.Query()["as"])
	switch {
	case err != nil:
		h.show(w, r, http.StatusBadRequest, message{Title: "This is no role", Text: "An account logs in as bot or as broadcaster."})
	case len(as) == 0 || !h.config.OperatorSecret.IsZero():
		h.show(w, r, http.StatusOK, message{
			Title: "Log in with Twitch", Form: true, AsksSecret: !h.config.OperatorSecret.IsZero(),
			Bot: slices.Contains(as, Bot), Broadcaster: slices.Contains(as, Broadcaster),
		})
	default:
		h.start(w, r, as, false)
	}
}

func (h *Handler) serveForm(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		h.show(w, r, http.StatusBadRequest, message{Title: "The form could not be read", Text: "Please start again.", Again: LoginPath})
		return
	}
	as, err := parseRoles(r.PostForm["as"])
	if err != nil || len(as) == 0 {
		h.show(w, r, http.StatusBadRequest, message{Title: "As what?", Text: "Choose whether the account is the bot or a broadcaster.", Again: LoginPath})
		return
	}
	operator := false
	if given := r.PostForm.Get("secret"); given != "" {
		sum := sha256.Sum256([]byte(given))
		operator = !h.config.OperatorSecret.IsZero() && subtle.ConstantTimeCompare(sum[:], h.secret[:]) == 1
		if !operator {
			// A wrong guess uses up the same rate limit as a login.
			if !h.starts.AllowN(h.d.Now(), 1) {
				h.busy(w, r)
				return
			}
			h.d.Log.WarnContext(r.Context(), "login refused: wrong operator secret")
			h.show(w, r, http.StatusForbidden, message{Title: "This is not the operator's secret", Text: "Nothing was started.", Again: LoginPath})
			return
		}
	}
	h.start(w, r, as, operator)
}

func (h *Handler) busy(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Retry-After", "5")
	h.show(w, r, http.StatusTooManyRequests, message{Title: "Too many logins at the moment", Text: "Please try again in some seconds."})
}

// start stores a new login and redirects the browser to Twitch.
func (h *Handler) start(w http.ResponseWriter, r *http.Request, as []Role, operator bool) {
	if !h.starts.AllowN(h.d.Now(), 1) {
		h.busy(w, r)
		return
	}
	state, verifier, err := h.attempts.create(r.Context(), as, operator, h.config.StateTTL)
	if err != nil {
		h.d.Log.ErrorContext(r.Context(), "login start failed", "error", err)
		h.show(w, r, http.StatusServiceUnavailable, message{Title: "Logging in is not possible at the moment", Text: "Please try again later."})
		return
	}
	http.SetCookie(w, h.cookie(verifier, int(h.config.StateTTL/time.Second)))
	protect(w)
	http.Redirect(w, r, h.d.Server.AuthorizeURL(h.redirectURI(), state, oauth2.S256ChallengeFromVerifier(verifier), h.config.requiredScopes(as)), http.StatusSeeOther)
}

func (h *Handler) redirectURI() string { return h.config.PublicURL + CallbackPath }

// cookie makes the cookie that binds a login to the browser. With SameSite=Lax the browser sends the cookie on the
// redirect from Twitch, but not with requests made by pages of foreign sites. The prefix __Host- keeps sibling hosts of
// the domain from setting the cookie; the prefix needs https
// (https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Set-Cookie#cookie_prefixes).
func (h *Handler) cookie(value string, maxAge int) *http.Cookie {
	c := &http.Cookie{Name: "parley-login", Value: value, Path: "/", MaxAge: maxAge, HttpOnly: true, SameSite: http.SameSiteLaxMode}
	if strings.HasPrefix(h.config.PublicURL, "https:") {
		c.Name, c.Secure = "__Host-"+c.Name, true
	}
	return c
}

// errorCode matches OAuth error codes (RFC 6749, section 4.1.2.1). Any other text may come from an attacker, so the page
// does not show it.
var errorCode = regexp.MustCompile(`^[a-z_]{1,40}$`)

// serveCallback handles the redirect from Twitch back to the gateway.
func (h *Handler) serveCallback(w http.ResponseWriter, r *http.Request) {
	// The code is good for one use, so the login is finished even if the browser disconnects.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), callbackTimeout)
	defer cancel()
	q := r.URL.Query()
	cookie, err := r.Cookie(h.cookie("", 0).Name)
	if err != nil {
		h.show(w, r, http.StatusForbidden, message{
			Title: "This login was not started in this browser",
			Text:  "Or the login took too long, or the browser keeps no cookies. Nothing was stored.", Again: LoginPath,
		})
		return
	}
	login, err := h.consume(ctx, r, q.Get("state"), cookie.Value)
	switch {
	case errors.Is(err, throttle.ErrLimited):
		w.Header().Set("Retry-After", "5")
		h.show(w, r, http.StatusTooManyRequests, message{
			Title: "Too many wrong logins at the moment", Text: "They came from this network, or from all networks. Reload this page in some seconds.",
		})
		return
	case errors.Is(err, errOtherBrowser):
		h.d.Log.WarnContext(ctx, "login refused: callback in a different browser")
		h.show(w, r, http.StatusForbidden, message{
			Title: "This login was not started in this browser",
			Text:  "Or a newer login was started in this browser. Nothing was stored.", Again: LoginPath,
		})
		return
	case errors.Is(err, errUnknownState):
		h.show(w, r, http.StatusBadRequest, message{
			Title: "This login is over", Text: "The login is already finished, or took too long. Nothing was stored just now.", Again: LoginPath,
		})
		return
	case err != nil:
		h.d.Log.ErrorContext(ctx, "login state read failed", "error", err)
		h.show(w, r, http.StatusServiceUnavailable, message{Title: "Logging in is not possible at the moment", Text: "Reload this page in some seconds."})
		return
	}
	http.SetCookie(w, h.cookie("", -1))
	again := LoginPath + "?as=" + join(login.As)
	if code := q.Get("error"); code != "" {
		if code == "access_denied" {
			h.show(w, r, http.StatusForbidden, message{Title: "You declined", Text: "Twitch gave nothing to Parley, and nothing was stored.", Again: again})
			return
		}
		if !errorCode.MatchString(code) {
			code = "an unknown error"
		}
		h.d.Log.ErrorContext(ctx, "login failed at Twitch", "code", code)
		h.show(w, r, http.StatusBadGateway, message{Title: "Twitch could not finish the login", Text: "Twitch answered: " + code + ".", Again: again})
		return
	}
	m, status := h.finish(ctx, login, credential.NewSecret(q.Get("code")), credential.NewSecret(cookie.Value))
	if m.Again == "" && status != http.StatusOK {
		m.Again = again
	}
	h.show(w, r, status, m)
}

// consume returns and deletes the login of a callback. It reads Firestore only as often as the throttle allows for the
// client's address. The errors are throttle.ErrLimited and those of attemptStore.consume.
func (h *Handler) consume(ctx context.Context, r *http.Request, state, verifier string) (attempt, error) {
	if !stateForm.MatchString(state) {
		return attempt{}, errUnknownState
	}
	done, err := h.lookups.Wait(ctx, throttle.Address(r, h.d.Proxies))
	if err != nil {
		return attempt{}, err
	}
	login, err := h.attempts.consume(ctx, state, verifier)
	// A stranger can repeat the state of a login of his own with a wrong cookie.
	done(errors.Is(err, errUnknownState) || errors.Is(err, errOtherBrowser))
	return login, err
}

// finish exchanges an authorization code for a credential, checks the account, and stores the credential. It returns
// the page and the HTTP status for the browser.
func (h *Handler) finish(ctx context.Context, login attempt, code, verifier credential.Secret) (message, int) {
	log := h.d.Log.With("as", join(login.As), "operator", login.Operator)
	if code.IsZero() {
		return message{Title: "Twitch sent nothing", Text: "The address has neither a code nor an error."}, http.StatusBadRequest
	}
	issued, err := h.d.Server.Exchange(ctx, code, h.redirectURI(), verifier)
	if err != nil {
		log.ErrorContext(ctx, "login failed: code exchange failed", "error", err)
		return failure(err)
	}
	t, err := h.d.Server.Validate(ctx, issued.Access)
	if err != nil {
		log.ErrorContext(ctx, "login failed: token validation failed", "error", err)
		return failure(err)
	}
	t.Refresh = issued.Refresh
	log = log.With("user", t.User.String(), "name", t.Login)
	who := fmt.Sprintf("%s (%s)", t.Login, t.User)

	if refusal := h.refusal(login, t.User); refusal != "" {
		log.WarnContext(ctx, "login refused: account not allowed", "reason", refusal)
		h.discard(ctx, log, t)
		return message{Title: who + " may not log in", Text: refusal + " The token was given back to Twitch; nothing was stored."}, http.StatusForbidden
	}
	before, err := h.d.Keeper.Granted(ctx, t.User)
	if err != nil {
		log.ErrorContext(ctx, "login failed: reading the stored credential failed", "error", err)
		h.discard(ctx, log, t)
		return unstored, http.StatusServiceUnavailable
	}
	if lost := h.lost(before, t.Scopes); len(lost) > 0 {
		log.WarnContext(ctx, "login refused: granted scopes would be lost", "scopes", lost)
		h.discard(ctx, log, t)
		return message{
			Title: who + " has granted more before", Scopes: explain(lost), Again: LoginPath + "?as=" + join(roles),
			Text: "This login would remove the permissions listed below. Nothing was changed. An account that is both bot and broadcaster logs in with both roles at once.",
		}, http.StatusConflict
	}
	if err := h.d.Keeper.Put(ctx, t.User, t); err != nil {
		log.ErrorContext(ctx, "login failed: storing the credential failed", "error", err)
		h.discard(ctx, log, t)
		return unstored, http.StatusServiceUnavailable
	}
	if h.d.LoggedIn != nil {
		h.d.LoggedIn(ctx, t.User)
	}
	missing := credential.Missing(t.Scopes, h.config.requiredScopes(login.As))
	if len(missing) > 0 {
		log.WarnContext(ctx, "logged in with missing scopes", "missing", missing)
		return message{
			Title: who + " is logged in, but not for everything", Scopes: explain(missing), Again: LoginPath + "?as=" + join(login.As),
			Text: "The permissions listed below were not granted, so these functions will not work. All other functions will.",
		}, http.StatusOK
	}
	log.InfoContext(ctx, "logged in", "scopes", t.Scopes)
	return message{Title: who + " is logged in", Text: "Parley can now act as " + join(login.As) + " with this account. This page can be closed."}, http.StatusOK
}

// refusal returns the reason why an account may not log in, or an empty string if the account may log in.
func (h *Handler) refusal(login attempt, user identity.UserID) string {
	if slices.Contains(login.As, Bot) && !h.bot.IsZero() {
		if user != h.bot {
			return fmt.Sprintf("The bot's account is %s: log in at Twitch with that one first.", h.bot)
		}
		if len(login.As) == 1 {
			return ""
		}
	}
	if login.Operator || h.allowed[user] {
		return ""
	}
	return "It is not on this gateway's list of accounts (OAUTH_ALLOWED_USERS), and the login was started without the operator's secret."
}

// lost returns the scopes granted before and not now. Scopes that no role needs are left out.
func (h *Handler) lost(before, now []string) []string {
	return slices.DeleteFunc(credential.Missing(now, before), func(s string) bool {
		return !slices.Contains(h.config.requiredScopes(roles), s)
	})
}

// discard revokes a token that will not be stored.
func (h *Handler) discard(ctx context.Context, log *slog.Logger, t credential.Token) {
	if err := h.d.Server.Revoke(ctx, t.Access); err != nil {
		log.WarnContext(ctx, "revoking an unused token failed", "error", err)
	}
}

var unstored = message{Title: "The login could not be stored", Text: "The token was given back to Twitch. Please try again later."}

// failure returns the page and the HTTP status for an error of Twitch's authorization server. The error's text stays in
// the log.
func failure(err error) (message, int) {
	switch {
	case errors.Is(err, credential.ErrInvalidToken):
		return message{Title: "Twitch no longer accepts this login's code", Text: "The code may be used already, or expired. Nothing was stored."}, http.StatusBadRequest
	case errors.Is(err, credential.ErrRefused):
		return message{Title: "Twitch refuses this gateway", Text: "The gateway's client id, client secret or redirect URL differs from the registration with Twitch. Operators find the details in the log."}, http.StatusBadGateway
	}
	return message{Title: "Twitch can't be reached at the moment", Text: "Nothing was stored. Please try again later."}, http.StatusBadGateway
}

func join(as []Role) string {
	s := make([]string, len(as))
	for i, r := range as {
		s[i] = string(r)
	}
	return strings.Join(s, ",")
}

func explain(scopes []string) []explained {
	var list []explained
	for _, s := range scopes {
		list = append(list, explained{s, purpose(s)})
	}
	return list
}

// show writes a page with its status and security headers.
func (h *Handler) show(w http.ResponseWriter, r *http.Request, status int, m message) {
	var page bytes.Buffer
	if err := layout.Execute(&page, m); err != nil {
		h.d.Log.ErrorContext(r.Context(), "page rendering failed", "error", err)
		http.Error(w, m.Title, http.StatusInternalServerError)
		return
	}
	protect(w)
	// Browsers apply form-action also to the redirect after a form, hence the origin of Twitch.
	w.Header().Set("Content-Security-Policy", policy+"; form-action 'self' "+origin(h.config.Credential.Twitch.OAuthURL))
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(page.Bytes()) // fails only if the browser has disconnected
}

// protect sets the headers that keep a response out of caches and its URL out of referrers.
func protect(w http.ResponseWriter) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("X-Content-Type-Options", "nosniff")
}

func origin(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}
