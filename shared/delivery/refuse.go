package delivery

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"cloud.google.com/go/firestore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/shared/answer"
	"parley.internal/shared/bus"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/event"
	"parley.internal/shared/store"
)

// Refuse records that a step will not answer the event in. One transaction opens the answer's entry as dead, and writes
// the dead letter with the entry's id. So of an answer and a refusal, made for two copies of the event at the same time,
// only the first counts: refused is false if the event has an answer. Then Refuse announces the dead letter.
//
// An operator can redrive the dead letter: the event is published again on its topic, and [Sender.Resume] removes the
// entry, so that the step decides again.
func (r *Reaper) Refuse(ctx context.Context, in bus.Incoming, step string, why *deadletter.Error) (refused bool, err error) {
	e, l := in.Event, r.ledger
	first := answer.FanOut(e, step)[0]
	id := ID(e.CorrelationID, first.Step)
	data := in.Data
	if data == nil {
		if data, err = event.Encode(e); err != nil {
			return false, deadletter.New(deadletter.InvalidEvent, err)
		}
	}
	redrives, _ := strconv.Atoi(in.Attributes[deadletter.AttrRedrive]) // an invalid count is 0: not redriven
	now := event.TruncateToMicros(l.now())
	entry := Entry{
		ID: id, State: Dead, Type: event.EgressChat, UserID: first.Event.UserID, Channel: first.Event.Channel,
		CorrelationID: e.CorrelationID, Step: first.Step, CreatedAt: now, Deadline: now, ExpireAt: now.Add(deadletter.Retention),
		Shard: shard(id), Event: data, RedriveCount: redrives, SettledAt: now, Instance: l.instance,
		Reason: string(why.Reason), Message: why.Err.Error(), Refused: true,
	}
	if platform, err := answer.Platform(first.Event); err == nil {
		entry.Destination = string(platform)
	}
	isNew := false
	err = store.RunTransaction(ctx, l.client, func(_ context.Context, tx *firestore.Transaction) error {
		refused, isNew = false, false
		snap, err := tx.Get(l.doc(id))
		if err == nil {
			found, err := entryOf(snap)
			refused = found.Refused
			return err
		}
		if status.Code(err) != codes.NotFound {
			return err
		}
		write, fresh, err := r.letters.PutTx(tx, deadletter.DeadLetter{
			ID: id, Reason: why.Reason, Message: entry.Message, Source: r.source, Topic: string(in.Topic), Data: data, Attributes: deadletter.OriginalAttributes(in.Attributes),
		}, redrives)
		if err != nil {
			return err
		}
		refused, isNew = true, fresh
		if !fresh {
			return nil // a late copy of the event, which an operator has redriven since: the redriven copy decides
		}
		return errors.Join(write(), tx.Create(l.doc(id), unannounced{entry, false}))
	})
	if err != nil {
		return false, fmt.Errorf("refuse to answer %s: %w", e.CorrelationID, err)
	}
	if !isNew {
		return refused, nil
	}
	return true, r.announce(ctx, entry)
}

// unannounced is a dead entry with a dead letter that was not announced yet: see [Reaper.Sweep].
type unannounced struct {
	Entry
	Announced bool `firestore:"announced"`
}

// stillRefused reports whether a refused entry is the outcome of its event. After a redrive it is not: then stillRefused
// removes the entry, to make room for a new decision.
func (l *Ledger) stillRefused(ctx context.Context, e Entry) (bool, error) {
	snap, err := deadletter.Doc(l.client, e.ID).Get(ctx)
	if status.Code(err) == codes.NotFound || err == nil && deadletter.IsOpen(snap) {
		return true, nil // an operator may have purged the dead letter
	}
	if err != nil {
		return false, fmt.Errorf("read the dead letter of delivery %s: %w", e.ID, err)
	}
	// the condition fails if another copy of the event has removed the entry, and perhaps answered
	if _, err := l.doc(e.ID).Delete(ctx, firestore.LastUpdateTime(e.version)); err != nil {
		return false, fmt.Errorf("remove the refused delivery %s: %w", e.ID, err)
	}
	return false, nil
}
