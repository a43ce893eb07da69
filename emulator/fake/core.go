package fake

import (
	"bytes"
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

	"parley.internal/shared/retry"
)

// maxBody is more than any request needs.
const maxBody = 1 << 20

// Config is what a Core is made of. Nothing in it may be absent but Sockets and Stop.
type Config struct {
	// Mutex and Tasks are those of the stand-in's state and goroutines.
	Mutex *Mutex
	Tasks *Tasks
	// Listener is where HTTP is spoken, and Handler answers it. Close closes
	// the listener, and the contexts of its requests.
	Listener net.Listener
	Handler  http.Handler
	// Sockets are the paths of WebSockets. Their requests are not counted, and
	// meet only the faults that name their whole path.
	Sockets []string
	// Refuse answers with an error of the platform's form: the fault's Status,
	// and a text that says why. What the fault wants in the header is there.
	Refuse func(w http.ResponseWriter, f HTTPFault, why string)
	// Now is the stand-in's clock.
	Now func() time.Time
	// Stop ends what does not end by the context of Tasks alone, which ended
	// before.
	Stop func() error
}

// Core is what a stand-in embeds. Its methods may be called from any goroutine.
type Core struct {
	config Config
	web    *http.Server
	closed func() error

	// Guarded by the stand-in's mutex.
	faults   Faults[HTTPFault]
	requests []Request
}

// New serves HTTP at once. The handler must not rely on what New returns.
func New(c Config) *Core {
	core := &Core{config: c}
	core.closed = sync.OnceValue(core.shutdown)
	core.web = &http.Server{
		Handler:           http.HandlerFunc(core.serve),
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return c.Tasks.Context() },
	}
	c.Tasks.Go(func() {
		// It returns when Close closes the listener; one that breaks before
		// shows in the requests that fail.
		_ = core.web.Serve(c.Listener)
	})
	return core
}

// Close ends all connections and requests, and returns when every goroutine of
// the server has ended. It may be called more than once.
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

// Await returns once cond holds, which it asks at first and then whenever
// something changed in the server. cond may call any method of the server. The
// error is that of the context, or ErrClosed.
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

// Request is one that reached HTTP.
type Request struct {
	Method, Path string
	// Status is what was answered, and 0 where a fault kept the answer back.
	Status int
	At     time.Time
}

// Requests are those that were answered or kept back so far whose path ends in
// suffix, such as "/messages", in order of their ends. WebSockets do not count.
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

// FailHTTP makes requests fail. Faults apply in the order in which they were
// given, one at a time.
func (c *Core) FailHTTP(f HTTPFault) {
	f.Header = f.Header.Clone()
	c.config.Mutex.Lock()
	defer c.config.Mutex.UnlockChanged()
	c.faults.Add(f, f.Skip, f.Times)
}

// ClearFaults forgets what is still to go wrong.
func (c *Core) ClearFaults() {
	c.config.Mutex.Lock()
	defer c.config.Mutex.UnlockChanged()
	c.faults = Faults[HTTPFault]{}
}

// fault is the one that a request meets, or the zero one, by which nothing goes
// wrong.
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

// serve answers a request as the fault that it meets wants. Close waits for it,
// also where the connection is hijacked, which http.Server forgets then.
func (c *Core) serve(w http.ResponseWriter, r *http.Request) {
	if !c.config.Tasks.begin() {
		http.Error(w, "closing", http.StatusServiceUnavailable)
		return
	}
	defer c.config.Tasks.running.Done()
	// Only once the body is read does the server notice a client that goes away
	// while it is kept waiting.
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
		// A connection is taken over, and can't be kept back.
		c.config.Handler.ServeHTTP(w, r)
		return
	case !socket && (f.Done || !fails):
		c.config.Handler.ServeHTTP(rec, r)
	}
	status := f.Status // 0 where nothing is answered
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
		c.config.Refuse(w, f, "injected fault")
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

// recorder keeps an answer back.
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
	// The client that went away is no concern of the server's.
	_, _ = w.Write(r.body.Bytes())
}
