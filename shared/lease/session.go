package lease

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/shared/retry"
	"parley.internal/shared/store"
)

// session is the membership of an instance, from the first heartbeat to the last. The id is random and never reused.
type session struct {
	id        string
	limit     time.Duration // validity after a heartbeat: TTL minus Margin
	now       func() time.Time
	lost      context.Context // done when the session is lost
	lose      context.CancelCauseFunc
	renewedAt atomic.Pointer[time.Time] // start of the last successful heartbeat, by this instance's clock

	version time.Time // update time of the document; only keepAlive uses it
}

// elapsed returns the time since the start of the last successful heartbeat. The monotonic clock stops while a machine
// sleeps; the wall clock can be set back. The longer of the two durations is the safe one.
func (s *session) elapsed() time.Duration {
	at, now := *s.renewedAt.Load(), s.now()
	return max(now.Sub(at), now.Round(0).Sub(at.Round(0)))
}

func (s *session) valid() bool { return s.lost.Err() == nil && s.elapsed() < s.limit }

// join begins a session. The session is nil if the group already has MaxMembers members.
func (m *Manager) join(ctx context.Context) (*session, error) {
	alive, err := m.aliveMembers(ctx)
	if err != nil {
		return nil, err
	}
	m.members.Store(int64(len(alive)))
	if len(alive) >= m.config.MaxMembers {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, m.config.TTL/2)
	defer cancel()
	s := &session{id: m.kind + "." + rand.Text(), limit: m.config.TTL - m.config.Margin(), now: m.now}
	began := m.now()
	res, err := m.memberDoc(s.id).Create(ctx, memberDoc{
		Kind: m.kind, Instance: m.instance, TTL: int64(m.config.TTL), Idle: int64(m.idle()), ExpireAt: began.Add(retention),
	})
	m.metrics.writes.WithLabelValues("join").Inc()
	if err != nil {
		return nil, fmt.Errorf("begin a session: %w", err) // if the session was stored nevertheless, it ends by its TTL
	}
	s.version = res.UpdateTime
	s.renewedAt.Store(&began)
	return s, nil
}

// keepAlive writes the heartbeats of a session until ctx is done or the session is lost.
func (m *Manager) keepAlive(ctx context.Context, s *session) {
	wait := m.jittered(m.config.Heartbeat)
	for {
		left := s.limit - s.elapsed()
		if left <= 0 {
			s.lose(ErrLost)
			return
		}
		if retry.Sleep(ctx, min(wait, left)) != nil {
			return
		}
		if left = s.limit - s.elapsed(); left <= 0 {
			continue
		}
		wait = m.jittered(m.config.Heartbeat)
		if err := m.heartbeat(ctx, s, left); errors.Is(err, ErrLost) {
			s.lose(ErrLost)
			return
		} else if err != nil && ctx.Err() == nil {
			m.metrics.heartbeats.WithLabelValues("failed").Inc()
			m.log.WarnContext(ctx, "heartbeat failed", "error", err, "leasesEndIn", s.limit-s.elapsed())
			wait = m.config.Heartbeat / 4
		}
	}
}

// heartbeat renews the session. The error is [ErrLost] if a different instance has ended the session.
func (m *Manager) heartbeat(ctx context.Context, s *session, left time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, min(left, m.config.Heartbeat))
	defer cancel()
	began := m.now()
	res, err := m.memberDoc(s.id).Update(ctx, []firestore.Update{
		{Path: "beat", Value: firestore.ServerTimestamp},
		{Path: "idle", Value: int64(m.idle())},
		{Path: "expireAt", Value: began.Add(retention)},
	}, firestore.LastUpdateTime(s.version))
	switch {
	case err == nil:
		s.version = res.UpdateTime
		s.renewedAt.Store(&began)
		m.metrics.heartbeats.WithLabelValues("ok").Inc()
		return nil
	case !store.IsConflict(err):
		return err
	}
	// The last write was either an earlier heartbeat of this session, stored although the answer was lost, or the end of
	// the session by a different instance. When the earlier heartbeat started is not known, so only the next heartbeat
	// prolongs the session.
	snap, err := m.memberDoc(s.id).Get(ctx)
	if status.Code(err) == codes.NotFound {
		return ErrLost
	}
	if err != nil {
		return err
	}
	now, err := decodeMember(snap)
	if err == nil && now.ended {
		return ErrLost
	}
	s.version = snap.UpdateTime
	return cmp.Or(err, errors.New("the session's document changed meanwhile; the next heartbeat follows soon"))
}

// leave ends the session in Firestore, and so frees all leases at once.
func (m *Manager) leave(ctx context.Context, s *session) {
	ctx, cancel := context.WithTimeout(ctx, m.config.Heartbeat)
	defer cancel()
	_, err := m.memberDoc(s.id).Update(ctx, []firestore.Update{{Path: "ended", Value: true}, {Path: "beat", Value: firestore.ServerTimestamp}})
	m.metrics.writes.WithLabelValues("leave").Inc()
	if err != nil {
		m.log.WarnContext(ctx, "leave failed: the leases end with their TTL", "error", err)
	}
}
