package websocket

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"parley.internal/shared/egress"
	"parley.internal/shared/event"
)

const (
	// resumeWait bounds the look into the ledger for what a client missed.
	resumeWait = 10 * time.Second
	// settlers is how many of those that were pending are settled at a time.
	settlers = 16
)

// TypeResumed is the frame that ends what a client that said what it had got before is sent of what it missed.
const TypeResumed = "connection.resumed"

type resumedPayload struct {
	Missed   int  `json:"missed"`   // frames sent before this one
	Complete bool `json:"complete"` // false if there may have been more that the ledger no longer has
}

// got reads what a client that comes back says it has: the metadata.id of its last answers, each a parameter "after",
// the earliest first. Too many are cut to the last ones.
func got(r *http.Request) []string {
	ids := r.URL.Query()["after"]
	return ids[max(0, len(ids)-egress.MaxGot):]
}

// resume writes what the client has not got: what is pending for its user and, if it says what it has, what came
// after that. It runs in the writer, before anything else is written but the first frame, so that what comes
// meanwhile waits in the queue and the order stays; of that, the writer leaves out what was written here. It reports
// whether the connection can go on.
func (c *conn) resume(ctx context.Context, got []string) bool {
	looking, cancel := context.WithTimeout(ctx, resumeWait)
	stop := context.AfterFunc(c.over, cancel)
	backlog, err := c.server.ledger.Resume(looking, c.user, got)
	stop()
	cancel()
	if c.over.Err() != nil {
		return false
	}
	if err != nil {
		c.log.ErrorContext(ctx, "what a client missed could not be found", "error", err)
		c.end(CloseNotResumed)
		return false
	}
	c.resumed = make(map[string]struct{}, len(backlog.Entries))
	var pending []egress.Entry
	ok := true
	for _, entry := range backlog.Entries {
		if c.over.Err() != nil {
			break // what was not written stays as it is
		}
		f, err := c.backlogFrame(entry)
		if err != nil {
			c.log.ErrorContext(ctx, "an answer in the ledger can't be read", "error", err, "delivery", entry.ID)
			continue
		}
		if ok = c.writeAll([]frame{f}, c.server.config.WriteTimeout); !ok {
			break
		}
		c.resumed[entry.ID] = struct{}{}
		if entry.State == egress.Pending {
			pending = append(pending, entry)
		}
	}
	c.settle(ctx, pending)
	if !ok {
		c.end(CloseSlow)
		return false
	}
	if len(got) > 0 {
		c.send(control(TypeResumed, resumedPayload{Missed: len(c.resumed), Complete: backlog.Recovered}, "", c.server.now()), "control")
	}
	return true
}

func (c *conn) backlogFrame(entry egress.Entry) (frame, error) {
	e, err := event.Decode(entry.Event)
	if err != nil {
		return frame{}, fmt.Errorf("delivery %s: %w", entry.ID, err)
	}
	return prepare(answer(e, entry.ID, entry.OpenedAt), "answer")
}

// settle records those that were written. One that can't be recorded is settled when the client names it on coming
// back, or else becomes a dead letter, which is wrong, but told.
func (c *conn) settle(ctx context.Context, entries []egress.Entry) {
	ctx, cancel := context.WithTimeout(ctx, settleWait)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(settlers)
	for _, entry := range entries {
		g.Go(func() error {
			outcome := outcomeResumed
			if _, err := c.server.ledger.Deliver(ctx, entry.Ref()); err != nil {
				c.log.ErrorContext(ctx, "written, but not recorded", "error", err, "delivery", entry.ID)
				outcome = outcomeFailed
			}
			c.server.metrics.deliveries.WithLabelValues(outcome).Inc()
			return nil
		})
	}
	g.Wait() // no call returns an error
}
