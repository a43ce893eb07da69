package instance_test

import (
	"net/http"
	"net/http/cookiejar"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"parley.internal/emulator/twitch"
	"parley.internal/gateway/instance"
	"parley.internal/gateway/oauth"
	"parley.internal/shared/bus"
	"parley.internal/shared/delivery"
	"parley.internal/shared/topology"
)

// platform is a Twitch with a bot and the channel ada, and the environment of instances that use it. PUBLIC_URL is not
// part of the environment.
type platform struct {
	*twitch.Server
	bot twitch.User
	env []string
}

// publicURL is the address of the gateway at Twitch. The test sends the callback to an instance of its choice, as a
// load balancer would.
const publicURL = "http://localhost:8080"

func newPlatform(t *testing.T) *platform {
	t.Helper()
	srv, err := twitch.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	p := &platform{Server: srv}
	if p.bot, err = srv.AddUser(twitch.User{Login: "parleybot"}); err != nil {
		t.Fatal(err)
	}
	if _, err := srv.AddUser(twitch.User{Login: "ada"}); err != nil {
		t.Fatal(err)
	}
	app, err := srv.AddApp(twitch.App{RedirectURIs: []string{publicURL + oauth.CallbackPath}})
	if err != nil {
		t.Fatal(err)
	}
	p.env = []string{
		"TWITCH_CLIENT_ID=" + app.ID, "TWITCH_CLIENT_SECRET=" + app.Secret, "TWITCH_BOT_USER_ID=" + p.bot.ID, "TWITCH_CHANNELS=ada",
		"TWITCH_OAUTH_URL=" + srv.OAuthURL(), "TWITCH_API_URL=" + srv.HelixURL(), "TWITCH_EVENTSUB_URL=" + srv.EventSubURL(),
		"TWITCH_IRC_ADDR=" + srv.IRCAddr(), "TWITCH_IRC_TLS=false",
		"CREDENTIAL_KEY=file:" + filepath.Join(t.TempDir(), "key"), "PUBLIC_URL=" + publicURL,
	}
	return p
}

// logIn logs the bot in at the instance.
func (p *platform) logIn(g *gateway) {
	g.w.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		g.w.t.Fatal(err)
	}
	browser := &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	get := func(address string, status int) string {
		g.w.t.Helper()
		resp, err := browser.Get(strings.Replace(address, publicURL, "http://"+g.Addr(), 1))
		if err != nil {
			g.w.t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != status {
			g.w.t.Fatalf("GET %s: %s; want %d", address, resp.Status, status)
		}
		return resp.Header.Get("Location")
	}
	if err := p.LogIn(p.bot.Login); err != nil {
		g.w.t.Fatal(err)
	}
	atTwitch := get(publicURL+oauth.LoginPath+"?as=bot", http.StatusSeeOther)
	back := get(atTwitch, http.StatusFound)
	get(back, http.StatusOK)
}

// whispers reports whether an instance receives the whispers to the bot.
func (p *platform) whispers() bool {
	return slices.ContainsFunc(p.Subscriptions(), func(s twitch.Subscription) bool {
		return s.Type == "user.whisper.message" && s.Status == "enabled"
	})
}

// refused reports whether the instance has missed the bot's login.
func refused(w *world, g *gateway) bool {
	return slices.ContainsFunc(strings.Split(w.logs.String(), "\n"), func(line string) bool {
		return strings.Contains(line, "EventSub: subscription refused") && strings.Contains(line, "login_needed") && strings.Contains(line, g.ID())
	})
}

func TestALoginAtOneInstanceIsUsedByAnother(t *testing.T) {
	for _, who := range []string{"the instance with the lease", "the other instance"} {
		t.Run(who, func(t *testing.T) {
			w, p := newWorld(t), newPlatform(t)
			var pair []*gateway
			for range 2 {
				pair = append(pair, w.start(instance.Options{}, p.env...))
			}
			// One of the two holds the lease for EventSub, and waits some minutes after it has missed the login.
			eventually(t, "an instance misses the login", func() bool { return refused(w, pair[0]) || refused(w, pair[1]) })
			holder, other := pair[0], pair[1]
			if refused(w, other) {
				holder, other = other, holder
			}
			if who == "the other instance" {
				p.logIn(other)
			} else {
				p.logIn(holder)
			}
			eventually(t, "the bot receives whispers", p.whispers)
			eventually(t, "the bot is in the chat", func() bool { return slices.Contains(p.Joined("ada"), p.bot.Login) })
			eventually(t, "both instances know of the login", func() bool {
				return strings.Count(w.logs.String(), `msg="login announced"`) == 2
			})
			w.onlyAnnounced(t)
		})
	}
}

// onlyAnnounced checks that the only message on the bus is the announcement, which no function takes for an answer.
func (w *world) onlyAnnounced(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.published) != 1 {
		t.Fatalf("%d messages were published; want the announcement alone", len(w.published))
	}
	if a := w.published[0].Attributes; delivery.IsNotice(a) || a[bus.AttrRoute] != bus.RouteBroadcast {
		t.Errorf("the announcement has the attributes %v", a)
	}
}

func TestForeignAnnouncementsAreIgnored(t *testing.T) {
	w := newWorld(t)
	g := w.start(instance.Options{})
	c := g.dial(w.token("api-gateway:eve"))
	publisher := w.pubsub.Publisher(topology.Prefix{}.Topic(project, topology.Egress).String())
	publisher.EnableMessageOrdering = true
	t.Cleanup(publisher.Stop)
	for _, m := range []struct{ announcement, user string }{
		{"something new", "twitch:1"}, {"login", ""}, {"login", "no user"}, {"login", "twitch:1"},
	} {
		_, err := publisher.Publish(t.Context(), &pubsub.Message{
			Data: []byte(`{"v":"2","source":"gateway","correlationId":"c","type":"system.login","userId":"` + m.user + `"}`),
			Attributes: map[string]string{
				"announcement": m.announcement, bus.AttrRoute: bus.RouteBroadcast, delivery.AttrDelivery: "none",
			},
			OrderingKey: "one",
		}).Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the last announcement is handled", func() bool { return strings.Contains(w.logs.String(), `msg="login announced"`) })
	w.answer("a", "api-gateway:eve", "", "hello")
	if f := c.next(); f.Payload["text"] != "hello" {
		t.Errorf("frame = %+v", f)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if slices.ContainsFunc(w.published, func(m *pubsubpb.PubsubMessage) bool { return m.Attributes["reason"] != "" }) {
		t.Errorf("an announcement became a dead letter: %v", w.published)
	}
}
