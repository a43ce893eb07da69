package twitch

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"parley.internal/emulator/fake"
	"parley.internal/shared/retry"
)

// maxLine is the largest length of an incoming line in bytes: tags, then a text of 500 characters of up to 4 bytes.
// Like Twitch, the server ends a connection that exceeds the length.
const maxLine = 8 << 10

// goodbye bounds the time for a client to leave after the last message.
const goodbye = 5 * time.Second

// transport transports lines over TCP or WebSocket.
type transport interface {
	// read returns one or more received lines, without line ends.
	read() ([]string, error)
	// write sends lines at once; the lines have no line ends.
	write(lines []string) error
	// end closes the connection in order: all written lines arrive, and the client's end is read.
	end()
	close()
}

// ircConn is an IRC client.
type ircConn struct {
	server *Server
	wire   transport
	ctx    context.Context
	cancel context.CancelFunc

	// Guarded by the server's mu.
	account    *account // nil before login, and for the anonymous user
	nick       string   // empty before login
	pass       string
	token      *Token // nil for the anonymous user
	registered bool
	refused    bool // login failed; further lines are ignored
	tags       bool
	commands   bool
	membership bool
	rooms      map[*room]bool
	delay      time.Duration

	*fake.Queue[string] // of lines
	pong                chan struct{}
}

func (s *Server) acceptIRC() {
	for {
		c, err := s.irc.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		lines := bufio.NewScanner(c)
		lines.Buffer(nil, maxLine)
		if !s.tasks.Go(func() { s.runIRC(&tcpTransport{conn: c, lines: lines}) }) {
			_ = c.Close()
		}
	}
}

// serveIRC serves IRC over WebSocket. A client may offer the sub-protocol irc, as tmi.js does, or none, as twurple does. A
// client that offers a sub-protocol fails if the server selects none.
func (s *Server) serveIRC(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, Subprotocols: []string{"irc"}})
	if err != nil {
		return // Accept has answered the request
	}
	c.SetReadLimit(maxLine)
	ctx, cancel := context.WithCancel(s.tasks.Context())
	defer cancel()
	s.runIRC(&webTransport{conn: c, ctx: ctx})
}

func (s *Server) runIRC(wire transport) {
	c := &ircConn{server: s, wire: wire, rooms: map[*room]bool{}, pong: make(chan struct{}, 1)}
	c.ctx, c.cancel = context.WithCancel(s.tasks.Context())
	c.Queue = fake.NewQueue[string](c.abort)
	s.lock()
	if c.ctx.Err() != nil {
		s.unlock()
		c.abort()
		return
	}
	s.clients[c] = true
	s.unlock()

	var writer sync.WaitGroup
	writer.Go(c.writeLoop)
	c.readLoop()
	s.lock()
	delete(s.clients, c)
	for r := range c.rooms {
		c.part(r)
	}
	s.unlock()
	c.abort()
	writer.Wait()
}

func (c *ircConn) readLoop() {
	for {
		lines, err := c.wire.read()
		if err != nil {
			return
		}
		for _, line := range lines {
			m, ok := parseMessage(line)
			if !ok {
				continue
			}
			c.server.lock()
			on := c.handle(m)
			c.server.unlock()
			if !on {
				return
			}
		}
	}
}

// writeLoop sends the queued lines, and pings.
func (c *ircConn) writeLoop() {
	if c.write() {
		// An immediate close with unread data would discard the last line on its way to the client.
		c.wire.end()
		return
	}
	c.abort()
}

// write sends lines until the end of the connection, and reports whether the connection ended in order.
func (c *ircConn) write() bool {
	interval := c.server.options.timing.Ping
	ping := time.NewTimer(interval)
	defer ping.Stop()
	awaiting := false
	for {
		select {
		case <-c.ctx.Done():
			return false
		case <-c.pong:
			awaiting = false
			continue
		case <-ping.C:
			if awaiting {
				return false
			}
			awaiting = true
			ping.Reset(interval)
			c.Push("PING :" + host)
			continue
		case <-c.Ready():
		}
		lines, last := c.Take()
		if d := c.pause(); d > 0 && retry.Sleep(c.ctx, d) != nil {
			return false
		}
		if len(lines) > 0 && c.wire.write(lines) != nil {
			return false
		}
		if last {
			return true
		}
	}
}

func (c *ircConn) pause() time.Duration {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	return c.delay
}

// send queues a message, with tags if the client asked for tags.
func (c *ircConn) send(m message) { c.Push(m.encode(c.tags)) }

// abort ends the connection at once.
func (c *ircConn) abort() {
	c.cancel()
	c.wire.close()
}

type tcpTransport struct {
	conn  net.Conn
	lines *bufio.Scanner
}

func (t *tcpTransport) read() ([]string, error) {
	if !t.lines.Scan() {
		return nil, errors.Join(net.ErrClosed, t.lines.Err())
	}
	return []string{strings.TrimSuffix(t.lines.Text(), "\r")}, nil
}

func (t *tcpTransport) write(lines []string) error {
	_, err := t.conn.Write([]byte(strings.Join(lines, "\r\n") + "\r\n"))
	return err
}

func (t *tcpTransport) end() {
	if c, ok := t.conn.(*net.TCPConn); ok {
		_ = c.CloseWrite()
	}
	_ = t.conn.SetReadDeadline(time.Now().Add(goodbye))
}

func (t *tcpTransport) close() { _ = t.conn.Close() }

type webTransport struct {
	conn *websocket.Conn
	ctx  context.Context
}

func (t *webTransport) read() ([]string, error) {
	_, b, err := t.conn.Read(t.ctx)
	if err != nil {
		return nil, err
	}
	// A client may omit the line end, or send many lines in one message.
	return strings.FieldsFunc(string(b), func(r rune) bool { return r == '\r' || r == '\n' }), nil
}

func (t *webTransport) write(lines []string) error {
	return t.conn.Write(t.ctx, websocket.MessageText, []byte(strings.Join(lines, "\r\n")+"\r\n"))
}

func (t *webTransport) end() { _ = t.conn.Close(websocket.StatusNormalClosure, "") }

func (t *webTransport) close() { _ = t.conn.CloseNow() }
