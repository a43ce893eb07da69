// Package discord is an in-process fake of Discord, for tests and for development on one machine: the gateway over
// WebSocket and the HTTP API, on a real socket of the loopback interface, without TLS. Start with [New].
//
// The fake follows Discord's documentation and refuses the same requests as Discord. Each file names its page of the
// documentation:
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
// Behind the protocols are users, bots, guilds, channels and roles. A test or a page calls methods of [Server] to post
// a message as a user, send a direct message, add and remove roles, ban, or inject a fault, and to read the received
// messages with their pings, bans and time-outs.
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
// A client uses APIURL in place of https://discord.com/api. The API returns the address of the gateway.
//
// A user's message can have files, stickers, embeds and a poll, and can be a forward; a bot's message can only have text.
//
// Not included: TLS, the ETF encoding and zstd, embeds and components in a bot's messages, votes in polls, pins, reactions,
// threads, voice, emojis, webhooks, interactions, presences, group DMs, invites, slow mode, AutoMod, two-factor rules,
// the audit log as an endpoint, OAuth, API versions before 9, and the ban of addresses with too many invalid requests. A
// message with unsupported parts is refused with 50035. An unknown path gets 404 and an unknown field is ignored, as on
// Discord.
package discord

import (
	"cmp"
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
	http    net.Listener
	tasks   *fake.Tasks

	// mu guards the fields below and everything reachable from the fields. While holding mu, a goroutine may push to a
	// connection's queue, because Push never blocks.
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

// Timing holds durations. A zero field means Discord's own duration, given below as far as documented.
type Timing struct {
	// Heartbeat is the heartbeat_interval of Hello. A connection is closed if its client is late by more than half of
	// the interval. 41.25 s.
	Heartbeat time.Duration
	// Resume is the time for which a session without a connection can be resumed. Discord's documentation says "a few
	// minutes". 3 min.
	Resume time.Duration
	// Reconnect is the life of a connection after the request to reconnect. 5 s.
	Reconnect time.Duration
	// Nonce is the time during which a repeated nonce returns the earlier message. Discord's documentation says "the
	// past few minutes". 3 min.
	Nonce time.Duration
}

// Option is an option of New.
type Option func(*options)

// WithHTTPAddr sets the TCP address of the gateway and the HTTP API. The default is a free port of 127.0.0.1.
func WithHTTPAddr(addr string) Option { return func(o *options) { o.httpAddr = addr } }

// WithClock sets the clock of ids, limits, time-outs, nonces and session lifetimes. Heartbeats use the real clock.
func WithClock(now func() time.Time) Option { return func(o *options) { o.now = now } }

// WithLimits replaces DefaultLimits.
func WithLimits(l Limits) Option { return func(o *options) { o.limits = l } }

// WithTiming replaces Discord's durations by the non-zero fields of t.
func WithTiming(t Timing) Option { return func(o *options) { o.timing = t } }

// New starts a server. The listener accepts connections when New returns.
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
		Hosts:    []string{"discord.com", "gateway.discord.gg"},
		Sockets:  []string{gatewayPath},
		Refuse:   refuseFault,
		Now:      s.now,
	})
	return s, nil
}

// APIURL returns the URL in place of https://discord.com/api, without the version.
func (s *Server) APIURL() string { return "http://" + s.http.Addr().String() + apiPath }

// GatewayURL returns the URL in place of wss://gateway.discord.gg.
func (s *Server) GatewayURL() string { return "ws://" + s.http.Addr().String() }

// Paths on the listener.
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
