package throttle

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// reading is the time of a look-up in these tests.
const reading = 10 * time.Millisecond

// lookup looks up a key, and returns the total time.
func lookup(ctx context.Context, t *Throttle, address string, found bool, reads *atomic.Int64) (time.Duration, error) {
	began := time.Now()
	done, err := t.Wait(ctx, address)
	if err == nil {
		reads.Add(1)
		time.Sleep(reading)
		done(!found)
	}
	return time.Since(began), err
}

func TestDelayGrowsWithTheMissesOfAnAddressAndIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		th := New()
		miss := func(address string, want time.Duration) {
			t.Helper()
			if took, err := lookup(t.Context(), th, address, false, &reads); err != nil || took != want+reading {
				t.Errorf("%s took %s, %v; want %s", address, took, err, want+reading)
			}
		}
		for range perAddress.free {
			miss("a", 0)
		}
		for _, want := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 2 * time.Second} {
			miss("a", want)
		}
		miss("b", 0) // another address
		time.Sleep(10 * time.Minute)
		for range perAddress.free {
			miss("a", 0)
		}
	})
}

func TestFoundKeysAreNeverLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		var all sync.WaitGroup
		th, began := New(), time.Now()
		for i := range maxQueue { // a deploy: every client behind one address reconnects
			all.Go(func() {
				if i == 500 {
					lookup(t.Context(), th, "nat", false, &reads) // one of them with a wrong key
					return
				}
				if _, err := lookup(t.Context(), th, "nat", true, &reads); err != nil {
					t.Errorf("client %d: %v", i, err)
				}
			})
		}
		all.Wait()
		if took := time.Since(began); took > time.Second {
			t.Errorf("all took %s", took)
		}
		time.Sleep(time.Hour)
		lookup(t.Context(), th, "nat", true, &reads)
		if n := len(th.byAddress); n != 0 {
			t.Errorf("%d gates remain", n)
		}
	})
}

func TestFloodFromOneAddressReadsLittleAndValidKeysStillGetIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		var refused atomic.Int64
		var all sync.WaitGroup
		th := New()
		for range 5000 {
			all.Go(func() {
				if _, err := lookup(t.Context(), th, "a", false, &reads); err != nil {
					refused.Add(1)
				}
			})
		}
		synctest.Wait()
		time.Sleep(time.Second) // the queue is full of the attacker's look-ups
		if _, err := lookup(t.Context(), th, "b", true, &reads); err != nil {
			t.Errorf("a valid key of another address: %v", err)
		}
		all.Wait()
		if n := reads.Load(); n > 30 || refused.Load() < 4900 {
			t.Errorf("%d reads and %d refusals", n, refused.Load())
		}
		if took, err := lookup(t.Context(), th, "a", true, &reads); err != nil || took > MaxWait {
			t.Errorf("a valid key of the same address after the flood: %v after %s", err, took)
		}
		for range 50 { // the valid key was found, so more of them need not wait
			if took, err := lookup(t.Context(), th, "a", true, &reads); err != nil || took != reading {
				t.Errorf("a further valid key: %v after %s", err, took)
			}
		}
	})
}

func TestValidKeyGetsInBesideAnAttackerOfTheSameAddress(t *testing.T) {
	for _, loops := range []int{1, 5} {
		synctest.Test(t, func(t *testing.T) {
			var reads atomic.Int64
			var attacker sync.WaitGroup
			th := New()
			ctx, stop := context.WithCancel(t.Context())
			for range loops {
				attacker.Go(func() {
					for ctx.Err() == nil {
						lookup(ctx, th, "a", false, &reads)
					}
				})
			}
			time.Sleep(time.Minute)
			before, began := reads.Load(), time.Now()
			attempts := 1
			for { // as a client does that is told to come back
				if _, err := lookup(t.Context(), th, "a", true, &reads); err == nil {
					break
				}
				attempts++
				time.Sleep(MaxWait)
			}
			if attempts > 100 { // with a chance of at least 1 in 3 for each attempt
				t.Errorf("%d attempts beside %d loops", attempts, loops)
			}
			if n := reads.Load() - before; n > int64(time.Since(began)/time.Second)/2+2 {
				t.Errorf("%d reads in %s", n, time.Since(began))
			}
			stop()
			attacker.Wait()
		})
	}
}

func TestManyAddressesAreLimitedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		var all sync.WaitGroup
		th, began := New(), time.Now()
		for i := range 3 * maxAddresses {
			all.Go(func() { lookup(t.Context(), th, fmt.Sprint(i), false, &reads) })
			if i%100 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		all.Wait()
		limit := int64(overall.free) + int64(100*time.Since(began).Seconds())
		if n := reads.Load(); n > limit {
			t.Errorf("%d reads in %s; want at most %d", n, time.Since(began), limit)
		}
		if took, err := lookup(t.Context(), th, "b", true, &reads); err != nil || took > MaxWait {
			t.Errorf("a valid key afterwards: %v after %s", err, took)
		}
		for i := range 2 * maxAddresses { // one miss each, slowly
			lookup(t.Context(), th, fmt.Sprint("slow ", i), false, &reads)
		}
		if n := len(th.byAddress); n > maxAddresses {
			t.Errorf("%d gates; want at most %d", n, maxAddresses)
		}
	})
}

func TestRefusedAndCancelledLookupsFreeTheirPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		th := New()
		for range perAddress.free + 4 {
			lookup(t.Context(), th, "a", false, &reads)
		}
		for range 3 * perAddress.places {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			if _, err := lookup(ctx, th, "a", false, &reads); err != ErrLimited {
				t.Errorf("%v; want %v", err, ErrLimited)
			}
			cancel()
		}
		if took, err := lookup(t.Context(), th, "a", true, &reads); err != nil || took > MaxWait {
			t.Errorf("%v after %s", err, took)
		}
		time.Sleep(time.Hour)
		lookup(t.Context(), th, "a", true, &reads)
		if g := th.byAddress["a"]; g != nil || th.all.running != 0 || len(th.all.waiting) != 0 {
			t.Errorf("gates remain in use: %+v %+v", g, th.all)
		}
	})
}
