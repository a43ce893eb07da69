package personality

import (
	"context"
	"slices"
	"time"

	"parley.internal/functions/personality/model"
	"parley.internal/shared/event"
	"parley.internal/shared/store"
)

const (
	// maxRemembered bounds each half of a remembered turn, in characters.
	maxRemembered = 2000

	// memoryTimeout bounds a read and a write of the memory: an answer without memory is better than none.
	memoryTimeout = 5 * time.Second
)

// conversationKey tells whose conversation an event belongs to. Events without a user have none: what one person said in a
// channel is nothing to remind another of.
func conversationKey(e *event.Event) (user, channel string, ok bool) {
	user = e.UserID
	if e.User != nil && e.User.ID != "" {
		user = e.User.ID
	}
	return user, e.Channel, user != ""
}

// loadConversation reads the conversation that an event belongs to. A memory that can't be read is an empty one.
func (f *Function) loadConversation(ctx context.Context, e *event.Event) store.Conversation {
	user, channel, ok := conversationKey(e)
	if !ok || f.config.Memory.Turns == 0 {
		return store.Conversation{}
	}
	ctx, cancel := context.WithTimeout(ctx, memoryTimeout)
	defer cancel()
	c, err := f.store.Conversation(ctx, user, channel)
	if err != nil {
		f.log.WarnContext(ctx, "answering without memory", "error", err, "correlationId", e.CorrelationID)
		return store.Conversation{}
	}
	return c
}

// saveConversation writes an event's turn into its conversation. A failure is logged and changes nothing else: the answer counts.
func (f *Function) saveConversation(ctx context.Context, e *event.Event, before store.Conversation, turn store.Turn) {
	user, channel, ok := conversationKey(e)
	if !ok || f.config.Memory.Turns == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, memoryTimeout)
	defer cancel()
	if err := f.store.PutConversation(ctx, user, channel, withTurn(before, turn, f.config.Memory)); err != nil {
		f.log.WarnContext(ctx, "the turn is not remembered", "error", err, "correlationId", e.CorrelationID)
	}
}

// withTurn is a conversation with one more turn, or with that turn renewed if it is in it, and without those that are
// too many.
func withTurn(c store.Conversation, turn store.Turn, config MemoryConfig) store.Conversation {
	turn.Question, turn.Answer = shorten(turn.Question, maxRemembered), shorten(turn.Answer, maxRemembered)
	turns := append(withoutTurn(c, turn.ID), turn)
	if extra := len(turns) - config.Turns; extra > 0 {
		turns = turns[extra:]
	}
	return store.Conversation{Turns: turns, UpdatedAt: turn.At, ExpireAt: turn.At.Add(config.Retention)}
}

// withoutTurn are a conversation's turns except the one with this id.
func withoutTurn(c store.Conversation, id string) []store.Turn {
	return slices.DeleteFunc(slices.Clone(c.Turns), func(t store.Turn) bool { return t.ID == id })
}

// pastTurns is what a model is told of a conversation when the event with this id is answered: nothing, once it is past
// its retention (Firestore removes what expired some time later), and never the event's own turn, which stands there
// if an earlier attempt got as far as that.
func pastTurns(c store.Conversation, id string, now time.Time, limit int) []model.Turn {
	if !c.ExpireAt.IsZero() && now.After(c.ExpireAt) {
		return nil
	}
	past := withoutTurn(c, id)
	if extra := len(past) - limit; extra > 0 {
		past = past[extra:]
	}
	var turns []model.Turn
	for _, t := range past {
		turns = append(turns, model.Turn{Question: t.Question, Answer: t.Answer})
	}
	return turns
}
