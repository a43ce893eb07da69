package soak

import (
	"context"
	"slices"
	"time"

	"parley.internal/shared/retry"
)

// maxAtOnce bounds the faults that are active or wait for a busy slot.
const maxAtOnce = 20

// breakThings injects faults until ctx ends or enough faults were injected, then waits for the repairs.
func (s *clientSoak) breakThings(ctx context.Context) error {
	limit := maxAtOnce
	if slices.Equal(s.options.Kinds, []Kind{Roll}) {
		limit = 1 // on a small machine, overlapping deploys would leave no time for the users
	}
	return s.injectFaults(ctx, limit, func(n int, f fault, skew time.Duration) error { return s.inject(ctx, n, f, skew) })
}

// inject injects one fault and repairs it. The first Faults of the schedule are required: the soak goes on until all of
// these faults were injected, however long each waits for its slot. So every kind occurs.
func (s *clientSoak) inject(ctx context.Context, n int, f fault, skew time.Duration) error {
	slot := s.gateways[f.target%uint64(len(s.gateways))]
	function := s.functions[f.target%uint64(len(s.functions))]
	if f.kind == Roll {
		slot = s.gateways[(s.rolls.Add(1)-1)%uint64(len(s.gateways))]
	}
	target := ""
	switch f.kind {
	case KillGateway, KillBeforeSettling, Roll, PauseGateway, CutPubSub, CutFirestore, CutClients:
		slot.busy.Lock() // the previous fault of the slot ends soon
		defer slot.busy.Unlock()
		target = slot.name
	case KillFunction:
		function.busy.Lock()
		defer function.busy.Unlock()
		target = function.name
	}
	if ctx.Err() != nil {
		return nil
	}
	return s.record(f, target, func() error {
		if n < s.Faults {
			s.mu.Lock()
			s.required++
			s.mu.Unlock()
		}
		return s.apply(ctx, f, slot, function, skew)
	})
}

// apply applies a fault to a slot, or to the servers, and repairs it after the length of the fault or at the end of ctx.
func (s *clientSoak) apply(ctx context.Context, f fault, slot *gatewaySlot, function *functionSlot, skew time.Duration) error {
	repair := context.WithoutCancel(ctx)
	switch f.kind {
	case KillGateway, KillBeforeSettling:
		return s.killGateway(ctx, f, slot, f.length/4, skew)
	case KillFunction:
		function.current().kill()
		_ = retry.Sleep(ctx, f.length/4)
		return function.start(repair, s.harness)
	case Roll:
		d, err := slot.roll(repair, s.harness, skew)
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.departures.add(d)
		return nil
	case PauseGateway:
		proc := slot.current().proc
		proc.stop()
		defer proc.resume()
		_ = retry.Sleep(ctx, f.length)
		return nil
	case CutPubSub:
		slot.pubsub.cut(ctx, f.length, f.silent)
		return nil
	case CutFirestore:
		slot.firestore.cut(ctx, f.length, f.silent)
		return nil
	case CutClients:
		slot.current().clients.cut(ctx, f.length, f.silent)
		return nil
	default:
		s.injector.begin(f.kind, f.rate)
		defer s.injector.end(f.kind)
		_ = retry.Sleep(ctx, f.length)
		return nil
	}
}
