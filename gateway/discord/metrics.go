package discord

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are of one instance, in its own registry.
type metrics struct {
	connected   prometheus.Gauge
	disconnects *prometheus.CounterVec // by cause
	sessions    *prometheus.CounterVec // by how they began: new, resumed
	heard       *prometheus.CounterVec // by result: published, ignored, invalid, repeated, deferred, lost
	backfilled  *prometheus.CounterVec // channels, by result: read, unreadable, failed
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
			Help: "1 while this instance has a session with Discord's gateway."}),
		disconnects: vector("disconnects_total", "Connections to Discord's gateway that ended, or could not be made.", "cause"),
		sessions:    vector("sessions_total", "Connections to Discord's gateway that were made, by whether the session was new.", "kind"),
		heard:       vector("heard_total", "What Discord told of channels, by what became of it.", "result"),
		backfilled:  vector("backfills_total", "Channels that were read for what had been missed, by result.", "result"),
		answers:     vector("answers_total", "Answers for Discord, by outcome of each attempt.", "outcome"),
		actions:     vector("actions_total", "Moderators' actions, by outcome of each attempt.", "outcome"),
		resent:      counter("resent_total", "Messages that were sent again because Discord did not say whether it had taken them."),
		gaps:        counter("gaps_total", "Times of which more was missed in a channel than is read afterwards."),
		gapSeconds:  counter("gap_seconds_total", "How long these were."),
	}
	errs = append(errs, reg.Register(m.connected))
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}
