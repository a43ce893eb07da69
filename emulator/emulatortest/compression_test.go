package emulatortest_test

import (
	"strings"
	"testing"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"

	"parley.internal/emulator/emulatortest"
)

func TestMain(m *testing.M) { emulatortest.Main(m) }

// compressed returns options for a client that compresses its messages. The package google.golang.org/grpc/encoding/gzip
// would enable compression in the whole process, and so in the embedded servers too. This test must not import it.
func compressed() []grpc.DialOption {
	return []grpc.DialOption{
		//lint:ignore SA1019 The replacement enables compression in the servers too.
		grpc.WithCompressor(grpc.NewGZIPCompressor()),
		//lint:ignore SA1019 The replacement enables compression in the servers too.
		grpc.WithDecompressor(grpc.NewGZIPDecompressor()),
	}
}

func TestClientsMayCompressMessages(t *testing.T) {
	text := strings.Repeat("long text, ", 10_000)
	emulatortest.Both(t, func(t *testing.T, env emulatortest.Env) {
		t.Run("firestore", func(t *testing.T) {
			documents := "projects/" + env.Project + "/databases/(default)/documents"
			client := firestorepb.NewFirestoreClient(emulatortest.Dial(t, env.Firestore, compressed()...))
			_, err := client.CreateDocument(t.Context(), &firestorepb.CreateDocumentRequest{
				Parent: documents, CollectionId: "c", DocumentId: "d",
				Document: &firestorepb.Document{Fields: map[string]*firestorepb.Value{
					"text": {ValueType: &firestorepb.Value_StringValue{StringValue: text}}}},
			})
			if err != nil {
				t.Fatal(err)
			}
			stream, err := client.RunQuery(t.Context(), &firestorepb.RunQueryRequest{
				Parent: documents,
				QueryType: &firestorepb.RunQueryRequest_StructuredQuery{StructuredQuery: &firestorepb.StructuredQuery{
					From: []*firestorepb.StructuredQuery_CollectionSelector{{CollectionId: "c"}}}},
			})
			if err != nil {
				t.Fatal(err)
			}
			answer, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if got := answer.GetDocument().GetFields()["text"].GetStringValue(); got != text {
				t.Errorf("the query returned %d bytes, want %d", len(got), len(text))
			}
		})
		t.Run("pubsub", func(t *testing.T) {
			topic, subscription := "projects/"+env.Project+"/topics/compressed", "projects/"+env.Project+"/subscriptions/compressed"
			conn := emulatortest.Dial(t, env.PubSub, compressed()...)
			publisher, subscriber := pubsubpb.NewPublisherClient(conn), pubsubpb.NewSubscriberClient(conn)
			if _, err := publisher.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topic}); err != nil {
				t.Fatal(err)
			}
			if _, err := subscriber.CreateSubscription(t.Context(), &pubsubpb.Subscription{Name: subscription, Topic: topic}); err != nil {
				t.Fatal(err)
			}
			stream, err := subscriber.StreamingPull(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(&pubsubpb.StreamingPullRequest{Subscription: subscription, StreamAckDeadlineSeconds: 10}); err != nil {
				t.Fatal(err)
			}
			message := &pubsubpb.PubsubMessage{Data: []byte(text)}
			if _, err := publisher.Publish(t.Context(), &pubsubpb.PublishRequest{Topic: topic, Messages: []*pubsubpb.PubsubMessage{message}}); err != nil {
				t.Fatal(err)
			}
			answer, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if got := answer.GetReceivedMessages(); len(got) != 1 || string(got[0].GetMessage().GetData()) != text {
				t.Errorf("received %d messages, want the published message", len(got))
			}
		})
	})
}
