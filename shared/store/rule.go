package store

import (
	"context"
	"fmt"
)

// Rule is an enrichment rule, written by an operator. A rule adds something to every event for which the rule's condition
// is true.
type Rule struct {
	ID          string           `firestore:"-"`
	Enabled     bool             `firestore:"enabled"`
	Priority    float64          `firestore:"priority"` // lower values are evaluated first
	When        string           `firestore:"when"`     // the condition: a boolean CEL expression over event
	Annotations []RuleAnnotation `firestore:"annotations,omitempty"`
	Candidates  []RuleCandidate  `firestore:"candidates,omitempty"`
	Slip        []string         `firestore:"slip,omitempty"` // steps to add; "personality" is the only step
	Egress      *RuleEgress      `firestore:"egress,omitempty"`
	Action      *RuleAction      `firestore:"action,omitempty"`
	Cooldown    int64            `firestore:"cooldownSeconds,omitempty"` // pause after a match, per user and channel; all web rooms together count as one channel
}

// RuleAnnotation is an annotation added by a rule.
type RuleAnnotation struct {
	Kind  string   `firestore:"kind"`
	Value string   `firestore:"value,omitempty"`
	Label string   `firestore:"label,omitempty"`
	Text  string   `firestore:"text,omitempty"` // becomes payload.text
	Name  string   `firestore:"name,omitempty"` // becomes payload.name
	Score *float64 `firestore:"score,omitempty"`
}

// RuleCandidate is an answer given by a rule itself.
type RuleCandidate struct {
	Kind       string   `firestore:"kind,omitempty"`
	Text       string   `firestore:"text"`               // a template with {{ CEL expressions over event }}
	Priority   *float64 `firestore:"priority,omitempty"` // the lowest wins; nil for the rule's priority
	Confidence *float64 `firestore:"confidence,omitempty"`
}

// RuleEgress is the destination of a rule's answer, or of the answer of the added step.
type RuleEgress struct {
	Destination string `firestore:"destination,omitempty"` // a platform; empty for the platform of the event
	Type        string `firestore:"type,omitempty"`        // chat, dm or event
	Audience    string `firestore:"audience,omitempty"`    // "user" or empty: the author of the event; "channel": the whole channel, only for the rule's own answer

	// To lists the addresses of the answer, and replaces the fields above. Each address gets a separate delivery. If the
	// rule has no slip, its answer is a relay: the answer goes to all addresses except the event's own channel, and does
	// not replace other answers to the event.
	To []RuleAddress `firestore:"to,omitempty"`
}

// RuleAddress is a channel of a platform.
type RuleAddress struct {
	Destination string `firestore:"destination"` // twitch, discord or api-gateway
	Channel     string `firestore:"channel"`     // twitch:<login>, discord:<channel id>, or the name of a web room
}

// RuleAction is a moderation action of a rule against a person or a message; see package moderation. The author of the
// rule is responsible: only the rule's condition decides about the action, and nobody checks the permissions of the
// event's author. All fields except Action are templates with {{ CEL expressions over event }}. A field with an empty
// result counts as missing.
type RuleAction struct {
	Action          string `firestore:"action"`                    // ban, timeout, unban or delete
	Channel         string `firestore:"channel,omitempty"`         // empty for the event's channel
	UserID          string `firestore:"userId,omitempty"`          // the target's platform id
	Login           string `firestore:"login,omitempty"`           // alternative to UserID on Twitch: the target's name
	MessageID       string `firestore:"messageId,omitempty"`       // the target of a delete
	DurationSeconds any    `firestore:"durationSeconds,omitempty"` // of a timeout: a number, or a template
	Reason          string `firestore:"reason,omitempty"`          // truncated to the platform's limit
}

// Rules reads the enabled rules, in no particular order. A malformed document is left out; broken maps its id to the
// decoding error.
func (s *Store) Rules(ctx context.Context) (rules []Rule, broken map[string]error, err error) {
	snaps, err := s.client.Collection("rules").Where("enabled", "==", true).Documents(ctx).GetAll()
	if err != nil {
		return nil, nil, fmt.Errorf("read the rules: %w", err)
	}
	broken = map[string]error{}
	for _, snap := range snaps {
		var r Rule
		if err := snap.DataTo(&r); err != nil {
			broken[snap.Ref.ID] = err
			continue
		}
		r.ID = snap.Ref.ID
		rules = append(rules, r)
	}
	return rules, broken, nil
}
