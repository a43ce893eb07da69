package twitch

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"parley.internal/shared/credential"
	"parley.internal/shared/deadletter"
)

// Outcome is the effect of a request that failed, or had nothing to do.
type Outcome int

// The outcomes.
const (
	Unknown      Outcome = iota // Twitch may or may not have executed the request
	AlreadyDone                 // the requested state existed before the request
	NotDone                     // Twitch did not execute the request; a later attempt may succeed
	Unauthorized                // no valid token: Twitch did not execute the request; Reason says what is missing
	Refused                     // Twitch did not execute the request, and will never do so
)

// Error describes a request without success. A nil *Error is success.
type Error struct {
	Outcome Outcome
	Reason  deadletter.Reason // of the dead letter, if no attempt follows; empty for AlreadyDone
	Status  int               // HTTP status; 0 without an answer
	Words   string            // Twitch's message with the status; empty without one
	After   time.Duration     // pause before another attempt; 0 if Twitch does not say
	Passes  bool              // of NotDone: a refusal of a chat message that ends by itself
	Err     error             // Twitch's status and words, or the failure on the way; holds no token
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// row assigns a meaning to answers. An answer matches if the operation, the status and the words match.
type row struct {
	operation Operation // empty for every operation
	from, to  int       // range of HTTP statuses; 0 for no answer after a connection
	words     string    // lower-case part of Twitch's message; empty for every message
	outcome   Outcome
	reason    deadletter.Reason
}

// table maps the answers without success, after the tables of response codes on the operations' pages. The first
// matching row decides. A request without a connection is NotDone for every operation, and not in the table.
var table = []row{
	// Reading changes nothing, so reading may be repeated.
	{GetUsers, 0, 0, "", NotDone, deadletter.PlatformUnavailable},
	{GetUsers, 408, 408, "", NotDone, deadletter.PlatformUnavailable},
	{GetUsers, 500, 599, "", NotDone, deadletter.PlatformUnavailable},

	{SendChatMessage, 503, 503, "", NotDone, deadletter.PlatformUnavailable},    // other 5xx may follow an accepted message
	{SendChatMessage, 403, 403, "timed out", NotDone, deadletter.SenderRefused}, // ends by itself; a ban does not
	{SendChatMessage, 400, 400, "", Refused, deadletter.PlatformRefused},
	{SendChatMessage, 422, 422, "", Refused, deadletter.PlatformRefused}, // the message is too long

	{BanUser, 400, 400, "already banned", AlreadyDone, ""}, // a ban outlasts every time-out
	{BanUser, 409, 409, "", NotDone, deadletter.RecipientRefused},
	{UnbanUser, 400, 400, "is not banned", AlreadyDone, ""},
	{UnbanUser, 409, 409, "", NotDone, deadletter.RecipientRefused}, // another client changes the ban at the same moment
	{DeleteMessage, 404, 404, "", AlreadyDone, ""},                  // deleted, or older than six hours: Twitch does not distinguish them

	{CreateSubscription, 409, 409, "", AlreadyDone, ""},
	{DeleteSubscription, 404, 404, "", AlreadyDone, ""},

	{"", 0, 0, "", Unknown, deadletter.OutcomeUnknown},
	{"", 401, 401, "scope", Unauthorized, deadletter.MissingScope},
	{"", 401, 401, "", Unauthorized, deadletter.SenderRefused},
	{"", 403, 403, "", Refused, deadletter.SenderRefused},
	{"", 408, 408, "", Unknown, deadletter.OutcomeUnknown},
	{"", 429, 429, "", NotDone, deadletter.RateLimited},
	{"", 400, 499, "", Refused, deadletter.RecipientRefused},
	{"", 500, 999, "", Unknown, deadletter.OutcomeUnknown},
	{"", 100, 399, "", Refused, deadletter.NotConfigured}, // Twitch's API does not redirect
}

// find returns the first row that matches.
func find(op Operation, status int, message string) row {
	message = strings.ToLower(message)
	for _, r := range table {
		if (r.operation == "" || r.operation == op) && r.from <= status && status <= r.to && strings.Contains(message, r.words) {
			return r
		}
	}
	return row{outcome: Unknown, reason: deadletter.OutcomeUnknown} // no HTTP status
}

const (
	// uncertain ends the error of a request with an unknown outcome.
	uncertain = "Twitch may or may not have executed the request"
	// conflictPause is the pause after a conflict with another client.
	conflictPause = time.Second
)

// judge returns nil for an answer of success, and otherwise the error with the table's outcome.
func (c *Client) judge(op Operation, x *exchange, token credential.Token) *Error {
	if x.status >= 200 && x.status < 300 {
		return nil
	}
	if x.status == 0 && !x.connected.Load() {
		return &Error{Outcome: NotDone, Reason: deadletter.PlatformUnavailable, Err: fmt.Errorf("no connection to Twitch: %w", redact(x.err, token.Access))}
	}
	message := messageOf(x.body, token.Access)
	r := find(op, x.status, message)
	e := &Error{Outcome: r.outcome, Reason: r.reason, Status: x.status, Words: message}
	switch {
	case x.status == 0:
		e.Err = fmt.Errorf("no answer from Twitch: %w", redact(x.err, token.Access))
	case r.reason == deadletter.NotConfigured:
		e.Err = fmt.Errorf("TWITCH_API_URL answered %d, which Twitch's API does not", x.status)
	default:
		e.Err = fmt.Errorf("status %d from Twitch: %s", x.status, cmp.Or(message, http.StatusText(x.status)))
	}
	if r.outcome == Unknown {
		e.Err = fmt.Errorf("%w; %s", e.Err, uncertain)
	}
	switch {
	case x.status == http.StatusTooManyRequests:
		e.After = resetIn(x.header, c.now())
	case x.status == http.StatusConflict:
		e.After = conflictPause
	case r.outcome == NotDone && r.reason == deadletter.SenderRefused:
		e.After, e.Passes = passing["user_timed_out"].pause, true
	}
	return e
}

// notMade is the error of a request that could not be built.
func notMade(op Operation, err error) *Error {
	return &Error{Outcome: Refused, Reason: deadletter.NotConfigured, Err: fmt.Errorf("%s at Twitch: %w", op, err)}
}

// unreadable is the error of an answer of success with unreadable content.
func unreadable(op Operation, err error) *Error {
	e := &Error{Outcome: Unknown, Reason: deadletter.OutcomeUnknown, Status: http.StatusOK, Err: fmt.Errorf("%s at Twitch: unreadable answer: %w", op, err)}
	if op == GetUsers {
		e.Outcome, e.Reason = NotDone, deadletter.PlatformUnavailable
	}
	return e
}

const (
	minReset = 100 * time.Millisecond
	maxReset = time.Minute // Helix's bucket fills within a minute
)

// resetIn reads the time until Helix accepts requests again from the header Ratelimit-Reset, in seconds since 1970
// (https://dev.twitch.tv/docs/api/guide/#twitch-rate-limits). The time is between 100 ms and a minute, or 0 without a
// readable header.
func resetIn(h http.Header, now time.Time) time.Duration {
	at, err := strconv.ParseInt(h.Get("Ratelimit-Reset"), 10, 64)
	if err != nil {
		return 0
	}
	return min(max(time.Unix(at, 0).Sub(now), minReset), maxReset)
}

// messageOf returns the message in the body of an error answer; empty if the body is not Twitch's JSON.
func messageOf(body []byte, token credential.Secret) string {
	var answer struct {
		Message string `json:"message"`
	}
	_ = json.Unmarshal(body, &answer)
	return quote(answer.Message, token)
}

// maxQuote is the number of characters repeated of Twitch's messages.
const maxQuote = 300

// quote shortens a server's text and removes the token.
func quote(text string, token credential.Secret) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if secret := token.Reveal(); secret != "" {
		text = strings.ReplaceAll(text, secret, "[redacted]")
	}
	if runes := []rune(text); len(runes) > maxQuote {
		return string(runes[:maxQuote-1]) + "…"
	}
	return text
}

// redact returns err, or its text without the token if the text holds the token.
func redact(err error, token credential.Secret) error {
	if err == nil {
		return errors.New("the connection ended")
	}
	if secret := token.Reveal(); secret != "" && strings.Contains(err.Error(), secret) {
		return errors.New(strings.ReplaceAll(err.Error(), secret, "[redacted]"))
	}
	return err
}
