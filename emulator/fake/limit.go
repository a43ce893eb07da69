package fake

import "time"

// Window allows N events in any period of length Per. The zero Window has no limit.
type Window struct {
	N   int
	Per time.Duration
}

// History holds the times of past events within a Window, oldest first. It has no lock.
type History []time.Time

// Left returns how many more events a non-zero window allows at now, and after which time the window is empty again. It
// removes expired times.
func (h *History) Left(now time.Time, w Window) (n int, full time.Duration) {
	old := 0
	for old < len(*h) && now.Sub((*h)[old]) >= w.Per {
		old++
	}
	*h = (*h)[old:]
	if len(*h) > 0 {
		full = (*h)[len(*h)-1].Add(w.Per).Sub(now)
	}
	return max(w.N-len(*h), 0), full
}

// Full reports whether the window allows no event at now.
func (h *History) Full(now time.Time, w Window) bool {
	if w.N == 0 {
		return false
	}
	n, _ := h.Left(now, w)
	return n == 0
}

// Take counts an event at now if the window allows the event.
func (h *History) Take(now time.Time, w Window) bool {
	if h.Full(now, w) {
		return false
	}
	if w.N > 0 {
		*h = append(*h, now)
	}
	return true
}
