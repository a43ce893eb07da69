package egress

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"cloud.google.com/go/firestore"

	"parley.internal/shared/identity"
)

// Backlog is what a client that connects has not got yet.
type Backlog struct {
	Entries   []Entry // in the order in which they were opened
	Recovered bool    // false if there may be more that the ledger no longer has, or if there are too many
}

// maxBacklog bounds what a client gets when it connects.
const maxBacklog = 500

// Backlog finds the answers of a user at the WebSocket gateway that are pending, and, if after names the last one that
// the client got, those that were opened after it, delivered elsewhere or not. What the client says it got is not in
// it, nor is what came before that in the same channel.
func (l *Ledger) Backlog(ctx context.Context, user identity.UserID, after string) (Backlog, error) {
	b := Backlog{Recovered: true}
	mine := l.client.Collection("deliveries").Where("userId", "==", user.String()).Where("destination", "==", string(identity.APIGateway))
	pending, err := l.find(ctx, mine.Where("state", "==", Pending).OrderBy("openedAt", firestore.Asc).Limit(maxBacklog+1))
	if err != nil {
		return Backlog{}, err
	}
	b.Entries = pending
	if after != "" {
		last, err := l.Get(ctx, after)
		switch {
		case errors.Is(err, ErrNotFound):
			b.Recovered = false
		case err != nil:
			return Backlog{}, err
		case last.UserID != user.String():
			b.Recovered = false // not an answer of this user's: it tells nothing
		default:
			missed, err := l.find(ctx, mine.Where("openedAt", ">", last.OpenedAt).OrderBy("openedAt", firestore.Asc).Limit(maxBacklog+1))
			if err != nil {
				return Backlog{}, err
			}
			b.Entries = merge(pending, missed, last)
		}
	}
	if len(b.Entries) > maxBacklog {
		b.Entries, b.Recovered = b.Entries[:maxBacklog], false
	}
	return b, nil
}

// merge joins what is pending with what was missed after last. Dead ones are the operators'.
func merge(pending, missed []Entry, last Entry) []Entry {
	all := slices.DeleteFunc(append(pending, missed...), func(e Entry) bool {
		return e.State == Dead || e.ID == last.ID || e.Channel == last.Channel && e.OpenedAt.Before(last.OpenedAt)
	})
	slices.SortStableFunc(all, func(a, b Entry) int { return a.OpenedAt.Compare(b.OpenedAt) })
	return slices.CompactFunc(all, func(a, b Entry) bool { return a.ID == b.ID })
}

// Received settles what a client says it got: the answers with these ids, and, because those of one channel are
// written in order, the pending ones before them in the same channel. Ids that are not the user's are ignored.
func (l *Ledger) Received(ctx context.Context, user identity.UserID, ids ...string) error {
	var errs []error
	for _, id := range ids {
		last, err := l.Get(ctx, id)
		if errors.Is(err, ErrNotFound) || err == nil && last.UserID != user.String() {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		before, err := l.find(ctx, l.client.Collection("deliveries").Where("userId", "==", user.String()).
			Where("destination", "==", string(identity.APIGateway)).Where("state", "==", Pending).OrderBy("openedAt", firestore.Asc).Limit(maxBacklog))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, e := range append(before, last) {
			if e.State != Pending || e.Channel != last.Channel || e.OpenedAt.After(last.OpenedAt) {
				continue
			}
			if _, err := l.Deliver(ctx, e.Ref()); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
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
