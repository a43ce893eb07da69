package pubsub

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// This file is durability: an append-only journal of what changed, replayed at
// the start. Delivery attempts, leases and pauses are not in it: after a restart
// every message that is not acknowledged is delivered as if for the first time.

const (
	journalName = "journal"
	// ackDelay is how long an acknowledgement may stay in memory only. It costs
	// redeliveries after a crash, and saves most of the disk's work.
	ackDelay = 50 * time.Millisecond
	// ackBuffer is how many bytes of acknowledgements wait that long at most.
	ackBuffer = 1 << 20
	// compactAt is the size in bytes from which on a journal is rewritten when
	// it is twice as great as after the last time.
	compactAt = 64 << 20
	// maxRecord bounds a record's length when one is read: a publish request,
	// with its ids and times.
	maxRecord = 4 * maxRequestBytes
	// imageBatch is how many messages go into one record of a rewritten journal.
	imageBatch = 100
)

// recordKind says what a record holds. The numbers are in files: they stay.
type recordKind byte

const (
	topicPut            recordKind = 1 // a Topic
	topicDeleted        recordKind = 2 // a DeleteTopicRequest
	subscriptionPut     recordKind = 3 // a Subscription
	subscriptionDeleted recordKind = 4 // a DeleteSubscriptionRequest
	messagesPublished   recordKind = 5 // a PublishRequest, messages with ids and times
	messagesSettled     recordKind = 6 // an AcknowledgeRequest, with message ids
	messagesHeld        recordKind = 7 // a PublishRequest, with a subscription for topic
)

// record is one entry of the journal.
type record struct {
	kind recordKind
	body proto.Message
}

func topicRecord(t *pubsubpb.Topic) record { return record{topicPut, t} }
func topicDeletedRecord(name string) record {
	return record{topicDeleted, &pubsubpb.DeleteTopicRequest{Topic: name}}
}
func subscriptionRecord(s *pubsubpb.Subscription) record { return record{subscriptionPut, s} }
func subscriptionDeletedRecord(name string) record {
	return record{subscriptionDeleted, &pubsubpb.DeleteSubscriptionRequest{Subscription: name}}
}

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// frame appends a record as it is in the file: length and checksum of what
// follows, the kind, the body.
func (r record) frame(b []byte) ([]byte, error) {
	start := len(b)
	b = append(b, make([]byte, 8)...)
	b = append(b, byte(r.kind))
	b, err := proto.MarshalOptions{}.MarshalAppend(b, r.body)
	if err != nil {
		return nil, fmt.Errorf("journal: encode: %w", err)
	}
	payload := b[start+8:]
	binary.LittleEndian.PutUint32(b[start:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(b[start+4:], crc32.Checksum(payload, crcTable))
	return b, nil
}

// group is the records that become durable by one write.
type group struct {
	done chan struct{}
	err  error // once done
}

func (g *group) wait() error {
	<-g.done
	return g.err
}

// journal appends records to the file. The nil journal does nothing, at once.
type journal struct {
	dir       string
	lock      *os.File // held while the directory is in use
	compactAt int64
	kick      chan struct{} // holds a token when the buffer is to be written
	flusher   sync.WaitGroup

	mu      sync.Mutex
	buf     []byte
	group   *group // of what is in buf
	delay   *time.Timer
	delayed bool
	err     error // the first failure: nothing is written after it
	closed  bool

	// The flusher's own.
	file      *os.File
	size      int64
	compacted int64 // size after the last rewriting
}

// append puts a record into the next write, soon or after a delay.
func (j *journal) append(r record, soon bool) (*group, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return nil, status.Errorf(codes.Unavailable, "the data directory failed: %v", j.err)
	}
	if j.closed {
		return nil, status.Error(codes.Unavailable, "the server is closing")
	}
	buf, err := r.frame(j.buf)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	j.buf = buf
	switch {
	case soon || len(j.buf) > ackBuffer:
		j.wake()
	case !j.delayed:
		j.delayed = true
		j.delay.Reset(ackDelay)
	}
	return j.group, nil
}

func (j *journal) wake() {
	select {
	case j.kick <- struct{}{}:
	default:
	}
}

// write makes a record durable.
func (j *journal) write(r record) error {
	if j == nil {
		return nil
	}
	g, err := j.append(r, true)
	if err != nil {
		return err
	}
	return g.wait()
}

// publish appends published messages. What it returns waits until they are
// durable.
func (j *journal) publish(topic string, batch []*message) (func() error, error) {
	if j == nil {
		return func() error { return nil }, nil
	}
	g, err := j.append(record{messagesPublished, publication(topic, batch)}, true)
	if err != nil {
		return nil, err
	}
	return g.wait, nil
}

func publication(name string, batch []*message) *pubsubpb.PublishRequest {
	req := &pubsubpb.PublishRequest{Topic: name, Messages: make([]*pubsubpb.PubsubMessage, len(batch))}
	for i, m := range batch {
		req.Messages[i] = m.pb
	}
	return req
}

// settled appends that messages left a subscription. It does not wait: a
// message whose record is lost is delivered again. A failure shows in the next
// call that does wait.
func (j *journal) settled(subscription string, ids []uint64) {
	if j == nil {
		return
	}
	req := &pubsubpb.AcknowledgeRequest{Subscription: subscription, AckIds: make([]string, len(ids))}
	for i, id := range ids {
		req.AckIds[i] = strconv.FormatUint(id, 36)
	}
	_, _ = j.append(record{messagesSettled, req}, false)
}

// flush writes groups of records until the journal is closed: what comes while
// one write is under way goes together in the next.
func (j *journal) flush() {
	var spare []byte
	for range j.kick {
		j.mu.Lock()
		buf, g := j.buf, j.group
		j.buf, j.group = spare[:0], &group{done: make(chan struct{})}
		j.delayed = false
		j.delay.Stop()
		err := j.err
		j.mu.Unlock()
		if err == nil && len(buf) > 0 {
			err = j.put(buf)
		}
		if err != nil {
			j.mu.Lock()
			j.err = err
			j.mu.Unlock()
			g.err = status.Errorf(codes.Unavailable, "the data directory failed: %v", err)
		}
		close(g.done)
		spare = buf
		if cap(spare) > 16*ackBuffer {
			spare = nil
		}
	}
}

func (j *journal) put(buf []byte) error {
	if _, err := j.file.Write(buf); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if err := j.file.Sync(); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if j.size += int64(len(buf)); j.size < max(j.compactAt, 2*j.compacted) {
		return nil
	}
	// The journal holds all there is to know, so it is rewritten from itself;
	// publishers wait meanwhile, nobody else does.
	img, err := readImage(j.path())
	if err != nil {
		return err
	}
	return j.rewrite(img)
}

func (j *journal) path() string { return filepath.Join(j.dir, journalName) }

// rewrite replaces the journal by a new one that holds the image only.
func (j *journal) rewrite(img *image) error {
	f, err := os.CreateTemp(j.dir, journalName+"-")
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	size, err := img.write(f)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(f.Name(), j.path())
	}
	if err == nil {
		err = syncDir(j.dir)
	}
	if err != nil {
		f.Close()
		os.Remove(f.Name())
		return fmt.Errorf("journal: rewrite: %w", err)
	}
	if j.file != nil {
		j.file.Close()
	}
	j.file, j.size, j.compacted = f, size, size
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// close writes what is left, and gives the directory back.
func (j *journal) close() error {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	j.closed = true
	j.delay.Stop()
	g := j.group
	j.wake()
	j.mu.Unlock()
	err := g.wait()
	// The timer's function may still be about to send, so the channel stays
	// open until it cannot.
	j.mu.Lock()
	close(j.kick)
	j.kick = nil
	j.mu.Unlock()
	j.flusher.Wait()
	return errors.Join(err, j.file.Close(), j.lock.Close())
}

// openJournal opens the journal of a directory and returns what it holds.
func openJournal(dir string) (*journal, *image, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("journal: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("journal: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, nil, fmt.Errorf("journal: the directory is in use: %w", err)
	}
	j := &journal{
		dir:       dir,
		lock:      lock,
		compactAt: compactAt,
		kick:      make(chan struct{}, 1),
		group:     &group{done: make(chan struct{})},
	}
	img, err := readImage(j.path())
	if err == nil {
		// A rewriting at the start drops what a crash left half written, in
		// this file and of others.
		var stray []string
		stray, _ = filepath.Glob(filepath.Join(dir, journalName+"-*"))
		for _, name := range stray {
			os.Remove(name)
		}
		err = j.rewrite(img)
	}
	if err != nil {
		lock.Close()
		return nil, nil, err
	}
	j.delay = time.AfterFunc(time.Hour, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.kick != nil {
			j.wake()
		}
	})
	j.delay.Stop()
	j.flusher.Go(j.flush)
	return j, img, nil
}

// image is all that a journal says, without its history.
type image struct {
	topics map[string]*pubsubpb.Topic
	subs   map[string]*heldSubscription
	last   uint64 // the greatest message id
}

type heldSubscription struct {
	config *pubsubpb.Subscription
	filter filter
	held   map[uint64]*message
}

// inOrder lists what is held by id.
func (h *heldSubscription) inOrder() []*message {
	return slices.SortedFunc(maps.Values(h.held), func(a, b *message) int { return cmp.Compare(a.id, b.id) })
}

// readImage replays the journal at the path, if there is one, up to the first
// record that is not whole: the write that a crash cut off.
func readImage(path string) (*image, error) {
	img := &image{topics: map[string]*pubsubpb.Topic{}, subs: map[string]*heldSubscription{}}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return img, nil
	}
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<20)
	var head [8]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return img, endOfRecords(err)
		}
		n := binary.LittleEndian.Uint32(head[:])
		if n == 0 || n > maxRecord {
			return img, nil
		}
		payload := make([]byte, n)
		if _, err := io.ReadFull(r, payload); err != nil {
			return img, endOfRecords(err)
		}
		if crc32.Checksum(payload, crcTable) != binary.LittleEndian.Uint32(head[4:]) {
			return img, nil
		}
		if err := img.apply(recordKind(payload[0]), payload[1:]); err != nil {
			return nil, fmt.Errorf("journal: replay: %w", err)
		}
	}
}

func endOfRecords(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return fmt.Errorf("journal: %w", err)
}

// apply replays one record.
func (img *image) apply(kind recordKind, body []byte) error {
	switch kind {
	case topicPut:
		t := &pubsubpb.Topic{}
		if err := proto.Unmarshal(body, t); err != nil {
			return err
		}
		img.topics[t.Name] = t
	case topicDeleted:
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
	case subscriptionPut:
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
		if config.Detached {
			clear(h.held)
		}
	case subscriptionDeleted:
		req := &pubsubpb.DeleteSubscriptionRequest{}
		if err := proto.Unmarshal(body, req); err != nil {
			return err
		}
		delete(img.subs, req.Subscription)
	case messagesPublished, messagesHeld:
		req := &pubsubpb.PublishRequest{}
		if err := proto.Unmarshal(body, req); err != nil {
			return err
		}
		return img.hold(kind, req)
	case messagesSettled:
		req := &pubsubpb.AcknowledgeRequest{}
		if err := proto.Unmarshal(body, req); err != nil {
			return err
		}
		if h := img.subs[req.Subscription]; h != nil {
			for _, id := range req.AckIds {
				n, err := strconv.ParseUint(id, 36, 64)
				if err != nil {
					return err
				}
				delete(h.held, n)
			}
		}
	default:
		return fmt.Errorf("unknown kind of record %d", kind)
	}
	return nil
}

// hold gives messages to the subscriptions of their topic or, in a rewritten
// journal, to the one that has them.
func (img *image) hold(kind recordKind, req *pubsubpb.PublishRequest) error {
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
			if h.config.Topic == req.Topic && !h.config.Detached && h.filter.match(pb.Attributes) {
				h.held[id] = m
			}
		}
	}
	return nil
}

// write writes the image as a journal, and returns its length.
func (img *image) write(f io.Writer) (int64, error) {
	w := bufio.NewWriterSize(f, 1<<20)
	var size int64
	var buf []byte
	put := func(r record) error {
		b, err := r.frame(buf[:0])
		if err != nil {
			return err
		}
		buf = b
		size += int64(len(b))
		_, err = w.Write(b)
		return err
	}
	for _, t := range img.topics {
		if err := put(topicRecord(t)); err != nil {
			return 0, err
		}
	}
	for name, h := range img.subs {
		if err := put(subscriptionRecord(h.config)); err != nil {
			return 0, err
		}
		// Batches by bytes too, since a record has a greatest length.
		batch, bytes := []*message(nil), 0
		flush := func() error {
			if len(batch) == 0 {
				return nil
			}
			err := put(record{messagesHeld, publication(name, batch)})
			batch, bytes = batch[:0], 0
			return err
		}
		for _, m := range h.inOrder() {
			batch = append(batch, m)
			if bytes += m.size; len(batch) >= imageBatch || bytes > maxRequestBytes {
				if err := flush(); err != nil {
					return 0, err
				}
			}
		}
		if err := flush(); err != nil {
			return 0, err
		}
	}
	return size, w.Flush()
}

// restore opens the data directory and puts in what its journal holds.
func (s *Server) restore(dir string) error {
	log, img, err := openJournal(dir)
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
	sub := s.subs[h.config.Name]
	sub.queue.add(h.inOrder())
	if h.config.Detached {
		sub.end(errDetached)
	}
	return nil
}
