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

// resolved is what an event's personalities come to.
type resolved struct {
	texts []string // in the order in which they are told
	model string   // the model that the first personality which names one wants; empty for the configured one
	counts
}

// counts tells what became of an event's personality annotations. A function can't be scraped, so they go into its logs.
type counts struct {
	resolved, failed, dropped, clamped int
	hits, misses                       int // of the cache
}

// LogValue is the counts as the log shows them.
func (c counts) LogValue() slog.Value {
	return slog.GroupValue(
		slog.Int("resolved", c.resolved), slog.Int("failed", c.failed), slog.Int("dropped", c.dropped),
		slog.Int("clamped", c.clamped), slog.Int("cacheHits", c.hits), slog.Int("cacheMisses", c.misses),
	)
}

// findFunc looks a personality up by its name.
type findFunc func(ctx context.Context, name string) (p store.Personality, found bool, err error)

// personalityCache remembers personalities by name, also that there is none of a name.
type personalityCache struct {
	find  findFunc
	cache *otter.Cache[string, cachedPersonality]
}

type cachedPersonality struct {
	personality store.Personality
	found       bool
}

// maxCached bounds the directory: names come from events, of which there is no end.
const maxCached = 1000

func newPersonalityCache(find findFunc, ttl time.Duration, now func() time.Time) *personalityCache {
	return &personalityCache{find: find, cache: otter.Must(&otter.Options[string, cachedPersonality]{
		MaximumSize:      maxCached,
		ExpiryCalculator: otter.ExpiryWriting[string, cachedPersonality](ttl),
		Clock:            clock{now},
	})}
}

// clock has a cache go by the function's clock.
type clock struct{ now func() time.Time }

func (c clock) NowNano() int64 { return c.now().UnixNano() }

// Tick gives no ticks: what expired is removed by later calls.
func (clock) Tick(time.Duration) <-chan time.Time { return nil }

// lookupTimeout bounds one read of a personality.
const lookupTimeout = 10 * time.Second

// lookup finds a personality; hit tells that it was remembered. Several who look for one name at a time read once.
func (d *personalityCache) lookup(ctx context.Context, name string) (l cachedPersonality, hit bool, err error) {
	if l, ok := d.cache.GetIfPresent(name); ok {
		return l, true, nil
	}
	l, err = d.cache.Get(ctx, name, otter.LoaderFunc[string, cachedPersonality](func(ctx context.Context, name string) (cachedPersonality, error) {
		// others may wait for this read: it doesn't end with the event that happened to ask first
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupTimeout)
		defer cancel()
		p, found, err := d.find(ctx, name)
		return cachedPersonality{p, found}, err
	}))
	return l, false, err
}

// resolve finds the texts of an event's personalities. What doesn't exist is left out and counted; not being able to
// look is an error.
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
