package discord

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	fake "parley.internal/emulator/discord"
	"parley.internal/gateway/gatewaytest"
	"parley.internal/shared/bus"
	"parley.internal/shared/credential"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/lease"
	"parley.internal/shared/topology"
)

const patience = gatewaytest.Patience

var eventually = gatewaytest.Eventually

// The tests use shorter times than production.
var (
	quickLease  = lease.Config{TTL: 2 * time.Second, Heartbeat: 120 * time.Millisecond, MaxMembers: 8}
	steadyLease = lease.Config{TTL: 2 * patience, Heartbeat: 120 * time.Millisecond, MaxMembers: 8} // for tests without a crash: no lease expires, even on a slow machine
	quickTiming = timing{
		handshake: 2 * time.Second, write: time.Second, identify: 100 * time.Millisecond,
		minBackoff: 20 * time.Millisecond, maxBackoff: 200 * time.Millisecond, operatorRetry: 300 * time.Millisecond,
		maxOffline: 600 * time.Millisecond,
		scan:       250 * time.Millisecond, retry: 50 * time.Millisecond, claim: 3 * time.Second, watermark: 30 * time.Millisecond,
		flush: 400 * time.Millisecond,
	}
)

// world is a Discord, a Pub/Sub and a Firestore for one test. Its guild has the members owner, alice and the bot.
type world struct {
	*gatewaytest.World
	t            *testing.T
	discord      *fake.Server
	firestore    *firestore.Client
	ledger       *delivery.Ledger
	sender       *delivery.Sender
	bot          fake.Bot
	owner, alice fake.User
	guild        fake.Guild
	room         fake.Channel
	lease        lease.Config
	metrics      []*prometheus.Registry // one per instance
}

func newWorld(t *testing.T, opts ...fake.Option) *world {
	t.Helper()
	w := &world{t: t, lease: steadyLease}
	var err error
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	w.discord, err = fake.New(append([]fake.Option{fake.WithLimits(fake.Limits{})}, opts...)...)
	must(err)
	t.Cleanup(func() { w.discord.Close() })
	w.bot, err = w.discord.AddBot(fake.Bot{User: fake.User{Name: "parleybot"}, Privileged: fake.IntentMessageContent | fake.IntentGuildMembers})
	must(err)
	w.owner, w.alice = w.user("owner"), w.user("alice")
	w.guild, err = w.discord.AddGuild(fake.Guild{Name: "Home", OwnerID: w.owner.ID})
	must(err)
	w.room = w.channel("general")
	w.join(w.alice.ID)
	w.join(w.bot.ID)

	w.World = gatewaytest.NewWorld(t)
	w.firestore, w.ledger, w.sender = w.Firestore, w.Ledger, w.Sender
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) user(name string) fake.User {
	w.t.Helper()
	u, err := w.discord.AddUser(fake.User{Name: name, GlobalName: strings.ToUpper(name[:1]) + name[1:]})
	w.must(err)
	return u
}

func (w *world) channel(name string, overwrites ...fake.Overwrite) fake.Channel {
	w.t.Helper()
	c, err := w.discord.AddChannel(fake.Channel{GuildID: w.guild.ID, Name: name, Overwrites: overwrites})
	w.must(err)
	return c
}

func (w *world) join(userID string, roles ...string) {
	w.t.Helper()
	_, err := w.discord.AddMember(w.guild.ID, userID, roles...)
	w.must(err)
}

// ask sends a message of alice to a channel.
func (w *world) ask(channel fake.Channel, text string, opts ...fake.SayOption) fake.Message {
	w.t.Helper()
	m, err := w.discord.Say(channel.ID, w.alice.ID, text, opts...)
	w.must(err)
	return m
}

// events returns the published events of a type. An empty type returns all events.
func (w *world) events(kind string) []*event.Event { return w.Events(kind) }

// times returns how often each message was published, by Discord's id.
func (w *world) times() map[string]int {
	n := map[string]int{}
	for _, e := range w.events(event.TypeChatMessage) {
		if e.CorrelationID != "discord:"+e.Message.ID {
			w.t.Errorf("message %s has the correlation id %s", e.Message.ID, e.CorrelationID)
		}
		n[e.Message.ID]++
	}
	return n
}

// published waits until every message is published, and fails the test if a message is published twice. An instance that
// loses its lease, as on a very slow machine, may publish a message again with the same correlation id.
func (w *world) published(messages ...fake.Message) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("%d messages are events", len(messages)), func() bool {
		n := w.times()
		return !slices.ContainsFunc(messages, func(m fake.Message) bool { return n[m.ID] == 0 })
	})
	if w.leaseLost() {
		w.t.Log("an instance lost its lease")
		return
	}
	n := w.times()
	for _, m := range messages {
		if n[m.ID] != 1 {
			w.t.Errorf("%q was published %d times", m.Text, n[m.ID])
		}
	}
}

func (w *world) leaseLost() bool {
	w.t.Helper()
	for _, reg := range w.metrics {
		families, err := reg.Gather()
		w.must(err)
		for _, f := range families {
			if strings.HasSuffix(f.GetName(), "sessions_lost_total") && f.GetMetric()[0].GetCounter().GetValue() > 0 {
				return true
			}
		}
	}
	return false
}

// marked waits until a message is covered by its channel's watermark.
func (w *world) marked(m fake.Message) {
	w.t.Helper()
	eventually(w.t, "the watermark is written", func() bool {
		snap, err := w.firestore.Collection("watermarks").Doc("discord:" + m.ChannelID).Get(w.t.Context())
		if status.Code(err) == codes.NotFound {
			return false
		}
		w.must(err)
		var mark watermark
		w.must(snap.DataTo(&mark))
		last, _ := parseSnowflake(mark.Last)
		id, _ := parseSnowflake(m.ID)
		return last >= id
	})
}

// answered is a sent answer: the id of its delivery and its text.
type answered struct{ id, text string }

// answer sends an answer to a message.
func (w *world) answer(m fake.Message, text string, adjust ...func(*event.Event)) answered {
	w.t.Helper()
	e := &event.Event{
		V: event.Version, Source: Source, CorrelationID: "discord:" + m.ID, Type: event.TypeChatMessage,
		Channel: Channel(m.ChannelID), UserID: "discord:" + m.Author.ID,
		Message:    &event.Message{ID: m.ID, Role: event.RoleUser, Text: m.Text},
		Egress:     &event.Egress{Destination: "discord", Type: event.EgressChat},
		Candidates: []event.Candidate{{ID: "c", Text: text}},
	}
	for _, f := range adjust {
		f(e)
	}
	id, err := w.sender.Send(w.t.Context(), e, text)
	w.must(err)
	return answered{id, text}
}

func privately(e *event.Event) { e.Egress.Type = event.EgressDM }

func (w *world) entry(a answered) delivery.Entry {
	w.t.Helper()
	return w.Entry(a.id)
}

func (w *world) reaches(a answered, state delivery.State) delivery.Entry {
	w.t.Helper()
	return w.Reaches(a.id, a.text, state)
}

// refused waits until an answer is dead, and checks the reason and the text of its dead letter.
func (w *world) refused(a answered, why deadletter.Reason, says string) {
	w.t.Helper()
	e := w.reaches(a, delivery.Dead)
	if e.Reason != string(why) || !strings.Contains(e.Message, says) {
		w.t.Errorf("%.40q: reason = %s (%s); want %s with %q", a.text, e.Reason, e.Message, why, says)
	}
	l, err := deadletter.NewStore(w.firestore, time.Now).Get(w.t.Context(), a.id)
	if err != nil || l.Reason != why {
		w.t.Errorf("%.40q: dead letter = %+v, %v; want one with reason %s", a.text, l, err, why)
	}
}

// sent returns the bot's messages in a channel.
func (w *world) sent(channelID string) []fake.Message {
	return slices.DeleteFunc(w.discord.Said(channelID), func(m fake.Message) bool { return m.Author.ID != w.bot.ID })
}

// once fails the test unless each answer was sent exactly once.
func (w *world) once(channelID string, answers ...answered) {
	w.t.Helper()
	n := map[string]int{}
	for _, m := range w.sent(channelID) {
		n[m.Text]++
	}
	for _, a := range answers {
		if n[a.text] != 1 {
			w.t.Errorf("%q was sent %d times", a.text, n[a.text])
		}
	}
}

func (w *world) gaps() int {
	w.t.Helper()
	docs, err := w.firestore.Collection("gaps").Documents(w.t.Context()).GetAll()
	w.must(err)
	return len(docs)
}

// connected waits until exactly one instance is connected.
func (w *world) connected() {
	w.t.Helper()
	eventually(w.t, "the bot is connected", func() bool { return w.discord.Connected(w.bot.ID) == 1 })
}

// running is a running instance with its own network.
type running struct {
	*Service
	*gatewaytest.Network
	name string
	bus  *bus.Client
	stop func()
	mute atomic.Bool // Pub/Sub is unreachable
}

// kill ends an instance at once, like a crash.
func (m *running) kill() {
	m.Kill()
	m.stop()
}

// silence makes Pub/Sub unreachable for the instance, or reachable again.
func (m *running) silence(mute bool) { m.mute.Store(mute) }

// lose makes Firestore unreachable for the instance, or reachable again.
func (m *running) lose(lost bool) { m.Lose(lost) }

// cutOff cuts the instance's connections to Discord's gateway. Firestore and Pub/Sub stay reachable.
func (m *running) cutOff() { m.Cut() }

// Publish implements [Publisher].
func (m *running) Publish(ctx context.Context, t topology.Topic, out bus.Outgoing) error {
	if err := m.Alive(); err != nil {
		return err
	}
	if m.mute.Load() {
		return errors.New("Pub/Sub is unreachable")
	}
	return m.bus.Publish(ctx, t, out)
}

// start runs an instance until the end of the test. adjust changes the service before it runs.
func (w *world) start(name string, adjust ...func(*Service)) *running {
	w.t.Helper()
	m := w.instance(name)
	for _, f := range adjust {
		f(m.Service)
	}
	m.stop = w.Run(name, m.bus, m.Run, m.Deliver)
	return m
}

// instance makes an instance without running it.
func (w *world) instance(name string) *running {
	w.t.Helper()
	m := &running{name: name, Network: gatewaytest.NewNetwork(), bus: w.Bus("gateway")}
	client := m.Store(w.World)
	ledger := delivery.NewLedger(client, name, time.Now)
	c := Config{
		Token: credential.NewSecret(w.bot.Token), APIURL: w.discord.APIURL(), AnswerTimeout: 20 * time.Second,
		BackfillAge: time.Hour, BackfillMessages: 1000, Members: true,
	}
	w.must(c.Validate())
	metrics := prometheus.NewRegistry()
	w.metrics = append(w.metrics, metrics)
	var err error
	m.Service, err = New(c, Dependencies{
		Instance: name, Firestore: client, Ledger: ledger,
		Reaper:    delivery.NewReaper(ledger, deadletter.NewStore(client, time.Now), m.bus, "gateway", time.Second),
		Publisher: m, Lease: w.lease, Log: slog.New(slog.NewTextHandler(w.t.Output(), nil)).With("i", name), Metrics: metrics,
		HTTP: &http.Client{Transport: m.Network}, Dial: m.Dial,
	})
	w.must(err)
	m.timing = quickTiming
	return m
}

// impatient shortens the timeout of requests, for tests with missing responses. It is too short for a slow machine.
func impatient(s *Service) { s.rest.timeout = 400 * time.Millisecond }

// holder returns the instance that holds the lease and is connected, or nil.
func holder(among ...*running) *running {
	for _, m := range among {
		m.Service.mu.Lock()
		d := m.dispatcher
		m.Service.mu.Unlock()
		if d != nil && d.lease.Valid() && d.gateway.connected.Load() && m.Alive() == nil {
			return m
		}
	}
	return nil
}

// settled waits until all instances are members and the lease stays with one of them. It returns this instance.
func (w *world) settled(among ...*running) *running {
	w.t.Helper()
	eventually(w.t, "the lease is settled", func() bool {
		return holder(among...) != nil && !slices.ContainsFunc(among, func(m *running) bool {
			return m.leases.Members() != len(among) || m.leases.Moving() != 0
		})
	})
	return holder(among...)
}

func counter(c prometheus.Metric) float64 {
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		panic(err)
	}
	return m.GetCounter().GetValue()
}
