package moderation

import (
	"strconv"

	"github.com/go-json-experiment/json"

	"parley.internal/shared/event"
)

// Command is an authorized action: the payload of an egress event of the type [Type].
type Command struct {
	Action
	By Requester `json:"askedBy"`
}

// Requester is the user or rule that requested an action, with the permission.
type Requester struct {
	UserID  string   `json:"userId,omitzero" firestore:"userId,omitempty"` // empty if a rule acts on an unknown user's event
	Roles   []string `json:"roles,omitzero" firestore:"roles,omitempty"`   // given by hand, or in the requester's channel, at that time
	Channel string   `json:"channel,omitzero" firestore:"channel,omitempty"`
	Source  string   `json:"source,omitzero" firestore:"source,omitempty"` // of the event: ingress.twitch, api-gateway
	Rule    string   `json:"rule,omitzero" firestore:"rule,omitempty"`     // the id of the rule; empty for a user's own request
	Right   string   `json:"right" firestore:"right"`                      // the permission: "moderator by hand"
}

// IsCommand reports whether an egress event is a command.
func IsCommand(e *event.Event) bool {
	return e.Type == Type && e.Egress != nil && e.Egress.Type == event.EgressEvent
}

// Event makes the command's egress event from the requesting event, which stays unchanged.
func (c Command) Event(asked *event.Event) *event.Event {
	out := asked.Clone()
	out.Type, out.Channel, out.Payload = Type, c.Channel, event.Raw(c)
	out.Egress = &event.Egress{Destination: string(c.Platform()), Type: event.EgressEvent}
	out.Annotations, out.Candidates = nil, nil // they belong to the requesting event
	return out
}

// Read reads the command in an egress event. Its errors are like those of [Parse].
func Read(e *event.Event) (Command, error) {
	var c Command
	if err := json.Unmarshal(e.Payload, &c); err != nil {
		return Command{}, &event.FieldError{Field: "payload", Reason: "not a command"}
	}
	f := Fields{Action: string(c.Kind), Channel: c.Channel, UserID: c.User.String(), Login: c.Login, MessageID: c.MessageID, Reason: c.Reason}
	if c.Seconds != 0 {
		f.DurationSeconds = strconv.Itoa(c.Seconds)
	}
	var p problems
	c.Action = p.action(f)
	if c.By.Right == "" {
		p.bad("askedBy.right", "missing: the command is not authorized")
	}
	return c, p.join("payload.")
}
