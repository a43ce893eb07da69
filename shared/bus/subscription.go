package bus

import (
	"context"
	"fmt"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"parley.internal/shared/topology"
)

// Subscription is the subscription of one gateway instance. [Client.Subscribe] makes a Subscription.
type Subscription struct {
	client *Client
	spec   topology.Subscription
	name   topology.SubscriptionName
}

// Subscribe creates the subscription of a gateway instance. The subscription receives every message published after
// Subscribe has returned. An existing subscription of the same instance is used again.
func (c *Client) Subscribe(ctx context.Context, instance string) (*Subscription, error) {
	if !topology.ValidInstance(instance) {
		return nil, fmt.Errorf("subscribe: instance id %q is not valid in a filter", instance)
	}
	spec := topology.Gateway(instance)
	s := &Subscription{client: c, spec: spec, name: c.deployment.Prefix.Subscription(c.deployment.Project, spec.Name)}
	_, err := c.pubsub.SubscriptionAdminClient.CreateSubscription(ctx, &pubsubpb.Subscription{
		Name:                     s.name.String(),
		Topic:                    c.deployment.Prefix.Topic(c.deployment.Project, spec.Topic).String(),
		Filter:                   spec.Filter,
		AckDeadlineSeconds:       int32(spec.AckDeadlineSeconds),
		EnableMessageOrdering:    spec.Ordered,
		MessageRetentionDuration: durationpb.New(spec.Retention()),
		ExpirationPolicy:         &pubsubpb.ExpirationPolicy{Ttl: durationpb.New(spec.Expiration())},
	})
	if err != nil && status.Code(err) != codes.AlreadyExists {
		return nil, fmt.Errorf("create subscription %s: %w", s.name, err)
	}
	return s, nil
}

// Receive calls h for every message until ctx is done. Calls for different ordering keys run concurrently; calls for
// one ordering key run one after another. When ctx is done, Receive waits for running calls and for deferred outcomes
// (see [Incoming.SettleLater]), and returns nil. A deleted subscription is an error.
func (s *Subscription) Receive(ctx context.Context, h Handler) error {
	sub := s.client.pubsub.Subscriber(s.name.String())
	err := sub.Receive(ctx, func(ctx context.Context, m *pubsub.Message) {
		ctx = context.WithoutCancel(ctx) // a call that has begun is completed, also while the instance drains
		settle := func(err error) {
			if err != nil {
				s.client.log.WarnContext(ctx, "message not acknowledged", "error", err, "message", m.ID)
				m.Nack()
				return
			}
			m.Ack()
		}
		message := Message{Topic: s.spec.Topic, ID: m.ID, Data: m.Data, Attributes: m.Attributes, Published: m.PublishTime}
		if deferred, err := s.client.handle(ctx, message, h, settle); !deferred {
			settle(err)
		}
	})
	if err != nil {
		return fmt.Errorf("receive from %s: %w", s.name, err)
	}
	return nil
}

// Delete deletes the subscription. A missing subscription is no error.
func (s *Subscription) Delete(ctx context.Context) error {
	err := s.client.pubsub.SubscriptionAdminClient.DeleteSubscription(ctx, &pubsubpb.DeleteSubscriptionRequest{Subscription: s.name.String()})
	if err != nil && status.Code(err) != codes.NotFound {
		return fmt.Errorf("delete subscription %s: %w", s.name, err)
	}
	return nil
}
