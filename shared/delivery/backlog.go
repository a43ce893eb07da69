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

// Backlog is what a client that connects has not got yet.
type Backlog struct {
	Entries   []Entry // in the order in which they were opened
	Recovered bool    // false if the client named what it got and the ledger has nothing of that: there may be more
	Next      Cursor  // zero, or where the next part begins: see [Ledger.Continue]
	// Until is when the last entry that was looked at was opened, if the client named something that the ledger has:
	// what was opened no later is among Entries, or the client has it or needs no more to get it.
	Until time.Time
}

// Cursor is where a part of a backlog begins.
type Cursor struct {
	From  time.Time // when the first entry was opened
	after Entry     // from this one on what was delivered counts, too; none if it has no ID
}

// IsZero reports whether there is no such part.
func (r Cursor) IsZero() bool { return r.From.IsZero() }

// MaxResumeIDs is how many ids of answers that it got a client may name when it comes back.
const MaxResumeIDs = 100

// deliveryID is what an id of a delivery can be at most; [ID] makes 32 hexadecimal digits.
var deliveryID = regexp.MustCompile(`^[0-9A-Za-z-]{1,64}$`)

// maxBacklog is how many entries are looked at for a client at a time.
const maxBacklog = 500

// Resume finds what a user's client at the WebSocket gateway has not got: the answers that are pending, and, if got
// names the last ones that it did get, the earliest first, everything that was opened after these began and is not among
// them, whoever else it was delivered to; dead ones are the operators'. What the client says it got is settled as
// delivered.
//
// Naming one answer is enough to go on after it. Naming several also finds one that was overtaken by a later one, and
// settles those that an instance wrote but did not live to settle, so that they don't come twice.
//
// Where it is very much, this is the first part.
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
	for {
		part, err := l.Continue(ctx, user, got, b.Next)
		if err != nil {
			return Backlog{}, err
		}
		b.Next = part.Next
		for _, e := range part.Entries {
			if !seen[e.ID] {
				seen[e.ID], b.Entries = true, append(b.Entries, e)
			}
		}
		if part.Until.After(b.Until) {
			b.Until = part.Until
		}
		if b.Next.IsZero() || len(b.Entries) >= maxBacklog {
			return b, nil
		}
	}
}

// Continue finds the next part of a backlog. What was opened at the very time at which it begins may have been in the one
// before.
func (l *Ledger) Continue(ctx context.Context, user identity.UserID, got []string, from Cursor) (Backlog, error) {
	q := l.client.Collection("deliveries").Where("userId", "==", user.String()).
		Where("destination", "==", string(identity.APIGateway)).Where("openedAt", ">=", from.From).
		OrderBy("openedAt", firestore.Asc).Limit(maxBacklog)
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
	found, err := l.find(ctx, q)
	if err != nil {
		return Backlog{}, err
	}
	b := Backlog{Recovered: true}
	if n := len(found); n == maxBacklog && found[n-1].OpenedAt.After(from.From) {
		b.Next = Cursor{found[n-1].OpenedAt, after}
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
		case e.State == Pending && l.now().After(e.Deadline): // the sweep is giving it up: to write it now would race with that
		case e.State == Delivered && before(e, after) < 0: // at the same time, but before it
		default:
			b.Entries = append(b.Entries, e)
		}
	}
	return b, nil
}

// position finds the answer from which on the client is asked what it has: of the first half of those that it names, the
// one that was opened last. The first one of all will not do. Where it is a straggler, opened long before it was given to
// the client, everything between would seem to be missing that the client got too long ago to name. What the ledger does
// not have, or is not the user's, tells nothing.
func (l *Ledger) position(ctx context.Context, user identity.UserID, got []string) (Entry, error) {
	docs := make([]*firestore.DocumentRef, 0, MaxResumeIDs)
	for _, id := range got[:min(len(got), MaxResumeIDs)] {
		if deliveryID.MatchString(id) { // what a client says may be anything
			docs = append(docs, l.doc(id))
		}
	}
	snaps, err := l.client.GetAll(ctx, docs)
	if err != nil {
		return Entry{}, fmt.Errorf("look up what a client has: %w", err)
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

func (l *Ledger) find(ctx context.Context, q firestore.Query) ([]Entry, error) {
	snaps, err := q.Documents(ctx).GetAll()
	if err != nil {
		return nil, fmt.Errorf("look into the ledger: %w", err)
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
