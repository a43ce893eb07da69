// Package redrive redrives dead letters. An answer becomes pending and is published again. A message of another kind is
// published again on the same topic as before. Concurrent decisions redrive a dead letter once, and the dead letter
// records the operator and the time. If the message fails again, the same dead letter gets another attempt. The next run
// or the sweep finishes an interrupted redrive ([Redriver.Finish]), for example after a failure of the bus.
//
// Start with [Redriver.Run]. The package does not know why a message failed.
package redrive

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cloud.google.com/go/firestore"
	"golang.org/x/time/rate"

	"parley.internal/shared/bus"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/store"
	"parley.internal/shared/topology"
)

// Redriver redrives dead letters. It is safe for concurrent use.
type Redriver struct {
	client  *firestore.Client
	letters *deadletter.Store
	ledger  *delivery.Ledger
	sender  *delivery.Sender
	bus     *bus.Client
	config  delivery.Config
}

// New makes a redriver. c holds the time limit for delivering a redriven answer.
func New(client *firestore.Client, letters *deadletter.Store, l *delivery.Ledger, s *delivery.Sender, b *bus.Client, c delivery.Config) *Redriver {
	return &Redriver{client: client, letters: letters, ledger: l, sender: s, bus: b, config: c}
}

// Options configure a run.
type Options struct {
	Selection deadletter.Filter // Status is ignored: only unfinished dead letters are redriven
	By        string            // the operator
	DryRun    bool              // only report
	PerSecond float64           // the most redrives in a second; 0 for 10
}

// Result is the result for a dead letter. Err is nil after a redrive, and in a dry run if a redrive is possible.
type Result struct {
	Letter deadletter.DeadLetter // without its data
	Err    error
}

// Run redrives the selected dead letters and reports each. After an error of one dead letter, Run continues with the
// next. Run itself returns an error only if the whole run has to stop.
func (r *Redriver) Run(ctx context.Context, o Options, report func(Result)) error {
	if o.By == "" {
		return errors.New("redrive: the operator is missing")
	}
	if o.PerSecond <= 0 {
		o.PerSecond = 10
	}
	limit := rate.NewLimiter(rate.Limit(o.PerSecond), 1)
	s := o.Selection
	if len(s.IDs) == 0 {
		s.Status = deadletter.Unfinished
	}
	// The list is complete before the first redrive, since a redrive changes the selection.
	var selected []deadletter.DeadLetter
	err := r.letters.List(ctx, s, func(l deadletter.DeadLetter) error {
		l.Data, l.Preview = nil, "" // the data of many would fill the memory
		selected = append(selected, l)
		return nil
	})
	if err != nil {
		return err
	}
	for _, l := range selected {
		if err := r.letters.Redrivable(l); err != nil || o.DryRun {
			report(Result{l, err})
			continue
		}
		if err := limit.Wait(ctx); err != nil {
			return err
		}
		report(Result{l, r.one(ctx, l.ID, o.By)})
	}
	return nil
}

// maxFinish is the number of dead letters in one call of Finish.
const maxFinish = 100

// Finish finishes interrupted redrives, and returns the number of finished ones. The operator of each redrive stays the
// same. The error joins the errors of single dead letters; a later call tries those again.
func (r *Redriver) Finish(ctx context.Context) (finished int, err error) {
	var interrupted []deadletter.DeadLetter
	err = r.letters.List(ctx, deadletter.Filter{Status: deadletter.Redriving, Limit: maxFinish}, func(l deadletter.DeadLetter) error {
		if r.letters.Redrivable(l) == nil {
			l.Data, l.Preview = nil, ""
			interrupted = append(interrupted, l)
		}
		return nil
	})
	errs := []error{err}
	for _, l := range interrupted {
		if ctx.Err() != nil {
			break // the next call does the rest
		}
		err := r.one(ctx, l.ID, l.Redrives[len(l.Redrives)-1].By)
		switch {
		case err == nil:
			finished++
		case errors.Is(err, deadletter.ErrNotOpen), errors.Is(err, delivery.ErrDelivered): // finished meanwhile
		default:
			errs = append(errs, err)
		}
	}
	return finished, errors.Join(errs...)
}

// failTime is the limit of recording a failed redrive.
const failTime = 5 * time.Second

func (r *Redriver) one(ctx context.Context, id, by string) error {
	l, err := r.letters.Get(ctx, id)
	if err != nil {
		return err
	}
	if !l.Delivery && l.Topic == "" {
		return fmt.Errorf("dead letter %s: the topic of the message is not known", id)
	}
	var redrive int
	err = store.RunTransaction(ctx, r.client, func(ctx context.Context, tx *firestore.Transaction) error {
		mark, n, err := r.letters.MarkRedrivingTx(tx, id, by)
		if err != nil {
			return err
		}
		redrive = n
		reopen := func() error { return nil }
		if l.Delivery {
			if reopen, err = r.ledger.ReopenTx(tx, id, n, r.config); err != nil {
				return err
			}
		}
		return errors.Join(mark(), reopen())
	})
	if errors.Is(err, delivery.ErrDelivered) {
		// an earlier redrive was delivered before its status was stored
		err = errors.Join(err, r.letters.MarkRedriven(ctx, id))
	}
	if err != nil {
		return fmt.Errorf("redrive %s: %w", id, err)
	}
	if l.Delivery {
		err = r.sender.PublishEntry(ctx, id)
	} else {
		err = r.bus.Republish(ctx, topology.Topic(l.Topic), l.Data, deadletter.MarkRedriven(l.Attributes, id, redrive))
	}
	if err != nil {
		failing, cancel := context.WithTimeout(context.WithoutCancel(ctx), failTime)
		defer cancel()
		return errors.Join(fmt.Errorf("redrive %s: %w", id, err), r.letters.MarkRedriveFailed(failing, id))
	}
	return r.letters.MarkRedriven(ctx, id)
}
