// Package personality is the function that answers: it gives an event's question to a model, in the words and manner of
// the personalities that the event's annotations ask for, and sends what the model says.
//
// An event comes with the bus attribute next = personality ([Step]); others are not this function's. It may come more
// than once. The answer's entry in the ledger of deliveries decides: where there is one, nothing is asked again, and
// only what is missing is done. Nor is anything asked where the event was dead-lettered here before, until an operator
// redrives it. Copies that one instance works on at the same time share one call of the model. Two
// instances that get the same event at the very same moment may each call it; the first entry in the ledger is the
// answer, the other reply is thrown away.
//
// An answer for several places (egress.to) is asked for once, too, and sent to each: the first place's entry is the one
// that decides, and a redelivery sends what that says to the places that lack it.
//
// A model that fails has the event delivered again, until it is older than MODEL_RETRY_FOR; then it is dead-lettered as
// model_failed. A model that refuses has it dead-lettered as model_refused at once.
//
// What a person wrote reaches the model only as the content of a user's turn. The operator's words, the base prompt
// and the personalities, are the system instruction.
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

// Step is this function's name in a routing slip, in the attribute next, and in the ids of its answers.
const Step = "personality"

// Store is what the function reads and writes beside the ledger. [store.Store] is one.
type Store interface {
	Personality(ctx context.Context, name string) (p store.Personality, found bool, err error)
	Conversation(ctx context.Context, user, channel string) (store.Conversation, error)
	PutConversation(ctx context.Context, user, channel string, c store.Conversation) error
}

// Sender sends answers, each once. [delivery.Sender] is one.
type Sender interface {
	Resume(ctx context.Context, e *event.Event, step string) (decided bool, err error)
	SendToAll(ctx context.Context, e *event.Event, step string) (ids []string, err error)
}

// Deps is what a [Function] works with. All of it is required.
type Deps struct {
	Config Config
	Store  Store
	Sender Sender
	Model  model.Model
	Now    func() time.Time
	Log    *slog.Logger
}

// Function answers events. It is safe for concurrent use.
type Function struct {
	config        Config
	store         Store
	sender        Sender
	model         model.Model
	now           func() time.Time
	log           *slog.Logger
	personalities *personalityCache
	running       singleflight.Group // by the answer's delivery id
}

// New makes a function.
func New(d Deps) *Function {
	return &Function{
		config: d.Config, store: d.Store, sender: d.Sender, model: d.Model, now: d.Now, log: d.Log,
		personalities: newPersonalityCache(d.Store.Personality, d.Config.Prompt.CacheTTL, d.Now),
	}
}

// Answer is the function's [bus.Handler].
func (f *Function) Answer(ctx context.Context, in bus.Incoming) error {
	// the subscription has a filter that says the same, but Google's Pub/Sub emulator ignores filters
	if in.Attributes[bus.AttrNext] != Step {
		return nil
	}
	_, err, _ := f.running.Do(delivery.ID(in.Event.CorrelationID, Step), func() (any, error) {
		return nil, f.answer(ctx, in)
	})
	return err
}

// prepared is what can be found out before the model is called.
type prepared struct {
	decided      bool // what becomes of it, by an earlier delivery of the event
	conversation store.Conversation
	resolved     resolved
	resolveErr   error
}

// prepare looks everything up at the same time. That the event was answered before counts more than a lookup that
// failed.
func (f *Function) prepare(ctx context.Context, e *event.Event) (prepared, error) {
	var p prepared
	var g errgroup.Group // not one that cancels: a lookup must not break off the publishing of an answer
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

func (f *Function) answer(ctx context.Context, in bus.Incoming) (err error) {
	started := f.now()
	e := in.Event.Clone()
	line := []any{"correlationId", e.CorrelationID}
	defer func() { f.logOutcome(ctx, started, line, err) }()
	p, err := f.prepare(ctx, e)
	if err != nil {
		return err
	}
	line = append(line, "again", p.decided, "personalities", p.resolved.counts)
	if p.decided {
		return nil
	}
	if p.resolveErr != nil {
		return p.resolveErr
	}
	if !e.TimeoutAt.IsZero() && started.After(e.TimeoutAt) {
		return deadletter.New(deadletter.Expired, fmt.Errorf("an answer was wanted until %s", e.TimeoutAt.Format(time.RFC3339)))
	}

	var turn *store.Turn
	if !outranked(e.Candidates, f.config.Reply) {
		q := question(e, f.config.Prompt)
		if q == "" {
			return deadletter.New(deadletter.NoText, errors.New("the event says nothing that could be answered"))
		}
		turns := pastTurns(p.conversation, e.CorrelationID, started, f.config.Memory.Turns)
		reply, err := f.ask(ctx, in, p.resolved, q, turns)
		if err != nil {
			return err
		}
		text := shorten(answer.Unquote(reply.Text), f.config.Reply.MaxChars)
		line = append(line, "model", reply.Model, "turns", len(turns), "inputTokens", reply.InputTokens, "outputTokens", reply.OutputTokens)
		now := event.TruncateToMicros(f.now())
		putCandidate(e, newCandidate(e.CorrelationID, text, reply.Model, now, f.config.Reply))
		turn = &store.Turn{ID: e.CorrelationID, Question: q, Answer: text, At: now}
	}
	e.Finish(Step, event.TruncateToMicros(started), event.TruncateToMicros(f.now()), nil)

	// The ledger decides what is answered, so the memory needn't wait for it: a turn of an answer that was not sent is
	// renewed by the next attempt.
	var g errgroup.Group
	if turn != nil {
		g.Go(func() error {
			f.saveConversation(ctx, e, p.conversation, *turn)
			return nil
		})
	}
	g.Go(func() error {
		ids, err := f.sender.SendToAll(ctx, e, Step)
		if err != nil {
			return fmt.Errorf("send the answer to %s: %w", e.CorrelationID, err)
		}
		line = append(line, "deliveries", ids)
		return nil
	})
	return g.Wait()
}

// ask puts the question to the model, and decides what a failure means.
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
	if err == nil && answer.Unquote(reply.Text) == "" {
		err = deadletter.New(deadletter.ModelRefused, errors.New("the model's answer is empty"))
	}
	if err == nil {
		return reply, nil
	}
	if _, decided := errors.AsType[*deadletter.Error](err); decided {
		return model.Reply{}, err
	}
	if ctx.Err() != nil {
		return model.Reply{}, fmt.Errorf("ask the model: %w", err) // we were stopped; the model did nothing wrong
	}
	// the age is that of the message, so that it counts the time in which no instance ran, too
	if age := f.now().Sub(in.Published); !in.Published.IsZero() && age >= f.config.Model.RetryFor {
		return model.Reply{}, deadletter.New(deadletter.ModelFailed, fmt.Errorf("after %s: %w", age.Round(time.Second), err))
	}
	return model.Reply{}, fmt.Errorf("ask the model: %w", err)
}

// logOutcome logs the one line that an event leaves.
func (f *Function) logOutcome(ctx context.Context, started time.Time, line []any, err error) {
	line = append(line, "ms", f.now().Sub(started).Milliseconds())
	if err == nil {
		f.log.InfoContext(ctx, "answered", line...)
		return
	}
	line = append(line, "error", err)
	level, message := slog.LevelWarn, "not answered: will be tried again"
	if _, decided := errors.AsType[*deadletter.Error](err); decided {
		message = "not answered: dead-lettered"
	}
	if failed, ok := errors.AsType[*model.Error](err); ok && failed.Problem == model.Misconfigured {
		level = slog.LevelError // only an operator can mend this
	}
	f.log.Log(ctx, level, message, line...)
}

// newCandidate is the answer that a model gave. Its id follows from the event, so that there is one of it however often
// the event is answered.
func newCandidate(correlationID, text, by string, now time.Time, c ReplyConfig) event.Candidate {
	confidence := 0.5 // a model tells none: between what a rule is sure of and what it is not
	return event.Candidate{
		ID: digest.Of("candidate", correlationID, Step), Kind: "text", Source: Step, CreatedAt: now,
		Status: event.CandidateProposed, Priority: &c.Priority, Confidence: &confidence,
		Text: text, Format: "plain", Metadata: event.Raw(map[string]string{"model": by}),
	}
}

// putCandidate adds a candidate to an event, in the place of an earlier one of its id.
func putCandidate(e *event.Event, c event.Candidate) {
	for i := range e.Candidates {
		if e.Candidates[i].ID == c.ID {
			e.Candidates[i] = c
			return
		}
	}
	e.Candidates = append(e.Candidates, c)
}

// outranked reports whether an event holds a candidate already that would win against whatever a model says: one of a
// lower priority. Asking would cost money and time for nothing.
func outranked(candidates []event.Candidate, c ReplyConfig) bool {
	i := answer.Best(candidates)
	return i >= 0 && candidates[i].Source != Step && candidates[i].Priority != nil && *candidates[i].Priority < c.Priority
}
