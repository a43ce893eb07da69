package eventsub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/gorilla/websocket"

	"parley.internal/shared/credential"
	"parley.internal/shared/identity"
	"parley.internal/shared/twitch"
)

const (
	// maxAge is how old a notification may be. Twitch's advice, and the reason why ids need not be kept for longer
	// (https://dev.twitch.tv/docs/eventsub/#handling-duplicate-events).
	maxAge = 10 * time.Minute
	// moveTime bounds the search for a way to another server: Twitch keeps the old connection for 30 s.
	moveTime = 25 * time.Second
)

// session is what one account listens to, over all its connections. It is one goroutine's.
type session struct {
	*Client
	Subscriber
	log            *slog.Logger
	idleSince      time.Time            // since when nobody listens; zero for no gap
	seen           map[string]time.Time // notifications by id, and when Twitch sent them
	pruned         time.Time            // when old ones were last forgotten
	logged         map[Topic]string     // which reason was logged last; of the zero topic: for the account as a whole
	revokedForGood map[Topic]bool       // what Twitch has taken back for good

	// of the present connection
	topics []Topic
	subs   map[Topic]*subscription
}

// subscription is the state of a topic.
type subscription struct {
	on  bool
	id  string    // Twitch's; empty if it is not known
	due time.Time // before then it is not tried again
}

func newSession(c *Client, l Subscriber) *session {
	return &session{
		Client: c, Subscriber: l, log: c.log.With("account", l.Account.String()), idleSince: l.IdleSince,
		seen: map[string]time.Time{}, logged: map[Topic]string{}, revokedForGood: map[Topic]bool{},
	}
}

// runOnce holds one session from its beginning to its end. useful is whether anything was listened to.
func (s *session) runOnce(ctx context.Context) (useful bool, err error) {
	topics, err := s.Topics(ctx)
	var token credential.Token
	if err == nil {
		token, err = s.tokens.Token(ctx, s.Account)
	}
	if err != nil {
		if reason(err) != reasonLogin {
			return false, err
		}
		s.recordRefusal(ctx, Topic{}, err)
		return false, s.pause("the account has not logged in")
	}
	s.recordSuccess(ctx, Topic{})
	s.topics = topics
	// A session without a subscription is closed by Twitch: none is begun for what is certain to be refused.
	hopeful := slices.ContainsFunc(topics, func(t Topic) bool {
		return !s.revokedForGood[t] && token.Require(t.Kind.scopes()...) == nil
	})
	if !hopeful {
		for _, t := range topics {
			if err := token.Require(t.Kind.scopes()...); err != nil {
				s.recordRefusal(ctx, t, err)
			}
		}
		return false, s.pause("there is nothing that may be listened to")
	}
	k, err := s.connect(ctx, s.url)
	if err != nil {
		return false, err
	}
	return s.serve(ctx, k)
}

// pause is the end of listening for want of anything to listen to, which is no gap.
func (s *session) pause(why string) error {
	s.setIdle(time.Time{})
	return &pauseError{s.timing.Refresh, why}
}

// move is the way of a session to another server.
type move struct {
	conn *conn
	err  error
}

// serve listens on a connection, and on those that Twitch moves the session to.
func (s *session) serve(ctx context.Context, k *conn) (useful bool, err error) {
	s.metrics.sessions.Inc()
	s.subs = map[Topic]*subscription{}
	for _, t := range s.topics {
		s.subs[t] = &subscription{}
	}
	var next *conn // where the session goes on, while the old connection may still hold something
	moved := make(chan move, 1)
	var endMove context.CancelFunc // of the move that is under way; nil if there is none
	var address string             // to move to after it, if it fails
	begin := func(url string) {
		var life context.Context
		life, endMove = context.WithCancel(ctx)
		go func() { moved <- s.move(life, url) }() // ends with life, and is waited for by receiving from moved
	}
	defer func() {
		if endMove != nil {
			endMove()
			if m := <-moved; m.conn != nil {
				m.conn.close()
			}
		}
		// what has come already is not lost
		s.drain(ctx, k)
		if next != nil {
			s.drain(ctx, next)
		}
		for t, sub := range s.subs {
			s.markOff(t, sub)
		}
		s.metrics.sessions.Dec()
	}()

	if err := s.subscribeDue(ctx, k); err != nil {
		return false, err
	}
	s.reportGap()

	looking := s.now().Add(jitter(s.timing.Refresh))
	due := time.NewTimer(0)
	defer due.Stop()
	var linger <-chan time.Time
	switchOver := func() {
		s.drain(ctx, k)
		k, next, linger = next, nil, nil
		s.metrics.moves.WithLabelValues("moved").Inc()
	}
	for {
		due.Reset(s.nextDue(looking))
		select {
		case <-ctx.Done():
			return true, ctx.Err()

		case m, open := <-k.messages:
			if !open {
				if endMove != nil { // Twitch may end the old connection as soon as there is another one
					late := time.AfterFunc(s.timing.Request, endMove)
					m := <-moved
					late.Stop()
					endMove()
					endMove, next = nil, m.conn
				}
				if next != nil {
					switchOver()
					continue
				}
				s.setIdle(*k.lastReceived.Load())
				return true, k.err
			}
			if m.Metadata.Type == typeReconnect {
				if address = m.Payload.Session.ReconnectURL; endMove == nil && next == nil {
					begin(address)
					address = ""
				}
				continue
			}
			s.handle(ctx, m)
			if next != nil && m.Metadata.Type != typeKeepalive {
				linger = time.After(s.timing.Linger)
			}
			if !s.subscribed() {
				return true, s.pause("nothing is left to listen to")
			}

		case m := <-moved:
			endMove()
			endMove, next = nil, m.conn
			if m.err != nil && address != "" {
				begin(address)
				address = ""
				continue
			}
			if m.err != nil {
				s.metrics.moves.WithLabelValues("failed").Inc()
				s.log.WarnContext(ctx, "can't go where Twitch's EventSub wants; waiting for the end of the connection", "error", m.err)
				continue
			}
			linger = time.After(s.timing.Linger)

		case <-linger:
			switchOver()

		case <-due.C:
			if now := s.now(); !now.Before(looking) {
				looking = now.Add(jitter(s.timing.Refresh))
				s.refreshTopics(ctx)
			}
			if err := s.subscribeDue(ctx, k); err != nil {
				return true, err
			}
		}
	}
}

// drain closes a connection and takes what had come.
func (s *session) drain(ctx context.Context, k *conn) {
	k.close()
	for m := range k.messages {
		s.handle(ctx, m)
	}
}

// move makes the connection on which a session goes on. Twitch tells on the old one what happens until the new one is
// welcomed (https://dev.twitch.tv/docs/eventsub/handling-websocket-events/#reconnect-message).
func (s *session) move(ctx context.Context, url string) move {
	ctx, cancel := context.WithTimeout(ctx, moveTime)
	defer cancel()
	if err := CheckURL(url); err != nil {
		return move{err: fmt.Errorf("reconnect_url: %w", err)}
	}
	for backoff := s.timing.MinBackoff; ; backoff = min(2*backoff, s.timing.MaxBackoff) {
		k, err := s.connect(ctx, url)
		if closed, ok := errors.AsType[*websocket.CloseError](err); err == nil || ok && closed.Code == closeReconnect {
			return move{k, err}
		}
		select {
		case <-ctx.Done():
			return move{err: err}
		case <-time.After(jitter(backoff)):
		}
	}
}

// nextDue is how long until there is something to be tried again.
func (s *session) nextDue(looking time.Time) time.Duration {
	now := s.now()
	wait := looking.Sub(now)
	for t, sub := range s.subs {
		if !sub.on && !s.revokedForGood[t] {
			wait = min(wait, sub.due.Sub(now))
		}
	}
	return max(wait, 0)
}

func (s *session) subscribed() bool {
	for _, sub := range s.subs {
		if sub.on {
			return true
		}
	}
	return false
}

// subscribeDue subscribes to what is not yet. It fails if after that nothing is.
func (s *session) subscribeDue(ctx context.Context, k *conn) error {
	later, soon := s.timing.Refresh, false
	var last error
	for _, t := range s.topics {
		sub := s.subs[t]
		if sub.on || s.revokedForGood[t] || s.now().Before(sub.due) {
			continue
		}
		id, err := s.subscribe(ctx, s.Account, k.session, t)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			sub.on, sub.id = true, id
			s.metrics.subscriptions.WithLabelValues(t.Kind.Type).Inc()
			s.recordSuccess(ctx, t)
			continue
		}
		wait := s.timing.Refresh
		switch s.recordRefusal(ctx, t, err) {
		case reasonUnavailable:
			wait, soon = s.timing.Retry, true
		case reasonLimit:
			wait = s.timing.Limit
			if e, ok := errors.AsType[*twitch.Error](err); ok {
				wait = max(wait, e.After)
			}
		}
		sub.due, last = s.now().Add(wait), err
		later = min(later, wait)
	}
	switch {
	case s.subscribed():
		return nil
	case soon:
		return fmt.Errorf("nothing could be subscribed to: %w", last)
	}
	s.setIdle(time.Time{})
	return &pauseError{later, "nothing could be subscribed to"}
}

// reportGap tells of the time in which nobody listened, now that somebody does.
func (s *session) reportGap() {
	from, to := s.idleSince, s.now()
	defer s.setIdle(time.Time{})
	if from.IsZero() {
		return
	}
	var channels []string
	for _, t := range s.topics {
		if s.subs[t].on && !slices.Contains(channels, t.Channel) {
			channels = append(channels, t.Channel)
			s.OnGap(t.Channel, from, to)
		}
	}
}

// setIdle notes since when nobody listens; zero if somebody does, or there is nothing to listen to.
func (s *session) setIdle(since time.Time) {
	s.idleSince = since
	s.OnIdle(since)
}

// refreshTopics asks for the topics again.
func (s *session) refreshTopics(ctx context.Context) {
	topics, err := s.Topics(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.log.WarnContext(ctx, "can't find out what to listen to; going on as before", "error", err)
		}
		return
	}
	for _, t := range topics {
		if s.subs[t] == nil {
			s.subs[t] = &subscription{}
		}
	}
	for t, sub := range s.subs {
		if slices.Contains(topics, t) {
			continue
		}
		if sub.on && sub.id != "" {
			if err := s.unsubscribe(ctx, s.Account, sub.id); err != nil {
				s.log.WarnContext(ctx, "can't unsubscribe", "type", t.Kind.Type, "channel", t.Channel, "error", err)
			}
		}
		s.markOff(t, sub)
		delete(s.subs, t)
	}
	s.topics = topics
}

func (s *session) markOff(t Topic, sub *subscription) {
	if sub.on {
		sub.on, sub.id = false, ""
		s.metrics.subscriptions.WithLabelValues(t.Kind.Type).Dec()
	}
}

// recordRefusal notes that something can't be subscribed to, and tells why. It is logged when the reason is a new one.
func (s *session) recordRefusal(ctx context.Context, t Topic, err error) (why string) {
	why = reason(err)
	kind := "all"
	args := []any{"reason", why, "error", err, "login", credential.LoginPath(identity.Twitch)}
	if t.Kind != nil {
		kind = t.Kind.Type
		args = append(args, "type", t.Kind.Type, "channel", t.Channel)
	}
	s.metrics.refused.WithLabelValues(kind, why).Inc()
	if s.logged[t] != why {
		s.logged[t] = why
		s.log.WarnContext(ctx, "can't listen to what happens on Twitch; trying again now and then", args...)
	}
	return why
}

// recordSuccess notes that something can be subscribed to.
func (s *session) recordSuccess(ctx context.Context, t Topic) {
	if s.logged[t] != "" && t.Kind != nil {
		s.log.InfoContext(ctx, "listening to what could not be listened to", "type", t.Kind.Type, "channel", t.Channel)
	}
	delete(s.logged, t)
}

func (s *session) handle(ctx context.Context, m message) {
	switch m.Metadata.Type {
	case typeNotification:
		s.notify(ctx, m)
	case typeRevocation:
		s.revoked(ctx, m)
	}
}

func (s *session) topic(m message) (Topic, bool) {
	condition := m.condition()
	for _, t := range s.topics {
		if t.matches(m.Payload.Subscription.Type, condition, s.Account) {
			return t, true
		}
	}
	return Topic{}, false
}

func (s *session) notify(ctx context.Context, m message) {
	id, at, now := m.Metadata.ID, m.Metadata.At, s.now()
	count := func(result string) { s.metrics.notifications.WithLabelValues(result).Inc() }
	t, known := s.topic(m)
	_, repeated := s.seen[id]
	switch {
	case now.Sub(at) > maxAge:
		count("stale")
		s.log.WarnContext(ctx, "left out what Twitch tells too late", "type", m.Payload.Subscription.Type, "message", id, "at", at)
		return
	case repeated:
		count("repeated")
		return
	case !known:
		count("unknown") // just unsubscribed from
		return
	}
	if now.Sub(s.pruned) > time.Minute {
		s.pruned = now
		for id, at := range s.seen {
			if now.Sub(at) > maxAge {
				delete(s.seen, id)
			}
		}
	}
	s.seen[id] = at
	count("taken")
	s.OnNotification(Notification{ID: id, At: at, Topic: t, Event: m.Payload.Event})
}

// revoked takes what Twitch tells when it ends a subscription by itself
// (https://dev.twitch.tv/docs/eventsub/handling-websocket-events/#revocation-message).
func (s *session) revoked(ctx context.Context, m message) {
	status := m.Payload.Subscription.Status
	s.metrics.revoked.WithLabelValues(m.Payload.Subscription.Type, status).Inc()
	t, known := s.topic(m)
	if !known {
		return
	}
	sub := s.subs[t]
	s.markOff(t, sub)
	sub.due = s.now().Add(s.timing.Refresh)
	// Whoever took back their permission, or made the account no moderator, may think again.
	again := status != "user_removed" && status != "version_removed"
	if !again {
		s.revokedForGood[t] = true
	}
	s.log.WarnContext(ctx, "Twitch does not tell any more what happens", "type", t.Kind.Type, "channel", t.Channel,
		"status", status, "triedAgain", again, "login", credential.LoginPath(identity.Twitch))
}
