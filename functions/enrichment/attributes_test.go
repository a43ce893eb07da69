package enrichment

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

func mustParse(t *testing.T, id string) identity.UserID {
	t.Helper()
	u, err := identity.Parse(id)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestPlatformRoles(t *testing.T) {
	meaning := UsersConfig{DiscordRoles: map[string]string{"Moderators": "moderator", " Server Booster ": "subscriber", "999": "vip"}}.discordRoles()
	for _, tt := range []struct {
		name, user, source, payload string
		want                        []string
		tells                       bool
	}{
		{"a moderator", "twitch:1", "ingress.twitch", `{"isMod":true,"isSubscriber":false}`, []string{"moderator"}, true},
		{"none", "twitch:1", "ingress.twitch", `{"isMod":false,"isSubscriber":false}`, nil, true},
		{"a subscriber, as tags say it", "twitch:1", "ingress.twitch", `{"isMod":"0","isSubscriber":"1"}`, []string{"subscriber"}, true},
		{"in the user", "twitch:1", "ingress.twitch", `{"user":{"isMod":true,"badges":["vip/1"]}}`, []string{"moderator", "vip"}, true},
		{"badges of a tag", "twitch:1", "ingress.twitch", `{"badges":"broadcaster/1,premium/1"}`, []string{"broadcaster"}, true},
		{"no badges", "twitch:1", "ingress.twitch", `{"badges":""}`, nil, true},
		{"badges by name", "twitch:1", "ingress.twitch", `{"badges":{"vip":"1"}}`, []string{"vip"}, true},
		{"badges of EventSub", "twitch:1", "ingress.twitch.eventsub", `{"badges":[{"set_id":"broadcaster","id":"1"}]}`, []string{"broadcaster"}, true},
		{"nothing about roles", "twitch:1", "ingress.twitch", `{"color":"red"}`, nil, false},
		{"not by Twitch", "twitch:1", "api-gateway", `{"isMod":true}`, nil, false},
		{"not about a user of Twitch", "discord:1", "ingress.twitch", `{"isMod":true}`, nil, false},
		{"Discord's names", "discord:1", "ingress.discord", `{"roles":["moderators","Colour: red"]}`, []string{"moderator"}, true},
		{"Discord's ids", "discord:1", "ingress.discord", `{"member":{"roles":["999",{"name":"SERVER BOOSTER"}]}}`, []string{"subscriber", "vip"}, true},
		{"no roles on Discord", "discord:1", "ingress.discord", `{"roles":[]}`, nil, true},
		{"the owner", "discord:1", "ingress.discord", `{"isOwner":true,"roles":[]}`, []string{"broadcaster"}, true},
		{"the owner by id", "discord:1", "ingress.discord", `{"guild":{"ownerId":"1"}}`, []string{"broadcaster"}, true},
		{"not the owner", "discord:1", "ingress.discord", `{"guild":{"ownerId":"2"}}`, nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := raw(tt.source, tt.payload)
			e.Channel = "twitch:ada"
			f := readAttributes(e, mustParse(t, tt.user), meaning)
			if f.hasRoles != tt.tells {
				t.Errorf("tells roles: %t; want %t", f.hasRoles, tt.tells)
			}
			if diff := cmp.Diff(tt.want, f.roles, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("roles (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadAttributes(t *testing.T) {
	e := raw("ingress.twitch", `{"displayName":"Raw","username":"ada","user":{"color":"#f00"}}`)
	e.User = &event.User{DisplayName: " Ada ", Email: "a@example.com", Profile: map[string]string{"pronouns": "she", "long": strings.Repeat("x", maxAttributeLen+1)}}
	f := readAttributes(e, mustParse(t, "twitch:1"), nil)
	if f.displayName != "Ada" || f.email != "a@example.com" || !f.authoritative {
		t.Errorf("attributes = %+v", f)
	}
	if diff := cmp.Diff(map[string]string{"pronouns": "she", "username": "ada", "color": "#f00"}, f.profile); diff != "" {
		t.Errorf("profile (-want +got):\n%s", diff)
	}
	raid := &event.Event{Source: "ingress.twitch.eventsub", ExternalEvent: &event.ExternalEvent{
		Payload: []byte(`{"userId":"1","username":"raider","displayName":"Raider","roomId":"5"}`),
	}}
	if f := readAttributes(raid, mustParse(t, "twitch:1"), nil); f.displayName != "Raider" || f.profile["username"] != "raider" || f.hasRoles {
		t.Errorf("attributes = %+v; want the raider's, and no roles", f)
	}
	if f := readAttributes(raid, mustParse(t, "twitch:5"), nil); f.displayName != "" {
		t.Errorf("attributes = %+v; want none of another user", f)
	}
	f = readAttributes(raw("api-gateway", `{"displayName":"Mallory"}`), mustParse(t, "twitch:1"), nil)
	if f.displayName != "" || f.authoritative {
		t.Errorf("attributes = %+v; want none of another platform's payload", f)
	}
}
