package twitch_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	irc "github.com/gempir/go-twitch-irc/v4"
	"github.com/nicklaw5/helix/v2"

	"parley.internal/emulator/emulatortest"
	"parley.internal/emulator/twitch"
)

// allScopes lists every scope used by the tests.
var allScopes = []string{
	"chat:read", "chat:edit", "user:read:chat", "user:write:chat", "user:manage:whispers", "user:read:email",
	"moderator:manage:banned_users", "moderator:manage:chat_messages", "moderator:read:followers",
	"channel:read:subscriptions", "user:bot", "channel:bot",
}

// world is a server with a channel, a bot and a viewer, and a token for each.
type world struct {
	*twitch.Server
	t                    *testing.T
	clock                *emulatortest.Clock
	app                  twitch.App
	channel, bot, viewer twitch.User
	tokens               map[string]twitch.Token
}

func newWorld(t *testing.T, opts ...twitch.Option) *world {
	t.Helper()
	w := &world{t: t, clock: emulatortest.NewClock(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)), tokens: map[string]twitch.Token{}}
	srv, err := twitch.New(append([]twitch.Option{twitch.WithClock(w.clock.Now)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	w.Server = srv
	if w.app, err = srv.AddApp(twitch.App{Name: "Test", RedirectURIs: []string{"http://localhost/back"}}); err != nil {
		t.Fatal(err)
	}
	w.channel = w.user("streamer")
	w.bot = w.user("bot")
	w.viewer = w.user("viewer")
	return w
}

// user makes a user with a token with all scopes.
func (w *world) user(login string) twitch.User {
	w.t.Helper()
	u, err := w.AddUser(twitch.User{Login: login, DisplayName: strings.ToUpper(login[:1]) + login[1:]})
	if err != nil {
		w.t.Fatal(err)
	}
	w.tokens[login] = w.token(u, allScopes...)
	return u
}

func (w *world) token(u twitch.User, scopes ...string) twitch.Token {
	w.t.Helper()
	tok, err := w.AddToken(twitch.Token{UserID: u.ID, ClientID: w.app.ID, Scopes: scopes})
	if err != nil {
		w.t.Fatal(err)
	}
	return tok
}

// helix returns a client with the user's token.
func (w *world) helix(login string) *helix.Client { return w.helixWith(w.tokens[login].Access) }

func (w *world) helixWith(access string) *helix.Client {
	w.t.Helper()
	c, err := helix.NewClient(&helix.Options{ClientID: w.app.ID, ClientSecret: w.app.Secret, UserAccessToken: access, APIBaseURL: w.HelixURL()})
	if err != nil {
		w.t.Fatal(err)
	}
	return c
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

// say posts a line as a user.
func (w *world) say(login, text string, opts ...twitch.SayOption) twitch.Line {
	w.t.Helper()
	l, err := w.Say(w.channel.Login, login, text, opts...)
	w.must(err)
	return l
}

// client is a client of go-twitch-irc in the channel, with its received messages.
type client struct {
	*irc.Client
	received chan irc.PrivateMessage
	states   chan irc.UserStateMessage
	notices  chan irc.NoticeMessage
	others   chan irc.Message
	ended    chan error
}

// connect logs a user in with go-twitch-irc and joins the channel.
func (w *world) connect(login string) *client {
	w.t.Helper()
	c := &client{
		Client:   irc.NewClient(login, "oauth:"+w.tokens[login].Access),
		received: make(chan irc.PrivateMessage, 100),
		states:   make(chan irc.UserStateMessage, 100),
		notices:  make(chan irc.NoticeMessage, 100),
		others:   make(chan irc.Message, 100),
		ended:    make(chan error, 1),
	}
	c.IrcAddress, c.TLS = w.IRCAddr(), false
	c.OnPrivateMessage(func(m irc.PrivateMessage) { c.received <- m })
	c.OnUserStateMessage(func(m irc.UserStateMessage) { c.states <- m })
	c.OnNoticeMessage(func(m irc.NoticeMessage) { c.notices <- m })
	c.OnUserNoticeMessage(func(m irc.UserNoticeMessage) { c.others <- &m })
	c.OnClearChatMessage(func(m irc.ClearChatMessage) { c.others <- &m })
	c.OnClearMessage(func(m irc.ClearMessage) { c.others <- &m })
	c.OnRoomStateMessage(func(m irc.RoomStateMessage) { c.others <- &m })
	c.OnGlobalUserStateMessage(func(m irc.GlobalUserStateMessage) { c.others <- &m })
	c.OnWhisperMessage(func(m irc.WhisperMessage) { c.others <- &m })
	c.OnReconnectMessage(func(m irc.ReconnectMessage) { c.others <- &m })
	c.Join(w.channel.Login)
	before := w.joined(login)
	go func() { c.ended <- c.Connect() }()
	w.t.Cleanup(func() {
		// Disconnect fails if the connection is already closed.
		_ = c.Disconnect()
	})
	w.await(login+" joins", func() bool { return w.joined(login) > before })
	return c
}

func (w *world) joined(login string) int {
	n := 0
	for _, who := range w.Joined(w.channel.Login) {
		if who == login {
			n++
		}
	}
	return n
}

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

// nextOf receives from c until a message is a T.
func nextOf[T irc.Message](t *testing.T, c <-chan irc.Message) T {
	t.Helper()
	for {
		if v, ok := next(t, c).(T); ok {
			return v
		}
	}
}

// texts returns the texts of the channel's lines.
func (w *world) texts() []string {
	var texts []string
	for _, l := range w.Said(w.channel.Login) {
		texts = append(texts, l.Text)
	}
	return slices.Clip(texts)
}
