package credential

import (
	"context"
	"time"
)

// SetPause has the keeper wait as a test wants.
func (k *Keeper) SetPause(pause func(ctx context.Context, d time.Duration) error) { k.pause = pause }
