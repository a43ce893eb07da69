package delivery

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"cloud.google.com/go/firestore"
	"parley.internal/shared/identity"
)

// Backlog is one part of the answers that a client missed.
type Backlog struct {
	Entries   []Entry // in the order of opening
	Recovered bool    // false if the client named ids and the ledger knows none: more may be missing
	Next      Cursor  // the next part; zero if there is none: see [Ledger.Continue]
	// Until is the opening time of the last entry read, if the ledger knows an id named by the client. The client
	// misses no answer opened until then, except the answers in Entries.
	Until time.Time
}

// Cursor is the start of a part of a backlog.
type Cursor struct {
	From  time.Time // the opening time of the first entry
	after Entry     // delivered answers after this entry count as missed; none do if its ID is empty
}

// IsZero reports whether there is no further part.
func (r Cursor) IsZero() bool { return r.From.IsZero() }

// MaxResumeIDs is the number of received ids that a client may name when it reconnects.
const MaxResumeIDs = 100

// deliveryID is the syntax of a delivery's id; [ID] makes 32 hexadecimal digits.
var deliveryID = regexp.MustCompile(`^[0-9A-Za-z-]{1,64}$`)

// The limits of a part of a backlog. A part may exceed maxBacklogBytes by the last entry, and by the entries opened in the
// same millisecond.
const (
	maxBacklog      = 500     // entries
	maxBacklogBytes = 1 << 20 // total size of the entries' events
	firstBacklog    = 16      // entries in the first query, of unknown size
)

// Resume finds the answers missed by a user's client at the WebSocket gateway. All pending answers count as missed. got
// has the ids of the last answers received by the client, the earliest first. If got is not empty, all later answers
// with other ids count as missed, too, even if another client received them. Dead answers are left to the operators.
// Resume marks the pending answers in got as delivered.
//
// A large backlog comes in parts of about 1 MiB: Resume returns the first, [Ledger.Continue] the next.
//
// A client's position is not one cursor, such as Centrifuge's StreamPosition (an offset and an epoch). Such a cursor
// needs a stream in which messages arrive in the order of their offsets. Answers have no such order. The ledger sorts
// answers by the time of opening, but delivery happens later and in any order: answer A may be opened before B and
// delivered after B, for example because an instance restarted. If another client of the user received A, A is not
// pending any more. A client with B as its only cursor would never get A, because A lies before B. A client with an
// earlier cursor would get all later answers again. So a client names its last ids, and the ids have three purposes:
//
//	the earliest half    gives the starting point: later answers that are not named were missed
//	all ids              are not sent again
//	pending ids          are settled: an instance wrote the frame and crashed before settling
//
// One id is enough to continue after that answer. More ids also find overtaken answers.
func (l *Ledger) Resume(ctx context.Context, user identity.UserID, got []string) (Backlog, error) {
	b := Backlog{Recovered: true}
	if len(got) > 0 {
		after, err := l.position(ctx, user, got)
		if errors.Is(err, ErrNotFound) {
			b.Recovered = false
		} else if err != nil {
			return Backlog{}, err
		}
		b.Next.after = after
	}
	seen := map[string]bool{}
	size := 0
	for {
		part, err := l.part(ctx, user, got, b.Next, maxBacklogBytes-size)
		if err != nil {
			return Backlog{}, err
		}
		b.Next = part.Next
		for _, e := range part.Entries {
			if !seen[e.ID] {
				seen[e.ID], b.Entries = true, append(b.Entries, e)
				size += len(e.Event)
			}
		}
		if part.Until.After(b.Until) {
			b.Until = part.Until
		}
		if b.Next.IsZero() || len(b.Entries) >= maxBacklog || size >= maxBacklogBytes {
			return b, nil
		}
	}
}

// Continue returns the next part of a backlog. Answers opened exactly at its start may have been in the previous part,
// too.
func (l *Ledger) Continue(ctx context.Context, user identity.UserID, got []string, from Cursor) (Backlog, error) {
	return l.part(ctx, user, got, from, maxBacklogBytes)
}

// part returns a part of a backlog with about size bytes.
func (l *Ledger) part(ctx context.Context, user identity.UserID, got []string, from Cursor, size int) (Backlog, error) {
	q := l.client.Collection("deliveries").Where("userId", "==", user.String()).
		Where("destination", "==", string(identity.APIGateway)).Where("openedAt", ">=", from.From).
		OrderBy("openedAt", firestore.Asc)
	after := from.after
	named := after.ID != ""
	early := named && from.From.Before(after.OpenedAt)
	switch {
	case early:
		q = q.Where("state", "==", Pending).Where("openedAt", "<", after.OpenedAt)
	case named:
		q = q.Where("state", "in", []State{Pending, Delivered})
	default:
		q = q.Where("state", "==", Pending)
	}
	found, next, err := l.findPart(ctx, q, from.From, size)
	if err != nil {
		return Backlog{}, err
	}
	b := Backlog{Recovered: true}
	if !next.IsZero() {
		b.Next = Cursor{next, after}
	} else if early {
		b.Next = Cursor{after.OpenedAt, after}
	}
	slices.SortStableFunc(found, before)
	for _, e := range found {
		if named && !early && e.created.After(b.Until) {
			b.Until = e.created
		}
		switch {
		case slices.Contains(got, e.ID):
			if e.State == Pending {
				if _, err := l.MarkDelivered(ctx, e.Ref()); err != nil {
					return Backlog{}, err
				}
			}
		case e.State == Pending && l.now().After(e.Deadline): // sending now would race with the sweep
		case e.State == Delivered && before(e, after) < 0: // at the same time, but before the named entry
		default:
			b.Entries = append(b.Entries, e)
		}
	}
	return b, nil
}

// position returns the entry at which the backlog of a client starts: in the first half of the named entries, the entry
// opened last. The very first entry is not suitable. It may have been opened long before its delivery. Then all answers
// opened in between would count as missed, although the client received most of them too long ago to name them. Ids of
// other users and unknown ids are ignored. Without a usable id the error is [ErrNotFound].
func (l *Ledger) position(ctx context.Context, user identity.UserID, got []string) (Entry, error) {
	docs := make([]*firestore.DocumentRef, 0, MaxResumeIDs)
	for _, id := range got[:min(len(got), MaxResumeIDs)] {
		if deliveryID.MatchString(id) { // a client may send anything
			docs = append(docs, l.doc(id))
		}
	}
	if len(docs) == 0 {
		return Entry{}, ErrNotFound
	}
	snaps, err := l.client.GetAll(ctx, docs)
	if err != nil {
		return Entry{}, fmt.Errorf("read the entries that a client named: %w", err)
	}
	var known []Entry
	for _, snap := range snaps {
		if !snap.Exists() {
			continue
		}
		e, err := entryOf(snap)
		if err != nil {
			return Entry{}, err
		}
		if e.UserID == user.String() {
			known = append(known, e)
		}
	}
	if len(known) == 0 {
		return Entry{}, ErrNotFound
	}
	return slices.MaxFunc(known[:(len(known)+1)/2], before), nil
}

// findPart reads the entries of a query, opened at from or later, until their events have size bytes or there are
// maxBacklog. Entries opened at the same time are never separated by the size. next is the start of the next part; zero if
// there is none.
//
// Firestore can't limit a query by size, so findPart begins with few entries, and continues with as many as their average
// size allows.
func (l *Ledger) findPart(ctx context.Context, q firestore.Query, from time.Time, size int) (entries []Entry, next time.Time, err error) {
	total, limit := 0, firstBacklog
	for {
		snaps, err := q.Limit(limit).Documents(ctx).GetAll()
		if err != nil {
			return nil, time.Time{}, fmt.Errorf("query the ledger: %w", err)
		}
		for _, snap := range snaps {
			e, err := entryOf(snap)
			if err != nil {
				return nil, time.Time{}, err
			}
			if total >= size && e.OpenedAt.After(entries[len(entries)-1].OpenedAt) {
				return entries, e.OpenedAt, nil
			}
			entries = append(entries, e)
			total += len(e.Event)
		}
		n := len(entries)
		switch {
		case len(snaps) < limit:
			return entries, time.Time{}, nil
		case n == maxBacklog && entries[n-1].OpenedAt.After(from):
			return entries, entries[n-1].OpenedAt, nil
		case n == maxBacklog:
			return entries, time.Time{}, nil
		}
		q = q.StartAfter(snaps[len(snaps)-1])
		limit = min(max((size-total)*n/max(total, 1), 2), maxBacklog-n)
	}
}

func (l *Ledger) find(ctx context.Context, q firestore.Query) ([]Entry, error) {
	snaps, err := q.Documents(ctx).GetAll()
	if err != nil {
		return nil, fmt.Errorf("query the ledger: %w", err)
	}
	entries := make([]Entry, 0, len(snaps))
	for _, snap := range snaps {
		e, err := entryOf(snap)
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}
