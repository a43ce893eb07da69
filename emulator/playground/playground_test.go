package playground_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"parley.internal/emulator/discord"
	"parley.internal/emulator/playground"
	"parley.internal/emulator/twitch"
	"parley.internal/shared/identity"
)

// world is a playground for both fakes, served over HTTP.
type world struct {
	t       *testing.T
	twitch  *twitch.Server
	discord *discord.Server
	url     string

	guild                  discord.Guild
	general                discord.Channel
	owner, viewer, outside discord.User
	bot                    discord.Bot
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t}
	var err error
	limits := twitch.DefaultLimits()
	limits.ChannelMessages = twitch.Window{} // a test posts faster than a person
	w.twitch, err = twitch.New(twitch.WithLimits(limits))
	w.must(err)
	t.Cleanup(func() { w.must(w.twitch.Close()) })
	w.discord, err = discord.New()
	w.must(err)
	t.Cleanup(func() { w.must(w.discord.Close()) })

	for _, login := range []string{"streamer", "viewer"} {
		_, err := w.twitch.AddUser(twitch.User{Login: login, DisplayName: strings.ToUpper(login[:1]) + login[1:]})
		w.must(err)
	}
	parley, err := w.twitch.AddUser(twitch.User{Login: "parley", DisplayName: "Parley"})
	w.must(err)
	w.owner, err = w.discord.AddUser(discord.User{Name: "owner"})
	w.must(err)
	w.viewer, err = w.discord.AddUser(discord.User{Name: "viewer", GlobalName: "Vie Wer"})
	w.must(err)
	w.outside, err = w.discord.AddUser(discord.User{Name: "outside"})
	w.must(err)
	w.bot, err = w.discord.AddBot(discord.Bot{User: discord.User{Name: "parley"}})
	w.must(err)
	w.guild, err = w.discord.AddGuild(discord.Guild{Name: "Home", OwnerID: w.owner.ID})
	w.must(err)
	w.general, err = w.discord.AddChannel(discord.Channel{GuildID: w.guild.ID, Name: "general"})
	w.must(err)
	for _, id := range []string{w.viewer.ID, w.bot.ID} {
		_, err := w.discord.AddMember(w.guild.ID, id)
		w.must(err)
	}

	bot, err := identity.New(identity.Twitch, parley.ID)
	w.must(err)
	srv := httptest.NewServer(playground.New(w.twitch, w.discord, bot))
	t.Cleanup(srv.Close)
	w.url = srv.URL
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// request sends a request and returns the status and the body of the response.
func (w *world) request(method, path, body string, header ...string) (int, string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, strings.NewReader(body))
	w.must(err)
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	w.must(err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	w.must(err)
	return resp.StatusCode, string(b)
}

func (w *world) say(m playground.Message) (int, string) {
	w.t.Helper()
	b, err := json.Marshal(m)
	w.must(err)
	return w.request(http.MethodPost, "/say", string(b))
}

func (w *world) state() map[identity.Platform]playground.Platform {
	w.t.Helper()
	status, body := w.request(http.MethodGet, "/state", "")
	var in struct{ Platforms []playground.Platform }
	if err := json.Unmarshal([]byte(body), &in); err != nil || status != 200 {
		w.t.Fatalf("/state: %d %s: %v", status, body, err)
	}
	all := map[identity.Platform]playground.Platform{}
	for _, p := range in.Platforms {
		all[p.ID] = p
	}
	return all
}

func place(t *testing.T, p playground.Platform, name string) playground.Place {
	t.Helper()
	for _, at := range p.Places {
		if at.Name == name {
			return at
		}
	}
	t.Fatalf("%s has no place %q: %+v", p.ID, name, p.Places)
	return playground.Place{}
}

func names(speakers []playground.Speaker) (all []string) {
	for _, s := range speakers {
		all = append(all, s.Name+" "+s.Note)
	}
	return all
}

// events reads an event stream and collects its lines and states.
type events struct {
	t     *testing.T
	lines *bufio.Scanner
	seen  []playground.Line
	state map[identity.Platform]playground.Platform
}

func (w *world) events() *events {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute) // a missing event fails the test
	w.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url+"/events", nil)
	w.must(err)
	resp, err := http.DefaultClient.Do(req)
	w.must(err)
	w.t.Cleanup(func() { resp.Body.Close() })
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || kind != "text/event-stream" {
		w.t.Fatalf("/events: %s, %s", resp.Status, kind)
	}
	scanner := bufio.NewScanner(resp.Body)
	scanner.Buffer(nil, 1<<20)
	return &events{t: w.t, lines: scanner, state: map[identity.Platform]playground.Platform{}}
}

// until reads events until cond holds.
func (e *events) until(what string, cond func() bool) {
	e.t.Helper()
	name := ""
	for !cond() {
		if !e.lines.Scan() {
			e.t.Fatalf("the stream ended before %s: %v; it had %+v", what, e.lines.Err(), e.seen)
		}
		field, value, _ := strings.Cut(e.lines.Text(), ": ")
		switch {
		case field == "event":
			name = value
		case field == "data" && name == "lines":
			var lines []playground.Line
			if err := json.Unmarshal([]byte(value), &lines); err != nil {
				e.t.Fatal(err)
			}
			e.seen = append(e.seen, lines...)
		case field == "data":
			var p playground.Platform
			if err := json.Unmarshal([]byte(value), &p); err != nil {
				e.t.Fatal(err)
			}
			e.state[p.ID] = p
		}
	}
}

// line reads events until a line satisfies cond.
func (e *events) line(what string, cond func(playground.Line) bool) playground.Line {
	e.t.Helper()
	e.until(what, func() bool { return slices.ContainsFunc(e.seen, cond) })
	return e.seen[slices.IndexFunc(e.seen, cond)]
}

func TestStateListsPlacesAndTheirSpeakers(t *testing.T) {
	w := newWorld(t)
	_, err := w.twitch.Say("streamer", "viewer", "hello")
	w.must(err)
	state := w.state()

	var got []string
	for _, p := range []identity.Platform{identity.Twitch, identity.Discord} {
		for _, at := range state[p].Places {
			got = append(got, string(p)+" "+string(at.Kind)+" "+at.Name)
		}
	}
	want := []string{
		"twitch channel #streamer", "twitch direct Whispers with Parley", "twitch moderation Moderation",
		"discord channel Home #general", "discord direct Direct messages with parley", "discord moderation Moderation",
	}
	if !slices.Equal(got, want) {
		t.Errorf("places:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, c := range []struct {
		platform identity.Platform
		place    string
		want     []string
	}{
		{identity.Twitch, "#streamer", []string{"Streamer broadcaster", "Viewer "}},
		{identity.Twitch, "Whispers with Parley", []string{"Streamer ", "Viewer "}},
		{identity.Twitch, "Moderation", nil},
		{identity.Discord, "Home #general", []string{"owner owner", "Vie Wer "}},
		{identity.Discord, "Direct messages with parley", []string{"owner ", "Vie Wer "}},
	} {
		if got := names(place(t, state[c.platform], c.place).Speakers); !slices.Equal(got, c.want) {
			t.Errorf("speakers in %s: %q; want %q", c.place, got, c.want)
		}
	}
}

func TestEitherFakeMayBeNil(t *testing.T) {
	w := newWorld(t)
	for name, s := range map[string]*playground.Playground{
		"twitch": playground.New(w.twitch, nil), "discord": playground.New(nil, w.discord), "": playground.New(nil, nil),
	} {
		rec := httptest.NewRecorder()
		s.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1/state", nil))
		var in struct{ Platforms []playground.Platform }
		if err := json.Unmarshal(rec.Body.Bytes(), &in); err != nil || in.Platforms == nil {
			t.Fatalf("%s: %s: %v", name, rec.Body, err)
		}
		for _, p := range in.Platforms {
			if string(p.ID) != name {
				t.Errorf("with only the fake %q, the state has %s", name, p.ID)
			}
		}
	}
}

func TestEmptyChannelsAreShownOnlyIfAllAreEmpty(t *testing.T) {
	w := newWorld(t)
	count := func() (n int) {
		for _, p := range w.state()[identity.Twitch].Places {
			if p.Kind == playground.Channel {
				n++
			}
		}
		return n
	}
	if n := count(); n != 3 {
		t.Errorf("%d channels are shown on an empty Twitch; want all 3", n)
	}
	_, err := w.twitch.Say("viewer", "viewer", "hello")
	w.must(err)
	if n := count(); n != 1 {
		t.Errorf("%d channels are shown; want only the channel in use", n)
	}
}

func TestStateListsConnectedBots(t *testing.T) {
	w := newWorld(t)
	e := w.events()
	bots := func(p identity.Platform, name string) string {
		for _, at := range e.state[p].Places {
			if at.Name == name {
				return strings.Join(at.Bots, " ")
			}
		}
		return "no place"
	}

	app, err := w.twitch.AddApp(twitch.App{})
	w.must(err)
	parley, _ := w.twitch.User("parley")
	token, err := w.twitch.AddToken(twitch.Token{UserID: parley.ID, ClientID: app.ID, Scopes: []string{"chat:read", "chat:edit"}})
	w.must(err)
	irc, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", w.twitch.IRCAddr())
	w.must(err)
	_, err = irc.Write([]byte("PASS oauth:" + token.Access + "\r\nNICK parley\r\nJOIN #streamer\r\n"))
	w.must(err)
	e.until("the bot in the channel", func() bool {
		return bots("twitch", "#streamer") == "Parley" && bots("twitch", "Whispers with Parley") == "Parley"
	})
	if got := bots("twitch", "#viewer"); got != "no place" {
		t.Error("an empty channel is listed beside a channel in use")
	}
	w.must(irc.Close())
	e.until("the channel without its bot", func() bool { return bots("twitch", "#streamer") == "" })

	gateway, _, err := websocket.Dial(t.Context(), w.discord.GatewayURL()+"/?v=10&encoding=json", nil)
	w.must(err)
	defer gateway.CloseNow()
	identify := `{"op":2,"d":{"token":"` + w.bot.Token + `","intents":513,"properties":{}}}`
	w.must(gateway.Write(t.Context(), websocket.MessageText, []byte(identify)))
	e.until("the bot in the guild", func() bool {
		return bots("discord", "Home #general") == "parley" && bots("discord", "Direct messages with parley") == "parley"
	})
}

func TestSayPostsAMessage(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name string
		in   playground.Message
		got  func() (who, text string)
	}{
		{"in a channel of Twitch", playground.Message{Platform: "twitch", User: "viewer", Channel: "streamer", Text: " one\nline "}, func() (string, string) {
			l := w.twitch.Said("streamer")
			return l[len(l)-1].Login, l[len(l)-1].Text
		}},
		{"to the bot on Twitch", playground.Message{Platform: "twitch", User: "viewer", To: "parley", Text: "psst"}, func() (string, string) {
			l := w.twitch.Whispers("parley")
			return l[0].From, l[0].Text
		}},
		{"in a channel of Discord", playground.Message{Platform: "discord", User: w.viewer.ID, Channel: w.general.ID, Text: "two\nlines"}, func() (string, string) {
			l := w.discord.Said(w.general.ID)
			return l[0].Author.Name, l[0].Text
		}},
		{"to the bot on Discord", playground.Message{Platform: "discord", User: w.viewer.ID, To: w.bot.ID, Text: "psst"}, func() (string, string) {
			l := w.discord.DMs(w.viewer.ID, w.bot.ID)
			return l[0].Author.Name, l[0].Text
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if status, body := w.say(c.in); status != 200 || !strings.Contains(body, `"id":"`) {
				t.Fatalf("%d %s", status, body)
			}
			want := c.in.Text
			if want == " one\nline " {
				want = "one line"
			}
			if who, text := c.got(); who != "viewer" || text != want {
				t.Errorf("%s posted %q; want %q", who, text, want)
			}
		})
	}
}

func TestSayRepliesToALine(t *testing.T) {
	w := newWorld(t)
	l, err := w.twitch.Say("streamer", "parley", "a question")
	w.must(err)
	if status, body := w.say(playground.Message{Platform: "twitch", User: "viewer", Channel: "streamer", Text: "/me nods", ReplyTo: l.ID}); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	if got := w.twitch.Said("streamer")[1]; got.ReplyTo != l.ID || !got.Action || got.Text != "nods" {
		t.Errorf("posted %+v", got)
	}
	m, err := w.discord.Say(w.general.ID, w.bot.ID, "a question")
	w.must(err)
	if status, body := w.say(playground.Message{Platform: "discord", User: w.viewer.ID, Channel: w.general.ID, Text: "yes", ReplyTo: m.ID}); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	if got := w.discord.Said(w.general.ID)[1]; got.ReplyTo != m.ID {
		t.Errorf("posted %+v", got)
	}
}

func TestRefusedMessagesAreReportedAndNotPosted(t *testing.T) {
	w := newWorld(t)
	w.must(w.twitch.SetSettings("streamer", twitch.Settings{Slow: time.Hour}))
	_, err := w.twitch.Say("streamer", "viewer", "the first")
	w.must(err)
	w.must(w.twitch.Ban("parley", "viewer", time.Hour, ""))
	muted, err := w.discord.AddUser(discord.User{Name: "muted"})
	w.must(err)
	banned, err := w.discord.AddUser(discord.User{Name: "banned"})
	w.must(err)
	for _, id := range []string{muted.ID, banned.ID} {
		_, err := w.discord.AddMember(w.guild.ID, id)
		w.must(err)
	}
	w.must(w.discord.TimeOut(w.guild.ID, muted.ID, time.Hour))
	w.must(w.discord.Ban(w.guild.ID, banned.ID, ""))

	on := func(user, text string) playground.Message {
		return playground.Message{Platform: "twitch", User: user, Channel: "streamer", Text: text}
	}
	in := func(user, text string) playground.Message {
		return playground.Message{Platform: "discord", User: user, Channel: w.general.ID, Text: text}
	}
	for _, c := range []struct {
		name   string
		in     playground.Message
		status int
		want   string // part of the response
	}{
		{"empty", on("viewer", " \n\x00"), 400, "is empty"},
		{"no place", playground.Message{Platform: "twitch", User: "viewer", Text: "x"}, 400, "either the channel"},
		{"two places", playground.Message{Platform: "twitch", User: "viewer", Channel: "streamer", To: "parley", Text: "x"}, 400, "either the channel"},
		{"no such platform", playground.Message{Platform: "twilio", User: "viewer", Channel: "streamer", Text: "x"}, 404, `"platform"`},
		{"an unknown user on Twitch", on("nobody", "x"), 404, `"user"`},
		{"a bot on Twitch", on("parley", "x"), 403, "is a bot"},
		{"no such channel on Twitch", playground.Message{Platform: "twitch", User: "viewer", Channel: "nobody", Text: "x"}, 404, `"channel"`},
		{"a whisper to a user other than a bot", playground.Message{Platform: "twitch", User: "viewer", To: "streamer", Text: "x"}, 404, `"to"`},
		{"a whisper as a reply", playground.Message{Platform: "twitch", User: "viewer", To: "parley", Text: "x", ReplyTo: "y"}, 400, `"replyTo"`},
		{"a reply to an unknown line on Twitch", playground.Message{Platform: "twitch", User: "viewer", Channel: "streamer", Text: "x", ReplyTo: "y"}, 404, `"replyTo"`},
		{"too long for Twitch", on("streamer", strings.Repeat("ü", 501)), 422, "has 501 characters"},
		{"slow mode", on("viewer", "the second"), 422, "msg_slowmode"},
		{"timed out on Twitch", playground.Message{Platform: "twitch", User: "viewer", Channel: "parley", Text: "x"}, 422, "msg_timedout"},
		{"an unknown user on Discord", in("1", "x"), 404, `"user"`},
		{"a bot on Discord", in(w.bot.ID, "x"), 403, "is a bot"},
		{"no such channel on Discord", playground.Message{Platform: "discord", User: w.viewer.ID, Channel: "1", Text: "x"}, 422, "no channel"},
		{"an answer to nothing on Discord", playground.Message{Platform: "discord", User: w.viewer.ID, Channel: w.general.ID, Text: "x", ReplyTo: "1"}, 422, "no message"},
		{"too long for Discord", in(w.viewer.ID, strings.Repeat("ü", 2001)), 422, "has 2001 characters"},
		{"timed out on Discord", in(muted.ID, "x"), 422, "timed out until"},
		{"banned on Discord", in(banned.ID, "x"), 422, "not a member"},
		{"a direct message to one who is no bot", playground.Message{Platform: "discord", User: w.viewer.ID, To: w.owner.ID, Text: "x"}, 404, `"to"`},
		{"a direct message from outside", playground.Message{Platform: "discord", User: w.outside.ID, To: w.bot.ID, Text: "x"}, 422, "shares no guild"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body := w.say(c.in)
			if status != c.status || !strings.Contains(body, c.want) {
				t.Errorf("response %d %s; want %d with %q", status, body, c.status, c.want)
			}
		})
	}
	if n := len(w.twitch.Said("streamer")); n != 1 {
		t.Errorf("%d lines on Twitch; want only the first", n)
	}
	if n := len(w.discord.Said(w.general.ID)); n != 0 {
		t.Errorf("%d messages on Discord; want none", n)
	}
	notes := names(place(t, w.state()[identity.Discord], "Home #general").Speakers)
	if !slices.Contains(notes, "banned banned") || !slices.ContainsFunc(notes, func(s string) bool { return strings.HasPrefix(s, "muted timed out until ") }) {
		t.Errorf("the notes do not show the ban and the time-out: %q", notes)
	}
}

func TestRequestsOfOtherOriginsAreRefused(t *testing.T) {
	w := newWorld(t)
	const good = `{"platform":"twitch","user":"viewer","channel":"streamer","text":"x"}`
	for _, c := range []struct {
		name   string
		body   string
		header []string
		status int
	}{
		{"another site", good, []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"another port", good, []string{"Sec-Fetch-Site", "same-site"}, 403},
		{"another origin, in an old browser", good, []string{"Origin", "http://evil.example"}, 403},
		{"a foreign host name", good, []string{"Host", "evil.example", "Origin", "http://evil.example", "Sec-Fetch-Site", "same-origin"}, 421},
		{"a form", good, []string{"Content-Type", "text/plain"}, 415},
		{"no JSON", `x`, nil, 400},
		{"two objects", good + good, nil, 400},
		{"an unknown field", `{"platform":"twitch","chanel":"streamer"}`, nil, 400},
		{"a field of another type", `{"text":1}`, nil, 400},
		{"too much", `{"text":"` + strings.Repeat("x", 100<<10) + `"}`, nil, 413},
		{"its own page", good, []string{"Sec-Fetch-Site", "same-origin"}, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			if status, body := w.request(http.MethodPost, "/say", c.body, c.header...); status != c.status || !json.Valid([]byte(body)) {
				t.Errorf("response %d %s; want %d", status, body, c.status)
			}
		})
	}
	if status, _ := w.request(http.MethodGet, "/state", "", "Host", "evil.example"); status != 421 {
		t.Errorf("/state under a foreign host name: status %d", status)
	}
	if status, _ := w.request(http.MethodGet, "/say", ""); status != 405 && status != 404 {
		t.Errorf("GET /say: status %d", status)
	}
	if n := len(w.twitch.Said("streamer")); n != 1 {
		t.Errorf("%d lines were posted; want 1", n)
	}
}

func TestEventsSendEarlierAndNewLines(t *testing.T) {
	w := newWorld(t)
	before, err := w.twitch.Say("streamer", "viewer", "before")
	w.must(err)
	e := w.events()
	e.until("both platforms", func() bool { return len(e.state) == 2 })
	if got := e.line("the earlier line", func(l playground.Line) bool { return l.ID == before.ID }); got.Bot || got.Name != "Viewer" || got.Place != "twitch/channel/streamer" {
		t.Errorf("before: %+v", got)
	}

	answer, err := w.twitch.Say("streamer", "parley", "the bot's", twitch.ReplyingTo(before.ID))
	w.must(err)
	if got := e.line("the bot's line on Twitch", func(l playground.Line) bool { return l.ID == answer.ID }); !got.Bot || got.Name != "Parley" || got.About != before.ID {
		t.Errorf("the bot's: %+v", got)
	}
	whisper, err := w.twitch.Whisper("parley", "viewer", "psst")
	w.must(err)
	if got := e.line("the bot's whisper", func(l playground.Line) bool { return l.ID == whisper.ID }); !got.Bot || got.To != "Viewer" || got.Place != "twitch/direct/parley" {
		t.Errorf("the whisper: %+v", got)
	}
	m, err := w.discord.Say(w.general.ID, w.bot.ID, "the bot's")
	w.must(err)
	if got := e.line("the bot's line on Discord", func(l playground.Line) bool { return l.ID == m.ID }); !got.Bot || got.Place != "discord/channel/"+w.general.ID {
		t.Errorf("the bot's: %+v", got)
	}
	for _, from := range []string{w.viewer.ID, w.bot.ID} {
		to, wantTo := w.bot.ID, "parley"
		if from == to {
			to, wantTo = w.viewer.ID, "Vie Wer"
		}
		dm, err := w.discord.SayDM(from, to, "psst")
		w.must(err)
		if got := e.line("a direct message", func(l playground.Line) bool { return l.ID == dm.ID }); got.Bot != (from == w.bot.ID) || got.To != wantTo {
			t.Errorf("the direct message: %+v", got)
		}
	}

	seen := map[string]bool{}
	for _, l := range e.seen {
		if seen[l.Key] {
			t.Errorf("%s was sent twice without a change", l.Key)
		}
		seen[l.Key] = true
	}
}

func TestEventsSendModeratorActionsAndChangedLines(t *testing.T) {
	w := newWorld(t)
	l, err := w.twitch.Say("streamer", "viewer", "rude")
	w.must(err)
	m, err := w.discord.Say(w.general.ID, w.viewer.ID, "rude")
	w.must(err)
	e := w.events()
	first := e.line("the line", func(got playground.Line) bool { return got.ID == l.ID })

	w.twitch.Delete("streamer", l.ID)
	changed := e.line("the deleted line", func(got playground.Line) bool { return got.ID == l.ID && got.Deleted })
	if changed.Key != first.Key {
		t.Errorf("the deleted line has the key %s, not %s", changed.Key, first.Key)
	}
	e.line("the deletion", func(got playground.Line) bool { return got.Place == "twitch/moderation" && got.About == l.ID })
	w.must(w.twitch.Ban("streamer", "viewer", time.Minute, "rude"))
	if got := e.line("the time-out", func(got playground.Line) bool { return strings.HasPrefix(got.Text, "timed out") }); got.Text != "timed out viewer for 1m0s in #streamer: rude" || got.Name != "Streamer" {
		t.Errorf("the time-out: %+v", got)
	}
	_, err = w.discord.Edit(w.general.ID, m.ID, "polite")
	w.must(err)
	e.line("the edit", func(got playground.Line) bool { return got.ID == m.ID && got.Edited && got.Text == "polite" })
	w.must(w.discord.Delete(w.general.ID, m.ID))
	e.line("the deletion", func(got playground.Line) bool { return got.ID == m.ID && got.Deleted })

	role, err := w.discord.AddRole(discord.Role{GuildID: w.guild.ID, Name: "warden", Permissions: discord.BanMembers})
	w.must(err)
	w.must(w.discord.SetRoles(w.guild.ID, w.bot.ID, role.ID))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, w.discord.APIURL()+"/v10/guilds/"+w.guild.ID+"/bans/"+w.viewer.ID, strings.NewReader("{}"))
	w.must(err)
	req.Header.Set("Authorization", "Bot "+w.bot.Token)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Audit-Log-Reason", "rude")
	req.Header.Set("User-Agent", "DiscordBot (https://example.com, 1)")
	resp, err := http.DefaultClient.Do(req)
	w.must(err)
	resp.Body.Close()
	if got := e.line("the bot's ban", func(got playground.Line) bool { return got.Place == "discord/moderation" }); !got.Bot || got.Text != "banned Vie Wer in Home: rude" {
		t.Errorf("the ban: %s, %+v", resp.Status, got)
	}
	e.until("the note about the ban", func() bool {
		return slices.Contains(names(place(t, e.state[identity.Discord], "Home #general").Speakers), "Vie Wer banned")
	})
}

func TestNewPageGetsOnlyTheLastLines(t *testing.T) {
	w := newWorld(t)
	for range 450 {
		_, err := w.twitch.Say("streamer", "viewer", "old")
		w.must(err)
	}
	last, err := w.twitch.Say("streamer", "viewer", "the last")
	w.must(err)
	e := w.events()
	got := e.line("the last line", func(l playground.Line) bool { return l.ID == last.ID })
	if len(e.seen) != 200 || got.Key != "twitch/channel/streamer/450" {
		t.Errorf("received %d lines, the last as %s; want 200", len(e.seen), got.Key)
	}
	next, err := w.twitch.Say("streamer", "viewer", "next")
	w.must(err)
	if got := e.line("the next line", func(l playground.Line) bool { return l.ID == next.ID }); len(e.seen) != 201 || got.Key != "twitch/channel/streamer/451" {
		t.Errorf("received %d lines, the next as %s; want 201", len(e.seen), got.Key)
	}
}

func TestEventsEndWhenAFakeCloses(t *testing.T) {
	w := newWorld(t)
	e := w.events()
	e.until("both platforms", func() bool { return len(e.state) == 2 })
	w.must(w.discord.Close())
	for e.lines.Scan() {
	}
	if err := e.lines.Err(); err != nil {
		t.Errorf("the stream broke: %v", err)
	}
}

func TestNumberOfEventStreamsIsLimited(t *testing.T) {
	w := newWorld(t)
	var open []*http.Response
	statuses := map[int]int{}
	for range 33 {
		resp, err := http.Get(w.url + "/events")
		w.must(err)
		open = append(open, resp)
		statuses[resp.StatusCode]++
	}
	for _, resp := range open {
		resp.Body.Close()
	}
	if statuses[200] != 32 || statuses[503] != 1 {
		t.Errorf("statuses of 33 event streams: %v", statuses)
	}
}
