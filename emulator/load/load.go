// Package load asks a running Parley many questions over WebSockets. It measures the latency of the answers, and checks
// that every answer comes exactly once. Start with [Run].
package load

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"
)

// Options configures [Run].
type Options struct {
	URLs     []string          // of the gateways' sockets; the users are distributed over the gateways
	Tokens   map[string]string // by user id; each user has one connection
	Messages int               // total number of questions
	InFlight int               // open questions per user; at least 1
	Patience time.Duration     // an answer that takes longer counts as lost
	Progress func(answered int)
}

// Result is the outcome of [Run].
type Result struct {
	Sent, Answered, Doubled, Lost int
	Elapsed                       time.Duration
	Latencies                     []time.Duration // of the answered questions, ascending
}

// Percentile returns the latency not exceeded by p percent of the answers; 0 without answers.
func (r Result) Percentile(p float64) time.Duration {
	if len(r.Latencies) == 0 {
		return 0
	}
	i := int(float64(len(r.Latencies))*p/100+0.5) - 1
	return r.Latencies[min(max(i, 0), len(r.Latencies)-1)]
}

// frame holds the needed parts of a protocol frame.
type frame struct {
	Type    string `json:"type"`
	Payload struct {
		Text    string `json:"text,omitempty"`
		Code    string `json:"code,omitempty"`
		Message string `json:"message,omitempty"`
	} `json:"payload"`
	Metadata struct {
		ID      string `json:"id,omitempty"`
		ReplyTo string `json:"replyTo,omitempty"`
	} `json:"metadata"`
}

// Run asks all questions and returns when each question is answered or lost.
func Run(ctx context.Context, o Options) (Result, error) {
	if len(o.URLs) == 0 || len(o.Tokens) == 0 || o.Messages < 1 || o.InFlight < 1 {
		return Result{}, errors.New("load: needs a gateway, a user, at least one message and at least one in flight")
	}
	users := slices.Sorted(maps.Keys(o.Tokens))
	var (
		mu    sync.Mutex
		total Result
	)
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for i, user := range users {
		n := o.Messages / len(users)
		if i < o.Messages%len(users) {
			n++
		}
		g.Go(func() error {
			a := &asker{Options: o, user: user, run: began.UnixNano(), open: map[string]time.Time{}, seen: map[string]bool{}}
			a.answered = func() {
				mu.Lock()
				defer mu.Unlock()
				total.Answered++
				if o.Progress != nil {
					o.Progress(total.Answered)
				}
			}
			r, err := a.ask(ctx, o.URLs[i%len(o.URLs)], n)
			mu.Lock()
			defer mu.Unlock()
			total.Sent += r.Sent
			total.Doubled += r.Doubled
			total.Lost += r.Lost
			total.Latencies = append(total.Latencies, r.Latencies...)
			return err
		})
	}
	err := g.Wait()
	total.Elapsed = time.Since(began)
	slices.SortFunc(total.Latencies, cmp.Compare[time.Duration])
	return total, err
}

// asker is a user with one connection.
type asker struct {
	Options
	user     string
	run      int64 // makes the message ids of this run unique
	answered func()

	open map[string]time.Time // sending time of each unanswered question
	seen map[string]bool      // ids of the received frames
}

func (a *asker) ask(ctx context.Context, url string, n int) (r Result, err error) {
	conn, resp, err := websocket.DefaultDialer.DialContext(ctx, url, http.Header{"Authorization": {"Bearer " + a.Tokens[a.user]}})
	if err != nil {
		if resp != nil {
			err = fmt.Errorf("%w: %s", err, resp.Status)
		}
		return r, fmt.Errorf("connect %s: %w", a.user, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	for next := 0; next < n || len(a.open) > 0; {
		for next < n && len(a.open) < a.InFlight {
			var f frame
			f.Type = "chat.message.send"
			f.Payload.Text = fmt.Sprintf("!ask question %d", next)
			f.Metadata.ID = fmt.Sprintf("%s-%d-%d", a.user, a.run, next)
			if err := conn.WriteJSON(f); err != nil {
				return r, fmt.Errorf("ask as %s: %w", a.user, err)
			}
			a.open[f.Metadata.ID] = time.Now()
			next++
			r.Sent++
		}
		if err := conn.SetReadDeadline(time.Now().Add(a.Patience)); err != nil {
			return r, fmt.Errorf("wait as %s: %w", a.user, err)
		}
		_, data, err := conn.ReadMessage()
		if err != nil {
			r.Lost += len(a.open) + n - next
			return r, fmt.Errorf("wait for %d answers as %s: %w", len(a.open), a.user, err)
		}
		var f frame
		if err := json.Unmarshal(data, &f); err != nil {
			return r, fmt.Errorf("read a frame as %s: %w", a.user, err)
		}
		switch f.Type {
		case "chat.message.received":
			if a.seen[f.Metadata.ID] {
				r.Doubled++
			}
			a.seen[f.Metadata.ID] = true
			if sent, ok := a.open[f.Metadata.ReplyTo]; ok {
				r.Latencies = append(r.Latencies, time.Since(sent))
				delete(a.open, f.Metadata.ReplyTo)
				a.answered()
			}
		case "chat.error":
			return r, fmt.Errorf("%s was refused: %s: %s", a.user, f.Payload.Code, f.Payload.Message)
		}
	}
	return r, nil
}
