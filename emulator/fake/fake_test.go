package fake_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley.internal/emulator/fake"
)

// world is a server that counts its POST requests.
type world struct {
	*fake.Core
	t     *testing.T
	mu    fake.Mutex
	tasks *fake.Tasks
	addr  string
	posts int // under mu
}

func newWorld(t *testing.T) *world {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, tasks: fake.NewTasks(), addr: l.Addr().String()}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /count", func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		defer w.mu.UnlockChanged()
		w.posts++
		rw.Header().Set("Counted", "yes")
		rw.WriteHeader(http.StatusCreated)
	})
	// This handler stands for a WebSocket. It sends hello, and keeps the connection until the server ends.
	mux.HandleFunc("GET /socket", func(rw http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "hello\n")
		<-w.tasks.Context().Done()
		w.mu.Lock()
		defer w.mu.UnlockChanged()
		w.posts = -1
	})
	w.Core = fake.New(fake.Config{
		Mutex:    &w.mu,
		Tasks:    w.tasks,
		Listener: l,
		Handler:  mux,
		Sockets:  []string{"/socket"},
		Refuse: func(rw http.ResponseWriter, f fake.HTTPFault, why string) {
			http.Error(rw, "refused: "+why, f.Status)
		},
		Now: time.Now,
	})
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return w
}

func TestForeignHostsAreRefused(t *testing.T) {
	w := newWorld(t)
	for host, want := range map[string]int{"localhost:1": http.StatusCreated, "evil.example": http.StatusMisdirectedRequest} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+w.addr+"/count", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %s; want %d", host, resp.Status, want)
		}
	}
	if n := w.counted(); n != 1 {
		t.Errorf("%d requests reached the fake; want 1", n)
	}
}

func (w *world) counted() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.posts
}

// post sends a request and returns the response; status is 0 without a response.
func (w *world) post(ctx context.Context) (status int, header http.Header, body string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+w.addr+"/count", strings.NewReader("one"))
	if err != nil {
		w.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

// open requests the WebSocket. The connection is closed at the end of the test.
func (w *world) open() (net.Conn, *bufio.Reader) {
	w.t.Helper()
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, "GET /socket HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		w.t.Fatal(err)
	}
	return c, bufio.NewReader(c)
}

func TestAwaitReturnsAfterAChange(t *testing.T) {
	w := newWorld(t)
	asked := make(chan struct{}, 100)
	met := make(chan error, 1)
	go func() {
		met <- w.Await(t.Context(), func() bool {
			asked <- struct{}{}
			return w.counted() == 1
		})
	}()
	<-asked // the condition does not hold yet
	w.post(t.Context())
	if err := <-met; err != nil {
		t.Error(err)
	}
}

func TestAwaitEndsWithItsContextAndWithTheServer(t *testing.T) {
	w := newWorld(t)
	never := func() bool { return false }
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if err := w.Await(ctx, never); !errors.Is(err, enough) {
		t.Errorf("Await returned %v after the end of its context", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if err := w.Await(t.Context(), never); !errors.Is(err, fake.ErrClosed) {
		t.Errorf("Await returned %v after Close", err)
	}
}

func TestFaultsApplyAfterSkipForTimesRequests(t *testing.T) {
	w := newWorld(t)
	w.FailHTTP(fake.HTTPFault{Method: "GET", Status: 500})
	w.FailHTTP(fake.HTTPFault{Path: "/elsewhere", Status: 500})
	w.FailHTTP(fake.HTTPFault{Path: "/count", Skip: 1, Times: 2, Status: 503})
	w.FailHTTP(fake.HTTPFault{Status: 502})
	// The third fault skips the first request, so the fourth fault applies to it.
	want := []int{502, 503, 503, 201}
	for i, status := range want {
		if got, _, _ := w.post(t.Context()); got != status {
			t.Errorf("request %d got status %d; want %d", i, got, status)
		}
	}
	w.FailHTTP(fake.HTTPFault{Status: 500, Times: 10})
	w.ClearFaults()
	if got, _, _ := w.post(t.Context()); got != 201 {
		t.Errorf("status %d after ClearFaults; want 201", got)
	}
	for i, r := range w.Requests("/count")[:len(want)] {
		if r.Method != "POST" || r.Status != want[i] {
			t.Errorf("request %d is listed as %+v", i, r)
		}
	}
	if r := w.Requests("/elsewhere"); r != nil {
		t.Errorf("requests that were never sent are listed: %v", r)
	}
}

func TestFaultReplacesTheRequestOrItsResponse(t *testing.T) {
	for _, test := range []struct {
		name         string
		fault        fake.HTTPFault
		status, done int
		body         string
	}{
		{"a status", fake.HTTPFault{Status: 500}, 500, 0, "refused: injected fault\n"},
		{"a status after the request", fake.HTTPFault{Status: 500, Done: true}, 500, 1, "refused: injected fault\n"},
		{"a status without a body", fake.HTTPFault{Status: 204}, 204, 0, ""},
		{"a broken connection", fake.HTTPFault{Drop: true}, 0, 0, ""},
		{"a lost answer", fake.HTTPFault{Drop: true, Done: true}, 0, 1, ""},
		{"a slow response", fake.HTTPFault{Delay: time.Millisecond}, 201, 1, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			test.fault.Header = http.Header{"Fault": {"yes"}}
			w.FailHTTP(test.fault)
			status, header, body := w.post(t.Context())
			if status != test.status || body != test.body || w.counted() != test.done {
				t.Errorf("%d %q, executed %d times; want %d %q, %d times", status, body, w.counted(), test.status, test.body, test.done)
			}
			if fails := test.fault.Status != 0; fails != (header.Get("Fault") != "") || fails && header.Get("Counted") != "" {
				t.Errorf("the header is %v", header)
			}
			if r := w.Requests("/count"); len(r) != 1 || r[0].Status != test.status {
				t.Errorf("the request is listed as %v", r)
			}
		})
	}
}

func TestHangingRequestIsListedAndEndsWithTheClientOrTheServer(t *testing.T) {
	w := newWorld(t)
	w.FailHTTP(fake.HTTPFault{Hang: true, Done: true, Times: 2})
	for i, end := range []func(cancel func()){
		func(cancel func()) { cancel() },
		func(func()) { _ = w.Close() },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var client sync.WaitGroup
		client.Go(func() {
			if status, _, _ := w.post(ctx); status != 0 {
				t.Errorf("status %d; want no response", status)
			}
		})
		if err := w.Await(t.Context(), func() bool { return len(w.Requests("/count")) == i+1 }); err != nil {
			t.Fatal(err)
		}
		if r := w.Requests("/count")[i]; r.Status != 0 || w.counted() != i+1 {
			t.Errorf("the request is listed as %+v, and was executed %d times", r, w.counted())
		}
		end(cancel)
		client.Wait()
	}
}

func TestCloseWaitsForAHijackedConnection(t *testing.T) {
	w := newWorld(t)
	_, in := w.open()
	if line, err := in.ReadString('\n'); line != "hello\n" {
		t.Fatalf("the WebSocket sent %q, %v", line, err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if w.counted() != -1 {
		t.Error("Close returned before the connection's handler")
	}
	if w.tasks.Go(func() { t.Error("the goroutine ran after Close") }) {
		t.Error("Go returned true after Close")
	}
}

func TestWebSocketMeetsOnlyFaultsWithItsPath(t *testing.T) {
	w := newWorld(t)
	w.FailHTTP(fake.HTTPFault{Status: 500})
	_, in := w.open()
	if line, err := in.ReadString('\n'); line != "hello\n" {
		t.Errorf("the WebSocket sent %q, %v", line, err)
	}
	w.FailHTTP(fake.HTTPFault{Path: "/socket", Status: 503})
	_, in = w.open()
	if line, err := in.ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 503") {
		t.Errorf("the WebSocket sent %q, %v", line, err)
	}
	if r := w.Requests(""); r != nil {
		t.Errorf("WebSocket requests are listed: %v", r)
	}
}

func TestLargeBodyIsRefused(t *testing.T) {
	w := newWorld(t)
	resp, err := http.Post("http://"+w.addr+"/count", "text/plain", strings.NewReader(strings.Repeat("x", 1<<20+1)))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge || w.counted() != 0 {
		t.Errorf("status %d, executed %d times", resp.StatusCode, w.counted())
	}
}

func TestQueueReturnsFramesInOrderAndClosesOnce(t *testing.T) {
	q := fake.NewQueue[int](func() { t.Error("overflow was called") })
	q.Push(1)
	q.Push(2)
	<-q.Ready()
	if frames, last := q.Take(); len(frames) != 2 || frames[0] != 1 || frames[1] != 2 || last {
		t.Errorf("Take returned %v, %v", frames, last)
	}
	q.Push(3)
	q.Close(4000)
	q.Close(4001)
	q.Push(4)
	<-q.Ready()
	if frames, last := q.Take(); len(frames) != 1 || frames[0] != 3 || !last || q.Code() != 4000 {
		t.Errorf("Take returned %v, %v after Close, with code %d", frames, last, q.Code())
	}
}

func TestQueueDropsAClientThatDoesNotRead(t *testing.T) {
	var dropped atomic.Bool
	q := fake.NewQueue[int](func() { dropped.Store(true) })
	for i := 0; !dropped.Load(); i++ {
		if i > 1<<20 {
			t.Fatal("overflow was never called")
		}
		q.Push(i)
	}
}

func TestWindowAllowsAnEventAfterTheOldestExpired(t *testing.T) {
	at := func(seconds int) time.Time { return time.Unix(int64(seconds), 0) }
	w := fake.Window{N: 2, Per: 10 * time.Second}
	var h fake.History
	for _, step := range []struct {
		second int
		took   bool
		left   int
		full   time.Duration
	}{
		{0, true, 1, 10 * time.Second},
		{4, true, 0, 10 * time.Second},
		{9, false, 0, 5 * time.Second},
		{10, true, 0, 10 * time.Second},
		{30, true, 1, 10 * time.Second},
	} {
		took := h.Take(at(step.second), w)
		left, full := h.Left(at(step.second), w)
		if took != step.took || left != step.left || full != step.full {
			t.Errorf("at %d s: Take returned %v, %d left, empty in %s; want %+v", step.second, took, left, full, step)
		}
	}
	var all fake.History
	for range 100 {
		if !all.Take(at(0), fake.Window{}) {
			t.Fatal("the zero window has a limit")
		}
	}
}
