package enrichment

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"parley.internal/functions/enrichment/rule"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/moderation"
	"parley.internal/shared/store"
)

// moderatorRoles are the roles with permission for moderation actions ([moderation.Type]):
//
//   - A manual role, given by an operator, grants permission in every channel.
//   - A role given by a platform grants permission in the channel of the event, and only if this very event carries the
//     role. The document is not enough: a role stored there may have been revoked since.
//
// Rules need no role: the rule's condition, written by an operator, decides alone.
var moderatorRoles = []string{roleBroadcaster, roleModerator}

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
func (d decision) refusal() error {
	reason := deadletter.InvalidEvent
	var errs []error
	if r := d.authorization.refused; r != nil {
		reason, errs = r.Reason, append(errs, r.Err)
	}
	for _, f := range d.outcome.Failed {
		if f.LostAction {
			errs = append(errs, fmt.Errorf("rule %s: %w", f.ID, f.Err))
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return deadletter.New(reason, errors.Join(errs...))
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
			e.UserID, a.Channel, strings.Join(moderatorRoles, ", "), a.Platform())
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

// permission returns the role that permits the action, with its origin, or empty for no permission.
func permission(a moderation.Action, e *event.Event, doc store.User, f attributes) string {
	given := doc.ManualRoles()
	for _, role := range moderatorRoles {
		if slices.Contains(given, role) {
			return role + " by hand"
		}
	}
	if !f.authoritative || !f.hasRoles || f.platform != a.Platform() || identity.PlatformOf(e.Source) != a.Platform() || e.Channel != a.Channel {
		return ""
	}
	for _, role := range moderatorRoles {
		if slices.Contains(f.roles, role) {
			return role + " of " + a.Channel
		}
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
