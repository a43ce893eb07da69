package pubsub_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"golang.org/x/sync/errgroup"

	"parley.internal/emulator/pubsub"
)

// BenchmarkFanOut publishes to one topic with five subscriptions. Each has one StreamingPull and acknowledges every
// message on its stream. An operation is one published message with five deliveries. The benchmark reports deliveries
// per second with publishers that do not wait, then the median time from Publish to receipt of single messages. pstest
// keeps every message and scans all of them, so it needs a short -benchtime.
func BenchmarkFanOut(b *testing.B) {
	b.Run("ours", func(b *testing.B) {
		fanOut(b, newBus(b, start(b).Addr(), false))
	})
	b.Run("ours-durable", func(b *testing.B) {
		fanOut(b, newBus(b, start(b, pubsub.WithDataDir(b.TempDir())).Addr(), false))
	})
	b.Run("pstest", func(b *testing.B) {
		srv := pstest.NewServer()
		b.Cleanup(func() { srv.Close() })
		fanOut(b, newBus(b, srv.Addr, false))
	})
	b.Run("google", func(b *testing.B) {
		fanOut(b, newBus(b, googleAddr(b), true))
	})
}

const (
	fans          = 5
	batchSize     = 100
	batchesOnWay  = 4
	singles       = 200
	benchPatience = 2 * time.Minute
)

func fanOut(b *testing.B, bus *bus) {
	ctx, cancel := context.WithTimeout(b.Context(), benchPatience)
	defer cancel()
	topic := bus.topic(b)
	received := make(chan time.Duration, 1024) // from Publish to receipt
	var streams errgroup.Group
	for range fans {
		sub := bus.subscribe(b, topic)
		st, err := bus.StreamingPull(ctx)
		if err != nil {
			b.Fatal(err)
		}
		if err := st.Send(&pubsubpb.StreamingPullRequest{Subscription: sub, StreamAckDeadlineSeconds: 60}); err != nil {
			b.Fatal(err)
		}
		streams.Go(func() error {
			seen := map[string]bool{}
			for {
				res, err := st.Recv()
				if err != nil {
					return nil // cancelled
				}
				now := time.Now()
				if len(res.ReceivedMessages) == 0 {
					continue
				}
				if err := st.Send(&pubsubpb.StreamingPullRequest{AckIds: ackIDs(res.ReceivedMessages)}); err != nil {
					return nil
				}
				for _, m := range res.ReceivedMessages {
					if seen[m.Message.MessageId] {
						continue // count a redelivered message once
					}
					seen[m.Message.MessageId] = true
					sent := time.Unix(0, int64(binary.BigEndian.Uint64(m.Message.Data)))
					received <- now.Sub(sent)
				}
			}
		})
	}
	message := func() *pubsubpb.PubsubMessage {
		return &pubsubpb.PubsubMessage{
			Data:       binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano())),
			Attributes: map[string]string{"type": "benchmark", "tenant": "t-1"},
		}
	}
	await := func(n int) (took []time.Duration, err error) {
		for range n {
			select {
			case d := <-received:
				took = append(took, d)
			case <-ctx.Done():
				return nil, fmt.Errorf("%d of %d deliveries: %w", len(took), n, ctx.Err())
			}
		}
		return took, nil
	}
	// After one message on every stream, all streams are set up.
	bus.publish(b, topic, message())
	if _, err := await(fans); err != nil {
		b.Fatal(err)
	}

	b.ResetTimer()
	var publishers errgroup.Group
	publishers.SetLimit(batchesOnWay)
	var feeder sync.WaitGroup
	feeder.Go(func() {
		for left := b.N; left > 0; left -= batchSize {
			publishers.Go(func() error {
				ms := make([]*pubsubpb.PubsubMessage, min(batchSize, left))
				for i := range ms {
					ms[i] = message()
				}
				_, err := bus.Publish(ctx, &pubsubpb.PublishRequest{Topic: topic, Messages: ms})
				if err != nil {
					cancel()
				}
				return err
			})
		}
	})
	if _, err := await(fans * b.N); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	feeder.Wait()
	if err := publishers.Wait(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(fans*b.N)/b.Elapsed().Seconds(), "deliveries/s")

	var all []time.Duration
	for range singles {
		bus.publish(b, topic, message())
		took, err := await(fans)
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, took...)
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
	cancel()
	if err := streams.Wait(); err != nil {
		b.Fatal(err)
	}
}
