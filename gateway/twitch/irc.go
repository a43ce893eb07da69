package twitch

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	irc "github.com/gempir/go-twitch-irc/v4"

	"parley.internal/gateway/outbox"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/identity"
	helix "parley.internal/shared/twitch"
)

const (
	// maxLine is the longest line that is read. IRCv3 allows tags of 8,191 bytes.
	maxLine = 16 << 10
	// dialTime bounds connecting, and each write.
	dialTime = 10 * time.Second
)

// timing is how long what Twitch's pages give no number for may take.
type timing struct {
	ping         time.Duration // of silence, after which Twitch is asked whether it is there, and once more until it is not
	join         time.Duration // from a JOIN to its answer; then it is sent again
	minBackoff   time.Duration
	maxBackoff   time.Duration
	reconnect    time.Duration // after RECONNECT, until what was said is answered
	scan         time.Duration // between looks into the ledger
	retry        time.Duration // before what stood in the way is tried again
	claim        time.Duration // how old a claim may be when something is said by it; less than egress.ClaimLease
	flush        time.Duration // for publishing what is left at the end
	linger       time.Duration // in a channel after its lease was given back, until its next owner is there
	publishDelay time.Duration // from hearing something to having published it
}

var defaultTiming = timing{
	ping: 45 * time.Second, join: 10 * time.Second, minBackoff: 500 * time.Millisecond, maxBackoff: 30 * time.Second,
	reconnect: 3 * time.Second, scan: 15 * time.Second, retry: 3 * time.Second, claim: 40 * time.Second, flush: 3 * time.Second,
	linger: 1500 * time.Millisecond, publishDelay: 500 * time.Millisecond,
}

// chat is an instance's connection to https://dev.twitch.tv/docs/chat/irc/. It is open while there is a channel to be
// in. Of go-twitch-irc it takes the parsing of lines: that library's own client reconnects at once however often it
// fails, and sends again on the next connection what the last one may have sent already.
type chat struct {
	config    Config
	timing    timing
	limits    limits
	bot       identity.UserID
	tokens    helix.Tokens
	dial      func(ctx context.Context, network, addr string) (net.Conn, error)
	log       *slog.Logger
	metrics   *metrics
	joinPacer *pacer
	onMessage func(irc.Message)                       // called for each line that somebody wrote; may block
	onJoined  func(login string, from, now time.Time) // nobody was in the channel since from; zero if that is not known
	onParted  func(login string, since time.Time)     // unwillingly

	mu           sync.Mutex
	channels     map[string]*channel // by login
	conn         *connection         // nil while there is none
	lastReceived time.Time           // when something came last on the last one that broke
	wakeUp       chan struct{}       // there is something for the joiner, or a reason to connect
}

// channel is a channel that the instance is to be in.
type channel struct {
	login      string
	id         string    // Twitch's number of the broadcaster; empty until it is known
	joined     bool      // on the present connection
	joinSent   time.Time // when the JOIN was sent; zero if it was not
	idleSince  time.Time // since when nobody listens; zero if that is not known
	privileged bool      // the bot is broadcaster or moderator
	generation int       // how often its end was begun or called off
	leaving    bool      // the lease is another's: the instance stays a little, and does not join anew
	changed    chan struct{}
	pending    *pendingMessage // for what becomes of a message; nil if there is none
}

// pendingMessage is a message of which Twitch has not said yet what became of it.
type pendingMessage struct {
	nonce  string
	result chan outbox.Outcome // of one
}

// connection is one connection.
type connection struct {
	conn         net.Conn
	writing      sync.Mutex
	leaving      bool         // it ends soon: nothing is said here any more
	lastReceived atomic.Int64 // when something came last, in nanoseconds since 1970
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

func (c *chat) wake() {
	select {
	case c.wakeUp <- struct{}{}:
	default:
	}
}

// enter makes the instance be in a channel from now on. absent is since when nobody listened there.
func (c *chat) enter(login string, absent time.Time) {
	c.mu.Lock()
	r := c.channels[login]
	if r == nil {
		r = &channel{login: login, changed: make(chan struct{})}
		c.channels[login] = r
	}
	r.generation++
	r.leaving = false
	in := r.joined
	if !in {
		r.idleSince = absent
	}
	c.mu.Unlock()
	if in { // it listened all the time
		c.onJoined(login, time.Time{}, time.Now())
	}
	c.wake()
}

// idle is for how long nothing has come: 0 before anything ever did.
func (c *chat) idle() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.lastReceived
	if c.conn != nil {
		last = time.Unix(0, c.conn.lastReceived.Load())
	}
	if last.IsZero() {
		return 0
	}
	return max(0, time.Since(last))
}

// leave ends that, a little later: until the next owner has joined, this instance listens on, because what nobody hears
// Twitch does not tell again. What both hear is one event.
func (c *chat) leave(login string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.channels[login]
	r.generation++
	r.leaving = true
	end := r.generation
	time.AfterFunc(c.timing.linger, func() { c.part(r, end) })
}

// part takes the instance out of a channel, unless it entered anew since its end was begun.
func (c *chat) part(r *channel, end int) {
	c.mu.Lock()
	if r.generation != end {
		c.mu.Unlock()
		return
	}
	w, sent := c.conn, !r.joinSent.IsZero()
	delete(c.channels, r.login)
	c.mu.Unlock()
	if w != nil && sent {
		if err := w.write("PART #" + r.login); err != nil {
			w.conn.Close() // nothing else takes the instance out of the channel
		}
	}
}

// notify is to be called with mu held after something about a room that others wait for.
func (r *channel) notify() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// target is what is known of a channel that can be spoken in.
type target struct {
	id         string
	privileged bool
}

// await returns once a channel can be spoken in: over IRC, or by Helix, for which its number is enough.
func (c *chat) await(ctx context.Context, login string, overIRC bool) (target, error) {
	for {
		c.mu.Lock()
		r := c.channels[login]
		if r == nil {
			c.mu.Unlock()
			return target{}, fmt.Errorf("not in #%s any more", login)
		}
		p, changed := target{r.id, r.privileged}, r.changed
		ready := r.id != "" && (!overIRC || r.joined && c.conn != nil && !c.conn.leaving)
		c.mu.Unlock()
		if ready {
			return p, nil
		}
		select {
		case <-ctx.Done():
			return target{}, fmt.Errorf("#%s can't be spoken in yet: %w", login, ctx.Err())
		case <-changed:
		}
	}
}

// send writes one message and waits for what becomes of it. One at a time may wait in each channel.
func (c *chat) send(login, text, parent, nonce string) outbox.Outcome {
	c.mu.Lock()
	r, w := c.channels[login], c.conn
	if r == nil || !r.joined || w == nil || w.leaving || r.pending != nil {
		c.mu.Unlock()
		return outbox.Outcome{Reason: deadletter.PlatformUnavailable, Err: errors.New("the chat is not connected")}
	}
	waits := &pendingMessage{nonce: nonce, result: make(chan outbox.Outcome, 1)}
	r.pending = waits
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		r.pending = nil
		c.mu.Unlock()
	}()

	tags := "@client-nonce=" + nonce
	if parent != "" {
		tags += ";reply-parent-msg-id=" + parent
	}
	if err := w.write(tags + " PRIVMSG #" + login + " :" + text); errors.Is(err, net.ErrClosed) {
		c.drop(w)
		return outbox.Outcome{Reason: deadletter.PlatformUnavailable, Err: errors.New("the connection to Twitch's chat was closed before")}
	} else if err != nil {
		c.drop(w)
		return outbox.Outcome{Kind: outbox.Unknown, Err: fmt.Errorf("write to Twitch's chat: %w", err)}
	}
	timeout := time.NewTimer(c.config.ReplyTimeout)
	defer timeout.Stop()
	select {
	case o := <-waits.result:
		return o
	case <-timeout.C:
		// What comes late could be taken for the answer to the next message; on another connection it can't.
		c.drop(w)
		return outbox.Outcome{Kind: outbox.Unknown, Err: fmt.Errorf("no answer from Twitch's chat within %s", c.config.ReplyTimeout)}
	}
}

// drop ends a connection. It is not known to be gone before what it still holds is read: until then, too, nothing is said
// on it.
func (c *chat) drop(w *connection) {
	c.mu.Lock()
	w.leaving = true
	c.mu.Unlock()
	w.conn.Close()
}

// run keeps the connection until ctx is done.
func (c *chat) run(ctx context.Context) {
	backoff := c.timing.minBackoff
	for {
		c.mu.Lock()
		wanted := len(c.channels) > 0
		c.mu.Unlock()
		if !wanted {
			select {
			case <-ctx.Done():
				return
			case <-c.wakeUp:
				continue
			}
		}
		welcome, err := c.connect(ctx)
		if ctx.Err() != nil {
			return
		}
		c.metrics.disconnects.Inc()
		if welcome {
			backoff = c.timing.minBackoff
		}
		wait := backoff/2 + rand.N(backoff)
		c.log.WarnContext(ctx, "disconnected from Twitch's chat", "error", err, "again", wait)
		backoff = min(2*backoff, c.timing.maxBackoff)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

var (
	errReconnect = errors.New("asked by Twitch for another connection")
	errRefused   = errors.New("the bot was not let in")
)

// connect holds one connection until it ends. welcome is whether it was of any use.
func (c *chat) connect(ctx context.Context) (welcome bool, err error) {
	token, err := c.tokens.Token(ctx, c.bot)
	if err != nil {
		return false, err
	}
	if err := token.Require("chat:read", "chat:edit"); err != nil {
		return false, err
	}
	dialing, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	conn, err := c.dial(dialing, "tcp", c.config.IRCAddr)
	if err != nil {
		return false, fmt.Errorf("connect to Twitch's chat: %w", err)
	}
	if c.config.IRCTLS {
		host, _, _ := net.SplitHostPort(c.config.IRCAddr) // Validate has seen it
		secured := tls.Client(conn, &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12})
		if err := secured.HandshakeContext(dialing); err != nil {
			conn.Close()
			return false, fmt.Errorf("connect to Twitch's chat: %w", err)
		}
		conn = secured
	}
	defer conn.Close()
	life, end := context.WithCancelCause(ctx)
	defer context.AfterFunc(life, func() { conn.Close() })()
	defer end(nil)
	w := &connection{conn: conn}
	for _, line := range []string{
		"CAP REQ :twitch.tv/tags twitch.tv/commands",
		"PASS oauth:" + token.Access.Reveal(),
		"NICK " + strings.ToLower(token.Login),
	} {
		if err := w.write(line); err != nil {
			return false, fmt.Errorf("log in to Twitch's chat: %w", err)
		}
	}
	var joining sync.WaitGroup
	defer joining.Wait()
	defer end(nil)
	err = c.read(w, func() { // welcome
		welcome = true
		c.mu.Lock()
		c.conn = w
		c.mu.Unlock()
		c.metrics.connected.Set(1)
		joining.Go(func() { c.join(life, w) }) // ends with life
	}, end)
	c.disconnected(w)
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

// disconnected says what a connection that is gone means to the channels.
func (c *chat) disconnected(w *connection) {
	var left []string
	since := time.Unix(0, w.lastReceived.Load()) // it may have been dead for long before that was noticed
	defer func() {
		for _, login := range left {
			c.onParted(login, since)
		}
	}()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.metrics.connected.Set(0)
	if c.conn == w {
		c.conn, c.lastReceived = nil, since
	}
	for _, r := range c.channels {
		if r.joined {
			r.idleSince = since
			left = append(left, r.login)
		}
		r.joined, r.joinSent = false, time.Time{}
		if r.pending != nil {
			select {
			case r.pending.result <- outbox.Outcome{Kind: outbox.Unknown, Err: errors.New("the connection to Twitch's chat broke")}:
			default:
			}
		}
		r.notify()
	}
	c.wake()
}

// read handles what comes until the connection ends. Silence for too long ends it, too.
func (c *chat) read(w *connection, welcome func(), end context.CancelCauseFunc) error {
	lines := bufio.NewScanner(w.conn)
	lines.Buffer(nil, maxLine)
	var greeted bool
	var silence *time.Timer
	silent := 0
	var mu sync.Mutex // of silence and silent
	silence = time.AfterFunc(c.timing.ping, func() {
		mu.Lock()
		defer mu.Unlock()
		if silent++; silent > 1 || w.write("PING :parley") != nil {
			end(errors.New("nothing comes from Twitch's chat any more"))
			return
		}
		silence.Reset(c.timing.ping / 3)
	})
	defer silence.Stop()
	for lines.Scan() {
		w.lastReceived.Store(time.Now().UnixNano())
		mu.Lock()
		silent = 0
		silence.Reset(c.timing.ping)
		mu.Unlock()
		m := parse(lines.Text())
		switch m := m.(type) {
		case *irc.RawMessage:
			if m.RawType == "001" && !greeted {
				greeted = true
				welcome()
			}
		case *irc.PingMessage:
			if err := w.write("PONG :" + m.Message); err != nil {
				return fmt.Errorf("write to Twitch's chat: %w", err)
			}
		case *irc.ReconnectMessage:
			c.relocate(w, end)
		case *irc.NoticeMessage:
			if m.Channel == "*" && !greeted {
				return fmt.Errorf("%w: %s", errRefused, m.Message)
			}
			c.notice(m)
		case *irc.RoomStateMessage:
			c.roomState(m)
		case *irc.UserStateMessage:
			c.userState(m)
		case *irc.PrivateMessage, *irc.UserNoticeMessage, *irc.ClearChatMessage, *irc.ClearMessage:
			c.onMessage(m)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read from Twitch's chat: %w", err)
	}
	return errors.New("the connection was ended by Twitch's chat")
}

// parse reads one line. The library panics on some that are not as Twitch writes them; these say nothing.
func parse(line string) (m irc.Message) {
	defer func() {
		if recover() != nil {
			m = nil
		}
	}()
	return irc.ParseMessage(strings.ToValidUTF8(line, ""))
}

// relocate ends a connection that Twitch is about to end, after what was said there has been answered
// (https://dev.twitch.tv/docs/chat/irc/#reconnect).
func (c *chat) relocate(w *connection, end context.CancelCauseFunc) {
	c.mu.Lock()
	w.leaving = true
	c.mu.Unlock()
	deadline := time.Now().Add(c.timing.reconnect)
	var look func()
	look = func() { // ends with the last answer, or at the deadline
		c.mu.Lock()
		open := false
		for _, r := range c.channels {
			open = open || r.pending != nil
		}
		c.mu.Unlock()
		if open && time.Now().Before(deadline) {
			time.AfterFunc(20*time.Millisecond, look)
			return
		}
		end(errReconnect)
	}
	look()
}

// join sends the JOINs, paced, and again where no answer came, so that no channel stays half joined.
func (c *chat) join(ctx context.Context, w *connection) {
	for {
		login, wait := c.nextJoin()
		if login == "" {
			select {
			case <-ctx.Done():
				return
			case <-c.wakeUp:
			case <-time.After(wait):
			}
			continue
		}
		if c.joinPacer.wait(ctx, login, c.limits.joins, 0) != nil {
			return
		}
		c.mu.Lock()
		r := c.channels[login]
		wanted := r != nil && !r.joined && !r.leaving
		if wanted {
			if !r.joinSent.IsZero() {
				c.metrics.rejoins.Inc()
				c.log.WarnContext(ctx, "a JOIN was not answered", "channel", login)
			}
			r.joinSent = time.Now()
		}
		c.mu.Unlock()
		if wanted && w.write("JOIN #"+login) != nil {
			w.conn.Close()
			return
		}
	}
}

// nextJoin is the channel to be joined now, or how long until there may be one.
func (c *chat) nextJoin() (login string, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wait = c.timing.join
	for _, r := range c.channels {
		if r.joined || r.leaving {
			continue
		}
		due := c.timing.join - time.Since(r.joinSent)
		if r.joinSent.IsZero() || due <= 0 {
			return r.login, 0
		}
		wait = min(wait, due)
	}
	return "", wait
}

// roomState takes ROOMSTATE, which ends what Twitch answers to a JOIN
// (https://dev.twitch.tv/docs/chat/irc/#roomstate).
func (c *chat) roomState(m *irc.RoomStateMessage) {
	c.mu.Lock()
	r := c.channels[m.Channel]
	if r == nil || m.RoomID == "" || r.joined {
		c.mu.Unlock()
		return
	}
	r.id, r.joined = m.RoomID, true
	from := r.idleSince
	r.idleSince = time.Time{}
	r.notify()
	c.mu.Unlock()
	c.onJoined(m.Channel, from, time.Now())
}

// userState takes what the bot is in a channel, and what became of what it said: USERSTATE answers both
// (https://dev.twitch.tv/docs/chat/irc/#userstate). Twitch's page does not tell that it repeats the client-nonce; where
// it doesn't, the next USERSTATE of the channel is the answer, because one message at a time waits for it.
func (c *chat) userState(m *irc.UserStateMessage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.channels[m.Channel]
	if r == nil {
		return
	}
	_, broadcaster := m.User.Badges["broadcaster"]
	r.privileged = m.User.IsMod || broadcaster
	if nonce := m.Tags["client-nonce"]; r.pending != nil && r.joined && (nonce == "" || nonce == r.pending.nonce) {
		select {
		case r.pending.result <- outbox.Outcome{Kind: outbox.Sent, ID: m.Tags["id"]}:
		default:
		}
	}
}

// notice takes why a message was refused (https://dev.twitch.tv/docs/chat/irc/#notice).
func (c *chat) notice(m *irc.NoticeMessage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.channels[m.Channel]
	if r == nil {
		return
	}
	if r.pending == nil {
		c.log.Warn("Twitch notes", "channel", m.Channel, "code", m.MsgID, "text", m.Message)
		return
	}
	if strings.HasPrefix(m.MsgID, "msg_") || m.MsgID == "no_permission" || m.MsgID == "unrecognized_cmd" {
		select {
		case r.pending.result <- outcomeOf("", helix.ChatRefusal(m.MsgID, m.Message), c.timing.retry):
		default:
		}
	}
}
