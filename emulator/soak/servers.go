package soak

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"cloud.google.com/go/firestore"
	pubsubclient "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	firestoreserver "parley.internal/emulator/firestore"
	pubsubserver "parley.internal/emulator/pubsub"
	"parley.internal/emulator/stack"
	"parley.internal/functions/dlq"
	"parley.internal/functions/enrichment"
	"parley.internal/functions/personality"
	"parley.internal/shared/topology"
)

// startServers starts Pub/Sub and Firestore, and connects the harness's own clients. Pub/Sub calls onPublish with each
// accepted message.
func (h *harness) startServers(ctx context.Context, onPublish func(topic string, m *pubsubpb.PubsubMessage)) (err error) {
	if h.pubsub, err = pubsubserver.New(
		pubsubserver.WithServerOptions(grpc.ChainUnaryInterceptor(h.injector.pubsubUnary), grpc.ChainStreamInterceptor(h.injector.pubsubStream)),
		pubsubserver.WithHTTPClient(&http.Client{
			Transport:     pushTransport{RoundTripper: &http.Transport{MaxIdleConnsPerHost: 1000, IdleConnTimeout: 30 * time.Second}, injector: h.injector},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}),
		pubsubserver.WithOnPublish(onPublish),
	); err != nil {
		return fmt.Errorf("start Pub/Sub: %w", err)
	}
	if h.store, err = firestoreserver.New(firestoreserver.WithUnaryInterceptor(h.injector.firestoreUnary), firestoreserver.WithStreamInterceptor(h.injector.firestoreStream)); err != nil {
		return fmt.Errorf("start Firestore: %w", err)
	}
	return h.connect(ctx)
}

// connect makes the harness's own clients. Faults do not affect these clients.
func (h *harness) connect(ctx context.Context) error {
	options := func(addr string) ([]option.ClientOption, error) {
		conn, err := grpc.NewClient(addr, append(exemptCalls(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))...)
		if err != nil {
			return nil, fmt.Errorf("connect to %s: %w", addr, err)
		}
		return []option.ClientOption{option.WithGRPCConn(conn), option.WithoutAuthentication()}, nil
	}
	opts, err := options(h.store.Addr())
	if err != nil {
		return err
	}
	if h.client, err = firestore.NewClient(ctx, project, opts...); err != nil {
		return fmt.Errorf("connect to Firestore: %w", err)
	}
	if opts, err = options(h.pubsub.Addr()); err != nil {
		return err
	}
	if h.bus, err = pubsubclient.NewClient(ctx, project, opts...); err != nil {
		return fmt.Errorf("connect to Pub/Sub: %w", err)
	}
	return nil
}

// startParts starts the functions, creates the topology, and starts the gateways. extra, if not nil, returns additional
// environment variables of the i-th gateway.
func (h *harness) startParts(ctx context.Context, extra func(i int) []string) error {
	if err := h.startFunctions(ctx); err != nil {
		return err
	}
	endpoints := map[string]string{}
	for _, f := range h.functions {
		endpoints[f.name] = "http://" + f.addr + "/"
	}
	if err := stack.CreateTopology(ctx, h.bus, project, topology.Prefix{}, endpoints); err != nil {
		return err
	}
	return h.startGateways(ctx, extra)
}

// startFunctions starts every function and waits until all serve.
func (h *harness) startFunctions(ctx context.Context) error {
	var g errgroup.Group
	for _, name := range []string{enrichment.Step, personality.Step, dlq.Step} {
		pubsub, firestore, err := h.links()
		if err != nil {
			return errors.Join(err, g.Wait())
		}
		f := &functionSlot{name: name, environ: h.environ(pubsub, firestore)}
		h.functions = append(h.functions, f)
		g.Go(func() error { return f.startOnFreePort(ctx, h) })
	}
	return g.Wait()
}

// startGateways starts every gateway and waits until all serve.
func (h *harness) startGateways(ctx context.Context, extra func(i int) []string) (err error) {
	var g errgroup.Group
	for i := range h.Gateways {
		s := &gatewaySlot{name: fmt.Sprintf("gateway%d", i)}
		if extra != nil {
			s.extra = extra(i)
		}
		if s.pubsub, s.firestore, err = h.links(); err != nil {
			return errors.Join(err, g.Wait())
		}
		h.gateways = append(h.gateways, s)
		skew := h.schedule.skew()
		g.Go(func() error { return s.start(ctx, h, skew) })
	}
	return g.Wait()
}

// links opens a part's links to the servers.
func (h *harness) links() (pubsub, firestore *link, err error) {
	if pubsub, err = h.network.link(h.pubsub.Addr()); err != nil {
		return nil, nil, err
	}
	if firestore, err = h.network.link(h.store.Addr()); err != nil {
		return nil, nil, err
	}
	return pubsub, firestore, nil
}

// environ returns the environment of a part that uses these links.
func (h *harness) environ(pubsub, firestore *link) []string {
	return append(slices.Concat([]string{"LOG_LEVEL=warn", "LOG_FORMAT=json"}, h.Environ),
		"GOOGLE_CLOUD_PROJECT="+project, "PUBSUB_EMULATOR_HOST="+pubsub.addr, "FIRESTORE_EMULATOR_HOST="+firestore.addr,
		// no rate limit: a soak asks faster than a person types
		"WS_RATE=100000", "WS_BURST=100000", "WS_INBOX=10000", "WS_QUEUE_FRAMES=10000",
		"EGRESS_DEADLINE="+h.pace.Deadline.String(), "SWEEP_GRACE="+h.pace.Grace.String(),
	)
}
