package enrichment

import (
	"strings"

	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// provider is the platform that an event's own words say its user is known on: what its auth says, else what its
// source says.
func provider(e *event.Event) identity.Platform {
	if e.Auth != nil && e.Auth.Provider != "" {
		return identity.Platform(e.Auth.Provider)
	}
	return identity.PlatformOf(e.Source)
}

// identify finds whom an event is about: by the first id that is there. An id that names its platform keeps it,
// whatever the provider; a raw one belongs to the provider. It is zero, without an error, if the event has no id, and
// the error matches [identity.ErrInvalid] if the first one can't be an id.
func identify(e *event.Event) (identity.UserID, error) {
	raw := rawID(e)
	if raw == "" {
		return identity.UserID{}, nil
	}
	return identity.Resolve(raw, provider(e))
}

func rawID(e *event.Event) string {
	if e.User != nil && e.User.ID != "" {
		return e.User.ID
	}
	if e.UserID != "" {
		return e.UserID
	}
	if e.Message != nil {
		for _, path := range [][]string{{"userId"}, {"user", "id"}} {
			if id, ok := event.Text(e.Message.RawPlatformPayload, path...); ok {
				return id
			}
		}
	}
	if e.ExternalEvent != nil {
		for _, path := range [][]string{{"userId"}, {"broadcasterId"}} {
			if id, ok := event.Text(e.ExternalEvent.Payload, path...); ok {
				return id
			}
		}
	}
	return ""
}

// email finds the address by which an event without an id may be tied to a person. It is compared as it is written,
// without the space around.
func email(e *event.Event) string {
	if e.User != nil && e.User.Email != "" {
		return strings.TrimSpace(e.User.Email)
	}
	if e.Message != nil {
		for _, path := range [][]string{{"email"}, {"user", "email"}} {
			if address, ok := event.Text(e.Message.RawPlatformPayload, path...); ok {
				return strings.TrimSpace(address)
			}
		}
	}
	if e.ExternalEvent != nil {
		if address, ok := event.Text(e.ExternalEvent.Payload, "email"); ok {
			return strings.TrimSpace(address)
		}
	}
	return ""
}
