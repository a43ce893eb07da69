package enrichment

import (
	"strings"

	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// provider returns the platform of an event's user: auth.provider, or else the platform of the source.
func provider(e *event.Event) identity.Platform {
	if e.Auth != nil && e.Auth.Provider != "" {
		return identity.Platform(e.Auth.Provider)
	}
	return identity.PlatformOf(e.Source)
}

// identify returns the user id of an event: the first id found by rawID. An id with a platform keeps the platform, and
// an id without one belongs to the provider. The result is zero without an error if the event has no id. The error
// matches [identity.ErrInvalid] if the id is malformed.
func identify(e *event.Event) (identity.UserID, error) {
	raw := rawID(e)
	if raw == "" {
		return identity.UserID{}, nil
	}
	return identity.Resolve(raw, provider(e))
}

// rawID returns the first id found in user, userId, the message's raw payload and the external event, or empty.
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

// email returns the e-mail address of an event, for events without an id. Addresses are compared as written, except for
// surrounding space.
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
