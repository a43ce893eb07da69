package websocket

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"parley.internal/shared/deadletter"
	"parley.internal/shared/moderation"
	"parley.internal/shared/store"
	"parley.internal/shared/topology"
)

// anHour is a time at the beginning of an hour.
var anHour = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func (f *fixture) setClock(at time.Time) { f.clock.Store(&at) }

// requestBan sends a well-formed request for a ban.
func (c *client) requestBan(id string) {
	c.t.Helper()
	c.sendText(fmt.Sprintf(`{"type":"moderation.action.v1","payload":{"action":"ban","channel":"twitch:parley","userId":"666"},"metadata":{"id":%q}}`, id))
}

// refused sends a request, and checks the refusal.
func (c *client) refused(id string) {
	c.t.Helper()
	c.requestBan(id)
	if r := c.next(); r.code() != ErrForbidden || r.Payload["id"] != id || r.Metadata["replyTo"] != id {
		c.t.Fatalf("request %s: %+v; want %s", id, r, ErrForbidden)
	}
}

// ids returns the ids of the recorded dead letters, in order and without repetitions.
func (p *publisher) ids() (ids []string) {
	seen := map[string]bool{}
	for _, d := range p.deadLetters() {
		if !seen[d.why.ID] {
			ids = append(ids, d.why.ID)
		}
		seen[d.why.ID] = true
	}
	return ids
}

// settled waits until the publisher of a connection is done with the earlier frames.
func (f *fixture) settled(c *client) {
	f.t.Helper()
	c.sendText(`{"type":"poll.vote","payload":{}}`)
	if e := f.nextEvent(); e.Type != "poll.vote" {
		f.t.Fatalf("published %+v; want only the vote", e)
	}
}

func TestForbiddenRequestsAreOneDeadLetterAnHour(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ connections, requests int }{{1, 1000}, {20, 50}} {
		t.Run(fmt.Sprint(tt.connections, " connections"), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, func(c *Config) { c.Burst, c.MaxPerUser = 10_000, 100 })
			f.setClock(anHour)
			var all []*client
			for range tt.connections {
				all = append(all, f.dial("1"))
			}
			reads := f.reads()
			for n := range tt.requests {
				for i, c := range all {
					c.refused(fmt.Sprint(n, "-", i))
				}
			}
			for _, c := range all {
				f.settled(c) // nothing else was published
			}
			dead := f.publisher.deadLetters()
			if len(dead) != 1 {
				t.Fatalf("%d dead letters; want 1", len(dead))
			}
			d := dead[0]
			if d.topic != topology.Ingress || d.event.Type != moderation.Type || d.event.UserID != "twitch:1" || d.why.Reason != deadletter.Forbidden || !strings.Contains(d.why.Error(), "twitch:1") {
				t.Errorf("dead letter = %+v, %v", d, d.why)
			}
			if want := deadletter.Hourly(deadletter.Forbidden, errors.New("x"), "twitch:1", anHour).ID; d.why.ID != want {
				t.Errorf("id %s; want %s, as in the enrichment", d.why.ID, want)
			}
			if n, want := count(t, f.metrics.refused.WithLabelValues(string(ErrForbidden))), tt.connections*tt.requests; n != want {
				t.Errorf("%d refused frames counted; want %d", n, want)
			}
			if n := f.reads(); n != reads {
				t.Errorf("%d reads for the requests; want none", n-reads)
			}

			// a new connection, another user, and the next hour
			for _, user := range []string{"1", "2"} {
				c := f.dial(user)
				c.refused("new")
				f.settled(c)
			}
			f.setClock(anHour.Add(time.Hour))
			all[0].refused("later")
			f.settled(all[0])
			if ids := f.publisher.ids(); len(ids) != 3 || len(f.publisher.deadLetters()) != 3 {
				t.Errorf("dead letters %v; want one for each user and hour", ids)
			}
		})
	}
}

// reads counts the reads of tokens and users.
func (f *fixture) reads() int {
	f.tokens.mu.Lock()
	defer f.tokens.mu.Unlock()
	return f.tokens.lookups + f.tokens.people
}

func TestForbiddenRequestsCountAgainstTheRateLimit(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *Config) { c.Burst, c.Rate = 5, 0.001 })
	c := f.dial("1") // uses one of five frames
	for n := range 4 {
		c.refused(fmt.Sprint(n))
	}
	c.requestBan("5")
	if r := c.next(); r.code() != ErrRate {
		t.Errorf("got %+v; want %s", r, ErrRate)
	}
}

func TestPermissionForRequests(t *testing.T) {
	manual := func(roles ...string) store.User {
		return store.User{Roles: roles, RolesMeta: map[string][]string{store.Manual: roles}}
	}
	for _, tt := range []struct {
		name      string
		user      store.User
		linkedTo  string // the person; empty for the user itself
		permitted bool
	}{
		{"no document", store.User{}, "", false},
		{"moderator by hand", manual("moderator"), "", true},
		{"broadcaster by hand", manual("vip", "broadcaster"), "", true},
		{"a role that no source explains", store.User{Roles: []string{"moderator"}}, "", true},
		{"another role by hand", manual("vip", "friend"), "", false},
		{"moderator of some channel", store.User{Roles: []string{"moderator"}, RolesMeta: map[string][]string{"twitch": {"moderator"}}, RolesIn: map[string][]string{"twitch:parley": {"moderator"}}}, "", false},
		{"the linked person is a moderator by hand", manual("moderator"), "discord:7", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, nil)
			id := mustUser(t, "twitch:1")
			if tt.linkedTo != "" {
				f.tokens.links[id] = mustUser(t, tt.linkedTo)
				f.tokens.users[id] = store.User{}
				id = f.tokens.links[id]
			}
			f.tokens.users[id] = tt.user
			c := f.dial("1")
			if !tt.permitted {
				c.refused("1")
				f.settled(c)
				return
			}
			c.requestBan("1")
			if e := f.nextEvent(); e.Type != moderation.Type || e.UserID != "twitch:1" || e.Channel != "" {
				t.Errorf("published %+v", e)
			}
			c.join("a")
			if dead := f.publisher.deadLetters(); len(dead) != 0 {
				t.Errorf("dead letters %+v", dead)
			}
		})
	}
}

// A change of the role counts on open connections, after at most the time for which a token is cached.
func TestRoleChangesOnAnOpenConnection(t *testing.T) {
	for _, given := range []bool{true, false} {
		t.Run(fmt.Sprint("given: ", given), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, func(c *Config) { c.TokenTTL, c.Rate, c.Burst = 50*time.Millisecond, 1e6, 1e6 })
			id := mustUser(t, "twitch:1")
			if !given {
				f.tokens.users[id] = store.User{Roles: []string{"moderator"}}
			}
			c := f.dial("1")
			after := store.User{}
			if given {
				after.Roles = []string{"moderator"}
			}
			f.tokens.update(func() { f.tokens.users[id] = after })
			eventually(t, "the change to count", func() bool {
				c.requestBan("1")
				c.sendText(`{"type":"poll.vote","payload":{}}`)
				published := 0
				for f.nextEvent().Type == moderation.Type {
					published++
				}
				if published == 0 {
					if r := c.next(); r.code() != ErrForbidden {
						t.Fatalf("got %+v; want %s", r, ErrForbidden)
					}
				}
				return (published == 1) == given
			})
		})
	}
}

func TestUserBlockedMeanwhileIsDisconnected(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *Config) { c.TokenTTL, c.Rate, c.Burst = 50*time.Millisecond, 1e6, 1e6 })
	id := mustUser(t, "twitch:1")
	f.tokens.users[id] = store.User{Roles: []string{"moderator"}}
	c := f.dial("1")
	c.requestBan("1")
	if e := f.nextEvent(); e.Type != moderation.Type {
		t.Errorf("published %+v", e)
	}
	f.tokens.update(func() { f.tokens.users[id] = store.User{Roles: []string{"moderator"}, Status: "banned"} })
	if code := c.closeCode(); code != CloseUserBlocked {
		t.Errorf("closed with %d; want %d", code, CloseUserBlocked)
	}
}

// If the bus fails, the requests are refused all the same, and a later one is recorded.
func TestRefusalIsRecordedAfterAFailureOfTheBus(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	f.setClock(anHour)
	c := f.dial("1")
	f.publisher.fail(errors.New("bus is down"))
	c.refused("1")
	c.refused("2")
	f.publisher.fail(nil)
	for n := range 3 {
		c.refused(fmt.Sprint(3 + n))
	}
	f.settled(c)
	if dead := f.publisher.deadLetters(); len(dead) != 1 {
		t.Errorf("%d dead letters; want 1", len(dead))
	}
}
