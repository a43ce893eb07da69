package stack

import pubsubserver "parley.internal/emulator/pubsub"

// Counts counts the operations of the embedded servers since their start: the operations billed by the services.
type Counts struct {
	Published, Pushed, Delivered int64 // Pub/Sub messages; Delivered includes Pushed
	Reads, Writes, Deletes       int64 // Firestore documents
	RoundTrips                   int64 // Firestore calls
}

// Counts reads the counters of the embedded servers. The counters of other servers stay zero.
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

// Sub returns the operations between an earlier count and this count.
func (c Counts) Sub(earlier Counts) Counts {
	return Counts{
		Published: c.Published - earlier.Published, Pushed: c.Pushed - earlier.Pushed, Delivered: c.Delivered - earlier.Delivered,
		Reads: c.Reads - earlier.Reads, Writes: c.Writes - earlier.Writes, Deletes: c.Deletes - earlier.Deletes,
		RoundTrips: c.RoundTrips - earlier.RoundTrips,
	}
}
