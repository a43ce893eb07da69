package instance

import (
	"context"
	"errors"
	"testing"
	"time"
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
