package personality_test

import (
	"context"
	"strings"
	"testing"

	"parley.internal/emulator/emulatortest"
	"parley.internal/functions/personality/model"
	"parley.internal/shared/answer"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
)

// everywhere returns a question with three addresses, including its origin.
func everywhere(id string) *event.Event {
	e := asks(id, "!ask what is new?")
	e.Egress = &event.Egress{Type: event.EgressChat, To: []event.Address{
		{Destination: "twitch", Channel: "twitch:parley"}, {Destination: "discord", Channel: "discord:7"}, {Destination: "api-gateway", Channel: "lobby"},
	}}
	return e
}

func TestAnswerForSeveralAddressesTakesOneModelCall(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		r := newRig(t, env)
		r.model.reply = func(_ context.Context, n int, _ model.Request) (model.Reply, error) {
			return model.Reply{Text: strings.Repeat("again ", n-1) + "@everyone all is new", Model: "m"}, nil
		}
		r.bus.fail = 2 // the first two of three publishes fail
		e := everywhere("c1")
		if err := r.Answer(t.Context(), r.incoming(e)); err == nil || reasonOf(err) != "" {
			t.Fatalf("Answer = %v; want an error that has it delivered again", err)
		}
		// One address has no entry, as after a crash of the function.
		lost := delivery.ID("c1", "personality@discord:7")
		if _, err := r.client.Doc("deliveries/" + lost).Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := r.ledger.MarkDelivered(t.Context(), delivery.Ref{ID: delivery.ID("c1", "personality@lobby")}); err != nil {
			t.Fatal(err)
		}
		r.bus.sent = nil
		if err := r.Answer(t.Context(), r.incoming(e)); err != nil {
			t.Fatal(err)
		}
		if len(r.model.asked) != 1 || len(r.entries(t)) != 3 || len(r.bus.sent) != 2 {
			t.Fatalf("asked %d times, %d entries, %d published; want 1, 3, and the two that are not delivered", len(r.model.asked), len(r.entries(t)), len(r.bus.sent))
		}
		for _, out := range r.bus.sent {
			text := answer.StripMarks(answer.Render(out.Event).Whole())
			if strings.Contains(answer.Render(out.Event).Whole(), "@everyone") || !strings.HasSuffix(text, "all is new") || strings.Contains(text, "again") || out.Event.UserID != "" || !answer.WasRelayed(out.Event) {
				t.Errorf("at %s: %q", out.Event.Channel, text)
			}
		}
	})
}

func TestOriginReceivesTheAnswerUnchanged(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		r := newRig(t, env)
		r.answer(t, everywhere("c1"))
		for _, out := range r.bus.sent {
			home := out.Event.Channel == "lobby"
			if answer.WasRelayed(out.Event) == home || (out.Event.Message.ID == "m-c1") != home {
				t.Errorf("at %s: %+v, %q", out.Event.Channel, out.Event.Egress, answer.Text(out.Event))
			}
		}
		if len(r.bus.sent) != 3 {
			t.Errorf("%d published", len(r.bus.sent))
		}
	})
}

// The answer goes to the linked id of the sender. The memory includes turns of all ids of the person.
func TestMemoryBelongsToPersonAndAnswerGoesToTheID(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		r := newRig(t, env)
		r.answer(t, asks("c1", "my cat is called Mio"))
		e := asks("c2", "what is my cat called?")
		e.UserID, e.Auth = "discord:6", &event.Auth{Matched: true, UserRef: "users/twitch:1", Identity: "discord:6"}
		if asked := r.answer(t, e); len(asked.Turns) != 1 || asked.Turns[0].Question != "my cat is called Mio" {
			t.Errorf("reminded of %+v", asked.Turns)
		}
		if out := r.bus.sent[1].Event; out.UserID != "discord:6" {
			t.Errorf("answered to %s", out.UserID)
		}
	})
}
