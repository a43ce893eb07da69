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

// An escape of half a character is JSON, and programs write it that cut a text inside an emoji.
func TestHalfCharactersInFrames(t *testing.T) {
	t.Parallel()
	user, err := identity.New(identity.APIGateway, "eve")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		frame, text, payload, metadata string
		code                           ErrorCode
		id                             string
	}{
		{`{"type":"chat.message.send","payload":{"text":"hi \ud83d"},"metadata":{"id":"m"}}`, "hi \ufffd", `{"text":"hi \ufffd"}`, `{"id":"m"}`, "", "m"},
		{`{"type":"chat.message.send","payload":{"text":"\ude00"},"metadata":{"id":"m"}}`, "\ufffd", `{"text":"\ufffd"}`, `{"id":"m"}`, "", "m"},
		{`{"type":"chat.message.send","payload":{"text":"\ud83d\ude00 \ude00\ud83d"},"metadata":{"id":"m"}}`, "\U0001f600 \ufffd\ufffd", `{"text":"\ud83d\ude00 \ufffd\ufffd"}`, `{"id":"m"}`, "", "m"},
		{`{"type":"chat.message.send","payload":{"text":"a","x":["\ud83d",{"\udfff":"\ud83d"}]},"metadata":{"id":"m","note":"\ud83d"}}`, "a", `{"text":"a","x":["\ufffd",{"\ufffd":"\ufffd"}]}`, `{"id":"m","note":"\ufffd"}`, "", "m"},
		{`{"type":"poll.vote","payload":{"option":"\ud83d"},"metadata":{"id":"m"}}`, "", `{"option":"\ufffd"}`, `{"id":"m"}`, "", "m"},
		{`{"type":"connection.ack","payload":{"ids":["\ud83d"]},"metadata":{"id":"m"}}`, "", `{"ids":["\ufffd"]}`, `{"id":"m"}`, "", "m"},
		{`{"type":"chat.message.send","payload":{"text":"a"},"metadata":{"id":"m\ud83d"}}`, "", "", "", ErrBadFrame, "m\ufffd"},
		{`{"type":"chat.message.send","payload":{"text":"a","room":"r\ud83d"},"metadata":{"id":"m"}}`, "", "", "", ErrBadRoom, "m"},
		{`{"type":"room.join","payload":{"room":"\udc00"},"metadata":{"id":"m"}}`, "", "", "", ErrBadRoom, "m"},
		{`{"type":"poll.\ud83d","metadata":{"id":"m"}}`, "", "", "", ErrUnknownType, "m"},
		{`{"type":"x","\ud83d":1,"metadata":{"id":"m"}}`, "", "", "", ErrBadFrame, "m"},
		{`{"type":"x","payload":{"\ud83d":1,"\ude00":2},"metadata":{"id":"m"}}`, "", "", "", ErrNotJSON, "m"}, // the same name twice
		{"{\"type\":\"chat.message.send\",\"payload\":{\"text\":\"\xff\"},\"metadata\":{\"id\":\"m\"}}", "", "", "", ErrNotJSON, "m"},
		{"{\"metadata\":{\"id\":\"m\"},\"type\":\"chat.message.send\",\"payload\":{\"\xed\xa0\xbd\":\"a\"}}", "", "", "", ErrNotJSON, "m"},
		{`{"metadata":{"id":"m"},"type":"x","type":"x"}`, "", "", "", ErrNotJSON, "m"},
		{`{"metadata":{"id":"m"},"type":`, "", "", "", ErrNotJSON, "m"},
		{`{"type":x,"metadata":{"id":"m"}}`, "", "", "", ErrNotJSON, ""}, // not JSON before the id
	} {
		data := []byte(tt.frame)
		in, err := decode(data, 100)
		if string(data) != tt.frame {
			t.Errorf("%s: the input is %s now", tt.frame, data)
		}
		if refused, ok := errors.AsType[*frameError](err); ok {
			if refused.code != tt.code || refused.id != tt.id {
				t.Errorf("%+q: %v for %q; want %q for %q", tt.frame, err, refused.id, tt.code, tt.id)
			}
			continue
		}
		if tt.code != "" || in.id != tt.id || in.text != tt.text || string(in.payload) != tt.payload || string(in.metadata) != tt.metadata {
			t.Errorf("%+q: %+v; want %q, payload %s, metadata %s, error %q", tt.frame, in, tt.text, tt.payload, tt.metadata, tt.code)
		}
		if _, err := event.Encode(in.toEvent(user, "")); err != nil {
			t.Errorf("%+q: %v", tt.frame, err)
		}
	}
}

// A frame's metadata changes nothing about a command.
func TestCommandsInFramesWithMetadata(t *testing.T) {
	t.Parallel()
	user, err := identity.New(identity.Twitch, "1")
	if err != nil {
		t.Fatal(err)
	}
	for _, metadata := range []string{
		`{"id":"m","replyTo":"d1"}`, `{"replyTo":"d1","timestamp":"2026-01-01T00:00:00Z"}`, `{"id":"m","reply":{"id":"d1","text":"before"}}`, `{}`, `null`,
		`{"id":"m","text":"!roles"}`, `{"id":"m","message":{"text":"!roles"}}`,
	} {
		in, err := decode([]byte(`{"type":"chat.message.send","payload":{"text":"!help"},"metadata":`+metadata+`}`), 100)
		if err != nil {
			t.Fatalf("%s: %v", metadata, err)
		}
		if e := in.toEvent(user, ""); e.Message.Text != "!help" || e.Type != event.TypeChatMessage || e.Message.MentionsBot {
			t.Errorf("%s: %+v", metadata, e.Message)
		}
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
