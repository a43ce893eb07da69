// Package store reads and writes the Firestore documents shared by several parts of Parley: people, links, tokens,
// personalities, rules and conversations. Start at [Store]. [Collections] describes all collections, including those of
// other packages. The package knows nothing about the meaning of events.
package store

import (
	"context"
	"fmt"
	"os"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/api/option"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/shared/config"
)

// Connect opens a Firestore client for a deployment, or for the emulator that FIRESTORE_EMULATOR_HOST names.
func Connect(ctx context.Context, d config.Deployment, opts ...option.ClientOption) (*firestore.Client, error) {
	client, err := firestore.NewClientWithDatabase(ctx, d.Project, d.Database, opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to Firestore: %w", err)
	}
	return client, nil
}

// reachWait is the timeout of [Reach]. An operator waits for the answer at a terminal.
const reachWait = 15 * time.Second

// Reach returns an error if Firestore does not answer within 15 seconds. Without the timeout, the client library would
// retry forever and report nothing. Reach reads a document that does not exist: "not found" is an answer, too.
func Reach(ctx context.Context, client *firestore.Client) error {
	waiting, cancel := context.WithTimeout(ctx, reachWait)
	defer cancel()
	_, err := client.Collection("users").Doc(TokenHash("")).Get(waiting)
	if err == nil || status.Code(err) == codes.NotFound {
		return nil
	}
	if host := os.Getenv("FIRESTORE_EMULATOR_HOST"); host != "" {
		return fmt.Errorf("no Firestore emulator answers at %s (FIRESTORE_EMULATOR_HOST): %w", host, err)
	}
	return fmt.Errorf("reach Firestore: %w", err)
}

// Store reads and writes the collections of this package. A Store is safe for concurrent use.
type Store struct {
	client *firestore.Client
}

// New makes a store. The caller still owns the client and closes it.
func New(client *firestore.Client) *Store { return &Store{client: client} }
