package outbox

import (
	"context"
	"log/slog"
	"time"

	"parley.internal/shared/egress"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/moderation"
)

// NewOrders makes the lines of the moderators' orders for one channel of a platform, or for all of them if channel is
// empty: a line for each channel. carry does what [moderation.Enforcer.Carry] does. Orders are found in the ledger also
// where an instance left them that died in the midst of it.
//
// They work beside a speaker, not in its lines: who has to be silenced is not to be waited for behind what a platform's
// limits hold up. So an action keeps no order with what is said.
func NewOrders(l *egress.Ledger, on identity.Platform, channel string, log *slog.Logger, t Timing, carry func(context.Context, *moderation.Job) (done bool, wait time.Duration)) *Lines[*moderation.Job] {
	return NewLines(Work[*moderation.Job]{
		Key: func(j *moderation.Job) (id, line string) { return attempt(j.Ref), j.Event.Channel },
		Find: func(ctx context.Context) (found []*moderation.Job, err error) {
			entries, err := l.Repeatable(ctx, on, channel, event.EgressEvent)
			for _, e := range entries {
				if decoded := decode(ctx, e, log); decoded != nil && moderation.IsOrder(decoded) {
					found = append(found, &moderation.Job{Ref: e.Ref(), Event: decoded, Begun: e.State == egress.Claimed})
				}
			}
			return found, err
		},
		Do: carry, Log: log, Timing: t,
	})
}
