package personality

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/errgroup"

	"parley.internal/shared/event"
	"parley.internal/shared/store"
)

// resolved is the combined content of an event's personalities.
type resolved struct {
	texts []string // in the order of the instruction
	model string   // of the first personality with a model; empty for the configured model
	counts
}

// counts holds statistics about an event's personality annotations. They are logged, because metrics of a Cloud Function
// cannot be scraped.
type counts struct {
	resolved, failed, dropped, clamped int
	hits, misses                       int // of the cache
}

// LogValue returns the counts as a log group.
func (c counts) LogValue() slog.Value {
	return slog.GroupValue(
		slog.Int("resolved", c.resolved), slog.Int("failed", c.failed), slog.Int("dropped", c.dropped),
		slog.Int("clamped", c.clamped), slog.Int("cacheHits", c.hits), slog.Int("cacheMisses", c.misses),
	)
}

// findFunc reads a personality by name.
type findFunc func(ctx context.Context, name string) (p store.Personality, found bool, err error)

// personalityCache caches personalities by name, including their absence.
type personalityCache struct {
	find  findFunc
	cache *otter.Cache[string, cachedPersonality]
}

// cachedPersonality is a personality as last read, or its absence.
type cachedPersonality struct {
	personality store.Personality
	found       bool
}

// maxCached is the capacity of the cache. It is bounded, because names come from events.
const maxCached = 1000

func newPersonalityCache(find findFunc, ttl time.Duration, now func() time.Time) *personalityCache {
	return &personalityCache{find: find, cache: otter.Must(&otter.Options[string, cachedPersonality]{
		MaximumSize:      maxCached,
		ExpiryCalculator: otter.ExpiryWriting[string, cachedPersonality](ttl),
		Clock:            clock{now},
	})}
}

// clock makes a cache use the function's clock.
type clock struct{ now func() time.Time }

func (c clock) NowNano() int64 { return c.now().UnixNano() }

// Tick returns a channel without ticks: expired entries are removed by later calls.
func (clock) Tick(time.Duration) <-chan time.Time { return nil }

// lookupTimeout bounds one read of a personality.
const lookupTimeout = 10 * time.Second

// lookup returns a personality; hit reports a cached result. Concurrent lookups of one name share one read.
func (d *personalityCache) lookup(ctx context.Context, name string) (l cachedPersonality, hit bool, err error) {
	if l, ok := d.cache.GetIfPresent(name); ok {
		return l, true, nil
	}
	l, err = d.cache.Get(ctx, name, otter.LoaderFunc[string, cachedPersonality](func(ctx context.Context, name string) (cachedPersonality, error) {
		// Other events may wait for this read, so the context of one event must not cancel it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupTimeout)
		defer cancel()
		p, found, err := d.find(ctx, name)
		return cachedPersonality{p, found}, err
	}))
	return l, false, err
}

// resolve returns the texts of an event's personalities. Missing personalities are skipped and counted. A failed read is
// an error.
func (d *personalityCache) resolve(ctx context.Context, annotations []event.Annotation, c PromptConfig) (resolved, error) {
	chosen, dropped := promptSpecs(annotations, c.MaxAnnotations)
	found := make([]store.Personality, len(chosen))
	var hits, misses atomic.Int64
	var g errgroup.Group
	for i, w := range chosen {
		switch {
		case w.text != "":
			found[i].Text = w.text
		case w.name != "":
			g.Go(func() error {
				l, hit, err := d.lookup(ctx, w.name)
				switch {
				case err != nil:
					return err
				case hit:
					hits.Add(1)
				default:
					misses.Add(1)
				}
				found[i] = l.personality
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		return resolved{}, fmt.Errorf("resolve the personalities: %w", err)
	}
	s := resolved{counts: counts{dropped: dropped, hits: int(hits.Load()), misses: int(misses.Load())}}
	for _, p := range found {
		text, cut := clamp(p.Text, c.MaxChars)
		if blank(text) {
			s.failed++
			continue
		}
		s.resolved++
		if cut {
			s.clamped++
		}
		s.texts = append(s.texts, text)
		if s.model == "" {
			s.model = p.Model
		}
	}
	return s, nil
}
