package discord

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/bwmarrin/discordgo"

	"parley.internal/gateway/gap"
	"parley.internal/shared/identity"
)

// pageSize is the maximum number of messages in a response
// (https://discord.com/developers/docs/resources/message#get-channel-messages).
const pageSize = 100

// errStopped ends a backfill if the instance may not publish any more.
var errStopped = errors.New("the instance stopped publishing")

// backfill is one run of reading the missed messages of a channel.
type backfill struct {
	*ingestQueue
	queue     *channelQueue
	converter converter
	members   map[string]*member // cache by user id; nil if Discord refuses the bot
	oldest    time.Time          // messages before this time are skipped
	after     snowflake          // the last message read or skipped
	read      int                // number of published messages

	firstSkipped, lastSkipped snowflake // messages beyond the limits; zero if none
}

// backfill reads the messages of a channel after its watermark, and publishes them. Messages beyond the configured age or
// number become a gap. After an error the caller runs backfill again; it continues after the last published message.
func (in *ingestQueue) backfill(ctx context.Context, q *channelQueue) error {
	s := in.service
	select {
	case in.backfillSlots <- struct{}{}:
		defer func() { <-in.backfillSlots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	in.mu.Lock()
	after := q.watermark()
	in.mu.Unlock()
	if after == 0 {
		return nil // without a watermark nothing is known to be missed
	}
	b := &backfill{
		ingestQueue: in, queue: q, converter: in.currentConverter(), members: map[string]*member{},
		oldest: s.now().Add(-s.config.BackfillAge), after: after,
	}
	for {
		page, err := in.messagesAfter(ctx, q.channel, b.after)
		if f, ok := errors.AsType[*failure](err); ok && (f.status == http.StatusForbidden || f.status == http.StatusNotFound) {
			s.metrics.backfilled.WithLabelValues("unreadable").Inc()
			s.log.InfoContext(ctx, "backfill refused", "channel", q.channel, "error", err)
			if f.code == discordgo.ErrCodeUnknownChannel {
				in.deleteWatermark(ctx, q.channel)
			}
			break
		}
		if err != nil {
			return err
		}
		if err := b.publishPage(ctx, page); err != nil {
			return err
		}
		if len(page) < pageSize {
			break
		}
		if err := b.skipAhead(ctx); err != nil {
			return err
		}
	}
	if b.lastSkipped > 0 {
		in.recordGap(ctx, q.channel, b.firstSkipped.time(), b.lastSkipped.time())
	}
	if b.read > 0 {
		s.log.InfoContext(ctx, "backfill done", "channel", q.channel, "messages", b.read)
	}
	s.metrics.backfilled.WithLabelValues("read").Inc()
	return nil
}

// publishPage publishes the messages of a page within the limits, and skips the others.
func (b *backfill) publishPage(ctx context.Context, page []*message) error {
	published := map[snowflake]bool{}
	for _, m := range page {
		id, _ := parseSnowflake(m.ID)
		b.after = max(b.after, id)
		if id.time().Before(b.oldest) || b.read >= b.service.config.BackfillMessages {
			b.skip(id)
			b.raise(id)
			continue
		}
		m.GuildID = b.queue.guild
		if b.queue.guild != "" && m.Member == nil && b.converter.fromPerson(m) {
			var err error
			if m.Member, err = b.member(ctx, m.Author.ID); err != nil {
				return err
			}
		}
		if !b.publish(b.queue, b.converter.message(m)) {
			return errStopped
		}
		b.read++
		published[id] = true
	}
	b.dropPublished(b.queue, published)
	return nil
}

// skipAhead moves over the messages beyond the limits without reading them: at the maximum number it continues after the
// channel's newest message, below the maximum age at the oldest allowed time.
func (b *backfill) skipAhead(ctx context.Context) error {
	switch {
	case b.read >= b.service.config.BackfillMessages:
		newest, err := b.newestMessage(ctx, b.queue.channel)
		if err != nil {
			return err
		}
		if newest > b.after {
			b.skip(newest)
			b.after = newest
			b.raise(newest)
		}
	case b.after < snowflakeAt(b.oldest):
		b.after = snowflakeAt(b.oldest)
		b.skip(b.after)
	}
	return nil
}

// skip notes a message for the gap.
func (b *backfill) skip(id snowflake) {
	if b.lastSkipped == 0 {
		b.firstSkipped = id
	}
	b.lastSkipped = id
}

// raise marks the messages up to id as done.
func (b *backfill) raise(id snowflake) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.queue.last = max(b.queue.last, id)
}

// member reads a user's roles, because a message read by the REST API has none. A user who left the guild has no roles.
// The result is nil if the bot may not read members.
func (b *backfill) member(ctx context.Context, userID string) (*member, error) {
	if m, ok := b.members[userID]; ok {
		return m, nil
	}
	m := new(member)
	members := "guilds/" + b.queue.guild + "/members"
	err := b.service.rest.get(ctx, "GET "+members, members+"/"+userID, m)
	if f, ok := errors.AsType[*failure](err); ok && f.status == http.StatusNotFound {
		m, err = new(member), nil
	} else if ok && f.status == http.StatusForbidden {
		m, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	b.members[userID] = m
	return m, nil
}

// dropPublished removes the messages published by a backfill from the channel's queue. A queued message missing in the
// backfill, for example a deleted one, stays.
func (in *ingestQueue) dropPublished(q *channelQueue, published map[snowflake]bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	q.items = slices.DeleteFunc(q.items, func(it item) bool {
		if it.messageID == 0 || !published[it.messageID] {
			return false
		}
		in.waiting--
		in.count("repeated")
		return true
	})
}

// messagesAfter reads one page of the messages after a message id, the earliest first.
func (in *ingestQueue) messagesAfter(ctx context.Context, channel string, after snowflake) ([]*message, error) {
	path := "channels/" + channel + "/messages"
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

// newestMessage reads the id of a channel's newest message. It is zero if the channel is empty.
func (in *ingestQueue) newestMessage(ctx context.Context, channel string) (snowflake, error) {
	path := "channels/" + channel + "/messages"
	var page []*message
	if err := in.service.rest.get(ctx, "GET "+path, path+"?limit=1", &page); err != nil || len(page) == 0 {
		return 0, err
	}
	id, _ := parseSnowflake(page[0].ID)
	return id, nil
}

// recordGap logs, counts and stores a gap of a channel.
func (in *ingestQueue) recordGap(ctx context.Context, channel string, from, to time.Time) {
	s := in.service
	g := gap.New(string(identity.Discord), Channel(channel), gap.Chat, from, to, s.instance)
	s.metrics.gaps.Inc()
	s.metrics.gapSeconds.Add(g.To.Sub(g.From).Seconds())
	s.log.WarnContext(ctx, "gap: missed messages are beyond the backfill limits", "channel", channel, "from", g.From, "to", g.To)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := g.Put(ctx, s.firestore); err != nil {
		s.log.ErrorContext(ctx, "storing a gap failed", "channel", channel, "from", g.From, "to", g.To, "error", err)
	}
}
