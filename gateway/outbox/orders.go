package outbox

import (
	"context"
	"log/slog"
	"time"

	"parley.internal/gateway/moderator"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/moderation"
)

// NewCommands makes the lines of the moderators' orders for one channel of a platform, or for all of them if channel is
// empty: a line for each channel. carry does what [moderation.Enforcer.Execute] does. Orders are found in the ledger also
// where an instance left them that died in the midst of it.
//
// They work beside a speaker, not in its lines: who has to be silenced is not to be waited for behind what a platform's
// limits hold up. So an action keeps no order with what is said.
func NewCommands(l *delivery.Ledger, on identity.Platform, channel string, log *slog.Logger, t Timing, carry func(context.Context, *moderator.Job) (done bool, wait time.Duration)) *KeyedQueue[*moderator.Job] {
	return NewKeyedQueue(Work[*moderator.Job]{
		Key: func(j *moderator.Job) (id, line string) { return attempt(j.Ref), j.Event.Channel },
		Find: func(ctx context.Context) (found []*moderator.Job, err error) {
			entries, err := l.PendingOrAbandoned(ctx, on, channel, event.EgressEvent)
			for _, e := range entries {
				if decoded := decode(ctx, e, log); decoded != nil && moderation.IsCommand(decoded) {
					found = append(found, &moderator.Job{Ref: e.Ref(), Event: decoded, Begun: e.State == delivery.Claimed})
				}
			}
			return found, err
		},
		Do: carry, Log: log, Timing: t,
	})
}
