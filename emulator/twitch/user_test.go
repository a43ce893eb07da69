package twitch_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"parley.internal/emulator/twitch"
)

func TestAddUser(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name string
		in   twitch.User
		want twitch.User // with an empty Login, an error is expected
	}{
		{"login alone", twitch.User{Login: "Ada"}, twitch.User{Login: "ada", DisplayName: "ada"}},
		{"all of it", twitch.User{Login: "bob", ID: "7", DisplayName: "BoB", Color: "#112233"}, twitch.User{Login: "bob", ID: "7", DisplayName: "BoB", Color: "#112233"}},
		{"another script", twitch.User{Login: "carol", DisplayName: "キャロル"}, twitch.User{Login: "carol", DisplayName: "キャロル"}},
		{"changed", twitch.User{Login: "bob", DisplayName: "bOb"}, twitch.User{Login: "bob", ID: "7", DisplayName: "bOb"}},
		{"another display name", twitch.User{Login: "dan", DisplayName: "Daniel"}, twitch.User{}},
		{"no login", twitch.User{}, twitch.User{}},
		{"not a login", twitch.User{Login: "a b"}, twitch.User{}},
		{"prefixed id", twitch.User{Login: "eve", ID: "twitch:8"}, twitch.User{}},
		{"another's id", twitch.User{Login: "eve", ID: "7"}, twitch.User{}},
		{"another id", twitch.User{Login: "bob", ID: "8"}, twitch.User{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := w.AddUser(c.in)
			if (err != nil) != (c.want.Login == "") {
				t.Fatalf("AddUser: %v", err)
			}
			if err != nil {
				return
			}
			if c.want.ID == "" {
				c.want.ID = got.ID
			}
			c.want.CreatedAt = w.clock.Now()
			if kept, ok := w.User(c.in.Login); got != c.want || kept != got || !ok {
				t.Errorf("AddUser returned %+v, User returned %+v; want %+v", got, kept, c.want)
			}
		})
	}
	var logins []string
	for _, u := range w.Users() {
		logins = append(logins, u.Login)
	}
	if want := []string{"ada", "bob", "bot", "carol", "streamer", "viewer"}; !slices.Equal(logins, want) {
		t.Errorf("the users are %q; want %q", logins, want)
	}
	if _, ok := w.User("eve"); ok {
		t.Error("the refused user eve exists")
	}
}

func TestMethodsRefuseUnknownUsersChannelsAndApps(t *testing.T) {
	w := newWorld(t)
	for name, err := range map[string]error{
		"SetRole":     w.SetRole("streamer", "nobody", twitch.Role{}),
		"SetSettings": w.SetSettings("nobody", twitch.Settings{}),
		"Ban":         w.Ban("nobody", "bot", 0, ""),
		"Unban":       w.Unban("streamer", "nobody"),
		"Clear":       w.Clear("nobody"),
		"Follow":      w.Follow("streamer", "nobody"),
		"Subscribe":   w.Subscribe("nobody", "bot", 1),
		"Raid":        w.Raid("bot", "nobody", 1),
		"GoOnline":    w.GoOnline("nobody", twitch.Stream{}),
		"GoOffline":   w.GoOffline("nobody"),
		"LogIn":       w.LogIn("nobody"),
		"Disconnect":  w.Disconnect(w.app.ID, "nobody"),
		"Say":         second(w.Say("streamer", "nobody", "x")),
		"Whisper":     second(w.Whisper("bot", "nobody", "x")),
		"AddApp":      second(w.AddApp(w.app)),
		"AddToken":    second(w.AddToken(w.tokens["bot"])),
		"no app":      second(w.AddToken(twitch.Token{UserID: w.bot.ID})),
		"no user":     second(w.AddToken(twitch.Token{UserID: "1", ClientID: w.app.ID})),
	} {
		if err == nil {
			t.Errorf("%s: no error for an unknown or existing name", name)
		}
	}
	if w.Delete("streamer", "x") || w.Said("nobody") != nil || w.Joined("nobody") != nil || w.Whispers("nobody") != nil || w.Actions("nobody") != nil {
		t.Error("an unknown line or user has data")
	}
}

func second[T any](_ T, err error) error { return err }

func TestBansEnd(t *testing.T) {
	w := newWorld(t)
	send := func() int {
		t.Helper()
		r := w.request(t, "POST", "/chat/messages", w.tokens["bot"].Access,
			map[string]any{"broadcaster_id": w.channel.ID, "sender_id": w.bot.ID, "message": w.clock.Now().String()})
		if r.status == http.StatusOK && r.body["data"].([]any)[0].(map[string]any)["is_sent"] != true {
			return 0
		}
		return r.status
	}
	w.must(w.Ban("streamer", "bot", 0, "for a test"))
	if got := send(); got != 403 {
		t.Errorf("a banned user got status %d", got)
	}
	w.must(w.Unban("streamer", "bot"))
	if got := send(); got != 200 {
		t.Errorf("a user after the end of the ban got status %d", got)
	}
	w.must(w.Ban("streamer", "bot", time.Minute, ""))
	if got := send(); got != 0 {
		t.Errorf("a timed-out user got status %d", got)
	}
	w.clock.Advance(time.Minute)
	if got := send(); got != 200 {
		t.Errorf("a user after the time-out got status %d", got)
	}
}

func TestAsTypedAppliesBansLimitsAndSettings(t *testing.T) {
	for _, c := range []struct {
		name    string
		arrange func(w *world)
		want    string // part of the error; empty for no error
	}{
		{"no restriction", func(*world) {}, ""},
		{"banned", func(w *world) { w.must(w.Ban("streamer", "viewer", 0, "")) }, "msg_banned"},
		{"timed out", func(w *world) { w.must(w.Ban("streamer", "viewer", time.Minute, "")) }, "msg_timedout"},
		{"too soon", func(w *world) {
			w.must(w.SetSettings("streamer", twitch.Settings{Slow: time.Minute}))
			w.say("viewer", "one")
			w.clock.Advance(30 * time.Second)
		}, "msg_slowmode"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.arrange(w)
			before := len(w.Said("streamer"))
			_, err := w.Say("streamer", "viewer", "two", twitch.AsTyped())
			said := len(w.Said("streamer")) - before
			if c.want == "" && (err != nil || said != 1) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || said != 0) {
				t.Errorf("error %v, %d lines posted; want %q", err, said, c.want)
			}
		})
	}
}

func TestSaidFromSkipsTheFirstLines(t *testing.T) {
	w := newWorld(t)
	w.say("viewer", "a", twitch.WithID("same"))
	w.say("viewer", "b", twitch.WithID("same"))
	for n, want := range []int{2, 1, 0, 0} {
		if got := w.SaidFrom("streamer", n); len(got) != want || want > 0 && got[want-1].ID != "same" {
			t.Errorf("SaidFrom(%d) is %+v", n, got)
		}
	}
}

func TestClearFaults(t *testing.T) {
	w := newWorld(t)
	w.FailHTTP(twitch.HTTPFault{Status: 500, Times: 2})
	statuses := []int{w.request(t, "GET", "/users", w.tokens["bot"].Access, nil).status}
	w.ClearFaults()
	statuses = append(statuses, w.request(t, "GET", "/users", w.tokens["bot"].Access, nil).status)
	if !slices.Equal(statuses, []int{500, 200}) {
		t.Errorf("response %v", statuses)
	}
}

func TestAddresses(t *testing.T) {
	first := newWorld(t)
	addr := first.IRCAddr()
	if s, err := twitch.New(twitch.WithIRCAddr(addr)); err == nil {
		t.Errorf("two servers listen on %s", addr)
		s.Close()
	}
	if s, err := twitch.New(twitch.WithHTTPAddr(addr)); err == nil {
		t.Errorf("two servers listen on %s", addr)
		s.Close()
	}
	first.must(first.Close())
	again := newWorld(t, twitch.WithIRCAddr(addr))
	if again.IRCAddr() != addr {
		t.Errorf("listens on %s; want %s", again.IRCAddr(), addr)
	}
	again.login(t, "bot", "")
}

func TestIRCOverWebSocketSendsTheReasonOfARefusal(t *testing.T) {
	w := newWorld(t)
	conn, _, err := websocket.Dial(t.Context(), w.IRCWebSocketURL(), nil)
	w.must(err)
	t.Cleanup(func() { conn.CloseNow() })
	w.must(conn.Write(t.Context(), websocket.MessageText, []byte("PASS oauth:x\r\nNICK bot\r\nJOIN #streamer\r\n")))
	_, b, err := conn.Read(t.Context())
	w.must(err)
	if got := string(b); got != ":tmi.twitch.tv NOTICE * :Login authentication failed\r\n" {
		t.Errorf("read %q", got)
	}
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("the connection ended with %v", err)
	}
}
