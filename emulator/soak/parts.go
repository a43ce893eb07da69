package soak

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/emulator/port"
	"parley.internal/shared/retry"
	"parley.internal/shared/topology"
)

// maxStarts is how often a part is started anew, as on the platform, if the part cannot reach Pub/Sub during its start.
const maxStarts = 10

// exitTime is the time from SIGTERM to SIGKILL on Cloud Run
// (https://cloud.google.com/run/docs/container-contract#instance-shutdown).
const exitTime = 10 * time.Second

// gatewaySlot is a position for a gateway. A replacement takes the slot under a new instance id.
type gatewaySlot struct {
	name              string
	pubsub, firestore *link
	extra             []string // environment variables of this slot alone

	busy    sync.Mutex // held while a fault uses the slot
	mu      sync.Mutex // guards the fields below
	gateway gateway    // the current gateway
	started int        // gateways started in this slot so far
}

// gateway is a running gateway instance.
type gateway struct {
	proc    *process
	id      string
	clients *link // leads to the gateway's listener
}

// terminate sends SIGTERM to the gateway and waits for its end, at most exitTime. No new client can connect afterwards.
func (g gateway) terminate() exit {
	defer g.clients.close()
	return g.proc.terminate(exitTime)
}

// current returns the current gateway of the slot. Its process is nil before the first start.
func (s *gatewaySlot) current() gateway {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gateway
}

// start starts a gateway in an empty slot.
func (s *gatewaySlot) start(ctx context.Context, h *harness, skew time.Duration) error {
	_, err := s.launch(ctx, h, skew)
	return err
}

// launch starts a gateway, directs new clients to it, and returns the previous gateway of the slot.
func (s *gatewaySlot) launch(ctx context.Context, h *harness, skew time.Duration) (previous gateway, err error) {
	environ := append(append(h.environ(s.pubsub, s.firestore), s.extra...), "LISTEN_ADDR=127.0.0.1:0")
	var errs []error
	for range maxStarts {
		proc, ready, err := startGateway(ctx, h.Binary, h.Dir, s.name, skew, environ)
		if err != nil {
			errs = append(errs, err)
			if retry.Sleep(ctx, 100*time.Millisecond) != nil {
				break
			}
			continue
		}
		clients, err := h.network.link(ready.Addr)
		if err != nil {
			proc.kill()
			return gateway{}, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		previous, s.gateway = s.gateway, gateway{proc, ready.ID, clients}
		s.started++
		return previous, nil
	}
	return gateway{}, errors.Join(errs...)
}

// kill kills the gateway and deletes its subscription.
func (s *gatewaySlot) kill(ctx context.Context, h *harness) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gateway.proc.kill()
	s.gateway.clients.close()
	h.mu.Lock()
	h.killed[s.gateway.id] = true
	h.mu.Unlock()
	_, err := h.deleteSubscription(ctx, s.gateway.id)
	return err
}

// roll replaces the gateway like a new revision on Cloud Run: the successor starts, new clients go to the successor, and
// only then the old gateway gets SIGTERM.
func (s *gatewaySlot) roll(ctx context.Context, h *harness, skew time.Duration) (departure, error) {
	old, err := s.launch(ctx, h, skew)
	if err != nil {
		return departure{}, err
	}
	d := departure{exit: old.terminate()}
	d.subscriptionLeft, err = h.deleteSubscription(ctx, old.id)
	return d, err
}

// departure describes the end of a rolled gateway.
type departure struct {
	exit
	subscriptionLeft bool // the gateway did not delete its subscription
}

// deleteSubscription deletes the subscription of an ended gateway, which would otherwise expire after a day. It reports
// whether the subscription still existed.
func (h *harness) deleteSubscription(ctx context.Context, id string) (bool, error) {
	err := h.bus.SubscriptionAdminClient.DeleteSubscription(ctx, &pubsubpb.DeleteSubscriptionRequest{
		Subscription: topology.Prefix{}.Subscription(project, topology.Gateway(id).Name).String(),
	})
	if status.Code(err) == codes.NotFound {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("delete the subscription of gateway %s: %w", id, err)
	}
	return true, nil
}

// functionSlot is a position for a function. Every process of the slot uses the same address.
type functionSlot struct {
	name, addr string
	environ    []string
	busy       sync.Mutex // held while a fault uses the slot
	mu         sync.Mutex // guards proc
	proc       *process
}

// current returns the current process of the slot, or nil before the first start.
func (f *functionSlot) current() *process {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.proc
}

// startOnFreePort chooses a free port and starts the function. Another process can take the port first; then it tries
// again.
func (f *functionSlot) startOnFreePort(ctx context.Context, h *harness) error {
	var errs []error
	for range maxStarts {
		var err error
		if f.addr, err = port.Free(); err != nil {
			return err
		}
		if err = f.start(ctx, h); err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// start starts the function in an empty slot.
func (f *functionSlot) start(ctx context.Context, h *harness) error {
	proc, err := startFunction(ctx, h.Binary, h.Dir, f.name, f.addr, f.environ)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.proc = proc
	return nil
}
