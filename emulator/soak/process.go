package soak

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"
)

// Ready is the line that a gateway part prints once it serves.
type Ready struct {
	ID   string `json:"id"`
	Addr string `json:"addr"`
}

// process is one part that runs.
type process struct {
	name  string
	log   string // the file of what it logs
	cmd   *exec.Cmd
	guard io.Closer     // the other end of its standard input: it ends when this is closed
	done  chan struct{} // closed when it has ended
	ended atomic.Bool   // it was killed on purpose
}

// startTime bounds how long a part may take to be ready. It is long: the machine is busy.
const startTime = 30 * time.Second

// spawn starts a part. What it logs is appended to a file of its name. out gets its standard output.
func spawn(binary, dir, name string, environ []string, args ...string) (p *process, out io.Reader, err error) {
	path := filepath.Join(dir, name+".log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer log.Close() // the child has its own
	p = &process{name: name, log: path, cmd: exec.Command(binary, append([]string{"part"}, args...)...), done: make(chan struct{})}
	p.cmd.Env, p.cmd.Stderr, p.cmd.SysProcAttr = environ, log, attributes()
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.guard = stdin
	read, write, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.cmd.Stdout = write
	err = p.cmd.Start()
	write.Close() // the child has its own
	if err != nil {
		read.Close()
		return nil, nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { // ends with the process
		defer close(p.done)
		p.cmd.Wait() // how it ended is in its state
		read.Close()
	}()
	return p, read, nil
}

// startGateway starts a gateway part and waits until it serves.
func startGateway(ctx context.Context, binary, dir, name string, skew time.Duration, environ []string) (*process, Ready, error) {
	p, out, err := spawn(binary, dir, name, environ, "gateway", "--skew", skew.String())
	if err != nil {
		return nil, Ready{}, err
	}
	type line struct {
		ready Ready
		err   error
	}
	lines := make(chan line, 1)
	go func() { // ends with the first line, or with the process
		var l line
		scanner := bufio.NewScanner(out)
		if scanner.Scan() {
			l.err = json.Unmarshal(scanner.Bytes(), &l.ready)
		} else {
			l.err = errors.Join(errors.New("it ended before it was ready"), scanner.Err())
		}
		lines <- l
	}()
	timeout := time.NewTimer(startTime)
	defer timeout.Stop()
	var l line
	select {
	case l = <-lines:
	case <-ctx.Done():
		l.err = ctx.Err()
	case <-timeout.C:
		l.err = errors.New("it was not ready in time")
	}
	if l.err != nil {
		p.kill()
		return nil, Ready{}, fmt.Errorf("start %s: %w: %s", name, l.err, p.lastLogged())
	}
	return p, l.ready, nil
}

// startFunction starts a function part and waits until it answers requests and has its connections.
func startFunction(ctx context.Context, binary, dir, name, addr string, environ []string) (*process, error) {
	p, _, err := spawn(binary, dir, name, environ, "function", name, "--listen", addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/", nil)
		if err != nil {
			p.kill()
			return nil, fmt.Errorf("start %s: %w", name, err)
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
			return p, nil
		}
		select {
		case <-p.done:
			return nil, fmt.Errorf("start %s: it ended: %s: %s", name, p.cmd.ProcessState, p.lastLogged())
		case <-ctx.Done():
			p.kill()
			return nil, fmt.Errorf("start %s: %w", name, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// maxLastLogged is how much of a log an error shows, in bytes.
const maxLastLogged = 1000

// lastLogged is the end of what the process logged.
func (p *process) lastLogged() string {
	log, err := os.ReadFile(p.log)
	if err != nil {
		return "it can't be told why: " + err.Error()
	}
	return string(bytes.TrimSpace(log[max(0, len(log)-maxLastLogged):]))
}

// kill ends the process at once, also one that is stopped, and waits for its end.
func (p *process) kill() {
	p.ended.Store(true)
	p.signal(syscall.SIGKILL)
	p.guard.Close()
	<-p.done
}

// terminate asks the process to end, waits for its end, and kills it if that takes longer than the limit. It reports how
// long it took, and whether the process ended in time, and well.
func (p *process) terminate(limit time.Duration) (took time.Duration, inTime, well bool) {
	p.ended.Store(true)
	began := time.Now()
	p.signal(syscall.SIGTERM)
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	select {
	case <-p.done:
		p.guard.Close()
		return time.Since(began), true, p.cmd.ProcessState.Success()
	case <-timeout.C:
		p.kill()
		return time.Since(began), false, false
	}
}

// stop and resume are what a suspended laptop, a live migration or a starved container do to a process.
func (p *process) stop()   { p.signal(syscall.SIGSTOP) }
func (p *process) resume() { p.signal(syscall.SIGCONT) }

// signal signals the process's group, unless it has ended: its number may be another's by then.
func (p *process) signal(s syscall.Signal) {
	select {
	case <-p.done:
	default:
		syscall.Kill(-p.cmd.Process.Pid, s) // fails only where it has ended just now
	}
}
