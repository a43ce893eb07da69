package moderation

import (
	"strconv"

	"github.com/go-json-experiment/json"

	"parley.internal/shared/event"
)

// Command is an action that may be carried out: the payload of an egress event of the type [Type].
type Command struct {
	Action
	By Requester `json:"askedBy"`
}

// Requester is who asked for an action, where, and why they may.
type Requester struct {
	UserID  string   `json:"userId,omitzero" firestore:"userId,omitempty"` // empty where a rule acts on what nobody known did
	Roles   []string `json:"roles,omitzero" firestore:"roles,omitempty"`   // all that they had then, whoever gave them
	Channel string   `json:"channel,omitzero" firestore:"channel,omitempty"`
	Source  string   `json:"source,omitzero" firestore:"source,omitempty"` // of the event: ingress.twitch, api-gateway
	Rule    string   `json:"rule,omitzero" firestore:"rule,omitempty"`     // the id of the rule that acts; empty for who asked themselves
	Right   string   `json:"right" firestore:"right"`                      // why they may: "moderator by hand"
}

// IsCommand reports whether an egress event is an order.
func IsCommand(e *event.Event) bool {
	return e.Type == Type && e.Egress != nil && e.Egress.Type == event.EgressEvent
}

// Event makes the egress event of an order out of the event that asked for it, which stays as it is.
func (o Command) Event(asked *event.Event) *event.Event {
	out := asked.Clone()
	out.Type, out.Channel, out.Payload = Type, o.Channel, event.Raw(o)
	out.Egress = &event.Egress{Destination: string(o.Platform()), Type: event.EgressEvent}
	out.Annotations, out.Candidates = nil, nil // what others made of what was said
	return out
}

// Read finds the order in an egress event. What is wrong is told as [Parse] does.
func Read(e *event.Event) (Command, error) {
	var o Command
	if err := json.Unmarshal(e.Payload, &o); err != nil {
		return Command{}, &event.FieldError{Field: "payload", Reason: "not an order"}
	}
	f := Fields{Action: string(o.Kind), Channel: o.Channel, UserID: o.User.String(), Login: o.Login, MessageID: o.MessageID, Reason: o.Reason}
	if o.Seconds != 0 {
		f.DurationSeconds = strconv.Itoa(o.Seconds)
	}
	var p problems
	o.Action = p.action(f)
	if o.By.Right == "" {
		p.bad("askedBy.right", "missing: nobody has allowed it")
	}
	return o, p.join("payload.")
}
