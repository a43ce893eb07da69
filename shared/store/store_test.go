package store_test

import (
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"parley.internal/emulator/emulatortest"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/store"
)

func TestMain(m *testing.M) { emulatortest.Main(m) }

func open(t *testing.T, env emulatortest.Env) (*store.Store, *firestore.Client) {
	t.Helper()
	client, err := store.Connect(t.Context(), env.Deployment(), env.FirestoreOption(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return store.New(client), client
}

func user(t *testing.T, s string) identity.UserID {
	t.Helper()
	id, err := identity.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestTokensAreStoredByHash(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		s, client := open(t, env)
		hash := store.TokenHash("secret")
		if _, ok, err := s.Token(t.Context(), hash); err != nil || ok {
			t.Fatalf("Token before = %v, %v", ok, err)
		}
		want := store.Token{UserID: "twitch:1", CreatedAt: event.TruncateToMicros(time.Now()), ExpiresAt: event.TruncateToMicros(time.Now().Add(time.Hour))}
		if err := s.PutToken(t.Context(), hash, want); err != nil {
			t.Fatal(err)
		}
		used := event.TruncateToMicros(time.Now())
		if err := s.TouchToken(t.Context(), hash, used); err != nil {
			t.Fatal(err)
		}
		want.LastUsedAt = used
		got, ok, err := s.Token(t.Context(), hash)
		if err != nil || !ok {
			t.Fatalf("Token = %v, %v", ok, err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateApproxTime(0)); diff != "" {
			t.Errorf("token (-want +got):\n%s", diff)
		}
		if _, err := client.Doc("gateways/api/tokens/" + hash).Get(t.Context()); err != nil {
			t.Errorf("token not at its path: %v", err)
		}
	})
}

func TestPersonalityReturnsTheHighestActiveVersion(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		s, client := open(t, env)
		for id, p := range map[string]store.Personality{
			"a": {Name: "host", Text: "old", Status: store.StatusActive, Version: 1},
			"b": {Name: "host", Text: "new", Status: store.StatusActive, Version: 2},
			"c": {Name: "host", Text: "draft", Status: "inactive", Version: 3},
			"d": {Name: "retired", Text: "gone", Status: "inactive"},
		} {
			if _, err := client.Collection("personalities").Doc(id).Create(t.Context(), p); err != nil {
				t.Fatal(err)
			}
		}
		if p, ok, err := s.Personality(t.Context(), "host"); err != nil || !ok || p.Text != "new" || p.ID != "b" {
			t.Errorf("host = %+v, %v, %v", p, ok, err)
		}
		for _, name := range []string{"retired", "unknown"} {
			if p, ok, err := s.Personality(t.Context(), name); err != nil || ok {
				t.Errorf("%s = %+v, %v, %v; want none", name, p, ok, err)
			}
		}
	})
}

func TestRulesSkipsAMalformedRule(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		s, client := open(t, env)
		for id, doc := range map[string]map[string]any{
			"good":     {"enabled": true, "when": "true", "priority": 1},
			"disabled": {"enabled": false, "when": "true"},
			"broken":   {"enabled": true, "when": []string{"not", "a", "text"}},
		} {
			if _, err := client.Collection("rules").Doc(id).Create(t.Context(), doc); err != nil {
				t.Fatal(err)
			}
		}
		rules, broken, err := s.Rules(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(rules) != 1 || rules[0].ID != "good" || rules[0].Priority != 1 {
			t.Errorf("rules = %+v", rules)
		}
		if len(broken) != 1 || broken["broken"] == nil {
			t.Errorf("broken = %v", broken)
		}
	})
}

func TestConversationsArePerUserAndChannel(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		s, _ := open(t, env)
		now := event.TruncateToMicros(time.Now())
		want := store.Conversation{Turns: []store.Turn{{ID: "c1", Question: "q", Answer: "a", At: now}}, UpdatedAt: now, ExpireAt: now.Add(time.Hour)}
		if err := s.PutConversation(t.Context(), "twitch:1", "lobby", want); err != nil {
			t.Fatal(err)
		}
		got, err := s.Conversation(t.Context(), "twitch:1", "lobby")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateApproxTime(0)); diff != "" {
			t.Errorf("conversation (-want +got):\n%s", diff)
		}
		for _, other := range [][2]string{{"twitch:1", "kitchen"}, {"twitch:2", "lobby"}} {
			if c, err := s.Conversation(t.Context(), other[0], other[1]); err != nil || len(c.Turns) != 0 {
				t.Errorf("conversation of %v = %+v, %v; want none", other, c, err)
			}
		}
	})
}
