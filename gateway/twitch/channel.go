package twitch

import (
	"context"
	"fmt"
	"strings"
	"time"

	irc "github.com/gempir/go-twitch-irc/v4"

	"parley.internal/shared/delivery"
	helix "parley.internal/shared/twitch"
)

// channel is the state of a wanted channel.
type channel struct {
	login      string
	id         string          // the broadcaster's user id; empty if unknown
	joined     bool            // on the present connection
	joinSent   time.Time       // time of the last JOIN; zero for none on this connection
	idleSince  time.Time       // since when the channel is not read; zero if unknown
	privileged bool            // the bot is broadcaster or moderator
	generation int             // grows with every enter and leave
	leaving    bool            // the lease has ended: the instance lingers, and does not join again
	changed    chan struct{}   // closed at the next change
	pending    *pendingMessage // nil for none
}

// pendingMessage is a message without an answer from Twitch.
type pendingMessage struct {
	nonce  string
	result chan delivery.Outcome // of capacity 1
}

// resolve sends the outcome of the pending message, if there is one. The caller holds chat.mu.
func (r *channel) resolve(o delivery.Outcome) {
	if r.pending == nil {
		return
	}
	select {
	case r.pending.result <- o:
	default: // the first outcome counts
	}
}

// notify wakes the waiters of a change. The caller holds chat.mu.
func (r *channel) notify() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// enter adds a channel. idleSince is the beginning of a gap in reading, or zero.
func (c *chat) enter(login string, idleSince time.Time) {
	c.mu.Lock()
	r := c.channels[login]
	if r == nil {
		r = &channel{login: login, changed: make(chan struct{})}
		c.channels[login] = r
	}
	r.generation++
	r.leaving = false
	joined := r.joined
	if !joined {
		r.idleSince = idleSince
	}
	c.mu.Unlock()
	if joined { // still joined from an earlier lease: no gap
		c.onJoined(login, time.Time{}, time.Now())
	}
	c.wake()
}

// leave removes a channel after timing.linger. Until then, the next owner joins. Twitch repeats no message, so both
// instances read for a moment; the same message in both is one event.
func (c *chat) leave(login string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.channels[login]
	r.generation++
	r.leaving = true
	generation := r.generation
	time.AfterFunc(c.timing.linger, func() { c.part(r, generation) })
}

// part removes a channel, unless the instance has entered the channel again.
func (c *chat) part(r *channel, generation int) {
	c.mu.Lock()
	if r.generation != generation {
		c.mu.Unlock()
		return
	}
	conn, sent := c.conn, !r.joinSent.IsZero()
	delete(c.channels, r.login)
	c.mu.Unlock()
	if conn != nil && sent {
		if err := conn.write("PART #" + r.login); err != nil {
			conn.conn.Close() // otherwise the instance would stay in the channel
		}
	}
}

// target describes a channel for a send.
type target struct {
	id         string // the broadcaster's user id
	privileged bool   // the bot is broadcaster or moderator
}

// await waits until a channel is ready for a send over IRC, or until its broadcaster's id is known, for Helix.
func (c *chat) await(ctx context.Context, login string, overIRC bool) (target, error) {
	for {
		c.mu.Lock()
		r := c.channels[login]
		if r == nil {
			c.mu.Unlock()
			return target{}, fmt.Errorf("the instance has left #%s", login)
		}
		p, changed := target{r.id, r.privileged}, r.changed
		ready := r.id != "" && (!overIRC || r.joined && c.conn != nil && !c.conn.leaving)
		c.mu.Unlock()
		if ready {
			return p, nil
		}
		select {
		case <-ctx.Done():
			return target{}, fmt.Errorf("#%s is not joined yet: %w", login, ctx.Err())
		case <-changed:
		}
	}
}

// join sends JOINs within the rate limit. It repeats a JOIN without an answer, so that no channel stays half joined.
func (c *chat) join(ctx context.Context, conn *connection) {
	for {
		login, wait := c.nextJoin()
		if login == "" {
			select {
			case <-ctx.Done():
				return
			case <-c.wakeUp:
			case <-time.After(wait):
			}
			continue
		}
		if c.joinPacer.wait(ctx, login, c.limits.joins, 0) != nil {
			return
		}
		c.mu.Lock()
		r := c.channels[login]
		wanted := r != nil && !r.joined && !r.leaving
		if wanted {
			if !r.joinSent.IsZero() {
				c.metrics.rejoins.Inc()
				c.log.WarnContext(ctx, "JOIN without an answer", "channel", login)
			}
			r.joinSent = time.Now()
		}
		c.mu.Unlock()
		if wanted && conn.write("JOIN #"+login) != nil {
			conn.conn.Close()
			return
		}
	}
}

// nextJoin returns a channel for a JOIN, or the time until a JOIN may be due.
func (c *chat) nextJoin() (login string, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wait = c.timing.join
	for _, r := range c.channels {
		if r.joined || r.leaving {
			continue
		}
		due := c.timing.join - time.Since(r.joinSent)
		if r.joinSent.IsZero() || due <= 0 {
			return r.login, 0
		}
		wait = min(wait, due)
	}
	return "", wait
}

// roomState handles ROOMSTATE, the last part of the answer to a JOIN (https://dev.twitch.tv/docs/chat/irc/#roomstate).
func (c *chat) roomState(m *irc.RoomStateMessage) {
	c.mu.Lock()
	r := c.channels[m.Channel]
	if r == nil || m.RoomID == "" || r.joined {
		c.mu.Unlock()
		return
	}
	r.id, r.joined = m.RoomID, true
	from := r.idleSince
	r.idleSince = time.Time{}
	r.notify()
	c.mu.Unlock()
	c.onJoined(m.Channel, from, time.Now())
}

// userState handles USERSTATE: the bot's role in a channel, and the answer to a message
// (https://dev.twitch.tv/docs/chat/irc/#userstate). Twitch's page does not document the repetition of the client-nonce.
// Without a nonce, the channel's next USERSTATE is the answer, because only one message at a time is pending.
func (c *chat) userState(m *irc.UserStateMessage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.channels[m.Channel]
	if r == nil {
		return
	}
	_, broadcaster := m.User.Badges["broadcaster"]
	r.privileged = m.User.IsMod || broadcaster
	if nonce := m.Tags["client-nonce"]; r.pending != nil && r.joined && (nonce == "" || nonce == r.pending.nonce) {
		r.resolve(delivery.Outcome{Kind: delivery.Sent, Note: m.Tags["id"]})
	}
}

// notice handles NOTICE, the refusal of a message (https://dev.twitch.tv/docs/chat/irc/#notice).
func (c *chat) notice(m *irc.NoticeMessage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.channels[m.Channel]
	if r == nil {
		return
	}
	if r.pending == nil {
		c.log.Warn("notice from Twitch", "channel", m.Channel, "code", m.MsgID, "text", m.Message)
		return
	}
	if strings.HasPrefix(m.MsgID, "msg_") || m.MsgID == "no_permission" || m.MsgID == "unrecognized_cmd" {
		r.resolve(c.timing.outcomeOf("", helix.ChatRefusal(m.MsgID, m.Message)))
	}
}
