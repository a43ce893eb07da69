package pubsub_test

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"

	cloudpubsub "cloud.google.com/go/pubsub/v2"
	"google.golang.org/api/option"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

func (b *bus) client(t *testing.T) *cloudpubsub.Client {
	t.Helper()
	c, err := cloudpubsub.NewClient(t.Context(), b.project, option.WithGRPCConn(b.conn))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestGoClientReceivesAKeyInTheOrderOfPublication(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		client := b.client(t)
		topic := b.topic(t)
		sub := b.subscribe(t, topic, ordered)
		publisher := client.Publisher(topic)
		publisher.EnableMessageOrdering = true
		defer publisher.Stop()
		var want []string
		for i := range 200 {
			data := string(rune('a'+i%26)) + string(rune('0'+i/26))
			want = append(want, data)
			publisher.Publish(t.Context(), &cloudpubsub.Message{Data: []byte(data), OrderingKey: "key"})
		}
		ctx, cancel := context.WithCancel(testContext(t))
		defer cancel()
		var mu sync.Mutex
		var got []string
		err := client.Subscriber(sub).Receive(ctx, func(_ context.Context, m *cloudpubsub.Message) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, string(m.Data))
			m.Ack()
			if len(got) == len(want) {
				cancel()
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("received %v, want %v", got, want)
		}
	})
}

func TestGoClientGetsAKeyAgainInOrderFromTheNackedMessageOn(t *testing.T) {
	srv := start(t)
	b := newBus(t, srv.Addr(), false)
	client := b.client(t)
	topic := b.topic(t)
	sub := b.subscribe(t, topic, ordered)
	b.publish(t, topic, keyed("k", "1"), keyed("k", "2"), keyed("k", "3"), keyed("k", "4"))
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	var mu sync.Mutex
	last := map[string]int{} // position of the last receipt of each message
	var receipts int
	nacked := false
	received := make(chan error, 1)
	go func() {
		received <- client.Subscriber(sub).Receive(ctx, func(_ context.Context, m *cloudpubsub.Message) {
			mu.Lock()
			defer mu.Unlock()
			receipts++
			last[string(m.Data)] = receipts
			if string(m.Data) == "2" && !nacked {
				nacked = true
				m.Nack()
				return
			}
			m.Ack()
		})
	}()
	eventually(t, "messages are left", func() bool { n, err := srv.Backlog(sub); return n == 0 && err == nil })
	cancel()
	if err := <-received; err != nil {
		t.Fatal(err)
	}
	if !(last["1"] < last["2"] && last["2"] < last["3"] && last["3"] < last["4"]) {
		t.Errorf("the last receipts came in the order %v", last)
	}
}

func TestGoClientGetsTheResultOfAnExactlyOnceAck(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		client := b.client(t)
		topic := b.topic(t)
		sub := b.subscribe(t, topic, func(s *pubsubpb.Subscription) { s.EnableExactlyOnceDelivery = true })
		b.publish(t, topic, text("a"))
		ctx, cancel := context.WithCancel(testContext(t))
		defer cancel()
		err := client.Subscriber(sub).Receive(ctx, func(ctx context.Context, m *cloudpubsub.Message) {
			defer cancel()
			if st, err := m.AckWithResult().Get(ctx); st != cloudpubsub.AcknowledgeStatusSuccess || err != nil {
				t.Errorf("acknowledged: %v, %v", st, err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func TestPushEndpointGetsWrappedMessage(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		url, requests := endpoint(t)
		topic := b.topic(t)
		sub := b.subscribe(t, topic, pushTo(url))
		ids := b.publish(t, topic, &pubsubpb.PubsubMessage{Data: []byte("hello"), Attributes: map[string]string{"k": "v"}})
		p := nextPush(t, requests)
		p.answer <- http.StatusNoContent
		m := p.body.Message
		if string(m.Data) != "hello" || m.Attributes["k"] != "v" || m.MessageID != ids[0] || m.MessageID2 != ids[0] ||
			m.PublishTime.IsZero() || !m.PublishTime.Equal(m.Time2) || p.body.Subscription != sub {
			t.Errorf("pushed %s", p.raw)
		}
		if got := p.header.Get("Content-Type"); got != "application/json" {
			t.Errorf("content type %q", got)
		}
	})
}
