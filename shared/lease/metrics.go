package lease

import (
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are of one manager.
type metrics struct {
	held   prometheus.Gauge
	taken  prometheus.Counter
	lost   prometheus.Counter
	beats  *prometheus.CounterVec // by result
	writes *prometheus.CounterVec // beside beats, by what for
}

func newMetrics(kind string, reg prometheus.Registerer, moving func() int) (*metrics, error) {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "parley", Subsystem: "lease", Name: name, Help: help, ConstLabels: prometheus.Labels{"kind": kind}}
	}
	m := &metrics{
		held:   prometheus.NewGauge(prometheus.GaugeOpts(opts("held", "Leases that this instance has."))),
		taken:  prometheus.NewCounter(prometheus.CounterOpts(opts("taken_total", "Leases that this instance took."))),
		lost:   prometheus.NewCounter(prometheus.CounterOpts(opts("sessions_lost_total", "How often this instance lost all its leases."))),
		beats:  prometheus.NewCounterVec(prometheus.CounterOpts(opts("beats_total", "Writes that keep the leases, by result.")), []string{"result"}),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts(opts("writes_total", "Writes other than beats, by purpose.")), []string{"purpose"}),
	}
	inMotion := prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("moving", "Leases that this instance is to have and has not, or is giving up.")), func() float64 { return float64(moving()) })
	if err := errors.Join(reg.Register(inMotion), reg.Register(m.held), reg.Register(m.taken), reg.Register(m.lost), reg.Register(m.beats), reg.Register(m.writes)); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}

// token is a text that nobody else has.
func token() string { return rand.Text() }
