package websocket

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// The outcomes of an egress event at one instance, as the metric parley_gateway_deliveries_total names them.
const (
	outcomeDelivered = "delivered" // written to at least one connection, and settled
	outcomeRepeated  = "repeated"  // had been written and settled before
	outcomeAbsent    = "absent"    // no connection of the recipient here
	outcomeLost      = "lost"      // every connection broke before the frame was written
	outcomeLate      = "late"      // written, but the ledger had given it up before
	outcomeAwaited   = "awaited"   // written to clients that acknowledge by themselves, and not acknowledged yet
	outcomeOverdue   = "overdue"   // its deadline had passed: not written
	outcomeResumed   = "resumed"   // written to a client that connected later, and settled
	outcomeFailed    = "failed"    // will be delivered again
)

// metrics are of one instance, in its own registry.
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
		framesIn:   counter("frames_in_total", "Frames taken from clients, by kind.", "kind"),
		framesOut:  counter("frames_out_total", "Frames written to clients, by kind.", "kind"),
		refused:    counter("frames_refused_total", "Frames answered by chat.error, by code.", "code"),
		closed:     counter("connections_closed_total", "Connections closed, by close code; 0 where the client ended it.", "code"),
		auth:       counter("auth_total", "Attempts to connect, by result.", "result"),
		deliveries: counter("deliveries_total", "Egress events seen, by outcome at this instance.", "outcome"),
		published:  counter("publishes_total", "Client messages published, by result.", "result"),
		overflows: prometheus.NewCounter(prometheus.CounterOpts{Namespace: "parley", Subsystem: "gateway", Name: "queue_overflows_total",
			Help: "Frames that a connection's full queue could not take; the connection is closed."}),
		publishTime: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "parley", Subsystem: "gateway", Name: "publish_seconds",
			Help: "Time until a client's message was stored on the bus.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 15)}),
	}
	errs = append(errs, reg.Register(m.overflows), reg.Register(m.publishTime))
	gauge("connections", "Connections held.", func() int { n, _ := h.counts(); return n })
	gauge("rooms", "Rooms with a member here.", func() int { _, n := h.counts(); return n })
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}

// kindLabel keeps the number of label values small: a client may send any type.
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
