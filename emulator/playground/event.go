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

// Server-Sent Events, see https://html.spec.whatwg.org/multipage/server-sent-events.html

const (
	// maxStreams is how many requests for events there may be; a browser has one for each tab.
	maxStreams = 32
	// window is how many lines of a source a page gets of before, and how many it is told of when they change.
	window = 200
	// pause is between two looks at a stand-in. What comes meanwhile goes in one event.
	pause = 50 * time.Millisecond
	// heartbeat is between two comments that find connections which are gone; writeTime is what one write may take.
	heartbeat = 15 * time.Second
	writeTime = 10 * time.Second
)

// waiter returns once cond holds, which it asks at first and after every change of the stand-in.
type waiter interface {
	await(ctx context.Context, cond func() bool) error
}

// source is a list of lines that grows at its end.
type source struct {
	// key begins the keys of its lines.
	key string
	// from is what it has but for the first n lines. One without a Place is not for the page.
	from func(n int) []Line
}

// update is what one look at a platform found to be new.
type update struct {
	platform *Platform // nil if it is as it was
	lines    []Line
}

// watcher is what one page knows of a platform.
type watcher struct {
	platform platform
	sent     *Platform
	feeds    map[string]*feed
}

// feed is what a page knows of a source: the last lines, after skipped others.
type feed struct {
	skipped int
	sent    []Line
}

// changes finds what is new.
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

// watch sends what is new until ctx or the stand-in ends.
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
			err = out.update(w.changes()) // what there is comes in the order of the platforms
		}
		watching.Go(func() {
			defer cancel() // one that ends ends the stream
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

// event appends one. JSON has no line breaks, so its data is one line.
func event(b *bytes.Buffer, name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("stage: event %s: %w", name, err)
	}
	_, err = fmt.Fprintf(b, "event: %s\ndata: %s\n\n", name, data)
	return err
}

func (s stream) write(text string) error {
	// A writer that knows no deadlines is one that needs none, such as a recorder.
	_ = s.rc.SetWriteDeadline(time.Now().Add(writeTime))
	if _, err := s.w.Write([]byte(text)); err != nil {
		return err
	}
	return s.rc.Flush()
}
