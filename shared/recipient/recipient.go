// Package recipient records the users with whom the bot whispers on Twitch. The length of a whisper and the number of
// new recipients a day depend on these records (https://dev.twitch.tv/docs/api/reference/#send-whisper).
//
// Start with [Book] for received whispers and with [Recipient.Whispered] for sent ones. Two parts write the same
// documents, each its own fields: the whisper function, and the Twitch gateway, which receives whispers. The package
// does not know Twitch's limits.
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
	// keep is how long a record lasts after the last whisper in either direction.
	keep = 365 * 24 * time.Hour
	// renew is the age at which a time is written again. Most whispers find a younger time, and write nothing here.
	renew = 30 * 24 * time.Hour
)

// Recipient is a user with whom the bot has whispered, the document whispers/{twitch:bot}/recipients/{twitch:id}. The
// TTL field is expireAt.
type Recipient struct {
	FirstAt time.Time `firestore:"firstAt,omitempty"` // the bot's first whisper to the user; zero for never
	LastAt  time.Time `firestore:"lastAt,omitempty"`  // the bot's last whisper to the user; up to a month too early
	WroteAt time.Time `firestore:"wroteAt,omitempty"` // the user's last whisper to the bot; up to a month too early, zero for never
}

// Document returns the document of a user among the recipients of a bot.
func Document(client *firestore.Client, bot, id identity.UserID) *firestore.DocumentRef {
	return client.Collection("whispers").Doc(bot.String()).Collection("recipients").Doc(id.String())
}

// Whispered returns the fields to merge into the record when the bot whispers to the user now, or nil if the record is
// recent enough.
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

// maxNoted is the largest number of users in a [Book]'s cache. A user who was removed from the cache costs one more write.
const maxNoted = 10_000

// Book records the users who whisper to a bot. It is safe for concurrent use.
type Book struct {
	client *firestore.Client
	bot    identity.UserID
	now    func() time.Time

	mu    sync.Mutex
	noted map[identity.UserID]time.Time // the times written by this process
}

// NewBook makes a book with a client. The caller closes the client.
func NewBook(client *firestore.Client, bot identity.UserID, now func() time.Time) *Book {
	return &Book{client: client, bot: bot, now: now, noted: map[identity.UserID]time.Time{}}
}

// Wrote records that a user has whispered to the bot. A process writes about once a month for each user, and reads nothing.
func (b *Book) Wrote(ctx context.Context, id identity.UserID) error {
	now := event.TruncateToMicros(b.now())
	b.mu.Lock()
	at, ok := b.noted[id]
	b.mu.Unlock()
	if ok && now.Before(at.Add(renew)) {
		return nil
	}
	if _, err := Document(b.client, b.bot, id).Set(ctx, map[string]any{"wroteAt": now, "expireAt": now.Add(keep)}, firestore.MergeAll); err != nil {
		return fmt.Errorf("record that %s whispered to %s: %w", id, b.bot, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.noted) >= maxNoted {
		clear(b.noted)
	}
	b.noted[id] = now
	return nil
}
