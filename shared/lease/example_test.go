package lease_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	gcp "cloud.google.com/go/firestore"
	"github.com/prometheus/client_golang/prometheus"

	"parley.internal/emulator/firestore"
	"parley.internal/shared/lease"
)

// A single instance owns every key. The holder checks its lease immediately before each action.
func ExampleManager_Run() {
	server, err := firestore.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	os.Setenv("FIRESTORE_EMULATOR_HOST", server.Addr())
	defer os.Unsetenv("FIRESTORE_EMULATOR_HOST")
	client, err := gcp.NewClient(context.Background(), "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	manager, err := lease.New(client, "twitch", "instance-1",
		lease.Config{TTL: 10 * time.Second, Heartbeat: 100 * time.Millisecond, MaxMembers: 8},
		lease.Options{Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Tasks: []string{"chat"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	keys := func() []string { return []string{"room"} }
	manager.Run(ctx, keys, func(ctx context.Context, l lease.Lease) {
		fmt.Println("owns", l.Key(), "- valid:", l.Valid(), "- had an owner before:", !l.IdleSince("chat").IsZero())
		if err := l.SetIdleSince(ctx, "chat", time.Time{}); err != nil { // from now on, the task is being done
			fmt.Println(err)
		}
		cancel() // a real holder works until ctx ends
	})
	// Output: owns room - valid: true - had an owner before: false
}
