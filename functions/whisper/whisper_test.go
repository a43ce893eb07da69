package whisper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/emulator/emulatortest"
	"parley.internal/shared/bus"
	"parley.internal/shared/credential"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/recipient"
	"parley.internal/shared/store"
	"parley.internal/shared/topology"
)

func TestMain(m *testing.M) { emulatortest.Main(m) }

// request is a request to Helix.
type request struct {
	token, from, to, message, clientID string
}

// reply is an answer of Helix.
type reply struct {
	status int
	said   string
	reset  time.Time
	hang   bool // never answer, but get the request
	drop   bool // break the connection after the request
}

// platform is a fake Helix, with the JSON of https://dev.twitch.tv/docs/api/reference/#send-whisper, and a fake bus.
type platform struct {
	mu        sync.Mutex
	replies   []reply // one for each request, then 204
	got       []request
	published []bus.Outgoing
	announced []deadletter.Announcement
	asked     func() // called for each request; nil for nothing
	stopped   chan struct{}
}

func (p *platform) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Message string `json:"message"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.Method != http.MethodPost || r.URL.Path != "/helix/whispers" {
		http.Error(w, "not a whisper", http.StatusTeapot)
		return
	}
	p.mu.Lock()
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	p.got = append(p.got, request{token, r.URL.Query().Get("from_user_id"), r.URL.Query().Get("to_user_id"), body.Message, r.Header.Get("Client-Id")})
	answer := reply{status: http.StatusNoContent}
	if len(p.replies) > 0 {
		answer, p.replies = p.replies[0], p.replies[1:]
	}
	if p.asked != nil {
		p.asked()
	}
	p.mu.Unlock()
	switch {
	case answer.hang:
		select {
		case <-r.Context().Done():
		case <-p.stopped:
		}
	case answer.drop:
		panic(http.ErrAbortHandler)
	case answer.status == http.StatusNoContent:
		w.WriteHeader(http.StatusNoContent)
	default:
		if !answer.reset.IsZero() {
			w.Header().Set("Ratelimit-Reset", fmt.Sprint(answer.reset.Unix()))
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(answer.status)
		fmt.Fprintf(w, `{"error":%q,"status":%d,"message":%q}`, http.StatusText(answer.status), answer.status, answer.said)
	}
}

func (p *platform) requests() []request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]request(nil), p.got...)
}

func (p *platform) Publish(_ context.Context, _ topology.Topic, out bus.Outgoing) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.published = append(p.published, out)
	return nil
}

func (p *platform) Announce(_ context.Context, _ []byte, _ map[string]string, a deadletter.Announcement) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.announced = append(p.announced, a)
	return nil
}

// tokens provides token-1 and, after Invalid, token-2, or the errors set by the test.
type tokens struct {
	scopes         []string
	err, refreshes error
	invalid        int
}

func (k *tokens) Token(_ context.Context, id identity.UserID) (credential.Token, error) {
	return credential.Token{User: id, Access: credential.NewSecret("token-1"), Scopes: k.scopes}, k.err
}

func (k *tokens) Invalid(_ context.Context, id identity.UserID, used credential.Token) (credential.Token, error) {
	k.invalid++
	if used.Access.Reveal() != "token-1" {
		return credential.Token{}, errors.New("not the token that was used")
	}
	return credential.Token{User: id, Access: credential.NewSecret("token-2"), Scopes: k.scopes}, k.refreshes
}

// rig is the function with its dependencies.
type rig struct {
	*Function
	*platform
	tokens      *tokens
	client      *firestore.Client
	ledger      *delivery.Ledger
	deadLetters *deadletter.Store
	log         *bytes.Buffer
	logger      *slog.Logger
	now         time.Time
	config      Config

	failing atomic.Int32 // number of the next writes of deliveries that fail
	stored  atomic.Bool  // the failing writes are stored all the same
}

func newRig(t *testing.T, env emulatortest.Env, change func(*Config)) *rig {
	t.Helper()
	r := &rig{platform: &platform{stopped: make(chan struct{})}, tokens: &tokens{scopes: []string{"chat:read", scope}}, log: &bytes.Buffer{}, now: event.TruncateToMicros(time.Now())}
	r.logger = slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	server := httptest.NewServer(r.platform)
	t.Cleanup(func() { close(r.stopped); server.Close() })
	var err error
	conn := emulatortest.Dial(t, env.Firestore, grpc.WithChainUnaryInterceptor(r.intercept))
	if r.client, err = store.Connect(t.Context(), env.Deployment(), option.WithGRPCConn(conn)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.client.Close() })
	clock := func() time.Time { return r.now }
	r.ledger, r.deadLetters = delivery.NewLedger(r.client, "tester", clock), deadletter.NewStore(r.client, clock)
	r.config = Config{
		Credential: credential.Config{Twitch: credential.TwitchConfig{
			ClientID: "client", ClientSecret: credential.NewSecret("hush"), BotUserID: "9", APIURL: server.URL + "/helix/",
		}},
		Twitch: TwitchConfig{Timeout: 10 * time.Second},
		Limits: LimitsConfig{NewPerDay: 40, PerSecond: 100, PerMinute: 100}, // the clock stands still
	}
	if change != nil {
		change(&r.config)
	}
	r.Function = r.another()
	return r
}

// intercept forwards calls of the store, and fails writes of deliveries if the test says so.
func (r *rig) intercept(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	commit, ok := req.(*pb.CommitRequest)
	fails := ok && len(commit.Writes) > 0 && strings.Contains(fmt.Sprint(commit.Writes), "/deliveries/") && r.failing.Add(-1) >= 0
	if fails && !r.stored.Load() {
		return status.Error(codes.Internal, "broken")
	}
	err := invoke(ctx, method, req, reply, cc, opts...)
	if fails && err == nil {
		return status.Error(codes.DeadlineExceeded, "not answered")
	}
	return err
}

// another makes a second instance of the function.
func (r *rig) another() *Function {
	clock := func() time.Time { return r.now }
	return New(Dependencies{
		Config: r.config, Ledger: r.ledger, Reaper: delivery.NewReaper(r.ledger, r.deadLetters, r.platform, Step, 0),
		Limiter: NewLimiter(r.client, r.config.Limits, clock), Tokens: r.tokens, Now: clock,
		Log: r.logger,
	})
}

// send sends an answer through the ledger, and returns the message for the function.
func (r *rig) send(t *testing.T, id string, alter func(*event.Event)) bus.Incoming {
	t.Helper()
	e := &event.Event{
		V: event.Version, Source: "ingress.twitch", CorrelationID: id, Type: event.TypeChatMessage, UserID: "twitch:123", Channel: "lobby",
		Egress:     &event.Egress{Destination: "twitch", Type: event.EgressDM},
		Candidates: []event.Candidate{{ID: "a", Text: "hello you"}},
	}
	if alter != nil {
		alter(e)
	}
	s := delivery.NewSender(r.ledger, r.platform, delivery.Config{Deadline: 2 * time.Minute, Retention: time.Hour}, func() time.Time { return r.now })
	if _, err := s.Send(t.Context(), e, "tester"); err != nil {
		t.Fatal(err)
	}
	return r.last()
}

func (r *rig) last() bus.Incoming {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.published[len(r.published)-1]
	return bus.Incoming{Event: out.Event, Attributes: out.Attributes, ID: "m", Published: r.now}
}

func (r *rig) entry(t *testing.T, in bus.Incoming) delivery.Entry {
	t.Helper()
	e, err := r.ledger.Get(t.Context(), in.Attributes[delivery.AttrDelivery])
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// again reports whether an error makes Pub/Sub deliver the message again.
func again(err error) bool {
	_, dead := errors.AsType[*deadletter.Error](err)
	return err != nil && !dead
}

func TestWhisperIsSentOnce(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		r := newRig(t, env, nil)
		in := r.send(t, "c1", nil)
		for range 5 {
			if err := r.Whisper(t.Context(), in); err != nil {
				t.Fatal(err)
			}
		}
		want := request{token: "token-1", from: "9", to: "123", message: "hello you", clientID: "client"}
		if got := r.requests(); len(got) != 1 || got[0] != want {
			t.Errorf("Twitch got %+v; want %+v once", got, want)
		}
		if e := r.entry(t, in); e.State != delivery.Delivered || e.Note != "accepted" {
			t.Errorf("the entry is %q with note %q", e.State, e.Note)
		}
	})
}

func TestOneOfSeveralInstancesSends(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		r := newRig(t, env, nil)
		in := r.send(t, "c1", nil)
		var wg sync.WaitGroup
		for _, f := range []*Function{r.Function, r.another(), r.another(), r.Function} {
			wg.Go(func() {
				if err := f.Whisper(t.Context(), in); err != nil && !errors.Is(err, errElsewhere) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got := r.requests(); len(got) != 1 {
			t.Errorf("Twitch got %+v; want one request", got)
		}
		if err := r.Whisper(t.Context(), in); err != nil {
			t.Errorf("delivered once more: %v", err)
		}
	})
}

func TestOtherAnswersAreIgnored(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		r := newRig(t, env, nil)
		in := r.send(t, "c1", func(e *event.Event) { e.Egress.Type = event.EgressChat })
		if err := r.Whisper(t.Context(), in); err != nil {
			t.Error(err)
		}
		if e := r.entry(t, in); e.State != delivery.Pending || len(r.requests()) != 0 {
			t.Errorf("the entry is %q, Twitch got %v", e.State, r.requests())
		}
		notice := bus.Incoming{Event: in.Event, Attributes: map[string]string{bus.AttrRoute: bus.RouteWhisper}}
		if err := r.Whisper(t.Context(), notice); err != nil || len(r.requests()) != 0 {
			t.Errorf("a notice without an entry: %v, Twitch got %v; want the dlq function to open the entry", err, r.requests())
		}
		unknown := bus.Incoming{Event: in.Event, Attributes: map[string]string{bus.AttrRoute: bus.RouteWhisper, delivery.AttrDelivery: "nope"}}
		err := r.Whisper(t.Context(), unknown)
		if dead, ok := errors.AsType[*deadletter.Error](err); !ok || dead.Reason != deadletter.InvalidEvent {
			t.Errorf("an answer with an unknown entry: %v; want invalid_event", err)
		}
	})
}

// Every row ends in one dead letter, and a redelivery sends nothing.
func TestRefusedOrUnknownWhisperIsOneDeadLetter(t *testing.T) {
	bot := func(e *event.Event) { e.UserID = "twitch:9" }
	tests := []struct {
		name   string
		config func(*Config)
		event  func(*event.Event)
		arm    func(*rig)
		reason deadletter.Reason
		says   string // in its message
		asked  int    // requests to Twitch
	}{
		{name: "nothing configured", config: func(c *Config) { c.Credential.Twitch.BotUserID, c.Credential.Twitch.ClientID = "", "" },
			reason: deadletter.NotConfigured, says: "TWITCH_CLIENT_ID and TWITCH_BOT_USER_ID"},
		{name: "no bot configured", config: func(c *Config) { c.Credential.Twitch.BotUserID = "" }, reason: deadletter.NotConfigured, says: "without TWITCH_BOT_USER_ID"},
		{name: "no user", event: func(e *event.Event) { e.UserID = "" }, reason: deadletter.NoRecipient, says: "userId is not set"},
		{name: "a user of another platform", event: func(e *event.Event) { e.UserID = "discord:123" }, reason: deadletter.NoRecipient, says: "discord:123"},
		{name: "no user id", event: func(e *event.Event) { e.UserID = "123" }, reason: deadletter.NoRecipient, says: "platform"},
		{name: "the bot itself", event: bot, reason: deadletter.RecipientRefused, says: "itself"},
		{name: "missing scope", arm: func(r *rig) { r.tokens.scopes = []string{"chat:read"} }, reason: deadletter.MissingScope, says: "/oauth/twitch/login"},
		{name: "missing scope, as Twitch finds", arm: func(r *rig) { r.replies = []reply{{status: 401, said: "Missing scope: user:manage:whispers"}} },
			reason: deadletter.MissingScope, says: "/oauth/twitch/login", asked: 1},
		{name: "nobody has logged in", arm: func(r *rig) { r.tokens.err = &credential.LoginNeeded{User: r.bot, Why: "nobody has logged in"} },
			reason: deadletter.LoginNeeded, says: "/oauth/twitch/login"},
		{name: "Twitch refuses the client", arm: func(r *rig) { r.tokens.err = fmt.Errorf("refresh: %w", credential.ErrRefused) }, reason: deadletter.SenderRefused},
		{name: "twice unauthorized", arm: func(r *rig) {
			r.replies = []reply{{status: 401, said: "Invalid OAuth token"}, {status: 401, said: "must have a verified phone number"}}
		}, reason: deadletter.SenderRefused, says: "verified phone number", asked: 2},
		{name: "unauthorized with a token that is good", arm: func(r *rig) {
			r.replies, r.tokens.refreshes = []reply{{status: 401, said: "must have a verified phone number"}}, credential.ErrRefused
		}, reason: deadletter.SenderRefused, says: "verified phone number", asked: 1},
		{name: "revoked meanwhile", arm: func(r *rig) {
			r.replies, r.tokens.refreshes = []reply{{status: 401}}, &credential.LoginNeeded{User: r.bot, Why: "withdrawn"}
		}, reason: deadletter.LoginNeeded, says: "withdrawn", asked: 1},
		{name: "400", arm: func(r *rig) { r.replies = []reply{{status: 400, said: "doesn't allow whisper messages"}} }, reason: deadletter.RecipientRefused, says: "doesn't allow whisper messages", asked: 1},
		{name: "403", arm: func(r *rig) { r.replies = []reply{{status: 403, said: "suspended"}} }, reason: deadletter.SenderRefused, says: "suspended", asked: 1},
		{name: "404", arm: func(r *rig) { r.replies = []reply{{status: 404, said: "was not found"}} }, reason: deadletter.RecipientRefused, says: "was not found", asked: 1},
		{name: "500", arm: func(r *rig) { r.replies = []reply{{status: 500}} }, reason: deadletter.OutcomeUnknown, says: "may or may not", asked: 1},
		{name: "502 from a proxy", arm: func(r *rig) { r.replies = []reply{{status: 502, said: "<html>"}} }, reason: deadletter.OutcomeUnknown, asked: 1},
		{name: "connection broken", arm: func(r *rig) { r.replies = []reply{{drop: true}} }, reason: deadletter.OutcomeUnknown, says: "may or may not", asked: 1},
		{name: "time-out", config: func(c *Config) { c.Twitch.Timeout = time.Second }, arm: func(r *rig) { r.replies = []reply{{hang: true}} },
			reason: deadletter.OutcomeUnknown, says: "may or may not", asked: 1},
		{name: "redirected", arm: func(r *rig) { r.replies = []reply{{status: 307}} }, reason: deadletter.NotConfigured, says: "TWITCH_API_URL", asked: 1},
	}
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		for i, tt := range tests {
			r := newRig(t, env, tt.config)
			if tt.arm != nil {
				tt.arm(r)
			}
			in := r.send(t, fmt.Sprintf("c%d", i), tt.event)
			for range 3 {
				r.now = r.now.Add(2 * time.Second)
				if err := r.Whisper(t.Context(), in); err != nil {
					t.Errorf("%s: %v", tt.name, err)
				}
			}
			e := r.entry(t, in)
			if e.State != delivery.Dead || e.Reason != string(tt.reason) || !strings.Contains(e.Message, tt.says) {
				t.Errorf("%s: %q for %q: %q; want %q: %q", tt.name, e.State, e.Reason, e.Message, tt.reason, tt.says)
			}
			if n := len(r.requests()); n != tt.asked {
				t.Errorf("%s: %d requests; want %d", tt.name, n, tt.asked)
			}
			if len(r.announced) != 1 || r.announced[0].Reason != tt.reason {
				t.Errorf("%s: announced %+v; want one of %q", tt.name, r.announced, tt.reason)
			}
			if _, err := r.deadLetters.Get(t.Context(), e.ID); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			r.secretsAreKept(t, tt.name, e.Message)
		}
	})
}

// secretsAreKept checks that neither the log nor a message has a token.
func (r *rig) secretsAreKept(t *testing.T, name, message string) {
	t.Helper()
	for _, secret := range []string{"token-1", "token-2", "hush", "hello you"} {
		if strings.Contains(r.log.String()+message, secret) {
			t.Errorf("%s: %q is in the log or in the dead letter: %s %s", name, secret, r.log, message)
		}
	}
}

func TestExpiredTokenIsReplacedOnce(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		r := newRig(t, env, nil)
		r.replies = []reply{{status: 401, said: "Invalid OAuth token"}}
		in := r.send(t, "c1", nil)
		if err := r.Whisper(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		got := r.requests()
		if len(got) != 2 || got[0].token != "token-1" || got[1].token != "token-2" || r.tokens.invalid != 1 {
			t.Errorf("Twitch got %+v after %d refreshes", got, r.tokens.invalid)
		}
		if e := r.entry(t, in); e.State != delivery.Delivered {
			t.Errorf("the entry is %q", e.State)
		}
	})
}

// Every row is certainly not sent at first, and sent by a later redelivery.
func TestPostponedWhisperIsSentLater(t *testing.T) {
	refuse := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}}
	tests := []struct {
		name   string
		arm    func(*rig) (mend func())
		wait   time.Duration // the pause before the whisper can be sent
		asked  int           // requests to Twitch until then
		reason deadletter.Reason
	}{
		{"no token at present", func(r *rig) func() {
			r.tokens.err = credential.ErrUnavailable
			return func() { r.tokens.err = nil }
		}, 2 * time.Second, 0, deadletter.PlatformUnavailable},
		{"no new token at present", func(r *rig) func() {
			r.replies, r.tokens.refreshes = []reply{{status: 401}}, credential.ErrBusy
			return func() {}
		}, 2 * time.Second, 1, deadletter.PlatformUnavailable},
		{"no connection", func(r *rig) func() {
			connected := r.helix
			r.helix = newHelix(r.config, refuse, time.Now)
			return func() { r.helix = connected }
		}, 2 * time.Second, 0, deadletter.PlatformUnavailable},
		{"429", func(r *rig) func() {
			r.replies = []reply{{status: 429, said: "too many", reset: r.now.Add(31 * time.Second)}}
			return func() {}
		}, 32 * time.Second, 1, deadletter.RateLimited},
	}
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		for i, tt := range tests {
			r := newRig(t, env, func(c *Config) { c.Credential.Twitch.BotUserID = fmt.Sprint(90 + i) })
			mend := tt.arm(r)
			in := r.send(t, fmt.Sprintf("c%d", i), nil)
			if err := r.Whisper(t.Context(), in); !again(err) || !strings.Contains(err.Error(), string(tt.reason)) {
				t.Errorf("%s: %v; want to be called again for %s", tt.name, err, tt.reason)
			}
			if e := r.entry(t, in); e.State != delivery.Pending || e.Claim != "" {
				t.Errorf("%s: the entry is %q", tt.name, e.State)
			}
			if tt.wait > 10*time.Second { // too early: another instance does not ask Twitch
				r.now = r.now.Add(10 * time.Second)
				if err := r.another().Whisper(t.Context(), in); !again(err) {
					t.Errorf("%s: too early: %v; want to be called again", tt.name, err)
				}
			}
			if n := len(r.requests()); n != tt.asked {
				t.Errorf("%s: %d requests at first; want %d", tt.name, n, tt.asked)
			}
			mend()
			r.now = r.now.Add(tt.wait)
			if err := r.Whisper(t.Context(), in); err != nil {
				t.Errorf("%s: later: %v", tt.name, err)
			}
			if e := r.entry(t, in); e.State != delivery.Delivered || len(r.requests()) != tt.asked+1 {
				t.Errorf("%s: the entry is %q after %d requests", tt.name, e.State, len(r.requests()))
			}
			r.secretsAreKept(t, tt.name, "")
		}
	})
}

func TestWhisperIsNotPostponedBeyondItsDeadline(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		r := newRig(t, env, func(c *Config) { c.Limits.NewPerDay = 1 })
		if err := r.Whisper(t.Context(), r.send(t, "c1", nil)); err != nil {
			t.Fatal(err)
		}
		check := func(name string, in bus.Incoming, reason deadletter.Reason) {
			t.Helper()
			if err := r.Whisper(t.Context(), in); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if e := r.entry(t, in); e.State != delivery.Dead || e.Reason != string(reason) {
				t.Errorf("%s: %q for %q; want %q", name, e.State, e.Reason, reason)
			}
		}
		// there is room for a second new recipient tomorrow, long after the deadline
		check("no room before", r.send(t, "c2", func(e *event.Event) { e.UserID = "twitch:124" }), deadletter.RateLimited)

		late := r.send(t, "c3", nil)
		r.now = r.now.Add(3 * time.Minute)
		check("delivered late", late, deadletter.Expired)

		// the deadline passes after the function's check and before the executor's
		passing, f := r.send(t, "c5", nil), r.another()
		f.executor.Now = func() time.Time { return r.now.Add(3 * time.Minute) }
		if err := f.Whisper(t.Context(), passing); err != nil {
			t.Error(err)
		}
		if e := r.entry(t, passing); e.State != delivery.Dead || e.Reason != string(deadletter.Expired) {
			t.Errorf("deadline during the execution: %q for %q", e.State, e.Reason)
		}

		// a message from before a redrive does not mark the redriven entry dead
		err := r.client.RunTransaction(t.Context(), func(_ context.Context, tx *firestore.Transaction) error {
			write, err := r.ledger.ReopenTx(tx, late.Attributes[delivery.AttrDelivery], 1, delivery.Config{Deadline: time.Minute, Retention: time.Hour})
			if err != nil {
				return err
			}
			return write()
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Whisper(t.Context(), late); err != nil {
			t.Error(err)
		}
		if e := r.entry(t, late); e.State != delivery.Pending {
			t.Errorf("the redriven entry is %q", e.State)
		}

		// nor does it before its own deadline
		early := late
		early.Attributes = maps.Clone(late.Attributes)
		early.Attributes[delivery.AttrDeadline] = r.now.Add(time.Minute).Format(time.RFC3339Nano)
		r.tokens.scopes = nil
		if err := r.Whisper(t.Context(), early); err != nil {
			t.Error(err)
		}
		if e := r.entry(t, early); e.State != delivery.Pending {
			t.Errorf("the redriven entry is %q for %q", e.State, e.Reason)
		}
		r.tokens.scopes = []string{scope}

		r.tokens.err = credential.ErrUnavailable
		last := r.send(t, "c4", nil)
		last.Attempt = maxAttempts - 1
		check("the last attempt", last, deadletter.PlatformUnavailable)
		if n := len(r.requests()); n != 1 {
			t.Errorf("%d requests; want 1", n)
		}
	})
}

// The outcome of a whisper is recorded although some writes fail.
func TestOutcomeIsRecordedAfterFailedWrites(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		bot := 200
		for _, tt := range []struct {
			name  string
			reply reply
			state delivery.State
			says  string
		}{
			{"accepted", reply{status: 204}, delivery.Delivered, "accepted"},
			{"refused", reply{status: 400, said: "doesn't allow whispers"}, delivery.Dead, string(deadletter.RecipientRefused)},
			{"postponed", reply{status: 429, said: "too many"}, delivery.Pending, ""},
		} {
			for stored, failures := range map[bool]int32{false: 3, true: 1} {
				bot++
				r := newRig(t, env, func(c *Config) { c.Credential.Twitch.BotUserID = fmt.Sprint(bot) })
				r.replies = []reply{tt.reply}
				r.stored.Store(stored)
				in := r.send(t, fmt.Sprint(tt.name, stored), nil)
				r.asked = func() { r.failing.Store(failures) }
				if err := r.Whisper(t.Context(), in); (err != nil) != (tt.state == delivery.Pending) {
					t.Errorf("%s, stored %v: %v", tt.name, stored, err)
				}
				e := r.entry(t, in)
				if e.State != tt.state || e.Note+e.Reason != tt.says || e.Claim != "" && tt.state == delivery.Pending || r.failing.Load() > 0 {
					t.Errorf("%s, stored %v: the entry is %q: %s%s; want %q: %s", tt.name, stored, e.State, e.Note, e.Reason, tt.state, tt.says)
				}
				if n := len(r.requests()); n != 1 {
					t.Errorf("%s, stored %v: %d requests; want 1", tt.name, stored, n)
				}
			}
		}
	})
}

func TestUnsettledClaimIsNotSentAgain(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		r := newRig(t, env, nil)
		in := r.send(t, "c1", nil)
		ref, err := delivery.ParseRef(in)
		if err != nil {
			t.Fatal(err)
		}
		if claim, _, err := r.ledger.Claim(t.Context(), ref); err != nil || claim == nil { // by an instance that crashes now
			t.Fatal(claim, err)
		}
		if err := r.Whisper(t.Context(), in); !errors.Is(err, errElsewhere) {
			t.Errorf("Whisper = %v; want %v", err, errElsewhere)
		}
		r.now = r.now.Add(delivery.ClaimLease + time.Second)
		if _, err := delivery.NewReaper(r.ledger, r.deadLetters, r.platform, "dlq", 0).Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := r.Whisper(t.Context(), in); err != nil {
			t.Error(err)
		}
		if e := r.entry(t, in); e.Reason != string(deadletter.OutcomeUnknown) || len(r.requests()) != 0 {
			t.Errorf("the entry is %q for %q, Twitch got %v", e.State, e.Reason, r.requests())
		}
	})
}

func TestLongTextIsCut(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		r := newRig(t, env, nil)
		long := strings.TrimSpace(strings.Repeat("word ", 1000)) // 4,999 characters
		say := func(e *event.Event) { e.Candidates[0].Text = long }
		in := r.send(t, "c1", say)
		if err := r.Whisper(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		if got := r.requests()[0].message; len([]rune(got)) > maxFirst || !strings.HasSuffix(got, "word…") {
			t.Errorf("Twitch got %q", got)
		}
		if e := r.entry(t, in); e.Note != "accepted; cut to 500 of 4999 characters" {
			t.Errorf("note = %q", e.Note)
		}

		// after a whisper of the user to the bot, the limit is larger
		if err := recipient.NewBook(r.client, r.bot, func() time.Time { return r.now }).Wrote(t.Context(), twitchUser(t, "123")); err != nil {
			t.Fatal(err)
		}
		in = r.send(t, "c2", say)
		if err := r.Whisper(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		if got := r.requests()[1].message; got != long {
			t.Errorf("Twitch got %d characters; want all %d", len(got), len(long))
		}
		if e := r.entry(t, in); e.Note != "accepted" {
			t.Errorf("note = %q", e.Note)
		}
	})
}

// A push is finished even if Pub/Sub has stopped waiting.
func TestCancelledPushIsFinished(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		r := newRig(t, env, nil)
		in := r.send(t, "c1", nil)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.Whisper(ctx, in); err != nil {
			t.Fatal(err)
		}
		if e := r.entry(t, in); e.State != delivery.Delivered {
			t.Errorf("the entry is %q", e.State)
		}
	})
}
