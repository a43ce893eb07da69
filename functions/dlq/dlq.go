// Package dlq is the function that keeps what was given up, and gives up what is overdue. It reads two topics: on
// internal.deadletter.v1 comes every message that a part, or Pub/Sub itself, could not get processed, and each is kept
// once in Firestore and told of in one log line of severity ERROR; on internal.sweep.v1 comes a tick, on which the
// ledger of deliveries is swept.
package dlq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"parley.internal/shared/bus"
	"parley.internal/shared/config"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/digest"
	"parley.internal/shared/event"
	"parley.internal/shared/telemetry"
	"parley.internal/shared/topology"
	"parley.internal/shared/trigger"
)

// Step is the function's name.
const Step = "dlq"

func init() { trigger.Register(Step, build) }

// Config is the function's configuration.
type Config struct {
	config.Deployment
	SweepBudget time.Duration `env:"SWEEP_BUDGET" envDefault:"45s" help:"How long one sweep may take; what it leaves, the next one does. Less than the subscription's acknowledgement deadline."`
	SweepGrace  time.Duration `env:"SWEEP_GRACE" envDefault:"20s" help:"How long after its deadline a delivery is given up, at least 1s: more than the instances' clocks differ, and a gateway takes to write an answer (WS_WRITE_TIMEOUT) and settle it. Terraform refuses less than WS_WRITE_TIMEOUT and 10s."`
}

// Validate checks what the types cannot.
func (c Config) Validate() error {
	var errs []error
	if c.SweepBudget <= 0 {
		errs = append(errs, fmt.Errorf("SWEEP_BUDGET: %s is not a positive time", c.SweepBudget))
	}
	if c.SweepGrace < time.Second { // without any, what is written just in time is given up although it arrives
		errs = append(errs, fmt.Errorf("SWEEP_GRACE: %s is less than 1s", c.SweepGrace))
	}
	return errors.Join(errs...)
}

// Function keeps dead letters and sweeps the ledger. It is safe for concurrent use.
type Function struct {
	box    *deadletter.Store
	reaper *delivery.Reaper
	prefix topology.Prefix
	budget time.Duration
	log    *slog.Logger
}

// New makes the function of its parts.
func New(box *deadletter.Store, u *delivery.Reaper, c Config, log *slog.Logger) *Function {
	return &Function{box: box, reaper: u, prefix: c.Prefix, budget: c.SweepBudget, log: log}
}

// Keep keeps one message of the dead-letter topic.
func (f *Function) Keep(ctx context.Context, m bus.Message) error {
	ctx = telemetry.Extract(ctx, m.Attributes)
	a, attributes := deadletter.ParseAnnouncement(m.Attributes, m.ID)
	letter := deadletter.DeadLetter{
		ID: a.ID, Reason: a.Reason, Message: a.Message, Source: a.Source, Topic: a.Topic,
		Data: m.Data, Attributes: attributes, Delivery: attributes[delivery.AttrDelivery] == a.ID,
	}
	if a.Reason == deadletter.Exhausted {
		if id := attributes[delivery.AttrDelivery]; id != "" {
			// the outcome of a delivery stands in the ledger, and its letter is written with that
			_, err := f.reaper.MarkDead(ctx, id, a.Redrive, deadletter.New(a.Reason, fmt.Errorf("%s did not get it done in %d attempts", a.Source, a.Attempts)))
			if !errors.Is(err, delivery.ErrNotFound) {
				return err
			}
		}
		subscription, _ := f.prefix.LookupSubscription(a.Source)
		letter.Topic = string(subscription.Topic)
		// Pub/Sub's message has another id each time that one event is given up; the part's own letter has not
		if e, err := event.Decode(m.Data); err == nil && subscription.Function != "" {
			letter.ID = digest.Of(e.CorrelationID, subscription.Function)
		}
	}
	// a delivery's letter was written with its outcome; what came here is only the news of it
	news := letter.Delivery
	if !letter.Delivery {
		var err error
		if news, err = f.box.Put(ctx, letter, a.Redrive); err != nil {
			return err
		}
	}
	if news {
		f.log.ErrorContext(ctx, "dead letter", "reason", a.Reason, "error", a.Message, "source", a.Source,
			"correlationId", attributes[bus.AttrCorrelationID], "deadLetter", letter.ID, "attempts", a.Attempts)
	}
	return nil
}

// Sweep sweeps the ledger, for as long as the configuration allows.
func (f *Function) Sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, f.budget)
	defer cancel()
	done, err := f.reaper.Sweep(ctx)
	if done != (delivery.SweepResult{}) {
		f.log.InfoContext(ctx, "swept the ledger", "givenUp", done.MarkedDead, "announced", done.Announced)
	}
	if err != nil {
		return fmt.Errorf("sweep the ledger: %w", err)
	}
	return nil
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
	box := deadletter.NewStore(to.Firestore, time.Now)
	ledger := delivery.NewLedger(to.Firestore, Step, time.Now)
	f := New(box, delivery.NewReaper(ledger, box, to.Bus, Step, c.SweepGrace), c, to.Log)
	return func(ctx context.Context, m bus.Message) error {
		if m.Topic == topology.Sweep {
			if err := f.Sweep(ctx); err != nil {
				// The next tick comes by itself. To have this one come again, too, would heap up ticks for as long as a
				// sweep fails, each of them a sweep.
				to.Log.ErrorContext(ctx, "a sweep was not completed", "error", err)
			}
			return nil
		}
		return f.Keep(ctx, m)
	}, nil
}
