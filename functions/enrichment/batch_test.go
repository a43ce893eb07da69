package enrichment

import (
	"sync"
	"testing"
	"testing/synctest"
)

func TestWaitingCallsBecomeOneBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, ada, bob := newBatcher(), mustParse(t, "twitch:1"), mustParse(t, "twitch:2")
		release := make(chan struct{})
		var batches []int
		decide := func(batch []*request) {
			<-release
			batches = append(batches, len(batch)) // calls for one user never overlap
			for _, q := range batch {
				q.err = nil
			}
		}
		var calls sync.WaitGroup
		for range maxBatch + 2 {
			calls.Go(func() {
				q := &request{}
				if b.do(ada, q, decide); q.err != nil {
					t.Error(q.err)
				}
			})
			synctest.Wait()
		}
		b.do(bob, &request{}, func([]*request) {}) // does not wait for Ada
		close(release)
		calls.Wait()
		if len(batches) != 3 || batches[0] != 1 || batches[1] != maxBatch || batches[2] != 1 {
			t.Errorf("batches of %v; want 1, %d and 1", batches, maxBatch)
		}
		if len(b.waiting) != 0 {
			t.Errorf("%d users are still in the map", len(b.waiting))
		}
	})
}

func TestPanicReleasesTheBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, ada := newBatcher(), mustParse(t, "twitch:1")
		release := make(chan struct{})
		errs := make(chan error, 3)
		for i := range 3 { // alone, then a batch of two
			go func() {
				q := &request{}
				defer func() {
					recover()
					errs <- q.err
				}()
				b.do(ada, q, func([]*request) {
					<-release
					if i > 0 {
						panic("decide")
					}
				})
			}()
			synctest.Wait()
		}
		close(release)
		for range 3 {
			if err := <-errs; err != errAborted {
				t.Errorf("error = %v; want %v", err, errAborted)
			}
		}
		b.do(ada, &request{}, func([]*request) {})
	})
}
