package websocket

import (
	"context"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"parley.internal/shared/delivery"
)

// maxUnacked is the maximum number of unacknowledged answers of a connection with acknowledgements.
const maxUnacked = 1000

// wantsAcks reads the parameter ack. The values 1 and true ask for acknowledgements. For any other value, ok is false, so
// that the client notices its mistake.
func wantsAcks(r *http.Request) (acks, ok bool) {
	values := r.URL.Query()["ack"]
	return len(values) > 0, !slices.ContainsFunc(values, func(v string) bool { return v != "1" && v != "true" })
}

// expectAck stores an answer until the client acknowledges it. Too many unacknowledged answers close the connection.
func (c *conn) expectAck(ref delivery.Ref) {
	c.ackMu.Lock()
	defer c.ackMu.Unlock()
	c.unacked[ref.ID] = ref
	if len(c.unacked) > maxUnacked {
		c.end(CloseSlow)
	}
}

// awaitAckRoom waits until the number of unacknowledged answers is at most half of maxUnacked. It reports false if the
// connection ends first, for example because the queue is full.
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

// cancelAck removes an answer from the unacknowledged answers.
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

// acknowledge records the acknowledged answers as delivered. It ignores unknown ids. It runs in the reader, so the gateway
// reads acknowledgements no faster than the ledger records them.
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

// recordDelivered records answers as delivered. After an error, the connection is closed with [CloseNotRecorded]: the
// client reconnects and names the received answers, so they are recorded then. Otherwise a received answer would become a
// dead letter.
func (c *conn) recordDelivered(ctx context.Context, refs []delivery.Ref, as string) {
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(maxRecording)
	for _, ref := range refs {
		g.Go(func() error {
			outcome := as
			if _, err := c.server.ledger.MarkDelivered(ctx, ref); err != nil {
				c.log.ErrorContext(ctx, "recording a delivery failed", "error", err, "delivery", ref.ID)
				outcome = outcomeFailed
				c.end(CloseNotRecorded)
			}
			c.server.metrics.deliveries.WithLabelValues(outcome).Inc()
			return nil
		})
	}
	g.Wait() // no call returns an error
}
