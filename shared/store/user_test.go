package store_test

import (
	"errors"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"parley.internal/emulator/emulatortest"
	"parley.internal/shared/event"
	"parley.internal/shared/store"
)

func TestUserWriteRequiresTheReadVersion(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		s, client := open(t, env)
		ada := user(t, "twitch:1")
		_, none, err := s.User(t.Context(), ada)
		if err != nil || !time.Time(none).IsZero() {
			t.Fatalf("User before = %v, %v", none, err)
		}
		want := store.User{
			Provider: "twitch", DisplayName: "Ada", Email: "ada@example.com", Roles: []string{"moderator"},
			RolesMeta: map[string][]string{"twitch": {"moderator"}}, RolesIn: map[string][]string{"twitch:ada": {"moderator"}}, Profile: map[string]string{"lang": "en"}, Tags: []string{"x"},
			FirstSeenAt: event.TruncateToMicros(time.Now()), MessageCountAllTime: 1, SessionCount: 1, LastSessionID: "s1",
			Recent:    []store.Seen{{ID: store.NewSeenID("e1"), Tags: []string{"NEW_USER"}}},
			Cooldowns: map[string]time.Time{"r|c": event.TruncateToMicros(time.Now())},
		}
		if err := s.PutUser(t.Context(), ada, want, none); err != nil {
			t.Fatal(err)
		}
		if err := s.PutUser(t.Context(), ada, want, none); !errors.Is(err, store.ErrConflict) {
			t.Errorf("creating twice = %v; want ErrConflict", err)
		}
		got, v, err := s.User(t.Context(), ada)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateApproxTime(0)); diff != "" {
			t.Errorf("user (-want +got):\n%s", diff)
		}
		// Meanwhile an operator adds a field.
		if _, err := client.Doc("users/twitch:1").Set(t.Context(), map[string]any{"shoeSize": 40}, firestore.MergeAll); err != nil {
			t.Fatal(err)
		}
		got.MessageCountAllTime = 2
		if err := s.PutUser(t.Context(), ada, got, v); !errors.Is(err, store.ErrConflict) {
			t.Errorf("writing what changed meanwhile = %v; want ErrConflict", err)
		}
		got, v, err = s.User(t.Context(), ada)
		if err != nil {
			t.Fatal(err)
		}
		got.MessageCountAllTime, got.Email, got.Roles = 2, "", nil
		if err := s.PutUser(t.Context(), ada, got, v); err != nil {
			t.Fatal(err)
		}
		snap, err := client.Doc("users/twitch:1").Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		data := snap.Data()
		if data["shoeSize"] != int64(40) || data["messageCountAllTime"] != int64(2) {
			t.Errorf("document = %v", data)
		}
		if _, ok := data["email"]; ok {
			t.Error("an emptied e-mail address stayed")
		}
	})
}

func TestUserIsFoundByEmail(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		s, _ := open(t, env)
		if err := s.PutUser(t.Context(), user(t, "discord:7"), store.User{Provider: "discord", Email: "d@example.com"}, store.Version{}); err != nil {
			t.Fatal(err)
		}
		id, u, v, err := s.UserByEmail(t.Context(), "d@example.com")
		if err != nil || id.String() != "discord:7" || u.Provider != "discord" || time.Time(v).IsZero() {
			t.Errorf("UserByEmail = %v, %+v, %v, %v", id, u, v, err)
		}
		if id, _, _, err := s.UserByEmail(t.Context(), "nobody@example.com"); err != nil || !id.IsZero() {
			t.Errorf("UserByEmail of nobody = %v, %v", id, err)
		}
	})
}
