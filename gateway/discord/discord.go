// Package discord connects a gateway instance to Discord. Messages in guilds (Discord's name for servers), threads and
// direct conversations become events on the ingress topic, and answers become messages. Start at [New] and
// [Service.Run].
//
// One instance at a time holds the lease of the bot's session (package lease). Only this instance connects to Discord,
// publishes events and sends messages.
//
// Guarantees:
//   - A message is one event, even if Parley receives the message several times. The correlation id is Discord's id of
//     the message.
//   - The text of an event is readable on any platform: Discord's markup, such as <@123>, becomes the name that Discord's
//     client shows, and files, stickers, polls and forwarded messages become lines of text. The raw payload has the
//     original.
//   - Messages sent during an outage are read afterwards, in order, and published before later messages of the same
//     channel. A watermark per channel records the last published message (watermarks/discord:{channel}). A message
//     beyond the limits of the backfill is in a gap; gaps are logged, counted and stored (gaps/{hash}).
//   - Edits, deletions and member events of an outage are lost, because Discord cannot list them. The first direct
//     message of a new user is lost as well if it is sent during an outage.
//   - An answer is sent once. The instance claims the answer in the ledger before sending, and sends it with a nonce.
//     Discord accepts a nonce once, so an instance sends the message again if Discord did not respond, and so does the
//     next holder of the lease. An answer unsettled after [maxResendAge] ends as outcome_unknown.
//   - Answers wait for a connection until their deadline.
//   - A moderation command (package moderation) is executed once, concurrently with answers. The bot needs Discord's
//     permissions to ban members, to time out members and to manage messages.
//   - An answer notifies only the users and roles that an operator mentions literally in a rule. Discord shows other
//     mentions, such as those of a model, without a ping.
//
// This package alone reads and writes the Firestore collection watermarks; see [watermark]. It decides neither when to
// send an answer (package outbox does) nor when to execute a command (package moderator does).
package discord

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/bwmarrin/discordgo"
	"github.com/prometheus/client_golang/prometheus"

	"parley.internal/gateway/gap"
	"parley.internal/gateway/moderator"
	"parley.internal/shared/delivery"
	"parley.internal/shared/identity"
	"parley.internal/shared/lease"
	"parley.internal/shared/retry"
)

// Dependencies are the collaborators of a [Service]. All fields without a stated default must be set.
type Dependencies struct {
	Instance  string
	Firestore *firestore.Client // for the lease, watermarks and gaps; the caller closes it
	Ledger    *delivery.Ledger
	Reaper    *delivery.Reaper
	Publisher Publisher
	Lease     lease.Config
	Log       *slog.Logger
	Metrics   prometheus.Registerer
	Now       func() time.Time // nil is time.Now

	HTTP *http.Client                                                      // for the REST API; nil is a new client
	Dial func(ctx context.Context, network, addr string) (net.Conn, error) // for the gateway connection, before TLS; nil is net.Dialer's
}

// Service connects one gateway instance to Discord. It is the Deliverer of the platform discord, and safe for concurrent
// use.
//
// An answer accepted by Deliver is sent after Deliver returns. Until then its ledger entry is pending: if this instance
// crashes, the next holder of the lease finds the entry and sends the answer.
type Service struct {
	config    Config
	timing    timing
	firestore *firestore.Client
	ledger    *delivery.Ledger
	reaper    *delivery.Reaper
	executor  *moderator.Executor
	publisher Publisher
	log       *slog.Logger
	metrics   *metrics
	now       func() time.Time
	dial      func(ctx context.Context, network, addr string) (net.Conn, error)
	instance  string

	rest   *rest
	leases *lease.Manager

	mu         sync.Mutex
	dispatcher *dispatcher // nil while this instance does not hold the lease
	enforcer   *enforcer   // nil while this instance does not hold the lease
}

// leaseKey is the key of the lease of the bot's only session.
const leaseKey = "bot"

// New makes a service. The configuration must be [Config.Enabled]. Run starts the work.
func New(c Config, d Dependencies) (*Service, error) {
	s := &Service{
		config: c, timing: defaultTiming, firestore: d.Firestore, ledger: d.Ledger, reaper: d.Reaper,
		publisher: d.Publisher, log: d.Log.With("platform", "discord"), now: d.Now, dial: d.Dial, instance: d.Instance,
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.dial == nil {
		s.dial = new(net.Dialer).DialContext
	}
	client := d.HTTP
	if client == nil {
		client = new(http.Client)
	}
	var err error
	if s.rest, err = newRest(c, client); err != nil {
		return nil, err
	}
	if s.metrics, err = newMetrics(d.Metrics); err != nil {
		return nil, err
	}
	s.executor = moderator.NewExecutor(d.Ledger, d.Reaper, moderator.NewRecords(d.Firestore, d.Instance, s.now), moderator.Options{
		Log: s.log, Now: s.now, Count: func(outcome string) { s.metrics.actions.WithLabelValues(outcome).Inc() },
	})
	s.leases, err = lease.New(d.Firestore, string(identity.Discord), d.Instance, d.Lease, lease.Options{
		Log: d.Log, Metrics: d.Metrics, Now: d.Now, Tasks: []string{gap.Chat},
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// maxYield bounds the pause, before jitter, of an instance that released the lease because it could not connect.
const maxYield = time.Hour

// Run holds the bot's session, if the instance gets the lease, until ctx is done. Then Run publishes the received
// messages, finishes the messages being sent, and releases the lease, within a few seconds. Run must be called once.
//
// An instance that holds the lease and cannot connect for [timing.maxOffline] releases the lease if there are other
// instances. It tries again after a pause, as soon as it reaches Discord's API. The pause grows up to [maxYield].
func (s *Service) Run(ctx context.Context) {
	backoff := retry.NewBackoff(s.timing.maxOffline, maxYield)
	for {
		leasing, yield := context.WithCancel(ctx)
		s.leases.Run(leasing, func() []string { return []string{leaseKey} }, func(ctx context.Context, l lease.Lease) {
			if s.holdSession(ctx, l, yield) {
				backoff.Reset()
			}
		})
		yield()
		if ctx.Err() != nil {
			return
		}
		pause := backoff.Next()
		s.log.WarnContext(ctx, "session yielded: no connection to Discord for too long", "pause", pause)
		if retry.Sleep(ctx, pause) != nil {
			return
		}
		var bot discordgo.GatewayBotResponse
		for s.rest.get(ctx, "gateway/bot", "gateway/bot", &bot) != nil {
			if retry.Sleep(ctx, s.timing.maxOffline) != nil {
				return
			}
		}
	}
}

// holdSession runs the bot's session until ctx, the time of the lease, is done. It reports whether the instance was
// connected. It calls yield if the instance is offline for too long and a different instance may succeed.
func (s *Service) holdSession(ctx context.Context, l lease.Lease, yield func()) (connected bool) {
	uncanceled := context.WithoutCancel(ctx)
	flushCtx, stop := context.WithCancel(uncanceled) // done timing.flush after ctx: for publishing and sending the rest
	defer stop()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(s.timing.flush, stop) })()

	in := newIngestQueue(ctx, flushCtx, s, l)
	for {
		err := in.load(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return false
		}
		s.log.WarnContext(ctx, "reading the watermarks failed", "error", err)
		_ = retry.Sleep(ctx, s.timing.retry) // load fails as well once ctx is done
	}
	g := &gateway{
		token: s.config.Token, intents: intents, rest: s.rest, dial: s.dial, timing: s.timing, log: s.log, metrics: s.metrics,
		handle: in.handle,
	}
	if s.config.Members {
		g.intents |= discordgo.IntentsGuildMembers
	}
	d, e := newDispatcher(s, l, g), newEnforcer(s, l, g, in.converter.guilds)
	s.mu.Lock()
	s.dispatcher, s.enforcer = d, e
	s.mu.Unlock()

	watermarkCtx, stopWatermarks := context.WithCancel(uncanceled)
	var receiving, watermarks, sending sync.WaitGroup
	receiving.Go(func() { g.run(ctx) })
	receiving.Go(func() { connected = s.watchConnection(ctx, g, yield) })
	watermarks.Go(func() { in.keepWatermarks(watermarkCtx) })
	sending.Go(func() { d.Run(ctx, flushCtx) })
	sending.Go(func() { e.Run(ctx) })
	receiving.Wait()
	in.close()
	stopWatermarks()
	watermarks.Wait()
	sending.Wait()
	s.mu.Lock()
	s.dispatcher, s.enforcer = nil, nil
	s.mu.Unlock()
	return connected
}

// watchConnection observes a connection until ctx is done, and reports whether the instance was connected. It calls
// yield and returns if the instance is offline for too long and there are other instances.
func (s *Service) watchConnection(ctx context.Context, g *gateway, yield func()) (connected bool) {
	online := time.Now() // when the instance was last seen connected
	for {
		switch {
		case ctx.Err() != nil:
			return connected
		case g.connected.Load():
			online, connected = time.Now(), true
		case time.Since(online) > s.timing.maxOffline && s.leases.Members() > 1:
			yield()
			return connected
		}
		_ = retry.Sleep(ctx, s.timing.maxOffline/10) // the loop checks ctx
	}
}

// ingests reports whether a guild's events are published.
func (s *Service) ingests(guildID string) bool {
	return len(s.config.Guilds) == 0 || slices.Contains(s.config.Guilds, guildID)
}

// readyUser returns the bot's user from the READY event.
func readyUser(data []byte) (*discordgo.User, error) {
	var ready struct {
		User *discordgo.User `json:"user"`
	}
	if err := json.Unmarshal(data, &ready); err != nil {
		return nil, fmt.Errorf("read READY: %w", err)
	}
	if ready.User == nil {
		return nil, errors.New("no user in READY")
	}
	return ready.User, nil
}
