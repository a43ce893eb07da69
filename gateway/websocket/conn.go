package websocket

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
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
	// closeTimeout is the timeout of each step at the end of a connection: publishing the accepted messages, writing the
	// queued frames, and the close handshake.
	closeTimeout = 2 * time.Second
	// maxInboxBytes is the maximum size of a connection's messages waiting for publication.
	maxInboxBytes = 1 << 20
)

// conn is a client's connection. Four goroutines serve a connection, and all end before serve returns: serve itself
// reads; write is the only one that writes data frames; publish publishes the messages of the inbox one by one, so that
// messages are published in the client's order, and reading continues meanwhile; recheckAccount reads the account again.
type conn struct {
	server  *Server
	ws      *gorilla.Conn
	id      uint64
	user    identity.UserID
	userID  string
	account account // as read when the connection was opened
	log     *slog.Logger

	moderator atomic.Bool // the user may request moderation actions, as last read by recheckAccount

	queue     *queue
	inbox     inbox
	rooms     map[string]struct{} // guarded by the hub's lock
	limits    *allowance          // of the user
	ackRate   *rate.Limiter       // acknowledgements of the connection; their number depends on the answers
	frames    *frameCounter
	published chan struct{} // closed when the publisher is done
	readDone  chan struct{} // closed when the reader is done

	// resumed holds the deliveries that the client already has, each with a redrive count: the deliveries written by
	// resume, and the deliveries named by the client, with anyAttempt as the count. until is the creation time of the last
	// entry read by resume. An answer that was opened earlier, but arrives late over the bus, is not for this connection.
	// Only the writer uses the two fields.
	resumed map[string]int
	until   time.Time

	acks    bool // the client acknowledges answers; an answer does not count as delivered before
	ackMu   sync.Mutex
	unacked map[string]delivery.Ref // answers queued and not yet acknowledged, by id
	ackRoom chan struct{}           // signals fewer unacked answers; capacity 1

	endOnce    sync.Once
	closing    context.Context // done when the connection begins to close
	setClosing context.CancelFunc
	code       CloseCode // set before closing is done; 0 if the client closed the connection
}

// inbox holds the messages waiting for publication. Only the reader calls put; any goroutine may call close.
type inbox struct {
	mu     sync.Mutex
	closed bool
	bytes  int // size of the messages in ch, and of the message being published
	ch     chan inbound
}

// put adds a message, or reports false if the inbox is full, in messages or in bytes. A closed inbox drops the message
// and reports true: the client gets a close frame, reconnects, and sends every message again that got no answer.
func (b *inbox) put(in inbound) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return true
	}
	if b.bytes > 0 && b.bytes+in.size() > maxInboxBytes {
		return false
	}
	select {
	case b.ch <- in:
		b.bytes += in.size()
		return true
	default:
		return false
	}
}

// done removes a published message from the size.
func (b *inbox) done(in inbound) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bytes -= in.size()
}

func (b *inbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.closed = true
		close(b.ch)
	}
}

// end begins to close the connection. The first call sets the code. end does not block.
func (c *conn) end(code CloseCode) {
	c.endOnce.Do(func() {
		c.code = code
		c.server.hub.remove(c)
		c.inbox.close()
		if code == 0 || code == CloseSlow || code == CloseSilent {
			c.discard()
		}
		c.setClosing()
		// bounds a blocked write; each later write sets its own deadline
		c.ws.NetConn().SetWriteDeadline(time.Now().Add(closeTimeout))
	})
}

// discard closes the queue and drops its frames. Their receipts are resolved as not written.
func (c *conn) discard() {
	for _, f := range c.queue.close() {
		f.receipt.resolve(false)
	}
}

// serve runs the connection until the end. ctx ends with the server, after the drain.
func (c *conn) serve(ctx context.Context, received []string) {
	cfg := c.server.config
	age := cfg.MaxAge
	if cfg.MaxAgeSpread > 0 {
		age += rand.N(2*cfg.MaxAgeSpread) - cfg.MaxAgeSpread
	}
	defer time.AfterFunc(age, func() { c.end(CloseMaxAge) }).Stop()
	if expires := c.account.token.ExpiresAt; !expires.IsZero() {
		defer time.AfterFunc(expires.Sub(c.server.now()), func() { c.end(CloseTokenExpired) }).Stop()
	}

	var wg sync.WaitGroup
	publishing, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.closing, func() { time.AfterFunc(closeTimeout, cancel) })()
	wg.Go(func() { c.publish(publishing) })
	wg.Go(func() { c.recheckAccount(ctx) })
	wg.Go(func() { c.write(ctx, received) })
	c.read(ctx)
	close(c.readDone)
	c.end(0)
	wg.Wait()
	c.server.metrics.close(c.code)
	c.log.DebugContext(ctx, "connection closed", "code", int(c.code))
}

// handle executes a client's frame. data is only valid until handle returns.
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
	limit := c.limits.rate
	if in.kind == TypeAck {
		limit = c.ackRate
	}
	if !c.allow(limit, id) {
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
		// a sender to a room is also a member of the room
		if in.room != "" && !c.server.hub.join(c, in.room) {
			c.refuse(&frameError{code: ErrTooManyRooms, message: "the connection has the maximum number of rooms", id: in.id})
			return
		}
		if in.kind == TypeJoin {
			c.send(controlFrame(TypeJoined, roomPayload{in.room}, in.id, c.server.now()), "control")
			return
		}
	}
	if !c.inbox.put(in) {
		c.refuse(&frameError{code: ErrBusy, message: "too many messages of the connection are waiting for publication", id: in.id})
	}
}

// refuse answers a frame with chat.error.
func (c *conn) refuse(e *frameError) {
	c.server.metrics.refused.WithLabelValues(string(e.code)).Inc()
	full := CloseSlow
	if e.code == ErrRate {
		full = CloseFlood // the queue holds the errors of a flood
	}
	c.sendOr(controlFrame(TypeError, errorPayload{Code: e.code, Message: e.message, ID: e.id}, e.id, c.server.now()), "error", full)
}

// send queues a control or error frame for this connection.
func (c *conn) send(o outbound, kind string) {
	c.sendOr(o, kind, CloseSlow)
}

// sendOr is send with the code for closing the connection if the queue is full.
func (c *conn) sendOr(o outbound, kind string, full CloseCode) {
	f, err := prepare(o, kind)
	if err != nil {
		c.log.Error("encoding a frame failed", "error", err)
		return
	}
	c.pushOr(f, full)
}

// push queues a frame, or reports false. A full queue closes the connection: more queued frames would cost memory
// without a bound, and dropped frames would leave gaps invisible to the client.
func (c *conn) push(f frame) bool { return c.pushOr(f, CloseSlow) }

func (c *conn) pushOr(f frame, full CloseCode) bool {
	err := c.queue.push(f)
	if errors.Is(err, errQueueFull) {
		c.server.metrics.overflows.Inc()
		c.end(full)
	}
	return err == nil
}

// publish publishes or refuses the messages of the inbox in order, until the inbox is closed and empty.
func (c *conn) publish(ctx context.Context) {
	defer close(c.published)
	for in := range c.inbox.ch {
		c.publishOne(ctx, in)
		c.inbox.done(in)
	}
}

func (c *conn) publishOne(ctx context.Context, in inbound) {
	ctx, traceID := telemetry.StartTrace(ctx)
	e := in.toEvent(c.user, traceID)
	if !c.permitted(in) {
		c.forbid(ctx, in, e)
		return
	}
	began := time.Now()
	err := c.server.publisher.Publish(ctx, topology.Ingress, bus.Outgoing{Event: e})
	c.server.metrics.publishTime.Observe(time.Since(began).Seconds())
	switch {
	case err == nil:
		c.server.metrics.published.WithLabelValues("ok").Inc()
	case errors.Is(err, event.ErrInvalid):
		// decode accepted the frame, but the event exceeds a limit
		c.server.metrics.published.WithLabelValues("invalid").Inc()
		c.refuse(&frameError{code: ErrBadFrame, message: "the frame makes no valid event", id: in.id})
	default:
		c.server.metrics.published.WithLabelValues("failed").Inc()
		c.log.ErrorContext(ctx, "publishing a client's message failed", "error", err, "correlationId", e.CorrelationID)
		c.refuse(&frameError{code: ErrUnavailable, message: "the message was not published; send it again with the same id", id: in.id})
	}
}

// write first resumes, then writes queued frames and pings until the connection closes. At the end, write performs the
// close procedure; see finish.
func (c *conn) write(ctx context.Context, received []string) {
	defer c.ws.Close() // unblocks the reader
	defer c.discard()  // no goroutine will write the remaining frames, or frames that are pushed during the close
	ping := time.NewTicker(c.server.config.PingInterval)
	defer ping.Stop()
	if !c.resume(ctx, received, ping.C) {
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
				return // no close frame is possible after an incomplete frame
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
	c.frames.pinged.Store(true)
	if c.ws.WriteControl(gorilla.PingMessage, nil, time.Now().Add(c.server.config.WriteTimeout)) != nil {
		c.end(CloseSilent)
	}
}

// writeAll writes frames until the first error, and resolves the receipts of all frames. It skips frames already at the
// client, and overdue frames. It reports false after an error.
func (c *conn) writeAll(ctx context.Context, frames []frame, timeout time.Duration) bool {
	ok := true
	for _, f := range frames {
		if attempt, had := c.resumed[f.delivery]; had && f.delivery != "" && f.attempt <= attempt {
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

// overdue reports whether the deadline has passed. The sweep may have dead-lettered an overdue answer, so the answer must
// not be written. A frame can wait for long in the queue of a slow client.
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

// finish closes the connection: it writes the queued frames, sends the close frame, and waits for the client's close
// frame.
func (c *conn) finish(ctx context.Context) {
	switch c.code {
	case 0:
		c.discard()
		return
	case CloseSlow, CloseSilent, CloseNotResumed: // the queue is too long, or its frames would overtake missed answers
		c.discard()
	default:
		select {
		case <-c.published: // so that the client also gets the errors of messages that could not be published
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
	// If TCP is closed while frames of the client are unread, the client's system drops its own unread data (RFC 6455,
	// section 7.1.1). So wait for the client's close frame.
	select {
	case <-c.readDone:
	case <-time.After(closeTimeout):
	}
}
