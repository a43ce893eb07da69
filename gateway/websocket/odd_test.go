package websocket

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	gorilla "github.com/gorilla/websocket"

	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// oddFrame is a frame with the documented result: a code of [Errors] for the id, or the text of the event. A frame of
// another type than chat.message.send has no text.
type oddFrame struct {
	name, frame string
	code        ErrorCode
	id, text    string
}

// message returns a frame with a text, in the form of a JSON string without the quotes.
func message(text string) string {
	return `{"type":"chat.message.send","payload":{"text":"` + text + `"},"metadata":{"id":"m"}}`
}

func oddFrames() []oddFrame {
	with := func(kind, payload string) string {
		return `{"type":"` + kind + `","payload":` + payload + `,"metadata":{"id":"m"}}`
	}
	frames := []oddFrame{
		{"nothing", "", ErrNotJSON, "", ""},
		{"white space", " \r\n\t", ErrNotJSON, "", ""},
		{"a byte order mark", "\ufeff" + message("hi"), ErrNotJSON, "", ""},
		{"a NUL byte behind", message("hi") + "\x00", ErrNotJSON, "m", ""},
		{"a comma behind", message("hi") + ",", ErrNotJSON, "m", ""},
		{"a second frame", message("hi") + message("hi"), ErrNotJSON, "m", ""},
		{"single quotes", "{'type':'x'}", ErrNotJSON, "", ""},
		{"a comment", `{"type":"x"/**/}`, ErrNotJSON, "", ""},
		{"a number with a plus sign", with("x", `{"a":+1}`), ErrNotJSON, "", ""},
		{"not a number", with("x", `{"a":NaN}`), ErrNotJSON, "", ""},
		{"a number with a leading zero", with("x", `{"a":01}`), ErrNotJSON, "", ""},
		{"a huge number", with("x", `{"a":1e999}`), "", "m", ""},
		{"a long number", with("x", `{"a":`+strings.Repeat("9", 1000)+`}`), "", "m", ""},
		{"a raw line break in a text", message("a\nb"), ErrNotJSON, "", ""},
		{"a raw NUL in a text", message("a\x00b"), ErrNotJSON, "", ""},
		{"a NUL as an escape", message(`a\u0000b`), "", "m", "a\x00b"},
		{"an unknown escape", message(`\x41`), ErrNotJSON, "", ""},
		{"half an escape", message(`\u00`), ErrNotJSON, "", ""},
		{"a text without an end", `{"type":"chat.message.send","payload":{"text":"hi`, ErrNotJSON, "", ""},
		{"capitals in a member", `{"Type":"x","metadata":{"id":"m"}}`, ErrBadFrame, "m", ""},
		{"a payload in capitals", `{"type":"chat.message.send","Payload":{"text":"hi"},"metadata":{"id":"m"}}`, ErrBadFrame, "m", ""},
		{"an empty name", `{"":1,"type":"x","metadata":{"id":"m"}}`, ErrBadFrame, "m", ""},
		{"a prototype", `{"__proto__":{},"type":"x","metadata":{"id":"m"}}`, ErrBadFrame, "m", ""},
		{"a long id", `{"type":"x","metadata":{"id":"` + strings.Repeat("i", maxName+1) + `"}}`, ErrBadFrame, "", ""},
		{"the longest id", `{"type":"x","metadata":{"id":"` + strings.Repeat("i", maxName) + `"}}`, "", strings.Repeat("i", maxName), ""},
		{"an empty id", `{"type":"x","metadata":{"id":""}}`, "", "", ""},
		{"an id of null", `{"type":"x","metadata":{"id":null}}`, "", "", ""},
		{"an id of true", `{"type":"x","metadata":{"id":true}}`, ErrBadFrame, "", ""},
		{"an id in a list", `{"type":"x","metadata":{"id":["m"]}}`, ErrBadFrame, "", ""},
		{"metadata of null", `{"type":"chat.message.send","payload":{"text":"hi"},"metadata":null}`, "", "", "hi"},
		{"metadata in a list", `{"type":"x","metadata":[{"id":"m"}]}`, ErrBadFrame, "", ""},
		{"a long type", with(strings.Repeat("a", maxName+1), "{}"), ErrUnknownType, "m", ""},
		{"a type with a dot behind", with("poll.", "{}"), ErrUnknownType, "m", ""},
		{"a type with two dots", with("poll..vote", "{}"), ErrUnknownType, "m", ""},
		{"a type with a line break", with(`poll\n`, "{}"), ErrUnknownType, "m", ""},
		{"a type of another script", with("опрос", "{}"), ErrUnknownType, "m", ""},
		{"a type of null", `{"type":null,"metadata":{"id":"m"}}`, ErrUnknownType, "m", ""},
		{"a payload of null", `{"type":"poll","payload":null,"metadata":{"id":"m"}}`, "", "m", ""},
		{"a payload in a list", with("poll", `[1]`), ErrBadFrame, "m", ""},
		{"a payload of false", with("poll", `false`), ErrBadFrame, "m", ""},
		{"a text of null", with(TypeSend, `{"text":null}`), ErrNoText, "m", ""},
		{"a text in a list", with(TypeSend, `{"text":["hi"]}`), ErrNoText, "m", ""},
		{"a text in an object", with(TypeSend, `{"text":{"text":"hi"}}`), ErrNoText, "m", ""},
		{"a text of true", with(TypeSend, `{"text":true}`), ErrNoText, "m", ""},
		{"the longest text", message(strings.Repeat("é", 100)), "", "m", strings.Repeat("é", 100)},
		{"a text too long by one", message(strings.Repeat("é", 101)), ErrTextTooLong, "m", ""},
		{"a text too long of emoji", message(strings.Repeat("😀", 101)), ErrTextTooLong, "m", ""},
		{"an emoji in escapes", message(`\ud83d\ude00`), "", "m", "😀"},
		{"text from right to left", message(`\u202eabc`), "", "m", "\u202eabc"},
		{"many accents", message("a" + strings.Repeat("\u0301", 99)), "", "m", "a" + strings.Repeat("\u0301", 99)},
		{"a template", message(`{{ event.user.email }}`), "", "m", "{{ event.user.email }}"},
		{"markup", message(`<script>alert(1)</script>`), "", "m", "<script>alert(1)</script>"},
		{"white space around", message(`  hi  `), "", "m", "  hi  "},
		{"a room of null", with(TypeJoin, `{"room":null}`), ErrBadRoom, "m", ""},
		{"an empty room", with(TypeJoin, `{"room":""}`), ErrBadRoom, "m", ""},
		{"a room of spaces", with(TypeJoin, `{"room":" "}`), ErrBadRoom, "m", ""},
		{"a room with a space before", with(TypeJoin, `{"room":" a"}`), ErrBadRoom, "m", ""},
		{"a room with a NUL", with(TypeJoin, `{"room":"a\u0000"}`), ErrBadRoom, "m", ""},
		{"a room too long", with(TypeJoin, `{"room":"`+strings.Repeat("r", maxName+1)+`"}`), ErrBadRoom, "m", ""},
		{"a room of emoji", with(TypeJoin, `{"room":"😀"}`), "", "m", ""},
		{"a room with a slash", with(TypeJoin, `{"room":"a/b"}`), "", "m", ""},
		{"no acknowledged id", with(TypeAck, `{"ids":[]}`), ErrBadFrame, "m", ""},
		{"an acknowledged number", with(TypeAck, `{"ids":[1]}`), ErrBadFrame, "m", ""},
		{"an acknowledged text", with(TypeAck, `{"ids":"d1"}`), ErrBadFrame, "m", ""},
		{"an acknowledgement of null", with(TypeAck, `null`), ErrBadFrame, "m", ""},
		{"an acknowledgement of an empty id", with(TypeAck, `{"ids":[""]}`), "", "m", ""},
	}
	for depth := 1; depth <= 2*maxDepth; depth += 7 { // the frame itself is a level
		code := ErrorCode("")
		if depth+1 > maxDepth {
			code = ErrNotJSON
		}
		nested := strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth)
		frames = append(frames, oddFrame{fmt.Sprint("nested ", depth), with("poll", nested), code, "m", ""})
	}
	for _, r := range "\u00ad\u034f\u061c\u115f\u1160\u17b4\u180e\u200b\u200c\u200d\u2060\u2063\u2800\u3000\u3164\ufe0f\ufeff\uffa0\U000e0000\U000e0041" {
		frames = append(frames, oddFrame{fmt.Sprintf("%U alone", r), message(string(r)), ErrNoText, "m", ""},
			oddFrame{fmt.Sprintf("%U behind", r), message("hi" + string(r)), "", "m", "hi" + string(r)})
	}
	for _, b := range []string{"\x80", "\xc0\xaf", "\xed\xa0\xbd", "\xf4\x90\x80\x80", "\xff\xfe", "\xe2\x82"} {
		frames = append(frames, oddFrame{fmt.Sprintf("invalid UTF-8 %+q", b), message("a" + b + "b"), ErrNotJSON, "m", ""})
	}
	return frames
}

func TestOddInputsInFrames(t *testing.T) {
	t.Parallel()
	user, err := identity.New(identity.APIGateway, "eve")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range oddFrames() {
		data := []byte(tt.frame)
		in, err := decode(data, 100)
		if !bytes.Equal(data, []byte(tt.frame)) {
			t.Errorf("%s: the frame was changed", tt.name)
		}
		if refused, ok := errors.AsType[*frameError](err); ok {
			if refused.code != tt.code || refused.id != tt.id || refused.message == "" {
				t.Errorf("%s: %v for %q; want %q for %q", tt.name, err, refused.id, tt.code, tt.id)
			}
			continue
		}
		if tt.code != "" || in.id != tt.id || in.text != tt.text {
			t.Errorf("%s: %+v, %v; want %q for %q, text %+q", tt.name, in, err, tt.code, tt.id, tt.text)
		}
		if in.kind == TypeJoin || in.kind == TypeLeave || in.kind == TypeAck {
			continue
		}
		wire, err := event.Encode(in.toEvent(user, ""))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if e, err := event.Decode(wire); err != nil || tt.text != "" && e.Message.Text != tt.text {
			t.Errorf("%s: the event is %+v, %v", tt.name, e, err)
		}
	}
}

// The gateway reads four headers of a handshake: Authorization, Sec-WebSocket-Protocol, Origin and Host. Gorilla reads
// the handshake's own.
func TestOddInputsInHeaders(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *Config) { c.MaxPerUser, c.MaxConnections = 1000, 1000 })
	bearer := func(v string) http.Header { return http.Header{"Authorization": {v}} }
	and := func(name string, values ...string) http.Header {
		return http.Header{"Authorization": {"Bearer token-1"}, name: values}
	}
	for _, tt := range []struct {
		name      string
		header    http.Header
		protocols []string
		code      RefusalCode // empty for a connection
	}{
		{"as documented", bearer("Bearer token-1"), nil, ""},
		{"scheme in lower case", bearer("bearer token-1"), nil, ""},
		{"scheme in capitals", bearer("BEARER token-1"), nil, ""},
		{"two spaces", bearer("Bearer  token-1"), nil, ""},
		{"a space behind", bearer("Bearer token-1 "), nil, ""},
		{"a tab", bearer("Bearer\ttoken-1"), nil, RefuseNoToken},
		{"no space", bearer("Bearertoken-1"), nil, RefuseNoToken},
		{"no scheme", bearer("token-1"), nil, RefuseNoToken},
		{"scheme alone", bearer("Bearer"), nil, RefuseNoToken},
		{"scheme and a space", bearer("Bearer "), nil, RefuseNoToken},
		{"empty", bearer(""), nil, RefuseNoToken},
		{"scheme twice", bearer("Bearer Bearer token-1"), nil, RefuseUnknownToken},
		{"another scheme", bearer("Token token-1"), nil, RefuseNoToken},
		{"a digest", bearer(`Digest username="token-1"`), nil, RefuseNoToken},
		{"quotes", bearer(`Bearer "token-1"`), nil, RefuseUnknownToken},
		{"a token in capitals", bearer("Bearer TOKEN-1"), nil, RefuseUnknownToken},
		{"a list of tokens", bearer("Bearer token-1, token-2"), nil, RefuseUnknownToken},
		{"two headers, the first counts", http.Header{"Authorization": {"Bearer token-1", "Bearer nobody"}}, nil, ""},
		{"two headers, the first is wrong", http.Header{"Authorization": {"Bearer nobody", "Bearer token-1"}}, nil, RefuseUnknownToken},
		{"the longest token", bearer("Bearer " + strings.Repeat("x", maxToken)), nil, RefuseUnknownToken},
		{"a token too long", bearer("Bearer " + strings.Repeat("x", maxToken+1)), nil, RefuseUnknownToken},
		{"another script", bearer("Bearer tökén"), nil, RefuseUnknownToken},
		{"invalid UTF-8", bearer("Bearer \xff\xfe"), nil, RefuseUnknownToken},
		{"a header before the protocol", bearer("Bearer nobody"), []string{"bearer.token-1"}, RefuseUnknownToken},
		{"protocol", nil, []string{"bearer.token-1"}, ""},
		{"protocol in capitals", nil, []string{"BEARER.token-1"}, RefuseNoToken},
		{"protocol without a token", nil, []string{"bearer."}, RefuseNoToken},
		{"unknown protocols", nil, []string{"chat", "soap"}, RefuseNoToken},
		{"two tokens by protocol", nil, []string{"bearer.token-1", "bearer.nobody"}, ""},
		{"two tokens by protocol, the first is wrong", nil, []string{"bearer.nobody", "bearer.token-1"}, RefuseUnknownToken},
		{"many protocols", nil, append(strings.Fields(strings.Repeat("p ", 100)), "bearer.token-1"), ""},
		{"a cookie", http.Header{"Cookie": {"token=token-1"}}, nil, RefuseNoToken},
		{"a token in another header", http.Header{"X-Authorization": {"Bearer token-1"}}, nil, RefuseNoToken},
		{"an empty origin", and("Origin", ""), nil, ""},
		{"an origin without a scheme", and("Origin", "evil.example"), nil, RefuseOrigin},
		{"an origin with the host as user", and("Origin", "http://127.0.0.1@evil.example"), nil, RefuseOrigin},
		{"an origin with the host as prefix", and("Origin", "http://127.0.0.1.evil.example"), nil, RefuseOrigin},
		{"an origin of a file", and("Origin", "file://"), nil, RefuseOrigin},
		{"an origin that is no URL", and("Origin", "http://[::1"), nil, RefuseOrigin},
		{"an origin of another port", and("Origin", "http://127.0.0.1:1"), nil, RefuseOrigin},
		{"an origin of an extension", and("Origin", "chrome-extension://abc"), nil, RefuseOrigin},
		{"a forwarded address", and("X-Forwarded-For", "not an address, 1.2.3.4, \xff"), nil, ""},
		{"a trace", and("Traceparent", "00-zz-xx-01"), nil, ""},
		{"a long header", and("X-Long", strings.Repeat("x", 10_000)), nil, ""},
	} {
		conn, resp := f.handshake(tt.header, tt.protocols...)
		switch {
		case tt.code == "" && conn == nil:
			t.Errorf("%s: refused with %s", tt.name, resp.Status)
		case tt.code != "" && conn != nil:
			t.Errorf("%s: was let in; want %s", tt.name, tt.code)
		case tt.code != "":
			t.Run(tt.name, func(t *testing.T) { wantRefusal(t, resp, tt.code.meaning().Status, tt.code) })
		}
		if conn != nil {
			conn.Close()
		}
	}
}

// The gateway reads two parameters: ack and after. Unknown parameters change nothing.
func TestOddInputsInQuery(t *testing.T) {
	t.Parallel()
	many := func(n int) (query string, ids []string) {
		for i := range n {
			query += fmt.Sprintf("&after=d%d", i)
			ids = append(ids, fmt.Sprint("d", i))
		}
		return query[1:], ids
	}
	most, mostIDs := many(delivery.MaxResumeIDs)
	more, moreIDs := many(delivery.MaxResumeIDs + 3)
	for _, tt := range []struct {
		query    string
		ack, bad bool
		after    []string
	}{
		{"", false, false, nil},
		{"?", false, false, nil},
		{"ack=1", true, false, nil},
		{"ack=true", true, false, nil},
		{"ack=1&ack=true", true, false, nil},
		{"ack=0", false, true, nil},
		{"ack=false", false, true, nil},
		{"ack=", false, true, nil},
		{"ack", false, true, nil},
		{"ack=TRUE", false, true, nil},
		{"ack=1&ack=0", false, true, nil},
		{"ack=%31", true, false, nil},
		{"ack=+1", false, true, nil},
		{"ack=1%00", false, true, nil},
		{"ACK=0", false, false, nil},
		{"ack[]=0", false, false, nil},
		{"acks=0", false, false, nil},
		{"after=d1", false, false, []string{"d1"}},
		{"after=d1&after=d2&after=d3", false, false, []string{"d1", "d2", "d3"}},
		{"after=d1,d2", false, false, []string{"d1,d2"}},
		{"after=", false, false, nil},
		{"after", false, false, nil},
		{"after=%20", false, false, nil},
		{"after=%20d1%20", false, false, []string{"d1"}},
		{"after=d+1", false, false, []string{"d 1"}},
		{"after=%00", false, false, []string{"\x00"}},
		{"after=%ff", false, false, []string{"\xff"}},
		{"after=%E2%9D%A4", false, false, []string{"❤"}},
		{"after=%zz", false, false, nil},
		{"after=a;b", false, false, nil}, // net/url refuses a semicolon
		{"after=a%3Bb", false, false, []string{"a;b"}},
		{"after=d1&after=d1", false, false, []string{"d1", "d1"}},
		{"After=d1", false, false, nil},
		{"after=../x", false, false, []string{"../x"}},
		{"after=" + strings.Repeat("x", 5000), false, false, []string{strings.Repeat("x", 5000)}},
		{"token=token-1&user=eve&room=a", false, false, nil},
		{"ack=1&after=d1#after=d2", true, false, []string{"d1"}},
		{"&&&=&=&", false, false, nil},
		{most, false, false, mostIDs},
		{more, false, false, moreIDs[3:]},
	} {
		name := tt.query[:min(len(tt.query), 30)]
		raw, _, _ := strings.Cut(tt.query, "#") // a client sends no fragment
		r := httptest.NewRequest(http.MethodGet, Path, nil)
		r.URL.RawQuery = raw
		if ack, ok := wantsAcks(r); ok == tt.bad || ok && ack != tt.ack {
			t.Errorf("%s: acknowledgements %t, %t; want %t, %t", name, ack, ok, tt.ack, !tt.bad)
		}
		if diff := cmp.Diff(tt.after, receivedIDs(r)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// A connection that sends every odd frame in a row stays open, gets an error for each refused frame, and its next message
// is published.
func TestOddFramesOnAConnection(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *Config) { c.Burst, c.MaxText, c.MaxRooms = 10_000, 100, 100 })
	c := f.dial("1")
	for _, tt := range oddFrames() {
		if err := c.WriteMessage(gorilla.TextMessage, []byte(tt.frame)); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if tt.code == "" {
			if strings.HasPrefix(tt.frame, `{"type":"room.`) {
				c.next()
			} else if !strings.HasPrefix(tt.frame, `{"type":"connection.ack"`) {
				f.nextEvent()
			}
			continue
		}
		if r := c.next(); r.code() != tt.code || r.Payload["id"] != tt.id {
			t.Errorf("%s: %+v; want %s for %q", tt.name, r, tt.code, tt.id)
		}
	}
	c.sendText(message("still here"))
	if e := f.nextEvent(); e.Message.Text != "still here" {
		t.Errorf("published %+v", e)
	}
}
