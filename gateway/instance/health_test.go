package instance

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"parley.internal/shared/retry"
)

func TestStoreCheckCachesItsResult(t *testing.T) {
	now, reads := time.Unix(0, 0), 0
	down := errors.New("store is down")
	var answer error
	c := &storeCheck{now: func() time.Time { return now }, read: func(context.Context) error { reads++; return answer }}
	for _, step := range []struct {
		after     time.Duration
		store     error
		want      error
		wantReads int
	}{
		{0, nil, nil, 1},
		{time.Second, down, nil, 1},
		{storeCheckTTL, down, down, 2},
		{time.Second, nil, down, 2},
		{storeCheckTTL, nil, nil, 3},
	} {
		now, answer = now.Add(step.after), step.store
		if err := c.check(t.Context()); !errors.Is(err, step.want) || reads != step.wantReads {
			t.Errorf("after %s: %v with %d reads; want %v with %d", now.Sub(time.Unix(0, 0)), err, reads, step.want, step.wantReads)
		}
	}
}

func TestStoreCheckOutlivesItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, test := range []struct {
			name string
			took time.Duration // by the store
			want error
		}{
			{"the store answers", time.Second, nil},
			{"the store does not answer", time.Hour, context.DeadlineExceeded},
		} {
			c := &storeCheck{now: time.Now, read: func(ctx context.Context) error { return retry.Sleep(ctx, test.took) }}
			stranger, hangUp := context.WithTimeout(t.Context(), time.Millisecond)
			defer hangUp()
			c.check(stranger)
			began := time.Now()
			if err := c.check(t.Context()); !errors.Is(err, test.want) || time.Since(began) != 0 {
				t.Errorf("%s: the next caller got %v after %s; want %v at once", test.name, err, time.Since(began), test.want)
			}
		}
	})
}
