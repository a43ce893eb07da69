package websocket

import (
	"errors"
	"slices"
	"testing"
	"unicode/utf8"

	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

func TestDecodeCopiesItsInput(t *testing.T) {
	t.Parallel()
	data := []byte(`{"type":"chat.message.send","payload":{"text":"hello","room":"r"},"metadata":{"id":"m"}}`)
	in, err := decode(data, 100)
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		data[i] = 'x' // the reader reuses its buffer
	}
	if string(in.payload) != `{"text":"hello","room":"r"}` || string(in.metadata) != `{"id":"m"}` || in.text != "hello" || in.room != "r" || in.id != "m" {
		t.Errorf("now %+v", in)
	}
}

func TestAMalformedActionIsRefusedWithItsFields(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ payload, want string }{
		{`{"action":"ban","channel":"twitch:parley"}`, "payload.userId: missing"},
		{`{"action":"bann","channel":7,"userId":"1","until":"then"}`,
			"payload.channel: not a text; payload.until: no member of an action; payload.action: not one of ban, timeout, unban, delete"},
		{`{"action":"ban","room":"twitch:parley","userId":"1"}`, "payload.room: no member of an action; payload.channel: missing"},
		{`null`, "payload: not an object"},
	} {
		_, err := decode([]byte(`{"type":"moderation.action.v1","payload":`+test.payload+`,"metadata":{"id":"m"}}`), 100)
		refused, ok := errors.AsType[*frameError](err)
		if !ok || refused.code != ErrBadFrame || refused.id != "m" || refused.message != test.want {
			t.Errorf("%s: %v; want %s", test.payload, err, test.want)
		}
	}
	// enrichment checks the permission
	in, err := decode([]byte(`{"type":"moderation.action.v1","payload":{"action":"ban","channel":"twitch:parley","userId":"1"}}`), 100)
	if err != nil || in.room != "" {
		t.Errorf("%+v, %v", in, err)
	}
}

// On the web, the bot has no account: @parley addresses it. The gateway decides, and a client can't claim a mention.
func TestMentionOfTheBotOnTheWeb(t *testing.T) {
	t.Parallel()
	user, err := identity.New(identity.APIGateway, "eve")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		payload, metadata string
		want              bool
	}{
		{`{"text":"@parley hi"}`, `{}`, true},
		{`{"text":"does @Parley hear me?","room":"lobby"}`, `{"id":"m"}`, true},
		{`{"text":"@PARLEY"}`, `{"replyTo":"x"}`, true},
		{`{"text":"hi @parley\u034f"}`, `{}`, true},
		{`{"text":"parley"}`, `{}`, false},
		{`{"text":"@parleyfan ada@parley"}`, `{}`, false},
		{`{"text":"hi","mentionsBot":true}`, `{"mentionsBot":true}`, false},
		{`{"text":"hi","message":{"mentionsBot":true}}`, `{"message":{"mentionsBot":true}}`, false},
	} {
		in, err := decode([]byte(`{"type":"chat.message.send","payload":`+tt.payload+`,"metadata":`+tt.metadata+`}`), 100)
		if err != nil {
			t.Fatal(err)
		}
		if e := in.toEvent(user, ""); e.Message.MentionsBot != tt.want || string(e.Payload) != tt.payload {
			t.Errorf("%s: mentions the bot: %t; want %t", tt.payload, e.Message.MentionsBot, tt.want)
		}
	}
	// a frame has no member message, and only a message can address the bot
	if _, err := decode([]byte(`{"type":"chat.message.send","payload":{"text":"hi"},"message":{"mentionsBot":true}}`), 100); err == nil {
		t.Error("a frame with a member message was accepted")
	}
	in, err := decode([]byte(`{"type":"poll.vote","payload":{"text":"@parley","message":{"mentionsBot":true}}}`), 100)
	if err != nil || in.toEvent(user, "").Message != nil {
		t.Errorf("%+v, %v; want an event without a message", in, err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"type":"chat.message.send","payload":{"text":"hello","room":"r"},"metadata":{"id":"m","timestamp":"2026-01-01T00:00:00Z"}}`,
		`{"type":"room.join","payload":{"channel":"r"}}`, `{"type":"poll.vote","payload":{"a":[1,{"b":null}]}}`,
		`{"type":"moderation.action.v1","payload":{"action":"ban","channel":"twitch:parley","userId":"1","x":1}}`, `{"type":"internal.x"}`, `null`, `[`, `{"type":"chat.message.send","payload":{"text":"\ud800"}}`, "\xff",
	} {
		f.Add([]byte(seed))
	}
	user, err := identity.New(identity.Twitch, "1")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 100_000 {
			return // never read
		}
		in, err := decode(data, 4000)
		if err != nil {
			refused, ok := errors.AsType[*frameError](err)
			if !ok || !slices.ContainsFunc(Errors, func(m ErrorMeaning) bool { return m.Code == refused.code }) {
				t.Fatalf("refused with %v", err)
			}
			out, err := controlFrame(TypeError, errorPayload{refused.code, refused.message, refused.id}, refused.id, testTime).encode()
			if err != nil || !utf8.Valid(out) {
				t.Fatalf("the refusal %q can't be told: %v", out, err)
			}
			return
		}
		if in.kind == TypeJoin || in.kind == TypeLeave {
			if in.room == "" {
				t.Fatal("no room")
			}
			return
		}
		// an accepted frame becomes an event readable by all later steps
		e := in.toEvent(user, "")
		wire, err := event.Encode(e)
		if err != nil {
			t.Fatalf("Encode: %v", err)
		}
		back, err := event.Decode(wire)
		if err != nil {
			t.Fatalf("Decode: %v in %s", err, wire)
		}
		if back.UserID != "twitch:1" || back.Type != e.Type || back.Source != "api-gateway" || back.User != nil {
			t.Fatalf("became %+v", back)
		}
	})
}
