// Package gap stores gaps: times during which Parley was not listening to a channel and may have missed messages or
// events. Operators read the gaps. Start at [New] and [Gap.Put].
//
// This package alone writes the Firestore collection gaps; no service of Parley reads the collection. Packages discord
// and twitch detect the gaps.
package gap

import (
	"context"
	"fmt"
	"time"

	"cloud.google.com/go/firestore"

	"parley.internal/shared/digest"
	"parley.internal/shared/event"
)

// Gap is a time without coverage of a channel or of the bot's whispers, the document gaps/{hash}. Times are in UTC and
// truncated to microseconds, the precision of Firestore.
type Gap struct {
	Platform string    `firestore:"platform"`
	Channel  string    `firestore:"channel"` // in the form of event.Event.Channel; for Whispers the bot's user id
	Missed   string    `firestore:"missed"`  // Chat, Events or Whispers
	From     time.Time `firestore:"from"`
	To       time.Time `firestore:"to"`
	Instance string    `firestore:"instance"` // the instance that recorded the gap
	ExpireAt time.Time `firestore:"expireAt"` // the collection's TTL field
}

// The values of Gap.Missed.
const (
	Chat     = "chat"     // chat messages
	Events   = "events"   // platform events beside chat, such as new followers
	Whispers = "whispers" // private messages to the bot
)

// Retention is the time after the end of a gap at which Firestore may delete it.
const Retention = 30 * 24 * time.Hour

// New makes a gap. If to is before from, because the clocks of two instances differ, the gap has no length.
func New(platform, channel, missed string, from, to time.Time, instance string) Gap {
	from, to = event.TruncateToMicros(from), event.TruncateToMicros(to)
	if to.Before(from) {
		to = from
	}
	return Gap{platform, channel, missed, from, to, instance, to.Add(Retention)}
}

// Put stores a gap. Put is idempotent: gaps with the same channel, kind, start and instance are one document, and the
// last Put wins.
func (g Gap) Put(ctx context.Context, client *firestore.Client) error {
	id := digest.Of("gap", g.Channel, g.Missed, g.From.Format(time.RFC3339Nano), g.Instance)
	if _, err := client.Collection("gaps").Doc(id).Set(ctx, g); err != nil {
		return fmt.Errorf("store the gap of %s: %w", g.Channel, err)
	}
	return nil
}
