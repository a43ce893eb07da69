package pubsub

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// pullWait is the longest wait of a Pull for a first message. The service chooses such a limit too, and answers with an
// empty list: https://cloud.google.com/pubsub/docs/pull.
const pullWait = 30 * time.Second

// String returns the ack id in the form sent to subscribers.
func (a ackID) String() string {
	b := make([]byte, 0, 24)
	b = strconv.AppendUint(b, a.id, 36)
	b = append(b, '-')
	b = strconv.AppendUint(b, uint64(a.lease), 36)
	return string(b)
}

func parseAckIDs(texts []string) ([]ackID, error) {
	ids := make([]ackID, len(texts))
	for i, text := range texts {
		id, lease, ok := strings.Cut(text, "-")
		n, err1 := strconv.ParseUint(id, 36, 64)
		l, err2 := strconv.ParseUint(lease, 36, 32)
		if !ok || err1 != nil || err2 != nil {
			return nil, invalid("You have passed an invalid ack ID to the service (ack_id=%s).", text)
		}
		ids[i] = ackID{n, uint32(l)}
	}
	return ids, nil
}

// received converts deliveries to the messages of a response, and counts them.
func (s *Server) received(batch []delivery) []*pubsubpb.ReceivedMessage {
	// One allocation for all messages: this is the busiest code of the server.
	space := make([]pubsubpb.ReceivedMessage, len(batch))
	rs := make([]*pubsubpb.ReceivedMessage, len(batch))
	bytes := 0
	for i, d := range batch {
		r := &space[i]
		r.AckId, r.Message, r.DeliveryAttempt = d.ack.String(), d.message.pb, int32(d.attempt)
		rs[i] = r
		bytes += d.message.size
	}
	s.count(CountDelivered, len(batch))
	s.count(CountDeliveredBytes, bytes)
	return rs
}

// Pull implements the Subscriber service. It waits up to pullWait for a first message unless return_immediately is set.
func (s *Server) Pull(ctx context.Context, req *pubsubpb.PullRequest) (*pubsubpb.PullResponse, error) {
	sub, err := s.pullable(req.Subscription)
	if err != nil {
		return nil, err
	}
	if req.MaxMessages <= 0 {
		return nil, invalid("max_messages: %d is not positive", req.MaxMessages)
	}
	c := &consumer{perKey: batched, lease: time.Duration(sub.get().AckDeadlineSeconds) * time.Second}
	if err := sub.queue.join(c); err != nil {
		return nil, statusOf(err)
	}
	defer c.leave()
	timeout := time.NewTimer(pullWait)
	defer timeout.Stop()
	for {
		batch, err := c.take(min(int(req.MaxMessages), maxBatchMessages), nil)
		if err != nil {
			return nil, statusOf(err)
		}
		if ctx.Err() != nil && len(batch) > 0 {
			// The client is gone. Without refuse the messages would wait for their deadline.
			sub.queue.refuse(batch)
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		//lint:ignore SA1019 Old clients still send this field.
		if len(batch) > 0 || req.ReturnImmediately {
			return &pubsubpb.PullResponse{ReceivedMessages: s.received(batch)}, nil
		}
		select {
		case <-c.wakes:
		case <-timeout.C:
			return &pubsubpb.PullResponse{}, nil
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
}

// pullable returns a subscription without a push endpoint.
func (s *Server) pullable(name string) (*subscription, error) {
	sub, err := s.subscription(name)
	if err != nil {
		return nil, err
	}
	if sub.get().GetPushConfig().GetPushEndpoint() != "" {
		return nil, status.Error(codes.FailedPrecondition, "This method is not supported for this subscription type: it has a push endpoint.")
	}
	return sub, nil
}

// Acknowledge implements the Subscriber service. If the subscription has exactly-once delivery, an ended lease is an
// error, with details as in https://cloud.google.com/pubsub/docs/exactly-once-delivery.
func (s *Server) Acknowledge(_ context.Context, req *pubsubpb.AcknowledgeRequest) (*emptypb.Empty, error) {
	sub, err := s.subscription(req.Subscription)
	if err != nil {
		return nil, err
	}
	if len(req.AckIds) == 0 {
		return nil, invalid("No ack ids specified.")
	}
	results, err := s.ack(sub, req.AckIds)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, exactlyOnceError(sub, req.AckIds, results)
}

func (s *Server) ack(sub *subscription, texts []string) ([]ackResult, error) {
	ids, err := parseAckIDs(texts)
	if err != nil {
		return nil, err
	}
	results, err := sub.queue.ack(ids)
	n := 0
	for _, v := range results {
		if v == ackDone {
			n++
		}
	}
	s.count(CountAcked, n)
	return results, statusOf(err)
}

// ModifyAckDeadline implements the Subscriber service. A deadline of zero is a nack.
func (s *Server) ModifyAckDeadline(_ context.Context, req *pubsubpb.ModifyAckDeadlineRequest) (*emptypb.Empty, error) {
	sub, err := s.subscription(req.Subscription)
	if err != nil {
		return nil, err
	}
	if len(req.AckIds) == 0 {
		return nil, invalid("No ack ids specified.")
	}
	results, err := s.extend(sub, req.AckIds, req.AckDeadlineSeconds)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, exactlyOnceError(sub, req.AckIds, results)
}

func (s *Server) extend(sub *subscription, texts []string, seconds int32) ([]ackResult, error) {
	if seconds < 0 || seconds > maxAckDeadline {
		return nil, invalid("ack_deadline_seconds: %d is not between 0 and %d", seconds, maxAckDeadline)
	}
	ids, err := parseAckIDs(texts)
	if err != nil {
		return nil, err
	}
	results, err := sub.queue.extend(ids, time.Duration(seconds)*time.Second)
	return results, statusOf(err)
}

// exactlyOnceError returns an error with the stale ids of a call, if the subscription has exactly-once delivery.
func exactlyOnceError(sub *subscription, texts []string, results []ackResult) error {
	if !sub.get().EnableExactlyOnceDelivery {
		return nil
	}
	failed := map[string]string{}
	for i, v := range results {
		if v == ackStale {
			failed[texts[i]] = "PERMANENT_FAILURE_INVALID_ACK_ID"
		}
	}
	if len(failed) == 0 {
		return nil
	}
	st, err := status.New(codes.FailedPrecondition, "Some acknowledgement ids in the request were invalid. This could be because the acknowledgement ids have expired or the acknowledgement ids were malformed.").
		WithDetails(&errdetails.ErrorInfo{Reason: "EXACTLY_ONCE_ACKID_FAILURE", Domain: "pubsub.googleapis.com", Metadata: failed})
	if err != nil {
		return status.Errorf(codes.Internal, "describe stale acknowledgements: %v", err)
	}
	return st.Err()
}

// stream is one StreamingPull.
type stream struct {
	grpc.BidiStreamingServer[pubsubpb.StreamingPullRequest, pubsubpb.StreamingPullResponse]
	server   *Server
	sub      *subscription
	consumer *consumer
	// answers holds responses without messages: heartbeats and confirmations. A gRPC stream allows one sending goroutine,
	// so send also sends the answers.
	answers chan *pubsubpb.StreamingPullResponse
}

// StreamingPull implements the Subscriber service.
func (s *Server) StreamingPull(grpcStream pubsubpb.Subscriber_StreamingPullServer) error {
	first, err := grpcStream.Recv()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return invalid("StreamingPull: no initial request")
		}
		return err
	}
	sub, err := s.pullable(first.Subscription)
	if err != nil {
		return err
	}
	lease, err := streamLease(first.StreamAckDeadlineSeconds)
	if err != nil {
		return err
	}
	st := &stream{
		BidiStreamingServer: grpcStream,
		server:              s,
		sub:                 sub,
		answers:             make(chan *pubsubpb.StreamingPullResponse, 16),
		consumer: &consumer{
			perKey:      pipelined,
			lease:       lease,
			maxMessages: int(first.MaxOutstandingMessages),
			maxBytes:    int(first.MaxOutstandingBytes),
		},
	}
	if err := sub.queue.join(st.consumer); err != nil {
		return statusOf(err)
	}
	defer st.consumer.leave()
	if err := st.answer(first); err != nil {
		return err
	}
	ended := make(chan error, 1)
	// This goroutine ends when the client ends the stream, or with the stream's context soon after StreamingPull returns.
	s.tasks.Go(func() { ended <- st.receive() })
	return st.send(ended)
}

func streamLease(seconds int32) (time.Duration, error) {
	if seconds < minAckDeadline || seconds > maxAckDeadline {
		return 0, invalid("stream_ack_deadline_seconds: %d is not between %d and %d", seconds, minAckDeadline, maxAckDeadline)
	}
	return time.Duration(seconds) * time.Second, nil
}

// receive handles the client's requests until the client ends the stream.
func (st *stream) receive() error {
	for {
		req, err := st.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case req.Subscription != "":
			return invalid("subscription: only the initial request of a stream may set it")
		case req.MaxOutstandingMessages != 0 || req.MaxOutstandingBytes != 0:
			return invalid("max_outstanding_messages and max_outstanding_bytes: only the initial request of a stream may set them")
		}
		if req.StreamAckDeadlineSeconds != 0 {
			lease, err := streamLease(req.StreamAckDeadlineSeconds)
			if err != nil {
				return err
			}
			st.consumer.setLease(lease)
		}
		if err := st.answer(req); err != nil {
			return err
		}
		if len(req.AckIds) == 0 && len(req.ModifyDeadlineAckIds) == 0 {
			// A ping. The client closes a stream without an answer to its pings.
			if err := st.reply(&pubsubpb.StreamingPullResponse{}); err != nil {
				return err
			}
		}
	}
}

// reply queues a response for send.
func (st *stream) reply(r *pubsubpb.StreamingPullResponse) error {
	select {
	case st.answers <- r:
		return nil
	case <-st.Context().Done():
		return st.Context().Err()
	}
}

// answer applies the acknowledgements and deadline changes of a request.
func (st *stream) answer(req *pubsubpb.StreamingPullRequest) error {
	if len(req.ModifyDeadlineAckIds) != len(req.ModifyDeadlineSeconds) {
		return invalid("modify_deadline_ack_ids and modify_deadline_seconds do not have the same length")
	}
	confirm := st.sub.get().EnableExactlyOnceDelivery
	if len(req.AckIds) > 0 {
		results, err := st.server.ack(st.sub, req.AckIds)
		if err != nil {
			return err
		}
		if confirm {
			ok, bad := byResult(req.AckIds, results)
			err := st.reply(&pubsubpb.StreamingPullResponse{AcknowledgeConfirmation: &pubsubpb.StreamingPullResponse_AcknowledgeConfirmation{
				AckIds: ok, InvalidAckIds: bad,
			}})
			if err != nil {
				return err
			}
		}
	}
	// Ids with the same deadline are extended together. Nearly always the whole request has one deadline.
	ids, seconds := req.ModifyDeadlineAckIds, req.ModifyDeadlineSeconds
	for len(ids) > 0 {
		n := 1
		for n < len(ids) && seconds[n] == seconds[0] {
			n++
		}
		results, err := st.server.extend(st.sub, ids[:n], seconds[0])
		if err != nil {
			return err
		}
		if confirm {
			ok, bad := byResult(ids[:n], results)
			err := st.reply(&pubsubpb.StreamingPullResponse{ModifyAckDeadlineConfirmation: &pubsubpb.StreamingPullResponse_ModifyAckDeadlineConfirmation{
				AckIds: ok, InvalidAckIds: bad,
			}})
			if err != nil {
				return err
			}
		}
		ids, seconds = ids[n:], seconds[n:]
	}
	return nil
}

// byResult splits ids into done and stale ones.
func byResult(ids []string, results []ackResult) (ok, bad []string) {
	for i, v := range results {
		if v == ackDone {
			ok = append(ok, ids[i])
		} else {
			bad = append(bad, ids[i])
		}
	}
	return ok, bad
}

// send delivers messages until the stream ends. All messages of one take share a response.
func (st *stream) send(ended <-chan error) error {
	var batch []delivery
	for {
		var err error
		if batch, err = st.consumer.take(maxBatchMessages, batch[:0]); err != nil {
			return statusOf(err)
		}
		if len(batch) > 0 {
			if err := st.respond(&pubsubpb.StreamingPullResponse{ReceivedMessages: st.server.received(batch)}); err != nil {
				return err
			}
			// Continue without waiting, but handle the end of the stream and the answers in between.
			select {
			case err := <-ended:
				return err
			case r := <-st.answers:
				if err := st.respond(r); err != nil {
					return err
				}
			default:
			}
			continue
		}
		select {
		case <-st.consumer.wakes:
		case r := <-st.answers:
			if err := st.respond(r); err != nil {
				return err
			}
		case err := <-ended:
			return err
		case <-st.Context().Done():
			return status.FromContextError(st.Context().Err()).Err()
		}
	}
}

func (st *stream) respond(r *pubsubpb.StreamingPullResponse) error {
	config := st.sub.get()
	r.SubscriptionProperties = &pubsubpb.StreamingPullResponse_SubscriptionProperties{
		ExactlyOnceDeliveryEnabled: config.EnableExactlyOnceDelivery,
		MessageOrderingEnabled:     config.EnableMessageOrdering,
	}
	return st.Send(r)
}
