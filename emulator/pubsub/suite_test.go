package pubsub_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"parley.internal/emulator/google"
	"parley.internal/emulator/pubsub"
)

// bus is a server under test.
type bus struct {
	pubsubpb.PublisherClient
	pubsubpb.SubscriberClient
	conn    *grpc.ClientConn
	google  bool
	project string
}

var names atomic.Int64

// name returns an unused name. kind is "topics" or "subscriptions".
func (b *bus) name(kind string) string {
	return fmt.Sprintf("projects/%s/%s/%s-%d", b.project, kind, kind[:1]+"name", names.Add(1))
}

// theirs is Google's emulator. The first test that needs the emulator starts it.
var theirs struct {
	once    sync.Once
	process *google.Process
	err     error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if theirs.process != nil {
		theirs.process.Stop()
	}
	os.Exit(code)
}

func googleAddr(t testing.TB) string {
	t.Helper()
	theirs.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		theirs.process, theirs.err = google.StartPubSub(ctx)
	})
	if errors.Is(theirs.err, google.ErrNotInstalled) {
		t.Skipf("not run against Google's emulator: %v", theirs.err)
	}
	if theirs.err != nil {
		t.Fatal(theirs.err)
	}
	return theirs.process.Addr()
}

func dial(t testing.TB, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20), grpc.MaxCallSendMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func newBus(t testing.TB, addr string, isGoogle bool) *bus {
	conn := dial(t, addr)
	return &bus{
		PublisherClient:  pubsubpb.NewPublisherClient(conn),
		SubscriberClient: pubsubpb.NewSubscriberClient(conn),
		conn:             conn,
		google:           isGoogle,
		project:          fmt.Sprintf("project-%d", names.Add(1)),
	}
}

func start(t testing.TB, opts ...pubsub.Option) *pubsub.Server {
	t.Helper()
	srv, err := pubsub.New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return srv
}

// onBoth runs a test in parallel against our server and against Google's emulator. Tests in differences run against ours
// only.
func onBoth(t *testing.T, test func(t *testing.T, b *bus)) {
	t.Parallel()
	t.Run("ours", func(t *testing.T) {
		t.Parallel()
		test(t, newBus(t, start(t).Addr(), false))
	})
	t.Run("google", func(t *testing.T) {
		t.Parallel()
		if d, ok := differences[strings.TrimSuffix(t.Name(), "/google")]; ok {
			t.Skipf("Google's emulator differs: %s; ours follows %s", d.theirs, d.source)
		}
		test(t, newBus(t, googleAddr(t), true))
	})
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func (b *bus) topic(t testing.TB) string {
	t.Helper()
	name := b.name("topics")
	if _, err := b.CreateTopic(testContext(t), &pubsubpb.Topic{Name: name}); err != nil {
		t.Fatalf("create topic: %v", err)
	}
	return name
}

// subscribe creates a subscription of the topic, changed by the given functions.
func (b *bus) subscribe(t testing.TB, topic string, with ...func(*pubsubpb.Subscription)) string {
	t.Helper()
	sub := &pubsubpb.Subscription{Name: b.name("subscriptions"), Topic: topic}
	for _, f := range with {
		f(sub)
	}
	if _, err := b.CreateSubscription(testContext(t), sub); err != nil {
		t.Fatalf("create subscription: %v", err)
	}
	return sub.Name
}

func ordered(s *pubsubpb.Subscription) { s.EnableMessageOrdering = true }

func filtered(filter string) func(*pubsubpb.Subscription) {
	return func(s *pubsubpb.Subscription) { s.Filter = filter }
}

func pushTo(url string) func(*pubsubpb.Subscription) {
	return func(s *pubsubpb.Subscription) { s.PushConfig = &pubsubpb.PushConfig{PushEndpoint: url} }
}

func deadLetter(topic string) func(*pubsubpb.Subscription) {
	return func(s *pubsubpb.Subscription) {
		s.DeadLetterPolicy = &pubsubpb.DeadLetterPolicy{DeadLetterTopic: topic, MaxDeliveryAttempts: 5}
	}
}

func text(data string) *pubsubpb.PubsubMessage {
	return &pubsubpb.PubsubMessage{Data: []byte(data)}
}

func keyed(key, data string) *pubsubpb.PubsubMessage {
	return &pubsubpb.PubsubMessage{Data: []byte(data), OrderingKey: key}
}

func (b *bus) publish(t testing.TB, topic string, ms ...*pubsubpb.PubsubMessage) []string {
	t.Helper()
	res, err := b.Publish(testContext(t), &pubsubpb.PublishRequest{Topic: topic, Messages: ms})
	if err != nil {
		t.Fatalf("publish: %v", err)
	}
	return res.MessageIds
}

// pull pulls n messages and leaves them outstanding.
func (b *bus) pull(t testing.TB, sub string, n int) []*pubsubpb.ReceivedMessage {
	t.Helper()
	var got []*pubsubpb.ReceivedMessage
	ctx := testContext(t)
	for len(got) < n {
		res, err := b.Pull(ctx, &pubsubpb.PullRequest{Subscription: sub, MaxMessages: int32(n - len(got))})
		if err != nil {
			t.Fatalf("pull, with %d of %d messages: %v", len(got), n, err)
		}
		got = append(got, res.ReceivedMessages...)
	}
	return got
}

func (b *bus) ack(t testing.TB, sub string, ms ...*pubsubpb.ReceivedMessage) {
	t.Helper()
	if _, err := b.Acknowledge(testContext(t), &pubsubpb.AcknowledgeRequest{Subscription: sub, AckIds: ackIDs(ms)}); err != nil {
		t.Fatalf("acknowledge: %v", err)
	}
}

func (b *bus) nack(t testing.TB, sub string, ms ...*pubsubpb.ReceivedMessage) {
	t.Helper()
	if _, err := b.ModifyAckDeadline(testContext(t), &pubsubpb.ModifyAckDeadlineRequest{Subscription: sub, AckIds: ackIDs(ms)}); err != nil {
		t.Fatalf("nack: %v", err)
	}
}

func ackIDs(ms []*pubsubpb.ReceivedMessage) []string {
	ids := make([]string, len(ms))
	for i, m := range ms {
		ids[i] = m.AckId
	}
	return ids
}

func datas(ms []*pubsubpb.ReceivedMessage) []string {
	ds := make([]string, len(ms))
	for i, m := range ms {
		ds[i] = string(m.Message.Data)
	}
	return ds
}

// puller is an open StreamingPull.
type puller struct {
	pubsubpb.Subscriber_StreamingPullClient
	t       testing.TB
	pending []*pubsubpb.ReceivedMessage
}

func (b *bus) stream(t testing.TB, sub string, with ...func(*pubsubpb.StreamingPullRequest)) *puller {
	t.Helper()
	st, err := b.StreamingPull(testContext(t))
	if err != nil {
		t.Fatalf("streaming pull: %v", err)
	}
	req := &pubsubpb.StreamingPullRequest{Subscription: sub, StreamAckDeadlineSeconds: 60, ClientId: sub}
	for _, f := range with {
		f(req)
	}
	if err := st.Send(req); err != nil {
		t.Fatalf("streaming pull: %v", err)
	}
	return &puller{Subscriber_StreamingPullClient: st, t: t}
}

// next waits for the next n messages of the stream.
func (p *puller) next(n int) []*pubsubpb.ReceivedMessage {
	p.t.Helper()
	for len(p.pending) < n {
		res, err := p.Recv()
		if err != nil {
			p.t.Fatalf("streaming pull, with %d of %d messages: %v", len(p.pending), n, err)
		}
		p.pending = append(p.pending, res.ReceivedMessages...)
	}
	got := p.pending[:n:n]
	p.pending = p.pending[n:]
	return got
}

func (p *puller) ack(ms ...*pubsubpb.ReceivedMessage) {
	p.t.Helper()
	if err := p.Send(&pubsubpb.StreamingPullRequest{AckIds: ackIDs(ms)}); err != nil {
		p.t.Fatalf("acknowledge on the stream: %v", err)
	}
}

func (p *puller) nack(ms ...*pubsubpb.ReceivedMessage) {
	p.t.Helper()
	err := p.Send(&pubsubpb.StreamingPullRequest{ModifyDeadlineAckIds: ackIDs(ms), ModifyDeadlineSeconds: make([]int32, len(ms))})
	if err != nil {
		p.t.Fatalf("nack on the stream: %v", err)
	}
}

func wantCode(t testing.TB, what string, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// pushed is a push request received by an endpoint.
type pushed struct {
	header http.Header
	raw    []byte
	body   struct {
		Message struct {
			Attributes  map[string]string
			Data        []byte
			MessageID   string `json:"messageId"`
			MessageID2  string `json:"message_id"`
			PublishTime time.Time
			Time2       time.Time `json:"publish_time"`
			OrderingKey string
		}
		Subscription    string
		DeliveryAttempt int
	}
	answer chan int // receives the HTTP status of the answer from the test
}

// endpoint starts a push endpoint. It sends each request to requests, and answers when the test sends a status.
func endpoint(t testing.TB) (url string, requests <-chan *pushed) {
	t.Helper()
	ch := make(chan *pushed)
	over := make(chan struct{}) // ends all requests with the test
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := &pushed{header: r.Header, answer: make(chan int, 1)}
		var err error
		p.raw, err = io.ReadAll(r.Body)
		select {
		case <-over: // the test has ended
			return
		default:
		}
		if err == nil {
			err = json.Unmarshal(p.raw, &p.body)
		}
		if err != nil {
			t.Errorf("push request: %v in %s", err, p.raw)
		}
		select {
		case ch <- p:
		case <-r.Context().Done():
			return
		case <-over:
			return
		}
		select {
		case code := <-p.answer:
			w.WriteHeader(code)
		case <-r.Context().Done():
		case <-over:
		}
	}))
	t.Cleanup(func() {
		close(over)
		srv.CloseClientConnections()
		srv.Close()
	})
	return srv.URL, ch
}

func nextPush(t testing.TB, requests <-chan *pushed) *pushed {
	t.Helper()
	select {
	case p := <-requests:
		return p
	case <-testContext(t).Done():
		t.Fatal("no push request came")
		return nil
	}
}
