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

// Ready is the line printed by a gateway part when it serves.
type Ready struct {
	ID   string `json:"id"`
	Addr string `json:"addr"` // host:port
}

// process is a running part: a gateway or a function in its own operating system process.
type process struct {
	name  string
	log   string // path of the log file
	cmd   *exec.Cmd
	guard io.Closer     // write end of the part's standard input; closing it ends the part
	done  chan struct{} // closed at the end of the process
	ended atomic.Bool   // the soak itself ended the process
}

// startTime bounds the start of a part. It is long because the machine is busy.
const startTime = 30 * time.Second

// spawn starts a part. The part's log is appended to the file NAME.log in dir. out reads the part's standard output.
func spawn(binary, dir, name string, environ []string, args ...string) (p *process, out io.Reader, err error) {
	path := filepath.Join(dir, name+".log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer log.Close() // the child has a copy
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
	write.Close() // the child has a copy
	if err != nil {
		read.Close()
		return nil, nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { // ends with the process
		defer close(p.done)
		p.cmd.Wait() // ProcessState holds the result
		read.Close()
	}()
	return p, read, nil
}

// startGateway starts a gateway part and waits until it serves. skew is added to the gateway's clock.
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
			l.err = errors.Join(errors.New("the process ended before it was ready"), scanner.Err())
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
		l.err = fmt.Errorf("not ready after %s", startTime)
	}
	if l.err != nil {
		p.kill()
		return nil, Ready{}, fmt.Errorf("start %s: %w; %s", name, l.err, p.logTail())
	}
	return p, l.ready, nil
}

// startFunction starts a function part and waits until it answers requests.
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
			return nil, fmt.Errorf("start %s: the process ended: %s; %s", name, p.cmd.ProcessState, p.logTail())
		case <-ctx.Done():
			p.kill()
			return nil, fmt.Errorf("start %s: %w; %s", name, ctx.Err(), p.logTail())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// maxLogTail is how many bytes of a log an error shows.
const maxLogTail = 1000

// logTail returns the end of the part's log, for error messages.
func (p *process) logTail() string {
	log, err := os.ReadFile(p.log)
	if err != nil {
		return "no log: " + err.Error()
	}
	return fmt.Sprintf("last lines of %s: %s", p.log, bytes.TrimSpace(log[max(0, len(log)-maxLogTail):]))
}

// kill ends the process at once, also a stopped process, and waits for its end.
func (p *process) kill() {
	p.ended.Store(true)
	p.signal(syscall.SIGKILL)
	p.guard.Close()
	<-p.done
}

// exit describes the end of a terminated process.
type exit struct {
	took   time.Duration // from SIGTERM to the end
	inTime bool          // false: the process had to be killed
	clean  bool          // exit code 0
}

// terminate sends SIGTERM, waits for the end of the process, and kills a process that runs longer than limit.
func (p *process) terminate(limit time.Duration) exit {
	p.ended.Store(true)
	began := time.Now()
	p.signal(syscall.SIGTERM)
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	select {
	case <-p.done:
		p.guard.Close()
		return exit{took: time.Since(began), inTime: true, clean: p.cmd.ProcessState.Success()}
	case <-timeout.C:
		p.kill()
		return exit{took: time.Since(began)}
	}
}

// stop suspends the process until resume. A suspended laptop, a live migration and a starved container do the same.
func (p *process) stop()   { p.signal(syscall.SIGSTOP) }
func (p *process) resume() { p.signal(syscall.SIGCONT) }

// signal signals the process group. It does nothing after the end of the process, because the system may reuse the number.
func (p *process) signal(s syscall.Signal) {
	select {
	case <-p.done:
	default:
		syscall.Kill(-p.cmd.Process.Pid, s) // fails only if the process ended a moment ago
	}
}
