// Package personality is the Cloud Function that answers questions with a model. The instruction for the model comes from
// the personalities named in the event's annotations. Start at [Function.Answer]. The package does not decide about the
// destination of an answer: package answer does.
//
// An event for this function has the bus attribute next = personality ([Step]); other events are ignored. An event may
// be delivered more than once. The answer's entry in the delivery ledger decides: if the entry exists, the model is not
// called again, and only missing steps are repeated. Concurrent copies in one instance share one model call. Two instances
// with the same event at the same moment may both call the model: the first ledger entry is the outcome, and the other
// result is discarded. A refusal opens the entry, too, together with its dead letter. Then the model is not called until an
// operator redrives the event.
//
// An answer for several addresses (egress.to) also takes one model call, and is sent to each address. The first address's
// entry decides, and a redelivery sends its text to the addresses still missing.
//
// After a model failure the event is retried until it is older than MODEL_RETRY_FOR, then dead-lettered as model_failed.
// After a refusal the event is dead-lettered as model_refused at once. A model's thoughts enter neither the answer nor the
// memory. Thoughts without an answer, and a provider's error in a successful response, are model failures.
//
// A person's words reach the model only as the content of a user turn. The system instruction holds only the operator's
// words: the base prompt and the personalities.
package personality

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"parley.internal/functions/personality/model"
	"parley.internal/shared/answer"
	"parley.internal/shared/bus"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/digest"
	"parley.internal/shared/event"
	"parley.internal/shared/store"
)

// Step is the name of this function in routing slips, in the attribute next, and in the ids of its answers.
const Step = "personality"

// Store is the function's access to Firestore, apart from the ledger. [store.Store] implements it.
type Store interface {
	Personality(ctx context.Context, name string) (p store.Personality, found bool, err error)
	Conversation(ctx context.Context, user, channel string) (store.Conversation, error)
	PutConversation(ctx context.Context, user, channel string, c store.Conversation) error
}

// Sender sends each answer once. [delivery.Sender] implements it.
type Sender interface {
	Resume(ctx context.Context, e *event.Event, step string) (decided bool, err error)
	SendToAll(ctx context.Context, e *event.Event, step string) (ids []string, err error)
}

// Refuser records refusals. [delivery.Reaper] implements it.
type Refuser interface {
	Refuse(ctx context.Context, in bus.Incoming, step string, why *deadletter.Error) (refused bool, err error)
}

// Deps holds the dependencies of a [Function]. All are required.
type Deps struct {
	Config  Config
	Store   Store
	Sender  Sender
	Refuser Refuser
	Model   model.Model
	Now     func() time.Time
	Log     *slog.Logger
}

// Function answers events. It is safe for concurrent use.
type Function struct {
	config        Config
	store         Store
	sender        Sender
	refuser       Refuser
	model         model.Model
	now           func() time.Time
	log           *slog.Logger
	personalities *personalityCache
	running       singleflight.Group // by the answer's delivery id
}

// New returns a function with the given dependencies.
func New(d Deps) *Function {
	return &Function{
		config: d.Config, store: d.Store, sender: d.Sender, refuser: d.Refuser, model: d.Model, now: d.Now, log: d.Log,
		personalities: newPersonalityCache(d.Store.Personality, d.Config.Prompt.CacheTTL, d.Now),
	}
}

// Answer handles one event. It is the function's [bus.Handler], so a redelivery is safe.
func (f *Function) Answer(ctx context.Context, in bus.Incoming) error {
	// The subscription has an equal filter, but Google's Pub/Sub emulator ignores filters.
	if in.Attributes[bus.AttrNext] != Step {
		return nil
	}
	_, err, _ := f.running.Do(delivery.ID(in.Event.CorrelationID, Step), func() (any, error) {
		err := f.answer(ctx, in)
		if r, ok := errors.AsType[*refusal](err); ok {
			return nil, f.refuse(ctx, in, r.why)
		}
		return nil, err
	})
	return err
}

// refusal means that an event gets no answer, and that no part of an answer was sent.
type refusal struct{ why *deadletter.Error }

func (r *refusal) Error() string { return r.why.Error() }
func (r *refusal) Unwrap() error { return r.why }

// refused returns a [deadletter.Error] as a refusal, and any other error unchanged.
func refused(err error) error {
	if why, ok := errors.AsType[*deadletter.Error](err); ok {
		return &refusal{why}
	}
	return err
}

// refuse records a refusal, unless another copy of the event was answered meanwhile.
func (f *Function) refuse(ctx context.Context, in bus.Incoming, why *deadletter.Error) error {
	recorded, err := f.refuser.Refuse(ctx, in, Step, why)
	if err == nil && !recorded {
		f.log.InfoContext(ctx, "refusal discarded: another copy of the event was answered", "correlationId", in.Event.CorrelationID, "error", why)
	}
	return err
}

// prepared holds the lookups made before the model call.
type prepared struct {
	decided      bool // by an earlier delivery of the event
	conversation store.Conversation
	resolved     resolved
	resolveErr   error
}

// prepare makes all lookups concurrently. An earlier decision takes precedence over the error of another lookup.
func (f *Function) prepare(ctx context.Context, e *event.Event) (prepared, error) {
	var p prepared
	var g errgroup.Group // without a context: a failed lookup must not cancel the publishing of an answer
	g.Go(func() (err error) {
		p.decided, err = f.sender.Resume(ctx, e, Step)
		return err
	})
	g.Go(func() error {
		p.conversation = f.loadConversation(ctx, e)
		return nil
	})
	g.Go(func() error {
		p.resolved, p.resolveErr = f.personalities.resolve(ctx, e.Annotations, f.config.Prompt)
		return nil
	})
	if err := g.Wait(); err != nil {
		return p, fmt.Errorf("resume the answer to %s: %w", e.CorrelationID, err)
	}
	return p, nil
}

// answer handles one event, without protection against concurrent copies.
func (f *Function) answer(ctx context.Context, in bus.Incoming) (err error) {
	started := f.now()
	e := in.Event.Clone()
	attrs := []any{"correlationId", e.CorrelationID}
	defer func() { f.logOutcome(ctx, started, attrs, err) }()
	p, err := f.prepare(ctx, e)
	if err != nil {
		return err
	}
	attrs = append(attrs, "again", p.decided, "personalities", p.resolved.counts)
	if p.decided {
		return nil
	}
	if p.resolveErr != nil {
		return refused(p.resolveErr)
	}
	if !e.TimeoutAt.IsZero() && started.After(e.TimeoutAt) {
		return refused(deadletter.New(deadletter.Expired, fmt.Errorf("the answer was due by %s", e.TimeoutAt.Format(time.RFC3339))))
	}

	var turn *store.Turn
	if !outranked(e.Candidates, f.config.Reply) {
		q := question(e, f.config.Prompt)
		if q == "" {
			return refused(deadletter.New(deadletter.NoText, errors.New("the event holds no question")))
		}
		turns := pastTurns(p.conversation, e.CorrelationID, started, f.config.Memory.Turns)
		reply, err := f.ask(ctx, in, p.resolved, q, turns)
		if err != nil {
			return refused(err)
		}
		text := shorten(unquote(reply.Text), f.config.Reply.MaxChars)
		attrs = append(attrs, "model", reply.Model, "turns", len(turns), "inputTokens", reply.InputTokens, "outputTokens", reply.OutputTokens)
		now := event.TruncateToMicros(f.now())
		putCandidate(e, newCandidate(e.CorrelationID, text, reply.Model, now, f.config.Reply))
		turn = &store.Turn{ID: e.CorrelationID, Question: q, Answer: text, At: now}
	}
	e.Finish(Step, event.TruncateToMicros(started), event.TruncateToMicros(f.now()), nil)

	// Memory and answer are written concurrently. If the send fails, the next attempt replaces the turn.
	var g errgroup.Group
	if turn != nil {
		g.Go(func() error {
			f.saveConversation(ctx, e, p.conversation, *turn)
			return nil
		})
	}
	g.Go(func() error {
		ids, err := f.sender.SendToAll(ctx, e, Step)
		if err != nil && ids == nil {
			err = refused(err)
		}
		if err != nil {
			return fmt.Errorf("send the answer to %s: %w", e.CorrelationID, err)
		}
		attrs = append(attrs, "deliveries", ids)
		return nil
	})
	return g.Wait()
}

// ask calls the model and classifies a failure.
func (f *Function) ask(ctx context.Context, in bus.Incoming, s resolved, question string, turns []model.Turn) (model.Reply, error) {
	e := in.Event
	request := model.Request{
		System: compose(f.config.Prompt.Composition, f.config.Prompt.Base, s.texts),
		Turns:  turns, Text: question, MaxTokens: f.config.Model.MaxTokens, Model: s.model,
	}
	if e.User != nil {
		request.User = e.User.DisplayName
	}
	if e.Message != nil {
		request.Language = e.Message.Language
	}
	calling, cancel := context.WithTimeout(ctx, f.config.Model.Timeout)
	defer cancel()
	reply, err := f.model.Generate(calling, request)
	if err == nil && unquote(reply.Text) == "" {
		err = deadletter.New(deadletter.ModelRefused, errors.New("the model's answer is empty"))
	}
	if err == nil {
		return reply, nil
	}
	if _, decided := errors.AsType[*deadletter.Error](err); decided {
		return model.Reply{}, err
	}
	if ctx.Err() != nil {
		return model.Reply{}, fmt.Errorf("ask the model: %w", err) // this instance was stopped; not a failure of the model
	}
	// The age of the message includes the time without a running instance.
	if age := f.now().Sub(in.Published); !in.Published.IsZero() && age >= f.config.Model.RetryFor {
		return model.Reply{}, deadletter.New(deadletter.ModelFailed, fmt.Errorf("after %s: %w", age.Round(time.Second), err))
	}
	return model.Reply{}, fmt.Errorf("ask the model: %w", err)
}

// logOutcome logs one line for each event.
func (f *Function) logOutcome(ctx context.Context, started time.Time, attrs []any, err error) {
	attrs = append(attrs, "ms", f.now().Sub(started).Milliseconds())
	if err == nil {
		f.log.InfoContext(ctx, "answered", attrs...)
		return
	}
	attrs = append(attrs, "error", err)
	level, message := slog.LevelWarn, "answer failed, event will be redelivered"
	if _, decided := errors.AsType[*deadletter.Error](err); decided {
		message = "event dead-lettered"
	}
	if failed, ok := errors.AsType[*model.Error](err); ok && failed.Problem == model.Misconfigured {
		level = slog.LevelError // only an operator can fix the configuration
	}
	f.log.Log(ctx, level, message, attrs...)
}

// newCandidate returns a model's answer as a candidate. The id is derived from the event, so repeated answers to one event
// have the same id.
func newCandidate(correlationID, text, by string, now time.Time, c ReplyConfig) event.Candidate {
	confidence := 0.5 // models report no confidence; a middle value
	return event.Candidate{
		ID: digest.Of("candidate", correlationID, Step), Kind: "text", Source: Step, CreatedAt: now,
		Status: event.CandidateProposed, Priority: &c.Priority, Confidence: &confidence,
		Text: text, Format: "plain", Metadata: event.Raw(map[string]string{"model": by}),
	}
}

// putCandidate adds a candidate to an event, or replaces the candidate with the same id.
func putCandidate(e *event.Event, c event.Candidate) {
	for i := range e.Candidates {
		if e.Candidates[i].ID == c.ID {
			e.Candidates[i] = c
			return
		}
	}
	e.Candidates = append(e.Candidates, c)
}

// outranked reports whether an existing candidate beats every model answer by a lower priority. A model call would then
// cost money and time for nothing.
func outranked(candidates []event.Candidate, c ReplyConfig) bool {
	i := answer.Best(candidates)
	return i >= 0 && candidates[i].Source != Step && candidates[i].Priority != nil && *candidates[i].Priority < c.Priority
}
