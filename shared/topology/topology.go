// Package topology says which Pub/Sub topics and subscriptions Parley has, with their filters, back-offs and limits.
// The one source is topology.json: this package embeds it, the emulator creates what it lists, and Terraform reads the
// same file, so that code, laptop and cloud cannot drift apart.
//
// Names in the file are bare. A deployment may put a prefix before every name, so that several can share a project;
// [Prefix] applies it, in one place, and what comes out is of another type, to which no prefix can be applied again.
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

// The topics. Every constant stands in topology.json and the other way round.
const (
	Ingress    Topic = "internal.ingress.v1"
	Enriched   Topic = "internal.user.enriched.v1"
	Egress     Topic = "internal.egress.v1"
	DeadLetter Topic = "internal.deadletter.v1"
	Sweep      Topic = "internal.sweep.v1"
)

// Subscription is one subscription of the topology. Durations of zero leave the service's default.
type Subscription struct {
	Name     string `json:"name"` // bare
	Topic    Topic  `json:"topic"`
	Function string `json:"function"` // the function that it is pushed to; empty for one that is pulled
	Filter   string `json:"filter"`   // at most 256 bytes; immutable once created
	Ordered  bool   `json:"ordered"`  // messages of one ordering key are delivered in order

	AckDeadlineSeconds  int `json:"ackDeadlineSeconds"`  // 10 to 600
	MinBackoffSeconds   int `json:"minBackoffSeconds"`   // 0 to 600
	MaxBackoffSeconds   int `json:"maxBackoffSeconds"`   // 0 to 600
	MaxDeliveryAttempts int `json:"maxDeliveryAttempts"` // 5 to 100, then to the dead-letter topic; 0 for no end
	RetentionSeconds    int `json:"retentionSeconds"`    // 600 to 2,678,400
	ExpirationSeconds   int `json:"expirationSeconds"`   // at least 86,400; 0 for never
}

// AckDeadline is how long a receiver has before the message is delivered again.
func (s Subscription) AckDeadline() time.Duration { return seconds(s.AckDeadlineSeconds) }

// MinBackoff is the wait before the first redelivery.
func (s Subscription) MinBackoff() time.Duration { return seconds(s.MinBackoffSeconds) }

// MaxBackoff bounds the wait before a redelivery.
func (s Subscription) MaxBackoff() time.Duration { return seconds(s.MaxBackoffSeconds) }

// Retention is how long an unacknowledged message is kept.
func (s Subscription) Retention() time.Duration { return seconds(s.RetentionSeconds) }

// Expiration is how long the subscription lives without anybody using it.
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
		panic(fmt.Sprintf("topology.json: %v", err)) // embedded, so a test has seen it parse
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

// Subscriptions lists the subscriptions that a deployment has from its start on. Those with attempts to count
// ([Subscription.MaxDeliveryAttempts]) hand what used them up to [DeadLetter].
func Subscriptions() []Subscription { return append([]Subscription(nil), parsed.Subscriptions...) }

// Gateway is the subscription of the gateway instance with this id: its own, made when it starts, deleted when it
// stops, and expiring by itself if it could not be. The id must be one that [ValidInstance] takes.
func Gateway(instance string) Subscription {
	s := parsed.Gateway
	s.Name = strings.ReplaceAll(s.Name, "{instance}", instance)
	s.Filter = strings.ReplaceAll(s.Filter, "{instance}", instance)
	return s
}

// MaxFilter is the most bytes a subscription's filter may have
// (https://cloud.google.com/pubsub/docs/subscription-message-filter).
const MaxFilter = 256

var instanceID = regexp.MustCompile(`^[A-Za-z0-9._~-]{1,128}$`)

// ValidInstance reports whether an instance id can stand in a subscription's name and in a filter. Cloud Run's own,
// 100 hexadecimal digits or more, can.
func ValidInstance(id string) bool {
	return instanceID.MatchString(id) && len(Gateway(id).Filter) <= MaxFilter
}

// Prefix stands before the name of every topic and subscription of one deployment. The zero value is no prefix.
type Prefix struct{ text string }

var prefixSyntax = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._~-]{0,63}$`)

// ParsePrefix checks a prefix: empty, or up to 64 letters, digits and .-_~, a letter first and not "goog", as Pub/Sub
// demands of names (https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names). It is used as it is given: a
// separator belongs to it ("staging.").
func ParsePrefix(s string) (Prefix, error) {
	if s != "" && (!prefixSyntax.MatchString(s) || strings.HasPrefix(strings.ToLower(s), "goog")) {
		return Prefix{}, fmt.Errorf("prefix %q: want a letter (not beginning \"goog\"), then letters, digits or . - _ ~, 64 at most", s)
	}
	return Prefix{s}, nil
}

// UnmarshalText is [ParsePrefix].
func (p *Prefix) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePrefix(string(text))
	return err
}

// String is the prefix as it was given.
func (p Prefix) String() string { return p.text }

// TopicName is the full name of a topic, prefix and project included.
type TopicName struct{ path string }

// String is "projects/PROJECT/topics/NAME".
func (n TopicName) String() string { return n.path }

// SubscriptionName is the full name of a subscription, prefix and project included.
type SubscriptionName struct{ path string }

// String is "projects/PROJECT/subscriptions/NAME".
func (n SubscriptionName) String() string { return n.path }

// Topic names a topic in a project.
func (p Prefix) Topic(project string, t Topic) TopicName {
	return TopicName{p.qualify(project, "topics", string(t))}
}

// Subscription names a subscription in a project by its bare name.
func (p Prefix) Subscription(project, name string) SubscriptionName {
	return SubscriptionName{p.qualify(project, "subscriptions", name)}
}

// Bare finds out which of the topology's topics a full name means in this deployment.
func (p Prefix) Bare(fullName string) (Topic, bool) {
	name := fullName[strings.LastIndexByte(fullName, '/')+1:]
	name, ok := strings.CutPrefix(name, p.text)
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

// TopicOf finds out which topic the subscription of this full name or bare name reads in this deployment.
func (p Prefix) TopicOf(subscription string) (Topic, bool) {
	s, ok := p.SubscriptionOf(subscription)
	return s.Topic, ok
}

// SubscriptionOf finds out which of the topology's subscriptions a full name or bare name means in this deployment.
func (p Prefix) SubscriptionOf(name string) (Subscription, bool) {
	name, ok := strings.CutPrefix(name[strings.LastIndexByte(name, '/')+1:], p.text)
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

// qualify is the only place where a prefix is put before a name.
func (p Prefix) qualify(project, kind, name string) string {
	return "projects/" + project + "/" + kind + "/" + p.text + name
}
