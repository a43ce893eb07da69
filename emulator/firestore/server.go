// Package firestore is an in-process server of the Firestore API,
// google.firestore.v1.Firestore, for tests and development.
//
// A program talks to it through the ordinary client, which finds it by the
// environment variable FIRESTORE_EMULATOR_HOST:
//
//	srv, err := firestore.New()
//	if err != nil { ... }
//	defer srv.Close()
//	t.Setenv("FIRESTORE_EMULATOR_HOST", srv.Addr())
//	client, err := firestore.NewClient(ctx, "any-project")
//
// Any project and any database exist, and are empty at first. What the server
// does is meant to be what the documentation says that the service does, in
// Native mode and Standard edition. It differs in these points:
//
//   - No query needs an index to be configured, and none is refused for want
//     of one.
//   - Transactions are optimistic. Reads take no locks: all reads of a
//     transaction see the state at its first read, and its commit answers
//     ABORTED where a document or the result of a query that it read has
//     changed since. Of transactions in conflict the first to commit wins.
//     retry_transaction ends the attempt that it names; an attempt that is
//     repeated has no precedence over others.
//   - Reads at a read_time reach back an hour, but no further than 1000
//     commits and 128 MiB of written documents.
//   - Security rules, access control, time-to-live and backups do not exist.
//   - Write, ExecutePipeline, PartitionQuery, and find_nearest and
//     explain_options in a query answer UNIMPLEMENTED.
package firestore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path"
	"time"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/grpc"
)

const (
	streamWorkers = 32
	windowSize    = 4 << 20 // bytes
)

// A Server is a Firestore service at a TCP address. Its methods may be called
// concurrently.
type Server struct {
	listener net.Listener
	grpc     *grpc.Server
	served   chan error
	service  *service
}

// A service has the methods of the API.
type service struct {
	pb.UnimplementedFirestoreServer // what is not here answers UNIMPLEMENTED and names the call

	store        *store
	transactions *transactions
	counts       counter
}

type options struct {
	addr      string
	clock     func() time.Time
	dir       string
	compactAt int64 // as in wal.Options
	unary     []grpc.UnaryServerInterceptor
	streams   []grpc.StreamServerInterceptor
}

// An Option changes what New makes.
type Option func(*options)

// WithAddr sets the address to listen at, host:port. The default is
// 127.0.0.1:0, a free port of the loopback interface.
func WithAddr(addr string) Option { return func(o *options) { o.addr = addr } }

// WithClock sets the clock of commit times, read times and the expiry of
// transactions. The default is time.Now. Commit times increase by at least a
// microsecond each even where the clock stands still or goes back.
func WithClock(now func() time.Time) Option { return func(o *options) { o.clock = now } }

// WithDir keeps the content in a directory, which is made where it does not
// exist. A commit is answered once it is on disk: all of it is there after the
// process was killed and a server was started on the same directory again. One
// directory belongs to one server at a time. After a write to the disk failed,
// reads go on and every further commit answers INTERNAL. Without this option
// nothing touches the disk.
func WithDir(dir string) Option { return func(o *options) { o.dir = dir } }

// WithUnaryInterceptor adds interceptors of unary calls, the first outermost,
// to inject faults for instance. They must not change the messages that they
// see in answers, which share memory with what is stored.
func WithUnaryInterceptor(i ...grpc.UnaryServerInterceptor) Option {
	return func(o *options) { o.unary = append(o.unary, i...) }
}

// WithStreamInterceptor is WithUnaryInterceptor for BatchGetDocuments,
// RunQuery, RunAggregationQuery and Listen.
func WithStreamInterceptor(i ...grpc.StreamServerInterceptor) Option {
	return func(o *options) { o.streams = append(o.streams, i...) }
}

// New starts a server, which is ready for calls when New returns. It fails
// where the address or the directory cannot be used. The caller must Close it.
func New(opts ...Option) (*Server, error) {
	o := options{addr: "127.0.0.1:0", clock: time.Now}
	for _, opt := range opts {
		opt(&o)
	}
	initial := newState()
	var j *journal
	if o.dir != "" {
		var err error
		if j, initial, err = openJournal(o.dir, o.compactAt); err != nil {
			return nil, fmt.Errorf("firestore: open %s: %w", o.dir, err)
		}
	}
	listener, err := net.Listen("tcp", o.addr)
	if err != nil {
		if j != nil {
			err = errors.Join(err, j.close())
		}
		return nil, fmt.Errorf("firestore: %w", err)
	}
	s := &Server{
		listener: listener,
		served:   make(chan error, 1),
		service: &service{
			store:        newStore(o.clock, initial, j),
			transactions: newTransactions(o.clock),
		},
	}
	s.grpc = grpc.NewServer(
		// A request above the service's limit is refused by the limit's own
		// check, with its code, so gRPC has to let it through.
		grpc.MaxRecvMsgSize(4*maxRequestSize),
		grpc.WaitForHandlers(true),
		grpc.ForceServerCodecV2(newCodec()),
		// Workers keep their grown stacks from call to call. A call without a free worker gets a new goroutine.
		grpc.NumStreamWorkers(streamWorkers),
		// Fixed windows save the pings that measure the bandwidth of a connection.
		grpc.InitialWindowSize(windowSize),
		grpc.InitialConnWindowSize(windowSize),
		grpc.ChainUnaryInterceptor(append([]grpc.UnaryServerInterceptor{s.service.countUnary}, o.unary...)...),
		grpc.ChainStreamInterceptor(append([]grpc.StreamServerInterceptor{s.service.countStream}, o.streams...)...),
	)
	pb.RegisterFirestoreServer(s.grpc, s.service)
	go func() { s.served <- s.grpc.Serve(listener) }()
	return s, nil
}

// Addr returns the address that the server listens at, host:port.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Close ends all calls and every goroutine of the server. It returns an error
// where the directory could not be left in order. It is to be called once.
func (s *Server) Close() error {
	s.grpc.Stop()
	err := <-s.served
	if errors.Is(err, grpc.ErrServerStopped) {
		err = nil // stopped before it began to serve
	}
	if err := errors.Join(err, s.service.store.close()); err != nil {
		return fmt.Errorf("firestore: close: %w", err)
	}
	return nil
}

// Counts returns what was counted since the start of the server. The counts
// of a part of its life are the difference of two, by Counts.Sub.
func (s *Server) Counts() Counts { return s.service.counts.snapshot() }

func (s *service) countUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	s.counts.addRPC(path.Base(info.FullMethod))
	return handler(ctx, req)
}

func (s *service) countStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	s.counts.addRPC(path.Base(info.FullMethod))
	return handler(srv, stream)
}
