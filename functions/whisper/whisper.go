// Package whisper is the function that whispers: it takes the answers that go to one person on Twitch alone, and hands
// each to Twitch once (https://dev.twitch.tv/docs/api/reference/#send-whisper).
//
// An answer comes with the bus attribute route = whisper; others are not this function's. It may come more than once,
// and to several instances: the ledger of deliveries lets one of them claim it. What then becomes of it is one of:
//
//	delivered     Twitch took it, with 204. That says "accepted", not "read": Twitch drops what it holds for spam
//	              without a word, and the note in the ledger claims no more than it knows.
//	dead          Twitch refused it, or will not take it before its deadline, or nobody knows what became of it.
//	pending       It is certain that Twitch has not got it: it was told to come later (429), or there was no connection.
//	              The claim is given back and the message fails, so that Pub/Sub delivers it again.
//
// Where it is not certain, because a request was written and not answered, or answered with a fault of the server, the
// whisper is never sent again. It is given up as outcome_unknown at once, rather than when its claim runs out: what
// happened then stands in the dead letter, for the operator who has to decide. Should even that fail, the claim runs out
// and the sweep comes to the same.
//
// Twitch's limits are kept over all instances by a [Limiter].
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
)

// Step is this function's name.
const Step = "whisper"

const (
	// workTime is how long a whisper may take until what came of it is known, and settleTime how long the ledger may
	// take to record that. Together they are less than the acknowledgement deadline of the subscription, and than
	// [delivery.ClaimLease].
	workTime   = 45 * time.Second
	settleTime = 10 * time.Second
	// settleTry is how much of settleTime one try may take, and settlePause what lies between two.
	settleTry   = 3 * time.Second
	settlePause = 200 * time.Millisecond
	// tokenTime bounds how long one waits for a token that somebody is refreshing.
	tokenTime = 12 * time.Second

	// maxAttempts is how often the subscription delivers a message. At the last delivery but one, which is well after
	// the deadline unless that was made very long, a whisper is given up here: what Pub/Sub gives up would not be
	// known by its delivery.
	maxAttempts = 100
	// minBackoff is the subscription's least wait before it delivers a message again.
	minBackoff = time.Second
)

// Tokens gives the bot's access token. [credential.Keeper] is one.
type Tokens interface {
	// Token gives a token that is valid as far as one can know.
	Token(ctx context.Context, id identity.UserID) (credential.Token, error)
	// Invalid gives the successor of a token that the platform has answered with 401.
	Invalid(ctx context.Context, id identity.UserID, used credential.Token) (credential.Token, error)
}

// Deps is what a [Function] works with. All of it is required, but Tokens only where whispering is configured.
type Deps struct {
	Config  Config
	Ledger  *delivery.Ledger
	Reaper  *delivery.Reaper
	Limiter *Limiter
	Tokens  Tokens
	Now     func() time.Time
	Log     *slog.Logger
}

// Function whispers. It is safe for concurrent use.
type Function struct {
	deps Deps
	api  *api
	bot  identity.UserID // zero if it is not configured
}

// New makes a function. The configuration has been validated.
func New(d Deps) *Function {
	f := &Function{deps: d, api: newAPI(d.Config.Credential.Twitch.ClientID, d.Config.Credential.Twitch.APIURL, d.Config.Twitch.Timeout)}
	f.bot, _ = d.Config.Credential.Twitch.Bot() // without one, every whisper is dead-lettered
	return f
}

// Errors that have a message delivered again.
var (
	// errElsewhere means that somebody else has the claim. Whether there will be something left to do is not known
	// before they settle it.
	errElsewhere = errors.New("another instance has claimed the whisper and not settled it yet")
	// errLater is wrapped where a whisper was put off.
	errLater = errors.New("the whisper is put off")
)

// Whisper is the function's [bus.Handler].
func (f *Function) Whisper(ctx context.Context, in bus.Incoming) error {
	// the subscription has a filter that says the same, but Google's Pub/Sub emulator ignores filters
	if in.Attributes[bus.AttrRoute] != bus.RouteWhisper {
		return nil
	}
	ref, err := delivery.ParseRef(in)
	if err != nil {
		return err
	}
	started := f.deps.Now()
	// What has begun is brought to its end, although Pub/Sub may have stopped waiting for it: to break off in the midst
	// would leave an outcome that nobody knows.
	ctx = context.WithoutCancel(ctx)
	d := &job{function: f, in: in, ref: ref}
	err = d.run(ctx)
	d.report(ctx, started, err)
	return err
}

// job is the work on one message.
type job struct {
	function *Function
	in       bus.Incoming
	ref      delivery.Ref
	claim    *delivery.Claim // nil until there is one
	outcome  verdict
	state    delivery.State // of the entry at the end, as far as it is known
}

// verdict is what is to become of a whisper.
type verdict struct {
	note  string            // of one that was delivered
	why   *deadletter.Error // of one that is given up, or nil if it was delivered
	later bool              // it is put off, unless there is no time left; then it is given up
	until time.Time         // there is no use in trying before; zero if that is not known
}

func giveUp(r deadletter.Reason, err error) verdict { return verdict{why: deadletter.New(r, err)} }

func putOff(r deadletter.Reason, err error, until time.Time) verdict {
	return verdict{why: deadletter.New(r, err), later: true, until: until}
}

func (d *job) run(ctx context.Context) error {
	f := d.function
	if !d.ref.Deadline.IsZero() && !f.deps.Now().Before(d.ref.Deadline) {
		return d.late(ctx)
	}
	working, cancel := context.WithTimeout(ctx, workTime)
	defer cancel()
	w, v := d.prepare(working)
	if v == nil {
		// the token comes before the claim: whoever dies while waiting for one leaves nothing behind
		var err error
		d.claim, d.state, err = f.deps.Ledger.Claim(working, d.ref)
		switch {
		case errors.Is(err, delivery.ErrNotFound):
			return deadletter.New(deadletter.InvalidEvent, err)
		case err != nil:
			return err
		case d.claim == nil && d.state == delivery.Claimed:
			return errElsewhere
		case d.claim == nil:
			return nil
		}
		made := d.whisper(working, w)
		v = &made
	}
	d.outcome = *v
	settling, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	return d.settle(settling)
}

// words are what is to be said to whom, by which token.
type words struct {
	to    identity.UserID
	text  string
	token credential.Token
}

// prepare finds out all that can be found out without a claim. The verdict is nil if the whisper can be made.
func (d *job) prepare(ctx context.Context) (words, *verdict) {
	f := d.function
	if missing := f.deps.Config.missing(); len(missing) > 0 {
		v := giveUp(deadletter.NotConfigured, fmt.Errorf("nothing can be whispered without %s", strings.Join(missing, " and ")))
		return words{}, &v
	}
	to, err := addressee(d.in.Event, f.bot)
	if err != nil {
		return words{}, &verdict{why: err}
	}
	text := answer.Text(d.in.Event)
	if text == "" {
		v := giveUp(deadletter.NoText, errors.New("no candidate has a text, and the payload has none"))
		return words{}, &v
	}
	token, v := d.token(ctx, func(ctx context.Context) (credential.Token, error) { return f.deps.Tokens.Token(ctx, f.bot) })
	return words{to, text, token}, v
}

// addressee is whom an event is to be whispered to.
func addressee(e *event.Event, bot identity.UserID) (identity.UserID, *deadletter.Error) {
	if e.UserID == "" {
		return identity.UserID{}, deadletter.New(deadletter.NoRecipient, errors.New("userId is not set, and nobody can be whispered to without"))
	}
	to, err := identity.Parse(e.UserID)
	switch {
	case err != nil:
		return identity.UserID{}, deadletter.New(deadletter.NoRecipient, fmt.Errorf("userId: %w", err))
	case to.Platform() != identity.Twitch:
		return identity.UserID{}, deadletter.New(deadletter.NoRecipient, fmt.Errorf("userId: %s is nobody on Twitch, where alone there are whispers", to))
	case to == bot:
		return identity.UserID{}, deadletter.New(deadletter.RecipientRefused, errors.New("the bot can't whisper to itself"))
	}
	return to, nil
}

// token obtains a token that may whisper, and decides what a failure means. Nothing has been sent, so whatever may mend
// by itself is tried again.
func (d *job) token(ctx context.Context, obtain func(context.Context) (credential.Token, error)) (credential.Token, *verdict) {
	ctx, cancel := context.WithTimeout(ctx, tokenTime)
	defer cancel()
	token, err := obtain(ctx)
	if err == nil {
		err = token.Require(scope)
	}
	if err == nil {
		return token, nil
	}
	var v verdict
	if missing, ok := errors.AsType[*credential.MissingScopes](err); ok {
		v = giveUp(deadletter.MissingScope, missing)
	} else if login, ok := errors.AsType[*credential.LoginNeeded](err); ok {
		v = giveUp(deadletter.LoginNeeded, login)
	} else if errors.Is(err, credential.ErrRefused) {
		v = giveUp(deadletter.SenderRefused, err)
	} else {
		v = putOff(deadletter.PlatformUnavailable, err, time.Time{})
	}
	return credential.Token{}, &v
}

// whisper makes the whisper that was claimed.
func (d *job) whisper(ctx context.Context, w words) verdict {
	f := d.function
	g, err := f.deps.Limiter.Take(ctx, f.bot, w.to)
	if err != nil {
		return putOff(deadletter.PlatformUnavailable, err, time.Time{})
	}
	if !g.Until.IsZero() {
		return putOff(deadletter.RateLimited, fmt.Errorf("%s; the next from %s on", g.Why, g.Until.UTC().Format(time.RFC3339)), g.Until)
	}
	limit := maxFirst
	if g.Answered {
		limit = maxAnswers
	}
	text, note := fit(w.text, limit)
	got, why, v := d.send(ctx, w, text)
	if v != nil {
		return *v
	}
	switch got {
	case accepted:
		if note != "" {
			note = "; " + note
		}
		return verdict{note: "accepted" + note}
	case unsent:
		return verdict{why: why, later: true}
	default:
		return verdict{why: why}
	}
}

// send asks Twitch, and after a 401 once more with another token. The verdict is nil if the meaning says it all.
func (d *job) send(ctx context.Context, w words, text string) (meaning, *deadletter.Error, *verdict) {
	f := d.function
	for again := false; ; again = true {
		if err := ctx.Err(); err != nil {
			v := putOff(deadletter.PlatformUnavailable, fmt.Errorf("there was no time left to send it: %w", err), time.Time{})
			return 0, nil, &v
		}
		a := f.api.send(ctx, w.token, f.bot, w.to, text)
		got, why := judge(a)
		switch {
		case got == limited:
			until := holdUntil(a.reset, f.deps.Now())
			if err := f.deps.Limiter.Hold(ctx, f.bot, until); err != nil {
				f.deps.Log.WarnContext(ctx, "other instances will not know that Twitch asked to wait", "error", err)
			}
			return 0, nil, &verdict{why: why, later: true, until: until}
		case got == refused && why.Reason == deadletter.MissingScope:
			// Twitch knows better than what was stored when the bot logged in; the way out is the same
			v := giveUp(deadletter.MissingScope, fmt.Errorf("%w; %w", why.Err, &credential.MissingScopes{User: f.bot, Missing: []string{scope}}))
			return 0, nil, &v
		case got != unauthorized || again:
			return got, why, nil
		}
		token, v := d.token(ctx, func(ctx context.Context) (credential.Token, error) { return f.deps.Tokens.Invalid(ctx, f.bot, w.token) })
		if v != nil {
			if v.why.Reason == deadletter.SenderRefused { // the token is good: Twitch's own words tell what is not
				v.why = deadletter.New(deadletter.SenderRefused, fmt.Errorf("%w (%w)", why.Err, v.why.Err))
			}
			return 0, nil, v
		}
		w.token = token
	}
}

// settle records the verdict. It returns an error if the message has to come again.
func (d *job) settle(ctx context.Context) (err error) {
	f, v := d.function, d.outcome
	if v.why == nil {
		return d.record(ctx, func(ctx context.Context) (delivery.State, error) { return d.claim.MarkDelivered(ctx, v.note) })
	}
	if v.later && d.timeLeft(v.until) {
		// not the dead letter's error itself, which would have the bus give the message up
		err := fmt.Errorf("%w: %s: %w", errLater, v.why.Reason, v.why.Err)
		if d.claim != nil {
			err = errors.Join(err, d.record(ctx, func(ctx context.Context) (delivery.State, error) { return delivery.Pending, d.claim.Release(ctx) }))
		}
		d.state = delivery.Pending
		return err
	}
	if d.claim != nil {
		return d.record(ctx, func(ctx context.Context) (delivery.State, error) {
			return f.deps.Reaper.MarkClaimDead(ctx, d.claim, v.why)
		})
	}
	d.state, err = f.deps.Reaper.MarkDead(ctx, d.ref.ID, d.ref.RedriveCount, v.why)
	switch {
	case errors.Is(err, delivery.ErrNotFound):
		return deadletter.New(deadletter.InvalidEvent, err)
	case err == nil && d.state == delivery.Claimed:
		return errElsewhere
	}
	return err
}

// record settles the claim, and tries until ctx is done. If it can't be settled, it runs out as outcome_unknown: the
// whisper is not sent again in any case.
func (d *job) record(ctx context.Context, settle func(context.Context) (delivery.State, error)) error {
	return d.claim.Persist(ctx, settlePause, func() (err error) {
		ctx, cancel := context.WithTimeout(ctx, settleTry)
		defer cancel()
		d.state, err = settle(ctx)
		return err
	})
}

// timeLeft reports whether a whisper that is put off can still be made in time.
func (d *job) timeLeft(until time.Time) bool {
	if d.in.Attempt >= maxAttempts-1 {
		return false
	}
	if next := d.function.deps.Now().Add(minBackoff); next.After(until) {
		until = next
	}
	return d.ref.Deadline.IsZero() || until.Before(d.ref.Deadline)
}

// late gives up a whisper that comes after its deadline. It looks first whether the entry was opened anew since, by a
// redrive: then it is not this message's any more.
func (d *job) late(ctx context.Context) error {
	f := d.function
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	e, err := f.deps.Ledger.Get(ctx, d.ref.ID)
	switch {
	case errors.Is(err, delivery.ErrNotFound):
		return nil // so late that the ledger has forgotten it, and with it what became of it
	case err != nil:
		return err
	}
	d.state = e.State
	switch {
	case e.State == delivery.Claimed:
		return errElsewhere
	case e.State != delivery.Pending || f.deps.Now().Before(e.Deadline):
		return nil
	}
	d.outcome = giveUp(deadletter.Expired, fmt.Errorf("it could not be whispered until %s", e.Deadline.UTC().Format(time.RFC3339)))
	return d.settle(ctx)
}

// report logs the one line that a message leaves.
func (d *job) report(ctx context.Context, started time.Time, err error) {
	log, v := d.function.deps.Log, d.outcome
	line := []any{"correlationId", d.in.Event.CorrelationID, "delivery", d.ref.ID, "state", d.state, "ms", d.function.deps.Now().Sub(started).Milliseconds()}
	switch {
	case err != nil:
		log.WarnContext(ctx, "not whispered", append(line, "error", err)...)
	case v.why != nil && d.state == delivery.Dead:
		log.WarnContext(ctx, "whisper given up", append(line, "reason", v.why.Reason, "error", v.why.Err)...)
	case d.claim != nil:
		log.InfoContext(ctx, "whispered", append(line, "note", v.note)...)
	default:
		log.DebugContext(ctx, "whisper was settled before", line...)
	}
}
