//go:build unix

package google_test

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"parley.internal/emulator/google"
)

func TestAnEmulatorAnswersUntilItIsStoppedAndLeavesNoProcess(t *testing.T) {
	for name, start := range map[string]func(context.Context) (*google.Process, error){
		"pubsub":    google.StartPubSub,
		"firestore": google.StartFirestore,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := start(t.Context())
			if errors.Is(err, google.ErrNotInstalled) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.Stop)
			conn, err := net.Dial("tcp", p.Addr())
			if err != nil {
				t.Fatalf("dial a ready emulator: %v", err)
			}
			conn.Close()
			p.Stop()
			p.Stop()
			// The killed children of the guard fall to init, which reaps them
			// when it gets to it: until then they are zombies of the group.
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for !errors.Is(syscall.Kill(-google.Group(p), 0), syscall.ESRCH) {
				select {
				case <-tick.C:
				case <-ctx.Done():
					t.Fatal("the process group is still there after Stop")
				}
			}
			if conn, err := net.Dial("tcp", p.Addr()); err == nil {
				conn.Close()
				t.Error("the emulator answers after Stop")
			}
		})
	}
}

func TestAMissingSDKIsErrNotInstalled(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := google.StartPubSub(t.Context()); !errors.Is(err, google.ErrNotInstalled) {
		t.Errorf("StartPubSub without gcloud: %v, want ErrNotInstalled", err)
	}
}
