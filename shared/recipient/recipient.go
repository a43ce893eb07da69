// Package recipient keeps on record with whom the bot whispers on Twitch. How long a whisper may be depends on it, and
// how many new people the bot may whisper to in a day (https://dev.twitch.tv/docs/api/reference/#send-whisper).
//
// Both sides write the same documents, each its own fields: the function that whispers, and the gateway, which hears
// who whispers to the bot.
package recipient

import (
	"context"
	"fmt"
	"sync"
	"time"

	"cloud.google.com/go/firestore"

	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

const (
	// keep is how long somebody counts as known after they last whispered, or were whispered to.
	keep = 365 * 24 * time.Hour
	// renew is how old a time gets before it is written again, so that most whispers write nothing here.
	renew = 30 * 24 * time.Hour
)

// Recipient is somebody with whom the bot has whispered, the document whispers/{twitch:bot}/recipients/{twitch:id}. Its
// TTL field is expireAt.
type Recipient struct {
	FirstAt time.Time `firestore:"firstAt,omitempty"` // when the bot whispered to them for the first time; zero for never
	LastAt  time.Time `firestore:"lastAt,omitempty"`  // and when for the last time, give or take a month
	WroteAt time.Time `firestore:"wroteAt,omitempty"` // when they last whispered to the bot, give or take a month; zero for never
}

// Document is where somebody's record is, among those of a bot.
func Document(client *firestore.Client, bot, id identity.UserID) *firestore.DocumentRef {
	return client.Collection("whispers").Doc(bot.String()).Collection("recipients").Doc(id.String())
}

// Whispered gives what the record has to be merged with when the bot whispers to them now. It is nil if it may stay as
// it is.
func (r Recipient) Whispered(now time.Time) map[string]any {
	if now.Before(r.LastAt.Add(renew)) {
		return nil
	}
	fields := map[string]any{"lastAt": now, "expireAt": now.Add(keep)}
	if r.FirstAt.IsZero() {
		fields["firstAt"] = now
	}
	return fields
}

// maxNoted bounds what a [Book] remembers. What it forgets costs a write when it comes again.
const maxNoted = 10_000

// Book notes who whispers to a bot. It is safe for concurrent use.
type Book struct {
	client *firestore.Client
	bot    identity.UserID
	now    func() time.Time

	mu    sync.Mutex
	noted map[identity.UserID]time.Time // what this process has written
}

// NewBook makes a book on a client, which stays the caller's to close.
func NewBook(client *firestore.Client, bot identity.UserID, now func() time.Time) *Book {
	return &Book{client: client, bot: bot, now: now, noted: map[identity.UserID]time.Time{}}
}

// Wrote notes that somebody has whispered to the bot. That is one write for each of them in a month, and reads nothing.
func (b *Book) Wrote(ctx context.Context, id identity.UserID) error {
	now := event.TruncateToMicros(b.now())
	b.mu.Lock()
	at, ok := b.noted[id]
	b.mu.Unlock()
	if ok && now.Before(at.Add(renew)) {
		return nil
	}
	if _, err := Document(b.client, b.bot, id).Set(ctx, map[string]any{"wroteAt": now, "expireAt": now.Add(keep)}, firestore.MergeAll); err != nil {
		return fmt.Errorf("note that %s whispered to %s: %w", id, b.bot, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.noted) >= maxNoted {
		clear(b.noted)
	}
	b.noted[id] = now
	return nil
}
