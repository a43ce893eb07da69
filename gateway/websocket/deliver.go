package websocket

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	gorilla "github.com/gorilla/websocket"

	"parley.internal/shared/bus"
	"parley.internal/shared/delivery"
)

const (
	// deliverTimeout is Deliver's timeout for writing a frame to the network. The bus extends the acknowledgement deadline
	// meanwhile. A longer wait would only delay the user's next messages.
	deliverTimeout = 5 * time.Second
	// recordTimeout is the timeout for recording an outcome in the ledger.
	recordTimeout = 5 * time.Second
	// maxRecordingLater is the maximum number of answers written but not yet recorded. Above the limit, Deliver records an
	// answer before the user's next answer is written.
	maxRecordingLater = 1000
)

// localDelivery is the state of an unsettled answer at this instance.
type localDelivery struct {
	key       deliveryKey
	mu        sync.Mutex // held while a message of the delivery is dispatched or recorded
	removed   bool       // no longer in recentDeliveries
	queuedFor []uint64   // ids of the connections that have accepted the frame into their queue
	plain     receipt    // connections without acknowledgements
	acking    receipt    // connections with acknowledgements

	until  time.Time // the bus does not deliver the answer again after this time
	weight int       // guarded by recentDeliveries.mu
}

// Deliver writes an answer from the egress topic to every local connection of the user, or of the room for an answer
// without a user. Then Deliver records the delivery in the ledger, possibly after returning ([bus.Incoming.SettleLater]).
// Without a local connection, Deliver returns nil and does not touch the ledger.
//
// For connections without acknowledgements, an answer counts as delivered as soon as one of them has written it to the
// network. If only connections with acknowledgements got the answer, it counts as delivered after the first
// acknowledgement.
//
// After an error, the caller must pass the same answer again. Deliver then does not write the answer a second time to the
// same connection, and records the delivery if it is not recorded yet.
func (s *Server) Deliver(ctx context.Context, in bus.Incoming) error {
	ref, err := delivery.ParseRef(in)
	if err != nil {
		s.metrics.deliveries.WithLabelValues(outcomeFailed).Inc()
		return err
	}
	d, outcome, err := s.dispatch(ctx, in, ref)
	if outcome != outcomeDelivered && outcome != outcomeAwaited {
		s.metrics.deliveries.WithLabelValues(outcome).Inc()
		return err
	}
	if _, decided, _ := d.plain.result(); outcome == outcomeAwaited && decided {
		s.metrics.deliveries.WithLabelValues(outcome).Inc()
		s.recent.settle(d)
		return nil // the acknowledgement records the answer
	}
	record := func(wait time.Duration) error {
		outcome, err := s.record(context.WithoutCancel(ctx), d, ref, in.Event.CorrelationID, wait)
		s.metrics.deliveries.WithLabelValues(outcome).Inc()
		return err
	}
	select {
	case s.recordingLater <- struct{}{}:
		if finish, ok := in.SettleLater(); ok {
			// A frame is not written after the deadline, so that the wait ends with the last write before.
			wait := max(deliverTimeout, ref.Deadline.Sub(s.now())+s.config.WriteTimeout+time.Second)
			go func() { // ends with wait and recordTimeout; the bus waits for finish when receiving stops
				defer func() { <-s.recordingLater }()
				finish(record(wait))
			}()
			return nil
		}
		<-s.recordingLater
	default:
	}
	return record(deliverTimeout)
}

// dispatch writes an answer to the local connections of its recipients, and waits for the first write. After
// outcomeDelivered, the caller records the delivery. After outcomeAwaited, a connection with acknowledgements has the
// answer; connections without acknowledgements may still write it. d may be nil for any other outcome.
func (s *Server) dispatch(ctx context.Context, in bus.Incoming, ref delivery.Ref) (d *localDelivery, outcome string, err error) {
	e := in.Event
	conns := s.hub.receivers(nil, e.UserID, e.Channel)
	// the sweep dead-letters an overdue answer: the delivery could not be recorded any more
	overdue := !ref.Deadline.IsZero() && s.now().After(ref.Deadline)
	d, handled, err := s.recent.acquire(keyOf(ref), len(conns) > 0 && !overdue)
	switch {
	case err != nil:
		return nil, outcomeFailed, fmt.Errorf("delivery %s: %w", ref.ID, err)
	case handled:
		return nil, outcomeRepeated, nil
	case d == nil && len(conns) == 0:
		return nil, outcomeAbsent, nil
	case d == nil:
		return nil, outcomeOverdue, nil
	}
	defer func() { s.recent.release(d, outcome) }()
	if overdue {
		conns = nil // no new connections, but the results of earlier writes count
	}
	if err := s.fanOut(d, in, ref, conns); err != nil {
		return d, outcomeFailed, err
	}
	s.recent.weigh(d)

	waiting, cancel := context.WithTimeout(ctx, deliverTimeout)
	defer cancel()
	outcome, err = d.await(waiting)
	if err != nil && s.longOverdue(ref) {
		return d, outcomeOverdue, nil
	}
	if err != nil {
		return d, outcomeFailed, fmt.Errorf("delivery %s: no connection has written the frame yet: %w", ref.ID, err)
	}
	return d, outcome, nil
}

// longOverdue reports whether every write that started before the deadline has timed out by now.
func (s *Server) longOverdue(ref delivery.Ref) bool {
	return !ref.Deadline.IsZero() && s.now().Sub(ref.Deadline) > s.config.WriteTimeout
}

// await waits for the first write to any connection. A connection without acknowledgements that does not read must not
// delay connections with acknowledgements, and the reverse. Without a write, the outcome is outcomeLost: as if the user had
// been absent, because the user may be at a different instance now. The only error is the context's.
func (d *localDelivery) await(ctx context.Context) (outcome string, err error) {
	for {
		written, plainDecided, plain := d.plain.result()
		awaited, ackingDecided, acking := d.acking.result()
		switch {
		case written:
			return outcomeDelivered, nil
		case awaited:
			return outcomeAwaited, nil
		case plainDecided && ackingDecided:
			return outcomeLost, nil
		}
		select {
		case <-plain:
		case <-acking:
		case <-ctx.Done():
			return outcomeFailed, ctx.Err()
		}
	}
}

// record records an answer as delivered when a connection without acknowledgements has written it. It waits at most wait
// for the write. Without a write, the outcome is outcomeAwaited.
func (s *Server) record(ctx context.Context, d *localDelivery, ref delivery.Ref, correlationID string, wait time.Duration) (outcome string, err error) {
	waiting, cancel := context.WithTimeout(ctx, wait)
	written, err := d.plain.await(waiting)
	cancel()
	switch {
	case err != nil && s.longOverdue(ref):
		s.recent.settle(d)
		return outcomeOverdue, nil
	case err != nil:
		return outcomeFailed, fmt.Errorf("delivery %s: a connection has not written the frame yet: %w", ref.ID, err)
	case !written:
		s.recent.settle(d)
		return outcomeAwaited, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.removed {
		return outcomeRepeated, nil // another message of the delivery was faster
	}
	settling, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	state, err := s.ledger.MarkDelivered(settling, ref)
	switch {
	case errors.Is(err, delivery.ErrNotFound):
		// the ledger has already deleted the entry; a retry would change nothing
		s.log.WarnContext(ctx, "delivered without a ledger entry", "delivery", ref.ID, "correlationId", correlationID)
	case err != nil:
		return outcomeFailed, err
	}
	s.recent.finish(d)
	if state == delivery.Dead {
		s.log.WarnContext(ctx, "delivered after dead-lettering", "delivery", ref.ID, "correlationId", correlationID)
		return outcomeLate, nil
	}
	return outcomeDelivered, nil
}

// fanOut encodes the frame once and queues it for the connections without it.
func (s *Server) fanOut(d *localDelivery, in bus.Incoming, ref delivery.Ref, conns []*conn) error {
	if len(d.queuedFor) > 0 {
		conns = slices.DeleteFunc(conns, func(c *conn) bool { return slices.Contains(d.queuedFor, c.id) })
	}
	if len(conns) == 0 {
		return nil
	}
	f, err := prepare(answerFrame(in.Event, ref.ID, opened(in)), "answer")
	if err != nil {
		return err
	}
	f.delivery, f.attempt, f.deadline = ref.ID, ref.RedriveCount, ref.Deadline
	if in.Event.UserID != "" { // resume does not read the answers of a room
		f.opened = ref.Opened()
	}
	var plain, acking []*conn
	for _, c := range conns {
		if c.acks {
			c.expectAck(ref)
			acking = append(acking, c)
		} else {
			plain = append(plain, c)
		}
	}
	d.plain.expect(len(plain))
	d.acking.expect(len(acking))
	f.receipt = &d.plain
	d.queuedFor = broadcast(f, plain, d.queuedFor)
	f.receipt = &d.acking
	d.queuedFor = broadcast(f, acking, d.queuedFor)
	return nil
}

// opened returns the creation time of an answer's ledger entry, the same on every resend.
func opened(in bus.Incoming) time.Time {
	if at, err := time.Parse(time.RFC3339Nano, in.Attributes[delivery.AttrVersion]); err == nil {
		return at
	}
	return in.Published
}

// broadcast queues a frame for many connections, and appends to queuedFor the ids of the connections that accepted it.
// For every other connection, it resolves the receipt as not written.
func broadcast(f frame, conns []*conn, queuedFor []uint64) []uint64 {
	queuedFor = slices.Grow(queuedFor, len(conns))
	for _, c := range conns {
		if c.push(f) {
			queuedFor = append(queuedFor, c.id)
		} else {
			f.receipt.resolve(false)
		}
	}
	return queuedFor
}

// prepare encodes a frame once, including the WebSocket framing. Connections only copy the bytes.
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
