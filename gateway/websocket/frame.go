package websocket

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"parley.internal/shared/answer"
	"parley.internal/shared/chattext"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/moderation"
)

// The frame types of the protocol. A client sends the first four, and any type outside the reserved namespaces
// ([Errors] lists them). The gateway sends the rest, and the types of egress events.
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
	// maxDepth is the maximum nesting of a frame's objects and arrays. An event may have event.MaxDepth (64) levels.
	maxDepth = 32
	// maxName is the maximum length of a type, a room or a message id, in bytes. In an event, each becomes an attribute on
	// the bus, with a limit of 512.
	maxName = 256
	// maxProblems is the maximum number of problems in an error message.
	maxProblems = 8
)

// frameError is the reason for refusing a client's frame. It becomes a chat.error frame.
type frameError struct {
	code    ErrorCode
	message string // quotes at most short member names from the frame, because a client's text may contain anything
	id      string // of the frame; empty if unreadable
}

func (e *frameError) Error() string { return string(e.code) + ": " + e.message }

// inbound is a checked frame of a client.
type inbound struct {
	kind     string   // TypeSend, TypeJoin, TypeLeave, TypeAck, or any other type
	id       string   // metadata.id, set by the client; may be empty
	room     string   // a web room; may be empty for a message
	text     string   // of a TypeSend
	ackedIDs []string // of a TypeAck
	payload  jsontext.Value
	metadata jsontext.Value
}

// size returns the memory held by a message's content, in bytes.
func (in inbound) size() int { return len(in.text) + len(in.payload) + len(in.metadata) }

// eventType matches the allowed event types of clients.
var eventType = regexp.MustCompile(`^[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)*$`)

// reservedNamespaces are the first parts of types that clients may not send, apart from the four types above: types of
// the protocol, and types with which Parley or a platform reports something to the rules. A client with such a type
// could forge a report. The platforms' names are reserved, too.
var reservedNamespaces = []string{
	"chat", "room", "connection",
	"system", "internal", "hook", "timer", "member", "message", "typing",
}

// isReserved reports whether clients may not use a namespace.
func isReserved(namespace string) bool {
	return slices.Contains(reservedNamespaces, namespace) || identity.Platform(namespace).Known()
}

// decode parses and checks a client's frame. The error is always a *frameError.
func decode(data []byte, maxText int) (inbound, error) {
	var in inbound
	repaired := event.ReplaceHalfCharacters(data)
	refused := in.decode(repaired, maxText)
	if refused == nil && !bytes.Equal(repaired, data) {
		refused = in.checkWhole()
	}
	if refused != nil {
		if refused.id = in.id; refused.code == ErrNotJSON {
			refused.id = idOf(repaired)
		}
		return inbound{}, refused
	}
	return in, nil
}

// checkWhole refuses an id or a room with half a character. Two different halves give the same replacement character, so
// two messages would have the same id, or two rooms the same name.
func (in *inbound) checkWhole() *frameError {
	switch {
	case strings.ContainsRune(in.id, utf8.RuneError):
		return problem(ErrBadFrame, "metadata.id: has half a character")
	case strings.ContainsRune(in.room, utf8.RuneError):
		return problem(ErrBadRoom, "the room: has half a character")
	}
	return nil
}

// idOf returns the id of a malformed frame, so that the client learns which frame was refused. It is empty if the frame
// ends, or breaks the rules of JSON, before the id.
func idOf(data []byte) string {
	id, _ := event.Text(jsontext.Value(bytes.ToValidUTF8(data, []byte("\ufffd"))), "metadata", "id")
	if len(id) > maxName {
		return ""
	}
	return id
}

// problem makes a frameError without the frame's id.
func problem(code ErrorCode, format string, args ...any) *frameError {
	return &frameError{code: code, message: fmt.Sprintf(format, args...)}
}

func (in *inbound) decode(data []byte, maxText int) *frameError {
	if event.Depth(data) > maxDepth {
		return problem(ErrNotJSON, "nested deeper than %d levels", maxDepth)
	}
	var raw struct {
		Type     jsontext.Value `json:"type"`
		Payload  jsontext.Value `json:"payload"`
		Metadata jsontext.Value `json:"metadata"`
		Unknown  jsontext.Value `json:",embed"`
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		if syntactic, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
			return problem(ErrNotJSON, "not JSON at byte %d", syntactic.ByteOffset)
		}
		return problem(ErrNotJSON, "not a JSON object")
	}
	if t := bytes.TrimLeft(data, " \t\r\n"); len(t) == 0 || t[0] != '{' {
		return problem(ErrNotJSON, "not a JSON object") // Unmarshal accepts null for any type
	}
	if refused := in.decodeMetadata(raw.Metadata); refused != nil {
		return refused
	}
	if len(raw.Unknown) > len("{}") {
		return problem(ErrBadFrame, "a member beside type, payload and metadata")
	}
	if refused := in.decodeType(raw.Type); refused != nil {
		return refused
	}
	return in.decodePayload(raw.Payload, maxText)
}

func (in *inbound) decodeMetadata(raw jsontext.Value) *frameError {
	var metadata struct {
		ID jsontext.Value `json:"id"`
	}
	switch raw.Kind() {
	case '{':
		if err := json.Unmarshal(raw, &metadata); err != nil {
			return problem(ErrBadFrame, "metadata: not readable")
		}
		in.metadata = raw
	case 'n', 0:
	default:
		return problem(ErrBadFrame, "metadata: not an object")
	}
	id, ok := optionalText(metadata.ID)
	if !ok || len(id) > maxName {
		return problem(ErrBadFrame, "metadata.id: not a text of at most %d bytes", maxName)
	}
	in.id = id
	return nil
}

func (in *inbound) decodeType(raw jsontext.Value) *frameError {
	kind, ok := optionalText(raw)
	if !ok || kind == "" {
		return problem(ErrUnknownType, "type: missing, or not a text")
	}
	if len(kind) > maxName || !eventType.MatchString(kind) {
		return problem(ErrUnknownType, "type: want lower-case words joined by dots, of at most %d bytes", maxName)
	}
	in.kind = kind
	switch kind {
	case TypeSend, TypeJoin, TypeLeave, TypeAck:
		return nil
	}
	if namespace, _, _ := strings.Cut(kind, "."); isReserved(namespace) {
		return problem(ErrUnknownType, "type: the namespace %q is reserved, and has no such type for clients", namespace)
	}
	return nil
}

func (in *inbound) decodePayload(raw jsontext.Value, maxText int) *frameError {
	var payload struct {
		Text    jsontext.Value `json:"text"`
		Room    jsontext.Value `json:"room"`
		Channel jsontext.Value `json:"channel"`
	}
	switch raw.Kind() {
	case '{':
		if err := json.Unmarshal(raw, &payload); err != nil {
			return problem(ErrBadFrame, "payload: not readable")
		}
		in.payload = raw
	case 'n', 0:
	default:
		return problem(ErrBadFrame, "payload: not an object")
	}
	switch in.kind {
	case TypeAck:
		var ack ackPayload
		if err := json.Unmarshal(in.payload, &ack); err != nil || len(ack.IDs) == 0 {
			return problem(ErrBadFrame, "payload.ids: not a list of texts")
		}
		in.ackedIDs = ack.IDs
		return nil
	case moderation.Type: // checked here, so that a client with a token can't fill the dead letters with malformed actions
		if _, err := moderation.Parse(in.payload, ""); err != nil {
			return problem(ErrBadFrame, "%s", joinProblems(err))
		}
		return nil // payload.channel is the target of the action; the frame has no room
	}
	if refused := in.decodeRoom(payload.Room, payload.Channel); refused != nil {
		return refused
	}
	switch in.kind {
	case TypeJoin, TypeLeave:
		if in.room == "" {
			return problem(ErrBadRoom, "payload.room: missing")
		}
	case TypeSend:
		text, ok := optionalText(payload.Text)
		if !ok || chattext.Trim(text) == "" {
			return problem(ErrNoText, "payload.text: missing, not a text, or nothing in the text is visible")
		}
		if n := utf8.RuneCountInString(text); n > maxText {
			return problem(ErrTextTooLong, "payload.text: %d characters, the most is %d", n, maxText)
		}
		in.text = text
	}
	return nil
}

// decodeRoom reads the room from payload.room, or from its synonym payload.channel.
func (in *inbound) decodeRoom(rawRoom, rawChannel jsontext.Value) *frameError {
	room, ok1 := optionalText(rawRoom)
	channel, ok2 := optionalText(rawChannel)
	switch {
	case !ok1 || !ok2:
		return problem(ErrBadRoom, "payload.room or payload.channel: not a text")
	case room != "" && channel != "" && room != channel:
		return problem(ErrBadRoom, "payload.room and payload.channel differ")
	case room == "":
		room = channel
	}
	if len(room) > maxName || room != strings.TrimSpace(room) || strings.ContainsFunc(room, unicode.IsControl) {
		return problem(ErrBadRoom, "the room: want at most %d bytes, without control characters or space around", maxName)
	}
	if platform, _, ok := strings.Cut(room, ":"); ok && identity.Platform(strings.ToLower(platform)).Known() {
		return problem(ErrBadRoom, "the room: a channel of a platform; want the name of a web room")
	}
	in.room = room
	return nil
}

// joinProblems formats joined errors on a single line: the first maxProblems, and the number of the rest.
func joinProblems(err error) string {
	lines := strings.Split(err.Error(), "\n")
	if more := len(lines) - maxProblems; more > 0 {
		lines = append(lines[:maxProblems], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, "; ")
}

// optionalText reads a JSON string. A missing value and null give the empty text. It reports false for any other value.
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

// botName is the bot's name for web clients. The bot has no account there, so @parley in a text, in any case, addresses it.
const botName = "parley"

// toEvent converts a client's frame to an event for publication.
func (in inbound) toEvent(user identity.UserID, traceID string) *event.Event {
	e := &event.Event{
		V: event.Version, Source: string(identity.APIGateway), CorrelationID: correlationID(user, in.id), Type: in.kind,
		TraceID: traceID, Channel: in.room, UserID: user.String(), Payload: in.payload, Metadata: in.metadata,
		Auth:   &event.Auth{Provider: string(identity.APIGateway)},
		Egress: &event.Egress{Destination: string(identity.APIGateway), Type: event.EgressChat},
	}
	if in.kind == TypeSend {
		e.Type = event.TypeChatMessage
		e.Message = &event.Message{ID: in.id, Role: event.RoleUser, Text: in.text, MentionsBot: chattext.Mentions(in.text, botName)}
		if e.Message.ID == "" {
			e.Message.ID = e.CorrelationID
		}
	}
	return e
}

// correlationID returns a hash of the user and the frame's id, so that a repeated frame with the same id is the same
// event. A client repeats a frame if it does not know whether the frame has arrived. Without an id, the result is random.
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
	ID            string    `json:"id,omitzero"` // delivery id: the same on every resend
	Timestamp     time.Time `json:"timestamp"`
	Source        string    `json:"source"`
	CorrelationID string    `json:"correlationId,omitzero"`
	Channel       string    `json:"channel,omitzero"`
	ReplyTo       string    `json:"replyTo,omitzero"`     // metadata.id of the answered frame
	ReplyToUser   string    `json:"replyToUser,omitzero"` // sender of the answered frame, if a whole room gets the answer
}

func (f outbound) encode() ([]byte, error) {
	data, err := json.Marshal(f, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encode a %s frame: %w", f.Type, err)
	}
	return data, nil
}

// controlFrame makes a frame of the gateway itself. replyTo is the id of the answered frame; may be empty.
func controlFrame(kind string, payload any, replyTo string, now time.Time) outbound {
	return outbound{Type: kind, Payload: payload, Metadata: outMetadata{
		Timestamp: event.TruncateToMicros(now), Source: string(identity.APIGateway), ReplyTo: replyTo,
	}}
}

type readyPayload struct {
	UserID    string `json:"user_id"`
	Instance  string `json:"instance"`
	Missed    int    `json:"missed,omitzero"`    // number of missed answers to follow; if very many, a lower bound
	Recovered *bool  `json:"recovered,omitzero"` // only after a reconnect: false if the ledger may have lost missed answers
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

// answerFrame converts an egress event to a frame. The frame depends only on the event and its ledger entry, so every
// instance and every redelivery makes the same frame. The timestamp is truncated to milliseconds, the precision of
// Firestore's server timestamps.
func answerFrame(e *event.Event, deliveryID string, opened time.Time) outbound {
	f := outbound{Type: TypeReceived, Metadata: outMetadata{
		ID: deliveryID, Timestamp: opened.UTC().Truncate(time.Millisecond), Source: e.Source,
		CorrelationID: e.CorrelationID, Channel: e.Channel, ReplyTo: replyTo(e),
	}}
	if e.UserID == "" && f.Metadata.ReplyTo != "" && e.User != nil {
		f.Metadata.ReplyToUser = e.User.ID
		if e.Auth != nil && e.Auth.Identity != "" {
			f.Metadata.ReplyToUser = e.Auth.Identity // the id known to the client
		}
	}
	if e.Egress != nil && e.Egress.Type == event.EgressEvent {
		f.Type = e.Type
	} else if text := answer.Render(e).Whole(); text != "" {
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

// replyTo returns the client's own id of the answered message or frame.
func replyTo(e *event.Event) string {
	if e.Source != string(identity.APIGateway) {
		return e.ReplyTo
	}
	if id, ok := event.Text(e.Metadata, "id"); ok {
		return id
	}
	return e.ReplyTo
}
