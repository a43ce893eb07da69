package pubsub

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

// Pauses before the next push of a failed message, without a retry policy: https://cloud.google.com/pubsub/docs/push.
// The service pauses the whole subscription. Here only the message waits, so that one failing message does not delay
// all others.
const (
	minPushBackoff = 100 * time.Millisecond
	maxPushBackoff = time.Minute
)

// maxPushWindow is the largest number of concurrent push requests of one subscription. As in the service the window
// starts at one, doubles with every success, and shrinks with every failure (here to half).
const maxPushWindow = 128

// pushBody is the JSON of a push request. As in the service, the message id and the publish time are sent twice, in camel
// case and in snake case.
type pushBody struct {
	DeliveryAttempt int         `json:"deliveryAttempt,omitempty"`
	Message         pushMessage `json:"message"`
	Subscription    string      `json:"subscription"`
}

type pushMessage struct {
	Attributes   map[string]string `json:"attributes,omitempty"`
	Data         []byte            `json:"data,omitempty"`
	MessageID    string            `json:"messageId"`
	MessageID2   string            `json:"message_id"`
	OrderingKey  string            `json:"orderingKey,omitempty"`
	PublishTime  string            `json:"publishTime"`
	PublishTime2 string            `json:"publish_time"`
}

// push delivers to the push endpoint until the context or the subscription ends. It returns when no request is under
// way.
func (sub *subscription) push(ctx context.Context) {
	window := 1
	c := &consumer{perKey: single, maxMessages: window}
	if sub.queue.join(c) != nil {
		return
	}
	var requests sync.WaitGroup
	defer requests.Wait()
	defer c.leave()
	var mu sync.Mutex
	adjust := func(ok bool) {
		mu.Lock()
		defer mu.Unlock()
		if ok {
			window = min(2*window, maxPushWindow)
		} else {
			window = max(1, window/2)
		}
		c.setMaxMessages(window)
	}
	// Taken messages are always sent. Their leases have no deadline, because every request has a timeout.
	for ctx.Err() == nil {
		batch, err := c.take(maxPushWindow, nil)
		if err != nil {
			return
		}
		for _, d := range batch {
			requests.Go(func() {
				err := sub.post(d)
				if sub.server.ctx.Err() != nil {
					return
				}
				adjust(err == nil)
				// The only error is that of a closed queue. Then the message is gone too.
				if err == nil {
					_, _ = sub.queue.ack([]ackID{d.ack})
					sub.server.count(CountAcked, 1)
				} else {
					_, _ = sub.queue.extend([]ackID{d.ack}, 0)
				}
			})
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-c.wakes:
		case <-ctx.Done():
			return
		}
	}
}

// errProcessing ends a request answered with 102 Processing. The service treats 102 as success, but net/http waits for
// another response.
var errProcessing = errors.New("102 Processing")

// post sends one message to the endpoint. It returns an error if the endpoint did not acknowledge the message within the
// ack deadline. Status codes 102, 200, 201, 202 and 204 acknowledge: https://cloud.google.com/pubsub/docs/push.
func (sub *subscription) post(d delivery) error {
	config := sub.get()
	body, err := json.Marshal(pushBodyOf(config, d))
	if err != nil {
		return fmt.Errorf("encode push body: %w", err)
	}
	timeout := time.Duration(config.AckDeadlineSeconds) * time.Second
	ctx, cancel := context.WithTimeout(sub.server.ctx, timeout)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
			if code == http.StatusProcessing {
				return errProcessing
			}
			return nil
		},
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, config.PushConfig.PushEndpoint, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("push: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "CloudPubSub-Google")
	sub.server.count(CountPushed, 1)
	sub.server.count(CountDelivered, 1)
	sub.server.count(CountDeliveredBytes, d.message.size)
	res, err := sub.server.options.client.Do(req)
	if errors.Is(err, errProcessing) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("push: %w", err)
	}
	defer res.Body.Close()
	// Reading the body lets the connection be used again. A longer body is not worth the time.
	_, _ = io.CopyN(io.Discard, res.Body, 64<<10)
	switch res.StatusCode {
	case http.StatusProcessing, http.StatusOK, http.StatusCreated, http.StatusAccepted, http.StatusNoContent:
		return nil
	}
	return fmt.Errorf("push: the endpoint answered %s", res.Status)
}

func pushBodyOf(config *pubsubpb.Subscription, d delivery) pushBody {
	m := d.message.pb
	// The service writes milliseconds.
	published := d.message.published.UTC().Format("2006-01-02T15:04:05.999Z")
	return pushBody{
		DeliveryAttempt: d.attempt,
		Subscription:    config.Name,
		Message: pushMessage{
			Attributes:   m.Attributes,
			Data:         m.Data,
			MessageID:    m.MessageId,
			MessageID2:   m.MessageId,
			OrderingKey:  m.OrderingKey,
			PublishTime:  published,
			PublishTime2: published,
		},
	}
}
