package delivery_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"parley.internal/emulator/emulatortest"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/identity"
)

func TestPendingFindsTheAnswersToAChannel(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		ledger := delivery.NewLedger(connect(t, env), "tester", time.Now)
		var want []string
		for i, e := range []struct{ destination, channel string }{
			{"twitch", "twitch:one"}, {"twitch", "twitch:two"}, {"discord", "twitch:one"}, {"twitch", "twitch:one"}, {"twitch", "twitch:one"}, {"twitch", "twitch:one"},
		} {
			n := entry(fmt.Sprint("e", i))
			n.Destination, n.Channel = e.destination, e.channel
			n, _, err := ledger.Open(t.Context(), n)
			if err != nil {
				t.Fatal(err)
			}
			switch i {
			case 4:
				if _, err := ledger.MarkDelivered(t.Context(), n.Ref()); err != nil {
					t.Fatal(err)
				}
			case 5:
				if _, _, err := ledger.Claim(t.Context(), n.Ref()); err != nil {
					t.Fatal(err)
				}
			case 0, 3:
				want = append(want, n.ID)
			}
		}
		found, err := ledger.Pending(t.Context(), identity.Twitch, "twitch:one")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range found {
			got = append(got, e.ID)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("found %v; want %v, the earliest first", got, want)
		}
	})
}

// An answer that may be repeated is found and claimed again after its claim has expired, not before.
func TestReclaimTakesAnExpiredClaim(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p := newParts(t, env)
		for id, e := range map[string]struct{ channel, kind string }{
			"pending": {"twitch:one", "event"}, "claimed": {"twitch:one", "event"}, "delivered": {"twitch:one", "event"},
			"a line": {"twitch:one", "chat"}, "elsewhere": {"twitch:two", "event"},
		} {
			n := entry(id)
			n.Destination, n.Channel, n.Type, n.Deadline = "twitch", e.channel, e.kind, p.now.Add(time.Hour)
			if _, _, err := p.ledger.Open(t.Context(), n); err != nil {
				t.Fatal(err)
			}
		}
		first, _, err := p.ledger.Claim(t.Context(), delivery.Ref{ID: "claimed"})
		if err != nil || first == nil {
			t.Fatal(first, err)
		}
		if _, err := p.ledger.MarkDelivered(t.Context(), delivery.Ref{ID: "delivered"}); err != nil {
			t.Fatal(err)
		}
		found := func() (ids []string) {
			t.Helper()
			entries, err := p.ledger.PendingOrAbandoned(t.Context(), identity.Twitch, "twitch:one", "event")
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				ids = append(ids, e.ID)
			}
			slices.Sort(ids)
			return ids
		}
		if got := found(); !slices.Equal(got, []string{"pending"}) {
			t.Errorf("found %v; want what is pending", got)
		}
		if c, state, err := p.ledger.Reclaim(t.Context(), delivery.Ref{ID: "claimed"}); c != nil || state != delivery.Claimed || err != nil {
			t.Errorf("Reclaim = %v, %s, %v while the claim holds", c, state, err)
		}

		p.now = p.now.Add(delivery.ClaimLease + time.Second)
		if got := found(); !slices.Equal(got, []string{"claimed", "pending"}) {
			t.Errorf("found %v; want also what was left", got)
		}
		if c, state, err := p.ledger.Claim(t.Context(), delivery.Ref{ID: "claimed"}); c != nil || state != delivery.Claimed || err != nil {
			t.Errorf("Claim = %v, %s, %v; want nothing of what may be made only once", c, state, err)
		}
		second, _, err := p.ledger.Reclaim(t.Context(), delivery.Ref{ID: "claimed"})
		if err != nil || second == nil {
			t.Fatal(second, err)
		}
		if swept, err := p.reaper().Sweep(t.Context()); err != nil || swept.MarkedDead != 0 {
			t.Errorf("swept %+v, %v; want nothing, for it is claimed anew", swept, err)
		}
		if state, err := first.MarkDelivered(t.Context(), "late"); err != nil || state != delivery.Claimed {
			t.Errorf("who had it before settled it: %s, %v", state, err)
		}
		if state, err := second.MarkDelivered(t.Context(), "done"); err != nil || state != delivery.Delivered {
			t.Errorf("MarkDelivered = %s, %v", state, err)
		}
		if c, state, err := p.ledger.Reclaim(t.Context(), delivery.Ref{ID: "claimed"}); c != nil || state != delivery.Delivered || err != nil {
			t.Errorf("Reclaim = %v, %s, %v; want that it is delivered", c, state, err)
		}
	})
}

func TestUnsettledFindsTheAnswersToAPlatform(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		ledger := delivery.NewLedger(connect(t, env), "tester", time.Now)
		var want []string
		for i, e := range []struct{ destination, channel string }{
			{"discord", "discord:2"}, {"discord", "discord:1"}, {"twitch", "discord:1"}, {"discord", ""}, {"discord", "discord:1"}, {"discord", "discord:1"},
		} {
			n := entry(fmt.Sprint("e", i))
			n.Destination, n.Channel = e.destination, e.channel
			n, _, err := ledger.Open(t.Context(), n)
			if err != nil {
				t.Fatal(err)
			}
			switch i {
			case 4:
				if _, err := ledger.MarkDelivered(t.Context(), n.Ref()); err != nil {
					t.Fatal(err)
				}
			case 5:
				if _, _, err := ledger.Claim(t.Context(), n.Ref()); err != nil {
					t.Fatal(err)
				}
				want = append(want, n.ID)
			case 0, 1, 3:
				want = append(want, n.ID)
			}
		}
		found, err := ledger.Unsettled(t.Context(), identity.Discord)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range found {
			got = append(got, e.ID)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("found %v; want %v, the earliest first, of channels and of persons", got, want)
		}
	})
}

// ForceClaim takes a valid claim; the earlier claim can't be settled any more.
func TestForceClaimTakesAValidClaim(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p := newParts(t, env)
		e := p.open(t, "d1")
		first, _, err := p.ledger.Claim(t.Context(), e.Ref())
		if err != nil || first == nil {
			t.Fatal(first, err)
		}
		second, state, err := p.ledger.ForceClaim(t.Context(), delivery.Ref{ID: "d1"})
		if err != nil || second == nil || state != delivery.Claimed {
			t.Fatalf("ForceClaim = %v, %s, %v", second, state, err)
		}
		if state, err := p.reaper().MarkClaimDead(t.Context(), first, deadletter.New(deadletter.NoText, errors.New("late"))); err != nil || state != delivery.Claimed {
			t.Errorf("who had it before gave it up: %s, %v", state, err)
		}
		if state, err := second.MarkDelivered(t.Context(), "done"); err != nil || state != delivery.Delivered {
			t.Errorf("MarkDelivered = %s, %v", state, err)
		}
		if state, err := first.MarkDelivered(t.Context(), "late"); err != nil || state != delivery.Delivered {
			t.Errorf("who had it before: %s, %v", state, err)
		}
		if got, err := p.ledger.Get(t.Context(), "d1"); err != nil || got.Note != "done" {
			t.Errorf("entry = %+v, %v", got, err)
		}
		if c, state, err := p.ledger.ForceClaim(t.Context(), delivery.Ref{ID: "d1"}); c != nil || state != delivery.Delivered || err != nil {
			t.Errorf("ForceClaim = %v, %s, %v of what is delivered", c, state, err)
		}
	})
}
