package trigger

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"cloud.google.com/go/firestore"

	"parley.internal/shared/bus"
	"parley.internal/shared/config"
	"parley.internal/shared/store"
	"parley.internal/shared/telemetry"
)

// Connections are the connections of a function. They stay open until the process ends.
type Connections struct {
	Log       *slog.Logger
	Firestore *firestore.Client
	Bus       *bus.Client
}

// Connect opens the connections of the function with the given name.
func Connect(ctx context.Context, d config.Deployment, name string) (Connections, error) {
	log := telemetry.NewLogger(os.Stderr, d, false)
	client, err := store.Connect(ctx, d)
	if err != nil {
		return Connections{}, err
	}
	b, err := bus.Open(ctx, d, name, log)
	if err != nil {
		return Connections{}, errors.Join(err, client.Close())
	}
	return Connections{Log: log, Firestore: client, Bus: b}, nil
}
