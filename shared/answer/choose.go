// Package answer decides the text and the address of an answer: it chooses the candidate, finds the platform, makes one
// answer for each address, and adapts the text to the platform. Start with [Prepare] and [FanOut], which make the answers
// to store, and [Render], which makes the messages to send. The functions are pure: they depend on their arguments alone,
// and change no argument. The package does not send: see package delivery.
package answer

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"parley.internal/shared/deadletter"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// Best returns the index of the best candidate: the lowest priority, then the highest confidence, then the earliest,
// then the lowest id. A missing priority or confidence is the worst. Candidates that are superseded, rejected or
// without a text do not count. The index is -1 without a candidate.
func Best(candidates []event.Candidate) int {
	best := -1
	for i, c := range candidates {
		if c.Status == event.CandidateRejected || c.Status == event.CandidateSuperseded || strings.TrimSpace(c.Text) == "" {
			continue
		}
		if best < 0 || compare(c, candidates[best]) < 0 {
			best = i
		}
	}
	return best
}

func compare(a, b event.Candidate) int {
	return cmp.Or(
		missingLast(a.Priority, b.Priority, +1),
		missingLast(a.Confidence, b.Confidence, -1),
		a.CreatedAt.Compare(b.CreatedAt),
		strings.Compare(a.ID, b.ID),
	)
}

// missingLast compares two numbers in the direction of sign. A missing number comes last.
func missingLast(a, b *float64, sign int) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return 1
	case b == nil:
		return -1
	}
	return sign * cmp.Compare(*a, *b)
}

// Text returns the text of an answer: the text of the best candidate, or else of the platform's own message, or of the
// payload, without the white space around. A user's own words are never an answer. Text is empty if the answer has no
// text.
func Text(e *event.Event) string {
	if i := Best(e.Candidates); i >= 0 {
		return strings.TrimSpace(e.Candidates[i].Text)
	}
	if e.Message != nil && e.Message.Role == event.RoleUser {
		return "" // message and payload hold the user's own words
	}
	if e.Message != nil {
		for _, path := range [][]string{{"chat", "text"}, {"text"}} {
			if text, ok := event.Text(e.Message.RawPlatformPayload, path...); ok {
				return strings.TrimSpace(text)
			}
		}
	}
	for _, path := range [][]string{{"chat", "text"}, {"text"}} {
		if text, ok := event.Text(e.Payload, path...); ok {
			return strings.TrimSpace(text)
		}
	}
	return ""
}

// Platform returns the platform of an answer: the destination in egress, or else the platform of the source, or else
// the provider of the user. Without any, it fails with [deadletter.NoPlatform].
func Platform(e *event.Event) (identity.Platform, error) {
	if e.Egress != nil && e.Egress.Destination != "" {
		return identity.Platform(e.Egress.Destination), nil
	}
	if p := identity.PlatformOf(e.Source); p.Known() {
		return p, nil
	}
	if e.Auth != nil && e.Auth.Provider != "" {
		return identity.Platform(e.Auth.Provider), nil
	}
	return "", deadletter.New(deadletter.NoPlatform, errors.New("neither egress.destination, source nor auth.provider names a platform"))
}

// maxMetadata is the maximum size of an answer's metadata, in bytes. Of larger metadata, the answer keeps only the id.
const maxMetadata = 1 << 10

// Prepare returns the answer to send: a copy of e with destination and type, and with the best candidate marked as
// selected. An answer with a candidate keeps neither the payload of the question nor the platform's raw data: the ledger
// would keep them for days. An answer for programs keeps its payload. An answer that can't be sent is a
// [deadletter.Error].
func Prepare(e *event.Event) (*event.Event, error) {
	platform, err := Platform(e)
	if err != nil {
		return nil, err
	}
	out := e.Clone()
	if out.Egress == nil {
		out.Egress = &event.Egress{}
	}
	out.Egress.Destination = string(platform)
	out.Egress.Type = cmp.Or(out.Egress.Type, event.EgressChat)
	if out.Egress.Type != event.EgressEvent && Text(out) == "" {
		return nil, deadletter.New(deadletter.NoText, errors.New("no candidate has a text, and the payload has none"))
	}
	if out.UserID == "" && out.Channel == "" {
		return nil, deadletter.New(deadletter.NoRecipient, errors.New("neither userId nor channel is set"))
	}
	best := Best(out.Candidates)
	if best >= 0 || out.Egress.Type == event.EgressEvent {
		dropQuestion(out)
	}
	for i := range out.Candidates {
		switch {
		case i == best:
			out.Candidates[i].Status = event.CandidateSelected
		case slices.Contains([]string{"", event.CandidateProposed, event.CandidateSelected}, out.Candidates[i].Status):
			out.Candidates[i].Status = event.CandidateSuperseded
		}
	}
	return out, nil
}

// dropQuestion removes those parts of the question that no sender of an answer reads.
func dropQuestion(e *event.Event) {
	if e.Egress.Type != event.EgressEvent {
		e.Payload = nil
	}
	if e.Message != nil {
		e.Message.RawPlatformPayload = nil
	}
	if e.ExternalEvent != nil {
		e.ExternalEvent.Payload, e.ExternalEvent.RawPayload = nil, nil
	}
	if len(e.Metadata) > maxMetadata {
		id, ok := event.Text(e.Metadata, "id")
		e.Metadata = nil
		if ok && len(id) < maxMetadata {
			e.Metadata = event.Raw(map[string]string{"id": id})
		}
	}
}
