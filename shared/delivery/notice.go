package delivery

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"parley.internal/shared/answer"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// StepNotice is the step of a notice: an answer that another system published on the egress topic, without a ledger
// entry.
const StepNotice = "notice"

// SendNotice gives a notice its entry, and sends the notice to the addresses in its event. key identifies the notice: a
// repeated call with the same key does only the missing part, as in [Sender.Send]. SendNotice returns the ids of the
// deliveries.
//
// The error is a [deadletter.Error] if the notice can never be sent, or if the key belongs to a notice with another
// content. In both cases nothing of this notice was sent, except if the time of the notice ended between two addresses.
func (s *Sender) SendNotice(ctx context.Context, e *event.Event, key string) ([]string, error) {
	parts := answer.FanOut(e, StepNotice)
	for _, p := range parts {
		if err := checkRecipient(p.Event); err != nil {
			return nil, err
		}
	}
	first, err := s.open(ctx, key, parts[0])
	if err != nil {
		return nil, err
	}
	stored, err := first.decode()
	if err != nil {
		return nil, err
	}
	if !sameContent(stored, parts[0].Event) {
		return nil, deadletter.New(deadletter.InvalidEvent, fmt.Errorf("the idempotency key %q belongs to a notice with another content (delivery %s)", key, first.ID))
	}
	return s.sendRest(ctx, first, e, parts, key, StepNotice)
}

// checkRecipient checks the recipient of a notice. Another system may have misspelt the recipient, and a misspelt
// recipient has no gateway that could tell the reason.
func checkRecipient(e *event.Event) error {
	platform, err := answer.Platform(e)
	if err != nil {
		return err
	}
	switch platform {
	case identity.Twitch, identity.Discord, identity.APIGateway:
	default:
		return deadletter.New(deadletter.NoPlatform, fmt.Errorf("%q is not a platform for answers (%s, %s or %s)", platform, identity.Twitch, identity.Discord, identity.APIGateway))
	}
	if e.UserID == "" && e.Channel == "" {
		return deadletter.New(deadletter.NoRecipient, errors.New("neither userId nor channel is set"))
	}
	private := e.Egress != nil && e.Egress.Type == event.EgressDM
	if private || platform == identity.APIGateway && e.UserID != "" || platform == identity.Discord && e.Channel == "" {
		if _, err := identity.Parse(e.UserID); err != nil {
			return deadletter.New(deadletter.NoRecipient, fmt.Errorf("userId: %w", err))
		}
		return nil
	}
	if err := answer.ValidateAddress(event.Address{Destination: string(platform), Channel: e.Channel}); err != nil {
		return deadletter.New(deadletter.NoRecipient, err)
	}
	return nil
}

// sameContent reports whether a stored notice has the recipient and the content of e. Ids and times may differ: a system
// may make the event again for a repetition.
func sameContent(stored, e *event.Event) bool {
	platform, _ := answer.Platform(e) // checked before
	kind := event.EgressChat
	if e.Egress != nil && e.Egress.Type != "" {
		kind = e.Egress.Type
	}
	return stored.Egress.Destination == string(platform) && stored.Egress.Type == kind && stored.UserID == e.UserID &&
		stored.Channel == e.Channel && stored.Type == e.Type && answer.Text(stored) == answer.Text(e) &&
		bytes.Equal(canonical(stored.Payload), canonical(e.Payload))
}

// canonical returns a JSON value without insignificant differences.
func canonical(v jsontext.Value) jsontext.Value {
	v = v.Clone()
	_ = v.Canonicalize() // fails only for invalid JSON, and the event was decoded
	return v
}
