package eventsub

import (
	"context"
	"time"

	"parley.internal/shared/credential"
	"parley.internal/shared/identity"
)

// maxAge is the maximum age of a notification, as Twitch advises. So ids need not be kept for longer
// (https://dev.twitch.tv/docs/eventsub/#handling-duplicate-events).
const maxAge = 10 * time.Minute

func (s *session) handle(ctx context.Context, m message) {
	switch m.Metadata.Type {
	case typeNotification:
		s.notify(ctx, m)
	case typeRevocation:
		s.revoked(ctx, m)
	}
}

// topic returns the topic of a message.
func (s *session) topic(m message) (Topic, bool) {
	condition := m.condition()
	for _, t := range s.topics {
		if t.matches(m.Payload.Subscription.Type, condition, s.Account) {
			return t, true
		}
	}
	return Topic{}, false
}

// notify passes a notification on, unless the notification is old, repeated or of an unknown topic.
func (s *session) notify(ctx context.Context, m message) {
	id, at, now := m.Metadata.ID, m.Metadata.At, s.now()
	count := func(result string) { s.metrics.notifications.WithLabelValues(result).Inc() }
	t, known := s.topic(m)
	_, repeated := s.seen[id]
	switch {
	case now.Sub(at) > maxAge:
		count("stale")
		s.log.WarnContext(ctx, "EventSub: notification too old", "type", m.Payload.Subscription.Type, "message", id, "at", at)
		return
	case repeated:
		count("repeated")
		return
	case !known:
		count("unknown") // the subscription has just ended
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

// revoked handles the end of a subscription by Twitch
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
	// A user may grant a permission again, or make the account a moderator again.
	again := status != "user_removed" && status != "version_removed"
	if !again {
		s.removed[t] = true
	}
	s.log.WarnContext(ctx, "EventSub: subscription revoked", "type", t.Kind.Type, "channel", t.Channel,
		"status", status, "retry", again, "login", credential.LoginPath(identity.Twitch))
}
