package model

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"parley.internal/shared/deadletter"
)

// Problem is why a model could not answer now.
type Problem string

// The problems. Each is worth another try.
//
// Misconfigured is among them although the next try will most likely fail as well: nothing is wrong with the message,
// so it has to wait, as long as messages may, for an operator to mend the key, the permission or the model's name. It
// differs in that it is logged as an error.
const (
	Busy          Problem = "busy"          // the rate limit or the quota is used up (429)
	TimedOut      Problem = "timed_out"     // no reply within the time of one call
	Unavailable   Problem = "unavailable"   // the network or the endpoint fails (5xx), or it replies with what is no reply
	Misconfigured Problem = "misconfigured" // the endpoint refuses us or the request's form (400, 401, 403, 404, 422)
)

// Error is a failure that is worth another try.
type Error struct {
	Problem Problem
	Status  int    // the HTTP status; 0 if there was none
	Detail  string // what the endpoint or the network says, without any key
	cause   error  // the context's error, or nil: a provider's own error may hold a key in its fields
}

// Error starts with the problem.
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

// Unwrap gives the context's error where the call was cut short.
func (e *Error) Unwrap() error { return e.cause }

// maxDetail bounds what is taken over from an endpoint's answer, in bytes.
const maxDetail = 300

// failure is the one place where what went wrong becomes an error of this package.
type failure struct {
	key    string // the secret that must not be in the error; empty if there is none
	status int    // the HTTP status; 0 if there was no answer
	code   string // the endpoint's own code
	err    error  // what the library returned; not nil
	detail string // replaces err's text, if set
}

// refusals are codes with which an endpoint says that it won't answer this question. Azure's and OpenAI's content
// filters refuse with status 400 and one of these.
var refusals = map[string]bool{"content_filter": true, "content_policy_violation": true, "ResponsibleAIPolicyViolation": true}

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

// refusal says that the model won't answer.
func refusal(key, why string) error {
	return deadletter.New(deadletter.ModelRefused, errors.New(strings.TrimSpace(redact(key, why))))
}

// redact removes a secret from a text, also in the form that it takes in a URL, and cuts the text.
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
