// Package oauth lets people log in at Twitch, so that Parley may act for them: the bot, and broadcasters. It is the
// authorization code grant (https://dev.twitch.tv/docs/authentication/getting-tokens-oauth/):
//
//	GET  /oauth/twitch/login?as=bot            begins, as=broadcaster likewise; as=bot,broadcaster for an account that is both
//	POST /oauth/twitch/login                   the same, from the page that asks for the operator's secret
//	GET  /oauth/twitch/callback                where Twitch sends the browser back to
//
// What comes of it is a credential that package credential keeps, under the user id that Twitch says the token belongs
// to (twitch:123), never under a name.
//
// # Who may log in
//
// A page on which anybody could leave a token would let strangers have Parley act with their accounts, and fill its
// database. So an account is taken only if
//
//   - the login was begun with the operator's secret (OAUTH_OPERATOR_SECRET), or
//   - its id is on the list of those allowed (OAUTH_ALLOWED_USERS), or
//   - it is the bot's (TWITCH_BOT_USER_ID) and logs in as the bot.
//
// Where the bot's id is configured, no other account is taken as the bot, not even with the secret: a browser that is
// logged in at Twitch with one's own account is the commonest mistake. The token of an account that is not taken is
// revoked at once.
//
// # What protects a login
//
// The state is random, known to Firestore by its hash only, and good for one return within some minutes. It is bound
// to the browser by a cookie, which is the PKCE verifier (RFC 7636) too, so that nobody can make another's browser
// finish a login that they began. Pages may be neither framed nor cached, and send no referrer.
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

	"parley.internal/shared/credential"
	"parley.internal/shared/identity"
)

// The paths that the handler serves.
const (
	LoginPath    = "/oauth/twitch/login"
	CallbackPath = "/oauth/twitch/callback"
)

const (
	// maxForm bounds the one form there is.
	maxForm = 4 << 10
	// beginRate and beginBurst bound how many logins may begin at one instance: each costs a write.
	beginRate, beginBurst = 10, 30
	// callbackTime bounds the work that a return from Twitch makes: three requests to Twitch, three to Firestore.
	callbackTime = 25 * time.Second
)

// Keeper keeps what comes of a login; [credential.Keeper] is one.
type Keeper interface {
	// Put stores a credential in place of what there was.
	Put(ctx context.Context, id identity.UserID, t credential.Token) error
	// Granted tells what is granted so far.
	Granted(ctx context.Context, id identity.UserID) ([]string, error)
}

// Server is Twitch's authorization server; [credential.Twitch] is it.
type Server interface {
	AuthorizeURL(redirectURI, state, challenge string, scopes []string) string
	Exchange(ctx context.Context, code credential.Secret, redirectURI string, verifier credential.Secret) (credential.Token, error)
	Validate(ctx context.Context, access credential.Secret) (credential.Token, error)
	Revoke(ctx context.Context, access credential.Secret) error
}

// Dependencies are what the handler works with; all are needed.
type Dependencies struct {
	Keeper    Keeper
	Server    Server
	Firestore *firestore.Client // for the states of logins that were begun
	Log       *slog.Logger
	Now       func() time.Time
}

// Handler serves the pages. It is safe for concurrent use.
type Handler struct {
	config   Config
	d        Dependencies
	attempts attempts
	begins   *rate.Limiter
	bot      identity.UserID
	allowed  map[identity.UserID]bool
	secret   [sha256.Size]byte // of the operator's secret
	mux      *http.ServeMux
}

// New makes the handler of all paths under /oauth/. If logging in is not configured, it answers 404 to each.
func New(c Config, d Dependencies) (*Handler, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("log in with Twitch: %w", err)
	}
	c.PublicURL = strings.TrimSuffix(c.PublicURL, "/")
	h := &Handler{
		config: c, d: d, attempts: attempts{d.Firestore, d.Now}, begins: rate.NewLimiter(beginRate, beginBurst),
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

// serveLogin begins at once where there is nothing to ask, else it shows what there is to choose.
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
		h.begin(w, r, as, false)
	}
}

func (h *Handler) serveForm(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		h.show(w, r, http.StatusBadRequest, message{Title: "The form could not be read", Text: "Please begin anew.", Again: LoginPath})
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
			// wrong guesses use up what logins may begin
			if !h.begins.AllowN(h.d.Now(), 1) {
				h.busy(w, r)
				return
			}
			h.d.Log.WarnContext(r.Context(), "login refused: wrong operator's secret")
			h.show(w, r, http.StatusForbidden, message{Title: "This is not the operator's secret", Text: "Nothing was begun.", Again: LoginPath})
			return
		}
	}
	h.begin(w, r, as, operator)
}

func (h *Handler) busy(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Retry-After", "5")
	h.show(w, r, http.StatusTooManyRequests, message{Title: "Too many logins at the moment", Text: "Please try again in some seconds."})
}

// begin sends the browser to Twitch.
func (h *Handler) begin(w http.ResponseWriter, r *http.Request, as []Role, operator bool) {
	if !h.begins.AllowN(h.d.Now(), 1) {
		h.busy(w, r)
		return
	}
	state, verifier, err := h.attempts.begin(r.Context(), as, operator, h.config.StateTTL)
	if err != nil {
		h.d.Log.ErrorContext(r.Context(), "a login could not begin", "error", err)
		h.show(w, r, http.StatusServiceUnavailable, message{Title: "Logging in is not possible at the moment", Text: "Please try again later."})
		return
	}
	http.SetCookie(w, h.cookie(verifier, int(h.config.StateTTL/time.Second)))
	protect(w)
	http.Redirect(w, r, h.d.Server.AuthorizeURL(h.redirectURI(), state, oauth2.S256ChallengeFromVerifier(verifier), h.config.wanted(as)), http.StatusSeeOther)
}

func (h *Handler) redirectURI() string { return h.config.PublicURL + CallbackPath }

// cookie binds a login to the browser. SameSite=Lax lets it come along when Twitch sends the browser back, and with no
// request that another site's page makes. The prefix __Host- keeps other hosts of the domain from setting it
// (https://developer.mozilla.org/docs/Web/HTTP/Reference/Headers/Set-Cookie#cookie_prefixes); it wants https.
func (h *Handler) cookie(value string, maxAge int) *http.Cookie {
	c := &http.Cookie{Name: "parley-login", Value: value, Path: "/", MaxAge: maxAge, HttpOnly: true, SameSite: http.SameSiteLaxMode}
	if strings.HasPrefix(h.config.PublicURL, "https:") {
		c.Name, c.Secure = "__Host-"+c.Name, true
	}
	return c
}

// errorCode is the form of what OAuth calls errors (RFC 6749, section 4.1.2.1); anything else is not repeated.
var errorCode = regexp.MustCompile(`^[a-z_]{1,40}$`)

// serveCallback takes a browser back from Twitch.
func (h *Handler) serveCallback(w http.ResponseWriter, r *http.Request) {
	// what was begun with a code that can be used once only is brought to its end, whether or not the browser waits
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), callbackTime)
	defer cancel()
	q := r.URL.Query()
	cookie, err := r.Cookie(h.cookie("", 0).Name)
	if err != nil {
		h.show(w, r, http.StatusForbidden, message{
			Title: "This login was not begun in this browser",
			Text:  "Or it took too long, or the browser keeps no cookies. Nothing was stored.", Again: LoginPath,
		})
		return
	}
	begun, err := h.attempts.take(ctx, q.Get("state"), cookie.Value)
	switch {
	case errors.Is(err, errOtherBrowser):
		h.d.Log.WarnContext(ctx, "login refused: returned to another browser than the one it was begun in")
		h.show(w, r, http.StatusForbidden, message{
			Title: "This login was not begun in this browser",
			Text:  "Or another one was begun here since. Nothing was stored.", Again: LoginPath,
		})
		return
	case errors.Is(err, errUnknownState):
		h.show(w, r, http.StatusBadRequest, message{
			Title: "This login is over", Text: "It was finished already, or it took too long. Nothing was stored just now.", Again: LoginPath,
		})
		return
	case err != nil:
		h.d.Log.ErrorContext(ctx, "a login could not be looked up", "error", err)
		h.show(w, r, http.StatusServiceUnavailable, message{Title: "Logging in is not possible at the moment", Text: "Reload this page in some seconds."})
		return
	}
	http.SetCookie(w, h.cookie("", -1))
	again := LoginPath + "?as=" + join(begun.As)
	if code := q.Get("error"); code != "" {
		if code == "access_denied" {
			h.show(w, r, http.StatusForbidden, message{Title: "You declined", Text: "Twitch gave nothing to Parley, and nothing was stored.", Again: again})
			return
		}
		if !errorCode.MatchString(code) {
			code = "an error that it has no name for"
		}
		h.d.Log.ErrorContext(ctx, "login failed at Twitch", "code", code)
		h.show(w, r, http.StatusBadGateway, message{Title: "Twitch could not do it", Text: "It answered: " + code + ".", Again: again})
		return
	}
	m, status := h.finish(ctx, begun, credential.NewSecret(q.Get("code")), credential.NewSecret(cookie.Value))
	if m.Again == "" && status != http.StatusOK {
		m.Again = again
	}
	h.show(w, r, status, m)
}

// finish makes a credential of an authorization code, and says what came of it.
func (h *Handler) finish(ctx context.Context, begun attempt, code, verifier credential.Secret) (message, int) {
	log := h.d.Log.With("as", join(begun.As), "operator", begun.Operator)
	if code.IsZero() {
		return message{Title: "Twitch sent nothing", Text: "The address has neither a code nor an error."}, http.StatusBadRequest
	}
	issued, err := h.d.Server.Exchange(ctx, code, h.redirectURI(), verifier)
	if err != nil {
		log.ErrorContext(ctx, "login failed: no token for the code", "error", err)
		return failure(err)
	}
	t, err := h.d.Server.Validate(ctx, issued.Access)
	if err != nil {
		log.ErrorContext(ctx, "login failed: the token is not valid", "error", err)
		return failure(err)
	}
	t.Refresh = issued.Refresh
	log = log.With("user", t.User.String(), "name", t.Login)
	who := fmt.Sprintf("%s (%s)", t.Login, t.User)

	if refusal := h.refusal(begun, t.User); refusal != "" {
		log.WarnContext(ctx, "login refused", "why", refusal)
		h.discard(ctx, log, t)
		return message{Title: who + " may not log in", Text: refusal + " The token was given back to Twitch; nothing was stored."}, http.StatusForbidden
	}
	before, err := h.d.Keeper.Granted(ctx, t.User)
	if err != nil {
		log.ErrorContext(ctx, "login failed: the credential there is could not be read", "error", err)
		h.discard(ctx, log, t)
		return unstored, http.StatusServiceUnavailable
	}
	if lost := h.lost(before, t.Scopes); len(lost) > 0 {
		log.WarnContext(ctx, "login refused: it would take away what was granted before", "scopes", lost)
		h.discard(ctx, log, t)
		return message{
			Title: who + " has granted more before", Scopes: explain(lost), Again: LoginPath + "?as=" + join(roles),
			Text: "This login would take away what stands below. Nothing was changed. An account that is both bot and broadcaster logs in as both at once.",
		}, http.StatusConflict
	}
	if err := h.d.Keeper.Put(ctx, t.User, t); err != nil {
		log.ErrorContext(ctx, "login failed: the credential could not be stored", "error", err)
		h.discard(ctx, log, t)
		return unstored, http.StatusServiceUnavailable
	}
	missing := credential.Missing(t.Scopes, h.config.wanted(begun.As))
	if len(missing) > 0 {
		log.WarnContext(ctx, "logged in, with scopes missing", "missing", missing)
		return message{
			Title: who + " is logged in, but not for everything", Scopes: explain(missing), Again: LoginPath + "?as=" + join(begun.As),
			Text: "What stands below was not granted and will not work. The rest will.",
		}, http.StatusOK
	}
	log.InfoContext(ctx, "logged in", "scopes", t.Scopes)
	return message{Title: who + " is logged in", Text: "Parley can now act as " + join(begun.As) + " with this account. This page can be closed."}, http.StatusOK
}

// refusal says why an account may not log in; it is empty if it may.
func (h *Handler) refusal(begun attempt, user identity.UserID) string {
	if slices.Contains(begun.As, Bot) && !h.bot.IsZero() {
		if user != h.bot {
			return fmt.Sprintf("The bot's account is %s: log in at Twitch with that one first.", h.bot)
		}
		if len(begun.As) == 1 {
			return ""
		}
	}
	if begun.Operator || h.allowed[user] {
		return ""
	}
	return "It is not on this gateway's list of accounts (OAUTH_ALLOWED_USERS), and the login was begun without the operator's secret."
}

// lost lists what was granted before, is not granted now, and is asked for of some role.
func (h *Handler) lost(before, now []string) []string {
	return slices.DeleteFunc(credential.Missing(now, before), func(s string) bool {
		return !slices.Contains(h.config.wanted(roles), s)
	})
}

// discard gives back a token that is not going to be stored.
func (h *Handler) discard(ctx context.Context, log *slog.Logger, t credential.Token) {
	if err := h.d.Server.Revoke(ctx, t.Access); err != nil {
		log.WarnContext(ctx, "a token that was not stored could not be revoked", "error", err)
	}
}

var unstored = message{Title: "The login could not be stored", Text: "The token was given back to Twitch. Please try again later."}

// failure tells a person what an error of Twitch's authorization server means for them. The error itself is for the
// log.
func failure(err error) (message, int) {
	switch {
	case errors.Is(err, credential.ErrInvalidToken):
		return message{Title: "Twitch doesn't take its code any more", Text: "It may have been used already, or have run out. Nothing was stored."}, http.StatusBadRequest
	case errors.Is(err, credential.ErrRefused):
		return message{Title: "Twitch refuses this gateway", Text: "Its client id, client secret or redirect URL is not what is registered with Twitch. An operator finds more in the log."}, http.StatusBadGateway
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

// show writes a page.
func (h *Handler) show(w http.ResponseWriter, r *http.Request, status int, m message) {
	var page bytes.Buffer
	if err := layout.Execute(&page, m); err != nil {
		h.d.Log.ErrorContext(r.Context(), "a page can't be made", "error", err)
		http.Error(w, m.Title, http.StatusInternalServerError)
		return
	}
	protect(w)
	// a browser holds the redirect that follows a form to the same list as the form itself
	w.Header().Set("Content-Security-Policy", policy+"; form-action 'self' "+origin(h.config.Credential.Twitch.OAuthURL))
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(page.Bytes()) // a browser that is gone needs no page
}

// protect keeps an answer, and the address that it is at, from going anywhere else.
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
