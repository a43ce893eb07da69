// Package instance is one gateway instance: it holds clients' sockets and its share of the platforms' channels, takes
// what people say there to the bus, and takes answers from its own subscription to them. The gateway's main runs one;
// the emulator runs several in one process.
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
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"parley.internal/gateway/page"
	"parley.internal/gateway/websocket"
	"parley.internal/shared/answer"
	"parley.internal/shared/bus"
	"parley.internal/shared/credential"
	"parley.internal/shared/delivery"
	"parley.internal/shared/identity"
	"parley.internal/shared/store"
)

const (
	// drainTime bounds everything between the end of Run's context and its return. Cloud Run kills 10 s after it sent
	// SIGTERM (https://cloud.google.com/run/docs/container-contract#instance-shutdown).
	drainTime = 8 * time.Second
	// handlersTime is the part of it in which answers that are being delivered may end by themselves.
	handlersTime = 2 * time.Second
	// leaveTime is the part of it that is kept for deleting the subscription and disconnecting; they may take what else is
	// left.
	leaveTime = 1500 * time.Millisecond

	minBackoff, maxBackoff = 100 * time.Millisecond, 10 * time.Second
)

// Deliverer takes the answers for one destination. Every instance is handed every answer: one that is not concerned
// returns nil without touching the ledger. After any error but a deadletter.Error the answer is handed over again.
type Deliverer interface {
	Deliver(ctx context.Context, in bus.Incoming) error
}

// Options are what an instance is given beside its configuration.
type Options struct {
	Log *slog.Logger // needed
	// DemoTokens are tokens by user id that the chat page offers to whoever opens it, under /demo/tokens. Nil, as it
	// must be wherever others can reach the instance, offers none.
	DemoTokens map[string]string
	// Now is the instance's clock; time.Now if nil.
	Now func() time.Time
}

// Instance is a gateway instance between Start and the end of Run.
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
	keeper       *credential.Keeper // nil where no platform has credentials
	storeCheck   *storeCheck
	http         *http.Server

	subscribed atomic.Bool // messages of the own subscription are being received
	draining   atomic.Bool
}

// Start opens the listener, connects to Firestore and Pub/Sub, and makes the instance's own subscription: what is
// published from then on will reach it. Clients wait until [Instance.Run] is called, which must be. ctx is for starting
// alone.
func Start(ctx context.Context, c Config, o Options) (_ *Instance, err error) {
	i := &Instance{log: o.Log}
	now := o.Now
	if now == nil {
		now = time.Now
	}
	defer func() {
		if err != nil {
			leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
			defer cancel()
			err = fmt.Errorf("start the gateway: %w", errors.Join(err, i.release(leaving)))
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
		Instance: i.id, Tokens: st, Publisher: i.bus, Ledger: delivery.NewLedger(i.firestore, i.id, now),
		Log: i.log, Metrics: registry, Now: now,
	}); err != nil {
		return nil, err
	}
	i.deliverers = map[identity.Platform]Deliverer{identity.APIGateway: i.sockets}
	i.storeCheck = newStoreCheck(st, now)

	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", serveHealth)
	mux.HandleFunc("GET /readyz", i.serveReady)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.Handle("GET "+websocket.Path, i.sockets)
	mux.Handle("GET /", page.Handler())
	if o.DemoTokens != nil {
		mux.HandleFunc("GET /demo/tokens", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, o.DemoTokens) })
	}
	if err = i.connect(ctx, c, mux, registry, now); err != nil {
		return nil, err
	}
	i.http = &http.Server{
		Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, // a socket has its own limits
		IdleTimeout: 2 * time.Minute,
		ErrorLog:    slog.NewLogLogger(i.log.Handler(), slog.LevelWarn),
	}

	if i.subscription, err = i.bus.Subscribe(ctx, i.id); err != nil {
		return nil, err
	}
	return i, nil
}

// Addr is where the instance listens: host:port, with the port that it got if the configuration left it open.
func (i *Instance) Addr() string { return i.listener.Addr().String() }

// ID is the instance's id, which no other instance has.
func (i *Instance) ID() string { return i.id }

// Run serves until ctx is done, which is no error, or the listener fails. Then it drains within 8 s: it takes no more
// clients, delivers what is queued, closes the sockets with [websocket.CloseGoingAway], gives back the platforms'
// channels, deletes its subscription and disconnects. It must be called once.
func (i *Instance) Run(ctx context.Context) error {
	life, endLife := context.WithCancel(ctx)
	defer endLife()
	var served error
	serving := make(chan struct{})
	go func() { // ends with the listener, which drain closes
		defer close(serving)
		if err := i.http.Serve(i.listener); !errors.Is(err, http.ErrServerClosed) {
			served = fmt.Errorf("serve HTTP: %w", err)
			endLife()
		}
	}()
	receiving, stopReceiving := context.WithCancel(context.WithoutCancel(ctx))
	defer stopReceiving()
	received := make(chan struct{})
	recall := i.sockets.DisconnectAll
	go func() { // ends when drain stops the receiving
		defer close(received)
		i.receive(receiving, recall)
	}()
	left := i.runServices(life)
	i.log.InfoContext(ctx, "gateway serves", "addr", i.Addr())

	<-life.Done()
	i.draining.Store(true)
	began := time.Now()
	err := i.drain(context.WithoutCancel(ctx), stopReceiving, received, left)
	<-serving
	i.log.InfoContext(ctx, "gateway stopped", "after", time.Since(began), "error", err)
	return errors.Join(served, err)
}

// drain ends what Run began. received and left are closed when the receiving and the services have ended.
func (i *Instance) drain(ctx context.Context, stopReceiving func(), received, left <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	var errs []error

	closing, cancelClosing := context.WithTimeout(ctx, handlersTime)
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
	draining, cancelDraining := context.WithDeadline(ctx, deadline.Add(-leaveTime))
	defer cancelDraining()
	errs = append(errs, i.sockets.Drain(draining))
	i.sockets = nil
	select {
	case <-received: // closing the sockets has freed the handlers that waited for them
	case <-draining.Done():
	}
	select {
	case <-left: // the end of life has told the services to leave
		if i.keeper != nil {
			errs = append(errs, i.keeper.Drain(draining))
		}
	case <-draining.Done():
		errs = append(errs, errors.New("a platform's channels could not be given back in time: their leases run out"))
	}
	errs = append(errs, i.release(ctx))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	return nil
}

// release undoes what Start did, as far as that came and ctx gives it time.
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
	// disconnecting waits for what is still being sent, as long as that takes: it may outlast this instance's time
	closed := make(chan error, 1)
	go func() { // ends at the latest with the clients' own time limits
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

// receive hands the subscription's messages over until ctx is done. If the subscription vanishes, deleted by a person
// or expired while this instance slept, it is made anew, and until then the instance is not ready. What was published in
// between did not come here: recall has the clients come back for it.
func (i *Instance) receive(ctx context.Context, recall func()) {
	backoff, subscription := minBackoff, i.subscription
	for {
		i.subscribed.Store(true)
		began := time.Now()
		err := subscription.Receive(ctx, i.deliver)
		i.subscribed.Store(false)
		if ctx.Err() != nil {
			return
		}
		i.log.ErrorContext(ctx, "the subscription is lost", "error", err)
		if time.Since(began) > maxBackoff {
			backoff = minBackoff
		}
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(backoff):
			}
			backoff = min(2*backoff, maxBackoff)
			if subscription, err = i.bus.Subscribe(ctx, i.id); err == nil {
				recall()
				break
			}
			i.log.ErrorContext(ctx, "the subscription can't be made anew", "error", err)
		}
	}
}

// deliver hands an answer to whoever delivers to its destination.
func (i *Instance) deliver(ctx context.Context, in bus.Incoming) error {
	// The subscription's filter says the same, but not every emulator heeds filters.
	if in.Attributes[bus.AttrRoute] != bus.RouteBroadcast && in.Attributes[bus.AttrInstance] != i.id {
		return nil
	}
	destination, err := answer.Platform(in.Event)
	if err != nil {
		return err
	}
	if d := i.deliverers[destination]; d != nil {
		return d.Deliver(ctx, in)
	}
	return nil // another part's
}
