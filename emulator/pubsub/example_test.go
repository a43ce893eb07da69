package pubsub_test

import (
	"context"
	"fmt"
	"log"

	cloudpubsub "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"parley.internal/emulator/pubsub"
)

// A test starts a server and connects Google's client.
func Example() {
	srv, err := pubsub.New()
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()

	conn, err := grpc.NewClient(srv.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	client, err := cloudpubsub.NewClient(ctx, "any-project", option.WithGRPCConn(conn))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	const topic, subscription = "projects/any-project/topics/greetings", "projects/any-project/subscriptions/readers"
	if _, err := client.TopicAdminClient.CreateTopic(ctx, &pubsubpb.Topic{Name: topic}); err != nil {
		log.Fatal(err)
	}
	if _, err := client.SubscriptionAdminClient.CreateSubscription(ctx, &pubsubpb.Subscription{Name: subscription, Topic: topic}); err != nil {
		log.Fatal(err)
	}
	publisher := client.Publisher(topic)
	defer publisher.Stop()
	if _, err := publisher.Publish(ctx, &cloudpubsub.Message{Data: []byte("hello")}).Get(ctx); err != nil {
		log.Fatal(err)
	}
	err = client.Subscriber(subscription).Receive(ctx, func(_ context.Context, m *cloudpubsub.Message) {
		fmt.Printf("received %s\n", m.Data)
		m.Ack()
		cancel()
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(srv.Counts()[pubsub.CountPublished], "published")
	// Output:
	// received hello
	// 1 published
}
