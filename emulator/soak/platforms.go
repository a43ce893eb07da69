package soak

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/firestore"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"golang.org/x/sync/errgroup"

	"parley.internal/emulator/discord"
	"parley.internal/emulator/stack"
	"parley.internal/emulator/twitch"
	"parley.internal/gateway/gap"
	"parley.internal/gateway/oauth"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/identity"
	"parley.internal/shared/topology"
)

// StopGateway is a fault of [RunPlatforms] only: it is one for who has a channel, and none for who holds a WebSocket.
const StopGateway Kind = "stop-gateway"

// PlatformFaults are the kinds of faults of [RunPlatforms].
var PlatformFaults = []Explained{
	{KillGateway, "SIGKILL of a gateway, and another one in its place"},
	{KillBeforeSettling, "SIGKILL of a gateway that has said an answer and not yet recorded it"},
	{StopGateway, "SIGTERM of a gateway, and another one in its place"},
}

// PlatformOptions says what [RunPlatforms] runs, and what it does to it.
type PlatformOptions struct {
	Binary  string // the emulator's executable
	Dir     string // where the parts' logs and the credentials' key are written; it must exist
	Environ []string
	Seed    uint64

	Gateways int // every second one speaks to Twitch by IRC, the others by Helix
	Channels int // of Twitch
	Guilds   int // of Discord; each has two channels
	// Questions are asked, on each platform one after the other in this interval, until there are so many, and so many
	// gateways were killed or stopped.
	Messages int
	Every    time.Duration
	Faults   int
	Gap      time.Duration // between two faults, on average
	// Hurry has the minute for which a claim holds be over at once for those that killed gateways left on Twitch.
	Hurry bool

	Documents stack.Seed // rules and personalities; "!ask …" must be answered
	Progress  func(Progress)
}

// pace of the platforms' test: a gateway's leases are free three seconds after it was killed.
var platformPace = Pace{Longest: 4 * time.Second, Deadline: 90 * time.Second, Grace: 3 * time.Second, Sweep: time.Second}

// platformEnviron is what the parts are told beside that. As many seats as gateways are not enough: one that was killed
// keeps its seat until it is known to be gone.
var platformEnviron = []string{"LEASE_TTL=2s", "LEASE_BEAT=400ms", "LEASE_SEATS=30", "TWITCH_VERIFIED=true"}

const (
	botLogin = "parley"
	botID    = "9000"
	people   = 10 // on each platform
)

// asked is a question that somebody asked on a platform.
type asked struct {
	id, channel string // the platform's
	person      string
	at          time.Time
	attended    bool // the bot was in the channel when it was asked
}

// said is something that the bot said on a platform.
type said struct {
	id, channel, replyTo, text string
	at                         time.Time
}

// community is a platform, as people and the audit see it.
type community interface {
	platform() identity.Platform
	channels() []string
	ask(channel string, person int, text string) (asked, error)
	// said is what the bot said in a channel, in order.
	said(channel string) []said
}

type onTwitch struct {
	*twitch.Server
	names []string
}

func (t onTwitch) platform() identity.Platform { return identity.Twitch }
func (t onTwitch) channels() []string          { return t.names }

func (t onTwitch) attended(channel string) bool { return slices.Contains(t.Joined(channel), botLogin) }

func (t onTwitch) ask(channel string, person int, text string) (asked, error) {
	attended := t.attended(channel)
	l, err := t.Say(channel, personName(person), text)
	return asked{l.ID, channel, l.Login, l.At, attended}, err
}

func (t onTwitch) said(channel string) (lines []said) {
	for _, l := range t.Said(channel) {
		if l.Login == botLogin {
			lines = append(lines, said{l.ID, channel, l.ReplyTo, l.Text, l.At})
		}
	}
	return lines
}

type onDiscord struct {
	*discord.Server
	ids []string
}

func (d onDiscord) platform() identity.Platform { return identity.Discord }
func (d onDiscord) channels() []string          { return d.ids }

func (d onDiscord) ask(channel string, person int, text string) (asked, error) {
	attended := d.Connected(botID) > 0
	m, err := d.Say(channel, fmt.Sprint(2000+person), text)
	return asked{m.ID, channel, m.Author.Name, m.At, attended}, err
}

func (d onDiscord) said(channel string) (lines []said) {
	for _, m := range d.Said(channel) {
		if m.Author.ID == botID {
			lines = append(lines, said{m.ID, channel, m.ReplyTo, m.Text, m.At})
		}
	}
	return lines
}

func personName(i int) string { return fmt.Sprintf("person%d", i) }

// platforms is what runs in a test of the platforms.
type platforms struct {
	*world
	options     PlatformOptions
	twitch      onTwitch
	discord     onDiscord
	communities []community

	claims struct {
		sync.Mutex
		killed map[string]bool // instances
	}

	hearing sync.Mutex
	heard   map[string]map[string]int // by platform:message id, how often it was published under each correlation id
	others  int                       // events that are no question

	asking    sync.Mutex
	questions map[identity.Platform][]asked
}

// RunPlatforms runs gateways that are in the channels of stand-ins for Twitch and Discord, kills and stops them while
// people ask there, and counts: each question is heard once and answered once. The error says why it could not be run;
// what was found is in the report.
//
// Twitch keeps no history. A question there may be missed, if it was asked in a gap that is recorded; on Discord none
// may be. And a gateway that is killed after it said something on Twitch, and before it recorded that, leaves an answer
// of which nobody knows: it ends as a dead letter, outcome_unknown, and may have been said once.
func RunPlatforms(ctx context.Context, o PlatformOptions) (_ *PlatformsReport, err error) {
	if o.Gateways < 2 || o.Channels < 1 || o.Guilds < 1 || o.Messages < 1 || o.Every <= 0 || o.Gap <= 0 {
		return nil, errors.New("soak: the platforms' test needs two gateways, a channel, a guild, a message and times at least")
	}
	ctx, cancel := context.WithCancel(ctx)
	pace := platformPace
	pace.Gap = o.Gap
	p := &platforms{
		options: o, heard: map[string]map[string]int{}, questions: map[identity.Platform][]asked{},
		world: &world{
			Options: Options{
				Binary: o.Binary, Dir: o.Dir, Seed: o.Seed, Gateways: o.Gateways, Messages: 2 * o.Messages, Faults: o.Faults,
				Documents: o.Documents, Pace: pace, Progress: o.Progress,
			},
			began: time.Now(), injector: newInjector(), network: newNetwork(), schedule: newSchedule(o.Seed, pace, kindsOf(PlatformFaults)),
		},
	}
	p.claims.killed = map[string]bool{}
	defer func() {
		cancel()
		err = errors.Join(err, p.close())
	}()
	return steps(ctx, p.start, p.run, p.audit)
}

func (p *platforms) close() error {
	err := p.world.close()
	if p.twitch.Server != nil {
		err = errors.Join(err, p.twitch.Close())
	}
	if p.discord.Server != nil {
		err = errors.Join(err, p.discord.Close())
	}
	return err
}

// start starts the servers, the stand-ins, the functions and the gateways, and waits until these are in every channel.
func (p *platforms) start(ctx context.Context) error {
	p.enter("starting")
	if err := p.startServers(ctx, p.onPublish); err != nil {
		return err
	}
	seed := stack.Seed{Personalities: p.Documents.Personalities, Rules: p.Documents.Rules}
	if _, err := seed.Plant(ctx, p.client, time.Now()); err != nil {
		return err
	}
	p.Environ = slices.Concat(p.options.Environ, platformEnviron)
	if err := p.startTwitch(ctx); err != nil {
		return err
	}
	if err := p.startDiscord(); err != nil {
		return err
	}
	p.communities = []community{p.twitch, p.discord}
	ways := []string{"TWITCH_SPEAK=helix", "TWITCH_SPEAK=irc"}
	err := p.startParts(ctx, func() time.Duration { return 0 }, func(i int) []string { return ways[i%2 : i%2+1] })
	if err != nil {
		return err
	}
	p.enter("waiting for the bot in every channel")
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	err = p.twitch.Await(ctx, func() bool {
		return !slices.ContainsFunc(p.twitch.names, func(name string) bool { return !p.twitch.attended(name) })
	})
	if err != nil {
		return err
	}
	return p.discord.Await(ctx, func() bool { return p.discord.Connected(botID) > 0 })
}

// startTwitch starts Twitch without its limits, which the real pace of a community stays below.
func (p *platforms) startTwitch(ctx context.Context) (err error) {
	if p.twitch.Server, err = twitch.New(twitch.WithLimits(twitch.Limits{Helix: twitch.Window{N: 1_000_000, Per: time.Minute}})); err != nil {
		return err
	}
	bot, err := p.twitch.AddUser(twitch.User{ID: botID, Login: botLogin})
	if err != nil {
		return err
	}
	for i := range people {
		if _, err := p.twitch.AddUser(twitch.User{ID: fmt.Sprint(1000 + i), Login: personName(i)}); err != nil {
			return err
		}
	}
	for i := range p.options.Channels {
		name := fmt.Sprintf("channel%d", i)
		if _, err := p.twitch.AddUser(twitch.User{ID: fmt.Sprint(5000 + i), Login: name}); err != nil {
			return err
		}
		if err := p.twitch.SetRole(name, botLogin, twitch.Role{Moderator: true}); err != nil {
			return err
		}
		p.twitch.names = append(p.twitch.names, name)
	}
	public := "http://localhost" // nobody logs in
	app, err := p.twitch.AddApp(twitch.App{Name: botLogin, RedirectURIs: []string{public + oauth.CallbackPath}})
	if err != nil {
		return err
	}
	told := map[string]string{
		"TWITCH_CLIENT_ID": app.ID, "TWITCH_CLIENT_SECRET": app.Secret, "TWITCH_BOT_USER_ID": bot.ID,
		"TWITCH_OAUTH_URL": p.twitch.OAuthURL(), "TWITCH_API_URL": p.twitch.HelixURL(),
		"TWITCH_IRC_ADDR": p.twitch.IRCAddr(), "TWITCH_IRC_TLS": "false", "TWITCH_CHANNELS": strings.Join(p.twitch.names, ","),
		"CREDENTIAL_KEY": "file:" + filepath.Join(p.Dir, "credential.key"), "PUBLIC_URL": public,
	}
	for name, value := range told {
		p.Environ = append(p.Environ, name+"="+value)
	}
	return stack.LogInBot(ctx, p.twitch.Server, app, bot, told, p.client)
}

func (p *platforms) startDiscord() (err error) {
	if p.discord.Server, err = discord.New(discord.WithLimits(discord.Limits{
		Global: discord.Window{N: 1_000_000, Per: time.Minute}, Messages: discord.Window{N: 1_000_000, Per: time.Minute},
		Routes: discord.Window{N: 1_000_000, Per: time.Minute}, Sessions: discord.Window{N: 1000, Per: 24 * time.Hour},
	})); err != nil {
		return err
	}
	bot, err := p.discord.AddBot(discord.Bot{User: discord.User{ID: botID, Name: botLogin}, Privileged: discord.IntentMessageContent | discord.IntentGuildMembers})
	if err != nil {
		return err
	}
	for i := range people {
		if _, err := p.discord.AddUser(discord.User{ID: fmt.Sprint(2000 + i), Name: personName(i)}); err != nil {
			return err
		}
	}
	for i := range p.options.Guilds {
		guild, err := p.discord.AddGuild(discord.Guild{ID: fmt.Sprint(3000 + 10*i), Name: fmt.Sprintf("Guild %d", i), OwnerID: "2000"})
		if err != nil {
			return err
		}
		for j, name := range []string{"general", "games"} {
			c, err := p.discord.AddChannel(discord.Channel{ID: fmt.Sprint(3001 + 10*i + j), GuildID: guild.ID, Name: name})
			if err != nil {
				return err
			}
			p.discord.ids = append(p.discord.ids, c.ID)
		}
		for member := range people {
			if member == 0 {
				continue // who owns it is in it
			}
			if _, err := p.discord.AddMember(guild.ID, fmt.Sprint(2000+member)); err != nil {
				return err
			}
		}
		if _, err := p.discord.AddMember(guild.ID, bot.ID); err != nil {
			return err
		}
	}
	p.Environ = append(p.Environ, "DISCORD_BOT_TOKEN="+bot.Token, "DISCORD_API_URL="+p.discord.APIURL())
	return nil
}

// onPublish notes what was heard on the platforms.
func (p *platforms) onPublish(topic string, m *pubsubpb.PubsubMessage) {
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
		p.fail("ingress took something that is not an event: %v", err)
		return
	}
	p.hearing.Lock()
	defer p.hearing.Unlock()
	if e.Message == nil {
		p.others++
		return
	}
	key := string(identity.PlatformOf(e.Source)) + ":" + e.Message.ID
	if p.heard[key] == nil {
		p.heard[key] = map[string]int{}
	}
	p.heard[key][e.CorrelationID]++
}

// run asks and kills, then waits until every answer has its outcome.
func (p *platforms) run(ctx context.Context) error {
	background, endBackground := context.WithCancel(ctx)
	var back errgroup.Group
	defer func() {
		endBackground()
		back.Wait()
	}()
	back.Go(func() error { p.ticks(background); return nil })
	back.Go(func() error { p.watch(background); return nil })
	back.Go(func() error { // for those who watch the progress
		for wait(background, time.Second) == nil {
			if _, err := p.open(background); err != nil && background.Err() == nil {
				p.fail("count what was answered: %v", err)
				return nil
			}
		}
		return nil
	})
	if p.options.Hurry {
		back.Go(func() error { p.hurry(background); return nil })
	}

	p.enter("asking, and killing")
	faulting, mend := context.WithCancel(ctx)
	defer mend()
	broken := make(chan error, 1)
	go func() { broken <- p.breakThings(faulting) }() // ends with faulting
	var asking errgroup.Group
	for i, c := range p.communities {
		asking.Go(func() error { return p.askAll(ctx, c, rand.New(rand.NewPCG(p.Seed, uint64(i+1)))) })
	}
	err := asking.Wait()
	mend()
	if err := errors.Join(err, <-broken); err != nil {
		return err
	}
	p.enter("waiting for every outcome")
	return p.outcomes(ctx)
}

// askAll asks on one platform.
func (p *platforms) askAll(ctx context.Context, c community, rng *rand.Rand) error {
	channels := c.channels()
	for n := 0; ; n++ {
		p.mu.Lock()
		faults := len(p.log)
		p.mu.Unlock()
		if n >= p.options.Messages && faults >= p.options.Faults {
			return nil
		}
		q, err := c.ask(channels[rng.IntN(len(channels))], rng.IntN(people), fmt.Sprintf("!ask question %d", n))
		if err != nil {
			return fmt.Errorf("ask: %w", err)
		}
		p.asked.Add(1)
		p.asking.Lock()
		p.questions[c.platform()] = append(p.questions[c.platform()], q)
		p.asking.Unlock()
		if err := wait(ctx, p.options.Every); err != nil {
			return err
		}
	}
}

// breakThings makes faults until ctx is done. Two gateways at most are away at a time, and one at least is there.
func (p *platforms) breakThings(ctx context.Context) error {
	var g errgroup.Group
	g.SetLimit(min(2, p.options.Gateways-1))
	for n := 0; ; n++ {
		f := p.schedule.next()
		if wait(ctx, f.after) != nil {
			return g.Wait()
		}
		g.Go(func() error { return p.make(ctx, f, n%2 == 1) })
	}
}

// make makes one fault. The gateway that it meets is one that the schedule drew, or the one that has Discord's session.
func (p *platforms) make(ctx context.Context, f fault, discord bool) error {
	slot := p.gateways[f.target%uint64(len(p.gateways))]
	if discord {
		owner, err := p.owner(ctx)
		if err != nil && ctx.Err() == nil {
			return err
		}
		for _, s := range p.gateways {
			if s.get().id == owner {
				slot = s
			}
		}
	}
	slot.busy.Lock()
	defer slot.busy.Unlock()
	p.mu.Lock()
	at := len(p.log)
	p.log = append(p.log, happened{fault: f, began: time.Now(), who: slot.name})
	p.mu.Unlock()
	err := p.do(ctx, f, slot)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log[at].ended = time.Now()
	if err != nil {
		return fmt.Errorf("%s: %w", f, err)
	}
	return nil
}

// owner is the instance that has Discord's session, as far as one knows.
func (p *platforms) owner(ctx context.Context) (string, error) {
	snap, err := p.client.Collection("leases").Doc("discord:bot").Get(ctx)
	if err != nil {
		return "", fmt.Errorf("look who is connected to Discord: %w", err)
	}
	owner, _ := snap.Data()["instance"].(string)
	return owner, nil
}

func (p *platforms) do(ctx context.Context, f fault, slot *gatewaySlot) error {
	mending := context.WithoutCancel(ctx)
	gw := slot.get()
	if f.kind == StopGateway {
		if took, inTime, well := gw.terminate(); !inTime || !well {
			return fmt.Errorf("%s was asked to end, and after %s had ended in time: %v, and well: %v", gw.proc.name, took, inTime, well)
		}
	} else {
		if f.kind == KillBeforeSettling {
			h, release := p.injector.holdSettling(gw.id)
			defer release()
			timeout := time.NewTimer(f.length)
			defer timeout.Stop()
			select {
			case <-h.reached:
			case <-timeout.C:
			case <-ctx.Done():
			}
		}
		if err := slot.kill(mending, p.world); err != nil {
			return err
		}
		p.claims.Lock()
		p.claims.killed[gw.id] = true
		p.claims.Unlock()
	}
	wait(ctx, f.length/2)
	return slot.start(mending, p.world, 0)
}

// hurry lets the claims that killed gateways left be old. Those on Discord are not: the next who has the session takes
// them over while they hold.
func (p *platforms) hurry(ctx context.Context) {
	for wait(ctx, p.Pace.Sweep) == nil {
		snaps, err := p.deliveries().Where("state", "==", delivery.Claimed).Documents(ctx).GetAll()
		for _, snap := range snaps {
			p.claims.Lock()
			killed := p.claims.killed[fmt.Sprint(snap.Data()["instance"])]
			p.claims.Unlock()
			until, _ := snap.Data()["leaseUntil"].(time.Time)
			if !killed || until.Before(time.Now()) || snap.Data()["destination"] == string(identity.Discord) {
				continue
			}
			// under the condition that nobody wrote it since; whoever did is looked at the next time
			_, _ = snap.Ref.Update(ctx, []firestore.Update{{Path: "leaseUntil", Value: time.Now().Add(-delivery.ClaimLease)}}, firestore.LastUpdateTime(snap.UpdateTime))
		}
		if err != nil && ctx.Err() == nil {
			p.fail("look for claims: %v", err)
			return
		}
	}
}

// outcomes waits until every question was heard or missed, and every answer is settled, but not for ever.
func (p *platforms) outcomes(ctx context.Context) error {
	limit := time.Now().Add(p.Pace.Deadline + p.Pace.Grace + delivery.ClaimLease)
	for {
		open, err := p.open(ctx)
		if err != nil || open == 0 {
			return err
		}
		if time.Now().After(limit) {
			p.fail("%d questions had no outcome when the time was over", open)
			return nil
		}
		if err := wait(ctx, p.Pace.Sweep/2); err != nil {
			return err
		}
	}
}

// open counts the questions that have no outcome yet.
func (p *platforms) open(ctx context.Context) (int, error) {
	f, err := p.find(ctx)
	if err != nil {
		return 0, err
	}
	open, answered := 0, 0
	p.asking.Lock()
	defer p.asking.Unlock()
	for _, c := range p.communities {
		for _, q := range p.questions[c.platform()] {
			correlations := f.heard[string(c.platform())+":"+q.id]
			if len(correlations) == 0 {
				if !f.missed(c.platform(), q) {
					open++
				}
				continue
			}
			settled := false
			for correlation := range correlations {
				for _, e := range f.entries[correlation] {
					settled = settled || e.State == string(delivery.Delivered) || e.State == string(delivery.Dead) && len(f.letters[correlation]) > 0
				}
				settled = settled || len(f.entries[correlation]) == 0 && len(f.letters[correlation]) > 0
			}
			if settled {
				answered++
			} else {
				open++
			}
		}
	}
	p.answered.Store(int64(answered))
	return open, nil
}

// findings are what is known of all questions, in the orders in which it is looked up.
type findings struct {
	heard   map[string]map[string]int
	entries map[string][]entry
	letters map[string][]letter
	gaps    map[string][]gap.Gap // by channel, as events have it
}

func (p *platforms) find(ctx context.Context) (findings, error) {
	f := findings{heard: map[string]map[string]int{}, entries: map[string][]entry{}, letters: map[string][]letter{}, gaps: map[string][]gap.Gap{}}
	gaps, err := all(p.client.Collection("gaps").Documents(ctx), func(*gap.Gap, string) {})
	if err != nil {
		return f, err
	}
	for _, g := range gaps {
		f.gaps[g.Channel] = append(f.gaps[g.Channel], g)
	}
	p.hearing.Lock()
	for key, correlations := range p.heard {
		f.heard[key] = map[string]int{}
		for c, n := range correlations {
			f.heard[key][c] = n
		}
	}
	p.hearing.Unlock()
	entries, err := p.entries(ctx, p.deliveries())
	if err != nil {
		return f, err
	}
	for _, e := range entries {
		f.entries[e.CorrelationID] = append(f.entries[e.CorrelationID], e)
	}
	letters, err := p.letters(ctx, p.deadletters())
	for _, l := range letters {
		f.letters[l.CorrelationID] = append(f.letters[l.CorrelationID], l)
	}
	return f, err
}

// missed reports whether a question was asked while nobody is known to have listened.
func (f findings) missed(platform identity.Platform, q asked) bool {
	return slices.ContainsFunc(f.gaps[string(platform)+":"+q.channel], func(g gap.Gap) bool {
		return !q.at.Before(g.From) && !q.at.After(g.To)
	})
}

// PlatformTally is what came of the questions on one platform.
type PlatformTally struct {
	Asked, Heard int // questions that were asked, and those of them that are events
	Again        int // how often one was published again, under the same id
	Missed       int // not heard, and asked within a recorded gap
	Attended     int // of these, asked while the bot was in the channel: the gateway that had it was about to be killed
	Answered     int // delivered, and said once
	Unknown      int // outcome_unknown
	UnknownSaid  int // of these, said
	Dead         int // of another reason
	Overtaken    int // said after the answer to a later question of the same person in the same channel
	Gaps         int
	GapTime      time.Duration // all gaps together
}

// PlatformsReport is what came of a test of the platforms.
type PlatformsReport struct {
	Seed          uint64
	Elapsed       time.Duration
	Gateways      int // how many there were, one after the other
	Faults        map[Kind]int
	Platforms     map[identity.Platform]PlatformTally
	Lost, Doubled int
	Violations    []Violation
}

// Clean reports whether nothing is wrong.
func (r *PlatformsReport) Clean() bool { return len(r.Violations) == 0 }

// audit compares what was asked and said with what Firestore holds.
func (p *platforms) audit(ctx context.Context) (*PlatformsReport, error) {
	p.enter("auditing")
	f, err := p.find(ctx)
	if err != nil {
		return nil, err
	}
	r := &PlatformsReport{Seed: p.Seed, Elapsed: time.Since(p.began), Faults: map[Kind]int{}, Platforms: map[identity.Platform]PlatformTally{}}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.log {
		r.Faults[h.kind]++
	}
	for _, s := range p.gateways {
		r.Gateways += s.born
	}
	for _, what := range p.failures {
		r.Violations = append(r.Violations, Violation{What: what})
	}
	known := map[string]bool{} // correlation ids of questions
	for _, c := range p.communities {
		a := &platformAuditor{platforms: p, findings: f, report: r, platform: c.platform(), lines: map[string][]said{}, own: map[string]bool{}}
		a.compare(c, known)
		r.Platforms[c.platform()] = a.tally
	}
	for correlation, entries := range f.entries {
		if !known[correlation] {
			r.Violations = append(r.Violations, Violation{What: fmt.Sprintf("delivery %s answers nothing that was asked (%s)", entries[0].ID, correlation)})
		}
	}
	for correlation, letters := range f.letters {
		if !known[correlation] {
			r.Violations = append(r.Violations, Violation{What: fmt.Sprintf("dead letter %s (%s: %s) is of nothing that was asked", letters[0].ID, letters[0].Reason, letters[0].Message)})
		}
	}
	slices.SortFunc(r.Violations, func(x, y Violation) int { return strings.Compare(x.What, y.What) })
	return r, nil
}

type platformAuditor struct {
	findings
	platforms *platforms
	report    *PlatformsReport
	platform  identity.Platform
	tally     PlatformTally
	lines     map[string][]said // by the question that they answer
	own       map[string]bool   // ids of what the bot said
}

func (a *platformAuditor) compare(c community, known map[string]bool) {
	questions := a.platforms.questions[a.platform]
	byID := map[string]int{}
	for i, q := range questions {
		byID[q.id] = i
	}
	for _, channel := range c.channels() {
		latest := map[string]int{} // of each person, the last question that has been answered
		for _, l := range c.said(channel) {
			a.own[l.id] = true
			a.lines[l.replyTo] = append(a.lines[l.replyTo], l)
			i, ok := byID[l.replyTo]
			switch {
			case !ok:
				a.violation(Violation{What: fmt.Sprintf("in %s:%s was said %q, an answer to nothing", a.platform, channel, l.text)}, asked{}, "")
				continue
			case questions[i].channel != channel:
				a.violation(Violation{What: fmt.Sprintf("a question in %s:%s was answered in %s", a.platform, questions[i].channel, channel), Lost: true}, questions[i], "")
			}
			if i < latest[questions[i].person] {
				a.tally.Overtaken++
			}
			latest[questions[i].person] = max(latest[questions[i].person], i)
		}
		for _, g := range a.gaps[string(a.platform)+":"+channel] {
			a.tally.Gaps++
			a.tally.GapTime += g.To.Sub(g.From)
		}
	}
	for id := range a.own {
		if a.heard[string(a.platform)+":"+id] != nil {
			a.violation(Violation{What: fmt.Sprintf("the bot heard itself: %s:%s", a.platform, id)}, asked{}, "")
		}
	}
	for _, q := range questions {
		a.question(q, known)
	}
}

// question checks that a question has one outcome.
func (a *platformAuditor) question(q asked, known map[string]bool) {
	a.tally.Asked++
	what := fmt.Sprintf("%s:%s in %s, asked at %.3fs: ", a.platform, q.id, q.channel, q.at.Sub(a.platforms.began).Seconds())
	lines := a.lines[q.id]
	var correlation string
	times := 0
	heard := a.heard[string(a.platform)+":"+q.id]
	for c, n := range heard {
		correlation, times = c, n
		known[c] = true
	}
	broken := func(lost, doubled bool, format string, args ...any) {
		a.violation(Violation{What: what + fmt.Sprintf(format, args...), Lost: lost, Doubled: doubled}, q, correlation)
	}
	switch {
	case len(heard) == 0 && len(lines) > 0:
		broken(false, true, "answered, and never heard")
		return
	case len(heard) == 0 && a.missed(a.platform, q) && a.platform == identity.Twitch:
		a.tally.Missed++
		if q.attended {
			a.tally.Attended++
		}
		return
	case len(heard) == 0:
		broken(true, false, "never heard (somebody was there: %v; in a recorded gap: %v)", q.attended, a.missed(a.platform, q))
		return
	case len(heard) > 1:
		broken(false, true, "heard as %d events", len(heard))
	}
	a.tally.Heard++
	a.tally.Again += times - 1
	if len(lines) > 1 {
		broken(false, true, "answered %d times", len(lines))
	}
	entries, letters := a.entries[correlation], a.letters[correlation]
	if len(entries) > 1 || len(letters) > 1 {
		broken(false, true, "%d answers in the ledger, %d dead letters", len(entries), len(letters))
		return
	}
	for _, l := range letters {
		if l.Attempts != 1 {
			broken(false, true, "its dead letter was written %d times", l.Attempts)
		}
	}
	if len(entries) == 0 {
		if len(letters) == 0 {
			broken(true, false, "no answer in the ledger and no dead letter")
		} else {
			a.tally.Dead++
		}
		return
	}
	e := entries[0]
	switch state := delivery.State(e.State); {
	case state == delivery.Delivered && len(letters) > 0:
		broken(false, true, "delivered, and a dead letter (%s)", letters[0].Reason)
	case state == delivery.Delivered && len(lines) == 0:
		broken(true, false, "delivered, and not said")
	case state == delivery.Delivered:
		a.tally.Answered++
	case state == delivery.Dead && len(letters) == 0:
		broken(true, false, "dead, without a dead letter")
	case state == delivery.Dead && e.Reason == string(deadletter.OutcomeUnknown):
		a.tally.Unknown++
		a.tally.UnknownSaid += len(lines)
	case state == delivery.Dead && len(lines) > 0:
		broken(false, true, "dead (%s), and said", e.Reason)
	case state == delivery.Dead:
		a.tally.Dead++
	default:
		broken(true, false, "neither delivered nor dead: %s", e.State)
	}
}

func (a *platformAuditor) violation(v Violation, q asked, correlation string) {
	if v.Lost {
		a.report.Lost++
	}
	if v.Doubled {
		a.report.Doubled++
	}
	if len(a.report.Violations) < maxHistories && q.id != "" {
		p := a.platforms
		at := func(t time.Time) string { return fmt.Sprintf("%.3fs", t.Sub(p.began).Seconds()) }
		for _, e := range a.entries[correlation] {
			v.History = append(v.History, fmt.Sprintf("ledger: %+v; opened at %s", e, at(e.OpenedAt)))
		}
		for _, l := range a.lines[q.id] {
			v.History = append(v.History, fmt.Sprintf("said at %s: %q", at(l.at), l.text))
		}
		for _, g := range a.gaps[string(a.platform)+":"+q.channel] {
			v.History = append(v.History, fmt.Sprintf("gap from %s to %s, found by %s", at(g.From), at(g.To), g.Instance))
		}
		for _, h := range p.log {
			if h.ended.After(q.at.Add(-around)) && h.began.Before(q.at.Add(around)) {
				v.History = append(v.History, fmt.Sprintf("fault: %s %s, from %s until %s", h.fault, h.who, at(h.began), at(h.ended)))
			}
		}
		ids := []string{q.id}
		for _, e := range a.entries[correlation] {
			ids = append(ids, e.ID)
		}
		v.History = append(v.History, p.logged(ids...)...)
	}
	a.report.Violations = append(a.report.Violations, v)
}
