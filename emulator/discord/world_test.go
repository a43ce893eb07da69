package discord_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/bwmarrin/discordgo"

	"parley.internal/emulator/discord"
	"parley.internal/emulator/emulatortest"
)

// world is a server with a guild of an owner, a viewer and a bot, and a channel.
type world struct {
	*discord.Server
	t             *testing.T
	clock         *emulatortest.Clock
	owner, viewer discord.User
	bot           discord.Bot
	guild         discord.Guild
	channel       discord.Channel
}

// unlimited turns off all limits, for tests of other behaviour.
func unlimited() discord.Option { return discord.WithLimits(discord.Limits{}) }

func newWorld(t *testing.T, opts ...discord.Option) *world {
	t.Helper()
	w := &world{t: t, clock: emulatortest.NewClock(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))}
	srv, err := discord.New(append([]discord.Option{discord.WithClock(w.clock.Now)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	w.Server = srv
	w.owner = w.user("owner")
	w.viewer = w.user("viewer")
	w.bot, err = srv.AddBot(discord.Bot{User: discord.User{Name: "bot"}, Privileged: discord.IntentMessageContent | discord.IntentGuildMembers})
	w.must(err)
	w.guild, err = srv.AddGuild(discord.Guild{Name: "Home", OwnerID: w.owner.ID})
	w.must(err)
	w.channel, err = srv.AddChannel(discord.Channel{GuildID: w.guild.ID, Name: "general"})
	w.must(err)
	w.join(w.viewer.ID)
	w.join(w.bot.ID)
	return w
}

func (w *world) user(name string) discord.User {
	w.t.Helper()
	u, err := w.AddUser(discord.User{Name: name})
	w.must(err)
	return u
}

func (w *world) join(userID string, roles ...string) {
	w.t.Helper()
	_, err := w.AddMember(w.guild.ID, userID, roles...)
	w.must(err)
}

// role makes a role above all others.
func (w *world) role(name string, p discord.Permissions) discord.Role {
	w.t.Helper()
	r, err := w.AddRole(discord.Role{GuildID: w.guild.ID, Name: name, Permissions: p})
	w.must(err)
	return r
}

func (w *world) say(userID, text string, opts ...discord.SayOption) discord.Message {
	w.t.Helper()
	m, err := w.Say(w.channel.ID, userID, text, opts...)
	w.must(err)
	return m
}

// last returns the last message of the channel.
func (w *world) last() discord.Message {
	w.t.Helper()
	said := w.Said(w.channel.ID)
	if len(said) == 0 {
		w.t.Fatal("the channel has no message")
	}
	return said[len(said)-1]
}

// await waits until cond holds, and fails the test if this takes too long.
func (w *world) await(what string, cond func() bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	if err := w.Await(ctx, cond); err != nil {
		w.t.Fatalf("%s: %v", what, err)
	}
}

// must fails the test on an error.
func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// redirect is a transport that sends requests for Discord to the server.
type redirect struct{ api string }

func (r redirect) RoundTrip(req *http.Request) (*http.Response, error) {
	to, err := url.Parse(r.api)
	if err != nil {
		return nil, err
	}
	req = req.Clone(req.Context())
	req.URL.Scheme, req.URL.Host, req.Host = to.Scheme, to.Host, ""
	return http.DefaultTransport.RoundTrip(req)
}

// client returns a discordgo session for HTTP requests to the server, without a gateway connection.
func (w *world) client() *discordgo.Session {
	w.t.Helper()
	s, err := discordgo.New("Bot " + w.bot.Token)
	w.must(err)
	s.Client = &http.Client{Transport: redirect{w.APIURL()}}
	s.ShouldRetryOnRateLimit = false
	s.MaxRestRetries = 0
	s.LogLevel = discordgo.LogError - 1
	// discordgo's state changes the events that handlers receive.
	s.StateEnabled = false
	return s
}

// connected is a client with a gateway connection, and its received events.
type connected struct {
	*discordgo.Session
	ready   chan *discordgo.Ready
	created chan *discordgo.MessageCreate
	others  chan *discordgo.Event
}

func (w *world) connect(intents discordgo.Intent) *connected {
	w.t.Helper()
	c := &connected{
		Session: w.client(),
		ready:   make(chan *discordgo.Ready, 10),
		created: make(chan *discordgo.MessageCreate, 1000),
		others:  make(chan *discordgo.Event, 1000),
	}
	c.Identify.Intents = intents
	c.SyncEvents = true
	c.AddHandler(func(_ *discordgo.Session, r *discordgo.Ready) { c.ready <- r })
	c.AddHandler(func(_ *discordgo.Session, m *discordgo.MessageCreate) { c.created <- m })
	c.AddHandler(func(_ *discordgo.Session, e *discordgo.Event) { c.others <- e })
	w.must(c.Open())
	w.t.Cleanup(func() {
		// Close fails if the connection is already closed.
		_ = c.Close()
	})
	w.await("the bot connects", func() bool { return w.Connected(w.bot.ID) > 0 })
	return c
}

const allIntents = discordgo.IntentsAllWithoutPrivileged | discordgo.IntentMessageContent | discordgo.IntentGuildMembers

// next receives the next value from c, and fails the test if none comes soon.
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

// event receives events until one has this type.
func (c *connected) event(t *testing.T, kind string) *discordgo.Event {
	t.Helper()
	for {
		if e := next(t, c.others); e.Type == kind {
			return e
		}
	}
}

// reply is a response of the API.
type reply struct {
	status int
	header http.Header
	body   map[string]any
	list   []map[string]any
}

// code returns Discord's error code.
func (r reply) code() int {
	n, _ := r.body["code"].(float64)
	return int(n)
}

// field returns the code of the first error of a form field.
func (r reply) field(path string) string {
	at, _ := r.body["errors"].(map[string]any)
	for _, step := range strings.Split(path, ".") {
		at, _ = at[step].(map[string]any)
	}
	list, _ := at["_errors"].([]any)
	if len(list) == 0 {
		return ""
	}
	first, _ := list[0].(map[string]any)
	code, _ := first["code"].(string)
	return code
}

// call sends a request as the bot, with body as JSON unless body is nil.
func (w *world) call(method, path string, body any) reply {
	w.t.Helper()
	return w.callWith(method, "/v10"+path, "Bot "+w.bot.Token, nil, body)
}

func (w *world) callWith(method, path, authorization string, header http.Header, body any) reply {
	w.t.Helper()
	r, err := w.try(method, path, authorization, header, body)
	w.must(err)
	return r
}

// try is callWith for a connection that may break.
func (w *world) try(method, path, authorization string, header http.Header, body any) (reply, error) {
	w.t.Helper()
	var b []byte
	switch text := body.(type) {
	case nil:
	case string:
		b = []byte(text)
	default:
		var err error
		b, err = json.Marshal(body)
		w.must(err)
	}
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.APIURL()+path, bytes.NewReader(b))
	w.must(err)
	if header != nil {
		req.Header = header
	}
	if b != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	r := reply{status: resp.StatusCode, header: resp.Header}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return reply{}, err
	}
	if bytes.HasPrefix(text, []byte("[")) {
		err = json.Unmarshal(text, &r.list)
	} else if len(text) > 0 {
		err = json.Unmarshal(text, &r.body)
	}
	w.must(err)
	return r, nil
}

// object is a JSON object.
type object = map[string]any
