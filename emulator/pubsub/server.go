// Package pubsub is an in-process Pub/Sub server for tests and for development on one machine. It serves the Publisher
// and the Subscriber of google.pubsub.v1: https://cloud.google.com/pubsub/docs/reference/rpc. Start with [New].
//
// The server follows the service's documentation, with the documented limits, errors and timing: filters, ordering
// keys, leases, retry policies, dead-letter policies, push with backoff, and expiration.
//
// Unsupported calls and fields are UNIMPLEMENTED, and the error contains the name of the call or field. Unsupported are
// DetachSubscription, snapshots, schemas, retention of acknowledged messages, message transforms, exports to other
// products, push without a wrapper, and IAM. An oidc_token in a push configuration is stored and returned, but push
// requests carry no token.
//
// A stream may hold any number of messages of one ordering key, in the order of publication. A pull may hold one batch,
// and a push endpoint one message. The key stays with the consumer until the consumer holds no more messages of the key.
// See https://cloud.google.com/pubsub/docs/ordering.
//
// In this package, subscription.go and topic.go hold the resources, queue.go the backlog of a subscription, stream.go
// and push.go the delivery, and journal.go the data directory. Of this module the package may import emulator/wal only.
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
	_ "google.golang.org/grpc/encoding/gzip" // clients may compress their messages
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// Keys of Counts other than the names of methods.
const (
	// CountPublished counts messages accepted by Publish or forwarded to dead-letter topics.
	CountPublished = "messages.published"
	// CountDelivered counts deliveries of one message to one subscriber, including pushes and redeliveries.
	CountDelivered = "messages.delivered"
	// CountAcked counts accepted acknowledgements, including late ones and successful pushes.
	CountAcked = "messages.acked"
	// CountPushed counts requests to push endpoints.
	CountPushed = "messages.pushed"
	// CountDeadLettered counts messages forwarded to dead-letter topics.
	CountDeadLettered = "messages.deadlettered"
	// CountPublishedBytes and CountDeliveredBytes are the sizes of published and delivered messages in protobuf
	// encoding, close to the service's billed sizes.
	CountPublishedBytes = "bytes.published"
	CountDeliveredBytes = "bytes.delivered"
)

// streamWorkers is the number of goroutines kept for calls.
const streamWorkers = 32

// Server is a running Pub/Sub server. Its methods may be called concurrently.
type Server struct {
	pubsubpb.UnimplementedPublisherServer
	pubsubpb.UnimplementedSubscriberServer
	pubsubpb.UnimplementedSchemaServiceServer

	options options
	lis     net.Listener
	grpc    *grpc.Server
	owned   *http.Transport // of the default push client; nil with WithHTTPClient
	counts  map[string]*atomic.Int64
	nextID  atomic.Uint64
	log     *journal // nil without a data directory

	ctx    context.Context // ends with the server
	cancel context.CancelFunc
	tasks  sync.WaitGroup // goroutines beside those of grpc
	closed func() error

	// mu guards topics and subs. The lock order is mu, then a topic's lock, a subscription's lock, and a queue's lock.
	mu     sync.RWMutex
	topics map[string]*topic
	subs   map[string]*subscription
}

type options struct {
	addr      string
	grpc      []grpc.ServerOption
	client    *http.Client
	dataDir   string
	compactAt int64 // as in wal.Options
	onPublish func(topic string, m *pubsubpb.PubsubMessage)
}

// Option changes how New builds a Server.
type Option func(*options)

// WithAddr sets the TCP address of the server, host:port. The default is a free port of 127.0.0.1.
func WithAddr(addr string) Option {
	return func(o *options) { o.addr = addr }
}

// WithServerOptions adds options of the gRPC server, for example interceptors for fault injection
// (grpc.ChainUnaryInterceptor, grpc.ChainStreamInterceptor). Interceptors run after the call was counted.
func WithServerOptions(opts ...grpc.ServerOption) Option {
	return func(o *options) { o.grpc = append(o.grpc, opts...) }
}

// WithHTTPClient sets the client for push requests. The client's redirect policy and timeouts apply, and the ack deadline
// of the subscription limits each request as well. The default client, also for nil, follows no redirects.
func WithHTTPClient(c *http.Client) Option {
	return func(o *options) { o.client = c }
}

// WithDataDir keeps topics, subscriptions and messages in a directory. The directory is created if necessary and belongs
// to one server at a time. Publish answers when the messages are on disk. Changes of topics and subscriptions answer when
// the change is on disk.
//
// After a crash, a server started on the same directory continues with the same topics and subscriptions, and has every
// message of an answered Publish. Unacknowledged messages are delivered again, with their delivery attempts counted from
// zero. Acknowledgements of the last 50 ms before the crash may be lost: the service allows redelivery. Without this
// option nothing touches the disk.
func WithDataDir(dir string) Option {
	return func(o *options) { o.dataDir = dir }
}

// WithOnPublish sets a function called with the full topic name and each published message, before the delivery. Messages
// forwarded to a dead-letter topic count as published. The call holds the topic's lock: f must be quick, must not call
// the server, and must not change the message. Calls for different topics may be concurrent.
func WithOnPublish(f func(topic string, m *pubsubpb.PubsubMessage)) Option {
	return func(o *options) { o.onPublish = f }
}

// New starts a server. The server is ready for calls at Addr when New returns. New fails if the address or the data
// directory cannot be used. The caller must Close the server.
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
			// Do not follow redirects: for the service a redirect is a failed delivery.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	s.closed = sync.OnceValue(s.shutdown)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	// The first id is the time in microseconds, so ids ascend from run to run. Ids must be unique, and queues rely on
	// their order.
	s.nextID.Store(uint64(time.Now().UnixMicro()))
	for _, key := range []string{
		CountPublished, CountDelivered, CountAcked, CountPushed, CountDeadLettered,
		CountPublishedBytes, CountDeliveredBytes,
	} {
		s.counts[key] = new(atomic.Int64)
	}
	grpcOptions := append([]grpc.ServerOption{
		// Twice the limit of a request: requests over the limit get the service's own error.
		grpc.MaxRecvMsgSize(2 * maxRequestBytes),
		grpc.WaitForHandlers(true),
		// Workers keep their grown stacks from call to call. A call without a free worker gets a new goroutine.
		grpc.NumStreamWorkers(streamWorkers),
		// Clients may ping often to keep quiet streams open.
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
	if s.options.dataDir != "" {
		if err := s.restore(s.options.dataDir); err != nil {
			s.Close()
			return nil, fmt.Errorf("pubsub: restore %s: %w", s.options.dataDir, err)
		}
	}
	var err error
	if s.lis, err = net.Listen("tcp", s.options.addr); err != nil {
		s.Close()
		return nil, fmt.Errorf("pubsub: %w", err)
	}
	s.tasks.Go(func() {
		// Serve returns when Close stops the server. A listener that breaks earlier shows in failing calls.
		_ = s.grpc.Serve(s.lis)
	})
	return s, nil
}

// Addr is the host:port of the server, without TLS unless a server option adds it.
func (s *Server) Addr() string { return s.lis.Addr().String() }

// Close ends all calls and push requests, and returns when every goroutine of the server has ended. It may be called
// more than once. It returns an error if the data directory failed.
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

// Counts returns the number of calls by method name ("Publish"), and the numbers of messages and bytes by the Count
// constants. A stream is one call. Zero counts are left out.
func (s *Server) Counts() map[string]int64 {
	m := make(map[string]int64, len(s.counts))
	for k, n := range s.counts {
		if v := n.Load(); v != 0 {
			m[k] = v
		}
	}
	return m
}

// Backlog returns the number of unacknowledged messages of a subscription, including outstanding messages. subscription
// is the full name. The error is NOT_FOUND, or INVALID_ARGUMENT for a malformed name.
func (s *Server) Backlog(subscription string) (int, error) {
	sub, err := s.subscription(subscription)
	if err != nil {
		return 0, err
	}
	return sub.queue.len(), nil
}

func (s *Server) count(key string, n int) { s.counts[key].Add(int64(n)) }

func (s *Server) countCall(method string) {
	// A call of an unknown service has no count.
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

// invalid returns an INVALID_ARGUMENT error.
func invalid(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, format, args...)
}

// unsupported returns an UNIMPLEMENTED error with the name of the missing feature.
func unsupported(call, what string) error {
	return status.Errorf(codes.Unimplemented, "%s: %s is not supported", call, what)
}

// statusOf converts an error of a queue to a gRPC status.
func statusOf(err error) error {
	if errors.Is(err, errClosed) {
		return status.Error(codes.Unavailable, err.Error())
	}
	return err
}
