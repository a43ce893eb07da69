package websocket

import (
	"maps"
	"slices"
	"sync"
)

// hub knows which connections an instance holds: all, by user, and by room. One lock suffices: an instance on Cloud
// Run holds at most 1,000 sockets, and queueing a frame for all of them takes about 0.15 ms (BenchmarkBroadcast).
type hub struct {
	maxConnections, maxPerUser, maxRooms int

	mu       sync.RWMutex
	closed   bool
	reserved int            // connections that are held or being made
	served   sync.WaitGroup // the same; none is added once closed is set
	perUser  map[string]int
	users    map[string][]*conn
	rooms    map[string]map[*conn]struct{}
	all      map[*conn]struct{}
}

func newHub(c Config) *hub {
	return &hub{
		maxConnections: c.MaxConnections, maxPerUser: c.MaxPerUser, maxRooms: c.MaxRooms,
		perUser: map[string]int{}, users: map[string][]*conn{}, rooms: map[string]map[*conn]struct{}{}, all: map[*conn]struct{}{},
	}
}

// reserve makes sure that there is room for one more connection of a user, and keeps it until release. The code says
// why there is none; it is empty otherwise.
func (h *hub) reserve(user string) RefusalCode {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return RefuseDraining
	case h.reserved >= h.maxConnections:
		return RefuseFull
	case h.perUser[user] >= h.maxPerUser:
		return RefusePerUser
	}
	h.reserved++
	h.served.Add(1)
	h.perUser[user]++
	return ""
}

func (h *hub) release(user string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.served.Done()
	h.reserved--
	if h.perUser[user]--; h.perUser[user] == 0 {
		delete(h.perUser, user)
	}
}

// add makes a connection a receiver. It reports false if the hub takes no more.
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

// remove forgets a connection, its rooms too.
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

// join reports whether the connection is in the room afterwards; it is not if it is in too many.
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
		return true // it is being closed
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

// receivers appends to buf the connections of a user, or, if user is empty, those in a room.
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

// connections gives those that there are.
func (h *hub) connections() []*conn {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return slices.Collect(maps.Keys(h.all))
}

// close takes no more connections, and gives those that there are.
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
