package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"golang.org/x/sync/errgroup"

	"parley.internal/emulator/emulatortest"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// announcer records the announcements, and fails a set number of times.
type announcer struct {
	mu        sync.Mutex
	fail      int
	announced []deadletter.Announcement
	together  *sync.WaitGroup // if set, each waits until so many are on their way
}

func (a *announcer) Announce(_ context.Context, _ []byte, _ map[string]string, n deadletter.Announcement) error {
	if a.together != nil {
		a.together.Done()
		all := make(chan struct{})
		go func() { // ends with the last of them
			a.together.Wait()
			close(all)
		}()
		select {
		case <-all:
		case <-time.After(time.Minute):
			return errors.New("the others did not come")
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fail > 0 {
		a.fail--
		return errors.New("bus is down")
	}
	a.announced = append(a.announced, n)
	return nil
}

// parts is a ledger with a reaper and its stores.
type parts struct {
	client      *firestore.Client
	ledger      *delivery.Ledger
	letterStore *deadletter.Store
	bus         *announcer
	now         time.Time
}

func newParts(t *testing.T, env emulatortest.Env) *parts {
	p := &parts{client: connect(t, env), bus: &announcer{}, now: event.TruncateToMicros(time.Now())}
	clock := func() time.Time { return p.now }
	p.ledger = delivery.NewLedger(p.client, "tester", clock)
	p.letterStore = deadletter.NewStore(p.client, clock)
	return p
}

func (p *parts) reaper() *delivery.Reaper {
	return delivery.NewReaper(p.ledger, p.letterStore, p.bus, "tester", time.Second)
}

// open opens a delivery with a deadline in one minute.
func (p *parts) open(t *testing.T, id string) delivery.Entry {
	t.Helper()
	data, err := event.Encode(newAnswer("hi " + id))
	if err != nil {
		t.Fatal(err)
	}
	e := entry(id)
	e.CreatedAt, e.Deadline, e.Event = p.now, p.now.Add(time.Minute), data
	e, _, err = p.ledger.Open(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (p *parts) letters(t *testing.T) []deadletter.DeadLetter {
	t.Helper()
	var all []deadletter.DeadLetter
	if err := p.letterStore.List(t.Context(), deadletter.Filter{}, func(l deadletter.DeadLetter) error { all = append(all, l); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

// Ten transactions contend for one document. Google's emulator may abort them with "Transaction lock timeout" on a busy
// machine, as Firestore itself may under contention. store.RunTransaction starts over, so each caller still has to get
// the outcome.
func TestTenInstancesMarkOneDeliveryDeadOnce(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p := newParts(t, env)
		p.open(t, "d1")
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				state, err := p.reaper().MarkDead(t.Context(), "d1", 0, deadletter.New(deadletter.NoText, fmt.Errorf("instance %d", i)))
				if err != nil || state != delivery.Dead {
					t.Errorf("MarkDead = %q, %v", state, err)
				}
			})
		}
		wg.Wait()
		letters := p.letters(t)
		if len(letters) != 1 || len(p.bus.announced) != 1 {
			t.Fatalf("%d dead letters, %d announcements; want one of each", len(letters), len(p.bus.announced))
		}
		l := letters[0]
		if l.ID != "d1" || l.Reason != deadletter.NoText || l.Attempts != 1 || l.CorrelationID != "c1" || !l.Delivery || l.Preview == "" {
			t.Errorf("dead letter = %+v", l)
		}
		if a := p.bus.announced[0]; a.Reason != l.Reason || a.Message != l.Message || !strings.HasPrefix(a.Message, "instance ") {
			t.Errorf("announced %+v; want the letter's reason and message, %q", a, l.Message)
		}
	})
}

func TestDeliveredAnswerIsNotMarkedDead(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p := newParts(t, env)
		e := p.open(t, "d1")
		if _, err := p.ledger.MarkDelivered(t.Context(), e.Ref()); err != nil {
			t.Fatal(err)
		}
		state, err := p.reaper().MarkDead(t.Context(), "d1", 0, deadletter.New(deadletter.NoText, errors.New("late")))
		if err != nil || state != delivery.Delivered || len(p.letters(t)) != 0 {
			t.Errorf("MarkDead = %q, %v, with %d dead letters", state, err, len(p.letters(t)))
		}
		// and the other way round
		dead := p.open(t, "d2")
		if _, err := p.reaper().MarkDead(t.Context(), "d2", 0, deadletter.New(deadletter.NoText, errors.New("first"))); err != nil {
			t.Fatal(err)
		}
		if state, err := p.ledger.MarkDelivered(t.Context(), dead.Ref()); err != nil || state != delivery.Dead {
			t.Errorf("MarkDelivered of a dead one = %q, %v", state, err)
		}
	})
}

func TestSweepMarksOnlyOverdueDeliveriesDead(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p := newParts(t, env)
		const n = 8
		for i := range n {
			p.open(t, fmt.Sprintf("d%d", i))
		}
		p.now = p.now.Add(30 * time.Second)
		p.open(t, "young")
		if done, err := p.reaper().Sweep(t.Context()); err != nil || done != (delivery.SweepResult{}) {
			t.Fatalf("Sweep before the deadline = %+v, %v", done, err)
		}
		p.now = p.now.Add(32 * time.Second)
		var wg sync.WaitGroup
		var mu sync.Mutex
		total := 0
		for range 3 { // concurrent sweeps
			wg.Go(func() {
				done, err := p.reaper().Sweep(t.Context())
				if err != nil {
					t.Errorf("Sweep: %v", err)
				}
				mu.Lock()
				defer mu.Unlock()
				total += done.MarkedDead
			})
		}
		wg.Wait()
		letters := p.letters(t)
		if total != n || len(letters) != n || len(p.bus.announced) != n {
			t.Errorf("marked %d dead, %d dead letters, %d announcements; want %d of each", total, len(letters), len(p.bus.announced), n)
		}
		for _, l := range letters {
			if l.Reason != deadletter.NoConnection {
				t.Errorf("%s: %s", l.ID, l.Reason)
			}
		}
		if e, err := p.ledger.Get(t.Context(), "young"); err != nil || e.State != delivery.Pending {
			t.Errorf("the young one is %q, %v", e.State, err)
		}
	})
}

func TestSweepHandlesManyEntriesAtATime(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p := newParts(t, env)
		const overdue = 8
		for i := range overdue {
			p.open(t, fmt.Sprintf("d%d", i))
		}
		if _, state, err := p.ledger.Claim(t.Context(), p.open(t, "claimed").Ref()); err != nil || state != delivery.Claimed {
			t.Fatalf("Claim = %q, %v", state, err)
		}
		p.open(t, "silent")
		p.bus.fail = 1
		if _, err := p.reaper().MarkDead(t.Context(), "silent", 0, deadletter.New(deadletter.NoText, errors.New("x"))); err == nil {
			t.Fatal("the failure to announce was swallowed")
		}
		p.now = p.now.Add(time.Hour)
		p.bus.together = new(sync.WaitGroup)
		p.bus.together.Add(overdue + 2)
		if done, err := p.reaper().Sweep(t.Context()); err != nil || done != (delivery.SweepResult{MarkedDead: overdue + 1, Announced: 1}) {
			t.Errorf("Sweep = %+v, %v", done, err)
		}
	})
}

func TestSweepAnnouncesUnannouncedDeadLetters(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p := newParts(t, env)
		p.open(t, "d1")
		p.bus.fail = 1
		if _, err := p.reaper().MarkDead(t.Context(), "d1", 0, deadletter.New(deadletter.NoText, errors.New("x"))); err == nil {
			t.Fatal("the failure to announce was swallowed")
		}
		if len(p.letters(t)) != 1 {
			t.Fatal("the outcome depends on its announcement")
		}
		p.now = p.now.Add(2 * time.Second)
		if done, err := p.reaper().Sweep(t.Context()); err != nil || done.Announced != 1 {
			t.Fatalf("Sweep = %+v, %v", done, err)
		}
		if len(p.bus.announced) != 1 || p.bus.announced[0].ID != "d1" || p.bus.announced[0].Reason != deadletter.NoText {
			t.Errorf("announced %+v", p.bus.announced)
		}
		p.now = p.now.Add(2 * time.Second)
		if done, err := p.reaper().Sweep(t.Context()); err != nil || done != (delivery.SweepResult{}) {
			t.Errorf("second Sweep = %+v, %v; want nothing left", done, err)
		}
	})
}

func TestResumeFindsMissedAnswers(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p := newParts(t, env)
		for _, id := range []string{"a", "b", "c", "d"} {
			p.open(t, id)
		}
		for _, id := range []string{"a", "c"} { // c by another of the user's connections
			if _, err := p.ledger.MarkDelivered(t.Context(), delivery.Ref{ID: id}); err != nil {
				t.Fatal(err)
			}
		}
		tests := []struct {
			name, user string
			got        []string
			want       string
			recovered  bool
			settled    string // the entries settled by Resume
		}{
			{"a new client gets what is pending", "twitch:1", nil, "[b d]", true, ""},
			{"after one, everything later", "twitch:1", []string{"a"}, "[b c d]", true, ""},
			{"after one that the ledger lost, what is pending", "twitch:1", []string{"gone"}, "[b d]", false, ""},
			{"the ledger has lost the earliest of several", "twitch:1", []string{"gone", "c"}, "[b d]", true, ""},
			{"another user's answers are ignored", "twitch:2", []string{"b"}, "[]", false, ""},
			{"one that was overtaken is found", "twitch:1", []string{"a", "d"}, "[b c]", true, "d"},
			{"what can't be an id tells nothing", "twitch:1", []string{"a/b", "", "..", "c"}, "[b d]", true, ""},
			{"only what can't be an id counts as lost", "twitch:1", []string{"a/b", "…", ".."}, "[b]", false, ""},
			{"a straggler does not bring back what it overtook", "twitch:1", []string{"a", "c", "d"}, "[b]", true, "d"},
			{"what it got is settled, and not sent again", "twitch:1", []string{"a", "b", "c", "d"}, "[]", true, "b"},
		}
		for _, tt := range tests {
			b, err := p.ledger.Resume(t.Context(), person(t, tt.user), tt.got)
			if err != nil {
				t.Fatal(err)
			}
			ids := []string{}
			for _, e := range b.Entries {
				ids = append(ids, e.ID)
			}
			if fmt.Sprint(ids) != tt.want || b.Recovered != tt.recovered {
				t.Errorf("%s: %v, recovered %v; want %s, %v", tt.name, ids, b.Recovered, tt.want, tt.recovered)
			}
			if b.Until.IsZero() != !slices.ContainsFunc(tt.got, func(id string) bool { return len(id) == 1 && id != "…" && tt.user == "twitch:1" }) {
				t.Errorf("%s: looked until %s", tt.name, b.Until)
			}
			if tt.settled != "" {
				if e, err := p.ledger.Get(t.Context(), tt.settled); err != nil || e.State != delivery.Delivered {
					t.Errorf("%s: %s is %q, %v", tt.name, tt.settled, e.State, err)
				}
			} else if e, err := p.ledger.Get(t.Context(), "b"); err != nil || e.State != delivery.Pending {
				t.Errorf("%s: b is %q, %v", tt.name, e.State, err)
			}
		}
	})
}

func TestClaimIsExclusiveUntilSettled(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p := newParts(t, env)
		e := p.open(t, "d1")
		claim, state, err := p.ledger.Claim(t.Context(), e.Ref())
		if err != nil || claim == nil || state != delivery.Claimed {
			t.Fatalf("Claim = %v, %q, %v", claim, state, err)
		}
		if second, state, err := p.ledger.Claim(t.Context(), e.Ref()); err != nil || second != nil || state != delivery.Claimed {
			t.Errorf("second Claim = %v, %q, %v; want none", second, state, err)
		}
		if state, err := p.reaper().MarkDead(t.Context(), "d1", 0, deadletter.New(deadletter.NoText, errors.New("x"))); err != nil || state != delivery.Claimed {
			t.Errorf("MarkDead of a claimed delivery = %q, %v", state, err)
		}
		if err := claim.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		claim, state, err = p.ledger.Claim(t.Context(), e.Ref())
		if err != nil || claim == nil {
			t.Fatalf("Claim of a released one = %q, %v", state, err)
		}
		if state, err := claim.MarkDelivered(t.Context(), "platform-1"); err != nil || state != delivery.Delivered {
			t.Errorf("MarkDelivered = %q, %v", state, err)
		}
		if got, err := p.ledger.Get(t.Context(), "d1"); err != nil || got.State != delivery.Delivered || got.Note != "platform-1" {
			t.Errorf("entry = %+v, %v", got, err)
		}
		if third, state, err := p.ledger.Claim(t.Context(), e.Ref()); err != nil || third != nil || state != delivery.Delivered {
			t.Errorf("Claim of a delivered one = %v, %q, %v", third, state, err)
		}
	})
}

func TestRefusedClaimIsADeadLetter(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p := newParts(t, env)
		claim, _, err := p.ledger.Claim(t.Context(), p.open(t, "d1").Ref())
		if err != nil {
			t.Fatal(err)
		}
		state, err := p.reaper().MarkClaimDead(t.Context(), claim, deadletter.New(deadletter.NoText, errors.New("refused")))
		if err != nil || state != delivery.Dead || len(p.letters(t)) != 1 {
			t.Errorf("MarkClaimDead = %q, %v, %d letters", state, err, len(p.letters(t)))
		}
		if state, err := claim.MarkDelivered(t.Context(), "late"); err != nil || state != delivery.Dead {
			t.Errorf("MarkDelivered of a dead one = %q, %v", state, err)
		}
	})
}

func TestExpiredClaimIsAnUnknownOutcome(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p := newParts(t, env)
		claim, _, err := p.ledger.Claim(t.Context(), p.open(t, "d1").Ref())
		if err != nil {
			t.Fatal(err)
		}
		p.now = p.now.Add(delivery.ClaimLease)
		if done, err := p.reaper().Sweep(t.Context()); err != nil || done.MarkedDead != 0 {
			t.Fatalf("Sweep while the claim holds = %+v, %v", done, err)
		}
		p.now = p.now.Add(2 * time.Second)
		if done, err := p.reaper().Sweep(t.Context()); err != nil || done.MarkedDead != 1 {
			t.Fatalf("Sweep = %+v, %v", done, err)
		}
		if l := p.letters(t); len(l) != 1 || l[0].Reason != deadletter.OutcomeUnknown {
			t.Errorf("letters = %+v", l)
		}
		if state, err := claim.MarkDelivered(t.Context(), "late"); err != nil || state != delivery.Dead {
			t.Errorf("MarkDelivered after that = %q, %v", state, err)
		}
	})
}

// many opens deliveries in parallel and returns their ids.
func (p *parts) many(t *testing.T, n int) []string {
	t.Helper()
	ids := make([]string, n)
	var g errgroup.Group
	g.SetLimit(16)
	for i := range ids {
		ids[i] = fmt.Sprintf("d%03d", i)
		g.Go(func() error {
			p.open(t, ids[i])
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return ids
}

func TestBacklogOfManyPendingAnswersIsComplete(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p := newParts(t, env)
		ids := append([]string{p.open(t, "first").ID}, p.many(t, 1200)...)
		for _, got := range [][]string{nil, {"first"}} {
			b, err := p.ledger.Resume(t.Context(), person(t, "twitch:1"), got)
			if err != nil {
				t.Fatal(err)
			}
			if len(b.Entries) > 1000 || !b.Recovered {
				t.Errorf("named %v: %d at first, recovered %v", got, len(b.Entries), b.Recovered)
			}
			first := map[string]bool{}
			for _, e := range b.Entries {
				if first[e.ID] {
					t.Errorf("named %v: %s is found twice at first", got, e.ID)
				}
				first[e.ID] = true
			}
			all := b.Entries
			for !b.Next.IsZero() {
				if b, err = p.ledger.Continue(t.Context(), person(t, "twitch:1"), got, b.Next); err != nil {
					t.Fatal(err)
				}
				all = append(all, b.Entries...)
			}
			found := map[string]bool{}
			var last time.Time
			for _, e := range all {
				if e.OpenedAt.Before(last) {
					t.Errorf("named %v: %s was opened at %s, and the one before it at %s", got, e.ID, e.OpenedAt, last)
				}
				found[e.ID], last = true, e.OpenedAt
			}
			if want := len(ids) - len(got); len(found) != want {
				t.Errorf("named %v: found %d; want %d", got, len(found), want)
			}
		}
	})
}

func TestBacklogIsPagedByBytes(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p := newParts(t, env)
		const n, size, limit = 24, 200 << 10, 1 << 20
		var want []string
		for i := range n {
			e := entry(fmt.Sprintf("large%02d", i))
			e.Event = []byte(strings.Repeat("x", size))
			if _, _, err := p.ledger.Open(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			want = append(want, e.ID)
		}
		for _, got := range [][]string{nil, {want[0]}, {want[n/2]}} {
			var found []string
			b, err := p.ledger.Resume(t.Context(), person(t, "twitch:1"), got)
			for {
				if err != nil {
					t.Fatal(err)
				}
				total := 0
				for _, e := range b.Entries {
					total += len(e.Event)
					if !slices.Contains(found, e.ID) {
						found = append(found, e.ID)
					}
				}
				if total > limit+2*size { // the last entry exceeds the limit; another may have been opened in the same millisecond
					t.Errorf("named %v: a part of %d bytes", got, total)
				}
				if b.Next.IsZero() {
					break
				}
				b, err = p.ledger.Continue(t.Context(), person(t, "twitch:1"), got, b.Next)
			}
			rest := slices.DeleteFunc(slices.Clone(want), func(id string) bool { return slices.Contains(got, id) })
			if got != nil { // settled by Resume, for the next round
				want = rest
			}
			if !slices.Equal(found, rest) {
				t.Errorf("named %v: found %v; want %v", got, found, rest)
			}
		}
	})
}

// Answers delivered elsewhere are found from the last named one on, and pending answers from any time, all in parts.
// Dead answers are not found.
func TestBacklogOfManyAnswersDeliveredElsewhereIsComplete(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p := newParts(t, env)
		const n = 1800
		ids := p.many(t, n)
		entries := make([]delivery.Entry, n)
		var g errgroup.Group
		g.SetLimit(16)
		for i, id := range ids {
			g.Go(func() error {
				state := []delivery.State{delivery.Pending, delivery.Delivered, delivery.Dead}[i%3]
				if _, err := p.client.Collection("deliveries").Doc(id).Update(t.Context(), []firestore.Update{{Path: "state", Value: state}}); err != nil {
					return err
				}
				var err error
				entries[i], err = p.ledger.Get(t.Context(), id)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(entries, func(a, b delivery.Entry) int { return a.OpenedAt.Compare(b.OpenedAt) })
		named := slices.IndexFunc(entries[n/2:], func(e delivery.Entry) bool { return e.State == delivery.Delivered }) + n/2
		opened, want := map[string]time.Time{}, map[string]bool{}
		for _, e := range entries {
			opened[e.ID] = e.OpenedAt
			if e.State == delivery.Pending || e.State == delivery.Delivered && e.OpenedAt.After(entries[named].OpenedAt) {
				want[e.ID] = true
			}
		}
		got := []string{entries[named].ID}
		b, err := p.ledger.Resume(t.Context(), person(t, "twitch:1"), got)
		if err != nil || !b.Recovered {
			t.Fatalf("Resume: recovered %v, %v", b.Recovered, err)
		}
		found := map[string]bool{}
		var last time.Time
		for {
			for _, e := range b.Entries {
				if e.OpenedAt.Before(last) {
					t.Errorf("%s was opened at %s, and the one before it at %s", e.ID, e.OpenedAt, last)
				}
				found[e.ID], last = true, e.OpenedAt
			}
			if b.Next.IsZero() {
				break
			}
			if b, err = p.ledger.Continue(t.Context(), person(t, "twitch:1"), got, b.Next); err != nil {
				t.Fatal(err)
			}
		}
		for id := range opened {
			// an entry opened at the same time as the named entry may be found or not
			if found[id] != want[id] && !opened[id].Equal(entries[named].OpenedAt) {
				t.Errorf("%s, opened at %s: found %v; want %v", id, opened[id], found[id], want[id])
			}
		}
	})
}

func person(t *testing.T, id string) identity.UserID {
	t.Helper()
	user, err := identity.Parse(id)
	if err != nil {
		t.Fatal(err)
	}
	return user
}

func TestResumeLeavesOverdueAnswersToTheSweep(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p := newParts(t, env)
		for _, id := range []string{"a", "b"} {
			p.open(t, id)
		}
		p.now = p.now.Add(time.Minute + time.Millisecond)
		b, err := p.ledger.Resume(t.Context(), person(t, "twitch:1"), []string{"a"})
		if err != nil || len(b.Entries) != 0 {
			t.Errorf("Resume = %+v, %v; want no entries", b.Entries, err)
		}
		// the client received a before the deadline
		if e, err := p.ledger.Get(t.Context(), "a"); err != nil || e.State != delivery.Delivered {
			t.Errorf("a is %q, %v", e.State, err)
		}
	})
}

func TestInvalidEntryDoesNotStopTheSweep(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p := newParts(t, env)
		p.open(t, "overdue")
		p.open(t, "unreadable")
		if _, err := p.client.Collection("deliveries").Doc("unreadable").Update(t.Context(), []firestore.Update{{Path: "attempt", Value: "two"}}); err != nil {
			t.Fatal(err)
		}
		if claim, _, err := p.ledger.Claim(t.Context(), p.open(t, "claimed").Ref()); err != nil || claim == nil {
			t.Fatalf("Claim = %v, %v", claim, err)
		}
		p.open(t, "silent")
		p.bus.fail = 1
		if _, err := p.reaper().MarkDead(t.Context(), "silent", 0, deadletter.New(deadletter.NoText, errors.New("x"))); err == nil {
			t.Fatal("the failure to announce was swallowed")
		}
		p.now = p.now.Add(2 * time.Minute)
		done, err := p.reaper().Sweep(t.Context())
		if err == nil || !strings.Contains(err.Error(), "unreadable") {
			t.Errorf("Sweep = %v; want the entry that can't be read", err)
		}
		if done != (delivery.SweepResult{MarkedDead: 2, Announced: 1}) || len(p.letters(t)) != 3 {
			t.Errorf("swept %+v, %d dead letters; want two marked dead, one announced, three dead letters", done, len(p.letters(t)))
		}
	})
}

func TestSweepReadsAllPages(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p := newParts(t, env)
		const n = 230 // more than one page
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() { p.open(t, fmt.Sprintf("d%d", i)) })
		}
		wg.Wait()
		p.now = p.now.Add(2 * time.Minute)
		if done, err := p.reaper().Sweep(t.Context()); err != nil || done.MarkedDead != n {
			t.Errorf("Sweep = %+v, %v; want %d marked dead", done, err, n)
		}
	})
}

func TestDeadEntryIsKeptAsLongAsItsDeadLetter(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p := newParts(t, env)
		p.open(t, "d1")
		if _, err := p.reaper().MarkDead(t.Context(), "d1", 0, deadletter.New(deadletter.NoText, errors.New("x"))); err != nil {
			t.Fatal(err)
		}
		e, err := p.ledger.Get(t.Context(), "d1")
		if l := p.letters(t); err != nil || len(l) != 1 || e.ExpireAt.Before(l[0].ExpireAt) {
			t.Errorf("%d letters, and the entry is kept until %s, %v", len(l), e.ExpireAt, err)
		}
	})
}
