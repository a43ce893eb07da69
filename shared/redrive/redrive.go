// Package redrive tries dead letters again: an answer goes back to pending and is published anew, any other message is
// published where it was. Each dead letter is redriven once per decision, whoever else decides the same, with who and
// when on record. One that fails again is a further attempt of the same dead letter.
package redrive

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"

	"cloud.google.com/go/firestore"
	"golang.org/x/time/rate"

	"parley.internal/shared/bus"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/store"
	"parley.internal/shared/topology"
)

// Redriver redrives. It is safe for concurrent use.
type Redriver struct {
	client *firestore.Client
	box    *deadletter.Store
	ledger *delivery.Ledger
	sender *delivery.Sender
	bus    *bus.Client
	config delivery.Config
}

// New makes a redriver. c says how long a redriven answer has.
func New(client *firestore.Client, box *deadletter.Store, l *delivery.Ledger, s *delivery.Sender, b *bus.Client, c delivery.Config) *Redriver {
	return &Redriver{client: client, box: box, ledger: l, sender: s, bus: b, config: c}
}

// Options say what is redriven, and how.
type Options struct {
	Selection deadletter.Filter // only open letters are redriven, whatever its Status says
	By        string            // who decided
	DryRun    bool              // only tell what would be redriven
	PerSecond float64           // how many a second at most; 0 for 10
}

// Result is what became of one dead letter. A nil Err means that it was redriven, or would be.
type Result struct {
	Letter deadletter.DeadLetter // without its data
	Err    error
}

// Run redrives what is selected and tells of each. One that can't be redriven does not stop the others; the error is
// of what stops all of them.
func (r *Redriver) Run(ctx context.Context, o Options, tell func(Result)) error {
	if o.By == "" {
		return errors.New("redrive: it has to be on record who decided it")
	}
	if o.PerSecond <= 0 {
		o.PerSecond = 10
	}
	limit := rate.NewLimiter(rate.Limit(o.PerSecond), 1)
	s := o.Selection
	if len(s.IDs) == 0 {
		s.Status = deadletter.Open
	}
	// What is selected is settled before anything is redriven, since redriving changes it.
	var letters []deadletter.DeadLetter
	err := r.box.List(ctx, s, func(l deadletter.DeadLetter) error {
		l.Data, l.Preview = nil, "" // of many it would fill the memory
		letters = append(letters, l)
		return nil
	})
	if err != nil {
		return err
	}
	for _, l := range letters {
		if l.Status == deadletter.Redriven {
			tell(Result{l, deadletter.ErrNotOpen})
			continue
		}
		if o.DryRun {
			tell(Result{l, nil})
			continue
		}
		if err := limit.Wait(ctx); err != nil {
			return err
		}
		tell(Result{l, r.one(ctx, l.ID, o.By)})
	}
	return nil
}

func (r *Redriver) one(ctx context.Context, id, by string) error {
	l, err := r.box.Get(ctx, id)
	if err != nil {
		return err
	}
	if !l.Delivery && l.Topic == "" {
		return fmt.Errorf("dead letter %s: it is not known on which topic the message was", id)
	}
	var redrive int
	err = store.RunTransaction(ctx, r.client, func(ctx context.Context, tx *firestore.Transaction) error {
		mark, n, err := r.box.MarkRedrivingTx(tx, id, by)
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
		// by a redrive that ended before it was on record
		err = errors.Join(err, r.box.MarkRedriven(ctx, id))
	}
	if err != nil {
		return fmt.Errorf("redrive %s: %w", id, err)
	}
	if l.Delivery {
		err = r.sender.PublishEntry(ctx, id)
	} else {
		attributes := maps.Clone(l.Attributes)
		if attributes == nil {
			attributes = map[string]string{}
		}
		attributes[deadletter.AttrRedrive] = strconv.Itoa(redrive)
		err = r.bus.Republish(ctx, topology.Topic(l.Topic), l.Data, attributes)
	}
	if err != nil {
		return fmt.Errorf("redrive %s: %w", id, err)
	}
	return r.box.MarkRedriven(ctx, id)
}
