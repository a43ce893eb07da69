package outbox

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"parley.internal/shared/retry"
)

const (
	// maxQueue is the number of jobs of one key in memory, and maxJobs of all keys. More jobs stay in the ledger until
	// a later query. The number of goroutines is at most the number of jobs.
	maxQueue = 1000
	maxJobs  = 10_000
	// storeTime is the limit of a query and of a write of the ledger.
	storeTime = 10 * time.Second
)

// Timing holds the times that no platform prescribes. All must be positive.
type Timing struct {
	Scan       time.Duration // between two queries of the ledger
	Retry      time.Duration // before another try after the ledger failed
	Backoff    time.Duration // the first pause before another try of a job, and the least
	MaxBackoff time.Duration // the largest back-off while the platform does not report an outcome
	Claim      time.Duration // the age at which a claim is not used any more; less than [delivery.ClaimLease]
}

// work is the work of a [KeyedQueue]. All fields are required.
type work[J any] struct {
	Key    func(J) (id, key string)                                       // the job's id, and the key of its queue
	Find   func(context.Context) ([]J, error)                             // reads the jobs from the ledger, in the ledger's order
	Do     func(ctx context.Context, j J) (done bool, wait time.Duration) // tries a job; unless done, again after wait
	Log    *slog.Logger
	Timing Timing
}

// KeyedQueue executes jobs: jobs with the same key in order, jobs with different keys in parallel. It is safe for
// concurrent use.
//
// The ledger is the source of the jobs; the bus only brings them sooner. A job's entry is in the ledger before the job
// is published, and the queue queries the ledger at the start and then regularly. So the next owner of the lease finds
// jobs published while no instance had the lease, and jobs not reached or released by the last owner.
type KeyedQueue[J any] struct {
	work work[J]
	ctx  context.Context // of Run
	busy sync.WaitGroup
	room chan struct{} // a full key has room again for jobs in the ledger

	mu    sync.Mutex
	keys  map[string]*keyQueue[J]
	jobs  int  // of all keys
	begun bool // the ledger was queried; jobs from the bus alone could be out of order
	ended bool

	// While the ledger is queried: the ids of the jobs executed meanwhile. The query may miss a job claimed during the
	// query. The job keeps its place all the same.
	underWay map[string]bool
}

// keyQueue holds the jobs with one key.
type keyQueue[J any] struct {
	key     string
	jobs    []queued[J]
	ids     map[string]bool // of jobs
	running bool
	full    bool // more jobs are in the ledger
}

// queued is a job in a queue. The id is read once, because Do may change the job.
type queued[J any] struct {
	id  string
	job J
}

// newKeyedQueue makes a queue that executes nothing before Run.
func newKeyedQueue[J any](w work[J]) *KeyedQueue[J] {
	return &KeyedQueue[J]{work: w, room: make(chan struct{}, 1), keys: map[string]*keyQueue[J]{}}
}

// Enqueue adds a job from the bus, unless the queue has the job already. Enqueue does not wait for the job.
func (q *KeyedQueue[J]) Enqueue(j J) {
	q.mu.Lock()
	defer q.mu.Unlock()
	k := q.keyOf(j)
	if k.full { // the jobs in the ledger come first
		return
	}
	q.add(k, j)
	q.serve(k)
}

// keyOf returns the queue for a job's key. The caller of keyOf, add, serve and tidy holds mu.
func (q *KeyedQueue[J]) keyOf(j J) *keyQueue[J] {
	_, key := q.work.Key(j)
	k := q.keys[key]
	if k == nil {
		k = &keyQueue[J]{key: key, ids: map[string]bool{}}
		q.keys[key] = k
	}
	return k
}

func (q *KeyedQueue[J]) add(k *keyQueue[J], j J) {
	id, _ := q.work.Key(j)
	switch {
	case k.ids[id]:
	case len(k.jobs) >= maxQueue, q.jobs >= maxJobs:
		k.full = true
	default:
		k.ids[id] = true
		k.jobs = append(k.jobs, queued[J]{id, j})
		q.jobs++
	}
}

// serve starts a goroutine for a key with jobs, unless one runs.
func (q *KeyedQueue[J]) serve(k *keyQueue[J]) {
	if k.running || !q.begun || q.ended || len(k.jobs) == 0 {
		return
	}
	k.running = true
	q.busy.Go(func() { // ends when the key has no jobs, or with ctx
		for first, ok := q.next(k); ok; first, ok = q.next(k) {
			if done, wait := q.work.Do(q.ctx, first.job); done {
				q.drop(k, first.id)
			} else {
				retry.Sleep(q.ctx, wait) // next sees the end of ctx
			}
		}
	})
}

// next returns the first job of a key. Without a job, the key's goroutine ends.
func (q *KeyedQueue[J]) next(k *keyQueue[J]) (first queued[J], ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(k.jobs) > 0 && q.ctx.Err() == nil {
		if q.underWay != nil {
			q.underWay[k.jobs[0].id] = true
		}
		return k.jobs[0], true
	}
	k.running = false
	q.tidy(k)
	return first, false
}

// tidy removes a key without jobs, or starts a query for the jobs in the ledger.
func (q *KeyedQueue[J]) tidy(k *keyQueue[J]) {
	switch {
	case k.running || len(k.jobs) > 0:
	case !k.full:
		delete(q.keys, k.key)
	default:
		select {
		case q.room <- struct{}{}:
		default:
		}
	}
}

func (q *KeyedQueue[J]) drop(k *keyQueue[J], id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.jobs--
	delete(k.ids, id)
	k.jobs = slices.DeleteFunc(k.jobs, func(j queued[J]) bool { return j.id == id }) // a query may have moved the job
}

// Run executes jobs until ctx is done, and returns when the running jobs have ended. The caller calls Run once.
func (q *KeyedQueue[J]) Run(ctx context.Context) {
	q.ctx = ctx
	for ctx.Err() == nil {
		wait := q.work.Timing.Scan
		if err := q.scan(ctx); err != nil {
			if ctx.Err() == nil {
				q.work.Log.WarnContext(ctx, "query of the ledger failed", "error", err)
			}
			wait = q.work.Timing.Retry
		}
		select {
		case <-ctx.Done():
		case <-q.room:
		case <-time.After(wait):
		}
	}
	q.mu.Lock()
	q.ended = true
	q.mu.Unlock()
	q.busy.Wait()
}

// scan adds the jobs from the ledger, and sorts each key: running jobs first, then the ledger's jobs in the ledger's
// order, then newer jobs.
func (q *KeyedQueue[J]) scan(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	q.mu.Lock()
	underWay := map[string]bool{}
	q.underWay = underWay
	for _, k := range q.keys {
		k.full = false
		if k.running && len(k.jobs) > 0 {
			underWay[k.jobs[0].id] = true
		}
	}
	q.mu.Unlock()
	found, err := q.work.Find(ctx)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.underWay = nil
	if err != nil {
		return err
	}
	position := map[string]int{}
	for id := range underWay {
		position[id] = -len(found) - 1
	}
	for i, j := range found {
		id, _ := q.work.Key(j)
		position[id] = i - len(found)
		q.add(q.keyOf(j), j)
	}
	q.begun = true
	for _, k := range q.keys {
		slices.SortStableFunc(k.jobs, func(a, b queued[J]) int {
			return position[a.id] - position[b.id] // 0 for a job that is not in the ledger's list
		})
		q.serve(k)
		q.tidy(k)
	}
	return nil
}
