// Package emulatortest runs a test on the embedded servers and on Google's emulators, to hold both to the same behaviour.
//
// TestMain of a package calls [Main]. The tests call [PubSub], [Firestore] or [Both], and connect with the options of [Env].
// These tests run in parallel. A test of code that reads the emulator variables of the environment passes [InEnvironment]
// and runs alone. The first test starts Google's emulators, and Main stops them. If Google's emulators are not installed,
// or with -short, their half is skipped with a message. The tests of the packages that use emulatortest cover the package.
package emulatortest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"google.golang.org/api/option"

	"parley.internal/emulator/firestore"
	"parley.internal/emulator/google"
	"parley.internal/emulator/pubsub"
	"parley.internal/shared/config"
)

// Env holds the addresses of a test's servers. Every test has its own project, so tests do not share data.
type Env struct {
	Project   string
	PubSub    string // host:port
	Firestore string // host:port
}

// Deployment returns a configuration with the test's project.
func (e Env) Deployment() config.Deployment {
	return config.Deployment{Project: e.Project, Database: "(default)", LogFormat: "text", LogLevel: "debug"}
}

// PubSubOption returns the option of a Pub/Sub client that connects to the test's server. Every client needs its own
// option, because a client closes its connection.
func (e Env) PubSubOption(t testing.TB) option.ClientOption {
	t.Helper()
	return option.WithGRPCConn(Dial(t, e.PubSub))
}

// FirestoreOption returns the option of a Firestore client that connects to the test's server. Every client needs its own
// option, because a client closes its connection.
func (e Env) FirestoreOption(t testing.TB) option.ClientOption {
	t.Helper()
	return option.WithGRPCConn(Dial(t, e.Firestore))
}

// Option changes how a test runs.
type Option int

// InEnvironment sets PUBSUB_EMULATOR_HOST and FIRESTORE_EMULATOR_HOST for the test. The test runs alone, because the
// environment belongs to the whole process.
const InEnvironment Option = iota

// server is a server started on first use.
type server struct {
	once sync.Once
	addr string
	err  error
	stop func()
}

func (s *server) get(start func() (addr string, stop func(), err error)) (string, error) {
	s.once.Do(func() { s.addr, s.stop, s.err = start() })
	return s.addr, s.err
}

var embeddedPubSub, embeddedFirestore, googlePubSub, googleFirestore server

// Parallel lets n tests run at the same time, also on a machine with fewer processors: most tests of the servers wait, and
// compute little. The flag -parallel has priority. Parallel is for TestMain.
func Parallel(n int) {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if chosen {
		return
	}
	if err := flag.Set("test.parallel", strconv.Itoa(n)); err != nil {
		panic(err) // the flag exists in every test
	}
}

// Main runs a package's tests, four at a time, stops the servers, and exits. m is a *testing.M or a wrapper of one.
func Main(m interface{ Run() int }) {
	Parallel(4)
	code := m.Run()
	for _, s := range []*server{&embeddedPubSub, &embeddedFirestore, &googlePubSub, &googleFirestore} {
		if s.stop != nil {
			s.stop()
		}
	}
	os.Exit(code)
}

// Both runs a test with Pub/Sub and Firestore, in parallel with other tests. Both returns after the test.
func Both(t *testing.T, run func(t *testing.T, env Env), opts ...Option) {
	t.Helper()
	on(t, true, true, run, opts)
}

// PubSub runs a test with Pub/Sub alone, in parallel with other tests. PubSub returns after the test.
func PubSub(t *testing.T, run func(t *testing.T, env Env), opts ...Option) {
	t.Helper()
	on(t, true, false, run, opts)
}

// Firestore runs a test with Firestore alone, in parallel with other tests. Firestore returns after the test.
func Firestore(t *testing.T, run func(t *testing.T, env Env), opts ...Option) {
	t.Helper()
	on(t, false, true, run, opts)
}

// parallel holds the running tests marked as parallel. A test may call Both, PubSub and Firestore several times.
var parallel sync.Map

func on(t *testing.T, wantPubSub, wantFirestore bool, run func(t *testing.T, env Env), opts []Option) {
	t.Helper()
	inEnvironment := slices.Contains(opts, InEnvironment)
	if !inEnvironment {
		if _, again := parallel.LoadOrStore(t, true); !again {
			t.Cleanup(func() { parallel.Delete(t) })
			t.Parallel()
		}
	}
	sides := []struct {
		name              string
		pubsub, firestore func() (string, error)
	}{
		{"embedded",
			func() (string, error) { return embeddedPubSub.get(startEmbeddedPubSub) },
			func() (string, error) { return embeddedFirestore.get(startEmbeddedFirestore) }},
		{"google",
			func() (string, error) { return googlePubSub.get(startGoogle(google.StartPubSub)) },
			func() (string, error) { return googleFirestore.get(startGoogle(google.StartFirestore)) }},
	}
	for _, side := range sides {
		t.Run(side.name, func(t *testing.T) {
			if side.name == "google" && testing.Short() {
				t.Skip("Google's emulators are left out with -short")
			}
			env := Env{Project: "p" + strings.ReplaceAll(uuid.NewString(), "-", "")[:20]}
			var err error
			if wantPubSub {
				if env.PubSub, err = side.pubsub(); err == nil && inEnvironment {
					t.Setenv("PUBSUB_EMULATOR_HOST", env.PubSub)
				}
			}
			if wantFirestore && err == nil {
				if env.Firestore, err = side.firestore(); err == nil && inEnvironment {
					t.Setenv("FIRESTORE_EMULATOR_HOST", env.Firestore)
				}
			}
			if errors.Is(err, google.ErrNotInstalled) {
				t.Skipf("not run on Google's emulators: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			run(t, env)
		})
	}
}

func startEmbeddedPubSub() (string, func(), error) {
	s, err := pubsub.New()
	if err != nil {
		return "", nil, fmt.Errorf("start the embedded Pub/Sub: %w", err)
	}
	return s.Addr(), func() { s.Close() }, nil
}

func startEmbeddedFirestore() (string, func(), error) {
	s, err := firestore.New()
	if err != nil {
		return "", nil, fmt.Errorf("start the embedded Firestore: %w", err)
	}
	return s.Addr(), func() { s.Close() }, nil
}

func startGoogle(start func(context.Context) (*google.Process, error)) func() (string, func(), error) {
	return func() (string, func(), error) {
		p, err := start(context.Background()) // outlives the test that asks first
		if err != nil {
			return "", nil, err
		}
		return p.Addr(), p.Stop, nil
	}
}
