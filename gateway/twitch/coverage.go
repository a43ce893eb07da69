package twitch

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"parley.internal/gateway/gap"
	"parley.internal/shared/identity"
	"parley.internal/shared/lease"
	"parley.internal/shared/retry"
)

// tasks lists the tasks for which the lease of a channel stores an idle-since time.
var tasks = []string{gap.Chat, gap.Events}

const (
	// maxGaps is the number of unstored gaps of a channel. A further gap extends the last one of its kind.
	maxGaps = 16
	// gapStoreTime bounds one write of gaps and idle-since times.
	gapStoreTime = 2 * time.Second
)

// coverage records the gaps in the reading of a channel, while this instance has the channel's lease. Twitch repeats
// nothing, so Parley at least records the loss.
//
// The lease stores the beginning of a gap until the gap itself is stored. If the instance dies in between, the next owner
// finds the beginning there.
type coverage struct {
	service *Service
	lease   lease.Lease
	wakeUp  chan struct{}

	mu        sync.Mutex
	idleSince map[string]time.Time // by task; zero for a running task
	stored    map[string]time.Time // the lease's values; absent if unknown; used by store alone
	gaps      []gap.Gap            // unstored gaps
}

func newCoverage(s *Service, l lease.Lease) *coverage {
	c := &coverage{service: s, lease: l, wakeUp: make(chan struct{}, 1), idleSince: map[string]time.Time{}, stored: map[string]time.Time{}}
	for _, task := range tasks {
		if since := l.IdleSince(task); !since.IsZero() {
			c.idleSince[task], c.stored[task] = since, since
		}
	}
	return c
}

// since returns the beginning of the gap left by the lease's previous owner; zero for no gap.
func (c *coverage) since(task string) time.Time {
	at := c.lease.IdleSince(task)
	if at.IsZero() {
		return at
	}
	return at.Add(-c.service.timing.publishDelay) // the previous owner may have died with unpublished events
}

// idle records the idle-since time of a task; zero after the task runs again and its gap is added.
func (c *coverage) idle(task string, since time.Time) {
	c.mu.Lock()
	c.idleSince[task] = since
	c.mu.Unlock()
	c.wake()
}

// addGap records a gap of a channel. channel has the form of events' channels. The lease of the bot covers several
// channels.
func (c *coverage) addGap(missed, channel string, from, to time.Time) {
	s := c.service
	g := gap.New(string(identity.Twitch), channel, missed, from, to, s.instance)
	s.metrics.gaps.Inc()
	s.metrics.gapSeconds.Add(g.To.Sub(g.From).Seconds())
	s.log.Warn("gap in coverage", "missed", missed, "channel", channel, "from", g.From, "to", g.To, "for", g.To.Sub(g.From))
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.gaps) >= maxGaps {
		for i, last := range slices.Backward(c.gaps) {
			if last.Channel == g.Channel && last.Missed == g.Missed {
				c.gaps[i] = gap.New(g.Platform, g.Channel, g.Missed, last.From, g.To, g.Instance)
				return
			}
		}
	}
	c.gaps = append(c.gaps, g)
	c.wake()
}

func (c *coverage) wake() {
	select {
	case c.wakeUp <- struct{}{}:
	default:
	}
}

// run stores recorded gaps until ctx is done, and once more at the end.
func (c *coverage) run(ctx context.Context) {
	steady := context.WithoutCancel(ctx)
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-c.wakeUp:
			if err := c.store(steady); err != nil {
				c.service.log.WarnContext(ctx, "storing gaps failed", "channel", c.lease.Key(), "error", err)
				_ = retry.Sleep(ctx, c.service.timing.retry) // the loop checks ctx
				c.wake()
			}
		}
	}
	if err := c.store(steady); err != nil {
		c.service.log.WarnContext(ctx, "storing gaps failed at the end of the lease", "channel", c.lease.Key(), "error", err)
	}
}

// store writes the gaps, and only then the idle-since times.
func (c *coverage) store(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, gapStoreTime)
	defer cancel()
	c.mu.Lock()
	gaps, idleSince := slices.Clone(c.gaps), maps.Clone(c.idleSince)
	c.mu.Unlock()
	for _, g := range gaps {
		if err := g.Put(ctx, c.service.firestore); err != nil {
			return err
		}
	}
	c.mu.Lock()
	c.gaps = slices.DeleteFunc(c.gaps, func(g gap.Gap) bool { return slices.Contains(gaps, g) })
	c.mu.Unlock()
	for task, since := range idleSince {
		if stored, ok := c.stored[task]; ok && stored.Equal(since) {
			continue
		}
		if err := c.lease.SetIdleSince(ctx, task, since); err != nil && !errors.Is(err, lease.ErrLost) {
			return err
		}
		c.stored[task] = since
	}
	return nil
}
