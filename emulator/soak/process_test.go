package soak

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestMain runs the tests, or acts as a part that a test started.
func TestMain(m *testing.M) {
	switch os.Getenv("SOAK_TEST_PART") {
	case "":
		os.Exit(m.Run())
	case "fail":
		fmt.Fprintln(os.Stderr, "the part's complaint")
		os.Exit(3)
	case "serve":
		fmt.Println(`{"id": "instance1", "addr": "127.0.0.1:1"}`)
		time.Sleep(time.Hour) // until a signal
	case "chatter":
		fmt.Println("hello")
		time.Sleep(time.Hour)
	}
}

// start starts this test binary as a gateway part.
func start(t *testing.T, part string) (*process, Ready, error) {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, ready, err := startGateway(t.Context(), binary, t.TempDir(), "gateway0", 0, append(os.Environ(), "SOAK_TEST_PART="+part))
	if p != nil {
		t.Cleanup(p.kill)
	}
	return p, ready, err
}

func TestFailedStartShowsTheEndOfTheLog(t *testing.T) {
	_, _, err := start(t, "fail")
	if err == nil || !strings.Contains(err.Error(), "the part's complaint") || !strings.Contains(err.Error(), "gateway0.log") {
		t.Errorf("error = %v; want the log's end and its path", err)
	}
	if _, _, err := start(t, "chatter"); err == nil {
		t.Error("a part without a ready line was accepted")
	}
}

func TestStartedPartIsReadyAndEndsOnSIGTERM(t *testing.T) {
	p, ready, err := start(t, "serve")
	if err != nil {
		t.Fatal(err)
	}
	if ready != (Ready{ID: "instance1", Addr: "127.0.0.1:1"}) {
		t.Errorf("ready = %+v", ready)
	}
	if end := p.terminate(10 * time.Second); !end.inTime || end.clean {
		t.Errorf("end = %+v; want in time, and not clean because the part has no handler for SIGTERM", end)
	}
}

func TestStoppedPartIsKilledAtTheLimit(t *testing.T) {
	p, _, err := start(t, "serve")
	if err != nil {
		t.Fatal(err)
	}
	p.stop() // SIGTERM waits until the process continues
	if end := p.terminate(50 * time.Millisecond); end.inTime || end.clean || end.took < 50*time.Millisecond {
		t.Errorf("end = %+v; want a kill after the limit", end)
	}
}
