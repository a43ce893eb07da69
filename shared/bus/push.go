package bus

import (
	"context"
	"fmt"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
)

// MessagePublished is the type of the CloudEvent that a function receives for a Pub/Sub message
// (https://cloud.google.com/eventarc/docs/cloudevents#pubsub).
const MessagePublished = "google.cloud.pubsub.topic.v1.messagePublished"

// pushed is the data of such a CloudEvent.
type pushed struct {
	Message struct {
		Data        []byte            `json:"data"`
		Attributes  map[string]string `json:"attributes"`
		MessageID   string            `json:"messageId"`
		PublishTime time.Time         `json:"publishTime"`
	} `json:"message"`
	Subscription    string `json:"subscription"`
	DeliveryAttempt int    `json:"deliveryAttempt"`
}

// CloudEvent is the entry point of a function: it gives the event in a pushed Pub/Sub message to a handler. An error
// has the service push the message again, by the subscription's back-off.
func (c *Client) CloudEvent(ctx context.Context, ce cloudevents.Event, h Handler) error {
	m, err := c.Pushed(ce)
	if err != nil {
		return err
	}
	_, err = c.handle(ctx, m, h, nil) // the answer to the request is the acknowledgement
	return err
}

// Pushed reads the Pub/Sub message that a CloudEvent holds, for a function that takes messages as they are.
func (c *Client) Pushed(ce cloudevents.Event) (Raw, error) {
	if ce.Type() != MessagePublished {
		return Raw{}, fmt.Errorf("CloudEvent of type %q; want %s: is the trigger a Pub/Sub push subscription?", ce.Type(), MessagePublished)
	}
	var p pushed
	if err := ce.DataAs(&p); err != nil {
		return Raw{}, fmt.Errorf("read the CloudEvent's data: %w", err)
	}
	topic, ok := c.deployment.Prefix.Bare(ce.Source())
	if !ok {
		topic, _ = c.deployment.Prefix.TopicOf(p.Subscription)
	}
	m := Raw{Topic: topic, Attempt: p.DeliveryAttempt, ID: p.Message.MessageID, Data: p.Message.Data, Attributes: p.Message.Attributes, Published: p.Message.PublishTime}
	if m.ID == "" {
		m.ID = ce.ID()
	}
	if m.Published.IsZero() {
		m.Published = ce.Time()
	}
	return m, nil
}
