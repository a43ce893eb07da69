//go:build unix

// Package google starts the Pub/Sub and Firestore emulators of the Google Cloud SDK, for tests that compare a server with
// Google's. Start with [StartPubSub] and [StartFirestore].
//
// The emulators are Java programs behind shell scripts. A guard process and its emulator share a process group. The guard
// kills the group when Stop is called, and also when the starting process dies. So no JVM outlives the tests.
//
// The package knows nothing of the servers under test. Of this module it may import emulator/port only.
package google

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"parley.internal/emulator/port"
)

// ErrNotInstalled means that the Google Cloud SDK, the emulator component or Java is not installed. The wrapping error
// names the missing part. Tests skip on ErrNotInstalled.
var ErrNotInstalled = errors.New("google emulator not installed")

// startTimeout is the longest wait for the first answer of an emulator. A cold start takes two to five seconds on a small
// machine, and tests of several packages may start emulators at the same time.
const startTimeout = 90 * time.Second

// keptOutput is the size of the kept output of an emulator, in bytes.
const keptOutput = 64 << 10

// errExited means that the emulator ended before it was ready, most often because another process took the port.
var errExited = errors.New("emulator exited")

// Process is one running emulator.
type Process struct {
	addr  string
	cmd   *exec.Cmd
	leash io.Closer // the guard's stdin: closing it ends the group
	out   *tail
	done  chan struct{} // closed when the whole group has been reaped
	stop  sync.Once
}

// Paths of the emulators in the SDK.
const (
	pubsubScript    = "platform/pubsub-emulator/bin/cloud-pubsub-emulator"
	firestoreScript = "platform/cloud-firestore-emulator/cloud_firestore_emulator"
)

// StartPubSub starts the Pub/Sub emulator (the SDK component pubsub-emulator) on a free loopback port. It returns when the
// emulator answers. The context limits the start only. The error is ErrNotInstalled, or contains the emulator's output.
//
// See https://cloud.google.com/pubsub/docs/emulator.
func StartPubSub(ctx context.Context) (*Process, error) {
	return start(ctx, pubsubScript)
}

// StartFirestore starts the Firestore emulator (the SDK component cloud-firestore-emulator) on a free loopback port. It
// returns when the emulator answers. The context limits the start only. The error is ErrNotInstalled, or contains the
// emulator's output.
//
// See https://cloud.google.com/firestore/native/docs/emulator.
func StartFirestore(ctx context.Context) (*Process, error) {
	return start(ctx, firestoreScript, "start")
}

// Addr returns the emulator's host:port. The emulator serves gRPC without TLS.
func (p *Process) Addr() string { return p.addr }

// Output returns the latest output of the emulator, at most 64 KiB.
func (p *Process) Output() string { return p.out.String() }

// Stop kills the emulator's process group and returns when all its processes are gone. Stop may be called more than once.
func (p *Process) Stop() {
	p.stop.Do(func() {
		p.leash.Close()
		// The guard kills its own group when the leash closes. The second kill is for a guard killed before. Usually
		// the group is gone, and the error is ESRCH.
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	})
	<-p.done
}

// Installed returns nil if both emulators are installed, or ErrNotInstalled.
func Installed(ctx context.Context) error {
	_, err := locate(ctx, pubsubScript)
	_, err2 := locate(ctx, firestoreScript)
	return errors.Join(err, err2)
}

// locate returns the path of an emulator's script in the SDK.
func locate(ctx context.Context, script string) (path string, err error) {
	root, err := sdkRoot(ctx)
	if err != nil {
		return "", err
	}
	path = filepath.Join(root, script)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w: %s is not in the Google Cloud SDK", ErrNotInstalled, filepath.Base(path))
	}
	if os.Getenv("JAVA_HOME") == "" {
		if _, err := exec.LookPath("java"); err != nil {
			return "", fmt.Errorf("%w: no java: %w", ErrNotInstalled, err)
		}
	}
	return path, nil
}

func start(ctx context.Context, script string, args ...string) (*Process, error) {
	path, err := locate(ctx, script)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	// The emulators cannot choose a free port themselves. Another process may take the chosen port before the JVM
	// listens, and would answer in place of the emulator. So there are several tries, with ports outside the system's
	// ephemeral range.
	for try := 0; ; try++ {
		p, err := startOnce(ctx, path, args)
		if err == nil {
			return p, nil
		}
		if !errors.Is(err, errExited) || try == 2 {
			return nil, err
		}
	}
}

// guard is a shell script. It runs its arguments in the background and kills its process group when the command or
// standard input ends. Standard input is a pipe, and also ends when the starting process dies.
const guard = `{ "$@" </dev/null; kill -KILL 0; } & read -r _; kill -KILL 0`

func startOnce(ctx context.Context, path string, args []string) (*Process, error) {
	addr, err := port.Free()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(path), err)
	}
	host, number, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(path), err)
	}
	argv := append([]string{"-c", guard, "guard", path}, args...)
	argv = append(argv, "--host="+host, "--port="+number)
	cmd := exec.Command("/bin/sh", argv...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out := &tail{}
	cmd.Stdout, cmd.Stderr = out, out
	leash, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(path), err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(path), err)
	}
	p := &Process{addr: addr, cmd: cmd, leash: leash, out: out, done: make(chan struct{})}
	go func() {
		// Wait also drains the output pipe. The last process of the group closes the pipe.
		_ = cmd.Wait()
		close(p.done)
	}()
	if err := p.ready(ctx); err != nil {
		p.Stop()
		return nil, fmt.Errorf("start %s on %s: %w; its output:\n%s", filepath.Base(path), addr, err, p.Output())
	}
	return p, nil
}

// ready waits until the emulator answers HTTP on its port.
func (p *Process) ready(ctx context.Context) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.addr+"/", nil)
		if err != nil {
			return fmt.Errorf("probe: %w", err)
		}
		if res, err := client.Do(req); err == nil {
			res.Body.Close()
			return nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			return errExited
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", context.Cause(ctx))
		}
	}
}

// sdkRoot derives the root of the SDK from the path of the gcloud command. If gcloud is a wrapper outside the SDK, sdkRoot
// runs it: a second of Python.
func sdkRoot(ctx context.Context) (string, error) {
	gcloud, err := exec.LookPath("gcloud")
	if err != nil {
		return "", fmt.Errorf("%w: no gcloud: %w", ErrNotInstalled, err)
	}
	if real, err := filepath.EvalSymlinks(gcloud); err == nil {
		root := filepath.Dir(filepath.Dir(real))
		if _, err := os.Stat(filepath.Join(root, "platform")); err == nil {
			return root, nil
		}
	}
	out, err := exec.CommandContext(ctx, gcloud, "info", "--format=value(installation.sdk_root)").Output()
	if err != nil {
		return "", fmt.Errorf("%w: gcloud info: %w", ErrNotInstalled, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// tail keeps the latest output of a process.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf.Write(p)
	if over := t.buf.Len() - keptOutput; over > 0 {
		t.buf.Next(over)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}
