package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// queueFixture is a ledger of jobs. A job is a text: the key, a slash, and a name. Jobs are in the ledger from the
// start, or from open, until they are done.
type queueFixture struct {
	t     *testing.T
	queue *KeyedQueue[string]
	stop  func()

	mu      sync.Mutex
	open    []string
	claimed string // is not found
	done    []string
	looks   int
	away    bool
	do      func(job string) (done bool, wait time.Duration) // nil if all is done at once
}

// queueTiming is for synctest, where waiting takes no time.
var queueTiming = Timing{Scan: 15 * time.Second, Retry: 3 * time.Second, Backoff: 500 * time.Millisecond}

func newQueueFixture(t *testing.T, open ...string) *queueFixture {
	b := &queueFixture{t: t, open: open}
	b.queue = newKeyedQueue(work[string]{
		Key: func(job string) (id, line string) {
			line, _, _ = strings.Cut(job, "/")
			return job, line
		},
		Find: func(ctx context.Context) ([]string, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.looks++
			if b.away {
				return nil, errors.New("the ledger is away")
			}
			found := slices.Clone(b.open[:min(len(b.open), 300)])
			return slices.DeleteFunc(found, func(job string) bool { return job == b.claimed }), nil
		},
		Do: func(ctx context.Context, job string) (bool, time.Duration) {
			if b.do != nil {
				if done, wait := b.do(job); !done {
					return false, wait
				}
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			if i := slices.Index(b.open, job); i >= 0 { // else done before
				b.done = append(b.done, job)
				b.open = slices.Delete(b.open, i, i+1)
			}
			return true, 0
		},
		Log: slog.New(slog.DiscardHandler), Timing: queueTiming,
	})
	return b
}

// run runs the queue. stop ends it and waits.
func (b *queueFixture) run() {
	ctx, cancel := context.WithCancel(b.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.queue.Run(ctx)
	}()
	b.stop = func() {
		cancel()
		<-ended
	}
}

// add opens jobs in the ledger, and enqueues all except the lost ones.
func (b *queueFixture) add(lost func(job string) bool, jobs ...string) {
	for _, job := range jobs {
		b.mu.Lock()
		b.open = append(b.open, job)
		b.mu.Unlock()
		if lost == nil || !lost(job) {
			b.queue.Enqueue(job)
		}
	}
}

func (b *queueFixture) all() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.done)
}

func (b *queueFixture) want(jobs ...string) {
	b.t.Helper()
	if got := b.all(); !slices.Equal(got, jobs) {
		b.t.Errorf("done: %v; want %v", got, jobs)
	}
}

func TestJobsRunInTheLedgersOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newQueueFixture(t, "x/1", "x/2", "x/3")
		b.queue.Enqueue("x/3")
		b.queue.Enqueue("x/2")
		synctest.Wait()
		b.want() // no query of the ledger yet
		b.run()
		synctest.Wait()
		b.want("x/1", "x/2", "x/3")

		b.add(nil, "x/4", "x/5")
		synctest.Wait()
		b.want("x/1", "x/2", "x/3", "x/4", "x/5")
		b.add(func(string) bool { return true }, "x/6")
		synctest.Wait()
		b.want("x/1", "x/2", "x/3", "x/4", "x/5")
		time.Sleep(queueTiming.Scan)
		synctest.Wait()
		b.want("x/1", "x/2", "x/3", "x/4", "x/5", "x/6")
		b.stop()
	})
}

// A job that comes late by the bus is sorted before newer jobs.
func TestScanSortsAQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newQueueFixture(t, "x/1")
		hold := make(chan struct{})
		b.do = func(job string) (bool, time.Duration) {
			if job == "x/1" {
				<-hold
			}
			return true, 0
		}
		b.run()
		synctest.Wait()
		b.add(func(job string) bool { return job == "x/2" }, "x/2", "x/3", "x/4")
		b.queue.Enqueue("x/2")
		time.Sleep(queueTiming.Scan)
		synctest.Wait()
		if n := len(b.queue.keys["x"].jobs); n != 4 {
			t.Errorf("%d jobs are in the queue; want each once", n)
		}
		close(hold)
		synctest.Wait()
		b.want("x/1", "x/2", "x/3", "x/4")
		b.stop()
	})
}

func TestKeysDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newQueueFixture(t, "x/1", "y/1", "x/2", "y/2")
		hold := make(chan struct{})
		b.do = func(job string) (bool, time.Duration) {
			if job == "x/1" {
				<-hold
			}
			return true, 0
		}
		b.run()
		synctest.Wait()
		b.want("y/1", "y/2")
		close(hold)
		synctest.Wait()
		b.want("y/1", "y/2", "x/1", "x/2")
		if n := len(b.queue.keys); n != 0 {
			t.Errorf("%d keys are kept without a job", n)
		}
		b.stop()
	})
}

// Jobs beyond the limit of a key stay in the ledger, and later jobs wait for them.
func TestJobsBeyondTheLimitAreFoundAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newQueueFixture(t)
		hold := make(chan struct{})
		b.do = func(job string) (bool, time.Duration) {
			<-hold
			return true, 0
		}
		b.run()
		synctest.Wait()
		var want []string
		for i := range maxQueue + 10 {
			want = append(want, fmt.Sprintf("x/%04d", i))
		}
		b.add(nil, want...)
		hold <- struct{}{} // there is room for one
		synctest.Wait()
		want = append(want, "x/later")
		b.add(nil, "x/later")
		began := time.Now()
		close(hold)
		synctest.Wait()
		b.want(want...)
		if took := time.Since(began); took != 0 {
			t.Errorf("the rest was found after %s; want it as soon as there was room", took)
		}
		if n := len(b.queue.keys); n != 0 {
			t.Errorf("%d keys are kept without a job", n)
		}
		b.stop()
	})
}

// The number of jobs in memory is bounded for any number of keys, and each job is done once.
func TestJobsOfManyKeysAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newQueueFixture(t)
		hold := make(chan struct{})
		b.do = func(job string) (bool, time.Duration) {
			<-hold
			return true, 0
		}
		b.run()
		synctest.Wait()
		var want []string
		for i := range maxJobs + 50 {
			want = append(want, fmt.Sprintf("%05d/x", i))
		}
		b.add(nil, want...)
		b.queue.mu.Lock()
		if b.queue.jobs != maxJobs {
			t.Errorf("%d jobs are kept; want %d", b.queue.jobs, maxJobs)
		}
		b.queue.mu.Unlock()
		close(hold)
		time.Sleep(queueTiming.Scan)
		synctest.Wait()
		done := b.all()
		slices.Sort(done)
		if !slices.Equal(done, want) {
			t.Errorf("%d were done; want each of %d once", len(done), len(want))
		}
		if len(b.queue.keys) != 0 || b.queue.jobs != 0 {
			t.Errorf("%d keys with %d jobs are kept; want none", len(b.queue.keys), b.queue.jobs)
		}
		b.stop()
	})
}

func TestNoJobRunsBeforeTheFirstScan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newQueueFixture(t, "x/1", "x/2")
		b.away = true
		b.queue.Enqueue("x/2")
		b.run()
		time.Sleep(10 * queueTiming.Retry)
		synctest.Wait()
		b.want()
		b.mu.Lock()
		b.away = false
		if b.looks != 11 {
			t.Errorf("queried %d times; want again every %s", b.looks, queueTiming.Retry)
		}
		b.mu.Unlock()
		time.Sleep(queueTiming.Retry)
		synctest.Wait()
		b.want("x/1", "x/2")
		b.stop()
	})
}

func TestUnfinishedJobIsTriedAgainAndStaysFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newQueueFixture(t, "x/1", "x/2")
		began := time.Now()
		b.do = func(job string) (bool, time.Duration) {
			return job != "x/1" || time.Since(began) > time.Minute, 7 * time.Second
		}
		b.run()
		time.Sleep(time.Minute)
		synctest.Wait()
		b.want()
		time.Sleep(7 * time.Second)
		synctest.Wait()
		b.want("x/1", "x/2")
		b.stop()
	})
}

func TestRunningJobKeepsItsPlaceDuringAScan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newQueueFixture(t, "x/1", "x/2")
		claim := func(job string) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.claimed = job
		}
		put := 1
		b.do = func(job string) (bool, time.Duration) {
			claim(job)
			time.Sleep(queueTiming.Scan * 3 / 2) // a query runs meanwhile
			claim("")
			put--
			return put < 0, time.Second
		}
		b.run()
		time.Sleep(8 * queueTiming.Scan)
		b.add(nil, "x/3")
		time.Sleep(8 * queueTiming.Scan)
		b.stop()
		b.want("x/1", "x/2", "x/3")
	})
}

// TestJobKeepsItsFirstID changes a job during scans of its queue. The race detector reports any read of the job outside
// of Do.
func TestJobKeepsItsFirstID(t *testing.T) {
	type job struct{ id string }
	var done []string
	looks := make(chan struct{})
	ctx, stop := context.WithCancel(t.Context())
	lines := newKeyedQueue(work[*job]{
		Key: func(j *job) (id, line string) { return j.id, "x" },
		Find: func(context.Context) ([]*job, error) {
			select {
			case looks <- struct{}{}:
			default:
			}
			return []*job{{"a"}, {"b"}}, nil
		},
		Do: func(_ context.Context, j *job) (bool, time.Duration) {
			done = append(done, j.id)
			j.id += " changed"
			<-looks // the end of the running scan, and the next scan
			<-looks
			if len(done) == 4 {
				stop()
			}
			return true, 0
		},
		Log: slog.New(slog.DiscardHandler), Timing: Timing{Scan: time.Microsecond},
	})
	lines.Run(ctx)
	if want := []string{"a", "b", "a", "b"}; !slices.Equal(done, want) {
		t.Errorf("done were %v; want %v", done, want)
	}
}

func TestRunWaitsForRunningJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newQueueFixture(t, "x/1", "x/2", "y/1")
		b.do = func(job string) (bool, time.Duration) {
			time.Sleep(time.Minute)
			return job != "y/1", time.Hour
		}
		b.run()
		synctest.Wait()
		began := time.Now()
		b.stop()
		if took := time.Since(began); took != time.Minute {
			t.Errorf("Run returned after %s; want it after the end of the running job", took)
		}
		b.add(nil, "x/3")
		synctest.Wait()
		b.want("x/1")
	})
}
