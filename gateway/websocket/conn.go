package websocket

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	gorilla "github.com/gorilla/websocket"
	"golang.org/x/time/rate"

	"parley.internal/shared/bus"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/telemetry"
	"parley.internal/shared/topology"
)

const (
	// skipFactor times the frame limit is as much as is read of a frame only to skip it.
	skipFactor = 16
	// floodFactor times the rate limit is where a connection is closed instead of answered.
	floodFactor = 8
	// closeTimeout bounds the end of a connection: publishing what it had accepted, then writing what it had to deliver,
	// then its close handshake, each.
	closeTimeout = 2 * time.Second
	// maxKeptBuffer is how large a reading buffer may be to be kept for the next frame.
	maxKeptBuffer = 16 << 10
	// silentIntervals is for how many more ping intervals a silent connection is kept.
	silentIntervals = 2
)

// conn is one client's connection. Three goroutines belong to it, all of which end before serve returns: serve itself
// reads; write alone writes data frames; publish takes what was read to the bus, one after the other, so that the
// order of sending is the order of publishing while reading goes on.
type conn struct {
	server *Server
	ws     *gorilla.Conn
	id     uint64
	user   identity.UserID
	userID string
	log    *slog.Logger

	queue     *queue
	inbox     inbox
	rooms     map[string]struct{} // the hub's, under its lock
	rate      *rate.Limiter
	flood     *rate.Limiter
	published chan struct{} // closed when the publisher is done
	readDone  chan struct{} // closed when the reader is done

	// resumed are the deliveries that were written when the client connected, with how often each had been redriven, and
	// those that it said it has, with named. until is when the last one that was looked at then was opened: an answer
	// that was opened earlier, and comes over the bus late, is not for this connection. Both are the writer's alone.
	resumed map[string]int
	until   time.Time

	acks    bool // an answer counts as delivered when the client says that it has it
	ackMu   sync.Mutex
	unacked map[string]delivery.Ref // what it was given and has not acknowledged, by id
	ackRoom   chan struct{}           // gets one when there are fewer of them; has room for that

	endOnce sync.Once
	closing    context.Context // done when the end has begun
	setClosing context.CancelFunc
	code    CloseCode // set before over is done; 0 where the client ended it
}

// inbox holds what waits to be published. Only the reader puts; either side may close it.
type inbox struct {
	mu     sync.Mutex
	closed bool
	ch     chan inbound
}

// put reports whether the frame was taken; it is not if the inbox is full. One that is closed swallows it: the client
// is being told to come back, and sends again what it has no answer to.
func (b *inbox) put(in inbound) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return true
	}
	select {
	case b.ch <- in:
		return true
	default:
		return false
	}
}

func (b *inbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.closed = true
		close(b.ch)
	}
}

// end begins the end of the connection; the first call decides on the code. It doesn't block.
func (c *conn) end(code CloseCode) {
	c.endOnce.Do(func() {
		c.code = code
		c.server.hub.remove(c)
		c.inbox.close()
		if code == 0 || code == CloseSlow || code == CloseSilent {
			c.discard()
		}
		c.setClosing()
		// a write that is stuck is given this much more; those that follow set their own deadline
		c.ws.NetConn().SetWriteDeadline(time.Now().Add(closeTimeout))
	})
}

// discard gives up what waits in the queue.
func (c *conn) discard() {
	for _, f := range c.queue.close() {
		f.receipt.resolve(false)
	}
}

// serve runs the connection to its end. ctx ends with the server, after the drain.
func (c *conn) serve(ctx context.Context, expires time.Time, got []string) {
	cfg := c.server.config
	age := cfg.MaxAge
	if cfg.MaxAgeSpread > 0 {
		age += rand.N(2*cfg.MaxAgeSpread) - cfg.MaxAgeSpread
	}
	defer time.AfterFunc(age, func() { c.end(CloseMaxAge) }).Stop()
	if !expires.IsZero() {
		defer time.AfterFunc(expires.Sub(c.server.now()), func() { c.end(CloseTokenExpired) }).Stop()
	}

	var wg sync.WaitGroup
	publishing, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.closing, func() { time.AfterFunc(closeTimeout, cancel) })()
	wg.Go(func() { c.publish(publishing) })
	wg.Go(func() { c.write(ctx, got) })
	c.read(ctx)
	close(c.readDone)
	c.end(0)
	wg.Wait()
	c.server.metrics.close(c.code)
	c.log.DebugContext(ctx, "connection closed", "code", int(c.code))
}

// read takes frames until the connection breaks or is closed by the client.
func (c *conn) read(ctx context.Context) {
	cfg := c.server.config
	c.ws.SetReadLimit(int64(cfg.MaxFrame) * skipFactor)
	alive := func() {
		select {
		case <-c.closing.Done(): // the writer ends the reading soon
		default:
			c.ws.SetReadDeadline(time.Now().Add(silentIntervals * cfg.PingInterval))
		}
	}
	c.ws.SetPongHandler(func(string) error { alive(); return nil })
	ping := c.ws.PingHandler()
	c.ws.SetPingHandler(func(data string) error { alive(); return ping(data) })
	buf := make([]byte, 0, 1024)
	for {
		alive()
		kind, r, err := c.ws.NextReader()
		if err == nil {
			buf, err = readFrame(buf[:0], r, cfg.MaxFrame)
		}
		if errors.Is(err, errFrameTooLong) {
			c.server.metrics.framesIn.WithLabelValues("other").Inc()
			if !c.flood.Allow() {
				c.end(CloseFlood)
			} else if c.allow("") {
				c.refuse(&frameError{code: ErrTooLarge, message: "the frame is longer than the gateway takes"})
			}
			continue
		}
		if err != nil {
			var timeout net.Error
			switch {
			case errors.Is(err, gorilla.ErrReadLimit):
				c.end(CloseTooBig)
			case errors.As(err, &timeout) && timeout.Timeout():
				c.end(CloseSilent)
			}
			return
		}
		select {
		case <-c.closing.Done():
			continue // only the client's own close frame is of interest now
		default:
		}
		if !c.flood.Allow() {
			c.end(CloseFlood)
			continue
		}
		c.handle(ctx, kind, buf)
		if cap(buf) > maxKeptBuffer {
			buf = make([]byte, 0, 1024)
		}
	}
}

var errFrameTooLong = errors.New("frame too long")

// readFrame appends a frame of at most limit bytes to buf. Of a longer one it skips the rest.
func readFrame(buf []byte, r io.Reader, limit int) ([]byte, error) {
	for {
		if len(buf) > limit {
			if _, err := io.Copy(io.Discard, r); err != nil {
				return buf, err
			}
			return buf[:0], errFrameTooLong
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

// allow takes a frame off the connection's rate, or answers that it is too much.
func (c *conn) allow(id string) bool {
	if !c.rate.Allow() {
		c.refuse(&frameError{code: ErrRate, message: "more frames than the connection may send", id: id})
		return false
	}
	return true
}

// handle does what one frame asks for. data is only valid until it returns.
func (c *conn) handle(ctx context.Context, kind int, data []byte) {
	var in inbound
	var err error
	if kind == gorilla.TextMessage {
		in, err = decode(data, c.server.config.MaxText)
	} else {
		err = &frameError{code: ErrNotJSON, message: "a binary message"}
	}
	c.server.metrics.framesIn.WithLabelValues(kindLabel(in.kind)).Inc()
	refused, _ := errors.AsType[*frameError](err)
	id := in.id
	if refused != nil {
		id = refused.id
	}
	if !c.allow(id) {
		return
	}
	if refused != nil {
		c.refuse(refused)
		return
	}

	switch in.kind {
	case TypeAck:
		c.acknowledge(ctx, in.ackedIDs)
		return
	case TypeLeave:
		c.server.hub.leave(c, in.room)
		c.send(controlFrame(TypeLeft, roomPayload{in.room}, in.id, c.server.now()), "control")
		return
	case TypeJoin, TypeSend:
		// whoever talks in a room hears what is said there
		if in.room != "" && !c.server.hub.join(c, in.room) {
			c.refuse(&frameError{code: ErrTooManyRooms, message: "the connection is in as many rooms as it may be", id: in.id})
			return
		}
		if in.kind == TypeJoin {
			c.send(controlFrame(TypeJoined, roomPayload{in.room}, in.id, c.server.now()), "control")
			return
		}
	}
	if !c.inbox.put(in) {
		c.refuse(&frameError{code: ErrBusy, message: "too many messages of this connection wait to be taken over", id: in.id})
	}
}

// refuse answers a frame with chat.error.
func (c *conn) refuse(e *frameError) {
	c.server.metrics.refused.WithLabelValues(string(e.code)).Inc()
	c.send(controlFrame(TypeError, errorPayload{Code: e.code, Message: e.message, ID: e.id}, e.id, c.server.now()), "error")
}

// send queues a frame of the gateway's own for this connection alone.
func (c *conn) send(o outbound, kind string) {
	f, err := prepare(o, kind)
	if err != nil {
		c.log.Error("a frame could not be made", "error", err)
		return
	}
	c.push(f)
}

// push queues a frame and reports whether it was taken. A connection whose queue is full is closed: holding frames
// back for it would cost memory without a bound, and dropping single ones would leave it with gaps that it can't see.
func (c *conn) push(f frame) bool {
	err := c.queue.push(f)
	if errors.Is(err, errQueueFull) {
		c.server.metrics.overflows.Inc()
		c.end(CloseSlow)
	}
	return err == nil
}

// publish takes the inbox to the bus, in order, until it is closed and empty.
func (c *conn) publish(ctx context.Context) {
	defer close(c.published)
	for in := range c.inbox.ch {
		c.publishOne(ctx, in)
	}
}

func (c *conn) publishOne(ctx context.Context, in inbound) {
	ctx, traceID := telemetry.StartTrace(ctx)
	e := in.toEvent(c.user, traceID)
	began := time.Now()
	err := c.server.publisher.Publish(ctx, topology.Ingress, bus.Outgoing{Event: e})
	c.server.metrics.publishTime.Observe(time.Since(began).Seconds())
	switch {
	case err == nil:
		c.server.metrics.published.WithLabelValues("ok").Inc()
	case errors.Is(err, event.ErrInvalid):
		// what decode let through and the event's own limits don't
		c.server.metrics.published.WithLabelValues("invalid").Inc()
		c.refuse(&frameError{code: ErrBadFrame, message: "the frame makes no valid event", id: in.id})
	default:
		c.server.metrics.published.WithLabelValues("failed").Inc()
		c.log.ErrorContext(ctx, "a client's message was not published", "error", err, "correlationId", e.CorrelationID)
		c.refuse(&frameError{code: ErrUnavailable, message: "the message could not be taken over; send it again with the same id", id: in.id})
	}
}

// write takes the queue to the network and pings, until the end, which it brings about: what is queued is written, a
// close frame is sent, and the client has a moment to answer it.
func (c *conn) write(ctx context.Context, got []string) {
	defer c.ws.Close() // frees the reader
	defer c.discard()  // nobody else writes what still waits, or is pushed by one who found the connection before its end
	ping := time.NewTicker(c.server.config.PingInterval)
	defer ping.Stop()
	if !c.resume(ctx, got, ping.C) {
		c.finish(ctx)
		return
	}
	var spare []frame
	for {
		select {
		case <-c.queue.wake:
			batch := c.queue.take(spare)
			if !c.writeAll(ctx, batch, c.server.config.WriteTimeout) {
				c.end(CloseSlow)
				return // after half a frame there can be no close frame
			}
			spare = batch
		case <-ping.C:
			c.ping()
		case <-c.closing.Done():
			c.finish(ctx)
			return
		}
	}
}

func (c *conn) ping() {
	if c.ws.WriteControl(gorilla.PingMessage, nil, time.Now().Add(c.server.config.WriteTimeout)) != nil {
		c.end(CloseSilent)
	}
}

// writeAll writes frames until the first that the network doesn't take, and resolves the receipts of all.
func (c *conn) writeAll(ctx context.Context, frames []frame, timeout time.Duration) bool {
	ok := true
	for _, f := range frames {
		if attempt, had := c.resumed[f.delivery]; had && f.attempt <= attempt {
			if attempt == anyAttempt && c.acks {
				c.acknowledge(ctx, []string{f.delivery})
			}
			f.receipt.resolve(true)
			continue
		}
		if !f.opened.IsZero() && !f.opened.After(c.until) || c.overdue(f.deadline) {
			c.cancelAck(f.delivery)
			f.receipt.resolve(false)
			continue
		}
		if ok {
			c.ws.SetWriteDeadline(c.writeDeadline(timeout))
			ok = c.ws.WritePreparedMessage(f.prepared) == nil
		}
		f.receipt.resolve(ok)
		if ok {
			c.server.metrics.framesOut.WithLabelValues(f.kind).Inc()
		}
	}
	return ok
}

// overdue reports whether an answer with this deadline must not be written any more, because the sweep may have given it
// up: a frame can wait long behind others for a client that reads slowly.
func (c *conn) overdue(deadline time.Time) bool {
	return !deadline.IsZero() && c.server.now().After(deadline)
}

func (c *conn) writeDeadline(timeout time.Duration) time.Time {
	select {
	case <-c.closing.Done():
		timeout = min(timeout, closeTimeout)
	default:
	}
	return time.Now().Add(timeout)
}

// finish is the end of a connection as the writer brings it about.
func (c *conn) finish(ctx context.Context) {
	switch c.code {
	case 0:
		c.discard()
		return
	case CloseSlow, CloseSilent, CloseNotResumed: // what waits would overtake what was missed, or is too much
		c.discard()
	default:
		select {
		case <-c.published: // what could not be published is to be told
		case <-time.After(closeTimeout + time.Second):
		}
		if !c.writeAll(ctx, c.queue.close(), closeTimeout) {
			return
		}
	}
	m := c.code.meaning()
	deadline := time.Now().Add(closeTimeout)
	if c.ws.WriteControl(gorilla.CloseMessage, gorilla.FormatCloseMessage(int(c.code), m.Name), deadline) != nil {
		return
	}
	// Closing TCP while frames of the client are still unread would make its system throw away what it has not read
	// yet (RFC 6455, section 7.1.1): wait for its own close frame.
	select {
	case <-c.readDone:
	case <-time.After(closeTimeout):
	}
}
