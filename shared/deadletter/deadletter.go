// Package deadletter says why something could not be processed, and carries that reason to where it is kept.
//
// A part that decides that a message can never succeed returns an [*Error] with a [Reason]; whoever received the
// message publishes it, unchanged, on the dead-letter topic with the reason in its attributes, and only then
// acknowledges it. The dlq function stores each once. Any other error means "try again".
package deadletter

import (
	"maps"
	"strconv"
	"strings"
	"unicode/utf8"

	"parley.internal/shared/digest"
)

// Reason is why something was dead-lettered: one of the codes below.
type Reason string

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

// Reasons is the table of all reasons.
var Reasons = []ReasonInfo{
	{InvalidEvent, "The message is not an event: not JSON, too large, or a field is missing or wrong. Its bytes are kept."},
	{NoPlatform, "Nothing in the answer says on which platform it belongs."},
	{NoText, "There is nothing to say: no candidate has a text, and the payload has none."},
	{NoRecipient, "The answer names neither a user nor a channel, or nobody to whom it can be given in the way that was asked for."},
	{Forbidden, "Who asked for a moderator's action may not do that in that channel; the error says what they would need."},
	{NotConfigured, "The platform that the answer goes to is not configured; the error names what is missing."},
	{LoginNeeded, "There is no credential to act with on the platform, or it was withdrawn: somebody has to log in, as the error says."},
	{MissingScope, "The account that acts for Parley has not granted what this takes: log in again, as the error says, and allow it."},
	{SenderRefused, "The platform does not let the account that acts for Parley do this: it is suspended, or its phone number is not verified, for example."},
	{RecipientRefused, "The platform does not take this answer for this recipient: there is no such user, or they block it, for example."},
	{PlatformRefused, "The platform does not take this answer, for a reason that is neither its sender's nor its recipient's; the error has the platform's code and words."},
	{Incomplete, "The answer took several messages, and not all of them could be said; the error tells how many were."},
	{RateLimited, "The platform's limits left no room for it before the deadline."},
	{PlatformUnavailable, "The platform, or what is needed to speak to it, could not be reached before the deadline; it was not sent."},
	{Expired, "The time within which somebody wanted an answer was over before there was one."},
	{ModelFailed, "The model did not answer, for longer than the configuration allows."},
	{ModelRefused, "The model refused to answer, or its answer was blocked."},
	{NoConnection, "No instance held a connection of the recipient before the deadline."},
	{OutcomeUnknown, "The instance that claimed the delivery died, or the platform did not say what came of it: it may or may not have been sent. An operator decides."},
	{Exhausted, "Pub/Sub gave up after the subscription's attempts; the last error stands in the logs."},
}

// Error is a decision that something can't be processed and must not be tried again.
type Error struct {
	Reason Reason
	Err    error // what happened; not nil
}

// New makes an [*Error].
func New(r Reason, err error) *Error { return &Error{Reason: r, Err: err} }

// Error starts with the reason.
func (e *Error) Error() string { return string(e.Reason) + ": " + e.Err.Error() }

// Unwrap gives what happened.
func (e *Error) Unwrap() error { return e.Err }

// Announcement is what the attributes of a message on the dead-letter topic tell about it, beside the attributes that
// the message had already.
type Announcement struct {
	ID       string // of the dead letter
	Reason   Reason
	Message  string // of the error
	Source   string // the part that gave up
	Attempts int    // deliveries so far; 0 if not known
	Topic    string // bare name of the topic that the message was on; empty for a delivery
	Redrive  int    // how many redrives the message had been through
}

// The attributes that carry an announcement.
const (
	attrID       = "deadLetterId"
	attrReason   = "deadLetterReason"
	attrMessage  = "deadLetterError"
	attrSource   = "deadLetterSource"
	attrAttempts = "deadLetterAttempts"
	attrTopic    = "deadLetterTopic"
)

// AttrRedrive stands on a message that was redriven: how many redrives it has been through.
const AttrRedrive = "redrive"

// Attributes that Pub/Sub itself sets on what it forwards after too many attempts
// (https://cloud.google.com/pubsub/docs/handling-failures#dead_letter_topic).
const (
	attrForwardedSubscription = "CloudPubSubDeadLetterSourceSubscription"
	attrForwardedAttempts     = "CloudPubSubDeadLetterSourceDeliveryCount"
)

// maxAttribute is the most bytes that an attribute's value may have (https://cloud.google.com/pubsub/quotas#resource_limits).
const maxAttribute = 1024

// Attributes adds the announcement to a message's attributes, which stay as they are.
func (a Announcement) Attributes(original map[string]string) map[string]string {
	all := make(map[string]string, len(original)+5)
	maps.Copy(all, original)
	all[attrID] = a.ID
	all[attrReason] = string(a.Reason)
	all[attrSource] = a.Source
	if a.Message != "" {
		all[attrMessage] = cut(a.Message, maxAttribute)
	}
	if a.Attempts > 0 {
		all[attrAttempts] = strconv.Itoa(a.Attempts)
	}
	if a.Topic != "" {
		all[attrTopic] = a.Topic
	}
	if a.Redrive > 0 {
		all[AttrRedrive] = strconv.Itoa(a.Redrive)
	}
	return all
}

// ParseAnnouncement reads an announcement from a message's attributes, our own or what Pub/Sub sets, and gives the attributes
// that the message had before. messageID names the dead letter of a message that Pub/Sub forwarded.
func ParseAnnouncement(attributes map[string]string, messageID string) (Announcement, map[string]string) {
	a := Announcement{
		ID:      attributes[attrID],
		Reason:  Reason(attributes[attrReason]),
		Message: attributes[attrMessage],
		Source:  attributes[attrSource],
		Topic:   attributes[attrTopic],
	}
	attempts := attributes[attrAttempts]
	if sub := attributes[attrForwardedSubscription]; sub != "" && a.Reason == "" {
		a.Reason, a.Source, attempts = Exhausted, sub, attributes[attrForwardedAttempts]
	}
	if a.Reason == "" {
		a.Reason = InvalidEvent
		a.Message = "stands on the dead-letter topic without a reason"
	}
	if a.ID == "" {
		a.ID = digest.Of("message", messageID)
	}
	a.Attempts, _ = strconv.Atoi(attempts)               // a count that is not a number is not known
	a.Redrive, _ = strconv.Atoi(attributes[AttrRedrive]) // likewise
	original := maps.Clone(attributes)
	maps.DeleteFunc(original, func(name, _ string) bool {
		return strings.HasPrefix(name, "deadLetter") || strings.HasPrefix(name, "CloudPubSubDeadLetter") || name == AttrRedrive
	})
	return a, original
}

// cut shortens s to at most n bytes without breaking a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
