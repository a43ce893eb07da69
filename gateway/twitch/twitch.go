// Package twitch connects a gateway instance to Twitch: what is said in its chat becomes events, and answers are said
// there; what else happens in the channels, as EventSub tells it (package eventsub), becomes events, too.
//
// Each channel is read and spoken in by one instance at a time, which has the channel's lease (package lease). Reading
// is by IRC, speaking by Helix, which confirms each message, or by IRC. The same instance listens to EventSub for the
// channel, by its broadcaster's login. For the channels of those who have not logged in, one instance does so as the
// bot, as far as Twitch lets it; the same hears what is whispered to the bot.
//
// What is promised:
//   - A message that two instances hear, because one takes over from the other, is one event: its correlation id is
//     Twitch's id of the message, or of the whisper.
//   - A whisper is answered by a whisper, which the function of that name makes, and not this package.
//   - A raid, or a new subscription, that both the chat and EventSub tell of is one event.
//   - An answer is said once. It is claimed in the ledger before it is sent; it counts as delivered when Twitch says
//     so; if Twitch does not say, it is never sent again, and ends as outcome_unknown, for an operator to decide.
//   - An answer that comes while nobody has the channel's lease is said by the next owner, until its deadline.
//   - What a moderator orders is done once, beside what is said and not behind it: see [moderator.Executor].
//   - Twitch keeps no history: while nobody listens, what is said, or happens, is missed. Every such gap is logged,
//     counted and stored (gaps/{hash}), rather too long than too short: it begins with the last sign of who listened
//     before. An instance that gives a channel back stays until the next owner can be there, so that nothing is missed
//     then.
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

	"parley.internal/gateway/gap"
	"parley.internal/gateway/moderator"
	"parley.internal/gateway/twitch/eventsub"
	"parley.internal/shared/credential"
	"parley.internal/shared/delivery"
	"parley.internal/shared/identity"
	"parley.internal/shared/lease"
	"parley.internal/shared/recipient"
	helix "parley.internal/shared/twitch"
)

// Dependencies are what a service needs. All but those that say so must be set.
type Dependencies struct {
	Instance  string
	App       credential.TwitchConfig // to which the tokens were given; its bot's id is needed
	Tokens    helix.Tokens
	Firestore *firestore.Client // for leases, gaps and who whispered; stays the caller's to close
	Ledger    *delivery.Ledger
	Reaper    *delivery.Reaper
	Publisher Publisher
	Lease     lease.Config
	Log       *slog.Logger
	Metrics   prometheus.Registerer
	Now       func() time.Time // time.Now if nil

	EventSubTiming eventsub.Timing // eventsub.DefaultTiming if zero

	HTTP *http.Client                                                      // for Helix; one of its own if nil
	Dial func(ctx context.Context, network, addr string) (net.Conn, error) // for IRC and EventSub, before TLS; net.Dialer's if nil
}

// Service is Twitch's part of a gateway instance: a Deliverer for the destination twitch.
//
// An answer that Deliver takes is not said yet when Deliver returns. Its entry stands in the ledger as pending: if this
// instance dies, the next owner of the channel finds it there.
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
	enforcers   map[string]*enforcer   // likewise
	coverages   map[string]*coverage   // likewise
	queue       *ingestQueue
}

// New makes the service of a configuration that is [Config.Enabled]. Nothing happens before Run.
func New(c Config, d Dependencies) (*Service, error) {
	bot, err := d.App.Bot()
	if err != nil || bot.IsZero() {
		return nil, fmt.Errorf("TWITCH_BOT_USER_ID: nobody to speak as in TWITCH_CHANNELS: %w", cmp.Or(err, errors.New("it is not set")))
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
		joinPacer: newPacer(s.limits.joinWindow, s.share), channels: map[string]*channel{}, wakeUp: make(chan struct{}, 1),
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

// Run listens and speaks until ctx is done. Then it gives its channels back, as soon as what is being said is said,
// and publishes what it has heard; at most that takes TWITCH_ANSWER_TIMEOUT and a few seconds. It must be called once.
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
	sleep(steady, s.timing.linger)
	stopChat()
	connected.Wait()
	s.queue.close()
}

// onJoined takes that the instance is in a channel again, or for the first time: nobody was since from, if that is known.
func (s *Service) onJoined(login string, from, to time.Time) {
	if a := s.coverageOf(login); a != nil {
		if !from.IsZero() {
			a.addGap(gap.Chat, Channel(login), from, to)
		}
		a.idle(gap.Chat, time.Time{})
	}
}

// onParted takes that the instance is not in a channel any more, and when it last was.
func (s *Service) onParted(login string, since time.Time) {
	if a := s.coverageOf(login); a != nil {
		a.idle(gap.Chat, since)
	}
}

// coverageOf is nil for a channel of which the lease is given back already.
func (s *Service) coverageOf(login string) *coverage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.coverages[login]
}

// onMessage takes what was heard in the chat. What EventSub tells as well is left to the owner of the channel, who alone can
// tell that the two are one: an instance that has given the channel back listens on for a while.
func (s *Service) onMessage(m irc.Message) {
	e := toEvent(m, s.bot)
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

// share is this instance's part of what the account may: that of the channels which it has.
func (s *Service) share(limit int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return limit * len(s.dispatchers) / len(s.channels)
}

// hold is in one channel while this instance has its lease, or listens as the bot while it has that for it.
func (s *Service) hold(ctx context.Context, l lease.Lease) {
	a := newCoverage(s, l)
	attending, stopAttending := context.WithCancel(context.WithoutCancel(ctx))
	var attended sync.WaitGroup
	attended.Go(func() { a.run(attending) }) // ends with stopAttending
	defer attended.Wait()
	defer stopAttending()
	if l.Key() == botLease {
		s.listenAsBot(ctx, a)
		return
	}
	sp, m := newDispatcher(s, l), newEnforcer(s, l)
	s.mu.Lock()
	s.dispatchers[l.Key()], s.enforcers[l.Key()], s.coverages[l.Key()] = sp, m, a
	s.mu.Unlock()
	s.chat.enter(l.Key(), a.since(gap.Chat))
	// nobody else may listen before the speaker has come to its end
	listening, stop := context.WithCancel(context.WithoutCancel(ctx))
	var beside sync.WaitGroup
	beside.Go(func() { s.listenAsBroadcaster(listening, a) }) // ends with stop
	beside.Go(func() { m.Run(ctx) })                          // ends with ctx
	sp.run(ctx)
	stop()
	beside.Wait()
	s.mu.Lock()
	delete(s.dispatchers, l.Key())
	delete(s.enforcers, l.Key())
	delete(s.coverages, l.Key())
	s.mu.Unlock()
	s.chat.leave(l.Key())
}
