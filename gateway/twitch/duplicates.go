package twitch

import (
	"sync"
	"time"

	"parley.internal/shared/event"
)

// duplicates finds events that both the chat and EventSub report: raids and new subscriptions. The two reports have no
// common id. But the owner of a channel's lease receives both, and Twitch's times of both are close together. It is safe
// for concurrent use.
type duplicates struct {
	mu    sync.Mutex
	first map[duplicateKey]firstReport
}

type duplicateKey struct{ kind, channel, user string }

type firstReport struct {
	source string
	at     time.Time // by Twitch's clock
}

const (
	// duplicateTime is the maximum distance of Twitch's times for the two reports. No user raids or subscribes to the same
	// channel twice in this time.
	duplicateTime = 2 * time.Minute
	// maxDuplicates is the capacity. Only reports without a counterpart stay for duplicateTime.
	maxDuplicates = 10_000
)

func newDuplicates() *duplicates { return &duplicates{first: map[duplicateKey]firstReport{}} }

// reportedTwice reports whether both the chat and EventSub report events of this type.
func reportedTwice(e *event.Event) bool { return e.Type == typeRaid || e.Type == typeSubscribed }

// seen reports whether the other source has reported the event before.
func (d *duplicates) seen(e *event.Event) bool {
	if !reportedTwice(e) {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	key, now := duplicateKey{e.Type, e.Channel, e.UserID}, firstReport{e.Source, e.ExternalEvent.CreatedAt}
	before, ok := d.first[key]
	if ok && before.source != now.source && now.at.Sub(before.at).Abs() < duplicateTime {
		delete(d.first, key)
		return true
	}
	if len(d.first) >= maxDuplicates {
		for k, before := range d.first {
			if now.at.Sub(before.at) >= duplicateTime {
				delete(d.first, k)
			}
		}
	}
	if len(d.first) < maxDuplicates {
		d.first[key] = now
	}
	return false
}
