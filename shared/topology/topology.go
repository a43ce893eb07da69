// Package topology lists Parley's Pub/Sub topics and subscriptions, with filters, back-offs and limits. The only source is
// topology.json: this package embeds the file, the emulator creates the listed topics, and Terraform reads the same
// file. Code, laptop and cloud therefore always agree.
//
// The names in the file are bare. A deployment may have a prefix for every name, so that several deployments can share a
// project. Only [Prefix] applies the prefix. The results, [TopicName] and [SubscriptionName], are separate types, so that
// no prefix can be applied twice.
package topology

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Topic is the bare name of a topic.
type Topic string

// The topics: exactly the topics of topology.json.
const (
	Ingress    Topic = "internal.ingress.v1"
	Enriched   Topic = "internal.user.enriched.v1"
	Egress     Topic = "internal.egress.v1"
	DeadLetter Topic = "internal.deadletter.v1"
	Sweep      Topic = "internal.sweep.v1"
)

// Subscription is one subscription of the topology. A duration of zero means Pub/Sub's default.
type Subscription struct {
	Name     string `json:"name"` // bare
	Topic    Topic  `json:"topic"`
	Function string `json:"function"` // the receiver of pushes; empty for a pull subscription
	Filter   string `json:"filter"`   // at most 256 bytes; immutable once created
	Ordered  bool   `json:"ordered"`  // messages of one ordering key are delivered in order

	AckDeadlineSeconds  int `json:"ackDeadlineSeconds"`  // 10 to 600
	MinBackoffSeconds   int `json:"minBackoffSeconds"`   // 0 to 600
	MaxBackoffSeconds   int `json:"maxBackoffSeconds"`   // 0 to 600
	MaxDeliveryAttempts int `json:"maxDeliveryAttempts"` // 5 to 100, then to the dead-letter topic; 0 for unlimited
	RetentionSeconds    int `json:"retentionSeconds"`    // 600 to 2,678,400
	ExpirationSeconds   int `json:"expirationSeconds"`   // at least 86,400; 0 for never
}

// AckDeadline is the time until a message without acknowledgement is delivered again.
func (s Subscription) AckDeadline() time.Duration { return seconds(s.AckDeadlineSeconds) }

// MinBackoff is the wait before the first redelivery.
func (s Subscription) MinBackoff() time.Duration { return seconds(s.MinBackoffSeconds) }

// MaxBackoff bounds the wait before a redelivery.
func (s Subscription) MaxBackoff() time.Duration { return seconds(s.MaxBackoffSeconds) }

// Retention is the storage time of a message without acknowledgement.
func (s Subscription) Retention() time.Duration { return seconds(s.RetentionSeconds) }

// Expiration is the lifetime of an unused subscription.
func (s Subscription) Expiration() time.Duration { return seconds(s.ExpirationSeconds) }

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

//go:embed topology.json
var source []byte

var parsed = func() (t struct {
	Topics []struct {
		Name        Topic  `json:"name"`
		Description string `json:"description"`
	} `json:"topics"`
	Subscriptions   []Subscription `json:"subscriptions"`
	Gateway         Subscription   `json:"gateway"`
	DeadLetterTopic Topic          `json:"deadLetterTopic"`
}) {
	dec := json.NewDecoder(strings.NewReader(string(source)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&t); err != nil {
		panic(fmt.Sprintf("topology.json: %v", err)) // the file is embedded: every test run parses the same bytes
	}
	return t
}()

// Topics lists every topic.
func Topics() []Topic {
	names := make([]Topic, len(parsed.Topics))
	for i, t := range parsed.Topics {
		names[i] = t.Name
	}
	return names
}

// Subscriptions lists the permanent subscriptions of a deployment. After [Subscription.MaxDeliveryAttempts] deliveries,
// Pub/Sub moves a message to [DeadLetter].
func Subscriptions() []Subscription { return append([]Subscription(nil), parsed.Subscriptions...) }

// Gateway returns the subscription of a gateway instance. The instance creates the subscription at its start and deletes
// the subscription at its end; after a crash the subscription expires. The id must be valid ([ValidInstance]).
func Gateway(instance string) Subscription {
	s := parsed.Gateway
	s.Name = strings.ReplaceAll(s.Name, "{instance}", instance)
	s.Filter = strings.ReplaceAll(s.Filter, "{instance}", instance)
	return s
}

// MaxFilter is the maximum size of a subscription's filter in bytes
// (https://cloud.google.com/pubsub/docs/subscription-message-filter).
const MaxFilter = 256

var instanceID = regexp.MustCompile(`^[A-Za-z0-9._~-]{1,128}$`)

// ValidInstance reports whether an instance id fits into a subscription's name and filter. The ids of Cloud Run, 100
// hexadecimal digits or more, are valid.
func ValidInstance(id string) bool {
	return instanceID.MatchString(id) && len(Gateway(id).Filter) <= MaxFilter
}

// Prefix is the beginning of every topic and subscription name of one deployment. The zero value is no prefix.
type Prefix struct{ text string }

var prefixSyntax = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._~-]{0,63}$`)

// ParsePrefix validates a prefix. A prefix is empty, or has up to 64 letters, digits and .-_~, begins with a letter, and
// does not begin with "goog". The rules are Pub/Sub's rules for names
// (https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names). A separator is part of the prefix ("staging.").
func ParsePrefix(s string) (Prefix, error) {
	if s != "" && (!prefixSyntax.MatchString(s) || strings.HasPrefix(strings.ToLower(s), "goog")) {
		return Prefix{}, fmt.Errorf("prefix %q: want a letter (not beginning \"goog\"), then letters, digits or . - _ ~, 64 at most", s)
	}
	return Prefix{s}, nil
}

// UnmarshalText calls [ParsePrefix].
func (p *Prefix) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePrefix(string(text))
	return err
}

// String returns the prefix, as given to [ParsePrefix].
func (p Prefix) String() string { return p.text }

// TopicName is the full name of a topic, prefix and project included.
type TopicName struct{ path string }

// String returns "projects/PROJECT/topics/NAME".
func (n TopicName) String() string { return n.path }

// SubscriptionName is the full name of a subscription, prefix and project included.
type SubscriptionName struct{ path string }

// String returns "projects/PROJECT/subscriptions/NAME".
func (n SubscriptionName) String() string { return n.path }

// Topic returns the full name of a topic.
func (p Prefix) Topic(project string, t Topic) TopicName {
	return TopicName{p.qualify(project, "topics", string(t))}
}

// Subscription returns the full name of a subscription with the given bare name.
func (p Prefix) Subscription(project, name string) SubscriptionName {
	return SubscriptionName{p.qualify(project, "subscriptions", name)}
}

// LookupTopic returns the topic of this deployment with the given full name. ok is false for an unknown name.
func (p Prefix) LookupTopic(fullName string) (t Topic, ok bool) {
	name := fullName[strings.LastIndexByte(fullName, '/')+1:]
	name, ok = strings.CutPrefix(name, p.text)
	if !ok {
		return "", false
	}
	for _, t := range Topics() {
		if string(t) == name {
			return t, true
		}
	}
	return "", false
}

// TopicOf returns the topic of a subscription of this deployment. The argument is the full name of the subscription, or the
// prefix followed by the bare name. ok is false for an unknown name.
func (p Prefix) TopicOf(subscription string) (t Topic, ok bool) {
	s, ok := p.LookupSubscription(subscription)
	return s.Topic, ok
}

// LookupSubscription returns a subscription of this deployment. The argument is the full name, or the prefix followed by the
// bare name. ok is false for an unknown name.
func (p Prefix) LookupSubscription(name string) (s Subscription, ok bool) {
	name, ok = strings.CutPrefix(name[strings.LastIndexByte(name, '/')+1:], p.text)
	if !ok {
		return Subscription{}, false
	}
	for _, s := range parsed.Subscriptions {
		if s.Name == name {
			return s, true
		}
	}
	return Subscription{}, false
}

// qualify is the only function that applies a prefix.
func (p Prefix) qualify(project, kind, name string) string {
	return "projects/" + project + "/" + kind + "/" + p.text + name
}
