package websocket

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"

	"parley.internal/shared/store"
)

func TestBadFramesAreRefusedAndTheConnectionStaysOpen(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *Config) { c.MaxText, c.MaxFrame, c.MaxRooms, c.Burst = 20, 2048, 2, 1000 })
	c := f.dial("1")
	c.join("second")
	for _, test := range []struct {
		name, frame string
		code        ErrorCode
		id          string
	}{
		{"not JSON", `hello`, ErrNotJSON, ""},
		{"nothing", ``, ErrNotJSON, ""},
		{"a list", `[]`, ErrNotJSON, ""},
		{"null", `null`, ErrNotJSON, ""},
		{"two objects", `{"type":"room.join"}{}`, ErrNotJSON, ""},
		{"a name twice", `{"type":"room.join","type":"room.leave"}`, ErrNotJSON, ""},
		{"a name twice, deeper", `{"type":"room.join","payload":{"room":"a","room":"b"}}`, ErrNotJSON, ""},
		{"not UTF-8", "{\"type\":\"chat.message.send\",\"payload\":{\"text\":\"\xff\"}}", ErrNotJSON, ""},
		{"too deep", `{"type":"x","payload":` + strings.Repeat(`{"a":`, 40) + `1` + strings.Repeat(`}`, 40) + `}`, ErrNotJSON, ""},
		{"unknown member", `{"type":"room.join","room":"a","metadata":{"id":"7"}}`, ErrBadFrame, "7"},
		{"metadata no object", `{"type":"room.join","metadata":7}`, ErrBadFrame, ""},
		{"id no text", `{"type":"room.join","metadata":{"id":7}}`, ErrBadFrame, ""},
		{"payload no object", `{"type":"room.join","payload":"a","metadata":{"id":"7"}}`, ErrBadFrame, "7"},
		{"too large", `{"type":"x","payload":{"a":"` + strings.Repeat("x", 2048) + `"}}`, ErrTooLarge, ""},
		{"no type", `{"metadata":{"id":"7"}}`, ErrUnknownType, "7"},
		{"type no text", `{"type":1}`, ErrUnknownType, ""},
		{"type ill-formed", `{"type":"Über uns"}`, ErrUnknownType, ""},
		{"unknown in a namespace of the protocol", `{"type":"chat.shout","metadata":{"id":"7"}}`, ErrUnknownType, "7"},
		{"the event's own type", `{"type":"chat.message"}`, ErrUnknownType, ""},
		{"a frame of the gateway", `{"type":"connection.ready"}`, ErrUnknownType, ""},
		{"an error", `{"type":"chat.error"}`, ErrUnknownType, ""},
		{"an internal event", `{"type":"internal.deadletter.v1"}`, ErrUnknownType, ""},
		{"a platform's report", `{"type":"twitch.stream_online","metadata":{"id":"7"}}`, ErrUnknownType, "7"},
		{"a platform alone", `{"type":"discord"}`, ErrUnknownType, ""},
		{"a platform's report in capitals", `{"type":"Twitch.follow"}`, ErrUnknownType, ""},
		{"a room of a platform", `{"type":"room.join","payload":{"room":"twitch:bruno"},"metadata":{"id":"7"}}`, ErrBadRoom, "7"},
		{"no text", `{"type":"chat.message.send","payload":{},"metadata":{"id":"7"}}`, ErrNoText, "7"},
		{"no payload", `{"type":"chat.message.send"}`, ErrNoText, ""},
		{"blank text", `{"type":"chat.message.send","payload":{"text":" \n"}}`, ErrNoText, ""},
		{"invisible text", `{"type":"chat.message.send","payload":{"text":"\u200b"},"metadata":{"id":"7"}}`, ErrNoText, "7"},
		{"invisible text, long", `{"type":"chat.message.send","payload":{"text":" \u2800\u034f\udb40\udc00"},"metadata":{"id":"7"}}`, ErrNoText, "7"},
		{"the mark of a relayed text alone", `{"type":"chat.message.send","payload":{"text":"\u2063\u2062\u2063"},"metadata":{"id":"7"}}`, ErrNoText, "7"},
		{"text no text", `{"type":"chat.message.send","payload":{"text":7}}`, ErrNoText, ""},
		{"text too long", `{"type":"chat.message.send","payload":{"text":"123456789012345678901"}}`, ErrTextTooLong, ""},
		{"no room", `{"type":"room.join"}`, ErrBadRoom, ""},
		{"room no text", `{"type":"room.join","payload":{"room":7}}`, ErrBadRoom, ""},
		{"room with a line break", `{"type":"room.join","payload":{"room":"a\nb"}}`, ErrBadRoom, ""},
		{"two rooms", `{"type":"room.join","payload":{"room":"a","channel":"b"}}`, ErrBadRoom, ""},
		{"one room too many", `{"type":"room.join","payload":{"room":"third"},"metadata":{"id":"7"}}`, ErrTooManyRooms, "7"},
		{"an action without a person", `{"type":"moderation.action.v1","payload":{"action":"ban","channel":"twitch:parley"},"metadata":{"id":"7"}}`, ErrBadFrame, "7"},
		{"an action without anything", `{"type":"moderation.action.v1"}`, ErrBadFrame, ""},
		{"the same by talking", `{"type":"chat.message.send","payload":{"room":"third","text":"x"}}`, ErrTooManyRooms, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			c.t = t
			c.sendText(test.frame)
			r := c.next()
			if r.code() != test.code || r.Payload["id"] != test.id || r.Payload["message"] == "" {
				t.Errorf("got %+v; want %s for %q", r, test.code, test.id)
			}
		})
	}
	c.t = t
	if err := c.WriteMessage(gorilla.BinaryMessage, []byte(`{"type":"room.join","payload":{"room":"second"}}`)); err != nil {
		t.Fatal(err)
	}
	if r := c.next(); r.code() != ErrNotJSON {
		t.Errorf("a binary frame: %+v", r)
	}
	c.join("second")
	if len(f.publisher.events) != 0 {
		t.Errorf("%d events were published", len(f.publisher.events))
	}
}

func TestClientsCannotSendTypesOfReservedNamespaces(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Burst = 1000 })
	c := f.dial("1")
	for _, namespace := range []string{"twitch", "discord", "twilio", "api-gateway", "system", "internal", "hook", "timer", "member", "message", "typing", "chat", "room", "connection"} {
		for _, kind := range []string{namespace, namespace + ".x", namespace + ".a.b.v1", strings.ToUpper(namespace) + ".x", strings.ToUpper(namespace[:1]) + namespace[1:] + ".x", " " + namespace + ".x"} {
			c.sendText(fmt.Sprintf(`{"type":%q,"payload":{"room":"a"},"metadata":{"id":"7"}}`, kind))
			if r := c.next(); r.code() != ErrUnknownType || r.Payload["id"] != "7" {
				t.Errorf("%s: got %+v; want %s", kind, r, ErrUnknownType)
			}
		}
	}
	for _, kind := range []string{"poll.vote", "game", "twitchy.x", "x.twitch.follow", "moderation.vote"} {
		c.sendText(fmt.Sprintf(`{"type":%q}`, kind))
		if e := f.nextEvent(); e.Type != kind {
			t.Errorf("published %s; want %s", e.Type, kind)
		}
	}
}

func TestClientsCannotUseAPlatformsChannelAsARoom(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Burst = 1000 })
	f.tokens.users[mustUser(t, "twitch:1")] = store.User{Roles: []string{"moderator"}}
	c := f.dial("1")
	for _, room := range []string{"twitch:bruno", "discord:1", "Twitch:bruno", "DISCORD:1", "twilio:+1", "api-gateway:x", "twitch:", "twitch:a:b"} {
		for _, frame := range []string{
			`{"type":"room.join","payload":{"room":%q},"metadata":{"id":"7"}}`,
			`{"type":"room.join","payload":{"channel":%q},"metadata":{"id":"7"}}`,
			`{"type":"room.leave","payload":{"room":%q},"metadata":{"id":"7"}}`,
			`{"type":"chat.message.send","payload":{"text":"x","room":%q},"metadata":{"id":"7"}}`,
			`{"type":"chat.message.send","payload":{"text":"x","room":null,"channel":%q},"metadata":{"id":"7"}}`,
			`{"type":"poll.vote","payload":{"channel":%q},"metadata":{"id":"7"}}`,
		} {
			c.sendText(fmt.Sprintf(frame, room))
			if r := c.next(); r.code() != ErrBadRoom || r.Payload["id"] != "7" {
				t.Errorf(frame+": got %+v; want %s", room, r, ErrBadRoom)
			}
		}
	}
	for _, room := range []string{"twitch", "a:b", "twitchy:x", ":x"} {
		c.join(room)
	}
	// the channel of an action is its target, and no room: rules for the channel don't see the frame there
	c.sendText(`{"type":"moderation.action.v1","payload":{"action":"delete","channel":"discord:1","messageId":"5"}}`)
	if e := f.nextEvent(); e.Type != "moderation.action.v1" || e.Channel != "" {
		t.Errorf("published %+v", e)
	}
}

func TestOtherTypesKeepTheirPayload(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	c := f.dial("1")
	c.sendText(`{"type":"poll.vote","payload":{"option":2,"room":"r"},"metadata":{"id":"v1","seen":true}}`)
	e := f.nextEvent()
	if e.Type != "poll.vote" || string(e.Payload) != `{"option":2,"room":"r"}` || string(e.Metadata) != `{"id":"v1","seen":true}` ||
		e.Message != nil || e.UserID != "twitch:1" || e.Channel != "r" || e.Auth.Provider != "api-gateway" {
		t.Errorf("published %+v", e)
	}
}

func TestRateLimitKeepsTheConnectionOpen(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *Config) { c.Burst, c.Rate = 3, 10 })
	c := f.dial("1") // uses one of three frames
	for range 8 {
		c.sendText(`{"type":"room.join","payload":{"room":"a"},"metadata":{"id":"7"}}`)
	}
	limited := 0
	for range 8 {
		if r := c.next(); r.code() == ErrRate && r.Payload["id"] == "7" {
			limited++
		} else if r.Type != TypeJoined {
			t.Errorf("got %+v", r)
		}
	}
	if limited == 0 {
		t.Error("nothing was refused")
	}
	eventually(t, "taken again", func() bool {
		c.sendText(`{"type":"room.join","payload":{"room":"a"}}`)
		return c.next().Type == TypeJoined
	})
}

func TestAllConnectionsOfAUserShareTheRateLimit(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Burst, c.Rate = 6, 0.001 })
	accepted := 0
	for range 5 { // a new connection gives no new allowance, whether the earlier ones are open or closed
		conn, _ := f.handshake(http.Header{"Authorization": {"Bearer token-1"}})
		c := &client{conn, t}
		c.next() // connection.ready
		for range 4 {
			c.sendText(`{"type":"room.join","payload":{"room":"a"}}`)
			if c.next().Type == TypeJoined {
				accepted++
			}
		}
		if accepted > 4 {
			c.Close()
			eventually(t, "the connection is closed", func() bool { return f.connections() == 1 })
		}
	}
	if accepted != 6 {
		t.Errorf("%d frames accepted; want 6", accepted)
	}
	f.dial("2") // the limit is the user's
}

func TestAFloodClosesTheConnection(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *Config) { c.Burst, c.Rate = 2, 0.001 })
	c := f.dial("1")
	for range 2 * floodFactor {
		c.sendText(`{}`)
	}
	if code := c.closeCode(); code != CloseFlood {
		t.Errorf("closed with %d; want %d", code, CloseFlood)
	}
}

func TestAFrameTooLargeToSkipClosesTheConnection(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *Config) { c.MaxFrame = 1024 })
	c := f.dial("1")
	go c.WriteMessage(gorilla.TextMessage, make([]byte, 1024*skipFactor+1)) // may fail, because the connection ends
	if code := c.closeCode(); code != CloseTooBig {
		t.Errorf("closed with %d; want %d", code, CloseTooBig)
	}
}

func TestSlowPublishingDelaysOnlyTheInbox(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *Config) { c.Inbox = 2 })
	f.publisher.gate = make(chan struct{})
	c := f.dial("1")
	send := func(id string) {
		c.sendText(`{"type":"chat.message.send","payload":{"text":"` + id + `"},"metadata":{"id":"` + id + `"}}`)
	}
	send("0")
	eventually(t, "the first is being published", func() bool { return f.publisher.asked.Load() == 1 })
	for _, id := range []string{"1", "2", "3"} {
		send(id)
	}
	if r := c.next(); r.code() != ErrBusy || r.Payload["id"] != "3" {
		t.Errorf("got %+v; want busy for 3", r)
	}
	ponged := make(chan struct{}, 1)
	c.SetPongHandler(func(string) error { ponged <- struct{}{}; return nil })
	if err := c.WriteControl(gorilla.PingMessage, nil, time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	c.join("a") // reads until after the pong
	select {
	case <-ponged:
	default:
		t.Error("no pong while publishing is slow")
	}
	close(f.publisher.gate)
	for i := range 3 {
		if e := f.nextEvent(); e.Message.Text != fmt.Sprint(i) {
			t.Errorf("event %d is %q", i, e.Message.Text)
		}
	}
}

func TestTheInboxIsBoundedInBytes(t *testing.T) {
	f := newFixture(t, nil)
	f.publisher.gate = make(chan struct{})
	c := f.dial("1")
	payload := strings.Repeat("x", 60<<10)
	const fit = maxInboxBytes / (60 << 10)
	for i := range fit + 1 {
		c.sendText(fmt.Sprintf(`{"type":"poll.vote","payload":{"x":%q},"metadata":{"id":"%d"}}`, payload, i))
	}
	if r := c.next(); r.code() != ErrBusy || r.Payload["id"] != fmt.Sprint(fit) {
		t.Errorf("got %+v; want busy for %d", r, fit)
	}
	close(f.publisher.gate)
	for range fit {
		f.nextEvent()
	}
	eventually(t, "the inbox is empty", func() bool {
		conns := f.hub.receivers(nil, "twitch:1", "")
		conns[0].inbox.mu.Lock()
		defer conns[0].inbox.mu.Unlock()
		return conns[0].inbox.bytes == 0
	})
}

func TestAFailedPublishIsReported(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	c := f.dial("1")
	f.publisher.fail(errors.New("bus is down"))
	c.sendText(`{"type":"chat.message.send","payload":{"text":"x"},"metadata":{"id":"7"}}`)
	if r := c.next(); r.code() != ErrUnavailable || r.Payload["id"] != "7" {
		t.Errorf("got %+v; want unavailable for 7", r)
	}
	f.publisher.fail(nil)
	c.sendText(`{"type":"chat.message.send","payload":{"text":"x"},"metadata":{"id":"7"}}`)
	f.nextEvent()
}

func TestConnectionsCloseAtTheirMaximumAge(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *Config) { c.MaxAge, c.MaxAgeSpread = 100*time.Millisecond, 50*time.Millisecond })
	if code := f.dialWith("").closeCode(); code != CloseMaxAge { // possibly the first frame
		t.Errorf("closed with %d; want %d", code, CloseMaxAge)
	}
}

func TestAConnectionClosesWhenItsTokenExpires(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	f.tokens.put("token-1", store.Token{UserID: "twitch:1", ExpiresAt: time.Now().Add(time.Second)})
	if code := f.dialWith("").closeCode(); code != CloseTokenExpired { // possibly the first frame
		t.Errorf("closed with %d; want %d", code, CloseTokenExpired)
	}
}

func TestASilentClientIsDisconnected(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *Config) { c.PingInterval = 500 * time.Millisecond })
	f.dial("1") // answers no ping, because the test does not read
	eventually(t, "let go", func() bool { return f.connections() == 0 })
	eventually(t, "counted", func() bool { return count(t, f.metrics.closed.WithLabelValues("4002")) == 1 })
}

func TestAClientAnsweringPingsStaysConnected(t *testing.T) {
	t.Parallel()
	// a slow machine may answer late, and must not count as silent
	f := newFixture(t, func(c *Config) { c.PingInterval = time.Second })
	c := f.dial("1")
	pings, enough := 0, errors.New("enough")
	pong := c.PingHandler()
	c.SetPingHandler(func(data string) error {
		if pings++; pings == 2*silentIntervals {
			return enough
		}
		return pong(data)
	})
	if _, _, err := c.ReadMessage(); !errors.Is(err, enough) {
		t.Errorf("after %d pings: %v", pings, err)
	}
}

func TestDrainPublishesAcceptedMessagesAndWritesQueuedFrames(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	f.publisher.gate = make(chan struct{})
	c := f.dial("1")
	for i := range 3 {
		c.sendText(fmt.Sprintf(`{"type":"chat.message.send","payload":{"text":"%d"}}`, i))
	}
	c.join("after") // all messages are in the inbox
	conns := f.hub.receivers(nil, "twitch:1", "")
	for i := range 20 {
		frame, err := prepare(answerFrame(incoming(fmt.Sprint(i), "twitch:1", "", "x").Event, fmt.Sprint(i), time.Now()), "answer")
		if err != nil {
			t.Fatal(err)
		}
		broadcast(frame, conns, nil)
	}
	drained := make(chan error, 1)
	go func() { drained <- f.drain() }()
	eventually(t, "draining", func() bool { return f.connections() == 0 })
	if _, resp := f.handshake(map[string][]string{"Authorization": {"Bearer token-2"}}); resp.StatusCode != 503 {
		t.Errorf("while draining: %s; want 503", resp.Status)
	}
	close(f.publisher.gate)
	for i := range 20 {
		if r := c.next(); r.Metadata["id"] != fmt.Sprint(i) {
			t.Errorf("frame %d = %+v", i, r)
		}
	}
	if code := c.closeCode(); code != CloseGoingAway {
		t.Errorf("closed with %d; want %d", code, CloseGoingAway)
	}
	for i := range 3 {
		if e := f.nextEvent(); e.Message.Text != fmt.Sprint(i) {
			t.Errorf("event %d is %q", i, e.Message.Text)
		}
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

func TestCodesAreUniqueInTheirTables(t *testing.T) {
	t.Parallel()
	seen := map[any]bool{}
	once := func(code any, meaning string) {
		if seen[code] || meaning == "" {
			t.Errorf("%v stands twice, or unexplained", code)
		}
		seen[code] = true
	}
	for _, m := range Errors {
		once(m.Code, m.Meaning)
	}
	for _, m := range Closes {
		once(m.Code, m.Meaning)
		if m.Code >= 4000 && m.Reconnect != (m.Code < 4500) {
			t.Errorf("%d is in the wrong range", m.Code)
		}
	}
	for _, m := range Refusals {
		once(m.Code, m.Meaning)
	}
}
