package firestore

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Limits on the states kept for reads in the past. Without point-in-time recovery the service keeps one hour. The limits
// on states and size bound the memory of this server.
const (
	historyAge    = time.Hour
	historyStates = 1000
	historySize   = 128 << 20 // bytes of documents written by the commits in the history
)

// maxGroup is the largest number of commits in one write to the journal.
const maxGroup = 256

// A store owns the states and the goroutine for commits and for the expiry of documents. Readers take the published
// state and wait for no commit. Commits run in sequence. Commits waiting at the same time share one write of the
// journal.
type store struct {
	clock   func() time.Time
	journal *journal // nil without a data directory
	commits chan *commit
	stop    chan struct{}
	stopped chan struct{}

	current atomic.Pointer[state]

	expired atomic.Int64 // documents deleted by TTL policies

	mu      sync.Mutex
	last    int64    // the latest time given to a commit or a reader, in microseconds
	pending int64    // time of the first unpublished commit, or 0
	history []*state // published states by time, the current state last
	kept    int      // bytes written by the commits in history
}

// A commit is a requested change of the state.
type commit struct {
	apply func(*builder) error
	time  int64
	err   error
	done  chan struct{}
}

// newStore starts a store with an initial state. The caller must close it.
func newStore(clock func() time.Time, initial *state, j *journal) *store {
	s := &store{
		clock:   clock,
		journal: j,
		commits: make(chan *commit, maxGroup),
		stop:    make(chan struct{}),
		stopped: make(chan struct{}),
		last:    initial.time,
		history: []*state{initial},
	}
	s.current.Store(initial)
	go s.run()
	return s
}

// close ends the store after the commits under way.
func (s *store) close() error {
	close(s.stop)
	<-s.stopped
	if s.journal != nil {
		return s.journal.close()
	}
	return nil
}

// read returns the newest state and a time in microseconds. The state holds all commits up to this time.
func (s *store) read() (*state, int64) {
	now := s.clock().UnixMicro()
	s.mu.Lock()
	defer s.mu.Unlock()
	t := max(now, s.last)
	if s.pending != 0 {
		t = s.pending - 1
	} else {
		s.last = t
	}
	current := s.current.Load()
	return current, max(t, current.time)
}

// readAt returns the state at a time in the past, and the time in microseconds. An old time is FAILED_PRECONDITION.
func (s *store) readAt(at *timestamppb.Timestamp) (*state, int64, error) {
	if err := at.CheckValid(); err != nil {
		return nil, 0, status.Errorf(codes.InvalidArgument, "read_time: %v", err)
	}
	if at.Nanos%1000 != 0 {
		return nil, 0, status.Error(codes.InvalidArgument, "read_time has a precision finer than microseconds")
	}
	t := at.AsTime().UnixMicro()
	_, now := s.read()
	if t > now {
		return nil, 0, status.Error(codes.InvalidArgument, "read_time is in the future")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now-t <= historyAge.Microseconds() {
		for i := len(s.history) - 1; i >= 0; i-- {
			if s.history[i].time <= t {
				return s.history[i], t, nil
			}
		}
	}
	return nil, 0, status.Error(codes.FailedPrecondition, "the requested read_time is too old")
}

// commit runs apply on the goroutine of the store. It returns the commit time in microseconds when the changes are
// durable and readable. An error of apply discards the changes.
func (s *store) commit(ctx context.Context, apply func(*builder) error) (int64, error) {
	c := &commit{apply: apply, done: make(chan struct{})}
	select {
	case s.commits <- c:
	case <-ctx.Done():
		return 0, status.FromContextError(ctx.Err()).Err()
	case <-s.stopped:
		return 0, status.Error(codes.Unavailable, "the server is closed")
	}
	select {
	case <-c.done:
		return c.time, c.err
	case <-s.stopped:
		select {
		case <-c.done:
			return c.time, c.err
		default:
			return 0, status.Error(codes.Unavailable, "the server is closed")
		}
	}
}

func (s *store) run() {
	defer close(s.stopped)
	sweep := time.NewTimer(sweepInterval)
	defer sweep.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-sweep.C:
			sweep.Reset(s.sweep())
		case first := <-s.commits:
			s.commitGroup(s.gather(first))
		}
	}
}

// gather returns first and the commits waiting behind it.
func (s *store) gather(first *commit) []*commit {
	group := []*commit{first}
	for len(group) < maxGroup {
		select {
		case c := <-s.commits:
			group = append(group, c)
		default:
			return group
		}
	}
	return group
}

func (s *store) commitGroup(group []*commit) {
	head := s.current.Load()
	var made []*builder
	for _, c := range group {
		c.time = s.nextTime()
		b := newBuilder(head, c.time)
		if c.err = c.apply(b); c.err != nil {
			continue
		}
		if len(b.changes) > 0 || b.indexed {
			made = append(made, b)
			head = b.state
		}
	}
	if s.journal != nil {
		if err := s.journal.append(made); err != nil {
			for _, c := range group {
				if c.err == nil {
					c.err = status.Error(codes.Internal, fmt.Sprintf("journal: %v", err))
				}
			}
			made = nil
		}
	}
	s.publish(made)
	for _, c := range group {
		close(c.done)
	}
	if s.journal != nil {
		s.journal.compact(s.current.Load())
	}
}

// nextTime returns the time of the next commit, later than every time given to a commit or a reader.
func (s *store) nextTime() int64 {
	now := s.clock().UnixMicro()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = max(now, s.last+1)
	if s.pending == 0 {
		s.pending = s.last
	}
	return s.last
}

func (s *store) publish(made []*builder) {
	s.mu.Lock()
	previous := s.current.Load()
	for _, b := range made {
		s.history = append(s.history, b.state)
		s.kept += b.written
	}
	s.trimHistory(s.clock().UnixMicro())
	s.current.Store(s.history[len(s.history)-1])
	s.pending = 0
	s.mu.Unlock()
	if len(made) == 0 {
		return
	}
	close(previous.superseded)
	for _, b := range made[:len(made)-1] {
		close(b.superseded)
	}
}

// trimHistory drops the states beyond the limits of the history. now is in microseconds. The caller holds mu.
func (s *store) trimHistory(now int64) {
	oldest := now - historyAge.Microseconds()
	drop := 0
	for ; drop < len(s.history)-1; drop++ {
		// A state is current until the time of the next one.
		isOld := s.history[drop+1].time < oldest
		if !isOld && len(s.history)-drop <= historyStates && s.kept <= historySize {
			break
		}
		s.kept -= s.history[drop].written
	}
	// Cleared, so that the array does not keep the dropped states alive.
	clear(s.history[:drop])
	s.history = s.history[drop:]
}

func timestampOf(micros int64) *timestamppb.Timestamp {
	return timestamppb.New(time.UnixMicro(micros))
}
