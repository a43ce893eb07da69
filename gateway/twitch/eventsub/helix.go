package eventsub

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"parley.internal/shared/credential"
	"parley.internal/shared/identity"
)

// The reasons for which something can't be subscribed to, as a metric's label and in the log.
const (
	reasonLogin       = "login_needed"  // nobody has logged in as the account
	reasonScope       = "missing_scope" // the account has not granted what is needed
	reasonForbidden   = "forbidden"     // the account may not see this: it is not a moderator, for example
	reasonLimit       = "limit"         // the account has as many subscriptions or sessions as it may, or asks too fast
	reasonInvalid     = "invalid"       // Twitch does not understand it
	reasonUnavailable = "unavailable"   // Twitch or a token could not be had; it is tried again soon
)

// refusal is an answer of Helix that says no.
type refusal struct {
	status  int
	message string
	after   time.Duration // before it makes sense to try again, where Twitch says so
}

func (e *refusal) Error() string {
	return fmt.Sprintf("answer %d from Twitch: %s", e.status, cmp.Or(e.message, http.StatusText(e.status)))
}

// reason is what an error of subscribing means.
func reason(err error) string {
	var login *credential.LoginNeeded
	var scopes *credential.MissingScopes
	var no *refusal
	switch {
	case errors.As(err, &login):
		return reasonLogin
	case errors.As(err, &scopes):
		return reasonScope
	case errors.Is(err, credential.ErrUnavailable), errors.Is(err, credential.ErrBusy):
		return reasonUnavailable
	case !errors.As(err, &no), no.status >= 500, no.status == http.StatusRequestTimeout, no.status < 400:
		return reasonUnavailable
	case no.status == http.StatusForbidden, no.status == http.StatusUnauthorized:
		return reasonForbidden
	case no.status == http.StatusTooManyRequests:
		return reasonLimit
	}
	return reasonInvalid
}

// subscribe makes one subscription (https://dev.twitch.tv/docs/api/reference/#create-eventsub-subscription) and tells
// Twitch's id of it; empty if it was there already, as after an answer that was lost.
func (c *Client) subscribe(ctx context.Context, account identity.UserID, session string, t Topic) (id string, err error) {
	token, err := c.tokens.Token(ctx, account)
	if err != nil {
		return "", err
	}
	if t.Kind.Scope != "" {
		if err := token.Require(t.Kind.Scope); err != nil {
			return "", err
		}
	}
	var made struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	err = c.ask(ctx, account, token, http.MethodPost, "/eventsub/subscriptions", struct {
		Type      string            `json:"type"`
		Version   string            `json:"version"`
		Condition map[string]string `json:"condition"`
		Transport map[string]string `json:"transport"`
	}{
		t.Kind.Type, t.Kind.Version, t.Kind.condition(t.Broadcaster, account.ID()),
		map[string]string{"method": "websocket", "session_id": session},
	}, &made)
	var no *refusal
	if errors.As(err, &no) && no.status == http.StatusConflict {
		return "", nil
	}
	if err != nil || len(made.Data) == 0 {
		return "", err
	}
	return made.Data[0].ID, nil
}

// unsubscribe ends a subscription (https://dev.twitch.tv/docs/api/reference/#delete-eventsub-subscription). One that
// is gone is no error.
func (c *Client) unsubscribe(ctx context.Context, account identity.UserID, id string) error {
	token, err := c.tokens.Token(ctx, account)
	if err != nil {
		return err
	}
	err = c.ask(ctx, account, token, http.MethodDelete, "/eventsub/subscriptions?"+url.Values{"id": {id}}.Encode(), nil, nil)
	var no *refusal
	if errors.As(err, &no) && no.status == http.StatusNotFound {
		return nil
	}
	return err
}

// maxLogins is how many users can be asked for at once.
const maxLogins = 100

// Broadcasters finds Twitch's numbers of channels by their logins, with account's token
// (https://dev.twitch.tv/docs/api/reference/#get-users). A login that nobody has is left out.
func (c *Client) Broadcasters(ctx context.Context, account identity.UserID, logins []string) (map[string]string, error) {
	token, err := c.tokens.Token(ctx, account)
	if err != nil {
		return nil, err
	}
	ids := map[string]string{}
	for some := range slices.Chunk(logins, maxLogins) {
		var found struct {
			Data []struct {
				ID    string `json:"id"`
				Login string `json:"login"`
			} `json:"data"`
		}
		if err := c.ask(ctx, account, token, http.MethodGet, "/users?"+url.Values{"login": some}.Encode(), nil, &found); err != nil {
			return nil, fmt.Errorf("find channels by their names: %w", err)
		}
		for _, u := range found.Data {
			ids[u.Login] = u.ID
		}
	}
	return ids, nil
}

// ask sends one request to Helix, and a second time with another token if Twitch calls the first invalid. None of
// these requests does harm when it is repeated.
func (c *Client) ask(ctx context.Context, account identity.UserID, token credential.Token, method, path string, in, out any) error {
	err := c.askWith(ctx, token, method, path, in, out)
	var no *refusal
	if !errors.As(err, &no) || no.status != http.StatusUnauthorized {
		return err
	}
	token, invalid := c.tokens.Invalid(ctx, account, token)
	if invalid != nil {
		return fmt.Errorf("%w (after %w)", invalid, err)
	}
	return c.askWith(ctx, token, method, path, in, out)
}

func (c *Client) askWith(ctx context.Context, token credential.Token, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, c.timing.Request)
	defer cancel()
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in, json.Deterministic(true))
		if err != nil {
			return fmt.Errorf("ask Twitch: %w", err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.apiURL+path, body)
	if err != nil {
		return fmt.Errorf("ask Twitch: %w", err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Client-Id", c.clientID)
	req.Header.Set("Authorization", "Bearer "+token.Access.Reveal())
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("ask Twitch: %w", err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, 256<<10))
	if res.StatusCode < 200 || res.StatusCode > 299 {
		var said struct {
			Message string `json:"message"`
		}
		_ = json.Unmarshal(data, &said) // an answer that is not JSON has no message
		return &refusal{res.StatusCode, said.Message, c.reset(res)}
	}
	if err != nil {
		return fmt.Errorf("the answer from Twitch broke off: %w", err)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("the answer from Twitch can't be read: %w", err)
	}
	return nil
}

// reset is until when Twitch counts requests together (https://dev.twitch.tv/docs/api/guide/#twitch-rate-limits).
func (c *Client) reset(res *http.Response) time.Duration {
	at, err := strconv.ParseInt(res.Header.Get("Ratelimit-Reset"), 10, 64)
	if err != nil {
		return 0
	}
	return min(max(time.Unix(at, 0).Sub(c.now()), 0), time.Minute)
}
