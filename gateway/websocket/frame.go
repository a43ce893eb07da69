package websocket

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"parley.internal/shared/answer"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/moderation"
)

// The types of the frames that this package defines. A client sends the first four, and any other type outside of the
// namespaces chat, room, connection and internal; the gateway sends the rest, and the types of egress events.
const (
	TypeSend     = "chat.message.send"
	TypeJoin     = "room.join"
	TypeLeave    = "room.leave"
	TypeAck      = "connection.ack"
	TypeReady    = "connection.ready"
	TypeReceived = "chat.message.received"
	TypeJoined   = "room.joined"
	TypeLeft     = "room.left"
	TypeError    = "chat.error"
)

const (
	// maxDepth is how deep a frame's objects and arrays may nest; an event may have event.MaxDepth (64) levels.
	maxDepth = 32
	// maxName is the most bytes that a type, a room or a message id may have; as parts of an event they become
	// attributes on the bus, and may have 512.
	maxName = 256
	// maxProblems is how many things that are wrong with one frame are told of.
	maxProblems = 8
)

// frameError is what is wrong with a client's frame; it becomes a chat.error frame.
type frameError struct {
	code    ErrorCode
	message string // repeats of the client's own words, which may be anything, no more than short names of members
	id      string // of the frame, where it could be read
}

func (e *frameError) Error() string { return string(e.code) + ": " + e.message }

// inbound is a client's frame, checked.
type inbound struct {
	kind     string   // TypeSend, TypeJoin, TypeLeave, TypeAck, or any other type
	id       string   // the client's own metadata.id; may be empty
	room     string   // may be empty for a message
	text     string   // of a TypeSend
	ackedIDs []string // of a TypeAck
	payload  jsontext.Value
	metadata jsontext.Value
}

// eventType is what a client may call an event of its own.
var eventType = regexp.MustCompile(`^[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)*$`)

// reservedNamespaces are the first parts of types that only the protocol itself defines.
var reservedNamespaces = []string{"chat", "room", "connection", "internal"}

// decode reads and checks a client's frame. The error is always a *frameError.
func decode(data []byte, maxText int) (inbound, error) {
	var in inbound
	fail := func(code ErrorCode, format string, args ...any) (inbound, error) {
		return inbound{}, &frameError{code: code, message: fmt.Sprintf(format, args...), id: in.id}
	}
	if event.Depth(data) > maxDepth {
		return fail(ErrNotJSON, "nested deeper than %d levels", maxDepth)
	}
	var raw struct {
		Type     jsontext.Value `json:"type"`
		Payload  jsontext.Value `json:"payload"`
		Metadata jsontext.Value `json:"metadata"`
		Unknown  jsontext.Value `json:",embed"`
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		if syntactic, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
			return fail(ErrNotJSON, "not JSON at byte %d", syntactic.ByteOffset)
		}
		return fail(ErrNotJSON, "not a JSON object")
	}
	if t := bytes.TrimLeft(data, " \t\r\n"); len(t) == 0 || t[0] != '{' {
		return fail(ErrNotJSON, "not a JSON object") // null decodes into anything
	}

	var metadata struct {
		ID jsontext.Value `json:"id"`
	}
	switch raw.Metadata.Kind() {
	case '{':
		if err := json.Unmarshal(raw.Metadata, &metadata); err != nil {
			return fail(ErrBadFrame, "metadata: not readable")
		}
		in.metadata = raw.Metadata
	case 'n', 0:
	default:
		return fail(ErrBadFrame, "metadata: not an object")
	}
	id, ok := optionalText(metadata.ID)
	if !ok || len(id) > maxName {
		return fail(ErrBadFrame, "metadata.id: not a text of at most %d bytes", maxName)
	}
	in.id = id

	if len(raw.Unknown) > len("{}") {
		return fail(ErrBadFrame, "a member beside type, payload and metadata")
	}
	kind, ok := optionalText(raw.Type)
	if !ok || kind == "" {
		return fail(ErrUnknownType, "type: missing, or not a text")
	}
	if len(kind) > maxName || !eventType.MatchString(kind) {
		return fail(ErrUnknownType, "type: want lower-case words joined by dots, of at most %d bytes", maxName)
	}
	in.kind = kind
	switch kind {
	case TypeSend, TypeJoin, TypeLeave, TypeAck:
	default:
		namespace, _, _ := strings.Cut(kind, ".")
		for _, own := range reservedNamespaces {
			if namespace == own {
				return fail(ErrUnknownType, "type: the protocol defines no such type for clients in %q", own)
			}
		}
	}

	var payload struct {
		Text    jsontext.Value `json:"text"`
		Room    jsontext.Value `json:"room"`
		Channel jsontext.Value `json:"channel"`
	}
	switch raw.Payload.Kind() {
	case '{':
		if err := json.Unmarshal(raw.Payload, &payload); err != nil {
			return fail(ErrBadFrame, "payload: not readable")
		}
		in.payload = raw.Payload
	case 'n', 0:
	default:
		return fail(ErrBadFrame, "payload: not an object")
	}
	if kind == TypeAck {
		var ack ackPayload
		if err := json.Unmarshal(in.payload, &ack); err != nil || len(ack.IDs) == 0 {
			return fail(ErrBadFrame, "payload.ids: not a list of texts")
		}
		in.ackedIDs = ack.IDs
		return in, nil
	}
	if kind == moderation.Type { // else everybody with a token could fill the operators' dead letters
		if _, err := moderation.Parse(in.payload, ""); err != nil {
			return fail(ErrBadFrame, "%s", joinProblems(err))
		}
	}
	room, ok1 := optionalText(payload.Room)
	channel, ok2 := optionalText(payload.Channel)
	switch {
	case !ok1 || !ok2:
		return fail(ErrBadRoom, "payload.room or payload.channel: not a text")
	case room != "" && channel != "" && room != channel:
		return fail(ErrBadRoom, "payload.room and payload.channel differ")
	case room == "":
		room = channel
	}
	if len(room) > maxName || room != strings.TrimSpace(room) || strings.ContainsFunc(room, unicode.IsControl) {
		return fail(ErrBadRoom, "the room: want at most %d bytes, without control characters or space around", maxName)
	}
	in.room = room

	switch kind {
	case TypeJoin, TypeLeave:
		if room == "" {
			return fail(ErrBadRoom, "payload.room: missing")
		}
	case TypeSend:
		text, ok := optionalText(payload.Text)
		if !ok || strings.TrimSpace(text) == "" {
			return fail(ErrNoText, "payload.text: missing, blank or not a text")
		}
		if n := utf8.RuneCountInString(text); n > maxText {
			return fail(ErrTextTooLong, "payload.text: %d characters, the most is %d", n, maxText)
		}
		in.text = text
	}
	return in, nil
}

// joinProblems tells the first of joined errors, and how many more there are.
func joinProblems(err error) string {
	lines := strings.Split(err.Error(), "\n")
	if more := len(lines) - maxProblems; more > 0 {
		lines = append(lines[:maxProblems], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, "; ")
}

// optionalText reads a JSON string; a missing one and null are empty. It reports whether v is neither of these.
func optionalText(v jsontext.Value) (string, bool) {
	switch v.Kind() {
	case 'n', 0:
		return "", true
	case '"':
		var s string
		err := json.Unmarshal(v, &s)
		return s, err == nil
	}
	return "", false
}

// toEvent makes a client's frame into the event that is published.
func (in inbound) toEvent(user identity.UserID, traceID string) *event.Event {
	e := &event.Event{
		V: event.Version, Source: string(identity.APIGateway), CorrelationID: correlationID(user, in.id), Type: in.kind,
		TraceID: traceID, Channel: in.room, UserID: user.String(), Payload: in.payload, Metadata: in.metadata,
		Auth:   &event.Auth{Provider: string(identity.APIGateway)},
		Egress: &event.Egress{Destination: string(identity.APIGateway), Type: event.EgressChat},
	}
	if in.kind == TypeSend {
		e.Type = event.TypeChatMessage
		e.Message = &event.Message{ID: in.id, Role: event.RoleUser, Text: in.text}
		if e.Message.ID == "" {
			e.Message.ID = e.CorrelationID
		}
	}
	return e
}

// correlationID is the same whenever the same user sends a frame with the same id, so that one that is sent again,
// because its sender could not know whether it had arrived, is the same event. Without an id it is a random one.
func correlationID(user identity.UserID, id string) string {
	if id == "" {
		var random [16]byte
		rand.Read(random[:]) // never fails (crypto/rand)
		return hex.EncodeToString(random[:])
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "api-gateway|%d:%s|%s", len(user.String()), user, id))
	return hex.EncodeToString(sum[:16])
}

// outbound is a frame to a client.
type outbound struct {
	Type     string      `json:"type"`
	Payload  any         `json:"payload"`
	Metadata outMetadata `json:"metadata"`
}

type outMetadata struct {
	ID            string    `json:"id,omitzero"` // of the delivery: the same on every resend
	Timestamp     time.Time `json:"timestamp"`
	Source        string    `json:"source"`
	CorrelationID string    `json:"correlationId,omitzero"`
	Channel       string    `json:"channel,omitzero"`
	ReplyTo       string    `json:"replyTo,omitzero"`     // metadata.id of the client's frame that this answers
	ReplyToUser   string    `json:"replyToUser,omitzero"` // whose frame that was, where others see the answer too
}

func (f outbound) encode() ([]byte, error) {
	data, err := json.Marshal(f, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encode a %s frame: %w", f.Type, err)
	}
	return data, nil
}

// controlFrame is a frame of the gateway itself, in answer to the client's frame with id replyTo (may be empty).
func controlFrame(kind string, payload any, replyTo string, now time.Time) outbound {
	return outbound{Type: kind, Payload: payload, Metadata: outMetadata{
		Timestamp: event.TruncateToMicros(now), Source: string(identity.APIGateway), ReplyTo: replyTo,
	}}
}

type readyPayload struct {
	UserID    string `json:"user_id"`
	Instance  string `json:"instance"`
	Missed    int    `json:"missed,omitzero"`    // answers that follow because the client had not got them; of very many, the first
	Recovered *bool  `json:"recovered,omitzero"` // to a client that came back: false if there may be more, which the ledger no longer has
}

type ackPayload struct {
	IDs []string `json:"ids"`
}

type roomPayload struct {
	Room string `json:"room"`
}

type errorPayload struct {
	Code    ErrorCode `json:"code"`
	Message string    `json:"message"`
	ID      string    `json:"id"`
}

// answer makes an egress event into the frame that its recipients get. What it says depends on the event and its entry alone, so
// that every instance and every redelivery makes the same frame; milliseconds are what Firestore's own times keep.
func answerFrame(e *event.Event, deliveryID string, opened time.Time) outbound {
	f := outbound{Type: TypeReceived, Metadata: outMetadata{
		ID: deliveryID, Timestamp: opened.UTC().Truncate(time.Millisecond), Source: e.Source,
		CorrelationID: e.CorrelationID, Channel: e.Channel, ReplyTo: replyTo(e),
	}}
	if e.UserID == "" && f.Metadata.ReplyTo != "" && e.User != nil {
		f.Metadata.ReplyToUser = e.User.ID
		if e.Auth != nil && e.Auth.Identity != "" {
			f.Metadata.ReplyToUser = e.Auth.Identity // what the client knows itself by
		}
	}
	if e.Egress != nil && e.Egress.Type == event.EgressEvent {
		f.Type = e.Type
	} else if text := answer.Text(e); text != "" {
		f.Payload = struct {
			Text string `json:"text"`
		}{text}
		return f
	}
	if len(e.Payload) == 0 {
		f.Payload = struct{}{}
		return f
	}
	f.Payload = e.Payload
	return f
}

// replyTo finds the id that the client itself gave to what an event answers.
func replyTo(e *event.Event) string {
	if e.Source != string(identity.APIGateway) {
		return e.ReplyTo
	}
	if id, ok := event.Text(e.Metadata, "id"); ok {
		return id
	}
	return e.ReplyTo
}
