package eventsub

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are of one instance, in its own registry.
type metrics struct {
	sessions      prometheus.Gauge
	subscriptions *prometheus.GaugeVec   // by type
	refused       *prometheus.CounterVec // by type and reason
	notifications *prometheus.CounterVec // by result: taken, repeated, stale, unknown, invalid
	revoked       *prometheus.CounterVec // by type and status
	disconnects   *prometheus.CounterVec // by cause
	moves         *prometheus.CounterVec // by result: moved, failed
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	var errs []error
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "parley", Subsystem: "twitch_eventsub", Name: name, Help: help}, labels)
		errs = append(errs, reg.Register(c))
		return c
	}
	m := &metrics{
		sessions: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "parley", Subsystem: "twitch_eventsub", Name: "sessions",
			Help: "Sessions that are open at Twitch's EventSub."}),
		subscriptions: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "parley", Subsystem: "twitch_eventsub", Name: "subscriptions",
			Help: "What is subscribed to in these sessions, by type."}, []string{"type"}),
		refused:       counter("refused_total", "Subscriptions that could not be made, by type and reason. The log says what to do.", "type", "reason"),
		notifications: counter("notifications_total", "What Twitch told, by what became of it.", "result"),
		revoked:       counter("revoked_total", "Subscriptions that Twitch took back, by type and status.", "type", "status"),
		disconnects:   counter("disconnects_total", "Connections that ended, or could not be made, by cause: Twitch's close code, silent or broken.", "cause"),
		moves:         counter("moves_total", "Sessions that Twitch asked to move to another server, by result.", "result"),
	}
	errs = append(errs, reg.Register(m.sessions), reg.Register(m.subscriptions))
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}
