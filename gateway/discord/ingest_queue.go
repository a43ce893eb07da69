package discord

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"parley.internal/shared/bus"
	"parley.internal/shared/event"
	"parley.internal/shared/lease"
	"parley.internal/shared/retry"
	"parley.internal/shared/telemetry"
	"parley.internal/shared/topology"
)

// Publisher publishes events. [bus.Client] implements it.
type Publisher interface {
	Publish(ctx context.Context, t topology.Topic, out bus.Outgoing) error
}

const (
	// maxChannelItems is the capacity of one channel's queue, maxItems of all queues together. A message beyond the
	// capacity is read from Discord later, by a backfill.
	maxChannelItems, maxItems = 200, 20_000
	// maxPublishes is the number of concurrent publish calls, maxBackfills of concurrent backfills.
	maxPublishes, maxBackfills = 32, 4
	// minRecentIDs is the minimum number of remembered correlation ids per channel, more than a page of a backfill. They
	// keep an item from being published twice if a backfill and the gateway connection both return it.
	minRecentIDs = 256
)

// ingestQueue publishes received items while this instance holds the lease. Each channel has its own queue: items of a
// channel are published in order, including messages read by a backfill, and channels do not wait for each other. An
// ingestQueue is safe for concurrent use.
type ingestQueue struct {
	service       *Service
	lease         lease.Lease
	watermarks    watermarkStore
	converter     converter       // handle alone changes it, under mu
	backfillCtx   context.Context // backfills stop when it is done
	publishCtx    context.Context // publishing stops when it is done; the next holder of the lease reads the rest
	publishSlots  chan struct{}
	backfillSlots chan struct{}
	wg            sync.WaitGroup // the workers

	mu          sync.Mutex
	channels    map[string]*channelQueue // by Discord's id of the channel
	guildsSince map[string]time.Time     // by guild: creation time of the oldest watermark
	waiting     int                      // number of items in all queues
	closed      bool
}

// channelQueue is the queue of one channel. ingestQueue.mu guards every field; one worker at a time removes items.
type channelQueue struct {
	channel       string
	guild         string    // empty for a direct conversation
	last          snowflake // greatest message id published or skipped; zero if none
	stored        snowflake // last as stored in the watermark
	updateTime    time.Time // of the watermark's document; zero if there is no document
	readable      bool      // the guild's roles and channels are received, so a backfill can convert messages
	needsBackfill bool      // messages after last must be read before anything else is published
	working       bool      // a worker runs
	items         []item
	recentIDs     []string // correlation ids of the last published items
}

// watermark returns the greatest message id up to which everything is published. Discord generates ids on several
// servers, so a message may arrive after a message with a greater id. The watermark therefore stays below every queued
// message.
func (q *channelQueue) watermark() snowflake {
	last := q.last
	for _, it := range q.items {
		if it.messageID > 0 {
			last = min(last, it.messageID-1)
		}
	}
	return last
}

func newIngestQueue(backfillCtx, publishCtx context.Context, s *Service, l lease.Lease) *ingestQueue {
	return &ingestQueue{
		service: s, lease: l, watermarks: watermarkStore{s.firestore, s.now}, backfillCtx: backfillCtx, publishCtx: publishCtx,
		converter:    converter{guilds: newGuilds(), members: s.config.Members},
		publishSlots: make(chan struct{}, maxPublishes), backfillSlots: make(chan struct{}, maxBackfills),
		channels: map[string]*channelQueue{}, guildsSince: map[string]time.Time{},
	}
}

// handle processes one dispatch of Discord's gateway. It never blocks.
func (in *ingestQueue) handle(kind string, data []byte) {
	s := in.service
	if kind == "READY" {
		in.sessionStarted(data)
		return
	}
	guild, channel, err := in.converter.guilds.update(kind, data)
	if err != nil {
		s.log.Warn("invalid guild event from Discord", "type", kind, "error", err)
	}
	if guild != nil && s.ingests(guild.ID) {
		in.guildAppeared(guild)
	}
	if channel != nil && s.ingests(channel.GuildID) && holdsMessages(channel.Type) {
		in.channelOpened(channel)
	}
	items, err := in.converter.convert(kind, data)
	if err != nil {
		s.metrics.ingested.WithLabelValues("invalid").Inc()
		s.log.Error("invalid event from Discord", "type", kind, "error", err)
	}
	for _, it := range items {
		if it.guild == "" || s.ingests(it.guild) {
			in.enqueue(it)
		}
	}
}

// currentConverter returns the converter of the current session.
func (in *ingestQueue) currentConverter() converter {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.converter
}

// enqueue adds an item to the queue of its channel. If the queue is full, a new message is left to a backfill and any
// other item is lost.
func (in *ingestQueue) enqueue(it item) {
	in.mu.Lock()
	defer in.mu.Unlock()
	q := in.channels[it.channel]
	if q == nil {
		q = &channelQueue{channel: it.channel, guild: it.guild, readable: true}
		in.channels[it.channel] = q
	}
	switch {
	case len(q.items) < maxChannelItems && in.waiting < maxItems:
		q.items = append(q.items, it)
		in.waiting++
	case it.messageID > 0 && q.last > 0:
		q.needsBackfill = true
		in.count("deferred")
	default:
		in.count("lost")
	}
	in.startWorker(q)
}

func (in *ingestQueue) count(result string) {
	in.service.metrics.ingested.WithLabelValues(result).Inc()
}

// startWorker starts a worker for a channel, if the channel has work and no worker. The caller holds in.mu.
func (in *ingestQueue) startWorker(q *channelQueue) {
	if q.working || in.closed || !q.readable && len(q.items) == 0 || !q.needsBackfill && len(q.items) == 0 {
		return
	}
	q.working = true
	in.wg.Go(func() { in.work(q) }) // ends when the channel has no work, or with publishCtx
}

// work publishes the items of a channel, and does its backfills, until nothing is left.
func (in *ingestQueue) work(q *channelQueue) {
	backoff := retry.NewBackoff(in.service.timing.minBackoff, in.service.timing.maxBackoff)
	for {
		in.mu.Lock()
		if in.publishCtx.Err() != nil || !in.lease.Valid() || q.needsBackfill && in.backfillCtx.Err() != nil ||
			!q.needsBackfill && len(q.items) == 0 || q.needsBackfill && !q.readable {
			q.working = false
			in.mu.Unlock()
			return
		}
		needsBackfill := q.needsBackfill
		q.needsBackfill = false
		var first item
		if !needsBackfill {
			first = q.items[0]
		}
		in.mu.Unlock()
		if !needsBackfill {
			ok := in.publish(q, first)
			in.mu.Lock()
			if ok {
				q.items = q.items[1:]
				in.waiting--
			}
			in.mu.Unlock()
			continue
		}
		if err := in.backfill(in.backfillCtx, q); err != nil {
			in.mu.Lock()
			q.needsBackfill = true
			in.mu.Unlock()
			if in.backfillCtx.Err() == nil {
				in.service.metrics.backfilled.WithLabelValues("failed").Inc()
				in.service.log.Warn("backfill failed", "channel", q.channel, "error", err)
			}
			_ = backoff.Wait(in.backfillCtx) // the loop checks the context
			continue
		}
		backoff.Reset()
	}
}

// publish publishes an item. It retries until it succeeds, and returns false if the instance stops or loses the lease
// before. An invalid or repeated item counts as published.
func (in *ingestQueue) publish(q *channelQueue, it item) bool {
	e := it.event
	if e != nil {
		in.mu.Lock()
		repeated := slices.Contains(q.recentIDs, e.CorrelationID)
		in.mu.Unlock()
		switch {
		case repeated:
			in.count("repeated")
		case !in.publishEvent(e):
			return false
		}
	} else {
		in.count("ignored")
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	q.last = max(q.last, it.messageID)
	if e != nil {
		if q.recentIDs = append(q.recentIDs, e.CorrelationID); len(q.recentIDs) > 2*minRecentIDs {
			q.recentIDs = slices.Clone(q.recentIDs[minRecentIDs:])
		}
	}
	return true
}

func (in *ingestQueue) publishEvent(e *event.Event) bool {
	s := in.service
	select {
	case in.publishSlots <- struct{}{}:
		defer func() { <-in.publishSlots }()
	case <-in.publishCtx.Done():
		return false
	}
	ctx, traceID := telemetry.StartTrace(in.publishCtx)
	e.TraceID = traceID
	for {
		if !in.lease.Valid() {
			return false // the next holder of the lease publishes the event
		}
		err := s.publisher.Publish(ctx, topology.Ingress, bus.Outgoing{Event: e})
		switch {
		case err == nil:
			in.count("published")
			return true
		case errors.Is(err, event.ErrInvalid):
			in.count("invalid")
			s.log.ErrorContext(ctx, "event from Discord is invalid", "error", err, "correlationId", e.CorrelationID)
			return true
		case ctx.Err() != nil:
			s.log.WarnContext(ctx, "event left to the next lease holder", "error", err, "correlationId", e.CorrelationID)
			return false
		}
		s.log.WarnContext(ctx, "publish failed", "error", err, "correlationId", e.CorrelationID)
		_ = retry.Sleep(ctx, s.timing.minBackoff) // Publish fails as well once ctx is done
	}
}

// close waits for the workers. handle must not be called any more.
func (in *ingestQueue) close() {
	in.mu.Lock()
	in.closed = true
	in.mu.Unlock()
	in.wg.Wait()
}
