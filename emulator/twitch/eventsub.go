package twitch

import (
	"cmp"
	"context"
	"encoding/json"
	"math"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// EventSub over WebSocket, see
// https://dev.twitch.tv/docs/eventsub/handling-websocket-events/ and
// https://dev.twitch.tv/docs/eventsub/websocket-reference/

// Codes with which EventSub closes a connection.
// https://dev.twitch.tv/docs/eventsub/handling-websocket-events/#close-message
const (
	CloseServerError    = 4000 // a fault of the server's
	CloseInbound        = 4001 // the client sent something
	ClosePingPong       = 4002 // the client did not answer a ping
	CloseUnused         = 4003 // no subscription in time
	CloseReconnectGrace = 4004 // the old connection was kept after session_reconnect
	CloseNetworkTimeout = 4005
	CloseNetworkError   = 4006
	CloseReconnectURL   = 4007 // the reconnect_url is not one, or not any more
)

// session is what subscriptions belong to. It moves from one connection to the
// next on reconnection.
type session struct {
	id        string
	userID    string // of the first subscription: a session is one user's
	since     time.Time
	conn      *eventConn // notifications go there
	moving    string     // the key of the reconnect_url, once it was sent
	keepalive time.Duration
	subs      map[string]bool
}

// eventConn is one WebSocket connection.
type eventConn struct {
	wire   *websocket.Conn
	cancel context.CancelFunc

	mu      sync.Mutex
	frames  [][]byte
	code    websocket.StatusCode // to close with when the frames are out
	ending  bool
	wake    chan struct{}
	drained chan struct{} // closed when the writer has ended
}

// metadata stands in every message.
type metadata struct {
	MessageID           string `json:"message_id"`
	MessageType         string `json:"message_type"`
	MessageTimestamp    string `json:"message_timestamp"`
	SubscriptionType    string `json:"subscription_type,omitempty"`
	SubscriptionVersion string `json:"subscription_version,omitempty"`
}

type sessionInfo struct {
	ID               string  `json:"id"`
	Status           string  `json:"status"`
	KeepaliveTimeout *int    `json:"keepalive_timeout_seconds"`
	ReconnectURL     *string `json:"reconnect_url"`
	ConnectedAt      string  `json:"connected_at"`
}

func (s *Server) frame(kind string, payload any) []byte {
	return encodeFrame(metadata{MessageID: newID(), MessageType: kind, MessageTimestamp: nanos(s.now())}, payload)
}

func encodeFrame(m metadata, payload any) []byte {
	b, err := json.Marshal(map[string]any{"metadata": m, "payload": payload})
	if err != nil {
		panic(err) // only maps, strings and numbers go in
	}
	return b
}

func nanos(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000000Z") }

// keepaliveFor is the interval for what a client asked for in the query.
func (s *Server) keepaliveFor(asked string) time.Duration {
	var n int
	if json.Unmarshal([]byte(asked), &n) != nil {
		return s.options.timing.Keepalive
	}
	if s.options.timing.Keepalive < 10*time.Second {
		return s.options.timing.Keepalive
	}
	return time.Duration(min(max(n, 10), 600)) * time.Second
}

func (s *Server) serveEventSub(w http.ResponseWriter, r *http.Request) {
	wire, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return // and has been answered
	}
	defer wire.CloseNow()
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	c := &eventConn{wire: wire, cancel: cancel, wake: make(chan struct{}, 1), drained: make(chan struct{})}
	var old *eventConn
	var ss *session
	s.lock()
	if key := r.URL.Query().Get("reconnect"); key != "" {
		if ss = s.sessions[r.URL.Query().Get("session")]; ss == nil || ss.moving != key {
			s.unlock()
			_ = wire.Close(CloseReconnectURL, "invalid reconnect")
			return
		}
		old, ss.conn, ss.moving = ss.conn, c, ""
	} else {
		ss = &session{
			id:        secret(20),
			since:     s.now(),
			conn:      c,
			subs:      map[string]bool{},
			keepalive: s.keepaliveFor(r.URL.Query().Get("keepalive_timeout_seconds")),
		}
		s.sessions[ss.id] = ss
	}
	whole := int(math.Ceil(ss.keepalive.Seconds()))
	c.push(s.frame("session_welcome", map[string]any{"session": sessionInfo{
		ID: ss.id, Status: "connected", KeepaliveTimeout: &whole, ConnectedAt: nanos(ss.since),
	}}))
	s.unlock()

	var tasks sync.WaitGroup
	tasks.Go(func() { s.writeEvents(ctx, c, ss) })
	if old == nil {
		tasks.Go(func() {
			if !after(ctx, s.options.timing.Subscribe) {
				return
			}
			s.lock()
			defer s.unlock()
			if len(ss.subs) == 0 && ss.conn == c {
				c.close(CloseUnused)
			}
		})
	}
	tasks.Go(func() {
		for every := s.options.timing.Ping; after(ctx, every); {
			wait, done := context.WithTimeout(ctx, every)
			err := wire.Ping(wait)
			done()
			if err != nil {
				c.close(ClosePingPong)
				return
			}
		}
	})
	// The client may only answer pings, which the library does not show.
	if _, _, err := wire.Read(ctx); err == nil {
		c.close(CloseInbound)
		<-c.drained
	}
	cancel()
	tasks.Wait()

	s.lock()
	defer s.unlock()
	if ss.conn == c {
		c.mu.Lock()
		status := cmp.Or(closeStatuses[c.code], "websocket_disconnected")
		c.mu.Unlock()
		s.endSession(ss, status)
	}
}

// after waits for d, and reports whether ctx lasted as long.
func after(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// writeEvents sends what is queued, a keepalive after each silence, and pings.
func (s *Server) writeEvents(ctx context.Context, c *eventConn, ss *session) {
	defer c.cancel()
	defer close(c.drained)
	keepalive := time.NewTimer(ss.keepalive)
	defer keepalive.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-keepalive.C:
			s.mu.Lock()
			f := s.frame("session_keepalive", map[string]any{})
			s.mu.Unlock()
			c.push(f)
		case <-c.wake:
		}
		c.mu.Lock()
		frames, ending, code := c.frames, c.ending, c.code
		c.frames = nil
		c.mu.Unlock()
		for _, f := range frames {
			if c.wire.Write(ctx, websocket.MessageText, f) != nil {
				return
			}
		}
		if len(frames) > 0 {
			keepalive.Reset(ss.keepalive)
		}
		if ending {
			_ = c.wire.Close(code, closeReasons[code])
			return
		}
	}
}

var closeReasons = map[websocket.StatusCode]string{
	CloseServerError:    "internal server error",
	CloseInbound:        "client sent inbound traffic",
	ClosePingPong:       "client failed ping-pong",
	CloseUnused:         "connection unused",
	CloseReconnectGrace: "reconnect grace time expired",
	CloseNetworkTimeout: "network timeout",
	CloseNetworkError:   "network error",
	CloseReconnectURL:   "invalid reconnect",
}

// closeStatuses are what the subscriptions of a closed connection come to.
var closeStatuses = map[websocket.StatusCode]string{
	CloseServerError:    "websocket_internal_error",
	CloseInbound:        "websocket_received_inbound_traffic",
	ClosePingPong:       "websocket_failed_ping_pong",
	CloseUnused:         "websocket_connection_unused",
	CloseReconnectGrace: "websocket_failed_to_reconnect",
	CloseNetworkTimeout: "websocket_network_timeout",
	CloseNetworkError:   "websocket_network_error",
}

func (c *eventConn) push(frame []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.ending:
	case len(c.frames) >= maxQueue:
		c.cancel() // it does not read
	default:
		c.frames = append(c.frames, frame)
		c.signal()
	}
}

// close ends the connection with a code once what is queued is out.
func (c *eventConn) close(code websocket.StatusCode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ending {
		c.ending, c.code = true, code
		c.signal()
	}
}

func (c *eventConn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// endSession forgets a session; its subscriptions remain to be listed.
func (s *Server) endSession(ss *session, status string) {
	delete(s.sessions, ss.id)
	for id := range ss.subs {
		if sub := s.subs[id]; sub != nil && sub.Status == "enabled" {
			sub.Status = status
			sub.Transport.DisconnectedAt = nanos(s.now())
		}
	}
}

// Sessions is how many EventSub sessions are open.
func (s *Server) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}

// ReconnectEventSub asks every EventSub connection to reconnect, and closes
// those that are kept too long. It returns how many there were.
func (s *Server) ReconnectEventSub() int {
	s.lock()
	defer s.unlock()
	for _, ss := range s.sessions {
		ss.moving = secret(10)
		where := s.EventSubURL() + "?session=" + ss.id + "&reconnect=" + ss.moving
		old := ss.conn
		old.push(s.frame("session_reconnect", map[string]any{"session": sessionInfo{
			ID: ss.id, Status: "reconnecting", ReconnectURL: &where, ConnectedAt: nanos(ss.since),
		}}))
		if !s.closing {
			s.tasks.Go(func() {
				if after(s.ctx, s.options.timing.Reconnect) {
					old.close(CloseReconnectGrace)
				}
			})
		}
	}
	return len(s.sessions)
}

// CloseEventSub closes every EventSub connection with a code, one of the Close
// constants, and returns how many there were.
func (s *Server) CloseEventSub(code int) int {
	s.lock()
	defer s.unlock()
	for _, ss := range s.sessions {
		ss.conn.close(websocket.StatusCode(code))
	}
	return len(s.sessions)
}

// DropEventSub ends every EventSub connection without a word, and returns how
// many there were.
func (s *Server) DropEventSub() int {
	s.lock()
	defer s.unlock()
	for _, ss := range s.sessions {
		ss.conn.cancel()
	}
	return len(s.sessions)
}

// RepeatEvent sends the latest notification of each subscription once more, with
// the same message_id, as Twitch may. It returns how many it sent.
func (s *Server) RepeatEvent() int {
	s.lock()
	defer s.unlock()
	n := 0
	for _, id := range s.subOrder {
		sub := s.subs[id]
		if ss := s.sessions[sub.Transport.SessionID]; ss != nil && sub.latest != nil {
			ss.conn.push(sub.latest)
			n++
		}
	}
	return n
}

// RevokeSubscription revokes an EventSub subscription with a status such as
// "user_removed", "authorization_revoked" or "version_removed", and reports
// whether there was one to revoke.
func (s *Server) RevokeSubscription(id, status string) bool {
	s.lock()
	defer s.unlock()
	sub := s.subs[id]
	if sub == nil || sub.Status != "enabled" {
		return false
	}
	s.revokeSubscription(sub, status)
	return true
}

func (s *Server) revokeSubscription(sub *subscription, status string) {
	if sub.Status != "enabled" {
		return
	}
	sub.Status = status
	ss := s.sessions[sub.Transport.SessionID]
	if ss == nil {
		return
	}
	delete(ss.subs, sub.ID)
	ss.conn.push(encodeFrame(metadata{
		MessageID: newID(), MessageType: "revocation", MessageTimestamp: nanos(s.now()),
		SubscriptionType: sub.Type, SubscriptionVersion: sub.Version,
	}, map[string]any{"subscription": sub.Subscription}))
}

// Subscriptions are all EventSub subscriptions, in order of their creation.
func (s *Server) Subscriptions() []Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Subscription
	for _, id := range s.subOrder {
		all = append(all, s.subs[id].Subscription)
	}
	return slices.Clip(all)
}
