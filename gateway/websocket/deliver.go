package websocket

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	gorilla "github.com/gorilla/websocket"
	"github.com/maypok86/otter/v2"

	"parley.internal/shared/bus"
	"parley.internal/shared/delivery"
	"parley.internal/shared/topology"
)

const (
	// writeWait bounds how long Deliver waits for the network to take a frame. The bus's acknowledgement deadline is
	// prolonged meanwhile; a longer wait would only hold back the user's next messages.
	writeWait = 5 * time.Second
	// settleWait bounds the recording of an outcome.
	settleWait = 5 * time.Second
	// maxSettling is how many answers may be written and not yet recorded. More wait to be recorded before the next of
	// the same user is written.
	maxSettling = 1000
	// maxSeen is how many connection ids the memory of deliveries may hold together, 8 bytes each.
	maxSeen = 2 << 20
)

// receipts is what this instance did for one answer. It is kept as long as the bus may deliver the answer again.
type receipts struct {
	mu      sync.Mutex // held while one message of this delivery is handled
	settled bool
	had     []uint64 // ids of the connections whose queue took the frame
	plain   receipt  // of those that don't acknowledge
	acking  receipt  // of those that do
}

func newSeen() (*otter.Cache[string, *receipts], error) {
	return otter.New(&otter.Options[string, *receipts]{
		MaximumWeight:    maxSeen,
		Weigher:          func(_ string, d *receipts) uint32 { return uint32(32 + len(d.had)) },
		ExpiryCalculator: otter.ExpiryWriting[string, *receipts](topology.Gateway("x").Retention()),
	})
}

// Deliver writes an answer from the egress topic to every connection of its user here or, if it names none, of its
// room, and then records in the ledger that it was delivered. The message counts as handled when nothing is left to do:
// the outcome is recorded, which need not be before Deliver returns ([bus.Incoming.Later]), or nobody here is concerned,
// in which case the ledger is not touched.
//
// Delivered means that the network took the frame for a connection that doesn't acknowledge, whoever else has it; where
// only connections that acknowledge took it, it is delivered when one of them says that it has it. After an error the
// same answer is to be handed over again: it is then not written again to a connection that had it, and settled if it was not.
func (s *Server) Deliver(ctx context.Context, in bus.Incoming) error {
	ref, err := delivery.ParseRef(in)
	if err != nil {
		s.metrics.deliveries.WithLabelValues(outcomeFailed).Inc()
		return err
	}
	d, outcome, err := s.hand(ctx, in, ref)
	if outcome != outcomeDelivered {
		s.metrics.deliveries.WithLabelValues(outcome).Inc()
		if d != nil {
			d.mu.Unlock()
		}
		return err
	}
	record := func() error {
		defer d.mu.Unlock()
		outcome, err := s.record(context.WithoutCancel(ctx), d, ref, in.Event.CorrelationID)
		s.metrics.deliveries.WithLabelValues(outcome).Inc()
		return err
	}
	select {
	case s.settling <- struct{}{}:
		if finish, ok := in.SettleLater(); ok {
			go func() { // ends with settleWait; the bus waits for it when it stops receiving
				defer func() { <-s.settling }()
				finish(record())
			}()
			return nil
		}
		<-s.settling
	default:
	}
	return record()
}

// hand writes an answer to those whom it concerns here. The outcome is outcomeDelivered if that is to be recorded. The
// delivery, if it is not nil, is locked.
func (s *Server) hand(ctx context.Context, in bus.Incoming, ref delivery.Ref) (d *receipts, outcome string, err error) {
	e := in.Event
	conns := s.hub.receivers(nil, e.UserID, e.Channel)
	// an operator who redrives an answer wants it to be written anew
	key := fmt.Sprintf("%s/%d", ref.ID, ref.RedriveCount)
	d, known := s.seen.GetIfPresent(key)
	// the sweep gives it up: what is written now could not be recorded
	overdue := !ref.Deadline.IsZero() && s.now().After(ref.Deadline)
	if !known {
		if len(conns) == 0 {
			return nil, outcomeAbsent, nil
		}
		if overdue {
			return nil, outcomeOverdue, nil
		}
		d, _ = s.seen.SetIfAbsent(key, &receipts{})
	}
	d.mu.Lock()
	if d.settled {
		return d, outcomeRepeated, nil
	}
	if overdue {
		conns = nil // those that had it in time had it; it goes to no others
	}
	if err := s.fanOut(d, in, ref, conns); err != nil {
		return d, outcomeFailed, err
	}
	s.seen.Set(key, d) // weighs it

	waiting, cancel := context.WithTimeout(ctx, writeWait)
	written, err := d.plain.wait(waiting)
	awaited := false
	if err == nil && !written {
		awaited, err = d.acking.wait(waiting)
	}
	cancel()
	if err != nil && overdue && s.now().Sub(ref.Deadline) > s.config.WriteTimeout {
		return d, outcomeOverdue, nil // what is being written began in time; by now that is over
	}
	if err != nil {
		return d, outcomeFailed, fmt.Errorf("delivery %s: no connection took it yet: %w", ref.ID, err)
	}
	switch {
	case written:
		return d, outcomeDelivered, nil
	case awaited:
		return d, outcomeAwaited, nil
	}
	return d, outcomeLost, nil // as if they had gone before: another instance may hold the user now
}

// record settles an answer that was written.
func (s *Server) record(ctx context.Context, d *receipts, ref delivery.Ref, correlationID string) (outcome string, err error) {
	settling, cancel := context.WithTimeout(ctx, settleWait)
	defer cancel()
	state, err := s.ledger.MarkDelivered(settling, ref)
	switch {
	case errors.Is(err, delivery.ErrNotFound):
		// its entry is older than the ledger keeps any: there is nowhere to record it, and trying again changes nothing
		s.log.WarnContext(ctx, "delivered, but the ledger has no entry", "delivery", ref.ID, "correlationId", correlationID)
	case err != nil:
		return outcomeFailed, err
	}
	d.settled = true
	if state == delivery.Dead {
		s.log.WarnContext(ctx, "delivered after it had been given up", "delivery", ref.ID, "correlationId", correlationID)
		return outcomeLate, nil
	}
	return outcomeDelivered, nil
}

// fanOut queues the frame for the connections that have not had it. It is encoded once.
func (s *Server) fanOut(d *receipts, in bus.Incoming, ref delivery.Ref, conns []*conn) error {
	if len(d.had) > 0 {
		conns = slices.DeleteFunc(conns, func(c *conn) bool { return slices.Contains(d.had, c.id) })
	}
	if len(conns) == 0 {
		return nil
	}
	f, err := prepare(answerFrame(in.Event, ref.ID, opened(in)), "answer")
	if err != nil {
		return err
	}
	f.delivery, f.attempt, f.deadline = ref.ID, ref.RedriveCount, ref.Deadline
	if in.Event.UserID != "" { // what a whole room gets is not looked for when somebody connects
		f.opened = ref.Opened()
	}
	var plain, acking []*conn
	for _, c := range conns {
		if c.acks {
			c.awaitAck(ref)
			acking = append(acking, c)
		} else {
			plain = append(plain, c)
		}
	}
	d.plain.expect(len(plain))
	d.acking.expect(len(acking))
	f.receipt = &d.plain
	d.had = broadcast(f, plain, d.had)
	f.receipt = &d.acking
	d.had = broadcast(f, acking, d.had)
	return nil
}

// opened is when an answer's entry in the ledger was opened, which is the same on every resend.
func opened(in bus.Incoming) time.Time {
	if at, err := time.Parse(time.RFC3339Nano, in.Attributes[delivery.AttrVersion]); err == nil {
		return at
	}
	return in.Published
}

// broadcast queues a frame for many connections, and appends the ids of those that took it to had. The receipt is
// resolved for those that didn't.
func broadcast(f frame, conns []*conn, had []uint64) []uint64 {
	had = slices.Grow(had, len(conns))
	for _, c := range conns {
		if c.push(f) {
			had = append(had, c.id)
		} else {
			f.receipt.resolve(false)
		}
	}
	return had
}

// prepare encodes a frame. What is encoded is framed once, too, and then only copied to the connections.
func prepare(o outbound, kind string) (frame, error) {
	data, err := o.encode()
	if err != nil {
		return frame{}, err
	}
	prepared, err := gorilla.NewPreparedMessage(gorilla.TextMessage, data)
	if err != nil {
		return frame{}, fmt.Errorf("encode a %s frame: %w", o.Type, err)
	}
	return frame{prepared: prepared, size: len(data), kind: kind}, nil
}
