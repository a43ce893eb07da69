package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/shared/identity"
)

// Link says that a platform's id is a person who is known by another one: the document identities/{platform:id} of the
// former. Several ids may be linked to one person. A person's own id is never linked itself, so there is nothing to
// follow after one link.
type Link struct {
	ID       identity.UserID `firestore:"-"`
	User     string          `firestore:"user"` // whose document users/{platform:id} is theirs
	LinkedAt time.Time       `firestore:"linkedAt,omitempty"`
	LinkedBy string          `firestore:"linkedBy,omitempty"` // the operator
}

// Person reads who the link leads to. It fails with [identity.ErrInvalid] if the document names nobody, or itself.
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

// Why a link is not made or not removed.
var (
	ErrLinked    = errors.New("is linked already")
	ErrNotLinked = errors.New("is not linked")
)

// LinkedUser reads at once to whom an id is linked, and the document of the person whom it is expected to be: the same
// id, or whom it was linked to last. person is who it is; only if it is the expected one are the document and its version
// those of the person, and otherwise they are to be read by [Store.User]. A link that can't be followed counts as none,
// and broken says what is wrong with it.
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
	if person == expected && snaps[1].Exists() {
		if u, err = decodeUser(snaps[1]); err != nil {
			return fail(fmt.Errorf("read user %s: %w", expected, err))
		}
		v = Version(snaps[1].UpdateTime)
	}
	return person, u, v, broken, nil
}

// Link makes l.ID an id of the person l.User, and notes by whom. It fails with [ErrLinked] where that would replace a
// link, or make a chain of two: if the person's id is itself linked to somebody, or somebody is linked to l.ID. Linking
// again what is linked so already changes nothing.
func (s *Store) Link(ctx context.Context, l Link) error {
	person, err := l.Person()
	if err != nil {
		return err
	}
	err = s.client.RunTransaction(ctx, func(ctx context.Context, tx *firestore.Transaction) error {
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

// Unlink makes an id a person of its own again, with the document that it had before, and tells whose it was. The roles
// that its platform gave go from that person's document, unless another of their ids is of that platform; what was
// counted stays. It fails with [ErrNotLinked].
func (s *Store) Unlink(ctx context.Context, id identity.UserID) (identity.UserID, error) {
	var person identity.UserID
	err := s.client.RunTransaction(ctx, func(ctx context.Context, tx *firestore.Transaction) error {
		person = identity.UserID{}
		snap, err := tx.Get(s.link(id))
		if status.Code(err) == codes.NotFound {
			return fmt.Errorf("it %w", ErrNotLinked)
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
			return tx.Delete(s.link(id)) // it was never followed
		}
		known, err := tx.Get(s.user(person))
		if status.Code(err) == codes.NotFound {
			return tx.Delete(s.link(id))
		}
		if err != nil {
			return err
		}
		var u User
		if err := known.DataTo(&u); err != nil {
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
		if platform := string(id.Platform()); !still && len(u.RolesMeta[platform]) > 0 {
			roles := withoutRoles(u, platform)
			delete(u.RolesMeta, platform)
			if err := tx.Update(s.user(person), []firestore.Update{{Path: "roles", Value: roles}, {Path: "rolesMeta", Value: u.RolesMeta}}); err != nil {
				return err
			}
		}
		return tx.Delete(s.link(id))
	})
	if err != nil {
		return identity.UserID{}, fmt.Errorf("unlink %s: %w", id, err)
	}
	return person, nil
}

// withoutRoles are a person's roles except those that a platform alone gave.
func withoutRoles(u User, platform string) []string {
	return slices.DeleteFunc(slices.Clone(u.Roles), func(role string) bool {
		if !slices.Contains(u.RolesMeta[platform], role) {
			return false
		}
		for who, given := range u.RolesMeta {
			if who != platform && slices.Contains(given, role) {
				return false
			}
		}
		return true
	})
}

// Links reads the links to a person, or all if person is zero, in the order of the ids. A document whose name is no id is
// left out.
func (s *Store) Links(ctx context.Context, person identity.UserID) ([]Link, error) {
	q := s.client.Collection("identities").Query
	if !person.IsZero() {
		q = q.Where("user", "==", person.String())
	}
	snaps, err := q.Documents(ctx).GetAll()
	if err != nil {
		return nil, fmt.Errorf("read the links: %w", err)
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
