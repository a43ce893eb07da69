package credential

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"parley.internal/shared/identity"
)

// checkTime is the shortest pause between two rounds of Run. A random part of up to half is added, so that instances
// started together do not check at the same moment.
const checkTime = 5 * time.Minute

// Run validates unused credentials until ctx ends. Twitch demands an hourly validation of every stored token
// (https://dev.twitch.tv/docs/authentication/validate-tokens/). Any number of instances may run it; one instance
// validates each credential.
func (k *Keeper) Run(ctx context.Context) {
	for {
		if err := k.Check(ctx); err != nil && ctx.Err() == nil {
			k.log.WarnContext(ctx, "credential check failed", "error", err)
		}
		if k.pause(ctx, checkTime+rand.N(checkTime/2)) != nil {
			return
		}
	}
}

// Check is one round of [Keeper.Run]. It logs failures of single credentials and does not return them.
func (k *Keeper) Check(ctx context.Context) error {
	// a revoked credential has no validatedAt, and so costs no reads
	snaps, err := k.firestore.Collection("credentials").Where("validatedAt", "<=", k.now().Add(-validity)).Select().Documents(ctx).GetAll()
	if err != nil {
		return fmt.Errorf("read the credentials: %w", err)
	}
	for _, snap := range snaps {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		id, err := identity.Parse(snap.Ref.ID)
		if err != nil {
			k.log.WarnContext(ctx, "document is not a credential", "document", snap.Ref.ID, "error", err)
			continue
		}
		if k.issuers[id.Platform()] == nil {
			continue
		}
		_, err = k.obtainShared(ctx, id, Token{})
		if _, login := errors.AsType[*LoginNeeded](err); err != nil && !login && ctx.Err() == nil {
			k.log.WarnContext(ctx, "credential validation failed", "user", id.String(), "error", err)
		}
	}
	return nil
}
