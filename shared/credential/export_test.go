package credential

import (
	"context"
	"time"
)

// SetPause replaces the keeper's wait.
func (k *Keeper) SetPause(pause func(ctx context.Context, d time.Duration) error) { k.pause = pause }
