package pubsub

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/protobuf/proto"

	"parley.internal/emulator/wal"
)

// imageBatch is the largest number of messages in one record of a snapshot.
const imageBatch = 100

// image is the content of a journal without its history. newImage makes an empty image, and apply adds a record.
type image struct {
	topics map[string]*pubsubpb.Topic
	subs   map[string]*heldSubscription
	last   uint64 // the greatest message id
}

// heldSubscription is a subscription with its unacknowledged messages by id.
type heldSubscription struct {
	config *pubsubpb.Subscription
	filter filter
	held   map[uint64]*message
}

func newImage() *image {
	return &image{topics: map[string]*pubsubpb.Topic{}, subs: map[string]*heldSubscription{}}
}

// inOrder returns the held messages by ascending id.
func (h *heldSubscription) inOrder() []*message {
	return slices.SortedFunc(maps.Values(h.held), func(a, b *message) int { return cmp.Compare(a.id, b.id) })
}

// apply replays one record.
func (img *image) apply(record []byte) error {
	if len(record) == 0 {
		return errors.New("the record is empty")
	}
	kind, body := recordKind(record[0]), record[1:]
	switch kind {
	case topicPut:
		t := &pubsubpb.Topic{}
		if err := proto.Unmarshal(body, t); err != nil {
			return err
		}
		img.topics[t.Name] = t
	case topicDeleted:
		return img.deleteTopic(body)
	case subscriptionPut:
		return img.putSubscription(body)
	case subscriptionDeleted:
		req := &pubsubpb.DeleteSubscriptionRequest{}
		if err := proto.Unmarshal(body, req); err != nil {
			return err
		}
		delete(img.subs, req.Subscription)
	case messagesPublished, messagesHeld:
		return img.hold(kind, body)
	case messagesSettled:
		return img.settle(body)
	default:
		return fmt.Errorf("unknown kind of record %d", kind)
	}
	return nil
}

func (img *image) deleteTopic(body []byte) error {
	req := &pubsubpb.DeleteTopicRequest{}
	if err := proto.Unmarshal(body, req); err != nil {
		return err
	}
	delete(img.topics, req.Topic)
	for _, h := range img.subs {
		if h.config.Topic == req.Topic {
			h.config.Topic = deletedTopic
		}
	}
	return nil
}

func (img *image) putSubscription(body []byte) error {
	config := &pubsubpb.Subscription{}
	if err := proto.Unmarshal(body, config); err != nil {
		return err
	}
	h := img.subs[config.Name]
	if h == nil {
		f, err := parseFilter(config.Filter)
		if err != nil {
			return err
		}
		h = &heldSubscription{filter: f, held: map[uint64]*message{}}
		img.subs[config.Name] = h
	}
	h.config = config
	return nil
}

// hold adds published messages to the subscriptions of the topic, and messages of the kind messagesHeld to the named
// subscription.
func (img *image) hold(kind recordKind, body []byte) error {
	req := &pubsubpb.PublishRequest{}
	if err := proto.Unmarshal(body, req); err != nil {
		return err
	}
	for _, pb := range req.Messages {
		id, err := strconv.ParseUint(pb.MessageId, 10, 64)
		if err != nil {
			return err
		}
		img.last = max(img.last, id)
		m := &message{id: id, pb: pb, size: proto.Size(pb), published: pb.PublishTime.AsTime()}
		if kind == messagesHeld {
			if h := img.subs[req.Topic]; h != nil {
				h.held[id] = m
			}
			continue
		}
		for _, h := range img.subs {
			if h.config.Topic == req.Topic && h.filter.match(pb.Attributes) {
				h.held[id] = m
			}
		}
	}
	return nil
}

func (img *image) settle(body []byte) error {
	req := &pubsubpb.AcknowledgeRequest{}
	if err := proto.Unmarshal(body, req); err != nil {
		return err
	}
	h := img.subs[req.Subscription]
	if h == nil {
		return nil
	}
	for _, id := range req.AckIds {
		n, err := strconv.ParseUint(id, 36, 64)
		if err != nil {
			return err
		}
		delete(h.held, n)
	}
	return nil
}

// compact writes the current topics, subscriptions and unacknowledged messages of a journal to a snapshot. The source is
// the log and not the queues, so publishers need not wait.
func compact(s *wal.Snapshot) error {
	img := newImage()
	if err := s.Replay(img.apply); err != nil {
		return err
	}
	for _, t := range img.topics {
		if err := s.Add(topicRecord(t)); err != nil {
			return err
		}
	}
	for _, h := range img.subs {
		if err := h.write(s); err != nil {
			return err
		}
	}
	return nil
}

// write adds the subscription and its messages, in records of at most imageBatch messages and about maxRequestBytes.
func (h *heldSubscription) write(s *wal.Snapshot) error {
	if err := s.Add(subscriptionRecord(h.config)); err != nil {
		return err
	}
	batch, bytes := []*message(nil), 0
	for _, m := range h.inOrder() {
		batch = append(batch, m)
		if bytes += m.size; len(batch) < imageBatch && bytes <= maxRequestBytes {
			continue
		}
		if err := s.Add(messagesRecord(messagesHeld, h.config.Name, batch)); err != nil {
			return err
		}
		batch, bytes = batch[:0], 0
	}
	if len(batch) == 0 {
		return nil
	}
	return s.Add(messagesRecord(messagesHeld, h.config.Name, batch))
}
