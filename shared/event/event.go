// Package event is the one message that travels between Parley's parts: what somebody said or did, who they are, what
// was made of it, and where the answer goes. On the wire it is a flat JSON object, version "2", published as a JSON
// Schema beside this file (schema.json).
//
// Members that this version does not know survive a round trip, at every level, so that a newer producer and a newer
// consumer can talk through older parts. The older nested form (version 1, under "envelope") is read and lifted; it is
// never written.
package event

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Version is the wire version that this package writes.
const Version = "2"

// The event types that Parley itself produces or acts on. A type is an open set: others pass through.
const (
	TypeChatMessage = "chat.message"           // somebody said something
	TypeDeadLetter  = "internal.deadletter.v1" // payload is a dead letter
)

// Event is one happening on its way through the pipeline. V, Source, CorrelationID and Type are required; everything
// else is optional.
type Event struct {
	V             string `json:"v" jsonschema:"required,enum=2,description=Wire version."`
	Source        string `json:"source" jsonschema:"required,description=What produced the event: api-gateway or ingress.twitch for example."`
	CorrelationID string `json:"correlationId" jsonschema:"required,description=One id for everything that follows from one happening. The same happening seen twice has the same id."`
	Type          string `json:"type" jsonschema:"required,description=What happened: chat.message for example."`

	TraceID   string         `json:"traceId,omitzero" jsonschema:"description=W3C trace id: 32 lower-case hexadecimal digits."`
	Channel   string         `json:"channel,omitzero" jsonschema:"description=The room or channel that it happened in."`
	UserID    string         `json:"userId,omitzero" jsonschema:"description=Who it is about or who it goes to: platform:id."`
	ReplyTo   string         `json:"replyTo,omitzero" jsonschema:"description=The platform's id of the message that this answers."`
	TimeoutAt time.Time      `json:"timeoutAt,omitzero" jsonschema:"description=After this time nobody wants an answer any more."`
	Payload   jsontext.Value `json:"payload,omitzero" jsonschema:"description=What the type defines."`
	Metadata  jsontext.Value `json:"metadata,omitzero" jsonschema:"description=What the producer wants to have back."`

	User          *User          `json:"user,omitzero"`
	Auth          *Auth          `json:"auth,omitzero"`
	Message       *Message       `json:"message,omitzero"`
	ExternalEvent *ExternalEvent `json:"externalEvent,omitzero"`
	Egress        *Egress        `json:"egress,omitzero"`
	RoutingSlip   []Step         `json:"routingSlip,omitzero"`
	Annotations   []Annotation   `json:"annotations,omitzero"`
	Candidates    []Candidate    `json:"candidates,omitzero"`
	Errors        []Error        `json:"errors,omitzero"`
	QoS           *QoS           `json:"qos,omitzero"`

	Extra jsontext.Value `json:",embed"` // members that this version does not know
}

// User is the person that the event is about, as the enrichment found them.
type User struct {
	ID          string              `json:"id,omitzero" jsonschema:"description=platform:id"`
	Email       string              `json:"email,omitzero"`
	DisplayName string              `json:"displayName,omitzero"`
	Roles       []string            `json:"roles,omitzero"`
	Status      string              `json:"status,omitzero"`
	Notes       string              `json:"notes,omitzero"`
	Tags        []string            `json:"tags,omitzero"`
	Profile     map[string]string   `json:"profile,omitzero"`
	RolesMeta   map[string][]string `json:"rolesMeta,omitzero" jsonschema:"description=Which source gave which roles."`
	Extra       jsontext.Value      `json:",embed"`
}

// Auth tells how the event was tied to a known person.
type Auth struct {
	V        string         `json:"v,omitzero"`
	Provider string         `json:"provider,omitzero" jsonschema:"description=The platform that knows the person."`
	Method   string         `json:"method,omitzero" jsonschema:"description=Who tied it: enrichment."`
	Matched  bool           `json:"matched" jsonschema:"description=Whether a person was found."`
	UserRef  string         `json:"userRef,omitzero" jsonschema:"description=users/platform:id"`
	Identity string         `json:"identity,omitzero" jsonschema:"description=The platform:id by which the person is here where an operator linked that to another person's; userId is the same unless the answer goes to everybody."`
	At       time.Time      `json:"at,omitzero"`
	Extra    jsontext.Value `json:",embed"`
}

// MethodEnrichment is Auth.Method where the enrichment tied the event to a person.
const MethodEnrichment = "enrichment"

// Message is something that was said.
type Message struct {
	ID                 string         `json:"id,omitzero"`
	Role               string         `json:"role,omitzero" jsonschema:"description=user or assistant."`
	Text               string         `json:"text,omitzero"`
	Language           string         `json:"language,omitzero" jsonschema:"description=BCP 47 language tag."`
	RawPlatformPayload jsontext.Value `json:"rawPlatformPayload,omitzero" jsonschema:"description=The message as the platform gave it."`
	Extra              jsontext.Value `json:",embed"`
}

// RoleUser is Message.Role of what a person said; such a text is never sent as an answer.
const RoleUser = "user"

// ExternalEvent is something that a platform told of that nobody said: a follow, a raid.
type ExternalEvent struct {
	ID         string         `json:"id,omitzero"`
	Source     string         `json:"source,omitzero"`
	Kind       string         `json:"kind,omitzero"`
	Version    string         `json:"version,omitzero"`
	CreatedAt  time.Time      `json:"createdAt,omitzero"`
	Payload    jsontext.Value `json:"payload,omitzero"`
	RawPayload jsontext.Value `json:"rawPayload,omitzero"`
	Extra      jsontext.Value `json:",embed"`
}

// Egress says where an answer goes and as what.
type Egress struct {
	Destination string         `json:"destination,omitzero" jsonschema:"description=api-gateway or twitch or discord or another platform."`
	Type        string         `json:"type,omitzero" jsonschema:"enum=chat,enum=dm,enum=event"`
	To          []Address      `json:"to,omitzero" jsonschema:"maxItems=8,description=Places that the answer goes to instead; each is a delivery of its own."`
	Relay       *Relay         `json:"relay,omitzero" jsonschema:"description=Stands in what a rule sent to another place than where it came from; such an event is never relayed again."`
	Extra       jsontext.Value `json:",embed"`
}

// MaxAddresses is the most places that one answer can go to.
const MaxAddresses = 8

// Address is where people talk: a channel of a platform.
type Address struct {
	Destination string         `json:"destination,omitzero" jsonschema:"description=api-gateway or twitch or discord."`
	Channel     string         `json:"channel,omitzero" jsonschema:"description=twitch:<login> or discord:<channel id> or the name of a web room."`
	Extra       jsontext.Value `json:",embed"`
}

// Same reports whether two places are one.
func (p Address) Same(q Address) bool {
	return p.Destination == q.Destination && p.Channel == q.Channel
}

// Relay marks what was sent to another place than where it came from.
type Relay struct {
	Source  string         `json:"source,omitzero" jsonschema:"description=The source of the event that it was made of."`
	Channel string         `json:"channel,omitzero" jsonschema:"description=The channel of the event that it was made of."`
	Extra   jsontext.Value `json:",embed"`
}

// The ways in which an answer can be given: Egress.Type. An empty type is a chat.
const (
	EgressChat  = "chat"  // a line where the talk is
	EgressDM    = "dm"    // a line to one person alone
	EgressEvent = "event" // no line: the payload, for a program to read
)

// Step is one entry of the routing slip: a part that the event has been or has to go through.
type Step struct {
	ID          string            `json:"id,omitzero"`
	V           string            `json:"v,omitzero"`
	Status      string            `json:"status,omitzero" jsonschema:"enum=PENDING,enum=OK,enum=ERROR,enum=SKIP"`
	Attempt     int               `json:"attempt,omitzero"`
	MaxAttempts int               `json:"maxAttempts,omitzero"`
	NextTopic   string            `json:"nextTopic,omitzero"`
	Attributes  map[string]string `json:"attributes,omitzero"`
	StartedAt   time.Time         `json:"startedAt,omitzero"`
	EndedAt     time.Time         `json:"endedAt,omitzero"`
	Error       *Error            `json:"error,omitzero"`
	Notes       string            `json:"notes,omitzero"`
	Extra       jsontext.Value    `json:",embed"`
}

// The states of a routing slip's step.
const (
	StepPending = "PENDING"
	StepOK      = "OK"
	StepError   = "ERROR"
	StepSkip    = "SKIP"
)

// Error is what went wrong in a step.
type Error struct {
	Code      string         `json:"code,omitzero"`
	Message   string         `json:"message,omitzero"`
	Retryable bool           `json:"retryable,omitzero"`
	Extra     jsontext.Value `json:",embed"`
}

// Annotation is something that a part noted about the event.
type Annotation struct {
	ID         string         `json:"id,omitzero"`
	Kind       string         `json:"kind,omitzero" jsonschema:"description=personality for example."`
	Source     string         `json:"source,omitzero"`
	CreatedAt  time.Time      `json:"createdAt,omitzero"`
	Confidence *float64       `json:"confidence,omitzero"`
	Label      string         `json:"label,omitzero"`
	Value      string         `json:"value,omitzero"`
	Score      *float64       `json:"score,omitzero" jsonschema:"description=The lower is taken first; a missing one is last."`
	Payload    jsontext.Value `json:"payload,omitzero"`
	Extra      jsontext.Value `json:",embed"`
}

// KindPersonality is the Annotation.Kind that shapes how the answer is worded.
const KindPersonality = "personality"

// Candidate is a possible answer. The lower priority wins.
type Candidate struct {
	ID         string         `json:"id,omitzero"`
	Kind       string         `json:"kind,omitzero"`
	Source     string         `json:"source,omitzero"`
	CreatedAt  time.Time      `json:"createdAt,omitzero"`
	Status     string         `json:"status,omitzero" jsonschema:"enum=proposed,enum=selected,enum=superseded,enum=rejected"`
	Priority   *float64       `json:"priority,omitzero" jsonschema:"description=The lower wins; a missing one is worst."`
	Confidence *float64       `json:"confidence,omitzero" jsonschema:"description=The higher wins among equal priorities; a missing one is worst."`
	Text       string         `json:"text,omitzero"`
	Format     string         `json:"format,omitzero"`
	Reason     string         `json:"reason,omitzero"`
	Metadata   jsontext.Value `json:"metadata,omitzero"`
	Extra      jsontext.Value `json:",embed"`
}

// The states of a candidate. Only proposed and selected ones can be sent.
const (
	CandidateProposed   = "proposed"
	CandidateSelected   = "selected"
	CandidateSuperseded = "superseded"
	CandidateRejected   = "rejected"
)

// QoS says how much an answer is worth waiting for.
type QoS struct {
	TTL   int            `json:"ttl,omitzero" jsonschema:"minimum=0,description=Seconds within which the answer has to be delivered; 0 leaves it to the configuration."`
	Extra jsontext.Value `json:",embed"`
}

// OrderingKey groups the events that must stay in order: those of one user in one channel, and those that go to a
// whole channel. It is empty for an event of neither, which is ordered with nothing.
func (e *Event) OrderingKey() string {
	if e.Channel == "" && e.UserID == "" {
		return ""
	}
	return e.Channel + "|" + e.UserID
}

// Next is the id of the first step of the routing slip that is still to be done, or empty.
func (e *Event) Next() string {
	for _, s := range e.RoutingSlip {
		if s.Status == StepPending {
			return s.ID
		}
	}
	return ""
}

// Finish records how the step with this id ended: in its pending entry of the routing slip where there is one, in a
// new entry otherwise. A nil failure is [StepOK].
func (e *Event) Finish(id string, started, ended time.Time, failure *Error) {
	i := len(e.RoutingSlip)
	for j, s := range e.RoutingSlip {
		if s.ID == id && s.Status == StepPending {
			i = j
			break
		}
	}
	if i == len(e.RoutingSlip) {
		e.RoutingSlip = append(e.RoutingSlip, Step{ID: id})
	}
	s := &e.RoutingSlip[i]
	s.Status, s.Attempt, s.StartedAt, s.EndedAt, s.Error = StepOK, s.Attempt+1, started, ended, failure
	if failure != nil {
		s.Status = StepError
	}
}

// Clone is a copy that shares nothing that this package changes: its slices and sub-objects can be appended to and
// set without touching e. Raw JSON values are shared; they are never changed in place.
func (e *Event) Clone() *Event {
	c := *e
	c.User = clone(e.User)
	c.Auth = clone(e.Auth)
	c.Message = clone(e.Message)
	c.ExternalEvent = clone(e.ExternalEvent)
	c.Egress = clone(e.Egress)
	c.QoS = clone(e.QoS)
	c.RoutingSlip = append([]Step(nil), e.RoutingSlip...)
	c.Annotations = append([]Annotation(nil), e.Annotations...)
	c.Candidates = append([]Candidate(nil), e.Candidates...)
	c.Errors = append([]Error(nil), e.Errors...)
	return &c
}

func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}
