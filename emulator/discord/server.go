// Package discord is an in-process stand-in for Discord, for tests and for
// development on one machine: the gateway over WebSocket and the HTTP API, on a
// real socket of the loopback interface, in the clear.
//
// It follows Discord's documentation and refuses what Discord refuses; each file
// names the page that it follows:
//
//	Gateway      https://discord.com/developers/docs/events/gateway
//	Events       https://discord.com/developers/docs/events/gateway-events
//	HTTP API     https://discord.com/developers/docs/reference
//	Messages     https://discord.com/developers/docs/resources/message
//	Guilds       https://discord.com/developers/docs/resources/guild
//	Permissions  https://discord.com/developers/docs/topics/permissions
//	Rate limits  https://discord.com/developers/docs/topics/rate-limits
//	Codes        https://discord.com/developers/docs/topics/opcodes-and-status-codes
//
// Around the protocols stands a world of users, bots, guilds, channels and
// roles. A test or a page drives it: it says something as a user, sends a direct
// message, gives and takes roles, bans, or breaks something, and reads what
// arrived: messages with whom they ping, bans, time-outs.
//
//	srv, err := discord.New()
//	...
//	defer srv.Close()
//	owner, _ := srv.AddUser(discord.User{Name: "owner"})
//	bot, _ := srv.AddBot(discord.Bot{User: discord.User{Name: "bot"}, Privileged: discord.IntentMessageContent})
//	guild, _ := srv.AddGuild(discord.Guild{Name: "Home", OwnerID: owner.ID})
//	channel, _ := srv.AddChannel(discord.Channel{GuildID: guild.ID, Name: "general"})
//	srv.AddMember(guild.ID, bot.ID)
//
// A client takes APIURL for https://discord.com/api, and is told there where the
// gateway is.
//
// What it leaves out: TLS, the ETF encoding and zstd, embeds, files, components,
// stickers and polls in messages, forwards, pins, reactions, threads, voice, emojis,
// webhooks, interactions, presences, group DMs, invites, slow mode, AutoMod,
// two-factor rules, the audit log as an endpoint, OAuth, the versions of the API
// before 9, and that Discord bars an address that sends too many invalid
// requests. A message with what is left out is refused with 50035. A path that
// is not served is answered with 404, as Discord does for one that it does not
// have.
package discord

import (
	"cmp"
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
	http    net.Listener
	tasks   *fake.Tasks

	// mu guards all that follows and what hangs from it. Whoever holds it may
	// push to a connection's queue, which never blocks.
	mu       fake.Mutex
	users    map[string]*account
	tokens   map[string]*account
	guilds   map[string]*guild
	channels map[string]*channel
	dms      map[[2]string]*channel // by both users' ids, sorted
	conns    map[*gatewayConn]bool
	sessions map[string]*session
	buckets  map[string]*bucket
	faults   fake.Faults[DispatchFault]
	lastID   uint64
}

type options struct {
	httpAddr string
	now      func() time.Time
	limits   Limits
	timing   Timing
}

// Timing is how long things last. New takes for a zero field what Discord has,
// as far as its documentation tells.
type Timing struct {
	// Heartbeat is the heartbeat_interval of Hello. A client may be late by half
	// of it before its connection is closed. 41.25 s.
	Heartbeat time.Duration
	// Resume is how long a session without a connection can be resumed:
	// Discord says "a few minutes". 3 min.
	Resume time.Duration
	// Reconnect is how long a connection is kept that was asked to reconnect.
	// 5 s.
	Reconnect time.Duration
	// Nonce is for how long a message answers for its nonce: Discord says "the
	// past few minutes". 3 min.
	Nonce time.Duration
}

// Option changes how New builds a Server.
type Option func(*options)

// WithHTTPAddr sets the TCP address of the gateway and the HTTP API. Without it,
// a free port of 127.0.0.1.
func WithHTTPAddr(addr string) Option { return func(o *options) { o.httpAddr = addr } }

// WithClock sets the clock that ids, limits, time-outs, nonces and the lives of
// sessions go by. Heartbeats go by the real one.
func WithClock(now func() time.Time) Option { return func(o *options) { o.now = now } }

// WithLimits replaces DefaultLimits.
func WithLimits(l Limits) Option { return func(o *options) { o.limits = l } }

// WithTiming replaces the durations of Discord by those that are not zero.
func WithTiming(t Timing) Option { return func(o *options) { o.timing = t } }

// New starts a server. Its listener accepts when New returns.
func New(opts ...Option) (*Server, error) {
	s := &Server{
		options: options{
			httpAddr: "127.0.0.1:0",
			now:      time.Now,
			limits:   DefaultLimits(),
		},
		users:    map[string]*account{},
		tokens:   map[string]*account{},
		guilds:   map[string]*guild{},
		channels: map[string]*channel{},
		dms:      map[[2]string]*channel{},
		conns:    map[*gatewayConn]bool{},
		sessions: map[string]*session{},
		buckets:  map[string]*bucket{},
		tasks:    fake.NewTasks(),
	}
	for _, o := range opts {
		o(&s.options)
	}
	t := &s.options.timing
	t.Heartbeat = cmp.Or(t.Heartbeat, 41250*time.Millisecond)
	t.Resume = cmp.Or(t.Resume, 3*time.Minute)
	t.Reconnect = cmp.Or(t.Reconnect, 5*time.Second)
	t.Nonce = cmp.Or(t.Nonce, 3*time.Minute)

	var err error
	if s.http, err = net.Listen("tcp", s.options.httpAddr); err != nil {
		return nil, fmt.Errorf("discord: HTTP: %w", err)
	}
	s.Core = fake.New(fake.Config{
		Mutex:    &s.mu,
		Tasks:    s.tasks,
		Listener: s.http,
		Handler:  s.routes(),
		Sockets:  []string{gatewayPath},
		Refuse:   refuseFault,
		Now:      s.now,
	})
	return s, nil
}

// APIURL is what stands for https://discord.com/api; the version follows it.
func (s *Server) APIURL() string { return "http://" + s.http.Addr().String() + apiPath }

// GatewayURL is what stands for wss://gateway.discord.gg.
func (s *Server) GatewayURL() string { return "ws://" + s.http.Addr().String() }

// Paths on the one listener.
const (
	apiPath     = "/api"
	gatewayPath = "/"
)

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	s.routeAPI(mux)
	mux.HandleFunc("GET "+gatewayPath+"{$}", s.serveGateway)
	mux.HandleFunc("/", unserved(mux))
	return mux
}

func (s *Server) lock() { s.mu.Lock() }

func (s *Server) unlock() { s.mu.UnlockChanged() }

func (s *Server) now() time.Time { return s.options.now() }
