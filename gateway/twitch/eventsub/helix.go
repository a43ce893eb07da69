package eventsub

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"parley.internal/shared/credential"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/identity"
	"parley.internal/shared/twitch"
)

// The reasons for a refused subscription, as a metric's label and in the log.
const (
	reasonLogin       = "login_needed"  // nobody has logged in as the account
	reasonScope       = "missing_scope" // the account has not granted the scope
	reasonForbidden   = "forbidden"     // the account may not see this: it is not a moderator, for example
	reasonLimit       = "limit"         // the account has its maximum of subscriptions or sessions, or sends requests too fast
	reasonInvalid     = "invalid"       // Twitch does not accept the request
	reasonUnavailable = "unavailable"   // Twitch or a token is not available; the next attempt follows soon
)

// reason returns the label of an error.
func reason(err error) string {
	e, ok := errors.AsType[*twitch.Error](err)
	if !ok {
		e = twitch.TokenError(err)
	}
	switch {
	case e.Reason == deadletter.LoginNeeded:
		return reasonLogin
	case e.Reason == deadletter.MissingScope:
		return reasonScope
	case e.Reason == deadletter.RateLimited:
		return reasonLimit
	case e.Status == 0, e.Outcome == twitch.Unknown, e.Outcome == twitch.NotDone, e.Reason == deadletter.NotConfigured:
		return reasonUnavailable
	case e.Reason == deadletter.SenderRefused:
		return reasonForbidden
	}
	return reasonInvalid
}

// account obtains tokens of an account.
func (c *Client) account(id identity.UserID, scopes ...string) twitch.Account {
	return twitch.Account{User: id, Tokens: c.tokens, Scopes: scopes}
}

// subscribe makes one subscription and returns Twitch's id of the subscription. The id is empty if the subscription
// exists already, as after a lost answer.
func (c *Client) subscribe(ctx context.Context, account identity.UserID, session string, t Topic) (id string, err error) {
	a := c.account(account, t.Kind.scopes()...)
	token, failed := a.Token(ctx)
	if failed != nil {
		return "", failed
	}
	request := struct {
		Type      string            `json:"type"`
		Version   string            `json:"version"`
		Condition map[string]string `json:"condition"`
		Transport map[string]string `json:"transport"`
	}{
		t.Kind.Type, t.Kind.Version, t.Kind.condition(t.Broadcaster, account.ID()),
		map[string]string{"method": "websocket", "session_id": session},
	}
	var made struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	failed = a.Do(ctx, token, func(token credential.Token) *twitch.Error {
		ctx, cancel := context.WithTimeout(ctx, c.timing.Request)
		defer cancel()
		return c.api.Send(ctx, token, twitch.CreateSubscription, http.MethodPost, "/eventsub/subscriptions", request, &made)
	})
	switch {
	case failed != nil && failed.Outcome == twitch.AlreadyDone:
		return "", nil
	case failed != nil:
		return "", failed
	case len(made.Data) == 0:
		return "", nil
	}
	return made.Data[0].ID, nil
}

// unsubscribe ends a subscription. It returns nil for a subscription that does not exist.
func (c *Client) unsubscribe(ctx context.Context, account identity.UserID, id string) error {
	a := c.account(account)
	token, failed := a.Token(ctx)
	if failed == nil {
		failed = a.Do(ctx, token, func(token credential.Token) *twitch.Error {
			ctx, cancel := context.WithTimeout(ctx, c.timing.Request)
			defer cancel()
			return c.api.Send(ctx, token, twitch.DeleteSubscription, http.MethodDelete, "/eventsub/subscriptions?"+url.Values{"id": {id}}.Encode(), nil, nil)
		})
	}
	if failed == nil || failed.Outcome == twitch.AlreadyDone {
		return nil
	}
	return failed
}

// Broadcasters returns Twitch's ids of channels by their logins, with account's token. A login without a user is absent
// from the map.
func (c *Client) Broadcasters(ctx context.Context, account identity.UserID, logins []string) (ids map[string]string, err error) {
	a := c.account(account)
	token, failed := a.Token(ctx)
	if failed == nil {
		failed = a.Do(ctx, token, func(token credential.Token) (failed *twitch.Error) {
			ctx, cancel := context.WithTimeout(ctx, c.timing.Request)
			defer cancel()
			ids, failed = c.api.UserIDs(ctx, token, logins)
			return failed
		})
	}
	if failed != nil {
		return nil, failed
	}
	return ids, nil
}
