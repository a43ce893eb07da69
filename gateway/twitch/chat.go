package twitch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	irc "github.com/gempir/go-twitch-irc/v4"
	"golang.org/x/time/rate"

	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/identity"
	"parley.internal/shared/retry"
	helix "parley.internal/shared/twitch"
)

// chat keeps an instance's connection to Twitch's IRC (https://dev.twitch.tv/docs/chat/irc/) while at least one channel
// is wanted. Only the parsing of lines is from go-twitch-irc. The library's own client reconnects at once after
// every failure. It then sends messages again, although the old connection may have sent them.
type chat struct {
	config    Config
	timing    timing
	limits    limits
	bot       identity.UserID
	tokens    helix.Tokens
	dial      func(ctx context.Context, network, addr string) (net.Conn, error)
	log       *slog.Logger
	metrics   *metrics
	joinPacer *pacer
	onMessage func(irc.Message)                       // called for the lines that may become events; may block
	onJoined  func(login string, from, now time.Time) // from is the beginning of a gap, or zero
	onParted  func(login string, since time.Time)     // called after a lost connection

	malformed rate.Sometimes // limits the logs of malformed lines

	mu           sync.Mutex
	login        string              // the bot's; empty before the first connection
	displayName  string              // the bot's; empty until known
	channels     map[string]*channel // wanted channels, by login
	conn         *connection         // nil without a connection
	lastReceived time.Time           // time of the last line on the connection before
	wakeUp       chan struct{}       // wakes run and the joiner

	loggedIn chan struct{} // ends the pause between two connections, after a login of the bot
}

func (c *chat) wake() {
	select {
	case c.wakeUp <- struct{}{}:
	default:
	}
}

// self returns the bot's account.
func (c *chat) self() account {
	c.mu.Lock()
	defer c.mu.Unlock()
	return account{c.bot, c.login, c.displayName}
}

// setDisplayName records the bot's display name, from GLOBALUSERSTATE (https://dev.twitch.tv/docs/chat/irc/#globaluserstate)
// and USERSTATE. An empty name changes nothing.
func (c *chat) setDisplayName(name string) {
	if name == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.displayName = name
}

// idle returns the time since the last line; 0 before the first connection.
func (c *chat) idle() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.lastReceived
	if c.conn != nil {
		last = time.Unix(0, c.conn.lastReceived.Load())
	}
	if last.IsZero() {
		return 0
	}
	return max(0, time.Since(last))
}

// run keeps the connection until ctx is done.
func (c *chat) run(ctx context.Context) {
	backoff := retry.NewBackoff(c.timing.minBackoff, c.timing.maxBackoff)
	for {
		c.mu.Lock()
		wanted := len(c.channels) > 0
		c.mu.Unlock()
		if !wanted {
			select {
			case <-ctx.Done():
				return
			case <-c.wakeUp:
				continue
			}
		}
		welcome, err := c.connect(ctx)
		if ctx.Err() != nil {
			return
		}
		c.metrics.disconnects.Inc()
		if welcome {
			backoff.Reset()
		}
		pause := backoff.Next()
		c.log.WarnContext(ctx, "chat disconnected", "error", err, "retryIn", pause)
		early, err := retry.SleepUnless(ctx, pause, c.loggedIn)
		if err != nil {
			return
		}
		if early {
			backoff.Reset()
		}
	}
}

// botLoggedIn ends the pause between two connections.
func (c *chat) botLoggedIn() {
	select {
	case c.loggedIn <- struct{}{}:
	default: // a login is pending
	}
}

// send sends one message and waits for Twitch's answer. One message at a time may be pending in each channel.
func (c *chat) send(login, text, parent, nonce string) delivery.Outcome {
	c.mu.Lock()
	r, conn := c.channels[login], c.conn
	if r == nil || !r.joined || conn == nil || conn.leaving || r.pending != nil {
		c.mu.Unlock()
		return delivery.Outcome{Reason: deadletter.PlatformUnavailable, Err: errors.New("the chat is not connected")}
	}
	pending := &pendingMessage{nonce: nonce, result: make(chan delivery.Outcome, 1)}
	r.pending = pending
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		r.pending = nil
		c.mu.Unlock()
	}()

	tags := "@client-nonce=" + nonce
	if parent != "" {
		tags += ";reply-parent-msg-id=" + parent
	}
	if err := conn.write(tags + " PRIVMSG #" + login + " :" + text); errors.Is(err, net.ErrClosed) {
		c.drop(conn)
		return delivery.Outcome{Reason: deadletter.PlatformUnavailable, Err: errors.New("the connection to Twitch's chat was closed before")}
	} else if err != nil {
		c.drop(conn)
		return delivery.Outcome{Kind: delivery.Unknown, Err: fmt.Errorf("write to Twitch's chat: %w", err)}
	}
	timeout := time.NewTimer(c.config.ReplyTimeout)
	defer timeout.Stop()
	select {
	case o := <-pending.result:
		return o
	case <-timeout.C:
		// A late answer could be mistaken for the answer to the next message. On a new connection no mistake is possible.
		c.drop(conn)
		return delivery.Outcome{Kind: delivery.Unknown, Err: fmt.Errorf("no answer from Twitch's chat within %s", c.config.ReplyTimeout)}
	}
}

// drain waits until each line is handled that Twitch had sent before. It waits for the answer to a PING, which comes after
// these lines, for the end of the connection, or for ctx. The lines may wait for a long time, because a full queue stops the
// reading.
func (c *chat) drain(ctx context.Context) {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn == nil || conn.write("PING :"+drainPing) != nil {
		return
	}
	select {
	case <-conn.drained:
	case <-ctx.Done():
	}
}

// drop closes a connection and permits no further send. The connection counts as lost after its last line is read.
func (c *chat) drop(conn *connection) {
	c.mu.Lock()
	conn.leaving = true
	c.mu.Unlock()
	conn.conn.Close()
}

// disconnected updates the channels after the end of a connection.
func (c *chat) disconnected(conn *connection) {
	var left []string
	since := time.Unix(0, conn.lastReceived.Load()) // the connection may have been dead for a while
	defer func() {
		for _, login := range left {
			c.onParted(login, since)
		}
	}()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.metrics.connected.Set(0)
	if c.conn == conn {
		c.conn, c.lastReceived = nil, since
	}
	for _, r := range c.channels {
		if r.joined {
			r.idleSince = since
			left = append(left, r.login)
		}
		r.joined, r.joinSent = false, time.Time{}
		r.resolve(delivery.Outcome{Kind: delivery.Unknown, Err: errors.New("the connection to Twitch's chat broke")})
		r.notify()
	}
	c.wake()
}
