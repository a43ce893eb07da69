package websocket

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	gorilla "github.com/gorilla/websocket"
	"golang.org/x/time/rate"
)

const (
	// skipFactor times the frame limit is the maximum size of a skipped frame, on the network and after inflating. A longer
	// frame closes the connection.
	skipFactor = 16
	// floodFactor times the rate limit is the rate above which a connection is closed, instead of getting more errors.
	floodFactor = 8
	// maxKeptBuffer is the maximum size of a read buffer for reuse.
	maxKeptBuffer = 16 << 10
	// silentIntervals is the number of ping intervals without a frame before a connection is closed.
	silentIntervals = 2
)

// read handles the client's frames until the connection fails or the client closes it.
func (c *conn) read(ctx context.Context) {
	c.ws.SetReadLimit(int64(c.server.config.MaxFrame) * skipFactor)
	c.ws.SetPongHandler(func(string) error { c.keepAlive(); return nil })
	pong := c.ws.PingHandler()
	c.ws.SetPingHandler(func(data string) error {
		if c.closing.Err() != nil {
			return nil
		}
		c.keepAlive()
		return pong(data)
	})
	var buf []byte
	for {
		if cap(buf) == 0 || cap(buf) > maxKeptBuffer {
			buf = make([]byte, 0, 1024)
		}
		c.keepAlive()
		kind, r, err := c.ws.NextReader() // skips the unread rest of the last frame, without inflating
		if err == nil && c.closing.Err() != nil {
			continue // from now on, only the client's close frame matters
		}
		if err == nil {
			buf, err = readFrame(buf[:0], r, c.server.config.MaxFrame)
		}
		switch {
		case err == nil:
			if !c.limits.flood.Allow() {
				c.end(CloseFlood)
				continue
			}
			c.handle(ctx, kind, buf)
		case errors.Is(err, errFrameTooLong):
			c.server.metrics.framesIn.WithLabelValues("other").Inc()
			if !c.limits.flood.Allow() {
				c.end(CloseFlood)
			} else if c.allow(c.limits.rate, "") {
				c.refuse(&frameError{code: ErrTooLarge, message: "the frame is longer than the limit"})
			}
		case errors.Is(err, errUnskippable):
			c.end(CloseTooBig)
		default:
			c.readFailed(err)
			return
		}
	}
}

// keepAlive extends the time in which the client must send something.
func (c *conn) keepAlive() {
	if c.closing.Err() == nil { // otherwise, the writer closes the socket soon
		c.ws.SetReadDeadline(time.Now().Add(silentIntervals * c.server.config.PingInterval))
	}
}

// readFailed begins to close the connection after a read error.
func (c *conn) readFailed(err error) {
	var timeout net.Error
	switch {
	case c.frames.flooded:
		c.end(CloseFlood)
		io.Copy(io.Discard, c.frames.Conn) // ends when the writer closes the socket; see finish for the reason
	case errors.Is(err, gorilla.ErrReadLimit):
		c.end(CloseTooBig)
	case errors.As(err, &timeout) && timeout.Timeout():
		c.end(CloseSilent)
	}
}

// The errors of readFrame, besides the connection's own.
var (
	errFrameTooLong = errors.New("frame too long")
	errUnskippable  = errors.New("frame too long for skipping")
)

// readFrame appends a frame of at most limit bytes to buf. It skips the rest of a longer frame and returns
// errFrameTooLong. From a compressed frame, it inflates at most limit*skipFactor bytes, and returns errUnskippable if there
// are more. The connection's read limit does not suffice: it counts compressed bytes, and a byte may inflate to 1,000.
func readFrame(buf []byte, r io.Reader, limit int) ([]byte, error) {
	for {
		if len(buf) > limit {
			_, err := io.CopyN(io.Discard, r, int64(limit*skipFactor-len(buf)+1))
			switch {
			case err == nil:
				return buf[:0], errUnskippable
			case errors.Is(err, io.EOF):
				return buf[:0], errFrameTooLong
			}
			return buf, err
		}
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if errors.Is(err, io.EOF) {
			if len(buf) > limit {
				return buf[:0], errFrameTooLong
			}
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
	}
}

// allow counts a frame against a rate limit, and refuses the frame above the limit.
func (c *conn) allow(limit *rate.Limiter, id string) bool {
	if !limit.Allow() {
		c.refuse(&frameError{code: ErrRate, message: "the frames exceed the rate limit", id: id})
		return false
	}
	return true
}

// allowExtra counts n frames without a message against the rate limit. It reports false for a flood.
func (c *conn) allowExtra(n int) bool {
	if !c.limits.flood.AllowN(time.Now(), n) {
		return false
	}
	for range n {
		c.limits.rate.Allow() // no answer, but messages may be refused afterwards
	}
	return true
}
