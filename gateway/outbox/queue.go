package outbox

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

const (
	// maxLine and maxJobs are how many jobs of one line, and of all together, are kept in memory. What is more stays in the
	// ledger, and is found there. There are no more goroutines than jobs.
	maxLine = 1000
	maxJobs = 10_000
	// storeTime bounds one look into the ledger, and one write of it.
	storeTime = 10 * time.Second
)

// Timing is how long things take that no platform has a number for.
type Timing struct {
	Scan       time.Duration // between looks into the ledger
	Retry      time.Duration // before what the ledger failed at is tried again
	Backoff    time.Duration // before a job is tried again, at least
	MaxBackoff time.Duration // to which Backoff grows where a platform does not say what it did
	Claim      time.Duration // how old a claim may be when something is said by it; less than egress.ClaimLease
}

// Work is what [KeyedQueue] do.
type Work[J any] struct {
	Key    func(J) (id, line string)                                      // names a job, and the line in which it waits
	Find   func(context.Context) ([]J, error)                             // the jobs that the ledger has, in its order
	Do     func(ctx context.Context, j J) (done bool, wait time.Duration) // what is not done is tried again after wait
	Log    *slog.Logger
	Timing Timing
}

// KeyedQueue do jobs: those of one line one after the other, those of several lines at the same time.
//
// The ledger is what tells which jobs there are; what comes by the bus only tells it sooner. A job's entry is opened
// before it is published, and the ledger is looked into when the lines begin, and then again and again. So one that was
// published while nobody had the lease, or that its last owner did not come to or gave back, is found by the next.
type KeyedQueue[J any] struct {
	work Work[J]
	ctx  context.Context // of Run
	busy sync.WaitGroup
	room chan struct{} // for what was left in the ledger

	mu    sync.Mutex
	lines map[string]*keyQueue[J]
	jobs  int  // in all lines
	begun bool // what comes by the bus before the ledger has been asked could be out of order
	ended bool

	// While the ledger is looked into: the ids of jobs that were under way meanwhile. One that is claimed just then is not
	// found, and keeps its place all the same.
	underWay map[string]bool
}

// keyQueue is the jobs that are done one after the other.
type keyQueue[J any] struct {
	name   string
	queue  []queued[J]
	queued map[string]bool // by id
	served bool
	full   bool // some were left in the ledger
}

// queued is a job in a line. Its id is taken once: what does a job may change it.
type queued[J any] struct {
	id  string
	job J
}

// NewKeyedQueue makes lines that do nothing before Run.
func NewKeyedQueue[J any](w Work[J]) *KeyedQueue[J] {
	return &KeyedQueue[J]{work: w, room: make(chan struct{}, 1), lines: map[string]*keyQueue[J]{}}
}

// Enqueue takes a job that came by the bus, unless it is there already. It does not wait for it.
func (l *KeyedQueue[J]) Enqueue(j J) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := l.lineOf(j)
	if ln.full { // what was left goes first
		return
	}
	l.add(ln, j)
	l.serve(ln)
}

// lineOf gives the line of a job. l.mu is held, as it is for add and serve.
func (l *KeyedQueue[J]) lineOf(j J) *keyQueue[J] {
	_, name := l.work.Key(j)
	ln := l.lines[name]
	if ln == nil {
		ln = &keyQueue[J]{name: name, queued: map[string]bool{}}
		l.lines[name] = ln
	}
	return ln
}

func (l *KeyedQueue[J]) add(ln *keyQueue[J], j J) {
	id, _ := l.work.Key(j)
	switch {
	case ln.queued[id]:
	case len(ln.queue) >= maxLine, l.jobs >= maxJobs:
		ln.full = true
	default:
		ln.queued[id] = true
		ln.queue = append(ln.queue, queued[J]{id, j})
		l.jobs++
	}
}

// serve has a line's jobs done.
func (l *KeyedQueue[J]) serve(ln *keyQueue[J]) {
	if ln.served || !l.begun || l.ended || len(ln.queue) == 0 {
		return
	}
	ln.served = true
	l.busy.Go(func() { // ends when the line is empty, or with ctx
		for first, ok := l.next(ln); ok; first, ok = l.next(ln) {
			if done, wait := l.work.Do(l.ctx, first.job); done {
				l.drop(ln, first.id)
			} else {
				sleep(l.ctx, wait)
			}
		}
	})
}

// next is the job of a line that is to be done. If there is none, nobody serves the line any more.
func (l *KeyedQueue[J]) next(ln *keyQueue[J]) (first queued[J], ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(ln.queue) > 0 && l.ctx.Err() == nil {
		if l.underWay != nil {
			l.underWay[ln.queue[0].id] = true
		}
		return ln.queue[0], true
	}
	ln.served = false
	l.tidy(ln)
	return first, false
}

// tidy forgets a line that is empty, or has the ledger looked into for what was left there. l.mu is held.
func (l *KeyedQueue[J]) tidy(ln *keyQueue[J]) {
	switch {
	case ln.served || len(ln.queue) > 0:
	case !ln.full:
		delete(l.lines, ln.name)
	default:
		select {
		case l.room <- struct{}{}:
		default:
		}
	}
}

func (l *KeyedQueue[J]) drop(ln *keyQueue[J], id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.jobs--
	delete(ln.queued, id)
	ln.queue = slices.DeleteFunc(ln.queue, func(q queued[J]) bool { return q.id == id }) // it may not be the first any more
}

// Run does jobs until ctx is done, and returns when those that it had begun are brought to their end. It must be called
// once.
func (l *KeyedQueue[J]) Run(ctx context.Context) {
	l.ctx = ctx
	for ctx.Err() == nil {
		wait := l.work.Timing.Scan
		if err := l.look(ctx); err != nil {
			if ctx.Err() == nil {
				l.work.Log.WarnContext(ctx, "can't look into the ledger for what is to be done", "error", err)
			}
			wait = l.work.Timing.Retry
		}
		select {
		case <-ctx.Done():
		case <-l.room:
		case <-time.After(wait):
		}
	}
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.busy.Wait()
}

// look takes what the ledger has, in its order and before what it does not have, which is later, unless it was under way.
func (l *KeyedQueue[J]) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	l.mu.Lock()
	underWay := map[string]bool{}
	l.underWay = underWay
	for _, ln := range l.lines {
		ln.full = false
		if ln.served && len(ln.queue) > 0 {
			underWay[ln.queue[0].id] = true
		}
	}
	l.mu.Unlock()
	found, err := l.work.Find(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.underWay = nil
	if err != nil {
		return err
	}
	position := map[string]int{}
	for id := range underWay {
		position[id] = -len(found) - 1
	}
	for i, j := range found {
		id, _ := l.work.Key(j)
		position[id] = i - len(found)
		l.add(l.lineOf(j), j)
	}
	l.begun = true
	for _, ln := range l.lines {
		slices.SortStableFunc(ln.queue, func(a, b queued[J]) int {
			return position[a.id] - position[b.id] // 0 for what was not found
		})
		l.serve(ln)
		l.tidy(ln)
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
