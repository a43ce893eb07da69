package deadletter

import (
	"fmt"
	"regexp"
	"slices"
	"time"

	"parley.internal/shared/digest"
)

// Reason is the cause of a dead letter: one of the codes in [Reasons]. A stored dead letter may have a code of a newer
// revision, which is missing in the table.
type Reason string

// wellFormed reports whether r has the form of a code: lower-case letters, digits and underscores, at most 64.
func (r Reason) wellFormed() bool { return reasonSyntax.MatchString(string(r)) }

var reasonSyntax = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)

// The reasons. [Reasons] explains each.
const (
	InvalidEvent        Reason = "invalid_event"
	NoPlatform          Reason = "no_platform"
	NoText              Reason = "no_text"
	NoRecipient         Reason = "no_recipient"
	Forbidden           Reason = "forbidden"
	NotConfigured       Reason = "not_configured"
	LoginNeeded         Reason = "login_needed"
	MissingScope        Reason = "missing_scope"
	SenderRefused       Reason = "sender_refused"
	RecipientRefused    Reason = "recipient_refused"
	PlatformRefused     Reason = "platform_refused"
	Incomplete          Reason = "incomplete"
	RateLimited         Reason = "rate_limited"
	PlatformUnavailable Reason = "platform_unavailable"
	Expired             Reason = "expired"
	ModelFailed         Reason = "model_failed"
	ModelRefused        Reason = "model_refused"
	NoConnection        Reason = "no_connection"
	OutcomeUnknown      Reason = "outcome_unknown"
	Exhausted           Reason = "attempts_exhausted"
)

// ReasonInfo is a reason with its meaning.
type ReasonInfo struct {
	Reason  Reason
	Meaning string
}

//go:generate go test ../repository -run TestReadmeTablesAreCurrent/reasons -update

// Reasons is the table of all reasons. The table in the root README.md and the command line's help are made from it.
var Reasons = []ReasonInfo{
	{InvalidEvent, "The message is not an event: not JSON, too large, or a field is missing or wrong. Or a rule holds for the event, but its action can't be made from the event: the error names the rule and the field. Or its announcement has no valid reason. Or the idempotency key of a notice belongs to another notice. The dead letter has its bytes."},
	{NoPlatform, "The answer does not name its platform, or names a platform that Parley cannot send to."},
	{NoText, "The answer has no text: neither a candidate nor the payload has one."},
	{NoRecipient, "The answer has neither a user nor a channel, or its recipient can't get an answer of this type."},
	{Forbidden, "The requester of a moderation action lacks the permission in that channel; the error names the permission. Only the first refused request of a user in an hour (UTC) becomes a dead letter; other requests are counted and not stored."},
	{NotConfigured, "The platform of the answer is not configured; the error names the missing variables."},
	{LoginNeeded, "Parley's account has no credential for the platform, or the credential was withdrawn: an operator has to log in, as the error says."},
	{MissingScope, "Parley's account has not granted the scope for this: log in again, as the error says, and grant the scope."},
	{SenderRefused, "The platform does not let Parley's account do this: for example, the account is suspended, or its phone number is not verified."},
	{RecipientRefused, "The platform does not accept this answer for this recipient: for example, the user does not exist or blocks the bot."},
	{PlatformRefused, "The platform does not accept this answer, for a reason of neither sender nor recipient; the error has the platform's code and words."},
	{Incomplete, "The answer needs several messages, and not all could be sent; the error has the number."},
	{RateLimited, "The platform's limits left no room for the answer before the deadline."},
	{PlatformUnavailable, "The platform, or another service needed to send, could not be reached before the deadline; the answer was not sent."},
	{Expired, "The time in which an answer was wanted ended before the answer was ready."},
	{ModelFailed, "The model did not answer, for longer than the configuration allows."},
	{ModelRefused, "The model refused to answer, or its answer was blocked."},
	{NoConnection, "No instance held a connection of the recipient before the deadline."},
	{OutcomeUnknown, "The instance with the claim crashed, or the platform did not report the outcome: the answer may or may not have been sent. An operator decides."},
	{Exhausted, "Pub/Sub made all attempts of the subscription; the last error is in the logs."},
}

// known reports whether a reason is in the table.
func (r Reason) known() bool {
	return slices.ContainsFunc(Reasons, func(i ReasonInfo) bool { return i.Reason == r })
}

// Error is the decision that a message can't be processed and must not be tried again. Make one with [New] or [Hourly].
type Error struct {
	Reason Reason
	Err    error  // the cause; not nil
	ID     string // of the dead letter; empty for a dead letter of this message only
}

// New makes an [*Error]. A reason outside of [Reasons], such as a platform's own code, becomes [PlatformRefused], with
// the code before the cause: operators can select dead letters only by the reasons of the table.
func New(r Reason, err error) *Error {
	if !r.known() {
		r, err = PlatformRefused, withCode(r, err)
	}
	return &Error{Reason: r, Err: err}
}

// Hourly makes an [*Error] as [New] does, for a failure that a sender can repeat at will. All failures with the same
// reason and sender in one hour have the same dead letter: the first is stored, and the store ignores the others. So no
// sender can flood the dead letters, through any number of instances.
//
// at is the publish time of the message: every redelivery has the same time. Hours begin at full hours (UTC). An empty
// sender stands for all unknown senders.
func Hourly(r Reason, err error, sender string, at time.Time) *Error {
	e := New(r, err)
	e.ID = digest.Of("hourly", string(e.Reason), sender, at.UTC().Truncate(time.Hour).Format(time.RFC3339))
	return e
}

func withCode(r Reason, err error) error {
	if r == "" {
		return err
	}
	return fmt.Errorf("%s: %w", r, err)
}

// Error starts with the reason.
func (e *Error) Error() string { return string(e.Reason) + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
