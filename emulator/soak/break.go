package soak

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"parley.internal/shared/retry"
)

// injectFaults draws faults and injects each fault in a goroutine, at most limit faults at a time, until ctx ends. If the
// soak is bounded, injectFaults ends after Faults faults. It returns after all repairs. inject gets the number of the
// fault, from 0, and the clock error for a gateway started by the fault.
func (h *harness) injectFaults(ctx context.Context, limit int, inject func(n int, f fault, skew time.Duration) error) error {
	var g errgroup.Group
	g.SetLimit(limit)
	for n := 0; !h.Bounded || n < h.Faults; n++ {
		f, skew := h.schedule.next(), h.schedule.skew() // the skew is drawn for every fault, so that the sequence depends on the seed alone
		if retry.Sleep(ctx, f.after) != nil {
			break
		}
		g.Go(func() error { return inject(n, f, skew) })
	}
	return g.Wait()
}

// record runs an injection and records the fault with its beginning and end.
func (h *harness) record(f fault, target string, inject func() error) error {
	h.mu.Lock()
	i := len(h.faults)
	h.faults = append(h.faults, madeFault{fault: f, target: target, began: time.Now()})
	h.mu.Unlock()
	err := inject()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults[i].ended = time.Now()
	if err != nil {
		return fmt.Errorf("%s: %w", f, err)
	}
	return nil
}

// killGateway kills the gateway of a slot, waits for pause, and starts a new gateway. With KillBeforeSettling the kill
// comes when the gateway wants to record an outcome, or after the length of the fault. Then the write never reaches
// Firestore.
func (h *harness) killGateway(ctx context.Context, f fault, slot *gatewaySlot, pause, skew time.Duration) error {
	repair := context.WithoutCancel(ctx)
	if f.kind == KillBeforeSettling {
		hold, release := h.injector.holdSettling(slot.current().id)
		defer release() // only after the new start: writes of the killed gateway may still be on their way
		timeout := time.NewTimer(f.length)
		defer timeout.Stop()
		select {
		case <-hold.reached:
		case <-timeout.C:
		case <-ctx.Done():
		}
	}
	if err := slot.kill(repair, h); err != nil {
		return err
	}
	_ = retry.Sleep(ctx, pause)
	return slot.start(repair, h, skew)
}
