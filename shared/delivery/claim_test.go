package delivery_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"parley.internal/emulator/emulatortest"
	"parley.internal/shared/delivery"
	"parley.internal/shared/store"
)

// losing returns a ledger, and lose, which makes the next write succeed without an answer: the client gets the error of
// lost instead.
func losing(t *testing.T, env emulatortest.Env) (l *delivery.Ledger, lose func(lost func() error)) {
	t.Helper()
	var next func() error
	conn, err := grpc.NewClient(env.Firestore, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUnaryInterceptor(
		func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			err := invoke(ctx, method, req, reply, cc, opts...)
			if lost := next; lost != nil && err == nil {
				next = nil
				return lost()
			}
			return err
		}))
	if err != nil {
		t.Fatal(err)
	}
	client, err := store.Connect(t.Context(), env.Deployment(), option.WithGRPCConn(conn)) // which closes it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return delivery.NewLedger(client, "one", time.Now), func(lost func() error) { next = lost }
}

func TestClaimStoredWithoutAnAnswerIsUsed(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		l, lose := losing(t, env)
		e, _, err := l.Open(t.Context(), entry("d1"))
		if err != nil {
			t.Fatal(err)
		}
		lose(func() error { return status.Error(codes.Internal, "connection broken") })
		c, state, err := l.Claim(t.Context(), e.Ref())
		if err != nil || c == nil || state != delivery.Claimed {
			t.Fatalf("Claim = %v, %q, %v; want the claim that was stored", c, state, err)
		}
		if state, err := c.MarkDelivered(t.Context(), "n"); err != nil || state != delivery.Delivered {
			t.Errorf("MarkDelivered = %q, %v", state, err)
		}
	})
}

func TestClaimStoredTooLateIsReleased(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		l, lose := losing(t, env)
		e, _, err := l.Open(t.Context(), entry("d1"))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		lose(func() error { cancel(); return status.FromContextError(ctx.Err()).Err() })
		if c, state, err := l.Claim(ctx, e.Ref()); c != nil || status.Code(err) != codes.Canceled {
			t.Fatalf("Claim = %v, %q, %v; want what the context says", c, state, err)
		}
		if got, err := l.Get(t.Context(), "d1"); err != nil || got.State != delivery.Pending {
			t.Errorf("the entry is %q, %v; want a pending entry", got.State, err)
		}
		// a claim taken from another instance is not released: the answer may have been sent
		other, _, err := l.Claim(t.Context(), e.Ref())
		if err != nil || other == nil {
			t.Fatalf("Claim = %v, %v", other, err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		defer cancel()
		lose(func() error { cancel(); return status.FromContextError(ctx.Err()).Err() })
		if c, _, err := l.ForceClaim(ctx, e.Ref()); c != nil || err == nil {
			t.Fatalf("ForceClaim = %v, %v", c, err)
		}
		if got, err := l.Get(t.Context(), "d1"); err != nil || got.State != delivery.Claimed {
			t.Errorf("the entry is %q, %v; want it claimed", got.State, err)
		}
	})
}

func TestFailedClaimLeavesTheEntryPending(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		l, _ := losing(t, env)
		e, _, err := l.Open(t.Context(), entry("d1"))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if c, _, err := l.Claim(ctx, e.Ref()); c != nil || err == nil {
			t.Errorf("Claim = %v, %v; want an error", c, err)
		}
		c, _, err := l.Claim(t.Context(), e.Ref())
		if err != nil || c == nil {
			t.Fatalf("Claim = %v, %v", c, err)
		}
		if err := c.Release(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
