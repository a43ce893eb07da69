package egress

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
	Entries []Entry // in the order in which they were opened
	// Recovered is false if the client named what it got, and there may be more that was delivered elsewhere since: what
	// the ledger no longer has, or too many.
	Recovered bool
	// Rest is zero, or else more is pending: see [Ledger.Waiting].
	Rest time.Time
	// Until is when the last entry that was looked at was opened, if the client named something that the ledger has:
	// what was opened no later is among Entries, or the client has it or needs no more to get it.
	Until time.Time
}

// MaxGot is how many ids of answers that it got a client may name when it comes back.
const MaxGot = 100

// deliveryID is what an id of a delivery can be at most; [DeliveryID] makes 32 hexadecimal digits.
var deliveryID = regexp.MustCompile(`^[0-9A-Za-z-]{1,64}$`)

// maxBacklog bounds what is found for a client at a time.
const maxBacklog = 500

// ofClients are the answers for a user's clients at the WebSocket gateway, in the order in which they were opened.
func (l *Ledger) ofClients(user identity.UserID) firestore.Query {
	return l.client.Collection("deliveries").Where("userId", "==", user.String()).
		Where("destination", "==", string(identity.APIGateway)).OrderBy("openedAt", firestore.Asc)
}

// Waiting finds the answers for a user's clients at the WebSocket gateway that are pending and were opened at a time or
// later, in that order. If these are not all, it is to be called again with rest, which is zero otherwise; what was
// opened at that very time comes again then, unless it has been settled.
func (l *Ledger) Waiting(ctx context.Context, user identity.UserID, from time.Time) (entries []Entry, rest time.Time, err error) {
	entries, err = l.find(ctx, l.ofClients(user).Where("state", "==", Pending).Where("openedAt", ">=", from).Limit(maxBacklog))
	if len(entries) == maxBacklog && entries[maxBacklog-1].OpenedAt.After(from) {
		rest = entries[maxBacklog-1].OpenedAt
	}
	slices.SortStableFunc(entries, before)
	return entries, rest, err
}

// Resume finds what a user's client at the WebSocket gateway has not got: the answers that are pending, and, if got
// names the last ones that it did get, the earliest first, everything that was opened after these began and is not among
// them, whoever else it was delivered to; dead ones are the operators'. What the client says it got is settled as
// delivered.
//
// Naming one answer is enough to go on after it. Naming several also finds one that was overtaken by a later one, and
// settles those that an instance wrote but did not live to settle, so that they don't come twice.
//
// Of what is pending nothing is left out: what is too much for once is found by [Ledger.Waiting]. Of what was delivered
// elsewhere, the earliest is found, up to a bound; naming the last of that goes on from there.
func (l *Ledger) Resume(ctx context.Context, user identity.UserID, got []string) (Backlog, error) {
	all, rest, err := l.Waiting(ctx, user, time.Time{})
	if err != nil {
		return Backlog{}, err
	}
	b := Backlog{Recovered: true}
	if len(got) > 0 {
		first, err := l.position(ctx, user, got)
		if errors.Is(err, ErrNotFound) {
			b.Recovered = false
		} else if err != nil {
			return Backlog{}, err
		} else {
			since, err := l.find(ctx, l.ofClients(user).Where("state", "in", []State{Pending, Delivered}).Where("openedAt", ">=", first.OpenedAt).Limit(maxBacklog+MaxGot))
			if err != nil {
				return Backlog{}, err
			}
			b.Recovered = len(since) < maxBacklog+MaxGot
			for _, e := range since {
				if before(e, first) >= 0 {
					all = append(all, e)
				}
				if e.created.After(b.Until) {
					b.Until = e.created
				}
			}
		}
	}
	slices.SortStableFunc(all, before)
	seen := map[string]bool{}
	for _, e := range all {
		if !rest.IsZero() && e.OpenedAt.After(rest) {
			break // what is pending in between comes first
		}
		if seen[e.ID] {
			continue
		}
		seen[e.ID] = true
		switch {
		case slices.Contains(got, e.ID):
			if e.State == Pending {
				if _, err := l.Deliver(ctx, e.Ref()); err != nil {
					return Backlog{}, err
				}
			}
		case e.State == Pending && l.now().After(e.Deadline): // the sweep is giving it up: to write it now would race with that
		default:
			b.Entries = append(b.Entries, e)
		}
	}
	if len(b.Entries) > maxBacklog {
		b.Entries, rest = b.Entries[:maxBacklog], b.Entries[maxBacklog-1].OpenedAt
	}
	if b.Rest = rest; !rest.IsZero() {
		b.Recovered = len(got) == 0
		if b.Until.After(rest) {
			b.Until = rest
		}
	}
	return b, nil
}

// position finds the answer from which on the client is asked what it has: of the first half of those that it names, the
// one that was opened last. The first one of all will not do. Where it is a straggler, opened long before it was given to
// the client, everything between would seem to be missing that the client got too long ago to name. What the ledger does
// not have, or is not the user's, tells nothing.
func (l *Ledger) position(ctx context.Context, user identity.UserID, got []string) (Entry, error) {
	docs := make([]*firestore.DocumentRef, 0, MaxGot)
	for _, id := range got[:min(len(got), MaxGot)] {
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
