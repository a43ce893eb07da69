// Package operator is the operators' command line: the subcommands of the gateway binary for dead letters and for
// identity links. Start at [DeadLetters] and [Identities].
//
// Every command connects to Google Cloud, or to emulators if FIRESTORE_EMULATOR_HOST and PUBSUB_EMULATOR_HOST are set.
// The package reads and writes Firestore only through packages deadletter, redrive and store. It does not start a gateway
// instance.
package operator

import (
	"context"
	"errors"
	"os/user"

	"cloud.google.com/go/firestore"

	"parley.internal/shared/config"
	"parley.internal/shared/store"
)

// connect connects to Firestore and checks the connection with one read. The caller closes the client.
func connect(ctx context.Context, d config.Deployment) (*firestore.Client, error) {
	client, err := store.Connect(ctx, d)
	if err != nil {
		return nil, err
	}
	if err := store.Reach(ctx, client); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return client, nil
}

// loginName returns the operator's login name on this machine, or an empty string if the name is unknown.
func loginName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}
