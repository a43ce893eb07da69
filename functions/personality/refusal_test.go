package personality_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"cloud.google.com/go/firestore"

	"parley.internal/emulator/emulatortest"
	"parley.internal/functions/personality"
	"parley.internal/functions/personality/model"
	"parley.internal/shared/answer"
	"parley.internal/shared/bus"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
)

var errBlocked = deadletter.New(deadletter.ModelRefused, errors.New("blocked"))

// toTwo returns a question whose answer goes to two addresses.
func toTwo(id string) *event.Event {
	e := asks(id, "hello")
	e.Egress = &event.Egress{To: []event.Address{{Destination: "api-gateway", Channel: "lobby"}, {Destination: "twitch", Channel: "twitch:parley"}}}
	return e
}

// Two instances have a copy of one event at the same time. One model answers, the other refuses.
func TestAnswerAndRefusalOfOneEventHaveOneOutcome(t *testing.T) {
	for name, tt := range map[string]struct {
		question     func(string) *event.Event
		refusalFirst bool
		published    int
	}{
		"answer first":                     {func(id string) *event.Event { return asks(id, "hello") }, false, 1},
		"refusal first":                    {func(id string) *event.Event { return asks(id, "hello") }, true, 0},
		"answer first, for two addresses":  {toTwo, false, 2},
		"refusal first, for two addresses": {toTwo, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
				answers, refuses := newRig(t, env), newRig(t, env)
				first := make(chan struct{}) // closed when the first instance is done
				var asked sync.WaitGroup     // both models are asked before one replies
				asked.Add(2)
				wait := func(isFirst bool) {
					asked.Done()
					asked.Wait()
					if !isFirst {
						<-first
					}
				}
				answers.model.reply = func(context.Context, int, model.Request) (model.Reply, error) {
					wait(!tt.refusalFirst)
					return model.Reply{Text: "an answer", Model: "m"}, nil
				}
				refuses.model.reply = func(context.Context, int, model.Request) (model.Reply, error) {
					wait(tt.refusalFirst)
					return model.Reply{}, errBlocked
				}
				var both sync.WaitGroup
				for r, isFirst := range map[*rig]bool{answers: !tt.refusalFirst, refuses: tt.refusalFirst} {
					both.Go(func() {
						if err := r.Answer(t.Context(), r.incoming(tt.question("c1"))); err != nil {
							t.Errorf("Answer = %v", err)
						}
						if isFirst {
							close(first)
						}
					})
				}
				both.Wait()
				letters := 0
				if err := refuses.letters.List(t.Context(), deadletter.Filter{}, func(deadletter.DeadLetter) error { letters++; return nil }); err != nil {
					t.Fatal(err)
				}
				sent, entries := len(answers.bus.sent)+len(refuses.bus.sent), len(answers.entries(t))
				wantLetters := 0
				if tt.refusalFirst {
					wantLetters = 1
				}
				if sent != tt.published || entries != tt.published || letters != wantLetters || len(refuses.bus.announced) != wantLetters {
					t.Errorf("%d published, %d entries, %d dead letters, %d announced; want %d answers and %d dead letters", sent, entries, letters, len(refuses.bus.announced), tt.published, wantLetters)
				}

				// later copies change nothing
				n := len(answers.model.asked)
				if err := answers.Answer(t.Context(), answers.incoming(tt.question("c1"))); err != nil || len(answers.model.asked) != n {
					t.Errorf("a later copy: %v, asked %d times", err, len(answers.model.asked)-n)
				}
			})
		})
	}
}

func TestRedrivenRefusalIsAskedAgain(t *testing.T) {
	for name, question := range map[string]func(string) *event.Event{"one address": func(id string) *event.Event { return asks(id, "hello") }, "two addresses": toTwo} {
		t.Run(name, func(t *testing.T) {
			emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
				r := newRig(t, env)
				r.model.reply = func(_ context.Context, n int, _ model.Request) (model.Reply, error) {
					if n <= 2 {
						return model.Reply{}, errBlocked
					}
					return model.Reply{Text: "in the end", Model: "m"}, nil
				}
				e := question("c1")
				id := delivery.ID("c1", answer.FanOut(e, personality.Step)[0].Step)
				late := r.incoming(question("c1"))
				for attempt := 1; attempt <= 3; attempt++ {
					in := r.incoming(question("c1"))
					if attempt > 1 {
						in.Attributes[deadletter.AttrRedrive] = string(rune('0' + attempt - 1))
						err := r.client.RunTransaction(t.Context(), func(_ context.Context, tx *firestore.Transaction) error {
							write, _, err := r.letters.MarkRedrivingTx(tx, id, "olga")
							if err != nil {
								return err
							}
							return write()
						})
						if err := errors.Join(err, r.letters.MarkRedriven(t.Context(), id)); err != nil {
							t.Fatal(err)
						}
					}
					for range 2 {
						if err := r.Answer(t.Context(), in); err != nil {
							t.Fatal(err)
						}
					}
					l, err := r.letters.Get(t.Context(), id)
					if want := min(attempt, 2); err != nil || l.Attempts != want || (l.Status == deadletter.Open) != (attempt < 3) {
						t.Errorf("after attempt %d the dead letter is %+v, %v", attempt, l, err)
					}
				}
				if n := len(r.model.asked); n != 3 || len(r.bus.sent) == 0 {
					t.Errorf("asked %d times, %d published", n, len(r.bus.sent))
				}
				n := len(r.bus.sent)
				if err := r.Answer(t.Context(), late); err != nil || len(r.model.asked) != 3 {
					t.Errorf("a late copy: %v, asked %d times, %d published", err, len(r.model.asked), len(r.bus.sent)-n)
				}
			})
		})
	}
}

// A copy of the event from before the redrive must not undo the redrive.
func TestLateCopyDoesNotRefuseARedrivenEvent(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		r := newRig(t, env)
		reaper := delivery.NewReaper(r.ledger, r.letters, r.bus, personality.Step, 0)
		in := r.incoming(asks("c1", "hello"))
		if refused, err := reaper.Refuse(t.Context(), in, personality.Step, errBlocked); err != nil || !refused {
			t.Fatalf("Refuse = %v, %v", refused, err)
		}
		id := delivery.ID("c1", personality.Step)
		err := r.client.RunTransaction(t.Context(), func(_ context.Context, tx *firestore.Transaction) error {
			write, _, err := r.letters.MarkRedrivingTx(tx, id, "olga")
			if err != nil {
				return err
			}
			return errors.Join(write(), tx.Delete(r.client.Doc("deliveries/"+id)))
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := reaper.Refuse(t.Context(), in, personality.Step, errBlocked); err != nil {
			t.Fatal(err)
		}
		if _, err := r.ledger.Get(t.Context(), id); !errors.Is(err, delivery.ErrNotFound) {
			t.Errorf("entry: %v; want none before the redriven copy", err)
		}
		redriven := r.incoming(asks("c1", "hello"))
		redriven.Attributes = map[string]string{bus.AttrNext: personality.Step, deadletter.AttrRedrive: "1"}
		if err := r.Answer(t.Context(), redriven); err != nil {
			t.Fatal(err)
		}
		r.check(t, 1, 1)
	})
}
