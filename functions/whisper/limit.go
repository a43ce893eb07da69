package whisper

import (
	"context"
	"fmt"
	"slices"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/recipient"
	"parley.internal/shared/store"
)

const (
	// keepSender is the lifetime of a sender's document. It is longer than the longest window.
	keepSender = 48 * time.Hour
	// limitAttempts is the number of attempts of a transaction after conflicts with other instances.
	limitAttempts = 10
)

// Limiter counts the whispers of all instances together, and keeps Twitch's limits
// (https://dev.twitch.tv/docs/api/reference/#send-whisper). It is safe for concurrent use.
//
// The collection whispers has one document for each bot, beside the documents of recipients (package recipient). expireAt
// is the collection's TTL field:
//
//	whispers/{twitch:bot}
//	  sent        times of the whispers of the last minute
//	  new         times of the first whispers to new recipients in the last day
//	  heldUntil   end of the pause after Twitch's status 429
//
// A whisper costs one transaction: one read of both documents and one write. A failed whisper stays counted, so an error
// in the count never exceeds Twitch's limits.
type Limiter struct {
	client *firestore.Client
	limits LimitsConfig
	now    func() time.Time
	turn   chan struct{} // a lock with one slot: the whispers of one process do not conflict in the document
}

// NewLimiter makes a limiter. The caller closes the client.
func NewLimiter(client *firestore.Client, c LimitsConfig, now func() time.Time) *Limiter {
	return &Limiter{client: client, limits: c, now: now, turn: make(chan struct{}, 1)}
}

// sender is whispers/{bot}.
type sender struct {
	Sent      []time.Time `firestore:"sent"`
	New       []time.Time `firestore:"new"`
	HeldUntil time.Time   `firestore:"heldUntil,omitempty"`
	ExpireAt  time.Time   `firestore:"expireAt"`
}

// Grant is a permission for one whisper, or the time of the next permission.
type Grant struct {
	Until    time.Time // zero if the whisper is permitted
	Why      string    // the exceeded limit; empty if the whisper is permitted
	Answered bool      // the recipient has whispered to the bot before: Twitch permits a long whisper
}

func (l *Limiter) sender(from identity.UserID) *firestore.DocumentRef {
	return l.client.Collection("whispers").Doc(from.String())
}

// Take counts one whisper to a recipient, if the limits permit the whisper. A repetition of the first whisper does not
// count the recipient as new again.
//
// Twitch limits "unique recipients per day". Take does not count recipients of earlier days. If Twitch counts them, it
// answers 429, and the caller calls [Limiter.Hold].
func (l *Limiter) Take(ctx context.Context, from, to identity.UserID) (Grant, error) {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return Grant{}, fmt.Errorf("count whispers: %w", ctx.Err())
	}
	refs := []*firestore.DocumentRef{l.sender(from), recipient.Document(l.client, from, to)}
	var g Grant
	err := store.RunTransaction(ctx, l.client, func(_ context.Context, tx *firestore.Transaction) error {
		snaps, err := tx.GetAll(refs)
		if err != nil {
			return err
		}
		var s sender
		if snaps[0].Exists() {
			if err := snaps[0].DataTo(&s); err != nil {
				return err
			}
		}
		var r recipient.Recipient
		if snaps[1].Exists() {
			if err := snaps[1].DataTo(&r); err != nil {
				return err
			}
		}
		now := event.TruncateToMicros(l.now())
		g = l.limits.grant(&s, r, now)
		if !g.Until.IsZero() {
			return nil
		}
		s.ExpireAt = now.Add(keepSender)
		if err := tx.Set(refs[0], s); err != nil {
			return err
		}
		fields := r.Whispered(now)
		if fields == nil {
			return nil
		}
		return tx.Set(refs[1], fields, firestore.MergeAll)
	}, firestore.MaxAttempts(limitAttempts))
	if err != nil {
		return Grant{}, fmt.Errorf("count whispers: %w", err)
	}
	return g, nil
}

// grant decides about one whisper, and counts a permitted whisper in s.
func (c LimitsConfig) grant(s *sender, r recipient.Recipient, now time.Time) Grant {
	s.Sent, s.New = within(s.Sent, now, time.Minute), within(s.New, now, 24*time.Hour)
	g := Grant{Answered: !r.WroteAt.IsZero()}
	isNew := r.FirstAt.IsZero()
	wait := func(until time.Time, why string) {
		if until.After(now) && until.After(g.Until) {
			g.Until, g.Why = until, why
		}
	}
	wait(s.HeldUntil, "Twitch demands a pause")
	wait(free(s.Sent, c.PerSecond, time.Second), fmt.Sprintf("%d whispers in a second", c.PerSecond))
	wait(free(s.Sent, c.PerMinute, time.Minute), fmt.Sprintf("%d whispers in a minute", c.PerMinute))
	if isNew {
		wait(free(s.New, c.NewPerDay, 24*time.Hour), fmt.Sprintf("%d new recipients in a day", c.NewPerDay))
	}
	if !g.Until.IsZero() {
		return g
	}
	s.Sent = append(s.Sent, now)
	if isNew {
		s.New = append(s.New, now)
	}
	return g
}

// within returns the times in the window before now, sorted.
func within(times []time.Time, now time.Time, window time.Duration) []time.Time {
	times = slices.DeleteFunc(slices.Clone(times), func(t time.Time) bool { return !t.After(now.Add(-window)) })
	slices.SortFunc(times, time.Time.Compare)
	return times
}

// free returns the time from which the window holds fewer than n of the times; zero for fewer than n times in all.
func free(times []time.Time, n int, window time.Duration) time.Time {
	if len(times) < n {
		return time.Time{}
	}
	return times[len(times)-n].Add(window)
}

// Hold stops the whispers of all instances until a time, after Twitch's status 429.
func (l *Limiter) Hold(ctx context.Context, from identity.UserID, until time.Time) error {
	_, err := l.sender(from).Update(ctx, []firestore.Update{{Path: "heldUntil", Value: until}})
	if err != nil && status.Code(err) != codes.NotFound { // no document: no whisper was counted, so there is nothing to stop
		return fmt.Errorf("hold whispers: %w", err)
	}
	return nil
}
