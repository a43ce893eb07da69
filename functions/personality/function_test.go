package personality_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/firestore"

	"parley.internal/emulator/emulatortest"
	"parley.internal/functions/personality"
	"parley.internal/functions/personality/model"
	"parley.internal/shared/bus"
	"parley.internal/shared/config"
	"parley.internal/shared/egress"
	"parley.internal/shared/event"
	"parley.internal/shared/store"
	"parley.internal/shared/topology"
)

func TestMain(m *testing.M) { emulatortest.Main(m) }

// publisher keeps what is published, and fails as often as it is told to.
type publisher struct {
	mu   sync.Mutex
	fail int
	sent []bus.Outgoing
}

func (p *publisher) Publish(_ context.Context, t topology.Topic, out bus.Outgoing) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t != topology.Egress {
		return errors.New("published to " + string(t))
	}
	if p.fail > 0 {
		p.fail--
		return errors.New("bus is down")
	}
	p.sent = append(p.sent, out)
	return nil
}

// scripted is a model that answers as the test says, and keeps what it was asked.
type scripted struct {
	mu    sync.Mutex
	asked []model.Request
	reply func(ctx context.Context, n int, r model.Request) (model.Reply, error) // n counts from 1; nil for the embedded model's answer
}

func (m *scripted) Generate(ctx context.Context, r model.Request) (model.Reply, error) {
	m.mu.Lock()
	m.asked = append(m.asked, r)
	n := len(m.asked)
	m.mu.Unlock()
	if m.reply == nil {
		return model.Embedded{}.Generate(ctx, r)
	}
	return m.reply(ctx, n, r)
}

// rig is a function with everything around it.
type rig struct {
	*personality.Function
	bus    *publisher
	model  *scripted
	client *firestore.Client
	store  *store.Store
	ledger *egress.Ledger
	log    *strings.Builder

	mu  sync.Mutex
	now time.Time
}

func (r *rig) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *rig) advance(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

func newRig(t *testing.T, env emulatortest.Env, environ ...string) *rig {
	t.Helper()
	cfg, err := config.Load[personality.Config](append([]string{"GOOGLE_CLOUD_PROJECT=" + env.Project}, environ...))
	if err != nil {
		t.Fatal(err)
	}
	client, err := store.Connect(t.Context(), env.Deployment())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	r := &rig{bus: &publisher{}, model: &scripted{}, client: client, store: store.New(client), log: &strings.Builder{}, now: event.Now(time.Now())}
	r.ledger = egress.NewLedger(client, "test", r.clock)
	r.Function = personality.New(personality.Deps{
		Config: cfg, Store: r.store, Sender: egress.NewSender(r.ledger, r.bus, cfg.Egress, r.clock),
		Model: r.model, Now: r.clock, Log: slog.New(slog.NewTextHandler(&locked{w: r.log}, nil)),
	})
	return r
}

// locked lets several goroutines write.
type locked struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// asks is an event in which Ada asks something.
func asks(id, text string, annotations ...event.Annotation) *event.Event {
	return &event.Event{
		V: event.Version, Source: "api-gateway", CorrelationID: id, Type: event.TypeChatMessage, UserID: "twitch:1", Channel: "lobby",
		User:        &event.User{ID: "twitch:1", DisplayName: "Ada"},
		Message:     &event.Message{ID: "m-" + id, Role: event.RoleUser, Text: text},
		RoutingSlip: []event.Step{{ID: personality.Step, Status: event.StepPending}},
		Annotations: annotations,
	}
}

// incoming is an event as the bus hands it over.
func (r *rig) incoming(e *event.Event) bus.Incoming {
	return bus.Incoming{Event: e, Attributes: map[string]string{bus.AttrNext: personality.Step}, ID: "1", Published: r.clock()}
}

func TestAnAnswerIsSentOnceWithWhatItIsMadeOf(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		r := newRig(t, env)
		in := r.incoming(asks("c1", "!ask what is new?"))
		if err := r.Answer(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		if len(r.bus.sent) != 1 {
			t.Fatalf("published %d answers; want 1\n%s", len(r.bus.sent), r.log)
		}
		out := r.bus.sent[0].Event
		text := egress.Text(out)
		for _, want := range []string{"Ada", "“what is new?”", "You are Parley"} {
			if !strings.Contains(text, want) {
				t.Errorf("the answer %q lacks %q", text, want)
			}
		}
		if s := out.RoutingSlip; len(s) != 1 || s[0].Status != event.StepOK {
			t.Errorf("routing slip = %+v", s)
		}
		if in.Event.Candidates != nil || in.Event.RoutingSlip[0].Status != event.StepPending {
			t.Error("the incoming event was changed")
		}
	})
}
