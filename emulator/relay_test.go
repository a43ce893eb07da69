package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/google/go-cmp/cmp"

	"parley.internal/emulator/discord"
	"parley.internal/emulator/stack"
	"parley.internal/emulator/twitch"
	"parley.internal/shared/answer"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
)

// The addresses of the seeded rule games, as in the ledger.
const (
	onTwitch  = "twitch:bruno"
	onDiscord = "discord:3002"
	onWeb     = "games"
)

// moreRules relay to the same addresses: messages without a prefix, and a model's answer.
const moreRules = `
  bare:
    enabled: true
    when: event.channel == "games" && event.message.text.startsWith("!bare ")
    candidates: [{text: '{{ event.message.text.substring(6) }}'}]
    egress: &addresses
      to: [{destination: twitch, channel: "twitch:bruno"}, {destination: discord, channel: "discord:3002"}, {destination: api-gateway, channel: games}]
  everywhere:
    enabled: true
    when: event.channel == "games" && event.message.text.startsWith("!everywhere ")
    annotations: [{kind: personality, value: host, score: 1}]
    slip: [personality]
    egress: *addresses
`

// mention matches a mention on Twitch.
var mention = regexp.MustCompile(`@\w`)

// A message in a Twitch channel, a Discord channel or a web room is relayed once to the two others. One of the three
// gateways holds the Twitch channel and one holds the Discord bot; two have members of the room.
func TestMessagesAreRelayedBetweenThreePlatforms(t *testing.T) {
	t.Parallel()
	for name, how := range map[string]struct {
		speak string // on Twitch
		args  []string
	}{"helix": {"helix", nil}, "irc": {"irc", nil}, "google": {"helix", []string{"--google"}}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "google" {
				skipWithoutGoogle(t)
			}
			w := newCommunity(t, how.speak, how.args)
			for _, test := range []struct {
				name string
				run  func(*testing.T)
			}{
				{"a message is posted once at the two other addresses, with its author and platform", w.relayEachMessageOnce},
				{"a relayed message pings no user and runs no command", w.pingNoUser},
				{"a long message is one delivery of several lines on Twitch", w.splitALongMessage},
				{"a refusal at one address does not stop the others", w.refuseAtOneAddress},
			} {
				if !t.Run(test.name, test.run) {
					return // the following subtests would fail only because of this failure
				}
			}
		})
	}
}

func (w *community) relayEachMessageOnce(t *testing.T) {
	w.begin(t)
	w.twitchSays("bruno", "hello from Twitch")
	w.discordSays("2002", "hello from Discord")
	w.adaSays("hello from the web") // Ada also has a Twitch account
	want := map[string][]string{
		onTwitch:  {"[discord] Dana: hello from Discord", "[web] Ada: hello from the web"},
		onDiscord: {"[twitch] Bruno: hello from Twitch", "[web] Ada: hello from the web"},
		onWeb:     {"[discord] Dana: hello from Discord", "[twitch] Bruno: hello from Twitch"},
	}
	w.receives(want)

	// A repetition of a relayed message, for example by another bot, is not relayed. A later message is.
	w.twitchSays("ada", w.twitchLines()[0].Text)
	w.discordSays("2001", w.discordMessages()[0].Text)
	w.twitchSays("ada", "so far on Twitch")
	w.discordSays("2001", "so far on Discord")
	w.adaSays("so far on the web")
	want[onTwitch] = append(want[onTwitch], "[discord] Chidi: so far on Discord", "[web] Ada: so far on the web")
	want[onDiscord] = append(want[onDiscord], "[twitch] Ada: so far on Twitch", "[web] Ada: so far on the web")
	want[onWeb] = append(want[onWeb], "[discord] Chidi: so far on Discord", "[twitch] Ada: so far on Twitch")
	w.receives(want)
	w.delivered(map[string]int{onTwitch: 4, onDiscord: 4, onWeb: 4})

	// The platforms send the bot its own messages; the bot must not become a user.
	for _, id := range []string{"twitch:9000", "discord:9000"} {
		if _, err := w.db.Doc("users/" + id).Get(t.Context()); err == nil {
			t.Errorf("%s became a user", id)
		}
	}
}

func (w *community) pingNoUser(t *testing.T) {
	w.begin(t)
	const loud = "@everyone @here <@2001> <@&3100>"
	if m := w.discordSays("2002", loud); !slices.Contains(m.Pings, "2001") {
		t.Fatalf("a message posted on Discord itself pings %v; want 2001 among them", m.Pings)
	}
	w.twitchSays("bruno", loud)
	const readable = "@everyone @here @Chidi @Players" // the names of Discord's mentions
	want := map[string][]string{
		onTwitch:  {"[discord] Dana: " + readable},
		onDiscord: {"[twitch] Bruno: " + loud},
		onWeb:     {"[discord] Dana: " + readable, "[twitch] Bruno: " + loud},
	}
	for _, line := range []string{loud, "/ban carl", ".timeout carl 600", "/me dances", "!ban carl", "@carl look", "\t/ban carl", "hi\n/ban carl"} {
		w.adaSays("!bare " + line)
		want[onTwitch] = append(want[onTwitch], strings.Join(strings.Fields(line), " "))
		want[onDiscord] = append(want[onDiscord], strings.TrimSpace(line))
	}
	w.receives(want)
	for _, m := range w.discordMessages() {
		if len(m.Pings)+len(m.Mentions)+len(m.MentionRoles) > 0 || m.MentionEveryone {
			t.Errorf("%q pings %v", m.Text, m.Pings)
		}
	}
	for _, l := range w.twitchLines() {
		if l.Action || strings.ContainsAny(l.Text[:1], "/.!") || mention.MatchString(l.Text) {
			t.Errorf("%q is more than plain text on Twitch", l.Text)
		}
	}
	if done := w.tw.Actions("bruno"); len(done) > 0 {
		t.Errorf("moderated: %+v", done)
	}
	w.delivered(map[string]int{onTwitch: 9, onDiscord: 9, onWeb: 2})
}

func (w *community) splitALongMessage(t *testing.T) {
	w.begin(t)
	var b strings.Builder
	for i := 0; b.Len() < 1890; i++ {
		fmt.Fprintf(&b, "word%d ", i)
	}
	long := strings.TrimSpace(b.String())
	w.discordSays("2002", long)
	whole := "[discord] Dana: " + long
	until(t, "the last part on Twitch", func() bool {
		lines := w.twitchLines()
		return len(lines) > 0 && strings.HasSuffix(whole, answer.StripMarks(lines[len(lines)-1].Text))
	})
	var ids []string
	for _, l := range w.twitchLines() {
		if n := len([]rune(l.Text)); n > 500 {
			t.Errorf("a line has %d characters", n)
		}
		ids = append(ids, l.ID)
	}
	texts := w.received()[onTwitch]
	if got := strings.Join(texts, " "); len(texts) != 4 || got != whole {
		t.Errorf("%d lines with the text %q; want 4 with %q", len(texts), got, whole)
	}
	until(t, "the message in the room", func() bool { return len(w.received()[onWeb]) > 0 })
	if got := w.received()[onWeb]; !slices.Equal(got, []string{whole}) {
		t.Errorf("the room received %q", got)
	}
	for _, e := range w.delivered(map[string]int{onTwitch: 1, onWeb: 1}) {
		if e.Channel == onTwitch && e.Note != strings.Join(ids, " ") {
			t.Errorf("the note of the delivery has the line ids %q; want %q", e.Note, ids)
		}
	}
}

func (w *community) refuseAtOneAddress(t *testing.T) {
	w.begin(t)
	w.allowOnDiscord(false)
	w.adaSays("not for Discord")
	w.adaSays("!everywhere how are you?")
	until(t, "two refusals", func() bool { return len(w.inState(delivery.Dead)) == 2 })
	w.allowOnDiscord(true)
	w.adaSays("back on Discord")
	until(t, "the last message at every address", func() bool {
		received := w.received()
		return len(received[onTwitch]) == 3 && len(received[onDiscord]) == 1 && len(received[onWeb]) == 1
	})
	until(t, "every outcome", func() bool { return len(w.inState(delivery.Pending, delivery.Claimed)) == 0 })
	states := map[string][]delivery.State{}
	for _, e := range w.ledger() {
		states[e.Channel] = append(states[e.Channel], e.State)
	}
	for _, s := range states {
		slices.Sort(s)
	}
	want := map[string][]delivery.State{
		onTwitch:  {delivery.Delivered, delivery.Delivered, delivery.Delivered},
		onDiscord: {delivery.Dead, delivery.Dead, delivery.Delivered},
		onWeb:     {delivery.Delivered}, // the room of the question
	}
	if diff := cmp.Diff(want, states); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	if got := w.received()[onDiscord]; !slices.Equal(got, []string{"[web] Ada: back on Discord"}) {
		t.Errorf("Discord received %q", got)
	}

	letters := map[string]deadletter.DeadLetter{}
	if err := deadletter.NewStore(w.db, time.Now).List(t.Context(), deadletter.Filter{}, func(l deadletter.DeadLetter) error {
		letters[l.ID] = l
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	refused := w.inState(delivery.Dead)
	for _, e := range refused {
		l := letters[e.ID]
		if e.Reason != string(deadletter.SenderRefused) || l.Reason != deadletter.SenderRefused || l.Attempts != 1 || !l.Delivery || !strings.Contains(l.Message, "Missing Permissions") {
			t.Errorf("the refusal %q of %s has the dead letter %+v", e.Reason, e.ID, l)
		}
	}
	if len(letters) != len(refused) { // no earlier dead letter either
		t.Errorf("%d dead letters; want one for each of %d refusals", len(letters), len(refused))
	}
}

// community is a Parley with three gateways, two users in a web room, and fakes of Twitch and Discord. The fakes have the
// same users and channels as the emulator's own fakes.
type community struct {
	t        *testing.T
	parley   *parley
	tw       *twitch.Server
	dc       *discord.Server
	channel  discord.Channel
	db       *firestore.Client
	ada, eve *client // both are members of the room

	messages       int             // sent by Ada
	toAda, toEve   []string        // received in the room
	receivedBefore map[string]int  // messages received before this subtest
	receivedNow    map[string]int  // messages received at the last check
	openedBefore   map[string]bool // deliveries before this subtest
	openedNow      map[string]bool // deliveries at the last check
}

func newCommunity(t *testing.T, speak string, args []string) *community {
	w := &community{t: t}
	var err error
	must := func(what error) {
		t.Helper()
		if what != nil {
			t.Fatal(what)
		}
	}
	w.tw, err = twitch.New(twitch.WithLimits(twitch.Limits{}))
	must(err)
	t.Cleanup(func() { w.tw.Close() })
	bot, err := w.tw.AddUser(twitch.User{ID: "9000", Login: "parley"})
	must(err)
	for id, login := range map[string]string{"1001": "Ada", "1002": "Bruno", "1003": "Carl"} {
		_, err := w.tw.AddUser(twitch.User{ID: id, Login: login, DisplayName: login})
		must(err)
	}
	must(w.tw.SetRole("bruno", bot.Login, twitch.Role{Moderator: true})) // a moderator could ban
	app, err := w.tw.AddApp(twitch.App{Name: bot.Login})
	must(err)

	w.dc, err = discord.New(discord.WithLimits(discord.Limits{}))
	must(err)
	t.Cleanup(func() { w.dc.Close() })
	onDiscord, err := w.dc.AddBot(discord.Bot{User: discord.User{ID: "9000", Name: bot.Login}, Privileged: discord.IntentMessageContent})
	must(err)
	for id, name := range map[string]string{"2001": "Chidi", "2002": "Dana"} {
		_, err := w.dc.AddUser(discord.User{ID: id, Name: strings.ToLower(name), GlobalName: name})
		must(err)
	}
	guild, err := w.dc.AddGuild(discord.Guild{ID: "3000", Name: "Parley", OwnerID: "2001"})
	must(err)
	w.channel, err = w.dc.AddChannel(discord.Channel{ID: "3002", GuildID: guild.ID, Name: "games"})
	must(err)
	role, err := w.dc.AddRole(discord.Role{ID: "3100", GuildID: guild.ID, Name: "Players", Mentionable: true})
	must(err)
	for _, id := range []string{onDiscord.ID, "2002"} {
		_, err := w.dc.AddMember(guild.ID, id, role.ID)
		must(err)
	}

	dir := t.TempDir()
	seed := filepath.Join(dir, "seed.yaml")
	must(os.WriteFile(seed, append(slices.Clone(defaultSeed), moreRules...), 0o600))
	platforms := map[string]string{
		"TWITCH_CLIENT_ID": app.ID, "TWITCH_CLIENT_SECRET": app.Secret, "TWITCH_BOT_USER_ID": bot.ID,
		"TWITCH_OAUTH_URL": w.tw.OAuthURL(), "TWITCH_API_URL": w.tw.HelixURL(), "TWITCH_EVENTSUB_URL": w.tw.EventSubURL(),
		"TWITCH_IRC_ADDR": w.tw.IRCAddr(), "TWITCH_IRC_TLS": "false", "TWITCH_CHANNELS": "bruno", "TWITCH_SPEAK": speak,
		"CREDENTIAL_KEY": "file:" + filepath.Join(dir, "key"), "PUBLIC_URL": "http://localhost",
		"DISCORD_BOT_TOKEN": onDiscord.Token, "DISCORD_API_URL": w.dc.APIURL(),
		"LEASE_SEATS": "1", "LEASE_TTL": "1m", // No channel moves during the test: Twitch has no history.
	}
	var environ []string
	for name, value := range platforms {
		environ = append(environ, name+"="+value)
	}
	p := start(t, environ, append([]string{"--gateways", "3", "--seed", seed}, args...)...)
	w.parley, w.db = p, firestoreClient(t, p)
	must(stack.LogInBot(t.Context(), w.tw, app, bot, platforms, w.db))
	until(t, "the bot to be on Twitch", func() bool { return slices.Equal(w.tw.Joined("bruno"), []string{bot.Login}) })
	until(t, "the bot to be on Discord", func() bool { return w.dc.Connected(onDiscord.ID) == 1 })
	w.ada, w.eve = connect(t, p, 0, "twitch:1001"), connect(t, p, 1, "api-gateway:eve")
	w.ada.join("games")
	w.eve.join("games")
	return w
}

// begin begins a subtest. Messages and deliveries of earlier subtests are ignored.
func (w *community) begin(t *testing.T) {
	w.t, w.ada.t, w.eve.t = t, t, t
	w.receivedBefore, w.openedBefore = w.receivedNow, w.openedNow
}

func (w *community) twitchSays(login, text string) {
	w.t.Helper()
	if _, err := w.tw.Say("bruno", login, text); err != nil {
		w.t.Fatal(err)
	}
}

func (w *community) discordSays(id, text string) discord.Message {
	w.t.Helper()
	m, err := w.dc.Say(w.channel.ID, id, text)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

func (w *community) adaSays(text string) {
	w.t.Helper()
	w.messages++
	w.ada.say(fmt.Sprint(w.messages), text, "games")
}

// allowOnDiscord allows or forbids the bot to send messages in the channel.
func (w *community) allowOnDiscord(may bool) {
	w.t.Helper()
	c := w.channel
	if !may {
		c.Overwrites = []discord.Overwrite{{ID: "9000", Deny: discord.SendMessages}}
	}
	if _, err := w.dc.AddChannel(c); err != nil {
		w.t.Fatal(err)
	}
}

// twitchLines and discordMessages return the bot's messages of this subtest.
func (w *community) twitchLines() []twitch.Line {
	all := slices.DeleteFunc(w.tw.Said("bruno"), func(l twitch.Line) bool { return l.Login != "parley" })
	return all[w.receivedBefore[onTwitch]:]
}

func (w *community) discordMessages() []discord.Message {
	all := slices.DeleteFunc(w.dc.Said(w.channel.ID), func(m discord.Message) bool { return m.Author.ID != "9000" })
	return all[w.receivedBefore[onDiscord]:]
}

// escaped matches a character that Discord shows without markup, and without the backslash.
var escaped = regexp.MustCompile(`\\([^0-9A-Za-z\s])`)

// received returns the bot's messages of this subtest, by address, as shown to people.
func (w *community) received() map[string][]string {
	w.t.Helper()
	w.toAda, w.toEve = drain(w.ada, w.toAda), drain(w.eve, w.toEve)
	both := min(len(w.toAda), len(w.toEve))
	if !slices.Equal(w.toAda[:both], w.toEve[:both]) {
		w.t.Fatalf("one member of the room received %q, the other %q", w.toAda, w.toEve)
	}
	received := map[string][]string{onWeb: slices.Clone(w.toEve[w.receivedBefore[onWeb]:both])}
	for _, l := range w.twitchLines() {
		received[onTwitch] = append(received[onTwitch], answer.StripMarks(l.Text))
	}
	for _, m := range w.discordMessages() {
		received[onDiscord] = append(received[onDiscord], escaped.ReplaceAllString(answer.StripMarks(m.Text), "$1"))
	}
	w.receivedNow = map[string]int{}
	for _, address := range []string{onTwitch, onDiscord, onWeb} {
		w.receivedNow[address] = w.receivedBefore[address] + len(received[address])
	}
	return received
}

// drain appends the received messages, without the invisible mark of relayed messages.
func drain(c *client, got []string) []string {
	c.t.Helper()
	for {
		select {
		case m, ok := <-c.frames:
			if !ok || m.Type != "chat.message.received" {
				c.t.Fatalf("got %+v (open: %t); want a message", m, ok)
			}
			got = append(got, answer.RemoveMark(m.Payload.Text))
		default:
			return got
		}
	}
}

// receives waits for the expected number of messages at each address, and compares the messages. Messages of different
// people have no order.
func (w *community) receives(want map[string][]string) {
	w.t.Helper()
	var received map[string][]string
	until(w.t, "every message at every address", func() bool {
		received = w.received()
		for address, texts := range want {
			if len(received[address]) < len(texts) {
				return false
			}
		}
		return true
	})
	for _, all := range []map[string][]string{received, want} {
		for _, texts := range all {
			slices.Sort(texts)
		}
	}
	if diff := cmp.Diff(want, received); diff != "" {
		w.t.Fatalf("received (-want +got):\n%s", diff)
	}
}

// ledger returns the deliveries of this subtest.
func (w *community) ledger() (all []delivery.Entry) {
	w.t.Helper()
	snaps, err := w.db.Collection("deliveries").Documents(w.t.Context()).GetAll()
	if err != nil {
		w.t.Fatal(err)
	}
	w.openedNow = map[string]bool{}
	for _, snap := range snaps {
		w.openedNow[snap.Ref.ID] = true
		if w.openedBefore[snap.Ref.ID] {
			continue
		}
		var e delivery.Entry
		if err := snap.DataTo(&e); err != nil {
			w.t.Fatal(err)
		}
		e.ID = snap.Ref.ID
		all = append(all, e)
	}
	return all
}

func (w *community) inState(states ...delivery.State) []delivery.Entry {
	w.t.Helper()
	return slices.DeleteFunc(w.ledger(), func(e delivery.Entry) bool { return !slices.Contains(states, e.State) })
}

// delivered waits until every delivery of this subtest is settled. It expects all deliveries to be delivered, each for
// a different relayed message, with the given number per address.
func (w *community) delivered(want map[string]int) []delivery.Entry {
	w.t.Helper()
	until(w.t, "every outcome", func() bool { return len(w.inState(delivery.Pending, delivery.Claimed)) == 0 })
	entries := w.ledger()
	got, lines := map[string]int{}, map[string]bool{}
	for _, e := range entries {
		decoded, err := event.Decode(e.Event)
		if err != nil {
			w.t.Fatal(err)
		}
		line := e.CorrelationID + " in " + e.Channel
		if relay := decoded.Egress.Relay; e.State != delivery.Delivered || relay == nil || relay.Channel == e.Channel || lines[line] {
			w.t.Errorf("%s, %s: %s, relayed as %+v", e.ID, line, e.State, relay)
		}
		lines[line] = true
		got[e.Channel]++
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("deliveries (-want +got):\n%s", diff)
	}
	return entries
}
