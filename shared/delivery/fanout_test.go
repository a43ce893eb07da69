package delivery_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"parley.internal/emulator/emulatortest"
	"parley.internal/shared/answer"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
)

// shown replaces the invisible characters of a relayed text by readable ones.
var shown = strings.NewReplacer("\u200b", "~", " \u2063\u2062\u2063", "|")

// rendered returns the text as the platform gets it.
func rendered(e *event.Event) string { return answer.Render(e).Whole() }

// forAll is an answer to three addresses, the origin first.
func forAll(text string) *event.Event {
	e := newAnswer(text)
	e.Metadata, e.ReplyTo = event.Raw(map[string]string{"id": "m1"}), "m0"
	e.Message = &event.Message{ID: "m1", Role: event.RoleUser, Text: "what?", RawPlatformPayload: []byte(`{"big":true}`)}
	e.Egress = &event.Egress{Type: event.EgressChat, To: []event.Address{
		{Destination: "api-gateway", Channel: "lobby"}, {Destination: "twitch", Channel: "twitch:parley"}, {Destination: "discord", Channel: "discord:7"},
	}}
	return e
}

func ids(correlationID string) []string {
	return []string{
		delivery.ID(correlationID, "personality@lobby"),
		delivery.ID(correlationID, "personality@twitch:parley"),
		delivery.ID(correlationID, "personality@discord:7"),
	}
}

func TestAnswerToSeveralAddressesIsADeliveryEach(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p := &publisher{}
		l := delivery.NewLedger(connect(t, env), "one", time.Now)
		s := delivery.NewSender(l, p, delivery.Config{Deadline: time.Minute, Retention: time.Hour}, time.Now)
		in := forAll("@everyone, @ada: yes")
		got, err := s.SendToAll(t.Context(), in, "personality")
		if err != nil || !slices.Equal(got, ids("c1")) {
			t.Fatalf("SendToAll = %v, %v; want %v", got, err, ids("c1"))
		}
		for i, want := range []struct{ destination, channel, text, replyTo string }{
			{"api-gateway", "lobby", "@everyone, @ada: yes", "m0"},
			{"twitch", "twitch:parley", "@~everyone, @~ada: yes|", ""},
			{"discord", "discord:7", "@~everyone, @ada: yes|", ""},
		} {
			entry, err := l.Get(t.Context(), got[i])
			if err != nil || entry.State != delivery.Pending || entry.Destination != want.destination || entry.Channel != want.channel || entry.UserID != "" {
				t.Errorf("entry %d = %+v, %v", i, entry, err)
			}
			e, err := event.Decode(entry.Event)
			if err != nil {
				t.Fatal(err)
			}
			text := shown.Replace(rendered(e))
			relayed := i > 0
			if text != want.text || e.ReplyTo != want.replyTo || answer.WasRelayed(e) != relayed || len(e.Egress.To) > 0 {
				t.Errorf("at %s: %q in answer to %q, egress %+v", want.channel, text, e.ReplyTo, e.Egress)
			}
			if relayed && (e.Egress.Relay.Source != "api-gateway" || e.Egress.Relay.Channel != "lobby" || e.Metadata != nil || e.Message.ID != "" || e.Message.RawPlatformPayload != nil) {
				t.Errorf("at %s: what only the web understands is still in %+v", want.channel, e)
			}
		}
		if len(p.sent) != 3 || in.UserID == "" || in.Message.ID != "m1" {
			t.Errorf("published %d; or the event that was given is changed: %+v", len(p.sent), in)
		}
	})
}

// Each address has its own sanitized text, in any order of the addresses.
func TestEachAddressGetsASanitizedText(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		l := delivery.NewLedger(connect(t, env), "one", time.Now)
		for first := range 3 {
			p := &publisher{}
			s := delivery.NewSender(l, p, delivery.Config{Deadline: time.Minute, Retention: time.Hour}, time.Now)
			e := forAll("@here, @ada")
			e.CorrelationID = string(rune('0' + first))
			e.Egress.To = slices.Concat(e.Egress.To[first:], e.Egress.To[:first])
			if _, err := s.SendToAll(t.Context(), e, "personality"); err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for _, out := range p.sent {
				got[out.Event.Channel] = shown.Replace(rendered(out.Event))
			}
			want := map[string]string{"lobby": "@here, @ada", "twitch:parley": "@~here, @~ada|", "discord:7": "@~here, @ada|"}
			if !maps.Equal(got, want) {
				t.Errorf("from place %d on: %q; want %q", first, got, want)
			}
		}
	})
}

// Sending may stop after any step. Sending again, or resuming, does the missing part with the first text.
func TestSendingAgainSendsOnlyMissingParts(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		client := connect(t, env)
		l := delivery.NewLedger(client, "one", time.Now)
		reaper := delivery.NewReaper(l, deadletter.NewStore(client, time.Now), &announcer{}, "tester", time.Second)
		for name, again := range map[string]func(s *delivery.Sender, e *event.Event) error{
			"sent again, in other words": func(s *delivery.Sender, e *event.Event) error {
				e.Candidates[0].Text = "no"
				_, err := s.SendToAll(t.Context(), e, "personality")
				return err
			},
			"resumed": func(s *delivery.Sender, e *event.Event) error {
				e.Candidates = nil
				found, err := s.Resume(t.Context(), e, "personality")
				if !found {
					t.Error("not found")
				}
				return err
			},
		} {
			for missing := range 8 { // a bit for each of the places
				p := &publisher{}
				s := delivery.NewSender(l, p, delivery.Config{Deadline: time.Minute, Retention: time.Hour}, time.Now)
				e := forAll("yes @here")
				e.CorrelationID = name + string(rune('0'+missing))
				if missing&1 > 0 && name == "resumed" {
					if found, err := s.Resume(t.Context(), e, "personality"); found || err != nil {
						t.Errorf("before anything is sent: Resume = %v, %v", found, err)
					}
					continue
				}
				all := ids(e.CorrelationID)
				if _, err := s.SendToAll(t.Context(), e, "personality"); err != nil {
					t.Fatal(err)
				}
				want := map[string]bool{}
				for i, id := range all {
					switch {
					case missing>>i&1 > 0:
						want[id] = true
						if _, err := client.Doc("deliveries/" + id).Delete(t.Context()); err != nil {
							t.Fatal(err)
						}
					case i == 1: // dead there
						if _, err := reaper.MarkDead(t.Context(), id, 0, deadletter.New(deadletter.NoConnection, errors.New("no connection"))); err != nil {
							t.Fatal(err)
						}
					default:
						if _, err := l.MarkDelivered(t.Context(), delivery.Ref{ID: id}); err != nil {
							t.Fatal(err)
						}
					}
				}
				p.sent = nil
				if err := again(s, e.Clone()); err != nil {
					t.Fatal(err)
				}
				text := "yes @here"
				if missing&1 > 0 {
					text = "no" // the first was not sent, so there is no answer yet
				}
				for _, out := range p.sent {
					if !want[out.Attributes[delivery.AttrDelivery]] || answer.StripMarks(rendered(out.Event)) != text {
						t.Errorf("%s, missing %03b: sent %q to %s", name, missing, answer.StripMarks(rendered(out.Event)), out.Event.Channel)
					}
					delete(want, out.Attributes[delivery.AttrDelivery])
				}
				if len(want) > 0 {
					t.Errorf("%s, missing %03b: not sent: %v", name, missing, want)
				}
			}
		}
	})
}

func TestFailureOfOneAddressDoesNotStopTheOthers(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p := &publisher{fail: 1}
		l := delivery.NewLedger(connect(t, env), "one", time.Now)
		s := delivery.NewSender(l, p, delivery.Config{Deadline: time.Minute, Retention: time.Hour}, time.Now)
		if _, err := s.SendToAll(t.Context(), forAll("yes"), "personality"); err == nil {
			t.Fatal("no error although one was not published")
		}
		if len(p.sent) != 2 {
			t.Fatalf("%d published; want the two others", len(p.sent))
		}
		sent := map[string]bool{}
		if found, err := s.Resume(t.Context(), forAll(""), "personality"); !found || err != nil {
			t.Fatalf("Resume = %v, %v", found, err)
		}
		for _, out := range p.sent {
			sent[out.Event.Channel] = true
		}
		if len(sent) != 3 {
			t.Errorf("published to %v; want all three", sent)
		}
	})
}

func TestOperatorsTextIsRelayedUnchanged(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		p := &publisher{}
		s := delivery.NewSender(delivery.NewLedger(connect(t, env), "one", time.Now), p, delivery.Config{Deadline: time.Minute, Retention: time.Hour}, time.Now)
		e := forAll("@everyone we are live")
		e.Candidates[0].Metadata = answer.TemplateMetadata([]answer.Span{{0, len(e.Candidates[0].Text)}})
		if _, err := s.SendToAll(t.Context(), e, "personality"); err != nil {
			t.Fatal(err)
		}
		for _, out := range p.sent {
			if text := rendered(out.Event); !strings.HasPrefix(text, "@everyone") {
				t.Errorf("at %s: %q", out.Event.Channel, text)
			}
		}
	})
}

func TestWorstError(t *testing.T) {
	dead, other := deadletter.New(deadletter.NoText, errors.New("nothing")), errors.New("Firestore is away")
	for _, tt := range []struct {
		in   []error
		want error
	}{{nil, nil}, {[]error{nil, nil}, nil}, {[]error{nil, dead}, dead}, {[]error{dead, other}, other}, {[]error{other, dead, nil}, other}} {
		if got := delivery.WorstError(tt.in); !errors.Is(got, tt.want) || (got == nil) != (tt.want == nil) {
			t.Errorf("of %v: %v; want %v", tt.in, got, tt.want)
		}
	}
}
