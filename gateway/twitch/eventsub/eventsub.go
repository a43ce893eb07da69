// Package eventsub receives Twitch's EventSub over WebSocket
// (https://dev.twitch.tv/docs/eventsub/handling-websocket-events/): events of channels, and whispers to an account. Start
// with [Client.Listen].
//
// A session is a connection with its subscriptions, for one account: Twitch accepts subscriptions only with the account's
// token. Twitch permits three sessions for an account. Subscriptions without the broadcaster's grant have a cost;
// Twitch permits a total cost of ten. [Client.Listen] holds one session. At any time, only one
// instance may listen for an account; the callers ensure this.
//
// The package must not know events of Parley, leases or the chat.
//
// Guarantees:
//   - A repeated notification is passed on once.
//   - A move to another server, at Twitch's request, loses nothing and keeps the order.
//   - A broken or silent connection is replaced. EventSub keeps nothing in the meantime: every gap is reported.
//   - A refused subscription, for want of a login or a scope or because of a limit, does not stop the other ones. It is
//     logged once, and tried again every few minutes, because people may change the reason. [Client.Refresh] tries again
//     at once.
package eventsub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"parley.internal/shared/credential"
	"parley.internal/shared/identity"
	"parley.internal/shared/retry"
	"parley.internal/shared/twitch"
)

// Kind is a type of subscription (https://dev.twitch.tv/docs/eventsub/eventsub-subscription-types/).
type Kind struct {
	Type    string
	Version string
	Scope   string // required of the account; empty for none

	condition func(broadcaster, account string) map[string]string
}

// scopes returns the required scopes.
func (k *Kind) scopes() []string {
	if k.Scope == "" {
		return nil
	}
	return []string{k.Scope}
}

// The supported kinds.
var (
	// Follow is for the broadcaster and the moderators of a channel.
	Follow = &Kind{"channel.follow", "2", "moderator:read:followers", func(broadcaster, account string) map[string]string {
		return map[string]string{"broadcaster_user_id": broadcaster, "moderator_user_id": account}
	}}
	// Subscribe is a new subscription, bought or as a gift, not a renewal. It is for the broadcaster alone.
	Subscribe = &Kind{"channel.subscribe", "1", "channel:read:subscriptions", ofBroadcaster}
	// Raid is an incoming raid.
	Raid = &Kind{"channel.raid", "1", "", func(broadcaster, _ string) map[string]string {
		return map[string]string{"to_broadcaster_user_id": broadcaster}
	}}
	// Online and Offline are the beginning and the end of a stream.
	Online  = &Kind{"stream.online", "1", "", ofBroadcaster}
	Offline = &Kind{"stream.offline", "1", "", ofBroadcaster}
	// Whisper is a whisper to the account itself, and belongs to no channel. Twitch also accepts the scope
	// user:read:whispers, but Parley needs the scope for answering.
	Whisper = &Kind{"user.whisper.message", "1", "user:manage:whispers", func(_, account string) map[string]string {
		return map[string]string{"user_id": account}
	}}
)

func ofBroadcaster(broadcaster, _ string) map[string]string {
	return map[string]string{"broadcaster_user_id": broadcaster}
}

// Topic is the target of a subscription: one kind of event in one channel, or of the account itself.
type Topic struct {
	Kind        *Kind
	Channel     string // the broadcaster's login; empty for a Whisper
	Broadcaster string // the broadcaster's user id; empty for a Whisper
}

// Notification is a notification of an event.
type Notification struct {
	ID    string    // Twitch's id of the message: equal in repetitions, different for each subscription
	At    time.Time // time of sending, by Twitch's clock
	Topic Topic
	Event jsontext.Value // the event in Twitch's format
}

// Subscriber describes the work of [Client.Listen]. All functions are required.
type Subscriber struct {
	Account identity.UserID // the owner of the token

	// Topics returns the topics. Listen calls it at the beginning and every few minutes, and follows changes. After an
	// error, the topics stay the same.
	Topics func(ctx context.Context) ([]Topic, error)

	// OnNotification is called for each notification, in Twitch's order, and never concurrently. It may block.
	OnNotification func(Notification)

	// OnGap is called for each channel after a time without its subscriptions. The channel is empty for the account itself.
	OnGap func(channel string, from, to time.Time)

	// OnIdle is called with the beginning of a gap after a broken connection. It is called with zero at the end of the gap,
	// after the calls of OnGap.
	OnIdle func(since time.Time)

	// IdleSince is the beginning of a gap before Listen; zero for none.
	IdleSince time.Time
}

// Timing holds the durations without a number on Twitch's pages.
type Timing struct {
	Slack      time.Duration // beyond Twitch's keepalive time, until a silent connection counts as broken
	Linger     time.Duration // silence on an old connection until a session leaves the connection
	Refresh    time.Duration // between calls of Topics, and before retrying what only people can change
	Limit      time.Duration // before retrying after a limit
	Retry      time.Duration // before retrying after a failure
	MinBackoff time.Duration // base of the first pause between connections; doubled each time
	MaxBackoff time.Duration // largest base
	Request    time.Duration // for connecting, and for a request to Helix; Twitch demands the first subscription within 10 s
}

// DefaultTiming is the timing for Twitch itself.
var DefaultTiming = Timing{
	Slack: 5 * time.Second, Linger: time.Second, Refresh: 5 * time.Minute, Limit: 30 * time.Second,
	Retry: 3 * time.Second, MinBackoff: 500 * time.Millisecond, MaxBackoff: time.Minute, Request: 5 * time.Second,
}

// Dependencies of a [Client]. All are required, except where a comment gives a default.
type Dependencies struct {
	URL     string // of EventSub; see [CheckURL]
	API     *twitch.Client
	Tokens  twitch.Tokens
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Now     func() time.Time
	Timing  Timing // DefaultTiming if zero

	Dial func(ctx context.Context, network, addr string) (net.Conn, error) // before TLS; net.Dialer's if nil
}

// Client receives from EventSub. It is safe for concurrent use.
type Client struct {
	url     string
	api     *twitch.Client
	tokens  twitch.Tokens
	dialer  *websocket.Dialer
	log     *slog.Logger
	metrics *metrics
	now     func() time.Time
	timing  Timing

	mu      sync.Mutex
	wakeUps map[chan struct{}]bool // one for each running Listen
}

// New makes a client. It does nothing before Listen.
func New(d Dependencies) (*Client, error) {
	if err := CheckURL(d.URL); err != nil {
		return nil, err
	}
	m, err := newMetrics(d.Metrics)
	if err != nil {
		return nil, err
	}
	c := &Client{
		url: d.URL, api: d.API, tokens: d.Tokens, log: d.Log, metrics: m, now: d.Now, timing: d.Timing,
		wakeUps: map[chan struct{}]bool{},
	}
	if c.timing == (Timing{}) {
		c.timing = DefaultTiming
	}
	c.dialer = &websocket.Dialer{
		NetDialContext: d.Dial, Proxy: http.ProxyFromEnvironment, HandshakeTimeout: c.timing.Request,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
	}
	return c, nil
}

// CheckURL returns an error for an address other than wss://host, or ws://host for this machine.
func CheckURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.Scheme != "wss" && u.Scheme != "ws" {
		return fmt.Errorf("%q is not of the form wss://host/path", s)
	}
	if u.Scheme == "ws" && !credential.Local(u.Hostname()) {
		return fmt.Errorf("%q is not wss: unencrypted connections are only for this machine", s)
	}
	return nil
}

// Listen subscribes and passes notifications on until ctx is done. It has no connection while no topic is permitted.
func (c *Client) Listen(ctx context.Context, subscriber Subscriber) {
	s := newSession(c, subscriber)
	c.mu.Lock()
	c.wakeUps[s.wakeUp] = true
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.wakeUps, s.wakeUp)
		c.mu.Unlock()
	}()
	backoff := retry.NewBackoff(c.timing.MinBackoff, c.timing.MaxBackoff)
	for ctx.Err() == nil {
		useful, err := s.runOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		if useful {
			backoff.Reset()
		}
		var wait time.Duration
		if pause, ok := errors.AsType[*pauseError](err); ok {
			wait = jitter(pause.wait)
		} else {
			wait = backoff.Next()
			c.metrics.disconnects.WithLabelValues(cause(err)).Inc()
			s.log.WarnContext(ctx, "EventSub: disconnected", "error", err, "retryIn", wait)
		}
		_, _ = retry.SleepUnless(ctx, wait, s.wakeUp) // the loop checks ctx
	}
}

// Refresh makes every running Listen read its topics now, and try again what a login can permit. Call Refresh after a
// login. Refresh does not wait.
func (c *Client) Refresh() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for wakeUp := range c.wakeUps {
		select {
		case wakeUp <- struct{}{}:
		default: // a refresh is pending
		}
	}
}

// pauseError means that a session has nothing to receive at present. Nothing is broken.
type pauseError struct {
	wait time.Duration
	why  string
}

func (e *pauseError) Error() string { return e.why }

// matches reports whether a subscription with Twitch's type and condition has this topic.
func (t Topic) matches(kind string, condition map[string]string, account identity.UserID) bool {
	return t.Kind.Type == kind && maps.Equal(t.Kind.condition(t.Broadcaster, account.ID()), condition)
}
