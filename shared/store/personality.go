package store

import (
	"context"
	"fmt"
	"time"
)

// Personality is a style for answers, written by an operator.
type Personality struct {
	ID        string    `firestore:"-"`
	Name      string    `firestore:"name"`
	Text      string    `firestore:"text"`
	Status    string    `firestore:"status"` // only personalities with [StatusActive] are used
	Version   int64     `firestore:"version,omitempty"`
	UpdatedAt time.Time `firestore:"updatedAt,omitempty"`
	Model     string    `firestore:"model,omitempty"` // name of the model; empty for the configured model
}

// StatusActive is the status of a personality in use.
const StatusActive = "active"

// Personality reads the active personality with a name, and reports whether it exists. Of several, the highest version
// wins.
func (s *Store) Personality(ctx context.Context, name string) (Personality, bool, error) {
	snaps, err := s.client.Collection("personalities").Where("name", "==", name).Where("status", "==", StatusActive).Documents(ctx).GetAll()
	if err != nil {
		return Personality{}, false, fmt.Errorf("read personality %q: %w", name, err)
	}
	var best Personality
	for _, snap := range snaps {
		var p Personality
		if err := snap.DataTo(&p); err != nil {
			return Personality{}, false, fmt.Errorf("read personality %s: %w", snap.Ref.ID, err)
		}
		p.ID = snap.Ref.ID
		if best.ID == "" || p.Version > best.Version {
			best = p
		}
	}
	return best, best.ID != "", nil
}
