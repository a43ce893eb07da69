package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/gorilla/websocket"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"

	"parley.internal/emulator/emulatortest"
	"parley.internal/emulator/google"
	"parley.internal/emulator/stack"
	"parley.internal/shared/answer"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/store"
	"parley.internal/shared/topology"
)

// runCommand is the environment variable that turns the test binary into the emulator command.
const runCommand = "PARLEY_E2E_RUN_COMMAND"

// binary is the executable of the emulator command: the test binary itself. The processes under test need no build of
// their own, and have the race detector if the tests have it. The environment comes from [commandEnviron].
var binary string

// commandEnviron returns the environment of a process that runs the emulator command.
func commandEnviron() []string {
	return append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.Contains(v, "_EMULATOR_HOST=") }), runCommand+"=1")
}

// commandProcess prepares a process that runs the emulator command.
func commandProcess(args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Env = commandEnviron()
	return cmd
}

func TestMain(m *testing.M) {
	if os.Getenv(runCommand) != "" {
		main()
		return
	}
	var err error
	if binary, err = os.Executable(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	emulatortest.Main(m)
}

// patience bounds every wait in a test. It is long because machines are slow at times; no test waits for its end.
const patience = 90 * time.Second

// parley is a process with the emulator command.
type parley struct {
	stack.Ready
	cmd  *exec.Cmd
	out  *output
	done chan struct{}
}

// output collects the output of a process.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// start starts the emulator and waits until it is ready. The end of the test stops the emulator.
func start(t *testing.T, environ []string, args ...string) *parley {
	t.Helper()
	ready := filepath.Join(t.TempDir(), "ready.json")
	p := &parley{out: &output{}, done: make(chan struct{})}
	p.cmd = commandProcess(append([]string{"--listen", "127.0.0.1:0", "--ready-file", ready}, args...)...)
	p.cmd.Env = append(p.cmd.Env, environ...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(p.done); p.cmd.Wait() }()
	t.Cleanup(func() {
		p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(patience):
			p.cmd.Process.Kill()
			<-p.done
		}
		if t.Failed() {
			t.Logf("the emulator printed:\n%s", p.out)
		}
	})
	until(t, "the emulator to be ready", func() bool {
		select {
		case <-p.done:
			t.Fatalf("the emulator ended: %s", p.out)
		default:
		}
		data, err := os.ReadFile(ready)
		return err == nil && json.Unmarshal(data, &p.Ready) == nil
	})
	return p
}

// call sends a request to the API of the fakes of Twitch and Discord. A response without a body is expected if out is
// nil; otherwise the response is decoded into out.
func (p *parley) call(t *testing.T, method, path, body string, out any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, p.API.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+p.API.Token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	switch want := map[bool]int{true: http.StatusNoContent, false: http.StatusOK}[out == nil]; {
	case resp.StatusCode != want:
		text, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s %s %s: %s %s; want %d", method, path, body, resp.Status, text, want)
	case out != nil:
		if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
	}
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("timeout while waiting for %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// sides runs a test on the embedded servers and on Google's emulators.
func sides(t *testing.T, environ []string, args []string, run func(t *testing.T, p *parley)) {
	for name, extra := range map[string][]string{"embedded": nil, "google": {"--google"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "google" {
				skipWithoutGoogle(t)
			}
			run(t, start(t, environ, slices.Concat(args, extra)...))
		})
	}
}

func skipWithoutGoogle(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short skips Google's emulators")
	}
	if err := google.Installed(t.Context()); errors.Is(err, google.ErrNotInstalled) {
		t.Skipf("not run on Google's emulators: %v", err)
	}
}

// client is a WebSocket connection of a user.
type client struct {
	t      *testing.T
	conn   *websocket.Conn
	frames chan message
}

type message struct {
	Type    string `json:"type"`
	Payload struct {
		Text    string `json:"text,omitempty"`
		Room    string `json:"room,omitempty"`
		UserID  string `json:"user_id,omitempty"`
		Code    string `json:"code,omitempty"`
		Message string `json:"message,omitempty"`
		ID      string `json:"id,omitempty"`
	} `json:"payload"`
	Metadata struct {
		ID      string `json:"id,omitempty"`
		ReplyTo string `json:"replyTo,omitempty"`
	} `json:"metadata"`
}

// connect connects a user to a gateway and waits for the ready frame. got lists the answers received earlier.
func connect(t *testing.T, p *parley, gateway int, user string, got ...string) *client {
	t.Helper()
	query := url.Values{"after": got}.Encode()
	conn, _, err := websocket.DefaultDialer.Dial(p.Gateways[gateway].WS+"?"+query, http.Header{"Authorization": {"Bearer " + p.Tokens[user]}})
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, conn: conn, frames: make(chan message, 4096)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(c.frames)
		for {
			var m message
			if conn.ReadJSON(&m) != nil {
				return
			}
			c.frames <- m
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	if m := c.next("connection.ready"); m.Payload.UserID != user {
		t.Errorf("ready as %q; want %q", m.Payload.UserID, user)
	}
	return c
}

// next waits for the next frame, and fails if the frame has another type.
func (c *client) next(kind string) message {
	c.t.Helper()
	select {
	case m, ok := <-c.frames:
		if !ok {
			c.t.Fatalf("the connection ended before a %s frame", kind)
		}
		if m.Type != kind {
			c.t.Fatalf("got %+v; want a %s frame", m, kind)
		}
		return m
	case <-time.After(patience):
		c.t.Fatalf("no %s frame came", kind)
		return message{}
	}
}

// say sends a message. Two messages of a user with the same id are the same message.
func (c *client) say(id, text, room string) {
	c.t.Helper()
	var m message
	m.Type, m.Payload.Text, m.Payload.Room, m.Metadata.ID = "chat.message.send", text, room, id
	if err := c.conn.WriteJSON(m); err != nil {
		c.t.Fatal(err)
	}
}

// join enters a room.
func (c *client) join(room string) {
	c.t.Helper()
	var m message
	m.Type, m.Payload.Room = "room.join", room
	if err := c.conn.WriteJSON(m); err != nil {
		c.t.Fatal(err)
	}
	c.next("room.joined")
}

// nothingMore asks a question and checks that the next frame is the answer.
func (c *client) nothingMore() {
	c.t.Helper()
	c.say("last", "!help", "")
	if m := c.next("chat.message.received"); m.Metadata.ReplyTo != "last" {
		c.t.Errorf("unexpected frame: %+v", m)
	}
}

// firestoreClient connects to the Firestore of a Parley.
func firestoreClient(t *testing.T, p *parley) *firestore.Client {
	t.Helper()
	client, err := firestore.NewClient(t.Context(), p.Project, option.WithGRPCConn(emulatortest.Dial(t, p.Firestore)), option.WithoutAuthentication())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// pubsubClient connects to the Pub/Sub of a Parley.
func pubsubClient(t *testing.T, p *parley) *pubsub.Client {
	t.Helper()
	client, err := pubsub.NewClient(t.Context(), p.Project, option.WithGRPCConn(emulatortest.Dial(t, p.PubSub)), option.WithoutAuthentication())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func user(t *testing.T, db *firestore.Client, id string) store.User {
	t.Helper()
	snap, err := db.Doc("users/" + id).Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var u store.User
	if err := snap.DataTo(&u); err != nil {
		t.Fatal(err)
	}
	return u
}

func deliveries(t *testing.T, db *firestore.Client, userID string) []delivery.Entry {
	t.Helper()
	snaps, err := db.Collection("deliveries").Where("userId", "==", userID).Documents(t.Context()).GetAll()
	if err != nil {
		t.Fatal(err)
	}
	var all []delivery.Entry
	for _, snap := range snaps {
		var e delivery.Entry
		if err := snap.DataTo(&e); err != nil {
			t.Fatal(err)
		}
		e.ID = snap.Ref.ID
		all = append(all, e)
	}
	return all
}

func TestChat(t *testing.T) {
	t.Parallel()
	sides(t, nil, []string{"--gateways", "3"}, func(t *testing.T, p *parley) {
		db := firestoreClient(t, p)

		t.Run("a question is answered by the personality", func(t *testing.T) {
			c := connect(t, p, 0, "api-gateway:eve")
			c.say("q1", "!ask how are you?", "lobby")
			m := c.next("chat.message.received")
			if m.Metadata.ReplyTo != "q1" || m.Metadata.ID == "" || !strings.Contains(m.Payload.Text, "Eve") || !strings.Contains(m.Payload.Text, "friendly host") {
				t.Errorf("answer = %+v; want it to show the user's name and the personality", m)
			}
			c.say("q2", "does @parley hear me?", "lobby")
			if m := c.next("chat.message.received"); m.Metadata.ReplyTo != "q2" {
				t.Errorf("answer to a mention = %+v", m)
			}
			c.say("q3", "!pirate where to?", "lobby")
			if m := c.next("chat.message.received"); !strings.Contains(m.Payload.Text, "pirate") {
				t.Errorf("answer = %+v; want the pirate's", m)
			}
			for _, d := range deliveries(t, db, "api-gateway:eve") {
				until(t, "delivery "+d.ID+" to be settled", func() bool {
					snap, err := db.Doc("deliveries/" + d.ID).Get(t.Context())
					return err == nil && snap.Data()["state"] == string(delivery.Delivered)
				})
			}
		})

		t.Run("a rule answers without a model", func(t *testing.T) {
			c := connect(t, p, 1, "twitch:1001")
			c.say("r1", "!roles", "")
			if m := c.next("chat.message.received"); m.Payload.Text != "Ada: no roles" {
				t.Errorf("answer = %q", m.Payload.Text)
			}
		})

		t.Run("both connections of a user get an answer once, and the third instance ignores it", func(t *testing.T) {
			a, b := connect(t, p, 0, "discord:2001"), connect(t, p, 1, "discord:2001")
			a.say("q1", "!ask hello", "")
			x, y := a.next("chat.message.received"), b.next("chat.message.received")
			if x.Metadata.ID != y.Metadata.ID || x.Payload.Text != y.Payload.Text {
				t.Errorf("one got %+v, the other %+v", x, y)
			}
			a.nothingMore()
			if m := b.next("chat.message.received"); m.Metadata.ReplyTo != "last" {
				t.Errorf("the second connection got an unexpected frame: %+v", m)
			}
			for _, d := range deliveries(t, db, "discord:2001") {
				if d.Instance == p.Gateways[2].ID {
					t.Errorf("%s, which holds no connection, settled %s", d.Instance, d.ID)
				}
			}
		})

		t.Run("a Twitch user on a WebSocket keeps the id and the provider of the user document", func(t *testing.T) {
			if got := user(t, db, "twitch:1002").Provider; got != "" {
				t.Fatalf("the seed gave twitch:1002 the provider %q", got)
			}
			c := connect(t, p, 2, "twitch:1002")
			c.say("q1", "!ask who am I?", "")
			c.next("chat.message.received")
			if got := user(t, db, "twitch:1002").Provider; got != "twitch" {
				t.Errorf("provider = %q; want twitch", got)
			}
			ds := deliveries(t, db, "twitch:1002")
			if len(ds) != 1 {
				t.Fatalf("%d deliveries for twitch:1002; want 1", len(ds))
			}
			e, err := event.Decode(ds[0].Event)
			if err != nil {
				t.Fatal(err)
			}
			if e.UserID != "twitch:1002" || e.User == nil || e.User.ID != "twitch:1002" || e.Auth == nil || e.Auth.Provider != "twitch" || e.Auth.UserRef != "users/twitch:1002" || !e.Auth.Matched {
				t.Errorf("event: userId %q, user %+v, auth %+v", e.UserID, e.User, e.Auth)
			}
			if _, err := db.Doc("users/api-gateway:twitch:1002").Get(t.Context()); err == nil {
				t.Error("there is a user api-gateway:twitch:1002")
			}
		})

		t.Run("the same message twice is counted once and answered once", func(t *testing.T) {
			c := connect(t, p, 0, "api-gateway:frank")
			c.say("same", "!ask one", "")
			c.next("chat.message.received")
			before := user(t, db, "api-gateway:frank").MessageCountAllTime
			c.say("same", "!ask one", "")
			c.nothingMore()
			if after := user(t, db, "api-gateway:frank").MessageCountAllTime; after != before+1 { // the last question
				t.Errorf("counted %d messages, then %d; want one more", before, after)
			}
		})

		t.Run("an answer for a room reaches every member", func(t *testing.T) {
			a, b := connect(t, p, 0, "discord:2002"), connect(t, p, 2, "twitch:1001")
			b.say("in", "good evening", "kitchen") // the sender of a message enters the room
			var join message
			join.Type, join.Payload.Room = "room.join", "kitchen"
			if err := a.conn.WriteJSON(join); err != nil {
				t.Fatal(err)
			}
			a.next("room.joined")
			b.say("k1", "!hello", "kitchen")
			for _, c := range []*client{a, b} {
				if m := c.next("chat.message.received"); m.Payload.Text != "Hello everybody in kitchen, says Ada." {
					t.Errorf("got %+v", m)
				}
			}
		})

		t.Run("invalid input is reported, and the connection stays open", func(t *testing.T) {
			c := connect(t, p, 1, "api-gateway:eve")
			for _, bad := range []string{"not JSON", `{"type":"chat.message.send","payload":{},"metadata":{"id":"x"}}`, `{"type":"nobody.knows?"}`} {
				if err := c.conn.WriteMessage(websocket.TextMessage, []byte(bad)); err != nil {
					t.Fatal(err)
				}
				if m := c.next("chat.error"); m.Payload.Code == "" || m.Payload.Message == "" {
					t.Errorf("%s: %+v", bad, m)
				}
			}
			c.nothingMore()
		})

		t.Run("an unknown token is refused before the upgrade", func(t *testing.T) {
			for name, header := range map[string]http.Header{"unknown": {"Authorization": {"Bearer nobody"}}, "missing": nil} {
				_, resp, err := websocket.DefaultDialer.Dial(p.Gateways[0].WS, header)
				if err == nil || resp == nil || resp.StatusCode != http.StatusUnauthorized {
					t.Errorf("%s: %v, %v; want 401", name, resp, err)
				}
			}
		})

		t.Run("the printed chat addresses unlock the demo users", func(t *testing.T) {
			for _, gw := range p.Gateways {
				address, secret, ok := strings.Cut(gw.Page, "#demo=")
				if !ok || !strings.Contains(p.out.String(), gw.Page+"\n") {
					t.Errorf("%s: %s has no secret or was not printed", gw.HTTP, gw.Page)
				}
				for given, want := range map[string]int{"": http.StatusUnauthorized, "guess": http.StatusUnauthorized, secret: http.StatusOK} {
					req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address+"demo/tokens", nil)
					if err != nil {
						t.Fatal(err)
					}
					req.Header.Set("Authorization", "Bearer "+given)
					resp, err := http.DefaultClient.Do(req)
					if err != nil {
						t.Fatal(err)
					}
					resp.Body.Close()
					if resp.StatusCode != want {
						t.Errorf("%s with %q: %s; want %d", req.URL, given, resp.Status, want)
					}
				}
			}
		})

		t.Run("every gateway is alive, ready, measured and has a page", func(t *testing.T) {
			for _, gw := range p.Gateways {
				for path, want := range map[string]string{"/healthz": "", "/readyz": "", "/metrics": "parley_", "/": "<html"} {
					resp, err := http.Get(gw.HTTP + path)
					if err != nil {
						t.Fatal(err)
					}
					body, err := io.ReadAll(resp.Body)
					if err := errors.Join(err, resp.Body.Close()); err != nil {
						t.Fatal(err)
					}
					if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
						t.Errorf("%s%s: %s, without %q", gw.HTTP, path, resp.Status, want)
					}
				}
			}
		})
	})
}

func TestMessagesAreRelayedBetweenTwoRooms(t *testing.T) {
	t.Parallel()
	sides(t, []string{"EGRESS_DEADLINE=3s", "SWEEP_GRACE=1s", "RULES_CACHE_TTL=1s"}, []string{"--gateways", "2", "--sweep", "200ms"}, func(t *testing.T, p *parley) {
		db := firestoreClient(t, p)
		eve, frank := connect(t, p, 0, "api-gateway:eve"), connect(t, p, 1, "api-gateway:frank")
		eve.join("stage")
		frank.join("balcony")
		eve.say("m1", "hello over there", "stage")
		if m := frank.next("chat.message.received"); answer.StripMarks(m.Payload.Text) != "[api-gateway] Eve: hello over there" || m.Metadata.ReplyTo != "" {
			t.Errorf("Frank got %+v", m)
		} else {
			frank.say("m2", m.Payload.Text, "balcony") // a program could do so; the copy is not relayed
		}
		frank.say("m3", "hello back", "balcony")
		if m := eve.next("chat.message.received"); answer.StripMarks(m.Payload.Text) != "[api-gateway] Frank: hello back" {
			t.Errorf("Eve got %+v", m)
		}
		eve.nothingMore()
		frank.nothingMore()

		// three addresses: a room with a member, an empty room, and an unknown channel of the platform
		_, err := db.Doc("rules/wide").Set(t.Context(), map[string]any{
			"enabled": true, "priority": 5, "when": `event.type == "chat.message" && event.channel == "stage" && event.message.text.startsWith("!wide ")`,
			"candidates": []map[string]any{{"text": "{{ event.message.text }}"}},
			"egress": map[string]any{"to": []map[string]any{
				{"destination": "api-gateway", "channel": "balcony"}, {"destination": "api-gateway", "channel": "cellar"}, {"destination": "discord", "channel": "discord:7"},
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		until(t, "the new rule to be read", func() bool {
			n++
			eve.say(fmt.Sprintf("w%d", n), "!wide news", "stage")
			select {
			case m := <-frank.frames:
				return answer.StripMarks(m.Payload.Text) == "!wide news"
			case <-time.After(100 * time.Millisecond):
				return false
			}
		})
		want := map[string]delivery.State{"balcony": delivery.Delivered, "cellar": delivery.Dead, "discord:7": delivery.Dead}
		until(t, "three outcomes", func() bool {
			snaps, err := db.Collection("deliveries").Where("step", ">=", "rule:wide@").Where("step", "<", "rule:wideA").Documents(t.Context()).GetAll()
			if err != nil {
				t.Fatal(err)
			}
			settled := 0
			for _, snap := range snaps {
				var e delivery.Entry
				if err := snap.DataTo(&e); err != nil {
					t.Fatal(err)
				}
				if e.State == want[e.Channel] {
					settled++
				} else if e.State != delivery.Pending && e.State != delivery.Claimed {
					t.Fatalf("%s ended %s", e.Channel, e.State)
				}
			}
			return len(snaps) >= 3 && settled == len(snaps)
		})
	})
}

func TestPrefixIsOnEveryTopicOnce(t *testing.T) {
	t.Parallel()
	sides(t, []string{"BUS_PREFIX=staging."}, nil, func(t *testing.T, p *parley) {
		c := connect(t, p, 0, "api-gateway:eve")
		c.say("q1", "!ask hello", "")
		c.next("chat.message.received")
		var got []string
		it := pubsubClient(t, p).TopicAdminClient.ListTopics(t.Context(), &pubsubpb.ListTopicsRequest{Project: "projects/" + p.Project})
		for topic, err := range it.All() {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, strings.TrimPrefix(topic.Name, "projects/"+p.Project+"/topics/"))
		}
		var want []string
		for _, topic := range topology.Topics() {
			want = append(want, "staging."+string(topic))
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("topics %v; want %v", got, want)
		}
	})
}

func TestRawTokenIsNeitherPublishedNorStoredNorLogged(t *testing.T) {
	t.Parallel()
	p := start(t, []string{"LOG_LEVEL=debug"}, "--log", "json")
	ps := pubsubClient(t, p)
	var mu sync.Mutex
	var seen []string
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, topic := range topology.Topics() {
		name := "projects/" + p.Project + "/subscriptions/watch-" + string(topic)
		_, err := ps.SubscriptionAdminClient.CreateSubscription(ctx, &pubsubpb.Subscription{Name: name, Topic: "projects/" + p.Project + "/topics/" + string(topic), AckDeadlineSeconds: 10})
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			err := ps.Subscriber(name).Receive(ctx, func(_ context.Context, m *pubsub.Message) {
				m.Ack()
				mu.Lock()
				defer mu.Unlock()
				seen = append(seen, fmt.Sprintf("%s %s %v", topic, m.Data, m.Attributes))
			})
			if err != nil {
				t.Errorf("watch %s: %v", topic, err)
			}
		})
	}
	defer wg.Wait()
	defer cancel()
	for name, token := range p.Tokens {
		c := connect(t, p, 0, name)
		c.say("q1", "!ask hello", "lobby")
		if m := c.next("chat.message.received"); strings.Contains(m.Payload.Text, token) {
			t.Error("an answer contains the token")
		}
	}
	until(t, "the messages to be seen", func() bool { mu.Lock(); defer mu.Unlock(); return len(seen) >= 3*len(p.Tokens) })

	var documents []string
	db := firestoreClient(t, p)
	for _, collection := range []string{"users", "tokens", "rules", "personalities", "deliveries", "deadletters", "conversations"} {
		it := db.CollectionGroup(collection).Documents(t.Context())
		for {
			snap, err := it.Next()
			if errors.Is(err, iterator.Done) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			documents = append(documents, fmt.Sprintf("%s %s", snap.Ref.Path, snap.Data()))
		}
	}
	if len(documents) < 3*len(p.Tokens) {
		t.Fatalf("only %d documents were searched", len(documents))
	}
	// Only the greeting on standard output shows the tokens; all other output is the log.
	var logged []string
	for scanner := bufio.NewScanner(strings.NewReader(p.out.String())); scanner.Scan(); {
		if strings.HasPrefix(scanner.Text(), "{") {
			logged = append(logged, scanner.Text())
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for name, token := range p.Tokens {
		for what, texts := range map[string][]string{"a message": seen, "a document": documents, "a log line": logged} {
			for _, text := range texts {
				if strings.Contains(text, token) {
					t.Errorf("the token of %s is in %s: %s", name, what, text)
				}
			}
		}
	}
}

func TestCtrlCDeletesTheGatewaySubscriptions(t *testing.T) {
	emulatortest.Both(t, func(t *testing.T, env emulatortest.Env) {
		p := start(t, nil, "--gateways", "2", "--pubsub", env.PubSub, "--firestore", env.Firestore)
		ps := pubsubClient(t, p)
		gateways := func() (names []string) {
			it := ps.SubscriptionAdminClient.ListSubscriptions(t.Context(), &pubsubpb.ListSubscriptionsRequest{Project: "projects/" + p.Project})
			for sub, err := range it.All() {
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(sub.Name, "/gateway.") {
					names = append(names, sub.Name)
				}
			}
			return names
		}
		if got := gateways(); len(got) != 2 {
			t.Fatalf("two gateways have the subscriptions %v", got)
		}
		c := connect(t, p, 0, "api-gateway:eve")
		began := time.Now()
		if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		select {
		case <-p.done:
		case <-time.After(patience):
			t.Fatal("the process did not end")
		}
		t.Logf("ended after %s", time.Since(began))
		if code := p.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("ended with %d", code)
		}
		for range c.frames { // until the connection is closed
		}
		if got := gateways(); len(got) != 0 {
			t.Errorf("left %v behind", got)
		}
	})
}

func TestDataSurvivesAKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := start(t, nil, "--data", dir)
	c := connect(t, first, 0, "api-gateway:eve")
	c.say("q1", "!ask hello", "")
	c.next("chat.message.received")
	token := first.Tokens["api-gateway:eve"]
	before := user(t, firestoreClient(t, first), "api-gateway:eve").MessageCountAllTime
	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-first.done

	second := start(t, nil, "--data", dir)
	if got := user(t, firestoreClient(t, second), "api-gateway:eve").MessageCountAllTime; got != before || before == 0 {
		t.Errorf("%d messages are counted after the kill; want %d", got, before)
	}
	second.Tokens["api-gateway:eve"] = token // the earlier token is still valid
	c = connect(t, second, 0, "api-gateway:eve")
	c.say("q2", "!ask again", "")
	c.next("chat.message.received")
}

func TestAcceptedQuestionsAreAnsweredAfterAKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	environ := []string{"WS_BURST=1000"}
	first := start(t, environ, "--data", dir)
	token := first.Tokens["api-gateway:eve"]
	c := connect(t, first, 0, "api-gateway:eve")
	const n = 40
	for i := range n {
		c.say(fmt.Sprint(i), fmt.Sprintf("!ask %d", i), "lobby")
	}
	// a gateway counts a message after the acknowledgement from Pub/Sub
	until(t, "every message to be published", func() bool {
		resp, err := http.Get(first.Gateways[0].HTTP + "/metrics")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return err == nil && strings.Contains(string(body), fmt.Sprintf("parley_gateway_publishes_total{result=\"ok\"} %d\n", n))
	})
	if err := first.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-first.done
	answers := map[string]int{} // by the question
	var got []string
	take := func(m message) {
		answers[m.Metadata.ReplyTo]++
		got = append(got, m.Metadata.ID)
	}
	for m := range c.frames {
		take(m)
	}
	t.Logf("%d of %d were answered before the kill", len(got), n)

	second := start(t, environ, "--data", dir)
	second.Tokens["api-gateway:eve"] = token
	c = connect(t, second, 0, "api-gateway:eve", got...)
	for len(answers) < n {
		take(c.next("chat.message.received"))
	}
	c.nothingMore()
	for i := range n {
		if answers[fmt.Sprint(i)] != 1 {
			t.Errorf("question %d was answered %d times", i, answers[fmt.Sprint(i)])
		}
	}
}

func TestTemporaryModelFailureLosesNoQuestion(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	model := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) <= 2 {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"I am back"}}]}`)
	}))
	defer model.Close()
	const key = "sk-secret-of-the-test"
	p := start(t, []string{"MODEL_PROVIDER=openai", "MODEL_NAME=m", "OPENAI_API_KEY=" + key, "MODEL_BASE_URL=" + model.URL, "LOG_LEVEL=debug"})
	c := connect(t, p, 0, "api-gateway:eve")
	c.say("q1", "!ask are you there?", "")
	if m := c.next("chat.message.received"); m.Payload.Text != "I am back" {
		t.Errorf("answer = %+v", m)
	}
	c.nothingMore()
	if n := calls.Load(); n != 3 {
		t.Errorf("the model was called %d times; want two failures and an answer", n)
	}
	if strings.Contains(p.out.String(), key) {
		t.Error("the model's key is in the log")
	}
}

// A seed with these rules is refused, but an operator can write such a rule into the database.
func TestBrokenRuleLosesNoQuestion(t *testing.T) {
	t.Parallel()
	p := start(t, nil)
	for id, when := range map[string]string{"broken-syntax": "event.type ==", "broken-at-run-time": "event.payload.nothing.here == 1"} {
		rule := store.Rule{Enabled: true, Priority: 1, When: when, Slip: []string{"personality"}}
		if _, err := firestoreClient(t, p).Doc("rules/"+id).Set(t.Context(), rule); err != nil {
			t.Fatal(err)
		}
	}
	c := connect(t, p, 0, "api-gateway:eve")
	c.say("q1", "!ask hello", "")
	if m := c.next("chat.message.received"); m.Metadata.ReplyTo != "q1" {
		t.Errorf("answer = %+v", m)
	}
	until(t, "both rules to be logged", func() bool {
		return strings.Contains(p.out.String(), "broken-syntax") && strings.Contains(p.out.String(), "broken-at-run-time")
	})
}

func TestHelpIsComplete(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--help"}, {"load", "--help"}} {
		out, err := commandProcess(args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		for _, flag := range []string{"--gateways", "--listen", "--pubsub", "--firestore", "--google", "--seed", "--data", "--retention", "--ready-file", "--log"} {
			if !strings.Contains(string(out), flag) {
				t.Errorf("the help of %v does not list %s", args, flag)
			}
		}
	}
}

func TestVariablesCommandExplainsEveryPart(t *testing.T) {
	t.Parallel()
	out, err := commandProcess("variables").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"RELAY_IGNORE", "MODEL_PROVIDER", "TWITCH_API_TIMEOUT", "SWEEP_GRACE", "WS_RATE"} {
		if !strings.Contains(string(out), "  "+name+" ") {
			t.Errorf("%s is not explained", name)
		}
	}
}

func TestInvalidVariableOfAnyPartFailsTheStart(t *testing.T) {
	t.Parallel()
	for variable, want := range map[string]string{
		"MODEL_PROVIDER=gemini": "personality: configuration:\nMODEL_NAME", "RELAY_IGNORE=ada": "enrichment: configuration:\nRELAY_IGNORE",
		"SWEEP_GRACE=-1s": "dlq: configuration:\nSWEEP_GRACE", "WS_RATE=0": "gateway: configuration:\nWS_RATE",
	} {
		cmd := commandProcess("--listen", "127.0.0.1:0")
		cmd.Env = append(cmd.Env, variable)
		var out output
		cmd.Stderr = &out
		if err := cmd.Run(); err == nil || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %v\n%s", variable, err, &out)
		}
	}
}

func TestInvalidFlagsFailAtOnce(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"--gateways", "0"}, {"--log", "xml"}, {"--seed", "/does/not/exist"}, {"--google", "--data", "x"}, {"surplus"}, {"--sweep", "-1s"},
		{"--listen", "nowhere"}, {"--listen", ":99999"}, {"--listen", "127.0.0.1:65535", "--gateways", "2"}, {"--listen", "192.0.2.1:8080"},
		{"--pubsub", "nowhere"}, {"--pubsub", "127.0.0.1:1"}, {"--firestore", "127.0.0.1:1"},
		{"load", "--messages", "0"}, {"soak", "--minutes", "-1"}, {"soak", "--only", "bad weather"},
	} {
		cmd := commandProcess(args...)
		var out output
		cmd.Stderr = &out
		if err := cmd.Run(); err == nil || !strings.Contains(out.String(), "emulator:") {
			t.Errorf("%v: %v\n%s", args, err, &out)
		}
	}
}
