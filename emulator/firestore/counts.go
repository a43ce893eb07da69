package firestore

import (
	"maps"
	"sync"
)

// Counts holds the numbers of calls and of billed operations of a server, for cost estimates. The zero value is empty.
type Counts struct {
	// RPCs counts calls by method name, such as "Commit". Failed calls and calls refused by an interceptor count too.
	RPCs map[string]int64

	// Reads, Writes and Deletes count documents as billed by the service:
	// https://firebase.google.com/docs/firestore/pricing#operations.
	// A query without a result costs one read, and the lookup of a missing document costs one read. Each document skipped
	// by an offset costs a read. An aggregation costs one read for up to 1000 matched documents, and at least one.
	Reads, Writes, Deletes int64
}

// Sub returns the counts between earlier and c, both of the same server. RPCs has only the methods called in between.
func (c Counts) Sub(earlier Counts) Counts {
	d := Counts{
		RPCs:    make(map[string]int64),
		Reads:   c.Reads - earlier.Reads,
		Writes:  c.Writes - earlier.Writes,
		Deletes: c.Deletes - earlier.Deletes,
	}
	for method, n := range c.RPCs {
		if n -= earlier.RPCs[method]; n != 0 {
			d.RPCs[method] = n
		}
	}
	return d
}

type counter struct {
	mu sync.Mutex
	c  Counts
}

func (c *counter) snapshot() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.c
	s.RPCs = maps.Clone(s.RPCs)
	return s
}

func (c *counter) addRPC(method string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.c.RPCs == nil {
		c.c.RPCs = make(map[string]int64)
	}
	c.c.RPCs[method]++
}

func (c *counter) addReads(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.c.Reads += int64(n)
}

func (c *counter) addWrite(w *write) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.isDelete {
		c.c.Deletes++
	} else {
		c.c.Writes++
	}
}
