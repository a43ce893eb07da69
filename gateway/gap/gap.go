// Package gap records the times of which Parley knows that it did not hear what was said or happened in a channel, so that
// operators see them.
package gap

import (
	"context"
	"fmt"
	"time"

	"cloud.google.com/go/firestore"

	"parley.internal/shared/digest"
	"parley.internal/shared/event"
)

// Gap is a time in which nobody listened in a channel, or to what is said to the bot alone, the document gaps/{hash}. Its times are to the precision of
// Firestore's.
type Gap struct {
	Platform string    `firestore:"platform"`
	Channel  string    `firestore:"channel"` // as events have it; of Whispers the bot's user id
	Missed   string    `firestore:"missed"`  // what was: Chat, Events or Whispers
	From     time.Time `firestore:"from"`
	To       time.Time `firestore:"to"`
	Instance string    `firestore:"instance"` // that came after it
	ExpireAt time.Time `firestore:"expireAt"` // the collection's TTL field
}

// What is missed in a gap: Gap.Missed.
const (
	Chat     = "chat"     // what was said
	Events   = "events"   // what a platform tells beside its chat
	Whispers = "whispers" // what was said to the bot alone
)

// Retention is how long gaps are kept.
const Retention = 30 * 24 * time.Hour

// New makes a gap. By clocks that differ its end may come before its beginning: then it has no length.
func New(platform, channel, missed string, from, to time.Time, instance string) Gap {
	from, to = event.TruncateToMicros(from), event.TruncateToMicros(to)
	if to.Before(from) {
		to = from
	}
	return Gap{platform, channel, missed, from, to, instance, to.Add(Retention)}
}

// Put stores a gap. The same gap found twice by an instance is one document.
func (g Gap) Put(ctx context.Context, client *firestore.Client) error {
	id := digest.Of("gap", g.Channel, g.Missed, g.From.Format(time.RFC3339Nano), g.Instance)
	if _, err := client.Collection("gaps").Doc(id).Set(ctx, g); err != nil {
		return fmt.Errorf("store a gap of %s: %w", g.Channel, err)
	}
	return nil
}
