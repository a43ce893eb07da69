// Package websocket implements the gateway's own protocol for clients: JSON frames over WebSockets (RFC 6455), at [Path].
// Start at [Server]. The package does not know Firestore or Pub/Sub; see [Accounts], [Ledger] and [Publisher].
//
// A client authenticates with a token in the HTTP request. The client's frames become events on the ingress topic. The
// client receives answers from the egress topic ([Server.Deliver]), acknowledgements, and errors. The tables [Errors],
// [Closes] and [Refusals] list all error codes.
//
// # Frames
//
// Every frame is one JSON object in a text message: type, payload, metadata.
//
//	← connection.ready        {user_id, instance, missed?, recovered?}   the first frame
//	→ chat.message.send       {text, room?}         becomes an event chat.message; joins the room. channel is a synonym of room
//	→ moderation.action.v1    {action, channel, …}  becomes an event of the same type, if well-formed and permitted (see package moderation and ErrForbidden)
//	→ any other type          {…}                   becomes an event of the same type, unless reserved (see [Errors])
//	→ room.join, room.leave   {room}
//	← room.joined, room.left  {room}
//	← chat.message.received   {text}                an answer; metadata.id is the delivery id, the same on every resend
//	← an event's own type     {…}                   an answer for programs (egress type "event")
//	→ connection.ack          {ids}                 confirms the arrival of answers; see below
//	← chat.error              {code, message, id}   refuses the frame with metadata.id id
//
// A client sets a unique metadata.id in each frame. The answer, the acknowledgement or the error contains the id as
// metadata.replyTo. A second frame with the same id from the same user is the same event.
//
// After connecting, a client first gets the pending answers of its user. A reconnecting client names the metadata.id of
// the last received answers, the earliest first (/ws/v1?after=ID&after=ID), and gets all later answers. Named answers are
// not sent again. connection.ready contains the number of missed answers to follow (missed; if very many, a lower bound),
// and whether the recovery is complete (recovered): false if the ledger no longer has the named answers.
//
// By default, an answer counts as delivered after the write to the network. A client that wants to be sure connects with
// ack=1 and acknowledges each received answer. If only such connections got an answer, it counts as delivered after the
// first acknowledgement. An unacknowledged answer is sent again after a reconnect, or dead-lettered after its deadline.
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
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"parley.internal/gateway/throttle"
	"parley.internal/shared/bus"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/identity"
	"parley.internal/shared/topology"
)

// Path is the URL path of the protocol.
const Path = "/ws/v1"

// Publisher publishes events. [bus.Client] implements the interface. The methods return after the bus has stored the
// event, and may be called concurrently.
type Publisher interface {
	Publish(ctx context.Context, t topology.Topic, out bus.Outgoing) error
	// DeadLetter records an event as a dead letter in place of publishing it.
	DeadLetter(ctx context.Context, t topology.Topic, out bus.Outgoing, why *deadletter.Error) error
}

// Ledger records the outcome of every answer. [delivery.Ledger] implements the interface. Methods may be called
// concurrently.
type Ledger interface {
	// MarkDelivered records the delivery of an answer, and returns the new state of the ledger entry.
	MarkDelivered(ctx context.Context, ref delivery.Ref) (delivery.State, error)
	// Resume reads the answers missed by a connecting client of a user. received are the ids named by the client.
	Resume(ctx context.Context, user identity.UserID, received []string) (delivery.Backlog, error)
	// Continue reads the next page of the same backlog.
	Continue(ctx context.Context, user identity.UserID, received []string, from delivery.Cursor) (delivery.Backlog, error)
}

// Dependencies are the dependencies of a [Server]. All fields except Proxies are required.
type Dependencies struct {
	Instance  string // id of the gateway instance, for connection.ready
	Accounts  Accounts
	Publisher Publisher
	Ledger    Ledger
	Log       *slog.Logger
	Metrics   prometheus.Registerer // of this instance only
	Now       func() time.Time
	Proxies   int // number of trusted proxies in front of the server; see [throttle.Address]
}

// Server serves the sockets of a gateway instance. A Server is an http.Handler for [Path], and safe for concurrent use.
type Server struct {
	config         Config
	instance       string
	publisher      Publisher
	ledger         Ledger
	log            *slog.Logger
	now            func() time.Time
	proxies        int
	metrics        *metrics
	hub            *hub
	auth           *authenticator
	recent         *recentDeliveries
	recordingLater chan struct{} // a semaphore: holds a value for each answer that is written but not yet recorded
	resumes        *resumeSlots
	upgrader       gorilla.Upgrader
	nextID         atomic.Uint64

	ctx  context.Context
	stop context.CancelFunc
	own  sync.WaitGroup // the server's own goroutines
}

// New makes a server. It accepts connections at once, and runs until [Server.Drain].
func New(c Config, d Dependencies) (*Server, error) {
	h := newHub(c)
	m, err := newMetrics(h, d.Metrics)
	if err != nil {
		return nil, err
	}
	auth, err := newAuthenticator(d.Accounts, c, d.Now, d.Log)
	if err != nil {
		return nil, fmt.Errorf("make the token cache: %w", err)
	}
	s := &Server{
		config: c, instance: d.Instance, publisher: d.Publisher, ledger: d.Ledger, log: d.Log, now: d.Now, proxies: d.Proxies,
		metrics: m, hub: h, auth: auth, recent: newRecentDeliveries(topology.Gateway("x").Retention(), d.Now),
		recordingLater: make(chan struct{}, maxRecordingLater), resumes: newResumeSlots(),
		upgrader: gorilla.Upgrader{
			HandshakeTimeout: c.WriteTimeout, ReadBufferSize: 4096, WriteBufferSize: 4096, WriteBufferPool: &sync.Pool{},
			EnableCompression: c.Compression,
			CheckOrigin:       func(*http.Request) bool { return true }, // already checked by originAllowed
		},
	}
	s.ctx, s.stop = context.WithCancel(context.Background()) // ends with Drain
	s.own.Go(func() { auth.run(s.ctx) })
	return s, nil
}

// ServeHTTP upgrades a request and serves the connection until its end, or refuses the request with a code of [Refusals].
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
	acc, refused := s.auth.authenticate(r.Context(), rawToken(r), throttle.Address(r, s.proxies))
	if refused != "" {
		s.refuse(w, refused)
		return
	}
	acks, ok := wantsAcks(r)
	if !ok {
		s.refuse(w, RefuseParameter)
		return
	}
	user := acc.user.String()
	allowance, refused := s.hub.reserve(user)
	if refused != "" {
		s.refuse(w, refused)
		return
	}
	defer s.hub.release(user)
	header := http.Header{}
	if p := selectProtocol(r); p != "" {
		header.Set("Sec-WebSocket-Protocol", p)
	}
	ws, err := s.upgrader.Upgrade(countedWriter{w}, r, header)
	if err != nil { // Upgrade has already written a response
		s.metrics.auth.WithLabelValues(string(RefuseNotSocket)).Inc()
		return
	}
	s.metrics.auth.WithLabelValues("ok").Inc()
	// the request's context carries the trace, but ends when this handler returns
	c := s.newConn(ws, acc, allowance)
	c.acks = acks
	s.serve(context.WithoutCancel(r.Context()), c, receivedIDs(r))
}

func (s *Server) serve(ctx context.Context, c *conn, received []string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, func() {
		cancel()
		c.ws.Close()
	})()
	if !s.hub.add(c) {
		c.end(CloseGoingAway)
	}
	c.serve(ctx, received)
}

func (s *Server) newConn(ws *gorilla.Conn, acc account, limits *allowance) *conn {
	id := s.nextID.Add(1)
	c := &conn{
		server: s, ws: ws, id: id, user: acc.user, userID: acc.user.String(), account: acc,
		log:       s.log.With("user", acc.user.String(), "connection", id),
		queue:     newQueue(s.config.QueueFrames, s.config.QueueBytes),
		inbox:     inbox{ch: make(chan inbound, s.config.Inbox)},
		rooms:     map[string]struct{}{},
		unacked:   map[string]delivery.Ref{},
		ackRoom:   make(chan struct{}, 1),
		limits:    limits,
		ackRate:   rate.NewLimiter(limits.rate.Limit(), limits.rate.Burst()),
		published: make(chan struct{}), readDone: make(chan struct{}),
	}
	c.moderator.Store(acc.moderator)
	c.frames = ws.NetConn().(*frameCounter)
	c.frames.allow = c.allowExtra
	c.closing, c.setClosing = context.WithCancel(context.Background()) // a signal, not a lifetime; set by end
	return c
}

// originAllowed checks the Origin header. It keeps pages of foreign hosts from connecting with credentials of a visitor's
// browser. A request without the header does not come from a browser.
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

// refuse responds with the status of a refusal and a JSON body.
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

// DisconnectAll closes every connection with [CloseInterrupted], after a time in which [Server.Deliver] may have missed
// answers. Each client reconnects and gets the missed answers. DisconnectAll does not wait.
func (s *Server) DisconnectAll() {
	for _, c := range s.hub.connections() {
		c.end(CloseInterrupted)
	}
}

// Drain stops the server: it refuses new connections, publishes the accepted messages, writes the queued frames, and
// closes every socket with [CloseGoingAway]. If ctx ends first, Drain cuts the remaining connections and returns the
// context's error. Stop calling [Server.Deliver] before. Drain may be called only once.
func (s *Server) Drain(ctx context.Context) error {
	for _, c := range s.hub.close() {
		c.end(CloseGoingAway)
	}
	done := make(chan struct{})
	go func() { // ends with the last connection; stop ends all connections
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
	return err
}
