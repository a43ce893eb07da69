package lease

import (
	"context"
	"fmt"
	"time"

	"cloud.google.com/go/firestore"

	"parley.internal/shared/store"
)

// memberDoc is the document leaseMembers/{session}.
type memberDoc struct {
	Kind      string    `firestore:"kind"`
	Instance  string    `firestore:"instance"`
	TTL       int64     `firestore:"ttl"` // nanoseconds; stored per member, because releases with different TTLs can share keys
	Ended     bool      `firestore:"ended"`
	Heartbeat time.Time `firestore:"beat,serverTimestamp"`
	Idle      int64     `firestore:"idle"`     // nanoseconds; see [Options.Idle]
	ExpireAt  time.Time `firestore:"expireAt"` // the collection's TTL field
}

// member is the session of any instance, as read from Firestore.
type member struct {
	id        string
	instance  string
	updatedAt time.Time // time of the last write, by Firestore's clock
	readAt    time.Time // time of the read, by Firestore's clock
	ttl       time.Duration
	ended     bool
}

func (m member) alive() bool { return !m.ended && m.readAt.Sub(m.updatedAt) <= m.ttl }

func (m *Manager) memberDoc(session string) *firestore.DocumentRef {
	return m.client.Collection("leaseMembers").Doc(session)
}

func decodeMember(snap *firestore.DocumentSnapshot) (member, error) {
	var d memberDoc
	if err := snap.DataTo(&d); err != nil {
		return member{}, fmt.Errorf("read session %s: %w", snap.Ref.ID, err)
	}
	return member{id: snap.Ref.ID, instance: d.Instance, updatedAt: snap.UpdateTime, readAt: snap.ReadTime, ttl: time.Duration(d.TTL), ended: d.Ended}, nil
}

// aliveMembers reads the sessions of all instances, ends each session past its TTL, and returns the rest.
func (m *Manager) aliveMembers(ctx context.Context) ([]member, error) {
	ctx, cancel := context.WithTimeout(ctx, m.config.TTL/2)
	defer cancel()
	snaps, err := m.client.Collection("leaseMembers").Where("kind", "==", m.kind).Where("ended", "==", false).Documents(ctx).GetAll()
	if err != nil {
		return nil, fmt.Errorf("read the members: %w", err)
	}
	var alive []member
	for _, snap := range snaps {
		s, err := decodeMember(snap)
		if err != nil {
			return nil, err
		}
		if s.alive() {
			alive = append(alive, s)
			continue
		}
		if err := m.endSession(ctx, s); err != nil {
			return nil, err
		}
	}
	return alive, nil
}

// endSession ends the session of a dead instance, unless the session was renewed or ended meanwhile.
func (m *Manager) endSession(ctx context.Context, dead member) error {
	// The field beat stays as the time of the last heartbeat.
	_, err := m.memberDoc(dead.id).Update(ctx, []firestore.Update{{Path: "ended", Value: true}}, firestore.LastUpdateTime(dead.updatedAt))
	switch {
	case store.IsConflict(err):
		return nil
	case err != nil:
		return fmt.Errorf("end session %s: %w", dead.id, err)
	}
	m.metrics.writes.WithLabelValues("end").Inc()
	m.log.WarnContext(ctx, "session expired: its leases are free", "of", dead.instance, "lastHeartbeat", dead.updatedAt)
	return nil
}
