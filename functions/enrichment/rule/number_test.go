package rule

import (
	"strings"
	"testing"

	"parley.internal/shared/event"
	"parley.internal/shared/store"
)

// numbersIn returns an event with numbers of every kind.
func numbersIn() *event.Event {
	raw := []byte(`{"points":1000000,"timeout":1209600,"id":9007199254740993,"near":9007199254740992,"least":-9223372036854775808,
		"big":18446744073709551615,"huge":123456789012345678901234567890,"inf":1e400,"minusInf":-1e400,"half":0.5,"tiny":1e-7,"million":1e6,
		"five":5.0,"large":1e21,"zero":-0,"two":2,"text":"ok","list":[1,2.5,9007199254740993],"deep":{"n":1000000}}`)
	return &event.Event{Source: "ingress.twitch", Channel: "twitch:streamer", Payload: raw, Metadata: raw,
		Message: &event.Message{RawPlatformPayload: raw}, ExternalEvent: &event.ExternalEvent{Payload: raw, RawPayload: raw}}
}

func TestNumbersInTexts(t *testing.T) {
	for _, tt := range []struct{ expression, want string }{
		{"%s.points", "1000000"},
		{"%s.timeout", "1209600"},
		{"%s.id", "9007199254740993"},
		{"%s.near", "9007199254740992"},
		{"%s.least", "-9223372036854775808"},
		{"%s.big", "18446744073709551615"},
		{"%s.huge", "123456789012345678901234567890"},
		{"%s.half", "0.5"},
		{"%s.tiny", "0.0000001"},
		{"%s.million", "1000000"},
		{"%s.five", "5"},
		{"%s.large", "1000000000000000000000"},
		{"%s.zero", "0"},
		{"%s.list[2]", "9007199254740993"},
		{"%s.deep.n", "1000000"},
		{"string(%s.points) + '!'", "1000000!"},
		{"%s.points + 1", "1000001"},
		{"1 + %s.points", "1000001"},
		{"%s.points * 2", "2000000"},
		{"%s.points * 1000000", "1000000000000"},
		{"double(%s.points) * 1.5", "1500000"},
		{"%s.points * 1.5", "1500000"},
		{"1.5 * %s.points", "1500000"},
		{"%s.five / %s.two", "2.5"},
		{"%s.five / 2", "2"},
		{"%s.five / 2.0", "2.5"},
		{"int(%s.points) + 1", "1000001"},
		{"%s.text", "ok"},
	} {
		for _, member := range []string{"event.payload", "event.metadata", "event.message.rawPlatformPayload", "event.externalEvent.payload", "event.externalEvent.rawPayload"} {
			template := "{{ " + strings.ReplaceAll(tt.expression, "%s", member) + " }}"
			o := compileAll(t, says("r", "true", template)).Evaluate(numbersIn(), at, never)
			if len(o.Applied) != 1 || o.Applied[0].Candidates[0].Text != tt.want {
				t.Errorf("%s: %+v, failed %v; want %s", template, o.Applied, o.Failed, tt.want)
			}
		}
	}
}

func TestNumbersInConditions(t *testing.T) {
	for _, tt := range []struct {
		when string
		want bool
	}{
		{"event.payload.points > 100", true},
		{"event.payload.points > 100.5", true},
		{"100 < event.payload.points", true},
		{"event.payload.points == 1000000", true},
		{"event.payload.points == 1000000.0", true},
		{"1000000 == event.payload.points", true},
		{"event.payload.points in [1, 1000000]", true},
		{"event.payload.points == event.payload.million", true},
		{"event.payload.id == event.payload.near", false},
		{"event.payload.id == 9007199254740993", true},
		{"event.payload.id == 9007199254740992", false},
		{"event.payload.list.exists(n, n == 2.5)", true},
		{"event.payload.list.exists(n, n == 9007199254740992)", false},
		{"event.payload.half < 1", true},
		{"event.payload.big > 100", true},
		{"event.payload.huge > 100", true},
		{"event.payload.huge == event.metadata.huge", true},
		{"event.payload.huge == 5", false},
		{"has(event.payload.inf) && has(event.payload.huge) && !has(event.payload.gone)", true},
		{"event.payload.text == 'ok'", true},
		{"event.payload.five / event.payload.two > 2", true},
		{"event.payload.five / event.payload.two == 2.5", true},
		{"event.payload.points * 2.0 > 5.0 && event.payload.points * 2.0 < 3000000.0", true},
		{"event.payload.five % 2 == 1", true},
		{"size(event.payload.list) == 3 && event.payload.list[event.payload.two] > 5", true},
	} {
		o := compileAll(t, says("r", tt.when, "x")).Evaluate(numbersIn(), at, never)
		if len(o.Failed) > 0 || (len(o.Applied) == 1) != tt.want {
			t.Errorf("%s: applied %d, failed %v; want %v", tt.when, len(o.Applied), o.Failed, tt.want)
		}
	}
}

// A number out of range is an error of the using rule alone.
func TestNumbersOutOfRange(t *testing.T) {
	for _, broken := range []store.Rule{
		says("r", "true", "{{ event.payload.inf }}"),
		says("r", "true", "{{ string(event.payload.minusInf) }}"),
		says("r", "event.payload.inf > 5", "x"),
		says("r", "int(event.payload.huge) > 5", "x"),
	} {
		o := compileAll(t, broken, says("ok", "event.payload.text == 'ok' && event.payload.points > 5", "{{ event.payload.points }}")).Evaluate(numbersIn(), at, never)
		if len(o.Failed) != 1 || o.Failed[0].ID != "r" || len(o.Applied) != 1 || o.Applied[0].Candidates[0].Text != "1000000" {
			t.Errorf("%+v: %+v", broken, o)
		}
	}
}
