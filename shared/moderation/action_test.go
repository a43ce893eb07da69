package moderation_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/moderation"
)

func user(t testing.TB, s string) identity.UserID {
	t.Helper()
	id, err := identity.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name, payload, channel string
		want                   moderation.Action
	}{
		{"a ban", `{"action":"ban","channel":"twitch:streamer","userId":"twitch:123","reason":"spam"}`, "",
			moderation.Action{Kind: moderation.Ban, Channel: "twitch:streamer", User: user(t, "twitch:123"), Reason: "spam"}},
		{"in the event's own channel", `{"action":"unban","userId":"twitch:123"}`, "twitch:streamer",
			moderation.Action{Kind: moderation.Unban, Channel: "twitch:streamer", User: user(t, "twitch:123")}},
		{"the payload's channel goes first", `{"action":"unban","userId":"twitch:123","channel":"twitch:other"}`, "twitch:streamer",
			moderation.Action{Kind: moderation.Unban, Channel: "twitch:other", User: user(t, "twitch:123")}},
		{"an id without its platform is the channel's", `{"action":"ban","userId":"123"}`, "discord:9",
			moderation.Action{Kind: moderation.Ban, Channel: "discord:9", User: user(t, "discord:123")}},
		{"by name", `{"action":"timeout","login":"@SomeBody","durationSeconds":60}`, "twitch:streamer",
			moderation.Action{Kind: moderation.Timeout, Channel: "twitch:streamer", Login: "somebody", Seconds: 60}},
		{"the longest on Twitch", `{"action":"timeout","userId":"twitch:1","durationSeconds":1209600}`, "twitch:streamer",
			moderation.Action{Kind: moderation.Timeout, Channel: "twitch:streamer", User: user(t, "twitch:1"), Seconds: 1209600}},
		{"the longest on Twitch, in other notations", `{"action":"timeout","userId":"twitch:1","durationSeconds":1.2096e+06}`, "twitch:streamer",
			moderation.Action{Kind: moderation.Timeout, Channel: "twitch:streamer", User: user(t, "twitch:1"), Seconds: 1209600}},
		{"a duration as a text", `{"action":"timeout","userId":"twitch:1","durationSeconds":" 600.0 "}`, "twitch:streamer",
			moderation.Action{Kind: moderation.Timeout, Channel: "twitch:streamer", User: user(t, "twitch:1"), Seconds: 600}},
		{"ids as numbers", `{"action":"delete","userId":9007199254740993,"messageId":1445111222333444555}`, "discord:9",
			moderation.Action{Kind: moderation.Delete, Channel: "discord:9", User: user(t, "discord:9007199254740993"), MessageID: "1445111222333444555"}},
		{"the longest on Discord", `{"action":"timeout","userId":"discord:1","durationSeconds":2419200}`, "discord:9",
			moderation.Action{Kind: moderation.Timeout, Channel: "discord:9", User: user(t, "discord:1"), Seconds: 2419200}},
		{"a message", `{"action":"delete","messageId":"3f2b1c4d-0000-4000-8000-abcdef012345"}`, "twitch:streamer",
			moderation.Action{Kind: moderation.Delete, Channel: "twitch:streamer", MessageID: "3f2b1c4d-0000-4000-8000-abcdef012345"}},
		{"a message, and whose", `{"action":"delete","messageId":"77","userId":"discord:5","login":null}`, "discord:9",
			moderation.Action{Kind: moderation.Delete, Channel: "discord:9", MessageID: "77", User: user(t, "discord:5")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := moderation.Parse([]byte(tt.payload), tt.channel)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b identity.UserID) bool { return a == b })); diff != "" {
				t.Errorf("action (-want +got):\n%s", diff)
			}
		})
	}
}

// The error has all wrong fields.
func TestInvalidActionNamesItsFields(t *testing.T) {
	for _, tt := range []struct {
		name, payload string
		want          []string // the fields
	}{
		{"nothing", ``, []string{"payload"}},
		{"a list", `[]`, []string{"payload"}},
		{"an empty object", `{}`, []string{"payload.action", "payload.userId"}},
		{"an unknown action", `{"action":"kick","userId":"twitch:1"}`, []string{"payload.action"}},
		{"wrong kinds of values", `{"action":7,"userId":{},"reason":[]}`, []string{"payload.action", "payload.reason", "payload.userId"}},
		{"a member too many", `{"action":"ban","userId":"twitch:1","duration":60}`, []string{"payload.duration"}},
		{"who allows it", `{"action":"ban","userId":"twitch:1","askedBy":{"right":"mine"}}`, []string{"payload.askedBy"}},
		{"another platform's person", `{"action":"ban","userId":"discord:1"}`, []string{"payload.userId"}},
		{"no number", `{"action":"ban","userId":"twitch:somebody"}`, []string{"payload.userId"}},
		{"an id within an id", `{"action":"ban","userId":"twitch:twitch:1"}`, []string{"payload.userId"}},
		{"two persons", `{"action":"ban","userId":"twitch:1","login":"somebody"}`, []string{"payload.login"}},
		{"no name", `{"action":"ban","login":"some body"}`, []string{"payload.login"}},
		{"a name on Discord", `{"action":"ban","login":"somebody","channel":"discord:1"}`, []string{"payload.login"}},
		{"a web room", `{"action":"ban","userId":"twitch:1","channel":"lobby"}`, []string{"payload.channel"}},
		{"a room of our own", `{"action":"ban","userId":"twitch:1","channel":"api-gateway:lobby"}`, []string{"payload.channel"}},
		{"no channel of Twitch", `{"action":"ban","userId":"twitch:1","channel":"twitch:#Streamer"}`, []string{"payload.channel"}},
		{"no channel of Discord", `{"action":"ban","userId":"discord:1","channel":"discord:general"}`, []string{"payload.channel"}},
		{"a time-out without end", `{"action":"timeout","userId":"twitch:1"}`, []string{"payload.durationSeconds"}},
		{"a time-out of no time", `{"action":"timeout","userId":"twitch:1","durationSeconds":0}`, []string{"payload.durationSeconds"}},
		{"a negative one", `{"action":"timeout","userId":"twitch:1","durationSeconds":-5}`, []string{"payload.durationSeconds"}},
		{"half a second", `{"action":"timeout","userId":"twitch:1","durationSeconds":0.5}`, []string{"payload.durationSeconds"}},
		{"a duration in words", `{"action":"timeout","userId":"twitch:1","durationSeconds":"an hour"}`, []string{"payload.durationSeconds"}},
		{"an empty duration", `{"action":"timeout","userId":"twitch:1","durationSeconds":""}`, []string{"payload.durationSeconds"}},
		{"a hexadecimal duration", `{"action":"timeout","userId":"twitch:1","durationSeconds":"0x10"}`, []string{"payload.durationSeconds"}},
		{"an infinite duration", `{"action":"timeout","userId":"twitch:1","durationSeconds":"Inf"}`, []string{"payload.durationSeconds"}},
		{"a duration beyond every range", `{"action":"timeout","userId":"twitch:1","durationSeconds":1e400}`, []string{"payload.durationSeconds"}},
		{"a duration beyond 64 bits", `{"action":"timeout","userId":"twitch:1","durationSeconds":18446744073709551676}`, []string{"payload.durationSeconds"}},
		{"an id with a fraction", `{"action":"ban","userId":1.5}`, []string{"payload.userId"}},
		{"a duration of a list", `{"action":"timeout","userId":"twitch:1","durationSeconds":[60]}`, []string{"payload.durationSeconds"}},
		{"too long for Twitch", `{"action":"timeout","userId":"twitch:1","durationSeconds":1209601}`, []string{"payload.durationSeconds"}},
		{"too long for Discord", `{"action":"timeout","userId":"discord:1","durationSeconds":2419201,"channel":"discord:1"}`, []string{"payload.durationSeconds"}},
		{"a ban for a while", `{"action":"ban","userId":"twitch:1","durationSeconds":60}`, []string{"payload.durationSeconds"}},
		{"no message", `{"action":"delete"}`, []string{"payload.messageId"}},
		{"a message that is none", `{"action":"delete","messageId":"../../bans"}`, []string{"payload.messageId"}},
		{"Twitch's message on Discord", `{"action":"delete","messageId":"3f2b-1","channel":"discord:1"}`, []string{"payload.messageId"}},
		{"a ban of a message", `{"action":"ban","userId":"twitch:1","messageId":"1"}`, []string{"payload.messageId"}},
		{"a novel", fmt.Sprintf(`{"action":"ban","userId":"twitch:1","reason":%q}`, strings.Repeat("x", 501)), []string{"payload.reason"}},
		{"two lines", `{"action":"ban","userId":"twitch:1","reason":"a\nb"}`, []string{"payload.reason"}},
		{"much at once", `{"action":"timeout","userId":"discord:1","messageId":"1","reason":"\u0000"}`,
			[]string{"payload.userId", "payload.messageId", "payload.durationSeconds", "payload.reason"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, err := moderation.Parse([]byte(tt.payload), "twitch:streamer")
			if err == nil {
				t.Fatalf("parsed as %s", a)
			}
			if !errors.Is(err, event.ErrInvalid) {
				t.Errorf("%v is not an ErrInvalid", err)
			}
			var fields []string
			for line := range strings.SplitSeq(err.Error(), "\n") {
				field, _, _ := strings.Cut(line, ": ")
				fields = append(fields, field)
			}
			if diff := cmp.Diff(tt.want, fields); diff != "" {
				t.Errorf("fields (-want +got):\n%s\nin %v", diff, err)
			}
		})
	}
}

// A rule may make a reason from any text, but the platforms accept only a short line.
func TestLineMakesAReasonOfAnyText(t *testing.T) {
	for in, want := range map[string]string{
		"":                                  "",
		" a\r\n b\tc\x00 ":                  "a b c",
		"\xff":                              "\uFFFD",
		strings.Repeat("x", 600):            strings.Repeat("x", 500),
		strings.Repeat("😀", 300):            strings.Repeat("😀", 250),
		strings.Repeat("x", 499) + " 😀 end": strings.Repeat("x", 499),
	} {
		if got := moderation.Line(in); got != want {
			t.Errorf("Line(%.20q) = %q; want %q", in, got, want)
		}
	}
}

// The egress event has the action, the requester and the destination.
func TestCommandSurvivesItsEvent(t *testing.T) {
	asked := &event.Event{
		V: event.Version, Source: "api-gateway", CorrelationID: "c1", Type: moderation.Type, Channel: "lobby", UserID: "api-gateway:eve",
		Payload: []byte(`{"action":"ban","userId":"twitch:1","channel":"twitch:streamer"}`), Candidates: []event.Candidate{{ID: "c", Text: "an answer"}},
		Egress: &event.Egress{Destination: "api-gateway", Type: event.EgressChat},
	}
	a, err := moderation.Parse(asked.Payload, asked.Channel)
	if err != nil {
		t.Fatal(err)
	}
	want := moderation.Command{Action: a, By: moderation.Requester{UserID: "api-gateway:eve", Roles: []string{"moderator"}, Channel: "lobby", Source: "api-gateway", Right: "moderator by hand"}}
	out := want.Event(asked)
	if out.Channel != "twitch:streamer" || out.Egress.Destination != "twitch" || out.Egress.Type != event.EgressEvent || out.Type != moderation.Type || len(out.Candidates) != 0 {
		t.Errorf("egress event = %+v", out)
	}
	if asked.Channel != "lobby" || asked.Egress.Destination != "api-gateway" || len(asked.Candidates) != 1 {
		t.Errorf("the requesting event was changed: %+v", asked)
	}
	data, err := event.Encode(out)
	if err != nil {
		t.Fatal(err)
	}
	back, err := event.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	got, err := moderation.Read(back)
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b identity.UserID) bool { return a == b })); diff != "" || err != nil {
		t.Errorf("command (-want +got):\n%s%v", diff, err)
	}
	back.Payload = asked.Payload
	if _, err := moderation.Read(back); err == nil || !strings.Contains(err.Error(), "payload.askedBy.right") {
		t.Errorf("a command without a permission: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, payload := range []string{
		`{"action":"ban","userId":"twitch:123","reason":"spam"}`, `{"action":"timeout","login":"@x","durationSeconds":60}`,
		`{"action":"delete","messageId":"a-1","channel":"discord:1"}`, `{"action":"unban","userId":"5","x":1}`, `{"durationSeconds":1e99}`, `[`, `null`,
	} {
		f.Add([]byte(payload), "twitch:streamer")
		f.Add([]byte(payload), "discord:42")
	}
	f.Fuzz(func(t *testing.T, payload []byte, channel string) {
		a, err := moderation.Parse(payload, channel)
		if err != nil {
			if !errors.Is(err, event.ErrInvalid) {
				t.Errorf("%v is not an ErrInvalid", err)
			}
			return
		}
		// the gateway reads the same action
		o := moderation.Command{Action: a, By: moderation.Requester{Right: "test"}}
		e := o.Event(&event.Event{V: event.Version, Source: "s", CorrelationID: "c", Type: "t"})
		got, err := moderation.Read(e)
		if err != nil || got.Action != a {
			t.Errorf("%+v became %+v: %v", a, got.Action, err)
		}
		if a.Platform() != "twitch" && a.Platform() != "discord" || a.Room() == "" || a.String() == "" {
			t.Errorf("%+v has no channel", a)
		}
	})
}
