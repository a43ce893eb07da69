package enrichment

import (
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

// Who may have something done to people or to what they said ([moderation.Type]):
//
//   - who has one of these roles by hand: an operator vouches for them, everywhere;
//   - who has one of them from a platform, in the channel that they speak in, and by what the platform says with this very
//     event. The document will not do: it keeps what the platform said last, wherever that was, and a moderator of one
//     channel is none of another;
//   - a rule, by what its operator wrote into its condition.
var moderatorRoles = []string{roleBroadcaster, roleModerator}

// stepAction is the step of an action that an event asks for, and with a colon and its id that of a rule's.
const stepAction = "action"

// permissionMark stands before the right by which somebody was allowed to have something done, among the ids of the rules
// that held: a document's id holds no slash. So a redelivery is allowed what the first delivery was, although the role
// may be lost since.
const permissionMark = "moderation/"

// authorization is what becomes of an event that asks for an action by itself. The zero value is one that asks for none.
type authorization struct {
	command *moderation.Command
	refused *deadletter.Error
}

// refusal is why it is not done; nil if it is, or if nothing was asked for.
func (r authorization) refusal() error {
	if r.refused == nil {
		return nil
	}
	return r.refused
}

// marks is what is remembered of it; empty for nothing.
func (r authorization) marks() []string {
	if r.command == nil {
		return nil
	}
	return []string{permissionMark + r.command.By.Right}
}

// authorize decides whether a user may have done what an event asks for. held is what was remembered of the event, if it was
// counted before. One that was refused then is decided anew, so that an operator can give the role and redrive it.
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
		return forbidden("%s is no moderator of %s: it takes one of the roles %s, given by hand, or by %s in that channel itself",
			e.UserID, a.Channel, strings.Join(moderatorRoles, " and "), a.Platform())
	}
	return granted(a, e, right)
}

func granted(a moderation.Action, e *event.Event, right string) authorization {
	return authorization{command: &moderation.Command{Action: a, By: requester(e, "", right)}}
}

// authorizeUnmatched is asks for an event of nobody.
func authorizeUnmatched(e *event.Event) authorization {
	if _, none, r := parseAction(e); none || r.refused != nil {
		return r
	}
	return forbidden("nobody known asks for it")
}

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

// permission is why somebody may have something done, or empty if they may not.
func permission(a moderation.Action, e *event.Event, doc store.User, f attributes) string {
	given := manualRoles(doc.Roles, doc.RolesMeta)
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

// commands are what rules do, and what somebody asked for who may. Each is a delivery of its own.
func (d decision) commands() []rule.Relay {
	var all []rule.Relay
	if d.authorization.command != nil {
		all = append(all, rule.Relay{Step: stepAction, Event: d.authorization.command.Event(d.event)})
	}
	for _, a := range d.outcome.Applied {
		if a.Action != nil {
			o := moderation.Command{Action: *a.Action, By: requester(d.event, a.ID, "rule "+a.ID)}
			all = append(all, rule.Relay{Step: stepAction + ":" + a.ID, Event: o.Event(d.event)})
		}
	}
	return all
}
