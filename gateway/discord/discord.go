// Package discord connects a gateway instance to Discord: what is said in servers, threads and direct conversations
// becomes events, and answers are said there.
//
// One instance at a time has the lease of the bot's session (package lease): it alone is connected, publishes and
// speaks.
//
// What is promised:
//   - A message is one event, however often it is heard or read: its correlation id is Discord's id of the message.
//   - What is said while nobody listens is read afterwards, in order and before what is said later in the same channel:
//     up to where each channel has been heard is stored (watermarks/discord:{channel}). What is too old or too much
//     for that is a gap, which is logged, counted and stored (gaps/{hash}). Edits, deletions and what happens to a
//     server's members can't be read afterwards; nor can the first words of somebody who never spoke to the bot
//     directly before.
//   - An answer is said once. It is claimed in the ledger before it is sent, and carries a nonce by which Discord takes
//     it once however often it is sent, so that it is sent again where Discord did not answer, also by the next owner
//     of the session. Only what nobody could bring to an end within a minute or two ends as outcome_unknown.
//   - Answers that come while nobody is connected wait for whoever is, until their deadline.
//   - A moderator's order (package moderation) is carried out once, beside what is said; the bot needs the server's
//     permissions for it: to ban members, to time out members, to manage messages.
//   - An answer notifies nobody: mentions in it are shown as such, and no more.
package discord

import (
	"context"
	"encoding/json"
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
)

// Dependencies are what a service needs. All but those that say so must be set.
type Dependencies struct {
	Instance  string
	Firestore *firestore.Client // for the lease, watermarks and gaps; stays the caller's to close
	Ledger    *delivery.Ledger
	Reaper    *delivery.Reaper
	Publisher Publisher
	Lease     lease.Config
	Log       *slog.Logger
	Metrics   prometheus.Registerer
	Now       func() time.Time // time.Now if nil

	HTTP *http.Client                                                      // for the API; one of its own if nil
	Dial func(ctx context.Context, network, addr string) (net.Conn, error) // for the gateway, before TLS; net.Dialer's if nil
}

// Service is Discord's part of a gateway instance: a Deliverer for the destination discord.
//
// An answer that Deliver takes is not said yet when Deliver returns. Its entry stands in the ledger as pending: if this
// instance dies, the next owner of the session finds it there.
type Service struct {
	config    Config
	timing    timing
	firestore *firestore.Client
	ledger    *delivery.Ledger
	reaper    *delivery.Reaper
	enforcer  *moderator.Executor
	publisher Publisher
	log       *slog.Logger
	metrics   *metrics
	now       func() time.Time
	dial      func(ctx context.Context, network, addr string) (net.Conn, error)
	instance  string

	rest   *rest
	leases *lease.Manager

	mu        sync.Mutex
	speaker   *speaker  // nil while another instance has the session
	moderator *enforcer // likewise
}

// leaseKey is what the lease is for: the bot's one session.
const leaseKey = "bot"

// New makes the service of a configuration that is [Config.Enabled]. Nothing happens before Run.
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
	s.enforcer = moderator.NewExecutor(d.Ledger, d.Reaper, moderator.NewRecords(d.Firestore, d.Instance, s.now), moderator.Options{
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

// maxStranded is how long an instance stays away at most that could not connect before, though it reaches Discord's API.
const maxStranded = time.Hour

// Run listens and speaks, while this instance has the session, until ctx is done. Then it gives the session back, as
// soon as what is being said is said and what was heard is published; that takes a few seconds at most. It must be
// called once.
//
// An instance that has the session and can't connect for a while lets the others try, if there are any, until it
// reaches Discord again.
func (s *Service) Run(ctx context.Context) {
	pause := s.timing.stranded
	for {
		taking, leave := context.WithCancel(ctx)
		s.leases.Run(taking, func() []string { return []string{leaseKey} }, func(ctx context.Context, l lease.Lease) {
			if s.hold(ctx, l, leave) {
				pause = s.timing.stranded
			}
		})
		leave()
		if ctx.Err() != nil {
			return
		}
		s.log.WarnContext(ctx, "no connection to Discord for too long: other instances may try", "pause", pause)
		sleep(ctx, pause)
		pause = min(2*pause, maxStranded)
		var bot discordgo.GatewayBotResponse
		for ctx.Err() == nil && s.rest.get(ctx, "gateway/bot", "gateway/bot", &bot) != nil {
			sleep(ctx, s.timing.stranded)
		}
	}
}

// hold is the bot's session for as long as this instance has it. It calls leave if there is no connection for too long
// and another instance might do better, and reports whether there was one.
func (s *Service) hold(ctx context.Context, l lease.Lease, leave func()) (connected bool) {
	steady := context.WithoutCancel(ctx)
	stopped, stop := context.WithCancel(steady) // for what is brought to its end after ctx
	defer stop()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(s.timing.flush, stop) })()

	in := newInlet(ctx, stopped, s, l)
	for {
		err := in.load(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return false
		}
		s.log.WarnContext(ctx, "can't begin; trying again", "error", err)
		sleep(ctx, s.timing.retry)
	}
	g := &gateway{
		token: s.config.Token, intents: intents, rest: s.rest, dial: s.dial, timing: s.timing, log: s.log, metrics: s.metrics,
		heard: in.heard,
	}
	if s.config.Members {
		g.intents |= discordgo.IntentsGuildMembers
	}
	sp, m := newSpeaker(s, l, g), newModerator(s, l, g, in.listener.guilds)
	s.mu.Lock()
	s.speaker, s.moderator = sp, m
	s.mu.Unlock()

	marking, stopMarking := context.WithCancel(steady)
	var listening, marked, spoken sync.WaitGroup
	listening.Go(func() { g.run(ctx) })
	listening.Go(func() { connected = s.watch(ctx, g, leave) })
	marked.Go(func() { in.keepMarking(marking) })
	spoken.Go(func() { sp.Run(ctx, stopped) })
	spoken.Go(func() { m.Run(ctx) })
	listening.Wait()
	in.close()
	stopMarking()
	marked.Wait()
	spoken.Wait()
	s.mu.Lock()
	s.speaker, s.moderator = nil, nil
	s.mu.Unlock()
	return connected
}

// watch looks after a connection until ctx is done, and reports whether there was one. It calls leave when there was
// none for too long and there are other instances.
func (s *Service) watch(ctx context.Context, g *gateway, leave func()) (connected bool) {
	up := time.Now()
	for ctx.Err() == nil {
		switch {
		case g.up.Load():
			up, connected = time.Now(), true
		case time.Since(up) > s.timing.stranded && s.leases.Members() > 1:
			leave()
			return connected
		}
		sleep(ctx, s.timing.stranded/10)
	}
	return connected
}

// listens reports whether what happens in a server is of interest.
func (s *Service) listens(guildID string) bool {
	return len(s.config.Guilds) == 0 || slices.Contains(s.config.Guilds, guildID)
}

// readyUser is the bot that READY tells of.
func readyUser(data []byte) (string, error) {
	var ready struct {
		User *discordgo.User `json:"user"`
	}
	if err := json.Unmarshal(data, &ready); err != nil {
		return "", fmt.Errorf("read READY: %w", err)
	}
	if ready.User == nil {
		return "", fmt.Errorf("READY names no user")
	}
	return ready.User.ID, nil
}
