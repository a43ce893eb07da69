// Package soak runs Parley as processes, breaks them and everything between them for as long as it is told, and then
// counts: the promise is that every answer is delivered or dead-lettered, once.
//
// Gateways and functions are processes that are killed and stopped; the embedded Pub/Sub and Firestore run here, with
// faults in their answers; every connection of a gateway leads through a proxy that can be cut; every gateway has a
// clock that is wrong. [Kinds] lists the faults. The same seed draws the same sequence of them.
//
// The promise is checked from outside: what clients were given, frame by frame, and what Firestore holds, against the
// questions that the ingress topic took. It is held under these conditions, which are the protocol's own:
//
//   - A client that comes back names the last answers that it got, and it had one before the first fault. (One that
//     never got any, and does not acknowledge, can't say where to go on.)
//   - A client whose connection broke comes back within the deadline of its answers and the sweep's grace. One that
//     leaves for good does not read in its last moments: what it had read, and a killed gateway did not record, would
//     be dead-lettered.
//   - Clocks differ by less than the sweep's grace, with the longest pause of a gateway on top.
package soak

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"cloud.google.com/go/firestore"
	pubsubclient "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	firestoreserver "parley.internal/emulator/firestore"
	"parley.internal/emulator/port"
	pubsubserver "parley.internal/emulator/pubsub"
	"parley.internal/emulator/stack"
	"parley.internal/functions/dlq"
	"parley.internal/functions/enrichment"
	"parley.internal/functions/personality"
	"parley.internal/shared/topology"
)

// project stands in every resource's name; nothing outside this machine knows it.
const project = "parley-soak"

// Pace is how long things take.
type Pace struct {
	Gap      time.Duration // between the beginnings of two faults, on average
	Longest  time.Duration // of a fault
	Skew     time.Duration // a gateway's clock is up to this wrong, either way
	Deadline time.Duration // EGRESS_DEADLINE
	Grace    time.Duration // SWEEP_GRACE; more than Skew and Longest together
	Sweep    time.Duration // between two ticks
	Patience time.Duration // a client for which nothing came for this long connects anew
}

// Long is the pace of a soak that takes minutes.
var Long = Pace{
	Gap: 2500 * time.Millisecond, Longest: 4 * time.Second, Skew: 10 * time.Second, Deadline: 20 * time.Second,
	Grace: 40 * time.Second, Sweep: 5 * time.Second, Patience: 25 * time.Second,
}

// Short is the pace of a soak within a test.
var Short = Pace{
	Gap: 400 * time.Millisecond, Longest: time.Second, Skew: 2 * time.Second, Deadline: 4 * time.Second,
	Grace: 12 * time.Second, Sweep: time.Second, Patience: 4 * time.Second,
}

// Rolling is the pace of a test in which nothing is broken and gateways are only replaced: no answer can be overdue.
var Rolling = Pace{
	Gap: 500 * time.Millisecond, Longest: time.Second, Deadline: time.Minute, Grace: 2 * time.Second, Sweep: time.Second,
	Patience: 25 * time.Second,
}

// Options says what is run, and what is done to it.
type Options struct {
	Binary   string // the emulator's executable
	Dir      string // where the parts' logs are written; it must exist
	Environ  []string
	Seed     uint64
	Gateways int
	Users    int    // each tenth goes away before the answers come
	Kinds    []Kind // of the faults; nil for all
	Bounded  bool   // Faults is how many are made at most as well
	InFlight int    // questions that a user has open at a time
	// Questions are asked until all three are reached.
	For      time.Duration
	Messages int
	Faults   int

	Documents stack.Seed // rules and personalities; "!ask …" must be answered
	Pace      Pace
	Progress  func(Progress) // told now and then
}

// Progress is how far a soak has come.
type Progress struct {
	Phase                   string
	Asked, Answered, Faults int
}

// questionID is a question, by who asked it and by its metadata.id.
type questionID struct{ user, id string }

// gatewaySlot is the place of a gateway: when one is killed, another takes it, with another id.
type gatewaySlot struct {
	name              string
	pubsub, firestore *link
	environ           []string // what it is told beside what all gateways are

	busy    sync.Mutex // held while a fault has the gateway
	mu      sync.Mutex // guards what follows
	gateway gateway    // that has this place now
	born    int        // how many have had it
}

// gateway is an instance that runs.
type gateway struct {
	proc    *process
	id      string
	clients *link // to where it listens
}

// terminate asks the gateway to end, as [process.terminate] does, in the time that the platform gives it. From then on no
// client reaches it.
func (g gateway) terminate() (took time.Duration, inTime, well bool) {
	defer g.clients.proxy.Stop()
	return g.proc.terminate(exitTime)
}

// functionSlot is the place of a function.
type functionSlot struct {
	name, addr string
	environ    []string
	busy       sync.Mutex
	mu         sync.Mutex
	proc       *process
}

// world is everything that runs in a soak.
type world struct {
	Options
	began    time.Time
	injector *injector
	network  *network
	schedule *schedule
	pubsub   *pubsubserver.Server
	store    *firestoreserver.Server
	client   *firestore.Client
	bus      *pubsubclient.Client

	gateways  []*gatewaySlot
	functions []*functionSlot
	users     []*user

	asked, answered atomic.Int64
	rolls           atomic.Uint64 // how many were begun

	mu       sync.Mutex
	phase    string
	accepts  map[questionID]string // the correlation id of each question that the ingress topic took
	arrived  chan struct{}         // closed, and made anew, when one is added
	dead     map[questionID]bool
	egress   int // messages that the egress topic took
	log      []happened
	due      int // of the first Faults that were drawn, how many were made
	departed Departures
	failures []string // what must not happen beside the audit's findings
}

// happened is a fault that was made.
type happened struct {
	fault
	began, ended time.Time
	who          string
}

// Run runs a soak and audits it. The error says why it could not be run; what the audit found is in the report.
func Run(ctx context.Context, o Options) (_ *Report, err error) {
	if o.Gateways < 1 || o.Users < 1 || o.InFlight < 1 {
		return nil, errors.New("soak: needs a gateway, a user and a question in flight at least")
	}
	if o.Pace.Grace <= o.Pace.Skew+o.Pace.Longest {
		return nil, errors.New("soak: the sweep's grace has to be more than the clocks' skew and the longest fault together")
	}
	if o.Kinds == nil {
		o.Kinds = kindsOf(Kinds)
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &world{
		Options: o, began: time.Now(), injector: newInjector(), network: newNetwork(), schedule: newSchedule(o.Seed, o.Pace, o.Kinds),
		accepts: map[questionID]string{}, arrived: make(chan struct{}), dead: map[questionID]bool{},
	}
	defer func() {
		cancel()
		err = errors.Join(err, w.close())
	}()
	return steps(ctx, w.start, w.run, w.audit)
}

// steps goes through a soak.
func steps[R any](ctx context.Context, start, run func(context.Context) error, audit func(context.Context) (*R, error)) (*R, error) {
	if err := start(ctx); err != nil {
		return nil, fmt.Errorf("soak: %w", err)
	}
	if err := run(ctx); err != nil {
		return nil, fmt.Errorf("soak: %w", err)
	}
	report, err := audit(ctx)
	if err != nil {
		return nil, fmt.Errorf("soak: %w", err)
	}
	return report, nil
}

// start starts the servers, the functions and the gateways.
func (w *world) start(ctx context.Context) error {
	w.enter("starting")
	if err := w.startServers(ctx, w.onPublish); err != nil {
		return err
	}
	seed := stack.Seed{Users: map[string]map[string]any{}, Personalities: w.Documents.Personalities, Rules: w.Documents.Rules}
	for i := range w.Users {
		seed.Users[fmt.Sprintf("api-gateway:soak%d", i)] = map[string]any{"displayName": fmt.Sprintf("Soak %d", i)}
	}
	tokens, err := seed.Plant(ctx, w.client, time.Now())
	if err != nil {
		return err
	}
	for i, id := range slices.Sorted(maps.Keys(tokens)) {
		w.users = append(w.users, &user{id: id, token: tokens[id], acks: i%2 == 1, leaves: i%10 == 9, world: w, since: map[string]time.Time{}})
	}
	return w.startParts(ctx, w.schedule.skew, nil)
}

// startServers starts Pub/Sub and Firestore.
func (w *world) startServers(ctx context.Context, onPublish func(topic string, m *pubsubpb.PubsubMessage)) (err error) {
	if w.pubsub, err = pubsubserver.New(
		pubsubserver.WithServerOptions(grpc.ChainUnaryInterceptor(w.injector.pubsubUnary), grpc.ChainStreamInterceptor(w.injector.pubsubStream)),
		pubsubserver.WithHTTPClient(&http.Client{
			Transport:     pushes{RoundTripper: &http.Transport{MaxIdleConnsPerHost: 1000, IdleConnTimeout: 30 * time.Second}, injector: w.injector},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}),
		pubsubserver.WithOnPublish(onPublish),
	); err != nil {
		return fmt.Errorf("start Pub/Sub: %w", err)
	}
	if w.store, err = firestoreserver.New(firestoreserver.WithUnaryInterceptor(w.injector.firestoreUnary), firestoreserver.WithStreamInterceptor(w.injector.firestoreStream)); err != nil {
		return fmt.Errorf("start Firestore: %w", err)
	}
	return w.connect(ctx)
}

// startParts makes the topology and starts the functions and the gateways. skew draws a gateway's clock, and told, if it
// is not nil, what the i-th gateway is told beside what all are.
func (w *world) startParts(ctx context.Context, skew func() time.Duration, told func(i int) []string) (err error) {
	var functions errgroup.Group
	for _, name := range []string{enrichment.Step, personality.Step, dlq.Step} {
		f := &functionSlot{name: name}
		ps, err := w.network.link(name+"-pubsub", w.pubsub.Addr())
		if err != nil {
			return err
		}
		fs, err := w.network.link(name+"-firestore", w.store.Addr())
		if err != nil {
			return err
		}
		f.environ = w.environ(ps, fs)
		w.functions = append(w.functions, f)
		functions.Go(func() error { return f.settle(ctx, w) })
	}
	if err := functions.Wait(); err != nil {
		return err
	}
	endpoints := map[string]string{}
	for _, f := range w.functions {
		endpoints[f.name] = "http://" + f.addr + "/"
	}
	var g errgroup.Group
	if err := stack.CreateTopology(ctx, w.bus, project, topology.Prefix{}, endpoints); err != nil {
		return errors.Join(err, g.Wait())
	}
	for i := range w.Gateways {
		s := &gatewaySlot{name: fmt.Sprintf("gateway%d", i)}
		if told != nil {
			s.environ = told(i)
		}
		if s.pubsub, err = w.network.link(s.name+"-pubsub", w.pubsub.Addr()); err != nil {
			return errors.Join(err, g.Wait())
		}
		if s.firestore, err = w.network.link(s.name+"-firestore", w.store.Addr()); err != nil {
			return errors.Join(err, g.Wait())
		}
		w.gateways = append(w.gateways, s)
		own := skew()
		g.Go(func() error { return s.start(ctx, w, own) })
	}
	return g.Wait()
}

// connect makes the harness's own clients, which the faults spare.
func (w *world) connect(ctx context.Context) error {
	options := func(addr string) ([]option.ClientOption, error) {
		conn, err := grpc.NewClient(addr, append(asBystander(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))...)
		if err != nil {
			return nil, fmt.Errorf("connect to %s: %w", addr, err)
		}
		return []option.ClientOption{option.WithGRPCConn(conn), option.WithoutAuthentication()}, nil
	}
	opts, err := options(w.store.Addr())
	if err != nil {
		return err
	}
	if w.client, err = firestore.NewClient(ctx, project, opts...); err != nil {
		return fmt.Errorf("connect to Firestore: %w", err)
	}
	if opts, err = options(w.pubsub.Addr()); err != nil {
		return err
	}
	if w.bus, err = pubsubclient.NewClient(ctx, project, opts...); err != nil {
		return fmt.Errorf("connect to Pub/Sub: %w", err)
	}
	return nil
}

// environ is the environment of a part that reaches the servers by these links.
func (w *world) environ(pubsub, firestore *link) []string {
	return append(slices.Concat([]string{"LOG_LEVEL=warn", "LOG_FORMAT=json"}, w.Environ),
		"GOOGLE_CLOUD_PROJECT="+project, "PUBSUB_EMULATOR_HOST="+pubsub.addr, "FIRESTORE_EMULATOR_HOST="+firestore.addr,
		// a soak is not a user who types too fast
		"WS_RATE=100000", "WS_BURST=100000", "WS_INBOX=10000", "WS_QUEUE_FRAMES=10000",
		"EGRESS_DEADLINE="+w.Pace.Deadline.String(), "SWEEP_GRACE="+w.Pace.Grace.String(),
	)
}

// start starts the gateway of a place that has none.
func (s *gatewaySlot) start(ctx context.Context, w *world, skew time.Duration) error {
	_, err := s.launch(ctx, w, skew)
	return err
}

// launch starts a gateway, which has the place from then on and gets all clients that come, and tells who had it before.
func (s *gatewaySlot) launch(ctx context.Context, w *world, skew time.Duration) (before gateway, err error) {
	environ := append(append(w.environ(s.pubsub, s.firestore), s.environ...), "LISTEN_ADDR=127.0.0.1:0")
	var errs []error
	for range starts {
		proc, ready, err := startGateway(ctx, w.Binary, w.Dir, s.name, skew, environ)
		if err != nil {
			errs = append(errs, err)
			if wait(ctx, 100*time.Millisecond) != nil {
				break
			}
			continue
		}
		clients, err := w.network.link(s.name+"-clients", ready.Addr)
		if err != nil {
			proc.kill()
			return gateway{}, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		before, s.gateway = s.gateway, gateway{proc, ready.ID, clients}
		s.born++
		return before, nil
	}
	return gateway{}, errors.Join(errs...)
}

// Departures are what became of gateways that were told to end.
type Departures struct {
	Slowest           time.Duration // from SIGTERM to the end
	Late, Failed      int           // that were killed, 10 s after SIGTERM; that ended with an error
	LeftSubscriptions int           // subscriptions that were still there afterwards
}

// exitTime is what Cloud Run gives an instance from SIGTERM to SIGKILL
// (https://cloud.google.com/run/docs/container-contract#instance-shutdown).
const exitTime = 10 * time.Second

// roll replaces the gateway as a new revision does: another one starts beside it, gets all clients that come from then
// on, and only then it is told to end.
func (s *gatewaySlot) roll(ctx context.Context, w *world, skew time.Duration) error {
	old, err := s.launch(ctx, w, skew)
	if err != nil {
		return err
	}
	took, inTime, well := old.terminate()
	deleted, err := w.deleteSubscription(ctx, old.id)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	d := &w.departed
	d.Slowest = max(d.Slowest, took)
	switch {
	case !inTime:
		d.Late++
	case !well:
		d.Failed++
	}
	if deleted {
		d.LeftSubscriptions++
	}
	return nil
}

// deleteSubscription removes the subscription of a gateway that is gone, which would expire by itself a day later. It
// reports whether there was one.
func (w *world) deleteSubscription(ctx context.Context, id string) (bool, error) {
	err := w.bus.SubscriptionAdminClient.DeleteSubscription(ctx, &pubsubpb.DeleteSubscriptionRequest{
		Subscription: topology.Prefix{}.Subscription(project, topology.Gateway(id).Name).String(),
	})
	if status.Code(err) == codes.NotFound {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("remove the subscription of a gateway that is gone: %w", err)
	}
	return true, nil
}

// starts is how often a gateway is started anew, as the platform does it, if it can't reach Pub/Sub while it starts.
const starts = 10

// kill kills the gateway that has the place, and removes its subscription.
func (s *gatewaySlot) kill(ctx context.Context, w *world) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gateway.proc.kill()
	s.gateway.clients.proxy.Stop()
	_, err := w.deleteSubscription(ctx, s.gateway.id)
	return err
}

func (s *gatewaySlot) get() gateway {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gateway
}

// settle starts the function on a port of its own, where it then stays. Somebody else may take a port that was free.
func (f *functionSlot) settle(ctx context.Context, w *world) error {
	var errs []error
	for range starts {
		var err error
		if f.addr, err = port.Free(); err != nil {
			return err
		}
		if err = f.start(ctx, w); err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// start starts the function of a place that has none.
func (f *functionSlot) start(ctx context.Context, w *world) error {
	proc, err := startFunction(ctx, w.Binary, w.Dir, f.name, f.addr, f.environ)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.proc = proc
	return nil
}

func (f *functionSlot) get() *process {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.proc
}

// close ends everything.
func (w *world) close() error {
	for _, s := range w.gateways {
		if proc := s.get().proc; proc != nil {
			proc.kill()
		}
	}
	for _, f := range w.functions {
		if proc := f.get(); proc != nil {
			proc.kill()
		}
	}
	w.network.close()
	var errs []error
	if w.bus != nil {
		errs = append(errs, w.bus.Close())
	}
	if w.client != nil {
		errs = append(errs, w.client.Close())
	}
	if w.pubsub != nil {
		errs = append(errs, w.pubsub.Close())
	}
	if w.store != nil {
		errs = append(errs, w.store.Close())
	}
	return errors.Join(errs...)
}

// onPublish notes every question that the ingress topic takes.
func (w *world) onPublish(topic string, m *pubsubpb.PubsubMessage) {
	switch topic {
	case topology.Prefix{}.Topic(project, topology.Egress).String():
		w.mu.Lock()
		defer w.mu.Unlock()
		w.egress++
	case topology.Prefix{}.Topic(project, topology.Ingress).String():
		q, err := decodeQuestion(m.Data)
		w.mu.Lock()
		defer w.mu.Unlock()
		if err != nil {
			w.failures = append(w.failures, fmt.Sprintf("ingress took something else than a question: %v", err))
			return
		}
		if old, ok := w.accepts[q]; ok && old != m.Attributes["correlationId"] {
			w.failures = append(w.failures, fmt.Sprintf("%s of %s has two correlation ids", q.id, q.user))
		}
		w.accepts[q] = m.Attributes["correlationId"]
		close(w.arrived)
		w.arrived = make(chan struct{})
	}
}

// accepted waits until a question was taken, but not for longer than limit.
func (w *world) accepted(ctx context.Context, user, question string, limit time.Duration) error {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for {
		w.mu.Lock()
		_, ok := w.accepts[questionID{user, question}]
		arrived := w.arrived
		w.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-arrived:
		case <-timeout.C:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("wait for a question to be taken: %w", ctx.Err())
		}
	}
}

// alive leaves the questions that still can get an answer.
func (w *world) alive(user string, questions []string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.dead) == 0 {
		return questions
	}
	return slices.DeleteFunc(questions, func(q string) bool { return w.dead[questionID{user, q}] })
}

func (w *world) enter(phase string) {
	w.mu.Lock()
	w.phase = phase
	w.mu.Unlock()
	w.tell()
}

func (w *world) tell() {
	if w.Progress == nil {
		return
	}
	w.mu.Lock()
	p := Progress{Phase: w.phase, Asked: int(w.asked.Load()), Answered: int(w.answered.Load()), Faults: len(w.log)}
	w.mu.Unlock()
	w.Progress(p)
}

func (w *world) fail(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failures = append(w.failures, fmt.Sprintf(format, args...))
}

// run goes through the phases of a soak; in each, the users do something and everybody waits for all.
func (w *world) run(ctx context.Context) error {
	background, endBackground := context.WithCancel(ctx)
	var back errgroup.Group
	defer func() {
		endBackground()
		back.Wait()
	}()
	back.Go(func() error { w.ticks(background); return nil })
	back.Go(func() error { w.obituaries(background); return nil })
	back.Go(func() error { w.watch(background); return nil })

	w.enter("first questions")
	if err := w.everybody(ctx, func(ctx context.Context, u *user) error { return u.warm(ctx) }); err != nil {
		return err
	}

	w.enter("breaking")
	breaking, mend := context.WithCancel(ctx)
	defer mend()
	broken := make(chan error, 1)
	go func() { broken <- w.breakThings(breaking) }() // ends with breaking
	began := time.Now()
	more := func() bool {
		w.mu.Lock()
		due := w.due
		w.mu.Unlock()
		return time.Since(began) < w.For || int(w.asked.Load()) < w.Messages || due < w.Faults
	}
	waiting, giveUp := context.WithCancel(ctx)
	defer giveUp()
	asking, stopAsking := context.WithCancel(ctx)
	defer stopAsking()
	back.Go(func() error { // mends everything when there is nothing more to ask
		for more() && asking.Err() == nil {
			wait(asking, 50*time.Millisecond)
		}
		mend()
		if wait(asking, w.drainTime()) == nil {
			giveUp()
		}
		return nil
	})
	err := w.everybody(waiting, func(ctx context.Context, u *user) error {
		if !u.leaves {
			return u.chat(ctx, more)
		}
		for more() {
			if err := u.leave(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	stopAsking()
	if err := <-broken; err != nil {
		return err
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case waiting.Err() != nil:
		w.fail("questions were still open %s after the last fault was mended: %v", w.drainTime(), err)
	case err != nil:
		return err
	}

	w.enter("waiting for the ledger to be settled")
	if err := w.settled(ctx); err != nil {
		return err
	}
	w.enter("last visits")
	return w.everybody(ctx, func(ctx context.Context, u *user) error { return u.visit(ctx, 0) })
}

// drainTime is how long a phase may go on after the last question was asked.
func (w *world) drainTime() time.Duration { return 2*w.Pace.Deadline + 2*w.Pace.Grace + time.Minute }

// everybody lets all users do something.
func (w *world) everybody(ctx context.Context, do func(context.Context, *user) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, u := range w.users {
		g.Go(func() error { return do(ctx, u) })
	}
	return g.Wait()
}

// ticks publishes what Cloud Scheduler does in the cloud.
func (w *world) ticks(ctx context.Context) {
	p := w.bus.Publisher(topology.Prefix{}.Topic(project, topology.Sweep).String())
	defer p.Stop()
	for wait(ctx, w.Pace.Sweep) == nil {
		if _, err := p.Publish(ctx, &pubsubclient.Message{Data: []byte("{}")}).Get(ctx); err != nil && ctx.Err() == nil {
			w.fail("a tick could not be published: %v", err)
		}
		w.tell()
	}
}

// watch notes parts that end by themselves.
func (w *world) watch(ctx context.Context) {
	told := map[*process]bool{}
	for wait(ctx, 100*time.Millisecond) == nil {
		var procs []*process
		for _, s := range w.gateways {
			procs = append(procs, s.get().proc)
		}
		for _, f := range w.functions {
			procs = append(procs, f.get())
		}
		for _, p := range procs {
			select {
			case <-p.done:
				if !p.ended.Load() && !told[p] {
					told[p] = true
					w.fail("%s ended by itself: %s (see %s/%s.log)", p.name, p.cmd.ProcessState, w.Dir, p.name)
				}
			default:
			}
		}
	}
}

// breakThings makes faults, one after the other begins, until ctx is done; then it mends what is broken.
func (w *world) breakThings(ctx context.Context) error {
	var g errgroup.Group
	g.SetLimit(maxAtOnce)
	if slices.Equal(w.Kinds, []Kind{Roll}) {
		g.SetLimit(1) // a deploy that overtakes itself leaves nothing of a small machine to those who ask
	}
	for n := 0; !w.Bounded || n < w.Faults; n++ {
		f := w.schedule.next()
		skew := w.schedule.skew() // drawn for each, so that the sequence does not hang on who needs one
		if wait(ctx, f.after) != nil {
			return g.Wait()
		}
		g.Go(func() error { return w.make(ctx, f, skew, n < w.Faults) })
	}
	return g.Wait()
}

// maxAtOnce bounds how many faults are being made, or wait for the gateway that they are to meet.
const maxAtOnce = 20

// make makes one fault, and mends it. due is whether it is one of those that have to be made, however long it waits for
// its gateway: among them is one of each kind.
func (w *world) make(ctx context.Context, f fault, skew time.Duration, due bool) error {
	h := happened{fault: f, began: time.Now()}
	slot := w.gateways[f.target%uint64(len(w.gateways))]
	function := w.functions[f.target%uint64(len(w.functions))]
	if f.kind == Roll {
		slot = w.gateways[(w.rolls.Add(1)-1)%uint64(len(w.gateways))]
	}
	switch f.kind {
	case KillGateway, KillBeforeSettling, Roll, PauseGateway, CutPubSub, CutFirestore, CutClients:
		slot.busy.Lock() // the fault before is over soon
		defer slot.busy.Unlock()
		h.who = slot.name
	case KillFunction:
		function.busy.Lock()
		defer function.busy.Unlock()
		h.who = function.name
	}
	if ctx.Err() != nil {
		return nil
	}
	w.mu.Lock()
	at := len(w.log)
	w.log = append(w.log, h)
	if due {
		w.due++
	}
	w.mu.Unlock()
	err := w.do(ctx, f, slot, function, skew)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log[at].ended = time.Now()
	if err != nil {
		return fmt.Errorf("%s: %w", f, err)
	}
	return nil
}

func (w *world) do(ctx context.Context, f fault, slot *gatewaySlot, function *functionSlot, skew time.Duration) error {
	mending := context.WithoutCancel(ctx)
	switch f.kind {
	case KillGateway, KillBeforeSettling:
		if f.kind == KillBeforeSettling {
			h, release := w.injector.holdSettling(slot.get().id)
			defer release()
			timeout := time.NewTimer(f.length)
			defer timeout.Stop()
			select {
			case <-h.reached:
			case <-timeout.C:
			case <-ctx.Done():
			}
		}
		if err := slot.kill(mending, w); err != nil {
			return err
		}
		wait(ctx, f.length/4)
		return slot.start(mending, w, skew)
	case KillFunction:
		function.get().kill()
		wait(ctx, f.length/4)
		return function.start(mending, w)
	case Roll:
		return slot.roll(mending, w, skew)
	case PauseGateway:
		proc := slot.get().proc
		proc.stop()
		defer proc.resume()
		wait(ctx, f.length)
		return nil
	case CutPubSub:
		return slot.pubsub.cut(ctx, f.length, f.silent)
	case CutFirestore:
		return slot.firestore.cut(ctx, f.length, f.silent)
	case CutClients:
		return slot.get().clients.cut(ctx, f.length, f.silent)
	default:
		w.injector.begin(f.kind, f.rate)
		defer w.injector.end(f.kind)
		wait(ctx, f.length)
		return nil
	}
}

// Executable is the program that runs, for Options.Binary.
func Executable() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	return path, nil
}
