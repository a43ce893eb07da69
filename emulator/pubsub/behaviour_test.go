package pubsub_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func TestTopicIsCreatedReadListedAndDeleted(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		ctx := testContext(t)
		name := b.name("topics")
		created, err := b.CreateTopic(ctx, &pubsubpb.Topic{Name: name, Labels: map[string]string{"a": "b"}})
		if err != nil || created.Name != name || created.Labels["a"] != "b" {
			t.Fatalf("created %v, %v", created, err)
		}
		_, err = b.CreateTopic(ctx, &pubsubpb.Topic{Name: name})
		wantCode(t, "create again", err, codes.AlreadyExists)
		got, err := b.GetTopic(ctx, &pubsubpb.GetTopicRequest{Topic: name})
		if err != nil || got.Name != name {
			t.Errorf("got %v, %v", got, err)
		}
		b.topic(t)
		b.topic(t)
		var listed []string
		for token := ""; ; {
			page, err := b.ListTopics(ctx, &pubsubpb.ListTopicsRequest{Project: "projects/" + b.project, PageSize: 2, PageToken: token})
			if err != nil {
				t.Fatal(err)
			}
			if len(page.Topics) > 2 {
				t.Errorf("a page of %d, want at most 2", len(page.Topics))
			}
			for _, topic := range page.Topics {
				listed = append(listed, topic.Name)
			}
			if token = page.NextPageToken; token == "" {
				break
			}
		}
		if len(listed) != 3 || !slices.Contains(listed, name) {
			t.Errorf("listed %v", listed)
		}
		if _, err := b.DeleteTopic(ctx, &pubsubpb.DeleteTopicRequest{Topic: name}); err != nil {
			t.Fatal(err)
		}
		_, err = b.GetTopic(ctx, &pubsubpb.GetTopicRequest{Topic: name})
		wantCode(t, "get after delete", err, codes.NotFound)
		_, err = b.DeleteTopic(ctx, &pubsubpb.DeleteTopicRequest{Topic: name})
		wantCode(t, "delete again", err, codes.NotFound)
		_, err = b.Publish(ctx, &pubsubpb.PublishRequest{Topic: name, Messages: []*pubsubpb.PubsubMessage{text("a")}})
		wantCode(t, "publish after delete", err, codes.NotFound)
	})
}

func TestBadNamesAreRefused(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		ctx := testContext(t)
		topic := b.topic(t)
		for _, id := range []string{"", "ab", "1abc", "googabc", "a b c", "a/b/c", strings.Repeat("a", 256)} {
			_, err := b.CreateTopic(ctx, &pubsubpb.Topic{Name: "projects/" + b.project + "/topics/" + id})
			wantCode(t, "topic "+id, err, codes.InvalidArgument)
			_, err = b.CreateSubscription(ctx, &pubsubpb.Subscription{Name: "projects/" + b.project + "/subscriptions/" + id, Topic: topic})
			wantCode(t, "subscription "+id, err, codes.InvalidArgument)
		}
		for _, id := range []string{"abc", "a-_.~+%9", strings.Repeat("a", 255)} {
			_, err := b.CreateTopic(ctx, &pubsubpb.Topic{Name: "projects/" + b.project + "/topics/" + id})
			wantCode(t, "topic "+id, err, codes.OK)
		}
		_, err := b.CreateTopic(ctx, &pubsubpb.Topic{Name: "topics/abc"})
		wantCode(t, "topic without project", err, codes.InvalidArgument)
	})
}

func TestTopicLabelsAreUpdatedByMask(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		ctx := testContext(t)
		topic := &pubsubpb.Topic{Name: b.topic(t), Labels: map[string]string{"a": "b"}}
		got, err := b.UpdateTopic(ctx, &pubsubpb.UpdateTopicRequest{Topic: topic, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"labels"}}})
		if err != nil || got.Labels["a"] != "b" {
			t.Errorf("updated %v, %v", got, err)
		}
		_, err = b.UpdateTopic(ctx, &pubsubpb.UpdateTopicRequest{Topic: topic})
		wantCode(t, "without a mask", err, codes.InvalidArgument)
		_, err = b.UpdateTopic(ctx, &pubsubpb.UpdateTopicRequest{Topic: topic, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"name"}}})
		wantCode(t, "of the name", err, codes.InvalidArgument)
	})
}

func TestSubscriptionIsCreatedReadListedAndDeleted(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		ctx := testContext(t)
		topic := b.topic(t)
		name := b.subscribe(t, topic)
		_, err := b.CreateSubscription(ctx, &pubsubpb.Subscription{Name: name, Topic: topic})
		wantCode(t, "create again", err, codes.AlreadyExists)
		_, err = b.CreateSubscription(ctx, &pubsubpb.Subscription{Name: b.name("subscriptions"), Topic: b.name("topics")})
		wantCode(t, "create on no topic", err, codes.NotFound)
		got, err := b.GetSubscription(ctx, &pubsubpb.GetSubscriptionRequest{Subscription: name})
		if err != nil || got.Topic != topic || got.AckDeadlineSeconds != 10 || got.MessageRetentionDuration.AsDuration() != 7*24*time.Hour {
			t.Errorf("got %v, %v", got, err)
		}
		other := b.subscribe(t, b.topic(t))
		all, err := b.ListSubscriptions(ctx, &pubsubpb.ListSubscriptionsRequest{Project: "projects/" + b.project})
		if err != nil || len(all.Subscriptions) != 2 {
			t.Errorf("listed %v, %v", all, err)
		}
		of, err := b.ListTopicSubscriptions(ctx, &pubsubpb.ListTopicSubscriptionsRequest{Topic: topic})
		if err != nil || !slices.Equal(of.Subscriptions, []string{name}) {
			t.Errorf("the topic's are %v, %v; not %s", of, err, other)
		}
		if _, err := b.DeleteSubscription(ctx, &pubsubpb.DeleteSubscriptionRequest{Subscription: name}); err != nil {
			t.Fatal(err)
		}
		_, err = b.GetSubscription(ctx, &pubsubpb.GetSubscriptionRequest{Subscription: name})
		wantCode(t, "get after delete", err, codes.NotFound)
		_, err = b.Pull(ctx, &pubsubpb.PullRequest{Subscription: name, MaxMessages: 1})
		wantCode(t, "pull after delete", err, codes.NotFound)
		_, err = b.DeleteSubscription(ctx, &pubsubpb.DeleteSubscriptionRequest{Subscription: name})
		wantCode(t, "delete again", err, codes.NotFound)
	})
}

// refused maps a mistake to a function that makes it in a subscription.
var refused = map[string]func(*pubsubpb.Subscription){
	"ack deadline too short": func(s *pubsubpb.Subscription) { s.AckDeadlineSeconds = 9 },
	"ack deadline too long":  func(s *pubsubpb.Subscription) { s.AckDeadlineSeconds = 601 },
	"retention too short":    func(s *pubsubpb.Subscription) { s.MessageRetentionDuration = durationpb.New(9 * time.Minute) },
	"retention too long": func(s *pubsubpb.Subscription) {
		s.MessageRetentionDuration = durationpb.New(31*24*time.Hour + time.Second)
	},
	"expiration too soon": func(s *pubsubpb.Subscription) {
		s.ExpirationPolicy = &pubsubpb.ExpirationPolicy{Ttl: durationpb.New(23 * time.Hour)}
	},
	"backoff too long": func(s *pubsubpb.Subscription) {
		s.RetryPolicy = &pubsubpb.RetryPolicy{MinimumBackoff: durationpb.New(time.Second), MaximumBackoff: durationpb.New(601 * time.Second)}
	},
	"backoff upside down": func(s *pubsubpb.Subscription) {
		s.RetryPolicy = &pubsubpb.RetryPolicy{MinimumBackoff: durationpb.New(time.Minute), MaximumBackoff: durationpb.New(time.Second)}
	},
	"too few attempts": func(s *pubsubpb.Subscription) {
		s.DeadLetterPolicy = &pubsubpb.DeadLetterPolicy{DeadLetterTopic: s.Topic, MaxDeliveryAttempts: 4}
	},
	"too many attempts": func(s *pubsubpb.Subscription) {
		s.DeadLetterPolicy = &pubsubpb.DeadLetterPolicy{DeadLetterTopic: s.Topic, MaxDeliveryAttempts: 101}
	},
	"filter of no language":   filtered("attributes.a = b"),
	"filter mixes AND and OR": filtered(`attributes:a AND attributes:b OR attributes:c`),
	"filter too long":         filtered(`attributes:` + strings.Repeat("a", 246)),
	"push endpoint":           pushTo("no url"),
}

func TestInvalidSubscriptionIsRefused(t *testing.T) {
	for what, with := range refused {
		t.Run(what, func(t *testing.T) {
			onBoth(t, func(t *testing.T, b *bus) {
				sub := &pubsubpb.Subscription{Name: b.name("subscriptions"), Topic: b.topic(t)}
				with(sub)
				_, err := b.CreateSubscription(testContext(t), sub)
				wantCode(t, what, err, codes.InvalidArgument)
			})
		})
	}
}

func TestDeadLetterTopicMustExist(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		sub := &pubsubpb.Subscription{Name: b.name("subscriptions"), Topic: b.topic(t)}
		deadLetter(b.name("topics"))(sub)
		_, err := b.CreateSubscription(testContext(t), sub)
		wantCode(t, "create", err, codes.NotFound)
	})
}

func TestSubscriptionIsUpdatedByMask(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		ctx := testContext(t)
		name := b.subscribe(t, b.topic(t), filtered("attributes:a"))
		update := func(s *pubsubpb.Subscription, paths ...string) (*pubsubpb.Subscription, error) {
			s.Name = name
			return b.UpdateSubscription(ctx, &pubsubpb.UpdateSubscriptionRequest{Subscription: s, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}})
		}
		got, err := update(&pubsubpb.Subscription{AckDeadlineSeconds: 77, Labels: map[string]string{"a": "b"}}, "ack_deadline_seconds")
		if err != nil || got.AckDeadlineSeconds != 77 || len(got.Labels) != 0 {
			t.Errorf("updated %v, %v", got, err)
		}
		_, err = update(&pubsubpb.Subscription{AckDeadlineSeconds: 5}, "ack_deadline_seconds")
		wantCode(t, "an invalid value", err, codes.InvalidArgument)
		_, err = update(&pubsubpb.Subscription{Filter: "attributes:b"}, "filter")
		wantCode(t, "of the filter", err, codes.InvalidArgument)
		_, err = update(&pubsubpb.Subscription{})
		wantCode(t, "without a mask", err, codes.InvalidArgument)
	})
}

func TestOrderingCannotBeUpdated(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		name := b.subscribe(t, b.topic(t))
		_, err := b.UpdateSubscription(testContext(t), &pubsubpb.UpdateSubscriptionRequest{
			Subscription: &pubsubpb.Subscription{Name: name, EnableMessageOrdering: true},
			UpdateMask:   &fieldmaskpb.FieldMask{Paths: []string{"enable_message_ordering"}},
		})
		wantCode(t, "update", err, codes.InvalidArgument)
	})
}

func TestSubscriptionOutlivesItsTopicWithItsBacklog(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		ctx := testContext(t)
		topic := b.topic(t)
		sub := b.subscribe(t, topic)
		b.publish(t, topic, text("a"))
		if _, err := b.DeleteTopic(ctx, &pubsubpb.DeleteTopicRequest{Topic: topic}); err != nil {
			t.Fatal(err)
		}
		got, err := b.GetSubscription(ctx, &pubsubpb.GetSubscriptionRequest{Subscription: sub})
		if err != nil || got.Topic != "_deleted-topic_" {
			t.Errorf("got %v, %v", got, err)
		}
		if _, err := b.CreateTopic(ctx, &pubsubpb.Topic{Name: topic}); err != nil {
			t.Fatal(err)
		}
		b.publish(t, topic, text("b"))
		ms := b.pull(t, sub, 1)
		if string(ms[0].Message.Data) != "a" {
			t.Errorf("pulled %q", datas(ms))
		}
		of, err := b.ListTopicSubscriptions(ctx, &pubsubpb.ListTopicSubscriptionsRequest{Topic: topic})
		if err != nil || len(of.Subscriptions) != 0 {
			t.Errorf("the new topic's subscriptions are %v, %v", of, err)
		}
	})
}

func TestPublishedMessageKeepsItsContentAndGetsIdAndTime(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		topic := b.topic(t)
		sub := b.subscribe(t, topic)
		data := bytes.Repeat([]byte{0, 255, 'x'}, 1000)
		ids := b.publish(t, topic,
			&pubsubpb.PubsubMessage{Data: data, Attributes: map[string]string{"k": "ü"}, OrderingKey: "o", MessageId: "mine", PublishTime: timestamppb.New(time.Unix(1, 0))},
			&pubsubpb.PubsubMessage{Attributes: map[string]string{"only": "attributes"}, OrderingKey: "o"})
		if len(ids) != 2 || ids[0] == ids[1] {
			t.Fatalf("ids %q", ids)
		}
		for _, m := range b.pull(t, sub, 2) {
			if m.Message.MessageId != ids[0] {
				continue
			}
			if !bytes.Equal(m.Message.Data, data) || m.Message.Attributes["k"] != "ü" || m.Message.OrderingKey != "o" ||
				time.Since(m.Message.PublishTime.AsTime()).Abs() > time.Minute {
				t.Errorf("received %v", m.Message)
			}
			return
		}
		t.Errorf("message %s was not received", ids[0])
	})
}

func TestPublishLimits(t *testing.T) {
	many := make([]*pubsubpb.PubsubMessage, 1001)
	for i := range many {
		many[i] = text("a")
	}
	attributes := map[string]string{}
	for i := range 101 {
		attributes[fmt.Sprint("key", i)] = "v"
	}
	for what, ms := range map[string][]*pubsubpb.PubsubMessage{
		"no message":             {},
		"too many messages":      many,
		"too many bytes":         {{Data: make([]byte, 10_500_000)}},
		"empty message":          {{}},
		"too many attributes":    {{Attributes: attributes}},
		"attribute key long":     {{Attributes: map[string]string{strings.Repeat("k", 257): "v"}}},
		"attribute key reserved": {{Attributes: map[string]string{"goog-x": "v"}}},
		"attribute value long":   {{Attributes: map[string]string{"k": strings.Repeat("v", 1025)}}},
		"ordering key long":      {{Data: []byte("a"), OrderingKey: strings.Repeat("k", 1025)}},
		"two ordering keys":      {keyed("a", "1"), keyed("b", "2")},
	} {
		t.Run(what, func(t *testing.T) {
			onBoth(t, func(t *testing.T, b *bus) {
				_, err := b.Publish(testContext(t), &pubsubpb.PublishRequest{Topic: b.topic(t), Messages: ms})
				wantCode(t, what, err, codes.InvalidArgument)
			})
		})
	}
	t.Run("at the limit", func(t *testing.T) {
		onBoth(t, func(t *testing.T, b *bus) {
			topic := b.topic(t)
			b.publish(t, topic, many[:1000]...)
			b.publish(t, topic, &pubsubpb.PubsubMessage{Data: make([]byte, 9_990_000)})
			b.publish(t, topic, &pubsubpb.PubsubMessage{
				Attributes:  map[string]string{strings.Repeat("k", 256): strings.Repeat("v", 1024), "googclient_x": "y"},
				OrderingKey: strings.Repeat("k", 1024),
			})
		})
	})
}

func TestEverySubscriptionGetsEveryMessageSinceItsCreation(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		topic := b.topic(t)
		first := b.subscribe(t, topic)
		b.publish(t, topic, text("a"))
		second := b.subscribe(t, topic)
		b.publish(t, topic, text("b"))
		ms := b.pull(t, first, 2)
		got := datas(ms)
		slices.Sort(got)
		if !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("the first pulled %q", got)
		}
		if got := datas(b.pull(t, second, 1)); got[0] != "b" {
			t.Errorf("the second pulled %q", got)
		}
	})
}

func TestPullWaitsForAMessageAndTakesNoneOnceItIsCancelled(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		topic := b.topic(t)
		sub := b.subscribe(t, topic)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		// The server chooses how long a pull waits: an empty answer and the end of the context are both correct.
		res, err := b.Pull(ctx, &pubsubpb.PullRequest{Subscription: sub, MaxMessages: 1})
		if err == nil && len(res.ReceivedMessages) > 0 || err != nil && status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("pull of an empty subscription: %v, %v", res, err)
		}
		b.publish(t, topic, text("a"))
		b.pull(t, sub, 1)
	})
}

func TestBadPullsAndAcksAreRefused(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		ctx := testContext(t)
		sub := b.subscribe(t, b.topic(t))
		_, err := b.Pull(ctx, &pubsubpb.PullRequest{Subscription: sub})
		wantCode(t, "pull of no message", err, codes.InvalidArgument)
		_, err = b.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{Subscription: sub})
		wantCode(t, "ack of nothing", err, codes.InvalidArgument)
		_, err = b.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{Subscription: sub, AckIds: []string{"?!"}})
		wantCode(t, "ack of nonsense", err, codes.InvalidArgument)
		_, err = b.ModifyAckDeadline(ctx, &pubsubpb.ModifyAckDeadlineRequest{Subscription: sub, AckIds: []string{"x"}, AckDeadlineSeconds: 601})
		wantCode(t, "deadline too long", err, codes.InvalidArgument)
		_, err = b.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{Subscription: b.name("subscriptions"), AckIds: []string{"x"}})
		wantCode(t, "ack on no subscription", err, codes.NotFound)
	})
}

func TestNackedMessageComesAgainAndAckedDoesNot(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		topic := b.topic(t)
		sub := b.subscribe(t, topic)
		b.publish(t, topic, text("a"))
		first := b.pull(t, sub, 1)
		b.nack(t, sub, first...)
		again := b.pull(t, sub, 1)
		if again[0].Message.MessageId != first[0].Message.MessageId || again[0].DeliveryAttempt != 0 {
			t.Errorf("came again as %v", again)
		}
		b.ack(t, sub, again...)
		b.ack(t, sub, again...)
		b.publish(t, topic, text("b"))
		if got := datas(b.pull(t, sub, 1)); got[0] != "b" {
			t.Errorf("pulled %q after the acknowledgement", got)
		}
	})
}

func TestUnackedMessageComesAgainAfterItsDeadline(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		topic := b.topic(t)
		sub := b.subscribe(t, topic)
		b.publish(t, topic, text("a"))
		first := b.pull(t, sub, 1)
		begin := time.Now()
		_, err := b.ModifyAckDeadline(testContext(t), &pubsubpb.ModifyAckDeadlineRequest{Subscription: sub, AckIds: ackIDs(first), AckDeadlineSeconds: 1})
		if err != nil {
			t.Fatal(err)
		}
		b.pull(t, sub, 1)
		if d := time.Since(begin); d < 900*time.Millisecond || d > 9*time.Second { // the first lease was 10 s long
			t.Errorf("came again after %v, want 1 s", d)
		}
	})
}

func TestStreamDeliversAndTakesAcksAndNacks(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		topic := b.topic(t)
		sub := b.subscribe(t, topic)
		st := b.stream(t, sub)
		b.publish(t, topic, text("a"))
		first := st.next(1)
		st.nack(first...)
		again := st.next(1)
		if again[0].Message.MessageId != first[0].Message.MessageId {
			t.Errorf("came again as %v", again)
		}
		st.ack(again...)
		b.publish(t, topic, text("b"))
		if got := datas(st.next(1)); got[0] != "b" {
			t.Errorf("received %q after the acknowledgement", got)
		}
	})
}

func TestStreamHoldsNoMoreThanItsLimits(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		topic := b.topic(t)
		sub := b.subscribe(t, topic)
		st := b.stream(t, sub, func(r *pubsubpb.StreamingPullRequest) { r.MaxOutstandingMessages = 3 })
		for i := range 9 {
			b.publish(t, topic, text(fmt.Sprint(i)))
		}
		held := st.next(3)
		// Another pull gets the next message: the stream did not take it.
		b.ack(t, sub, b.pull(t, sub, 1)...)
		if len(st.pending) != 0 {
			t.Errorf("%d messages beyond the limit", len(st.pending))
		}
		st.ack(held...)
		st.ack(st.next(3)...)
		st.ack(st.next(2)...)
	})
}

func TestStreamOfOutstandingBytes(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		topic := b.topic(t)
		sub := b.subscribe(t, topic)
		st := b.stream(t, sub, func(r *pubsubpb.StreamingPullRequest) { r.MaxOutstandingBytes = 1000 })
		for range 3 {
			b.publish(t, topic, &pubsubpb.PubsubMessage{Data: make([]byte, 2000)})
		}
		st.next(1)
		b.pull(t, sub, 2)
		if len(st.pending) != 0 {
			t.Errorf("%d messages beyond the limit", len(st.pending))
		}
	})
}

func TestBadStreamRequestsAreRefused(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		sub := b.subscribe(t, b.topic(t))
		end := func(what string, st *puller, want codes.Code) {
			t.Helper()
			for {
				if _, err := st.Recv(); err != nil {
					wantCode(t, what, err, want)
					return
				}
			}
		}
		end("deadline too short", b.stream(t, sub, func(r *pubsubpb.StreamingPullRequest) { r.StreamAckDeadlineSeconds = 9 }), codes.InvalidArgument)
		end("no subscription", b.stream(t, b.name("subscriptions")), codes.NotFound)
		st := b.stream(t, sub)
		if err := st.Send(&pubsubpb.StreamingPullRequest{AckIds: []string{"?!"}}); err != nil {
			t.Fatal(err)
		}
		end("ack of nonsense", st, codes.InvalidArgument)
		st = b.stream(t, sub)
		if err := st.Send(&pubsubpb.StreamingPullRequest{ModifyDeadlineAckIds: []string{"a"}}); err != nil {
			t.Fatal(err)
		}
		end("lengths differ", st, codes.InvalidArgument)
	})
}

func TestStreamEndsWhenItsSubscriptionIsDeleted(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		topic := b.topic(t)
		sub := b.subscribe(t, topic)
		st := b.stream(t, sub)
		b.publish(t, topic, text("a"))
		st.next(1)
		if _, err := b.DeleteSubscription(testContext(t), &pubsubpb.DeleteSubscriptionRequest{Subscription: sub}); err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := st.Recv(); err != nil {
				wantCode(t, "stream", err, codes.NotFound)
				return
			}
		}
	})
}

func TestFilterKeepsMessagesFromASubscription(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		topic := b.topic(t)
		sub := b.subscribe(t, topic, filtered(`attributes.kind = "good" AND NOT hasPrefix(attributes.to, "no")`))
		for _, m := range []*pubsubpb.PubsubMessage{
			{Data: []byte("1"), Attributes: map[string]string{"kind": "bad"}},
			{Data: []byte("2"), Attributes: map[string]string{"kind": "good", "to": "nobody"}},
			{Data: []byte("3")},
			{Data: []byte("4"), Attributes: map[string]string{"kind": "good", "to": "you"}},
		} {
			b.publish(t, topic, m)
		}
		if got := datas(b.pull(t, sub, 1)); got[0] != "4" {
			t.Errorf("pulled %q, want 4", got)
		}
	})
}

func TestKeyIsRedeliveredInOrderFromTheNackedMessage(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		topic := b.topic(t)
		sub := b.subscribe(t, topic, ordered)
		b.publish(t, topic, keyed("k", "1"), keyed("k", "2"), keyed("k", "3"))
		st := b.stream(t, sub)
		ms := st.next(3)
		if got := datas(ms); !slices.Equal(got, []string{"1", "2", "3"}) {
			t.Fatalf("received %q", got)
		}
		st.ack(ms[0])
		st.nack(ms[1], ms[2])
		if got := datas(st.next(2)); !slices.Equal(got, []string{"2", "3"}) {
			t.Errorf("received %q again", got)
		}
	})
}

func TestAckedMessagesOfAKeyComeAgainAfterANackedOne(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		topic := b.topic(t)
		sub := b.subscribe(t, topic, ordered)
		b.publish(t, topic, keyed("k", "1"), keyed("k", "2"))
		st := b.stream(t, sub)
		ms := st.next(2)
		st.ack(ms[1])
		st.nack(ms[0])
		got := datas(st.next(1))
		b.publish(t, topic, keyed("k", "3"))
		got = append(got, datas(st.next(1))...)
		if !slices.Equal(got, []string{"1", "2"}) {
			t.Errorf("received %q again, want 1 and 2", got)
		}
	})
}

func TestAKeyThatIsHeldDoesNotHoldAnother(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		topic := b.topic(t)
		sub := b.subscribe(t, topic, ordered)
		b.publish(t, topic, keyed("a", "1"))
		if got := datas(b.pull(t, sub, 1)); got[0] != "1" {
			t.Fatalf("pulled %q", got)
		}
		b.publish(t, topic, keyed("a", "2"))
		b.publish(t, topic, keyed("b", "3"))
		if got := datas(b.pull(t, sub, 1)); got[0] != "3" {
			t.Errorf("pulled %q, want 3: 2 comes after 1, which is outstanding", got)
		}
	})
}

func TestRetryPolicyDelaysANackedMessage(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		topic := b.topic(t)
		sub := b.subscribe(t, topic, func(s *pubsubpb.Subscription) {
			s.RetryPolicy = &pubsubpb.RetryPolicy{MinimumBackoff: durationpb.New(time.Second), MaximumBackoff: durationpb.New(2 * time.Second)}
		})
		b.publish(t, topic, text("a"))
		first := b.pull(t, sub, 1)
		begin := time.Now()
		b.nack(t, sub, first...)
		b.pull(t, sub, 1)
		if d := time.Since(begin); d < 900*time.Millisecond {
			t.Errorf("came again after %v, want at least 1 s", d)
		}
	})
}

func TestMessageIsDeadLetteredAfterItsLastAttempt(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		topic, graveyard := b.topic(t), b.topic(t)
		sub := b.subscribe(t, topic, deadLetter(graveyard))
		buried := b.subscribe(t, graveyard)
		b.publish(t, topic, &pubsubpb.PubsubMessage{Data: []byte("poison"), Attributes: map[string]string{"k": "v"}})
		for attempt := int32(1); attempt <= 5; attempt++ {
			ms := b.pull(t, sub, 1)
			if ms[0].DeliveryAttempt != attempt {
				t.Errorf("delivery attempt %d, want %d", ms[0].DeliveryAttempt, attempt)
			}
			b.nack(t, sub, ms...)
		}
		m := b.pull(t, buried, 1)[0].Message
		_, id, _ := strings.Cut(sub, "/subscriptions/")
		published := m.Attributes["CloudPubSubDeadLetterSourceTopicPublishTime"]
		if string(m.Data) != "poison" || m.Attributes["k"] != "v" ||
			m.Attributes["CloudPubSubDeadLetterSourceDeliveryCount"] != "5" ||
			m.Attributes["CloudPubSubDeadLetterSourceSubscription"] != id ||
			m.Attributes["CloudPubSubDeadLetterSourceSubscriptionProject"] != b.project {
			t.Errorf("dead-lettered %v", m)
		}
		if _, err := time.Parse("2006-01-02T15:04:05.999-07:00", published); err != nil {
			t.Errorf("publish time %q: %v", published, err)
		}
	})
}

func TestSeekToATimeDropsMessagesPublishedBefore(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		topic := b.topic(t)
		sub := b.subscribe(t, topic)
		b.publish(t, topic, text("a"))
		_, err := b.Seek(testContext(t), &pubsubpb.SeekRequest{Subscription: sub, Target: &pubsubpb.SeekRequest_Time{Time: timestamppb.New(time.Now().Add(time.Second))}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for i := 0; ctx.Err() == nil; i++ {
			b.publish(t, topic, text("b"))
			res, err := b.Pull(ctx, &pubsubpb.PullRequest{Subscription: sub, MaxMessages: 10})
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range res.ReceivedMessages {
				if string(m.Message.Data) != "b" {
					t.Errorf("pulled %q after the seek", m.Message.Data)
				}
			}
			if len(res.ReceivedMessages) > 0 {
				return
			}
		}
		t.Error("nothing was delivered after the seek")
	})
}

func TestExactlyOnceRefusesAnAckOfAnEndedLease(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		topic := b.topic(t)
		sub := b.subscribe(t, topic, func(s *pubsubpb.Subscription) { s.EnableExactlyOnceDelivery = true })
		b.publish(t, topic, text("a"))
		first := b.pull(t, sub, 1)
		b.nack(t, sub, first...)
		again := b.pull(t, sub, 1)
		_, err := b.Acknowledge(testContext(t), &pubsubpb.AcknowledgeRequest{Subscription: sub, AckIds: ackIDs(first)})
		wantCode(t, "late acknowledgement", err, codes.FailedPrecondition)
		b.ack(t, sub, again...)
	})
}

func TestStreamConfirmsAcksWithExactlyOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		topic := b.topic(t)
		sub := b.subscribe(t, topic, func(s *pubsubpb.Subscription) { s.EnableExactlyOnceDelivery = true })
		b.publish(t, topic, text("a"))
		st := b.stream(t, sub)
		ms := st.next(1)
		st.ack(ms...)
		for {
			res, err := st.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if !res.SubscriptionProperties.GetExactlyOnceDeliveryEnabled() {
				t.Error("the stream does not say that the subscription is exactly-once")
			}
			if c := res.AcknowledgeConfirmation; c != nil {
				if !slices.Equal(c.AckIds, ackIDs(ms)) || len(c.InvalidAckIds) != 0 {
					t.Errorf("confirmed %v", c)
				}
				return
			}
		}
	})
}

func TestPushSuccessIsAnAckAndAnythingElseANack(t *testing.T) {
	for _, code := range []int{200, 201, 202, 204, 102} {
		t.Run(fmt.Sprint("success ", code), func(t *testing.T) {
			onBoth(t, func(t *testing.T, b *bus) {
				url, requests := endpoint(t)
				topic := b.topic(t)
				b.subscribe(t, topic, pushTo(url))
				b.publish(t, topic, text("a"))
				nextPush(t, requests).answer <- code
				b.publish(t, topic, text("b"))
				p := nextPush(t, requests)
				p.answer <- code
				if string(p.body.Message.Data) != "b" {
					t.Errorf("pushed %q again after %d", p.body.Message.Data, code)
				}
			})
		})
	}
	for _, code := range []int{203, 301, 400, 404, 429, 500, 503} {
		t.Run(fmt.Sprint("failure ", code), func(t *testing.T) {
			onBoth(t, func(t *testing.T, b *bus) {
				url, requests := endpoint(t)
				topic := b.topic(t)
				b.subscribe(t, topic, pushTo(url))
				b.publish(t, topic, text("a"))
				p := nextPush(t, requests)
				p.answer <- code
				again := nextPush(t, requests)
				again.answer <- http.StatusOK
				if again.body.Message.MessageID != p.body.Message.MessageID {
					t.Errorf("pushed %q, want the first message again", again.body.Message.Data)
				}
			})
		})
	}
}

func TestPushOfAKeyIsOneAtATimeAndInOrder(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		url, requests := endpoint(t)
		topic := b.topic(t)
		b.subscribe(t, topic, ordered, pushTo(url))
		b.publish(t, topic, keyed("k", "1"), keyed("k", "2"), keyed("k", "3"))
		var got []string
		for i, code := range []int{200, 500, 200, 200} {
			p := nextPush(t, requests)
			got = append(got, string(p.body.Message.Data))
			select {
			case q := <-requests:
				t.Errorf("%d: %q is pushed while %q is", i, q.body.Message.Data, p.body.Message.Data)
			default:
			}
			p.answer <- code
		}
		if want := []string{"1", "2", "2", "3"}; !slices.Equal(got, want) {
			t.Errorf("pushed %q, want %q", got, want)
		}
	})
}

func TestPushSaysTheAttemptWithADeadLetterPolicy(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		url, requests := endpoint(t)
		topic, graveyard := b.topic(t), b.topic(t)
		b.subscribe(t, topic, deadLetter(graveyard), pushTo(url))
		buried := b.subscribe(t, graveyard)
		b.publish(t, topic, text("poison"))
		for attempt := 1; attempt <= 5; attempt++ {
			p := nextPush(t, requests)
			p.answer <- http.StatusInternalServerError
			if p.body.DeliveryAttempt != attempt {
				t.Errorf("delivery attempt %d, want %d", p.body.DeliveryAttempt, attempt)
			}
		}
		b.pull(t, buried, 1)
	})
}

func TestSubscriptionTurnsFromPushToPullAndBack(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		ctx := testContext(t)
		url, requests := endpoint(t)
		topic := b.topic(t)
		sub := b.subscribe(t, topic)
		_, err := b.ModifyPushConfig(ctx, &pubsubpb.ModifyPushConfigRequest{Subscription: sub, PushConfig: &pubsubpb.PushConfig{PushEndpoint: url}})
		if err != nil {
			t.Fatal(err)
		}
		b.publish(t, topic, text("a"))
		nextPush(t, requests).answer <- http.StatusOK
		if _, err := b.ModifyPushConfig(ctx, &pubsubpb.ModifyPushConfigRequest{Subscription: sub, PushConfig: &pubsubpb.PushConfig{}}); err != nil {
			t.Fatal(err)
		}
		b.publish(t, topic, text("b"))
		if got := datas(b.pull(t, sub, 1)); got[0] != "b" {
			t.Errorf("pulled %q", got)
		}
	})
}

func TestPushSubscriptionCannotBePulled(t *testing.T) {
	onBoth(t, func(t *testing.T, b *bus) {
		url, _ := endpoint(t)
		sub := b.subscribe(t, b.topic(t), pushTo(url))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := b.Pull(ctx, &pubsubpb.PullRequest{Subscription: sub, MaxMessages: 1})
		wantCode(t, "pull", err, codes.FailedPrecondition)
	})
}

func TestUnsupportedCallsAndFieldsAreUnimplementedAndNamed(t *testing.T) {
	b := newBus(t, start(t).Addr(), false)
	ctx := testContext(t)
	topic := b.topic(t)
	sub := b.subscribe(t, topic)
	_, snapshot := b.CreateSnapshot(ctx, &pubsubpb.CreateSnapshotRequest{Name: "projects/p/snapshots/abc", Subscription: sub})
	_, schema := pubsubpb.NewSchemaServiceClient(b.conn).CreateSchema(ctx, &pubsubpb.CreateSchemaRequest{Parent: "projects/p"})
	_, seek := b.Seek(ctx, &pubsubpb.SeekRequest{Subscription: sub, Target: &pubsubpb.SeekRequest_Snapshot{Snapshot: "projects/p/snapshots/abc"}})
	_, retain := b.CreateSubscription(ctx, &pubsubpb.Subscription{Name: b.name("subscriptions"), Topic: topic, RetainAckedMessages: true})
	for name, err := range map[string]error{"CreateSnapshot": snapshot, "CreateSchema": schema, "Seek": seek, "retain_acked_messages": retain} {
		if status.Code(err) != codes.Unimplemented || !strings.Contains(status.Convert(err).Message(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
