package stack

import (
	"os"
	"strings"
	"testing"
	"time"

	"parley.internal/emulator/emulatortest"
	"parley.internal/functions/enrichment/rule"
	"parley.internal/shared/identity"
	"parley.internal/shared/store"
)

func TestMain(m *testing.M) { emulatortest.Main(m) }

func defaultSeed(t *testing.T) Seed {
	t.Helper()
	data, err := os.ReadFile("../seed.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseSeed(data)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestASeedWithAMistakeIsRefusedByName(t *testing.T) {
	for name, tt := range map[string]struct{ in, want string }{
		"unknown collection": {"people: {}", "people"},
		"unknown field":      {"users: {twitch:1: {displayname: Ada}}", `users/twitch:1: unknown field "displayname"`},
		"bad user id":        {"users: {ada: {}}", "users/ada"},
		"linked to nobody":   {"identities: {twitch:1: {user: ada}}", "identities/twitch:1: user: invalid user id"},
		"linked to itself":   {"identities: {twitch:1: {user: 'twitch:1'}}", "linked to itself"},
		"a chain of links":   {"identities: {twitch:1: {user: 'twitch:2'}, twitch:2: {user: 'twitch:3'}}", "identities/twitch:1: user: twitch:2 is linked itself"},
		"not YAML":           {"users: [", "read the seed"},
		"nothing":            {"# nothing", "it is empty"},
	} {
		if _, err := ParseSeed([]byte(tt.in)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %s", name, err, tt.want)
		}
	}
}

func TestTheSeedIsPlantedOnceAndReadAsWhatItIs(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		client, err := store.Connect(t.Context(), env.Deployment())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		seed := defaultSeed(t)
		first, err := seed.Plant(t.Context(), client, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Doc("users/api-gateway:eve").Update(t.Context(), nil); err == nil {
			t.Error("an empty update was taken")
		}
		if _, err := client.Doc("personalities/host").Set(t.Context(), map[string]any{"name": "host", "status": "active", "text": "changed by hand"}); err != nil {
			t.Fatal(err)
		}
		second, err := seed.Plant(t.Context(), client, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		s := store.New(client)
		if p, ok, err := s.Personality(t.Context(), "host"); err != nil || !ok || p.Text != "changed by hand" {
			t.Errorf("what was changed by hand is %+v, %v, %v", p, ok, err)
		}
		for user := range seed.Users {
			for _, raw := range []string{first[user], second[user]} {
				if token, ok, err := s.Token(t.Context(), store.TokenHash(raw)); err != nil || !ok || token.UserID != user {
					t.Errorf("token of %s: %+v, %v, %v", user, token, ok, err)
				}
			}
		}
		rules, broken, err := s.Rules(t.Context())
		if err != nil || len(broken) != 0 || len(rules) != len(seed.Rules) {
			t.Fatalf("%d rules, broken %v, %v", len(rules), broken, err)
		}
		links, err := s.Links(t.Context(), identity.UserID{})
		if err != nil || len(links) != len(seed.Identities) {
			t.Errorf("%d links, %v", len(links), err)
		}
		if _, failed := rule.Compile(rules, nil); len(failed) != 0 {
			t.Errorf("rules that don't compile: %v", failed)
		}
	})
}
