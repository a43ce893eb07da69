package trigger

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"parley.internal/shared/bus"
	"parley.internal/shared/topology"
)

// maxBody is the maximum size of a request in bytes. A Pub/Sub message has up to 10 MB with its attributes, and base64
// adds a third (https://cloud.google.com/pubsub/quotas#resource_limits).
const maxBody = 16 << 20

// MessagePublished is the type of a CloudEvent with a Pub/Sub message
// (https://cloud.google.com/eventarc/docs/cloudevents#pubsub).
const MessagePublished = "google.cloud.pubsub.topic.v1.messagePublished"

// requestError means that a request holds no Pub/Sub message.
type requestError struct{ err error }

func (e *requestError) Error() string { return e.err.Error() }
func (e *requestError) Unwrap() error { return e.err }

// push is the body of a push request (https://cloud.google.com/pubsub/docs/push#receive_push), and the data of a
// CloudEvent with a Pub/Sub message.
type push struct {
	Message *struct {
		Data        []byte            `json:"data"`
		Attributes  map[string]string `json:"attributes"`
		MessageID   string            `json:"messageId"`
		PublishTime time.Time         `json:"publishTime"`
	} `json:"message"`
	Subscription    string `json:"subscription"`
	DeliveryAttempt int    `json:"deliveryAttempt"`
}

// message converts a push. fullTopic names the topic; if fullTopic is not in the topology, the topic follows from the
// subscription.
func (p push) message(fullTopic string, prefix topology.Prefix) bus.Message {
	m := bus.Message{Attempt: p.DeliveryAttempt}
	if p.Message != nil {
		m.ID, m.Data, m.Attributes, m.Published = p.Message.MessageID, p.Message.Data, p.Message.Attributes, p.Message.PublishTime
	}
	var ok bool
	if m.Topic, ok = prefix.LookupTopic(fullTopic); !ok {
		m.Topic, _ = prefix.TopicOf(p.Subscription)
	}
	return m
}

// lenient accepts duplicate names and invalid UTF-8, like encoding/json: a message is worth more than a strict body.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// read returns the Pub/Sub message of a request: a push, or a CloudEvent in the binary or the structured mode of HTTP.
// The error is a requestError if the request has none of these forms.
func read(r *http.Request, prefix topology.Prefix) (bus.Message, error) {
	r.Body = http.MaxBytesReader(nil, r.Body, maxBody)
	if r.Header.Get("Ce-Id") != "" || strings.HasPrefix(r.Header.Get("Content-Type"), "application/cloudevents") {
		return readCloudEvent(r, prefix)
	}
	var p push
	if err := json.UnmarshalRead(r.Body, &p, lenient); err != nil {
		return bus.Message{}, &requestError{fmt.Errorf("read a push: %w", err)}
	}
	if p.Message == nil || p.Message.MessageID == "" {
		return bus.Message{}, &requestError{errors.New("read a push: no message with an id; is payload unwrapping on?")}
	}
	return p.message(topicInPath(r.URL.Path), prefix), nil
}

// readCloudEvent reads a CloudEvent as Eventarc sends it. The topic is the event's source. Push subscriptions do not use
// this form, so a second parse of the data costs nothing in a deployment.
func readCloudEvent(r *http.Request, prefix topology.Prefix) (bus.Message, error) {
	ce, err := cloudevents.NewEventFromHTTPRequest(r)
	if err == nil {
		err = ce.Validate()
	}
	if err != nil {
		return bus.Message{}, &requestError{fmt.Errorf("read a CloudEvent: %w", err)}
	}
	if ce.Type() != MessagePublished {
		return bus.Message{}, fmt.Errorf("CloudEvent of type %q; want %s: is the trigger a Pub/Sub push subscription?", ce.Type(), MessagePublished)
	}
	var p push
	if err := ce.DataAs(&p); err != nil {
		return bus.Message{}, fmt.Errorf("read the data of a CloudEvent: %w", err)
	}
	m := p.message(ce.Source(), prefix)
	if m.ID == "" {
		m.ID = ce.ID()
	}
	if m.Published.IsZero() {
		m.Published = ce.Time()
	}
	return m, nil
}

// topicInPath returns the full topic name at the end of a push endpoint's path, such as /projects/P/topics/T, or "".
func topicInPath(path string) string {
	if i := strings.Index(path, "projects/"); i >= 0 && strings.Contains(path[i:], "/topics/") {
		return path[i:]
	}
	return ""
}
