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

// defaultKeepalive is Twitch's default keepalive time.
const defaultKeepalive = 10 * time.Second

// buffer is the number of waiting messages. With a full buffer, the client reads nothing, and Twitch keeps the messages
// for a while.
const buffer = 64

// closeTime is the maximum time for Twitch's answer to a close message.
const closeTime = 500 * time.Millisecond

// closeReconnect is Twitch's close code for an expired reconnect_url
// (https://dev.twitch.tv/docs/eventsub/handling-websocket-events/#close-message).
const closeReconnect = 4007

// conn is a welcomed connection.
type conn struct {
	ws           *websocket.Conn
	session      string
	maxSilence   time.Duration
	messages     chan message // closed at the end; then err is set
	err          error
	lastReceived atomic.Pointer[time.Time] // time of the last message
	done         chan struct{}             // closed by end
	end          func()
	reading      sync.WaitGroup
}

// connect makes a connection and waits for the welcome. The caller must close the connection.
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
	defer context.AfterFunc(ctx, func() { ws.UnderlyingConn().Close() })() // DialContext no longer observes ctx
	ws.SetReadLimit(maxMessage)
	k := &conn{ws: ws, messages: make(chan message, buffer), done: make(chan struct{})}
	k.end = sync.OnceFunc(func() { close(k.done); ws.Close() })
	_, data, err := ws.ReadMessage()
	var m message
	if err == nil {
		m, err = parse(data)
	}
	if err == nil && m.Metadata.Type != typeWelcome {
		err = fmt.Errorf("the first message is a %s", m.Metadata.Type)
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

// errSilent means that not even a keepalive message came in time.
var errSilent = errors.New("no message from Twitch's EventSub")

// read reads messages until the connection ends. The library answers pings.
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
			c.log.Warn("EventSub: message is invalid", "error", err)
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

// close ends the connection and waits for the end of read. Messages before Twitch's close message are still read.
func (k *conn) close() {
	// frees the session at Twitch at once; the error of a lost connection does not matter
	_ = k.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(closeTime))
	late := time.AfterFunc(closeTime, k.end)
	k.reading.Wait()
	late.Stop()
	k.end()
}

// cause returns the metric's label for the end of a connection.
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

// jitter returns a random duration between half and one and a half times d, so that instances do not retry together.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d+1) }
