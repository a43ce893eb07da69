package stack

import (
	"os"
	"strings"
	"testing"
	"time"

	"parley.internal/emulator/emulatortest"
	"parley.internal/functions/enrichment/rule"
	"parley.internal/shared/event"
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

func TestInvalidSeedFieldsAreReportedByPath(t *testing.T) {
	for name, tt := range map[string]struct{ in, want string }{
		"unknown collection": {"people: {}", "people"},
		"unknown field":      {"users: {twitch:1: {displayname: Ada}}", `users/twitch:1: unknown field "displayname"`},
		"bad user id":        {"users: {ada: {}}", "users/ada"},
		"linked to nobody":   {"identities: {twitch:1: {user: ada}}", "identities/twitch:1: user: invalid user id"},
		"linked to itself":   {"identities: {twitch:1: {user: 'twitch:1'}}", "linked to itself"},
		"a chain of links":   {"identities: {twitch:1: {user: 'twitch:2'}, twitch:2: {user: 'twitch:3'}}", "identities/twitch:1: user: twitch:2 is linked itself"},
		"a text for a list":  {"users: {twitch:1: {roles: moderator}}", "users/twitch:1: roles: not a list"},
		"a number in a list": {"users: {twitch:1: {rolesMeta: {twitch: [moderator, 7]}}}", "users/twitch:1: rolesMeta.twitch.1: not a text"},
		"no time":            {"users: {twitch:1: {lastSeenAt: yesterday}}", "users/twitch:1: lastSeenAt: not a time"},
		"half a message":     {"users: {twitch:1: {sessionCount: 1.5}}", "users/twitch:1: sessionCount: not a whole number"},
		"keys of a map":      {"users: {twitch:1: {profile: {1: 2}}}", "users/twitch:1: profile: not a list of names with values"},
		"maybe":              {"rules: {r: {enabled: 1}}", "rules/r: enabled: not true or false"},
		"deeper in a rule":   {"rules: {r: {enabled: true, candidates: [{text: a, priority: high}]}}", "rules/r: candidates.0.priority: not a number"},
		"unknown, deeper":    {"rules: {r: {enabled: true, candidates: [{txt: a}]}}", `rules/r: candidates.0: unknown field "txt"`},
		"a broken condition": {"rules: {r: {enabled: true, when: event.mesage.text == '', candidates: [{text: a}]}}", "rules/r: when: "},
		"a broken template":  {"rules: {r: {enabled: true, when: 'true', candidates: [{text: '{{ event. }}'}]}}", "rules/r: candidates.0.text: "},
		"nothing to add":     {"rules: {r: {enabled: true, when: 'true'}}", "rules/r: adds nothing"},
		"not YAML":           {"users: [", "read the seed"},
		"nothing":            {"# nothing", "it is empty"},
	} {
		if _, err := ParseSeed([]byte(tt.in)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %s", name, err, tt.want)
		}
	}
}

func TestSeedErrorListsEveryProblem(t *testing.T) {
	_, err := ParseSeed([]byte(`
users: {twitch:1: {roles: moderator, tags: x}, twitch:2: {notes: 7}}
personalities: {p: {text: [a]}}
identities: {discord:1: {user: 7}}
rules:
  one: {enabled: true, when: "1", slip: [nowhere], candidates: [{}]}
  two: {enabled: true, when: "event.", candidates: [{text: a}]}
  off: {enabled: false, when: "event."}
`))
	if err == nil {
		t.Fatal("the seed was accepted")
	}
	for _, want := range []string{
		"users/twitch:1: roles: ", "users/twitch:1: tags: ", "users/twitch:2: notes: ", "personalities/p: text: ", "identities/discord:1: user: not a text",
		"rules/one: slip.0: ", "rules/one: candidates.0.text: missing", "rules/two: when: ",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "rules/off") {
		t.Errorf("a disabled rule was refused:\n%v", err)
	}
}

// The rule ask holds for a message that addresses the bot, and not for a command.
func TestSeedAnswersAMessageThatAddressesTheBot(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		client, err := store.Connect(t.Context(), env.Deployment(), env.FirestoreOption(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		if _, err := defaultSeed(t).Write(t.Context(), client, time.Now()); err != nil {
			t.Fatal(err)
		}
		rules, _, err := store.New(client).Rules(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		set, _ := rule.Compile(rules, nil)
		for _, tt := range []struct {
			text     string
			mentions bool
			want     string
		}{
			{"@Parley how are you?", true, "ask"},
			{"and you?", true, "ask"}, // a reply
			{"!ask how are you?", false, "ask"},
			{"!help", true, "help"},
			{"!roles", true, "roles"},
			{"!pirate where to?", true, "pirate"},
			{"@parley how are you?", false, ""}, // of another user
			{"hello", false, ""},
		} {
			e := &event.Event{V: event.Version, Source: "ingress.discord", Type: event.TypeChatMessage, Channel: "discord:3001", Message: &event.Message{Text: tt.text, MentionsBot: tt.mentions}}
			got := ""
			for _, a := range set.Evaluate(e, time.Now(), func(string) bool { return false }).Applied {
				got += a.ID
			}
			if got != tt.want {
				t.Errorf("%q, mentions the bot: %t: rules %q; want %q", tt.text, tt.mentions, got, tt.want)
			}
		}
	})
}

func TestSeedIsWrittenOnceAndKeepsLaterChanges(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		client, err := store.Connect(t.Context(), env.Deployment(), env.FirestoreOption(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		seed := defaultSeed(t)
		first, err := seed.Write(t.Context(), client, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Doc("users/api-gateway:eve").Update(t.Context(), nil); err == nil {
			t.Error("an update without fields was accepted")
		}
		if _, err := client.Doc("personalities/host").Set(t.Context(), map[string]any{"name": "host", "status": "active", "text": "changed by hand"}); err != nil {
			t.Fatal(err)
		}
		second, err := seed.Write(t.Context(), client, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		s := store.New(client)
		if p, ok, err := s.Personality(t.Context(), "host"); err != nil || !ok || p.Text != "changed by hand" {
			t.Errorf("the second Write changed the edited personality to %+v, %v, %v", p, ok, err)
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
			t.Errorf("rules do not compile: %v", failed)
		}
	})
}
