package twitch

import (
	"math"
	"time"
)

// Window allows N things in any stretch of time of length Per. The zero Window
// allows everything.
type Window struct {
	N   int
	Per time.Duration
}

// Limits are how often things may be done.
type Limits struct {
	// Logins and Joins count per user.
	// https://dev.twitch.tv/docs/chat/irc/#rate-limits
	Logins, Joins Window
	// Messages count per user, over all channels in which the user is neither
	// broadcaster nor moderator nor VIP; ModeratorMessages over all channels.
	// https://dev.twitch.tv/docs/chat/#twitch-chatbot-rate-limits
	Messages, ModeratorMessages Window
	// ChannelMessages count per user and channel, for users without privileges.
	ChannelMessages Window
	// Helix is the bucket of points of an app and user: full it has N, and it
	// fills again over Per. https://dev.twitch.tv/docs/api/guide/#twitch-rate-limits
	Helix Window
	// WhispersPerSecond and WhispersPerMinute count per sender;
	// WhisperRecipients are the different recipients of a sender.
	// https://dev.twitch.tv/docs/api/reference/#send-whisper
	WhispersPerSecond, WhispersPerMinute, WhisperRecipients Window
}

// DefaultLimits are those that Twitch sets an ordinary account.
func DefaultLimits() Limits {
	return Limits{
		Logins:            Window{20, 10 * time.Second},
		Joins:             Window{20, 10 * time.Second},
		Messages:          Window{20, 30 * time.Second},
		ModeratorMessages: Window{100, 30 * time.Second},
		ChannelMessages:   Window{1, time.Second},
		Helix:             Window{800, time.Minute},
		WhispersPerSecond: Window{3, time.Second},
		WhispersPerMinute: Window{100, time.Minute},
		WhisperRecipients: Window{40, 24 * time.Hour},
	}
}

// history is when something was done, oldest first, as far as a Window looks.
type history []time.Time

// full reports whether the window has no room at now, and forgets what it does
// not look at any more.
func (h *history) full(now time.Time, w Window) bool {
	if w.N == 0 {
		return false
	}
	old := 0
	for old < len(*h) && now.Sub((*h)[old]) >= w.Per {
		old++
	}
	*h = (*h)[old:]
	return len(*h) >= w.N
}

// take counts one at now if the window has room.
func (h *history) take(now time.Time, w Window) bool {
	if h.full(now, w) {
		return false
	}
	if w.N > 0 {
		*h = append(*h, now)
	}
	return true
}

// bucket holds points, of which each request takes one.
type bucket struct {
	points float64
	at     time.Time
}

// take reports whether there was a point, how many are left, and when the
// bucket is full again.
func (b *bucket) take(now time.Time, w Window) (ok bool, left int, reset time.Time) {
	rate := float64(w.N) / w.Per.Seconds()
	if b.at.IsZero() {
		b.points = float64(w.N)
	} else {
		b.points = math.Min(float64(w.N), b.points+rate*now.Sub(b.at).Seconds())
	}
	b.at = now
	if ok = b.points >= 1; ok {
		b.points--
	}
	missing := time.Duration((float64(w.N) - b.points) / rate * float64(time.Second))
	return ok, int(b.points), now.Add(missing)
}
