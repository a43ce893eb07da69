package event

import (
	"errors"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
)

// full has every member of the contract, and an unknown member at every level.
const full = `{
  "v":"2","source":"api-gateway","correlationId":"c-1","type":"chat.message","traceId":"0af7651916cd43dd8448eb211c80319c",
  "channel":"lobby","userId":"twitch:123","replyTo":"m-0","timeoutAt":"2026-01-02T03:04:05.000006Z",
  "payload":{"text":"hi","big":9007199254740993},"metadata":{"id":"m-1"},
  "user":{"id":"twitch:123","email":"a@example.com","displayName":"Ada","roles":["moderator"],"status":"active","notes":"n",
    "tags":["NEW_USER"],"profile":{"pronouns":"she"},"rolesMeta":{"twitch":["moderator"]},"x":1},
  "auth":{"v":"1","provider":"twitch","method":"enrichment","matched":true,"userRef":"users/twitch:123","at":"2026-01-02T03:04:05Z","x":1},
  "message":{"id":"m-1","role":"user","text":"hi","language":"en","mentionsBot":true,"rawPlatformPayload":{"userId":123},"x":1},
  "externalEvent":{"id":"e","source":"s","kind":"follow","version":"1","createdAt":"2026-01-02T03:04:05Z","payload":{},"rawPayload":{},"x":1},
  "egress":{"destination":"api-gateway","type":"chat","x":1},
  "routingSlip":[{"id":"personality","v":"1","status":"PENDING","attempt":1,"maxAttempts":3,"nextTopic":"internal.user.enriched.v1",
    "attributes":{"next":"personality"},"startedAt":"2026-01-02T03:04:05Z","endedAt":"2026-01-02T03:04:05Z",
    "error":{"code":"c","message":"m","retryable":true,"x":1},"notes":"n","x":1}],
  "annotations":[{"id":"a","kind":"personality","source":"s","createdAt":"2026-01-02T03:04:05Z","confidence":0.5,"label":"l","value":"v","score":0,"payload":{"text":"t"},"x":1}],
  "candidates":[{"id":"c","kind":"text","source":"s","createdAt":"2026-01-02T03:04:05Z","status":"proposed","priority":0,"confidence":1,"text":"t","format":"plain","reason":"r","metadata":{},"x":1}],
  "errors":[{"code":"c","message":"m","x":1}],
  "qos":{"ttl":30,"x":1},
  "somethingNew":{"deep":[1,2,3]}
}`

func TestEveryMemberSurvivesARoundTrip(t *testing.T) {
	e, err := Decode([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	out, err := Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	var want, got any
	if err := json.Unmarshal([]byte(full), &want); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("round trip (-in +out):\n%s", diff)
	}
	if !strings.Contains(string(out), "9007199254740993") {
		t.Error("a large number in the payload lost digits")
	}
}

func TestOlderFormIsUpgraded(t *testing.T) {
	const base = `"source":"ingress.twitch","correlationId":"c-1","traceId":"0af7651916cd43dd8448eb211c80319c","replyTo":"r","custom":1,"auth":{"matched":true,"provider":"twitch"}`
	tests := map[string]string{
		"version as text":         `{"envelope":{"v":"1",` + base + `},"type":"chat.message","channel":"c","payload":{"text":"hi"},"own":2}`,
		"version as number":       `{"envelope":{"v":1,` + base + `},"type":"chat.message","channel":"c","payload":{"text":"hi"},"own":2}`,
		"version outside as well": `{"v":"1","envelope":{"v":"1",` + base + `},"type":"chat.message","channel":"c","payload":{"text":"hi"},"own":2}`,
		"type inside":             `{"envelope":{"v":"1","type":"chat.message",` + base + `},"channel":"c","payload":{"text":"hi"},"own":2}`,
		"the flat member wins":    `{"envelope":{"v":"1","channel":"other",` + base + `},"type":"chat.message","channel":"c","payload":{"text":"hi"},"own":2}`,
	}
	for name, in := range tests {
		t.Run(name, func(t *testing.T) {
			e, err := Decode([]byte(in))
			if err != nil {
				t.Fatal(err)
			}
			if e.V != Version || e.Source != "ingress.twitch" || e.CorrelationID != "c-1" || e.Type != "chat.message" || e.Channel != "c" || e.ReplyTo != "r" {
				t.Errorf("upgraded to %+v", e)
			}
			if e.Auth == nil || e.Auth.Provider != "twitch" || !e.Auth.Matched {
				t.Errorf("auth = %+v", e.Auth)
			}
			if text, _ := Text(e.Payload, "text"); text != "hi" {
				t.Errorf("payload.text = %q", text)
			}
			if diff := cmp.Diff(`{"custom":1,"own":2}`, string(e.Extra)); diff != "" {
				t.Errorf("unknown members (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeReportsTheInvalidField(t *testing.T) {
	const ok = `"v":"2","source":"s","correlationId":"c","type":"t"`
	tests := []struct{ name, in, field string }{
		{"not JSON", `{"v":`, ""},
		{"empty", ``, ""},
		{"a list", `[]`, ""},
		{"not UTF-8", "{\"v\":\"\xff\"}", ""},
		{"a name twice", `{"v":"2","v":"2"}`, ""},
		{"no version", `{"source":"s","correlationId":"c","type":"t"}`, "v"},
		{"another version", `{"v":"9","source":"s","correlationId":"c","type":"t"}`, "v"},
		{"no source", `{"v":"2","correlationId":"c","type":"t"}`, "source"},
		{"no correlation", `{"v":"2","source":"s","type":"t"}`, "correlationId"},
		{"no type", `{"v":"2","source":"s","correlationId":"c"}`, "type"},
		{"number as channel", `{` + ok + `,"channel":7}`, "channel"},
		{"text as user", `{` + ok + `,"user":"me"}`, "user"},
		{"number in roles", `{` + ok + `,"user":{"roles":[1]}}`, "user.roles.0"},
		{"bad time", `{` + ok + `,"timeoutAt":"soon"}`, "timeoutAt"},
		{"bad trace", `{` + ok + `,"traceId":"xyz"}`, "traceId"},
		{"bad egress type", `{` + ok + `,"egress":{"type":"shout"}}`, "egress.type"},
		{"bad step", `{` + ok + `,"routingSlip":[{"id":"a","status":"LATER"}]}`, "routingSlip.0.status"},
		{"negative ttl", `{` + ok + `,"qos":{"ttl":-1}}`, "qos.ttl"},
		{"long channel", `{` + ok + `,"channel":"` + strings.Repeat("x", maxID+1) + `"}`, "channel"},
		{"too large", `{` + ok + `,"payload":"` + strings.Repeat("x", MaxSize) + `"}`, ""},
		{"too deep", `{` + ok + `,"payload":` + strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth) + `}`, ""},
		{"older form of an unknown version", `{"envelope":{"v":"7","source":"s"},"type":"t"}`, "envelope.v"},
		{"older form, wrong member", `{"envelope":{"v":"1","source":1},"type":"t"}`, "envelope.source"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Decode([]byte(tt.in))
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("Decode = %v; want ErrInvalid", err)
			}
			var fe *FieldError
			if !errors.As(err, &fe) || fe.Field != tt.field {
				t.Errorf("Decode = %v; want an error of field %q", err, tt.field)
			}
			if fe != nil && fe.Reason == "" {
				t.Error("no reason")
			}
		})
	}
}

func TestEncodeValidates(t *testing.T) {
	for name, e := range map[string]*Event{
		"empty":     {},
		"too large": {V: Version, Source: "s", CorrelationID: "c", Type: "t", Payload: Raw(strings.Repeat("x", MaxSize))},
	} {
		if _, err := Encode(e); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: Encode = %v; want ErrInvalid", name, err)
		}
	}
}

func TestFinishEndsThePendingStep(t *testing.T) {
	e := &Event{RoutingSlip: []Step{{ID: "a", Status: StepOK}, {ID: "b", Status: StepPending}, {ID: "c", Status: StepPending}}}
	if got := e.Next(); got != "b" {
		t.Fatalf("Next = %q; want b", got)
	}
	e.Finish("b", e.TimeoutAt, e.TimeoutAt, nil)
	if got := e.Next(); got != "c" {
		t.Fatalf("Next = %q; want c", got)
	}
	e.Finish("c", e.TimeoutAt, e.TimeoutAt, &Error{Code: "x"})
	e.Finish("d", e.TimeoutAt, e.TimeoutAt, nil)
	var got []string
	for _, s := range e.RoutingSlip {
		got = append(got, s.ID+" "+s.Status)
	}
	if diff := cmp.Diff([]string{"a OK", "b OK", "c ERROR", "d OK"}, got); diff != "" {
		t.Errorf("routing slip (-want +got):\n%s", diff)
	}
}

func TestTextFollowsAPath(t *testing.T) {
	const in = ` {"a":{"b":["x",{"c":"no"}],"c":"yes","é\"":"escaped","n":-1.50,"empty":"","null":null,"c2":"a\u00e9b"},"s":"top","c":"outer"}`
	for _, tt := range []struct {
		in   string
		path []string
		want string
		ok   bool
	}{
		{in, []string{"s"}, "top", true},
		{in, []string{"a", "c"}, "yes", true},
		{in, []string{"c"}, "outer", true},
		{in, []string{"a", `é"`}, "escaped", true},
		{in, []string{"a", "c2"}, "aéb", true},
		{in, []string{"a", "n"}, "-1.50", true},
		{in, []string{"a", "empty"}, "", false},
		{in, []string{"a", "null"}, "", false},
		{in, []string{"a", "b"}, "", false},
		{in, []string{"a", "b", "c"}, "", false},
		{in, []string{"a", "missing"}, "", false},
		{in, []string{"missing", "c"}, "", false},
		{in, []string{"s", "c"}, "", false},
		{in, nil, "", false},
		{`"text"`, nil, "text", true},
		{` 12 `, nil, "12", true},
		{`"text"`, []string{"a"}, "", false},
		{`[]`, []string{"a"}, "", false},
		{``, []string{"a"}, "", false},
		{``, nil, "", false},
		{`{`, []string{"a"}, "", false},
	} {
		if got, ok := Text(jsontext.Value(tt.in), tt.path...); got != tt.want || ok != tt.ok {
			t.Errorf("Text(%s, %q) = %q, %v; want %q, %v", tt.in, tt.path, got, ok, tt.want, tt.ok)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte(`{"envelope":{"v":"1","source":"s","correlationId":"c"},"type":"t","x":{}}`))
	f.Add([]byte(`{"v":"2","source":"s","correlationId":"c","type":"t","payload":null,"extra":[[[]]]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := Decode(data)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("Decode = %v; want ErrInvalid", err)
			}
			return
		}
		out, err := Encode(e)
		if err != nil {
			if strings.Contains(err.Error(), "bytes long") {
				return // escapes and explicit fields can make it longer than it was
			}
			t.Fatalf("Encode of what Decode took: %v", err)
		}
		again, err := Decode(out)
		if err != nil {
			t.Fatalf("Decode of what Encode wrote: %v\n%s", err, out)
		}
		out2, err := Encode(again)
		if err != nil || string(out2) != string(out) {
			t.Fatalf("not stable: %v\n%s\n%s", err, out, out2)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(full)))
	for b.Loop() {
		if _, err := Decode([]byte(full)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	e, err := Decode([]byte(full))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Encode(e); err != nil {
			b.Fatal(err)
		}
	}
}
