package credential

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"parley.internal/shared/identity"
)

// Issuer is a platform's authorization server. The errors wrap [ErrInvalidToken], [ErrUnavailable] or [ErrRefused], and
// hold no secret.
type Issuer interface {
	// Refresh obtains the next token, with Access, Refresh, Scopes and Expires. The new Refresh replaces the old one.
	Refresh(ctx context.Context, refresh Secret) (Token, error)
	// Validate returns the owner and the scopes of an access token: a token with User, Login, Access, Scopes, Expires
	// and Validated.
	Validate(ctx context.Context, access Secret) (Token, error)
}

const (
	// requestTime bounds one request to an authorization server.
	requestTime = 5 * time.Second
	// maxAnswer is the number of bytes read from an answer. Real answers have less than 2 KiB.
	maxAnswer = 64 << 10
)

// Twitch is Twitch's authorization server. It is safe for concurrent use.
type Twitch struct {
	config TwitchConfig
	now    func() time.Time
	client *http.Client
}

// NewTwitch makes an [Issuer] of Twitch's authorization server.
func NewTwitch(c TwitchConfig, now func() time.Time) *Twitch {
	// Twitch's pages give the server's address with and without /oauth2
	c.OAuthURL = strings.TrimSuffix(strings.TrimSuffix(c.OAuthURL, "/"), "/oauth2")
	return &Twitch{config: c, now: now, client: &http.Client{
		Timeout: requestTime,
		// a redirect would carry the secrets to another host
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Exchange obtains a token for an authorization code
// (https://dev.twitch.tv/docs/authentication/getting-tokens-oauth/#authorization-code-grant-flow). The token has no
// owner; Validate returns the owner.
func (t *Twitch) Exchange(ctx context.Context, code Secret, redirectURI string, verifier Secret) (Token, error) {
	return t.token(ctx, "exchange a code", url.Values{
		"grant_type": {"authorization_code"}, "code": {code.Reveal()}, "redirect_uri": {redirectURI}, "code_verifier": {verifier.Reveal()},
	})
}

// Refresh implements [Issuer] (https://dev.twitch.tv/docs/authentication/refresh-tokens/). Twitch may return the same
// refresh token or a new one. After a new one, Twitch does not accept the old refresh token.
func (t *Twitch) Refresh(ctx context.Context, refresh Secret) (Token, error) {
	if refresh.IsZero() {
		return Token{}, fmt.Errorf("refresh a token at Twitch: %w: no refresh token", ErrInvalidToken)
	}
	tok, err := t.token(ctx, "refresh a token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh.Reveal()}})
	if err == nil && tok.Refresh.IsZero() {
		tok.Refresh = refresh
	}
	return tok, err
}

func (t *Twitch) token(ctx context.Context, what string, form url.Values) (Token, error) {
	form.Set("client_id", t.config.ClientID)
	form.Set("client_secret", t.config.ClientSecret.Reveal())
	var a struct {
		AccessToken  string `json:"access_token"`
		RefreshToken string `json:"refresh_token"`
		ExpiresIn    int64  `json:"expires_in"`
		Scope        scopes `json:"scope"`
	}
	if err := t.ask(ctx, what, http.MethodPost, "/oauth2/token", form, nil, &a); err != nil {
		return Token{}, err
	}
	if a.AccessToken == "" {
		return Token{}, fmt.Errorf("%s at Twitch: %w: the answer holds no token", what, ErrUnavailable)
	}
	return Token{Access: NewSecret(a.AccessToken), Refresh: NewSecret(a.RefreshToken), Scopes: a.Scope, Expires: t.expiry(a.ExpiresIn)}, nil
}

// Validate implements [Issuer] (https://dev.twitch.tv/docs/authentication/validate-tokens/). A token of another client is
// invalid.
func (t *Twitch) Validate(ctx context.Context, access Secret) (Token, error) {
	var a struct {
		ClientID  string `json:"client_id"`
		Login     string `json:"login"`
		Scopes    scopes `json:"scopes"`
		UserID    string `json:"user_id"`
		ExpiresIn int64  `json:"expires_in"`
	}
	const what = "validate a token"
	if err := t.ask(ctx, what, http.MethodGet, "/oauth2/validate", nil, &access, &a); err != nil {
		return Token{}, err
	}
	if a.ClientID != t.config.ClientID {
		return Token{}, fmt.Errorf("%s at Twitch: %w: the token was issued to another client", what, ErrInvalidToken)
	}
	user, err := identity.New(identity.Twitch, a.UserID)
	if err != nil { // an application's token has no user
		return Token{}, fmt.Errorf("%s at Twitch: %w: the token belongs to no user", what, ErrInvalidToken)
	}
	return Token{User: user, Login: a.Login, Access: access, Scopes: a.Scopes, Expires: t.expiry(a.ExpiresIn), Validated: t.now()}, nil
}

// AuthorizeURL returns the address of Twitch's page for granting scopes. Twitch's parameter force_verify shows the page
// even after an earlier grant, so that users see the account
// (https://dev.twitch.tv/docs/authentication/getting-tokens-oauth/#authorization-code-grant-flow).
//
// The challenge is PKCE's (RFC 7636). Twitch does not document support for PKCE. A server without support must ignore the
// challenge (RFC 6749, section 3.1); a server with support makes a stolen code useless.
func (t *Twitch) AuthorizeURL(redirectURI, state, challenge string, scopes []string) string {
	return t.config.OAuthURL + "/oauth2/authorize?" + url.Values{
		"response_type": {"code"}, "client_id": {t.config.ClientID}, "redirect_uri": {redirectURI}, "state": {state},
		"scope": {strings.Join(scopes, " ")}, "force_verify": {"true"},
		"code_challenge": {challenge}, "code_challenge_method": {"S256"},
	}.Encode()
}

// Revoke ends a token (https://dev.twitch.tv/docs/authentication/revoke-tokens/). It returns nil for an invalid token.
func (t *Twitch) Revoke(ctx context.Context, access Secret) error {
	err := t.ask(ctx, "revoke a token", http.MethodPost, "/oauth2/revoke",
		url.Values{"client_id": {t.config.ClientID}, "token": {access.Reveal()}}, nil, nil)
	if errors.Is(err, ErrInvalidToken) {
		return nil
	}
	return err
}

func (t *Twitch) expiry(seconds int64) time.Time {
	if seconds <= 0 {
		return time.Time{}
	}
	return t.now().Add(time.Duration(seconds) * time.Second)
}

// ask sends one request. Secrets travel in the body or in a header, never in the URL, because errors and logs show URLs.
func (t *Twitch) ask(ctx context.Context, what, method, path string, form url.Values, access *Secret, answer any) error {
	req, err := http.NewRequestWithContext(ctx, method, t.config.OAuthURL+path, strings.NewReader(form.Encode()))
	if err != nil {
		return fmt.Errorf("%s at Twitch: %w", what, err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if access != nil {
		req.Header.Set("Authorization", "OAuth "+access.Reveal())
	}
	resp, err := t.client.Do(req)
	if err != nil {
		return fmt.Errorf("%s at Twitch: %w: %w", what, ErrUnavailable, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s at Twitch: %w: %w", what, ErrUnavailable, err)
	}
	if resp.StatusCode == http.StatusOK {
		if answer == nil {
			return nil
		}
		if err := json.Unmarshal(body, answer); err != nil {
			// the cause could quote the answer
			return fmt.Errorf("%s at Twitch: %w: the answer is not the documented JSON", what, ErrUnavailable)
		}
		return nil
	}
	said, kind := meaning(resp.StatusCode, body)
	return fmt.Errorf("%s at Twitch: %w: status %d%s", what, kind, resp.StatusCode, said)
}

// invalid lists Twitch's messages about an invalid token or code. With such a message, a 400 is not the client's fault.
// The first message is documented for refreshing; "Invalid grant" was observed
// (https://github.com/twitchdev/issues/issues/1042).
var invalid = []string{
	"invalid refresh token", "invalid grant", "invalid_grant", "invalid access token", "invalid token", "invalid oauth token",
	"invalid authorization code", "invalid code",
}

// meaning maps an error answer to an error. It repeats only the listed messages, because other text could quote a secret.
func meaning(code int, body []byte) (said string, kind error) {
	var a struct {
		Message string `json:"message"`
		Error   string `json:"error"`
	}
	_ = json.Unmarshal(body, &a) // other content has no message
	for _, m := range invalid {
		if strings.Contains(strings.ToLower(a.Message+" "+a.Error), m) {
			said = ": " + m
			break
		}
	}
	switch {
	case code == http.StatusUnauthorized, code == http.StatusBadRequest && said != "":
		return said, ErrInvalidToken
	case code >= 500, code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code < 400:
		return said, ErrUnavailable
	}
	return said, ErrRefused
}

// scopes reads Twitch's list of scopes: an array, null, or, in an example of Twitch's pages, a text.
type scopes []string

func (s *scopes) UnmarshalJSON(data []byte) error {
	var list []string
	if err := json.Unmarshal(data, &list); err == nil {
		*s = list
		return nil
	}
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return errors.New("scopes are neither a list nor a text")
	}
	*s = strings.Fields(text)
	return nil
}
