package rule

import (
	"maps"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"

	"parley.internal/shared/event"
)

// view is the form of an event visible to expressions. Every member exists, if necessary with its zero value. Therefore
// view is a separate type without pointers, not event.Event.
type view struct {
	V             string        `cel:"v"`
	Source        string        `cel:"source"`
	CorrelationID string        `cel:"correlationId"`
	Type          string        `cel:"type"`
	TraceID       string        `cel:"traceId"`
	Channel       string        `cel:"channel"`
	UserID        string        `cel:"userId"`
	ReplyTo       string        `cel:"replyTo"`
	TimeoutAt     time.Time     `cel:"timeoutAt"`
	Payload       any           `cel:"payload"`
	Metadata      any           `cel:"metadata"`
	User          user          `cel:"user"`
	Auth          auth          `cel:"auth"`
	Message       message       `cel:"message"`
	ExternalEvent externalEvent `cel:"externalEvent"`
	Egress        egress        `cel:"egress"`
	RoutingSlip   []step        `cel:"routingSlip"`
	Annotations   []annotation  `cel:"annotations"`
	Candidates    []candidate   `cel:"candidates"`
	Errors        []failure     `cel:"errors"`
	QoS           qos           `cel:"qos"`
}

type user struct {
	ID          string              `cel:"id"`
	Email       string              `cel:"email"`
	DisplayName string              `cel:"displayName"`
	Roles       []string            `cel:"roles"`
	Status      string              `cel:"status"`
	Notes       string              `cel:"notes"`
	Tags        []string            `cel:"tags"`
	Profile     map[string]string   `cel:"profile"`
	RolesMeta   map[string][]string `cel:"rolesMeta"`
	RolesIn     map[string][]string `cel:"rolesIn"` // always with the channel of the event
}

type auth struct {
	V        string    `cel:"v"`
	Provider string    `cel:"provider"`
	Method   string    `cel:"method"`
	Matched  bool      `cel:"matched"`
	UserRef  string    `cel:"userRef"`
	At       time.Time `cel:"at"`
}

type message struct {
	ID                 string `cel:"id"`
	Role               string `cel:"role"`
	Text               string `cel:"text"`
	Language           string `cel:"language"`
	MentionsBot        bool   `cel:"mentionsBot"`
	RawPlatformPayload any    `cel:"rawPlatformPayload"`
}

type externalEvent struct {
	ID         string    `cel:"id"`
	Source     string    `cel:"source"`
	Kind       string    `cel:"kind"`
	Version    string    `cel:"version"`
	CreatedAt  time.Time `cel:"createdAt"`
	Payload    any       `cel:"payload"`
	RawPayload any       `cel:"rawPayload"`
}

type egress struct {
	Destination string `cel:"destination"`
	Type        string `cel:"type"`
}

type step struct {
	ID     string `cel:"id"`
	Status string `cel:"status"`
}

type annotation struct {
	ID     string `cel:"id"`
	Kind   string `cel:"kind"`
	Source string `cel:"source"`
	Label  string `cel:"label"`
	Value  string `cel:"value"`
}

type candidate struct {
	ID     string `cel:"id"`
	Kind   string `cel:"kind"`
	Source string `cel:"source"`
	Status string `cel:"status"`
	Text   string `cel:"text"`
}

type failure struct {
	Code      string `cel:"code"`
	Message   string `cel:"message"`
	Retryable bool   `cel:"retryable"`
}

type qos struct {
	TTL int `cel:"ttl"`
}

// dynamicFields gives the fields of the Go type any the CEL type dyn. The library knows no CEL type for them.
type dynamicFields struct{ types.Provider }

// FindStructFieldType adds the dynamic fields to those of the library.
func (p dynamicFields) FindStructFieldType(structType, field string) (*types.FieldType, bool) {
	if t, ok := p.Provider.FindStructFieldType(structType, field); ok {
		return t, true
	}
	switch structType + "." + field {
	case "rule.view.payload", "rule.view.metadata", "rule.message.rawPlatformPayload", "rule.externalEvent.payload", "rule.externalEvent.rawPayload":
		return &types.FieldType{Type: types.DynType}, true
	}
	return nil, false
}

// withDynamicFields installs dynamicFields. It must follow ext.NativeTypes.
func withDynamicFields(env *cel.Env) (*cel.Env, error) {
	return cel.CustomTypeProvider(dynamicFields{env.CELTypeProvider()})(env)
}

// newView converts an event. Raw JSON members cost the most to convert, so they are empty unless raw is set. n selects
// the types of their numbers.
func newView(e *event.Event, raw bool, n numbers) *view {
	dynamic := func(v jsontext.Value) any {
		if !raw {
			return empty
		}
		return n.decode(v)
	}
	v := &view{
		V: e.V, Source: e.Source, CorrelationID: e.CorrelationID, Type: e.Type, TraceID: e.TraceID, Channel: e.Channel,
		UserID: e.UserID, ReplyTo: e.ReplyTo, TimeoutAt: e.TimeoutAt, Payload: dynamic(e.Payload), Metadata: dynamic(e.Metadata),
		Message: message{RawPlatformPayload: empty}, ExternalEvent: externalEvent{Payload: empty, RawPayload: empty},
	}
	if u := e.User; u != nil {
		v.User = user{
			ID: u.ID, Email: u.Email, DisplayName: u.DisplayName, Roles: u.Roles, Status: u.Status, Notes: u.Notes, Tags: u.Tags,
			Profile: u.Profile, RolesMeta: u.RolesMeta, RolesIn: u.RolesIn,
		}
	}
	if _, ok := v.User.RolesIn[e.Channel]; !ok {
		v.User.RolesIn = maps.Clone(v.User.RolesIn)
		if v.User.RolesIn == nil {
			v.User.RolesIn = map[string][]string{}
		}
		v.User.RolesIn[e.Channel] = []string{}
	}
	if a := e.Auth; a != nil {
		v.Auth = auth{V: a.V, Provider: a.Provider, Method: a.Method, Matched: a.Matched, UserRef: a.UserRef, At: a.At}
	}
	if m := e.Message; m != nil {
		v.Message = message{ID: m.ID, Role: m.Role, Text: m.Text, Language: m.Language, MentionsBot: m.MentionsBot, RawPlatformPayload: dynamic(m.RawPlatformPayload)}
	}
	if x := e.ExternalEvent; x != nil {
		v.ExternalEvent = externalEvent{
			ID: x.ID, Source: x.Source, Kind: x.Kind, Version: x.Version, CreatedAt: x.CreatedAt,
			Payload: dynamic(x.Payload), RawPayload: dynamic(x.RawPayload),
		}
	}
	if g := e.Egress; g != nil {
		v.Egress = egress{Destination: g.Destination, Type: g.Type}
	}
	if q := e.QoS; q != nil {
		v.QoS = qos{TTL: q.TTL}
	}
	for _, s := range e.RoutingSlip {
		v.RoutingSlip = append(v.RoutingSlip, step{ID: s.ID, Status: s.Status})
	}
	for _, a := range e.Annotations {
		v.Annotations = append(v.Annotations, annotation{ID: a.ID, Kind: a.Kind, Source: a.Source, Label: a.Label, Value: a.Value})
	}
	for _, c := range e.Candidates {
		v.Candidates = append(v.Candidates, candidate{ID: c.ID, Kind: c.Kind, Source: c.Source, Status: c.Status, Text: c.Text})
	}
	for _, f := range e.Errors {
		v.Errors = append(v.Errors, failure{Code: f.Code, Message: f.Message, Retryable: f.Retryable})
	}
	return v
}
