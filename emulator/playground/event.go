package playground

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Server-Sent Events: https://html.spec.whatwg.org/multipage/server-sent-events.html

const (
	// maxStreams bounds the open event streams; a browser has a stream for each tab.
	maxStreams = 32
	// window is the number of earlier lines of a source sent to a new page. Changes of older lines are not sent.
	window = 200
	// pause is the time between two checks of a fake. Changes in between become one event.
	pause = 50 * time.Millisecond
	// heartbeat is the interval of comments that detect broken connections. writeTime bounds a write.
	heartbeat = 15 * time.Second
	writeTime = 10 * time.Second
)

// waiter waits until cond holds. It calls cond at first and after every change of the fake.
type waiter interface {
	await(ctx context.Context, cond func() bool) error
}

// source is a list of lines that grows at its end.
type source struct {
	// key is the prefix of the keys of the source's lines.
	key string
	// from returns the lines after the first n. A line without a Place is not shown.
	from func(n int) []Line
}

// update holds the changes of a platform since the previous check.
type update struct {
	platform *Platform // nil without a change
	lines    []Line
}

// watcher tracks the state sent to a page, for one platform.
type watcher struct {
	platform platform
	sent     *Platform
	feeds    map[string]*feed
}

// feed tracks the lines of a source sent to a page: the last lines, and the number of lines before.
type feed struct {
	skipped int
	sent    []Line
}

// changes returns the changes since the previous call.
func (w *watcher) changes() update {
	var u update
	if now := w.platform.state(); w.sent == nil || !reflect.DeepEqual(*w.sent, now) {
		w.sent, u.platform = &now, &now
	}
	for _, s := range w.platform.sources() {
		f := w.feeds[s.key]
		if f == nil {
			f = &feed{}
			w.feeds[s.key] = f
		}
		u.lines = append(u.lines, f.changes(s)...)
	}
	slices.SortStableFunc(u.lines, func(a, b Line) int { return cmp.Compare(a.At, b.At) })
	return u
}

func (f *feed) changes(s source) []Line {
	var fresh []Line
	lines := s.from(f.skipped)
	excess := max(0, len(lines)-window)
	for i := range lines {
		l := &lines[i]
		l.Key = s.key + "/" + strconv.Itoa(f.skipped+i)
		if i >= excess && l.Place != "" && (i >= len(f.sent) || *l != f.sent[i]) {
			fresh = append(fresh, *l)
		}
	}
	f.skipped += excess
	f.sent = slices.Clone(lines[excess:])
	return fresh
}

// watch sends changes until ctx ends or the fake closes.
func (w *watcher) watch(ctx context.Context, updates chan<- update) {
	pace := time.NewTicker(pause)
	defer pace.Stop()
	for {
		var u update
		err := w.platform.await(ctx, func() bool {
			select {
			case <-pace.C:
			case <-ctx.Done():
				return false
			}
			u = w.changes()
			return u.platform != nil || len(u.lines) > 0
		})
		if err != nil {
			return
		}
		select {
		case updates <- u:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Playground) events(w http.ResponseWriter, r *http.Request) {
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		w.Header().Set("Retry-After", "5")
		writeRefusal(w, refuse(http.StatusServiceUnavailable, "", "%d pages are open; close one", maxStreams))
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	out := stream{w, http.NewResponseController(w)}
	err := out.write(":\n\n")

	ctx, cancel := context.WithCancel(r.Context())
	updates := make(chan update)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	for _, p := range s.platforms {
		w := watcher{platform: p, feeds: map[string]*feed{}}
		if err == nil {
			err = out.update(w.changes()) // the first updates follow the order of the platforms
		}
		watching.Go(func() {
			defer cancel() // the end of one watcher ends the stream
			w.watch(ctx, updates)
		})
	}
	beats := time.NewTicker(heartbeat)
	defer beats.Stop()
	for err == nil {
		select {
		case u := <-updates:
			err = out.update(u)
		case <-beats.C:
			err = out.write(":\n\n")
		case <-ctx.Done():
			return
		}
	}
}

// stream writes events.
type stream struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func (s stream) update(u update) error {
	var b bytes.Buffer
	if u.platform != nil {
		if err := event(&b, "platform", u.platform); err != nil {
			return err
		}
	}
	if len(u.lines) > 0 {
		if err := event(&b, "lines", u.lines); err != nil {
			return err
		}
	}
	return s.write(b.String())
}

// event appends an event. JSON has no line breaks, so the data is one line.
func event(b *bytes.Buffer, name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode event %s: %w", name, err)
	}
	_, err = fmt.Fprintf(b, "event: %s\ndata: %s\n\n", name, data)
	return err
}

func (s stream) write(text string) error {
	// A writer without deadlines, such as a recorder, needs no deadline.
	_ = s.rc.SetWriteDeadline(time.Now().Add(writeTime))
	if _, err := s.w.Write([]byte(text)); err != nil {
		return err
	}
	return s.rc.Flush()
}
