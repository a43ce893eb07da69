package whisper

import (
	"context"
	"time"

	"parley.internal/shared/bus"
	"parley.internal/shared/config"
	"parley.internal/shared/credential"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/identity"
	"parley.internal/shared/trigger"
)

func init() { trigger.Register(Step, build) }

// build makes the function with its connections.
func build(ctx context.Context, environ []string) (trigger.Func, error) {
	c, err := config.Load[Config](environ)
	if err != nil {
		return nil, err
	}
	var key credential.Key
	if len(c.missing()) == 0 {
		if key, err = credential.OpenKey(ctx, c.Credential.Key); err != nil {
			return nil, err
		}
	}
	to, err := trigger.Connect(ctx, c.Deployment, Step)
	if err != nil {
		return nil, err
	}
	ledger := delivery.NewLedger(to.Firestore, Step, time.Now)
	d := Dependencies{
		Config: c, Ledger: ledger,
		Reaper:  delivery.NewReaper(ledger, deadletter.NewStore(to.Firestore, time.Now), to.Bus, Step, 0),
		Limiter: NewLimiter(to.Firestore, c.Limits, time.Now),
		Now:     time.Now, Log: to.Log,
	}
	if key != nil {
		d.Tokens = credential.NewKeeper(credential.Dependencies{
			Firestore: to.Firestore, Key: key, Log: to.Log, Now: time.Now,
			Issuers: map[identity.Platform]credential.Issuer{identity.Twitch: credential.NewTwitch(c.Credential.Twitch, time.Now)},
		})
	}
	f := New(d)
	return func(ctx context.Context, m bus.Message) error { return to.Bus.Handle(ctx, m, f.Whisper) }, nil
}
