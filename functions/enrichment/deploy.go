package enrichment

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/GoogleCloudPlatform/functions-framework-go/functions"
	cloudevents "github.com/cloudevents/sdk-go/v2"

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
	p, err := deployed.get(ctx, os.Environ)
	if err != nil {
		return fmt.Errorf("start the function %s: %w", Step, err)
	}
	return p.bus.CloudEvent(ctx, ce, p.function.Enrich)
}

// parts is a function with the bus that it hears.
type parts struct {
	function *Function
	bus      *bus.Client
}

// lazy builds once, when it is first asked for and it succeeds.
type lazy struct {
	mu    sync.Mutex
	built *parts
}

func (l *lazy) get(ctx context.Context, environ func() []string) (*parts, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.built != nil {
		return l.built, nil
	}
	// the clients outlive the call that happens to be the first
	p, err := build(context.WithoutCancel(ctx), environ())
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
	log := telemetry.NewLogger(os.Stderr, c.Deployment, false)
	client, err := store.Connect(ctx, c.Deployment)
	if err != nil {
		return nil, err
	}
	b, err := bus.Open(ctx, c.Deployment, Step, log)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	f := New(Deps{
		Config: c, Store: store.New(client), Bus: b,
		Sender: egress.NewSender(egress.NewLedger(client, Step, time.Now), b, c.Egress, time.Now),
		Now:    time.Now, Log: log,
	})
	return &parts{function: f, bus: b}, nil
}
