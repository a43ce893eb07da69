// Package websocket is the gateway's own protocol for clients: JSON frames over WebSockets (RFC 6455), at the path
// [Path].
//
// A client presents a token before the connection is made. Then it sends frames, which become events on the ingress
// topic, and gets frames: answers from the egress topic ([Server.Deliver]), acknowledgements, and errors. The tables
// [Errors], [Closes] and [Refusals] list everything that can go wrong.
//
// # Frames
//
// Every frame is one JSON object in a text message: type, payload, metadata.
//
//	← connection.ready        {user_id, instance, missed?, recovered?}   the first frame
//	→ chat.message.send       {text, room?}         becomes an event chat.message; joins the room. channel is another name for room
//	→ moderation.action.v1    {action, channel, …}  becomes an event of that type, if its form is right (see package moderation)
//	→ any other type          {…}                   becomes an event of that type
//	→ room.join, room.leave   {room}
//	← room.joined, room.left  {room}
//	← chat.message.received   {text}                an answer; metadata.id is its delivery's id, the same on every resend
//	← an event's own type     {…}                   an answer for programs (egress type "event")
//	→ connection.ack          {ids}                 these answers have arrived; see below
//	← chat.error              {code, message, id}   the frame with this metadata.id was refused
//
// A client gives each frame a metadata.id of its own: the answer carries it as metadata.replyTo, and a frame that is
// sent again with the same id by the same user is the same event. Acknowledgements and errors carry it, too.
//
// A client that connects gets the answers that are pending for its user. One that comes back names the metadata.id of
// the last answers that it got, the earliest first (/ws/v1?after=ID&after=ID), and gets what came since; nothing that
// it names comes again. connection.ready tells how many follow (missed; where it is very much, at least so many), and
// whether that is all of them (recovered): it is not where the ledger no longer has what the client names.
//
// An answer counts as delivered when the network took it for a connection that doesn't acknowledge. A client that wants
// to be sure connects with ack=1 and acknowledges what it got: an answer that only such connections took counts as
// delivered when one of them says so, and what is left unacknowledged comes again when the client comes back, or is
// dead-lettered after its deadline.
package websocket

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	gorilla "github.com/gorilla/websocket"
	"github.com/maypok86/otter/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"parley.internal/shared/bus"
	"parley.internal/shared/delivery"
	"parley.internal/shared/identity"
	"parley.internal/shared/topology"
)

// Path is where a gateway serves this protocol.
const Path = "/ws/v1"

// Publisher takes events to the bus; bus.Client does. It returns when the event is stored there, and may be called
// concurrently.
type Publisher interface {
	Publish(ctx context.Context, t topology.Topic, out bus.Outgoing) error
}

// Ledger keeps what became of every answer; egress.Ledger does. It may be called concurrently.
type Ledger interface {
	// MarkDelivered records that an answer reached its recipient, and returns the state of its entry afterwards.
	MarkDelivered(ctx context.Context, ref delivery.Ref) (delivery.State, error)
	// Resume finds what a user's client that connects has not got.
	Resume(ctx context.Context, user identity.UserID, got []string) (delivery.Backlog, error)
	// Continue finds the next part of it.
	Continue(ctx context.Context, user identity.UserID, got []string, from delivery.Cursor) (delivery.Backlog, error)
}

// Dependencies are what a [Server] works with. All are needed.
type Dependencies struct {
	Instance  string // id of the gateway instance, as connection.ready tells it
	Tokens    Tokens
	Publisher Publisher
	Ledger    Ledger
	Log       *slog.Logger
	Metrics   prometheus.Registerer // of this instance alone
	Now       func() time.Time
}

// Server holds the sockets of one gateway instance. It is an http.Handler for [Path], and safe for concurrent use.
type Server struct {
	config         Config
	instance       string
	publisher      Publisher
	ledger         Ledger
	log            *slog.Logger
	now            func() time.Time
	metrics        *metrics
	hub            *hub
	auth           *authenticator
	recent         *otter.Cache[string, *localDelivery]
	recordingLater chan struct{} // holds one for each answer that is written and not yet recorded
	upgrader       gorilla.Upgrader
	nextID         atomic.Uint64

	ctx  context.Context
	stop context.CancelFunc
	own  sync.WaitGroup // the server's own goroutines
}

// New makes a server that accepts connections at once, and runs until [Server.Drain].
func New(c Config, d Dependencies) (*Server, error) {
	h := newHub(c)
	m, err := newMetrics(h, d.Metrics)
	if err != nil {
		return nil, err
	}
	auth, err := newAuthenticator(d.Tokens, c, d.Now, d.Log)
	if err != nil {
		return nil, fmt.Errorf("make the cache of tokens: %w", err)
	}
	seen, err := newRecent()
	if err != nil {
		return nil, fmt.Errorf("make the cache of deliveries: %w", err)
	}
	s := &Server{
		config: c, instance: d.Instance, publisher: d.Publisher, ledger: d.Ledger, log: d.Log, now: d.Now,
		metrics: m, hub: h, auth: auth, recent: seen, recordingLater: make(chan struct{}, maxRecordingLater),
		upgrader: gorilla.Upgrader{
			HandshakeTimeout: c.WriteTimeout, ReadBufferSize: 4096, WriteBufferSize: 4096, WriteBufferPool: &sync.Pool{},
			EnableCompression: c.Compression,
			CheckOrigin:       func(*http.Request) bool { return true }, // checked before
		},
	}
	s.ctx, s.stop = context.WithCancel(context.Background()) // ends with Drain
	s.own.Go(func() { auth.run(s.ctx) })
	return s, nil
}

// ServeHTTP turns a request into a connection and serves it until its end, or refuses it with one of [Refusals].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !gorilla.IsWebSocketUpgrade(r) {
		w.Header().Set("Upgrade", "websocket")
		s.refuse(w, RefuseNotSocket)
		return
	}
	if !s.originAllowed(r) {
		s.refuse(w, RefuseOrigin)
		return
	}
	user, expires, refused := s.auth.authenticate(r.Context(), rawToken(r))
	if refused != "" {
		s.refuse(w, refused)
		return
	}
	acks, ok := wantsAcks(r)
	if !ok {
		s.refuse(w, RefuseParameter)
		return
	}
	if refused := s.hub.reserve(user.String()); refused != "" {
		s.refuse(w, refused)
		return
	}
	defer s.hub.release(user.String())
	header := http.Header{}
	if p := selectProtocol(r); p != "" {
		header.Set("Sec-WebSocket-Protocol", p)
	}
	ws, err := s.upgrader.Upgrade(w, r, header)
	if err != nil { // it has answered
		s.metrics.auth.WithLabelValues(string(RefuseNotSocket)).Inc()
		return
	}
	s.metrics.auth.WithLabelValues("ok").Inc()
	// the request's context carries its trace, and ends only when this handler returns
	c := s.newConn(ws, user)
	c.acks = acks
	s.serve(context.WithoutCancel(r.Context()), c, expires, receivedIDs(r))
}

func (s *Server) serve(ctx context.Context, c *conn, expires time.Time, got []string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, func() {
		cancel()
		c.ws.Close()
	})()
	if !s.hub.add(c) {
		c.end(CloseGoingAway)
	}
	c.serve(ctx, expires, got)
}

func (s *Server) newConn(ws *gorilla.Conn, user identity.UserID) *conn {
	id := s.nextID.Add(1)
	c := &conn{
		server: s, ws: ws, id: id, user: user, userID: user.String(),
		log:       s.log.With("user", user.String(), "connection", id),
		queue:     newQueue(s.config.QueueFrames, s.config.QueueBytes),
		inbox:     inbox{ch: make(chan inbound, s.config.Inbox)},
		rooms:     map[string]struct{}{},
		unacked:   map[string]delivery.Ref{},
		ackRoom:   make(chan struct{}, 1),
		rate:      rate.NewLimiter(rate.Limit(s.config.Rate), s.config.Burst),
		flood:     rate.NewLimiter(rate.Limit(s.config.Rate*floodFactor), s.config.Burst*floodFactor),
		published: make(chan struct{}), readDone: make(chan struct{}),
	}
	c.closing, c.setClosing = context.WithCancel(context.Background()) // a signal, not a lifetime: end sets it
	return c
}

// originAllowed keeps pages of other hosts from connecting with what their visitors' browsers know. Who sends no
// Origin is no browser.
func (s *Server) originAllowed(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || slices.Contains(s.config.Origins, "*") {
		return true
	}
	if slices.ContainsFunc(s.config.Origins, func(o string) bool { return strings.EqualFold(o, origin) }) {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, r.Host)
}

// refuse answers a request with a refusal's status and a JSON body.
func (s *Server) refuse(w http.ResponseWriter, code RefusalCode) {
	s.metrics.auth.WithLabelValues(string(code)).Inc()
	m := code.meaning()
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	if m.Status == http.StatusUnauthorized {
		header.Set("WWW-Authenticate", "Bearer")
	}
	if m.Retryable {
		header.Set("Retry-After", "5")
	}
	w.WriteHeader(m.Status)
	json.NewEncoder(w).Encode(map[string]any{"error": map[string]string{"code": string(code), "message": m.Meaning}})
}

// DisconnectAll has every client come back, because answers may have been published that [Server.Deliver] was not given: each
// gets with its next connection what it missed. It doesn't wait for that.
func (s *Server) DisconnectAll() {
	for _, c := range s.hub.connections() {
		c.end(CloseInterrupted)
	}
}

// Drain ends the server: it takes no more connections, publishes the clients' messages that were accepted, writes
// what is queued for them, and closes every socket with [CloseGoingAway]. It returns when all is done, or, with the
// context's error, when ctx is; what is left then is cut. Stop calling [Server.Deliver] before. It may be called once.
func (s *Server) Drain(ctx context.Context) error {
	for _, c := range s.hub.close() {
		c.end(CloseGoingAway)
	}
	done := make(chan struct{})
	go func() { // ends when the last connection does, which stop brings about
		s.hub.served.Wait()
		close(done)
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = fmt.Errorf("close the sockets: %w", context.Cause(ctx))
	}
	s.stop()
	<-done
	s.own.Wait()
	s.auth.close()
	s.recent.StopAllGoroutines()
	return err
}
