package lease

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/shared/store"
)

// The causes of the end of a holder's context, besides the end of the context given to [Manager.Run].
var (
	// ErrLost reports a lost lease: the heartbeats did not reach Firestore in time, so a different instance may own
	// the key.
	ErrLost = errors.New("the lease is lost: no heartbeat of this instance reached Firestore in time")
	// ErrMoved reports that the key is now assigned to a different instance, or is no longer in the list of keys.
	ErrMoved = errors.New("the lease moves to another instance, or the key is not in use any more")
)

// errUncertain is wrapped by an error after which the claim may be stored nevertheless.
var errUncertain = errors.New("the write may be stored nevertheless")

// Lease is the right to do the work of a key. A Lease is safe for concurrent use.
type Lease struct {
	manager   *Manager
	session   *session
	key       string
	token     int64
	idleSince map[string]time.Time // by task, as read when the lease was claimed
	released  *atomic.Bool
	record    *record
}

// record is the last known state of an owned lease's document.
type record struct {
	mu      sync.Mutex // held during a write of the document
	version time.Time  // update time of the document
}

// Key returns the key of the lease.
func (l Lease) Key() string { return l.key }

// Token returns the fencing token. The token grows with each lease of a key, across all instances. If two instances
// claim to own a key, the instance with the greater token is right.
func (l Lease) Token() int64 { return l.token }

// IdleSince returns the time since which no instance is known to have done a task of [Options.Tasks]:
//
//   - the time stored by an owner with [Lease.SetIdleSince], if an owner stored one;
//   - otherwise, the time of the first claim, if no owner ever called SetIdleSince;
//   - otherwise, the end of the work of the last owner that did the task, by Firestore's clock: the release of the lease,
//     or the last heartbeat minus [Options.Idle].
//
// The time is zero if the key never had an owner, or if Firestore has already deleted the documents that told the time.
func (l Lease) IdleSince(task string) time.Time { return l.idleSince[task] }

// SetIdleSince stores the time since which no instance does a task. Zero means that the task is being done, and that
// every earlier gap is recorded elsewhere. If an owner does not call SetIdleSince, the next owner reads the same time as
// this owner. So a gap is not forgotten if an owner dies before it has closed or recorded the gap. The error is
// [ErrLost] if a different instance owns the lease.
func (l Lease) SetIdleSince(ctx context.Context, task string, since time.Time) error {
	update := firestore.Update{FieldPath: firestore.FieldPath{"vacant", task}, Value: since}
	if since.IsZero() {
		update.Value = firestore.Delete
	}
	if err := l.manager.write(ctx, l, update); err != nil {
		return fmt.Errorf("store the idle-since time of %s for %s: %w", task, l.key, err)
	}
	l.manager.metrics.writes.WithLabelValues("vacancy").Inc()
	return nil
}

// Valid reports whether the lease is still exclusive. Valid does no I/O; call Valid immediately before each action.
func (l Lease) Valid() bool { return l.session != nil && !l.released.Load() && l.session.valid() }

// leaseDoc is the document leases/{kind}:{key}. A write happens when a lease begins or ends, and when an idle-since
// time changes. While a lease is owned, the document has no expireAt.
type leaseDoc struct {
	Kind      string               `firestore:"kind"`
	Key       string               `firestore:"key"`
	Session   string               `firestore:"session"` // empty if the lease is free
	Instance  string               `firestore:"instance"`
	Token     int64                `firestore:"token"`
	At        time.Time            `firestore:"at,serverTimestamp"`
	IdleSince map[string]time.Time `firestore:"vacant,omitempty"`   // by task
	ExpireAt  time.Time            `firestore:"expireAt,omitempty"` // the collection's TTL field
}

func (m *Manager) leaseRef(key string) *firestore.DocumentRef {
	return m.client.Collection("leases").Doc(m.kind + ":" + escape(key))
}

// escape turns any text into a part of a document id. Names of channels stay as they are, so that operators can find
// them. Any other key, for example a key with a slash, is encoded.
func escape(key string) string {
	plain := key != "" && !strings.ContainsFunc(key, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-' && r != '.'
	})
	if plain {
		return key
	}
	return "~" + base64.RawURLEncoding.EncodeToString([]byte(key))
}

// acquire claims a key for a session. The lease is zero if another session owns the key.
//
// After an error that wraps errUncertain, the caller must call acquire again until it returns no error. Every write is
// conditional on the document's update time. So after a later write has succeeded, the uncertain write can't.
func (m *Manager) acquire(ctx context.Context, s *session, key string) (Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, m.config.TTL/2)
	defer cancel()
	fail := func(err error) (Lease, error) { return Lease{}, fmt.Errorf("claim the lease of %s: %w", key, err) }
	snap, err := m.leaseRef(key).Get(ctx)
	if err != nil && status.Code(err) != codes.NotFound {
		return fail(err)
	}
	var before leaseDoc
	if snap.Exists() {
		if err := snap.DataTo(&before); err != nil {
			return fail(err)
		}
	}
	free, endedAt, err := m.lastOwner(ctx, s, before, snap.ReadTime)
	if err != nil {
		return fail(err)
	}
	if !free {
		return Lease{}, nil
	}
	after := leaseDoc{
		Kind: m.kind, Key: key, Session: s.id, Instance: m.instance, IdleSince: map[string]time.Time{},
		// The token starts at Firestore's clock, and so grows even after Firestore has deleted the document of an
		// unused key.
		Token: max(before.Token+1, snap.ReadTime.UnixMicro()),
	}
	idleSince := map[string]time.Time{}
	for _, task := range m.tasks {
		if since := cmp.Or(before.IdleSince[task], endedAt); !since.IsZero() {
			idleSince[task] = since
		}
		after.IdleSince[task] = cmp.Or(idleSince[task], snap.ReadTime) // for the next owner, if this owner never does the task
	}
	version, err := m.storeClaim(ctx, snap, after)
	if err != nil {
		// Also after a conflict: the first writer may be an earlier attempt of the client library itself.
		return fail(fmt.Errorf("%w: %w", errUncertain, err))
	}
	m.metrics.writes.WithLabelValues("take").Inc()
	return Lease{
		manager: m, session: s, key: key, token: after.Token, idleSince: idleSince,
		released: new(atomic.Bool), record: &record{version: version},
	}, nil
}

// lastOwner reports whether a session can claim the lease in a document read at readAt, and when the work of the last
// owner ended. endedAt is zero if that time is unknown.
func (m *Manager) lastOwner(ctx context.Context, s *session, d leaseDoc, readAt time.Time) (free bool, endedAt time.Time, err error) {
	switch d.Session {
	case "":
		return true, d.At, nil
	case s.id:
		return true, readAt, nil // an earlier claim of this session was stored, but the answer was lost
	}
	snap, err := m.memberDoc(d.Session).Get(ctx)
	if status.Code(err) == codes.NotFound {
		return true, time.Time{}, nil // Firestore has deleted the session
	}
	if err != nil {
		return false, time.Time{}, err
	}
	var owner memberDoc
	if err := snap.DataTo(&owner); err != nil {
		return false, time.Time{}, err
	}
	if !owner.Ended {
		return false, time.Time{}, nil // a dead session is first ended by endSession
	}
	return true, owner.Heartbeat.Add(-time.Duration(owner.Idle)), nil
}

// storeClaim writes a claim if the document is still as in snap, and returns the document's new update time.
func (m *Manager) storeClaim(ctx context.Context, snap *firestore.DocumentSnapshot, d leaseDoc) (time.Time, error) {
	ref := m.leaseRef(d.Key)
	var res *firestore.WriteResult
	var err error
	if snap.Exists() {
		res, err = ref.Update(ctx, []firestore.Update{
			{Path: "session", Value: d.Session},
			{Path: "instance", Value: d.Instance},
			{Path: "token", Value: d.Token},
			{Path: "at", Value: firestore.ServerTimestamp},
			{Path: "vacant", Value: d.IdleSince},
			{Path: "expireAt", Value: firestore.Delete},
		}, firestore.LastUpdateTime(snap.UpdateTime))
	} else {
		res, err = ref.Create(ctx, d)
	}
	if err != nil {
		return time.Time{}, err
	}
	return res.UpdateTime, nil
}

// write changes the document of an owned lease. The error is [ErrLost] if a different instance owns the lease.
func (m *Manager) write(ctx context.Context, l Lease, updates ...firestore.Update) error {
	ctx, cancel := context.WithTimeout(ctx, m.config.TTL/2)
	defer cancel()
	l.record.mu.Lock()
	defer l.record.mu.Unlock()
	ref := m.leaseRef(l.key)
	for {
		res, err := ref.Update(ctx, updates, firestore.LastUpdateTime(l.record.version))
		if err == nil {
			l.record.version = res.UpdateTime
		}
		if !store.IsConflict(err) {
			return err
		}
		// Either a different instance has claimed the lease, or an earlier write of this instance was stored, but the answer
		// was lost.
		snap, err := ref.Get(ctx)
		if status.Code(err) == codes.NotFound {
			return ErrLost
		}
		var now leaseDoc
		if err == nil {
			err = snap.DataTo(&now)
		}
		if err != nil {
			return err
		}
		if now.Session != l.session.id || now.Token != l.token {
			return ErrLost
		}
		l.record.version = snap.UpdateTime
	}
}

// release gives a lease back while the session continues, and retries until the write is stored or ctx is done. When
// the session ends, ctx ends too; all leases of the session are then free without a write for each.
func (m *Manager) release(ctx context.Context, l Lease) {
	for ctx.Err() == nil {
		err := m.write(ctx, l,
			firestore.Update{Path: "session", Value: ""},
			firestore.Update{Path: "at", Value: firestore.ServerTimestamp},
			firestore.Update{Path: "expireAt", Value: m.now().Add(retention)})
		m.metrics.writes.WithLabelValues("release").Inc()
		if err == nil || errors.Is(err, ErrLost) {
			return
		}
		if ctx.Err() == nil {
			m.log.WarnContext(ctx, "lease release failed", "key", l.key, "error", err)
		}
		m.pause(ctx)
	}
}
