package twitch_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	irc "github.com/gempir/go-twitch-irc/v4"
	"github.com/google/go-cmp/cmp"

	"parley.internal/emulator/twitch"
)

func TestIRCSendsAndReceivesChat(t *testing.T) {
	w := newWorld(t)
	w.must(w.SetRole("streamer", "viewer", twitch.Role{Moderator: true, VIP: true, SubscriberMonths: 7}))
	bot := w.connect("bot")

	said := w.say("viewer", "hello; wörld \\o/")
	got := next(t, bot.received)
	if got.ID != said.ID || got.Message != said.Text || got.Channel != "streamer" || got.RoomID != w.channel.ID || !got.FirstMessage || !got.Time.Equal(said.At) {
		t.Errorf("the bot received %+v for %+v", got, said)
	}
	if got.User.ID != w.viewer.ID || got.User.Name != "viewer" || got.User.DisplayName != "Viewer" || !got.User.IsMod || !got.User.IsVip ||
		!cmp.Equal(got.User.Badges, map[string]int{"moderator": 1, "vip": 1, "subscriber": 6}) {
		t.Errorf("the author is %+v", got.User)
	}

	reply := w.say("streamer", "really?", twitch.ReplyingTo(said.ID), twitch.AsAction())
	got = next(t, bot.received)
	if got.Reply == nil || got.Reply.ParentMsgID != said.ID || got.Reply.ParentMsgBody != said.Text || !got.Action || got.Message != "@Viewer really?" {
		t.Errorf("the bot received %+v, reply %+v", got, got.Reply)
	}
	if !got.User.IsBroadcaster || got.User.IsMod {
		t.Errorf("the broadcaster came as %+v", got.User)
	}

	next(t, bot.states) // the state at the JOIN
	bot.Reply("streamer", reply.ID, "yes  indeed ")
	state := next(t, bot.states)
	lines := w.Said("streamer")
	last := lines[len(lines)-1]
	if last.Text != "yes indeed" || last.ReplyTo != reply.ID || last.Via != twitch.ViaIRC || last.Login != "bot" {
		t.Errorf("the channel received %+v", last)
	}
	if state.Tags["id"] != last.ID {
		t.Errorf("USERSTATE has the message id %q; want %q", state.Tags["id"], last.ID)
	}
	w.say("viewer", "after")
	if got := next(t, bot.received); got.Message != "after" {
		t.Errorf("the bot received its own line: %q", got.Message)
	}
}

func TestIRCSendsALineToTheOtherConnectionsOfItsSender(t *testing.T) {
	w := newWorld(t)
	one, two := w.connect("bot"), w.connect("bot")
	one.Say("streamer", "mine")
	if got := next(t, two.received); got.Message != "mine" || got.User.Name != "bot" {
		t.Errorf("the other connection received %+v", got)
	}
	w.clock.Advance(2 * time.Second)
	if r, err := w.helix("bot").SendChatMessage(chatMessage(w, "via the API")); err != nil || !r.Data.Messages[0].IsSent {
		t.Fatalf("Helix: %+v, %v", r, err)
	}
	for _, c := range []*client{one, two} {
		if got := next(t, c.received); got.Message != "via the API" {
			t.Errorf("a connection of the sender received %q", got.Message)
		}
	}
}

func TestIRCRefusesLogins(t *testing.T) {
	w := newWorld(t)
	expired, err := w.AddToken(twitch.Token{UserID: w.bot.ID, ClientID: w.app.ID, Scopes: allScopes, ExpiresAt: w.clock.Now()})
	w.must(err)
	revoked := w.token(w.bot, allScopes...)
	w.Revoke(revoked.Access)
	appToken, err := w.AddToken(twitch.Token{ClientID: w.app.ID})
	w.must(err)
	for _, c := range []struct{ name, nick, pass, want string }{
		{"unknown token", "bot", "oauth:nonsense", "Login authentication failed"},
		{"expired token", "bot", "oauth:" + expired.Access, "Login authentication failed"},
		{"revoked token", "bot", "oauth:" + revoked.Access, "Login authentication failed"},
		{"app access token", "bot", "oauth:" + appToken.Access, "Login authentication failed"},
		{"another user's token", "viewer", "oauth:" + w.tokens["bot"].Access, "Login authentication failed"},
		{"no scope for chat", "bot", "oauth:" + w.token(w.bot, "user:write:chat").Access, "Login authentication failed"},
		{"no oauth: before the token", "bot", w.tokens["bot"].Access, "Improperly formatted auth"},
		{"no PASS", "bot", "", "Improperly formatted auth"},
		{"no login", "b o t", "oauth:x", "Login authentication failed"},
		{"not a login", "b-t", "oauth:x", "Invalid NICK"},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw := w.dial(t)
			if c.pass != "" {
				raw.send("PASS " + c.pass)
			}
			raw.send("NICK "+c.nick, "JOIN #streamer")
			raw.expect(":tmi.twitch.tv NOTICE * :" + c.want)
			raw.expectEnd()
		})
	}
	t.Run("go-twitch-irc", func(t *testing.T) {
		c := irc.NewClient("bot", "oauth:nonsense")
		c.IrcAddress, c.TLS = w.IRCAddr(), false
		if err := c.Connect(); !errors.Is(err, irc.ErrLoginAuthenticationFailed) {
			t.Errorf("Connect returned %v", err)
		}
	})
}

// rawConn is an IRC connection that the test reads and writes line by line.
type rawConn struct {
	t     *testing.T
	conn  net.Conn
	lines *bufio.Scanner
}

func (w *world) dial(t *testing.T) *rawConn {
	t.Helper()
	conn, err := net.Dial("tcp", w.IRCAddr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return raw(t, conn)
}

func raw(t *testing.T, conn net.Conn) *rawConn {
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return &rawConn{t, conn, bufio.NewScanner(conn)}
}

// login connects as the user with these capabilities, and reads the welcome messages.
func (w *world) login(t *testing.T, user, caps string) *rawConn {
	t.Helper()
	raw := w.dial(t)
	if caps != "" {
		raw.send("CAP REQ :" + caps)
		raw.expect(":tmi.twitch.tv CAP * ACK :" + caps)
	}
	raw.send("PASS oauth:"+w.tokens[user].Access, "NICK "+user)
	raw.await(" 376 ")
	return raw
}

func (r *rawConn) send(lines ...string) {
	r.t.Helper()
	if _, err := fmt.Fprint(r.conn, strings.Join(lines, "\r\n")+"\r\n"); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rawConn) read() string {
	r.t.Helper()
	if !r.lines.Scan() {
		r.t.Fatalf("the connection ended: %v", r.lines.Err())
	}
	return r.lines.Text()
}

func (r *rawConn) expect(want ...string) {
	r.t.Helper()
	for _, line := range want {
		if got := r.read(); got != line {
			r.t.Fatalf("read %q; want %q", got, line)
		}
	}
}

// await reads lines until a line contains part, and returns this line.
func (r *rawConn) await(part string) string {
	r.t.Helper()
	for {
		if line := r.read(); strings.Contains(line, part) {
			return line
		}
	}
}

func (r *rawConn) expectEnd() {
	r.t.Helper()
	for r.lines.Scan() {
		r.t.Errorf("read %q; want the end of the connection", r.lines.Text())
	}
	if err := r.lines.Err(); err != nil {
		r.t.Errorf("the connection ended with %v", err)
	}
}

func TestIRCMessagesOnTheWire(t *testing.T) {
	w := newWorld(t)
	r := w.dial(t)
	r.send("CAP LS 302", "CAP REQ :twitch.tv/tags nonsense", "CAP REQ :twitch.tv/tags twitch.tv/commands", "CAP END",
		"PASS oauth:"+w.tokens["bot"].Access, "NICK BOT")
	r.expect(
		":tmi.twitch.tv CAP * LS :twitch.tv/commands twitch.tv/membership twitch.tv/tags",
		":tmi.twitch.tv CAP * NAK :twitch.tv/tags nonsense",
		":tmi.twitch.tv CAP * ACK :twitch.tv/tags twitch.tv/commands",
		":tmi.twitch.tv 001 bot :Welcome, GLHF!",
		":tmi.twitch.tv 002 bot :Your host is tmi.twitch.tv",
		":tmi.twitch.tv 003 bot :This server is rather new",
		":tmi.twitch.tv 004 bot :-",
		":tmi.twitch.tv 375 bot :-",
		":tmi.twitch.tv 372 bot :You are in a maze of twisty passages, all alike.",
		":tmi.twitch.tv 376 bot :>",
		"@badge-info=;badges=;color=;display-name=Bot;emote-sets=0;turbo=0;user-id="+w.bot.ID+";user-type= :tmi.twitch.tv GLOBALUSERSTATE",
	)
	r.send("JOIN #streamer,#nobody", "PING", "PING :a b", "FROB x")
	state := "@badge-info=;badges=;color=;display-name=Bot;emote-sets=0;mod=0;subscriber=0;turbo=0;user-type= :tmi.twitch.tv USERSTATE #streamer"
	r.expect(
		":bot!bot@bot.tmi.twitch.tv JOIN #streamer",
		":bot.tmi.twitch.tv 353 bot = #streamer :bot",
		":bot.tmi.twitch.tv 366 bot #streamer :End of /NAMES list",
		state,
		"@emote-only=0;followers-only=-1;r9k=0;room-id="+w.channel.ID+";slow=0;subs-only=0 :tmi.twitch.tv ROOMSTATE #streamer",
		"@msg-id=msg_channel_suspended :tmi.twitch.tv NOTICE #nobody :This channel does not exist or has been suspended.",
		"PONG :tmi.twitch.tv",
		":tmi.twitch.tv PONG tmi.twitch.tv :a b",
		":tmi.twitch.tv 421 bot FROB :Unknown command",
	)
	r.send("@client-nonce=abc PRIVMSG #streamer :hi")
	got := r.read()
	line := w.Said("streamer")[0]
	want := strings.Replace(strings.Replace(state, "color=", "client-nonce=abc;color=", 1), "mod=0", "id="+line.ID+";mod=0", 1)
	if got != want || line.Nonce != "abc" {
		t.Errorf("read %q; want %q", got, want)
	}
	r.send("PART #streamer")
	r.expect(":bot!bot@bot.tmi.twitch.tv PART #streamer")
	w.say("viewer", "unheard")
	r.send("PING :end")
	r.expect(":tmi.twitch.tv PONG tmi.twitch.tv :end")
}

func TestIRCWithoutCapabilitiesSendsNoTags(t *testing.T) {
	w := newWorld(t)
	r := w.login(t, "bot", "")
	r.send("JOIN #streamer")
	r.await(" 366 ")
	w.say("viewer", "hi")
	w.must(w.Ban("streamer", "viewer", 0, ""))
	w.say("streamer", "bye")
	r.expect(":viewer!viewer@viewer.tmi.twitch.tv PRIVMSG #streamer :hi", ":streamer!streamer@streamer.tmi.twitch.tv PRIVMSG #streamer :bye")
}

func TestIRCMembership(t *testing.T) {
	w := newWorld(t)
	r := w.login(t, "bot", "twitch.tv/membership")
	r.send("JOIN #streamer")
	r.await(" 366 ")
	v := w.login(t, "viewer", "twitch.tv/membership")
	v.send("JOIN #streamer")
	v.expect(":viewer!viewer@viewer.tmi.twitch.tv JOIN #streamer", ":viewer.tmi.twitch.tv 353 viewer = #streamer :bot viewer")
	r.expect(":viewer!viewer@viewer.tmi.twitch.tv JOIN #streamer")
	v.send("QUIT")
	r.expect(":viewer!viewer@viewer.tmi.twitch.tv PART #streamer")
}

func TestIRCAnonymousUserCannotWrite(t *testing.T) {
	w := newWorld(t)
	r := w.dial(t)
	r.send("NICK justinfan123", "JOIN #streamer", "PRIVMSG #streamer :psst")
	r.await(" 366 ")
	w.say("viewer", "hi")
	r.expect(":viewer!viewer@viewer.tmi.twitch.tv PRIVMSG #streamer :hi")
	if got := w.texts(); !slices.Equal(got, []string{"hi"}) {
		t.Errorf("the channel received %q", got)
	}
}

func TestIRCOverWebSocket(t *testing.T) {
	for _, c := range []struct {
		name     string
		path     string // after the root
		offered  []string
		selected string
	}{
		{"twurple", "", nil, ""},
		{"tmi.js", "", []string{"irc"}, "irc"},
		{"a browser with several sub-protocols", "", []string{"chat", "irc"}, "irc"},
		{"an unknown sub-protocol", "", []string{"chat"}, ""},
		{"the other path", "irc", []string{"irc"}, "irc"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			conn, _, err := websocket.Dial(t.Context(), w.IRCWebSocketURL()+c.path, &websocket.DialOptions{Subprotocols: c.offered})
			w.must(err)
			t.Cleanup(func() { conn.CloseNow() })
			if got := conn.Subprotocol(); got != c.selected {
				t.Errorf("the server selected %q; want %q", got, c.selected)
			}
			r := raw(t, websocket.NetConn(t.Context(), conn, websocket.MessageText))
			for _, m := range []string{"PASS oauth:" + w.tokens["bot"].Access, "NICK bot\r\nJOIN #streamer\r\n"} {
				// The messages have no line end, or two lines, as real clients send them.
				w.must(conn.Write(t.Context(), websocket.MessageText, []byte(m)))
			}
			r.await(" 366 ")
			w.say("viewer", "hi")
			r.expect(":viewer!viewer@viewer.tmi.twitch.tv PRIVMSG #streamer :hi")
			w.must(conn.Write(t.Context(), websocket.MessageText, []byte("PRIVMSG #streamer :hello")))
			w.await("the line arrives", func() bool { return slices.Equal(w.texts(), []string{"hi", "hello"}) })
		})
	}
}

func TestIRCReportsEachChangedSetting(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after twitch.Settings
		want          []string // the tag of a ROOMSTATE, or the msg-id and the text of a NOTICE
	}{
		{"slow", twitch.Settings{}, twitch.Settings{Slow: 30 * time.Second},
			[]string{"slow=30", "slow_on This room is now in slow mode. You may send messages every 30 seconds."}},
		{"slower", twitch.Settings{Slow: 30 * time.Second}, twitch.Settings{Slow: time.Minute},
			[]string{"slow=60", "slow_on This room is now in slow mode. You may send messages every 60 seconds."}},
		{"not slow", twitch.Settings{Slow: time.Second}, twitch.Settings{},
			[]string{"slow=0", "slow_off This room is no longer in slow mode."}},
		{"emotes", twitch.Settings{}, twitch.Settings{EmoteOnly: true},
			[]string{"emote-only=1", "emote_only_on This room is now in emote-only mode."}},
		{"not emotes", twitch.Settings{EmoteOnly: true}, twitch.Settings{},
			[]string{"emote-only=0", "emote_only_off This room is no longer in emote-only mode."}},
		{"followers", twitch.Settings{}, twitch.Settings{FollowersOnlyMode: true},
			[]string{"followers-only=0", "followers_on_zero This room is now in followers-only mode."}},
		{"followers for long", twitch.Settings{FollowersOnlyMode: true}, twitch.Settings{FollowersOnlyMode: true, FollowersOnly: 70},
			[]string{"followers-only=70", "followers_on This room is now in 1 hour 10 minutes followers-only mode."}},
		{"not followers", twitch.Settings{FollowersOnlyMode: true, FollowersOnly: 10}, twitch.Settings{FollowersOnly: 10},
			[]string{"followers-only=-1", "followers_off This room is no longer in followers-only mode."}},
		{"unique", twitch.Settings{}, twitch.Settings{UniqueChat: true},
			[]string{"r9k=1", "r9k_on This room is now in unique-chat mode."}},
		{"not unique", twitch.Settings{UniqueChat: true}, twitch.Settings{},
			[]string{"r9k=0", "r9k_off This room is no longer in unique-chat mode."}},
		{"subscribers", twitch.Settings{}, twitch.Settings{SubscribersOnly: true},
			[]string{"subs-only=1", "subs_on This room is now in subscribers-only mode."}},
		{"not subscribers", twitch.Settings{SubscribersOnly: true}, twitch.Settings{},
			[]string{"subs-only=0", "subs_off This room is no longer in subscribers-only mode."}},
		{"two settings", twitch.Settings{}, twitch.Settings{Slow: time.Second, SubscribersOnly: true}, []string{
			"slow=1", "slow_on This room is now in slow mode. You may send messages every 1 seconds.",
			"subs-only=1", "subs_on This room is now in subscribers-only mode.",
		}},
		{"the same again", twitch.Settings{Slow: time.Second}, twitch.Settings{Slow: time.Second}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.must(w.SetSettings("streamer", c.before))
			r := w.login(t, "bot", "twitch.tv/tags twitch.tv/commands")
			plain := w.login(t, "viewer", "")
			for _, joiner := range []*rawConn{r, plain} {
				joiner.send("JOIN #streamer")
				joiner.await(" 366 ")
			}
			r.await(" ROOMSTATE ")
			w.must(w.SetSettings("streamer", c.after))
			var want []string
			for _, s := range c.want {
				if id, text, ok := strings.Cut(s, " "); ok {
					want = append(want, "@msg-id="+id+" :tmi.twitch.tv NOTICE #streamer :"+text)
					continue
				}
				tags := []string{"room-id=" + w.channel.ID, s}
				slices.Sort(tags)
				want = append(want, "@"+strings.Join(tags, ";")+" :tmi.twitch.tv ROOMSTATE #streamer")
			}
			r.send("PING :end")
			r.expect(append(want, ":tmi.twitch.tv PONG tmi.twitch.tv :end")...)
			plain.send("PING :end")
			plain.expect(":tmi.twitch.tv PONG tmi.twitch.tv :end")
		})
	}
}

func TestIRCRefusesMessages(t *testing.T) {
	for _, c := range []struct {
		name  string
		setup func(w *world)
		texts []string
		want  string // msg-id of the NOTICE about the last text
	}{
		{"too many", func(w *world) {
			w.must(w.SetRole("streamer", "bot", twitch.Role{VIP: true}))
		}, numbered(101), "msg_ratelimit"},
		{"two in a second", nil, []string{"one", "two"}, "msg_ratelimit"},
		{"banned", func(w *world) { w.must(w.Ban("streamer", "bot", 0, "")) }, []string{"x"}, "msg_banned"},
		{"timed out", func(w *world) { w.must(w.Ban("streamer", "bot", time.Minute, "")) }, []string{"x"}, "msg_timedout"},
		{"slow", func(w *world) {
			w.must(w.SetSettings("streamer", twitch.Settings{Slow: time.Minute}))
			w.say("bot", "x")
			w.clock.Advance(2 * time.Second)
		}, []string{"y"}, "msg_slowmode"},
		{"the same again", func(w *world) {
			w.say("bot", "x")
			w.clock.Advance(2 * time.Second)
		}, []string{"x"}, "msg_duplicate"},
		{"subscribers only", func(w *world) {
			w.must(w.SetSettings("streamer", twitch.Settings{SubscribersOnly: true}))
		}, []string{"x"}, "msg_subsonly"},
		{"followers only", func(w *world) {
			w.must(w.SetSettings("streamer", twitch.Settings{FollowersOnlyMode: true}))
		}, []string{"x"}, "msg_followersonly_zero"},
		{"followers for long only", func(w *world) {
			w.must(w.Follow("streamer", "bot"))
			w.must(w.SetSettings("streamer", twitch.Settings{FollowersOnlyMode: true, FollowersOnly: 10}))
		}, []string{"x"}, "msg_followersonly"},
		{"emotes only", func(w *world) {
			w.must(w.SetSettings("streamer", twitch.Settings{EmoteOnly: true}))
		}, []string{"x"}, "msg_emoteonly"},
		{"not unique", func(w *world) {
			w.must(w.SetSettings("streamer", twitch.Settings{UniqueChat: true}))
			w.say("viewer", "x")
		}, []string{"x"}, "msg_r9k"},
		{"a command", nil, []string{"/ban viewer"}, "unrecognized_cmd"},
		{"injected", func(w *world) { w.FailChat(twitch.ChatFault{Login: "bot", Notice: "msg_rejected"}) }, []string{"x"}, "msg_rejected"},
		{"the third injected", func(w *world) {
			w.must(w.SetRole("streamer", "bot", twitch.Role{Moderator: true}))
			w.FailChat(twitch.ChatFault{Skip: 2, Notice: "msg_suspended"})
		}, []string{"1", "2", "3"}, "msg_suspended"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			r := w.login(t, "bot", "twitch.tv/tags twitch.tv/commands")
			if c.setup != nil {
				c.setup(w)
			}
			before := len(w.texts())
			for _, text := range c.texts {
				r.send("PRIVMSG #streamer :" + text)
			}
			r.await("@msg-id=" + c.want + " :tmi.twitch.tv NOTICE #streamer :")
			if got := len(w.texts()) - before; got != len(c.texts)-1 {
				t.Errorf("%d of %d messages were published", got, len(c.texts))
			}
		})
	}
	t.Run("no scope to write", func(t *testing.T) {
		w := newWorld(t)
		w.tokens["bot"] = w.token(w.bot, "chat:read")
		r := w.login(t, "bot", "twitch.tv/tags twitch.tv/commands")
		r.send("PRIVMSG #streamer :x")
		r.await("msg-id=no_permission")
	})
}

func numbered(n int) []string {
	var texts []string
	for i := range n {
		texts = append(texts, fmt.Sprint("line ", i))
	}
	return texts
}

func TestIRCMessageLimitCountsOverAllChannels(t *testing.T) {
	w := newWorld(t)
	r := w.login(t, "bot", "twitch.tv/tags twitch.tv/commands")
	for i := range 21 {
		w.user(fmt.Sprint("channel", i))
		r.send(fmt.Sprintf("PRIVMSG #channel%d :hi", i))
	}
	r.await("@msg-id=msg_ratelimit :tmi.twitch.tv NOTICE #channel20 :")
	w.clock.Advance(30 * time.Second)
	r.send("PRIVMSG #channel20 :hi")
	r.await("USERSTATE #channel20")
}

func TestIRCCutsLongMessages(t *testing.T) {
	w := newWorld(t)
	r := w.login(t, "bot", "twitch.tv/commands")
	r.send("PRIVMSG #streamer :" + strings.Repeat("ü", 600))
	r.await("USERSTATE #streamer")
	if got := w.texts()[0]; got != strings.Repeat("ü", 500) {
		t.Errorf("the channel received %q", got)
	}
}

func TestIRCLimitsJoinsAndLogins(t *testing.T) {
	w := newWorld(t)
	r := w.login(t, "bot", "")
	names := make([]string, 25)
	for i := range names {
		names[i] = fmt.Sprint("#", w.user(fmt.Sprint("channel", i)).Login)
	}
	r.send("JOIN "+strings.Join(names, ","), "PING :done")
	r.await("PONG")
	joined := 0
	for _, name := range names {
		joined += len(w.Joined(name))
	}
	if joined != 20 {
		t.Errorf("joined %d channels at once", joined)
	}
	w.clock.Advance(10 * time.Second)
	r.send("JOIN " + names[24])
	r.await(" 366 ")

	for range 20 {
		w.login(t, "bot", "")
	}
	last := w.dial(t)
	last.send("PASS oauth:"+w.tokens["bot"].Access, "NICK bot")
	last.expect(":tmi.twitch.tv NOTICE * :Login unsuccessful")
	last.expectEnd()
}

func TestIRCReportsEvents(t *testing.T) {
	w := newWorld(t)
	bot := w.connect("bot")
	state := nextOf[*irc.RoomStateMessage](t, bot.others)
	if state.State["slow"] != 0 {
		t.Errorf("the room came as %+v", state.State)
	}
	w.must(w.SetSettings("streamer", twitch.Settings{Slow: 30 * time.Second}))
	if state := nextOf[*irc.RoomStateMessage](t, bot.others); state.State["slow"] != 30 {
		t.Errorf("the room became %+v", state.State)
	}
	if m := next(t, bot.notices); m.MsgID != "slow_on" {
		t.Errorf("the notice of the slow mode came as %+v", m)
	}
	w.must(w.Subscribe("streamer", "viewer", 1))
	if m := nextOf[*irc.UserNoticeMessage](t, bot.others); m.MsgID != "sub" || m.User.Name != "viewer" || m.SystemMsg != "Viewer subscribed at Tier 1." {
		t.Errorf("a sub came as %+v", m)
	}
	w.must(w.Subscribe("streamer", "viewer", 9))
	if m := nextOf[*irc.UserNoticeMessage](t, bot.others); m.MsgID != "resub" || m.MsgParams["msg-param-cumulative-months"] != "9" {
		t.Errorf("a resub came as %+v", m)
	}
	w.must(w.Raid("viewer", "streamer", 12))
	if m := nextOf[*irc.UserNoticeMessage](t, bot.others); m.MsgID != "raid" || m.MsgParams["msg-param-viewerCount"] != "12" {
		t.Errorf("a raid came as %+v", m)
	}
	l := w.say("viewer", "rude")
	w.Delete("streamer", l.ID)
	if m := nextOf[*irc.ClearMessage](t, bot.others); m.TargetMsgID != l.ID || m.Login != "viewer" || m.Message != "rude" {
		t.Errorf("a deletion came as %+v", m)
	}
	w.must(w.Ban("streamer", "viewer", 10*time.Minute, "rude"))
	if m := nextOf[*irc.ClearChatMessage](t, bot.others); m.TargetUsername != "viewer" || m.TargetUserID != w.viewer.ID || m.BanDuration != 600 {
		t.Errorf("a time-out came as %+v", m)
	}
	w.must(w.Clear("streamer"))
	if m := nextOf[*irc.ClearChatMessage](t, bot.others); m.TargetUsername != "" {
		t.Errorf("a clearing came as %+v", m)
	}
	_, err := w.Whisper("viewer", "bot", "psst")
	w.must(err)
	if m := nextOf[*irc.WhisperMessage](t, bot.others); m.Message != "psst" || m.User.ID != w.viewer.ID {
		t.Errorf("a whisper came as %+v", m)
	}
	w.Notice("streamer", "bot", "msg_rejected", "no")
	if m := next(t, bot.notices); m.MsgID != "msg_rejected" || m.Message != "no" {
		t.Errorf("a notice came as %+v", m)
	}
	kinds := []string{}
	for _, a := range w.Actions("streamer") {
		kinds = append(kinds, a.Kind)
	}
	if want := []string{"delete", "timeout", "clear"}; !slices.Equal(kinds, want) {
		t.Errorf("the actions are %q; want %q", kinds, want)
	}
}

func TestIRCReconnects(t *testing.T) {
	w := newWorld(t)
	bot := w.connect("bot")
	if n := w.ReconnectIRC("bot"); n != 1 {
		t.Fatalf("RECONNECT was sent to %d connections", n)
	}
	nextOf[*irc.ReconnectMessage](t, bot.others)
	// The client leaves the first connection, and joins again.
	nextOf[*irc.GlobalUserStateMessage](t, bot.others)
	nextOf[*irc.RoomStateMessage](t, bot.others)
	w.await("one connection is in the channel", func() bool { return w.joined("bot") == 1 })
	w.say("viewer", "still there?")
	if got := next(t, bot.received); got.Message != "still there?" {
		t.Errorf("received %q", got.Message)
	}
}

func TestIRCFaults(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault twitch.ChatFault
		said  []string
	}{
		{"dropped before", twitch.ChatFault{Drop: true}, []string{}},
		{"dropped after", twitch.ChatFault{Drop: true, Done: true}, []string{"x"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			r := w.login(t, "bot", "twitch.tv/commands")
			w.FailChat(c.fault)
			r.send("PRIVMSG #streamer :x")
			for r.lines.Scan() {
				if strings.Contains(r.lines.Text(), "USERSTATE #") {
					t.Errorf("read %q", r.lines.Text())
				}
			}
			if got := append([]string{}, w.texts()...); !slices.Equal(got, c.said) {
				t.Errorf("the channel received %q; want %q", got, c.said)
			}
		})
	}
	for _, done := range []bool{false, true} {
		t.Run(fmt.Sprintf("no answer, done %v", done), func(t *testing.T) {
			w := newWorld(t)
			r := w.login(t, "bot", "")
			w.FailChat(twitch.ChatFault{Done: done})
			r.send("PRIVMSG #streamer :x", "PING :next")
			r.expect(":tmi.twitch.tv PONG tmi.twitch.tv :next")
			if got := len(w.texts()) == 1; got != done {
				t.Errorf("the message was published: %v", got)
			}
		})
	}
	t.Run("dropped by hand", func(t *testing.T) {
		w := newWorld(t)
		r := w.login(t, "bot", "")
		if n := w.DropIRC("viewer"); n != 0 {
			t.Errorf("dropped %d connections of an unknown user", n)
		}
		if n := w.DropIRC(""); n != 1 {
			t.Errorf("dropped %d connections", n)
		}
		for r.lines.Scan() {
		}
		w.await("it is gone", func() bool { return w.Connections("") == 0 })
	})
}

func TestIRCWithoutNonceEcho(t *testing.T) {
	w := newWorld(t, twitch.WithoutNonceEcho())
	r := w.login(t, "bot", "twitch.tv/tags twitch.tv/commands")
	r.send("@client-nonce=abc PRIVMSG #streamer :x")
	if line := r.await("USERSTATE #streamer"); strings.Contains(line, "abc") {
		t.Errorf("read %q", line)
	}
}

func TestIRCDelays(t *testing.T) {
	w := newWorld(t)
	r := w.login(t, "bot", "")
	const d = 50 * time.Millisecond
	w.DelayIRC("bot", d)
	start := time.Now()
	r.send("PING")
	r.await("PONG")
	if took := time.Since(start); took < d {
		t.Errorf("the answer took %v", took)
	}
}

// A client that does not read must not fill the server's memory.
func TestIRCDropsAClientThatDoesNotRead(t *testing.T) {
	w := newWorld(t)
	slow := w.login(t, "bot", "")
	slow.send("JOIN #streamer")
	slow.await(" 366 ")
	w.DelayIRC("bot", time.Hour)
	for range 1 << 15 {
		w.say("viewer", "x")
	}
	w.await("it is dropped", func() bool { return w.Connections("bot") == 0 })
}

func TestIRCPings(t *testing.T) {
	w := newWorld(t, twitch.WithTiming(twitch.Timing{Ping: 700 * time.Millisecond}))
	r := w.login(t, "bot", "")
	for range 2 {
		r.expect("PING :tmi.twitch.tv")
		r.send("PONG :tmi.twitch.tv")
	}
	// A client that does not answer is dropped.
	for r.lines.Scan() {
	}
}
