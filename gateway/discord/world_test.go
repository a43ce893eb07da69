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

	standin "parley.internal/emulator/discord"
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

// The timings of the tests are those of production in fast motion.
var (
	quickLease  = lease.Config{TTL: time.Second, Heartbeat: 120 * time.Millisecond, MaxMembers: 8}
	steadyLease = lease.Config{TTL: 2 * patience, Heartbeat: 120 * time.Millisecond, MaxMembers: 8} // where nobody dies, nor is thought to
	quickTiming = timing{
		hello: 2 * time.Second, write: time.Second, identify: 100 * time.Millisecond,
		minBackoff: 20 * time.Millisecond, maxBackoff: 200 * time.Millisecond, hopeless: 300 * time.Millisecond,
		stranded: 600 * time.Millisecond,
		scan:     250 * time.Millisecond, retry: 50 * time.Millisecond, claim: 3 * time.Second, mark: 30 * time.Millisecond,
		flush: 400 * time.Millisecond,
	}
)

// world is a Discord, a bus and a store of a test's own. In its guild are the owner, alice and the bot.
type world struct {
	*gatewaytest.World
	t            *testing.T
	discord      *standin.Server
	firestore    *firestore.Client
	ledger       *delivery.Ledger
	sender       *delivery.Sender
	bot          standin.Bot
	owner, alice standin.User
	guild        standin.Guild
	room         standin.Channel
	lease        lease.Config
	metrics      []*prometheus.Registry // of all instances
}

func newWorld(t *testing.T, opts ...standin.Option) *world {
	t.Helper()
	w := &world{t: t, lease: steadyLease}
	var err error
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	w.discord, err = standin.New(append([]standin.Option{standin.WithLimits(standin.Limits{})}, opts...)...)
	must(err)
	t.Cleanup(func() { w.discord.Close() })
	w.bot, err = w.discord.AddBot(standin.Bot{User: standin.User{Name: "parleybot"}, Privileged: standin.IntentMessageContent | standin.IntentGuildMembers})
	must(err)
	w.owner, w.alice = w.user("owner"), w.user("alice")
	w.guild, err = w.discord.AddGuild(standin.Guild{Name: "Home", OwnerID: w.owner.ID})
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

func (w *world) user(name string) standin.User {
	w.t.Helper()
	u, err := w.discord.AddUser(standin.User{Name: name, GlobalName: strings.ToUpper(name[:1]) + name[1:]})
	w.must(err)
	return u
}

func (w *world) channel(name string, overwrites ...standin.Overwrite) standin.Channel {
	w.t.Helper()
	c, err := w.discord.AddChannel(standin.Channel{GuildID: w.guild.ID, Name: name, Overwrites: overwrites})
	w.must(err)
	return c
}

func (w *world) join(userID string, roles ...string) {
	w.t.Helper()
	_, err := w.discord.AddMember(w.guild.ID, userID, roles...)
	w.must(err)
}

// ask has alice say something in a channel.
func (w *world) ask(channel standin.Channel, text string, opts ...standin.SayOption) standin.Message {
	w.t.Helper()
	m, err := w.discord.Say(channel.ID, w.alice.ID, text, opts...)
	w.must(err)
	return m
}

// events are what was published on ingress, of one type; all if it is empty.
func (w *world) events(kind string) []*event.Event { return w.Events(kind) }

// times is how often each message was published, by Discord's id.
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

// heard waits until every one of these messages is an event, and fails the test if one is more than one. Only an
// instance that loses its lease, as on a very slow machine, may leave something to be published by the same correlation
// id once more.
func (w *world) heard(messages ...standin.Message) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("%d messages are events", len(messages)), func() bool {
		n := w.times()
		return !slices.ContainsFunc(messages, func(m standin.Message) bool { return n[m.ID] == 0 })
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

// marked waits until the watermark of a channel is at a message.
func (w *world) marked(m standin.Message) {
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

// answered is the text of an answer, and under which name the ledger has it.
type answered struct{ id, text string }

// answer sends an answer to a message.
func (w *world) answer(m standin.Message, text string, adjust ...func(*event.Event)) answered {
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

// refused waits until an answer is dead, and checks that its dead letter says why.
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

// said is what the bot said in a channel.
func (w *world) said(channelID string) []standin.Message {
	return slices.DeleteFunc(w.discord.Said(channelID), func(m standin.Message) bool { return m.Author.ID != w.bot.ID })
}

// once fails the test unless each of the answers was said once.
func (w *world) once(channelID string, answers ...answered) {
	w.t.Helper()
	n := map[string]int{}
	for _, m := range w.said(channelID) {
		n[m.Text]++
	}
	for _, a := range answers {
		if n[a.text] != 1 {
			w.t.Errorf("%q was said %d times", a.text, n[a.text])
		}
	}
}

func (w *world) gaps() int {
	w.t.Helper()
	docs, err := w.firestore.Collection("gaps").Documents(w.t.Context()).GetAll()
	w.must(err)
	return len(docs)
}

// connected waits until one instance has the bot's session, and nobody else.
func (w *world) connected() {
	w.t.Helper()
	eventually(w.t, "the bot is connected", func() bool { return w.discord.Connected(w.bot.ID) == 1 })
}

// running is an instance with all that it needs, which can be killed.
type running struct {
	*Service
	*gatewaytest.Network
	name string
	bus  *bus.Client
	stop func()
	mute atomic.Bool // does not reach the bus
}

// kill ends an instance at once: nothing of it reaches anybody any more.
func (m *running) kill() {
	m.Kill()
	m.stop()
}

// silence takes the bus away, or gives it back.
func (m *running) silence(mute bool) { m.mute.Store(mute) }

// lose takes the store away, or gives it back.
func (m *running) lose(lost bool) { m.Lose(lost) }

// cutOff takes the gateway away from an instance that goes on otherwise.
func (m *running) cutOff() { m.Cut() }

// Publish makes the instance its own publisher.
func (m *running) Publish(ctx context.Context, t topology.Topic, out bus.Outgoing) error {
	if err := m.Alive(); err != nil {
		return err
	}
	if m.mute.Load() {
		return errors.New("the bus is down")
	}
	return m.bus.Publish(ctx, t, out)
}

// start runs an instance.
func (w *world) start(name string, adjust ...func(*Service)) *running {
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
	for _, f := range adjust {
		f(m.Service)
	}
	m.stop = w.Run(name, m.bus, m.Run, m.Deliver)
	return m
}

// impatient is for tests in which an answer never comes; in others a slow machine is not to be taken for that.
func impatient(s *Service) { s.rest.timeout = 400 * time.Millisecond }

// owner is who of some instances has the session; nil if none does.
func owner(among ...*running) *running {
	for _, m := range among {
		m.Service.mu.Lock()
		sp := m.speaker
		m.Service.mu.Unlock()
		if sp != nil && sp.lease.Valid() && sp.gateway.up.Load() && m.Alive() == nil {
			return m
		}
	}
	return nil
}

// settled waits until these are the instances that take part, one has the session, and it stays there.
func (w *world) settled(among ...*running) *running {
	w.t.Helper()
	eventually(w.t, "the session stays where it is", func() bool {
		return owner(among...) != nil && !slices.ContainsFunc(among, func(m *running) bool {
			return m.leases.Members() != len(among) || m.leases.Moving() != 0
		})
	})
	return owner(among...)
}

// discard publishes nothing: what is sent by it is only in the ledger.
type discard struct{}

func (discard) Publish(context.Context, topology.Topic, bus.Outgoing) error { return nil }

func counter(c prometheus.Metric) float64 {
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		panic(err)
	}
	return m.GetCounter().GetValue()
}
