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
)

// timing is how long what Discord's pages give no number for may take.
type timing struct {
	hello      time.Duration // from connecting to the first word, and from IDENTIFY to READY
	write      time.Duration // of one frame
	identify   time.Duration // between two new sessions (https://discord.com/developers/docs/events/gateway#rate-limiting)
	minBackoff time.Duration
	maxBackoff time.Duration
	hopeless   time.Duration // before trying again what a person has to mend
	stranded   time.Duration // without a connection before another instance may try
	scan       time.Duration // between looks into the ledger
	retry      time.Duration // before what stood in the way is tried again
	claim      time.Duration // how old a claim may be when something is said by it; less than egress.ClaimLease
	mark       time.Duration // between writes of watermarks
	flush      time.Duration // for publishing and saying what is left at the end
}

var defaultTiming = timing{
	hello: 20 * time.Second, write: 10 * time.Second, identify: 5 * time.Second,
	minBackoff: 500 * time.Millisecond, maxBackoff: time.Minute, hopeless: 5 * time.Minute, stranded: 45 * time.Second,
	scan: 5 * time.Second, retry: 3 * time.Second, claim: 40 * time.Second, mark: time.Second, flush: 3 * time.Second,
}

// maxFrame is the longest frame that is read: a large server's channels and roles come in one.
const maxFrame = 32 << 20

// The intents (https://discord.com/developers/docs/events/gateway#gateway-intents).
const intents = discordgo.IntentsGuilds | discordgo.IntentsGuildBans | discordgo.IntentsGuildMessages |
	discordgo.IntentsDirectMessages | discordgo.IntentsMessageContent

// gateway is the connection to Discord's gateway (https://discord.com/developers/docs/events/gateway): it is made again
// whenever it ends, and takes its session up again where that is possible.
//
// discordgo's own connection is not used. It does not tell with which code a connection ended, so a token that was
// withdrawn is tried for ever, although 1,000 new sessions a day have Discord reset the token; it ends connections with
// 1000, which makes their session void, so that what is said meanwhile is lost; it takes sessions up at the general
// address instead of the one that Discord gave for that; a connection that is dead is noticed after five heartbeats,
// not one; and its goroutines can't be waited for.
type gateway struct {
	token   credential.Secret
	intents discordgo.Intent
	rest    *rest
	dial    func(ctx context.Context, network, addr string) (net.Conn, error)
	timing  timing
	log     *slog.Logger
	metrics *metrics
	// heard takes what Discord dispatches, in order, READY included. It must not wait.
	heard func(kind string, data []byte)

	up atomic.Bool

	mu   sync.Mutex
	conn *link // the current one; nil if there is none

	// the rest is run's alone
	session    string
	resumeAt   string // the address for it
	sequence   int64
	identified time.Time // when the last session was begun
}

// frame is what the gateway sends and takes (https://discord.com/developers/docs/events/gateway-events#payload-structure).
type frame struct {
	Op       int             `json:"op"`
	Data     json.RawMessage `json:"d"`
	Sequence *int64          `json:"s,omitempty"`
	Type     string          `json:"t,omitempty"`
}

// The operations.
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

// closeToResume is a code of ours that leaves the session to be taken up again; 1000 and 1001 would end it.
const closeToResume = 4900

// ended is why there is no connection any more.
type ended struct {
	cause    string // for the metric
	anew     bool   // the session is over
	hopeless bool   // a person has to mend something
	at       time.Duration
	err      error
}

// closed tells what a close code means (https://discord.com/developers/docs/topics/opcodes-and-status-codes#gateway-gateway-close-event-codes).
func closed(code int, text string) ended {
	e := ended{cause: strconv.Itoa(code), err: fmt.Errorf("closed by Discord: %d %s", code, text)}
	switch code {
	case 4003, 4007, 4009, gorilla.CloseNormalClosure, gorilla.CloseGoingAway:
		e.anew = true
	case 4004:
		e.anew, e.hopeless = true, true
		e.err = errors.New("the token is refused by Discord (4004): DISCORD_BOT_TOKEN has to be a new one")
	case 4014:
		e.anew, e.hopeless = true, true
		e.err = errors.New("the intents are refused by Discord (4014): the message content intent (and with DISCORD_MEMBERS that of server members) has to be switched on in the developer portal")
	case 4010, 4011, 4012, 4013:
		e.anew, e.hopeless = true, true
	}
	return e
}

// run keeps a connection until ctx is done.
func (g *gateway) run(ctx context.Context) {
	backoff := g.timing.minBackoff
	for ctx.Err() == nil {
		began := time.Now()
		e := g.connect(ctx)
		g.up.Store(false)
		g.metrics.connected.Set(0)
		if ctx.Err() != nil {
			return
		}
		g.metrics.disconnects.WithLabelValues(e.cause).Inc()
		if e.anew {
			g.session, g.sequence = "", 0
		}
		if time.Since(began) > g.timing.maxBackoff {
			backoff = g.timing.minBackoff
		}
		wait := backoff/2 + rand.N(backoff)
		backoff = min(2*backoff, g.timing.maxBackoff)
		level := slog.LevelWarn
		if e.hopeless {
			wait, level = g.timing.hopeless, slog.LevelError
		}
		wait = max(wait, e.at)
		g.log.Log(ctx, level, "no connection to Discord", "error", e.err, "resume", g.session != "", "again", wait)
		sleep(ctx, wait)
	}
}

// connect makes a connection and serves it until it ends.
func (g *gateway) connect(ctx context.Context) ended {
	address := g.resumeAt
	if g.session == "" || address == "" {
		var bot discordgo.GatewayBotResponse
		asking, cancel := context.WithTimeout(ctx, g.timing.hello)
		err := g.rest.get(asking, "gateway/bot", "gateway/bot", &bot)
		cancel()
		if f, ok := errors.AsType[*failure](err); ok && f.status == http.StatusUnauthorized {
			return ended{cause: "unauthorized", anew: true, hopeless: true, err: fmt.Errorf("DISCORD_BOT_TOKEN is refused: %w", err)}
		}
		if err != nil {
			return ended{cause: "unreachable", err: fmt.Errorf("ask for the gateway: %w", err)}
		}
		limit := bot.SessionStartLimit
		if g.session == "" && limit.Total > 0 && limit.Remaining < 1 {
			return ended{cause: "session_limit", at: time.Duration(limit.ResetAfter) * time.Millisecond, err: errors.New("no more sessions are allowed by Discord for now")}
		}
		address = bot.URL
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "wss" && !(u.Scheme == "ws" && credential.Local(u.Hostname())) {
		return ended{cause: "unreachable", anew: true, err: fmt.Errorf("the gateway's address %q is not of the form wss://host", address)}
	}
	u.RawQuery = url.Values{"v": {discordgo.APIVersion}, "encoding": {"json"}}.Encode()
	if g.session == "" {
		if sleep(ctx, time.Until(g.identified.Add(g.timing.identify))); ctx.Err() != nil {
			return ended{}
		}
	}
	dialing, cancel := context.WithTimeout(ctx, g.timing.hello)
	defer cancel()
	d := gorilla.Dialer{NetDialContext: g.dial, HandshakeTimeout: g.timing.hello}
	conn, res, err := d.DialContext(dialing, u.String(), nil)
	if err != nil {
		if res != nil {
			res.Body.Close()
		}
		g.resumeAt = "" // that one may be gone
		return ended{cause: "unreachable", err: fmt.Errorf("connect to Discord's gateway: %w", err)}
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
	l.beating.Wait()
	return e
}

// renew has the connection made anew, because something else found that it must be of no use.
func (g *gateway) renew(why error) {
	g.mu.Lock()
	l := g.conn
	g.mu.Unlock()
	if l != nil {
		l.close(closeToResume, why)
	}
}

// serve reads a connection until it ends.
func (g *gateway) serve(l *link) ended {
	_ = l.conn.SetReadDeadline(time.Now().Add(g.timing.hello)) // fails only where reading will, too
	stop := make(chan struct{})
	defer close(stop)
	for {
		_, data, err := l.conn.ReadMessage()
		if err != nil {
			if why := l.why(); why != nil {
				return ended{cause: "dead", err: why}
			}
			if c, ok := errors.AsType[*gorilla.CloseError](err); ok {
				return closed(c.Code, c.Text)
			}
			return ended{cause: "broken", err: fmt.Errorf("read from Discord's gateway: %w", err)}
		}
		var f frame
		if err := json.Unmarshal(data, &f); err != nil {
			return ended{cause: "unreadable", err: fmt.Errorf("read a frame of Discord's gateway: %w", err)}
		}
		switch f.Op {
		case opHello:
			var hello struct {
				Interval int64 `json:"heartbeat_interval"` // milliseconds
			}
			if err := json.Unmarshal(f.Data, &hello); err != nil || hello.Interval <= 0 {
				return ended{cause: "unreadable", err: errors.New("no heartbeat interval in Discord's hello")}
			}
			l.sequence.Store(g.sequence)
			l.acked.Store(true)
			l.beating.Go(func() { l.beat(stop, time.Duration(hello.Interval)*time.Millisecond) }) // ends with stop
			if err := g.greet(l); err != nil {
				return ended{cause: "broken", err: err}
			}
			_ = l.conn.SetReadDeadline(time.Now().Add(g.timing.hello))
		case opHeartbeat:
			if err := l.heartbeat(); err != nil {
				return ended{cause: "broken", err: err}
			}
		case opHeartbeatAck:
			l.acked.Store(true)
		case opReconnect:
			return ended{cause: "reconnect", err: errors.New("asked by Discord to connect anew")}
		case opInvalidSession:
			var resumable bool
			_ = json.Unmarshal(f.Data, &resumable) // what can't be read is not resumable
			// Discord wants a pause of one to five seconds (https://discord.com/developers/docs/events/gateway#resuming)
			return ended{cause: "invalid_session", anew: !resumable, at: g.timing.identify/5 + rand.N(g.timing.identify*4/5+1), err: errors.New("the session is not known to Discord any more")}
		case opDispatch:
			if f.Type == "READY" {
				var ready struct {
					Session  string `json:"session_id"`
					ResumeAt string `json:"resume_gateway_url"`
				}
				if err := json.Unmarshal(f.Data, &ready); err != nil {
					return ended{cause: "unreadable", anew: true, err: fmt.Errorf("read READY: %w", err)}
				}
				g.session, g.resumeAt = ready.Session, ready.ResumeAt
			}
			g.heard(f.Type, f.Data)
			if f.Sequence != nil {
				g.sequence = *f.Sequence
				l.sequence.Store(*f.Sequence)
			}
			if f.Type == "READY" || f.Type == "RESUMED" {
				_ = l.conn.SetReadDeadline(time.Time{}) // from now on it is the heartbeat that ends a dead connection
				kind := map[string]string{"READY": "new", "RESUMED": "resumed"}[f.Type]
				g.metrics.sessions.WithLabelValues(kind).Inc()
				g.metrics.connected.Set(1)
				g.up.Store(true)
				g.log.Info("connected to Discord", "session", kind)
			}
		}
	}
}

// greet begins a session or takes one up again.
func (g *gateway) greet(l *link) error {
	if g.session != "" {
		return l.send(opResume, map[string]any{"token": g.token.Reveal(), "session_id": g.session, "seq": g.sequence})
	}
	g.identified = time.Now()
	return l.send(opIdentify, map[string]any{
		"token": g.token.Reveal(), "intents": g.intents, "compress": false, "large_threshold": 50,
		"properties": map[string]string{"os": runtime.GOOS, "browser": "parley", "device": "parley"},
	})
}

// link is one connection to the gateway.
type link struct {
	conn     *gorilla.Conn
	write    time.Duration
	sequence atomic.Int64 // of what was heard last
	acked    atomic.Bool  // the last heartbeat was answered
	beating  sync.WaitGroup

	mu    sync.Mutex // of writing
	once  sync.Once
	cause atomic.Pointer[error]
}

func (l *link) send(op int, data any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.conn.SetWriteDeadline(time.Now().Add(l.write))
	if err := l.conn.WriteJSON(map[string]any{"op": op, "d": data}); err != nil {
		return fmt.Errorf("write to Discord's gateway: %w", err)
	}
	return nil
}

func (l *link) heartbeat() error {
	if n := l.sequence.Load(); n > 0 {
		return l.send(opHeartbeat, n)
	}
	return l.send(opHeartbeat, nil)
}

// beat sends heartbeats, the first after a part of the interval, as Discord wants it. If one is not answered before the
// next, the connection is dead.
func (l *link) beat(stop <-chan struct{}, interval time.Duration) {
	wait := rand.N(interval)
	for {
		select {
		case <-stop:
			return
		case <-time.After(wait):
		}
		wait = interval
		if !l.acked.Swap(false) {
			l.close(closeToResume, errors.New("no answer to a heartbeat"))
			return
		}
		if err := l.heartbeat(); err != nil {
			l.close(closeToResume, err)
			return
		}
	}
}

// close ends the connection, for a reason that may be nil.
func (l *link) close(code int, why error) {
	l.once.Do(func() {
		if why != nil {
			l.cause.Store(&why)
		}
		// the other side need not answer: whoever reads finds the connection closed
		_ = l.conn.WriteControl(gorilla.CloseMessage, gorilla.FormatCloseMessage(code, ""), time.Now().Add(time.Second))
		l.conn.Close()
	})
}

func (l *link) why() error {
	if p := l.cause.Load(); p != nil {
		return *p
	}
	return nil
}
