// Package retry waits between attempts. [Sleep] ends early with its context, and [Backoff] computes exponential pauses.
// The caller decides whether an error is worth another attempt.
package retry

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Sleep waits for d, or until ctx is done. It returns nil after d, and the context's error otherwise. For zero or less,
// Sleep does not wait, and still returns the error of an ended context.
func Sleep(ctx context.Context, d time.Duration) error {
	_, err := SleepUnless(ctx, d, nil)
	return err
}

// SleepUnless is [Sleep] that also ends with a value from wakeUp, and then returns early = true. A value that is there
// already ends the sleep at once. For zero or less, SleepUnless takes no value.
func SleepUnless(ctx context.Context, d time.Duration, wakeUp <-chan struct{}) (early bool, err error) {
	if err := ctx.Err(); err != nil || d <= 0 {
		return false, err
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return false, nil
	case <-wakeUp:
		return true, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// Backoff computes exponential pauses with jitter. Each pause is random between half and one and a half times its
// base. The base doubles from the minimum to the maximum. Make a Backoff by [NewBackoff]: the zero value is not ready for
// use. A Backoff is not safe for concurrent use.
type Backoff struct {
	exponential backoff.ExponentialBackOff
}

// NewBackoff makes a back-off. first is the base of the first pause, most the largest base; both must be positive.
func NewBackoff(first, most time.Duration) *Backoff {
	b := &Backoff{backoff.ExponentialBackOff{InitialInterval: first, MaxInterval: most, Multiplier: 2, RandomizationFactor: 0.5}}
	b.Reset()
	return b
}

// Next returns the next pause and doubles the base.
func (b *Backoff) Next() time.Duration { return b.exponential.NextBackOff() }

// Reset starts again at the first base, as after a success.
func (b *Backoff) Reset() { b.exponential.Reset() }

// Wait sleeps for the next pause, as [Sleep] does.
func (b *Backoff) Wait(ctx context.Context) error { return Sleep(ctx, b.Next()) }
