package websocket

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
)

const (
	// resumeTimeout bounds the look into the ledger for what a client missed.
	resumeTimeout = 10 * time.Second
	// recordInterval is after how long what was written is settled while more is being written: a client that reads slowly
	// may take longer for all of it than the sweep lets pass.
	recordInterval = time.Second
	// maxRecording is how many of those that were pending are settled at a time.
	maxRecording = 16
	// maxUnacked is how many answers a client that acknowledges may leave unacknowledged.
	maxUnacked = 1000
	// anyAttempt stands for every attempt of an answer: the client says that it has it, however often it is redriven.
	anyAttempt = math.MaxInt
)

// receivedIDs reads what a client that comes back says it has: the metadata.id of its last answers, each a parameter "after",
// the earliest first. Too many are cut to the last ones.
func receivedIDs(r *http.Request) []string {
	ids := r.URL.Query()["after"]
	return ids[max(0, len(ids)-delivery.MaxResumeIDs):]
}

// resume writes the first frame, and what the client has not got: what is pending for its user and, if it says what it
// has, what came after that. It runs in the writer, before anything else is written, so that what comes meanwhile waits
// in the queue and the order stays; of that, the writer leaves out what was written here. It reports whether the
// connection can go on. It pings meanwhile.
func (c *conn) resume(ctx context.Context, got []string, ping <-chan time.Time) bool {
	var backlog delivery.Backlog
	err := c.readLedger(ctx, func(ctx context.Context) (err error) {
		backlog, err = c.server.ledger.Resume(ctx, c.user, got)
		return err
	})
	if err != nil {
		return false
	}
	first := c.encodeMissed(ctx, backlog.Entries)
	ready := readyPayload{UserID: c.userID, Instance: c.server.instance, Missed: len(first)}
	if len(got) > 0 {
		ready.Recovered = &backlog.Recovered
	}
	f, err := prepare(controlFrame(TypeReady, ready, "", c.server.now()), "control")
	if err != nil {
		c.log.ErrorContext(ctx, "a frame could not be made", "error", err)
		c.end(CloseNotResumed)
		return false
	}

	c.resumed, c.until = make(map[string]int, len(first)+len(got)), backlog.Until
	for _, id := range got {
		c.resumed[id] = anyAttempt
	}
	ok := c.writeAll(ctx, []frame{f}, c.server.config.WriteTimeout) && c.writeMissed(ctx, first)
	for ok {
		if !c.awaitAckRoom(ping) {
			return false
		}
		if backlog.Next.IsZero() {
			return true
		}
		err := c.readLedger(ctx, func(ctx context.Context) (err error) {
			backlog, err = c.server.ledger.Continue(ctx, c.user, got, backlog.Next)
			return err
		})
		if err != nil {
			return false
		}
		ok = c.writeMissed(ctx, c.encodeMissed(ctx, backlog.Entries))
	}
	c.end(CloseSlow)
	return false
}

// readLedger looks into the ledger for what the client missed. After an error the connection can't go on.
func (c *conn) readLedger(ctx context.Context, find func(context.Context) error) error {
	looking, cancel := context.WithTimeout(ctx, resumeTimeout)
	defer cancel()
	defer context.AfterFunc(c.closing, cancel)()
	err := find(looking)
	if c.closing.Err() != nil {
		return c.closing.Err()
	}
	if err != nil {
		c.log.ErrorContext(ctx, "what a client missed could not be found", "error", err)
		c.end(CloseNotResumed)
	}
	return err
}

// missed is an answer that a client has not got.
type missed struct {
	entry delivery.Entry
	frame frame
}

// encodeMissed reads entries, and leaves out those that can't be read.
func (c *conn) encodeMissed(ctx context.Context, entries []delivery.Entry) []missed {
	all := make([]missed, 0, len(entries))
	for _, entry := range entries {
		f, err := c.backlogFrame(entry)
		if err != nil {
			c.log.ErrorContext(ctx, "an answer in the ledger can't be read", "error", err, "delivery", entry.ID)
			continue
		}
		all = append(all, missed{entry, f})
	}
	return all
}

// writeMissed writes what the client has not got, and settles it. It reports whether the network took it all.
func (c *conn) writeMissed(ctx context.Context, all []missed) bool {
	var pending []delivery.Entry
	var since time.Time // when the first of pending was written
	ok := true
	for _, m := range all {
		if c.closing.Err() != nil {
			break // what was not written stays as it is
		}
		entry := m.entry
		if attempt, had := c.resumed[entry.ID]; had && entry.RedriveCount <= attempt {
			continue
		}
		if entry.State == delivery.Pending && c.overdue(entry.Deadline) {
			continue // it waited too long behind those before it
		}
		if c.acks && entry.State == delivery.Pending {
			c.expectAck(entry.Ref()) // before it is written: the client may be quick
		}
		if ok = c.writeAll(ctx, []frame{m.frame}, c.server.config.WriteTimeout); !ok {
			break
		}
		c.resumed[entry.ID] = entry.RedriveCount
		if entry.State == delivery.Pending && !c.acks {
			if len(pending) == 0 {
				since = time.Now()
			}
			pending = append(pending, entry)
		}
		if len(pending) > 0 && time.Since(since) > recordInterval {
			c.recordResumed(ctx, pending)
			pending = nil
		}
	}
	c.recordResumed(ctx, pending)
	return ok
}

func (c *conn) backlogFrame(entry delivery.Entry) (frame, error) {
	e, err := event.Decode(entry.Event)
	if err != nil {
		return frame{}, fmt.Errorf("delivery %s: %w", entry.ID, err)
	}
	return prepare(answerFrame(e, entry.ID, entry.OpenedAt), "answer")
}

// recordResumed records those that were written.
func (c *conn) recordResumed(ctx context.Context, entries []delivery.Entry) {
	refs := make([]delivery.Ref, len(entries))
	for i, entry := range entries {
		refs[i] = entry.Ref()
	}
	c.recordDelivered(ctx, refs, outcomeResumed)
}

// recordDelivered records what the client has. If something can't be recorded, the client is told to come back: what it names
// then is settled, and otherwise it would become a dead letter although it arrived.
func (c *conn) recordDelivered(ctx context.Context, refs []delivery.Ref, as string) {
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(maxRecording)
	for _, ref := range refs {
		g.Go(func() error {
			outcome := as
			if _, err := c.server.ledger.MarkDelivered(ctx, ref); err != nil {
				c.log.ErrorContext(ctx, "received, but not recorded", "error", err, "delivery", ref.ID)
				outcome = outcomeFailed
				c.end(CloseNotRecorded)
			}
			c.server.metrics.deliveries.WithLabelValues(outcome).Inc()
			return nil
		})
	}
	g.Wait() // no call returns an error
}

// wantsAcks reads whether a client asked to say itself what it got, by the parameter ack=1 or ack=true. Whoever writes
// anything else means something, and would not learn that it is not so: then ok is false.
func wantsAcks(r *http.Request) (acks, ok bool) {
	values := r.URL.Query()["ack"]
	return len(values) > 0, !slices.ContainsFunc(values, func(v string) bool { return v != "1" && v != "true" })
}

// expectAck keeps an answer that was given to the connection until the client says that it has it.
func (c *conn) expectAck(ref delivery.Ref) {
	c.ackMu.Lock()
	defer c.ackMu.Unlock()
	c.unacked[ref.ID] = ref
	if len(c.unacked) > maxUnacked {
		c.end(CloseSlow)
	}
}

// awaitAckRoom waits until the client has acknowledged so much that it can be given more, and reports false if the
// connection ends before: as it does when so much waits meanwhile that the queue is full.
func (c *conn) awaitAckRoom(ping <-chan time.Time) bool {
	for {
		select {
		case <-ping:
			c.ping()
		default:
		}
		c.ackMu.Lock()
		room := len(c.unacked) <= maxUnacked/2
		c.ackMu.Unlock()
		if room || c.closing.Err() != nil {
			return c.closing.Err() == nil
		}
		select {
		case <-c.ackRoom:
		case <-ping:
			c.ping()
		case <-c.closing.Done():
		}
	}
}

// cancelAck expects no acknowledgement of an answer any more.
func (c *conn) cancelAck(delivery string) {
	c.ackMu.Lock()
	defer c.ackMu.Unlock()
	delete(c.unacked, delivery)
	c.signalAckRoom()
}

// signalAckRoom wakes [conn.awaitAckRoom].
func (c *conn) signalAckRoom() {
	select {
	case c.ackRoom <- struct{}{}:
	default:
	}
}

// acknowledge settles what the client says it has. Ids of what it was not given are ignored. It runs in the reader, so that a
// client is read no faster than its words can be recorded.
func (c *conn) acknowledge(ctx context.Context, ids []string) {
	var refs []delivery.Ref
	c.ackMu.Lock()
	for _, id := range ids {
		if ref, ok := c.unacked[id]; ok {
			refs = append(refs, ref)
			delete(c.unacked, id)
		}
	}
	c.ackMu.Unlock()
	c.signalAckRoom()
	c.recordDelivered(ctx, refs, outcomeDelivered)
}
