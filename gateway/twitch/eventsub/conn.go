package eventsub

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// defaultKeepalive is what Twitch takes where a client asks for nothing else.
const defaultKeepalive = 10 * time.Second

// buffer is how many messages may wait. When there are more, nothing is read, and Twitch keeps them for a while.
const buffer = 64

// closeTime is how long Twitch may take to answer that a connection is closed.
const closeTime = 500 * time.Millisecond

// closeReconnect is the code of a reconnect_url that is not one any more
// (https://dev.twitch.tv/docs/eventsub/handling-websocket-events/#close-message).
const closeReconnect = 4007

// conn is a connection that was welcomed.
type conn struct {
	ws           *websocket.Conn
	session      string
	maxSilence   time.Duration // that it may last
	messages     chan message  // closed at its end; then err says why
	err          error
	lastReceived atomic.Pointer[time.Time] // when anything came last
	done         chan struct{}             // closed by close
	end          func()
	reading      sync.WaitGroup
}

// connect makes a connection and awaits its welcome. It must be closed.
func (c *Client) connect(ctx context.Context, url string) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*c.timing.Request)
	defer cancel()
	ws, res, err := c.dialer.DialContext(ctx, url, nil)
	if res != nil && res.Body != nil {
		res.Body.Close()
	}
	if err != nil {
		if res != nil {
			err = fmt.Errorf("%w: answer %d", err, res.StatusCode)
		}
		return nil, fmt.Errorf("connect to Twitch's EventSub: %w", err)
	}
	defer context.AfterFunc(ctx, func() { ws.UnderlyingConn().Close() })() // DialContext heeds it no longer
	ws.SetReadLimit(maxMessage)
	k := &conn{ws: ws, messages: make(chan message, buffer), done: make(chan struct{})}
	k.end = sync.OnceFunc(func() { close(k.done); ws.Close() })
	_, data, err := ws.ReadMessage()
	var m message
	if err == nil {
		m, err = parse(data)
	}
	if err == nil && m.Metadata.Type != typeWelcome {
		err = fmt.Errorf("it begins with a %s", m.Metadata.Type)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		ws.Close()
		return nil, fmt.Errorf("no welcome from Twitch's EventSub: %w", err)
	}
	k.session = m.Payload.Session.ID
	k.maxSilence = defaultKeepalive
	if n := m.Payload.Session.Keepalive; n > 0 {
		k.maxSilence = time.Duration(n) * time.Second
	}
	k.maxSilence += c.timing.Slack
	now := c.now()
	k.lastReceived.Store(&now)
	k.reading.Go(func() { c.read(k) }) // ends with close
	return k, nil
}

// errSilent says that not even a keepalive message came.
var errSilent = errors.New("nothing comes from Twitch's EventSub any more")

// read reads until the connection ends. Pings are answered by the way.
func (c *Client) read(k *conn) {
	defer close(k.messages)
	for {
		err := k.ws.SetReadDeadline(time.Now().Add(k.maxSilence))
		var data []byte
		if err == nil {
			_, data, err = k.ws.ReadMessage()
		}
		var timeout interface{ Timeout() bool }
		switch {
		case errors.As(err, &timeout) && timeout.Timeout():
			k.err = errSilent
			return
		case err != nil:
			k.err = fmt.Errorf("read from Twitch's EventSub: %w", err)
			return
		}
		now := c.now()
		k.lastReceived.Store(&now)
		m, err := parse(data)
		if err != nil {
			c.metrics.notifications.WithLabelValues("invalid").Inc()
			c.log.Warn("left out what came from Twitch's EventSub", "error", err)
			continue
		}
		select {
		case k.messages <- m:
		case <-k.done:
			k.err = errors.New("closed")
			return
		}
	}
}

// close ends the connection, and returns when nothing of it is left. What Twitch has sent before it answers that is
// still read.
func (k *conn) close() {
	// it frees the session at once; a peer that is gone does not matter
	_ = k.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(closeTime))
	late := time.AfterFunc(closeTime, k.end)
	k.reading.Wait()
	late.Stop()
	k.end()
}

// cause is why a connection ended, as a metric's label.
func cause(err error) string {
	var closed *websocket.CloseError
	switch {
	case errors.Is(err, errSilent):
		return "silent"
	case errors.As(err, &closed) && closed.Code != websocket.CloseAbnormalClosure:
		return strconv.Itoa(closed.Code)
	}
	return "broken"
}

// jitter is d, or up to half of it more or less, so that what broke together does not come back together.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d+1) }
