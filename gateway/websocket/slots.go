package websocket

import (
	"sync"
	"time"
)

// The limits of the pages of missed answers in memory. A page holds about 1 MiB of answers, and twice as much while the
// frames are made.
const (
	maxResumes        = 32 // of an instance
	maxResumesPerUser = 2
	// slotTimeout is the maximum wait for a slot. Afterwards the connection is closed with CloseNotResumed.
	slotTimeout = 30 * time.Second
)

// resumeSlots limits the number of pages of missed answers in memory, per user and per instance. Clients beyond the
// limits wait, in the order of arrival. A user with many connections delays only the user's own other connections.
type resumeSlots struct {
	instance chan struct{} // holds a value for each page

	mu    sync.Mutex
	users map[string]*userSlots
}

// userSlots are the slots of one user.
type userSlots struct {
	pages    chan struct{} // holds a value for each page
	reserved int           // number of reserved slots; guarded by resumeSlots.mu
}

func newResumeSlots() *resumeSlots {
	return &resumeSlots{instance: make(chan struct{}, maxResumes), users: map[string]*userSlots{}}
}

// slot is the right to hold a page in memory, after [conn.awaitSlot].
type slot struct {
	all    *resumeSlots
	userID string
	user   *userSlots
	held   []chan struct{}
}

// reserve makes a slot for a user. The slot must be released.
func (r *resumeSlots) reserve(userID string) *slot {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.users[userID]
	if u == nil {
		u = &userSlots{pages: make(chan struct{}, maxResumesPerUser)}
		r.users[userID] = u
	}
	u.reserved++
	return &slot{all: r, userID: userID, user: u}
}

// release ends the use of a slot.
func (s *slot) release() {
	for _, pages := range s.held {
		<-pages
	}
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	if s.user.reserved--; s.user.reserved == 0 {
		delete(s.all.users, s.userID)
	}
}

// awaitSlot waits until the user and the instance have room for a page, and pings the client meanwhile. It reports false
// if the connection must end.
func (c *conn) awaitSlot(s *slot, ping <-chan time.Time) bool {
	timeout := time.NewTimer(slotTimeout)
	defer timeout.Stop()
	for _, pages := range []chan struct{}{s.user.pages, s.all.instance} { // the user first: a waiting user must not block others
		for entered := false; !entered; {
			select {
			case pages <- struct{}{}:
				s.held, entered = append(s.held, pages), true
			case <-ping:
				c.ping()
			case <-timeout.C:
				c.log.Warn("resume: too many clients are resuming")
				c.end(CloseNotResumed)
				return false
			case <-c.closing.Done():
				return false
			}
		}
	}
	return true
}
