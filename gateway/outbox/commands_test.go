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
		command := func(channel, user string) string {
			return s.answer(user, func(e *event.Event) {
				a, err := moderation.Fields{Action: "ban", Channel: channel, UserID: user}.Parse()
				if err != nil {
					t.Fatal(err)
				}
				*e = *moderation.Command{Action: a, By: moderation.Requester{Right: "moderator by hand"}}.Event(e)
			})
		}
		one, left, other := command("discord:1", "discord:11"), command("discord:1", "discord:12"), command("discord:2", "discord:13")
		command("twitch:1", "twitch:14") // of a different platform
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
			{"left by a crashed instance", "", delivery.ClaimLease + time.Second, []string{one, left + " begun", other}},
		} {
			s.set(func() { s.late = tt.late })
			var mu sync.Mutex
			var executed []string
			queue := NewCommands(s.ledger, identity.Discord, tt.channel, slog.New(slog.DiscardHandler), s.timing, func(_ context.Context, j *moderator.Job) (bool, time.Duration) {
				mu.Lock()
				defer mu.Unlock()
				name := j.Ref.ID
				if j.Begun {
					name += " begun"
				}
				if !slices.Contains(executed, name) {
					executed = append(executed, name)
				}
				return true, 0
			})
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { queue.Run(ctx) })
			slices.Sort(tt.want)
			s.eventually(tt.name, func() bool {
				mu.Lock()
				defer mu.Unlock()
				return slices.Equal(slices.Sorted(slices.Values(executed)), tt.want)
			})
			cancel()
			running.Wait()
		}
	})
}
