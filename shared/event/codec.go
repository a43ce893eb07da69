package event

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"parley.internal/shared/identity"
)

const (
	// MaxSize is the largest encoded size of an event, in bytes. A ledger entry contains the event, and a Firestore
	// document holds at most 1 MiB (https://firebase.google.com/docs/firestore/quotas).
	MaxSize = 256 << 10

	// MaxDepth is the largest nesting depth of objects and arrays.
	MaxDepth = 64

	// maxID is the largest length of ids, types, sources and channels, in bytes. They become Pub/Sub attributes, with
	// at most 1,024 bytes each (https://cloud.google.com/pubsub/quotas#resource_limits).
	maxID = 512
)

// ErrInvalid is matched by every error of [Decode] and [Event.Validate]. The input is invalid, so a retry is useless.
var ErrInvalid = errors.New("invalid event")

// FieldError reports an invalid field of an event.
type FieldError struct {
	Field  string // dotted path such as "auth.userRef"; empty for the whole event
	Reason string // the reason, without the invalid value
}

// Error returns the field and the reason.
func (e *FieldError) Error() string {
	if e.Field == "" {
		return "event: " + e.Reason
	}
	return e.Field + ": " + e.Reason
}

// Is makes every FieldError match [ErrInvalid].
func (e *FieldError) Is(target error) bool { return target == ErrInvalid }

// Decode decodes and validates an event. The older nested form is converted. Every error matches [ErrInvalid] and is a
// [*FieldError], or several joined. JSON is read strictly (RFC 8259 with unique names and valid UTF-8, as recommended by
// RFC 7493), so that all readers understand an event in the same way. Half a character becomes U+FFFD
// ([ReplaceHalfCharacters]).
func Decode(data []byte) (*Event, error) {
	if err := checkShape(data); err != nil {
		return nil, err
	}
	data = ReplaceHalfCharacters(data)
	e := new(Event)
	if err := json.Unmarshal(data, e); err != nil {
		return nil, decodeError(err)
	}
	if err := e.upgrade(); err != nil {
		return nil, err
	}
	if err := e.Validate(); err != nil {
		return nil, err
	}
	return e, nil
}

// Encode validates and encodes an event. It fails as [Event.Validate] does, or if the result is longer than [MaxSize].
func Encode(e *Event) ([]byte, error) {
	if err := e.Validate(); err != nil {
		return nil, err
	}
	data, err := json.Marshal(e, json.Deterministic(true))
	if err != nil {
		return nil, &FieldError{Reason: "cannot be written as JSON: " + err.Error()}
	}
	if len(data) > MaxSize {
		return nil, tooLarge(len(data))
	}
	return data, nil
}

// Validate checks the rules that every part relies on, and reports each invalid field.
func (e *Event) Validate() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, &FieldError{Field: field, Reason: fmt.Sprintf(format, args...)})
	}
	if e.V == "" {
		bad("v", "missing")
	} else if e.V != Version {
		bad("v", "is not %q", Version)
	}
	text := func(field, value string, required bool) {
		switch {
		case value == "" && required:
			bad(field, "missing")
		case len(value) > maxID:
			bad(field, "longer than %d bytes", maxID)
		case !utf8.ValidString(value):
			bad(field, "not UTF-8")
		}
	}
	text("source", e.Source, true)
	text("correlationId", e.CorrelationID, true)
	text("type", e.Type, true)
	text("channel", e.Channel, false)
	text("replyTo", e.ReplyTo, false)
	if len(e.UserID) > identity.MaxLen {
		bad("userId", "longer than %d bytes", identity.MaxLen)
	}
	if e.TraceID != "" && !isTraceID(e.TraceID) {
		bad("traceId", "not 32 lower-case hexadecimal digits")
	}
	if e.Egress != nil {
		switch e.Egress.Type {
		case "", EgressChat, EgressDM, EgressEvent:
		default:
			bad("egress.type", "not one of chat, dm, event")
		}
		if len(e.Egress.To) > MaxAddresses {
			bad("egress.to", "more than %d addresses", MaxAddresses)
		}
		for i, p := range e.Egress.To {
			text(fmt.Sprintf("egress.to.%d.destination", i), p.Destination, true)
			text(fmt.Sprintf("egress.to.%d.channel", i), p.Channel, true)
		}
	}
	for i, s := range e.RoutingSlip {
		if s.ID == "" {
			bad(fmt.Sprintf("routingSlip.%d.id", i), "missing")
		}
		switch s.Status {
		case StepPending, StepOK, StepError, StepSkip:
		default:
			bad(fmt.Sprintf("routingSlip.%d.status", i), "not one of PENDING, OK, ERROR, SKIP")
		}
	}
	for i, c := range e.Candidates {
		switch c.Status {
		case "", CandidateProposed, CandidateSelected, CandidateSuperseded, CandidateRejected:
		default:
			bad(fmt.Sprintf("candidates.%d.status", i), "not one of proposed, selected, superseded, rejected")
		}
	}
	if e.QoS != nil && e.QoS.TTL < 0 {
		bad("qos.ttl", "negative")
	}
	return errors.Join(errs...)
}

func isTraceID(s string) bool {
	if len(s) != 32 {
		return false
	}
	return strings.Trim(s, "0123456789abcdef") == "" && strings.Trim(s, "0") != ""
}

func tooLarge(n int) error {
	return &FieldError{Reason: fmt.Sprintf("%d bytes long; the limit is %d", n, MaxSize)}
}

// checkShape rejects input that would be expensive to decode, before the decoder builds anything.
func checkShape(data []byte) error {
	if len(data) > MaxSize {
		return tooLarge(len(data))
	}
	if !utf8.Valid(data) {
		return &FieldError{Reason: "not UTF-8"}
	}
	if t := bytes.TrimLeft(data, " \t\r\n"); len(t) == 0 || t[0] != '{' {
		return &FieldError{Reason: "not a JSON object"}
	}
	if Depth(data) > MaxDepth {
		return &FieldError{Reason: fmt.Sprintf("nested deeper than %d", MaxDepth)}
	}
	return nil
}

// Depth returns the nesting depth of objects and arrays in a JSON text, without decoding. For other text the result is
// arbitrary.
func Depth(data []byte) int {
	deepest, depth, inString := 0, 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest
}

// decodeError converts an error of the decoder to a [*FieldError], without quoting the input.
func decodeError(err error) error {
	var semantic *json.SemanticError
	if errors.As(err, &semantic) {
		field := strings.ReplaceAll(strings.TrimPrefix(string(semantic.JSONPointer), "/"), "/", ".")
		reason := fmt.Sprintf("unexpected JSON %s", semantic.JSONKind)
		if semantic.GoType != nil {
			reason = fmt.Sprintf("JSON %s instead of %s", semantic.JSONKind, kindName(semantic.GoType.String()))
		}
		return &FieldError{Field: field, Reason: reason}
	}
	var syntactic *jsontext.SyntacticError
	if errors.As(err, &syntactic) {
		reason := "not JSON"
		if errors.Is(err, jsontext.ErrDuplicateName) {
			reason = "duplicate name"
		}
		return &FieldError{Reason: fmt.Sprintf("%s (at byte %d)", reason, syntactic.ByteOffset)}
	}
	return &FieldError{Reason: "not JSON"}
}

// kindName names a Go type in the terms of JSON.
func kindName(goType string) string {
	switch {
	case goType == "string":
		return "text"
	case goType == "time.Time":
		return "time (RFC 3339)"
	case goType == "bool":
		return "boolean"
	case strings.HasPrefix(goType, "int"), strings.HasPrefix(goType, "*float"), strings.HasPrefix(goType, "float"):
		return "number"
	case strings.HasPrefix(goType, "[]"):
		return "list"
	default:
		return "object"
	}
}

// upgrade converts the older nested form to the flat form. Members of "envelope" become members of the event, unless the
// event has the same member.
func (e *Event) upgrade() error {
	if len(e.Extra) == 0 {
		return nil
	}
	var outer struct {
		Envelope jsontext.Value `json:"envelope"`
		Rest     jsontext.Value `json:",embed"`
	}
	if err := json.Unmarshal(e.Extra, &outer); err != nil {
		return decodeError(err)
	}
	if len(outer.Envelope) == 0 {
		return nil
	}
	// Version 1 wrote v as a number or as a text.
	var inner struct {
		V    jsontext.Value `json:"v"`
		Rest jsontext.Value `json:",embed"`
	}
	if err := json.Unmarshal(outer.Envelope, &inner); err != nil {
		return prefixed("envelope", decodeError(err))
	}
	nested := new(Event)
	if len(inner.Rest) > 0 {
		if err := json.Unmarshal(inner.Rest, nested); err != nil {
			return prefixed("envelope", decodeError(err))
		}
	}
	if e.V == "" {
		switch v := strings.Trim(string(inner.V), `"`); v {
		case "1", "1.0", Version:
			e.V = Version
		case "":
			return &FieldError{Field: "envelope.v", Reason: "missing"}
		default:
			return &FieldError{Field: "envelope.v", Reason: "unknown version"}
		}
	} else if e.V == "1" {
		e.V = Version
	}
	// Decoding the flat form over the nested form gives precedence to the flat form.
	e.Extra = outer.Rest
	flat, err := json.Marshal(e)
	if err != nil {
		return &FieldError{Reason: err.Error()}
	}
	merged, extra := *nested, nested.Extra
	merged.Extra = nil
	if err := json.Unmarshal(flat, &merged); err != nil {
		return decodeError(err)
	}
	for _, f := range []struct{ into, from *string }{
		{&merged.Source, &nested.Source}, {&merged.CorrelationID, &nested.CorrelationID}, {&merged.Type, &nested.Type},
	} {
		if *f.into == "" { // required fields are encoded even if empty
			*f.into = *f.from
		}
	}
	if merged.Extra, err = joinObjects(extra, merged.Extra); err != nil {
		return err
	}
	*e = merged
	return nil
}

// joinObjects merges two JSON objects. For a name in both, b's member is kept.
func joinObjects(a, b jsontext.Value) (jsontext.Value, error) {
	if len(a) == 0 {
		return b, nil
	}
	if len(b) == 0 {
		return a, nil
	}
	all := map[string]jsontext.Value{}
	for _, v := range []jsontext.Value{a, b} {
		if err := json.Unmarshal(v, &all); err != nil {
			return nil, decodeError(err)
		}
	}
	joined, err := json.Marshal(all, json.Deterministic(true))
	if err != nil {
		return nil, &FieldError{Reason: err.Error()}
	}
	return joined, nil
}

// prefixed adds a prefix to the field of a [*FieldError].
func prefixed(field string, err error) error {
	var fe *FieldError
	if errors.As(err, &fe) {
		return &FieldError{Field: strings.TrimSuffix(field+"."+fe.Field, "."), Reason: fe.Reason}
	}
	return err
}

// Text returns the text at a path of member names in a raw JSON object, and reports whether the text is there and not
// empty. A number is returned as written, because some platforms write ids as numbers. v must be well-formed JSON, as
// every value of a decoded event is; only the part up to the text is read.
func Text(v jsontext.Value, path ...string) (string, bool) {
	v, found := member(v, path)
	if !found {
		return "", false
	}
	switch v.Kind() {
	case '"':
		var s string
		if json.Unmarshal(v, &s) != nil {
			return "", false
		}
		return s, s != ""
	case '0':
		return strings.TrimSpace(string(v)), true
	}
	return "", false
}

// member finds the value at a path of member names.
func member(v jsontext.Value, path []string) (found jsontext.Value, ok bool) {
	if len(path) == 0 {
		return v, true
	}
	if v.Kind() != '{' {
		return nil, false
	}
	// Names are unique in a decoded event. Checking them again would cost more than the rest.
	d := jsontext.NewDecoder(bytes.NewBuffer(v), jsontext.AllowDuplicateNames(true))
	for _, name := range path {
		if d.PeekKind() != '{' {
			return nil, false
		}
		if _, err := d.ReadToken(); err != nil {
			return nil, false
		}
		for {
			t, err := d.ReadToken()
			if err != nil || t.Kind() == '}' {
				return nil, false
			}
			if t.String() == name {
				break
			}
			if d.SkipValue() != nil {
				return nil, false
			}
		}
	}
	found, err := d.ReadValue()
	return found, err == nil
}

// Raw encodes a value as raw JSON, for values defined by the program. It panics if JSON cannot express the value, such as
// a channel or a function.
func Raw(v any) jsontext.Value {
	data, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		panic(fmt.Sprintf("event: write %T as JSON: %v", v, err))
	}
	return data
}

// TruncateToMicros truncates a time to microseconds, the precision of Firestore, and converts it to UTC. Therefore a stored
// time reads back unchanged.
func TruncateToMicros(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
