package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/api/iterator"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/shared/identity"
)

// User is a person's document. Operators may give the document further fields; writes leave those fields as they are.
type User struct {
	Provider              string               `firestore:"provider"`
	Email                 string               `firestore:"email,omitempty"`
	DisplayName           string               `firestore:"displayName,omitempty"`
	Roles                 []string             `firestore:"roles,omitempty"`     // all roles, from every source; see RolesMeta
	RolesMeta             map[string][]string  `firestore:"rolesMeta,omitempty"` // by source: a platform, or "manual"; see [User.ManualRoles]
	RolesIn               map[string][]string  `firestore:"rolesIn,omitempty"`   // by place: a Twitch channel (twitch:<login>) or a Discord guild (discord:<id>)
	Profile               map[string]string    `firestore:"profile,omitempty"`
	Tags                  []string             `firestore:"tags,omitempty"`
	Status                string               `firestore:"status,omitempty"`
	Notes                 string               `firestore:"notes,omitempty"`
	FirstSeenAt           time.Time            `firestore:"firstSeenAt,omitempty"`
	LastSeenAt            time.Time            `firestore:"lastSeenAt,omitempty"`
	LastMessageAt         time.Time            `firestore:"lastMessageAt,omitempty"`
	MessageCountAllTime   int64                `firestore:"messageCountAllTime"`
	SessionCount          int64                `firestore:"sessionCount"`
	LastSessionID         string               `firestore:"lastSessionId,omitempty"`
	LastSessionStartedAt  time.Time            `firestore:"lastSessionStartedAt,omitempty"`
	LastSessionActivityAt time.Time            `firestore:"lastSessionActivityAt,omitempty"`
	Recent                []Seen               `firestore:"-"`                   // the last counted events, oldest first
	Cooldowns             map[string]time.Time `firestore:"cooldowns,omitempty"` // end of a rule's pause, by a hash of rule and place
}

// Manual is the source in [User.RolesMeta] of roles given by an operator.
const Manual = "manual"

// ManualRoles returns the roles given by an operator, which count everywhere: under "manual" in RolesMeta, or without an
// entry in RolesMeta.
//
// A platform's roles in Roles and RolesMeta are those of the place heard last, whatever the place. They are kept for
// revisions without RolesIn only, and give no rights.
func (u User) ManualRoles() []string {
	explained := map[string]bool{}
	for _, list := range u.RolesMeta {
		for _, role := range list {
			explained[role] = true
		}
	}
	given := slices.Clone(u.RolesMeta[Manual])
	for _, role := range u.Roles {
		if !explained[role] {
			given = append(given, role)
		}
	}
	return given
}

// Blocked reports whether a person with this status gets no answers and no connection.
func Blocked(status string) bool {
	return strings.EqualFold(status, "blocked") || strings.EqualFold(status, "banned")
}

// userDocument is a user document with both forms of [User.Recent].
type userDocument struct {
	User
	Packed []byte       `firestore:"recentPacked,omitempty"` // all events, by packRecent
	Legacy []legacySeen `firestore:"recent,omitempty"`       // the newest legacyRecent, or all in a document of an older revision
}

func newUserDocument(u User) userDocument {
	return userDocument{User: u, Packed: packRecent(u.Recent), Legacy: legacyForm(u.Recent)}
}

// decodeUser reads an existing document.
func decodeUser(snap *firestore.DocumentSnapshot) (User, error) {
	var d userDocument
	if err := snap.DataTo(&d); err != nil {
		return User{}, fmt.Errorf("decode %s: %w", snap.Ref.ID, err)
	}
	d.Recent = mergeRecent(d.Packed, d.Legacy)
	return d.User, nil
}

// Version identifies the state of a document at a read. The zero value means that the document did not exist.
type Version time.Time

// User reads a person's document. The version is zero if the document does not exist.
func (s *Store) User(ctx context.Context, id identity.UserID) (User, Version, error) {
	snap, err := s.user(id).Get(ctx)
	if status.Code(err) == codes.NotFound {
		return User{}, Version{}, nil
	}
	if err != nil {
		return User{}, Version{}, fmt.Errorf("read user %s: %w", id, err)
	}
	u, err := decodeUser(snap)
	if err != nil {
		return User{}, Version{}, fmt.Errorf("read user %s: %w", id, err)
	}
	return u, Version(snap.UpdateTime), nil
}

// UserByEmail finds the person with an e-mail address. The id is zero if no document has the address.
func (s *Store) UserByEmail(ctx context.Context, email string) (identity.UserID, User, Version, error) {
	it := s.client.Collection("users").Where("email", "==", email).Limit(1).Documents(ctx)
	defer it.Stop()
	snap, err := it.Next()
	if errors.Is(err, iterator.Done) {
		return identity.UserID{}, User{}, Version{}, nil
	}
	if err != nil {
		return identity.UserID{}, User{}, Version{}, fmt.Errorf("find a user by e-mail: %w", err)
	}
	id, err := identity.Parse(snap.Ref.ID)
	if err != nil {
		return identity.UserID{}, User{}, Version{}, fmt.Errorf("find a user by e-mail: %w", err)
	}
	u, err := decodeUser(snap)
	if err != nil {
		return identity.UserID{}, User{}, Version{}, fmt.Errorf("find a user by e-mail: %w", err)
	}
	return id, u, Version(snap.UpdateTime), nil
}

// PutUser writes a person's document if the document is unchanged since v was read, and fails with [ErrConflict]
// otherwise. Only the fields that enrichment computes are written: tags, roles, counts, times and the like. Status,
// notes and fields unknown to [User] keep their stored values.
func (s *Store) PutUser(ctx context.Context, id identity.UserID, u User, v Version) error {
	var err error
	d := newUserDocument(u)
	if time.Time(v).IsZero() {
		_, err = s.user(id).Create(ctx, d)
	} else {
		_, err = s.user(id).Update(ctx, d.updates(), firestore.LastUpdateTime(time.Time(v)))
	}
	switch {
	case err == nil:
		return nil
	case IsConflict(err):
		return fmt.Errorf("write user %s: %w", id, ErrConflict)
	}
	return fmt.Errorf("write user %s: %w", id, err)
}

func (d *userDocument) updates() []firestore.Update {
	return []firestore.Update{
		{Path: "provider", Value: d.Provider},
		{Path: "email", Value: optional(d.Email)},
		{Path: "displayName", Value: optional(d.DisplayName)},
		{Path: "roles", Value: d.Roles},
		{Path: "rolesMeta", Value: d.RolesMeta},
		{Path: "rolesIn", Value: d.RolesIn},
		{Path: "profile", Value: d.Profile},
		{Path: "tags", Value: d.Tags},
		{Path: "firstSeenAt", Value: d.FirstSeenAt},
		{Path: "lastSeenAt", Value: d.LastSeenAt},
		{Path: "lastMessageAt", Value: d.LastMessageAt},
		{Path: "messageCountAllTime", Value: d.MessageCountAllTime},
		{Path: "sessionCount", Value: d.SessionCount},
		{Path: "lastSessionId", Value: d.LastSessionID},
		{Path: "lastSessionStartedAt", Value: d.LastSessionStartedAt},
		{Path: "lastSessionActivityAt", Value: d.LastSessionActivityAt},
		{Path: "recentPacked", Value: d.Packed},
		{Path: "recent", Value: d.Legacy},
		{Path: "cooldowns", Value: d.Cooldowns},
	}
}

func (s *Store) user(id identity.UserID) *firestore.DocumentRef {
	return s.client.Collection("users").Doc(id.String())
}

// optional returns v, or the mark that deletes the field if v is empty.
func optional(v string) any {
	if v == "" {
		return firestore.Delete
	}
	return v
}
