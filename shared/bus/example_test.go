package bus_test

import (
	"context"
	"fmt"
	"log/slog"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pubsubserver "parley.internal/emulator/pubsub"
	"parley.internal/shared/bus"
	"parley.internal/shared/config"
	"parley.internal/shared/event"
	"parley.internal/shared/topology"
)

// A gateway instance receives an answer from its own subscription.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	opts, closeServer, err := startServer(ctx) // a real program needs no options
	if err != nil {
		fmt.Println(err)
		return
	}
	defer closeServer()

	c, err := bus.Open(ctx, config.Deployment{Project: "my-project"}, "api-gateway", slog.New(slog.DiscardHandler), opts...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	sub, err := c.Subscribe(ctx, "a1b2")
	if err != nil {
		fmt.Println(err)
		return
	}
	err = c.Publish(ctx, topology.Egress, bus.Outgoing{
		Event: &event.Event{
			V: event.Version, Source: "personality", CorrelationID: "c1", Type: event.TypeChatMessage, UserID: "twitch:1",
			Message: &event.Message{Role: event.RoleUser, Text: "hello"},
		},
		Attributes: map[string]string{bus.AttrRoute: bus.RouteBroadcast},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	err = sub.Receive(ctx, func(_ context.Context, in bus.Incoming) error {
		fmt.Println(in.Event.CorrelationID, in.Event.Message.Text)
		cancel() // Receive returns after this handler
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: c1 hello
}

// startServer starts an embedded Pub/Sub with the topic of answers, and returns the options of its clients.
func startServer(ctx context.Context) ([]option.ClientOption, func() error, error) {
	server, err := pubsubserver.New()
	if err != nil {
		return nil, nil, err
	}
	opts := []option.ClientOption{
		option.WithEndpoint(server.Addr()), option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
	}
	admin, err := pubsub.NewClient(ctx, "my-project", opts...)
	if err != nil {
		return nil, nil, err
	}
	defer admin.Close()
	topic := topology.Prefix{}.Topic("my-project", topology.Egress).String()
	_, err = admin.TopicAdminClient.CreateTopic(ctx, &pubsubpb.Topic{Name: topic})
	return opts, server.Close, err
}
