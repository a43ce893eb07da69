package instance

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"time"

	"cloud.google.com/go/compute/metadata"

	"parley.internal/shared/topology"
)

// metadataTimeout bounds the request for the instance id. The metadata server usually answers within milliseconds.
const metadataTimeout = 3 * time.Second

// newID returns the id of this instance, unique among all instances and revisions. The revision's name (K_REVISION)
// is not enough: all instances of a revision would share one subscription, and each answer would reach only one
// of them.
func newID(ctx context.Context, onCloudRun bool, ask func(context.Context) (string, error), log *slog.Logger) (string, error) {
	if onCloudRun {
		ctx, cancel := context.WithTimeout(ctx, metadataTimeout)
		defer cancel()
		id, err := ask(ctx)
		if err == nil && topology.ValidInstance(id) {
			return id, nil
		}
		// A random id works as well, but does not match the instance id in Cloud Run's logs.
		log.WarnContext(ctx, "instance id unavailable: using a random id", "error", err)
	}
	id := rand.Text()
	if !topology.ValidInstance(id) {
		return "", fmt.Errorf("instance id %q is not allowed in a filter", id)
	}
	return id, nil
}

// askMetadata reads the instance id from Cloud Run's metadata server
// (https://cloud.google.com/run/docs/container-contract#metadata-server).
func askMetadata(ctx context.Context) (string, error) { return metadata.InstanceIDWithContext(ctx) }
