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

// maxCachedLinks is the capacity of the identity-link cache.
const maxCachedLinks = 50_000

// LinksConfig configures the identity-link cache.
type LinksConfig struct {
	TTL time.Duration `env:"IDENTITIES_CACHE_TTL" envDefault:"1m" help:"How long an id's link, or its absence, is cached before it is read again; at least 1s."`
}

// Validate checks the ranges of the values.
func (c LinksConfig) Validate() error {
	if c.TTL < time.Second {
		return fmt.Errorf("IDENTITIES_CACHE_TTL: %s is less than 1s", c.TTL)
	}
	return nil
}

// subject is the user of an event: the id on the sending platform, and the person with the user document. Both are equal
// unless an operator linked the id to another person.
type subject struct {
	id, person identity.UserID
}

func (s subject) linked() bool { return s.id != s.person }

// provider returns the user's platform: for a linked id the platform of this id, otherwise the document's provider.
func (s subject) provider(doc store.User) string {
	if s.linked() {
		return string(s.id.Platform())
	}
	return cmp.Or(doc.Provider, string(s.id.Platform()))
}

// foundUser is a subject with the person's document.
type foundUser struct {
	subject
	doc     store.User
	version store.Version
}

// cachedLink is the person of an id as last read.
type cachedLink struct {
	person identity.UserID
	until  time.Time
}

// personCache finds people, and caches the person of each id.
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

// find reads the document of the person with an id. The read takes one Firestore call, even if the cached link has expired
// and is read again. A second call follows only if the link changed to another person. Links are followed
// once: a link of the person's own id is not read.
func (d *personCache) find(ctx context.Context, id identity.UserID) (foundUser, error) {
	s := foundUser{subject: subject{id: id, person: id}}
	k, remembered := d.links.GetIfPresent(id)
	if remembered {
		s.person = k.person
	}
	if remembered && d.now().Before(k.until) {
		var err error
		s.doc, s.version, err = d.store.User(ctx, s.person)
		return s, err
	}
	var broken, err error
	s.person, s.doc, s.version, broken, err = d.store.LinkedUser(ctx, id, s.person)
	if err != nil {
		return foundUser{}, err
	}
	if broken != nil {
		d.log.WarnContext(ctx, "identity link ignored", "user", id, "error", broken)
	}
	d.links.Set(id, cachedLink{person: s.person, until: d.now().Add(d.ttl)})
	return s, nil
}

// findByEmail reads the document with an e-mail address, or the document of the linked person. The result is zero if no
// document has the address.
func (d *personCache) findByEmail(ctx context.Context, address string) (foundUser, error) {
	id, u, v, err := d.store.UserByEmail(ctx, address)
	if err != nil || id.IsZero() {
		return foundUser{}, err
	}
	if k, ok := d.links.GetIfPresent(id); ok && k.person == id && d.now().Before(k.until) {
		return foundUser{subject{id: id, person: id}, u, v}, nil
	}
	return d.find(ctx, id)
}
