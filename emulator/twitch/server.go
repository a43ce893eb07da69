// Package twitch is an in-process fake of Twitch, for tests and for development on one machine: chat over IRC, OAuth,
// the Helix API and EventSub, on real sockets of the loopback interface, without TLS. Start with [New].
//
// The fake follows Twitch's documentation and refuses the same requests as Twitch. Each file names its page of the
// documentation:
//
//	IRC       https://dev.twitch.tv/docs/chat/irc/
//	OAuth     https://dev.twitch.tv/docs/authentication/
//	Helix     https://dev.twitch.tv/docs/api/reference/
//	EventSub  https://dev.twitch.tv/docs/eventsub/handling-websocket-events/
//
// Behind the protocols are users with their channels, apps and tokens. A test or a page calls methods of [Server] to
// post a line as a user, follow, raid, ban, go live, revoke a token or inject a fault, and to read the received lines,
// whispers and bans.
//
//	srv, err := twitch.New()
//	...
//	defer srv.Close()
//	bot, _ := srv.AddUser(twitch.User{Login: "bot"})
//	app, _ := srv.AddApp(twitch.App{})
//	tok, _ := srv.AddToken(twitch.Token{UserID: bot.ID, ClientID: app.ID, Scopes: []string{"chat:read", "chat:edit"}})
//	client := irc.NewClient(bot.Login, "oauth:"+tok.Access)
//	client.IrcAddress, client.TLS = srv.IRCAddr(), false
//
// Not included: TLS, the half hour during which Twitch ignores a client that exceeds the chat limits (the fake refuses
// only the messages above the limit), emotes, cheers and channel points, AutoMod, shared chat, announcements, conduits
// and webhooks, the device and implicit flows, OpenID Connect, and most Helix endpoints. A Helix path that is not
// included gets 404. An EventSub type that is not included gets 400, as an unknown type does on Twitch.
package twitch

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"parley.internal/emulator/fake"
)

// ErrClosed is returned by calls interrupted by Close.
var ErrClosed = fake.ErrClosed

// Server is a running fake. Its methods are safe for concurrent use, and answer from memory.
type Server struct {
	*fake.Core
	options options
	irc     net.Listener
	http    net.Listener
	tasks   *fake.Tasks

	// mu guards the fields below and everything reachable from the fields. While holding mu, a goroutine may push to a
	// connection's queue, because Push never blocks.
	mu       fake.Mutex
	users    map[string]*account
	logins   map[string]*account
	apps     map[string]*App
	tokens   map[string]*Token // by access token
	refresh  map[string]*Token // by refresh token
	grants   map[grantKey]map[string]bool
	codes    map[string]code
	loggedIn string
	clients  map[*ircConn]bool
	sessions map[string]*session
	subs     map[string]*subscription
	subOrder []string
	points   map[string]*bucket
	faults   fake.Faults[ChatFault]
	lastID   int
}

type options struct {
	ircAddr, httpAddr string
	now               func() time.Time
	limits            Limits
	timing            Timing
	noNonce           bool
}

// Timing holds durations. A zero field means Twitch's own duration, given below.
type Timing struct {
	// Keepalive is the silence of an EventSub connection before a keepalive message. A non-zero value overrides the
	// interval requested by the client. 10 s.
	Keepalive time.Duration
	// Subscribe is the time limit for the first subscription of a new EventSub connection. 10 s.
	Subscribe time.Duration
	// Reconnect is the life of the old EventSub connection after its session_reconnect message. 30 s.
	Reconnect time.Duration
	// Ping is the interval of PING on IRC connections and of WebSocket pings, and the time limit of the answer. 5 min.
	Ping time.Duration
	// Token is the lifetime of an access token from OAuth. 4 h.
	Token time.Duration
}

// Option is an option of New.
type Option func(*options)

// WithIRCAddr sets the TCP address of IRC. The default is a free port of 127.0.0.1.
func WithIRCAddr(addr string) Option { return func(o *options) { o.ircAddr = addr } }

// WithHTTPAddr sets the TCP address of all other protocols, IRC over WebSocket included. The default is a free port of
// 127.0.0.1.
func WithHTTPAddr(addr string) Option { return func(o *options) { o.httpAddr = addr } }

// WithClock sets the clock of limits, bans and expiries. Keepalives and pings use the real clock.
func WithClock(now func() time.Time) Option { return func(o *options) { o.now = now } }

// WithLimits replaces DefaultLimits.
func WithLimits(l Limits) Option { return func(o *options) { o.limits = l } }

// WithTiming replaces Twitch's durations by the non-zero fields of t.
func WithTiming(t Timing) Option { return func(o *options) { o.timing = t } }

// WithoutNonceEcho omits the client-nonce in the USERSTATE after a PRIVMSG. Twitch sends the nonce without documenting
// it.
func WithoutNonceEcho() Option { return func(o *options) { o.noNonce = true } }

// New starts a server. All listeners accept connections when New returns.
func New(opts ...Option) (*Server, error) {
	s := &Server{
		options: options{
			ircAddr:  "127.0.0.1:0",
			httpAddr: "127.0.0.1:0",
			now:      time.Now,
			limits:   DefaultLimits(),
		},
		users:    map[string]*account{},
		logins:   map[string]*account{},
		apps:     map[string]*App{},
		tokens:   map[string]*Token{},
		refresh:  map[string]*Token{},
		grants:   map[grantKey]map[string]bool{},
		codes:    map[string]code{},
		clients:  map[*ircConn]bool{},
		sessions: map[string]*session{},
		subs:     map[string]*subscription{},
		points:   map[string]*bucket{},
		lastID:   100000,
		tasks:    fake.NewTasks(),
	}
	for _, o := range opts {
		o(&s.options)
	}
	t := &s.options.timing
	t.Keepalive = cmp.Or(t.Keepalive, 10*time.Second)
	t.Subscribe = cmp.Or(t.Subscribe, 10*time.Second)
	t.Reconnect = cmp.Or(t.Reconnect, 30*time.Second)
	t.Ping = cmp.Or(t.Ping, 5*time.Minute)
	t.Token = cmp.Or(t.Token, 4*time.Hour)

	var err error
	if s.irc, err = net.Listen("tcp", s.options.ircAddr); err != nil {
		return nil, fmt.Errorf("twitch: IRC: %w", err)
	}
	if s.http, err = net.Listen("tcp", s.options.httpAddr); err != nil {
		return nil, errors.Join(fmt.Errorf("twitch: HTTP: %w", err), s.irc.Close())
	}
	s.tasks.Go(s.acceptIRC)
	s.Core = fake.New(fake.Config{
		Mutex:    &s.mu,
		Tasks:    s.tasks,
		Listener: s.http,
		Handler:  s.routes(),
		Hosts:    []string{"id.twitch.tv", "api.twitch.tv", "irc-ws.chat.twitch.tv", "eventsub.wss.twitch.tv"},
		Sockets:  []string{ircPath, ircOtherPath, eventSubPath},
		Refuse:   func(w http.ResponseWriter, f HTTPFault, why string) { writeError(w, f.Status, why) },
		Now:      s.now,
		Stop:     s.stopIRC,
	})
	return s, nil
}

// IRCAddr returns the host:port of IRC over plain TCP.
func (s *Server) IRCAddr() string { return s.irc.Addr().String() }

// IRCWebSocketURL returns the URL in place of wss://irc-ws.chat.twitch.tv:443. IRC is also served at the path /irc.
func (s *Server) IRCWebSocketURL() string { return "ws://" + s.http.Addr().String() + ircPath }

// HelixURL returns the URL in place of https://api.twitch.tv/helix.
func (s *Server) HelixURL() string { return "http://" + s.http.Addr().String() + helixPath }

// OAuthURL returns the URL in place of https://id.twitch.tv/oauth2.
func (s *Server) OAuthURL() string { return "http://" + s.http.Addr().String() + oauthPath }

// EventSubURL returns the URL in place of wss://eventsub.wss.twitch.tv/ws.
func (s *Server) EventSubURL() string { return "ws://" + s.http.Addr().String() + eventSubPath }

// Paths on the HTTP listener.
const (
	ircPath      = "/"
	ircOtherPath = "/irc"
	helixPath    = "/helix"
	oauthPath    = "/oauth2"
	eventSubPath = "/ws"
)

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	s.routeOAuth(mux)
	s.routeHelix(mux)
	mux.HandleFunc("GET "+eventSubPath, s.serveEventSub)
	mux.HandleFunc("GET "+ircPath+"{$}", s.serveIRC)
	mux.HandleFunc("GET "+ircOtherPath, s.serveIRC)
	return mux
}

// stopIRC ends the IRC connections and accepts no new connection.
func (s *Server) stopIRC() error {
	s.lock()
	defer s.unlock()
	for c := range s.clients {
		c.abort()
	}
	return s.irc.Close()
}

func (s *Server) lock() { s.mu.Lock() }

func (s *Server) unlock() { s.mu.UnlockChanged() }

func (s *Server) now() time.Time { return s.options.now() }
