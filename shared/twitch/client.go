// Package twitch is Parley's client of Helix, Twitch's API (https://dev.twitch.tv/docs/api/reference/). Chat, moderation,
// whispers and EventSub subscriptions share it.
//
// Start with [Client]: it sends a request once and reports the effect as an [*Error], or nil. One table maps Twitch's
// answers to an [Outcome] and a dead-letter reason. [Account] obtains tokens and repeats a request after an expired token.
//
// The package must not know deliveries, leases or the bus. Its callers decide about retries, except after a 401.
package twitch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nicklaw5/helix/v2"

	"parley.internal/shared/credential"
)

// Operation names a kind of request. The meaning of an answer depends on the operation.
type Operation string

// The operations, with their pages below https://dev.twitch.tv/docs/api/reference/.
const (
	SendChatMessage    Operation = "send a chat message"   // #send-chat-message
	SendWhisper        Operation = "send a whisper"        // #send-whisper
	BanUser            Operation = "ban a user"            // #ban-user; a time-out, too
	UnbanUser          Operation = "unban a user"          // #unban-user
	DeleteMessage      Operation = "delete a message"      // #delete-chat-messages
	GetUsers           Operation = "get users"             // #get-users
	CreateSubscription Operation = "create a subscription" // #create-eventsub-subscription
	DeleteSubscription Operation = "delete a subscription" // #delete-eventsub-subscription
)

// maxBody is the number of bytes read from an answer. The longest answer, 100 users, has about 50 kB.
const maxBody = 256 << 10

// Config configures a [Client].
type Config struct {
	URL      string           // of Helix, with or without a slash at its end
	ClientID string           // of the application that the tokens were issued to
	HTTP     *http.Client     // a new client if nil
	Now      func() time.Time // time.Now if nil
}

// Client sends requests to Helix. It sends each request at most once, and never follows a redirect: a redirect could
// carry the token to another host and repeat the request. It is safe for concurrent use.
type Client struct {
	url      string
	clientID string
	http     *http.Client
	now      func() time.Time
}

// New makes a client. It sends nothing by itself.
func New(c Config) *Client {
	own := http.Client{}
	if c.HTTP != nil {
		own = *c.HTTP
	}
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Client{url: strings.TrimSuffix(c.URL, "/"), clientID: c.ClientID, http: &own, now: c.Now}
}

// exchange is the HTTP client of one request. It records the answer: the library reports errors as text only, and hides
// the status of an answer with unreadable content.
type exchange struct {
	client    *http.Client
	connected atomic.Bool // from the connection on, Twitch may have received the request
	status    int         // 0 without an answer
	header    http.Header
	body      []byte
	err       error // the reason for a missing or incomplete answer
}

// Do implements [helix.HTTPClient].
func (x *exchange) Do(req *http.Request) (*http.Response, error) {
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { x.connected.Store(true) }}
	res, err := x.client.Do(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	if err != nil {
		x.err = err
		return nil, err
	}
	defer res.Body.Close()
	x.status, x.header = res.StatusCode, res.Header
	if x.body, err = io.ReadAll(io.LimitReader(res.Body, maxBody)); err != nil {
		x.body, x.err = nil, fmt.Errorf("the answer from Twitch broke off: %w", err)
	}
	res.Body = io.NopCloser(bytes.NewReader(x.body))
	return res, nil
}

// Send sends a request with a JSON body, unless in is nil, and decodes the answer into out, unless out is nil. ctx bounds
// the request. An answer of success with unreadable content is [Unknown] if out is not nil.
func (c *Client) Send(ctx context.Context, token credential.Token, op Operation, method, path string, in, out any) *Error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in, json.Deterministic(true))
		if err != nil {
			return notMade(op, err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, body)
	if err != nil {
		return notMade(op, err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Client-Id", c.clientID)
	req.Header.Set("Authorization", "Bearer "+token.Access.Reveal())
	x := &exchange{client: c.http}
	_, _ = x.Do(req) // x records the error
	if e := c.judge(op, x, token); e != nil || out == nil {
		return e
	}
	if x.err == nil {
		x.err = json.Unmarshal(x.body, out)
	}
	if x.err != nil {
		return unreadable(op, x.err)
	}
	return nil
}

// Call sends one request through the library. call makes exactly one request with the library's client, and
// returns the library's error. An answer of success is success even if the library can't decode the content.
func (c *Client) Call(ctx context.Context, token credential.Token, op Operation, call func(*helix.Client) error) *Error {
	x := &exchange{client: c.http}
	client, err := helix.NewClientWithContext(ctx, &helix.Options{
		ClientID: c.clientID, UserAccessToken: token.Access.Reveal(), APIBaseURL: c.url, HTTPClient: x,
	})
	if err != nil {
		return notMade(op, err)
	}
	if err := call(client); err != nil && x.status == 0 && x.err == nil {
		x.err = err // the library could not build the request
	}
	return c.judge(op, x, token)
}

// maxLogins is the largest number of logins in one request for users.
const maxLogins = 100

// UserIDs returns Twitch's ids of the users with these logins, by login. A login without a user is absent from the map.
func (c *Client) UserIDs(ctx context.Context, token credential.Token, logins []string) (map[string]string, *Error) {
	ids := map[string]string{}
	for page := range slices.Chunk(logins, maxLogins) {
		var found *helix.UsersResponse
		var failed error
		e := c.Call(ctx, token, GetUsers, func(api *helix.Client) error {
			found, failed = api.GetUsers(&helix.UsersParams{Logins: page})
			return failed
		})
		if e == nil && failed != nil {
			e = unreadable(GetUsers, errors.New(quote(failed.Error(), token.Access)))
		}
		if e != nil {
			return nil, e
		}
		for _, u := range found.Data.Users {
			ids[u.Login] = u.ID
		}
	}
	return ids, nil
}
