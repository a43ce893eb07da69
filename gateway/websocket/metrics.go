package websocket

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// The outcomes of an egress event at an instance: label values of the metric parley_gateway_deliveries_total.
const (
	outcomeDelivered = "delivered" // written to at least one connection, and recorded
	outcomeRepeated  = "repeated"  // already written and recorded before
	outcomeAbsent    = "absent"    // no connection of the recipient at this instance
	outcomeLost      = "lost"      // every connection ended before the write
	outcomeLate      = "late"      // written, but dead-lettered before
	outcomeAwaited   = "awaited"   // written to acknowledging clients, but not yet acknowledged
	outcomeOverdue   = "overdue"   // not written: the deadline had passed
	outcomeResumed   = "resumed"   // written when a client connected, and recorded
	outcomeFailed    = "failed"    // not delivered or not recorded; the bus, or the client's next connection, tries again
)

// metrics are the metrics of an instance, in a separate registry.
type metrics struct {
	framesIn    *prometheus.CounterVec // by kind: send, join, leave, other
	framesOut   *prometheus.CounterVec // by kind: answer, control, error
	refused     *prometheus.CounterVec // frames, by error code
	closed      *prometheus.CounterVec // connections, by close code
	auth        *prometheus.CounterVec // by result: ok, or the refusal's code
	deliveries  *prometheus.CounterVec // by outcome
	overflows   prometheus.Counter
	published   *prometheus.CounterVec // by result
	publishTime prometheus.Histogram
}

func newMetrics(h *hub, reg prometheus.Registerer) (*metrics, error) {
	var errs []error
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "parley", Subsystem: "gateway", Name: name, Help: help}, labels)
		errs = append(errs, reg.Register(c))
		return c
	}
	gauge := func(name, help string, read func() int) {
		errs = append(errs, reg.Register(prometheus.NewGaugeFunc(
			prometheus.GaugeOpts{Namespace: "parley", Subsystem: "gateway", Name: name, Help: help},
			func() float64 { return float64(read()) })))
	}
	m := &metrics{
		framesIn:   counter("frames_in_total", "Frames received from clients, by kind.", "kind"),
		framesOut:  counter("frames_out_total", "Frames written to clients, by kind.", "kind"),
		refused:    counter("frames_refused_total", "Frames refused with chat.error, by code.", "code"),
		closed:     counter("connections_closed_total", "Connections closed, by close code; 0 if the client closed the connection.", "code"),
		auth:       counter("auth_total", "Connection attempts, by result.", "result"),
		deliveries: counter("deliveries_total", "Egress events received, by outcome at this instance.", "outcome"),
		published:  counter("publishes_total", "Client messages published, by result.", "result"),
		overflows: prometheus.NewCounter(prometheus.CounterOpts{Namespace: "parley", Subsystem: "gateway", Name: "queue_overflows_total",
			Help: "Frames refused by a connection's full queue; each closes its connection."}),
		publishTime: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "parley", Subsystem: "gateway", Name: "publish_seconds",
			Help: "Time to publish a client's message.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 15)}),
	}
	errs = append(errs, reg.Register(m.overflows), reg.Register(m.publishTime))
	gauge("connections", "Open connections.", func() int { n, _ := h.counts(); return n })
	gauge("rooms", "Rooms with a member at this instance.", func() int { _, n := h.counts(); return n })
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}

// kindLabel limits the number of label values, because a client may send any type.
func kindLabel(kind string) string {
	switch kind {
	case TypeSend:
		return "send"
	case TypeJoin:
		return "join"
	case TypeLeave:
		return "leave"
	}
	return "other"
}

func (m *metrics) close(code CloseCode) { m.closed.WithLabelValues(strconv.Itoa(int(code))).Inc() }
