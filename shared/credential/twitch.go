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

// Issuer is a platform's authorization server. Its errors wrap [ErrInvalidToken], [ErrUnavailable] or [ErrRefused],
// and hold no secret.
type Issuer interface {
	// Refresh asks for the next token. It has Access, Refresh, Scopes and Expires; its Refresh is the one to use from
	// then on, whether or not it is another.
	Refresh(ctx context.Context, refresh Secret) (Token, error)
	// Validate asks whom an access token belongs to and what it may do: a token with User, Login, Access, Scopes,
	// Expires and Validated.
	Validate(ctx context.Context, access Secret) (Token, error)
}

const (
	// requestTime bounds one request to an authorization server.
	requestTime = 5 * time.Second
	// maxAnswer bounds what is read of its answer; a real one has less than 2 KiB.
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
	// Twitch's pages name the server with and without this part
	c.OAuthURL = strings.TrimSuffix(strings.TrimSuffix(c.OAuthURL, "/"), "/oauth2")
	return &Twitch{config: c, now: now, client: &http.Client{
		Timeout: requestTime,
		// a redirect would carry the secrets to where nobody decided to send them
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Exchange asks for the token that an authorization code stands for
// (https://dev.twitch.tv/docs/authentication/getting-tokens-oauth/#authorization-code-grant-flow).
// The token doesn't say whose it is: Validate does.
func (t *Twitch) Exchange(ctx context.Context, code Secret, redirectURI string, verifier Secret) (Token, error) {
	return t.token(ctx, "exchange a code", url.Values{
		"grant_type": {"authorization_code"}, "code": {code.Reveal()}, "redirect_uri": {redirectURI}, "code_verifier": {verifier.Reveal()},
	})
}

// Refresh implements [Issuer] (https://dev.twitch.tv/docs/authentication/refresh-tokens/). Twitch may return the same
// refresh token or another one, which then is the only one that it takes.
func (t *Twitch) Refresh(ctx context.Context, refresh Secret) (Token, error) {
	if refresh.IsZero() {
		return Token{}, fmt.Errorf("refresh a token at Twitch: %w: there is no refresh token", ErrInvalidToken)
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

// Validate implements [Issuer] (https://dev.twitch.tv/docs/authentication/validate-tokens/). A token that was issued
// to another client is refused as not valid.
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
		return Token{}, fmt.Errorf("%s at Twitch: %w: it was issued to another client", what, ErrInvalidToken)
	}
	user, err := identity.New(identity.Twitch, a.UserID)
	if err != nil { // a token of the application itself, which is nobody's
		return Token{}, fmt.Errorf("%s at Twitch: %w: it belongs to no user", what, ErrInvalidToken)
	}
	return Token{User: user, Login: a.Login, Access: access, Scopes: a.Scopes, Expires: t.expiry(a.ExpiresIn), Validated: t.now()}, nil
}

// AuthorizeURL is the page on which people grant what they are asked for. The one parameter is Twitch's own: it asks
// even those who have granted it before, so that they see as whom they do so
// (https://dev.twitch.tv/docs/authentication/getting-tokens-oauth/#authorization-code-grant-flow).
//
// The challenge is PKCE's (RFC 7636). Twitch doesn't document that it heeds it; a server that doesn't must ignore it
// (RFC 6749, section 3.1), and one that does holds a stolen code to be of no use.
func (t *Twitch) AuthorizeURL(redirectURI, state, challenge string, scopes []string) string {
	return t.config.OAuthURL + "/oauth2/authorize?" + url.Values{
		"response_type": {"code"}, "client_id": {t.config.ClientID}, "redirect_uri": {redirectURI}, "state": {state},
		"scope": {strings.Join(scopes, " ")}, "force_verify": {"true"},
		"code_challenge": {challenge}, "code_challenge_method": {"S256"},
	}.Encode()
}

// Revoke ends a token (https://dev.twitch.tv/docs/authentication/revoke-tokens/). One that is not valid any more is no
// error.
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

// ask sends one request. Secrets travel in the body or in a header, never in the URL, which errors and logs show.
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
			// the cause may quote the answer
			return fmt.Errorf("%s at Twitch: %w: the answer is not the documented JSON", what, ErrUnavailable)
		}
		return nil
	}
	said, kind := meaning(resp.StatusCode, body)
	return fmt.Errorf("%s at Twitch: %w: status %d%s", what, kind, resp.StatusCode, said)
}

// invalid are messages of Twitch that speak of the token or code that was sent; with them a 400 is not the client's
// fault. The first is documented with refreshing; "Invalid grant" was seen instead
// (https://github.com/twitchdev/issues/issues/1042).
var invalid = []string{
	"invalid refresh token", "invalid grant", "invalid_grant", "invalid access token", "invalid token", "invalid oauth token",
	"invalid authorization code", "invalid code",
}

// meaning tells what an error answer means. Of its message only what is in the table above is repeated: the rest is
// the server's to choose, and might quote what was sent.
func meaning(code int, body []byte) (said string, kind error) {
	var a struct {
		Message string `json:"message"`
		Error   string `json:"error"`
	}
	_ = json.Unmarshal(body, &a) // an answer that is not JSON has no message
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

// scopes reads Twitch's list of scopes, which is an array, null, or, in one example of Twitch's pages, a text.
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
