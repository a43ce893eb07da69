// Package deadletter defines the reasons of dead letters, announces dead letters on the bus, and stores them in
// Firestore.
//
// A part of Parley returns an [*Error] with a [Reason] for a message that can never succeed. The bus publishes the
// message, unchanged, on the dead-letter topic, with the reason in the attributes ([Announcement]), and only then
// acknowledges the message. The dlq function puts the message into the [Store], once. Any other error means "try
// again". The package does not know who redrives a dead letter: see package redrive.
package deadletter

import (
	"maps"
	"strconv"
	"strings"
	"unicode/utf8"

	"parley.internal/shared/digest"
)

// Announcement describes a message on the dead-letter topic. It is in the message's attributes, beside the original
// attributes.
type Announcement struct {
	ID       string // of the dead letter
	Reason   Reason
	Message  string // of the error
	Source   string // the part of Parley that dead-lettered the message
	Attempts int    // deliveries by Pub/Sub so far; 0 if not known
	Topic    string // bare name of the message's topic; empty for a delivery
	Redrive  int    // redrives of the message so far
}

// The attributes of an announcement.
const (
	attrID       = "deadLetterId"
	attrReason   = "deadLetterReason"
	attrMessage  = "deadLetterError"
	attrSource   = "deadLetterSource"
	attrAttempts = "deadLetterAttempts"
	attrTopic    = "deadLetterTopic"
)

// AttrRedrive is the attribute of a redriven message: the number of its redrives.
const AttrRedrive = "redrive"

// MarkRedriven returns the attributes for publishing the message of a dead letter again. id is the id of the dead letter,
// and redrive the number of redrives. original is not changed.
func MarkRedriven(original map[string]string, id string, redrive int) map[string]string {
	all := make(map[string]string, len(original)+2)
	maps.Copy(all, original)
	all[attrID], all[AttrRedrive] = id, strconv.Itoa(redrive)
	return all
}

// RedrivenID returns the id of the dead letter of a redriven message, from the message's attributes. If the message
// fails again, the failure belongs to this dead letter. The id is empty for a message that was not redriven, and for a
// message redriven by a revision that did not set the id.
func RedrivenID(attributes map[string]string) string {
	if attributes[AttrRedrive] == "" {
		return ""
	}
	return attributes[attrID]
}

// OriginalAttributes returns a copy of a message's attributes without the attributes of announcements and redrives.
func OriginalAttributes(attributes map[string]string) map[string]string {
	original := maps.Clone(attributes)
	maps.DeleteFunc(original, func(name, _ string) bool {
		return strings.HasPrefix(name, "deadLetter") || strings.HasPrefix(name, "CloudPubSubDeadLetter") || name == AttrRedrive
	})
	return original
}

// Attributes set by Pub/Sub on a message forwarded after too many attempts
// (https://cloud.google.com/pubsub/docs/handling-failures#dead_letter_topic).
const (
	attrForwardedSubscription = "CloudPubSubDeadLetterSourceSubscription"
	attrForwardedAttempts     = "CloudPubSubDeadLetterSourceDeliveryCount"
)

// maxAttribute is the maximum length of an attribute's value, in bytes (https://cloud.google.com/pubsub/quotas#resource_limits).
const maxAttribute = 1024

// Attributes returns the message's attributes with the announcement. original is not changed. A long message is cut.
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

// ParseAnnouncement reads an announcement from a message's attributes, made by [Announcement.Attributes] or by Pub/Sub. It
// also returns the original attributes. messageID makes the id of the dead letter if Pub/Sub forwarded a message that was
// not redriven. A message without a reason is [InvalidEvent].
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
		a.Message = "the message on the dead-letter topic has no reason"
	}
	if a.ID == "" {
		a.ID = digest.Of("message", messageID)
	}
	a.Attempts, _ = strconv.Atoi(attempts)               // an invalid count is 0: not known
	a.Redrive, _ = strconv.Atoi(attributes[AttrRedrive]) // likewise
	return a, OriginalAttributes(attributes)
}

// cut shortens s to at most n bytes, between two characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
