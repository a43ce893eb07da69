// Package whisper is the Cloud Function that sends whispers. It sends each answer for a single Twitch user to Twitch
// once (https://dev.twitch.tv/docs/api/reference/#send-whisper). Start with [Function.Whisper].
//
// The bus attribute route = whisper marks these answers. A message may come more than once, and to several instances:
// the ledger lets one instance claim the delivery. An execution ends in one of three states:
//
//	delivered     Twitch answered 204: accepted, but not necessarily shown. Twitch drops suspected spam silently, so the
//	              note in the ledger says no more than "accepted".
//	dead          Twitch refused the whisper, or would accept a whisper only after the deadline, or the outcome is
//	              unknown.
//	pending       Twitch certainly did not accept the whisper: status 429, no connection, or no token at present. The
//	              claim is released and the message fails, so Pub/Sub delivers the message again.
//
// The outcome is unknown if Twitch did not answer a complete request, or answered with a server error. Then the whisper
// is never sent again. The whisper is dead as outcome_unknown at once, not only when the claim expires, because the
// dead letter then has the details for the operator's decision. If even this write fails, the claim expires and the
// sweep has the same result.
//
// A [Limiter] keeps Twitch's limits over all instances.
package whisper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"parley.internal/shared/answer"
	"parley.internal/shared/bus"
	"parley.internal/shared/credential"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/twitch"
)

// Step is the function's name.
const Step = "whisper"

const (
	// workTime is the limit until the outcome of a whisper is known, and settleTime the limit until the outcome is
	// recorded. Together they are less than the acknowledgement deadline of the subscription, and than
	// [delivery.ClaimLease].
	workTime   = 45 * time.Second
	settleTime = 10 * time.Second
	// storeTime is the limit of one call of the store.
	storeTime = 3 * time.Second
	// settlePause lies between two tries to settle.
	settlePause = 200 * time.Millisecond
	// tokenTime is the limit of obtaining a token, even while another instance refreshes the token.
	tokenTime = 12 * time.Second

	// maxAttempts is how often the subscription delivers a message. At the last delivery but one, a whisper that can't
	// be sent is dead. This is long after the deadline, unless the deadline is very long. A message dead-lettered by
	// Pub/Sub itself would not have the delivery's reason.
	maxAttempts = 100
	// minBackoff is the subscription's least pause before it delivers a message again.
	minBackoff = time.Second
)

// Dependencies holds the dependencies of a [Function]. All are required, but Tokens only if the bot is configured.
type Dependencies struct {
	Config  Config
	Ledger  *delivery.Ledger
	Reaper  *delivery.Reaper
	Limiter *Limiter
	Tokens  twitch.Tokens // of the bot
	Now     func() time.Time
	Log     *slog.Logger
}

// Function sends whispers. It is safe for concurrent use.
type Function struct {
	deps     Dependencies
	executor *delivery.Executor
	helix    *twitch.Client
	account  twitch.Account  // the bot's
	bot      identity.UserID // zero without a configured bot
}

// New makes a function. The configuration must be valid.
func New(d Dependencies) *Function {
	f := &Function{deps: d, helix: newHelix(d.Config, newTransport(), d.Now)}
	f.bot, _ = d.Config.Credential.Twitch.Bot() // without a bot, every whisper is dead-lettered
	f.account = twitch.Account{User: f.bot, Tokens: d.Tokens, Scopes: []string{scope}, Timeout: tokenTime}
	f.executor = &delivery.Executor{Ledger: d.Ledger, Reaper: d.Reaper, Log: d.Log, Now: d.Now, Timing: delivery.Timing{
		Backoff: settlePause, MaxBackoff: settlePause, Retry: minBackoff, Claim: workTime, Settle: settleTime, Store: storeTime,
	}}
	return f
}

// Errors that make Pub/Sub deliver the message again.
var (
	// errElsewhere means that a different instance has the claim. The remaining work is known only when the other
	// instance settles.
	errElsewhere = errors.New("another instance has claimed the whisper and not settled it yet")
	// errPostponed is wrapped with the reason of a postponed whisper.
	errPostponed = errors.New("whisper postponed")
)

// Whisper is the function's [bus.Handler].
func (f *Function) Whisper(ctx context.Context, in bus.Incoming) error {
	// the subscription has the same filter, but Google's Pub/Sub emulator ignores filters
	if in.Attributes[bus.AttrRoute] != bus.RouteWhisper {
		return nil
	}
	if delivery.IsNotice(in.Attributes) {
		return nil
	}
	ref, err := delivery.ParseRef(in)
	if err != nil {
		return err
	}
	started := f.deps.Now()
	// An execution is finished although Pub/Sub may have stopped waiting: to break off would leave an unknown outcome.
	ctx = context.WithoutCancel(ctx)
	w := &execution{function: f, in: in, job: delivery.Job{Ref: ref}}
	state, err := w.run(ctx)
	if err == nil && state == delivery.Delivered && w.note != "" {
		f.deps.Log.InfoContext(ctx, "whisper sent", "correlationId", in.Event.CorrelationID, "delivery", ref.ID, "note", w.note,
			"ms", f.deps.Now().Sub(started).Milliseconds())
	}
	return err
}

// execution is the work on one message.
type execution struct {
	function *Function
	in       bus.Incoming
	job      delivery.Job
	working  context.Context // ends after workTime

	to    identity.UserID
	text  string
	token credential.Token
	note  string // of an accepted whisper
}

// run executes the delivery and returns the state of its entry.
func (w *execution) run(ctx context.Context) (delivery.State, error) {
	if d := w.job.Ref.Deadline; !d.IsZero() {
		// set before the deadline, too: the deadline may pass before the executor reads the clock
		w.job.Last = deadletter.New(deadletter.Expired, fmt.Errorf("the whisper could not be sent until %s", d.UTC().Format(time.RFC3339)))
		if w.function.deps.Now().After(d) {
			if state, done, err := w.expired(ctx); done || err != nil {
				return state, err
			}
		}
	}
	var cancel context.CancelFunc
	w.working, cancel = context.WithTimeout(ctx, workTime)
	defer cancel()
	r := w.function.executor.Execute(ctx, ctx, &w.job, delivery.Attempt{Parts: 1, Repeat: delivery.Never, Ready: w.prepare, Try: w.try})
	switch {
	case errors.Is(r.Err, delivery.ErrNotFound):
		return "", deadletter.New(deadletter.InvalidEvent, r.Err)
	case !r.Done && r.State == delivery.Pending:
		// not the dead-letter error itself: the bus would dead-letter the message
		return r.State, errors.Join(fmt.Errorf("%w: %s: %w", errPostponed, w.job.Last.Reason, w.job.Last.Err), r.Err)
	case r.Err == nil && r.State == delivery.Claimed:
		return r.State, errElsewhere
	}
	return r.State, r.Err
}

// expired handles a message after its deadline. It reads the entry, because after a redrive the entry belongs to a newer
// message. done is false if the delivery has to be marked dead.
func (w *execution) expired(ctx context.Context) (state delivery.State, done bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	e, err := w.function.deps.Ledger.Get(ctx, w.job.Ref.ID)
	switch {
	case errors.Is(err, delivery.ErrNotFound):
		return "", true, nil // so late that the ledger has removed the entry
	case err != nil:
		return "", false, err
	case e.State == delivery.Claimed:
		return e.State, true, errElsewhere
	}
	return e.State, e.State != delivery.Pending || !w.function.deps.Now().After(e.Deadline), nil
}

func refuse(r deadletter.Reason, err error) delivery.Outcome {
	return delivery.Outcome{Kind: delivery.Refused, Reason: r, Err: err}
}

// postpone returns NotSent if the whisper can still be sent in time, and Refused for the same reason otherwise. until is
// the earliest time of the next try; zero if not known.
func (w *execution) postpone(r deadletter.Reason, err error, until time.Time) delivery.Outcome {
	o := refuse(r, err)
	if next := w.function.deps.Now().Add(minBackoff); next.After(until) {
		until = next
	}
	if d := w.job.Ref.Deadline; w.in.Attempt < maxAttempts-1 && (d.IsZero() || until.Before(d)) {
		o.Kind = delivery.NotSent
	}
	return o
}

// prepare does all that needs no claim. The token comes before the claim: a crash while waiting leaves nothing behind.
func (w *execution) prepare(context.Context, int) (o delivery.Outcome, ready bool) {
	f := w.function
	if missing := f.deps.Config.missing(); len(missing) > 0 {
		return refuse(deadletter.NotConfigured, fmt.Errorf("nothing can be whispered without %s", strings.Join(missing, " and "))), false
	}
	to, err := addressee(w.in.Event, f.bot)
	if err != nil {
		return refuse(err.Reason, err.Err), false
	}
	w.to, w.text = to, answer.Render(w.in.Event).Whole()
	if w.text == "" {
		return refuse(deadletter.NoText, errors.New("no candidate has a text, and the payload has none")), false
	}
	token, failed := f.account.Token(w.working)
	if failed != nil {
		return w.outcomeOf(failed, time.Time{}), false
	}
	w.token = token
	return o, true
}

// addressee returns the user to whom an event is whispered.
func addressee(e *event.Event, bot identity.UserID) (identity.UserID, *deadletter.Error) {
	if e.UserID == "" {
		return identity.UserID{}, deadletter.New(deadletter.NoRecipient, errors.New("userId is not set, so the whisper has no recipient"))
	}
	to, err := identity.Parse(e.UserID)
	switch {
	case err != nil:
		return identity.UserID{}, deadletter.New(deadletter.NoRecipient, fmt.Errorf("userId: %w", err))
	case to.Platform() != identity.Twitch:
		return identity.UserID{}, deadletter.New(deadletter.NoRecipient, fmt.Errorf("userId: %s is not a user of Twitch; only Twitch has whispers", to))
	case to == bot:
		return identity.UserID{}, deadletter.New(deadletter.RecipientRefused, errors.New("the bot can't whisper to itself"))
	}
	return to, nil
}

// try sends the claimed whisper.
func (w *execution) try(context.Context, int) delivery.Outcome {
	f, ctx := w.function, w.working
	g, err := f.deps.Limiter.Take(ctx, f.bot, w.to)
	if err != nil {
		return w.postpone(deadletter.PlatformUnavailable, err, time.Time{})
	}
	if !g.Until.IsZero() {
		return w.postpone(deadletter.RateLimited, fmt.Errorf("%s; the next from %s on", g.Why, g.Until.UTC().Format(time.RFC3339)), g.Until)
	}
	limit := maxFirst
	if g.Answered {
		limit = maxAnswers
	}
	text, note := fit(w.text, limit)
	o := w.send(text)
	if o.Kind == delivery.Sent {
		w.note = "accepted"
		if note != "" {
			w.note += "; " + note
		}
		o.Note = w.note
	}
	return o
}
