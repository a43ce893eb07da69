package discord

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	gorilla "github.com/gorilla/websocket"
)

// link is one WebSocket connection to the gateway. Sending and closing are safe for concurrent use.
type link struct {
	conn       *gorilla.Conn
	write      time.Duration // timeout of one write
	sequence   atomic.Int64  // number of the last dispatch
	acked      atomic.Bool   // Discord has acknowledged the last heartbeat
	heartbeats sync.WaitGroup

	mu    sync.Mutex // guards writing
	once  sync.Once
	cause atomic.Pointer[error]
}

// send writes one frame.
func (l *link) send(op int, data any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.conn.SetWriteDeadline(time.Now().Add(l.write))
	if err := l.conn.WriteJSON(map[string]any{"op": op, "d": data}); err != nil {
		return fmt.Errorf("write to Discord's gateway: %w", err)
	}
	return nil
}

// heartbeat sends one heartbeat with the number of the last dispatch.
func (l *link) heartbeat() error {
	if n := l.sequence.Load(); n > 0 {
		return l.send(opHeartbeat, n)
	}
	return l.send(opHeartbeat, nil)
}

// sendHeartbeats sends heartbeats until stop is closed. The first one follows after a random part of the interval, as
// Discord's documentation asks. A heartbeat without acknowledgement before the next means that the connection is dead.
func (l *link) sendHeartbeats(stop <-chan struct{}, interval time.Duration) {
	wait := rand.N(interval)
	for {
		select {
		case <-stop:
			return
		case <-time.After(wait):
		}
		wait = interval
		if !l.acked.Swap(false) {
			l.close(closeToResume, errors.New("heartbeat not acknowledged"))
			return
		}
		if err := l.heartbeat(); err != nil {
			l.close(closeToResume, err)
			return
		}
	}
}

// close closes the connection with a close code. Only the first call has an effect. cause may be nil.
func (l *link) close(code int, cause error) {
	l.once.Do(func() {
		if cause != nil {
			l.cause.Store(&cause)
		}
		// Do not wait for the close frame of Discord: serve sees the closed connection.
		_ = l.conn.WriteControl(gorilla.CloseMessage, gorilla.FormatCloseMessage(code, ""), time.Now().Add(time.Second))
		l.conn.Close()
	})
}

// closeCause returns the cause given to close, or nil.
func (l *link) closeCause() error {
	if p := l.cause.Load(); p != nil {
		return *p
	}
	return nil
}
