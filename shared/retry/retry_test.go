package retry_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"parley.internal/shared/retry"
)

func ExampleBackoff() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	backoff := retry.NewBackoff(time.Millisecond, 10*time.Millisecond)
	for attempt := 1; ; attempt++ {
		if attempt == 3 { // stands for a call that succeeds at last
			fmt.Println("succeeded at attempt", attempt)
			return
		}
		if err := backoff.Wait(ctx); err != nil {
			fmt.Println("gave up:", err)
			return
		}
	}
	// Output: succeeded at attempt 3
}

func TestPausesDoubleUpToTheMaximumWithJitter(t *testing.T) {
	for range 100 {
		b := retry.NewBackoff(100*time.Millisecond, time.Second)
		for round := range 2 {
			for i, base := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
				base *= time.Millisecond
				if got := b.Next(); got < base/2 || got > base*3/2 {
					t.Fatalf("round %d: pause %d is %s; want %s to %s", round, i, got, base/2, base*3/2)
				}
			}
			b.Reset()
		}
	}
}

func TestSleepEndsAfterItsTimeOrWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		for _, tt := range []struct {
			name  string
			ctx   context.Context
			sleep time.Duration
			took  time.Duration
			want  error
		}{
			{"to its end", t.Context(), time.Hour, time.Hour, nil},
			{"not at all", t.Context(), 0, 0, nil},
			{"less than not at all", t.Context(), -time.Second, 0, nil},
			{"with a context that is done", ended, time.Hour, 0, context.Canceled},
			{"nothing, with a context that is done", ended, 0, 0, context.Canceled},
		} {
			start := time.Now()
			if err := retry.Sleep(tt.ctx, tt.sleep); !errors.Is(err, tt.want) || time.Since(start) != tt.took {
				t.Errorf("%s: %v after %s; want %v after %s", tt.name, err, time.Since(start), tt.want, tt.took)
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := retry.Sleep(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("with a context that ends: %v after %s; want the context's error after 1s", err, time.Since(start))
		}
	})
}

func TestSleepUnlessEndsWithAValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wakeUp := make(chan struct{}, 1)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		for _, tt := range []struct {
			name  string
			ctx   context.Context
			value time.Duration // when the value comes; negative for never
			sleep time.Duration
			took  time.Duration
			early bool
			want  error
		}{
			{"without a value", t.Context(), -1, time.Hour, time.Hour, false, nil},
			{"with a value", t.Context(), time.Minute, time.Hour, time.Minute, true, nil},
			{"with a value that is there", t.Context(), 0, time.Hour, 0, true, nil},
			{"not at all", t.Context(), 0, 0, 0, false, nil},
			{"with a context that is done", ended, -1, time.Hour, 0, false, context.Canceled},
		} {
			for len(wakeUp) > 0 {
				<-wakeUp
			}
			switch {
			case tt.value == 0:
				wakeUp <- struct{}{}
			case tt.value > 0:
				time.AfterFunc(tt.value, func() { wakeUp <- struct{}{} })
			}
			start := time.Now()
			early, err := retry.SleepUnless(tt.ctx, tt.sleep, wakeUp)
			if early != tt.early || !errors.Is(err, tt.want) || time.Since(start) != tt.took {
				t.Errorf("%s: %t, %v after %s; want %t, %v after %s", tt.name, early, err, time.Since(start), tt.early, tt.want, tt.took)
			}
		}
	})
}
