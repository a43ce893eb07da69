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

// metadataWait bounds the question for the instance's id; the metadata server answers in milliseconds.
const metadataWait = 3 * time.Second

// newID makes the id of this instance: no other has it, also none of the same revision. The name of the revision
// (K_REVISION) would be the same for all of its instances, which would then share one subscription, so that each
// message reached only one of them.
func newID(ctx context.Context, onCloudRun bool, ask func(context.Context) (string, error), log *slog.Logger) (string, error) {
	if onCloudRun {
		ctx, cancel := context.WithTimeout(ctx, metadataWait)
		defer cancel()
		id, err := ask(ctx)
		if err == nil && topology.ValidInstance(id) {
			return id, nil
		}
		// an id of our own serves as well; it only ties the logs less directly to Cloud Run's
		log.WarnContext(ctx, "the metadata server gave no usable instance id; a random one is used", "error", err)
	}
	id := rand.Text()
	if !topology.ValidInstance(id) {
		return "", fmt.Errorf("instance id %q can't stand in a filter", id)
	}
	return id, nil
}

// askMetadata asks Cloud Run's metadata server (https://cloud.google.com/run/docs/container-contract#metadata-server).
func askMetadata(ctx context.Context) (string, error) { return metadata.InstanceIDWithContext(ctx) }
