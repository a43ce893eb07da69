// Package bus carries events between the parts of Parley on Google Cloud Pub/Sub.
//
// A publisher passes an event and a topic of the topology to [Client.Publish]. The bus adds the prefix of the
// deployment, the attributes for subscription filters, the ordering key and the trace.
//
// A receiver passes a [Handler] to [Subscription.Receive] (a gateway, by pull) or to [Client.Handle] (a function, by
// push). The bus decodes the event, calls the handler, and acknowledges by the handler's result:
//
//   - nil acknowledges the message.
//   - A [deadletter.Error] is published on the dead-letter topic; then the message is acknowledged.
//   - Any other error makes Pub/Sub deliver the message again.
//
// The bus never acknowledges a message before the outcome is stored. The package must not know any platform, rule or
// gateway: it sees events and topics only.
package bus

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"google.golang.org/api/option"

	"parley.internal/shared/config"
	"parley.internal/shared/topology"
)

// The attributes of a message on the bus. The trace and a dead letter have attributes of their own. A message has an
// attribute only if the value is not empty.
const (
	AttrType           = "type"
	AttrCorrelationID  = "correlationId"
	AttrIdempotencyKey = "idempotencyKey"
	AttrSource         = "source"
	AttrTraceID        = "traceId"
	AttrChannel        = "channel"
	AttrRoute          = "route"    // the route of an answer, a Route constant
	AttrInstance       = "instance" // the only gateway instance that receives the answer
	AttrNext           = "next"     // the next step of the routing slip
)

// The values of [AttrRoute].
const (
	RouteBroadcast = "broadcast" // every gateway instance receives the answer
	RouteWhisper   = "whisper"   // the function whisper receives the answer, and no gateway
)

// batchDelay is the time that the publisher waits for more messages before sending a batch. The library's default of
// 10 ms would be most of the end-to-end latency.
const batchDelay = time.Millisecond

// Client publishes to and receives from the topics of one deployment. It is safe for concurrent use. [Open] makes a
// Client; the zero value is not usable.
type Client struct {
	pubsub     *pubsub.Client
	deployment config.Deployment
	source     string
	log        *slog.Logger

	mu         sync.Mutex
	publishers map[topology.Topic]*pubsub.Publisher
}

// Open connects to Pub/Sub, or to the emulator named by PUBSUB_EMULATOR_HOST. source is the name of the part in dead
// letters and logs, such as "enrichment".
func Open(ctx context.Context, d config.Deployment, source string, log *slog.Logger, opts ...option.ClientOption) (*Client, error) {
	client, err := pubsub.NewClient(ctx, d.Project, opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to Pub/Sub: %w", err)
	}
	return &Client{pubsub: client, deployment: d, source: source, log: log, publishers: map[topology.Topic]*pubsub.Publisher{}}, nil
}

// Close sends all pending messages and disconnects.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.publishers {
		p.Stop()
	}
	clear(c.publishers)
	if err := c.pubsub.Close(); err != nil {
		return fmt.Errorf("disconnect from Pub/Sub: %w", err)
	}
	return nil
}

// publisher returns the publisher of a topic. The first call for a topic makes the publisher.
func (c *Client) publisher(t topology.Topic) *pubsub.Publisher {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.publishers[t]
	if p == nil {
		p = c.pubsub.Publisher(c.deployment.Prefix.Topic(c.deployment.Project, t).String())
		p.EnableMessageOrdering = true
		p.PublishSettings.DelayThreshold = batchDelay
		c.publishers[t] = p
	}
	return p
}
