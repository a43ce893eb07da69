package twitch

import (
	"context"
	"errors"
	"hash/fnv"
	"sync"

	"parley.internal/shared/bus"
	"parley.internal/shared/event"
	"parley.internal/shared/retry"
	"parley.internal/shared/telemetry"
	"parley.internal/shared/topology"
)

// Publisher publishes events. [bus.Client] implements it.
type Publisher interface {
	Publish(ctx context.Context, t topology.Topic, out bus.Outgoing) error
}

const (
	// queueCount is the number of events published at a time. Events of one user in one channel use the same queue.
	queueCount = 32
	// queueSize is the number of events waiting in each queue. With a full queue, the instance reads nothing more from
	// Twitch. Twitch then ends the connection, and the loss is recorded as a gap.
	queueSize = 64
)

// ingestQueue publishes events, in order for each user in each channel.
type ingestQueue struct {
	service    *Service
	duplicates *duplicates
	queues     [queueCount]chan *event.Event
	stopped    context.Context // at its end, waiting events are lost
	wg         sync.WaitGroup
}

func newIngestQueue(ctx context.Context, s *Service) *ingestQueue {
	in := &ingestQueue{service: s, duplicates: newDuplicates(), stopped: ctx}
	for i := range in.queues {
		in.queues[i] = make(chan *event.Event, queueSize)
		in.wg.Go(func() { // ends with close
			for e := range in.queues[i] {
				in.publish(e)
			}
		})
	}
	return in
}

// add queues an event, and waits while the queue is full. A nil event is counted as ignored.
func (in *ingestQueue) add(e *event.Event) {
	if e == nil {
		in.service.metrics.received.WithLabelValues("ignored").Inc()
		return
	}
	if in.duplicates.seen(e) {
		in.service.metrics.received.WithLabelValues("repeated").Inc()
		return
	}
	h := fnv.New32a()
	h.Write([]byte(e.OrderingKey())) // never fails
	select {
	case in.queues[h.Sum32()%queueCount] <- e:
	case <-in.stopped.Done():
		in.service.metrics.received.WithLabelValues("lost").Inc()
	}
}

// publish retries until it succeeds or the instance ends, because Twitch does not repeat a message.
func (in *ingestQueue) publish(e *event.Event) {
	s := in.service
	ctx, traceID := telemetry.StartTrace(in.stopped)
	e.TraceID = traceID
	if e.Egress.Type == event.EgressDM {
		in.recordWriter(ctx, e)
	}
	for {
		err := s.publisher.Publish(ctx, topology.Ingress, bus.Outgoing{Event: e})
		switch {
		case err == nil:
			s.metrics.received.WithLabelValues("published").Inc()
			return
		case errors.Is(err, event.ErrInvalid):
			s.metrics.received.WithLabelValues("invalid").Inc()
			s.log.ErrorContext(ctx, "event is invalid", "error", err, "correlationId", e.CorrelationID)
			return
		case ctx.Err() != nil:
			s.metrics.received.WithLabelValues("lost").Inc()
			s.log.ErrorContext(ctx, "event lost at shutdown", "error", err, "correlationId", e.CorrelationID)
			return
		}
		s.log.WarnContext(ctx, "publishing an event failed; retrying", "error", err, "correlationId", e.CorrelationID)
		_ = retry.Sleep(ctx, s.timing.minBackoff) // the next attempt reports the end of ctx
	}
}

// close publishes the queued events. Nothing may be added afterwards.
func (in *ingestQueue) close() {
	for _, q := range in.queues {
		close(q)
	}
	in.wg.Wait()
}
