package twitch

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	irc "github.com/gempir/go-twitch-irc/v4"

	"parley.internal/shared/credential"
)

const (
	// maxLine is the maximum length of a line in bytes. IRCv3 allows tags of 8,191 bytes.
	maxLine = 16 << 10
	// dialTime bounds connecting, and each write.
	dialTime = 10 * time.Second
	// drainPing is the text of the last PING.
	drainPing = "parley-drain"
)

// connection is one IRC connection.
type connection struct {
	conn         net.Conn
	writing      sync.Mutex
	drained      chan struct{} // closed by the answer to drainPing, or at the end of reading
	drain        func()        // closes drained; may be called again
	leaving      bool          // no further send; guarded by chat.mu
	lastReceived atomic.Int64  // time of the last line, in nanoseconds since 1970
}

func newConnection(conn net.Conn) *connection {
	w := &connection{conn: conn, drained: make(chan struct{})}
	w.drain = sync.OnceFunc(func() { close(w.drained) })
	return w
}

func (w *connection) write(line string) error {
	w.writing.Lock()
	defer w.writing.Unlock()
	if err := w.conn.SetWriteDeadline(time.Now().Add(dialTime)); err != nil {
		return err
	}
	_, err := w.conn.Write([]byte(line + "\r\n"))
	return err
}

var (
	errReconnect = errors.New("reconnect requested by Twitch")
	errRefused   = errors.New("login refused by Twitch's chat")
)

// connect holds one connection until its end. welcome reports whether the login succeeded.
func (c *chat) connect(ctx context.Context) (welcome bool, err error) {
	token, err := c.tokens.Token(ctx, c.bot)
	if err != nil {
		return false, err
	}
	if err := token.Require("chat:read", "chat:edit"); err != nil {
		return false, err
	}
	conn, err := c.logIn(ctx, token)
	if err != nil {
		return false, err
	}
	defer conn.conn.Close()
	life, end := context.WithCancelCause(ctx)
	defer context.AfterFunc(life, func() { conn.conn.Close() })()
	var joining sync.WaitGroup
	defer joining.Wait()
	defer end(nil)
	err = c.read(conn, func() {
		welcome = true
		c.mu.Lock()
		c.conn = conn
		c.login = strings.ToLower(token.Login)
		c.mu.Unlock()
		c.metrics.connected.Set(1)
		joining.Go(func() { c.join(life, conn) }) // ends with life
	}, end)
	c.disconnected(conn)
	if cause := context.Cause(life); cause != nil {
		err = cause
	}
	if errors.Is(err, errRefused) {
		if _, invalid := c.tokens.Invalid(ctx, c.bot, token); invalid != nil {
			err = errors.Join(err, invalid)
		}
	}
	return welcome, err
}

// logIn connects and sends the login. Twitch's answer comes later.
func (c *chat) logIn(ctx context.Context, token credential.Token) (*connection, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	conn, err := c.dial(ctx, "tcp", c.config.IRCAddr)
	if err != nil {
		return nil, fmt.Errorf("connect to Twitch's chat: %w", err)
	}
	if c.config.IRCTLS {
		host, _, _ := net.SplitHostPort(c.config.IRCAddr) // checked by Validate
		secured := tls.Client(conn, &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12})
		if err := secured.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, fmt.Errorf("connect to Twitch's chat: %w", err)
		}
		conn = secured
	}
	w := newConnection(conn)
	for _, line := range []string{
		"CAP REQ :twitch.tv/tags twitch.tv/commands",
		"PASS oauth:" + token.Access.Reveal(),
		"NICK " + strings.ToLower(token.Login),
	} {
		if err := w.write(line); err != nil {
			conn.Close()
			return nil, fmt.Errorf("log in to Twitch's chat: %w", err)
		}
	}
	return w, nil
}

// watchdog ends a silent connection. After a time without a line, the watchdog sends a PING. After another third of that
// time without a line, the watchdog calls end.
type watchdog struct {
	conn    *connection
	silence time.Duration
	end     context.CancelCauseFunc

	mu    sync.Mutex
	timer *time.Timer
	pings int // since the last line
}

func newWatchdog(conn *connection, silence time.Duration, end context.CancelCauseFunc) *watchdog {
	d := &watchdog{conn: conn, silence: silence, end: end}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.timer = time.AfterFunc(silence, d.expired)
	return d
}

func (d *watchdog) expired() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pings++; d.pings > 1 || d.conn.write("PING :parley") != nil {
		d.end(errors.New("no line from Twitch's chat"))
		return
	}
	d.timer.Reset(d.silence / 3)
}

// received restarts the silence.
func (d *watchdog) received() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pings = 0
	d.timer.Reset(d.silence)
}

// read handles lines until the connection ends, or calls end after a long silence.
func (c *chat) read(conn *connection, welcome func(), end context.CancelCauseFunc) error {
	lines := bufio.NewScanner(conn.conn)
	lines.Buffer(nil, maxLine)
	greeted := false
	defer conn.drain()
	dog := newWatchdog(conn, c.timing.ping, end)
	defer dog.timer.Stop()
	for lines.Scan() {
		conn.lastReceived.Store(time.Now().UnixNano())
		dog.received()
		switch m := c.parse(lines.Text()).(type) {
		case *irc.RawMessage:
			if m.RawType == "001" && !greeted {
				greeted = true
				welcome()
			}
		case *irc.PingMessage:
			if err := conn.write("PONG :" + m.Message); err != nil {
				return fmt.Errorf("write to Twitch's chat: %w", err)
			}
		case *irc.PongMessage:
			if m.Message == drainPing {
				conn.drain()
			}
		case *irc.ReconnectMessage:
			c.relocate(conn, end)
		case *irc.NoticeMessage:
			if m.Channel == "*" && !greeted {
				return fmt.Errorf("%w: %s", errRefused, m.Message)
			}
			c.notice(m)
		case *irc.RoomStateMessage:
			c.roomState(m)
		case *irc.GlobalUserStateMessage:
			c.setDisplayName(m.User.DisplayName)
		case *irc.UserStateMessage:
			c.setDisplayName(m.User.DisplayName)
			c.userState(m)
		case *irc.PrivateMessage, *irc.UserNoticeMessage, *irc.ClearChatMessage, *irc.ClearMessage:
			c.onMessage(m)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read from Twitch's chat: %w", err)
	}
	return errors.New("connection closed by Twitch's chat")
}

// pendingPoll is the pause between checks for pending messages before a relocation.
const pendingPoll = 20 * time.Millisecond

// relocate ends a connection before Twitch does. It waits for pending messages until timing.reconnect
// (https://dev.twitch.tv/docs/chat/irc/#reconnect).
func (c *chat) relocate(conn *connection, end context.CancelCauseFunc) {
	c.mu.Lock()
	conn.leaving = true
	c.mu.Unlock()
	deadline := time.Now().Add(c.timing.reconnect)
	var check func()
	check = func() { // ends with the last answer, or at the deadline
		c.mu.Lock()
		pending := false
		for _, r := range c.channels {
			pending = pending || r.pending != nil
		}
		c.mu.Unlock()
		if pending && time.Now().Before(deadline) {
			time.AfterFunc(pendingPoll, check)
			return
		}
		end(errReconnect)
	}
	check()
}
