package delivery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"cloud.google.com/go/firestore"
	"golang.org/x/sync/errgroup"

	"parley.internal/shared/deadletter"
)

const (
	// sweepPage is the number of entries in one query of a sweep. sweepTogether is how many of them are handled at a time.
	sweepPage     = 200
	sweepTogether = 32
	// announceTime is how long a sweep tries to announce a dead letter. A later sweep tries again.
	announceTime = 3 * time.Second
	// maxFailures is how many errors a sweep returns for one kind of entries.
	maxFailures = 10
)

// SweepResult counts the work of a sweep.
type SweepResult struct {
	MarkedDead int // overdue deliveries, and those with an expired claim
	Announced  int // dead deliveries that were not announced before
}

// Sweep marks every overdue delivery dead, and announces dead deliveries whose announcement failed. It goes on page by
// page until ctx is done; the next sweep handles the rest. Concurrent sweeps are safe. The error joins the errors of
// single entries. An entry with an error does not stop the others.
func (r *Reaper) Sweep(ctx context.Context) (SweepResult, error) {
	var markedDead, announced atomic.Int64
	announce := func(e Entry) error {
		ctx, cancel := context.WithTimeout(ctx, announceTime)
		defer cancel()
		return r.announce(ctx, e)
	}
	var scans []func() error
	for _, k := range r.overdue() {
		scans = append(scans, func() error {
			return r.pages(ctx, k.query, func(e Entry) error {
				moved, _, err := r.moveToDead(ctx, e.ID, k.why(e), k.still)
				if err != nil || moved == nil {
					return err
				}
				markedDead.Add(1)
				return announce(*moved)
			})
		})
	}
	silent := r.ledger.client.Collection("deliveries").Where("state", "==", Dead).Where("announced", "==", false).
		Where("settledAt", "<", r.ledger.now().Add(-r.grace)).OrderBy("settledAt", firestore.Asc)
	scans = append(scans, func() error {
		return r.pages(ctx, silent, func(e Entry) error {
			err := announce(e)
			if err == nil {
				announced.Add(1)
			}
			return err
		})
	})
	errs := make([]error, len(scans))
	var all sync.WaitGroup // in parallel: a long scan delays no other
	for i, scan := range scans {
		all.Go(func() { errs[i] = scan() })
	}
	all.Wait()
	return SweepResult{MarkedDead: int(markedDead.Load()), Announced: int(announced.Load())}, errors.Join(errs...)
}

// overdueKind describes the overdue entries in one state.
type overdueKind struct {
	query firestore.Query
	still func(Entry) bool // the entry was not redriven or released since the query
	why   func(Entry) *deadletter.Error
}

// overdue returns the kinds of entries to mark dead: pending after the deadline, and claimed with an expired claim.
func (r *Reaper) overdue() []overdueKind {
	limit := r.ledger.now().Add(-r.grace)
	shards := make([]int, shardCount)
	for i := range shards {
		shards[i] = i
	}
	query := func(state State, field string) firestore.Query {
		return r.ledger.client.Collection("deliveries").Where("shard", "in", shards).Where("state", "==", state).
			Where(field, "<", limit).OrderBy(field, firestore.Asc)
	}
	return []overdueKind{{
		query: query(Pending, "deadline"),
		still: func(e Entry) bool { return e.State == Pending && e.Deadline.Before(limit) },
		why: func(e Entry) *deadletter.Error {
			return deadletter.New(deadletter.NoConnection, fmt.Errorf("no instance held a connection of the recipient until %s", e.Deadline.Format(time.RFC3339)))
		},
	}, {
		query: query(Claimed, "leaseUntil"),
		still: func(e Entry) bool { return e.State == Claimed && e.LeaseUntil.Before(limit) },
		why: func(e Entry) *deadletter.Error {
			return deadletter.New(deadletter.OutcomeUnknown, fmt.Errorf("instance %s claimed the delivery and did not report the outcome", e.Instance))
		},
	}}
}

// pages calls do for each entry of a query, page by page, [sweepTogether] at a time. It returns the first errors; an
// entry with an error is left to a later sweep.
func (r *Reaper) pages(ctx context.Context, q firestore.Query, do func(Entry) error) error {
	var mu sync.Mutex
	var errs []error
	failed := 0
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if failed++; failed <= maxFailures {
			errs = append(errs, err)
		}
	}
	for {
		snaps, err := q.Limit(sweepPage).Documents(ctx).GetAll()
		if err != nil {
			fail(fmt.Errorf("query the ledger: %w", err))
			break
		}
		var page errgroup.Group // without a context: an error does not cancel the others
		page.SetLimit(sweepTogether)
		for _, snap := range snaps {
			if ctx.Err() != nil {
				break
			}
			page.Go(func() error {
				e, err := entryOf(snap)
				if err == nil {
					err = do(e)
				}
				if err != nil {
					fail(err)
				}
				return nil
			})
		}
		page.Wait() // the errors are in errs
		if err := ctx.Err(); err != nil {
			fail(err)
			break
		}
		if len(snaps) < sweepPage {
			break
		}
		q = q.StartAfter(snaps[len(snaps)-1])
	}
	if failed > maxFailures {
		errs = append(errs, fmt.Errorf("and %d more failures", failed-maxFailures))
	}
	return errors.Join(errs...)
}
