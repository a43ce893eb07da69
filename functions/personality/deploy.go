package personality

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"

	"parley.internal/functions/personality/model"
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
	return func(ctx context.Context, ce cloudevents.Event) error { return b.CloudEvent(ctx, ce, f.Answer) }, nil
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
