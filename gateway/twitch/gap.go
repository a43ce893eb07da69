package twitch

import (
	"context"
	"time"

	"parley.internal/shared/deadletter"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// gap is a time in which nobody listened in a channel, the document gaps/{hash}.
type gap struct {
	Platform string    `firestore:"platform"`
	Channel  string    `firestore:"channel"`
	Missed   string    `firestore:"missed"` // what was: chat or events
	From     time.Time `firestore:"from"`
	To       time.Time `firestore:"to"`
	Instance string    `firestore:"instance"` // that came after it
	ExpireAt time.Time `firestore:"expireAt"` // the collection's TTL field
}

// What is missed in a gap.
const (
	missedChat   = "chat"   // what was said
	missedEvents = "events" // what EventSub alone tells
)

// gapRetention is how long gaps are kept.
const gapRetention = 30 * 24 * time.Hour

// missed notes that a channel is listened to again after an absence; from is zero if there was none. what is one of
// those above.
func (s *Service) missed(what, login string, from, to time.Time) {
	if from.IsZero() {
		return
	}
	from, to = event.Now(from), event.Now(to)
	if to.Before(from) {
		to = from // by clocks that differ
	}
	s.metrics.gaps.Inc()
	s.metrics.gapSeconds.Add(to.Sub(from).Seconds())
	s.log.Warn("nobody listened for a while: what happened is missed", "missed", what, "channel", login, "from", from, "to", to, "for", to.Sub(from))
	select {
	case s.gaps <- gap{string(identity.Twitch), Channel(login), what, from, to, s.instance, to.Add(gapRetention)}:
	default:
		s.log.Error("a gap can't be stored: too many wait for it", "channel", login)
	}
}

// noteGaps stores gaps until there are no more.
func (s *Service) noteGaps(ctx context.Context, gaps <-chan gap) {
	for g := range gaps {
		id := deadletter.ID("gap", g.Channel, g.Missed, g.From.Format(time.RFC3339Nano), g.Instance)
		writing, cancel := context.WithTimeout(ctx, 2*time.Second)
		if _, err := s.firestore.Collection("gaps").Doc(id).Set(writing, g); err != nil {
			s.log.ErrorContext(ctx, "a gap can't be stored", "channel", g.Channel, "from", g.From, "to", g.To, "error", err)
		}
		cancel()
	}
}
