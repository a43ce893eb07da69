package discord

import (
	"context"
	"fmt"
	"time"

	"cloud.google.com/go/firestore"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/retry"
	"parley.internal/shared/store"
)

// watermark records up to which message a channel is published, the document watermarks/discord:{channel}.
type watermark struct {
	Platform string    `firestore:"platform"`
	Channel  string    `firestore:"channel"`  // Discord's id
	Guild    string    `firestore:"guild"`    // Discord's id; empty for a direct conversation
	Last     string    `firestore:"last"`     // id of the last published message; ignored messages count as published
	At       time.Time `firestore:"at"`       // time of the last write
	ExpireAt time.Time `firestore:"expireAt"` // the collection's TTL field
}

const (
	// watermarkRetention is the lifetime of a silent channel's watermark. Without a watermark, live messages are still
	// published, but messages of an outage are not read.
	watermarkRetention = 90 * 24 * time.Hour
	// maxWatermarkWrites is the number of concurrent watermark writes.
	maxWatermarkWrites = 8
)

// watermarkStore reads and writes the collection watermarks. No other code does.
type watermarkStore struct {
	client *firestore.Client
	now    func() time.Time
}

// storedWatermark is a watermark with the times of its document.
type storedWatermark struct {
	watermark
	id                     string
	createTime, updateTime time.Time
}

func (s watermarkStore) ref(channel string) *firestore.DocumentRef {
	return s.client.Collection("watermarks").Doc(string(identity.Discord) + ":" + channel)
}

// all reads the watermarks of every channel.
func (s watermarkStore) all(ctx context.Context) ([]storedWatermark, error) {
	snaps, err := s.client.Collection("watermarks").Where("platform", "==", string(identity.Discord)).Documents(ctx).GetAll()
	if err != nil {
		return nil, fmt.Errorf("read the watermarks: %w", err)
	}
	all := make([]storedWatermark, len(snaps))
	for i, snap := range snaps {
		all[i] = storedWatermark{id: snap.Ref.ID, createTime: snap.CreateTime, updateTime: snap.UpdateTime}
		if err := snap.DataTo(&all[i].watermark); err != nil {
			return nil, fmt.Errorf("read the watermark %s: %w", snap.Ref.ID, err)
		}
	}
	return all, nil
}

// raise raises a channel's watermark to last. It never lowers the watermark: if a different instance has written the
// document since updateTime, raise reads the document first. A zero updateTime creates the document. raise returns the
// new update time.
func (s watermarkStore) raise(ctx context.Context, channel, guild string, last snowflake, updateTime time.Time) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	ref, now := s.ref(channel), event.TruncateToMicros(s.now())
	for {
		var res *firestore.WriteResult
		var err error
		if updateTime.IsZero() {
			res, err = ref.Create(ctx, watermark{string(identity.Discord), channel, guild, last.String(), now, now.Add(watermarkRetention)})
		} else {
			res, err = ref.Update(ctx, []firestore.Update{
				{Path: "last", Value: last.String()}, {Path: "at", Value: now}, {Path: "expireAt", Value: now.Add(watermarkRetention)},
			}, firestore.LastUpdateTime(updateTime))
		}
		if err == nil {
			return res.UpdateTime, nil
		}
		if !store.IsConflict(err) {
			return updateTime, fmt.Errorf("write the watermark of %s: %w", channel, err)
		}
		snap, err := ref.Get(ctx)
		if status.Code(err) == codes.NotFound {
			updateTime = time.Time{}
			continue
		}
		if err != nil {
			return updateTime, fmt.Errorf("read the watermark of %s: %w", channel, err)
		}
		var w watermark
		if err := snap.DataTo(&w); err != nil {
			return updateTime, fmt.Errorf("read the watermark of %s: %w", channel, err)
		}
		updateTime = snap.UpdateTime
		if stored, _ := parseSnowflake(w.Last); stored >= last {
			return updateTime, nil
		}
	}
}

// delete deletes the watermark of a channel. It succeeds if there is none.
func (s watermarkStore) delete(ctx context.Context, channel string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := s.ref(channel).Delete(ctx); err != nil {
		return fmt.Errorf("delete the watermark of %s: %w", channel, err)
	}
	return nil
}

// load makes a queue for every channel with a watermark.
func (in *ingestQueue) load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	all, err := in.watermarks.all(ctx)
	if err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, w := range all {
		last, ok := parseSnowflake(w.Last)
		if _, channel := parseSnowflake(w.Channel); !ok || !channel {
			in.service.log.ErrorContext(ctx, "invalid watermark", "id", w.id)
			continue
		}
		in.channels[w.Channel] = &channelQueue{channel: w.Channel, guild: w.Guild, last: last, stored: last, updateTime: w.updateTime}
		if first, ok := in.guildsSince[w.Guild]; !ok || w.createTime.Before(first) {
			in.guildsSince[w.Guild] = w.createTime
		}
	}
	return nil
}

// keepWatermarks writes the watermarks periodically until ctx is done, and a last time afterwards.
func (in *ingestQueue) keepWatermarks(ctx context.Context) {
	for done := false; !done; {
		done = retry.Sleep(ctx, in.service.timing.watermark) != nil
		if err := in.writeWatermarks(context.WithoutCancel(ctx)); err != nil {
			in.service.log.WarnContext(ctx, "writing the watermarks failed", "error", err)
		}
	}
}

// writeWatermarks writes every watermark that has grown since its last write. It writes nothing without the lease,
// because the next holder writes its own watermarks.
func (in *ingestQueue) writeWatermarks(ctx context.Context) error {
	type write struct {
		queue          *channelQueue
		channel, guild string
		last           snowflake
		updateTime     time.Time
	}
	var writes []write
	in.mu.Lock()
	for _, q := range in.channels {
		if last := q.watermark(); last > q.stored {
			writes = append(writes, write{q, q.channel, q.guild, last, q.updateTime})
		}
	}
	in.mu.Unlock()
	group := new(errgroup.Group)
	group.SetLimit(maxWatermarkWrites)
	for _, w := range writes {
		group.Go(func() error {
			if !in.lease.Valid() {
				return nil
			}
			updateTime, err := in.watermarks.raise(ctx, w.channel, w.guild, w.last, w.updateTime)
			if err != nil {
				return err
			}
			in.mu.Lock()
			w.queue.stored, w.queue.updateTime = max(w.queue.stored, w.last), updateTime
			in.mu.Unlock()
			return nil
		})
	}
	return group.Wait()
}

// deleteWatermark deletes the watermark of a channel deleted on Discord.
func (in *ingestQueue) deleteWatermark(ctx context.Context, channel string) {
	if err := in.watermarks.delete(ctx, channel); err != nil {
		in.service.log.WarnContext(ctx, "deleting a watermark failed", "channel", channel, "error", err)
	}
}
