package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/emulator/emulatortest"
	"parley.internal/gateway/gatewaytest"
	"parley.internal/shared/answer"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/store"
)

func TestMain(m *testing.M) { emulatortest.Main(m) }

// fixture is a ledger with a fake platform. A test sets the platform's outcomes. The text of an answer is its messages,
// separated by bars.
type fixture struct {
	t        *testing.T
	store    *firestore.Client
	ledger   *delivery.Ledger
	reaper   *delivery.Reaper
	repeats  bool
	timing   Timing
	deadline time.Duration // of answers; a minute if 0

	mu        sync.Mutex
	late      time.Duration                   // how far the clock is ahead
	failing   int                             // number of the store's next writes that fail
	blocked   func() (delivery.Outcome, bool) // the result of Ready; nil for ready
	next      map[string][]delivery.Outcome   // the outcomes of the next tries of a message, by its text; then Sent
	during    func(text string)               // called by Send; nil for nothing
	leaseLost func(asked int) bool            // reports the loss of the lease at the nth call of HoldsLease; nil for never
	asked     int
	sent      []string          // all sent messages
	stands    map[string]string // the messages in the chat: text by nonce
	counts    map[string]int
}

// withFixture runs a test on each store. repeats is [Platform.Repeats].
func withFixture(t *testing.T, repeats bool, run func(s *fixture)) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		s := &fixture{
			t: t, repeats: repeats, next: map[string][]delivery.Outcome{}, stands: map[string]string{}, counts: map[string]int{},
			timing: Timing{Scan: 50 * time.Millisecond, Retry: 10 * time.Millisecond, Backoff: 2 * time.Millisecond, MaxBackoff: 20 * time.Millisecond, Claim: 40 * time.Second},
		}
		client, err := store.Connect(t.Context(), env.Deployment(), option.WithGRPCConn(s.dial(t, env.Firestore)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		s.store, s.ledger = client, delivery.NewLedger(client, "one", s.clock)
		s.reaper = delivery.NewReaper(s.ledger, deadletter.NewStore(client, s.clock), gatewaytest.SilentBus{}, "test", time.Second)
		run(s)
	})
}

// dial connects to the Firestore at addr. Its writes fail while the test sets failing.
func (s *fixture) dial(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	return emulatortest.Dial(t, addr,
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			s.mu.Lock()
			fails := s.failing > 0 && strings.HasSuffix(method, "/Commit")
			if fails {
				s.failing--
			}
			s.mu.Unlock()
			if fails {
				return status.Error(codes.PermissionDenied, "the store is away") // the client does not repeat this code
			}
			return invoke(ctx, method, req, reply, cc, opts...)
		}))
}

func (s *fixture) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.late)
}

// set changes the fixture under its lock.
func (s *fixture) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *fixture) holdsLease() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	return s.leaseLost == nil || !s.leaseLost(s.asked)
}

func (s *fixture) count(outcome string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[outcome]++
}

func (s *fixture) pending(ctx context.Context) ([]delivery.Entry, error) {
	return s.ledger.Unsettled(ctx, identity.Discord)
}

func (s *fixture) address(ref delivery.Ref, e *event.Event) (key string, t Transport, err error) {
	if e.Channel == "discord:0" {
		return "", nil, errors.New("there is no channel 0")
	}
	return e.Channel, &fakeTransport{s, ref}, nil
}

func split(e *event.Event) (all []string) {
	return slices.DeleteFunc(strings.Split(answer.Text(e), "|"), func(message string) bool { return message == "" })
}

// fakeTransport is the transport of one answer.
type fakeTransport struct {
	*fixture
	ref delivery.Ref
}

func (p *fakeTransport) Ready(ctx context.Context, part int) (delivery.Outcome, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.blocked != nil {
		return p.blocked()
	}
	return delivery.Outcome{}, true
}

func (p *fakeTransport) Send(ctx context.Context, part int, text string) delivery.Outcome {
	p.mu.Lock()
	during := p.during
	p.mu.Unlock()
	if during != nil {
		during(text)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent = append(p.sent, text)
	o := delivery.Outcome{Kind: delivery.Sent, Note: "id:" + text}
	if next := p.next[text]; len(next) > 0 {
		o, p.next[text] = next[0], next[1:]
	}
	// an unknown outcome with an id means that the message was sent
	if o.Kind == delivery.Sent || o.Kind == delivery.Unknown && o.Note != "" {
		nonce := fmt.Sprint(p.ref.ID, p.ref.RedriveCount, part)
		if !p.repeats {
			nonce = fmt.Sprint(len(p.sent))
		}
		p.stands[nonce] = text
	}
	return o
}

// dispatcher makes a dispatcher that is not running.
func (s *fixture) dispatcher() *Dispatcher {
	return NewDispatcher(Platform{Pending: s.pending, Address: s.address, Split: split, Repeats: s.repeats}, Options{
		Ledger: s.ledger, Reaper: s.reaper, HoldsLease: s.holdsLease, Now: s.clock, Count: s.count, Timing: s.timing,
		Log: slog.New(slog.NewTextHandler(s.t.Output(), nil)),
	})
}

// run runs a new dispatcher. leave ends ctx, stop ends stopped, and ended waits for the end of Run.
func (s *fixture) run() (d *Dispatcher, leave, stop, ended func()) {
	ctx, leave := context.WithCancel(context.WithoutCancel(s.t.Context()))
	stopped, stop := context.WithCancel(context.WithoutCancel(ctx))
	d = s.dispatcher()
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.Run(ctx, stopped)
	}()
	ended = func() {
		leave()
		<-done
	}
	s.t.Cleanup(func() {
		stop()
		ended()
	})
	return d, leave, stop, ended
}

// answer opens an answer in the ledger and returns its id.
func (s *fixture) answer(text string, adjust ...func(*event.Event)) string {
	s.t.Helper()
	e := &event.Event{
		V: event.Version, Source: "ingress.discord", CorrelationID: text, Type: event.TypeChatMessage, Channel: "discord:1", UserID: "discord:7",
		Egress: &event.Egress{Destination: "discord", Type: event.EgressChat}, Candidates: []event.Candidate{{ID: "c", Text: text}},
	}
	for _, f := range adjust {
		f(e)
	}
	sender := delivery.NewSender(s.ledger, gatewaytest.SilentBus{}, delivery.Config{Deadline: cmp.Or(s.deadline, time.Minute), Retention: 2 * time.Hour}, s.clock)
	id, err := sender.Send(s.t.Context(), e, "test")
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

func in(channel string) func(*event.Event) { return func(e *event.Event) { e.Channel = channel } }

// bring enqueues an answer, as the bus does.
func (s *fixture) bring(d *Dispatcher, id string) {
	s.t.Helper()
	entry := s.entry(id)
	e, err := event.Decode(entry.Event)
	if err != nil {
		s.t.Fatal(err)
	}
	d.Enqueue(entry.Ref(), e)
}

func (s *fixture) entry(id string) delivery.Entry {
	s.t.Helper()
	e, err := s.ledger.Get(s.t.Context(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	return e
}

func (s *fixture) eventually(what string, holds func() bool) {
	s.t.Helper()
	gatewaytest.Eventually(s.t, what, holds)
}

// counted waits until an outcome was counted a number of times.
func (s *fixture) counted(outcome string, times int) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("%s counts %d", outcome, times), func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.counts[outcome] >= times
	})
}

// tried waits until a postponed answer was tried again.
func (s *fixture) tried() {
	s.t.Helper()
	s.mu.Lock()
	enough := s.asked + 4
	s.mu.Unlock()
	s.eventually("it is tried again", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.asked >= enough
	})
}

// ends waits until an entry has a state, and checks its note, or its reason and error.
func (s *fixture) ends(id string, state delivery.State, says ...string) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("%s is %s", id, state), func() bool { return s.entry(id).State == state })
	e := s.entry(id)
	told := cmp.Or(e.Note, e.Reason+": "+e.Message)
	for _, want := range says {
		if !strings.Contains(told, want) {
			s.t.Errorf("the entry says %q; want %q", told, want)
		}
	}
	letter, err := deadletter.NewStore(s.store, s.clock).Get(s.t.Context(), id)
	if state == delivery.Dead && (err != nil || string(letter.Reason) != e.Reason) || state != delivery.Dead && err == nil {
		s.t.Errorf("an entry that is %s (%s) has the dead letter %+v, %v", state, e.Reason, letter, err)
	}
}

// said checks the sent messages and the messages in the chat.
func (s *fixture) said(sent, stands string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := strings.Join(s.sent, " "); got != sent {
		s.t.Errorf("sent %q; want %q", got, sent)
	}
	if got := slices.Sorted(maps.Values(s.stands)); strings.Join(got, " ") != stands {
		s.t.Errorf("in the chat is %q; want %q", got, stands)
	}
}

var (
	lost     = delivery.Outcome{Kind: delivery.Unknown, Err: errors.New("no answer")}
	lostSaid = delivery.Outcome{Kind: delivery.Unknown, Note: "id", Err: errors.New("no answer")}
	notNow   = delivery.Outcome{Reason: deadletter.RateLimited, Err: errors.New("too fast"), After: time.Millisecond}
	no       = delivery.Outcome{Kind: delivery.Refused, Reason: deadletter.SenderRefused, Err: errors.New("banned")}
)

// both runs a test with and without Repeats.
func both(t *testing.T, run func(s *fixture)) {
	for _, repeats := range []bool{false, true} {
		t.Run(fmt.Sprint("repeats ", repeats), func(t *testing.T) {
			withFixture(t, repeats, run)
		})
	}
}

func TestAnswersAreSentOnceInTheLedgersOrder(t *testing.T) {
	both(t, func(s *fixture) {
		a, b, c := s.answer("a"), s.answer("b1|b2"), s.answer("c")
		d, _, _, _ := s.run()
		s.bring(d, c)
		s.bring(d, b)
		s.ends(c, delivery.Delivered, "id:c")
		s.ends(b, delivery.Delivered, "id:b1 id:b2")
		s.ends(a, delivery.Delivered, "id:a")
		last := s.answer("d")
		s.bring(d, last)
		s.ends(last, delivery.Delivered)
		s.bring(d, a) // again
		s.counted("had_delivered", 1)
		s.said("a b1 b2 c d", "a b1 b2 c d")
		s.mu.Lock()
		defer s.mu.Unlock()
		if n := s.counts["delivered"]; n != 4 {
			t.Errorf("%d counted as delivered; want 4", n)
		}
	})
}

func TestImpossibleAnswerIsDead(t *testing.T) {
	both(t, func(s *fixture) {
		nowhere, nothing, fine := s.answer("a", in("discord:0")), s.answer("|"), s.answer("b")
		s.run()
		s.ends(nowhere, delivery.Dead, "no_recipient", "there is no channel 0")
		s.ends(nothing, delivery.Dead, "no_text")
		s.ends(fine, delivery.Delivered)
		s.set(func() { s.blocked = func() (delivery.Outcome, bool) { return no, false } })
		s.ends(s.answer("c"), delivery.Dead, "sender_refused", "banned")
		s.said("b", "b")
	})
}

// After the deadline no answer is sent. The dead letter has the cause of the last postponement; without a cause the
// sweep writes no_connection.
func TestAnswersEndAtTheirDeadline(t *testing.T) {
	both(t, func(s *fixture) {
		obstacle := notNow
		s.set(func() { s.blocked = func() (delivery.Outcome, bool) { return obstacle, false } })
		hindered := s.answer("a")
		s.run()
		s.tried()
		s.set(func() { s.late = 61 * time.Second })
		s.ends(hindered, delivery.Dead, "rate_limited", "too fast")
		s.counted("given_up", 1)

		s.set(func() { obstacle = delivery.Outcome{} })
		waits := s.answer("b")
		s.set(func() { s.late *= 2 })
		s.counted("overdue", 1)
		s.ends(waits, delivery.Pending)
		// a cause without a reason, such as a refused token, counts as no connection, whatever the earlier cause
		s.set(func() { obstacle = notNow })
		other := s.answer("c")
		s.tried()
		s.set(func() { obstacle = delivery.Outcome{Err: errors.New("not let in")} })
		s.tried()
		s.mu.Lock()
		s.late *= 2
		before := s.counts["overdue"]
		s.mu.Unlock()
		s.counted("overdue", before+6) // each scan counts b, too
		s.ends(other, delivery.Pending)
		s.said("", "")
	})
}

// After the deadline the sweep would write no_connection instead of the cause.
func TestPostponementEndsAtTheDeadline(t *testing.T) {
	both(t, func(s *fixture) {
		s.blocked = func() (delivery.Outcome, bool) {
			s.late = 59 * time.Second // a second, at most, is left
			return delivery.Outcome{Reason: deadletter.RateLimited, Err: errors.New("too fast"), After: time.Hour}, false
		}
		id := s.answer("a")
		s.run()
		s.ends(id, delivery.Dead, "rate_limited", "too fast")
	})
}

// A postponed answer may be marked dead and redriven meanwhile. The waiting job does not know about the redrive.
func TestRedrivenAnswerIsAnotherJob(t *testing.T) {
	both(t, func(s *fixture) {
		s.timing.Scan = time.Hour // the answer comes by the bus only
		waits := false
		s.blocked = func() (delivery.Outcome, bool) {
			waits = true
			return delivery.Outcome{Reason: deadletter.RateLimited, Err: errors.New("too fast"), After: 500 * time.Millisecond}, false
		}
		id := s.answer("a")
		d, _, _, _ := s.run()
		s.eventually("it waits", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return waits
		})
		s.set(func() { s.late = 2 * time.Minute })
		if _, err := s.reaper.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.ends(id, delivery.Dead)
		err := s.store.RunTransaction(t.Context(), func(_ context.Context, tx *firestore.Transaction) error {
			write, err := s.ledger.ReopenTx(tx, id, 1, delivery.Config{Deadline: time.Minute, Retention: time.Hour})
			if err != nil {
				return err
			}
			return write()
		})
		if err != nil {
			t.Fatal(err)
		}
		s.set(func() { s.blocked = nil })
		s.bring(d, id)
		s.eventually("it ends", func() bool {
			state := s.entry(id).State
			return state == delivery.Delivered || state == delivery.Dead
		})
		if e := s.entry(id); e.State != delivery.Delivered {
			t.Errorf("redriven, it is %s for %s; want it to be sent", e.State, e.Reason)
		}
		s.said("a", "a")
	})
}

func TestPlatformsAnswerDecidesTheOutcome(t *testing.T) {
	soon := delivery.Outcome{Reason: deadletter.PlatformUnavailable, Err: errors.New("down")}
	for _, tt := range []struct {
		name    string
		repeats bool
		text    string
		next    map[string][]delivery.Outcome
		state   delivery.State
		says    string
		sent    string
		stands  string
		counts  string
	}{
		{"refused", false, "a", map[string][]delivery.Outcome{"a": {no}}, delivery.Dead, "sender_refused: banned", "a", "", "refused"},
		{"put off, then said", false, "a|b", map[string][]delivery.Outcome{"a": {notNow, soon}}, delivery.Delivered, "id:a id:b", "a a a b", "a b", "delivered"},
		{"put off, then refused", false, "a", map[string][]delivery.Outcome{"a": {notNow, no}}, delivery.Dead, "sender_refused", "a a", "", "refused"},
		{"half said, then refused", false, "a|b|c", map[string][]delivery.Outcome{"b": {no}}, delivery.Dead, "message 2 of 3: banned", "a b", "a", "refused"},
		{"half said, then put off", false, "a|b", map[string][]delivery.Outcome{"b": {notNow, soon}}, delivery.Delivered, "id:a id:b", "a b b b", "a b", "delivered"},
		{"unknown", false, "a|b", map[string][]delivery.Outcome{"a": {lostSaid}}, delivery.Claimed, "", "a", "a", "unknown"},
		{"half said, then unknown", false, "a|b|c", map[string][]delivery.Outcome{"b": {lost}}, delivery.Claimed, "", "a b", "a", "unknown"},

		{"where it is repeated: refused", true, "a|b", map[string][]delivery.Outcome{"b": {no}}, delivery.Dead, "message 2 of 2: banned", "a b", "a", "refused"},
		{"where it is repeated: unknown though it was said", true, "a|b", map[string][]delivery.Outcome{"a": {lostSaid, lost}}, delivery.Delivered, "id:a id:b", "a a a b", "a b", "delivered"},
		{"where it is repeated: unknown and it was not", true, "a|b", map[string][]delivery.Outcome{"b": {lost, lost}}, delivery.Delivered, "id:a id:b", "a b b b", "a b", "delivered"},
		{"where it is repeated: what is unknown is neither given back nor dead", true, "a", map[string][]delivery.Outcome{"a": {lostSaid, notNow, no, soon}}, delivery.Delivered, "id:a", "a a a a a", "a", "delivered"},
		{"where it is repeated: a refusal after the doubt is over", true, "a|b", map[string][]delivery.Outcome{"a": {lost}, "b": {no}}, delivery.Dead, "message 2 of 2: banned", "a a b", "a", "refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			withFixture(t, tt.repeats, func(s *fixture) {
				s.next = maps.Clone(tt.next)
				id := s.answer(tt.text)
				after := s.answer("z")
				s.run()
				s.counted(tt.counts, 1)
				s.ends(id, tt.state, tt.says)
				s.ends(after, delivery.Delivered)
				s.said(tt.sent+" z", strings.TrimSpace(tt.stands+" z"))
			})
		})
	}
}

// An unknown outcome is not sent again: the sweep marks it dead.
func TestUnknownOutcomeIsLeftToTheSweep(t *testing.T) {
	withFixture(t, false, func(s *fixture) {
		s.next["a"] = []delivery.Outcome{lostSaid}
		id := s.answer("a")
		d, _, _, ended := s.run()
		s.counted("unknown", 1)
		s.bring(d, id)
		s.counted("had_claimed", 1)
		ended()
		s.run() // the next owner
		after := s.answer("b")
		s.ends(after, delivery.Delivered)
		s.set(func() { s.late = delivery.ClaimLease + 2*time.Second })
		if swept, err := s.reaper.Sweep(t.Context()); err != nil || swept.MarkedDead != 1 {
			t.Errorf("swept %+v, %v", swept, err)
		}
		s.ends(id, delivery.Dead, "outcome_unknown")
		s.said("a b", "a b")
	})
}

// A half sent answer keeps its claim until its deadline, because nobody else can continue.
func TestClaimOfAHalfSentAnswerIsExtended(t *testing.T) {
	many := func(n int) []delivery.Outcome { return slices.Repeat([]delivery.Outcome{notNow}, n) }
	for _, tt := range []struct {
		name      string
		refusals  int // of the second message
		steps     int // how often the clock advances, by almost half a claim, each time with a refusal
		failing   int // writes that fail after the first message
		leaves    bool
		state     delivery.State
		says      string
		sent      string
		deadAsOne bool
	}{
		{"within the first claim", 1, 1, 0, false, delivery.Delivered, "id:a id:b", "a b b", false},
		{"over several claims", 5, 5, 0, false, delivery.Delivered, "id:a id:b", "a b b b b b b", false},
		{"over an outage of the store", 20, 2, 2, false, delivery.Delivered, "id:a id:b", "a" + strings.Repeat(" b", 21), false},
		{"until the deadline", 1000, 1000, 0, false, delivery.Dead, "incomplete: only 1 of 2 messages could be sent in time: too fast", "", true},
		{"not after leaving", 1000, 1000, 0, true, delivery.Dead, "incomplete: only 1 of 2 messages could be sent in time: too fast", "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			withFixture(t, false, func(s *fixture) {
				s.deadline = 2 * time.Minute
				s.next["b"] = many(tt.refusals)
				var leave func()
				steps := 0
				begun := make(chan struct{})
				s.during = func(text string) {
					<-begun
					if text != "b" {
						s.set(func() { s.failing = tt.failing })
						return
					}
					if steps++; steps <= tt.steps {
						s.set(func() { s.late += s.timing.Claim/2 - time.Second })
					}
					if tt.leaves {
						leave()
					}
					if swept, err := s.reaper.Sweep(t.Context()); err != nil || swept.MarkedDead != 0 {
						t.Errorf("swept %+v, %v; want the claim valid", swept, err)
					}
				}
				id := s.answer("a|b")
				_, leave, _, _ = s.run()
				close(begun)
				s.ends(id, tt.state, tt.says)
				s.mu.Lock()
				defer s.mu.Unlock()
				if got := strings.Join(s.sent, " "); tt.sent != "" && got != tt.sent {
					t.Errorf("sent %q; want %q", got, tt.sent)
				}
				if n := len(s.sent); tt.deadAsOne && (n < 3 || n > 12) {
					t.Errorf("sent %d messages; want a few, until the deadline", n)
				}
				if n := len(s.stands); n != map[bool]int{true: 1, false: 2}[tt.deadAsOne] {
					t.Errorf("in the chat is %v", s.stands)
				}
			})
		})
	}
}

// After the sweep has settled a half sent answer, no further message is sent.
func TestSettledHalfSentAnswerIsNotContinued(t *testing.T) {
	withFixture(t, false, func(s *fixture) {
		s.deadline = time.Hour
		s.during = func(string) { // the machine sleeps
			s.set(func() { s.late += delivery.ClaimLease + time.Second })
			if swept, err := s.reaper.Sweep(t.Context()); err != nil || swept.MarkedDead != 1 {
				t.Errorf("swept %+v, %v", swept, err)
			}
		}
		id := s.answer("a|b")
		s.run()
		s.counted("refused", 1)
		s.ends(id, delivery.Dead, "outcome_unknown")
		s.said("a", "a")
	})
}

// An old claim is not used for another message, unless it can be extended.
func TestOldClaimIsNotUsed(t *testing.T) {
	for _, tt := range []struct {
		name    string
		repeats bool
		next    map[string][]delivery.Outcome
		at      string // the clock advances during this message
		late    time.Duration
		state   delivery.State
		says    string
		sent    string
	}{
		{"half said", false, nil, "a", 40 * time.Second, delivery.Delivered, "id:a id:b", "a b"},
		{"half said at the deadline", false, nil, "a", time.Minute, delivery.Dead, "incomplete: only 1 of 2 messages could be sent in time", "a"},
		{"half said, where it is repeated", true, nil, "a", 40 * time.Second, delivery.Dead, "incomplete: only 1 of 2 messages could be sent in time", "a"},
		{"in doubt", true, map[string][]delivery.Outcome{"a": {lostSaid}}, "a", 40 * time.Second, delivery.Claimed, "", "a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			withFixture(t, tt.repeats, func(s *fixture) {
				s.next = maps.Clone(tt.next)
				s.during = func(text string) {
					if text == tt.at {
						s.set(func() { s.late = tt.late })
					}
				}
				id := s.answer("a|b")
				_, leave, _, _ := s.run()
				s.eventually("it is said", func() bool {
					s.mu.Lock()
					defer s.mu.Unlock()
					return len(s.sent) == len(strings.Fields(tt.sent))
				})
				leave()
				s.ends(id, tt.state, tt.says)
				s.said(tt.sent, tt.sent)
			})
		})
	}
}

func TestLostLeaseStopsSendingUnlessNoOtherCanContinue(t *testing.T) {
	for _, tt := range []struct {
		name    string
		repeats bool
		lost    int // the first call of HoldsLease that returns false, counted from 1; 0 for none
		during  string
		next    map[string][]delivery.Outcome
		state   delivery.State
		says    string
		sent    string
		stands  string
		counts  string
	}{
		{"before the claim", false, 2, "", nil, delivery.Pending, "", "", "", ""},
		{"after the claim", false, 3, "", nil, delivery.Pending, "", "", "", "released"},
		{"after the claim, where it is repeated", true, 3, "", nil, delivery.Pending, "", "", "", "released"},
		{"half said", false, 0, "a", nil, delivery.Delivered, "id:a id:b", "a b", "a b", "delivered"}, // no other instance may continue
		{"half said, where it is repeated", true, 0, "a", nil, delivery.Dead, "incomplete: only 1 of 2", "a", "a", "refused"},
		{"in doubt", true, 0, "a", map[string][]delivery.Outcome{"a": {lost}}, delivery.Claimed, "", "a", "", "unknown"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			withFixture(t, tt.repeats, func(s *fixture) {
				s.next = maps.Clone(tt.next)
				gone := false
				s.leaseLost = func(asked int) bool { return gone || tt.lost > 0 && asked >= tt.lost }
				s.during = func(text string) {
					if text == tt.during {
						s.set(func() { gone = true })
					}
				}
				id := s.answer("a|b")
				_, _, _, ended := s.run()
				if tt.counts != "" {
					s.counted(tt.counts, 1)
				} else {
					s.tried()
				}
				ended()
				s.ends(id, tt.state, tt.says)
				s.said(tt.sent, tt.stands)
			})
		})
	}
}

func TestOutcomeIsRecordedAfterAnOutageOfTheStore(t *testing.T) {
	for _, tt := range []struct {
		name   string
		next   []delivery.Outcome
		state  delivery.State
		counts string
	}{
		{"said", nil, delivery.Delivered, "delivered"},
		{"refused", []delivery.Outcome{no}, delivery.Dead, "refused"},
		{"put off", []delivery.Outcome{notNow}, delivery.Delivered, "released"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			both(t, func(s *fixture) {
				s.next["a"] = slices.Clone(tt.next)
				s.during = func(string) { s.set(func() { s.failing, s.during = 3, nil }) }
				id := s.answer("a")
				s.run()
				s.counted(tt.counts, 1)
				s.ends(id, tt.state)
				s.mu.Lock()
				defer s.mu.Unlock()
				if s.failing > 0 || s.counts["unrecorded"] > 0 {
					t.Errorf("%d writes have yet to fail, %d outcomes are not recorded; want none", s.failing, s.counts["unrecorded"])
				}
			})
		})
	}
}

// An answer with an unrecorded outcome is not sent again on a platform without deduplication.
func TestOutcomeThatCannotBeRecordedLeavesTheClaim(t *testing.T) {
	withFixture(t, false, func(s *fixture) {
		s.timing.Claim = time.Second
		s.during = func(string) { s.set(func() { s.failing, s.during = math.MaxInt, nil }) }
		id := s.answer("a")
		d, _, _, _ := s.run()
		s.counted("unrecorded", 1)
		s.set(func() { s.failing = 0 })
		s.bring(d, id)
		s.counted("had_claimed", 1)
		s.ends(id, delivery.Claimed)
		s.said("a", "a")
	})
}

// On a platform with deduplication, the next owner of the lease finishes an answer of the last owner.
func TestAnswerOfACrashedInstanceIsContinuedIfThePlatformRepeats(t *testing.T) {
	for _, repeats := range []bool{true, false} {
		t.Run(fmt.Sprint("repeats ", repeats), func(t *testing.T) {
			withFixture(t, repeats, func(s *fixture) {
				id := s.answer("a|b")
				dead := delivery.NewLedger(s.store, "dead", s.clock)
				claim, _, err := dead.Claim(t.Context(), s.entry(id).Ref())
				if err != nil || claim == nil {
					t.Fatal(claim, err)
				}
				(&fakeTransport{s, s.entry(id).Ref()}).Send(t.Context(), 0, "a") // before the crash
				s.next["a"] = []delivery.Outcome{no}                             // does not count for a message that may be in the chat
				after := s.answer("c")
				s.run()
				s.ends(after, delivery.Delivered)
				if !repeats {
					s.ends(id, delivery.Claimed)
					s.said("a c", "a c")
					return
				}
				s.ends(id, delivery.Delivered, "id:a id:b")
				s.said("a a a b c", "a b c")
				if state, err := claim.MarkDelivered(t.Context(), "late"); err != nil || state != delivery.Delivered {
					t.Errorf("the earlier claim: %s, %v", state, err)
				}
			})
		})
	}
}

func TestClaimedAnswerIsFinishedAfterLeaving(t *testing.T) {
	both(t, func(s *fixture) {
		begun, hold := make(chan struct{}), make(chan struct{})
		s.during = func(text string) {
			if text == "a" {
				close(begun)
				<-hold
			}
		}
		id, next := s.answer("a|b"), s.answer("c")
		_, leave, _, ended := s.run()
		<-begun
		leave()
		close(hold)
		ended()
		s.ends(id, delivery.Delivered, "id:a id:b")
		s.ends(next, delivery.Pending)
		s.said("a b", "a b")
	})
}

func TestClaimedAnswerIsIncompleteAfterStopping(t *testing.T) {
	both(t, func(s *fixture) {
		begun, hold := make(chan struct{}), make(chan struct{})
		s.during = func(text string) {
			if text == "a" {
				close(begun)
				<-hold
			}
		}
		id := s.answer("a|b")
		_, leave, stop, ended := s.run()
		<-begun
		leave()
		stop()
		close(hold)
		ended()
		s.ends(id, delivery.Dead, "incomplete: only 1 of 2")
		s.said("a", "a")
	})
}

// A claim at the moment of leaving is finished, too.
func TestClaimDuringLeavingIsFinished(t *testing.T) {
	both(t, func(s *fixture) {
		id := s.answer("a")
		var leave func()
		ready := make(chan struct{})
		s.leaseLost = func(asked int) bool {
			if asked == 2 { // just before the claim
				<-ready
				leave()
			}
			return false
		}
		_, leave, _, ended := s.run()
		close(ready)
		s.counted("delivered", 1)
		ended()
		s.ends(id, delivery.Delivered)
	})
}

func TestStoppingDoesNotWaitForTheStore(t *testing.T) {
	both(t, func(s *fixture) {
		begun, hold := make(chan struct{}), make(chan struct{})
		s.during = func(text string) {
			s.set(func() { s.failing = math.MaxInt })
			close(begun)
			<-hold
		}
		id := s.answer("a")
		_, _, stop, ended := s.run()
		<-begun
		stop()
		close(hold)
		began := time.Now()
		ended()
		if took := time.Since(began); took > s.timing.Claim/4 {
			t.Errorf("it took %s to stop", took)
		}
		s.counted("unrecorded", 1)
		s.ends(id, delivery.Claimed)
	})
}

func TestUnknownAndLateDeliveriesAreCounted(t *testing.T) {
	both(t, func(s *fixture) {
		d, _, _, _ := s.run()
		d.Enqueue(delivery.Ref{ID: "missing"}, &event.Event{Channel: "discord:1", Candidates: []event.Candidate{{ID: "c", Text: "a"}}})
		s.counted("unknown_delivery", 1)
		s.said("", "")

		// marked dead during the sending, by a sweep with a clock ahead
		s.during = func(string) {
			ahead := delivery.NewLedger(s.store, "sweep", func() time.Time { return s.clock().Add(time.Hour) })
			if swept, err := delivery.NewReaper(ahead, deadletter.NewStore(s.store, s.clock), gatewaytest.SilentBus{}, "sweep", time.Second).Sweep(t.Context()); err != nil || swept.MarkedDead != 1 {
				t.Errorf("swept %+v, %v", swept, err)
			}
		}
		late := s.answer("b")
		s.bring(d, late)
		s.counted("late", 1)
		s.ends(late, delivery.Dead, "outcome_unknown")
	})
}
