package delivery

import (
	"context"
	"slices"

	"parley.internal/shared/identity"
)

// maxPending bounds what [Ledger.Pending] finds at a time.
const maxPending = 300

// Pending finds the answers to a channel of a platform that nobody has claimed or settled, in the order in which they
// were opened: what whoever begins to speak there has to say first. Of very many it finds some; once these are settled
// it finds others.
func (l *Ledger) Pending(ctx context.Context, destination identity.Platform, channel string) ([]Entry, error) {
	// Only equality, and no order: Firestore answers that from the indexes that it keeps of each field
	// (https://cloud.google.com/firestore/docs/query-data/index-overview#taking_advantage_of_index_merging).
	entries, err := l.find(ctx, l.client.Collection("deliveries").Where("channel", "==", channel).
		Where("destination", "==", string(destination)).Where("state", "==", Pending).Limit(maxPending))
	slices.SortFunc(entries, before)
	return entries, err
}

// Unsettled finds the answers to all channels of a platform, and to those who are spoken to directly there, that are
// pending or claimed, in the order in which they were opened: what one who alone speaks there has to say, and what
// somebody else may have left half done. Of very many it finds some.
func (l *Ledger) Unsettled(ctx context.Context, destination identity.Platform) ([]Entry, error) {
	entries, err := l.find(ctx, l.client.Collection("deliveries").
		Where("destination", "==", string(destination)).Where("state", "in", []State{Pending, Claimed}).Limit(maxPending))
	slices.SortFunc(entries, before)
	return entries, err
}

// PendingOrAbandoned finds, of the answers of one type to a channel of a platform, or to all of them if channel is empty, those
// that nobody has claimed or settled and those whose claim ran out, in the order in which they were opened. It is for
// what may be made again without harm: see [Ledger.Reclaim]. Of very many it finds some.
func (l *Ledger) PendingOrAbandoned(ctx context.Context, destination identity.Platform, channel, kind string) ([]Entry, error) {
	q := l.client.Collection("deliveries").Where("destination", "==", string(destination)).Where("type", "==", kind)
	if channel != "" {
		q = q.Where("channel", "==", channel)
	}
	entries, err := l.find(ctx, q.Where("state", "in", []State{Pending, Claimed}).Limit(maxPending))
	now := l.now()
	entries = slices.DeleteFunc(entries, func(e Entry) bool { return e.State == Claimed && !e.abandoned(now) })
	slices.SortFunc(entries, before)
	return entries, err
}
