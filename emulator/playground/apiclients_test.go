package playground_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	irc "github.com/gempir/go-twitch-irc/v4"
	"github.com/google/go-cmp/cmp"

	"parley.internal/emulator/twitch"
)

// chatter is a client of go-twitch-irc in the channel streamer.
type chatter struct {
	*irc.Client
	received chan irc.PrivateMessage
	notices  chan irc.NoticeMessage
	whispers chan irc.WhisperMessage
	states   chan irc.RoomStateMessage
	others   chan irc.RawMessage
	connects chan struct{}
}

// irc logs a user in and joins the channel streamer.
func (w *world) irc(login string) *chatter {
	w.t.Helper()
	user, _ := w.twitch.User(login)
	app, err := w.twitch.AddApp(twitch.App{})
	w.must(err)
	access, err := w.twitch.AddToken(twitch.Token{UserID: user.ID, ClientID: app.ID, Scopes: []string{"chat:read", "chat:edit"}})
	w.must(err)
	c := &chatter{
		Client: irc.NewClient(login, "oauth:"+access.Access), received: make(chan irc.PrivateMessage, 10), notices: make(chan irc.NoticeMessage, 10),
		whispers: make(chan irc.WhisperMessage, 10), states: make(chan irc.RoomStateMessage, 10), others: make(chan irc.RawMessage, 10),
		connects: make(chan struct{}, 10),
	}
	c.IrcAddress, c.TLS = w.twitch.IRCAddr(), false
	c.OnPrivateMessage(func(m irc.PrivateMessage) { c.received <- m })
	c.OnNoticeMessage(func(m irc.NoticeMessage) { c.notices <- m })
	c.OnWhisperMessage(func(m irc.WhisperMessage) { c.whispers <- m })
	c.OnRoomStateMessage(func(m irc.RoomStateMessage) { c.states <- m })
	c.OnUnsetMessage(func(m irc.RawMessage) { c.others <- m })
	c.Join("streamer")
	c.OnConnect(func() { c.connects <- struct{}{} })
	go func() { _ = c.Connect() }() // connects again after a drop; ends with Disconnect, or when the fake is closed
	w.t.Cleanup(func() { _ = c.Disconnect() })
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	w.must(w.twitch.Await(ctx, func() bool { return len(w.twitch.Joined("streamer")) > 0 }))
	next(w.t, c.connects)
	return c
}

// next receives the next value, and fails the test if none comes soon.
func next[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Minute):
		var none T
		t.Fatalf("received no %T", none)
		return none
	}
}

// botRequest sends a request of the bot to Discord's API.
func (w *world) botRequest(method, path, body string, header ...string) *http.Response {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.discord.APIURL()+"/v10"+path, strings.NewReader(body))
	w.must(err)
	req.Header.Set("Authorization", "Bot "+w.bot.Token)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "DiscordBot (https://example.com, 1)")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	w.must(err)
	w.must(resp.Body.Close())
	return resp
}

// gateway is a gateway connection of the bot.
type gateway struct {
	w    *world
	conn *websocket.Conn
}

// gateway connects the bot with the intents of guild messages, direct messages and content.
func (w *world) gateway() gateway {
	w.t.Helper()
	conn, _, err := websocket.Dial(w.t.Context(), w.discord.GatewayURL()+"/?v=10&encoding=json", nil)
	w.must(err)
	w.t.Cleanup(func() { conn.CloseNow() })
	conn.SetReadLimit(1 << 20)
	identify := `{"op":2,"d":{"token":"` + w.bot.Token + `","intents":37377,"properties":{}}}`
	w.must(conn.Write(w.t.Context(), websocket.MessageText, []byte(identify)))
	return gateway{w, conn}
}

// event reads until an event of a type.
func (g gateway) event(kind string) map[string]any {
	g.w.t.Helper()
	ctx, cancel := context.WithTimeout(g.w.t.Context(), time.Minute)
	defer cancel()
	for {
		_, data, err := g.conn.Read(ctx)
		if err != nil {
			g.w.t.Fatalf("no event %s: %v", kind, err)
		}
		var e struct {
			T string         `json:"t"`
			D map[string]any `json:"d"`
		}
		g.w.must(json.Unmarshal(data, &e))
		if e.T == kind {
			return e.D
		}
	}
}

func TestEveryPartOfALineArrivesOverIRC(t *testing.T) {
	w := newWorld(t)
	bot := w.irc("parley")
	next(t, bot.states) // at the JOIN
	w.call(http.MethodPut, "/api/twitch/channels/streamer/roles/viewer", `{"moderator":true,"vip":true,"subscriberMonths":7}`, nil)

	var said struct{ ID, Text string }
	w.call(http.MethodPost, streamerMessages, `{"user":"viewer","text":"cheer100 Kappa","tags":{"bits":"100","emotes":"25:9-13","flags":null,"msg-param":"a b;c\\d"}}`, &said)
	m := next(t, bot.received)
	if m.ID != said.ID || m.Message != "cheer100 Kappa" || m.Bits != 100 || len(m.Emotes) != 1 || m.Emotes[0].Name != "Kappa" || m.Tags["msg-param"] != `a b;c\d` {
		t.Errorf("the bot received %+v", m)
	}
	if _, there := m.Tags["flags"]; there || !m.User.IsMod || !m.User.IsVip || m.User.Badges["subscriber"] != 6 {
		t.Errorf("the bot received the tags %v", m.Tags)
	}
	w.call(http.MethodPost, streamerMessages, `{"user":"streamer","text":"nods","action":true,"replyTo":"`+said.ID+`","id":"repeated"}`, &said)
	m = next(t, bot.received)
	if !m.Action || m.ID != "repeated" || m.Reply == nil || m.Reply.ParentUserLogin != "viewer" || m.Message != "@Viewer nods" {
		t.Errorf("the bot received %+v, reply %+v", m, m.Reply)
	}

	var sent struct{ Connections int }
	w.call(http.MethodPost, "/api/twitch/irc", `{"login":"parley","line":"@broken :tmi.twitch.tv NONSENSE #streamer :a b"}`, &sent)
	for raw := next(t, bot.others); raw.Raw != "@broken :tmi.twitch.tv NONSENSE #streamer :a b"; raw = next(t, bot.others) {
		if raw.RawType == "NONSENSE" {
			t.Errorf("the raw line arrived as %q", raw.Raw)
			break
		}
	}
	if sent.Connections != 1 {
		t.Errorf("%d connections received the raw line", sent.Connections)
	}
	w.call(http.MethodPut, "/api/twitch/channels/streamer/settings", `{"slowSeconds":30}`, nil)
	if state := next(t, bot.states); state.State["slow"] != 30 {
		t.Errorf("the bot received the settings %v", state.State)
	}

	var whisper struct{ ID, User, To string }
	w.call(http.MethodPost, "/api/twitch/users/parley/whispers", `{"user":"viewer","text":"psst"}`, &whisper)
	if got := next(t, bot.whispers); got.Message != "psst" || got.User.Name != "viewer" {
		t.Errorf("the bot received the whisper %+v", got)
	}
	var whispers struct{ Items []struct{ ID string } }
	if w.call(http.MethodGet, "/api/twitch/users/parley/whispers", "", &whispers); len(whispers.Items) != 1 || whispers.Items[0].ID != whisper.ID {
		t.Errorf("whispers: %+v", whispers.Items)
	}
	var user struct{ Login string }
	w.call(http.MethodPut, "/api/twitch/users/newcomer", `{"displayName":"NewComer","color":"#1E90FF"}`, &user)
	w.call(http.MethodPost, streamerMessages, `{"user":"newcomer","text":"hi"}`, &said)
	if m := next(t, bot.received); m.User.DisplayName != "NewComer" || m.User.Color != "#1E90FF" {
		t.Errorf("the bot received %+v", m.User)
	}
}

func TestEveryPartOfAMessageArrivesOverTheGateway(t *testing.T) {
	w := newWorld(t)
	bot := w.gateway()
	bot.event("GUILD_CREATE")
	path := w.generalMessages()
	var said struct{ ID string }
	first := ""
	for _, c := range []struct {
		name, body string
		want       string // members of the event
	}{
		{"a text", `"text":"hello <@` + w.bot.ID + `>"`, `{"content":"hello <@` + w.bot.ID + `>","type":0,"edited_timestamp":null}`},
		{"a reply", `"text":"yes","replyTo":"FIRST"`, `{"type":19,"message_reference":{"type":0,"message_id":"FIRST","channel_id":"` + w.general.ID + `","guild_id":"` + w.guild.ID + `"}}`},
		{"a reply without a ping", `"text":"yes","replyTo":"FIRST","ping":false`, `{"type":19,"mentions":[]}`},
		{"attachments", `"attachments":[{"id":"5","url":"https://example.com/a.txt","name":"a.txt","contentType":"text/plain","size":3}]`,
			`{"content":"","attachments":[{"id":"5","filename":"a.txt","size":3,"url":"https://example.com/a.txt","proxy_url":"https://example.com/a.txt","content_type":"text/plain"}]}`},
		{"a voice message", `"attachments":[{"name":"v.ogg","seconds":1.5}]`, `{"flags":8192}`},
		{"stickers", `"stickers":[{"id":"6","name":"Wave"}]`, `{"sticker_items":[{"id":"6","name":"Wave","format_type":1}]}`},
		{"embeds", `"text":"look","embeds":[{"title":"News","fields":[{"name":"a","value":"b"}]}]`, `{"embeds":[{"title":"News","fields":[{"name":"a","value":"b"}]}]}`},
		{"a poll", `"poll":{"question":"Tea?","answers":["yes"]}`,
			`{"poll":{"question":{"text":"Tea?"},"answers":[{"answer_id":1,"poll_media":{"text":"yes"}}],"expiry":null,"allow_multiselect":false,"layout_type":1}}`},
		{"a forward", `"forward":{"channel":"` + w.general.ID + `","message":"FIRST"}`, `{"flags":16384,"content":""}`},
		{"further fields", `"fields":{"type":7,"components":[{"type":1}]}`, `{"type":7,"components":[{"type":1}]}`},
	} {
		fill := strings.NewReplacer("FIRST", first)
		w.call(http.MethodPost, path, `{"user":"`+w.viewer.ID+`",`+fill.Replace(c.body)+`}`, &said)
		if first == "" {
			first = said.ID
			fill = strings.NewReplacer("FIRST", first)
		}
		got := bot.event("MESSAGE_CREATE")
		var want map[string]any
		w.must(json.Unmarshal([]byte(fill.Replace(c.want)), &want))
		want["id"] = said.ID
		part := map[string]any{}
		for name := range want {
			part[name] = got[name]
		}
		if diff := cmp.Diff(want, part); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
		if snapshots, _ := got["message_snapshots"].([]any); (c.name == "a forward") != (len(snapshots) == 1) {
			t.Errorf("%s has the snapshots %v", c.name, snapshots)
		}
	}

	var edited struct {
		Text     string
		EditedAt time.Time
	}
	w.call(http.MethodPatch, path+"/"+first, `{"text":"changed"}`, &edited)
	if m := bot.event("MESSAGE_UPDATE"); m["content"] != "changed" || m["edited_timestamp"] == nil || edited.Text != "changed" || edited.EditedAt.IsZero() {
		t.Errorf("the edit is %v, listed as %+v", m, edited)
	}
	w.call(http.MethodDelete, path+"/"+said.ID, "", nil)
	if m := bot.event("MESSAGE_DELETE"); m["id"] != said.ID {
		t.Errorf("the deletion is %v", m)
	}
	var all struct{ Items []struct{ ID string } }
	w.call(http.MethodGet, path, "", &all)
	w.call(http.MethodPost, path+"/bulk-delete", `{"messages":["`+all.Items[0].ID+`","`+all.Items[1].ID+`"]}`, nil)
	if m := bot.event("MESSAGE_DELETE_BULK"); len(m["ids"].([]any)) != 2 {
		t.Errorf("the bulk deletion is %v", m)
	}

	direct := "/api/discord/dms/" + w.viewer.ID + "/" + w.bot.ID + "/messages"
	w.call(http.MethodPost, direct, `{"user":"`+w.viewer.ID+`","text":"psst","typed":true}`, &said)
	if m := bot.event("MESSAGE_CREATE"); m["id"] != said.ID || m["content"] != "psst" || m["guild_id"] != nil {
		t.Errorf("the direct message is %v", m)
	}
	w.call(http.MethodDelete, direct+"/"+said.ID, "", nil)
	bot.event("MESSAGE_DELETE")
	var user struct{ Name string }
	w.call(http.MethodPut, "/api/discord/users/4242", `{"name":"newcomer","globalName":"New Comer"}`, &user)
	var member struct{ Nick string }
	w.call(http.MethodPut, "/api/discord/guilds/"+w.guild.ID+"/members/4242", `{"nick":"Newbie"}`, &member)
	w.call(http.MethodPost, path, `{"user":"4242","text":"hi"}`, &said)
	if m := bot.event("MESSAGE_CREATE"); m["member"].(map[string]any)["nick"] != "Newbie" {
		t.Errorf("the newcomer's message is %v", m)
	}
	w.call(http.MethodDelete, "/api/discord/guilds/"+w.guild.ID+"/members/4242", "", nil)
}
