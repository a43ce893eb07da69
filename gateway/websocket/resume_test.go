package websocket

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"

	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
)

func ledgerEntry(t *testing.T, id string, state delivery.State) delivery.Entry {
	t.Helper()
	data, err := event.Encode(incoming(id, "twitch:1", "", "missed").Event)
	if err != nil {
		t.Fatal(err)
	}
	return delivery.Entry{ID: id, State: state, UserID: "twitch:1", OpenedAt: testTime, Event: data}
}

// dialAfter connects as a reconnecting client.
func (f *fixture) dialAfter(got ...string) *client {
	f.t.Helper()
	return f.dialWith("after=" + strings.Join(got, "&after="))
}

// dialWith connects with a query. The test reads the first frame.
func (f *fixture) dialWith(query string) *client {
	f.t.Helper()
	url := "ws" + strings.TrimPrefix(f.http.URL, "http") + Path + "?" + query
	conn, _, err := gorilla.DefaultDialer.Dial(url, http.Header{"Authorization": {"Bearer token-1"}})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.Close() })
	return &client{conn, f.t}
}

func TestAReconnectingClientGetsMissedAnswersInOrder(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	looking, look := make(chan []string, 1), make(chan struct{})
	f.ledger.backlog = func(got []string) (delivery.Backlog, error) {
		looking <- got
		<-look
		return delivery.Backlog{Recovered: true, Entries: []delivery.Entry{ledgerEntry(t, "m1", delivery.Delivered), ledgerEntry(t, "m2", delivery.Pending)}}, nil
	}
	c := f.dialAfter("a", "b")
	if got := <-looking; !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("looked for what came after %q", got)
	}
	// meanwhile the bus delivers a missed answer, and a new answer
	delivered := make(chan error, 2)
	for _, id := range []string{"m2", "live"} {
		go func() { delivered <- f.Deliver(t.Context(), incoming(id, "twitch:1", "", "now")) }()
	}
	eventually(t, "both wait", func() bool {
		conns := f.hub.receivers(nil, "twitch:1", "")
		conns[0].queue.mu.Lock()
		defer conns[0].queue.mu.Unlock()
		return len(conns[0].queue.frames) == 2
	})
	close(look)
	var order []string
	for range 4 {
		r := c.next()
		order = append(order, fmt.Sprint(r.Type, " ", r.Metadata["id"]))
		if r.Type == TypeReady && (r.Payload["missed"] != 2.0 || r.Payload["recovered"] != true) {
			t.Errorf("ready = %+v", r)
		}
	}
	want := []string{TypeReady + " <nil>", TypeReceived + " m1", TypeReceived + " m2", TypeReceived + " live"}
	if !slices.Equal(order, want) {
		t.Errorf("got %q; want %q", order, want)
	}
	for range 2 {
		if err := <-delivered; err != nil {
			t.Error(err)
		}
	}
	if f.ledger.times("m1") != 0 || f.ledger.times("m2") == 0 || f.ledger.times("live") != 1 {
		t.Errorf("settled %v", f.ledger.settled)
	}
}

// Pending answers are read page by page. All are written before answers received meanwhile.
func TestAClientGetsAllPagesOfPendingAnswers(t *testing.T) {
	t.Parallel()
	for _, query := range []string{"after=named", "ack=1&after=named"} {
		f := newFixture(t, nil)
		begun, look := make(chan struct{}), make(chan struct{})
		f.ledger.backlog = func([]string) (delivery.Backlog, error) {
			close(begun)
			return delivery.Backlog{Recovered: true, Next: delivery.Cursor{From: testTime}, Entries: []delivery.Entry{ledgerEntry(t, "m1", delivery.Pending), ledgerEntry(t, "m2", delivery.Pending)}}, nil
		}
		f.ledger.rest = func(from time.Time) (delivery.Backlog, error) {
			<-look
			if from.Equal(testTime) { // repeats the last entry
				return delivery.Backlog{Next: delivery.Cursor{From: testTime.Add(time.Second)}, Entries: []delivery.Entry{ledgerEntry(t, "m2", delivery.Pending), ledgerEntry(t, "m3", delivery.Pending)}}, nil
			}
			return delivery.Backlog{Entries: []delivery.Entry{ledgerEntry(t, "m4", delivery.Pending)}}, nil
		}
		c := f.dialWith(query)
		<-begun
		delivered := make(chan error, 1)
		go func() { delivered <- f.Deliver(t.Context(), incoming("live", "twitch:1", "", "now")) }()
		eventually(t, "it waits", func() bool {
			conns := f.hub.receivers(nil, "twitch:1", "")
			conns[0].queue.mu.Lock()
			defer conns[0].queue.mu.Unlock()
			return len(conns[0].queue.frames) == 1
		})
		close(look)
		if r := c.next(); r.Payload["missed"] != 2.0 || r.Payload["recovered"] != true {
			t.Errorf("%s: ready = %+v", query, r)
		}
		var order []string
		for range 5 {
			order = append(order, c.next().Metadata["id"].(string))
		}
		if want := []string{"m1", "m2", "m3", "m4", "live"}; !slices.Equal(order, want) {
			t.Errorf("%s: got %q; want %q", query, order, want)
		}
		if err := <-delivered; err != nil {
			t.Error(err)
		}
		settled := 1
		if query == "ack=1&after=named" {
			settled = 0
		}
		for _, id := range []string{"m1", "m2", "m3", "m4"} {
			if f.ledger.times(id) != settled {
				t.Errorf("%s: settled %v", query, f.ledger.settled)
			}
		}
	}
}

// With many pending answers, resume waits for acknowledgements; otherwise the client would be closed as too slow. Meanwhile
// the client is pinged.
func TestUnacknowledgedAnswersAreLimited(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *Config) { c.PingInterval = 3 * time.Second }) // even a busy machine answers within two intervals
	part := func(from, n int) (part []delivery.Entry) {
		for i := range n {
			part = append(part, ledgerEntry(t, fmt.Sprint("m", from+i), delivery.Pending))
		}
		return part
	}
	const first, rest = maxUnacked - 1, maxUnacked / 2
	f.ledger.backlog = func([]string) (delivery.Backlog, error) {
		return delivery.Backlog{Next: delivery.Cursor{From: testTime}, Entries: part(0, first)}, nil
	}
	var acked atomic.Bool
	f.ledger.rest = func(time.Time) (delivery.Backlog, error) {
		if !acked.Load() {
			t.Error("the rest was looked for before anything was acknowledged")
		}
		return delivery.Backlog{Entries: part(first, rest)}, nil
	}
	c := f.dialWith("ack=1")
	ack := func(from, n int) {
		var ids []string
		for i := range n {
			ids = append(ids, fmt.Sprintf("%q", fmt.Sprint("m", from+i)))
		}
		c.sendText(`{"type":"connection.ack","payload":{"ids":[` + strings.Join(ids, ",") + `]}}`)
	}
	read, pong := 0, c.PingHandler()
	c.SetPingHandler(func(data string) error {
		if read == first && !acked.Swap(true) { // the client is pinged while it has read all written answers
			ack(0, first)
		}
		return pong(data)
	})
	c.next() // ready
	for i := range first + rest {
		if id := c.next().Metadata["id"]; id != fmt.Sprint("m", i) {
			t.Fatalf("frame %d is %s", i, id)
		}
		read++
	}
	ack(first, rest)
	c.join("works")
	eventually(t, "all is settled", func() bool {
		f.ledger.mu.Lock()
		defer f.ledger.mu.Unlock()
		return len(f.ledger.settled) == first+rest
	})
}

func TestAnErrorOnALaterPageClosesWithNotResumed(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	f.ledger.backlog = func([]string) (delivery.Backlog, error) {
		return delivery.Backlog{Recovered: true, Next: delivery.Cursor{From: testTime}}, nil
	}
	f.ledger.rest = func(time.Time) (delivery.Backlog, error) {
		return delivery.Backlog{}, errors.New("store is down")
	}
	c := f.dialWith("")
	c.next()
	if code := c.closeCode(); code != CloseNotResumed {
		t.Errorf("closed with %d; want %d", code, CloseNotResumed)
	}
}

func TestALedgerErrorClosesWithNotResumed(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	f.ledger.backlog = func([]string) (delivery.Backlog, error) { return delivery.Backlog{}, errors.New("store is down") }
	if code := f.dialAfter("a").closeCode(); code != CloseNotResumed {
		t.Errorf("closed with %d; want %d", code, CloseNotResumed)
	}
}

func TestOnlyTheLastNamedIDsCount(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	asked := make(chan []string, 1)
	f.ledger.backlog = func(got []string) (delivery.Backlog, error) { asked <- got; return delivery.Backlog{}, nil }
	names := make([]string, delivery.MaxResumeIDs+5)
	for i := range names {
		names[i] = fmt.Sprint(i)
	}
	f.dialAfter(names...)
	if got := <-asked; len(got) != delivery.MaxResumeIDs || got[0] != "5" {
		t.Errorf("asked for %d, from %q", len(got), got[0])
	}
}

func TestAnEmptyReceivedIDNamesNothing(t *testing.T) {
	for query, want := range map[string][]string{
		"after=": nil, "after": nil, "after&after=&after=%20": nil, "after=+%09": nil, "ack=1&after=": nil, "&after=&": nil,
		"after=&after=a": {"a"}, "after=a&after=&after=b": {"a", "b"}, "after=a&after": {"a"}, "after=%20a%0A": {"a"},
		strings.Repeat("after=a&", delivery.MaxResumeIDs) + strings.Repeat("after=&", delivery.MaxResumeIDs): slices.Repeat([]string{"a"}, delivery.MaxResumeIDs),
	} {
		t.Run(query[:min(len(query), 40)], func(t *testing.T) {
			f := newFixture(t, nil)
			named := make(chan []string, 1)
			f.ledger.backlog = func(got []string) (delivery.Backlog, error) {
				named <- got
				return delivery.Backlog{Recovered: true, Entries: []delivery.Entry{ledgerEntry(t, "m1", delivery.Pending)}}, nil
			}
			c := f.dialWith(query)
			if r := c.next(); r.Type != TypeReady || (r.Payload["recovered"] == nil) != (len(want) == 0) {
				t.Errorf("ready = %+v", r)
			}
			if got := <-named; !slices.Equal(got, want) {
				t.Errorf("named %q; want %q", got, want)
			}
			if r := c.next(); r.Metadata["id"] != "m1" {
				t.Errorf("got %+v; want the missed answer", r)
			}
			c.join("works")
			c.sendText(`{}`)
			if r := c.next(); r.code() != ErrUnknownType {
				t.Errorf("got %+v; want an error", r)
			}
		})
	}
}

func TestAnAcknowledgementDeliversTheAnswer(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	f.ledger.backlog = func([]string) (delivery.Backlog, error) {
		return delivery.Backlog{Recovered: true, Entries: []delivery.Entry{ledgerEntry(t, "old", delivery.Pending)}}, nil
	}
	c := f.dialWith("ack=1")
	if r := c.next(); r.Type != TypeReady || r.Payload["missed"] != 1.0 || r.Payload["recovered"] != nil {
		t.Errorf("ready = %+v", r)
	}
	c.next() // old
	if err := f.Deliver(t.Context(), incoming("live", "twitch:1", "", "now")); err != nil {
		t.Fatal(err)
	}
	c.next() // live
	if f.ledger.times("old")+f.ledger.times("live") != 0 || f.outcome(outcomeAwaited) != 1 {
		t.Fatalf("settled %v before the client said anything", f.ledger.settled)
	}
	c.sendText(`{"type":"connection.ack","payload":{"ids":["live","nobody's"]}}`)
	eventually(t, "live is settled", func() bool { return f.ledger.times("live") == 1 })
	c.sendText(`{"type":"connection.ack","payload":{"ids":["live","old"]}}`)
	eventually(t, "old is settled", func() bool { return f.ledger.times("old") == 1 })
	if f.ledger.times("live") != 1 || f.ledger.times("nobody's") != 0 {
		t.Errorf("settled %v", f.ledger.settled)
	}
}

func TestAWriteWithoutAcknowledgementsDeliversTheAnswer(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	acks := f.dialWith("ack=1")
	acks.next()
	plain := f.dial("1")
	if err := f.Deliver(t.Context(), incoming("a", "twitch:1", "", "now")); err != nil {
		t.Fatal(err)
	}
	acks.next()
	plain.next()
	if f.ledger.times("a") != 1 {
		t.Errorf("settled %v", f.ledger.settled)
	}
}

func TestAnAnswerAwaitsItsAcknowledgement(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *Config) { c.WriteTimeout, c.PingInterval, c.QueueBytes = time.Minute, time.Minute, 1<<30 })
	f.dial("1") // without acknowledgements, and without reading
	plain := f.hub.receivers(nil, "twitch:1", "")[0]
	f.stall(plain)
	acks := f.dialWith("ack=1")
	acks.next()
	delivered := make(chan error, 1)
	go func() { delivered <- f.Deliver(t.Context(), incoming("a", "twitch:1", "", "now")) }()
	if r := acks.next(); r.Metadata["id"] != "a" {
		t.Fatalf("got %+v", r)
	}
	plain.end(CloseSlow) // before the write
	if err := <-delivered; err != nil {
		t.Fatal(err)
	}
	if f.ledger.times("a") != 0 || f.outcome(outcomeAwaited) != 1 {
		t.Errorf("settled %v before the client said anything", f.ledger.settled)
	}
	acks.sendText(`{"type":"connection.ack","payload":{"ids":["a"]}}`)
	eventually(t, "it is settled", func() bool { return f.ledger.times("a") == 1 })
}

func TestARedrivenUnacknowledgedAnswerIsSentAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	f.ledger.backlog = func([]string) (delivery.Backlog, error) {
		return delivery.Backlog{Recovered: true, Entries: []delivery.Entry{ledgerEntry(t, "a", delivery.Pending)}}, nil
	}
	c := f.dialWith("ack=1&after=named")
	c.next()
	c.next() // a, never acknowledged: so the answer is dead-lettered
	in := incoming("a", "twitch:1", "", "again")
	if err := f.Deliver(t.Context(), in); err != nil { // the same attempt, from the bus
		t.Fatal(err)
	}
	in.Attributes[deadletter.AttrRedrive] = "1"
	if err := f.Deliver(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	if r := c.next(); r.Metadata["id"] != "a" {
		t.Fatalf("got %+v; want the redriven answer", r)
	}
	c.join("a") // the next frame: the answer was written once more
	c.sendText(`{"type":"connection.ack","payload":{"ids":["a"]}}`)
	eventually(t, "it is settled", func() bool { return f.ledger.times("a") == 1 })

	// an answer named by the client counts as acknowledged after every redrive
	in = incoming("named", "twitch:1", "", "again")
	in.Attributes[deadletter.AttrRedrive] = "1"
	if err := f.Deliver(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what it named is settled", func() bool { return f.ledger.times("named") == 1 })
	c.join("b")
}

func TestALateBusMessageDoesNotRepeatANamedAnswer(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	until := testTime.Add(time.Hour)
	f.ledger.backlog = func([]string) (delivery.Backlog, error) { return delivery.Backlog{Recovered: true, Until: until}, nil }
	// the client received "older" and later "named" from a dead instance; the bus delivers both to this instance only now
	c := f.dialAfter("named")
	if r := c.next(); r.Type != TypeReady {
		t.Fatalf("first frame = %+v", r)
	}
	for id, opened := range map[string]time.Time{"named": until.Add(time.Second), "older": until.Add(-time.Minute), "last": until} {
		in := incoming(id, "twitch:1", "", "again")
		in.Attributes[delivery.AttrVersion] = opened.Format(time.RFC3339Nano)
		if err := f.Deliver(t.Context(), in); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	if f.ledger.times("older") != 0 {
		t.Error("an answer was settled that was not written")
	}
	in := incoming("new", "twitch:1", "", "now")
	in.Attributes[delivery.AttrVersion] = until.Add(time.Microsecond).Format(time.RFC3339Nano)
	if err := f.Deliver(t.Context(), in); err != nil {
		t.Error(err)
	}
	if r := c.next(); r.Metadata["id"] != "new" {
		t.Errorf("got %+v; want the new one alone", r)
	}
	// resume does not read answers to rooms, so a late answer goes to the whole room
	c.join("kitchen")
	in = incoming("room", "", "kitchen", "late")
	in.Attributes[delivery.AttrVersion] = until.Add(-time.Minute).Format(time.RFC3339Nano)
	if err := f.Deliver(t.Context(), in); err != nil {
		t.Error(err)
	}
	if r := c.next(); r.Metadata["id"] != "room" {
		t.Errorf("got %+v; want what was said in the room", r)
	}
}

func TestAnImmediateAcknowledgementCounts(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	ids := make(chan string, 1)
	f.ledger.backlog = func([]string) (delivery.Backlog, error) {
		return delivery.Backlog{Recovered: true, Entries: []delivery.Entry{ledgerEntry(t, <-ids, delivery.Pending)}}, nil
	}
	for i := range 50 {
		id := fmt.Sprint("m", i)
		ids <- id
		c := f.dialWith("ack=1")
		c.next()
		if r := c.next(); r.Metadata["id"] != id {
			t.Fatalf("got %+v", r)
		}
		c.sendText(`{"type":"connection.ack","payload":{"ids":["` + id + `"]}}`)
		eventually(t, "the acknowledgement is recorded", func() bool { return f.ledger.times(id) == 1 })
		c.Close()
		eventually(t, "the connection is gone", func() bool { return f.connections() == 0 })
	}
}

func TestARecordingErrorClosesWithNotRecorded(t *testing.T) {
	t.Parallel()
	for name, query := range map[string]string{"acknowledging": "ack=1", "not acknowledging": ""} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			f.ledger.backlog = func([]string) (delivery.Backlog, error) {
				return delivery.Backlog{Recovered: true, Entries: []delivery.Entry{ledgerEntry(t, "m1", delivery.Pending)}}, nil
			}
			f.ledger.set("", errors.New("store is down"))
			c := f.dialWith(query)
			c.next()
			c.next()
			if query == "ack=1" {
				c.sendText(`{"type":"connection.ack","payload":{"ids":["m1"]}}`)
			}
			if code := c.closeCode(); code != CloseNotRecorded {
				t.Errorf("closed with %d; want %d", code, CloseNotRecorded)
			}
		})
	}
}

func TestInvalidAckParametersAreRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	for _, query := range []string{"ack=yes", "ack=0", "ack=", "ack=1&ack=no"} {
		url := "ws" + strings.TrimPrefix(f.http.URL, "http") + Path + "?" + query
		conn, resp, err := gorilla.DefaultDialer.Dial(url, http.Header{"Authorization": {"Bearer token-1"}})
		if err == nil {
			conn.Close()
			t.Errorf("%s was taken", query)
			continue
		}
		if resp == nil || resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %v, %+v; want 400", query, err, resp)
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		if !strings.Contains(string(body), `"bad_parameter"`) || !strings.Contains(string(body), "ack") {
			t.Errorf("%s: %s", query, body)
		}
	}
	c := f.dialWith("ack=true")
	c.next()
	if err := f.Deliver(t.Context(), incoming("a", "twitch:1", "", "now")); err != nil {
		t.Fatal(err)
	}
	c.next()
	if f.ledger.times("a") != 0 || f.outcome(outcomeAwaited) != 1 {
		t.Errorf("settled %v before the client said anything", f.ledger.settled)
	}
}
