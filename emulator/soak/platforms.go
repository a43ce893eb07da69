package soak

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"cloud.google.com/go/firestore"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"golang.org/x/sync/errgroup"

	"parley.internal/emulator/stack"
	"parley.internal/shared/delivery"
	"parley.internal/shared/identity"
	"parley.internal/shared/retry"
	"parley.internal/shared/topology"
)

// PlatformOptions configures [RunPlatforms]. On each platform, questions are asked until Answers and Faults are reached.
// A slow machine asks more questions, because more questions fall into gaps. Gateways with an even number send to Twitch
// by Helix, the others by IRC.
type PlatformOptions struct {
	Common
	Channels int           // on Twitch
	Guilds   int           // on Discord; each guild has two channels
	Answers  int           // delivered on each platform; more than maxQuestions per answer end the soak with an error
	Every    time.Duration // between two questions on a platform
	Gap      time.Duration // average time between the beginnings of two faults
	// ExpireClaims lets the Twitch claims of killed gateways expire at once. Otherwise a claim holds for a minute.
	ExpireClaims bool
}

// check returns an error for options that cannot work.
func (o PlatformOptions) check() error {
	if o.Gateways < 2 || o.Channels < 1 || o.Guilds < 1 || o.Answers < 1 || o.Every <= 0 || o.Gap <= 0 {
		return errors.New("soak: the platforms' soak needs at least two gateways, one channel, one guild, one answer and positive times")
	}
	return nil
}

// maxOpen is the largest number of open questions on a platform. A slow machine with more open questions would only grow
// its backlog.
const maxOpen = 100

// maxQuestions is the largest number of questions on a platform for each answer wanted. Only a system that stopped
// answering reaches the number.
const maxQuestions = 50

// platformPace is the pace of the platforms' soak. A killed gateway loses its channels after LEASE_TTL (10 s).
var platformPace = Pace{Longest: 4 * time.Second, Deadline: 90 * time.Second, Grace: 3 * time.Second, Sweep: time.Second}

// platformEnviron is the additional environment of the parts. LEASE_SEATS exceeds the number of gateways, because a killed
// gateway stays a member until its lease expires.
var platformEnviron = []string{"LEASE_SEATS=30", "TWITCH_VERIFIED=true"}

// platformSoak is a soak with people on fakes of Twitch and Discord.
type platformSoak struct {
	*harness
	options     PlatformOptions
	twitch      onTwitch
	discord     onDiscord
	communities []community

	mu        sync.Mutex                // guards the fields below
	ingested  map[string]map[string]int // how often each message was published, by platform:message id and correlation id
	questions map[identity.Platform][]posted
	counts    map[identity.Platform]counts
}

// RunPlatforms runs a soak with people on fakes of Twitch and Discord, kills and stops gateways, and audits the outcome:
// every question must be ingested once and answered once. It returns an error if the soak could not run; the report holds
// the findings of the audit.
//
// Twitch keeps no history. A question on Twitch may be missed during a recorded gap; on Discord no question may be missed.
// A gateway killed between sending to Twitch and recording the outcome leaves an unknown outcome: the answer becomes a dead
// letter (outcome_unknown) and may have been posted once.
func RunPlatforms(ctx context.Context, o PlatformOptions) (_ *PlatformReport, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	pace := platformPace
	pace.Gap = o.Gap
	ctx, cancel := context.WithCancel(ctx)
	common := o.Common
	common.Environ = slices.Concat(o.Environ, platformEnviron)
	s := &platformSoak{
		harness: newHarness(common, pace, names(PlatformKinds)), options: o,
		ingested: map[string]map[string]int{}, questions: map[identity.Platform][]posted{},
		counts: map[identity.Platform]counts{},
	}
	defer func() {
		cancel()
		err = errors.Join(err, s.close())
	}()
	return execute(ctx, s.start, s.run, s.audit)
}

// close ends the harness and the fakes.
func (s *platformSoak) close() error {
	err := s.harness.close()
	if s.twitch.Server != nil {
		err = errors.Join(err, s.twitch.Close())
	}
	if s.discord.Server != nil {
		err = errors.Join(err, s.discord.Close())
	}
	return err
}

// start starts the servers, the fakes, the functions and the gateways, and waits until the bot is in every channel.
func (s *platformSoak) start(ctx context.Context) error {
	s.setPhase("starting")
	if err := s.startServers(ctx, s.recordPublish); err != nil {
		return err
	}
	seed := stack.Seed{Personalities: s.Documents.Personalities, Rules: s.Documents.Rules}
	if _, err := seed.Write(ctx, s.client, time.Now()); err != nil {
		return err
	}
	if err := s.startTwitch(ctx); err != nil {
		return err
	}
	if err := s.startDiscord(); err != nil {
		return err
	}
	s.communities = []community{s.twitch, s.discord}
	transports := []string{"TWITCH_SPEAK=helix", "TWITCH_SPEAK=irc"}
	if err := s.startParts(ctx, func(i int) []string { return transports[i%2 : i%2+1] }); err != nil {
		return err
	}
	s.setPhase("waiting for the bot in every channel")
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	err := s.twitch.Await(ctx, func() bool {
		return !slices.ContainsFunc(s.twitch.names, func(name string) bool { return !s.twitch.joined(name) })
	})
	if err != nil {
		return err
	}
	return s.discord.Await(ctx, func() bool { return s.discord.Connected(botID) > 0 })
}

// recordPublish counts the messages ingested from the platforms.
func (s *platformSoak) recordPublish(topic string, m *pubsubpb.PubsubMessage) {
	if topic != (topology.Prefix{}).Topic(project, topology.Ingress).String() {
		return
	}
	var e struct {
		Source        string `json:"source"`
		CorrelationID string `json:"correlationId"`
		Message       *struct {
			ID string `json:"id"`
		} `json:"message"`
	}
	if err := json.Unmarshal(m.Data, &e); err != nil {
		s.fail("the ingress topic accepted a message other than an event: %v", err)
		return
	}
	if e.Message == nil {
		return // not a chat message
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := messageKey(identity.PlatformOf(e.Source), e.Message.ID)
	if s.ingested[key] == nil {
		s.ingested[key] = map[string]int{}
	}
	s.ingested[key][e.CorrelationID]++
}

// messageKey is the key of a platform's message among all platforms.
func messageKey(p identity.Platform, id string) string { return string(p) + ":" + id }

// run asks and breaks, then waits until every question has an outcome.
func (s *platformSoak) run(ctx context.Context) error {
	background, endBackground := context.WithCancel(ctx)
	var g errgroup.Group
	defer func() {
		endBackground()
		g.Wait()
	}()
	g.Go(func() error { s.publishSweeps(background); return nil })
	g.Go(func() error { s.watchProcesses(background); return nil })
	g.Go(func() error { s.countAnswers(background); return nil })
	if s.options.ExpireClaims {
		g.Go(func() error { s.expireClaims(background); return nil })
	}

	s.setPhase("asking and breaking")
	breaking, repair := context.WithCancel(ctx)
	defer repair()
	broken := make(chan error, 1)
	go func() { broken <- s.breakThings(breaking) }() // ends with breaking
	var asking errgroup.Group
	for i, c := range s.communities {
		asking.Go(func() error { return s.askAll(ctx, c, rand.New(rand.NewPCG(s.Seed, uint64(i+1)))) })
	}
	err := asking.Wait()
	repair()
	if err := errors.Join(err, <-broken); err != nil {
		return err
	}
	s.setPhase("waiting for the outcomes")
	return s.awaitOutcomes(ctx)
}

// counts holds numbers of questions on a platform at the time of the last count.
type counts struct {
	answered int // the answer was delivered
	open     int // no outcome
}

// countAnswers updates the counts of answers until ctx ends.
func (s *platformSoak) countAnswers(ctx context.Context) {
	for retry.Sleep(ctx, s.pace.Sweep/2) == nil {
		if _, err := s.openQuestions(ctx); err != nil && ctx.Err() == nil {
			s.fail("count the answers: %v", err)
			return
		}
	}
}

// askAll asks on one platform until enough answers were delivered and all faults were injected.
func (s *platformSoak) askAll(ctx context.Context, c community, rng *rand.Rand) error {
	channels := c.channels()
	for n := 0; ; {
		now := s.countsOf(c.platform())
		switch faults := s.faultCount(); {
		case now.answered >= s.options.Answers && faults >= s.Faults:
			return nil
		case n >= maxQuestions*s.options.Answers:
			return fmt.Errorf("ask on %s: %d of %d questions were answered after %d faults", c.platform(), now.answered, n, faults)
		case now.open >= maxOpen:
			if err := retry.Sleep(ctx, s.options.Every); err != nil {
				return err
			}
			continue
		}
		q, err := c.ask(channels[rng.IntN(len(channels))], rng.IntN(people), fmt.Sprintf("!ask question %d", n))
		if err != nil {
			return fmt.Errorf("ask: %w", err)
		}
		s.asked.Add(1)
		s.mu.Lock()
		s.questions[c.platform()] = append(s.questions[c.platform()], q)
		s.mu.Unlock()
		n++
		if err := retry.Sleep(ctx, s.options.Every); err != nil {
			return err
		}
	}
}

// countsOf returns the last counts of a platform.
func (s *platformSoak) countsOf(p identity.Platform) counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[p]
}

// breakThings injects faults until ctx ends or enough faults were injected, then waits for the repairs. At most two
// gateways are down at a time, and at least one gateway runs. Every second fault meets the gateway with Discord's session.
func (s *platformSoak) breakThings(ctx context.Context) error {
	return s.injectFaults(ctx, min(2, s.Gateways-1), func(n int, f fault, skew time.Duration) error {
		slot := s.gateways[f.target%uint64(len(s.gateways))]
		if n%2 == 1 {
			owner, err := s.discordOwner(ctx)
			if err != nil && ctx.Err() == nil {
				return err
			}
			for _, candidate := range s.gateways {
				if candidate.current().id == owner {
					slot = candidate
				}
			}
		}
		slot.busy.Lock()
		defer slot.busy.Unlock()
		return s.record(f, slot.name, func() error { return s.apply(ctx, f, slot, skew) })
	})
}

// discordOwner returns the instance with Discord's session according to the lease.
func (s *platformSoak) discordOwner(ctx context.Context) (string, error) {
	snap, err := s.client.Collection("leases").Doc("discord:bot").Get(ctx)
	if err != nil {
		return "", fmt.Errorf("read the lease of Discord's session: %w", err)
	}
	owner, _ := snap.Data()["instance"].(string)
	return owner, nil
}

// apply stops or kills a gateway, and starts a new gateway in the slot.
func (s *platformSoak) apply(ctx context.Context, f fault, slot *gatewaySlot, skew time.Duration) error {
	if f.kind != StopGateway {
		return s.killGateway(ctx, f, slot, f.length/2, skew)
	}
	gw := slot.current()
	if end := gw.terminate(); !end.inTime || !end.clean {
		return fmt.Errorf("%s ended badly %s after SIGTERM (in time: %v, exit code 0: %v); %s", gw.proc.name, end.took, end.inTime, end.clean, gw.proc.logTail())
	}
	_ = retry.Sleep(ctx, f.length/2)
	return slot.start(context.WithoutCancel(ctx), s.harness, skew)
}

// expireClaims lets the claims of killed gateways expire, until ctx ends. Claims on Discord stay: the next owner of the
// session takes these claims before they expire.
func (s *platformSoak) expireClaims(ctx context.Context) {
	for retry.Sleep(ctx, s.pace.Sweep) == nil {
		snaps, err := s.deliveries().Where("state", "==", delivery.Claimed).Documents(ctx).GetAll()
		for _, snap := range snaps {
			killed := s.wasKilled(fmt.Sprint(snap.Data()["instance"]))
			until, _ := snap.Data()["leaseUntil"].(time.Time)
			if !killed || until.Before(time.Now()) || snap.Data()["destination"] == string(identity.Discord) {
				continue
			}
			// The precondition fails if the document changed meanwhile; the next round reads it again.
			_, _ = snap.Ref.Update(ctx, []firestore.Update{{Path: "leaseUntil", Value: time.Now().Add(-delivery.ClaimLease)}}, firestore.LastUpdateTime(snap.UpdateTime))
		}
		if err != nil && ctx.Err() == nil {
			s.fail("read the claims: %v", err)
			return
		}
	}
}

// awaitOutcomes waits until every question was ingested or missed, and every answer is settled. It gives the deliveries
// their deadline, the grace and one claim lease.
func (s *platformSoak) awaitOutcomes(ctx context.Context) error {
	limit := time.Now().Add(s.pace.Deadline + s.pace.Grace + delivery.ClaimLease)
	for {
		open, err := s.openQuestions(ctx)
		if err != nil || open == 0 {
			return err
		}
		if time.Now().After(limit) {
			s.fail("%d questions had no outcome at the time limit", open)
			return nil
		}
		if err := retry.Sleep(ctx, s.pace.Sweep/2); err != nil {
			return err
		}
	}
}

// openQuestions returns the number of questions without an outcome, and updates the counts.
func (s *platformSoak) openQuestions(ctx context.Context) (int, error) {
	f, err := s.find(ctx)
	if err != nil {
		return 0, err
	}
	open, total := 0, 0
	byPlatform := map[identity.Platform]counts{}
	for platform, questions := range f.questions {
		var n counts
		for _, q := range questions {
			switch f.progress(platform, q) {
			case answered:
				n.answered++
				total++
			case dead:
				total++
			case unsettled:
				n.open++
			}
		}
		byPlatform[platform] = n
		open += n.open
	}
	s.answered.Store(int64(total))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts = byPlatform
	return open, nil
}
