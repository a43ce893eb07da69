package twitch_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nicklaw5/helix/v2"

	"parley.internal/emulator/twitch"
)

func chatMessage(w *world, text string) *helix.SendChatMessageParams {
	return &helix.SendChatMessageParams{BroadcasterID: w.channel.ID, SenderID: w.bot.ID, Message: text}
}

func TestHelixSendsChatMessages(t *testing.T) {
	w := newWorld(t)
	viewer := w.connect("viewer")
	said := w.say("viewer", "hi")
	p := chatMessage(w, "hello")
	p.ReplyParentMessageID = said.ID
	r, err := w.helix("bot").SendChatMessage(p)
	if err != nil || r.StatusCode != http.StatusOK || len(r.Data.Messages) != 1 || !r.Data.Messages[0].IsSent {
		t.Fatalf("SendChatMessage: %+v, %v", r, err)
	}
	next(t, viewer.received) // its own line, sent over another transport
	got := next(t, viewer.received)
	if got.ID != r.Data.Messages[0].MessageID || got.Message != "@Viewer hello" || got.Reply.ParentMsgID != said.ID {
		t.Errorf("the viewer received %+v", got)
	}
	if l := w.Said("streamer")[1]; l.Via != twitch.ViaHelix || l.Text != "hello" || l.ReplyTo != said.ID {
		t.Errorf("the channel received %+v", l)
	}
	if r.GetRateLimit() != 800 || r.GetRateLimitRemaining() != 799 {
		t.Errorf("the rate limit is %d of %d", r.GetRateLimitRemaining(), r.GetRateLimit())
	}
}

// reply is the response to a request.
type reply struct {
	status int
	header http.Header
	body   map[string]any
}

func (r reply) message() string { m, _ := r.body["message"].(string); return m }

// request calls Helix without a client library.
func (w *world) request(t *testing.T, method, path, access string, body any) reply {
	t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, w.HelixURL()+path, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if access != "" {
		req.Header.Set("Authorization", "Bearer "+access)
	}
	req.Header.Set("Client-Id", w.app.ID)
	return do(t, req)
}

func do(t *testing.T, req *http.Request) reply {
	t.Helper()
	// The tests check redirects, so the client does not follow them.
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	r := reply{status: resp.StatusCode, header: resp.Header}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		if err := json.Unmarshal(b, &r.body); err != nil {
			t.Fatalf("%s %s answered %q: %v", req.Method, req.URL, b, err)
		}
	}
	return r
}

func TestSendChatMessageTakesTheIDsFromTheBodyAndFromTheQuery(t *testing.T) {
	w := newWorld(t)
	w.must(w.SetRole("streamer", "bot", twitch.Role{Moderator: true}))
	both := "?broadcaster_id=" + w.channel.ID + "&sender_id=" + w.bot.ID
	for _, c := range []struct {
		name, query string
		body        map[string]any
		status      int
	}{
		{"in the body", "", map[string]any{"broadcaster_id": w.channel.ID, "sender_id": w.bot.ID}, 200},
		{"in the query, as twurple sends them", both, nil, 200},
		{"in both", both, map[string]any{"broadcaster_id": w.channel.ID, "sender_id": w.bot.ID}, 200},
		{"one in each", "?broadcaster_id=" + w.channel.ID, map[string]any{"sender_id": w.bot.ID}, 200},
		{"the body is first", both, map[string]any{"sender_id": w.viewer.ID}, 401},
		{"of another user in the query", "?broadcaster_id=" + w.channel.ID + "&sender_id=" + w.viewer.ID, nil, 401},
		{"nowhere", "", nil, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := map[string]any{"message": c.name}
			for name, value := range c.body {
				body[name] = value
			}
			if r := w.request(t, "POST", "/chat/messages"+c.query, w.tokens["bot"].Access, body); r.status != c.status {
				t.Errorf("the answer is %d %v; want %d", r.status, r.body, c.status)
			}
		})
	}
}

func TestHelixRefusesInvalidRequests(t *testing.T) {
	w := newWorld(t)
	w.must(w.SetRole("streamer", "bot", twitch.Role{Moderator: true}))
	said := w.say("streamer", "mine")
	app, err := w.AddToken(twitch.Token{ClientID: w.app.ID})
	w.must(err)
	expired, err := w.AddToken(twitch.Token{ClientID: w.app.ID, UserID: w.bot.ID, ExpiresAt: w.clock.Now()})
	w.must(err)
	other, err := w.AddApp(twitch.App{})
	w.must(err)
	foreign, err := w.AddToken(twitch.Token{ClientID: other.ID, UserID: w.bot.ID, Scopes: allScopes})
	w.must(err)
	phoneless, err := w.AddUser(twitch.User{Login: "phoneless", NoPhone: true})
	w.must(err)
	closed, err := w.AddUser(twitch.User{Login: "closed", NoWhispers: true})
	w.must(err)
	outcast := w.user("outcast")
	w.must(w.Ban("streamer", "outcast", 0, ""))
	bot, none := w.tokens["bot"].Access, w.token(w.bot).Access

	message := func(change map[string]any) map[string]any {
		m := map[string]any{"broadcaster_id": w.channel.ID, "sender_id": w.bot.ID, "message": "x"}
		for k, v := range change {
			m[k] = v
		}
		return m
	}
	hi := map[string]any{"message": "hi"}
	whisper := func(from, to string) string { return "/whispers?from_user_id=" + from + "&to_user_id=" + to }
	mod := func(kind, moderator string) string {
		return "/moderation/" + kind + "?broadcaster_id=" + w.channel.ID + "&moderator_id=" + moderator
	}
	ban := func(user any, seconds any) map[string]any {
		d := map[string]any{"user_id": user}
		if seconds != nil {
			d["duration"] = seconds
		}
		return map[string]any{"data": d}
	}
	for _, c := range []struct {
		name, method, path, token string
		body                      any
		status                    int
		message                   string // part of the message
	}{
		{"no token", "GET", "/users", "", nil, 401, "OAuth token is missing"},
		{"bad token", "GET", "/users", "nonsense", nil, 401, "Invalid OAuth token"},
		{"expired token", "GET", "/users", expired.Access, nil, 401, "Invalid OAuth token"},
		{"another app's token", "GET", "/users", foreign.Access, nil, 401, "do not match"},
		{"no such path", "GET", "/frobs", bot, nil, 404, ""},

		{"chat: not JSON", "POST", "/chat/messages", bot, 1, 400, "JSON"},
		{"chat: no channel", "POST", "/chat/messages", bot, message(map[string]any{"broadcaster_id": ""}), 400, "broadcaster_id"},
		{"chat: no sender", "POST", "/chat/messages", bot, message(map[string]any{"sender_id": ""}), 400, "sender_id"},
		{"chat: no text", "POST", "/chat/messages", bot, message(map[string]any{"message": ""}), 400, "message"},
		{"chat: unknown channel", "POST", "/chat/messages", bot, message(map[string]any{"broadcaster_id": "1"}), 400, "broadcaster_id"},
		{"chat: prefixed id", "POST", "/chat/messages", bot, message(map[string]any{"broadcaster_id": "twitch:" + w.channel.ID}), 400, "broadcaster_id"},
		{"chat: another's name", "POST", "/chat/messages", bot, message(map[string]any{"sender_id": w.viewer.ID}), 401, "must match"},
		{"chat: no scope", "POST", "/chat/messages", none, message(nil), 401, "user:write:chat"},
		{"chat: too long", "POST", "/chat/messages", bot, message(map[string]any{"message": strings.Repeat("ü", 501)}), 422, "too large"},
		{"chat: no parent", "POST", "/chat/messages", bot, message(map[string]any{"reply_parent_message_id": "1"}), 400, "reply_parent_message_id"},
		{"chat: banned", "POST", "/chat/messages", w.tokens["outcast"].Access, message(map[string]any{"sender_id": outcast.ID}), 403, "not permitted"},

		{"whisper: app token", "POST", whisper(w.bot.ID, w.viewer.ID), app.Access, hi, 401, "User OAUTH"},
		{"whisper: no scope", "POST", whisper(w.bot.ID, w.viewer.ID), none, hi, 401, "user:manage:whispers"},
		{"whisper: to oneself", "POST", whisper(w.bot.ID, w.bot.ID), bot, hi, 400, "different"},
		{"whisper: from another", "POST", whisper(w.viewer.ID, w.channel.ID), bot, hi, 401, "must match"},
		{"whisper: prefixed id", "POST", whisper(w.bot.ID, "twitch:"+w.viewer.ID), bot, hi, 400, "to_user_id"},
		{"whisper: nobody", "POST", whisper(w.bot.ID, "1"), bot, hi, 404, "not found"},
		{"whisper: empty", "POST", whisper(w.bot.ID, w.viewer.ID), bot, map[string]any{}, 400, "empty"},
		{"whisper: no phone", "POST", whisper(phoneless.ID, w.viewer.ID), w.token(phoneless, allScopes...).Access, hi, 401, "phone"},
		{"whisper: blocked", "POST", whisper(w.bot.ID, closed.ID), bot, hi, 400, "doesn't allow"},
		{"whisper: blocks itself", "POST", whisper(closed.ID, w.viewer.ID), w.token(closed, allScopes...).Access, hi, 403, "doesn't allow"},

		{"ban: no scope", "POST", mod("bans", w.bot.ID), none, ban(w.viewer.ID, nil), 401, "banned_users"},
		{"ban: not a moderator", "POST", mod("bans", w.viewer.ID), w.tokens["viewer"].Access, ban(w.bot.ID, nil), 403, "moderators"},
		{"ban: as another", "POST", mod("bans", w.channel.ID), bot, ban(w.viewer.ID, nil), 401, "moderator_id"},
		{"ban: the broadcaster", "POST", mod("bans", w.bot.ID), bot, ban(w.channel.ID, nil), 400, "may not be banned"},
		{"ban: nobody", "POST", mod("bans", w.bot.ID), bot, ban("1", nil), 400, "user_id"},
		{"ban: again", "POST", mod("bans", w.bot.ID), bot, ban(outcast.ID, nil), 400, "already"},
		{"ban: too long", "POST", mod("bans", w.bot.ID), bot, ban(w.viewer.ID, 1209601), 400, "duration"},
		{"unban: not banned", "DELETE", mod("bans", w.bot.ID) + "&user_id=" + w.viewer.ID, bot, nil, 400, "not banned"},
		{"delete: nothing", "DELETE", mod("chat", w.bot.ID) + "&message_id=1", bot, nil, 404, "not found"},
		{"delete: the broadcaster's", "DELETE", mod("chat", w.bot.ID) + "&message_id=" + said.ID, bot, nil, 400, "moderator"},

		{"users: none named", "GET", "/users", app.Access, nil, 400, "required"},
		{"users: too many", "GET", "/users?id=" + strings.Join(numbered101(), "&id="), bot, nil, 400, "100"},
		{"channels: none named", "GET", "/channels", bot, nil, 400, "broadcaster_id"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := w.request(t, c.method, c.path, c.token, c.body)
			if r.status != c.status || !strings.Contains(r.message(), c.message) {
				t.Errorf("%s %s answered %d %v; want %d with %q", c.method, c.path, r.status, r.body, c.status, c.message)
			}
			if r.body["error"] != http.StatusText(c.status) || r.body["status"] != float64(c.status) {
				t.Errorf("the error is %v", r.body)
			}
		})
	}
	if got := w.texts(); len(got) != 1 {
		t.Errorf("the channel received %q", got)
	}
}

func numbered101() []string {
	ids := make([]string, 101)
	for i := range ids {
		ids[i] = fmt.Sprint(i)
	}
	return ids
}

func TestHelixDropsChatMessages(t *testing.T) {
	for _, c := range []struct {
		name  string
		setup func(w *world)
		want  string
	}{
		{"timed out", func(w *world) { w.must(w.Ban("streamer", "bot", time.Minute, "")) }, "user_timed_out"},
		{"the same again", func(w *world) {
			w.say("bot", "x")
			w.clock.Advance(2 * time.Second)
		}, "msg_duplicate"},
		{"too fast", func(w *world) { w.say("bot", "y") }, "msg_ratelimit"},
		{"injected", func(w *world) { w.FailChat(twitch.ChatFault{Notice: "msg_rejected"}) }, "msg_rejected"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.setup(w)
			before := len(w.texts())
			r := w.request(t, "POST", "/chat/messages", w.tokens["bot"].Access,
				map[string]any{"broadcaster_id": w.channel.ID, "sender_id": w.bot.ID, "message": "x"})
			sent := r.body["data"].([]any)[0].(map[string]any)
			reason, _ := sent["drop_reason"].(map[string]any)
			if r.status != 200 || sent["is_sent"] != false || reason["code"] != c.want || reason["message"] == "" {
				t.Errorf("response %d %v; want the code %q", r.status, r.body, c.want)
			}
			if len(w.texts()) != before {
				t.Errorf("the channel received %q", w.texts())
			}
		})
	}
}

func TestHelixChatWithAnAppToken(t *testing.T) {
	w := newWorld(t)
	app, err := w.AddApp(twitch.App{})
	w.must(err)
	tok, err := w.AddToken(twitch.Token{ClientID: app.ID})
	w.must(err)
	client, err := helix.NewClient(&helix.Options{ClientID: app.ID, AppAccessToken: tok.Access, APIBaseURL: w.HelixURL()})
	w.must(err)
	for _, step := range []struct {
		grant  func()
		status int
	}{
		{func() {}, http.StatusUnauthorized},
		{func() {
			_, err := w.AddToken(twitch.Token{ClientID: app.ID, UserID: w.bot.ID, Scopes: []string{"user:bot", "user:write:chat"}})
			w.must(err)
		}, http.StatusUnauthorized},
		{func() {
			_, err := w.AddToken(twitch.Token{ClientID: app.ID, UserID: w.channel.ID, Scopes: []string{"channel:bot"}})
			w.must(err)
		}, http.StatusOK},
	} {
		step.grant()
		if r, err := client.SendChatMessage(chatMessage(w, "x")); err != nil || r.StatusCode != step.status {
			t.Errorf("response %+v, %v; want %d", r, err, step.status)
		}
	}
}

func TestHelixWhispers(t *testing.T) {
	w := newWorld(t)
	bot := w.helix("bot")
	send := func(to twitch.User, text string) int {
		t.Helper()
		r, err := bot.SendUserWhisper(&helix.SendUserWhisperParams{FromUserID: w.bot.ID, ToUserID: to.ID, Message: text})
		w.must(err)
		return r.StatusCode
	}
	long := strings.Repeat("é", 600)
	if got := send(w.viewer, long); got != http.StatusNoContent {
		t.Fatalf("response %d", got)
	}
	if got := w.Whispers("viewer"); len(got) != 1 || got[0].Text != long[:1000] || got[0].From != "bot" {
		t.Errorf("the viewer received %+v", got)
	}
	_, err := w.Whisper("viewer", "bot", "hello")
	w.must(err)
	if send(w.viewer, long); w.Whispers("viewer")[1].Text != long {
		t.Errorf("the viewer, who wrote, received %+v", w.Whispers("viewer")[1])
	}
	if got := []int{send(w.viewer, "3"), send(w.viewer, "4")}; !slices.Equal(got, []int{204, 429}) {
		t.Errorf("statuses of the third and fourth whisper in a second: %v", got)
	}
	for i := range 39 {
		w.clock.Advance(time.Second)
		if got := send(w.user(fmt.Sprint("recipient", i)), "hi"); got != http.StatusNoContent {
			t.Errorf("the whisper to recipient %d got status %d", i+2, got)
		}
	}
	w.clock.Advance(time.Second)
	last := w.user("last")
	if got := []int{send(last, "hi"), send(w.viewer, "hi")}; !slices.Equal(got, []int{429, 204}) {
		t.Errorf("statuses for the 41st recipient and the first: %v", got)
	}
	w.clock.Advance(24 * time.Hour)
	w.tokens["bot"] = w.token(w.bot, allScopes...)
	bot = w.helix("bot")
	if got := send(last, "hi"); got != http.StatusNoContent {
		t.Errorf("status %d on the next day", got)
	}
}

func TestHelixDropsWhispersSilently(t *testing.T) {
	w := newWorld(t)
	w.FailHTTP(twitch.HTTPFault{Path: "/whispers", Status: http.StatusNoContent})
	r, err := w.helix("bot").SendUserWhisper(&helix.SendUserWhisperParams{FromUserID: w.bot.ID, ToUserID: w.viewer.ID, Message: "x"})
	if err != nil || r.StatusCode != http.StatusNoContent || len(w.Whispers("viewer")) != 0 {
		t.Errorf("response %+v, %v, and the viewer received %+v", r, err, w.Whispers("viewer"))
	}
}

func TestHelixModeration(t *testing.T) {
	w := newWorld(t)
	w.must(w.SetRole("streamer", "bot", twitch.Role{Moderator: true}))
	bot := w.helix("bot")
	l := w.say("viewer", "rude")
	if r, err := bot.DeleteChatMessage(&helix.DeleteChatMessageParams{BroadcasterID: w.channel.ID, ModeratorID: w.bot.ID, MessageID: l.ID}); err != nil || r.StatusCode != 204 {
		t.Fatalf("DeleteChatMessage: %+v, %v", r, err)
	}
	if !w.Said("streamer")[0].Deleted {
		t.Error("the line is still there")
	}
	ban := func(seconds int) *helix.BanUserResponse {
		t.Helper()
		r, err := bot.BanUser(&helix.BanUserParams{
			BroadcasterID: w.channel.ID, ModeratorId: w.bot.ID,
			Body: helix.BanUserRequestBody{UserId: w.viewer.ID, Duration: seconds, Reason: "rude"},
		})
		if err != nil || r.StatusCode != 200 {
			t.Fatalf("BanUser: %+v, %v", r, err)
		}
		return r
	}
	if r := ban(60); !r.Data.Bans[0].EndTime.Equal(w.clock.Now().Add(time.Minute)) {
		t.Errorf("the time-out is %+v", r.Data)
	}
	if r := ban(0); !r.Data.Bans[0].EndTime.IsZero() {
		t.Errorf("the ban is %+v", r.Data)
	}
	if r, err := bot.UnbanUser(&helix.UnbanUserParams{BroadcasterID: w.channel.ID, ModeratorID: w.bot.ID, UserID: w.viewer.ID}); err != nil || r.StatusCode != 204 {
		t.Fatalf("UnbanUser: %+v, %v", r, err)
	}
	var kinds []string
	for _, a := range w.Actions("streamer") {
		if a.By != "bot" || a.Login != "viewer" {
			t.Errorf("the action is %+v", a)
		}
		kinds = append(kinds, a.Kind)
	}
	if want := []string{"delete", "timeout", "ban", "unban"}; !slices.Equal(kinds, want) {
		t.Errorf("the actions are %q; want %q", kinds, want)
	}
}

func TestHelixReturnsUsersChannelsAndStreams(t *testing.T) {
	w := newWorld(t)
	_, err := w.AddUser(twitch.User{Login: "bot", Email: "bot@example.com"})
	w.must(err)
	bot := w.helix("bot")
	users, err := bot.GetUsers(&helix.UsersParams{})
	if err != nil || len(users.Data.Users) != 1 || users.Data.Users[0].Login != "bot" || users.Data.Users[0].Email != "bot@example.com" {
		t.Errorf("GetUsers of itself: %+v, %v", users, err)
	}
	users, err = bot.GetUsers(&helix.UsersParams{IDs: []string{w.viewer.ID, "1"}, Logins: []string{"Streamer", "viewer"}})
	if err != nil || len(users.Data.Users) != 2 || users.Data.Users[1].ID != w.channel.ID || users.Data.Users[0].DisplayName != "Viewer" {
		t.Errorf("GetUsers: %+v, %v", users, err)
	}
	w.must(w.GoOnline("streamer", twitch.Stream{Title: "T", Game: "G", Viewers: 3}))
	channels, err := bot.GetChannelInformation(&helix.GetChannelInformationParams{BroadcasterIDs: []string{w.channel.ID}})
	if err != nil || len(channels.Data.Channels) != 1 || channels.Data.Channels[0].Title != "T" || channels.Data.Channels[0].BroadcasterName != "Streamer" {
		t.Errorf("GetChannelInformation: %+v, %v", channels, err)
	}
	streams, err := bot.GetStreams(&helix.StreamsParams{})
	if err != nil || len(streams.Data.Streams) != 1 || streams.Data.Streams[0].ViewerCount != 3 || streams.Data.Streams[0].UserLogin != "streamer" {
		t.Errorf("GetStreams: %+v, %v", streams, err)
	}
	w.must(w.GoOffline("streamer"))
	streams, err = bot.GetStreams(&helix.StreamsParams{UserLogins: []string{"streamer"}})
	if err != nil || len(streams.Data.Streams) != 0 {
		t.Errorf("GetStreams of an offline channel: %+v, %v", streams, err)
	}
}

func TestHelixLimitsPoints(t *testing.T) {
	w := newWorld(t, twitch.WithLimits(twitch.Limits{Helix: twitch.Window{N: 2, Per: time.Minute}}))
	get := func() reply { return w.request(t, "GET", "/users", w.tokens["bot"].Access, nil) }
	for _, left := range []string{"1", "0"} {
		if r := get(); r.status != 200 || r.header.Get("Ratelimit-Limit") != "2" || r.header.Get("Ratelimit-Remaining") != left {
			t.Errorf("response %d with %v", r.status, r.header)
		}
	}
	r := get()
	if want := fmt.Sprint(w.clock.Now().Add(time.Minute).Unix()); r.status != 429 || r.header.Get("Ratelimit-Reset") != want {
		t.Errorf("the third request got status %d with %v; want the reset %s", r.status, r.header, want)
	}
	if r := w.request(t, "GET", "/users", w.tokens["viewer"].Access, nil); r.status != 200 {
		t.Errorf("another user got status %d", r.status)
	}
	w.clock.Advance(30 * time.Second)
	if r := get(); r.status != 200 {
		t.Errorf("status %d after half the time", r.status)
	}
}

func TestInjectedFaultLooksLikeAHelixError(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault twitch.HTTPFault
		said  int
	}{
		{"500 before", twitch.HTTPFault{Path: "/chat/messages", Status: 500}, 0},
		{"500 after", twitch.HTTPFault{Path: "/chat/messages", Status: 500, Done: true}, 1},
		{"429", twitch.HTTPFault{Method: "POST", Status: 429, Header: http.Header{"Ratelimit-Reset": {"1"}}}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.FailHTTP(c.fault)
			r := w.request(t, "POST", "/chat/messages", w.tokens["bot"].Access,
				map[string]any{"broadcaster_id": w.channel.ID, "sender_id": w.bot.ID, "message": "x"})
			if r.status != c.fault.Status || r.body["status"] != float64(r.status) || r.body["error"] != http.StatusText(r.status) ||
				r.header.Get("Ratelimit-Reset") != c.fault.Header.Get("Ratelimit-Reset") {
				t.Errorf("response %+v", r)
			}
			if got := len(w.texts()); got != c.said {
				t.Errorf("%d messages were published; want %d", got, c.said)
			}
		})
	}
}

func TestCloseEndsConnectionsRequestsAndGoroutines(t *testing.T) {
	w := newWorld(t)
	r := w.login(t, "bot", "")
	w.FailHTTP(twitch.HTTPFault{Hang: true})
	ended := make(chan error, 1)
	go func() {
		_, err := w.helix("bot").GetUsers(&helix.UsersParams{})
		ended <- err
	}()
	e := w.listen(t, "")
	w.await("the request hangs", func() bool { return len(w.Requests("/users")) == 1 })
	for range 2 {
		if err := w.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	// A goroutine may still be in its last function for a moment after Close.
	for deadline := time.Now().Add(time.Minute); ; runtime.Gosched() {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		if !regexp.MustCompile(`\nparley\.internal/emulator/(twitch|fake)\.`).Match(stacks) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("goroutines of the server still run:\n%s", stacks)
		}
	}
	for r.lines.Scan() {
	}
	if err := <-ended; err == nil {
		t.Error("the hanging request got a response")
	}
	if _, _, err := e.conn.Read(t.Context()); err == nil {
		t.Error("the EventSub connection is still open")
	}
	if err := w.Await(t.Context(), func() bool { return false }); !errors.Is(err, twitch.ErrClosed) {
		t.Errorf("Await returned %v", err)
	}
}
