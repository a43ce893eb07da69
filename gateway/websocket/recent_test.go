package websocket

import (
	"encoding/binary"
	"errors"
	"strconv"
	"testing"
	"time"

	"parley.internal/shared/delivery"
)

const retention = 10 * time.Minute

// recentFixture is a memory of deliveries with a clock set by the test.
type recentFixture struct {
	*recentDeliveries
	t     *testing.T
	clock time.Time
}

func newRecentFixture(t *testing.T) *recentFixture {
	f := &recentFixture{t: t, clock: time.Unix(1_800_000_000, 0)}
	f.recentDeliveries = newRecentDeliveries(retention, func() time.Time { return f.clock })
	return f
}

// deliver handles an answer, with the given outcome and the given number of connections.
func (f *recentFixture) deliver(id, outcome string, connections int) {
	f.t.Helper()
	key := keyOf(delivery.Ref{ID: id})
	d, handled, err := f.acquire(key, true)
	if err != nil || handled {
		f.t.Fatalf("acquire %s: handled %v, %v", id, handled, err)
	}
	for n := range connections {
		d.queuedFor = append(d.queuedFor, uint64(n))
	}
	f.weigh(d)
	f.release(d, outcome)
	if outcome == outcomeDelivered {
		f.settle(d)
	}
}

// counts returns the number of remembered deliveries.
func (r *recentDeliveries) counts() (handled, unsettled int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.current) + len(r.previous), len(r.unsettled)
}

// connections returns the connections remembered for an unsettled answer.
func (f *recentFixture) connections(id string) int {
	f.t.Helper()
	key := keyOf(delivery.Ref{ID: id})
	d, _, _ := f.acquire(key, false)
	if d == nil {
		return 0
	}
	defer f.release(d, outcomeFailed)
	return len(d.queuedFor)
}

func (f *recentFixture) isHandled(id string, redrives int) bool {
	_, handled, _ := f.acquire(keyOf(delivery.Ref{ID: id, RedriveCount: redrives}), false)
	return handled
}

func TestNewerAnswersDisplaceNoRememberedDelivery(t *testing.T) {
	f := newRecentFixture(t)
	f.deliver("failed", outcomeFailed, 3)
	f.deliver("first", outcomeDelivered, 1)
	const rate = 500 // answers per second
	for n := range int(retention/time.Second) * rate {
		if n%rate == 0 {
			f.clock = f.clock.Add(time.Second)
		}
		f.deliver("other"+strconv.Itoa(n), outcomeDelivered, 1)
	}
	if n := f.connections("failed"); n != 3 {
		t.Errorf("%d connections of the unsettled answer are remembered; want 3", n)
	}
	if !f.isHandled("first", 0) {
		t.Error("a handled answer is forgotten within the retention of the bus")
	}
	if f.isHandled("first", 1) {
		t.Error("the answer counts as handled after a redrive")
	}
}

func TestDeliveriesAreForgottenAfterTheRetention(t *testing.T) {
	f := newRecentFixture(t)
	f.deliver("failed", outcomeFailed, 3)
	f.deliver("handled", outcomeDelivered, 1)
	for n := range 3 {
		f.clock = f.clock.Add(retention + time.Second)
		f.deliver("other"+strconv.Itoa(n), outcomeDelivered, 1)
	}
	if handled, unsettled := f.counts(); handled != 2 || unsettled != 0 || f.weight != 0 {
		t.Errorf("%d handled and %d unsettled answers with the weight %d remain; want 2, 0 and 0", handled, unsettled, f.weight)
	}
}

func TestAnswerWithoutWrittenFrameMayBeWrittenLater(t *testing.T) {
	f := newRecentFixture(t)
	f.deliver("lost", outcomeLost, 1)
	f.deliver("lost", outcomeDelivered, 1)
	if !f.isHandled("lost", 0) {
		t.Error("not handled")
	}
}

func TestTooManyUnsettledAnswersRefuseNewAnswers(t *testing.T) {
	f := newRecentFixture(t)
	const connections = 10_000
	full := maxUnsettled / (unsettledWeight + connections)
	for n := range full + 1 {
		f.deliver(strconv.Itoa(n), outcomeFailed, connections)
	}
	key := keyOf(delivery.Ref{ID: "next"})
	if _, _, err := f.acquire(key, true); !errors.Is(err, errTooManyUnsettled) {
		t.Errorf("acquire = %v; want %v", err, errTooManyUnsettled)
	}
	if n := f.connections("0"); n != connections {
		t.Errorf("%d connections of the first answer are remembered", n)
	}
	f.deliverAgain("0")
	f.deliver("next", outcomeDelivered, 1)
}

// deliverAgain settles an unsettled answer.
func (f *recentFixture) deliverAgain(id string) {
	f.t.Helper()
	key := keyOf(delivery.Ref{ID: id})
	d, _, err := f.acquire(key, true)
	if err != nil {
		f.t.Fatal(err)
	}
	f.release(d, outcomeDelivered)
	f.settle(d)
}

func TestHandledAnswersAreBounded(t *testing.T) {
	f := newRecentFixture(t)
	for n := range 3 {
		for key := range uint64(maxHandled) { // cheaper than as many deliveries
			f.current[deliveryKey(binary.BigEndian.AppendUint64(make([]byte, 8, 16), uint64(n)<<32|key))] = struct{}{}
		}
		f.deliver(strconv.Itoa(n), outcomeDelivered, 0)
		if handled, _ := f.counts(); handled > 2*maxHandled || !f.isHandled(strconv.Itoa(n), 0) {
			t.Errorf("%d handled answers remembered; want at most %d, with the last", handled, 2*maxHandled)
		}
	}
}
