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

	"parley.internal/emulator/fake"
	"parley.internal/shared/retry"
)

// EventSub over WebSocket: https://dev.twitch.tv/docs/eventsub/handling-websocket-events/ and
// https://dev.twitch.tv/docs/eventsub/websocket-reference/

// Close codes of EventSub. https://dev.twitch.tv/docs/eventsub/handling-websocket-events/#close-message
const (
	CloseServerError    = 4000 // a failure of the server
	CloseInbound        = 4001 // the client sent data
	ClosePingPong       = 4002 // the client did not answer a ping
	CloseUnused         = 4003 // no subscription in time
	CloseReconnectGrace = 4004 // the client kept the old connection after session_reconnect
	CloseNetworkTimeout = 4005
	CloseNetworkError   = 4006
	CloseReconnectURL   = 4007 // the reconnect_url is invalid or expired
)

// session owns subscriptions. On reconnection the session moves to the next connection.
type session struct {
	id        string
	userID    string // user of the first subscription; a session has one user
	since     time.Time
	conn      *eventConn // receives the notifications
	moving    string     // key of the reconnect_url, after the reconnect message
	keepalive time.Duration
	subs      map[string]bool
}

// eventConn is a WebSocket connection.
type eventConn struct {
	*fake.Queue[[]byte]
	wire    *websocket.Conn
	cancel  context.CancelFunc
	drained chan struct{} // closed at the end of the writer
}

// metadata is part of every message.
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
		panic(err) // the payload has only maps, strings and numbers
	}
	return b
}

func nanos(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000000Z") }

// keepaliveFor returns the keepalive interval for the value of the query.
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
		return // Accept has answered the request
	}
	defer wire.CloseNow()
	ctx, cancel := context.WithCancel(s.tasks.Context())
	defer cancel()
	c := &eventConn{Queue: fake.NewQueue[[]byte](cancel), wire: wire, cancel: cancel, drained: make(chan struct{})}
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
			id:        fake.Secret(20),
			since:     s.now(),
			conn:      c,
			subs:      map[string]bool{},
			keepalive: s.keepaliveFor(r.URL.Query().Get("keepalive_timeout_seconds")),
		}
		s.sessions[ss.id] = ss
	}
	whole := int(math.Ceil(ss.keepalive.Seconds()))
	c.Push(s.frame("session_welcome", map[string]any{"session": sessionInfo{
		ID: ss.id, Status: "connected", KeepaliveTimeout: &whole, ConnectedAt: nanos(ss.since),
	}}))
	s.unlock()

	var tasks sync.WaitGroup
	tasks.Go(func() { s.writeEvents(ctx, c, ss) })
	if old == nil {
		tasks.Go(func() {
			if retry.Sleep(ctx, s.options.timing.Subscribe) != nil {
				return
			}
			s.lock()
			defer s.unlock()
			if len(ss.subs) == 0 && ss.conn == c {
				c.Close(CloseUnused)
			}
		})
	}
	tasks.Go(func() {
		for every := s.options.timing.Ping; retry.Sleep(ctx, every) == nil; {
			wait, done := context.WithTimeout(ctx, every)
			err := wire.Ping(wait)
			done()
			if err != nil {
				c.Close(ClosePingPong)
				return
			}
		}
	})
	// The client may only answer pings, and the library hides pongs.
	if _, _, err := wire.Read(ctx); err == nil {
		c.Close(CloseInbound)
		<-c.drained
	}
	cancel()
	tasks.Wait()

	s.lock()
	defer s.unlock()
	if ss.conn == c {
		s.endSession(ss, cmp.Or(closeStatuses[c.Code()], "websocket_disconnected"))
	}
}

// writeEvents sends the queued messages, a keepalive after each silence, and pings.
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
			c.Push(f)
		case <-c.Ready():
		}
		frames, last := c.Take()
		for _, f := range frames {
			if c.wire.Write(ctx, websocket.MessageText, f) != nil {
				return
			}
		}
		if len(frames) > 0 {
			keepalive.Reset(ss.keepalive)
		}
		if last {
			code := c.Code()
			_ = c.wire.Close(websocket.StatusCode(code), closeReasons[code])
			return
		}
	}
}

var closeReasons = map[int]string{
	CloseServerError:    "internal server error",
	CloseInbound:        "client sent inbound traffic",
	ClosePingPong:       "client failed ping-pong",
	CloseUnused:         "connection unused",
	CloseReconnectGrace: "reconnect grace time expired",
	CloseNetworkTimeout: "network timeout",
	CloseNetworkError:   "network error",
	CloseReconnectURL:   "invalid reconnect",
}

// closeStatuses maps close codes to the final status of the connection's subscriptions.
var closeStatuses = map[int]string{
	CloseServerError:    "websocket_internal_error",
	CloseInbound:        "websocket_received_inbound_traffic",
	ClosePingPong:       "websocket_failed_ping_pong",
	CloseUnused:         "websocket_connection_unused",
	CloseReconnectGrace: "websocket_failed_to_reconnect",
	CloseNetworkTimeout: "websocket_network_timeout",
	CloseNetworkError:   "websocket_network_error",
}

// endSession removes a session. The subscriptions stay in the list.
func (s *Server) endSession(ss *session, status string) {
	delete(s.sessions, ss.id)
	for id := range ss.subs {
		if sub := s.subs[id]; sub != nil && sub.Status == "enabled" {
			sub.Status = status
			sub.Transport.DisconnectedAt = nanos(s.now())
		}
	}
}

// Sessions returns the number of open EventSub sessions.
func (s *Server) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}

// ReconnectEventSub asks every EventSub connection to reconnect, closes connections kept too long, and returns the
// number of connections.
func (s *Server) ReconnectEventSub() int {
	s.lock()
	defer s.unlock()
	for _, ss := range s.sessions {
		ss.moving = fake.Secret(10)
		where := s.EventSubURL() + "?session=" + ss.id + "&reconnect=" + ss.moving
		old := ss.conn
		old.Push(s.frame("session_reconnect", map[string]any{"session": sessionInfo{
			ID: ss.id, Status: "reconnecting", ReconnectURL: &where, ConnectedAt: nanos(ss.since),
		}}))
		s.tasks.Go(func() {
			if retry.Sleep(s.tasks.Context(), s.options.timing.Reconnect) == nil {
				old.Close(CloseReconnectGrace)
			}
		})
	}
	return len(s.sessions)
}

// CloseEventSub closes every EventSub connection with one of the Close codes, and returns the number of connections.
func (s *Server) CloseEventSub(code int) int {
	s.lock()
	defer s.unlock()
	for _, ss := range s.sessions {
		ss.conn.Close(code)
	}
	return len(s.sessions)
}

// DropEventSub drops every EventSub connection without a close frame, and returns the number of connections.
func (s *Server) DropEventSub() int {
	s.lock()
	defer s.unlock()
	for _, ss := range s.sessions {
		ss.conn.cancel()
	}
	return len(s.sessions)
}

// RepeatEvent sends the latest notification of each subscription again with the same message_id, as Twitch may. It
// returns the number of notifications.
func (s *Server) RepeatEvent() int {
	s.lock()
	defer s.unlock()
	n := 0
	for _, id := range s.subOrder {
		sub := s.subs[id]
		if ss := s.sessions[sub.Transport.SessionID]; ss != nil && sub.latest != nil {
			ss.conn.Push(sub.latest)
			n++
		}
	}
	return n
}

// RevokeSubscription revokes an EventSub subscription with a status such as "user_removed", "authorization_revoked" or
// "version_removed". It reports whether an enabled subscription was found.
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
	ss.conn.Push(encodeFrame(metadata{
		MessageID: newID(), MessageType: "revocation", MessageTimestamp: nanos(s.now()),
		SubscriptionType: sub.Type, SubscriptionVersion: sub.Version,
	}, map[string]any{"subscription": sub.Subscription}))
}

// Subscriptions returns all EventSub subscriptions, in order of creation.
func (s *Server) Subscriptions() []Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Subscription
	for _, id := range s.subOrder {
		all = append(all, s.subs[id].Subscription)
	}
	return slices.Clip(all)
}
