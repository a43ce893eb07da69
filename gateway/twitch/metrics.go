package twitch

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are of one instance, in its own registry.
type metrics struct {
	connected   prometheus.Gauge
	disconnects prometheus.Counter
	rejoins     prometheus.Counter
	received    *prometheus.CounterVec // by result: published, ignored, repeated, fenced, invalid, lost
	answers     *prometheus.CounterVec // by outcome
	actions     *prometheus.CounterVec // by outcome
	gaps        prometheus.Counter
	gapSeconds  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	var errs []error
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "parley", Subsystem: "twitch", Name: name, Help: help})
		errs = append(errs, reg.Register(c))
		return c
	}
	vector := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "parley", Subsystem: "twitch", Name: name, Help: help}, labels)
		errs = append(errs, reg.Register(c))
		return c
	}
	m := &metrics{
		connected: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "parley", Subsystem: "twitch", Name: "connected",
			Help: "1 while there is a connection to Twitch's chat."}),
		disconnects: counter("disconnects_total", "Connections to Twitch's chat that ended, or could not be made."),
		rejoins:     counter("rejoins_total", "JOINs that were sent again because Twitch did not answer."),
		received:    vector("heard_total", "What was heard in channels and in whispers, by chat and by EventSub, by what became of it.", "result"),
		answers:     vector("answers_total", "Answers to channels of this instance, by outcome of each attempt.", "outcome"),
		actions:     vector("actions_total", "Moderators' actions in channels of this instance, by outcome of each attempt.", "outcome"),
		gaps:        counter("gaps_total", "Times in which nobody listened in a channel, to its chat or by EventSub, or to whispers, that this instance then listened to."),
		gapSeconds:  counter("gap_seconds_total", "How long these were."),
	}
	errs = append(errs, reg.Register(m.connected))
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}
