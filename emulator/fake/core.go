package fake

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"parley.internal/gateway/loopback"
	"parley.internal/shared/retry"
)

// maxBody bounds the body of a request, in bytes. No real request is larger.
const maxBody = 1 << 20

// Config configures a [Core]. Only Hosts, Sockets and Stop are optional.
type Config struct {
	// Mutex and Tasks hold the fake's state lock and goroutines.
	Mutex *Mutex
	Tasks *Tasks
	// Listener accepts HTTP connections, and Handler answers the requests. Close closes the listener and the contexts
	// of the requests. On the loopback interface, only requests to localhost, a loopback address or one of Hosts reach
	// Handler: a foreign page could otherwise use the fake under a name that resolves to this machine (package loopback).
	Listener net.Listener
	Handler  http.Handler
	// Hosts are the platform's real host names. They are accepted beside loopback hosts: a client redirected to the fake
	// by its transport still sends them, and no attacker owns them.
	Hosts []string
	// Sockets are the paths of WebSockets. WebSocket requests are not counted, and meet only faults with the whole
	// path.
	Sockets []string
	// Refuse writes an error in the platform's format, with the fault's Status and a text with the reason. The fault's
	// Header is already set.
	Refuse func(w http.ResponseWriter, f HTTPFault, why string)
	// Now is the fake's clock.
	Now func() time.Time
	// Stop ends everything that the context of Tasks alone does not end. The context has ended already.
	Stop func() error
}

// Core is embedded by a platform's fake. Its methods are safe for concurrent use.
type Core struct {
	config Config
	web    *http.Server
	closed func() error

	// Guarded by Config.Mutex.
	faults   Faults[HTTPFault]
	requests []Request
}

// New serves HTTP at once. The handler may run before New returns.
func New(c Config) *Core {
	core := &Core{config: c}
	core.closed = sync.OnceValue(core.shutdown)
	var handler http.Handler = http.HandlerFunc(core.serve)
	if loopback.IsListener(c.Listener.Addr()) {
		handler = loopback.Only(handler, c.Hosts...)
	}
	core.web = &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return c.Tasks.Context() },
	}
	c.Tasks.Go(func() {
		// Serve returns when Close closes the listener. If the listener breaks earlier, requests fail visibly.
		_ = core.web.Serve(c.Listener)
	})
	return core
}

// Close ends all connections and requests, and returns when every goroutine of the server has ended. Further calls
// return the same result.
func (c *Core) Close() error { return c.closed() }

func (c *Core) shutdown() error {
	c.config.Tasks.end()
	err := ignoreClosed(c.web.Close())
	if c.config.Stop != nil {
		err = errors.Join(err, ignoreClosed(c.config.Stop()))
	}
	c.config.Tasks.running.Wait()
	return err
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Await returns when cond holds. It calls cond at first and after every change of the server. cond may call any method
// of the server. The error is the context's error, or ErrClosed.
func (c *Core) Await(ctx context.Context, cond func() bool) error {
	for {
		changed := c.config.Mutex.next()
		if cond() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("fake: awaiting a change: %w", context.Cause(ctx))
		case <-c.config.Tasks.ctx.Done():
			return ErrClosed
		}
	}
}

// Request is a received HTTP request.
type Request struct {
	Method, Path string
	// Status is the status of the answer, or 0 if a fault withheld the answer.
	Status int
	At     time.Time
}

// Requests returns the finished requests with a path that ends in suffix, such as "/messages", in order of their ends.
// It includes requests with a withheld answer, and excludes WebSockets.
func (c *Core) Requests(suffix string) []Request {
	c.config.Mutex.Lock()
	defer c.config.Mutex.Unlock()
	var found []Request
	for _, r := range c.requests {
		if strings.HasSuffix(r.Path, suffix) {
			found = append(found, r)
		}
	}
	return found
}

// FailHTTP adds a fault. Faults apply in the order of the calls, one per request.
func (c *Core) FailHTTP(f HTTPFault) {
	f.Header = f.Header.Clone()
	c.config.Mutex.Lock()
	defer c.config.Mutex.UnlockChanged()
	c.faults.Add(f, f.Skip, f.Times)
}

// ClearFaults removes all pending faults.
func (c *Core) ClearFaults() {
	c.config.Mutex.Lock()
	defer c.config.Mutex.UnlockChanged()
	c.faults = Faults[HTTPFault]{}
}

// fault returns the fault for a request, or the zero fault if the request succeeds.
func (c *Core) fault(r *http.Request, socket bool) HTTPFault {
	c.config.Mutex.Lock()
	defer c.config.Mutex.Unlock()
	f := c.faults.Next(func(f *HTTPFault) bool {
		if f.Method != "" && f.Method != r.Method {
			return false
		}
		if socket || slices.Contains(c.config.Sockets, f.Path) {
			return f.Path == r.URL.Path
		}
		return strings.HasSuffix(r.URL.Path, f.Path)
	})
	if f == nil {
		return HTTPFault{}
	}
	return *f
}

// serve answers a request according to its fault. Close waits for serve, also for hijacked connections, unlike
// http.Server.
func (c *Core) serve(w http.ResponseWriter, r *http.Request) {
	if !c.config.Tasks.begin() {
		http.Error(w, "closing", http.StatusServiceUnavailable)
		return
	}
	defer c.config.Tasks.running.Done()
	// The server notices a disconnected client only after the body is read.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		c.config.Refuse(w, HTTPFault{Status: http.StatusRequestEntityTooLarge}, err.Error())
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	socket := slices.Contains(c.config.Sockets, r.URL.Path)
	f := c.fault(r, socket)
	if f.Delay > 0 {
		_ = retry.Sleep(r.Context(), f.Delay)
	}
	fails := f.Status != 0 || f.Drop || f.Hang
	rec := &recorder{header: http.Header{}, status: http.StatusOK}
	switch {
	case socket && !fails:
		// A hijacked connection cannot be withheld.
		c.config.Handler.ServeHTTP(w, r)
		return
	case !socket && (f.Done || !fails):
		c.config.Handler.ServeHTTP(rec, r)
	}
	status := f.Status // 0 without an answer
	if !fails {
		status = rec.status
	}
	if !socket {
		c.count(r, status)
	}
	switch {
	case !fails:
		rec.flush(w)
	case f.Status != 0:
		maps.Copy(w.Header(), f.Header)
		if f.Status < http.StatusBadRequest {
			w.WriteHeader(f.Status)
			return
		}
		c.config.Refuse(w, f, cmp.Or(f.Message, "injected fault"))
	default:
		if f.Hang {
			<-r.Context().Done()
		}
		panic(http.ErrAbortHandler)
	}
}

func (c *Core) count(r *http.Request, status int) {
	c.config.Mutex.Lock()
	defer c.config.Mutex.UnlockChanged()
	c.requests = append(c.requests, Request{r.Method, r.URL.Path, status, c.config.Now()})
}

// recorder keeps an answer until flush.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

func (r *recorder) flush(w http.ResponseWriter) {
	maps.Copy(w.Header(), r.header)
	w.WriteHeader(r.status)
	// A disconnected client is not an error of the server.
	_, _ = w.Write(r.body.Bytes())
}
