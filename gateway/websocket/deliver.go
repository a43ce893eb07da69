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
	mu        sync.Mutex // held while a message of the delivery is handled
	removed   bool       // no longer in recentDeliveries
	queuedFor []uint64   // ids of the connections that have accepted the frame into their queue
	plain     receipt    // connections without acknowledgements
	acking    receipt    // connections with acknowledgements

	until  time.Time // the bus does not deliver the answer again after this time
	weight int       // guarded by recentDeliveries.mu
}

// Deliver writes an answer from the egress topic to every local connection of the user, or of the room for an answer
// without a user. Then Deliver records the delivery in the ledger, possibly after returning ([bus.Incoming.Later]).
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
	key := keyOf(ref)
	d, outcome, err := s.dispatch(ctx, in, ref, key)
	if outcome != outcomeDelivered {
		s.metrics.deliveries.WithLabelValues(outcome).Inc()
		if d != nil {
			s.recent.release(key, d, outcome)
		}
		return err
	}
	record := func() error {
		outcome, err := s.record(context.WithoutCancel(ctx), ref, in.Event.CorrelationID)
		s.recent.release(key, d, outcome)
		s.metrics.deliveries.WithLabelValues(outcome).Inc()
		return err
	}
	select {
	case s.recordingLater <- struct{}{}:
		if finish, ok := in.SettleLater(); ok {
			go func() { // ends with recordTimeout; the bus waits for finish when receiving stops
				defer func() { <-s.recordingLater }()
				finish(record())
			}()
			return nil
		}
		<-s.recordingLater
	default:
	}
	return record()
}

// dispatch writes an answer to the local connections of its recipients. After outcomeDelivered, the caller records the
// delivery. The caller must release d, unless nil.
func (s *Server) dispatch(ctx context.Context, in bus.Incoming, ref delivery.Ref, key deliveryKey) (d *localDelivery, outcome string, err error) {
	e := in.Event
	conns := s.hub.receivers(nil, e.UserID, e.Channel)
	// the sweep dead-letters an overdue answer: the delivery could not be recorded any more
	overdue := !ref.Deadline.IsZero() && s.now().After(ref.Deadline)
	d, handled, err := s.recent.acquire(key, len(conns) > 0 && !overdue)
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
	if overdue {
		conns = nil // no new connections, but the results of earlier writes count
	}
	if err := s.fanOut(d, in, ref, conns); err != nil {
		return d, outcomeFailed, err
	}
	s.recent.weigh(d)

	waiting, cancel := context.WithTimeout(ctx, deliverTimeout)
	written, err := d.plain.await(waiting)
	awaited := false
	if err == nil && !written {
		awaited, err = d.acking.await(waiting)
	}
	cancel()
	if err != nil && overdue && s.now().Sub(ref.Deadline) > s.config.WriteTimeout {
		return d, outcomeOverdue, nil // every write that started before the deadline has timed out by now
	}
	if err != nil {
		return d, outcomeFailed, fmt.Errorf("delivery %s: no connection has written the frame yet: %w", ref.ID, err)
	}
	switch {
	case written:
		return d, outcomeDelivered, nil
	case awaited:
		return d, outcomeAwaited, nil
	}
	return d, outcomeLost, nil // as if the user had been absent: the user may be at a different instance now
}

// record records a written answer as delivered.
func (s *Server) record(ctx context.Context, ref delivery.Ref, correlationID string) (outcome string, err error) {
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
