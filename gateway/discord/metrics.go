package discord

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the metrics of one instance, in the instance's own registry.
type metrics struct {
	connected   prometheus.Gauge
	disconnects *prometheus.CounterVec // by cause
	sessions    *prometheus.CounterVec // by kind: new, resumed
	ingested    *prometheus.CounterVec // by result: published, ignored, invalid, repeated, deferred, lost
	backfilled  *prometheus.CounterVec // by result: read, unreadable, failed
	answers     *prometheus.CounterVec // by outcome
	actions     *prometheus.CounterVec // by outcome
	resent      prometheus.Counter
	gaps        prometheus.Counter
	gapSeconds  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	var errs []error
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "parley", Subsystem: "discord", Name: name, Help: help})
		errs = append(errs, reg.Register(c))
		return c
	}
	vector := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "parley", Subsystem: "discord", Name: name, Help: help}, labels)
		errs = append(errs, reg.Register(c))
		return c
	}
	m := &metrics{
		connected: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "parley", Subsystem: "discord", Name: "connected",
			Help: "1 while this instance is connected to Discord's gateway, otherwise 0."}),
		disconnects: vector("disconnects_total", "Disconnects from Discord's gateway and failed connection attempts, by cause.", "cause"),
		sessions:    vector("sessions_total", "Established connections to Discord's gateway, by kind of session (new or resumed).", "kind"),
		ingested:    vector("heard_total", "Items received from Discord, by result.", "result"),
		backfilled:  vector("backfills_total", "Backfills of channels, by result.", "result"),
		answers:     vector("answers_total", "Attempts to send an answer, by outcome.", "outcome"),
		actions:     vector("actions_total", "Attempts to execute a moderation command, by outcome.", "outcome"),
		resent:      counter("resent_total", "Requests to send a message without a clear response from Discord; the message is sent again."),
		gaps:        counter("gaps_total", "Gaps: times with missed messages beyond the backfill limits."),
		gapSeconds:  counter("gap_seconds_total", "Total length of the gaps in seconds."),
	}
	errs = append(errs, reg.Register(m.connected))
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}
