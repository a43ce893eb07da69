package enrichment

import (
	"errors"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

func raw(source, payload string) *event.Event {
	return &event.Event{Source: source, Message: &event.Message{RawPlatformPayload: jsontext.Value(payload)}}
}

func TestIdentify(t *testing.T) {
	twitch := &event.Auth{Provider: "twitch"}
	for _, tt := range []struct {
		name string
		in   *event.Event
		want string // empty for no user
		bad  bool
	}{
		{"user.id first", &event.Event{Source: "ingress.twitch", User: &event.User{ID: "1"}, UserID: "2"}, "twitch:1", false},
		{"then userId", &event.Event{Source: "ingress.twitch", User: &event.User{DisplayName: "x"}, UserID: "2", Message: raw("", `{"userId":"3"}`).Message}, "twitch:2", false},
		{"then the platform's userId", raw("ingress.discord", `{"userId":"3","user":{"id":"4"}}`), "discord:3", false},
		{"then the platform's user", raw("ingress.discord", `{"user":{"id":"4"}}`), "discord:4", false},
		{"a number is an id", raw("ingress.twitch", `{"userId":123}`), "twitch:123", false},
		{"then the external event's userId", &event.Event{Source: "ingress.twitch.eventsub", ExternalEvent: &event.ExternalEvent{Payload: []byte(`{"userId":"5","broadcasterId":"6"}`)}}, "twitch:5", false},
		{"then its broadcaster", &event.Event{Source: "ingress.twitch.eventsub", ExternalEvent: &event.ExternalEvent{Payload: []byte(`{"broadcasterId":"6"}`)}}, "twitch:6", false},
		{"no id", &event.Event{Source: "ingress.twitch"}, "", false},
		{"auth says the provider", &event.Event{Source: "bridge.other", UserID: "7", Auth: twitch}, "twitch:7", false},
		{"the id's own platform wins over the source", &event.Event{Source: "api-gateway", UserID: "twitch:123"}, "twitch:123", false},
		{"and over auth", &event.Event{Source: "api-gateway", UserID: "twitch:123", Auth: &event.Auth{Provider: "api-gateway"}}, "twitch:123", false},
		{"a colon belongs to the id", &event.Event{Source: "api-gateway", UserID: "team:7:ada"}, "api-gateway:team:7:ada", false},
		{"also behind a platform", &event.Event{Source: "api-gateway", UserID: "discord:a:b"}, "discord:a:b", false},
		{"no platform", &event.Event{Source: "cron", UserID: "1"}, "", true},
		{"an unknown platform", &event.Event{Source: "ingress.matrix.room", UserID: "1"}, "", true},
		{"a slash", &event.Event{Source: "ingress.twitch", UserID: "../tokens"}, "", true},
		{"nothing behind the platform", &event.Event{Source: "ingress.twitch", UserID: "twitch:"}, "", true},
		{"too long", &event.Event{Source: "ingress.twitch", User: &event.User{ID: strings.Repeat("1", identity.MaxLen)}}, "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := identify(tt.in)
			if errors.Is(err, identity.ErrInvalid) != tt.bad || err != nil && !tt.bad {
				t.Fatalf("error = %v; want an invalid id: %t", err, tt.bad)
			}
			if got.String() != tt.want {
				t.Errorf("got %q; want %q", got, tt.want)
			}
		})
	}
}

func TestEmail(t *testing.T) {
	for _, tt := range []struct {
		in   *event.Event
		want string
	}{
		{&event.Event{}, ""},
		{&event.Event{User: &event.User{Email: " a@example.com "}, Message: raw("", `{"email":"b@example.com"}`).Message}, "a@example.com"},
		{raw("", `{"email":"b@example.com"}`), "b@example.com"},
		{raw("", `{"user":{"email":"c@example.com"}}`), "c@example.com"},
		{&event.Event{ExternalEvent: &event.ExternalEvent{Payload: []byte(`{"email":"d@example.com"}`)}}, "d@example.com"},
	} {
		if got := email(tt.in); got != tt.want {
			t.Errorf("got %q; want %q", got, tt.want)
		}
	}
}
