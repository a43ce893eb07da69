// Package pubsub is an in-process server of google.pubsub.v1, Publisher and
// Subscriber, for tests and for development on one machine.
//
// It does what the service documents, with the service's limits, errors and
// pacing: filters, ordering keys, leases, retry and dead-letter policies, push
// with back-off, expiration. Where a call or field is not supported the answer
// is UNIMPLEMENTED and names it. What it leaves out: snapshots, schemas,
// retention of acknowledged messages, message transforms, exports to other
// products, push without a wrapper, and IAM. An oidc_token in a push
// configuration is kept and shown, but push requests carry no token.
//
// Of one ordering key a stream may hold any number of messages, in order, a pull
// one batch, a push endpoint one message; the key stays with its holder until
// all it holds is settled. See https://cloud.google.com/pubsub/docs/ordering.
//
// The protocol is at https://cloud.google.com/pubsub/docs/reference/rpc.
//
//	srv, err := pubsub.New()
//	...
//	defer srv.Close()
//	conn, err := grpc.NewClient(srv.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
//	client, err := cloudpubsub.NewClient(ctx, "project", option.WithGRPCConn(conn))
package pubsub

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// Keys of Counts other than the names of methods.
const (
	// CountPublished counts messages accepted by Publish, and those forwarded
	// to dead-letter topics.
	CountPublished = "messages.published"
	// CountDelivered counts messages sent to subscribers, each delivery of one
	// message to one subscriber by itself, pushed ones included.
	CountDelivered = "messages.delivered"
	// CountAcked counts acknowledgements that ended a lease.
	CountAcked = "messages.acked"
	// CountPushed counts requests to push endpoints.
	CountPushed = "messages.pushed"
	// CountDeadLettered counts messages forwarded to dead-letter topics.
	CountDeadLettered = "messages.deadlettered"
	// CountPublishedBytes and CountDeliveredBytes are the sizes of published
	// and delivered messages as encoded in protobuf, which is close to what the
	// service bills.
	CountPublishedBytes = "bytes.published"
	CountDeliveredBytes = "bytes.delivered"
)

const (
	streamWorkers = 32
	windowSize    = 4 << 20 // bytes
)

// Server is a running Pub/Sub server. Its methods may be called from any
// goroutine.
type Server struct {
	pubsubpb.UnimplementedPublisherServer
	pubsubpb.UnimplementedSubscriberServer
	pubsubpb.UnimplementedSchemaServiceServer

	options options
	lis     net.Listener
	grpc    *grpc.Server
	owned   *http.Transport // of the HTTP client, when it is the server's own
	counts  map[string]*atomic.Int64
	nextID  atomic.Uint64
	log     *journal // nil without a data directory

	ctx    context.Context // ends with the server
	cancel context.CancelFunc
	tasks  sync.WaitGroup // goroutines beside those of grpc
	closed func() error

	// mu guards the names. Whoever holds it may take a topic's lock, and
	// whoever holds that a queue's, never the other way round.
	mu     sync.RWMutex
	topics map[string]*topic
	subs   map[string]*subscription
}

type options struct {
	addr      string
	grpc      []grpc.ServerOption
	client    *http.Client
	dir       string
	compactAt int64 // as in wal.Options
	onPublish func(topic string, m *pubsubpb.PubsubMessage)
}

// Option changes how New builds a Server.
type Option func(*options)

// WithAddr sets the TCP address to listen on. Without it the server listens on a
// free port of 127.0.0.1.
func WithAddr(addr string) Option {
	return func(o *options) { o.addr = addr }
}

// WithServerOptions adds options of the gRPC server, such as interceptors that
// inject faults (grpc.ChainUnaryInterceptor, grpc.ChainStreamInterceptor). They
// run after the call was counted.
func WithServerOptions(opts ...grpc.ServerOption) Option {
	return func(o *options) { o.grpc = append(o.grpc, opts...) }
}

// WithHTTPClient sets the client that push requests are sent with. Its redirect
// policy and time limits are its owner's business; each request also carries
// the subscription's ack deadline as its own.
func WithHTTPClient(c *http.Client) Option {
	return func(o *options) { o.client = c }
}

// WithDataDir makes the server keep its topics, subscriptions and messages in
// the directory, which is made if need be and belongs to one server at a time.
// A publish is then answered only once its messages are on disk, and a server
// started on the directory of one that was killed goes on where that one was:
// nothing published is lost, and what was not acknowledged is delivered again,
// its attempts counted anew.
// An acknowledgement given in the last moments before a crash may be forgotten,
// as the service allows. Without this option nothing touches the disk.
func WithDataDir(dir string) Option {
	return func(o *options) { o.dir = dir }
}

// WithOnPublish sets a function that sees every message that is published, with
// the full name of its topic, before a subscriber does. It is called under the
// topic's lock: it must be quick, must not call the server, and must not change
// the message.
func WithOnPublish(f func(topic string, m *pubsubpb.PubsubMessage)) Option {
	return func(o *options) { o.onPublish = f }
}

// New starts a server. It is ready for calls at Addr when New returns.
func New(opts ...Option) (*Server, error) {
	s := &Server{
		options: options{addr: "127.0.0.1:0"},
		topics:  map[string]*topic{},
		subs:    map[string]*subscription{},
		counts:  map[string]*atomic.Int64{},
	}
	for _, o := range opts {
		o(&s.options)
	}
	if s.options.client == nil {
		s.owned = &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			MaxIdleConnsPerHost: maxPushWindow,
			IdleConnTimeout:     30 * time.Second,
			ForceAttemptHTTP2:   true,
		}
		s.options.client = &http.Client{
			Transport: s.owned,
			// A redirect is not a success, and is not followed.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	s.closed = sync.OnceValue(s.shutdown)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	// Ids grow from one run to the next, as the clock does: they must not come
	// twice in a topic, and queues rely on their order.
	s.nextID.Store(uint64(time.Now().UnixMicro()))
	for _, key := range []string{
		CountPublished, CountDelivered, CountAcked, CountPushed, CountDeadLettered,
		CountPublishedBytes, CountDeliveredBytes,
	} {
		s.counts[key] = new(atomic.Int64)
	}
	grpcOptions := append([]grpc.ServerOption{
		// One request of the greatest size, with room to say that a greater one
		// is too great in the words of the service.
		grpc.MaxRecvMsgSize(2 * maxRequestBytes),
		grpc.WaitForHandlers(true),
		// Workers keep their grown stacks from call to call. A call without a free worker gets a new goroutine.
		grpc.NumStreamWorkers(streamWorkers),
		// Fixed windows save the pings that measure the bandwidth of a connection.
		grpc.InitialWindowSize(windowSize),
		grpc.InitialConnWindowSize(windowSize),
		// Clients that ping often to keep a quiet stream are welcome.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(s.countUnary),
		grpc.ChainStreamInterceptor(s.countStream),
	}, s.options.grpc...)
	s.grpc = grpc.NewServer(grpcOptions...)
	pubsubpb.RegisterPublisherServer(s.grpc, s)
	pubsubpb.RegisterSubscriberServer(s.grpc, s)
	pubsubpb.RegisterSchemaServiceServer(s.grpc, s)
	for _, info := range s.grpc.GetServiceInfo() {
		for _, m := range info.Methods {
			s.counts[m.Name] = new(atomic.Int64)
		}
	}
	if s.options.dir != "" {
		if err := s.restore(s.options.dir); err != nil {
			s.Close()
			return nil, fmt.Errorf("pubsub: restore %s: %w", s.options.dir, err)
		}
	}
	var err error
	if s.lis, err = net.Listen("tcp", s.options.addr); err != nil {
		s.Close()
		return nil, fmt.Errorf("pubsub: %w", err)
	}
	s.tasks.Go(func() {
		// It returns when Close stops the server; a listener that breaks
		// before shows in the calls that fail.
		_ = s.grpc.Serve(s.lis)
	})
	return s, nil
}

// Addr is the host:port that the server listens on, in the clear unless a server
// option says otherwise.
func (s *Server) Addr() string { return s.lis.Addr().String() }

// Close ends all calls and push requests, and returns when every goroutine of
// the server has ended. It may be called more than once. Its error is that of
// the data directory, if there is one.
func (s *Server) Close() error { return s.closed() }

func (s *Server) shutdown() error {
	s.cancel()
	s.grpc.Stop()
	s.mu.Lock()
	subs := slices.Collect(maps.Values(s.subs))
	s.mu.Unlock()
	for _, sub := range subs {
		sub.queue.close(status.Error(codes.Unavailable, "the server is closing"))
	}
	s.tasks.Wait()
	if s.owned != nil {
		s.owned.CloseIdleConnections()
	}
	if s.log == nil {
		return nil
	}
	return s.log.close()
}

// Counts is how many times each method was called, by its name ("Publish"), and
// how many messages and bytes went through, by the Count constants. A stream
// counts once.
func (s *Server) Counts() map[string]int64 {
	m := make(map[string]int64, len(s.counts))
	for k, n := range s.counts {
		if v := n.Load(); v != 0 {
			m[k] = v
		}
	}
	return m
}

// Backlog is how many messages the subscription of this full name holds that
// are not acknowledged, outstanding ones included. The error is NOT_FOUND.
func (s *Server) Backlog(subscription string) (int, error) {
	sub, err := s.subscription(subscription)
	if err != nil {
		return 0, err
	}
	return sub.queue.len(), nil
}

func (s *Server) count(key string, n int) { s.counts[key].Add(int64(n)) }

func (s *Server) countCall(method string) {
	// Calls of services that are not served here come by too.
	if n := s.counts[path.Base(method)]; n != nil {
		n.Add(1)
	}
}

func (s *Server) countUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
	s.countCall(info.FullMethod)
	return h(ctx, req)
}

func (s *Server) countStream(srv any, st grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
	s.countCall(info.FullMethod)
	return h(srv, st)
}

// invalid is an INVALID_ARGUMENT error.
func invalid(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, format, args...)
}

// unsupported is an UNIMPLEMENTED error that names what is missing.
func unsupported(call, what string) error {
	return status.Errorf(codes.Unimplemented, "%s: %s is not supported", call, what)
}

// statusOf makes a queue's error one of gRPC.
func statusOf(err error) error {
	if errors.Is(err, errClosed) {
		return status.Error(codes.Unavailable, err.Error())
	}
	return err
}
