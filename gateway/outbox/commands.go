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

// NewCommands makes the queue of moderation commands for a channel of a platform, or for all channels if channel is
// empty. Commands for the same channel are executed in order. execute calls [moderator.Executor.Execute] with the
// platform. The queue also finds commands claimed by an instance that crashed.
//
// Commands have their own queue beside the [Dispatcher], because a ban must not wait behind answers delayed by the
// platform's limits. So a command has no fixed order among the answers.
func NewCommands(l *delivery.Ledger, on identity.Platform, channel string, log *slog.Logger, t Timing, execute func(context.Context, *moderator.Job) (done bool, wait time.Duration)) *KeyedQueue[*moderator.Job] {
	return newKeyedQueue(work[*moderator.Job]{
		Key: func(j *moderator.Job) (id, key string) { return jobID(j.Ref), j.Event.Channel },
		Find: func(ctx context.Context) (found []*moderator.Job, err error) {
			entries, err := l.PendingOrAbandoned(ctx, on, channel, event.EgressEvent)
			for _, e := range entries {
				if decoded := decode(ctx, e, log); decoded != nil && moderation.IsCommand(decoded) {
					found = append(found, &moderator.Job{Job: delivery.Job{Ref: e.Ref(), Begun: e.State == delivery.Claimed}, Event: decoded})
				}
			}
			return found, err
		},
		Do: execute, Log: log, Timing: t,
	})
}
