package whisper

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"parley.internal/emulator/emulatortest"
	"parley.internal/shared/identity"
	"parley.internal/shared/recipient"
	"parley.internal/shared/store"
)

func twitchUser(t *testing.T, id string) identity.UserID {
	t.Helper()
	u, err := identity.New(identity.Twitch, id)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestGrant(t *testing.T) {
	c := LimitsConfig{NewPerDay: 40, PerSecond: 3, PerMinute: 100}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ago := func(n int, d time.Duration) []time.Time {
		times := make([]time.Time, n)
		for i := range times {
			times[i] = now.Add(-d)
		}
		return times
	}
	known := recipient.Recipient{FirstAt: now.Add(-time.Hour)}
	tests := []struct {
		name string
		s    sender
		r    recipient.Recipient
		want time.Duration // from now; 0 for a permission
	}{
		{"nothing so far", sender{}, recipient.Recipient{}, 0},
		{"the third in a second", sender{Sent: ago(2, time.Second/2)}, known, 0},
		{"the fourth in a second", sender{Sent: ago(3, time.Second/4)}, known, 3 * time.Second / 4},
		{"a second later", sender{Sent: ago(3, time.Second)}, known, 0},
		{"the 100th in a minute", sender{Sent: ago(99, 10*time.Second)}, known, 0},
		{"the 101st in a minute", sender{Sent: ago(100, 10*time.Second)}, known, 50 * time.Second},
		{"the 40th new one in a day", sender{New: ago(39, time.Hour)}, recipient.Recipient{}, 0},
		{"the 41st new one in a day", sender{New: ago(40, time.Hour)}, recipient.Recipient{}, 23 * time.Hour},
		{"the 41st, but not a new one", sender{New: ago(40, time.Hour)}, known, 0},
		{"a day later", sender{New: ago(40, 24*time.Hour)}, recipient.Recipient{}, 0},
		{"held", sender{HeldUntil: now.Add(5 * time.Second)}, known, 5 * time.Second},
		{"not held any more", sender{HeldUntil: now}, known, 0},
		{"the longest counts", sender{HeldUntil: now.Add(time.Second), Sent: ago(100, 10*time.Second)}, known, 50 * time.Second},
	}
	for _, tt := range tests {
		before := len(tt.s.Sent)
		g := c.grant(&tt.s, tt.r, now)
		var wait time.Duration
		if !g.Until.IsZero() {
			wait = g.Until.Sub(now)
		} else if len(tt.s.Sent) == 0 || !tt.s.Sent[len(tt.s.Sent)-1].Equal(now) {
			t.Errorf("%s: not counted", tt.name)
		}
		if wait != tt.want || (tt.want > 0) != (g.Why != "") {
			t.Errorf("%s: wait %s (%s) with %d before; want %s", tt.name, wait, g.Why, before, tt.want)
		}
	}
}

func TestInstancesShareTheLimits(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		now := time.Now()
		var limiters []*Limiter
		for range 3 {
			client, err := store.Connect(t.Context(), env.Deployment(), env.FirestoreOption(t))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { client.Close() })
			limiters = append(limiters, NewLimiter(client, LimitsConfig{NewPerDay: 6, PerSecond: 100, PerMinute: 100}, func() time.Time { return now }))
		}
		bot := twitchUser(t, "9")
		var mu sync.Mutex
		granted := 0
		var wg sync.WaitGroup
		for i := range 12 {
			to := twitchUser(t, fmt.Sprint(100+i))
			wg.Go(func() {
				g, err := limiters[i%3].Take(t.Context(), bot, to)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if g.Until.IsZero() {
					granted++
				}
			})
		}
		wg.Wait()
		if granted != 6 {
			t.Errorf("%d new recipients; want 6", granted)
		}

		// a recipient who has whispered to the bot gets long whispers; foreign fields of the document stay
		client, writer := limiters[0].client, twitchUser(t, "200")
		doc := recipient.Document(client, bot, writer)
		if _, err := doc.Set(t.Context(), map[string]any{"note": "an operator's"}); err != nil {
			t.Fatal(err)
		}
		if err := recipient.NewBook(client, bot, func() time.Time { return now }).Wrote(t.Context(), writer); err != nil {
			t.Fatal(err)
		}
		now = now.Add(25 * time.Hour)
		if g, err := NewLimiter(client, LimitsConfig{NewPerDay: 1, PerSecond: 1, PerMinute: 1}, func() time.Time { return now }).Take(t.Context(), bot, writer); err != nil || !g.Answered || !g.Until.IsZero() {
			t.Errorf("Take = %+v, %v; want a permission for a long whisper", g, err)
		}
		snap, err := doc.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if f := snap.Data(); f["note"] == nil || f["wroteAt"] == nil || f["firstAt"] == nil || f["lastAt"] == nil || f["expireAt"] == nil {
			t.Errorf("the recipient's record is %v", f)
		}
	})
}
