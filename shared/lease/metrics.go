package lease

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the metrics of one manager.
type metrics struct {
	held       prometheus.Gauge
	taken      prometheus.Counter
	lost       prometheus.Counter
	heartbeats *prometheus.CounterVec // by result
	writes     *prometheus.CounterVec // all writes except heartbeats, by purpose
}

func newMetrics(kind string, reg prometheus.Registerer, moving func() int) (*metrics, error) {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "parley", Subsystem: "lease", Name: name, Help: help, ConstLabels: prometheus.Labels{"kind": kind}}
	}
	m := &metrics{
		held:       prometheus.NewGauge(prometheus.GaugeOpts(opts("held", "Leases owned by this instance."))),
		taken:      prometheus.NewCounter(prometheus.CounterOpts(opts("taken_total", "Leases claimed by this instance."))),
		lost:       prometheus.NewCounter(prometheus.CounterOpts(opts("sessions_lost_total", "Sessions lost by this instance, each with all its leases."))),
		heartbeats: prometheus.NewCounterVec(prometheus.CounterOpts(opts("beats_total", "Heartbeats written, by result.")), []string{"result"}),
		writes:     prometheus.NewCounterVec(prometheus.CounterOpts(opts("writes_total", "Writes except heartbeats, by purpose.")), []string{"purpose"}),
	}
	inMotion := prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("moving", "Leases in transition: assigned but not yet owned, or owned but assigned elsewhere.")), func() float64 { return float64(moving()) })
	if err := errors.Join(reg.Register(inMotion), reg.Register(m.held), reg.Register(m.taken), reg.Register(m.lost), reg.Register(m.heartbeats), reg.Register(m.writes)); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}
