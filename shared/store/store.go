// Package store reads and writes the Firestore documents shared by several parts of Parley: people, links, tokens,
// personalities, rules and conversations. Start at [Store]. [Collections] describes all collections, including those of
// other packages. The package knows nothing about the meaning of events.
package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/shared/config"
	"parley.internal/shared/identity"
)

// Connect opens a Firestore client for a deployment, or for the emulator that FIRESTORE_EMULATOR_HOST names.
func Connect(ctx context.Context, d config.Deployment, opts ...option.ClientOption) (*firestore.Client, error) {
	client, err := firestore.NewClientWithDatabase(ctx, d.Project, d.Database, opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to Firestore: %w", err)
	}
	return client, nil
}

// reachWait is the timeout of [Reach]. An operator waits for the answer at a terminal.
const reachWait = 15 * time.Second

// Reach returns an error if Firestore does not answer within 15 seconds. Without the timeout, the client library would
// retry forever and report nothing. Reach reads a document that does not exist: "not found" is an answer, too.
func Reach(ctx context.Context, client *firestore.Client) error {
	waiting, cancel := context.WithTimeout(ctx, reachWait)
	defer cancel()
	_, err := client.Collection("users").Doc(TokenHash("")).Get(waiting)
	if err == nil || status.Code(err) == codes.NotFound {
		return nil
	}
	if host := os.Getenv("FIRESTORE_EMULATOR_HOST"); host != "" {
		return fmt.Errorf("no Firestore emulator answers at %s (FIRESTORE_EMULATOR_HOST): %w", host, err)
	}
	return fmt.Errorf("reach Firestore: %w", err)
}

// Store reads and writes the collections of this package. A Store is safe for concurrent use.
type Store struct {
	client *firestore.Client
}

// New makes a store. The caller still owns the client and closes it.
func New(client *firestore.Client) *Store { return &Store{client: client} }

// User is what is known of a person. Operators may give a user document further fields; they stay.
type User struct {
	Provider              string               `firestore:"provider"`
	Email                 string               `firestore:"email,omitempty"`
	DisplayName           string               `firestore:"displayName,omitempty"`
	Roles                 []string             `firestore:"roles,omitempty"`     // all of them, whoever gave them
	RolesMeta             map[string][]string  `firestore:"rolesMeta,omitempty"` // by who gave them: a platform, or "manual"
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
	Recent                []Seen               `firestore:"recent,omitempty"`    // the last events counted, oldest first
	Cooldowns             map[string]time.Time `firestore:"cooldowns,omitempty"` // until when a rule stays silent, by a hash of rule and channel
}

// Seen is an event that was counted, with what was decided for it, so that a redelivery counts nothing and finds the
// same tags and the same rules.
type Seen struct {
	ID    string   `firestore:"id"`
	Tags  []string `firestore:"tags"`
	Rules []string `firestore:"rules,omitempty"` // ids of the rules that held
}

// Version tells which state of a document was read. The zero value means that there was no document.
type Version time.Time

// User reads a person's document. The version is zero if there is none.
func (s *Store) User(ctx context.Context, id identity.UserID) (User, Version, error) {
	snap, err := s.user(id).Get(ctx)
	if status.Code(err) == codes.NotFound {
		return User{}, Version{}, nil
	}
	if err != nil {
		return User{}, Version{}, fmt.Errorf("read user %s: %w", id, err)
	}
	var u User
	if err := snap.DataTo(&u); err != nil {
		return User{}, Version{}, fmt.Errorf("read user %s: %w", id, err)
	}
	return u, Version(snap.UpdateTime), nil
}

// UserByEmail finds the person with an e-mail address. The id is zero if there is none.
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
	var u User
	if err := snap.DataTo(&u); err != nil {
		return identity.UserID{}, User{}, Version{}, fmt.Errorf("read user %s: %w", id, err)
	}
	return id, u, Version(snap.UpdateTime), nil
}

// PutUser writes a person's document if it is still as it was when v was read, and fails with [ErrConflict] otherwise.
// Fields that are not [User]'s stay as they are.
func (s *Store) PutUser(ctx context.Context, id identity.UserID, u User, v Version) error {
	var err error
	if time.Time(v).IsZero() {
		_, err = s.user(id).Create(ctx, u)
	} else {
		_, err = s.user(id).Update(ctx, []firestore.Update{
			{Path: "provider", Value: u.Provider},
			{Path: "email", Value: optional(u.Email)},
			{Path: "displayName", Value: optional(u.DisplayName)},
			{Path: "roles", Value: u.Roles},
			{Path: "rolesMeta", Value: u.RolesMeta},
			{Path: "profile", Value: u.Profile},
			{Path: "tags", Value: u.Tags},
			{Path: "firstSeenAt", Value: u.FirstSeenAt},
			{Path: "lastSeenAt", Value: u.LastSeenAt},
			{Path: "lastMessageAt", Value: u.LastMessageAt},
			{Path: "messageCountAllTime", Value: u.MessageCountAllTime},
			{Path: "sessionCount", Value: u.SessionCount},
			{Path: "lastSessionId", Value: u.LastSessionID},
			{Path: "lastSessionStartedAt", Value: u.LastSessionStartedAt},
			{Path: "lastSessionActivityAt", Value: u.LastSessionActivityAt},
			{Path: "recent", Value: u.Recent},
			{Path: "cooldowns", Value: u.Cooldowns},
		}, firestore.LastUpdateTime(time.Time(v)))
	}
	switch status.Code(err) {
	case codes.OK:
		return nil
	case codes.AlreadyExists, codes.FailedPrecondition, codes.NotFound, codes.Aborted:
		return fmt.Errorf("write user %s: %w", id, ErrConflict)
	}
	return fmt.Errorf("write user %s: %w", id, err)
}

func (s *Store) user(id identity.UserID) *firestore.DocumentRef {
	return s.client.Collection("users").Doc(id.String())
}

// optional leaves a field out that has no value.
func optional(v string) any {
	if v == "" {
		return firestore.Delete
	}
	return v
}
