package eventsub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"parley.internal/shared/credential"
	"parley.internal/shared/identity"
	"parley.internal/shared/twitch"
)

// nextDue returns the time until the next refresh or the next attempt to subscribe.
func (s *session) nextDue(refresh time.Time) time.Duration {
	now := s.now()
	wait := refresh.Sub(now)
	for t, sub := range s.subs {
		if !sub.on && !s.removed[t] {
			wait = min(wait, sub.due.Sub(now))
		}
	}
	return max(wait, 0)
}

// subscribed reports whether at least one topic is subscribed to.
func (s *session) subscribed() bool {
	for _, sub := range s.subs {
		if sub.on {
			return true
		}
	}
	return false
}

// subscribeDue subscribes to the topics that are due. It returns an error if no topic is subscribed to afterwards.
func (s *session) subscribeDue(ctx context.Context, k *conn) error {
	later, soon := s.timing.Refresh, false
	var last error
	for _, t := range s.topics {
		sub := s.subs[t]
		if sub.on || s.removed[t] || s.now().Before(sub.due) {
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
		return fmt.Errorf("no subscription succeeded: %w", last)
	}
	s.setIdle(time.Time{})
	return &pauseError{later, "no subscription succeeded"}
}

// retryRefused makes the refused and the revoked topics due, except the topics that wait for a limit.
func (s *session) retryRefused() {
	for t, sub := range s.subs {
		if s.logged[t] != reasonLimit {
			sub.due = time.Time{}
		}
	}
}

// refreshTopics reads the topics again, and ends the subscriptions to removed topics.
func (s *session) refreshTopics(ctx context.Context) {
	topics, err := s.Topics(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.log.WarnContext(ctx, "EventSub: refreshing the topics failed", "error", err)
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
				s.log.WarnContext(ctx, "EventSub: unsubscribing failed", "type", t.Kind.Type, "channel", t.Channel, "error", err)
			}
		}
		s.markOff(t, sub)
		delete(s.subs, t)
	}
	s.topics = topics
}

// markOff records the end of a subscription.
func (s *session) markOff(t Topic, sub *subscription) {
	if sub.on {
		sub.on, sub.id = false, ""
		s.metrics.subscriptions.WithLabelValues(t.Kind.Type).Dec()
	}
}

// recordRefusal counts a refused subscription and returns the reason. It logs a reason once, until the reason changes.
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
		s.log.WarnContext(ctx, "EventSub: subscription refused", args...)
	}
	return why
}

// recordSuccess records that a topic is permitted, and logs this after a refusal. The zero topic stands for the account.
func (s *session) recordSuccess(ctx context.Context, t Topic) {
	if s.logged[t] != "" && t.Kind != nil {
		s.log.InfoContext(ctx, "EventSub: subscription accepted", "type", t.Kind.Type, "channel", t.Channel)
	}
	delete(s.logged, t)
}
