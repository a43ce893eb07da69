package twitch

import (
	"context"
	"slices"
	"sync"
	"time"
)

// limits are how fast the account may do things, all its connections together
// (https://dev.twitch.tv/docs/chat/#twitch-chatbot-rate-limits).
type limits struct {
	joins             int           // in joinWindow
	messages          int           // in sayWindow, where it is neither broadcaster nor moderator
	moderatorMessages int           // in sayWindow, all channels together
	spacing           time.Duration // between two messages of a channel where it is neither
	joinWindow        time.Duration
	messageWindow     time.Duration
}

// limitsOf are Twitch's, with a little more time for the way there: what leaves a second apart may arrive closer.
func limitsOf(verified bool) limits {
	l := limits{joins: 20, messages: 20, moderatorMessages: 100, spacing: 1100 * time.Millisecond, joinWindow: 10500 * time.Millisecond, messageWindow: 31 * time.Second}
	if verified {
		l.joins, l.messages, l.moderatorMessages = 2000, 7500, 7500
	}
	return l
}

// pacer makes one kind of act wait until it may be done. The instances that share the account each take their part of
// what it may, as nobody counts for all of them.
type pacer struct {
	window time.Duration
	share  func(limit int) int // this instance's part of a limit

	mu    sync.Mutex
	times []time.Time          // of what was done within the window, oldest first
	last  map[string]time.Time // by channel
	now   func() time.Time
}

func newPacer(window time.Duration, share func(limit int) int) *pacer {
	return &pacer{window: window, share: share, last: map[string]time.Time{}, now: time.Now}
}

// wait returns when one more may be done: at most limit within the window, and spacing after the last one in the same
// channel. It counts as done then.
func (p *pacer) wait(ctx context.Context, channel string, limit int, spacing time.Duration) error {
	for {
		d := p.take(channel, limit, spacing)
		if d <= 0 {
			return nil
		}
		if sleep(ctx, d); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// begin tells that what was waited for begins only now, so that the next in the channel keeps its distance to that.
func (p *pacer) begin(channel string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last[channel] = p.now()
}

// take counts one more if it may be done now; else it tells when to ask again.
func (p *pacer) take(channel string, limit int, spacing time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	p.times = slices.DeleteFunc(p.times, func(t time.Time) bool { return now.Sub(t) >= p.window })
	limit = max(1, p.share(limit))
	if n := len(p.times); n >= limit {
		return p.window - now.Sub(p.times[n-limit])
	}
	if last, ok := p.last[channel]; ok && now.Sub(last) < spacing {
		return spacing - now.Sub(last)
	}
	p.times = append(p.times, now)
	p.last[channel] = now
	return 0
}
