package moderator

import (
	"context"

	"parley.internal/shared/moderation"
)

// Begin and End let tests write the record of a crashed instance.
func Begin(r *Records, ctx context.Context, id string, attempt int, o moderation.Command) error {
	_, _, err := r.begin(ctx, id, attempt, o, "c")
	return err
}

func End(r *Records, ctx context.Context, id string, a Answer) error { return r.end(ctx, id, a) }
