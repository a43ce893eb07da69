package twitch

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics holds the metrics of one instance.
type metrics struct {
	connected   prometheus.Gauge
	disconnects prometheus.Counter
	rejoins     prometheus.Counter
	received    *prometheus.CounterVec // by result: published, ignored, repeated, fenced, invalid, lost
	answers     *prometheus.CounterVec // by outcome
	malformed   *prometheus.CounterVec // by result: repaired, dropped
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
			Help: "1 while connected to Twitch's chat."}),
		disconnects: counter("disconnects_total", "Lost and failed connections to Twitch's chat."),
		rejoins:     counter("rejoins_total", "JOINs repeated for want of an answer."),
		received:    vector("heard_total", "Messages and events received from the chat and EventSub, by result.", "result"),
		answers:     vector("answers_total", "Attempts to send an answer, by outcome.", "outcome"),
		malformed:   vector("malformed_total", "Malformed lines from the chat, by result: repaired, or dropped.", "result"),
		actions:     vector("actions_total", "Attempts to execute a moderation command, by outcome.", "outcome"),
		gaps:        counter("gaps_total", "Gaps in reading the chat, EventSub or whispers, recorded by this instance."),
		gapSeconds:  counter("gap_seconds_total", "Total length of the gaps."),
	}
	errs = append(errs, reg.Register(m.connected))
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}
