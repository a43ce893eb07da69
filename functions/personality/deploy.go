package personality

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/GoogleCloudPlatform/functions-framework-go/functions"
	cloudevents "github.com/cloudevents/sdk-go/v2"

	"parley.internal/functions/personality/model"
	"parley.internal/shared/bus"
	"parley.internal/shared/config"
	"parley.internal/shared/egress"
	"parley.internal/shared/store"
	"parley.internal/shared/telemetry"
)

func init() { functions.CloudEvent(Step, Handle) }

// deployed is this instance's function. A deployed function has no other place for what outlives a call.
var deployed lazy

// Handle is the deployed function's entry point. The first call builds what the function works with from the process's
// environment; while that fails, each call fails with why, and the next one tries again.
func Handle(ctx context.Context, ce cloudevents.Event) error {
	return deployed.handle(ctx, ce, os.Environ())
}

// parts is a function with what it stands on.
type parts struct {
	function *Function
	bus      *bus.Client
	client   *firestore.Client
}

func (p *parts) close() error { return errors.Join(p.bus.Close(), p.client.Close()) }

// lazy builds once, when it is first asked for and it succeeds.
type lazy struct {
	mu    sync.Mutex
	built *parts
}

func (l *lazy) handle(ctx context.Context, ce cloudevents.Event, environ []string) error {
	p, err := l.get(ctx, environ)
	if err != nil {
		return fmt.Errorf("start the function %s: %w", Step, err)
	}
	return p.bus.CloudEvent(ctx, ce, p.function.Answer)
}

func (l *lazy) get(ctx context.Context, environ []string) (*parts, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.built != nil {
		return l.built, nil
	}
	// the clients outlive the call that happens to be the first
	p, err := build(context.WithoutCancel(ctx), environ)
	if err != nil {
		return nil, err
	}
	l.built = p
	return p, nil
}

func build(ctx context.Context, environ []string) (*parts, error) {
	c, err := config.Load[Config](environ)
	if err != nil {
		return nil, err
	}
	m, err := newModel(ctx, c)
	if err != nil {
		return nil, err
	}
	log := telemetry.NewLogger(os.Stderr, c.Deployment, false)
	client, err := store.Connect(ctx, c.Deployment)
	if err != nil {
		return nil, err
	}
	b, err := bus.Open(ctx, c.Deployment, Step, log)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	ledger := egress.NewLedger(client, Step, time.Now)
	f := New(Deps{
		Config: c, Store: store.New(client), Sender: egress.NewSender(ledger, b, c.Egress, time.Now),
		Model: m, Now: time.Now, Log: log,
	})
	return &parts{function: f, bus: b, client: client}, nil
}

// newModel makes the model that the configuration names.
func newModel(ctx context.Context, c Config) (model.Model, error) {
	switch m := c.Model; m.Provider {
	case ProviderEmbedded:
		return model.Embedded{}, nil
	case ProviderGemini:
		return model.NewGemini(ctx, model.GeminiOptions{
			Name: m.Name, Key: string(m.GeminiKey), Project: c.Deployment.Project, Location: m.Location, BaseURL: m.BaseURL,
		})
	case ProviderOpenAI:
		return model.NewOpenAI(model.OpenAIOptions{Name: m.Name, Key: string(m.OpenAIKey), BaseURL: m.BaseURL}), nil
	default:
		return nil, fmt.Errorf("MODEL_PROVIDER: there is no %q", m.Provider)
	}
}
