// Package firestore is an in-process server of the Firestore API, google.firestore.v1.Firestore, for tests and
// development. Start with [New].
//
// Google's client connects to the address in the environment variable FIRESTORE_EMULATOR_HOST:
//
//	srv, err := firestore.New()
//	if err != nil { ... }
//	defer srv.Close()
//	t.Setenv("FIRESTORE_EMULATOR_HOST", srv.Addr())
//	client, err := firestore.NewClient(ctx, "any-project")
//
// Every project and every database exists, and is empty at first. The server follows the documentation of the service in
// Native mode and Standard edition, with these differences:
//
//   - No query needs a configured index, and no query is refused for a missing index.
//   - Transactions are optimistic. Reads take no locks. All reads of a transaction see the state at the first read. The
//     commit is ABORTED if a read document or the result of a query has changed since then. In a conflict the first
//     commit wins. retry_transaction ends the named attempt. A repeated attempt has no precedence over others.
//   - Reads at a read_time reach back an hour, at most 1000 commits, and at most 128 MiB of written documents.
//   - Time-to-live policies are an option of the server, see [WithTTL]. Expired documents are deleted within seconds.
//   - Security rules, access control and backups do not exist.
//   - Write, ExecutePipeline, PartitionQuery, and find_nearest and explain_options in a query are UNIMPLEMENTED.
//
// In this package, read.go, write.go, transaction.go, listen.go and aggregation.go hold the calls of the API, store.go
// makes the commits, document.go holds the states, and ttl.go deletes expired documents. Of this module the package may
// import emulator/wal only.
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
	_ "google.golang.org/grpc/encoding/gzip" // clients may compress their messages
)

// streamWorkers is the number of goroutines kept for calls.
const streamWorkers = 32

// A Server is a Firestore server at a TCP address. Its methods may be called concurrently.
type Server struct {
	listener net.Listener
	grpc     *grpc.Server
	served   chan error
	service  *service
}

// A service implements the methods of the API.
type service struct {
	pb.UnimplementedFirestoreServer // all other methods return UNIMPLEMENTED with the name of the method

	store        *store
	transactions *transactions
	counts       counter
}

type options struct {
	addr      string
	clock     func() time.Time
	dataDir   string
	ttl       []TTLPolicy
	compactAt int64 // as in wal.Options
	unary     []grpc.UnaryServerInterceptor
	streams   []grpc.StreamServerInterceptor
}

// An Option configures a Server.
type Option func(*options)

// WithAddr sets the TCP address of the server, host:port. The default is a free port of 127.0.0.1.
func WithAddr(addr string) Option { return func(o *options) { o.addr = addr } }

// WithClock sets the clock for commit times, read times and the expiry of transactions. The default is time.Now. Several
// goroutines call the function at the same time. Each commit time is at least a microsecond later than the one before,
// even if the clock stops or goes back.
func WithClock(now func() time.Time) Option { return func(o *options) { o.clock = now } }

// WithDataDir keeps the content in a directory. The directory is created if necessary and belongs to one server at a
// time. A commit is answered when all its writes are on disk: after a crash, a server started on the same directory has
// them. After a failed write to the disk, reads still work and every commit is INTERNAL. Without this option nothing
// touches the disk.
func WithDataDir(dir string) Option { return func(o *options) { o.dataDir = dir } }

// WithTTL sets the time-to-live policies, at most one for a collection group. Without this option no document expires.
func WithTTL(policies ...TTLPolicy) Option { return func(o *options) { o.ttl = policies } }

// WithUnaryInterceptor adds interceptors of unary calls, the first outermost, for example for fault injection. An
// interceptor must not change the messages in answers: they share memory with the stored documents. The fields of a
// document in an answer are still encoded, among the unknown fields of the message.
func WithUnaryInterceptor(i ...grpc.UnaryServerInterceptor) Option {
	return func(o *options) { o.unary = append(o.unary, i...) }
}

// WithStreamInterceptor is WithUnaryInterceptor for BatchGetDocuments, RunQuery, RunAggregationQuery and Listen.
func WithStreamInterceptor(i ...grpc.StreamServerInterceptor) Option {
	return func(o *options) { o.streams = append(o.streams, i...) }
}

// New starts a server. The server is ready for calls when New returns. New fails if the address or the directory cannot
// be used, or if a TTL policy is not valid. The caller must Close the server.
func New(opts ...Option) (*Server, error) {
	o := options{addr: "127.0.0.1:0", clock: time.Now}
	for _, opt := range opts {
		opt(&o)
	}
	ttl, err := parseTTLPolicies(o.ttl)
	if err != nil {
		return nil, fmt.Errorf("firestore: %w", err)
	}
	initial := newState(ttl)
	var j *journal
	if o.dataDir != "" {
		if j, initial, err = openJournal(o.dataDir, o.compactAt, ttl); err != nil {
			return nil, fmt.Errorf("firestore: open %s: %w", o.dataDir, err)
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
		// Four times the limit of a request: requests over the limit get the service's own error.
		grpc.MaxRecvMsgSize(4*maxRequestSize),
		grpc.WaitForHandlers(true),
		grpc.ForceServerCodecV2(newCodec()),
		// Workers keep their grown stacks from call to call. A call without a free worker gets a new goroutine.
		grpc.NumStreamWorkers(streamWorkers),
		grpc.ChainUnaryInterceptor(append([]grpc.UnaryServerInterceptor{s.service.countUnary}, o.unary...)...),
		grpc.ChainStreamInterceptor(append([]grpc.StreamServerInterceptor{s.service.countStream}, o.streams...)...),
	)
	pb.RegisterFirestoreServer(s.grpc, s.service)
	go func() { s.served <- s.grpc.Serve(listener) }()
	return s, nil
}

// Addr returns the address of the server, host:port.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Close ends all calls and every goroutine of the server. It returns an error if the data directory failed. It must be
// called once.
func (s *Server) Close() error {
	s.grpc.Stop()
	err := <-s.served
	if errors.Is(err, grpc.ErrServerStopped) {
		err = nil // stopped before Serve began
	}
	if err := errors.Join(err, s.service.store.close()); err != nil {
		return fmt.Errorf("firestore: close: %w", err)
	}
	return nil
}

// Counts returns the counts since the start of the server. Counts.Sub returns the counts of an interval.
func (s *Server) Counts() Counts {
	c := s.service.counts.snapshot()
	c.Deletes += s.service.store.expired.Load() // the service bills them too
	return c
}

func (s *service) countUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	s.counts.addRPC(path.Base(info.FullMethod))
	return handler(ctx, req)
}

func (s *service) countStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	s.counts.addRPC(path.Base(info.FullMethod))
	return handler(srv, stream)
}
