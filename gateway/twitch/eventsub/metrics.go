package eventsub

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics holds the metrics of one instance.
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
			Help: "Open sessions at Twitch's EventSub."}),
		subscriptions: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "parley", Subsystem: "twitch_eventsub", Name: "subscriptions",
			Help: "Subscriptions in these sessions, by type."}, []string{"type"}),
		refused:       counter("refused_total", "Refused subscriptions, by type and reason. The log has the remedy.", "type", "reason"),
		notifications: counter("notifications_total", "Notifications from Twitch, by result.", "result"),
		revoked:       counter("revoked_total", "Subscriptions revoked by Twitch, by type and status.", "type", "status"),
		disconnects:   counter("disconnects_total", "Lost and failed connections, by cause: Twitch's close code, silent or broken.", "cause"),
		moves:         counter("moves_total", "Moves to another server at Twitch's request, by result.", "result"),
	}
	errs = append(errs, reg.Register(m.sessions), reg.Register(m.subscriptions))
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}
