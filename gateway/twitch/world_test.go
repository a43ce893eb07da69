package twitch

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/prometheus/client_golang/prometheus"

	fake "parley.internal/emulator/twitch"
	"parley.internal/gateway/gatewaytest"
	"parley.internal/gateway/twitch/eventsub"
	"parley.internal/shared/credential"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/lease"
)

var eventually = gatewaytest.Eventually

// The durations are shorter than in production.
var (
	quickLease  = lease.Config{TTL: 2500 * time.Millisecond, Heartbeat: 120 * time.Millisecond, MaxMembers: 8}
	steadyLease = lease.Config{TTL: 2 * gatewaytest.Patience, Heartbeat: 120 * time.Millisecond, MaxMembers: 8} // for tests without a death; no lease expires on a slow machine
	quickTiming = timing{
		ping: 4 * time.Second, join: 400 * time.Millisecond, minBackoff: 20 * time.Millisecond,
		maxBackoff: 200 * time.Millisecond, reconnect: 300 * time.Millisecond, scan: 250 * time.Millisecond,
		retry: 50 * time.Millisecond, pass: 50 * time.Millisecond, claim: 3 * time.Second, flush: time.Second,
		linger: 400 * time.Millisecond, publishDelay: 50 * time.Millisecond,
	}
	quickEventSub = eventsub.Timing{
		Slack: time.Second, Linger: 100 * time.Millisecond, Refresh: 300 * time.Millisecond, Limit: 200 * time.Millisecond,
		Retry: 50 * time.Millisecond, MinBackoff: 20 * time.Millisecond, MaxBackoff: 200 * time.Millisecond, Request: 2 * time.Second,
	}
	noLimits = limits{joins: 1000, messages: 1000, moderatorMessages: 1000, joinWindow: time.Second, messageWindow: time.Second}
)

// world is a test's Twitch, bus and store.
type world struct {
	*gatewaytest.World
	t         *testing.T
	twitch    *fake.Server
	firestore *firestore.Client
	ledger    *delivery.Ledger
	sender    *delivery.Sender
	app       fake.App
	bot       fake.User
	tokens    *tokens
	lease     lease.Config
	members   []*member
}

func newWorld(t *testing.T, scopes []string, opts ...fake.Option) *world {
	t.Helper()
	w := &world{t: t, lease: steadyLease}
	var err error
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	w.twitch, err = fake.New(append([]fake.Option{fake.WithLimits(fake.Limits{})}, opts...)...)
	must(err)
	t.Cleanup(func() { w.twitch.Close() })
	w.bot, err = w.twitch.AddUser(fake.User{Login: "parleybot", DisplayName: "ParleyBot"})
	must(err)
	w.app, err = w.twitch.AddApp(fake.App{})
	must(err)
	w.tokens = &tokens{world: w, scopes: append([]string{"chat:read", "chat:edit"}, scopes...)}
	w.tokens.renew()

	w.World = gatewaytest.NewWorld(t)
	w.firestore, w.ledger, w.sender = w.Firestore, w.Ledger, w.Sender
	return w
}

// channel makes a Twitch channel with the bot as a moderator.
func (w *world) channel(login string) string {
	w.t.Helper()
	if _, err := w.twitch.AddUser(fake.User{Login: login}); err != nil {
		w.t.Fatal(err)
	}
	if err := w.twitch.SetRole(login, w.bot.Login, fake.Role{Moderator: true}); err != nil {
		w.t.Fatal(err)
	}
	return login
}

func (w *world) user(login string) fake.User {
	w.t.Helper()
	u, err := w.twitch.AddUser(fake.User{Login: login, DisplayName: strings.ToUpper(login[:1]) + login[1:], Color: "#1E90FF"})
	if err != nil {
		w.t.Fatal(err)
	}
	return u
}

func (w *world) say(channel, login, text string, opts ...fake.SayOption) fake.Line {
	w.t.Helper()
	l, err := w.twitch.Say(channel, login, text, opts...)
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

// events returns the published events of a type; all for an empty type.
func (w *world) events(kind string) []*event.Event { return w.Events(kind) }

// answered is the delivery id and the text of an answer.
type answered struct{ id, text string }

// answer sends an answer to a message.
func (w *world) answer(line fake.Line, text string) answered {
	w.t.Helper()
	e := &event.Event{
		V: event.Version, Source: sourceChat, CorrelationID: "twitch:" + line.ID, Type: event.TypeChatMessage,
		Channel: channelName(line.Channel), UserID: "twitch:" + line.UserID,
		Message:    &event.Message{ID: line.ID, Role: event.RoleUser, Text: line.Text},
		Egress:     &event.Egress{Destination: "twitch", Type: event.EgressChat},
		Candidates: []event.Candidate{{ID: "c", Text: text}},
	}
	id, err := w.sender.Send(w.t.Context(), e, text)
	if err != nil {
		w.t.Fatal(err)
	}
	return answered{id, text}
}

func (w *world) entry(a answered) delivery.Entry {
	w.t.Helper()
	return w.Entry(a.id)
}

func (w *world) reaches(a answered, state delivery.State) delivery.Entry {
	w.t.Helper()
	return w.Reaches(a.id, a.text, state)
}

// sent returns the bot's messages in a channel.
func (w *world) sent(channel string) []fake.Line {
	return slices.DeleteFunc(w.twitch.Said(channel), func(l fake.Line) bool { return l.UserID != w.bot.ID })
}

// tokens provides the bot's token, a successor for an invalid token, and the tokens of users who have logged in.
type tokens struct {
	world  *world
	scopes []string

	mu        sync.Mutex
	current   credential.Token
	access    string
	refreshed int
	loggedOut bool  // the bot has no login
	invalid   error // of Invalid for the bot; nil for a successor
	others    map[identity.UserID]credential.Token
}

func (s *tokens) renew() {
	t, err := s.world.twitch.AddToken(fake.Token{UserID: s.world.bot.ID, ClientID: s.world.app.ID, Scopes: s.scopes})
	if err != nil {
		s.world.t.Fatal(err)
	}
	id, _ := identity.New(identity.Twitch, s.world.bot.ID)
	s.access = t.Access
	s.current = credential.Token{User: id, Access: credential.NewSecret(t.Access), Scopes: s.scopes, Login: s.world.bot.Login}
}

func (s *tokens) Token(_ context.Context, id identity.UserID) (credential.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id == s.current.User && !s.loggedOut {
		return s.current, nil
	}
	t, ok := s.others[id]
	if !ok {
		return credential.Token{}, &credential.LoginNeeded{User: id, Why: "nobody has logged in as this user"}
	}
	return t, nil
}

func (s *tokens) Invalid(_ context.Context, id identity.UserID, used credential.Token) (credential.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id != s.current.User {
		return credential.Token{}, &credential.LoginNeeded{User: id, Why: "its authorization was withdrawn"}
	}
	if s.invalid != nil {
		return credential.Token{}, s.invalid
	}
	if used.Access.Equal(s.current.Access) {
		s.refreshed++
		s.renew()
	}
	return s.current, nil
}

// logIn logs a broadcaster in.
func (w *world) logIn(login string, scopes ...string) {
	w.t.Helper()
	u, ok := w.twitch.User(login)
	if !ok {
		w.t.Fatalf("there is no %s", login)
	}
	t, err := w.twitch.AddToken(fake.Token{UserID: u.ID, ClientID: w.app.ID, Scopes: scopes})
	if err != nil {
		w.t.Fatal(err)
	}
	id, _ := identity.New(identity.Twitch, u.ID)
	w.tokens.mu.Lock()
	defer w.tokens.mu.Unlock()
	if w.tokens.others == nil {
		w.tokens.others = map[identity.UserID]credential.Token{}
	}
	w.tokens.others[id] = credential.Token{User: id, Access: credential.NewSecret(t.Access), Scopes: scopes, Login: login}
}

func (s *tokens) revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.world.twitch.Revoke(s.access)
}

// member is an instance that can be killed.
type member struct {
	*Service
	*gatewaytest.Network
	name string
	stop func()
}

// kill ends an instance at once, with all its connections.
func (m *member) kill() {
	m.Kill()
	m.stop()
}

// start runs an instance with these channels.
func (w *world) start(name, transport string, channels []string, adjust ...func(*Service)) *member {
	w.t.Helper()
	m := &member{name: name, Network: gatewaytest.NewNetwork()}
	client, b := m.Store(w.World), w.Bus("gateway")
	ledger := delivery.NewLedger(client, name, time.Now)
	c := Config{
		Channels: channels, Transport: transport, IRCAddr: w.twitch.IRCAddr(), EventSubURL: w.twitch.EventSubURL(),
		ReplyTimeout: 20 * time.Second,
	}
	if err := c.Validate(); err != nil {
		w.t.Fatal(err)
	}
	var err error
	m.Service, err = New(c, Dependencies{
		Instance: name, App: credential.TwitchConfig{ClientID: w.app.ID, BotUserID: w.bot.ID, APIURL: w.twitch.HelixURL()}, Tokens: w.tokens, Firestore: client, Ledger: ledger,
		Reaper:    delivery.NewReaper(ledger, deadletter.NewStore(client, time.Now), b, "gateway", time.Second),
		Publisher: b, Lease: w.lease, Log: slog.New(slog.NewTextHandler(w.t.Output(), nil)).With("i", name), Metrics: prometheus.NewRegistry(),
		HTTP: &http.Client{Transport: m.Network}, Dial: m.Dial, EventSubTiming: quickEventSub,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	m.timing, m.limits = quickTiming, noLimits
	for _, f := range adjust {
		f(m.Service)
	}
	m.chat.timing, m.chat.limits = m.timing, m.limits
	m.sends.window, m.chat.joinPacer.window = m.limits.messageWindow, m.limits.joinWindow

	m.stop = w.Run(name, b, m.Run, m.Deliver)
	w.members = append(w.members, m)
	return m
}

// impatient shortens the wait for Twitch's answer, for tests without an answer. Other tests must tolerate a slow machine.
func impatient(s *Service) {
	s.config.ReplyTimeout, s.chat.config.ReplyTimeout = time.Second, time.Second
}

// owner returns the instance with a channel's lease; nil for none.
func owner(login string, among ...*member) *member {
	for _, m := range among {
		m.Service.mu.Lock()
		sp := m.dispatchers[login]
		m.Service.mu.Unlock()
		if sp != nil && sp.lease.Valid() && m.Alive() == nil {
			return m
		}
	}
	return nil
}

// in reports whether an instance has joined a channel.
func (m *member) in(login string) bool {
	m.chat.mu.Lock()
	defer m.chat.mu.Unlock()
	r := m.chat.channels[login]
	return r != nil && r.joined
}

// settled waits until exactly these instances share the channels, and no lease moves.
func (w *world) settled(among ...*member) {
	w.t.Helper()
	eventually(w.t, fmt.Sprint("the channels stay where they are, on ", len(among)), func() bool {
		return !slices.ContainsFunc(among, func(m *member) bool { return m.leases.Members() != len(among) || m.leases.Moving() != 0 })
	})
}

// joined waits until only the owner of each channel has joined. An instance that released a channel lingers, and leaves the
// events of EventSub to the owner.
func (w *world) joined(channels ...string) {
	w.t.Helper()
	for _, c := range channels {
		eventually(w.t, "the bot is in "+c, func() bool {
			return slices.Equal(w.twitch.Joined(c), []string{w.bot.Login}) && slices.ContainsFunc(w.members, func(m *member) bool { return m.in(c) && owner(c, m) != nil })
		})
	}
}
