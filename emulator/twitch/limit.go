package twitch

import (
	"math"
	"time"

	"parley.internal/emulator/fake"
)

// Window allows N things in any stretch of time of length Per. The zero Window
// allows everything.
type Window = fake.Window

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
