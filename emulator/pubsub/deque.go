package pubsub

// runnable is an item of a deque: an entry without ordering, or the queue of a key.
type runnable interface {
	runnable() (*entry, *keyQueue)
}

// deque is a first-in first-out list in a ring. The zero value is empty.
type deque struct {
	ring        []runnable
	first, size int
}

func (d *deque) len() int { return d.size }

func (d *deque) push(r runnable) {
	if d.size == len(d.ring) {
		ring := make([]runnable, max(16, 2*d.size))
		n := copy(ring, d.ring[d.first:])
		copy(ring[n:], d.ring[:d.first])
		d.ring, d.first = ring, 0
	}
	d.ring[(d.first+d.size)%len(d.ring)] = r
	d.size++
}

// pop removes the first item. The deque must not be empty.
func (d *deque) pop() runnable {
	r := d.ring[d.first]
	d.ring[d.first] = nil
	d.first = (d.first + 1) % len(d.ring)
	d.size--
	if d.size == 0 && len(d.ring) > 1024 {
		*d = deque{}
	}
	return r
}

// retain removes the items for which keep returns false.
func (d *deque) retain(keep func(runnable) bool) {
	var kept deque
	for d.size > 0 {
		if r := d.pop(); keep(r) {
			kept.push(r)
		}
	}
	*d = kept
}

// timeHeap orders entries by at, for package container/heap.
type timeHeap []*entry

func (h timeHeap) Len() int           { return len(h) }
func (h timeHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timeHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *timeHeap) Push(x any) {
	e := x.(*entry)
	e.index = len(*h)
	*h = append(*h, e)
}
func (h *timeHeap) Pop() any {
	n := len(*h) - 1
	e := (*h)[n]
	(*h)[n] = nil
	*h = (*h)[:n]
	e.index = -1
	return e
}
