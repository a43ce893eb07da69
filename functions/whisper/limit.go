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
)

const (
	// keepSender is longer than the longest window.
	keepSender = 48 * time.Hour
	// limitAttempts is how often a transaction is tried that met another instance's.
	limitAttempts = 10
)

// Limiter counts the whispers of all instances, so that together they keep Twitch's limits
// (https://dev.twitch.tv/docs/api/reference/#send-whisper). It keeps one document for each bot, with expireAt as its
// collection's TTL field, beside those of its recipients (package recipient):
//
//	whispers/{twitch:bot}   what the bot has whispered of late
//	  sent        when, for each whisper of the last minute
//	  new         when, for each recipient that was new in the last day
//	  heldUntil   before this time Twitch takes no whisper, as it said itself
//
// A whisper costs one transaction: both documents are read at once and written at once. What was taken is not given
// back where the whisper then fails, so that the count errs on Twitch's side. It is safe for concurrent use.
type Limiter struct {
	client *firestore.Client
	limits LimitsConfig
	now    func() time.Time
	turn   chan struct{} // holds one value: the whispers of one process don't contend for the document
}

// NewLimiter makes a limiter on a client, which stays the caller's to close.
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

// Grant is the leave to whisper once, or the time until which there is none.
type Grant struct {
	Until    time.Time // zero if there is leave
	Why      string    // which limit it is, if there is none
	Answered bool      // the recipient has whispered to the bot before, so that the whisper may be a long one
}

func (l *Limiter) sender(from identity.UserID) *firestore.DocumentRef {
	return l.client.Collection("whispers").Doc(from.String())
}

// Take asks for leave to whisper once to somebody. What the first whisper to a recipient is counted as, it stays, also
// if that whisper is tried again.
//
// Twitch limits "unique recipients per day". Whom the bot has whispered to before that day does not count here: should
// Twitch see that otherwise it says so with 429, which [Limiter.Hold] takes care of.
func (l *Limiter) Take(ctx context.Context, from, to identity.UserID) (Grant, error) {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return Grant{}, fmt.Errorf("count whispers: %w", ctx.Err())
	}
	refs := []*firestore.DocumentRef{l.sender(from), recipient.Document(l.client, from, to)}
	var g Grant
	err := l.client.RunTransaction(ctx, func(_ context.Context, tx *firestore.Transaction) error {
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

// grant decides, and if there is leave counts it in s.
func (c LimitsConfig) grant(s *sender, r recipient.Recipient, now time.Time) Grant {
	s.Sent, s.New = within(s.Sent, now, time.Minute), within(s.New, now, 24*time.Hour)
	g := Grant{Answered: !r.WroteAt.IsZero()}
	isNew := r.FirstAt.IsZero()
	wait := func(until time.Time, why string) {
		if until.After(now) && until.After(g.Until) {
			g.Until, g.Why = until, why
		}
	}
	wait(s.HeldUntil, "Twitch asked to wait")
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

// within leaves of times those that are in the window before now, in order.
func within(times []time.Time, now time.Time, window time.Duration) []time.Time {
	times = slices.DeleteFunc(slices.Clone(times), func(t time.Time) bool { return !t.After(now.Add(-window)) })
	slices.SortFunc(times, time.Time.Compare)
	return times
}

// free is when fewer than n of the times will be within the window; zero if that is so whatever the time is.
func free(times []time.Time, n int, window time.Duration) time.Time {
	if len(times) < n {
		return time.Time{}
	}
	return times[len(times)-n].Add(window)
}

// Hold has every instance wait, because Twitch said that it takes no whisper before a time.
func (l *Limiter) Hold(ctx context.Context, from identity.UserID, until time.Time) error {
	_, err := l.sender(from).Update(ctx, []firestore.Update{{Path: "heldUntil", Value: until}})
	if err != nil && status.Code(err) != codes.NotFound { // where nothing was counted there is nothing to hold
		return fmt.Errorf("hold whispers: %w", err)
	}
	return nil
}
