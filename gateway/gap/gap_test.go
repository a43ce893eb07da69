package gap_test

import (
	"fmt"
	"testing"
	"time"

	"cloud.google.com/go/firestore"

	"parley.internal/emulator/emulatortest"
	"parley.internal/gateway/gap"
)

func TestMain(m *testing.M) { emulatortest.Main(m) }

func TestPutIsIdempotent(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		client, err := firestore.NewClient(t.Context(), env.Project, env.FirestoreOption(t))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		from := time.Date(2026, 1, 2, 3, 4, 5, 678_901_234, time.UTC)
		to := from.Add(time.Minute)
		for _, g := range []gap.Gap{
			gap.New("discord", "discord:1", gap.Chat, from, to, "a"),
			gap.New("discord", "discord:1", gap.Chat, from, to.Add(time.Second), "a"), // the same gap with a later end
			gap.New("discord", "discord:2", gap.Chat, from, to, "a"),
			gap.New("discord", "discord:2", gap.Chat, from, to, "b"),
			gap.New("discord", "discord:2", gap.Events, from, to, "b"),
		} {
			if err := g.Put(t.Context(), client); err != nil {
				t.Fatal(err)
			}
		}
		docs, err := client.Collection("gaps").Documents(t.Context()).GetAll()
		if err != nil {
			t.Fatal(err)
		}
		if len(docs) != 4 {
			t.Errorf("%d documents; want 4", len(docs))
		}
		found, err := client.Collection("gaps").Where("channel", "==", "discord:1").Documents(t.Context()).GetAll()
		if err != nil || len(found) != 1 {
			t.Fatalf("found %d, %v; want 1", len(found), err)
		}
		var got gap.Gap
		if err := found[0].DataTo(&got); err != nil {
			t.Fatal(err)
		}
		if want := gap.New("discord", "discord:1", gap.Chat, from, to.Add(time.Second), "a"); got != want {
			t.Errorf("read %+v; want %+v", got, want)
		}
		if got.ExpireAt.Sub(got.To) != gap.Retention {
			t.Errorf("it expires %s after its end; want %s", got.ExpireAt.Sub(got.To), gap.Retention)
		}
	})
}

func TestGapThatEndsBeforeItsStartHasNoLength(t *testing.T) {
	now := time.Now()
	if g := gap.New("twitch", "twitch:one", gap.Chat, now, now.Add(-time.Second), "a"); !g.To.Equal(g.From) {
		t.Errorf("from %s to %s; want no length", g.From, g.To)
	}
}

func ExampleNew() {
	from := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	g := gap.New("discord", "discord:123", gap.Chat, from, from.Add(90*time.Second), "instance-a")
	fmt.Println(g.Channel, "missed", g.Missed, "for", g.To.Sub(g.From))
	// Output: discord:123 missed chat for 1m30s
}
