// Package instance runs one gateway instance. An instance serves WebSocket clients and a share of the platforms'
// channels. It publishes their messages to Pub/Sub, and delivers the answers received from its own subscription. Start
// at [Start] and [Instance.Run]. The gateway's main runs one instance; the emulator runs several in one process.
//
// The package only composes: packages websocket, twitch and discord implement the platforms.
package instance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"parley.internal/gateway/loopback"
	"parley.internal/gateway/page"
	"parley.internal/gateway/websocket"
	"parley.internal/shared/answer"
	"parley.internal/shared/bus"
	"parley.internal/shared/credential"
	"parley.internal/shared/delivery"
	"parley.internal/shared/identity"
	"parley.internal/shared/retry"
	"parley.internal/shared/store"
)

const (
	// drainTimeout bounds the time from the end of Run's context to the return of Run. Cloud Run kills an instance 10 s
	// after SIGTERM (https://cloud.google.com/run/docs/container-contract#instance-shutdown).
	drainTimeout = 8 * time.Second
	// handlersTimeout is the part of drainTimeout for deliveries and HTTP requests in progress.
	handlersTimeout = 2 * time.Second
	// releaseTime is the part of drainTimeout reserved for deleting the subscription and disconnecting. Release may also
	// use the time left over by the earlier steps.
	releaseTime = 1500 * time.Millisecond

	minBackoff, maxBackoff = 100 * time.Millisecond, 10 * time.Second
)

// Deliverer delivers the answers for one platform. Every instance receives every answer. If a different instance has the
// recipient, or the lease of the channel, Deliver returns nil and does not touch the ledger. After any error except a
// [deadletter.Error], Pub/Sub redelivers the answer.
type Deliverer interface {
	Deliver(ctx context.Context, in bus.Incoming) error
}

// Options are the parameters of an instance beside its configuration.
type Options struct {
	Log *slog.Logger // required
	// DemoTokens maps user ids to tokens, served under /demo/tokens to the holders of DemoSecret. Nil serves none.
	// DemoTokens must be nil unless the instance is reachable from this machine only.
	DemoTokens map[string]string
	// DemoSecret is required if DemoTokens is set. The chat page takes it from its address (#demo=SECRET), and sends it
	// as Authorization: Bearer SECRET.
	DemoSecret credential.Secret
	// OpenMetrics serves /metrics without a token to this machine, if the listener is on the loopback interface and no
	// token is configured.
	OpenMetrics bool
	// Now is the instance's clock. Nil is time.Now.
	Now func() time.Time
}

// Instance is a gateway instance from Start to the end of Run.
type Instance struct {
	id           string
	log          *slog.Logger
	listener     net.Listener
	firestore    *firestore.Client
	bus          *bus.Client
	subscription *bus.Subscription
	sockets      *websocket.Server
	deliverers   map[identity.Platform]Deliverer
	services     []service
	keeper       *credential.Keeper    // nil if no platform has credentials
	onLogin      func(identity.UserID) // tells the services of a login; nil if no service has credentials
	storeCheck   *storeCheck
	http         *http.Server

	subscribed atomic.Bool // the instance receives messages from its subscription
	draining   atomic.Bool
}

// Start opens the listener, connects to Firestore and Pub/Sub, and creates the instance's subscription. The instance
// receives every answer published from then on. Clients wait until [Instance.Run]; the caller must call Run. ctx bounds
// only Start.
func Start(ctx context.Context, c Config, o Options) (_ *Instance, err error) {
	i := &Instance{log: o.Log}
	now := o.Now
	if now == nil {
		now = time.Now
	}
	defer func() {
		if err != nil {
			releasing, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
			defer cancel()
			err = fmt.Errorf("start the gateway: %w", errors.Join(err, i.release(releasing)))
		}
	}()
	if i.id, err = newID(ctx, c.Service != "", askMetadata, o.Log); err != nil {
		return nil, err
	}
	i.log = o.Log.With("instance", i.id)
	if i.listener, err = new(net.ListenConfig).Listen(ctx, "tcp", c.HTTP.Addr()); err != nil {
		return nil, err
	}
	if i.firestore, err = store.Connect(ctx, c.Deployment); err != nil {
		return nil, err
	}
	if i.bus, err = bus.Open(ctx, c.Deployment, "gateway", i.log); err != nil {
		return nil, err
	}
	st := store.New(i.firestore)
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if i.sockets, err = websocket.New(c.Socket, websocket.Dependencies{
		Instance: i.id, Accounts: st, Publisher: i.bus, Ledger: delivery.NewLedger(i.firestore, i.id, now),
		Log: i.log, Metrics: registry, Now: now, Proxies: c.proxies(),
	}); err != nil {
		return nil, err
	}
	i.deliverers = map[identity.Platform]Deliverer{identity.APIGateway: i.sockets}
	i.storeCheck = newStoreCheck(st, now)

	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", serveHealth)
	mux.HandleFunc("GET /readyz", i.serveReady)
	local := c.Service == "" && loopback.IsListener(i.listener.Addr())
	mux.Handle("GET /metrics", metricsHandler(registry, c.Metrics.Token, o.OpenMetrics && local))
	mux.Handle("GET "+websocket.Path, i.sockets)
	mux.Handle("GET /", page.Handler())
	if o.DemoTokens != nil {
		if o.DemoSecret.IsZero() {
			return nil, errors.New("demo tokens without a secret")
		}
		mux.Handle("GET /demo/tokens", requireToken(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, http.StatusOK, o.DemoTokens)
		}), o.DemoSecret))
	}
	if err = i.addPlatforms(ctx, c, mux, registry, now); err != nil {
		return nil, err
	}
	var handler http.Handler = mux
	if local {
		handler = loopback.Only(mux, c.publicHost())
	}
	i.http = &http.Server{
		Handler: handler, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, // package websocket sets its own limits
		IdleTimeout: 2 * time.Minute,
		ErrorLog:    slog.NewLogLogger(i.log.Handler(), slog.LevelWarn),
	}

	if i.subscription, err = i.bus.Subscribe(ctx, i.id); err != nil {
		return nil, err
	}
	return i, nil
}

// Addr returns the listener's address, host:port. If the configured port is 0, the address has the port chosen by the
// system.
func (i *Instance) Addr() string { return i.listener.Addr().String() }

// ID returns the instance's id. The id is unique among all instances.
func (i *Instance) ID() string { return i.id }

// Run serves until ctx is done or the listener fails. The end of ctx is no error. Run then drains within 8 s: it refuses
// new clients, delivers the queued answers, closes the sockets with [websocket.CloseGoingAway], releases the platforms'
// leases, deletes the subscription and disconnects. Run must be called once.
func (i *Instance) Run(ctx context.Context) error {
	life, endLife := context.WithCancel(ctx)
	defer endLife()
	var served error
	serving := make(chan struct{})
	go func() { // ends when drain closes the listener
		defer close(serving)
		if err := i.http.Serve(i.listener); !errors.Is(err, http.ErrServerClosed) {
			served = fmt.Errorf("serve HTTP: %w", err)
			endLife()
		}
	}()
	receiving, stopReceiving := context.WithCancel(context.WithoutCancel(ctx))
	defer stopReceiving()
	received := make(chan struct{})
	disconnectAll := i.sockets.DisconnectAll
	go func() { // ends when drain calls stopReceiving
		defer close(received)
		i.receive(receiving, disconnectAll)
	}()
	servicesEnded := i.runServices(life)
	i.log.InfoContext(ctx, "gateway started", "addr", i.Addr())

	<-life.Done()
	i.draining.Store(true)
	start := time.Now()
	err := i.drain(context.WithoutCancel(ctx), stopReceiving, received, servicesEnded)
	<-serving
	i.log.InfoContext(ctx, "gateway stopped", "after", time.Since(start), "error", err)
	return errors.Join(served, err)
}

// drain stops everything started by Run. received and servicesEnded are closed when receive and the services have
// ended.
func (i *Instance) drain(ctx context.Context, stopReceiving func(), received, servicesEnded <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	var errs []error

	closing, cancelClosing := context.WithTimeout(ctx, handlersTimeout)
	defer cancelClosing()
	shut := make(chan error, 1)
	go func() { // ends with closing
		err := i.http.Shutdown(closing)
		if err != nil {
			err = i.http.Close()
		}
		shut <- err
	}()
	stopReceiving()
	select {
	case <-received:
	case <-closing.Done():
	}
	errs = append(errs, <-shut)

	deadline, _ := ctx.Deadline()
	draining, cancelDraining := context.WithDeadline(ctx, deadline.Add(-releaseTime))
	defer cancelDraining()
	errs = append(errs, i.sockets.Drain(draining))
	i.sockets = nil
	select {
	case <-received: // closing the sockets has ended the handlers blocked on a socket
	case <-draining.Done():
	}
	select {
	case <-servicesEnded: // the services stop when Run cancels life
		if i.keeper != nil {
			errs = append(errs, i.keeper.Drain(draining))
		}
	case <-draining.Done():
		errs = append(errs, errors.New("a platform's leases could not be released in time and will expire"))
	}
	errs = append(errs, i.release(ctx))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	return nil
}

// release undoes every step of Start done so far, until ctx is done.
func (i *Instance) release(ctx context.Context) error {
	var errs []error
	if i.sockets != nil {
		errs = append(errs, i.sockets.Drain(ctx))
	}
	if i.listener != nil {
		if err := i.listener.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if i.subscription != nil {
		errs = append(errs, i.subscription.Delete(ctx))
	}
	// Closing a client waits for its pending requests and takes no context, so it may last longer than ctx.
	closed := make(chan error, 1)
	go func() { // ends at the latest with the time limits of the clients
		var errs []error
		if i.bus != nil {
			errs = append(errs, i.bus.Close())
		}
		if i.firestore != nil {
			errs = append(errs, i.firestore.Close())
		}
		closed <- errors.Join(errs...)
	}()
	select {
	case err := <-closed:
		errs = append(errs, err)
	case <-ctx.Done():
		errs = append(errs, fmt.Errorf("disconnect: %w", ctx.Err()))
	}
	return errors.Join(errs...)
}

// receive delivers the subscription's messages until ctx is done. If the subscription disappears, because a person
// deleted it or because it expired while the instance was suspended, receive creates a new one; until then the instance
// is not ready. The instance has missed the answers published in between, so receive then calls disconnectAll: the
// clients reconnect and read the missed answers from the ledger.
func (i *Instance) receive(ctx context.Context, disconnectAll func()) {
	backoff, subscription := retry.NewBackoff(minBackoff, maxBackoff), i.subscription
	for {
		i.subscribed.Store(true)
		start := time.Now()
		err := subscription.Receive(ctx, i.deliver)
		i.subscribed.Store(false)
		if ctx.Err() != nil {
			return
		}
		i.log.ErrorContext(ctx, "subscription lost", "error", err)
		if time.Since(start) > maxBackoff {
			backoff.Reset()
		}
		for {
			if backoff.Wait(ctx) != nil {
				return
			}
			if subscription, err = i.bus.Subscribe(ctx, i.id); err == nil {
				disconnectAll()
				break
			}
			i.log.ErrorContext(ctx, "creating the subscription failed", "error", err)
		}
	}
}

// deliver passes an answer to the deliverer of its platform.
func (i *Instance) deliver(ctx context.Context, in bus.Incoming) error {
	// The subscription has the same filter, but some emulators ignore filters.
	if in.Attributes[bus.AttrRoute] != bus.RouteBroadcast && in.Attributes[bus.AttrInstance] != i.id {
		return nil
	}
	if in.Attributes[attrAnnouncement] != "" {
		i.announced(ctx, in)
		return nil
	}
	if delivery.IsNotice(in.Attributes) {
		return nil
	}
	destination, err := answer.Platform(in.Event)
	if err != nil {
		return err
	}
	if d := i.deliverers[destination]; d != nil {
		return d.Deliver(ctx, in)
	}
	return nil // the platform is not configured
}
