// Package twitch is an in-process stand-in for Twitch, for tests and for
// development on one machine: chat over IRC, OAuth, the Helix API and EventSub,
// on real sockets of the loopback interface, in the clear.
//
// It follows Twitch's documentation and refuses what Twitch refuses; each file
// names the page that it follows:
//
//	IRC       https://dev.twitch.tv/docs/chat/irc/
//	OAuth     https://dev.twitch.tv/docs/authentication/
//	Helix     https://dev.twitch.tv/docs/api/reference/
//	EventSub  https://dev.twitch.tv/docs/eventsub/handling-websocket-events/
//
// Around the protocols stands a world of users, whose channels they are, apps
// and tokens. A test or a page drives it: it says something as a user, follows,
// raids, bans, goes live, revokes a token or breaks something, and reads what
// arrived: lines, whispers, bans.
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
// What it leaves out: TLS, the half hour for which Twitch ignores who exceeds the
// limits of chat (here only what is too much is refused), emotes, cheers and channel points, AutoMod, shared
// chat, announcements, conduits and webhooks, the device and implicit flows,
// OpenID Connect, and every Helix endpoint but those that are named above. A
// Helix path that is not served is answered with 404, an EventSub type that is
// not served with 400, as Twitch does for one that it does not have.
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

// ErrClosed is returned by calls that a closing server ended.
var ErrClosed = fake.ErrClosed

// Server is a running stand-in. Its methods may be called from any goroutine,
// and answer from memory.
type Server struct {
	*fake.Core
	options options
	irc     net.Listener
	http    net.Listener
	tasks   *fake.Tasks

	// mu guards all that follows and what hangs from it. Whoever holds it may
	// push to a connection's queue, which never blocks.
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

// Timing is how long things last. New takes for a zero field what Twitch has.
type Timing struct {
	// Keepalive is how long an EventSub connection stays silent before a
	// keepalive message; it replaces what the client asks for. 10 s.
	Keepalive time.Duration
	// Subscribe is how long a new EventSub connection may be without a
	// subscription. 10 s.
	Subscribe time.Duration
	// Reconnect is how long the old EventSub connection outlives its
	// session_reconnect message. 30 s.
	Reconnect time.Duration
	// Ping is the interval of PING to IRC connections and of WebSocket pings,
	// and how long the answer may take. 5 min.
	Ping time.Duration
	// Token is how long an access token that OAuth gives out is valid. 4 h.
	Token time.Duration
}

// Option changes how New builds a Server.
type Option func(*options)

// WithIRCAddr sets the TCP address of IRC. Without it, a free port of 127.0.0.1.
func WithIRCAddr(addr string) Option { return func(o *options) { o.ircAddr = addr } }

// WithHTTPAddr sets the TCP address of everything else, IRC over WebSocket
// included. Without it, a free port of 127.0.0.1.
func WithHTTPAddr(addr string) Option { return func(o *options) { o.httpAddr = addr } }

// WithClock sets the clock that limits, bans and expiries go by. Keepalives and
// pings go by the real one.
func WithClock(now func() time.Time) Option { return func(o *options) { o.now = now } }

// WithLimits replaces DefaultLimits.
func WithLimits(l Limits) Option { return func(o *options) { o.limits = l } }

// WithTiming replaces the durations of Twitch by those that are not zero.
func WithTiming(t Timing) Option { return func(o *options) { o.timing = t } }

// WithoutNonceEcho keeps the client-nonce of a PRIVMSG out of the USERSTATE that
// answers it. Twitch puts it there, but does not document that it does.
func WithoutNonceEcho() Option { return func(o *options) { o.noNonce = true } }

// New starts a server. All its listeners accept when New returns.
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
		Sockets:  []string{ircPath, eventSubPath},
		Refuse:   func(w http.ResponseWriter, f HTTPFault, why string) { writeError(w, f.Status, why) },
		Now:      s.now,
		Stop:     s.stopIRC,
	})
	return s, nil
}

// IRCAddr is the host:port of IRC over plain TCP.
func (s *Server) IRCAddr() string { return s.irc.Addr().String() }

// IRCWebSocketURL is where IRC is spoken over WebSocket.
func (s *Server) IRCWebSocketURL() string { return "ws://" + s.http.Addr().String() + ircPath }

// HelixURL is what stands for https://api.twitch.tv/helix.
func (s *Server) HelixURL() string { return "http://" + s.http.Addr().String() + helixPath }

// OAuthURL is what stands for https://id.twitch.tv/oauth2.
func (s *Server) OAuthURL() string { return "http://" + s.http.Addr().String() + oauthPath }

// EventSubURL is what stands for wss://eventsub.wss.twitch.tv/ws.
func (s *Server) EventSubURL() string { return "ws://" + s.http.Addr().String() + eventSubPath }

// Paths on the one HTTP listener.
const (
	ircPath      = "/irc"
	helixPath    = "/helix"
	oauthPath    = "/oauth2"
	eventSubPath = "/ws"
)

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	s.routeOAuth(mux)
	s.routeHelix(mux)
	mux.HandleFunc("GET "+eventSubPath, s.serveEventSub)
	mux.HandleFunc("GET "+ircPath, s.serveIRC)
	return mux
}

// stopIRC ends the connections of IRC, and lets none come any more.
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
