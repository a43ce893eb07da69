// Package eventsub listens to Twitch's EventSub over WebSocket
// (https://dev.twitch.tv/docs/eventsub/handling-websocket-events/): what happens in channels beside chat, and what is
// whispered to an account.
//
// A session, which is a connection with what was subscribed to on it, is one account's: Twitch takes subscriptions on
// it by that account's token alone. An account may have three sessions at a time, and its subscriptions to what their
// broadcaster has not allowed this application may cost ten in all; so [Client.Listen] has one session, and whoever
// calls it sees to it that nobody else listens as the same account.
//
// What is promised:
//   - A notification that Twitch repeats is taken once.
//   - When Twitch moves a session to another of its servers, nothing is lost, and the order is kept.
//   - When a connection breaks, or falls silent, another one is made. EventSub keeps nothing meanwhile: every such gap
//     is told.
//   - What can't be subscribed to, because of a login, a scope or a limit, keeps nothing else from being so. It is
//     logged once, and tried again now and then, because people may change it.
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
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"parley.internal/shared/credential"
	"parley.internal/shared/identity"
	"parley.internal/shared/twitch"
)

// Kind is a type of subscription (https://dev.twitch.tv/docs/eventsub/eventsub-subscription-types/).
type Kind struct {
	Type    string
	Version string
	Scope   string // that the account must have granted; empty for none

	condition func(broadcaster, account string) map[string]string
}

// scopes returns the required scopes.
func (k *Kind) scopes() []string {
	if k.Scope == "" {
		return nil
	}
	return []string{k.Scope}
}

// The kinds that can be listened to.
var (
	// Follow is told to the broadcaster and to the channel's moderators.
	Follow = &Kind{"channel.follow", "2", "moderator:read:followers", func(broadcaster, account string) map[string]string {
		return map[string]string{"broadcaster_user_id": broadcaster, "moderator_user_id": account}
	}}
	// Subscribe is a new subscription, bought or as a gift; not one that goes on. It is told to the broadcaster alone.
	Subscribe = &Kind{"channel.subscribe", "1", "channel:read:subscriptions", ofBroadcaster}
	// Raid is one that the channel receives.
	Raid = &Kind{"channel.raid", "1", "", func(broadcaster, _ string) map[string]string {
		return map[string]string{"to_broadcaster_user_id": broadcaster}
	}}
	Online  = &Kind{"stream.online", "1", "", ofBroadcaster}
	Offline = &Kind{"stream.offline", "1", "", ofBroadcaster}
	// Whisper is what somebody whispers to the account itself; it belongs to no channel. By user:read:whispers Twitch
	// tells it, too, but whoever can't whisper has no use for it.
	Whisper = &Kind{"user.whisper.message", "1", "user:manage:whispers", func(_, account string) map[string]string {
		return map[string]string{"user_id": account}
	}}
)

func ofBroadcaster(broadcaster, _ string) map[string]string {
	return map[string]string{"broadcaster_user_id": broadcaster}
}

// Topic is what is listened to: one kind of thing in one channel, or of the account itself.
type Topic struct {
	Kind        *Kind
	Channel     string // the broadcaster's login; empty for a Whisper
	Broadcaster string // Twitch's number of the broadcaster; likewise
}

// Notification is something that happened.
type Notification struct {
	ID    string    // Twitch's of the message: the same if it is repeated, another for each subscription
	At    time.Time // when Twitch sent it, by its clock
	Topic Topic
	Event jsontext.Value // as Twitch describes it for the kind
}

// Subscriber is what [Client.Listen] is asked to do.
type Subscriber struct {
	Account identity.UserID // by whose token

	// Topics are asked for at first, and again every few minutes: what is listened to changes with them. An error
	// leaves it as it was.
	Topics func(ctx context.Context) ([]Topic, error)

	// OnNotification is called for each notification, one after the other, in the order in which Twitch sent them. It may block.
	OnNotification func(Notification)

	// OnGap is called for each channel that is listened to again after a time in which nobody did, and with an empty
	// one for the account itself.
	OnGap func(channel string, from, to time.Time)

	// OnIdle is called with since when nobody listens, when a connection has broken, and with zero when that is over,
	// after Missed was called for the channels that are listened to.
	OnIdle func(since time.Time)

	// IdleSince is since when nobody listens; zero if that is not known, or nobody ever did.
	IdleSince time.Time
}

// Timing is how long what Twitch's pages give no number for may take.
type Timing struct {
	Slack      time.Duration // beyond the silence that Twitch announces, after which a connection counts as broken
	Linger     time.Duration // of silence on an old connection, after which nothing more is expected there
	Refresh    time.Duration // between questions for topics, and before what a person has to change is tried again
	Limit      time.Duration // before what was too much is tried again
	Retry      time.Duration // before what failed for no reason of its own is tried again
	MinBackoff time.Duration // before another connection; doubled each time, up to
	MaxBackoff time.Duration
	Request    time.Duration // for connecting, and for a request to Helix; a session must have its first subscription within 10 s
}

// DefaultTiming is for Twitch itself.
var DefaultTiming = Timing{
	Slack: 5 * time.Second, Linger: time.Second, Refresh: 5 * time.Minute, Limit: 30 * time.Second,
	Retry: 3 * time.Second, MinBackoff: 500 * time.Millisecond, MaxBackoff: time.Minute, Request: 5 * time.Second,
}

// Dependencies are what a client needs. All but those that say so must be set.
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

// Client listens to EventSub. It is safe for concurrent use.
type Client struct {
	url     string
	api     *twitch.Client
	tokens  twitch.Tokens
	dialer  *websocket.Dialer
	log     *slog.Logger
	metrics *metrics
	now     func() time.Time
	timing  Timing
}

// New makes a client, which does nothing by itself.
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

// CheckURL refuses what is not an address of EventSub's: wss://host, or ws:// on this machine itself.
func CheckURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.Scheme != "wss" && u.Scheme != "ws" {
		return fmt.Errorf("%q is not of the form wss://host/path", s)
	}
	if u.Scheme == "ws" && !credential.Local(u.Hostname()) {
		return fmt.Errorf("%q is not wss: only this machine itself may be spoken to in the clear", s)
	}
	return nil
}

// Listen listens until ctx is done. While there is no topic, or none that the account may listen to, it has no
// connection.
func (c *Client) Listen(ctx context.Context, l Subscriber) {
	s := newSession(c, l)
	backoff := c.timing.MinBackoff
	for ctx.Err() == nil {
		useful, err := s.runOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		if useful {
			backoff = c.timing.MinBackoff
		}
		wait := jitter(backoff)
		var later *pauseError
		if errors.As(err, &later) {
			wait = jitter(later.wait)
		} else {
			backoff = min(2*backoff, c.timing.MaxBackoff)
			c.metrics.disconnects.WithLabelValues(cause(err)).Inc()
			s.log.WarnContext(ctx, "disconnected from Twitch's EventSub", "error", err, "again", wait)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// pauseError says that there is nothing to be done now, without anything being broken.
type pauseError struct {
	wait time.Duration
	why  string
}

func (e *pauseError) Error() string { return e.why }

// matches reports whether a subscription, of which Twitch tells the type and the condition, is to the topic.
func (t Topic) matches(kind string, condition map[string]string, account identity.UserID) bool {
	return t.Kind.Type == kind && maps.Equal(t.Kind.condition(t.Broadcaster, account.ID()), condition)
}
