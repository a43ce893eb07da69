package personality

import (
	"context"
	"fmt"
	"time"

	"parley.internal/functions/personality/model"
	"parley.internal/shared/bus"
	"parley.internal/shared/config"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/store"
	"parley.internal/shared/trigger"
)

func init() { trigger.Register(Step, build) }

// build makes the function and connects it to Firestore, Pub/Sub and the model.
func build(ctx context.Context, environ []string) (trigger.Func, error) {
	c, err := config.Load[Config](environ)
	if err != nil {
		return nil, err
	}
	m, err := newModel(ctx, c)
	if err != nil {
		return nil, err
	}
	to, err := trigger.Connect(ctx, c.Deployment, Step)
	if err != nil {
		return nil, err
	}
	ledger := delivery.NewLedger(to.Firestore, Step, time.Now)
	f := New(Deps{
		Config: c, Store: store.New(to.Firestore), Model: m,
		Sender:  delivery.NewSender(ledger, to.Bus, c.Egress, time.Now),
		Refuser: delivery.NewReaper(ledger, deadletter.NewStore(to.Firestore, time.Now), to.Bus, Step, 0), // the dlq function sweeps
		Now:     time.Now, Log: to.Log,
	})
	return func(ctx context.Context, m bus.Message) error { return to.Bus.Handle(ctx, m, f.Answer) }, nil
}

// newModel makes the configured model.
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
		return nil, fmt.Errorf("MODEL_PROVIDER: unknown provider %q", m.Provider)
	}
}
