package outbox

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"parley.internal/gateway/moderator"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/moderation"
)

func TestCommandsAreFoundInTheLedger(t *testing.T) {
	withFixture(t, true, func(s *fixture) {
		order := func(channel, user string) string {
			return s.answer(user, func(e *event.Event) {
				a, err := moderation.Fields{Action: "ban", Channel: channel, UserID: user}.Parse()
				if err != nil {
					t.Fatal(err)
				}
				*e = *moderation.Command{Action: a, By: moderation.Requester{Right: "moderator by hand"}}.Event(e)
			})
		}
		one, left, other := order("discord:1", "discord:11"), order("discord:1", "discord:12"), order("discord:2", "discord:13")
		order("twitch:1", "twitch:14") // another platform's
		s.answer("a line")
		if claim, _, err := s.ledger.Claim(t.Context(), s.entry(left).Ref()); err != nil || claim == nil {
			t.Fatal(claim, err)
		}
		for _, tt := range []struct {
			name, channel string
			late          time.Duration
			want          []string
		}{
			{"of one channel", "discord:1", 0, []string{one}},
			{"of all channels", "", 0, []string{one, other}},
			{"left by who died", "", delivery.ClaimLease + time.Second, []string{one, left + " begun", other}},
		} {
			s.set(func() { s.late = tt.late })
			var mu sync.Mutex
			var carried []string
			lines := NewCommands(s.ledger, identity.Discord, tt.channel, slog.New(slog.DiscardHandler), s.timing, func(_ context.Context, j *moderator.Job) (bool, time.Duration) {
				mu.Lock()
				defer mu.Unlock()
				name := j.Ref.ID
				if j.Begun {
					name += " begun"
				}
				if !slices.Contains(carried, name) {
					carried = append(carried, name)
				}
				return true, 0
			})
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { lines.Run(ctx) })
			slices.Sort(tt.want)
			s.eventually(tt.name, func() bool {
				mu.Lock()
				defer mu.Unlock()
				return slices.Equal(slices.Sorted(slices.Values(carried)), tt.want)
			})
			cancel()
			running.Wait()
		}
	})
}
