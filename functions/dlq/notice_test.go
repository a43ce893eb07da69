package dlq_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"parley.internal/emulator/emulatortest"
	"parley.internal/shared/answer"
	"parley.internal/shared/bus"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/topology"
)

// recorder records published answers, and fails a set number of times. It passes dead letters to keep.
type recorder struct {
	mu        sync.Mutex
	fail      int
	sent      []bus.Outgoing
	announced int
	keep      func(context.Context, bus.Message) error
}

func (r *recorder) Publish(_ context.Context, topic topology.Topic, out bus.Outgoing) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if topic != topology.Egress {
		return fmt.Errorf("published on %s", topic)
	}
	if r.fail > 0 {
		r.fail--
		return errors.New("bus is down")
	}
	r.sent = append(r.sent, out)
	return nil
}

func (r *recorder) Announce(ctx context.Context, data []byte, attributes map[string]string, a deadletter.Announcement) error {
	r.announced++
	return r.keep(ctx, bus.Message{Topic: topology.DeadLetter, ID: fmt.Sprint("letter", r.announced), Data: data, Attributes: a.Attributes(attributes)})
}

// published returns the published deliveries by id.
func (r *recorder) published() map[string]bus.Outgoing {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[string]bus.Outgoing{}
	for _, out := range r.sent {
		all[out.Attributes[delivery.AttrDelivery]] = out
	}
	return all
}

// notice returns the JSON of a notice with more fields. A nil value removes a field.
func notice(t *testing.T, fields map[string]any) []byte {
	t.Helper()
	e := map[string]any{
		"v": "2", "source": "system.scheduler", "correlationId": "maintenance", "type": "system.announcement",
		"channel": "lobby", "egress": map[string]any{"destination": "api-gateway"}, "payload": map[string]any{"text": "back in 5 minutes"},
	}
	maps.Copy(e, fields)
	maps.DeleteFunc(e, func(_ string, v any) bool { return v == nil })
	data, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func noticeMessage(id string, data []byte, attributes map[string]string) bus.Message {
	return bus.Message{Topic: topology.Egress, ID: id, Data: data, Attributes: attributes, Published: time.Now(), Attempt: 1}
}

func (s *system) entries(t *testing.T) map[string]delivery.Entry {
	t.Helper()
	snaps, err := s.client.Collection("deliveries").Documents(t.Context()).GetAll()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]delivery.Entry{}
	for _, snap := range snaps {
		if all[snap.Ref.ID], err = s.ledger.Get(t.Context(), snap.Ref.ID); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func (s *system) allLetters(t *testing.T) (all []deadletter.DeadLetter) {
	t.Helper()
	err := s.letters.List(t.Context(), deadletter.Filter{}, func(l deadletter.DeadLetter) error {
		l, err := s.letters.Get(t.Context(), l.ID)
		all = append(all, l)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestNoticeIsOneDeliveryForEachAddress(t *testing.T) {
	to := []map[string]string{{"destination": "twitch", "channel": "twitch:parley"}, {"destination": "discord", "channel": "discord:7"}, {"destination": "api-gateway", "channel": "lobby"}}
	tests := []struct {
		name       string
		fields     map[string]any
		attributes map[string]string
		want       map[string]string // route by destination, user and channel
	}{
		{name: "room", want: map[string]string{"api-gateway  lobby": "broadcast"}},
		{name: "route copied", attributes: map[string]string{"route": "broadcast"}, want: map[string]string{"api-gateway  lobby": "broadcast"}},
		{name: "unknown route", attributes: map[string]string{"route": "brodcast"}, want: map[string]string{"api-gateway  lobby": "broadcast"}},
		{name: "one instance", attributes: map[string]string{"instance": "a1"}, want: map[string]string{"api-gateway  lobby": "broadcast"}},
		{name: "user", fields: map[string]any{"channel": nil, "userId": "api-gateway:eve"}, want: map[string]string{"api-gateway api-gateway:eve ": "broadcast"}},
		{name: "Twitch", fields: map[string]any{"channel": "twitch:parley", "egress": map[string]string{"destination": "twitch"}}, want: map[string]string{"twitch  twitch:parley": "broadcast"}},
		{name: "Twitch by source", fields: map[string]any{"channel": "twitch:parley", "source": "system.twitch", "egress": nil}, want: map[string]string{"twitch  twitch:parley": "broadcast"}},
		{name: "whisper", fields: map[string]any{"channel": nil, "userId": "twitch:1001", "egress": map[string]string{"destination": "twitch", "type": "dm"}}, want: map[string]string{"twitch twitch:1001 ": "whisper"}},
		{name: "Discord user", fields: map[string]any{"channel": nil, "userId": "discord:2001", "egress": map[string]string{"destination": "discord", "type": "dm"}}, want: map[string]string{"discord discord:2001 ": "broadcast"}},
		{name: "event for programs", fields: map[string]any{"egress": map[string]string{"destination": "api-gateway", "type": "event"}, "payload": map[string]int{"n": 1}}, want: map[string]string{"api-gateway  lobby": "broadcast"}},
		{name: "several addresses", fields: map[string]any{"channel": nil, "egress": map[string]any{"to": to}}, want: map[string]string{
			"twitch  twitch:parley": "broadcast", "discord  discord:7": "broadcast", "api-gateway  lobby": "broadcast",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			emulatortest.Both(t, func(t *testing.T, env emulatortest.Env) {
				s := open(t, env)
				m := noticeMessage("m1", notice(t, tt.fields), tt.attributes)
				s.bus.fail = 1
				if err := s.SendNotice(t.Context(), m); err == nil {
					t.Error("acknowledged although the bus was down")
				}
				for range 2 {
					if err := s.SendNotice(t.Context(), m); err != nil {
						t.Fatal(err)
					}
				}
				got := map[string]string{}
				published := s.bus.published()
				for id, e := range s.entries(t) {
					if e.State != delivery.Pending || !strings.HasPrefix(e.Step, delivery.StepNotice) || e.CorrelationID != "maintenance" {
						t.Errorf("entry = %+v", e)
					}
					out := published[id]
					got[e.Destination+" "+e.UserID+" "+e.Channel] = out.Attributes[bus.AttrRoute]
					if out.Event != nil && e.Type != "event" && answer.StripMarks(answer.Text(out.Event)) != "back in 5 minutes" {
						t.Errorf("published %q", answer.Text(out.Event))
					}
				}
				if !maps.Equal(got, tt.want) || len(published) != len(tt.want) {
					t.Errorf("deliveries %v, %d published; want %v", got, len(published), tt.want)
				}
				if l := s.allLetters(t); len(l) != 0 {
					t.Errorf("dead letters %+v", l)
				}

				// a late copy of the message does not send a delivered notice again
				for id := range published {
					if _, err := s.ledger.MarkDelivered(t.Context(), delivery.Ref{ID: id}); err != nil {
						t.Fatal(err)
					}
				}
				n := len(s.bus.sent)
				if err := s.SendNotice(t.Context(), m); err != nil || len(s.bus.sent) != n {
					t.Errorf("a late copy: %v, %d published", err, len(s.bus.sent)-n)
				}
			})
		})
	}
}

func TestAnswerWithAnEntryIsNoNotice(t *testing.T) {
	emulatortest.Both(t, func(t *testing.T, env emulatortest.Env) {
		s := open(t, env)
		for _, id := range []string{"d1", ""} {
			if err := s.SendNotice(t.Context(), noticeMessage("m1", notice(t, nil), map[string]string{delivery.AttrDelivery: id})); err != nil {
				t.Error(err)
			}
		}
		if len(s.entries(t)) != 0 || len(s.bus.sent) != 0 || len(s.allLetters(t)) != 0 {
			t.Errorf("entries %v, published %v, dead letters %v", s.entries(t), s.bus.sent, s.allLetters(t))
		}
	})
}

func TestNoticeThatCannotBeSentIsOneDeadLetter(t *testing.T) {
	egress := func(pairs ...string) map[string]any {
		e := map[string]any{}
		for i := 0; i < len(pairs); i += 2 {
			e[pairs[i]] = pairs[i+1]
		}
		return map[string]any{"egress": e}
	}
	with := func(a, b map[string]any) map[string]any { maps.Copy(a, b); return a }
	tests := []struct {
		name   string
		data   []byte
		fields map[string]any
		reason deadletter.Reason
		says   string
	}{
		{name: "not JSON", data: []byte("maintenance at 5"), reason: deadletter.InvalidEvent, says: "not a JSON object"},
		{name: "no data", data: []byte{}, reason: deadletter.InvalidEvent, says: "not a JSON object"},
		{name: "not UTF-8", data: []byte("{\"v\":\"\xff\"}"), reason: deadletter.InvalidEvent, says: "UTF-8"},
		{name: "too large", data: bytes.Repeat([]byte("x"), 2<<20), reason: deadletter.InvalidEvent, says: "bytes long"},
		{name: "no correlationId", fields: map[string]any{"correlationId": nil}, reason: deadletter.InvalidEvent, says: "correlationId: missing"},
		{name: "no version", fields: map[string]any{"v": nil}, reason: deadletter.InvalidEvent, says: "v"},
		{name: "text beside the payload", fields: map[string]any{"payload": nil, "text": "hello"}, reason: deadletter.NoText, says: "text"},
		{name: "misspelt type of answer", fields: egress("destination", "api-gateway", "type", "chatt"), reason: deadletter.InvalidEvent, says: "egress.type"},
		{name: "no platform", fields: map[string]any{"egress": nil, "source": "cron"}, reason: deadletter.NoPlatform, says: "egress.destination"},
		{name: "misspelt platform", fields: egress("destination", "twich"), reason: deadletter.NoPlatform, says: `"twich"`},
		{name: "platform without answers", fields: egress("destination", "twilio"), reason: deadletter.NoPlatform, says: `"twilio"`},
		{name: "no recipient", fields: map[string]any{"channel": nil}, reason: deadletter.NoRecipient, says: "neither"},
		{name: "channel without platform", fields: with(egress("destination", "twitch"), map[string]any{"channel": "parley"}), reason: deadletter.NoRecipient, says: "twitch:<login>"},
		{name: "channel in upper case", fields: with(egress("destination", "twitch"), map[string]any{"channel": "twitch:Parley"}), reason: deadletter.NoRecipient, says: "lower case"},
		{name: "channel of another platform", fields: map[string]any{"channel": "discord:7"}, reason: deadletter.NoRecipient, says: "discord"},
		{name: "user without platform", fields: map[string]any{"userId": "eve"}, reason: deadletter.NoRecipient, says: "platform:id"},
		{name: "whisper to nobody", fields: egress("destination", "twitch", "type", "dm"), reason: deadletter.NoRecipient, says: "userId"},
		{name: "too late", fields: map[string]any{"timeoutAt": "2020-01-01T00:00:00Z"}, reason: deadletter.Expired, says: "2020"},
		{name: "a user's own words", fields: map[string]any{"payload": nil, "message": map[string]string{"role": "user", "text": "hi"}}, reason: deadletter.NoText, says: "text"},
		{name: "one misspelt address of two", fields: map[string]any{"egress": map[string]any{"to": []map[string]string{
			{"destination": "api-gateway", "channel": "lobby"}, {"destination": "discord", "channel": "general"},
		}}}, reason: deadletter.NoRecipient, says: "discord:<channel id>"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			emulatortest.Both(t, func(t *testing.T, env emulatortest.Env) {
				s := open(t, env)
				data := tt.data
				if data == nil {
					data = notice(t, tt.fields)
				}
				for range 2 {
					if err := s.SendNotice(t.Context(), noticeMessage("m1", data, nil)); err != nil {
						t.Fatal(err)
					}
				}
				all := s.allLetters(t)
				if len(all) != 1 || len(s.entries(t)) != 0 || len(s.bus.sent) != 0 {
					t.Fatalf("%d dead letters, entries %v, published %v; want one dead letter", len(all), s.entries(t), s.bus.sent)
				}
				l := all[0]
				if l.Reason != tt.reason || !strings.Contains(l.Message, tt.says) || !bytes.Equal(l.Data, data) || l.Topic != string(topology.Egress) || l.Delivery || l.Attempts != 1 {
					l.Data, l.Preview = nil, ""
					t.Errorf("dead letter = %+v; want %s, %q", l, tt.reason, tt.says)
				}
			})
		})
	}
}

func TestIdempotencyKeyIdentifiesANotice(t *testing.T) {
	emulatortest.Both(t, func(t *testing.T, env emulatortest.Env) {
		s := open(t, env)
		key := map[string]string{bus.AttrIdempotencyKey: "maintenance-5"}
		send := func(id string, fields map[string]any, attributes map[string]string) {
			t.Helper()
			if err := s.SendNotice(t.Context(), noticeMessage(id, notice(t, fields), maps.Clone(attributes))); err != nil {
				t.Fatal(err)
			}
		}
		send("m1", nil, key)
		send("m2", nil, key)
		send("m3", map[string]any{"correlationId": "made-again", "payload": json.RawMessage(`{ "text" : "back in 5 minutes" }`)}, key)
		if len(s.entries(t)) != 1 || len(s.allLetters(t)) != 0 {
			t.Errorf("a repetition: %d entries, %d dead letters; want one entry", len(s.entries(t)), len(s.allLetters(t)))
		}
		for range 2 {
			send("m4", map[string]any{"payload": map[string]string{"text": "cancelled"}}, key)
		}
		all := s.allLetters(t)
		if len(s.entries(t)) != 1 || len(all) != 1 || all[0].Reason != deadletter.InvalidEvent || !strings.Contains(all[0].Message, "maintenance-5") || !strings.Contains(string(all[0].Data), "cancelled") {
			t.Errorf("another content: %d entries, dead letters %+v; want one dead letter", len(s.entries(t)), all)
		}

		// without keys, equal messages are different notices
		send("m5", nil, nil)
		send("m6", nil, nil)
		if n := len(s.entries(t)); n != 3 {
			t.Errorf("%d entries after two messages without a key; want 3", n)
		}
	})
}

// A script may use one correlation id for all its notices.
func TestFailedNoticesAreDeadLettersOfTheirOwn(t *testing.T) {
	emulatortest.Both(t, func(t *testing.T, env emulatortest.Env) {
		s := open(t, env)
		misspelt := map[string]any{"channel": nil}
		for _, id := range []string{"m1", "m2"} {
			if err := s.SendNotice(t.Context(), noticeMessage(id, notice(t, misspelt), nil)); err != nil {
				t.Fatal(err)
			}
		}
		for _, id := range []string{"f1", "f2"} { // forwarded by Pub/Sub
			if err := s.Keep(t.Context(), forwarded(t, id, "notice", nil)); err != nil {
				t.Fatal(err)
			}
		}
		all := s.allLetters(t)
		if len(all) != 4 {
			t.Fatalf("%d dead letters; want 4", len(all))
		}

		// a redriven notice that fails again is another attempt of its dead letter, not a new one
		for _, l := range all {
			if l.Reason != deadletter.NoRecipient {
				continue
			}
			if err := s.markRedriving(t, l.ID); err != nil {
				t.Fatal(err)
			}
			again := maps.Clone(l.Attributes)
			again[deadletter.AttrRedrive] = "1"
			if err := s.SendNotice(t.Context(), noticeMessage("redriven-"+l.ID, l.Data, again)); err != nil {
				t.Fatal(err)
			}
			if l, err := s.letters.Get(t.Context(), l.ID); err != nil || l.Attempts != 2 || l.Status != deadletter.Open {
				t.Errorf("dead letter = %+v, %v", l, err)
			}
		}
		if n := len(s.allLetters(t)); n != 4 {
			t.Errorf("%d dead letters after the redrives; want 4", n)
		}
	})
}
