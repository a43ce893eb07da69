package firestore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	client "cloud.google.com/go/firestore"
	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"parley.internal/emulator/firestore"
	"parley.internal/emulator/google"
)

// The behaviour tests run against this server and, if installed, against Google's emulator. Each test has its own
// project.

var (
	startGoogle  = sync.OnceValues(func() (*google.Process, error) { return google.StartFirestore(context.Background()) })
	googleWanted atomic.Bool

	startOurs = sync.OnceValues(func() (*firestore.Server, error) { return firestore.New() })

	projects atomic.Int64
	environ  sync.Mutex // guards FIRESTORE_EMULATOR_HOST; only NewClient reads the variable
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerDir); dir != "" {
		writeUntilKilled(dir)
	}
	code := m.Run()
	if googleWanted.Load() {
		if p, err := startGoogle(); err == nil {
			p.Stop()
		}
	}
	if srv, err := startOurs(); err == nil {
		if err := srv.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// A backend is this server or Google's emulator, with a project for one test only.
type backend struct {
	name    string
	addr    string
	project string
	client  *client.Client
	raw     pb.FirestoreClient
	db      string // projects/P/databases/(default)
	root    string // db + /documents
}

func (b *backend) isGoogle() bool { return b.name == "google" }

// ctx returns a context for calls of raw, with the credentials accepted by Google's emulator.
func (b *backend) ctx(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer owner", "google-cloud-resource-prefix", b.db)
}

func connect(t testing.TB, name, addr string) *backend {
	t.Helper()
	b := &backend{name: name, addr: addr, project: fmt.Sprintf("p%d-%d", os.Getpid(), projects.Add(1))}
	b.db = "projects/" + b.project + "/databases/(default)"
	b.root = b.db + "/documents"
	environ.Lock()
	defer environ.Unlock()
	if err := os.Setenv("FIRESTORE_EMULATOR_HOST", addr); err != nil {
		t.Fatal(err)
	}
	defer os.Unsetenv("FIRESTORE_EMULATOR_HOST")
	var err error
	if b.client, err = client.NewClient(t.Context(), b.project); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.client.Close() })
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	b.raw = pb.NewFirestoreClient(conn)
	return b
}

// ours connects to the server shared by the tests.
func ours(t testing.TB) *backend {
	t.Helper()
	srv, err := startOurs()
	if err != nil {
		t.Fatal(err)
	}
	return connect(t, "ours", srv.Addr())
}

// googles connects to Google's emulator, or skips the test if the emulator is not installed.
func googles(t testing.TB) *backend {
	t.Helper()
	googleWanted.Store(true)
	p, err := startGoogle()
	if errors.Is(err, google.ErrNotInstalled) {
		t.Skip("Google's Firestore emulator is not installed: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return connect(t, "google", p.Addr())
}

// onBoth runs a test in parallel against this server and against Google's emulator.
func onBoth(t *testing.T, test func(t *testing.T, b *backend)) {
	t.Helper()
	t.Parallel()
	t.Run("ours", func(t *testing.T) { t.Parallel(); test(t, ours(t)) })
	t.Run("google", func(t *testing.T) { t.Parallel(); test(t, googles(t)) })
}

func wantCode(t testing.TB, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("the code is %v, want %v (%v)", got, want, err)
	}
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
