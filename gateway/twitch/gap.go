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
)

// tasks are what the lease of a channel tells since when nobody does it.
var tasks = []string{gap.Chat, gap.Events}

// maxGaps is how many gaps of a channel wait to be stored, each for itself; what comes then makes the last one longer.
const maxGaps = 16

// coverage keeps on record when nobody attends to what goes on in a channel, while this instance has its lease. Twitch
// tells nothing again, so what is missed is to be known at least.
//
// The beginning of an absence stands in the lease from when it is noticed until its gap is stored: whoever dies in it
// leaves it to the next owner.
type coverage struct {
	service *Service
	lease   lease.Lease
	woken   chan struct{}

	mu        sync.Mutex
	idleSince map[string]time.Time // by duty: since when nobody attends; zero if somebody does
	stored    map[string]time.Time // what the lease has of that; none if it may have anything
	gaps      []gap.Gap            // that are not stored yet
}

func newCoverage(s *Service, l lease.Lease) *coverage {
	a := &coverage{service: s, lease: l, woken: make(chan struct{}, 1), idleSince: map[string]time.Time{}, stored: map[string]time.Time{}}
	for _, duty := range tasks {
		if since := l.IdleSince(duty); !since.IsZero() {
			a.idleSince[duty], a.stored[duty] = since, since
		}
	}
	return a
}

// since is when what was missed by whoever had the lease before begins; zero if nothing was.
func (a *coverage) since(duty string) time.Time {
	at := a.lease.IdleSince(duty)
	if at.IsZero() {
		return at
	}
	return at.Add(-a.service.timing.publishDelay) // they may have died with something that they had heard
}

// idle notes since when nobody attends; zero if somebody does again, and the gap was noted.
func (a *coverage) idle(duty string, since time.Time) {
	a.mu.Lock()
	a.idleSince[duty] = since
	a.mu.Unlock()
	a.wake()
}

// addGap notes that a channel, as events have it, is attended to again after an absence. For the bot that is one of
// several.
func (a *coverage) addGap(what, channel string, from, to time.Time) {
	s := a.service
	g := gap.New(string(identity.Twitch), channel, what, from, to, s.instance)
	s.metrics.gaps.Inc()
	s.metrics.gapSeconds.Add(g.To.Sub(g.From).Seconds())
	s.log.Warn("nobody listened for a while: what happened is missed", "missed", what, "channel", channel, "from", g.From, "to", g.To, "for", g.To.Sub(g.From))
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.gaps) >= maxGaps {
		for i, last := range slices.Backward(a.gaps) {
			if last.Channel == g.Channel && last.Missed == g.Missed {
				a.gaps[i] = gap.New(g.Platform, g.Channel, g.Missed, last.From, g.To, g.Instance)
				return
			}
		}
	}
	a.gaps = append(a.gaps, g)
	a.wake()
}

func (a *coverage) wake() {
	select {
	case a.woken <- struct{}{}:
	default:
	}
}

// run stores what is noted until ctx is done, and then once more.
func (a *coverage) run(ctx context.Context) {
	steady := context.WithoutCancel(ctx)
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-a.woken:
			if err := a.store(steady); err != nil {
				a.service.log.WarnContext(ctx, "can't store what was missed; trying again", "channel", a.lease.Key(), "error", err)
				sleep(ctx, a.service.timing.retry)
				a.wake()
			}
		}
	}
	if err := a.store(steady); err != nil {
		a.service.log.WarnContext(ctx, "can't store what was missed; the lease tells the next owner", "channel", a.lease.Key(), "error", err)
	}
}

// store writes gaps before it says that nothing is missed any more.
func (a *coverage) store(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	a.mu.Lock()
	gaps, absent := slices.Clone(a.gaps), map[string]time.Time{}
	maps.Copy(absent, a.idleSince)
	a.mu.Unlock()
	for _, g := range gaps {
		if err := g.Put(ctx, a.service.firestore); err != nil {
			return err
		}
	}
	a.mu.Lock()
	a.gaps = slices.DeleteFunc(a.gaps, func(g gap.Gap) bool { return slices.Contains(gaps, g) })
	a.mu.Unlock()
	for duty, since := range absent {
		if stored, known := a.stored[duty]; known && stored.Equal(since) {
			continue
		}
		if err := a.lease.SetIdleSince(ctx, duty, since); err != nil && !errors.Is(err, lease.ErrLost) {
			return err
		}
		a.stored[duty] = since
	}
	return nil
}
