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
)

// watermark tells up to where a channel has been heard, the document watermarks/discord:{channel}.
type watermark struct {
	Platform string    `firestore:"platform"`
	Channel  string    `firestore:"channel"` // Discord's id
	Guild    string    `firestore:"guild"`   // Discord's id; empty for a direct conversation
	Last     string    `firestore:"last"`    // id of the last message that was published, or that is none of ours to publish
	At       time.Time `firestore:"at"`
	ExpireAt time.Time `firestore:"expireAt"` // the collection's TTL field
}

const (
	// watermarkRetention is how long the watermark of a channel is kept in which nothing is said. Who speaks there after
	// that is heard; but what is said there during an outage then would be missed.
	watermarkRetention = 90 * 24 * time.Hour
	// marking is how many watermarks are written at a time.
	marking = 8
)

func (s *Service) watermarkRef(channel string) *firestore.DocumentRef {
	return s.firestore.Collection("watermarks").Doc(string(identity.Discord) + ":" + channel)
}

// load reads the watermarks into lanes.
func (in *inlet) load(ctx context.Context) error {
	s := in.service
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	snaps, err := s.firestore.Collection("watermarks").Where("platform", "==", string(identity.Discord)).Documents(ctx).GetAll()
	if err != nil {
		return fmt.Errorf("read the watermarks: %w", err)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, snap := range snaps {
		var w watermark
		if err := snap.DataTo(&w); err != nil {
			return fmt.Errorf("read the watermark %s: %w", snap.Ref.ID, err)
		}
		last, ok := parseSnowflake(w.Last)
		if _, channel := parseSnowflake(w.Channel); !ok || !channel {
			s.log.ErrorContext(ctx, "a watermark is not one of Discord's", "id", snap.Ref.ID)
			continue
		}
		in.lanes[w.Channel] = &lane{channel: w.Channel, guild: w.Guild, last: last, stored: last, version: snap.UpdateTime}
		if first, ok := in.known[w.Guild]; !ok || snap.CreateTime.Before(first) {
			in.known[w.Guild] = snap.CreateTime
		}
	}
	return nil
}

// mark writes the watermarks that have risen.
func (in *inlet) mark(ctx context.Context) error {
	type due struct {
		lane           *lane
		channel, guild string
		last           snowflake
		version        time.Time
	}
	var all []due
	in.mu.Lock()
	for _, l := range in.lanes {
		if last := l.settled(); last > l.stored {
			all = append(all, due{l, l.channel, l.guild, last, l.version})
		}
	}
	in.mu.Unlock()
	writing := new(errgroup.Group)
	writing.SetLimit(marking)
	for _, d := range all {
		writing.Go(func() error {
			if !in.lease.Valid() {
				return nil // the next owner's to write
			}
			version, err := in.write(ctx, d.channel, d.guild, d.last, d.version)
			if err != nil {
				return err
			}
			in.mu.Lock()
			d.lane.stored, d.lane.version = max(d.lane.stored, d.last), version
			in.mu.Unlock()
			return nil
		})
	}
	return writing.Wait()
}

// write raises a channel's watermark. It never lowers it: a document that somebody else wrote meanwhile is read first.
func (in *inlet) write(ctx context.Context, channel, guild string, last snowflake, version time.Time) (time.Time, error) {
	s := in.service
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	ref, now := s.watermarkRef(channel), event.TruncateToMicros(s.now())
	for {
		var res *firestore.WriteResult
		var err error
		if version.IsZero() {
			res, err = ref.Create(ctx, watermark{string(identity.Discord), channel, guild, last.String(), now, now.Add(watermarkRetention)})
		} else {
			res, err = ref.Update(ctx, []firestore.Update{
				{Path: "last", Value: last.String()}, {Path: "at", Value: now}, {Path: "expireAt", Value: now.Add(watermarkRetention)},
			}, firestore.LastUpdateTime(version))
		}
		switch status.Code(err) {
		case codes.OK:
			return res.UpdateTime, nil
		case codes.AlreadyExists, codes.FailedPrecondition, codes.Aborted, codes.NotFound:
		default:
			return version, fmt.Errorf("write the watermark of %s: %w", channel, err)
		}
		snap, err := ref.Get(ctx)
		if status.Code(err) == codes.NotFound {
			version = time.Time{}
			continue
		}
		if err != nil {
			return version, fmt.Errorf("read the watermark of %s: %w", channel, err)
		}
		var w watermark
		if err := snap.DataTo(&w); err != nil {
			return version, fmt.Errorf("read the watermark of %s: %w", channel, err)
		}
		version = snap.UpdateTime
		if stored, _ := parseSnowflake(w.Last); stored >= last {
			return version, nil
		}
	}
}

// forget removes the watermark of a channel that is gone.
func (in *inlet) forget(ctx context.Context, channel string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := in.service.watermarkRef(channel).Delete(ctx); err != nil {
		in.service.log.WarnContext(ctx, "can't remove the watermark of a channel that is gone", "channel", channel, "error", err)
	}
}
