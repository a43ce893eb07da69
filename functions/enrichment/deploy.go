package enrichment

import (
	"context"
	"time"

	"parley.internal/shared/bus"
	"parley.internal/shared/config"
	"parley.internal/shared/delivery"
	"parley.internal/shared/store"
	"parley.internal/shared/trigger"
)

func init() { trigger.Register(Step, build) }

// build makes the function and connects it to Firestore and Pub/Sub.
func build(ctx context.Context, environ []string) (trigger.Func, error) {
	c, err := config.Load[Config](environ)
	if err != nil {
		return nil, err
	}
	to, err := trigger.Connect(ctx, c.Deployment, Step)
	if err != nil {
		return nil, err
	}
	f := New(Deps{
		Config: c, Store: store.New(to.Firestore), Bus: to.Bus,
		Sender: delivery.NewSender(delivery.NewLedger(to.Firestore, Step, time.Now), to.Bus, c.Egress, time.Now),
		Now:    time.Now, Log: to.Log,
	})
	return func(ctx context.Context, m bus.Message) error { return to.Bus.Handle(ctx, m, f.Enrich) }, nil
}
