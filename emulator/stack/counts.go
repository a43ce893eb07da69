package stack

import pubsubserver "parley.internal/emulator/pubsub"

// Counts is what the embedded servers did since they started: what the services would bill.
type Counts struct {
	Published, Pushed, Delivered int64 // Pub/Sub messages; the pushed ones are among the delivered
	Reads, Writes, Deletes       int64 // Firestore documents
	RoundTrips                   int64 // Firestore calls
}

// Counts reads the embedded servers' counters; those of a server that is not embedded stay zero.
func (s *Stack) Counts() Counts {
	var c Counts
	if s.pubsub != nil {
		n := s.pubsub.Counts()
		c.Published, c.Pushed, c.Delivered = n[pubsubserver.CountPublished], n[pubsubserver.CountPushed], n[pubsubserver.CountDelivered]
	}
	if s.firestore != nil {
		n := s.firestore.Counts()
		c.Reads, c.Writes, c.Deletes = n.Reads, n.Writes, n.Deletes
		for _, calls := range n.RPCs {
			c.RoundTrips += calls
		}
	}
	return c
}

// Sub is what was done between an earlier count and this one.
func (c Counts) Sub(earlier Counts) Counts {
	return Counts{
		Published: c.Published - earlier.Published, Pushed: c.Pushed - earlier.Pushed, Delivered: c.Delivered - earlier.Delivered,
		Reads: c.Reads - earlier.Reads, Writes: c.Writes - earlier.Writes, Deletes: c.Deletes - earlier.Deletes,
		RoundTrips: c.RoundTrips - earlier.RoundTrips,
	}
}
