package fake

import "time"

// Window allows N things in any stretch of time of length Per. The zero Window
// allows everything.
type Window struct {
	N   int
	Per time.Duration
}

// History is when something was done, oldest first, as far as a Window looks. It
// has no lock of its own.
type History []time.Time

// Left is how many more a window that is not zero allows at now, and in how long
// it has room for all of them again. It forgets what the window does not look at
// any more.
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

// Full reports whether the window has no room at now.
func (h *History) Full(now time.Time, w Window) bool {
	if w.N == 0 {
		return false
	}
	n, _ := h.Left(now, w)
	return n == 0
}

// Take counts one at now if the window has room.
func (h *History) Take(now time.Time, w Window) bool {
	if h.Full(now, w) {
		return false
	}
	if w.N > 0 {
		*h = append(*h, now)
	}
	return true
}
