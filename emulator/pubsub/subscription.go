package pubsub

import (
	"context"
	"net/url"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Limits and defaults of subscriptions:
// https://cloud.google.com/pubsub/docs/subscription-properties.
const (
	minAckDeadline      = 10  // seconds
	maxAckDeadline      = 600 // seconds
	defaultRetention    = 7 * 24 * time.Hour
	minTTL              = 24 * time.Hour
	defaultTTL          = 31 * 24 * time.Hour
	minDeadLetter       = 5 // delivery attempts
	maxDeadLetter       = 100
	maxRetryBackoff     = 600 * time.Second
	defaultRetryMinimum = 10 * time.Second
)

// subscription holds the configuration and the backlog of one subscription, and its push goroutine if it has an endpoint.
type subscription struct {
	name   string
	server *Server
	filter filter
	queue  *queue

	mu       sync.Mutex
	config   *pubsubpb.Subscription // replaced, never changed
	stopPush context.CancelFunc     // nil without a push goroutine
}

func (s *Server) subscription(name string) (*subscription, error) {
	if err := checkName("subscriptions", name); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if sub := s.subs[name]; sub != nil {
		return sub, nil
	}
	return nil, notFound(name)
}

// newSubscription makes a subscription from a complete configuration. The error is INVALID_ARGUMENT for a bad filter.
func (s *Server) newSubscription(config *pubsubpb.Subscription) (*subscription, error) {
	f, err := parseFilter(config.Filter)
	if err != nil {
		return nil, invalid("Invalid filter: %v", err)
	}
	sub := &subscription{name: config.Name, server: s, filter: f, config: config}
	sub.queue = newQueue(settingsOf(config), callbacks{
		forward: func(m *message, attempts int) error {
			return s.deadLetter(sub.name, sub.get().GetDeadLetterPolicy().GetDeadLetterTopic(), m, attempts)
		},
		settled: func(ids []uint64) { s.log.settled(sub.name, ids) },
		expired: func() { s.expire(sub) },
	})
	return sub, nil
}

func (sub *subscription) get() *pubsubpb.Subscription {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	return sub.config
}

// filtered returns the messages of a batch accepted by the subscription's filter.
func (sub *subscription) filtered(batch []*message) []*message {
	if sub.filter == nil {
		return batch
	}
	var ms []*message
	for _, m := range batch {
		if sub.filter.match(m.pb.Attributes) {
			ms = append(ms, m)
		}
	}
	return ms
}

// change replaces the configuration by a copy changed by f.
func (sub *subscription) change(f func(*pubsubpb.Subscription)) {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	config := proto.Clone(sub.config).(*pubsubpb.Subscription)
	f(config)
	sub.set(config)
}

// set replaces the configuration, and starts or stops the push goroutine. The caller holds sub.mu.
func (sub *subscription) set(config *pubsubpb.Subscription) {
	sub.config = config
	sub.queue.configure(settingsOf(config))
	pushes := config.GetPushConfig().GetPushEndpoint() != ""
	switch {
	case pushes && sub.stopPush == nil:
		ctx, cancel := context.WithCancel(sub.server.ctx)
		sub.stopPush = cancel
		sub.server.tasks.Go(func() { sub.push(ctx) })
	case !pushes && sub.stopPush != nil:
		sub.stopPush()
		sub.stopPush = nil
	}
}

// end closes the backlog and stops the push goroutine. reason is the error of the open streams and pulls.
func (sub *subscription) end(reason error) {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	sub.queue.close(reason)
	if sub.stopPush != nil {
		sub.stopPush()
		sub.stopPush = nil
	}
}

func settingsOf(c *pubsubpb.Subscription) settings {
	s := settings{
		ordered:     c.EnableMessageOrdering,
		exactlyOnce: c.EnableExactlyOnceDelivery,
		maxAttempts: int(c.GetDeadLetterPolicy().GetMaxDeliveryAttempts()),
		retention:   c.MessageRetentionDuration.AsDuration(),
		ttl:         c.GetExpirationPolicy().GetTtl().AsDuration(),
	}
	switch {
	case c.RetryPolicy != nil:
		s.minBackoff = c.RetryPolicy.MinimumBackoff.AsDuration()
		s.maxBackoff = c.RetryPolicy.MaximumBackoff.AsDuration()
	case c.GetPushConfig().GetPushEndpoint() != "":
		s.minBackoff, s.maxBackoff = minPushBackoff, maxPushBackoff
	}
	return s
}

// complete checks a configuration and sets the service's defaults.
func complete(call string, c *pubsubpb.Subscription) error {
	switch {
	case c.BigqueryConfig != nil:
		return unsupported(call, "bigquery_config")
	case c.CloudStorageConfig != nil:
		return unsupported(call, "cloud_storage_config")
	case c.BigtableConfig != nil:
		return unsupported(call, "bigtable_config")
	case len(c.MessageTransforms) > 0:
		return unsupported(call, "message_transforms")
	case c.RetainAckedMessages:
		return unsupported(call, "retain_acked_messages")
	}
	if c.AckDeadlineSeconds == 0 {
		c.AckDeadlineSeconds = minAckDeadline
	}
	if d := c.AckDeadlineSeconds; d < minAckDeadline || d > maxAckDeadline {
		return invalid("ack_deadline_seconds: %d is not between %d and %d", d, minAckDeadline, maxAckDeadline)
	}
	if c.MessageRetentionDuration == nil {
		c.MessageRetentionDuration = durationpb.New(defaultRetention)
	}
	if err := checkRetention(c.MessageRetentionDuration); err != nil {
		return err
	}
	if c.ExpirationPolicy == nil {
		c.ExpirationPolicy = &pubsubpb.ExpirationPolicy{Ttl: durationpb.New(defaultTTL)}
	}
	if ttl := c.ExpirationPolicy.Ttl; ttl != nil && ttl.AsDuration() < minTTL {
		return invalid("expiration_policy.ttl: %v is less than 1 day", ttl.AsDuration())
	}
	if p := c.DeadLetterPolicy; p != nil {
		if err := checkName("topics", p.DeadLetterTopic); err != nil {
			return err
		}
		if p.MaxDeliveryAttempts == 0 {
			p.MaxDeliveryAttempts = minDeadLetter
		}
		if n := p.MaxDeliveryAttempts; n < minDeadLetter || n > maxDeadLetter {
			return invalid("dead_letter_policy.max_delivery_attempts: %d is not between %d and %d", n, minDeadLetter, maxDeadLetter)
		}
	}
	if p := c.RetryPolicy; p != nil {
		if p.MinimumBackoff == nil {
			p.MinimumBackoff = durationpb.New(defaultRetryMinimum)
		}
		if p.MaximumBackoff == nil {
			p.MaximumBackoff = durationpb.New(maxRetryBackoff)
		}
		lo, hi := p.MinimumBackoff.AsDuration(), p.MaximumBackoff.AsDuration()
		if lo < 0 || hi > maxRetryBackoff || lo > hi {
			return invalid("retry_policy: the backoffs %v to %v are not between 0 and 600 seconds, in this order", lo, hi)
		}
	}
	if c.PushConfig == nil {
		c.PushConfig = &pubsubpb.PushConfig{}
	}
	if err := checkPush(call, c.PushConfig); err != nil {
		return err
	}
	if c.EnableExactlyOnceDelivery && c.PushConfig.PushEndpoint != "" {
		return invalid("enable_exactly_once_delivery: not allowed with a push endpoint")
	}
	if _, err := parseFilter(c.Filter); err != nil {
		return invalid("Invalid filter: %v", err)
	}
	return nil
}

func checkPush(call string, c *pubsubpb.PushConfig) error {
	if c.GetNoWrapper() != nil {
		return unsupported(call, "push_config.no_wrapper")
	}
	if v, ok := c.Attributes["x-goog-version"]; ok && v != "v1" && v != "v1beta2" {
		return unsupported(call, "push_config.attributes x-goog-version "+v)
	}
	if c.PushEndpoint == "" {
		return nil
	}
	u, err := url.Parse(c.PushEndpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return invalid("Invalid push endpoint given (endpoint=%s). Refer to https://cloud.google.com/pubsub/docs/push for more information.", c.PushEndpoint)
	}
	return nil
}

// CreateSubscription implements the Subscriber service.
func (s *Server) CreateSubscription(_ context.Context, req *pubsubpb.Subscription) (*pubsubpb.Subscription, error) {
	if err := checkName("subscriptions", req.Name); err != nil {
		return nil, err
	}
	if err := checkName("topics", req.Topic); err != nil {
		return nil, err
	}
	config := proto.Clone(req).(*pubsubpb.Subscription)
	if err := complete("CreateSubscription", config); err != nil {
		return nil, err
	}
	config.Detached = false
	config.State = pubsubpb.Subscription_ACTIVE
	config.TopicMessageRetentionDuration = nil
	config.AnalyticsHubSubscriptionInfo = nil
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.subs[req.Name] != nil {
		return nil, alreadyExists(req.Name)
	}
	t := s.topics[req.Topic]
	if t == nil {
		return nil, notFound(req.Topic)
	}
	if p := config.DeadLetterPolicy; p != nil && s.topics[p.DeadLetterTopic] == nil {
		return nil, notFound(p.DeadLetterTopic)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	config.TopicMessageRetentionDuration = t.config.MessageRetentionDuration
	if err := s.log.write(subscriptionRecord(config)); err != nil {
		return nil, err
	}
	return config, s.addSubscription(config, t)
}

// addSubscription adds a subscription and starts it. The caller holds the server's lock and, unless t is nil, the lock
// of the topic.
func (s *Server) addSubscription(config *pubsubpb.Subscription, t *topic) error {
	sub, err := s.newSubscription(config)
	if err != nil {
		return err
	}
	s.subs[config.Name] = sub
	if t != nil {
		t.attach(sub)
	}
	sub.mu.Lock()
	defer sub.mu.Unlock()
	sub.set(config)
	return nil
}

// GetSubscription implements the Subscriber service.
func (s *Server) GetSubscription(_ context.Context, req *pubsubpb.GetSubscriptionRequest) (*pubsubpb.Subscription, error) {
	sub, err := s.subscription(req.Subscription)
	if err != nil {
		return nil, err
	}
	return sub.get(), nil
}

// UpdateSubscription implements the Subscriber service. Name, topic, filter and ordering cannot change.
func (s *Server) UpdateSubscription(_ context.Context, req *pubsubpb.UpdateSubscriptionRequest) (*pubsubpb.Subscription, error) {
	from := req.GetSubscription()
	if _, err := s.subscription(from.GetName()); err != nil {
		return nil, err
	}
	if len(req.GetUpdateMask().GetPaths()) == 0 {
		return nil, invalid("The update_mask in the UpdateSubscriptionRequest must be set, and must contain a non-empty paths list.")
	}
	return s.alter("UpdateSubscription", from.Name, func(config *pubsubpb.Subscription) error {
		from = proto.Clone(from).(*pubsubpb.Subscription)
		for _, path := range req.UpdateMask.Paths {
			switch path {
			case "ack_deadline_seconds":
				config.AckDeadlineSeconds = from.AckDeadlineSeconds
			case "push_config":
				config.PushConfig = from.PushConfig
			case "retain_acked_messages":
				config.RetainAckedMessages = from.RetainAckedMessages
			case "message_retention_duration":
				config.MessageRetentionDuration = from.MessageRetentionDuration
			case "labels":
				config.Labels = from.Labels
			case "expiration_policy":
				config.ExpirationPolicy = from.ExpirationPolicy
			case "dead_letter_policy":
				config.DeadLetterPolicy = from.DeadLetterPolicy
			case "retry_policy":
				config.RetryPolicy = from.RetryPolicy
			case "enable_exactly_once_delivery":
				config.EnableExactlyOnceDelivery = from.EnableExactlyOnceDelivery
			default:
				return invalid("Invalid update_mask provided in the UpdateSubscriptionRequest: '%s' is not a known Subscription field, or cannot be changed.", path)
			}
		}
		return nil
	})
}

// alter applies f to a copy of a subscription's configuration, checks the copy, and makes the copy current. call is the
// name of the RPC, for error messages.
func (s *Server) alter(call, name string, f func(*pubsubpb.Subscription) error) (*pubsubpb.Subscription, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.subs[name]
	if sub == nil {
		return nil, notFound(name)
	}
	sub.mu.Lock()
	defer sub.mu.Unlock()
	config := proto.Clone(sub.config).(*pubsubpb.Subscription)
	if err := f(config); err != nil {
		return nil, err
	}
	if err := complete(call, config); err != nil {
		return nil, err
	}
	if p := config.DeadLetterPolicy; p != nil && s.topics[p.DeadLetterTopic] == nil &&
		p.DeadLetterTopic != sub.config.GetDeadLetterPolicy().GetDeadLetterTopic() {
		return nil, notFound(p.DeadLetterTopic)
	}
	if err := s.log.write(subscriptionRecord(config)); err != nil {
		return nil, err
	}
	sub.set(config)
	return config, nil
}

// ModifyPushConfig implements the Subscriber service.
func (s *Server) ModifyPushConfig(_ context.Context, req *pubsubpb.ModifyPushConfigRequest) (*emptypb.Empty, error) {
	if _, err := s.subscription(req.Subscription); err != nil {
		return nil, err
	}
	_, err := s.alter("ModifyPushConfig", req.Subscription, func(config *pubsubpb.Subscription) error {
		config.PushConfig = req.PushConfig
		return nil
	})
	return &emptypb.Empty{}, err
}

// ListSubscriptions implements the Subscriber service.
func (s *Server) ListSubscriptions(_ context.Context, req *pubsubpb.ListSubscriptionsRequest) (*pubsubpb.ListSubscriptionsResponse, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	names, err := listed(req.Project, s.subs)
	if err != nil {
		return nil, err
	}
	names, next, err := page(names, req.PageSize, req.PageToken)
	if err != nil {
		return nil, err
	}
	res := &pubsubpb.ListSubscriptionsResponse{NextPageToken: next}
	for _, name := range names {
		res.Subscriptions = append(res.Subscriptions, s.subs[name].get())
	}
	return res, nil
}

// DeleteSubscription implements the Subscriber service.
func (s *Server) DeleteSubscription(_ context.Context, req *pubsubpb.DeleteSubscriptionRequest) (*emptypb.Empty, error) {
	if _, err := s.subscription(req.Subscription); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.subs[req.Subscription]
	if sub == nil {
		return nil, notFound(req.Subscription)
	}
	return &emptypb.Empty{}, s.dropSubscription(sub, true)
}

// expire deletes an unused subscription.
func (s *Server) expire(sub *subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.subs[sub.name] == sub {
		// The journal returns the error of a failed write to every later call too.
		_ = s.dropSubscription(sub, true)
	}
}

// dropSubscription removes a subscription. The caller holds the server's lock.
func (s *Server) dropSubscription(sub *subscription, record bool) error {
	if t := s.topics[sub.get().Topic]; t != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.detach(sub)
	}
	if record {
		if err := s.log.write(subscriptionDeletedRecord(sub.name)); err != nil {
			return err
		}
	}
	delete(s.subs, sub.name)
	sub.end(notFound(sub.name))
	return nil
}

// Seek implements the Subscriber service for times: messages published before the time count as acknowledged.
// Acknowledged messages are not retained, so Seek replays nothing. Seek is UNIMPLEMENTED if the topic's retention would
// replay messages.
func (s *Server) Seek(_ context.Context, req *pubsubpb.SeekRequest) (*pubsubpb.SeekResponse, error) {
	sub, err := s.subscription(req.Subscription)
	if err != nil {
		return nil, err
	}
	to, ok := req.Target.(*pubsubpb.SeekRequest_Time)
	if !ok {
		return nil, unsupported("Seek", "a snapshot")
	}
	if sub.get().TopicMessageRetentionDuration != nil && to.Time.AsTime().Before(time.Now()) {
		return nil, unsupported("Seek", "replay from a topic with message_retention_duration")
	}
	sub.queue.purge(to.Time.AsTime())
	return &pubsubpb.SeekResponse{}, nil
}
