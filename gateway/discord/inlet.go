package discord

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/bwmarrin/discordgo"

	"parley.internal/gateway/gap"
	"parley.internal/shared/bus"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/lease"
	"parley.internal/shared/telemetry"
	"parley.internal/shared/topology"
)

// Publisher is what is needed of the bus.
type Publisher interface {
	Publish(ctx context.Context, t topology.Topic, out bus.Outgoing) error
}

const (
	// maxLane is how many items of a channel wait in memory, maxWaiting of all channels together. What is said beyond
	// that is read again from Discord, once there is room.
	maxLane, maxWaiting = 200, 20_000
	// publishers is how many items are published at a time, readers how many channels are read afterwards.
	publishers, readers = 32, 4
	// pageSize is the most messages that Discord gives at a time
	// (https://discord.com/developers/docs/resources/message#get-channel-messages).
	pageSize = 100
	// recent is how many of a channel's last items are remembered at least, so that one that is read afterwards and then
	// heard is published once. It is more than a page.
	recent = 256
)

// inlet publishes what was heard while this instance has the lease: in each channel in the order in which it was said,
// also when a part of it has to be read afterwards. Channels don't wait for each other.
type inlet struct {
	service  *Service
	lease    lease.Lease
	listener listener
	reading  context.Context // ends when no more is to be read afterwards
	stopped  context.Context // what is still waiting then is left to the next owner
	slots    chan struct{}
	readers  chan struct{}
	wg       sync.WaitGroup

	mu      sync.Mutex
	lanes   map[string]*lane     // by channel
	known   map[string]time.Time // since when servers have watermarks
	waiting int                  // items in all lanes
	closed  bool
}

// lane is one channel's.
type lane struct {
	channel string
	guild   string
	last    snowflake // of the greatest message that needs no publishing any more
	stored  snowflake // the same, as the watermark has it
	version time.Time // of the watermark; zero if there is none
	open    bool      // its server is known, so that what is read afterwards can be understood
	behind  bool      // what was said after last has to be read before anything else of it is published
	busy    bool      // a goroutine works on it
	queue   []item
	done    []string // correlation ids of what was published last
}

// settled is up to where nothing has to be published any more. Discord makes ids in several places, so that a message
// may come after one with a greater id: what waits is not passed over.
func (l *lane) settled() snowflake {
	last := l.last
	for _, it := range l.queue {
		if it.mark > 0 {
			last = min(last, it.mark-1)
		}
	}
	return last
}

func newInlet(reading, stopped context.Context, s *Service, l lease.Lease) *inlet {
	return &inlet{
		service: s, lease: l, reading: reading, stopped: stopped,
		listener: listener{guilds: newGuilds(), members: s.config.Members},
		slots:    make(chan struct{}, publishers), readers: make(chan struct{}, readers),
		lanes: map[string]*lane{}, known: map[string]time.Time{},
	}
}

// heard takes what Discord dispatches, and never waits.
func (in *inlet) heard(kind string, data []byte) {
	s := in.service
	if kind == "READY" {
		in.ready(data)
		return
	}
	appeared, opened, err := in.listener.guilds.told(kind, data)
	if err != nil {
		s.log.Warn("what Discord tells of a server can't be read", "type", kind, "error", err)
	}
	if appeared != nil && s.listens(appeared.ID) {
		in.appeared(appeared)
	}
	if opened != nil && s.listens(opened.GuildID) && talks(opened.Type) {
		in.opened(opened)
	}
	items, err := in.listener.of(kind, data)
	if err != nil {
		s.metrics.heard.WithLabelValues("invalid").Inc()
		s.log.Error("what Discord tells can't be read", "type", kind, "error", err)
	}
	for _, it := range items {
		if it.guild == "" || s.listens(it.guild) {
			in.take(it)
		}
	}
}

// now is the listener of the current session.
func (in *inlet) now() listener {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.listener
}

// ready begins a new session. What was said before it has to be read afterwards: in direct conversations now, in a
// server's channels when Discord tells of the server.
func (in *inlet) ready(data []byte) {
	bot, err := readyUser(data)
	if err != nil {
		in.service.log.Error("who the bot is can't be read", "error", err)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.listener.bot = bot
	for _, l := range in.lanes {
		if l.open = l.guild == ""; l.open {
			l.behind = true
			in.work(l)
		}
	}
}

// appeared takes in a server that was told of in a new session, or that can be reached again.
func (in *inlet) appeared(g *guild) {
	in.mu.Lock()
	defer in.mu.Unlock()
	since, known := in.known[g.ID]
	begun := in.lease.IdleSince(gap.Chat) // since when somebody should have listened; zero if this is the first who does
	seen := map[string]bool{}
	for _, c := range slices.Concat(g.Channels, g.Threads) {
		id, ok := parseSnowflake(c.ID)
		if !ok || !talks(c.Type) {
			continue
		}
		seen[c.ID] = true
		newest, _ := parseSnowflake(c.LastMessageID)
		l := in.lanes[c.ID]
		switch {
		case l != nil:
			l.behind = l.behind || newest > l.last
		case known && id.time().After(since):
			// it was made while nobody listened
			l = &lane{channel: c.ID, guild: g.ID, last: id - 1, behind: newest > 0}
		case !begun.IsZero():
			// whoever had the session before did not come to write its watermark
			l = &lane{channel: c.ID, guild: g.ID, last: max(id-1, min(newest, max(snowflakeAt(begun), snowflakeAt(g.Joined))))}
			l.behind = newest > l.last
		default:
			l = &lane{channel: c.ID, guild: g.ID, last: max(newest, id)}
		}
		in.lanes[c.ID] = l
		l.open = true
		in.work(l)
	}
	if !known {
		in.known[g.ID] = in.service.now()
	}
	for _, l := range in.lanes {
		if l.guild == g.ID && !seen[l.channel] && l.channel != g.ID {
			l.open, l.behind = true, true // a thread that rests, for example
			in.work(l)
		}
	}
}

// opened takes in a channel that was just made, or that the bot may see from now on.
func (in *inlet) opened(c *discordgo.Channel) {
	id, ok := parseSnowflake(c.ID)
	if !ok {
		return
	}
	newest, _ := parseSnowflake(c.LastMessageID)
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.lanes[c.ID] == nil {
		in.lanes[c.ID] = &lane{channel: c.ID, guild: c.GuildID, last: max(newest, id) - 1, open: true}
	}
}

// take puts an item into its channel's queue.
func (in *inlet) take(it item) {
	in.mu.Lock()
	defer in.mu.Unlock()
	l := in.lanes[it.channel]
	if l == nil {
		l = &lane{channel: it.channel, guild: it.guild, open: true}
		in.lanes[it.channel] = l
	}
	switch {
	case len(l.queue) < maxLane && in.waiting < maxWaiting:
		l.queue = append(l.queue, it)
		in.waiting++
	case it.mark > 0 && l.last > 0:
		l.behind = true
		in.count("deferred")
	default:
		in.count("lost")
	}
	in.work(l)
}

func (in *inlet) count(result string) { in.service.metrics.heard.WithLabelValues(result).Inc() }

// work has a lane worked on, if there is something to do. in.mu is held.
func (in *inlet) work(l *lane) {
	if l.busy || in.closed || !l.open && len(l.queue) == 0 || !l.behind && len(l.queue) == 0 {
		return
	}
	l.busy = true
	in.wg.Go(func() { in.run(l) }) // ends when the lane is empty, or with stopped
}

// run works on a lane until there is nothing left to do.
func (in *inlet) run(l *lane) {
	backoff := in.service.timing.minBackoff
	for {
		in.mu.Lock()
		if in.stopped.Err() != nil || !in.lease.Valid() || l.behind && in.reading.Err() != nil ||
			!l.behind && len(l.queue) == 0 || l.behind && !l.open {
			l.busy = false
			in.mu.Unlock()
			return
		}
		behind := l.behind
		l.behind = false
		var first item
		if !behind {
			first = l.queue[0]
		}
		in.mu.Unlock()
		if !behind {
			ok := in.publish(l, first)
			in.mu.Lock()
			if ok {
				l.queue = l.queue[1:]
				in.waiting--
			}
			in.mu.Unlock()
			continue
		}
		if err := in.catchUp(in.reading, l); err != nil {
			in.mu.Lock()
			l.behind = true
			in.mu.Unlock()
			if in.reading.Err() == nil {
				in.service.metrics.backfilled.WithLabelValues("failed").Inc()
				in.service.log.Warn("can't read what was missed; trying again", "channel", l.channel, "error", err)
			}
			sleep(in.reading, backoff)
			backoff = min(2*backoff, in.service.timing.maxBackoff)
			continue
		}
		backoff = in.service.timing.minBackoff
	}
}

// publish publishes an item, and tries until it succeeds or the instance ends. It reports whether nothing is left to
// do about it.
func (in *inlet) publish(l *lane, it item) bool {
	e := it.event
	if e != nil {
		in.mu.Lock()
		repeated := slices.Contains(l.done, e.CorrelationID)
		in.mu.Unlock()
		switch {
		case repeated:
			in.count("repeated")
		case !in.send(e):
			return false
		}
	} else {
		in.count("ignored")
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	l.last = max(l.last, it.mark)
	if e != nil {
		if l.done = append(l.done, e.CorrelationID); len(l.done) > 2*recent {
			l.done = slices.Clone(l.done[recent:])
		}
	}
	return true
}

func (in *inlet) send(e *event.Event) bool {
	s := in.service
	select {
	case in.slots <- struct{}{}:
		defer func() { <-in.slots }()
	case <-in.stopped.Done():
		return false
	}
	ctx, traceID := telemetry.StartTrace(in.stopped)
	e.TraceID = traceID
	for {
		if !in.lease.Valid() {
			return false // somebody else's to publish
		}
		err := s.publisher.Publish(ctx, topology.Ingress, bus.Outgoing{Event: e})
		switch {
		case err == nil:
			in.count("published")
			return true
		case errors.Is(err, event.ErrInvalid):
			in.count("invalid")
			s.log.ErrorContext(ctx, "what Discord said can't be an event", "error", err, "correlationId", e.CorrelationID)
			return true
		case ctx.Err() != nil:
			s.log.WarnContext(ctx, "not published before the end: the next owner reads it", "error", err, "correlationId", e.CorrelationID)
			return false
		}
		s.log.WarnContext(ctx, "can't publish what Discord said; trying again", "error", err, "correlationId", e.CorrelationID)
		sleep(ctx, s.timing.minBackoff)
	}
}

// errStopped ends reading when what was read can't be published any more.
var errStopped = errors.New("this instance has nothing to publish any more")

// catchUp reads what was said in a channel after its watermark, and publishes it.
func (in *inlet) catchUp(ctx context.Context, l *lane) error {
	s := in.service
	select {
	case in.readers <- struct{}{}:
		defer func() { <-in.readers }()
	case <-ctx.Done():
		return ctx.Err()
	}
	in.mu.Lock()
	after := l.settled()
	in.mu.Unlock()
	if after == 0 {
		return nil // nothing is known of before
	}
	listener, members := in.now(), map[string]*member{}
	limit := s.now().Add(-s.config.BackfillAge)
	var skipped []snowflake // the first and the last message that is too old or one too many
	skip := func(id snowflake) {
		if len(skipped) == 0 {
			skipped = []snowflake{id, id}
		}
		skipped[1] = id
	}
	read := 0
	for {
		published := map[snowflake]bool{}
		page, err := in.page(ctx, l, after)
		if f, ok := errors.AsType[*failure](err); ok && (f.status == http.StatusForbidden || f.status == http.StatusNotFound) {
			s.metrics.backfilled.WithLabelValues("unreadable").Inc()
			s.log.InfoContext(ctx, "a channel can't be read for what was missed", "channel", l.channel, "error", err)
			if f.code == discordgo.ErrCodeUnknownChannel {
				in.forget(ctx, l.channel)
			}
			break
		}
		if err != nil {
			return err
		}
		for _, m := range page {
			id, _ := parseSnowflake(m.ID)
			after = max(after, id)
			if id.time().Before(limit) || read >= s.config.BackfillMessages {
				skip(id)
				in.mu.Lock()
				l.last = max(l.last, id)
				in.mu.Unlock()
				continue
			}
			m.GuildID = l.guild
			if l.guild != "" && m.Member == nil && listener.fromPerson(m) {
				if m.Member, err = in.member(ctx, l.guild, m.Author.ID, members); err != nil {
					return err
				}
			}
			if !in.publish(l, listener.message(m)) {
				return errStopped
			}
			read++
			published[id] = true
		}
		in.drop(l, published)
		if len(page) < pageSize {
			break
		}
		switch {
		case read >= s.config.BackfillMessages:
			// only the newest matters now, so that the channel can go on from there
			newest, err := in.newest(ctx, l)
			if err != nil {
				return err
			}
			if newest > after {
				skip(newest)
				after = newest
				in.mu.Lock()
				l.last = max(l.last, newest)
				in.mu.Unlock()
			}
		case after < snowflakeAt(limit):
			after = snowflakeAt(limit)
			skip(after)
		}
	}
	if len(skipped) > 0 {
		in.missed(ctx, l.channel, skipped[0].time(), skipped[1].time())
	}
	if read > 0 {
		s.log.InfoContext(ctx, "read what was missed", "channel", l.channel, "messages", read)
	}
	s.metrics.backfilled.WithLabelValues("read").Inc()
	return nil
}

// drop takes out of a channel's queue what was read and published meanwhile. What was not read although it was heard,
// because it was deleted, for example, stays.
func (in *inlet) drop(l *lane, published map[snowflake]bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	l.queue = slices.DeleteFunc(l.queue, func(it item) bool {
		if it.mark == 0 || !published[it.mark] {
			return false
		}
		in.waiting--
		in.count("repeated")
		return true
	})
}

// page reads the messages that come after one, the earliest first.
func (in *inlet) page(ctx context.Context, l *lane, after snowflake) ([]*message, error) {
	path := "channels/" + l.channel + "/messages"
	var page []*message
	if err := in.service.rest.get(ctx, "GET "+path, path+"?limit="+strconv.Itoa(pageSize)+"&after="+after.String(), &page); err != nil {
		return nil, err
	}
	page = slices.DeleteFunc(page, func(m *message) bool {
		id, ok := parseSnowflake(m.ID)
		return !ok || id <= after
	})
	slices.SortFunc(page, func(a, b *message) int { return cmp.Or(cmp.Compare(len(a.ID), len(b.ID)), cmp.Compare(a.ID, b.ID)) })
	return page, nil
}

// newest is a channel's last message.
func (in *inlet) newest(ctx context.Context, l *lane) (snowflake, error) {
	path := "channels/" + l.channel + "/messages"
	var page []*message
	if err := in.service.rest.get(ctx, "GET "+path, path+"?limit=1", &page); err != nil || len(page) == 0 {
		return 0, err
	}
	id, _ := parseSnowflake(page[0].ID)
	return id, nil
}

// member asks for the roles of somebody, which messages that are read don't tell. Who left the server has none.
func (in *inlet) member(ctx context.Context, guildID, userID string, asked map[string]*member) (*member, error) {
	if m, ok := asked[userID]; ok {
		return m, nil
	}
	m := new(member)
	err := in.service.rest.get(ctx, "GET guilds/"+guildID+"/members", "guilds/"+guildID+"/members/"+userID, m)
	if f, ok := errors.AsType[*failure](err); ok && f.status == http.StatusNotFound {
		m, err = new(member), nil
	} else if ok && f.status == http.StatusForbidden {
		m, err = nil, nil // nothing is known of their roles
	}
	if err != nil {
		return nil, err
	}
	asked[userID] = m
	return m, nil
}

// missed records that some of what was said will not be heard.
func (in *inlet) missed(ctx context.Context, channel string, from, to time.Time) {
	s := in.service
	g := gap.New(string(identity.Discord), Channel(channel), gap.Chat, from, to, s.instance)
	s.metrics.gaps.Inc()
	s.metrics.gapSeconds.Add(g.To.Sub(g.From).Seconds())
	s.log.WarnContext(ctx, "more was missed than is read afterwards", "channel", channel, "from", g.From, "to", g.To)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := g.Put(ctx, s.firestore); err != nil {
		s.log.ErrorContext(ctx, "a gap can't be stored", "channel", channel, "from", g.From, "to", g.To, "error", err)
	}
}

// keepMarking writes watermarks until ctx is done.
func (in *inlet) keepMarking(ctx context.Context) {
	for ctx.Err() == nil {
		sleep(ctx, in.service.timing.mark)
		if err := in.mark(context.WithoutCancel(ctx)); err != nil {
			in.service.log.WarnContext(ctx, "watermarks can't be written; trying again", "error", err)
		}
	}
}

// close waits for what is still published. Nothing may be heard any more.
func (in *inlet) close() {
	in.mu.Lock()
	in.closed = true
	in.mu.Unlock()
	in.wg.Wait()
}
