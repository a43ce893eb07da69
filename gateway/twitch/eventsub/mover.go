package eventsub

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gorilla/websocket"

	"parley.internal/shared/retry"
)

// moveTime bounds connecting to another server. Twitch keeps the old connection for 30 s.
const moveTime = 25 * time.Second

// move is the result of connecting to another server.
type move struct {
	conn *conn
	err  error
}

// mover holds the connection of a session, and moves the session to another server at Twitch's request. Twitch sends
// notifications on the old connection until the new connection is welcomed
// (https://dev.twitch.tv/docs/eventsub/handling-websocket-events/#reconnect-message). Only the session's goroutine uses it.
type mover struct {
	session *session
	current *conn
	next    *conn              // welcomed, while current may still hold notifications; nil for none
	moved   chan move          // result of the running move
	cancel  context.CancelFunc // of the running move; nil for none
	address string             // of a later request during the running move; used if the move fails
	linger  <-chan time.Time   // receives when current is silent after a move
}

// request handles Twitch's request to move to an address.
func (m *mover) request(ctx context.Context, address string) {
	if m.cancel != nil || m.next != nil {
		m.address = address
		return
	}
	m.begin(ctx, address)
}

func (m *mover) begin(ctx context.Context, address string) {
	m.address = ""
	var life context.Context
	life, m.cancel = context.WithCancel(ctx)
	go func() { m.moved <- m.session.move(life, address) }() // ends with life; finish, continues or close receives the result
}

// finish handles the result of a move.
func (m *mover) finish(ctx context.Context, result move) {
	m.cancel()
	m.cancel, m.next = nil, result.conn
	switch {
	case result.err != nil && m.address != "":
		m.begin(ctx, m.address)
	case result.err != nil:
		m.session.metrics.moves.WithLabelValues("failed").Inc()
		m.session.log.WarnContext(ctx, "EventSub: move to another server failed", "error", result.err)
	default:
		m.linger = time.After(m.session.timing.Linger)
	}
}

// received notes a message on the current connection. After a move, every message except for keepalives extends the wait.
func (m *mover) received(msg message) {
	if m.next != nil && msg.Metadata.Type != typeKeepalive {
		m.linger = time.After(m.session.timing.Linger)
	}
}

// switchOver makes the next connection the current one.
func (m *mover) switchOver(ctx context.Context) {
	m.session.drain(ctx, m.current)
	m.current, m.next, m.linger = m.next, nil, nil
	m.session.metrics.moves.WithLabelValues("moved").Inc()
}

// continues handles the end of the current connection. It reports whether the session continues on the next connection.
// Twitch may end the old connection as soon as the new one exists, so continues waits for a running move.
func (m *mover) continues(ctx context.Context) bool {
	if m.cancel != nil {
		late := time.AfterFunc(m.session.timing.Request, m.cancel)
		result := <-m.moved
		late.Stop()
		m.cancel()
		m.cancel, m.next = nil, result.conn
	}
	if m.next == nil {
		return false
	}
	m.switchOver(ctx)
	return true
}

// close ends all connections and handles their remaining messages.
func (m *mover) close(ctx context.Context) {
	if m.cancel != nil {
		m.cancel()
		if result := <-m.moved; result.conn != nil {
			result.conn.close()
		}
	}
	m.session.drain(ctx, m.current)
	if m.next != nil {
		m.session.drain(ctx, m.next)
	}
}

// move connects to another server. It retries until moveTime, except for an expired address.
func (s *session) move(ctx context.Context, url string) move {
	ctx, cancel := context.WithTimeout(ctx, moveTime)
	defer cancel()
	if err := CheckURL(url); err != nil {
		return move{err: fmt.Errorf("reconnect_url: %w", err)}
	}
	for backoff := retry.NewBackoff(s.timing.MinBackoff, s.timing.MaxBackoff); ; {
		k, err := s.connect(ctx, url)
		if closed, ok := errors.AsType[*websocket.CloseError](err); err == nil || ok && closed.Code == closeReconnect {
			return move{k, err}
		}
		if backoff.Wait(ctx) != nil {
			return move{err: err}
		}
	}
}
