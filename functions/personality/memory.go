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

	// memoryTimeout bounds a read or a write of a conversation: an answer without memory is better than no answer.
	memoryTimeout = 5 * time.Second
)

// conversationKey returns the user and channel of an event's conversation. Events without a user have no conversation,
// because the words of one person must not reach the answer to another.
func conversationKey(e *event.Event) (user, channel string, ok bool) {
	user = e.UserID
	if e.User != nil && e.User.ID != "" {
		user = e.User.ID
	}
	return user, e.Channel, user != ""
}

// loadConversation reads the conversation of an event. After a failed read the conversation is empty.
func (f *Function) loadConversation(ctx context.Context, e *event.Event) store.Conversation {
	user, channel, ok := conversationKey(e)
	if !ok || f.config.Memory.Turns == 0 {
		return store.Conversation{}
	}
	ctx, cancel := context.WithTimeout(ctx, memoryTimeout)
	defer cancel()
	c, err := f.store.Conversation(ctx, user, channel)
	if err != nil {
		f.log.WarnContext(ctx, "conversation not read", "error", err, "correlationId", e.CorrelationID)
		return store.Conversation{}
	}
	return c
}

// saveConversation adds an event's turn to the stored conversation. A failure is only logged: the answer is more
// important.
func (f *Function) saveConversation(ctx context.Context, e *event.Event, before store.Conversation, turn store.Turn) {
	user, channel, ok := conversationKey(e)
	if !ok || f.config.Memory.Turns == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, memoryTimeout)
	defer cancel()
	if err := f.store.PutConversation(ctx, user, channel, withTurn(before, turn, f.config.Memory)); err != nil {
		f.log.WarnContext(ctx, "conversation not written", "error", err, "correlationId", e.CorrelationID)
	}
}

// withTurn returns the conversation with the turn added at the end. A turn with the same id is replaced. The oldest turns
// above the configured number are dropped.
func withTurn(c store.Conversation, turn store.Turn, config MemoryConfig) store.Conversation {
	turn.Question, turn.Answer = shorten(turn.Question, maxRemembered), shorten(turn.Answer, maxRemembered)
	turns := append(withoutTurn(c, turn.ID), turn)
	if extra := len(turns) - config.Turns; extra > 0 {
		turns = turns[extra:]
	}
	return store.Conversation{Turns: turns, UpdatedAt: turn.At, ExpireAt: turn.At.Add(config.Retention)}
}

// withoutTurn returns a copy of the turns without the turn with this id.
func withoutTurn(c store.Conversation, id string) []store.Turn {
	return slices.DeleteFunc(slices.Clone(c.Turns), func(t store.Turn) bool { return t.ID == id })
}

// pastTurns returns the last turns of a conversation for the model, at most limit. It returns none after the retention,
// because Firestore deletes an expired document with a delay. The turn with the event's own id, left by an earlier
// attempt, is excluded.
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
