package model

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"parley.internal/shared/deadletter"
)

// Problem is the kind of a temporary failure.
type Problem string

// The problems. All are worth a retry.
//
// A retry after Misconfigured most likely fails too. But the message is correct, so it waits, as long as messages may,
// until an operator fixes the key, the permission or the model's name. Misconfigured is logged as an error.
const (
	Busy          Problem = "busy"          // rate limit or quota exceeded (429)
	TimedOut      Problem = "timed_out"     // no reply within the time limit of a call
	Unavailable   Problem = "unavailable"   // network or endpoint failure (5xx, or an error in a 200), or a reply without an answer
	Misconfigured Problem = "misconfigured" // request or credentials rejected (400, 401, 403, 404, 422)
)

// Error is a temporary failure, worth a retry.
type Error struct {
	Problem Problem
	Status  int    // HTTP status, or the equal code of an error in a 200; 0 without either
	Detail  string // message of the endpoint or the network, without keys
	cause   error  // the context's error, or nil; never a provider's error, because its fields may hold a key
}

// Error returns a message that starts with the problem.
func (e *Error) Error() string {
	s := "model " + string(e.Problem)
	if e.Status != 0 {
		s += fmt.Sprintf(" (HTTP %d)", e.Status)
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// Unwrap returns the context's error if the context ended the call.
func (e *Error) Unwrap() error { return e.cause }

// maxDetail bounds the text copied from an endpoint's response, in bytes.
const maxDetail = 300

// failure describes a failed call. All errors of Generate come from toError and refusal, so that no error contains a key.
type failure struct {
	key    string // secret to remove from the error; empty for none
	status int    // as in Error
	code   string // the endpoint's error code
	err    error  // error of the client library; not nil
	detail string // replaces err's text if not empty
}

// Error returns the detail. A failure is an error only between errorTransport and its caller.
func (f failure) Error() string { return f.detail }

// refusals lists the error codes of a refused question. The content filters of Azure and OpenAI refuse with status 400
// and such a code.
var refusals = map[string]bool{"content_filter": true, "content_policy_violation": true, "ResponsibleAIPolicyViolation": true}

// toError classifies the failure as a refusal or a [*Error].
func (f failure) toError(ctx context.Context) error {
	detail := f.detail
	if detail == "" {
		detail = f.err.Error()
	}
	detail = redact(f.key, detail)
	e := &Error{Status: f.status, Detail: detail}
	for _, cause := range []error{context.DeadlineExceeded, context.Canceled} {
		if errors.Is(f.err, cause) || errors.Is(ctx.Err(), cause) {
			e.cause = cause
			break
		}
	}
	switch {
	case refusals[f.code]:
		return refusal(f.key, detail)
	case e.cause != nil || f.status == http.StatusRequestTimeout || f.status == http.StatusGatewayTimeout:
		e.Problem = TimedOut
	case f.status == http.StatusTooManyRequests:
		e.Problem = Busy
	case f.status >= 400 && f.status < 500:
		e.Problem = Misconfigured
	default:
		e.Problem = Unavailable
	}
	return e
}

// refusal returns the dead-letter error of a refused question.
func refusal(key, why string) error {
	return deadletter.New(deadletter.ModelRefused, errors.New(strings.TrimSpace(redact(key, why))))
}

// redact removes a secret from a text, in plain and URL-encoded form, and cuts the text to maxDetail bytes.
func redact(secret, text string) string {
	if secret != "" {
		for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret)} {
			text = strings.ReplaceAll(text, form, "[key]")
		}
	}
	if len(text) > maxDetail {
		text = text[:maxDetail]
	}
	return strings.ToValidUTF8(text, "")
}

// errorIn reads an error object in the body of a successful response. Gateways to several providers, such as OpenRouter
// (https://openrouter.ai/docs/api-reference/errors), answer 200 before the provider fails. Without an error, ok is false.
func errorIn(raw string) (f failure, ok bool) {
	if emptyJSON(raw) {
		return f, false
	}
	f.err, f.detail = errors.New("the response holds an error"), "the response holds an error: "+raw
	var body struct {
		Code    json.RawMessage `json:"code"` // a number or a string
		Message string          `json:"message"`
	}
	if json.Unmarshal([]byte(raw), &body) != nil || len(body.Code) == 0 && body.Message == "" {
		return f, true
	}
	f.code = strings.Trim(string(body.Code), `"`)
	f.detail = strings.TrimSpace("the response holds an error: " + f.code + " " + body.Message)
	if status, err := strconv.Atoi(f.code); err == nil && status >= 400 && status < 600 {
		f.status = status
	}
	return f, true
}

// emptyJSON reports whether a raw value is missing, null, false, zero or empty.
func emptyJSON(raw string) bool {
	return slices.Contains([]string{"", "null", "false", "0", `""`, "{}", "[]"}, strings.TrimSpace(raw))
}
