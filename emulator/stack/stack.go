// Package stack runs all of Parley in one process: Pub/Sub and Firestore (embedded, or Google's emulators), the
// functions on the functions framework's own server, and gateway instances. The parts are the deployed parts with the
// same environment variables; only the addresses are local. Start with [Start].
package stack

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"cloud.google.com/go/firestore"
	pubsubclient "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/caarlos0/env/v11"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	firestoreserver "parley.internal/emulator/firestore"
	"parley.internal/emulator/google"
	pubsubserver "parley.internal/emulator/pubsub"
	"parley.internal/gateway/instance"
	"parley.internal/shared/config"
	"parley.internal/shared/credential"
	"parley.internal/shared/store"
	"parley.internal/shared/topology"
)

// Embedded is the value of Options.PubSub and Options.Firestore for the servers of this repository.
const Embedded = "embedded"

// project is part of every resource name. The name is unknown outside this machine.
const project = "parley-local"

// Options configures [Start].
type Options struct {
	Gateways  int               // at least 1
	Listen    string            // address of the first gateway; the others use the next ports, or free ports if the port is 0
	PubSub    string            // [Embedded], or the host:port of a running emulator
	Firestore string            // likewise
	Google    bool              // start Google's own emulators instead
	Seed      Seed              // first documents in Firestore
	DataDir   string            // folder for the content of the embedded servers; empty to keep nothing
	Retention time.Duration     // of documents made for events, such as deliveries, in the embedded Firestore; 0 for as long as in production
	Environ   []string          // configuration of the parts, in the form of os.Environ
	Log       *slog.Logger      // of the parts
	Progress  func(what string) // called with each step of the start
	Sweep     time.Duration     // interval of the ledger sweep; 0 for no sweep
	Platforms bool              // start fakes of Twitch and Discord, unless Environ configures the real platforms
}

// Ready describes the running Parley: addresses, and tokens of the seeded users.
type Ready struct {
	Project   string            `json:"project"`
	PubSub    string            `json:"pubsub"`
	Firestore string            `json:"firestore"`
	Functions map[string]string `json:"functions"` // URL by name
	Gateways  []Gateway         `json:"gateways"`
	// Playground is the URL of the playground page. The fragment holds the secret of this start.
	Playground string            `json:"stage,omitempty"`
	API        *API              `json:"api,omitempty"` // nil without a playground
	Tokens     map[string]string `json:"tokens"`        // by user id
}

// API describes the API of the fakes of Twitch and Discord (package playground).
type API struct {
	URL   string `json:"url"`   // such as http://127.0.0.1:40001/api
	Token string `json:"token"` // the secret of this start, for the header "Authorization: Bearer TOKEN"
}

// Gateway describes a running gateway instance.
type Gateway struct {
	ID   string `json:"id"`
	HTTP string `json:"http"`
	WS   string `json:"ws"`
	// Page is the URL of the chat page. If the page offers the demo users, the fragment holds the secret of this start.
	Page string `json:"page"`
	// Metrics is the URL of the metrics, or empty if the gateway serves none. OpenMetrics means that the URL needs no
	// token: the configuration has none, and only this machine reaches the gateway.
	Metrics     string `json:"metrics,omitempty"`
	OpenMetrics bool   `json:"openMetrics,omitempty"`
}

// Stack is a running Parley. A process can have only one Stack: the functions framework serves one set of functions,
// and the functions read their configuration from the process's environment.
type Stack struct {
	Ready
	Platforms Platforms

	pubsub    *pubsubserver.Server    // nil if not embedded
	firestore *firestoreserver.Server // likewise
	gateways  []*instance.Instance
	client    *firestore.Client
	bus       *pubsubclient.Client
	closers   []func() error // run from the last to the first
	prefix    topology.Prefix
	sweep     time.Duration
	secret    string // of this start: opens the demo users and the playground
	log       *slog.Logger
}

// Start starts everything, and returns when Parley is ready for clients. On failure it stops all started parts.
func Start(ctx context.Context, o Options) (_ *Stack, err error) {
	s := &Stack{Ready: Ready{Project: project, Functions: map[string]string{}}, sweep: o.Sweep, secret: rand.Text(), log: o.Log}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	if err := s.startServers(ctx, o); err != nil {
		return nil, err
	}

	environ := env.ToMap(o.Environ)
	maps.Copy(environ, map[string]string{
		"GOOGLE_CLOUD_PROJECT": project, "PUBSUB_EMULATOR_HOST": s.PubSub, "FIRESTORE_EMULATOR_HOST": s.Firestore,
	})
	for name, value := range environ { // for the functions, and for the clients of both services
		if err := os.Setenv(name, value); err != nil {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	deployment, err := config.Load[config.Deployment](environList(environ))
	if err != nil {
		return nil, err
	}

	o.Progress("writing the seed")
	if s.client, err = store.Connect(ctx, deployment); err != nil {
		return nil, err
	}
	s.closers = append(s.closers, s.client.Close)
	if s.Tokens, err = o.Seed.Write(ctx, s.client, time.Now()); err != nil {
		return nil, err
	}

	if o.Platforms {
		if err := s.startPlatforms(ctx, o, environ); err != nil {
			return nil, err
		}
	}

	if err := checkParts(environList(environ)); err != nil {
		return nil, err
	}
	o.Progress("starting the functions")
	functions, err := serveFunctions(ctx)
	if err != nil {
		return nil, err
	}
	if s.bus, err = pubsubclient.NewClient(ctx, project); err != nil {
		return nil, fmt.Errorf("connect to Pub/Sub: %w", err)
	}
	s.closers = append(s.closers, s.bus.Close)
	s.prefix = deployment.Prefix
	if err := s.createTopology(ctx, functions); err != nil {
		return nil, err
	}

	o.Progress(fmt.Sprintf("starting %d gateway(s)", o.Gateways))
	if err := s.startGateways(ctx, o, environ); err != nil {
		return nil, err
	}
	return s, nil
}

// startPlatforms starts the fakes and the playground, and adds the fakes' variables to environ.
func (s *Stack) startPlatforms(ctx context.Context, o Options, environ map[string]string) error {
	o.Progress("starting fakes of Twitch and Discord")
	dir, remove, err := keyDir(o.DataDir)
	if err != nil {
		return err
	}
	s.closers = append(s.closers, remove)
	p, added, err := startPlatforms(ctx, environ, localAddr(o.Listen), o.Seed, dir, s.client)
	if err != nil {
		return err
	}
	address, err := p.openPage(ctx, credential.NewSecret(s.secret))
	if address != "" {
		s.Playground, s.API = address+"/"+s.fragment(), &API{URL: address + "/api", Token: s.secret}
	}
	s.Platforms = p
	s.closers = append(s.closers, p.Close)
	if err != nil {
		return err
	}
	for name, value := range added {
		if environ[name] != "" {
			continue // the user's own value wins
		}
		environ[name] = value
		if err := os.Setenv(name, value); err != nil { // for the functions
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}

// startServers starts Pub/Sub and Firestore, or uses running emulators.
func (s *Stack) startServers(ctx context.Context, o Options) error {
	if o.Google {
		o.Progress("starting Google's Pub/Sub and Firestore emulators (some seconds)")
		var g errgroup.Group
		var pubsub, firestore *google.Process
		g.Go(func() (err error) { pubsub, err = google.StartPubSub(ctx); return err })
		g.Go(func() (err error) { firestore, err = google.StartFirestore(ctx); return err })
		err := g.Wait()
		for _, p := range []*google.Process{pubsub, firestore} {
			if p != nil {
				s.closers = append(s.closers, func() error { p.Stop(); return nil })
			}
		}
		if err != nil {
			return err
		}
		s.PubSub, s.Firestore = pubsub.Addr(), firestore.Addr()
		return nil
	}
	s.PubSub, s.Firestore = o.PubSub, o.Firestore
	for _, server := range []struct{ name, addr, flag, variable string }{
		{"Pub/Sub", o.PubSub, "--pubsub", "PUBSUB_EMULATOR_HOST"}, {"Firestore", o.Firestore, "--firestore", "FIRESTORE_EMULATOR_HOST"},
	} {
		if server.addr == Embedded {
			continue
		}
		o.Progress(fmt.Sprintf("checking %s at %s", server.name, server.addr))
		if err := checkReachable(ctx, server.addr); err != nil {
			return fmt.Errorf("nothing listens at %s, the address in %s or %s for %s: %w", server.addr, server.flag, server.variable, server.name, err)
		}
	}
	if o.PubSub == Embedded {
		o.Progress("starting the embedded Pub/Sub")
		var opts []pubsubserver.Option
		if o.DataDir != "" {
			opts = append(opts, pubsubserver.WithDataDir(o.DataDir+"/pubsub"))
		}
		server, err := pubsubserver.New(opts...)
		if err != nil {
			return fmt.Errorf("start the embedded Pub/Sub: %w", err)
		}
		s.pubsub, s.PubSub = server, server.Addr()
		s.closers = append(s.closers, server.Close)
	}
	if o.Firestore == Embedded {
		o.Progress("starting the embedded Firestore")
		if err := checkRetention(o.Retention, o.Sweep, o.Environ); err != nil {
			return err
		}
		opts := []firestoreserver.Option{firestoreserver.WithTTL(ttlPolicies(o.Retention)...)}
		if o.DataDir != "" {
			opts = append(opts, firestoreserver.WithDataDir(o.DataDir+"/firestore"))
		}
		server, err := firestoreserver.New(opts...)
		if err != nil {
			return fmt.Errorf("start the embedded Firestore: %w", err)
		}
		s.firestore, s.Firestore = server, server.Addr()
		s.closers = append(s.closers, server.Close)
	}
	return nil
}

// checkReachable returns an error if the address does not accept connections. The services' clients would wait forever.
func checkReachable(ctx context.Context, addr string) error {
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

// createTopology creates the topology, with every function below one address.
func (s *Stack) createTopology(ctx context.Context, functions string) error {
	for name := range served {
		s.Functions[name] = "http://" + functions + "/" + name
	}
	return CreateTopology(ctx, s.bus, project, s.prefix, s.Functions)
}

// CreateTopology creates the topics of a project, and the push subscriptions of the functions, like Terraform in the
// cloud. functions holds URLs by name; a function without a URL gets no subscription.
func CreateTopology(ctx context.Context, bus *pubsubclient.Client, project string, prefix topology.Prefix, functions map[string]string) error {
	for _, t := range topology.Topics() {
		_, err := bus.TopicAdminClient.CreateTopic(ctx, &pubsubpb.Topic{Name: prefix.Topic(project, t).String()})
		if err != nil && status.Code(err) != codes.AlreadyExists {
			return fmt.Errorf("create topic %s: %w", t, err)
		}
	}
	for _, sub := range topology.Subscriptions() {
		endpoint := functions[sub.Function]
		if endpoint == "" {
			continue
		}
		topic := prefix.Topic(project, sub.Topic).String()
		push := &pubsubpb.PushConfig{PushEndpoint: endpoint}
		request := &pubsubpb.Subscription{
			Name: prefix.Subscription(project, sub.Name).String(), Topic: topic, PushConfig: push,
			Filter: sub.Filter, EnableMessageOrdering: sub.Ordered, AckDeadlineSeconds: int32(sub.AckDeadlineSeconds),
			RetryPolicy: &pubsubpb.RetryPolicy{
				MinimumBackoff: durationpb.New(sub.MinBackoff()), MaximumBackoff: durationpb.New(sub.MaxBackoff()),
			},
		}
		if sub.MaxDeliveryAttempts > 0 {
			request.DeadLetterPolicy = &pubsubpb.DeadLetterPolicy{
				DeadLetterTopic:     prefix.Topic(project, topology.DeadLetter).String(),
				MaxDeliveryAttempts: int32(sub.MaxDeliveryAttempts),
			}
		}
		_, err := bus.SubscriptionAdminClient.CreateSubscription(ctx, request)
		if status.Code(err) == codes.AlreadyExists { // left by an earlier run, with another port of the functions
			err = bus.SubscriptionAdminClient.ModifyPushConfig(ctx, &pubsubpb.ModifyPushConfigRequest{Subscription: request.Name, PushConfig: push})
		}
		if err != nil {
			return fmt.Errorf("create subscription %s: %w", sub.Name, err)
		}
	}
	return nil
}

func (s *Stack) startGateways(ctx context.Context, o Options, environ map[string]string) error {
	host, first, err := splitListen(o.Listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	// The page offers the tokens of the seeded users, so only visitors from this machine may open it. The secret keeps
	// out the other programs and pages on this machine; a fragment is never sent to a server.
	local := credential.Local(host)
	opts := instance.Options{Log: o.Log, OpenMetrics: local}
	fragment := ""
	if local {
		opts.DemoTokens, opts.DemoSecret, fragment = s.Tokens, credential.NewSecret(s.secret), s.fragment()
	}
	for i := range o.Gateways {
		own := maps.Clone(environ)
		own["LISTEN_ADDR"] = net.JoinHostPort(host, "0")
		if first != 0 {
			own["LISTEN_ADDR"] = net.JoinHostPort(host, strconv.Itoa(first+i))
		}
		cfg, err := config.Load[instance.Config](environList(own))
		if err != nil {
			return err
		}
		gw, err := instance.Start(ctx, cfg, opts)
		if errors.Is(err, syscall.EADDRINUSE) {
			err = fmt.Errorf("%w: is another one running? --listen takes another address", err)
		}
		if err != nil {
			return fmt.Errorf("start gateway %d of %d: %w", i+1, o.Gateways, err)
		}
		s.gateways = append(s.gateways, gw)
		addr := localAddr(gw.Addr())
		ready := Gateway{ID: gw.ID(), HTTP: "http://" + addr, WS: "ws://" + addr + "/ws/v1", Page: "http://" + addr + "/" + fragment}
		if ready.OpenMetrics = local && cfg.Metrics.Token.IsZero(); ready.OpenMetrics || !cfg.Metrics.Token.IsZero() {
			ready.Metrics = ready.HTTP + "/metrics"
		}
		s.Gateways = append(s.Gateways, ready)
	}
	return nil
}

// fragment returns the part of a page's address with the secret of this start.
func (s *Stack) fragment() string { return "#demo=" + s.secret }

// splitListen splits the address of the first gateway.
func splitListen(listen string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(listen)
	if err != nil {
		return "", 0, fmt.Errorf("%q is not HOST:PORT", listen)
	}
	number, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("%q: the port is not a number of at most 65535", listen)
	}
	return host, int(number), nil
}

// CheckListen returns an error if the address leaves too few ports for the gateways.
func CheckListen(listen string, gateways int) error {
	_, first, err := splitListen(listen)
	if err == nil && first != 0 && first+gateways-1 > math.MaxUint16 {
		err = fmt.Errorf("%q leaves no ports for %d gateways", listen, gateways)
	}
	return err
}

// localAddr returns the address of a listener as seen from this machine. A listener on all interfaces is reachable on
// the loopback interface.
func localAddr(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return addr
}

// Stop stops a stack instead of Run.
func (s *Stack) Stop() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return s.Run(ctx)
}

// Run serves until ctx ends or a gateway fails, then drains the gateways and stops everything. It may be called once.
func (s *Stack) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, gw := range s.gateways {
		g.Go(func() error { return gw.Run(ctx) })
	}
	if s.bus != nil && s.sweep > 0 {
		g.Go(func() error { s.tick(ctx); return nil })
	}
	return errors.Join(g.Wait(), s.close())
}

// tick publishes the ticks of the ledger sweep until ctx ends, like Cloud Scheduler in the cloud.
func (s *Stack) tick(ctx context.Context) {
	p := s.bus.Publisher(s.prefix.Topic(project, topology.Sweep).String())
	defer p.Stop()
	ticker := time.NewTicker(s.sweep)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if _, err := p.Publish(ctx, &pubsubclient.Message{Data: []byte("{}")}).Get(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("sweep tick failed", "error", err)
			}
		}
	}
}

func (s *Stack) close() error {
	var errs []error
	for _, c := range slices.Backward(s.closers) {
		errs = append(errs, c())
	}
	s.closers = nil
	return errors.Join(errs...)
}

func environList(environ map[string]string) []string {
	all := make([]string, 0, len(environ))
	for name, value := range environ {
		all = append(all, name+"="+value)
	}
	slices.SortFunc(all, cmp.Compare[string])
	return all
}
