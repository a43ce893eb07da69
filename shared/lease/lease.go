// Package lease lets several instances share work of which each piece, a key, must be done by one of them at a time:
// the channels of a chat platform, of which each is read and answered by one gateway instance.
//
// Documents in Firestore:
//
//	leaseMembers/{session}   an instance that takes part: it writes its own document every [Config.Heartbeat]
//	leases/{kind}:{key}      which session has a key, and the lease's token
//
// A lease holds as long as its session does, so that an instance renews all its leases with one write. A session whose
// beat is older than its own [Config.TTL] is ended by whoever sees that first; its leases are then free. An ended
// session never comes back: a beat is written under the condition that nobody else wrote the document, so an instance
// that was paused, or cut off, finds its session ended and begins another.
//
// Every write is made under such a condition, and none in a transaction: Firestore would keep what a transaction has
// read locked for as long as a minute after the instance that began it died or was cut off
// (https://cloud.google.com/firestore/quotas, "Writes and transactions"), and nobody could take its leases.
//
// All times that are compared across instances are Firestore's: when a document was written against when it was read
// (https://firebase.google.com/docs/firestore/reference/rpc/google.firestore.v1#document). An instance's own clock only
// measures how long ago it began its last beat. It counts its leases as lost [Config.Margin] before anybody else may.
//
// Which instance wants which key follows from the sessions that are alive (rendezvous hashing,
// https://www.cs.umich.edu/~jwha/papers/hrw.pdf): when one comes or goes, only its own keys move. Instances may differ
// for a while in what they believe is alive; then two want a key, and one has it.
package lease

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Config says how fast leases move. What a second instance sees of a crash takes TTL and a Beat at most.
//
// A session costs a write, and a read for each session, every Beat: two instances at 2.5 s about 70,000 writes and
// 140,000 reads a day, however many keys they share.
type Config struct {
	TTL        time.Duration `env:"LEASE_TTL" envDefault:"10s" help:"An instance that Firestore has not heard of for this long has lost its channels."`
	Heartbeat  time.Duration `env:"LEASE_BEAT" envDefault:"2500ms" help:"How often an instance tells Firestore that it is alive, and looks who else is."`
	MaxMembers int           `env:"LEASE_SEATS" envDefault:"8" help:"So many instances share the channels; further ones wait until one leaves. Every instance reads all others' beats, so the cost grows with the square."`
}

// Validate checks what the types cannot.
func (c Config) Validate() error {
	var errs []error
	if c.Heartbeat < time.Millisecond || c.TTL < 3*c.Heartbeat {
		errs = append(errs, fmt.Errorf("LEASE_BEAT: %s is not between 1ms and a third of LEASE_TTL (%s)", c.Heartbeat, c.TTL))
	}
	if c.MaxMembers < 1 || c.MaxMembers > 500 {
		errs = append(errs, fmt.Errorf("LEASE_SEATS: %d is not between 1 and 500", c.MaxMembers))
	}
	return errors.Join(errs...)
}

// Margin is how long before others may take its leases an instance counts them as lost. It has to be more than clocks
// drift apart within a TTL, and than lies between asking [Lease.Valid] and acting on it.
func (c Config) Margin() time.Duration { return c.TTL / 5 }

// The causes with which the context of a hold ends, beside that of the context that was given to Run.
var (
	ErrLost  = errors.New("the lease is lost: Firestore has not heard of this instance for too long")
	ErrMoved = errors.New("the lease goes to another instance, or its key is not wanted any more")
)

// Lease is the right to do the work of one key. It is safe for concurrent use.
type Lease struct {
	manager *Manager
	session *session
	key     string
	token   int64
	vacant  map[string]time.Time // as it was taken
	over    *atomic.Bool
	record  *record
}

// record is the document of a lease that is had.
type record struct {
	mu      sync.Mutex // held while it is written
	version time.Time
}

// Key is what the lease is for.
func (l Lease) Key() string { return l.key }

// Token grows from each lease of a key to the next, whoever has it: of two who believe they have it, the greater is
// right.
func (l Lease) Token() int64 { return l.token }

// IdleSince is since when nobody is known to have done one of [Options.Tasks]: since the last owner was heard of, by
// Firestore's clock, or what an owner said by [Lease.SetIdleSince]; since the first owner took the key if none ever said
// anything. It is zero if nobody ever had the key, or too long ago for anybody to know.
func (l Lease) IdleSince(duty string) time.Time { return l.vacant[duty] }

// SetIdleSince stores since when nobody does a duty; zero says that it is done, and that what was missed is on record
// elsewhere. Until that was said the next owner is told what this one was told: an owner that dies before it could make
// up for an absence, or note it, does not make it forgotten. The error is [ErrLost] if the lease is another's.
func (l Lease) SetIdleSince(ctx context.Context, duty string, since time.Time) error {
	update := firestore.Update{FieldPath: firestore.FieldPath{"vacant", duty}, Value: since}
	if since.IsZero() {
		update.Value = firestore.Delete
	}
	if err := l.manager.write(ctx, l, update); err != nil {
		return fmt.Errorf("store since when nobody does the %s of %s: %w", duty, l.key, err)
	}
	l.manager.metrics.writes.WithLabelValues("vacancy").Inc()
	return nil
}

// Valid reports whether nobody else can have the key now. It asks nobody: it is to be called right before each act.
func (l Lease) Valid() bool { return l.session != nil && !l.over.Load() && l.session.valid() }

// Options are what a manager is given beside its configuration.
type Options struct {
	Log     *slog.Logger          // needed
	Metrics prometheus.Registerer // needed; several managers of one kind can't share one
	// Now is the clock by which durations are measured; time.Now if nil. Its offset does not matter.
	Now func() time.Time
	// Tasks are the parts of a key's work of which it matters since when nobody does them: see [Lease.IdleSince].
	Tasks []string
	// Idle is for how long it is not known that the work of all keys is done: since when nothing came on the connection
	// that they share, which may be dead. It is stored with each beat, and what a dead owner's key is vacant since is so
	// much before its last beat. Always 0 if nil.
	Idle func() time.Duration
}

// Manager takes part in sharing the keys of one kind.
type Manager struct {
	client   *firestore.Client
	kind     string
	instance string
	config   Config
	log      *slog.Logger
	now      func() time.Time
	duties   []string
	idle     func() time.Duration
	metrics  *metrics
	members  atomic.Int64
	balance  atomic.Pointer[balance] // nil while it takes no part
}

// New makes a manager for an instance, on a client that stays the caller's to close. kind names what the keys are:
// "twitch". Instances that share keys must have the same configuration.
func New(client *firestore.Client, kind, instance string, c Config, o Options) (*Manager, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	m := &Manager{
		client: client, kind: kind, instance: instance, config: c, log: o.Log.With("leases", kind), now: o.Now, duties: o.Tasks, idle: o.Idle,
	}
	if m.now == nil {
		m.now = time.Now
	}
	if m.idle == nil {
		m.idle = func() time.Duration { return 0 }
	}
	var err error
	m.metrics, err = newMetrics(kind, o.Metrics, m.Moving)
	return m, err
}

// Members is how many sessions were alive when it last looked; at least 1. This manager's own is among them once it
// takes part.
func (m *Manager) Members() int { return max(1, int(m.members.Load())) }

// Moving is how many leases this instance is to have and has not yet, and is giving up and has still, given the
// [Manager.Members]. Where it is 0 on all instances, and all see the same members, each key is where it stays.
func (m *Manager) Moving() int {
	b := m.balance.Load()
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	moving := 0
	for _, key := range b.mine {
		if h := b.held[key]; h == nil || !h.had {
			moving++
		}
	}
	for key, h := range b.held {
		if h.had && !slices.Contains(b.mine, key) {
			moving++
		}
	}
	return moving
}

// Holder does the work of a key until ctx ends, and then returns soon: the lease is given back when it does. If it
// returns before, the key is taken again by whoever should have it.
type Holder func(ctx context.Context, l Lease)

// retention is how long Firestore keeps what nobody uses any more (the TTL policies of both collections).
const retention = 24 * time.Hour

// Run takes part until ctx is done: hold is called, in a goroutine of its own, for each of the keys that this instance
// has. When ctx is done, every hold's context ends, and once all have returned their leases are free at once, and Run
// returns. While Firestore can't be reached it goes on trying. keys is asked again at every beat.
func (m *Manager) Run(ctx context.Context, keys func() []string, hold Holder) {
	for {
		s, err := m.join(ctx)
		if err == nil && s != nil {
			m.serve(ctx, s, keys, hold)
		}
		if err != nil && ctx.Err() == nil {
			m.log.WarnContext(ctx, "can't take part in sharing", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(m.soon(m.config.Heartbeat)):
		}
	}
}

// soon is d, or up to a fifth less, so that instances that started together don't write together.
func (m *Manager) soon(d time.Duration) time.Duration { return d - rand.N(d/5+1) }

// session is an instance's part from its first beat to its last. It is known by a random id, never twice.
type session struct {
	id     string
	limit  time.Duration
	now    func() time.Time
	lose   context.CancelCauseFunc
	lost   context.Context
	beatAt atomic.Pointer[time.Time] // when the last beat that Firestore took was begun, by the own clock

	version time.Time // of the document, as it was last written; the keeper's alone
}

// elapsed is how long ago the last beat was begun. The monotonic clock stands still while a machine sleeps, the wall
// clock may be set back: the longer of the two is the safe one.
func (s *session) elapsed() time.Duration {
	at, now := *s.beatAt.Load(), s.now()
	return max(now.Sub(at), now.Round(0).Sub(at.Round(0)))
}

func (s *session) valid() bool { return s.lost.Err() == nil && s.elapsed() < s.limit }

// memberDoc is leaseMembers/{session}.
type memberDoc struct {
	Kind     string    `firestore:"kind"`
	Instance string    `firestore:"instance"`
	TTL      int64     `firestore:"ttl"` // nanoseconds; its own, so that instances of different releases can share
	Ended    bool      `firestore:"ended"`
	Beat     time.Time `firestore:"beat,serverTimestamp"`
	Idle     int64     `firestore:"idle"`     // nanoseconds
	ExpireAt time.Time `firestore:"expireAt"` // the collection's TTL field
}

// leaseDoc is leases/{kind}:{key}. It is written when a lease begins and ends, and when it changes what is vacant; so a
// lease that holds has no expireAt.
type leaseDoc struct {
	Kind     string               `firestore:"kind"`
	Key      string               `firestore:"key"`
	Session  string               `firestore:"session"` // empty if it is free
	Instance string               `firestore:"instance"`
	Token    int64                `firestore:"token"`
	At       time.Time            `firestore:"at,serverTimestamp"`
	Vacant   map[string]time.Time `firestore:"vacant,omitempty"`   // by duty: since when nobody does it
	ExpireAt time.Time            `firestore:"expireAt,omitempty"` // the collection's TTL field
}

// member is a session as it was seen.
type member struct {
	id       string
	instance string
	beat     time.Time // by Firestore's clock, as is read
	read     time.Time
	ttl      time.Duration
	ended    bool
}

func (m member) alive() bool { return !m.ended && m.read.Sub(m.beat) <= m.ttl }

func (m *Manager) memberDoc(session string) *firestore.DocumentRef {
	return m.client.Collection("leaseMembers").Doc(session)
}

// leaseRef escapes the key, which may hold a slash or be too long to be seen apart, by encoding it where it has to be.
func (m *Manager) leaseRef(key string) *firestore.DocumentRef {
	return m.client.Collection("leases").Doc(m.kind + ":" + escape(key))
}

// escape makes any text into a part of a document id. Names of channels stay as they are, so that people find them.
func escape(key string) string {
	plain := key != "" && !strings.ContainsFunc(key, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-' && r != '.'
	})
	if plain {
		return key
	}
	return "~" + base64.RawURLEncoding.EncodeToString([]byte(key))
}

func memberOf(snap *firestore.DocumentSnapshot) (member, error) {
	var d memberDoc
	if err := snap.DataTo(&d); err != nil {
		return member{}, fmt.Errorf("read session %s: %w", snap.Ref.ID, err)
	}
	return member{id: snap.Ref.ID, instance: d.Instance, beat: snap.UpdateTime, read: snap.ReadTime, ttl: time.Duration(d.TTL), ended: d.Ended}, nil
}

// look finds the sessions that have not ended, and ends those that should have.
func (m *Manager) look(ctx context.Context) ([]member, error) {
	ctx, cancel := context.WithTimeout(ctx, m.config.TTL/2)
	defer cancel()
	snaps, err := m.client.Collection("leaseMembers").Where("kind", "==", m.kind).Where("ended", "==", false).Documents(ctx).GetAll()
	if err != nil {
		return nil, fmt.Errorf("look for sessions: %w", err)
	}
	var alive []member
	for _, snap := range snaps {
		s, err := memberOf(snap)
		if err != nil {
			return nil, err
		}
		if s.alive() {
			alive = append(alive, s)
			continue
		}
		if err := m.end(ctx, s); err != nil {
			return nil, err
		}
	}
	return alive, nil
}

// end ends a session that has not been heard of, if it still has not.
func (m *Manager) end(ctx context.Context, dead member) error {
	// beat stays, and tells when it was last heard of
	_, err := m.memberDoc(dead.id).Update(ctx, []firestore.Update{{Path: "ended", Value: true}}, firestore.LastUpdateTime(dead.beat))
	switch {
	case isOutrun(err):
		return nil
	case err != nil:
		return fmt.Errorf("end session %s: %w", dead.id, err)
	}
	m.metrics.writes.WithLabelValues("end").Inc()
	m.log.WarnContext(ctx, "an instance has not been heard of: its leases are free", "of", dead.instance, "lastBeat", dead.beat)
	return nil
}

// isOutrun reports whether somebody else wrote or removed a document since it was read.
func isOutrun(err error) bool {
	switch status.Code(err) {
	case codes.FailedPrecondition, codes.Aborted, codes.NotFound, codes.AlreadyExists:
		return true
	}
	return false
}

// join begins a session. It is nil if all seats are taken.
func (m *Manager) join(ctx context.Context) (*session, error) {
	alive, err := m.look(ctx)
	if err != nil {
		return nil, err
	}
	m.members.Store(int64(len(alive)))
	if len(alive) >= m.config.MaxMembers {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, m.config.TTL/2)
	defer cancel()
	s := &session{id: m.kind + "." + token(), limit: m.config.TTL - m.config.Margin(), now: m.now}
	began := m.now()
	res, err := m.memberDoc(s.id).Create(ctx, memberDoc{
		Kind: m.kind, Instance: m.instance, TTL: int64(m.config.TTL), Idle: int64(m.idle()), ExpireAt: began.Add(retention),
	})
	m.metrics.writes.WithLabelValues("join").Inc()
	if err != nil {
		return nil, fmt.Errorf("begin a session: %w", err) // if it was written all the same, it ends by itself
	}
	s.version = res.UpdateTime
	s.beatAt.Store(&began)
	return s, nil
}

// keep writes the session's beats until ctx is done or the session is lost.
func (m *Manager) keep(ctx context.Context, s *session) {
	wait := m.soon(m.config.Heartbeat)
	for {
		left := s.limit - s.elapsed()
		if left <= 0 {
			s.lose(ErrLost)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(wait, left)):
		}
		if left = s.limit - s.elapsed(); left <= 0 {
			continue
		}
		wait = m.soon(m.config.Heartbeat)
		if err := m.beat(ctx, s, left); errors.Is(err, ErrLost) {
			s.lose(ErrLost)
			return
		} else if err != nil && ctx.Err() == nil {
			m.metrics.beats.WithLabelValues("failed").Inc()
			m.log.WarnContext(ctx, "beat failed", "error", err, "leasesEndIn", s.limit-s.elapsed())
			wait = m.config.Heartbeat / 4
		}
	}
}

func (m *Manager) beat(ctx context.Context, s *session, left time.Duration) error {
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
		s.beatAt.Store(&began)
		m.metrics.beats.WithLabelValues("ok").Inc()
		return nil
	case !isOutrun(err):
		return err
	}
	// Somebody wrote the document: an earlier beat of ours, whose answer was lost, or one who ended the session. When
	// the earlier beat was begun is not known, so it prolongs nothing; the next one does.
	snap, err := m.memberDoc(s.id).Get(ctx)
	if status.Code(err) == codes.NotFound {
		return ErrLost
	}
	if err != nil {
		return err
	}
	now, err := memberOf(snap)
	if err == nil && now.ended {
		return ErrLost
	}
	s.version = snap.UpdateTime
	return cmp.Or(err, errors.New("somebody else wrote it; trying again"))
}

// serve shares the keys until the session is lost or ctx is done. When it returns, no hold is under way.
func (m *Manager) serve(ctx context.Context, s *session, keys func() []string, hold Holder) {
	steady := context.WithoutCancel(ctx) // leases hold while the holds return
	s.lost, s.lose = context.WithCancelCause(steady)
	defer s.lose(nil)
	keeping, stopKeeping := context.WithCancel(steady)
	kept := make(chan struct{})
	go func() { // ends with stopKeeping, or when the session is lost
		defer close(kept)
		m.keep(keeping, s)
	}()

	b := &balance{manager: m, session: s, hold: hold, held: map[string]*held{}}
	m.balance.Store(b)
	defer m.balance.Store(nil)
	b.run(ctx, keys)
	b.wg.Wait()
	stopKeeping()
	<-kept
	if s.lost.Err() != nil {
		m.metrics.lost.Inc()
		m.log.ErrorContext(ctx, "this instance has lost its leases", "error", context.Cause(s.lost))
		return
	}
	ctx, cancel := context.WithTimeout(steady, m.config.Heartbeat)
	defer cancel()
	_, err := m.memberDoc(s.id).Update(ctx, []firestore.Update{{Path: "ended", Value: true}, {Path: "beat", Value: firestore.ServerTimestamp}})
	m.metrics.writes.WithLabelValues("leave").Inc()
	if err != nil {
		m.log.WarnContext(ctx, "could not give the leases back: they end by themselves", "error", err)
	}
}

// balance is what one session does about its keys.
type balance struct {
	manager *Manager
	session *session
	hold    Holder
	wg      sync.WaitGroup

	mu   sync.Mutex // guards what follows
	held map[string]*held
	mine []string // the keys that this session is to have
}

// held is a key that is had, or being claimed.
type held struct {
	cancel context.CancelCauseFunc
	ctx    context.Context
	had    bool
}

// claims is how many leases are taken at a time.
const claims = 8

func (b *balance) run(ctx context.Context, keys func() []string) {
	m, s := b.manager, b.session
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.lost, func() { cancel(context.Cause(s.lost)) })()
	claiming := new(errgroup.Group)
	claiming.SetLimit(claims)
	defer claiming.Wait() //nolint:errcheck // they return none
	var alive []member
	lookedAt := time.Time{}
	for {
		pending := false
		if now := time.Now(); now.Sub(lookedAt) >= m.config.Heartbeat*3/4 {
			found, err := m.look(ctx)
			if err != nil && ctx.Err() == nil {
				m.log.WarnContext(ctx, "can't see who else takes part", "error", err)
			} else if err == nil {
				alive, lookedAt = found, now
			}
		}
		if ctx.Err() == nil {
			mine := assigned(m.kind, s.id, alive, keys())
			b.drop(mine)
			m.members.Store(int64(len(alive)))
			for _, key := range mine {
				if h, ok := b.want(ctx, key); ok {
					pending = true
					claiming.Go(func() error { // ends when the lease is refused, or handed to its hold
						b.claim(ctx, h, key)
						return nil
					})
				}
			}
		}
		wait := m.soon(m.config.Heartbeat)
		if pending {
			wait = m.config.Heartbeat / 4 // another instance may be about to give it up
		}
		select {
		case <-ctx.Done():
			return // every hold's context ends with ctx
		case <-time.After(wait):
		}
	}
}

// assigned are the keys that a session is to have, given the sessions that are alive.
func assigned(kind, session string, alive []member, keys []string) []string {
	score := func(member, key string) uint64 {
		h := fnv.New64a()
		fmt.Fprintf(h, "%s|%s|%s", kind, key, member) // never fails
		x := h.Sum64()
		// FNV's upper bits hardly depend on the last bytes; this spreads them (the finalizer of SplitMix64)
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		return x ^ x>>31
	}
	if !slices.ContainsFunc(alive, func(m member) bool { return m.id == session }) {
		return nil // others don't see this one, or it has not looked yet
	}
	var mine []string
	for _, key := range keys {
		own, best := score(session, key), true
		for _, other := range alive {
			if other.id != session && score(other.id, key) > own {
				best = false
				break
			}
		}
		if best {
			mine = append(mine, key)
		}
	}
	return mine
}

// drop ends the holds of keys that are not wanted here any more.
func (b *balance) drop(mine []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mine = mine
	for key, h := range b.held {
		if !slices.Contains(mine, key) {
			h.cancel(ErrMoved)
		}
	}
}

// want reserves a key that is neither had nor being claimed.
func (b *balance) want(ctx context.Context, key string) (*held, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held[key] != nil {
		return nil, false
	}
	h := new(held)
	h.ctx, h.cancel = context.WithCancelCause(ctx)
	b.held[key] = h
	return h, true
}

func (b *balance) forget(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held[key].cancel(nil)
	delete(b.held, key)
}

// claim takes a key if it is free, and begins to hold it. ctx is over when the session is, or is about to be.
//
// While the session goes on, a key is forgotten only when it is certain that the lease is not this session's: others
// take a lease that names a living session for one that is had, and nobody would come to do its work. So neither is a
// claim broken off where the key is not wanted any more; what it took is then given back.
func (b *balance) claim(ctx context.Context, h *held, key string) {
	m := b.manager
	l, err := b.take(ctx, key)
	if l.session == nil && !errors.Is(err, errUnclear) {
		b.forget(key)
		return
	}
	b.wg.Go(func() { // ends when the hold returns and the lease is given back, or soon after ctx
		defer b.forget(key)
		for err != nil {
			if m.pause(ctx); ctx.Err() != nil {
				return
			}
			l, err = b.take(ctx, key)
		}
		if l.session == nil {
			return
		}
		b.mu.Lock()
		h.had = true
		b.mu.Unlock()
		m.metrics.taken.Inc()
		m.metrics.held.Inc()
		defer m.metrics.held.Dec()
		m.log.InfoContext(ctx, "lease taken", "key", key, "token", l.token)
		if h.ctx.Err() == nil {
			b.hold(h.ctx, l)
		}
		l.over.Store(true)
		m.release(ctx, l)
	})
}

func (b *balance) take(ctx context.Context, key string) (Lease, error) {
	l, err := b.manager.take(ctx, b.session, key)
	if err != nil && !isOutrun(err) && ctx.Err() == nil {
		b.manager.log.WarnContext(ctx, "can't take a lease", "key", key, "error", err)
	}
	return l, err
}

// pause passes before what Firestore failed at is tried again.
func (m *Manager) pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(m.soon(m.config.Heartbeat / 4)):
	}
}

// errUnclear is part of an error after which a lease may be had all the same.
var errUnclear = errors.New("it may be stored all the same")

// take claims a key for a session. The lease is zero if another session has it. After an error that has [errUnclear] it
// is to be called again until there is none: that puts an end to the write before, which was made under the condition
// that nobody writes the document meanwhile.
func (m *Manager) take(ctx context.Context, s *session, key string) (Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, m.config.TTL/2)
	defer cancel()
	fail := func(err error) (Lease, error) { return Lease{}, fmt.Errorf("take the lease of %s: %w", key, err) }
	ref := m.leaseRef(key)
	snap, err := ref.Get(ctx)
	if err != nil && status.Code(err) != codes.NotFound {
		return fail(err)
	}
	var before leaseDoc
	if snap.Exists() {
		if err := snap.DataTo(&before); err != nil {
			return fail(err)
		}
	}
	vacant := before.At
	switch before.Session {
	case "":
	case s.id:
		vacant = snap.ReadTime // taken just now, though the answer was lost
	default:
		owner, err := m.memberDoc(before.Session).Get(ctx)
		switch {
		case status.Code(err) == codes.NotFound:
			vacant = time.Time{} // when its session ended is forgotten
		case err != nil:
			return fail(err)
		default:
			var d memberDoc
			if err := owner.DataTo(&d); err != nil {
				return fail(err)
			}
			if !d.Ended {
				return Lease{}, nil // to be ended first, if it is dead
			}
			vacant = d.Beat.Add(-time.Duration(d.Idle))
		}
	}
	after := leaseDoc{
		Kind: m.kind, Key: key, Session: s.id, Instance: m.instance, Vacant: map[string]time.Time{},
		// Counting from Firestore's clock lets tokens grow even after the document of a key that nobody had for long
		// has been cleaned up.
		Token: max(before.Token+1, snap.ReadTime.UnixMicro()),
	}
	told := map[string]time.Time{}
	for _, duty := range m.duties {
		if since := cmp.Or(before.Vacant[duty], vacant); !since.IsZero() {
			told[duty] = since
		}
		after.Vacant[duty] = cmp.Or(told[duty], snap.ReadTime) // if this one does not come to do it, the next is to know
	}
	var res *firestore.WriteResult
	if snap.Exists() {
		res, err = ref.Update(ctx, []firestore.Update{
			{Path: "session", Value: after.Session},
			{Path: "instance", Value: after.Instance},
			{Path: "token", Value: after.Token},
			{Path: "at", Value: firestore.ServerTimestamp},
			{Path: "vacant", Value: after.Vacant},
			{Path: "expireAt", Value: firestore.Delete},
		}, firestore.LastUpdateTime(snap.UpdateTime))
	} else {
		res, err = ref.Create(ctx, after)
	}
	if err != nil { // also one that says that somebody was faster: that may be an earlier try of the client's own
		return fail(fmt.Errorf("%w: %w", errUnclear, err))
	}
	m.metrics.writes.WithLabelValues("take").Inc()
	return Lease{
		manager: m, session: s, key: key, token: after.Token, vacant: told,
		over: new(atomic.Bool), record: &record{version: res.UpdateTime},
	}, nil
}

// write changes the document of a lease that is had; the error is [ErrLost] if it is another's.
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
		if !isOutrun(err) {
			return err
		}
		// Somebody else took it, or an earlier write of ours got through, though its answer was lost.
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

// release gives one key back while the session goes on, and tries until that is stored. Where the session ends, or is
// about to, which ctx tells, all its leases do, and nothing is written for each.
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
			m.log.WarnContext(ctx, "could not give a lease back: trying again", "key", l.key, "error", err)
		}
		m.pause(ctx)
	}
}
