package websocket

import (
	"fmt"
	"sync/atomic"
	"testing"

	"parley.internal/shared/delivery"
)

func TestResumesAreLimitedPerUserAndInstance(t *testing.T) {
	for _, test := range []struct {
		name         string
		users, conns int // connections of each user
		want         int // concurrent resumes
	}{
		{"a user", 1, 6, maxResumesPerUser},
		{"many users", maxResumes/maxResumesPerUser + 2, 3, maxResumes},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, nil)
			reading, read := make(chan struct{}, 1000), make(chan struct{})
			var now, most atomic.Int64
			f.ledger.backlog = func([]string) (delivery.Backlog, error) {
				n := now.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				reading <- struct{}{}
				<-read
				now.Add(-1)
				return delivery.Backlog{Recovered: true}, nil
			}
			var clients []*client
			for user := range test.users {
				for range test.conns {
					clients = append(clients, f.dialAs(fmt.Sprint("user-", user)))
				}
			}
			for range test.want {
				<-reading
			}
			eventually(t, "the rest waits", func() bool { return f.waiting() == len(clients) })
			close(read)
			for _, c := range clients {
				if r := c.next(); r.Type != TypeReady {
					t.Errorf("first frame = %+v", r)
				}
			}
			if n := int(most.Load()); n != test.want {
				t.Errorf("%d resumes at the same time; want %d", n, test.want)
			}
			eventually(t, "all slots are free", func() bool { return f.waiting() == 0 && len(f.resumes.instance) == 0 })
		})
	}
}

func TestAWaitingUserDoesNotDelayOthers(t *testing.T) {
	f := newFixture(t, nil)
	read := make(chan struct{})
	var slow atomic.Int64
	f.ledger.backlog = func(received []string) (delivery.Backlog, error) {
		if len(received) > 0 {
			slow.Add(1)
			<-read
		}
		return delivery.Backlog{Recovered: true}, nil
	}
	for range maxResumesPerUser + 3 {
		f.dialWith("after=a")
	}
	eventually(t, "all wait", func() bool { return slow.Load() == maxResumesPerUser && f.waiting() == maxResumesPerUser+3 })
	f.dial("2") // gets the first frame
	close(read)
}

func TestAClosedConnectionLeavesItsSlot(t *testing.T) {
	f := newFixture(t, nil)
	read := make(chan struct{})
	f.ledger.backlog = func([]string) (delivery.Backlog, error) { <-read; return delivery.Backlog{Recovered: true}, nil }
	for range maxResumesPerUser {
		f.dialWith("")
	}
	eventually(t, "the slots are taken", func() bool { return f.waiting() == maxResumesPerUser })
	waiting := f.dialWith("")
	eventually(t, "one waits", func() bool { return f.waiting() == maxResumesPerUser+1 })
	waiting.Close()
	eventually(t, "it is gone", func() bool { return f.waiting() == maxResumesPerUser })
	close(read)
	eventually(t, "all slots are free", func() bool { return f.waiting() == 0 })
}

// waiting returns the number of reserved slots.
func (f *fixture) waiting() (n int) {
	f.resumes.mu.Lock()
	defer f.resumes.mu.Unlock()
	for _, u := range f.resumes.users {
		n += u.reserved
	}
	return n
}
