package discord

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bwmarrin/discordgo"
	gorilla "github.com/gorilla/websocket"

	"parley.internal/shared/credential"
	"parley.internal/shared/retry"
)

// maxFrame is the maximum size of a received frame, in bytes. Discord sends all channels and roles of a large guild in
// one frame.
const maxFrame = 32 << 20

// intents selects the events of Discord's gateway (https://discord.com/developers/docs/events/gateway#gateway-intents).
const intents = discordgo.IntentsGuilds | discordgo.IntentsGuildBans | discordgo.IntentsGuildMessages |
	discordgo.IntentsDirectMessages | discordgo.IntentsMessageContent

// gateway is a connection to Discord's gateway (https://discord.com/developers/docs/events/gateway). The gateway
// reconnects after every disconnect, and resumes the session if possible.
//
// discordgo's own connection is not used, for these reasons:
//   - It hides the close code, and so retries a withdrawn token for ever. After 1,000 new sessions in a day Discord
//     resets the token.
//   - It closes connections with code 1000. This code ends the session, and Discord does not replay missed events.
//   - It resumes at the general address instead of the session's resume address.
//   - It detects a dead connection after five heartbeats instead of one.
//   - The caller cannot wait for its goroutines.
type gateway struct {
	token   credential.Secret
	intents discordgo.Intent
	rest    *rest
	dial    func(ctx context.Context, network, addr string) (net.Conn, error)
	timing  timing
	log     *slog.Logger
	metrics *metrics
	// handle is called with every dispatch in order, including READY. It must not block.
	handle func(kind string, data []byte)

	connected atomic.Bool // a session is established

	mu   sync.Mutex
	conn *link // nil while disconnected

	// Only run uses the following fields.
	session      string    // id of the session to resume; empty for none
	resumeURL    string    // address for resuming the session; empty if unknown
	sequence     int64     // number of the last dispatch
	identifiedAt time.Time // start of the last new session
}

// frame is a message of the gateway protocol (https://discord.com/developers/docs/events/gateway-events#payload-structure).
type frame struct {
	Op       int             `json:"op"`
	Data     json.RawMessage `json:"d"`
	Sequence *int64          `json:"s,omitempty"`
	Type     string          `json:"t,omitempty"`
}

// The operations of the gateway protocol.
const (
	opDispatch       = 0
	opHeartbeat      = 1
	opIdentify       = 2
	opResume         = 6
	opReconnect      = 7
	opInvalidSession = 9
	opHello          = 10
	opHeartbeatAck   = 11
)

// closeToResume is a private close code that keeps the session resumable; codes 1000 and 1001 would end the session.
const closeToResume = 4900

// disconnect is the reason why a connection ended or could not be made.
type disconnect struct {
	cause         string        // label of the metric
	newSession    bool          // the session cannot be resumed
	needsOperator bool          // retrying is useless until an operator changes the configuration
	retryAfter    time.Duration // minimum pause before the next attempt
	err           error
}

// disconnectOf returns the meaning of a close code
// (https://discord.com/developers/docs/topics/opcodes-and-status-codes#gateway-gateway-close-event-codes).
func disconnectOf(code int, text string) disconnect {
	e := disconnect{cause: strconv.Itoa(code), err: fmt.Errorf("closed by Discord: %d %s", code, text)}
	switch code {
	case 4003, 4007, 4009, gorilla.CloseNormalClosure, gorilla.CloseGoingAway:
		e.newSession = true
	case 4004:
		e.newSession, e.needsOperator = true, true
		e.err = errors.New("token refused by Discord (4004): DISCORD_BOT_TOKEN must be replaced")
	case 4014:
		e.newSession, e.needsOperator = true, true
		e.err = errors.New("intents refused by Discord (4014): enable the message content intent, and with DISCORD_MEMBERS the server members intent, in the developer portal")
	case 4010, 4011, 4012, 4013:
		e.newSession, e.needsOperator = true, true
	}
	return e
}

// run keeps a connection until ctx is done.
func (g *gateway) run(ctx context.Context) {
	backoff := retry.NewBackoff(g.timing.minBackoff, g.timing.maxBackoff)
	for ctx.Err() == nil {
		start := time.Now()
		d := g.connect(ctx)
		g.connected.Store(false)
		g.metrics.connected.Set(0)
		if ctx.Err() != nil {
			return
		}
		g.metrics.disconnects.WithLabelValues(d.cause).Inc()
		if d.newSession {
			g.session, g.sequence = "", 0
		}
		if time.Since(start) > g.timing.maxBackoff {
			backoff.Reset()
		}
		wait := backoff.Next()
		level := slog.LevelWarn
		if d.needsOperator {
			wait, level = g.timing.operatorRetry, slog.LevelError
		}
		wait = max(wait, d.retryAfter)
		g.log.Log(ctx, level, "no connection to Discord", "error", d.err, "resume", g.session != "", "retryAfter", wait)
		_ = retry.Sleep(ctx, wait) // the loop checks ctx
	}
}

// connect makes one connection and serves it until it ends.
func (g *gateway) connect(ctx context.Context) disconnect {
	address := g.resumeURL
	if g.session == "" || address == "" {
		var bot discordgo.GatewayBotResponse
		asking, cancel := context.WithTimeout(ctx, g.timing.handshake)
		err := g.rest.get(asking, "gateway/bot", "gateway/bot", &bot)
		cancel()
		if f, ok := errors.AsType[*failure](err); ok && f.status == http.StatusUnauthorized {
			return disconnect{cause: "unauthorized", newSession: true, needsOperator: true, err: fmt.Errorf("DISCORD_BOT_TOKEN is refused: %w", err)}
		}
		if err != nil {
			return disconnect{cause: "unreachable", err: fmt.Errorf("read the gateway's address: %w", err)}
		}
		limit := bot.SessionStartLimit
		if g.session == "" && limit.Total > 0 && limit.Remaining < 1 {
			return disconnect{cause: "session_limit", retryAfter: time.Duration(limit.ResetAfter) * time.Millisecond, err: errors.New("session limit of Discord reached")}
		}
		address = bot.URL
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "wss" && !(u.Scheme == "ws" && credential.Local(u.Hostname())) {
		return disconnect{cause: "unreachable", newSession: true, err: fmt.Errorf("the gateway's address %q is not of the form wss://host", address)}
	}
	u.RawQuery = url.Values{"v": {discordgo.APIVersion}, "encoding": {"json"}}.Encode()
	if g.session == "" {
		if retry.Sleep(ctx, time.Until(g.identifiedAt.Add(g.timing.identify))) != nil {
			return disconnect{}
		}
	}
	dialing, cancel := context.WithTimeout(ctx, g.timing.handshake)
	defer cancel()
	d := gorilla.Dialer{NetDialContext: g.dial, HandshakeTimeout: g.timing.handshake}
	conn, res, err := d.DialContext(dialing, u.String(), nil)
	if err != nil {
		if res != nil {
			res.Body.Close()
		}
		g.resumeURL = "" // the resume address may be gone
		return disconnect{cause: "unreachable", err: fmt.Errorf("connect to Discord's gateway: %w", err)}
	}
	conn.SetReadLimit(maxFrame)
	l := &link{conn: conn, write: g.timing.write}
	g.mu.Lock()
	g.conn = l
	g.mu.Unlock()
	defer context.AfterFunc(ctx, func() { l.close(gorilla.CloseNormalClosure, nil) })()
	e := g.serve(l)
	g.mu.Lock()
	g.conn = nil
	g.mu.Unlock()
	l.close(closeToResume, nil)
	l.heartbeats.Wait()
	return e
}

// reconnect closes the connection, so that run makes a new one. cause goes to the log.
func (g *gateway) reconnect(cause error) {
	g.mu.Lock()
	l := g.conn
	g.mu.Unlock()
	if l != nil {
		l.close(closeToResume, cause)
	}
}

// serve reads a connection until it ends, and returns the reason.
func (g *gateway) serve(l *link) disconnect {
	_ = l.conn.SetReadDeadline(time.Now().Add(g.timing.handshake)) // if this fails, reading fails too
	stop := make(chan struct{})
	defer close(stop)
	for {
		_, data, err := l.conn.ReadMessage()
		if err != nil {
			if cause := l.closeCause(); cause != nil {
				return disconnect{cause: "dead", err: cause}
			}
			if c, ok := errors.AsType[*gorilla.CloseError](err); ok {
				return disconnectOf(c.Code, c.Text)
			}
			return disconnect{cause: "broken", err: fmt.Errorf("read from Discord's gateway: %w", err)}
		}
		var f frame
		if err := json.Unmarshal(data, &f); err != nil {
			return disconnect{cause: "unreadable", err: fmt.Errorf("decode a frame of Discord's gateway: %w", err)}
		}
		var end *disconnect
		switch f.Op {
		case opHello:
			end = g.hello(l, f.Data, stop)
		case opHeartbeat:
			if err := l.heartbeat(); err != nil {
				end = &disconnect{cause: "broken", err: err}
			}
		case opHeartbeatAck:
			l.acked.Store(true)
		case opReconnect:
			end = &disconnect{cause: "reconnect", err: errors.New("asked by Discord to reconnect")}
		case opInvalidSession:
			var resumable bool
			_ = json.Unmarshal(f.Data, &resumable) // an unreadable value is not resumable
			// Discord asks for a pause of one to five seconds (https://discord.com/developers/docs/events/gateway#resuming).
			end = &disconnect{cause: "invalid_session", newSession: !resumable, retryAfter: g.timing.identify/5 + rand.N(g.timing.identify*4/5+1), err: errors.New("session invalidated by Discord")}
		case opDispatch:
			end = g.dispatch(l, f)
		}
		if end != nil {
			return *end
		}
	}
}

// hello handles the first frame of a connection: it starts the heartbeats, and identifies or resumes.
func (g *gateway) hello(l *link, data []byte, stop <-chan struct{}) *disconnect {
	var hello struct {
		Interval int64 `json:"heartbeat_interval"` // milliseconds
	}
	if err := json.Unmarshal(data, &hello); err != nil || hello.Interval <= 0 {
		return &disconnect{cause: "unreadable", err: errors.New("no heartbeat interval in Discord's hello")}
	}
	l.sequence.Store(g.sequence)
	l.acked.Store(true)
	l.heartbeats.Go(func() { l.sendHeartbeats(stop, time.Duration(hello.Interval)*time.Millisecond) }) // ends with stop
	if err := g.identify(l); err != nil {
		return &disconnect{cause: "broken", err: err}
	}
	_ = l.conn.SetReadDeadline(time.Now().Add(g.timing.handshake))
	return nil
}

// dispatch handles an event. READY and RESUMED establish the session.
func (g *gateway) dispatch(l *link, f frame) *disconnect {
	if f.Type == "READY" {
		var ready struct {
			Session   string `json:"session_id"`
			ResumeURL string `json:"resume_gateway_url"`
		}
		if err := json.Unmarshal(f.Data, &ready); err != nil {
			return &disconnect{cause: "unreadable", newSession: true, err: fmt.Errorf("read READY: %w", err)}
		}
		g.session, g.resumeURL = ready.Session, ready.ResumeURL
	}
	g.handle(f.Type, f.Data)
	if f.Sequence != nil {
		g.sequence = *f.Sequence
		l.sequence.Store(*f.Sequence)
	}
	if f.Type == "READY" || f.Type == "RESUMED" {
		_ = l.conn.SetReadDeadline(time.Time{}) // from now on the heartbeats detect a dead connection
		kind := map[string]string{"READY": "new", "RESUMED": "resumed"}[f.Type]
		g.metrics.sessions.WithLabelValues(kind).Inc()
		g.metrics.connected.Set(1)
		g.connected.Store(true)
		g.log.Info("connected to Discord", "session", kind)
	}
	return nil
}

// identify starts a new session, or resumes the session of an earlier connection.
func (g *gateway) identify(l *link) error {
	if g.session != "" {
		return l.send(opResume, map[string]any{"token": g.token.Reveal(), "session_id": g.session, "seq": g.sequence})
	}
	g.identifiedAt = time.Now()
	return l.send(opIdentify, map[string]any{
		"token": g.token.Reveal(), "intents": g.intents, "compress": false, "large_threshold": 50,
		"properties": map[string]string{"os": runtime.GOOS, "browser": "parley", "device": "parley"},
	})
}
