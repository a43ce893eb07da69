package deadletter_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"parley.internal/emulator/emulatortest"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/store"
)

func TestMain(m *testing.M) { emulatortest.Main(m) }

func newStore(t *testing.T, env emulatortest.Env, now func() time.Time) *deadletter.Store {
	t.Helper()
	client, err := store.Connect(t.Context(), env.Deployment(), env.FirestoreOption(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return deadletter.NewStore(client, now)
}

func TestMessageOfAnyLengthIsStoredComplete(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		s := newStore(t, env, time.Now)
		for id, data := range map[string][]byte{
			"empty": nil, "short": []byte("x"), "binary": {0xff, 0, 0xfe}, "10 MB": bytes.Repeat([]byte("0123456789"), 1_000_000),
		} {
			if _, err := s.Put(t.Context(), deadletter.DeadLetter{ID: id, Reason: deadletter.InvalidEvent, Data: data}, 0); err != nil {
				t.Fatal(err)
			}
			got, err := s.Get(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Data, data) {
				t.Errorf("%s: %d bytes came back of %d", id, len(got.Data), len(data))
			}
			if !utf8.ValidString(got.Preview) || utf8.RuneCountInString(got.Preview) > 1000 {
				t.Errorf("%s: preview of %d characters", id, utf8.RuneCountInString(got.Preview))
			}
			if err := s.Purge(t.Context(), got); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Get(t.Context(), id); !errors.Is(err, deadletter.ErrNotFound) {
				t.Errorf("%s: after Purge: %v", id, err)
			}
		}
	})
}

func TestDeadLetterDescribesItsEvent(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		s := newStore(t, env, time.Now)
		data := []byte(`{"v":"2","source":"s","correlationId":"c9","type":"chat.message","routingSlip":[{"id":"enrichment","status":"OK"},{"id":"personality","status":"PENDING"}]}`)
		if _, err := s.Put(t.Context(), deadletter.DeadLetter{ID: "d", Reason: deadletter.ModelFailed, Data: data}, 0); err != nil {
			t.Fatal(err)
		}
		l, err := s.Get(t.Context(), "d")
		if err != nil {
			t.Fatal(err)
		}
		if l.CorrelationID != "c9" || l.OriginalType != "chat.message" || l.LastStepID != "enrichment" || l.SlipSummary != "enrichment OK, personality PENDING" || !strings.HasPrefix(l.Preview, `{"v":"2"`) {
			t.Errorf("letter = %+v", l)
		}
	})
}

func TestListSelects(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		now := time.Now()
		s := newStore(t, env, func() time.Time { return now })
		begin := now
		for i, l := range []deadletter.DeadLetter{{ID: "a", Reason: deadletter.NoText}, {ID: "b", Reason: deadletter.NoConnection}, {ID: "c", Reason: deadletter.NoConnection}} {
			now = begin.Add(time.Duration(i) * time.Minute)
			if _, err := s.Put(t.Context(), l, 0); err != nil {
				t.Fatal(err)
			}
		}
		tests := []struct {
			name string
			sel  deadletter.Filter
			want string
		}{
			{"all, the latest first", deadletter.Filter{}, "cba"},
			{"by reason", deadletter.Filter{Reason: deadletter.NoConnection}, "cb"},
			{"by time", deadletter.Filter{From: begin.Add(30 * time.Second), Until: begin.Add(90 * time.Second)}, "b"},
			{"by reason, status and time", deadletter.Filter{Reason: deadletter.NoConnection, Status: deadletter.Open, From: begin.Add(90 * time.Second)}, "c"},
			{"by id, in that order", deadletter.Filter{IDs: []string{"a", "c"}}, "ac"},
			{"some", deadletter.Filter{Limit: 2}, "cb"},
			{"none", deadletter.Filter{Status: deadletter.Redriven}, ""},
		}
		for _, tt := range tests {
			got := ""
			if err := s.List(t.Context(), tt.sel, func(l deadletter.DeadLetter) error { got += l.ID; return nil }); err != nil || got != tt.want {
				t.Errorf("%s: %q, %v; want %q", tt.name, got, err, tt.want)
			}
		}
		err := s.List(t.Context(), deadletter.Filter{IDs: []string{"nope"}}, func(deadletter.DeadLetter) error { return nil })
		if !errors.Is(err, deadletter.ErrNotFound) {
			t.Errorf("a missing id: %v", err)
		}
	})
}

// An older revision may store a dead letter announced by a newer revision.
func TestReasonOfANewerRevisionStays(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		s := newStore(t, env, time.Now)
		for i, tt := range []struct{ reason, stored, message string }{
			{"quota_exceeded", "quota_exceeded", "held for review"},
			{"no_text", "no_text", "held for review"},
			{"Not a Code", "invalid_event", `the announced reason "Not a Code" is not a code: held for review`},
			{strings.Repeat("x", 65), "invalid_event", `the announced reason "` + strings.Repeat("x", 64) + `" is not a code: held for review`},
			{"", "invalid_event", `the announced reason "" is not a code: held for review`},
		} {
			id := fmt.Sprint("d", i)
			a, _ := deadletter.ParseAnnouncement(deadletter.Announcement{ID: id, Reason: deadletter.Reason(tt.reason), Message: "held for review"}.Attributes(nil), "m")
			if tt.reason == "" {
				a.Reason, a.Message = "", "held for review" // ParseAnnouncement gives a reason itself
			}
			if _, err := s.Put(t.Context(), deadletter.DeadLetter{ID: id, Reason: a.Reason, Message: a.Message}, 0); err != nil {
				t.Fatal(err)
			}
			got, err := s.Get(t.Context(), id)
			if err != nil || string(got.Reason) != tt.stored || got.Message != tt.message {
				t.Errorf("%q is stored as %s: %s, %v; want %s: %s", tt.reason, got.Reason, got.Message, err, tt.stored, tt.message)
			}
			selected := 0
			if err := s.List(t.Context(), deadletter.Filter{Reason: deadletter.Reason(tt.stored), IDs: nil}, func(l deadletter.DeadLetter) error {
				if l.ID == id {
					selected++
				}
				return nil
			}); err != nil || selected != 1 {
				t.Errorf("%q: selected %d times, %v", tt.stored, selected, err)
			}
		}
	})
}
