package pubsub

import (
	"slices"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

// message is one published message, shared by all subscriptions. A message never changes after the publish.
type message struct {
	id        uint64
	pb        *pubsubpb.PubsubMessage
	size      int // of pb on the wire, in bytes
	published time.Time
}

// state is the state of an entry in its queue.
type state uint8

const (
	waiting    state = iota // for a consumer, or for the time at while the entry is in the time heap
	leased                  // delivered, neither acknowledged nor returned
	acked                   // acknowledged, while an earlier entry of the key is not
	forwarding              // being published to the dead-letter topic
	gone                    // no longer in the queue
)

// entry is one message in one queue.
type entry struct {
	*message
	state    state
	leases   uint32 // deliveries so far, also the number of the latest delivery
	failures int    // nacks and expired leases
	holder   *consumer
	key      *keyQueue // nil for a message without ordering

	// at is the end of the lease of a leased entry, or the earliest next delivery of a waiting entry. at is valid only
	// while the entry is in the time heap.
	at    time.Time
	index int // in the time heap, -1 if not in there
}

func (e *entry) runnable() (*entry, *keyQueue) { return e, nil }

// keyQueue holds the entries of one ordering key in the order of publication.
type keyQueue struct {
	key         string
	entries     []*entry
	next        int // the entries before next were delivered
	outstanding int // leased entries, all held by owner
	owner       *consumer
	home        *deque // the deque that lists this keyQueue, or nil
}

func (k *keyQueue) runnable() (*entry, *keyQueue) { return nil, k }

// position returns the index of an entry. Ids ascend along the entries.
func (k *keyQueue) position(e *entry) (int, bool) {
	return slices.BinarySearchFunc(k.entries, e.id, func(x *entry, id uint64) int {
		switch {
		case x.id < id:
			return -1
		case x.id > id:
			return 1
		}
		return 0
	})
}

// head returns the next entry to deliver. It returns nil if all entries are delivered, or if the next entry must wait
// for its time.
func (k *keyQueue) head() *entry {
	for k.next < len(k.entries) && k.entries[k.next].state != waiting {
		k.next++
	}
	if k.next == len(k.entries) || k.entries[k.next].index >= 0 {
		return nil
	}
	return k.entries[k.next]
}

// cut removes the acknowledged entries at the front and appends their ids to settled. The rest does not move: the queue
// of a key may be long.
func (k *keyQueue) cut(settled []uint64) []uint64 {
	n := 0
	for n < len(k.entries) && k.entries[n].state == acked {
		k.entries[n].state = gone
		settled = append(settled, k.entries[n].id)
		n++
	}
	clear(k.entries[:n])
	k.entries = k.entries[n:]
	k.next -= min(n, k.next)
	return settled
}

// thin removes the entries in state gone.
func (k *keyQueue) thin() {
	isGone := func(e *entry) bool { return e.state == gone }
	k.next = len(slices.DeleteFunc(slices.Clone(k.entries[:k.next]), isGone))
	k.entries = slices.DeleteFunc(k.entries, isGone)
}

// delivery is one message handed to a consumer.
type delivery struct {
	ack     ackID
	message *message
	attempt int // from 1; zero without a dead-letter policy
}

// ackID identifies one lease: a message and the number of its delivery.
type ackID struct {
	id    uint64
	lease uint32
}

// ackResult is the result for one ack id of an acknowledgement or of a deadline change.
type ackResult bool

const (
	ackDone  ackResult = true
	ackStale ackResult = false // the lease had ended before
)
