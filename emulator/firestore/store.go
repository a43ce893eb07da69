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

// Reads at a time in the past see the states that are kept for it. The service
// keeps one hour without point-in-time recovery; the other two bound memory,
// which the service need not do.
const (
	historyAge    = time.Hour
	historyStates = 1000
	historySize   = 128 << 20 // bytes of documents written by the kept commits
)

// maxGroup bounds how many commits share one write to the journal.
const maxGroup = 256

// A store owns the states and the one goroutine that makes them. Readers take
// the published state and wait for no commit. Commits are made one after
// another, and those that wait at the same time share one sync of the journal.
type store struct {
	clock   func() time.Time
	journal *journal // nil: nothing touches disk
	commits chan *commit
	stop    chan struct{}
	stopped chan struct{}

	current atomic.Pointer[state]

	mu      sync.Mutex
	last    int64    // the latest time handed out, in microseconds
	pending int64    // time of the first commit made but not published, or 0
	history []*state // published states by time, the current one last
	kept    int      // bytes written by the states in history
}

// A commit is one call's wish to change the state.
type commit struct {
	apply func(*builder) error
	time  int64
	err   error
	done  chan struct{}
}

// newStore starts a store on a state. It is ended by close.
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

// close ends the store after the commits that it has begun.
func (s *store) close() error {
	close(s.stop)
	<-s.stopped
	if s.journal != nil {
		return s.journal.close()
	}
	return nil
}

// read returns the newest state with the time, in microseconds, up to which it
// is known to hold all commits.
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

// readAt returns the state as it was at a time in the past.
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

// commit lets apply make changes and returns the time of the commit, in
// microseconds, after the changes are on disk and can be read. Nothing is
// changed where apply returns an error.
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
	for {
		select {
		case <-s.stop:
			return
		case first := <-s.commits:
			s.commitGroup(s.gather(first))
		}
	}
}

// gather returns first and the commits that are waiting behind it.
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

// nextTime returns the time of the next commit, later than every time that a
// commit or a reader was given.
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
	drop := 0
	for ; drop < len(s.history)-1 && (len(s.history)-drop > historyStates || s.kept > historySize); drop++ {
		s.kept -= s.history[drop].written
	}
	// Cleared, so that the array does not keep the dropped states alive.
	clear(s.history[:drop])
	s.history = s.history[drop:]
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

func timestampOf(micros int64) *timestamppb.Timestamp {
	return timestamppb.New(time.UnixMicro(micros))
}
