package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	firestoreserver "parley.internal/emulator/firestore"
	pubsubserver "parley.internal/emulator/pubsub"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/topology"
)

// unhurried lets a client send as fast as it can.
var unhurried = []string{"WS_RATE=100000", "WS_BURST=100000", "WS_INBOX=10000", "WS_QUEUE_FRAMES=10000", "LOG_LEVEL=warn"}

// servers describes an embedded Pub/Sub and Firestore in this process with injected faults.
type servers struct {
	publish func() error                                                          // returns the error of Publish; nil for no error
	commit  func(*firestorepb.CommitRequest) error                                // likewise
	push    func(r *http.Request, next http.RoundTripper) (*http.Response, error) // instead of a push
}

// flags starts the servers and returns the emulator's flags for the servers.
func (s servers) flags(t *testing.T) []string {
	t.Helper()
	var pushes http.RoundTripper = &http.Transport{MaxIdleConnsPerHost: 100}
	if s.push != nil {
		next := pushes
		pushes = roundTripper(func(r *http.Request) (*http.Response, error) { return s.push(r, next) })
	}
	ps, err := pubsubserver.New(
		pubsubserver.WithHTTPClient(&http.Client{Transport: pushes}),
		pubsubserver.WithServerOptions(grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if _, ok := req.(*pubsubpb.PublishRequest); ok && s.publish != nil {
				if err := s.publish(); err != nil {
					return nil, err
				}
			}
			return handler(ctx, req)
		})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ps.Close() })
	fs, err := firestoreserver.New(firestoreserver.WithUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if r, ok := req.(*firestorepb.CommitRequest); ok && s.commit != nil {
			if err := s.commit(r); err != nil {
				return nil, err
			}
		}
		return handler(ctx, req)
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fs.Close() })
	return []string{"--pubsub", ps.Addr(), "--firestore", fs.Addr()}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// settles reports whether a commit records a delivered answer.
func settles(r *firestorepb.CommitRequest) bool {
	for _, w := range r.Writes {
		if d := w.GetUpdate(); d != nil && strings.Contains(d.Name, "/deliveries/") && d.Fields["state"].GetStringValue() == string(delivery.Delivered) {
			return true
		}
	}
	return false
}

// inOrder asks n questions without waiting, and expects the answers in the order of the questions.
func inOrder(c *client, n int) {
	c.t.Helper()
	asked := make(chan error, 1)
	go func() { // ends after the last question, or with the connection
		for i := range n {
			var m message
			m.Type, m.Payload.Text, m.Metadata.ID = "chat.message.send", fmt.Sprintf("!ask question %d", i), fmt.Sprint("q", i)
			if err := c.conn.WriteJSON(m); err != nil {
				asked <- err
				return
			}
		}
		asked <- nil
	}()
	for i := range n {
		if m := c.next("chat.message.received"); m.Metadata.ReplyTo != fmt.Sprint("q", i) {
			c.t.Fatalf("answer %d is to %s", i, m.Metadata.ReplyTo)
		}
	}
	if err := <-asked; err != nil {
		c.t.Error(err)
	}
}

func TestAnswersArriveInTheOrderOfTheQuestions(t *testing.T) {
	t.Parallel()
	for _, gateways := range []int{1, 3} {
		t.Run(fmt.Sprint(gateways, " gateways"), func(t *testing.T) {
			t.Parallel()
			p := start(t, unhurried, "--gateways", fmt.Sprint(gateways))
			inOrder(connect(t, p, gateways-1, "api-gateway:eve"), 250)
		})
	}
	t.Run("while deliveries fail and are repeated", func(t *testing.T) {
		t.Parallel()
		var settled, pushed atomic.Int64
		var failed atomic.Int64
		flags := servers{
			// The gateway has already sent the answer: it must neither send again nor let a later answer overtake.
			commit: func(r *firestorepb.CommitRequest) error {
				if settles(r) && settled.Add(1)%10 == 0 {
					failed.Add(1)
					return status.Error(codes.Internal, "the delivery fails")
				}
				return nil
			},
			// fewer faults: each fault delays its key by the subscription's back-off of a second
			push: func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
				resp, err := next.RoundTrip(r)
				if err == nil && pushed.Add(1)%100 == 0 {
					resp.Body.Close()
					return nil, fmt.Errorf("the response to the push is lost")
				}
				return resp, err
			},
		}.flags(t)
		p := start(t, unhurried, append(flags, "--gateways", "3")...)
		c := connect(t, p, 1, "api-gateway:eve")
		inOrder(c, 250)
		c.nothingMore()
		if failed.Load() < 20 {
			t.Errorf("only %d deliveries failed", failed.Load())
		}
	})
}

// oracle starts a model with OpenAI's protocol. ask is called with each question and may block.
func oracle(t *testing.T, ask func(ctx context.Context, question string)) (environ []string) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Messages []struct{ Role, Content string } `json:"messages"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || len(body.Messages) == 0 {
			http.Error(w, "no messages", http.StatusBadRequest)
			return
		}
		question := body.Messages[len(body.Messages)-1].Content
		ask(r.Context(), question)
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{
			"id": "1", "object": "chat.completion", "model": "oracle",
			"choices": []any{map[string]any{"index": 0, "finish_reason": "stop", "message": map[string]any{"role": "assistant", "content": "answer to " + question}}},
		})
	}))
	t.Cleanup(srv.Close)
	return []string{"MODEL_PROVIDER=openai", "MODEL_NAME=oracle", "MODEL_BASE_URL=" + srv.URL, "MODEL_TIMEOUT=60s"}
}

func TestSlowAnswerDelaysNoOtherUser(t *testing.T) {
	t.Parallel()
	stuck, release := make(chan struct{}, 10), make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	defer free()
	p := start(t, append(oracle(t, func(ctx context.Context, question string) {
		if strings.Contains(question, "hard") {
			stuck <- struct{}{}
			select {
			case <-release:
			case <-ctx.Done():
			}
		}
	}), unhurried...))
	slow, quick := connect(t, p, 0, "api-gateway:eve"), connect(t, p, 0, "api-gateway:frank")
	// Pub/Sub begins with few concurrent pushes and adds more after successes. Until then, users wait for each other
	// (https://cloud.google.com/pubsub/docs/push#push_backoff).
	for i := range 3 {
		quick.say(fmt.Sprint("first", i), "!ask something", "lobby")
		quick.next("chat.message.received")
	}
	slow.say("hard", "!ask something hard", "lobby")
	<-stuck
	slow.say("easy", "!ask something easy", "lobby")
	for i := range 50 {
		id := fmt.Sprint("q", i)
		quick.say(id, "!ask something", "lobby")
		if m := quick.next("chat.message.received"); m.Metadata.ReplyTo != id {
			t.Fatalf("got %+v", m)
		}
	}
	free()
	for _, id := range []string{"hard", "easy"} {
		if m := slow.next("chat.message.received"); m.Metadata.ReplyTo != id {
			t.Errorf("got %+v; want the answer to %s", m, id)
		}
	}
}

func TestOrderingKeysRecoverFromFailedPublishes(t *testing.T) {
	t.Parallel()
	for _, code := range []codes.Code{codes.Unavailable, codes.DeadlineExceeded, codes.Internal} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			var failing atomic.Bool
			var failed atomic.Int64
			p := start(t, unhurried, servers{publish: func() error {
				if failing.Load() {
					failed.Add(1)
					return status.Error(code, "publishing fails for a while")
				}
				return nil
			}}.flags(t)...)
			var users []*client
			for _, id := range []string{"api-gateway:eve", "api-gateway:frank", "twitch:1001"} {
				users = append(users, connect(t, p, 0, id))
			}
			failing.Store(true)
			for i := range 20 {
				for _, c := range users {
					c.say(fmt.Sprint("q", i), "!ask something", "")
				}
			}
			until(t, "publishing to fail for every key", func() bool { return failed.Load() >= 9 })
			failing.Store(false)
			for i := range 20 {
				for _, c := range users {
					if m := c.next("chat.message.received"); m.Metadata.ReplyTo != fmt.Sprint("q", i) {
						t.Fatalf("got %+v; want the answer to q%d", m, i)
					}
				}
			}
		})
	}
}

// storedDeadLetters reads all dead letters with their data.
func storedDeadLetters(t *testing.T, db *firestore.Client) (all []deadletter.DeadLetter) {
	t.Helper()
	letters := deadletter.NewStore(db, time.Now)
	err := letters.List(t.Context(), deadletter.Filter{}, func(l deadletter.DeadLetter) error {
		whole, err := letters.Get(t.Context(), l.ID)
		all = append(all, whole)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// connections reads the number of a gateway's connections from its metrics.
func connections(t *testing.T, p *parley) string {
	t.Helper()
	resp, err := http.Get(p.Gateways[0].HTTP + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		if n, ok := strings.CutPrefix(line, "parley_gateway_connections "); ok {
			return strings.TrimSpace(n)
		}
	}
	t.Fatalf("no count of connections in:\n%s", body)
	return ""
}

// askAndLeave asks a question; the answer is made after the user disconnected.
func askAndLeave(t *testing.T, environ []string) *parley {
	t.Helper()
	thinking, release := make(chan struct{}, 10), make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	t.Cleanup(free)
	p := start(t, append(oracle(t, func(ctx context.Context, _ string) {
		thinking <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
		}
	}), environ...), "--sweep", "200ms")
	c := connect(t, p, 0, "api-gateway:eve")
	c.say("q1", "!ask something", "")
	<-thinking
	c.conn.Close()
	until(t, "the gateway to notice the disconnect", func() bool { return connections(t, p) == "0" })
	free()
	return p
}

func TestAnswerToADisconnectedUserBecomesOneDeadLetter(t *testing.T) {
	t.Parallel()
	p := askAndLeave(t, []string{"EGRESS_DEADLINE=3s", "SWEEP_GRACE=1s"})
	db := firestoreClient(t, p)
	until(t, "the dead letter", func() bool { return len(storedDeadLetters(t, db)) > 0 })
	c := connect(t, p, 0, "api-gateway:eve")
	c.nothingMore() // several sweeps have passed
	all := storedDeadLetters(t, db)
	if len(all) != 1 || all[0].Reason != deadletter.NoConnection || !all[0].Delivery || all[0].Attempts != 1 {
		t.Errorf("dead letters %+v; want one, of no_connection", all)
	}
}

func TestUserWhoReconnectsBeforeTheDeadlineGetsTheAnswer(t *testing.T) {
	t.Parallel()
	p := askAndLeave(t, []string{"EGRESS_DEADLINE=60s"})
	db := firestoreClient(t, p)
	until(t, "the answer to be made", func() bool { return len(deliveries(t, db, "api-gateway:eve")) == 1 })
	c := connect(t, p, 0, "api-gateway:eve")
	if m := c.next("chat.message.received"); m.Metadata.ReplyTo != "q1" {
		t.Errorf("got %+v", m)
	}
	c.nothingMore()
	until(t, "the delivery to be recorded", func() bool {
		return deliveries(t, db, "api-gateway:eve")[0].State == delivery.Delivered
	})
	if all := storedDeadLetters(t, db); len(all) != 0 {
		t.Errorf("dead letters %+v; want none", all)
	}
}

func TestPoisonMessageBecomesADeadLetter(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	pushes := map[string]int{} // of the ingress topic, by message id
	p := start(t, unhurried, servers{push: func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		if strings.HasSuffix(r.URL.Path, "/enrichment") {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return nil, err
			}
			var push struct {
				Message struct {
					MessageID string `json:"messageId"`
				} `json:"message"`
			}
			if err := json.Unmarshal(body, &push); err != nil {
				return nil, err
			}
			mu.Lock()
			pushes[push.Message.MessageID]++
			mu.Unlock()
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		return next.RoundTrip(r)
	}}.flags(t)...)
	poison := map[string][]byte{
		"not JSON":      []byte("hello?"),
		"long":          bytes.Repeat([]byte("x"), 9_900_000),
		"invalid UTF-8": []byte("{\"v\":\"2\",\"type\":\"\xff\xfe\"}"),
		"no v":          []byte(`{"source":"s","correlationId":"c","type":"t"}`),
		"deep":          []byte(`{"v":"2","source":"s","correlationId":"c","type":"t","payload":` + strings.Repeat("[", 50_000) + strings.Repeat("]", 50_000) + "}"),
	}
	publisher := pubsubClient(t, p).Publisher(topology.Prefix{}.Topic(p.Project, topology.Ingress).String())
	publisher.EnableMessageOrdering = true
	defer publisher.Stop()
	c := connect(t, p, 0, "api-gateway:eve")
	for what, data := range poison { // under the key of a user who asks afterwards
		if _, err := publisher.Publish(t.Context(), &pubsub.Message{Data: data, OrderingKey: "|api-gateway:eve"}).Get(t.Context()); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	c.say("q1", "!ask something", "")
	if m := c.next("chat.message.received"); m.Metadata.ReplyTo != "q1" {
		t.Errorf("got %+v", m)
	}
	db := firestoreClient(t, p)
	until(t, "every dead letter", func() bool { return len(storedDeadLetters(t, db)) >= len(poison) })
	c.nothingMore()
	all := storedDeadLetters(t, db)
	if len(all) != len(poison) {
		t.Errorf("%d dead letters; want %d", len(all), len(poison))
	}
	for what, data := range poison {
		found := 0
		for _, l := range all {
			if bytes.Equal(l.Data, data) && l.Reason == deadletter.InvalidEvent && l.Attempts == 1 {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%s: %d dead letters with its bytes; want 1", what, found)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for id, n := range pushes {
		if n != 1 {
			t.Errorf("message %s was pushed %d times", id, n)
		}
	}
}

func TestRepeatedDeliveryAsksTheModelOnce(t *testing.T) {
	t.Parallel()
	for name, together := range map[string]bool{"one after the other": false, "at the same time": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked, delivered atomic.Int64
			environ := oracle(t, func(context.Context, string) { asked.Add(1) })
			p := start(t, append(environ, unhurried...), servers{push: func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
				if !strings.HasSuffix(r.URL.Path, "/personality") {
					return next.RoundTrip(r)
				}
				body, err := io.ReadAll(r.Body)
				if err != nil {
					return nil, err
				}
				again := func() (*http.Response, error) {
					delivered.Add(1)
					other := r.Clone(r.Context())
					other.Body = io.NopCloser(bytes.NewReader(body))
					return next.RoundTrip(other)
				}
				var all sync.WaitGroup
				defer all.Wait()
				for range 4 {
					repeat := func() {
						if resp, err := again(); err != nil {
							t.Errorf("a repeated delivery: %v", err)
						} else {
							resp.Body.Close()
						}
					}
					if together {
						all.Go(repeat)
					} else {
						repeat()
					}
				}
				return again()
			}}.flags(t)...)
			c := connect(t, p, 0, "api-gateway:eve")
			c.say("q1", "!ask something", "")
			if m := c.next("chat.message.received"); m.Payload.Text == "" || m.Metadata.ReplyTo != "q1" {
				t.Errorf("got %+v", m)
			}
			until(t, "five deliveries", func() bool { return delivered.Load() == 5 })
			c.say("help", "!help", "")
			c.next("chat.message.received")
			if asked.Load() != 1 {
				t.Errorf("the model was called %d times for one event", asked.Load())
			}
		})
	}
}
