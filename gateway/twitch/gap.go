package twitch

import (
	"context"
	"time"

	"parley.internal/shared/gap"
	"parley.internal/shared/identity"
)

// missed notes that a channel is listened to again after an absence; from is zero if there was none. what is gap.Chat
// or gap.Events.
func (s *Service) missed(what, login string, from, to time.Time) {
	if from.IsZero() {
		return
	}
	g := gap.New(string(identity.Twitch), Channel(login), what, from, to, s.instance)
	s.metrics.gaps.Inc()
	s.metrics.gapSeconds.Add(g.To.Sub(g.From).Seconds())
	s.log.Warn("nobody listened for a while: what happened is missed", "missed", what, "channel", login, "from", g.From, "to", g.To, "for", g.To.Sub(g.From))
	select {
	case s.gaps <- g:
	default:
		s.log.Error("a gap can't be stored: too many wait for it", "channel", login)
	}
}

// noteGaps stores gaps until there are no more.
func (s *Service) noteGaps(ctx context.Context, gaps <-chan gap.Gap) {
	for g := range gaps {
		writing, cancel := context.WithTimeout(ctx, 2*time.Second)
		if err := g.Put(writing, s.firestore); err != nil {
			s.log.ErrorContext(ctx, "a gap can't be stored", "channel", g.Channel, "from", g.From, "to", g.To, "error", err)
		}
		cancel()
	}
}
