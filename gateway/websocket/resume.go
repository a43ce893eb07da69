package websocket

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"

	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
)

const (
	// resumeTimeout is the timeout for reading a page of missed answers from the ledger.
	resumeTimeout = 10 * time.Second
	// pageTimeout is the timeout for writing a page of missed answers. A slower client is closed with CloseSlow, because a
	// page in memory blocks other clients.
	pageTimeout = 30 * time.Second
	// recordInterval is the maximum delay before written answers are recorded, while resume writes more. A slow client may
	// need longer for all answers than the sweep allows.
	recordInterval = time.Second
	// maxRecording is the maximum number of concurrent ledger writes per connection.
	maxRecording = 16
	// anyAttempt is greater than every redrive count. It marks an answer named by the client: the answer is not written
	// again, even after a redrive.
	anyAttempt = math.MaxInt
)

// receivedIDs returns the ids of the last received answers, named by a reconnecting client. Each is a parameter "after", the
// earliest first. An empty or blank id names nothing. Above delivery.MaxResumeIDs, only the last ids count.
func receivedIDs(r *http.Request) []string {
	var ids []string
	for _, id := range r.URL.Query()["after"] {
		if id = strings.TrimSpace(id); id != "" {
			ids = append(ids, id)
		}
	}
	return ids[max(0, len(ids)-delivery.MaxResumeIDs):]
}

// resume writes the first frame and the missed answers: the pending answers of the user and, if the client named received
// answers, all later answers. It runs in the writer, before all other writes. So new answers wait in the queue, and the
// order stays; later, the writer skips the queued answers already written by resume. Meanwhile resume pings the client.
// It reports false if the connection must end.
func (c *conn) resume(ctx context.Context, received []string, ping <-chan time.Time) bool {
	c.resumed = make(map[string]int, len(received))
	for _, id := range received {
		c.resumed[id] = anyAttempt
	}
	next, ok := c.resumePage(ctx, ping, func(ctx context.Context) (delivery.Backlog, error) {
		return c.server.ledger.Resume(ctx, c.user, received)
	}, func(backlog delivery.Backlog, missed int) bool {
		ready := readyPayload{UserID: c.userID, Instance: c.server.instance, Missed: missed}
		if len(received) > 0 {
			ready.Recovered = &backlog.Recovered
		}
		return c.writeReady(ctx, ready)
	})
	for ok && c.awaitAckRoom(ping) {
		if next.IsZero() {
			return true
		}
		from := next
		next, ok = c.resumePage(ctx, ping, func(ctx context.Context) (delivery.Backlog, error) {
			return c.server.ledger.Continue(ctx, c.user, received, from)
		}, nil)
	}
	return false
}

// resumePage reads a page of missed answers with find, calls before with the page and its number of frames, and writes the
// page. It holds a slot while the page is in memory. It returns the start of the next page, or reports false if the
// connection must end. before may be nil.
func (c *conn) resumePage(ctx context.Context, ping <-chan time.Time, find func(context.Context) (delivery.Backlog, error),
	before func(delivery.Backlog, int) bool) (next delivery.Cursor, ok bool) {
	slot := c.server.resumes.reserve(c.userID)
	defer slot.release()
	if !c.awaitSlot(slot, ping) {
		return next, false
	}
	backlog, err := c.readLedger(ctx, find)
	if err != nil {
		return next, false
	}
	if backlog.Until.After(c.until) {
		c.until = backlog.Until
	}
	page := c.encodeMissed(ctx, backlog.Entries)
	if before != nil && !before(backlog, len(page)) {
		return next, false
	}
	if !c.writeMissed(ctx, page) {
		c.end(CloseSlow)
		return next, false
	}
	return backlog.Next, true
}

// writeReady writes the first frame. After an error, the connection is closing.
func (c *conn) writeReady(ctx context.Context, ready readyPayload) bool {
	f, err := prepare(controlFrame(TypeReady, ready, "", c.server.now()), "control")
	if err != nil {
		c.log.ErrorContext(ctx, "encoding a frame failed", "error", err)
		c.end(CloseNotResumed)
		return false
	}
	if !c.writeAll(ctx, []frame{f}, c.server.config.WriteTimeout) {
		c.end(CloseSlow)
		return false
	}
	return true
}

// readLedger reads a page of missed answers. After an error, the connection is closing.
func (c *conn) readLedger(ctx context.Context, find func(context.Context) (delivery.Backlog, error)) (delivery.Backlog, error) {
	reading, cancel := context.WithTimeout(ctx, resumeTimeout)
	defer cancel()
	defer context.AfterFunc(c.closing, cancel)()
	backlog, err := find(reading)
	if c.closing.Err() != nil {
		return delivery.Backlog{}, c.closing.Err()
	}
	if err != nil {
		c.log.ErrorContext(ctx, "reading the missed answers failed", "error", err)
		c.end(CloseNotResumed)
	}
	return backlog, err
}

// missed is an answer missed by the client.
type missed struct {
	entry delivery.Entry
	frame frame
}

// encodeMissed encodes the frames of entries. It leaves out unreadable entries.
func (c *conn) encodeMissed(ctx context.Context, entries []delivery.Entry) []missed {
	all := make([]missed, 0, len(entries))
	for _, entry := range entries {
		f, err := c.backlogFrame(entry)
		if err != nil {
			c.log.ErrorContext(ctx, "unreadable answer in the ledger", "error", err, "delivery", entry.ID)
			continue
		}
		entry.Event = nil // the frame holds the content
		all = append(all, missed{entry, f})
	}
	return all
}

// writeMissed writes missed answers and records the pending ones as delivered. It reports false after a write error, or
// if writing takes longer than pageTimeout.
func (c *conn) writeMissed(ctx context.Context, all []missed) bool {
	var pending []delivery.Entry
	var since time.Time // write time of the first answer in pending
	began, ok := time.Now(), true
	for _, m := range all {
		if c.closing.Err() != nil {
			break // unwritten answers stay as they are
		}
		if ok = time.Since(began) < pageTimeout; !ok {
			break
		}
		entry := m.entry
		if attempt, had := c.resumed[entry.ID]; had && entry.RedriveCount <= attempt {
			continue
		}
		if entry.State == delivery.Pending && c.overdue(entry.Deadline) {
			continue // expired while earlier answers were written
		}
		if c.acks && entry.State == delivery.Pending {
			c.expectAck(entry.Ref()) // before the write: the client may answer at once
		}
		if ok = c.writeAll(ctx, []frame{m.frame}, c.server.config.WriteTimeout); !ok {
			break
		}
		c.resumed[entry.ID] = entry.RedriveCount
		if entry.State == delivery.Pending && !c.acks {
			if len(pending) == 0 {
				since = time.Now()
			}
			pending = append(pending, entry)
		}
		if len(pending) > 0 && time.Since(since) > recordInterval {
			c.recordResumed(ctx, pending)
			pending = nil
		}
	}
	c.recordResumed(ctx, pending)
	return ok
}

func (c *conn) backlogFrame(entry delivery.Entry) (frame, error) {
	e, err := event.Decode(entry.Event)
	if err != nil {
		return frame{}, fmt.Errorf("delivery %s: %w", entry.ID, err)
	}
	return prepare(answerFrame(e, entry.ID, entry.OpenedAt), "answer")
}

// recordResumed records written answers as delivered.
func (c *conn) recordResumed(ctx context.Context, entries []delivery.Entry) {
	refs := make([]delivery.Ref, len(entries))
	for i, entry := range entries {
		refs[i] = entry.Ref()
	}
	c.recordDelivered(ctx, refs, outcomeResumed)
}
