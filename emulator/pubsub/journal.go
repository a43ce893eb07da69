package pubsub

import (
	"errors"
	"strconv"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"parley.internal/emulator/wal"
)

// journalFormat names the format of the records. A change of the format needs another number.
const journalFormat = "pubsub 1"

// recordKind is the first byte of a record. The numbers are in files: never reuse one.
type recordKind byte

const (
	topicPut            recordKind = 1 // a Topic
	topicDeleted        recordKind = 2 // a DeleteTopicRequest
	subscriptionPut     recordKind = 3 // a Subscription
	subscriptionDeleted recordKind = 4 // a DeleteSubscriptionRequest
	messagesPublished   recordKind = 5 // a PublishRequest with message ids and publish times
	messagesSettled     recordKind = 6 // an AcknowledgeRequest with message ids in place of ack ids
	messagesHeld        recordKind = 7 // a PublishRequest with the name of a subscription in place of the topic
)

// record encodes one entry of the journal: the kind, then the protobuf message.
func record(kind recordKind, body proto.Message) wal.Record {
	return func(b []byte) ([]byte, error) {
		return proto.MarshalOptions{}.MarshalAppend(append(b, byte(kind)), body)
	}
}

func topicRecord(t *pubsubpb.Topic) wal.Record { return record(topicPut, t) }

func topicDeletedRecord(name string) wal.Record {
	return record(topicDeleted, &pubsubpb.DeleteTopicRequest{Topic: name})
}

func subscriptionRecord(s *pubsubpb.Subscription) wal.Record { return record(subscriptionPut, s) }

func subscriptionDeletedRecord(name string) wal.Record {
	return record(subscriptionDeleted, &pubsubpb.DeleteSubscriptionRequest{Subscription: name})
}

func messagesRecord(kind recordKind, name string, batch []*message) wal.Record {
	req := &pubsubpb.PublishRequest{Topic: name, Messages: make([]*pubsubpb.PubsubMessage, len(batch))}
	for i, m := range batch {
		req.Messages[i] = m.pb
	}
	return record(kind, req)
}

func settledRecord(subscription string, ids []uint64) wal.Record {
	req := &pubsubpb.AcknowledgeRequest{Subscription: subscription, AckIds: make([]string, len(ids))}
	for i, id := range ids {
		req.AckIds[i] = strconv.FormatUint(id, 36)
	}
	return record(messagesSettled, req)
}

// journal keeps topics, subscriptions and messages in a write-ahead log. The methods of a nil journal do nothing and
// return at once. Delivery attempts, leases and backoffs are not kept: after a restart every message without an
// acknowledgement is delivered as if for the first time.
type journal struct{ log *wal.Log }

// openJournal opens the journal in a directory and returns its content. compactAt is as in wal.Options.
func openJournal(dir string, compactAt int64) (*journal, *image, error) {
	img := newImage()
	log, err := wal.Open(dir, wal.Options{Format: journalFormat, CompactAt: compactAt}, img.apply)
	if err != nil {
		return nil, nil, err
	}
	return &journal{log: log}, img, nil
}

// write makes a record durable. The error is UNAVAILABLE.
func (j *journal) write(r wal.Record) error {
	wait, err := j.begin(r)
	if err != nil {
		return err
	}
	return wait()
}

// publish appends published messages. The returned function waits until the messages are durable. The append is separate
// because it needs the topic's lock, and the wait does not.
func (j *journal) publish(topic string, batch []*message) (wait func() error, err error) {
	if j == nil {
		return func() error { return nil }, nil
	}
	return j.begin(messagesRecord(messagesPublished, topic, batch))
}

func (j *journal) begin(r wal.Record) (wait func() error, err error) {
	if j == nil {
		return func() error { return nil }, nil
	}
	batch, err := j.log.Append(r)
	if err != nil {
		return nil, journalError(err)
	}
	return func() error {
		if err := batch.Wait(); err != nil {
			return journalError(err)
		}
		j.log.Compact(compact)
		return nil
	}, nil
}

// settled records that messages left a subscription, and does not wait for the disk. If a crash loses the record, the
// messages are delivered again. A failed write is the error of all later calls of write and publish.
func (j *journal) settled(subscription string, ids []uint64) {
	if j != nil {
		_ = j.log.AppendLazy(settledRecord(subscription, ids))
	}
}

func (j *journal) close() error {
	if j == nil {
		return nil
	}
	return j.log.Close()
}

func journalError(err error) error {
	if errors.Is(err, wal.ErrClosed) {
		return status.Error(codes.Unavailable, "the server is closing")
	}
	return status.Errorf(codes.Unavailable, "the data directory failed: %v", err)
}

// restore opens the data directory and puts its content into the server.
func (s *Server) restore(dir string) error {
	log, img, err := openJournal(dir, s.options.compactAt)
	if err != nil {
		return err
	}
	s.log = log
	s.nextID.Store(max(s.nextID.Load(), img.last))
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, config := range img.topics {
		s.topics[name] = &topic{name: name, config: config}
	}
	for _, h := range img.subs {
		if err := s.restoreSubscription(h); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) restoreSubscription(h *heldSubscription) error {
	t := s.topics[h.config.Topic]
	if t != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
	}
	if err := s.addSubscription(h.config, t); err != nil {
		return err
	}
	s.subs[h.config.Name].queue.add(h.inOrder())
	return nil
}
