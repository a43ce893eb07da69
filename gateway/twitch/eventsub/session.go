package eventsub

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"parley.internal/shared/credential"
	"parley.internal/shared/twitch"
)

// session is the work for one subscriber, over all connections. A session is used by one goroutine only.
type session struct {
	*Client
	Subscriber
	log       *slog.Logger
	wakeUp    chan struct{}        // has a value if a refresh is wanted
	idleSince time.Time            // beginning of the present gap; zero for no gap
	seen      map[string]time.Time // times of the last notifications, by id
	pruned    time.Time            // time of the last removal from seen
	logged    map[Topic]string     // last logged reason of a refusal; the zero topic stands for the account
	removed   map[Topic]bool       // topics that Twitch has ended for good

	// of the present connection
	topics []Topic
	subs   map[Topic]*subscription
}

// subscription is the state of a topic.
type subscription struct {
	on  bool
	id  string    // Twitch's id; empty if unknown
	due time.Time // earliest time of the next attempt
}

func newSession(c *Client, s Subscriber) *session {
	return &session{
		Client: c, Subscriber: s, log: c.log.With("account", s.Account.String()), idleSince: s.IdleSince,
		wakeUp: make(chan struct{}, 1), seen: map[string]time.Time{}, logged: map[Topic]string{}, removed: map[Topic]bool{},
	}
}

// runOnce holds one session until its end. useful reports whether the session had a subscription.
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
	// Twitch closes a session without a subscription. So runOnce connects only if a subscription may succeed.
	hopeful := slices.ContainsFunc(topics, func(t Topic) bool {
		return !s.removed[t] && token.Require(t.Kind.scopes()...) == nil
	})
	if !hopeful {
		for _, t := range topics {
			if err := token.Require(t.Kind.scopes()...); err != nil {
				s.recordRefusal(ctx, t, twitch.TokenError(err))
			}
		}
		return false, s.pause("no topic is permitted")
	}
	k, err := s.connect(ctx, s.url)
	if err != nil {
		return false, err
	}
	return s.serve(ctx, k)
}

// pause ends a session without anything to receive. Such a time is no gap.
func (s *session) pause(why string) error {
	s.setIdle(time.Time{})
	return &pauseError{s.timing.Refresh, why}
}

// serve receives on a connection, and on the connections after Twitch's requests to move. It closes all connections.
func (s *session) serve(ctx context.Context, k *conn) (useful bool, err error) {
	s.metrics.sessions.Inc()
	s.subs = map[Topic]*subscription{}
	for _, t := range s.topics {
		s.subs[t] = &subscription{}
	}
	m := &mover{session: s, current: k, moved: make(chan move, 1)}
	defer func() {
		m.close(ctx)
		for t, sub := range s.subs {
			s.markOff(t, sub)
		}
		s.metrics.sessions.Dec()
	}()
	if err := s.subscribeDue(ctx, k); err != nil {
		return false, err
	}
	s.reportGap()

	refresh := s.now().Add(jitter(s.timing.Refresh))
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		due.Reset(s.nextDue(refresh))
		select {
		case <-ctx.Done():
			return true, ctx.Err()

		case msg, open := <-m.current.messages:
			if !open {
				if m.continues(ctx) {
					continue
				}
				s.setIdle(*m.current.lastReceived.Load())
				return true, m.current.err
			}
			if msg.Metadata.Type == typeReconnect {
				m.request(ctx, msg.Payload.Session.ReconnectURL)
				continue
			}
			s.handle(ctx, msg)
			m.received(msg)
			if !s.subscribed() {
				return true, s.pause("no subscription is left")
			}

		case result := <-m.moved:
			m.finish(ctx, result)

		case <-m.linger:
			m.switchOver(ctx)

		case <-s.wakeUp:
			refresh = s.now() // due now
			s.retryRefused()

		case <-due.C:
			if now := s.now(); !now.Before(refresh) {
				refresh = now.Add(jitter(s.timing.Refresh))
				s.refreshTopics(ctx)
			}
			if err := s.subscribeDue(ctx, m.current); err != nil {
				return true, err
			}
		}
	}
}

// drain closes a connection and handles its remaining messages.
func (s *session) drain(ctx context.Context, k *conn) {
	k.close()
	for m := range k.messages {
		s.handle(ctx, m)
	}
}

// reportGap reports the gap before the present subscriptions.
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

// setIdle records the beginning of a gap; zero while the session is subscribed, or has nothing to receive.
func (s *session) setIdle(since time.Time) {
	s.idleSince = since
	s.OnIdle(since)
}
