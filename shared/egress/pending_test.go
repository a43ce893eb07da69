package egress_test

import (
	"fmt"
	"testing"
	"time"

	"parley.internal/emulator/emulatortest"
	"parley.internal/shared/egress"
	"parley.internal/shared/identity"
)

func TestPendingFindsWhatAChannelIsOwed(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		ledger := egress.NewLedger(connect(t, env), "tester", time.Now)
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
				if _, err := ledger.Deliver(t.Context(), n.Ref()); err != nil {
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
