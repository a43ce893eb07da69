package pubsub

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Limits of Publish: https://cloud.google.com/pubsub/quotas#resource_limits.
const (
	maxRequestBytes      = 10_000_000
	maxRequestMessages   = 1000
	maxAttributes        = 100
	maxAttributeKeyBytes = 256
	maxAttributeBytes    = 1024
	maxOrderingKeyBytes  = 1024
)

// Limits of message retention of topics and subscriptions:
// https://cloud.google.com/pubsub/docs/reference/rpc/google.pubsub.v1#topic.
const (
	minRetention = 10 * time.Minute
	maxRetention = 31 * 24 * time.Hour
)

// topic distributes published messages to its subscriptions. Publish holds the topic's lock from the first id to the
// last queue, so the journal and every queue get the messages in the order of their ids.
type topic struct {
	name string

	mu      sync.Mutex
	config  *pubsubpb.Topic // replaced, never changed
	subs    []*subscription // sorted by name
	deleted bool
}

func notFound(name string) error {
	return status.Errorf(codes.NotFound, "Resource not found (resource=%s).", name)
}

func alreadyExists(name string) error {
	return status.Errorf(codes.AlreadyExists, "Resource already exists in the project (resource=%s).", name)
}

func (s *Server) topic(name string) (*topic, error) {
	if err := checkName("topics", name); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if t := s.topics[name]; t != nil {
		return t, nil
	}
	return nil, notFound(name)
}

// checkTopic returns an error for invalid or unsupported fields.
func checkTopic(call string, t *pubsubpb.Topic) error {
	if err := checkRetention(t.MessageRetentionDuration); err != nil {
		return err
	}
	switch {
	case t.SchemaSettings != nil:
		return unsupported(call, "schema_settings")
	case t.IngestionDataSourceSettings != nil:
		return unsupported(call, "ingestion_data_source_settings")
	case len(t.MessageTransforms) > 0:
		return unsupported(call, "message_transforms")
	}
	return nil
}

func checkRetention(d *durationpb.Duration) error {
	if d != nil && (d.AsDuration() < minRetention || d.AsDuration() > maxRetention) {
		return invalid("message_retention_duration: %v is not between 10 minutes and 31 days", d.AsDuration())
	}
	return nil
}

// CreateTopic implements the Publisher service.
func (s *Server) CreateTopic(_ context.Context, req *pubsubpb.Topic) (*pubsubpb.Topic, error) {
	if err := checkName("topics", req.Name); err != nil {
		return nil, err
	}
	if err := checkTopic("CreateTopic", req); err != nil {
		return nil, err
	}
	config := proto.Clone(req).(*pubsubpb.Topic)
	config.SatisfiesPzs = false
	config.State = pubsubpb.Topic_ACTIVE
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.topics[req.Name] != nil {
		return nil, alreadyExists(req.Name)
	}
	if err := s.log.write(topicRecord(config)); err != nil {
		return nil, err
	}
	s.topics[req.Name] = &topic{name: req.Name, config: config}
	return config, nil
}

// GetTopic implements the Publisher service.
func (s *Server) GetTopic(_ context.Context, req *pubsubpb.GetTopicRequest) (*pubsubpb.Topic, error) {
	t, err := s.topic(req.Topic)
	if err != nil {
		return nil, err
	}
	return t.get(), nil
}

func (t *topic) get() *pubsubpb.Topic {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.config
}

// UpdateTopic implements the Publisher service.
func (s *Server) UpdateTopic(_ context.Context, req *pubsubpb.UpdateTopicRequest) (*pubsubpb.Topic, error) {
	t, err := s.topic(req.GetTopic().GetName())
	if err != nil {
		return nil, err
	}
	if len(req.GetUpdateMask().GetPaths()) == 0 {
		return nil, invalid("The update_mask in the UpdateTopicRequest must be set, and must contain a non-empty paths list.")
	}
	if err := checkTopic("UpdateTopic", req.Topic); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.deleted {
		return nil, notFound(t.name)
	}
	config := proto.Clone(t.config).(*pubsubpb.Topic)
	for _, path := range req.UpdateMask.Paths {
		switch path {
		case "labels":
			config.Labels = req.Topic.Labels
		case "message_storage_policy":
			config.MessageStoragePolicy = req.Topic.MessageStoragePolicy
		case "message_retention_duration":
			config.MessageRetentionDuration = req.Topic.MessageRetentionDuration
		case "kms_key_name":
			config.KmsKeyName = req.Topic.KmsKeyName
		default:
			return nil, invalid("Invalid update_mask provided in the UpdateTopicRequest: '%s' is not a known Topic field, or cannot be changed.", path)
		}
	}
	if err := s.log.write(topicRecord(config)); err != nil {
		return nil, err
	}
	t.config = config
	return config, nil
}

// ListTopics implements the Publisher service.
func (s *Server) ListTopics(_ context.Context, req *pubsubpb.ListTopicsRequest) (*pubsubpb.ListTopicsResponse, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	names, err := listed(req.Project, s.topics)
	if err != nil {
		return nil, err
	}
	names, next, err := page(names, req.PageSize, req.PageToken)
	if err != nil {
		return nil, err
	}
	res := &pubsubpb.ListTopicsResponse{NextPageToken: next}
	for _, name := range names {
		res.Topics = append(res.Topics, s.topics[name].get())
	}
	return res, nil
}

// ListTopicSubscriptions implements the Publisher service.
func (s *Server) ListTopicSubscriptions(_ context.Context, req *pubsubpb.ListTopicSubscriptionsRequest) (*pubsubpb.ListTopicSubscriptionsResponse, error) {
	t, err := s.topic(req.Topic)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	var names []string
	for _, sub := range t.subs {
		names = append(names, sub.name)
	}
	t.mu.Unlock()
	names, next, err := page(names, req.PageSize, req.PageToken)
	if err != nil {
		return nil, err
	}
	return &pubsubpb.ListTopicSubscriptionsResponse{Subscriptions: names, NextPageToken: next}, nil
}

// DeleteTopic implements the Publisher service. The subscriptions of the topic keep their messages.
func (s *Server) DeleteTopic(_ context.Context, req *pubsubpb.DeleteTopicRequest) (*emptypb.Empty, error) {
	if _, err := s.topic(req.Topic); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.topics[req.Topic]
	if t == nil {
		return nil, notFound(req.Topic)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := s.log.write(topicDeletedRecord(t.name)); err != nil {
		return nil, err
	}
	s.dropTopic(t)
	return &emptypb.Empty{}, nil
}

// dropTopic removes a topic. The caller holds the locks of the server and of the topic.
func (s *Server) dropTopic(t *topic) {
	delete(s.topics, t.name)
	t.deleted = true
	for _, sub := range t.subs {
		sub.change(func(c *pubsubpb.Subscription) { c.Topic = deletedTopic })
	}
	t.subs = nil
}

// attach adds a subscription to the topic. The subscription gets messages published from now on.
func (t *topic) attach(sub *subscription) {
	i, _ := slices.BinarySearchFunc(t.subs, sub.name, func(x *subscription, name string) int {
		return strings.Compare(x.name, name)
	})
	// Publish reads the slice under the lock, so an insertion in place is safe.
	t.subs = slices.Insert(t.subs, i, sub)
}

func (t *topic) detach(sub *subscription) {
	t.subs = slices.DeleteFunc(t.subs, func(x *subscription) bool { return x == sub })
}

// Publish implements the Publisher service.
func (s *Server) Publish(_ context.Context, req *pubsubpb.PublishRequest) (*pubsubpb.PublishResponse, error) {
	t, err := s.topic(req.Topic)
	if err != nil {
		return nil, err
	}
	if err := checkPublish(req); err != nil {
		return nil, err
	}
	ids, err := s.publish(t, req.Messages)
	if err != nil {
		return nil, err
	}
	return &pubsubpb.PublishResponse{MessageIds: ids}, nil
}

func checkPublish(req *pubsubpb.PublishRequest) error {
	switch n := len(req.Messages); {
	case n == 0:
		return invalid("The value for message_count is too small. You passed 0 in the request, but the minimum value is 1.")
	case n > maxRequestMessages:
		return invalid("The value for message_count is too large. You passed %d in the request, but the maximum value is %d.", n, maxRequestMessages)
	}
	if n := proto.Size(req); n > maxRequestBytes {
		return invalid("The value for request_size is too large. You passed %d in the request, but the maximum value is %d.", n, maxRequestBytes)
	}
	for i, m := range req.Messages {
		if err := checkMessage(m); err != nil {
			return err
		}
		if m.OrderingKey != req.Messages[0].OrderingKey {
			return invalid("In a PublishRequest, all messages must have the same ordering key: message %d does not have the key of the first message.", i)
		}
	}
	return nil
}

func checkMessage(m *pubsubpb.PubsubMessage) error {
	if len(m.Data) == 0 && len(m.Attributes) == 0 {
		return invalid("Some messages in the batch are empty. Each message must have either non-empty data, or at least one attribute.")
	}
	if len(m.Attributes) > maxAttributes {
		return invalid("The request contains %d attributes in a message, more than %d.", len(m.Attributes), maxAttributes)
	}
	for k, v := range m.Attributes {
		switch {
		case k == "" || len(k) > maxAttributeKeyBytes:
			return invalid("The request contains an attribute key that is not 1 to %d bytes long (key is %d).", maxAttributeKeyBytes, len(k))
		case len(v) > maxAttributeBytes:
			return invalid("The request contains an attribute value that is not valid (key=%s). Attribute values must be <= %d bytes in size.", k, maxAttributeBytes)
		// Client libraries use the prefix googclient_ for their own attributes, such as trace context.
		case strings.HasPrefix(k, "goog") && !strings.HasPrefix(k, "googclient_"):
			return invalid("The request contains an attribute key that is not valid (key=%s). Attribute keys must not start with 'goog'.", k)
		}
	}
	if len(m.OrderingKey) > maxOrderingKeyBytes || !utf8.ValidString(m.OrderingKey) {
		return invalid("The ordering key must be UTF-8 of at most %d bytes.", maxOrderingKeyBytes)
	}
	return nil
}

// publish assigns ids and publish times and adds the messages to the topic's subscriptions. It returns the ids when the
// messages are durable.
func (s *Server) publish(t *topic, pbs []*pubsubpb.PubsubMessage) ([]string, error) {
	ids := make([]string, len(pbs))
	batch := make([]*message, len(pbs))
	bytes := 0
	t.mu.Lock()
	if t.deleted {
		t.mu.Unlock()
		return nil, notFound(t.name)
	}
	now := time.Now()
	stamp := timestamppb.New(now)
	for i, m := range pbs {
		id := s.nextID.Add(1)
		ids[i] = strconv.FormatUint(id, 10)
		m = &pubsubpb.PubsubMessage{
			Data:        m.Data,
			Attributes:  m.Attributes,
			MessageId:   ids[i],
			PublishTime: stamp,
			OrderingKey: m.OrderingKey,
		}
		batch[i] = &message{id: id, pb: m, size: proto.Size(m), published: now}
		bytes += batch[i].size
		if s.options.onPublish != nil {
			s.options.onPublish(t.name, m)
		}
	}
	flushed, err := s.log.publish(t.name, batch)
	if err != nil {
		t.mu.Unlock()
		return nil, err
	}
	for _, sub := range t.subs {
		if ms := sub.filtered(batch); len(ms) > 0 {
			sub.queue.add(ms)
		}
	}
	t.mu.Unlock()
	s.count(CountPublished, len(batch))
	s.count(CountPublishedBytes, bytes)
	return ids, flushed()
}

// deadLetterTime is the layout of the publish time in the attributes of a dead-lettered message.
const deadLetterTime = "2006-01-02T15:04:05.000-07:00"

// deadLetter forwards a message to a dead-letter topic, with the attributes described in
// https://cloud.google.com/pubsub/docs/dead-letter-topics#track-delivery-attempts.
func (s *Server) deadLetter(subscription, topicName string, m *message, attempts int) error {
	t, err := s.topic(topicName)
	if err != nil {
		return err
	}
	project, id := splitName(subscription)
	attributes := maps.Clone(m.pb.Attributes)
	if attributes == nil {
		attributes = map[string]string{}
	}
	attributes["CloudPubSubDeadLetterSourceDeliveryCount"] = strconv.Itoa(attempts)
	attributes["CloudPubSubDeadLetterSourceSubscription"] = id
	attributes["CloudPubSubDeadLetterSourceSubscriptionProject"] = project
	attributes["CloudPubSubDeadLetterSourceTopicPublishTime"] = m.published.UTC().Format(deadLetterTime)
	_, err = s.publish(t, []*pubsubpb.PubsubMessage{{
		Data:        m.pb.Data,
		Attributes:  attributes,
		OrderingKey: m.pb.OrderingKey,
	}})
	if err == nil {
		s.count(CountDeadLettered, 1)
	}
	return err
}
