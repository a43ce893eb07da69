package delivery

import (
	"context"
	"slices"

	"parley.internal/shared/identity"
)

// maxPending is the number of entries in one result of [Ledger.Pending].
const maxPending = 300

// Pending returns the pending answers to a channel of a platform, in the order of opening. The new owner of the
// channel's lease sends these first. The result has at most 300 entries; more appear after these are settled.
func (l *Ledger) Pending(ctx context.Context, destination identity.Platform, channel string) ([]Entry, error) {
	// Only equality and no order: Firestore merges its single-field indexes for such a query
	// (https://cloud.google.com/firestore/docs/query-data/index-overview#taking_advantage_of_index_merging).
	entries, err := l.find(ctx, l.client.Collection("deliveries").Where("channel", "==", channel).
		Where("destination", "==", string(destination)).Where("state", "==", Pending).Limit(maxPending))
	slices.SortFunc(entries, before)
	return entries, err
}

// Unsettled returns the pending and the claimed answers to all channels and direct conversations of a platform, in the
// order of opening. Platforms with a single lease use Unsettled: the owner may find answers left unfinished by the last
// owner. The result has at most 300 entries.
func (l *Ledger) Unsettled(ctx context.Context, destination identity.Platform) ([]Entry, error) {
	entries, err := l.find(ctx, l.client.Collection("deliveries").
		Where("destination", "==", string(destination)).Where("state", "in", []State{Pending, Claimed}).Limit(maxPending))
	slices.SortFunc(entries, before)
	return entries, err
}

// PendingOrAbandoned returns the answers of one type that are pending or have an expired claim, in the order of
// opening. channel is a channel of the platform, or empty for all channels. Only answers that may be sent twice with
// the same effect may be claimed again: see [Ledger.Reclaim]. The result has at most 300 entries.
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
