package enrichment

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"parley.internal/functions/enrichment/rule"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/moderation"
	"parley.internal/shared/store"
)

// stepAction is the step of an action requested by an event. A rule's action has the step action:<rule id>.
const stepAction = "action"

// permissionMark is the prefix of a granted permission, stored among the ids of the rules that held. No rule id has this
// prefix, because a document id holds no slash. A redelivery finds the stored permission, and so is authorized even if
// the role was revoked meanwhile.
const permissionMark = "moderation/"

// authorization is the decision about an action requested by an event. The zero value means that no action is requested.
type authorization struct {
	command *moderation.Command
	refused *deadletter.Error
}

// refusal returns the dead letter of the event: for a refused action, and for actions of rules that can't be made. It
// returns nil if there is none of both.
//
// Anyone can send requests without permission, so a user's forbidden requests of an hour share one dead letter. With a
// lost action of a rule, the event has a dead letter of its own.
func (d decision) refusal() error {
	var lost []error
	for _, f := range d.outcome.Failed {
		if f.LostAction {
			lost = append(lost, fmt.Errorf("rule %s: %w", f.ID, f.Err))
		}
	}
	switch r := d.authorization.refused; {
	case r != nil && r.Reason == deadletter.Forbidden && len(lost) == 0:
		sender := ""
		if d.event.Auth.Matched {
			sender = d.event.UserID
		}
		return deadletter.Hourly(r.Reason, r.Err, sender, d.at)
	case r != nil:
		return deadletter.New(r.Reason, errors.Join(append([]error{r.Err}, lost...)...))
	case len(lost) > 0:
		return deadletter.New(deadletter.InvalidEvent, errors.Join(lost...))
	}
	return nil
}

// logRefusal logs a request without permission. The number of these lines is the number of refused requests: see
// refused_requests in terraform/monitoring.tf.
func (f *Function) logRefusal(ctx context.Context, e *event.Event, err error) {
	if dead, ok := errors.AsType[*deadletter.Error](err); ok && dead.Reason == deadletter.Forbidden {
		f.log.WarnContext(ctx, "moderation request refused", "error", dead.Err, "user", e.UserID, "source", e.Source, "correlationId", e.CorrelationID)
	}
}

// marks returns the entry to store for a granted action, if any.
func (r authorization) marks() []string {
	if r.command == nil {
		return nil
	}
	return []string{permissionMark + r.command.By.Right}
}

// authorize decides about the action requested by an event. For an event counted before, held is the stored list, and a
// permission in it is granted again. A refusal is not stored, so that an operator can give the role and redrive.
func authorize(e *event.Event, doc store.User, f attributes, held []string, excluded bool) authorization {
	a, none, r := parseAction(e)
	if none || r.refused != nil {
		return r
	}
	for _, mark := range held {
		if right, ok := strings.CutPrefix(mark, permissionMark); ok {
			return granted(a, e, right)
		}
	}
	right := permission(a, e, doc, f)
	switch {
	case excluded:
		return forbidden("%s is %s", e.UserID, doc.Status)
	case right == "":
		return forbidden("%s has no permission in %s: required is one of the roles %s, given manually or by %s in that channel",
			e.UserID, a.Channel, strings.Join(moderation.Roles, ", "), a.Platform())
	}
	return granted(a, e, right)
}

func granted(a moderation.Action, e *event.Event, right string) authorization {
	return authorization{command: &moderation.Command{Action: a, By: requester(e, "", right)}}
}

// authorizeUnmatched decides about an action requested by an event without a known user: always a refusal.
func authorizeUnmatched(e *event.Event) authorization {
	if _, none, r := parseAction(e); none || r.refused != nil {
		return r
	}
	return forbidden("the requesting user is unknown")
}

// parseAction reads the requested action. none reports that no action is requested. A malformed action is refused.
func parseAction(e *event.Event) (a moderation.Action, none bool, r authorization) {
	if e.Type != moderation.Type {
		return a, true, r
	}
	a, err := moderation.Parse(e.Payload, e.Channel)
	if err != nil {
		r.refused = deadletter.New(deadletter.InvalidEvent, err)
	}
	return a, false, r
}

func forbidden(format string, args ...any) authorization {
	return authorization{refused: deadletter.New(deadletter.Forbidden, fmt.Errorf(format, args...))}
}

// permission returns the role that permits the action, with its origin, or empty for no permission. [moderation.Roles]
// says which roles count where.
func permission(a moderation.Action, e *event.Event, doc store.User, f attributes) string {
	if role := moderation.PermittedRole(doc.ManualRoles()); role != "" {
		return role + " by hand"
	}
	if !f.authoritative || !f.hasRoles || f.platform != a.Platform() || identity.PlatformOf(e.Source) != a.Platform() || e.Channel != a.Channel {
		return ""
	}
	if role := moderation.PermittedRole(f.roles); role != "" {
		return role + " of " + a.Channel
	}
	return ""
}

func requester(e *event.Event, rule, right string) moderation.Requester {
	by := moderation.Requester{UserID: e.UserID, Channel: e.Channel, Source: e.Source, Rule: rule, Right: right}
	if e.User != nil {
		by.Roles = e.User.Roles
	}
	return by
}

// commands returns the granted action and the rules' actions. Each becomes a separate delivery.
func (d decision) commands() []rule.Relay {
	var all []rule.Relay
	if d.authorization.command != nil {
		all = append(all, rule.Relay{Step: stepAction, Event: d.authorization.command.Event(d.event)})
	}
	for _, a := range d.outcome.Applied {
		if a.Action != nil {
			c := moderation.Command{Action: *a.Action, By: requester(d.event, a.ID, "rule "+a.ID)}
			all = append(all, rule.Relay{Step: stepAction + ":" + a.ID, Event: c.Event(d.event)})
		}
	}
	return all
}
