package store_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"parley.internal/emulator/emulatortest"
	"parley.internal/shared/identity"
	"parley.internal/shared/store"
)

func TestLinks(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		client, err := store.Connect(t.Context(), env.Deployment(), env.FirestoreOption(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		s := store.New(client)
		id := func(text string) identity.UserID {
			parsed, err := identity.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			return parsed
		}
		for _, tt := range []struct {
			name, id, person string
			want             error
			message          string
		}{
			{"a first id", "discord:1", "twitch:1", nil, ""},
			{"a repetition", "discord:1", "twitch:1", nil, ""},
			{"a second id", "api-gateway:ada", "twitch:1", nil, ""},
			{"to itself", "twitch:1", "twitch:1", identity.ErrInvalid, "itself"},
			{"to a malformed id", "twitch:9", "ada", identity.ErrInvalid, "ada"},
			{"to a second person", "discord:1", "twitch:2", store.ErrLinked, "twitch:1: unlink it first"},
			{"to a linked id", "discord:2", "discord:1", store.ErrLinked, "twitch:1: link to that"},
			{"of the target of links", "twitch:1", "twitch:2", store.ErrLinked, "unlink that first"},
			{"in a circle", "twitch:1", "discord:1", store.ErrLinked, ""},
		} {
			err := s.Link(t.Context(), store.Link{ID: id(tt.id), User: tt.person, LinkedAt: time.Now(), LinkedBy: "me"})
			if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.message) {
				t.Errorf("%s: %v; want %v", tt.name, err, tt.want)
			}
		}
		list := func(person identity.UserID) string {
			t.Helper()
			links, err := s.Links(t.Context(), person)
			if err != nil {
				t.Fatal(err)
			}
			var all []string
			for _, l := range links {
				all = append(all, l.ID.String()+">"+l.User+" by "+l.LinkedBy)
			}
			return strings.Join(all, ", ")
		}
		want := "api-gateway:ada>twitch:1 by me, discord:1>twitch:1 by me"
		if got := list(identity.UserID{}); got != want {
			t.Errorf("all links: %s; want %s", got, want)
		}
		if got := list(id("twitch:2")); got != "" {
			t.Errorf("links to twitch:2: %s", got)
		}

		// the roles of a platform are removed with its last id
		if _, err := client.Doc("users/twitch:1").Set(t.Context(), map[string]any{
			"roles": []string{"friend", "moderator", "subscriber", "vip"}, "own": "field",
			"rolesMeta": map[string][]string{"manual": {"friend"}, "twitch": {"moderator"}, "discord": {"moderator", "subscriber"}, "api-gateway": {"vip"}},
			"rolesIn":   map[string][]string{"twitch:ada": {"moderator"}, "discord:1": {"subscriber"}, "discord:2": {"moderator"}},
		}); err != nil {
			t.Fatal(err)
		}
		if err := s.Link(t.Context(), store.Link{ID: id("discord:8"), User: "twitch:1"}); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct{ id, roles, places string }{
			{"discord:8", "friend moderator subscriber vip", "discord:1 discord:2 twitch:ada"},
			{"discord:1", "friend moderator vip", "twitch:ada"},
			{"api-gateway:ada", "friend moderator", "twitch:ada"},
		} {
			if person, err := s.Unlink(t.Context(), id(tt.id)); err != nil || person != id("twitch:1") {
				t.Errorf("Unlink(%s) = %v, %v", tt.id, person, err)
			}
			u, _, err := s.User(t.Context(), id("twitch:1"))
			if err != nil || strings.Join(u.Roles, " ") != tt.roles {
				t.Errorf("without %s: roles %v, %v; want %s", tt.id, u.Roles, err, tt.roles)
			}
			if places := strings.Join(slices.Sorted(maps.Keys(u.RolesIn)), " "); places != tt.places {
				t.Errorf("without %s: roles in %s; want %s", tt.id, places, tt.places)
			}
		}
		if snap, err := client.Doc("users/twitch:1").Get(t.Context()); err != nil || snap.Data()["own"] != "field" {
			t.Errorf("an operator's field: %v, %v", snap, err)
		}
		if _, err := s.Unlink(t.Context(), id("discord:1")); !errors.Is(err, store.ErrNotLinked) {
			t.Errorf("Unlink = %v; want ErrNotLinked", err)
		}
		// a link to a missing person, and a malformed link
		if err := s.Link(t.Context(), store.Link{ID: id("discord:3"), User: "twitch:77"}); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Doc("identities/discord:4").Set(t.Context(), map[string]any{"user": 7}); err != nil {
			t.Fatal(err)
		}
		for _, gone := range []string{"discord:3", "discord:4"} {
			if _, err := s.Unlink(t.Context(), id(gone)); err != nil {
				t.Errorf("Unlink(%s) = %v", gone, err)
			}
		}
		if got := list(identity.UserID{}); got != "" {
			t.Errorf("remaining links: %s", got)
		}
	})
}
