// Package dlq is the Cloud Function for dead letters, overdue deliveries and notices. Start with [Function]. The function
// reads three topics:
//
//   - internal.deadletter.v1 has every message dead-lettered by a part of Parley or by Pub/Sub. The function stores the
//     message once in Firestore, and logs one line "dead letter" of severity ERROR, the source of the metric of dead
//     letters.
//   - internal.sweep.v1 has a tick for each sweep of the ledger. A sweep also finishes interrupted redrives.
//   - internal.egress.v1 has the notices: answers published by other systems, without a ledger entry. The function opens
//     the entry and sends the notice.
package dlq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"parley.internal/shared/bus"
	"parley.internal/shared/config"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/digest"
	"parley.internal/shared/event"
	"parley.internal/shared/redrive"
	"parley.internal/shared/telemetry"
	"parley.internal/shared/topology"
	"parley.internal/shared/trigger"
)

// Step is the function's name.
const Step = "dlq"

func init() { trigger.Register(Step, build) }

// Config configures the function.
type Config struct {
	config.Deployment
	Egress      delivery.Config
	SweepBudget time.Duration `env:"SWEEP_BUDGET" envDefault:"45s" help:"The limit of one sweep; the next sweep does the rest. Less than the subscription's acknowledgement deadline."`
	SweepGrace  time.Duration `env:"SWEEP_GRACE" envDefault:"20s" help:"How long after its deadline a delivery is marked dead, at least 1s: more than the difference of the instances' clocks, and more than a gateway needs to write an answer (WS_WRITE_TIMEOUT) and settle the entry. Terraform refuses less than WS_WRITE_TIMEOUT and 10s."`
}

// Validate checks the ranges.
func (c Config) Validate() error {
	var errs []error
	if c.SweepBudget <= 0 {
		errs = append(errs, fmt.Errorf("SWEEP_BUDGET: %s is not a positive time", c.SweepBudget))
	}
	if c.SweepGrace < time.Second { // otherwise an answer sent just before the deadline would be marked dead
		errs = append(errs, fmt.Errorf("SWEEP_GRACE: %s is less than 1s", c.SweepGrace))
	}
	return errors.Join(errs...)
}

// Deps holds the dependencies of a [Function]. All are required.
type Deps struct {
	Config   Config
	Letters  *deadletter.Store
	Reaper   *delivery.Reaper
	Redriver *redrive.Redriver
	Sender   *delivery.Sender
	Bus      delivery.Announcer
	Log      *slog.Logger
}

// Function stores dead letters, sweeps the ledger and sends notices. It is safe for concurrent use.
type Function struct {
	letters  *deadletter.Store
	reaper   *delivery.Reaper
	redriver *redrive.Redriver
	sender   *delivery.Sender
	bus      delivery.Announcer
	prefix   topology.Prefix
	budget   time.Duration
	log      *slog.Logger
}

// New makes the function.
func New(d Deps) *Function {
	return &Function{
		letters: d.Letters, reaper: d.Reaper, redriver: d.Redriver, sender: d.Sender, bus: d.Bus,
		prefix: d.Config.Prefix, budget: d.Config.SweepBudget, log: d.Log,
	}
}

// Keep stores a message of the dead-letter topic as a dead letter, once, and logs a new dead letter.
func (f *Function) Keep(ctx context.Context, m bus.Message) error {
	ctx = telemetry.Extract(ctx, m.Attributes)
	a, attributes := deadletter.ParseAnnouncement(m.Attributes, m.ID)
	id := attributes[delivery.AttrDelivery]
	if a.Reason == deadletter.Exhausted && id != "" {
		// the ledger has a delivery's outcome; MarkDead stores the dead letter, and its announcement comes back here
		_, err := f.reaper.MarkDead(ctx, id, a.Redrive, deadletter.New(a.Reason, fmt.Errorf("%s did not get it done in %d attempts", a.Source, a.Attempts)))
		if !errors.Is(err, delivery.ErrNotFound) {
			return err
		}
	}
	if a.ID != id { // the dead letter of a delivery was stored with its outcome
		letter := f.letter(m, a, attributes)
		a.ID = letter.ID
		if isNew, err := f.letters.Put(ctx, letter, a.Redrive); err != nil || !isNew {
			return err
		}
	}
	f.log.ErrorContext(ctx, "dead letter", "reason", a.Reason, "error", a.Message, "source", a.Source,
		"correlationId", attributes[bus.AttrCorrelationID], "deadLetter", a.ID, "attempts", a.Attempts)
	return nil
}

// letter makes the dead letter of a message that is not a delivery's.
func (f *Function) letter(m bus.Message, a deadletter.Announcement, attributes map[string]string) deadletter.DeadLetter {
	l := deadletter.DeadLetter{ID: a.ID, Reason: a.Reason, Message: a.Message, Source: a.Source, Topic: a.Topic, Data: m.Data, Attributes: attributes}
	if a.Reason == deadletter.Exhausted {
		subscription, _ := f.prefix.LookupSubscription(a.Source)
		l.Topic = string(subscription.Topic)
		// Pub/Sub's message has a new id each time an event is dead-lettered; the part's own dead letter keeps its id
		e, err := event.Decode(m.Data)
		switch {
		case err != nil || subscription.Function == "":
		case subscription.Function == Step && subscription.Topic == topology.Egress:
			l.ID = noticeLetterID(noticeKey(attributes, a.ID), m.Data)
		default:
			l.ID = digest.Of(e.CorrelationID, subscription.Function)
		}
		l.ID = cmp.Or(deadletter.RedrivenID(m.Attributes), l.ID)
	}
	return l
}

// Sweep sweeps the ledger and finishes interrupted redrives, for at most the configured time.
func (f *Function) Sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, f.budget)
	defer cancel()
	var finished int
	var finishErr error
	var redrives sync.WaitGroup // beside the sweep: a redrive waits long if the bus is down
	redrives.Go(func() { finished, finishErr = f.redriver.Finish(ctx) })
	done, err := f.reaper.Sweep(ctx)
	redrives.Wait()
	if done != (delivery.SweepResult{}) || finished > 0 {
		f.log.InfoContext(ctx, "swept the ledger", "markedDead", done.MarkedDead, "announced", done.Announced, "redriven", finished)
	}
	if err != nil {
		err = fmt.Errorf("sweep the ledger: %w", err)
	}
	if finishErr != nil {
		err = errors.Join(err, fmt.Errorf("finish interrupted redrives: %w", finishErr))
	}
	return err
}

// build makes the function with its connections.
func build(ctx context.Context, environ []string) (trigger.Func, error) {
	c, err := config.Load[Config](environ)
	if err != nil {
		return nil, err
	}
	to, err := trigger.Connect(ctx, c.Deployment, Step)
	if err != nil {
		return nil, err
	}
	letters := deadletter.NewStore(to.Firestore, time.Now)
	ledger := delivery.NewLedger(to.Firestore, Step, time.Now)
	sender := delivery.NewSender(ledger, to.Bus, c.Egress, time.Now)
	f := New(Deps{
		Config: c, Letters: letters, Reaper: delivery.NewReaper(ledger, letters, to.Bus, Step, c.SweepGrace),
		Redriver: redrive.New(to.Firestore, letters, ledger, sender, to.Bus, c.Egress), Sender: sender, Bus: to.Bus, Log: to.Log,
	})
	return func(ctx context.Context, m bus.Message) error {
		switch m.Topic {
		case topology.Sweep:
			if err := f.Sweep(ctx); err != nil {
				// Cloud Scheduler sends the next tick anyway. Redelivering this tick would accumulate ticks while
				// sweeps fail.
				to.Log.ErrorContext(ctx, "sweep failed", "error", err)
			}
			return nil
		case topology.Egress:
			return f.SendNotice(ctx, m)
		}
		return f.Keep(ctx, m)
	}, nil
}
