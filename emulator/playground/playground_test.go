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
	"parley.internal/shared/credential"
	"parley.internal/shared/identity"
)

// token opens the API and the events.
const token = "the-token-of-this-start"

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
	w.bot, err = w.discord.AddBot(discord.Bot{User: discord.User{Name: "parley"}, Privileged: discord.IntentMessageContent})
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
	srv := httptest.NewServer(playground.New(credential.NewSecret(token), w.twitch, w.discord, bot))
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

// request sends a request with the token, and returns the status and the body of the response.
func (w *world) request(method, path, body string, header ...string) (int, string) {
	w.t.Helper()
	resp, text := w.response(method, path, body, header...)
	return resp.StatusCode, text
}

func (w *world) response(method, path, body string, header ...string) (*http.Response, string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, strings.NewReader(body))
	w.must(err)
	req.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
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
	return resp, string(b)
}

// state returns the platforms of the first events.
func (w *world) state() map[identity.Platform]playground.Platform {
	w.t.Helper()
	e := w.events()
	e.until("both platforms", func() bool { return len(e.state) == 2 })
	return e.state
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
	req.Header.Set("Authorization", "Bearer "+token)
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
	secret := credential.NewSecret(token)
	for name, s := range map[string]*playground.Playground{
		"twitch": playground.New(secret, w.twitch, nil), "discord": playground.New(secret, nil, w.discord), "": playground.New(secret, nil, nil),
	} {
		for _, platform := range []string{"twitch", "discord"} {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1/api/"+platform+"/users", nil)
			r.Header.Set("Authorization", "Bearer "+token)
			rec := httptest.NewRecorder()
			s.ServeHTTP(rec, r)
			if served := rec.Code == http.StatusOK; served != (name == platform) {
				t.Errorf("with only the fake %q, the users of %s have status %d", name, platform, rec.Code)
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

// The page posts to the path of the place, as typed by the speaker.
func TestEveryPlaceHasAPathForItsMessages(t *testing.T) {
	w := newWorld(t)
	state := w.state()
	for _, c := range []struct {
		platform    identity.Platform
		place, user string
		said        func() (user, text string)
	}{
		{identity.Twitch, "#streamer", "viewer", func() (string, string) {
			l := w.twitch.Said("streamer")[0]
			return l.Login, l.Text
		}},
		{identity.Twitch, "Whispers with Parley", "viewer", func() (string, string) {
			l := w.twitch.Whispers("parley")[0]
			return l.From, l.Text
		}},
		{identity.Discord, "Home #general", w.viewer.ID, func() (string, string) {
			m := w.discord.Said(w.general.ID)[0]
			return m.Author.ID, m.Text
		}},
		{identity.Discord, "Direct messages with parley", w.viewer.ID, func() (string, string) {
			m := w.discord.DMs(w.viewer.ID, w.bot.ID)[0]
			return m.Author.ID, m.Text
		}},
	} {
		path := strings.ReplaceAll(place(t, state[c.platform], c.place).Messages, "{user}", c.user)
		status, body := w.request(http.MethodPost, "/api/"+path, `{"user":"`+c.user+`","text":" one "}`)
		if status != http.StatusOK {
			t.Errorf("%s: %d %s", c.place, status, body)
			continue
		}
		if user, text := c.said(); user != c.user || strings.TrimSpace(text) != "one" {
			t.Errorf("%s: %s said %q", c.place, user, text)
		}
	}
}

func TestSpeakersShowBansAndTimeOuts(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"muted", "banned"} {
		u, err := w.discord.AddUser(discord.User{Name: name})
		w.must(err)
		_, err = w.discord.AddMember(w.guild.ID, u.ID)
		w.must(err)
		if name == "muted" {
			w.must(w.discord.TimeOut(w.guild.ID, u.ID, time.Hour))
		} else {
			w.must(w.discord.Ban(w.guild.ID, u.ID, ""))
		}
	}
	notes := names(place(t, w.state()[identity.Discord], "Home #general").Speakers)
	if !slices.Contains(notes, "banned banned") || !slices.ContainsFunc(notes, func(s string) bool { return strings.HasPrefix(s, "muted timed out until ") }) {
		t.Errorf("the notes do not show the ban and the time-out: %q", notes)
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
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/events", nil)
		w.must(err)
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
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
