package recipient_test

import (
	"testing"
	"time"

	"cloud.google.com/go/firestore"

	"parley.internal/emulator/emulatortest"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/recipient"
)

func TestMain(m *testing.M) { emulatortest.Main(m) }

const day = 24 * time.Hour

func TestReceivedWhisperIsRecordedOnceAMonth(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		client, err := firestore.NewClient(t.Context(), env.Project, env.FirestoreOption(t))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		user := func(id string) identity.UserID {
			u, err := identity.New(identity.Twitch, id)
			if err != nil {
				t.Fatal(err)
			}
			return u
		}
		bot, ada, bruno := user("9"), user("1"), user("2")
		begin := event.TruncateToMicros(time.Now())
		now := begin
		clock := func() time.Time { return now }
		read := func(id identity.UserID) (r recipient.Recipient, fields map[string]any, written time.Time) {
			t.Helper()
			snap, err := recipient.Document(client, bot, id).Get(t.Context())
			if err == nil {
				err = snap.DataTo(&r)
			}
			if err != nil {
				t.Fatal(err)
			}
			return r, snap.Data(), snap.UpdateTime
		}
		wrote := func(b *recipient.Book, id identity.UserID) {
			t.Helper()
			if err := b.Wrote(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}

		// the bot has whispered to Ada before
		if _, err := recipient.Document(client, bot, ada).Set(t.Context(), (recipient.Recipient{}).Whispered(begin.Add(-day))); err != nil {
			t.Fatal(err)
		}
		book := recipient.NewBook(client, bot, clock)
		wrote(book, ada)
		wrote(book, bruno)
		r, fields, written := read(ada)
		if !r.WroteAt.Equal(begin) || !r.FirstAt.Equal(begin.Add(-day)) || !r.LastAt.Equal(begin.Add(-day)) {
			t.Errorf("Ada's record is %+v; want the earlier times, and the time of her whisper", r)
		}
		if at, ok := fields["expireAt"].(time.Time); !ok || at.Before(begin.Add(364*day)) {
			t.Errorf("Ada is forgotten at %v", fields["expireAt"])
		}
		if r, _, _ := read(bruno); !r.WroteAt.Equal(begin) || !r.FirstAt.IsZero() {
			t.Errorf("Bruno's record is %+v; want him to be new to the bot", r)
		}

		now = begin.Add(29 * day)
		wrote(book, ada)
		if _, _, again := read(ada); !again.Equal(written) {
			t.Error("written again within a month")
		}
		now = begin.Add(30 * day)
		wrote(book, ada)
		if r, _, _ := read(ada); !r.WroteAt.Equal(now) {
			t.Errorf("after a month it says %s; want %s", r.WroteAt, now)
		}

		client.Close()
		if err := book.Wrote(t.Context(), user("3")); err == nil {
			t.Error("no error without a store")
		}
	})
}

func TestSentWhisperIsRecordedOnceAMonth(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name string
		r    recipient.Recipient
		want []string // the fields that are written
	}{
		{"a new recipient", recipient.Recipient{}, []string{"firstAt", "lastAt", "expireAt"}},
		{"only wrote", recipient.Recipient{WroteAt: now}, []string{"firstAt", "lastAt", "expireAt"}},
		{"lately", recipient.Recipient{FirstAt: now.Add(-90 * day), LastAt: now.Add(-29 * day)}, nil},
		{"long ago", recipient.Recipient{FirstAt: now.Add(-90 * day), LastAt: now.Add(-30 * day)}, []string{"lastAt", "expireAt"}},
	} {
		got := test.r.Whispered(now)
		if len(got) != len(test.want) {
			t.Errorf("%s: %v; want %v", test.name, got, test.want)
		}
		for _, name := range test.want {
			if at, ok := got[name].(time.Time); !ok || at.Before(now) {
				t.Errorf("%s: %s is %v", test.name, name, got[name])
			}
		}
	}
}
