// Package twitch connects a gateway instance to Twitch. It publishes chat messages and the events of EventSub (package
// eventsub), sends answers, and executes moderation commands. Start with [Service].
//
// One instance at a time reads and writes a channel: the holder of the channel's lease (package lease). It reads over IRC.
// It sends over Helix, which confirms each message, or over IRC. The same instance subscribes to EventSub for the
// channel, with the broadcaster's login. For channels without a broadcaster's login, one instance subscribes as the bot,
// as far as Twitch permits. The same instance receives the whispers to the bot.
//
// The package must not know how an answer is made, nor why a moderation command was permitted.
//
// Guarantees:
//   - Two instances that receive the same message, around a change of the lease, make one event: the correlation id is
//     Twitch's id of the message or whisper.
//   - A whisper gets a whisper as its answer, from the function whisper and not from this package.
//   - A raid or a new subscription in both the chat and EventSub is one event.
//   - An answer is sent once. It is claimed in the ledger before the send, and delivered when Twitch confirms it. Without
//     an answer from Twitch it is never sent again, and ends as outcome_unknown, for an operator to decide.
//   - A refusal that ends by itself (a duplicate text, slow mode, a message too fast, a time-out of the bot) is tried again
//     until the answer's deadline. Before the first message, the waiting answer is not claimed. Answers of the same channel
//     keep their order; other channels do not wait.
//   - The next owner of a channel sends the answers that came while no instance had the lease, until their deadlines.
//   - A moderation command is executed once, and does not wait behind answers: see [moderator.Executor].
//   - Twitch keeps no history. Every gap in the reading is logged, counted and stored (gaps/{hash}), rather too long than
//     too short: a gap begins with the last line received by the previous owner. An instance that releases a channel
//     lingers until the next owner can be there, so a handover makes no gap.
package twitch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"cloud.google.com/go/firestore"
	irc "github.com/gempir/go-twitch-irc/v4"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"parley.internal/gateway/gap"
	"parley.internal/gateway/moderator"
	"parley.internal/gateway/twitch/eventsub"
	"parley.internal/shared/credential"
	"parley.internal/shared/delivery"
	"parley.internal/shared/identity"
	"parley.internal/shared/lease"
	"parley.internal/shared/recipient"
	"parley.internal/shared/retry"
	helix "parley.internal/shared/twitch"
)

// Dependencies of a [Service]. All are required, except where a comment gives a default.
type Dependencies struct {
	Instance  string
	App       credential.TwitchConfig // must have a bot's user id
	Tokens    helix.Tokens
	Firestore *firestore.Client // for leases, gaps and recipients; the caller closes it
	Ledger    *delivery.Ledger
	Reaper    *delivery.Reaper
	Publisher Publisher
	Lease     lease.Config
	Log       *slog.Logger
	Metrics   prometheus.Registerer
	Now       func() time.Time // time.Now if nil

	EventSubTiming eventsub.Timing // eventsub.DefaultTiming if zero

	HTTP *http.Client                                                      // for Helix; a new client if nil
	Dial func(ctx context.Context, network, addr string) (net.Conn, error) // for IRC and EventSub, before TLS; net.Dialer's if nil
}

// Service is Twitch's part of a gateway instance: the Deliverer for the destination twitch.
//
// Deliver returns before an answer is sent. The answer's entry in the ledger is still pending then: if this instance dies,
// the next owner of the channel finds the entry.
type Service struct {
	config    Config
	timing    timing
	limits    limits
	bot       identity.UserID
	tokens    helix.Tokens
	firestore *firestore.Client
	ledger    *delivery.Ledger
	reaper    *delivery.Reaper
	executor  *moderator.Executor
	publisher Publisher
	log       *slog.Logger
	metrics   *metrics
	now       func() time.Time
	api       *helix.Client
	instance  string

	leases   *lease.Manager
	chat     *chat
	sends    *pacer
	channels []string
	events   *eventsub.Client
	book     *recipient.Book

	mu          sync.Mutex
	dispatchers map[string]*dispatcher // by login
	enforcers   map[string]*enforcer   // by login
	coverages   map[string]*coverage   // by login
	queue       *ingestQueue
}

// New makes a service for a configuration with channels; see [Config.Enabled]. The service does nothing before Run.
func New(c Config, d Dependencies) (*Service, error) {
	bot, err := d.App.Bot()
	if err != nil || bot.IsZero() {
		return nil, fmt.Errorf("TWITCH_BOT_USER_ID: required with TWITCH_CHANNELS: %w", cmp.Or(err, errors.New("it is not set")))
	}
	s := &Service{
		config: c, timing: defaultTiming, limits: limitsOf(c.Verified), bot: bot, tokens: d.Tokens,
		firestore: d.Firestore, ledger: d.Ledger, reaper: d.Reaper, publisher: d.Publisher,
		log: d.Log.With("platform", "twitch"), now: d.Now, instance: d.Instance,
		dispatchers: map[string]*dispatcher{}, enforcers: map[string]*enforcer{}, coverages: map[string]*coverage{},
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.api = helix.New(helix.Config{URL: d.App.APIURL, ClientID: d.App.ClientID, HTTP: d.HTTP, Now: s.now})
	for _, name := range c.Channels {
		s.channels = append(s.channels, login(name))
	}
	slices.Sort(s.channels)
	s.channels = slices.Compact(s.channels)
	if s.metrics, err = newMetrics(d.Metrics); err != nil {
		return nil, err
	}
	s.executor = moderator.NewExecutor(d.Ledger, d.Reaper, moderator.NewRecords(d.Firestore, d.Instance, s.now), moderator.Options{
		Log: s.log, Now: s.now, Count: func(outcome string) { s.metrics.actions.WithLabelValues(outcome).Inc() },
	})
	s.book = recipient.NewBook(d.Firestore, bot, s.now)
	s.sends = newPacer(s.limits.messageWindow, s.share)
	s.chat = &chat{
		config: c, timing: s.timing, limits: s.limits, bot: bot, tokens: d.Tokens, dial: d.Dial, log: s.log, metrics: s.metrics,
		malformed: rate.Sometimes{Interval: malformedPause},
		joinPacer: newPacer(s.limits.joinWindow, s.share), channels: map[string]*channel{}, wakeUp: make(chan struct{}, 1), loggedIn: make(chan struct{}, 1),
		onJoined: s.onJoined, onParted: s.onParted,
	}
	s.leases, err = lease.New(d.Firestore, string(identity.Twitch), d.Instance, d.Lease, lease.Options{
		Log: d.Log, Metrics: d.Metrics, Now: d.Now, Tasks: tasks, Idle: s.chat.idle,
	})
	if err != nil {
		return nil, err
	}
	if s.chat.dial == nil {
		s.chat.dial = new(net.Dialer).DialContext
	}
	s.events, err = eventsub.New(eventsub.Dependencies{
		URL: c.EventSubURL, API: s.api, Tokens: d.Tokens, Log: s.log, Metrics: d.Metrics, Now: s.now, Dial: d.Dial, Timing: d.EventSubTiming,
	})
	return s, err
}

// Run works until ctx is done. Then it finishes begun answers, releases its channels and publishes queued events; the end
// takes at most TWITCH_ANSWER_TIMEOUT and a few seconds. It must be called once.
func (s *Service) Run(ctx context.Context) {
	steady := context.WithoutCancel(ctx)
	chatting, stopChat := context.WithCancel(steady)
	publishing, stopPublishing := context.WithCancel(steady)
	defer stopPublishing()
	s.queue = newIngestQueue(publishing, s)
	s.chat.onMessage = s.onMessage
	var connected sync.WaitGroup
	connected.Go(func() { s.chat.run(chatting) }) // ends with stopChat

	keys := append(slices.Clone(s.channels), botLease)
	s.leases.Run(ctx, func() []string { return keys }, s.hold)

	flushing := time.AfterFunc(s.timing.flush, stopPublishing)
	defer flushing.Stop()
	_ = retry.Sleep(steady, s.timing.linger) // steady does not end
	s.chat.drain(publishing)
	stopChat()
	connected.Wait()
	s.queue.close()
}

// LoggedIn tells the service that a user has logged in, at any instance. The service then connects and subscribes without
// the usual pause. Without a call, the service notices a login within some minutes. LoggedIn does not wait.
func (s *Service) LoggedIn(user identity.UserID) {
	if user == s.bot {
		s.chat.botLoggedIn()
	}
	s.events.Refresh() // also the bot's topics depend on the logins of broadcasters
}

// onJoined records a joined channel. from is the beginning of the gap before, or zero for no gap.
func (s *Service) onJoined(login string, from, to time.Time) {
	if c := s.coverageOf(login); c != nil {
		if !from.IsZero() {
			c.addGap(gap.Chat, channelName(login), from, to)
		}
		c.idle(gap.Chat, time.Time{})
	}
}

// onParted records a lost channel. since is the time of the last line.
func (s *Service) onParted(login string, since time.Time) {
	if c := s.coverageOf(login); c != nil {
		c.idle(gap.Chat, since)
	}
}

// coverageOf returns nil for a channel without a lease of this instance.
func (s *Service) coverageOf(login string) *coverage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.coverages[login]
}

// onMessage queues a chat message. Only the owner of the lease queues an event that EventSub reports, too, because only
// the owner can recognize the duplicate. An instance that lingers leaves such an event to the owner.
func (s *Service) onMessage(m irc.Message) {
	e := toEvent(m, s.chat.self())
	if e != nil && reportedTwice(e) {
		login, _ := loginOf(e.Channel)
		s.mu.Lock()
		owner := s.dispatchers[login] != nil
		s.mu.Unlock()
		if !owner {
			e = nil
		}
	}
	s.queue.add(e)
}

// share returns this instance's share of a limit: the share of its channels in all channels.
func (s *Service) share(limit int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return limit * len(s.dispatchers) / len(s.channels)
}

// hold works for one channel, or as the bot for EventSub, while this instance has the lease.
func (s *Service) hold(ctx context.Context, l lease.Lease) {
	c := newCoverage(s, l)
	covering, stopCovering := context.WithCancel(context.WithoutCancel(ctx))
	var covered sync.WaitGroup
	covered.Go(func() { c.run(covering) }) // ends with stopCovering
	defer covered.Wait()
	defer stopCovering()
	if l.Key() == botLease {
		s.subscribeAsBot(ctx, c)
		return
	}
	d, m := newDispatcher(s, l), newEnforcer(s, l)
	s.mu.Lock()
	s.dispatchers[l.Key()], s.enforcers[l.Key()], s.coverages[l.Key()] = d, m, c
	s.mu.Unlock()
	s.chat.enter(l.Key(), c.since(gap.Chat))
	// no other instance may subscribe before the dispatcher's end
	subscribed, unsubscribe := context.WithCancel(context.WithoutCancel(ctx))
	var tasks sync.WaitGroup
	tasks.Go(func() { s.subscribeAsBroadcaster(subscribed, c) }) // ends with unsubscribe
	tasks.Go(func() { m.Run(ctx) })                              // ends with ctx
	d.run(ctx)
	unsubscribe()
	tasks.Wait()
	s.mu.Lock()
	delete(s.dispatchers, l.Key())
	delete(s.enforcers, l.Key())
	delete(s.coverages, l.Key())
	s.mu.Unlock()
	s.chat.leave(l.Key())
}
