package twitch

import (
	"math"
	"time"

	"parley.internal/emulator/fake"
)

// Window allows N events in any period of length Per. The zero Window has no limit.
type Window = fake.Window

// Limits holds the rate limits.
type Limits struct {
	// Logins and Joins count per user.
	// https://dev.twitch.tv/docs/chat/irc/#rate-limits
	Logins, Joins Window
	// Messages counts per user, over all channels in which the user is neither broadcaster nor moderator nor VIP.
	// ModeratorMessages counts per user, over all channels.
	// https://dev.twitch.tv/docs/chat/#twitch-chatbot-rate-limits
	Messages, ModeratorMessages Window
	// ChannelMessages counts per user and channel, for users without such a role.
	ChannelMessages Window
	// Helix is the point bucket of an app and user: a full bucket has N points, and an empty bucket fills over Per.
	// https://dev.twitch.tv/docs/api/guide/#twitch-rate-limits
	Helix Window
	// WhispersPerSecond and WhispersPerMinute count per sender. WhisperRecipients counts the different recipients of a
	// sender. https://dev.twitch.tv/docs/api/reference/#send-whisper
	WhispersPerSecond, WhispersPerMinute, WhisperRecipients Window
}

// DefaultLimits returns Twitch's limits for an ordinary account.
func DefaultLimits() Limits {
	return Limits{
		Logins:            Window{N: 20, Per: 10 * time.Second},
		Joins:             Window{N: 20, Per: 10 * time.Second},
		Messages:          Window{N: 20, Per: 30 * time.Second},
		ModeratorMessages: Window{N: 100, Per: 30 * time.Second},
		ChannelMessages:   Window{N: 1, Per: time.Second},
		Helix:             Window{N: 800, Per: time.Minute},
		WhispersPerSecond: Window{N: 3, Per: time.Second},
		WhispersPerMinute: Window{N: 100, Per: time.Minute},
		WhisperRecipients: Window{N: 40, Per: 24 * time.Hour},
	}
}

// bucket holds points. Each request takes a point.
type bucket struct {
	points float64
	at     time.Time
}

// take takes a point if possible. It returns the remaining points, and the time when the bucket is full again.
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
