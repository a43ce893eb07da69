package websocket

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// hub is the index of an instance's connections by user and by room. A single lock suffices: an instance on Cloud Run
// holds at most 1,000 sockets, and queueing a frame for all sockets takes about 0.15 ms (BenchmarkBroadcast).
type hub struct {
	maxConnections, maxPerUser, maxRooms int
	rate                                 rate.Limit // frames per second of a user
	burst                                int

	mu       sync.RWMutex
	closed   bool
	reserved int            // open connections, and connections in the handshake
	served   sync.WaitGroup // counts the same connections; nothing is added after closed is set
	perUser  map[string]*allowance
	users    map[string][]*conn
	rooms    map[string]map[*conn]struct{}
	all      map[*conn]struct{}
}

func newHub(c Config) *hub {
	return &hub{
		maxConnections: c.MaxConnections, maxPerUser: c.MaxPerUser, maxRooms: c.MaxRooms, rate: rate.Limit(c.Rate), burst: c.Burst,
		perUser: map[string]*allowance{}, users: map[string][]*conn{}, rooms: map[string]map[*conn]struct{}{}, all: map[*conn]struct{}{},
	}
}

// allowance holds the limits of a user at an instance, shared by all connections of the user.
type allowance struct {
	connections int           // guarded by the hub's lock
	rate        *rate.Limiter // frames; above the limit, a frame is refused
	flood       *rate.Limiter // frames; above the limit, the connection is closed
	// recorded is the id of the last dead letter for a refused moderation request. An instance that forgets the id
	// announces the dead letter again, and the dlq function ignores the repetition.
	recorded atomic.Pointer[string]
}

// beginRecord reports whether this instance has not announced a dead letter for a refused moderation request yet, and
// marks the dead letter as announced.
func (a *allowance) beginRecord(id string) bool {
	before := a.recorded.Swap(&id)
	return before == nil || *before != id
}

// cancelRecord takes back the mark of beginRecord.
func (a *allowance) cancelRecord() { a.recorded.Store(nil) }

// idle reports that the allowance can be forgotten: a new allowance would allow as much.
func (a *allowance) idle() bool {
	return a.connections == 0 && a.rate.Tokens() >= float64(a.rate.Burst()) && a.flood.Tokens() >= float64(a.flood.Burst())
}

// reserve counts a new connection of a user against the limits, until release. The code is the reason for a refusal, or
// empty.
func (h *hub) reserve(user string) (*allowance, RefusalCode) {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.perUser[user]
	switch {
	case h.closed:
		return nil, RefuseDraining
	case h.reserved >= h.maxConnections:
		return nil, RefuseFull
	case a != nil && a.connections >= h.maxPerUser:
		return nil, RefusePerUser
	}
	if a == nil {
		h.forgetIdle()
		a = &allowance{rate: rate.NewLimiter(h.rate, h.burst), flood: rate.NewLimiter(h.rate*floodFactor, h.burst*floodFactor)}
		h.perUser[user] = a
	}
	h.reserved++
	h.served.Add(1)
	a.connections++
	return a, ""
}

// forgetIdle removes the allowances of users without a connection, if the map holds many. A user must not get a new
// allowance by reconnecting, so an allowance stays until it is full again. The caller holds h.mu.
func (h *hub) forgetIdle() {
	if len(h.perUser) < 2*h.maxConnections {
		return
	}
	maps.DeleteFunc(h.perUser, func(_ string, a *allowance) bool { return a.idle() })
	if len(h.perUser) >= 4*h.maxConnections { // many users in a short time; few of them can have used their allowance up
		maps.DeleteFunc(h.perUser, func(_ string, a *allowance) bool { return a.connections == 0 })
	}
}

func (h *hub) release(user string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.served.Done()
	h.reserved--
	h.perUser[user].connections--
}

// add makes a connection a receiver, or reports false if the hub is closed.
func (h *hub) add(c *conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.all[c] = struct{}{}
	h.users[c.userID] = append(h.users[c.userID], c)
	return true
}

// remove removes a connection from all indexes.
func (h *hub) remove(c *conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.all[c]; !ok {
		return
	}
	delete(h.all, c)
	rest := slices.DeleteFunc(h.users[c.userID], func(other *conn) bool { return other == c })
	if len(rest) == 0 {
		delete(h.users, c.userID)
	} else {
		h.users[c.userID] = rest
	}
	for room := range c.rooms {
		h.drop(c, room)
	}
	clear(c.rooms)
}

// join adds a connection to a room, or reports false if the connection has the maximum number of rooms.
func (h *hub) join(c *conn, room string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := c.rooms[room]; ok {
		return true
	}
	if len(c.rooms) >= h.maxRooms {
		return false
	}
	if _, ok := h.all[c]; !ok {
		return true // the connection is closing
	}
	c.rooms[room] = struct{}{}
	if h.rooms[room] == nil {
		h.rooms[room] = map[*conn]struct{}{}
	}
	h.rooms[room][c] = struct{}{}
	return true
}

func (h *hub) leave(c *conn, room string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := c.rooms[room]; ok {
		delete(c.rooms, room)
		h.drop(c, room)
	}
}

func (h *hub) drop(c *conn, room string) {
	delete(h.rooms[room], c)
	if len(h.rooms[room]) == 0 {
		delete(h.rooms, room)
	}
}

// receivers appends to buf the connections of a user, or of a room if user is empty.
func (h *hub) receivers(buf []*conn, user, room string) []*conn {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if user != "" {
		return append(buf, h.users[user]...)
	}
	members := h.rooms[room]
	buf = slices.Grow(buf, len(members))
	for c := range members {
		buf = append(buf, c)
	}
	return buf
}

// connections returns all connections.
func (h *hub) connections() []*conn {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return slices.Collect(maps.Keys(h.all))
}

// close refuses further connections, and returns the current connections.
func (h *hub) close() []*conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	return slices.Collect(maps.Keys(h.all))
}

func (h *hub) counts() (connections, rooms int) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return len(h.all), len(h.rooms)
}
