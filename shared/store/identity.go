package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/shared/identity"
)

// Link connects a second platform id to the id of a person: the document identities/{platform:id} of the second id.
// Several ids may be linked to a person. The person's own id is never linked, so a link never leads to a second link.
type Link struct {
	ID       identity.UserID `firestore:"-"`
	User     string          `firestore:"user"` // the person's own id, as in users/{platform:id}
	LinkedAt time.Time       `firestore:"linkedAt,omitempty"`
	LinkedBy string          `firestore:"linkedBy,omitempty"` // the operator
}

// Person parses the person's id. The error is [identity.ErrInvalid] if the id is malformed, or equal to the linked id.
func (l Link) Person() (identity.UserID, error) {
	person, err := identity.Parse(l.User)
	if err != nil {
		return identity.UserID{}, fmt.Errorf("identities/%s: user: %w", l.ID, err)
	}
	if person == l.ID {
		return identity.UserID{}, fmt.Errorf("identities/%s: user: %w: linked to itself", l.ID, identity.ErrInvalid)
	}
	return person, nil
}

// LinkedUser reads the link of an id, and the document of the linked person with its version, as [Store.User] does.
// expected is the caller's guess of the person: the id itself, or the person to whom the id was linked at the last read. A
// right guess takes a single request, a wrong one takes a second request. A malformed link counts as no link; broken is
// then the reason, and otherwise nil.
func (s *Store) LinkedUser(ctx context.Context, id, expected identity.UserID) (person identity.UserID, u User, v Version, broken, err error) {
	fail := func(err error) (identity.UserID, User, Version, error, error) {
		return identity.UserID{}, User{}, Version{}, nil, err
	}
	snaps, err := s.client.GetAll(ctx, []*firestore.DocumentRef{s.link(id), s.user(expected)})
	if err != nil {
		return fail(fmt.Errorf("read user %s: %w", id, err))
	}
	person = id
	if snaps[0].Exists() {
		l := Link{}
		if broken = snaps[0].DataTo(&l); broken == nil {
			l.ID = id
			person, broken = l.Person()
		}
		if broken != nil {
			person = id
		}
	}
	switch {
	case person != expected:
		if u, v, err = s.User(ctx, person); err != nil {
			return fail(err)
		}
	case snaps[1].Exists():
		if u, err = decodeUser(snaps[1]); err != nil {
			return fail(fmt.Errorf("read user %s: %w", expected, err))
		}
		v = Version(snaps[1].UpdateTime)
	}
	return person, u, v, broken, nil
}

// Link stores a link from l.ID to the person l.User. The error is [ErrLinked] if the link would replace a different link,
// or if it would make a chain: the person's id is itself linked, or l.ID is the target of links. Repeating a link changes
// nothing.
func (s *Store) Link(ctx context.Context, l Link) error {
	person, err := l.Person()
	if err != nil {
		return err
	}
	err = RunTransaction(ctx, s.client, func(ctx context.Context, tx *firestore.Transaction) error {
		snaps, err := tx.GetAll([]*firestore.DocumentRef{s.link(l.ID), s.link(person)})
		if err != nil {
			return err
		}
		if snaps[1].Exists() {
			return fmt.Errorf("%s %w, to %v: link to that", person, ErrLinked, snaps[1].Data()["user"])
		}
		if snaps[0].Exists() {
			if before := snaps[0].Data()["user"]; before != l.User {
				return fmt.Errorf("%s %w, to %v: unlink it first", l.ID, ErrLinked, before)
			}
			return nil
		}
		others, err := tx.Documents(s.client.Collection("identities").Where("user", "==", l.ID.String()).Limit(1)).GetAll()
		if err != nil {
			return err
		}
		if len(others) > 0 {
			return fmt.Errorf("%s %w, by %s: unlink that first", l.ID, ErrLinked, others[0].Ref.ID)
		}
		return tx.Create(s.link(l.ID), l)
	})
	if err != nil {
		return fmt.Errorf("link %s to %s: %w", l.ID, person, err)
	}
	return nil
}

// Unlink removes the link of an id and returns the former person. The id is a separate person again, with its own
// earlier document. The roles given by the id's platform are removed from the former person's document, unless the person
// still has an id on the same platform. Message counts stay. The error is [ErrNotLinked] for an id without a link.
func (s *Store) Unlink(ctx context.Context, id identity.UserID) (identity.UserID, error) {
	var person identity.UserID
	err := RunTransaction(ctx, s.client, func(ctx context.Context, tx *firestore.Transaction) error {
		person = identity.UserID{}
		snap, err := tx.Get(s.link(id))
		if status.Code(err) == codes.NotFound {
			return fmt.Errorf("the id %w", ErrNotLinked)
		}
		if err != nil {
			return err
		}
		l := Link{}
		if snap.DataTo(&l) == nil {
			l.ID = id
			person, _ = l.Person()
		}
		if person.IsZero() {
			return tx.Delete(s.link(id)) // malformed, so without effect
		}
		doc, err := tx.Get(s.user(person))
		if status.Code(err) == codes.NotFound {
			return tx.Delete(s.link(id))
		}
		if err != nil {
			return err
		}
		var u User
		if err := doc.DataTo(&u); err != nil {
			return err
		}
		others, err := tx.Documents(s.client.Collection("identities").Where("user", "==", l.User)).GetAll()
		if err != nil {
			return err
		}
		still := person.Platform() == id.Platform() || slices.ContainsFunc(others, func(o *firestore.DocumentSnapshot) bool {
			other, err := identity.Parse(o.Ref.ID)
			return err == nil && other != id && other.Platform() == id.Platform()
		})
		if !still {
			if changes := withoutPlatform(u, string(id.Platform())); len(changes) > 0 {
				if err := tx.Update(s.user(person), changes); err != nil {
					return err
				}
			}
		}
		return tx.Delete(s.link(id))
	})
	if err != nil {
		return identity.UserID{}, fmt.Errorf("unlink %s: %w", id, err)
	}
	return person, nil
}

// withoutPlatform returns the changes of a person's document that remove the roles given by a platform.
func withoutPlatform(u User, platform string) []firestore.Update {
	var changes []firestore.Update
	if len(u.RolesMeta[platform]) > 0 {
		roles := withoutRoles(u, platform)
		delete(u.RolesMeta, platform)
		changes = append(changes, firestore.Update{Path: "roles", Value: roles}, firestore.Update{Path: "rolesMeta", Value: u.RolesMeta})
	}
	kept := maps.Clone(u.RolesIn)
	maps.DeleteFunc(kept, func(place string, _ []string) bool { return strings.HasPrefix(place, platform+":") })
	if len(kept) < len(u.RolesIn) {
		changes = append(changes, firestore.Update{Path: "rolesIn", Value: kept})
	}
	return changes
}

// withoutRoles returns a person's roles, except for roles that only the given platform has granted.
func withoutRoles(u User, platform string) []string {
	return slices.DeleteFunc(slices.Clone(u.Roles), func(role string) bool {
		if !slices.Contains(u.RolesMeta[platform], role) {
			return false
		}
		for source, given := range u.RolesMeta {
			if source != platform && slices.Contains(given, role) {
				return false
			}
		}
		return true
	})
}

// Links reads the links to a person, or all links for the zero id, sorted by id. A document with a malformed name is
// left out.
func (s *Store) Links(ctx context.Context, person identity.UserID) ([]Link, error) {
	q := s.client.Collection("identities").Query
	if !person.IsZero() {
		q = q.Where("user", "==", person.String())
	}
	snaps, err := q.Documents(ctx).GetAll()
	if err != nil {
		return nil, fmt.Errorf("read links: %w", err)
	}
	var all []Link
	for _, snap := range snaps {
		id, err := identity.Parse(snap.Ref.ID)
		if err != nil {
			continue
		}
		var l Link
		if err := snap.DataTo(&l); err != nil {
			return nil, fmt.Errorf("read identities/%s: %w", id, err)
		}
		l.ID = id
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b Link) int { return strings.Compare(a.ID.String(), b.ID.String()) })
	return all, nil
}

func (s *Store) link(id identity.UserID) *firestore.DocumentRef {
	return s.client.Collection("identities").Doc(id.String())
}
