package enrichment

import (
	"context"
	"errors"
	"os"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"

	"parley.internal/shared/bus"
	"parley.internal/shared/config"
	"parley.internal/shared/egress"
	"parley.internal/shared/store"
	"parley.internal/shared/telemetry"
	"parley.internal/shared/trigger"
)

func init() { trigger.Register(Step, build) }

// build makes the function with its connections.
func build(ctx context.Context, environ []string) (trigger.Func, error) {
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
	return func(ctx context.Context, ce cloudevents.Event) error { return b.CloudEvent(ctx, ce, f.Enrich) }, nil
}
