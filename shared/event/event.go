// Package event defines [Event], the message between all parts of Parley: a chat message or another platform event, its
// user, the results so far, and the destination of the answer. Start at [Event], [Decode] and [Encode]. On the wire an
// event is a flat JSON object, version "2", described by the JSON Schema in schema.json. The package knows no platform's
// payload and no transport.
//
// Members unknown to this version survive a round trip, at every level. So a newer producer and a newer consumer can
// communicate through older parts. The older nested form (version 1, under "envelope") is read and converted, but never
// written.
package event

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Version is the wire version written by this package.
const Version = "2"

// TypeChatMessage is the Type of a person's chat message. The set of types is open: unknown types pass through.
const TypeChatMessage = "chat.message"

// Event is one message of the pipeline. V, Source, CorrelationID and Type are required, all other fields are optional.
type Event struct {
	V             string `json:"v" jsonschema:"required,enum=2,description=Wire version."`
	Source        string `json:"source" jsonschema:"required,description=Producer of the event: api-gateway or ingress.twitch for example."`
	CorrelationID string `json:"correlationId" jsonschema:"required,description=Shared id of an original event and all later events caused by it. A duplicate of the original has the same id."`
	Type          string `json:"type" jsonschema:"required,description=Kind of event: chat.message for example."`

	TraceID   string         `json:"traceId,omitzero" jsonschema:"description=W3C trace id: 32 lower-case hexadecimal digits."`
	Channel   string         `json:"channel,omitzero" jsonschema:"description=Channel of the event."`
	UserID    string         `json:"userId,omitzero" jsonschema:"description=Sender of a message or recipient of an answer: platform:id."`
	ReplyTo   string         `json:"replyTo,omitzero" jsonschema:"description=The platform's id of the answered message."`
	TimeoutAt time.Time      `json:"timeoutAt,omitzero" jsonschema:"description=After this time no answer is sent."`
	Payload   jsontext.Value `json:"payload,omitzero" jsonschema:"description=Content defined by the type."`
	Metadata  jsontext.Value `json:"metadata,omitzero" jsonschema:"description=Data of the producer that comes back with the answer."`

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

	Extra jsontext.Value `json:",embed"` // members unknown to this version
}

// User is the person of the event, as found by the enrichment function.
type User struct {
	ID          string              `json:"id,omitzero" jsonschema:"description=platform:id"`
	Email       string              `json:"email,omitzero"`
	DisplayName string              `json:"displayName,omitzero"`
	Roles       []string            `json:"roles,omitzero" jsonschema:"description=Roles given by hand and roles given by the platform in the place of this event."`
	Status      string              `json:"status,omitzero"`
	Notes       string              `json:"notes,omitzero"`
	Tags        []string            `json:"tags,omitzero"`
	Profile     map[string]string   `json:"profile,omitzero"`
	RolesMeta   map[string][]string `json:"rolesMeta,omitzero" jsonschema:"description=The same roles by source: a platform or manual."`
	RolesIn     map[string][]string `json:"rolesIn,omitzero" jsonschema:"description=Roles given by a platform by place: twitch:<login> or discord:<guild id>; also by the channel of this event."`
	Extra       jsontext.Value      `json:",embed"`
}

// Auth describes the match between the event and a known person.
type Auth struct {
	V        string         `json:"v,omitzero"`
	Provider string         `json:"provider,omitzero" jsonschema:"description=The person's platform."`
	Method   string         `json:"method,omitzero" jsonschema:"description=The matching part: enrichment."`
	Matched  bool           `json:"matched" jsonschema:"description=Whether a person was found."`
	UserRef  string         `json:"userRef,omitzero" jsonschema:"description=users/platform:id"`
	Identity string         `json:"identity,omitzero" jsonschema:"description=The platform:id of the sender if an operator linked this id to another person. Equal to userId unless the answer goes to a whole channel."`
	At       time.Time      `json:"at,omitzero"`
	Extra    jsontext.Value `json:",embed"`
}

// MethodEnrichment is the Auth.Method of a match by the enrichment function.
const MethodEnrichment = "enrichment"

// Message is a chat message.
type Message struct {
	ID                 string         `json:"id,omitzero"`
	Role               string         `json:"role,omitzero" jsonschema:"description=user or assistant."`
	Text               string         `json:"text,omitzero"`
	Language           string         `json:"language,omitzero" jsonschema:"description=BCP 47 language tag."`
	MentionsBot        bool           `json:"mentionsBot,omitzero" jsonschema:"description=Whether the message addresses the bot: by a mention\\, a mention of the bot's role or a reply to the bot."`
	RawPlatformPayload jsontext.Value `json:"rawPlatformPayload,omitzero" jsonschema:"description=The message as received from the platform."`
	Extra              jsontext.Value `json:",embed"`
}

// RoleUser is the Message.Role of a person's message. Its text is never sent as an answer.
const RoleUser = "user"

// ExternalEvent is a platform event other than a message: a follow, a raid.
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

// Egress is the destination and the type of an answer.
type Egress struct {
	Destination string         `json:"destination,omitzero" jsonschema:"description=api-gateway or twitch or discord or another platform."`
	Type        string         `json:"type,omitzero" jsonschema:"enum=chat,enum=dm,enum=event"`
	To          []Address      `json:"to,omitzero" jsonschema:"maxItems=8,description=Addresses for the answer instead of destination; each is a separate delivery."`
	Relay       *Relay         `json:"relay,omitzero" jsonschema:"description=Marks a message relayed by a rule to another channel; never relayed again."`
	Extra       jsontext.Value `json:",embed"`
}

// MaxAddresses is the largest number of addresses of one answer.
const MaxAddresses = 8

// Address is a channel of a platform.
type Address struct {
	Destination string         `json:"destination,omitzero" jsonschema:"description=api-gateway or twitch or discord."`
	Channel     string         `json:"channel,omitzero" jsonschema:"description=twitch:<login> or discord:<channel id> or the name of a web room."`
	Extra       jsontext.Value `json:",embed"`
}

// Same reports whether two addresses are equal, apart from unknown members.
func (p Address) Same(q Address) bool {
	return p.Destination == q.Destination && p.Channel == q.Channel
}

// Relay marks a message relayed to another channel, with its origin.
type Relay struct {
	Source  string         `json:"source,omitzero" jsonschema:"description=Source of the original event."`
	Channel string         `json:"channel,omitzero" jsonschema:"description=Channel of the original event."`
	Extra   jsontext.Value `json:",embed"`
}

// The values of Egress.Type. Empty means chat.
const (
	EgressChat  = "chat"  // a message in the channel
	EgressDM    = "dm"    // a direct message to one user
	EgressEvent = "event" // no message: the payload, for a program
)

// Step is an entry of the routing slip: a finished or pending processing step.
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

// The states of a step.
const (
	StepPending = "PENDING"
	StepOK      = "OK"
	StepError   = "ERROR"
	StepSkip    = "SKIP"
)

// Error describes the failure of a step.
type Error struct {
	Code      string         `json:"code,omitzero"`
	Message   string         `json:"message,omitzero"`
	Retryable bool           `json:"retryable,omitzero"`
	Extra     jsontext.Value `json:",embed"`
}

// Annotation is a note about the event, added by a part of Parley.
type Annotation struct {
	ID         string         `json:"id,omitzero"`
	Kind       string         `json:"kind,omitzero" jsonschema:"description=personality for example."`
	Source     string         `json:"source,omitzero"`
	CreatedAt  time.Time      `json:"createdAt,omitzero"`
	Confidence *float64       `json:"confidence,omitzero"`
	Label      string         `json:"label,omitzero"`
	Value      string         `json:"value,omitzero"`
	Score      *float64       `json:"score,omitzero" jsonschema:"description=The lowest score comes first; a missing score comes last."`
	Payload    jsontext.Value `json:"payload,omitzero"`
	Extra      jsontext.Value `json:",embed"`
}

// KindPersonality is the Annotation.Kind of a personality for the answer.
const KindPersonality = "personality"

// Candidate is a possible answer. The lower priority wins.
type Candidate struct {
	ID         string         `json:"id,omitzero"`
	Kind       string         `json:"kind,omitzero"`
	Source     string         `json:"source,omitzero"`
	CreatedAt  time.Time      `json:"createdAt,omitzero"`
	Status     string         `json:"status,omitzero" jsonschema:"enum=proposed,enum=selected,enum=superseded,enum=rejected"`
	Priority   *float64       `json:"priority,omitzero" jsonschema:"description=The lowest priority wins; a missing priority is worst."`
	Confidence *float64       `json:"confidence,omitzero" jsonschema:"description=The highest confidence wins among equal priorities; a missing confidence is worst."`
	Text       string         `json:"text,omitzero"`
	Format     string         `json:"format,omitzero"`
	Reason     string         `json:"reason,omitzero"`
	Metadata   jsontext.Value `json:"metadata,omitzero"`
	Extra      jsontext.Value `json:",embed"`
}

// The states of a candidate. Only proposed and selected candidates can be sent.
const (
	CandidateProposed   = "proposed"
	CandidateSelected   = "selected"
	CandidateSuperseded = "superseded"
	CandidateRejected   = "rejected"
)

// QoS holds the time limit of an answer.
type QoS struct {
	TTL   int            `json:"ttl,omitzero" jsonschema:"minimum=0,description=Seconds until the delivery deadline; 0 for the configured default."`
	Extra jsontext.Value `json:",embed"`
}

// OrderingKey returns the Pub/Sub ordering key. Events of one user in one channel share a key, and so do events to a
// whole channel. The key is empty, for no ordering, if the event has neither channel nor user.
func (e *Event) OrderingKey() string {
	if e.Channel == "" && e.UserID == "" {
		return ""
	}
	return e.Channel + "|" + e.UserID
}

// Next returns the id of the first pending step, or empty.
func (e *Event) Next() string {
	for _, s := range e.RoutingSlip {
		if s.Status == StepPending {
			return s.ID
		}
	}
	return ""
}

// Finish records the end of a step in its pending entry of the routing slip, or in a new entry if none is pending. A nil
// failure means [StepOK].
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

// Clone returns a copy with its own slices and sub-objects: appending to a slice or setting a field of the copy does not
// change e. Both events share the raw JSON values, because these values are never changed in place.
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
