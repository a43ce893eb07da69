// Package emulatortest runs a test on the embedded servers and on Google's emulators, to hold both to the same behaviour.
//
// TestMain of a package calls [Main]. The tests call [PubSub], [Firestore] or [Both]. The first test starts Google's
// emulators, and Main stops them. If Google's emulators are not installed, or with -short, their half is skipped with a
// message.
package emulatortest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

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

// Main runs a package's tests, stops the servers, and exits. m is a *testing.M or a wrapper of one.
func Main(m interface{ Run() int }) {
	code := m.Run()
	for _, s := range []*server{&embeddedPubSub, &embeddedFirestore, &googlePubSub, &googleFirestore} {
		if s.stop != nil {
			s.stop()
		}
	}
	os.Exit(code)
}

// Both runs a test with Pub/Sub and Firestore.
func Both(t *testing.T, run func(t *testing.T, env Env)) { on(t, true, true, run) }

// PubSub runs a test with Pub/Sub alone.
func PubSub(t *testing.T, run func(t *testing.T, env Env)) { on(t, true, false, run) }

// Firestore runs a test with Firestore alone.
func Firestore(t *testing.T, run func(t *testing.T, env Env)) { on(t, false, true, run) }

func on(t *testing.T, wantPubSub, wantFirestore bool, run func(t *testing.T, env Env)) {
	t.Helper()
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
				if env.PubSub, err = side.pubsub(); err == nil {
					t.Setenv("PUBSUB_EMULATOR_HOST", env.PubSub)
				}
			}
			if wantFirestore && err == nil {
				if env.Firestore, err = side.firestore(); err == nil {
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
