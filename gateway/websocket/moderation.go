package websocket

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"parley.internal/shared/bus"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/event"
	"parley.internal/shared/moderation"
	"parley.internal/shared/store"
	"parley.internal/shared/topology"
)

// forbiddenMessage is the message of [ErrForbidden].
var forbiddenMessage = "moderation actions need the role " + strings.Join(moderation.Roles, " or ") + ", given by an operator"

// mayModerate reports whether the gateway publishes a user's requests for moderation actions. A client's message comes
// from no channel of a platform, so only a role given by hand can permit an action, and such a role counts in every
// channel. The enrichment authorizes each published request again, by the current document.
func mayModerate(u store.User) bool { return moderation.PermittedRole(u.ManualRoles()) != "" }

// permitted reports whether a message may be published. The answer is as old as the cached account of the connection, and
// costs no read.
func (c *conn) permitted(in inbound) bool {
	return in.kind != moderation.Type || c.moderator.Load()
}

// forbid refuses a request for a moderation action. Each refusal is counted (metric frames_refused_total). The first
// refusal of the user in an hour also becomes a dead letter, with the event of the request. After an error of the bus, the
// user's next request is recorded instead.
func (c *conn) forbid(ctx context.Context, in inbound, e *event.Event) {
	c.refuse(&frameError{code: ErrForbidden, message: forbiddenMessage, id: in.id})
	why := deadletter.Hourly(deadletter.Forbidden, fmt.Errorf("%s: %s", c.userID, forbiddenMessage), c.userID, c.server.now())
	if !c.limits.beginRecord(why.ID) {
		return
	}
	if err := c.server.publisher.DeadLetter(ctx, topology.Ingress, bus.Outgoing{Event: e}, why); err != nil {
		if !errors.Is(err, event.ErrInvalid) { // otherwise, the next request would fail, too
			c.limits.cancelRecord()
		}
		c.log.WarnContext(ctx, "recording a refused moderation request failed", "error", err, "correlationId", e.CorrelationID)
		return
	}
	c.log.WarnContext(ctx, "moderation request refused", "correlationId", e.CorrelationID, "deadLetter", why.ID)
}
