package soak

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"cloud.google.com/go/firestore"
	pubsubclient "cloud.google.com/go/pubsub/v2"

	firestoreserver "parley.internal/emulator/firestore"
	pubsubserver "parley.internal/emulator/pubsub"
	"parley.internal/shared/retry"
	"parley.internal/shared/topology"
)

// harness holds the running system of a soak: servers, network, functions, gateways, and the record of the faults.
type harness struct {
	Common
	pace     Pace
	began    time.Time
	injector *injector
	network  *network
	schedule *schedule

	pubsub *pubsubserver.Server
	store  *firestoreserver.Server
	client *firestore.Client    // exempt from faults
	bus    *pubsubclient.Client // exempt from faults

	gateways  []*gatewaySlot
	functions []*functionSlot

	asked, answered atomic.Int64 // questions

	mu       sync.Mutex // guards the fields below
	phase    string
	faults   []madeFault
	killed   map[string]bool // gateway instances ended by SIGKILL
	failures []string        // problems found during the run, beside the audit's findings
}

// madeFault records an injected fault.
type madeFault struct {
	fault
	target       string // name of the gateway or function, or empty
	began, ended time.Time
}

// newHarness makes a harness. Nothing runs yet.
func newHarness(c Common, pace Pace, kinds []Kind) *harness {
	return &harness{
		Common: c, pace: pace, began: time.Now(), injector: newInjector(), network: &network{},
		schedule: newSchedule(c.Seed, pace, kinds), killed: map[string]bool{},
	}
}

// close ends every process, link, client and server.
func (h *harness) close() error {
	for _, p := range h.processes() {
		p.kill()
	}
	h.network.close()
	var errs []error
	if h.bus != nil {
		errs = append(errs, h.bus.Close())
	}
	if h.client != nil {
		errs = append(errs, h.client.Close())
	}
	if h.pubsub != nil {
		errs = append(errs, h.pubsub.Close())
	}
	if h.store != nil {
		errs = append(errs, h.store.Close())
	}
	return errors.Join(errs...)
}

// setPhase starts a phase and reports the progress.
func (h *harness) setPhase(phase string) {
	h.mu.Lock()
	h.phase = phase
	h.mu.Unlock()
	h.reportProgress()
}

// reportProgress calls the Progress function, if there is a function.
func (h *harness) reportProgress() {
	if h.Progress == nil {
		return
	}
	h.mu.Lock()
	p := Progress{Phase: h.phase, Asked: int(h.asked.Load()), Answered: int(h.answered.Load()), Faults: len(h.faults)}
	h.mu.Unlock()
	h.Progress(p)
}

// fail records a problem. Every problem becomes a violation in the report.
func (h *harness) fail(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failures = append(h.failures, fmt.Sprintf(format, args...))
}

// publishSweeps publishes the ticks of the ledger sweep until ctx ends. In the cloud, Cloud Scheduler publishes the ticks.
func (h *harness) publishSweeps(ctx context.Context) {
	p := h.bus.Publisher(topology.Prefix{}.Topic(project, topology.Sweep).String())
	defer p.Stop()
	for retry.Sleep(ctx, h.pace.Sweep) == nil {
		if _, err := p.Publish(ctx, &pubsubclient.Message{Data: []byte("{}")}).Get(ctx); err != nil && ctx.Err() == nil {
			h.fail("publish a sweep tick: %v", err)
		}
		h.reportProgress()
	}
}

// watchProcesses records every part that ends without being told, until ctx ends.
func (h *harness) watchProcesses(ctx context.Context) {
	seen := map[*process]bool{}
	for retry.Sleep(ctx, 100*time.Millisecond) == nil {
		for _, p := range h.processes() {
			select {
			case <-p.done:
				if !p.ended.Load() && !seen[p] {
					seen[p] = true
					h.fail("%s ended unexpectedly: %s; %s", p.name, p.cmd.ProcessState, p.logTail())
				}
			default:
			}
		}
	}
}

// summary returns the report of the harness: faults, gateways and recorded failures.
func (h *harness) summary() Summary {
	s := Summary{Seed: h.Seed, Elapsed: time.Since(h.began), Faults: map[Kind]int{}}
	for _, slot := range h.gateways {
		slot.mu.Lock()
		s.Gateways += slot.started
		slot.mu.Unlock()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.faults {
		s.Faults[f.kind]++
	}
	for _, what := range h.failures {
		s.Violations = append(s.Violations, Violation{What: what})
	}
	return s
}

// at formats a time as seconds since the beginning of the soak.
func (h *harness) at(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return fmt.Sprintf("%.3fs", t.Sub(h.began).Seconds())
}

// margin extends a time range when [harness.faultsBetween] looks for related faults.
const margin = 5 * time.Second

// faultsBetween describes the faults that overlap a time range, with a margin on both sides.
func (h *harness) faultsBetween(from, until time.Time) (lines []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.faults {
		if f.ended.After(from.Add(-margin)) && f.began.Before(until.Add(margin)) {
			lines = append(lines, fmt.Sprintf("fault: %s %s, from %s until %s", f.fault, f.target, h.at(f.began), h.at(f.ended)))
		}
	}
	return lines
}

// faultCount returns the number of faults injected so far.
func (h *harness) faultCount() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.faults)
}

// wasKilled reports whether a gateway instance was ended by SIGKILL.
func (h *harness) wasKilled(instance string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.killed[instance]
}

// processes returns the current process of every slot.
func (h *harness) processes() (all []*process) {
	for _, s := range h.gateways {
		all = append(all, s.current().proc)
	}
	for _, f := range h.functions {
		all = append(all, f.current())
	}
	return slices.DeleteFunc(all, func(p *process) bool { return p == nil })
}
