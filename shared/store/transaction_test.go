package store_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"cloud.google.com/go/firestore"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/emulator/emulatortest"
	"parley.internal/shared/store"
)

func TestAbortedTransactionStartsOverAFewTimes(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		ended, end := context.WithCancel(t.Context())
		t.Cleanup(end)
		for _, tt := range []struct {
			name   string
			ctx    context.Context
			code   codes.Code // of the failing commits
			fail   int32      // how many commits fail
			during func()
			calls  int
			want   codes.Code
		}{
			{"aborted twice", t.Context(), codes.Aborted, 2, func() {}, 3, codes.OK},
			{"always aborted", t.Context(), codes.Aborted, 100, func() {}, 4, codes.Aborted},
			{"another error", t.Context(), codes.PermissionDenied, 1, func() {}, 1, codes.PermissionDenied},
			{"the context ends", ended, codes.Aborted, 100, end, 1, codes.Canceled},
		} {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				var failures atomic.Int32 // so many commits are still to fail
				failures.Store(tt.fail)
				conn := emulatortest.Dial(t, env.Firestore, grpc.WithChainUnaryInterceptor(
					func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
						if strings.HasSuffix(method, "/Commit") && failures.Add(-1) >= 0 {
							return status.Error(tt.code, "Transaction lock timeout.")
						}
						return invoke(ctx, method, req, reply, cc, opts...)
					}))
				client, err := store.Connect(t.Context(), env.Deployment(), option.WithGRPCConn(conn))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { client.Close() })
				calls := 0
				err = store.RunTransaction(tt.ctx, client, func(_ context.Context, tx *firestore.Transaction) error {
					calls++
					tt.during()
					return tx.Set(client.Doc("users/"+tt.name), map[string]any{"calls": calls})
				}, firestore.MaxAttempts(1)) // of the library
				if got := status.Code(err); got != tt.want && (tt.want != codes.Canceled || err == nil) || calls != tt.calls {
					t.Errorf("%v after %d calls; want %s after %d", err, calls, tt.want, tt.calls)
				}
			})
		}
	})
}
