// Package identity names people. A user is known by the platform they speak on and the id that this platform gave
// them, written "platform:id" ("twitch:123", "discord:456", "api-gateway:abc").
//
// The pair is a parsed type: nothing in Parley splits such a string by hand, because an id may itself contain a colon,
// and because an id that already names its platform must never be given a second one.
package identity

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Platform is a place where people talk. The set is closed: a text before a colon that is not one of these is a part
// of the id.
type Platform string

// The platforms that Parley knows.
const (
	Twitch     Platform = "twitch"
	Discord    Platform = "discord"
	APIGateway Platform = "api-gateway" // Parley's own WebSocket clients
	Twilio     Platform = "twilio"
)

// platforms is ordered as sources are searched for a platform's name.
var platforms = []Platform{Twitch, Discord, Twilio, APIGateway}

// Known reports whether p is one of the platforms above.
func (p Platform) Known() bool {
	for _, k := range platforms {
		if p == k {
			return true
		}
	}
	return false
}

// PlatformOf tells which platform an event's source belongs to: the first known platform whose name the source
// contains ("ingress.twitch.irc" is twitch), else the source's second dotted part ("ingress.matrix.room" is matrix),
// else nothing. A platform that comes from a second part may be one that is not [Platform.Known].
func PlatformOf(source string) Platform {
	s := strings.ToLower(source)
	for _, p := range platforms {
		if strings.Contains(s, string(p)) {
			return p
		}
	}
	if _, rest, ok := strings.Cut(s, "."); ok {
		second, _, _ := strings.Cut(rest, ".")
		return Platform(second)
	}
	return ""
}

// MaxLen is the greatest length of a user id in its written form, in bytes. Firestore takes document ids of up to
// 1,500 bytes (https://firebase.google.com/docs/firestore/quotas); no platform's ids come near this bound.
const MaxLen = 256

// ErrInvalid is wrapped by every error that [Parse] and [New] return.
var ErrInvalid = errors.New("invalid user id")

// UserID is a platform and the id that this platform gave to a person. The zero value names nobody. It is comparable.
type UserID struct {
	platform Platform
	id       string
}

// New makes the id of the person whom the platform p calls id. It fails with [ErrInvalid] if p is not known, or if id
// is empty, too long, not UTF-8, or holds a slash or a control character (it names a document in Firestore).
func New(p Platform, id string) (UserID, error) {
	switch {
	case !p.Known():
		return UserID{}, fmt.Errorf("%w: unknown platform %q", ErrInvalid, p)
	case id == "":
		return UserID{}, fmt.Errorf("%w: nothing after %q", ErrInvalid, string(p)+":")
	case len(p)+1+len(id) > MaxLen:
		return UserID{}, fmt.Errorf("%w: longer than %d bytes", ErrInvalid, MaxLen)
	case !utf8.ValidString(id):
		return UserID{}, fmt.Errorf("%w: not UTF-8", ErrInvalid)
	case strings.ContainsFunc(id, func(r rune) bool { return r == '/' || unicode.IsControl(r) }):
		return UserID{}, fmt.Errorf("%w: %q holds a slash or a control character", ErrInvalid, id)
	}
	return UserID{platform: p, id: id}, nil
}

// Parse reads the written form "platform:id". Only the first colon separates; the rest belongs to the id.
func Parse(s string) (UserID, error) {
	p, id, ok := strings.Cut(s, ":")
	if !ok {
		return UserID{}, fmt.Errorf("%w: %q has no platform (want platform:id)", ErrInvalid, s)
	}
	return New(Platform(p), id)
}

// Resolve reads an id that may or may not name its platform. One that does keeps it, whatever def says: a WebSocket
// client known as "twitch:123" is twitch:123. One that doesn't belongs to def.
func Resolve(s string, def Platform) (UserID, error) {
	if p, _, ok := strings.Cut(s, ":"); ok && Platform(p).Known() {
		return Parse(s)
	}
	return New(def, s)
}

// Platform is where the person talks; empty for the zero value.
func (u UserID) Platform() Platform { return u.platform }

// ID is what the platform itself calls the person, without the platform: what its API takes.
func (u UserID) ID() string { return u.id }

// IsZero reports whether u names nobody.
func (u UserID) IsZero() bool { return u == UserID{} }

// String is the written form, "platform:id"; empty for the zero value.
func (u UserID) String() string {
	if u.IsZero() {
		return ""
	}
	return string(u.platform) + ":" + u.id
}

// Ref is the path of the person's document, "users/platform:id", as auth.userRef carries it.
func (u UserID) Ref() string { return "users/" + u.String() }

// MarshalText writes the form that [Parse] reads.
func (u UserID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText is [Parse], and takes the empty text for the zero value.
func (u *UserID) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*u = UserID{}
		return nil
	}
	parsed, err := Parse(string(text))
	if err != nil {
		return err
	}
	*u = parsed
	return nil
}
