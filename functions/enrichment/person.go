package enrichment

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/maypok86/otter/v2"

	"parley.internal/shared/identity"
	"parley.internal/shared/store"
)

// maxCachedLinks is of how many ids it is remembered whose they are.
const maxCachedLinks = 50_000

// LinksConfig says how it is kept whose a platform's ids are.
type LinksConfig struct {
	TTL time.Duration `env:"IDENTITIES_CACHE_TTL" envDefault:"1m" help:"How long it is remembered to whom an id is linked, or that it is to nobody, before that is read again."`
}

// Validate checks what the types cannot.
func (c LinksConfig) Validate() error {
	if c.TTL < time.Second {
		return fmt.Errorf("IDENTITIES_CACHE_TTL: %s is less than 1s", c.TTL)
	}
	return nil
}

// subject is whom an event is about: the id by which a platform knows them, and the person whose document counts. They
// are the same, unless an operator linked the id to a person who is known by another.
type subject struct {
	id, person identity.UserID
}

func (s subject) linked() bool { return s.id != s.person }

// provider is the platform that knows who the event is about: what the person's document says, unless they are here by
// another of their ids.
func (s subject) provider(doc store.User) string {
	if s.linked() {
		return string(s.id.Platform())
	}
	return cmp.Or(doc.Provider, string(s.id.Platform()))
}

// cachedLink is what was read of an id.
type cachedLink struct {
	person identity.UserID
	until  time.Time
}

// personCache finds people, and remembers whose which id is.
type personCache struct {
	store Store
	ttl   time.Duration
	now   func() time.Time
	log   *slog.Logger
	links *otter.Cache[identity.UserID, cachedLink]
}

func newPersonCache(s Store, ttl time.Duration, now func() time.Time, log *slog.Logger) *personCache {
	return &personCache{store: s, ttl: ttl, now: now, log: log, links: otter.Must(&otter.Options[identity.UserID, cachedLink]{MaximumSize: maxCachedLinks})}
}

// find reads the document of the person whom an event is about. That is one call of Firestore, whether it is remembered
// whose the id is or not: then the link is read along. Only where it turns out to lead to somebody else than before are
// there two. A link is followed once: whether the person's own id is linked is not asked.
func (d *personCache) find(ctx context.Context, id identity.UserID) (subject, store.User, store.Version, error) {
	s := subject{id: id, person: id}
	k, remembered := d.links.GetIfPresent(id)
	if remembered {
		s.person = k.person
	}
	if remembered && d.now().Before(k.until) {
		u, v, err := d.store.User(ctx, s.person)
		return s, u, v, err
	}
	person, u, v, broken, err := d.store.LinkedUser(ctx, id, s.person)
	if err != nil {
		return subject{}, store.User{}, store.Version{}, err
	}
	if broken != nil {
		d.log.WarnContext(ctx, "a link is not followed", "user", id, "error", broken)
	}
	d.links.Set(id, cachedLink{person: person, until: d.now().Add(d.ttl)})
	if person != s.person {
		s.person = person
		u, v, err = d.store.User(ctx, person)
	}
	return s, u, v, err
}

// findByEmail reads the document with an e-mail address, or that of the person to whom its id is linked. The subject is
// zero if there is none.
func (d *personCache) findByEmail(ctx context.Context, address string) (subject, store.User, store.Version, error) {
	id, u, v, err := d.store.UserByEmail(ctx, address)
	if err != nil || id.IsZero() {
		return subject{}, store.User{}, store.Version{}, err
	}
	if k, ok := d.links.GetIfPresent(id); ok && k.person == id && d.now().Before(k.until) {
		return subject{id: id, person: id}, u, v, nil
	}
	return d.find(ctx, id)
}
