// Package identity defines user ids. A [UserID] is a platform and the platform's own id for a person, written
// "platform:id": "twitch:123", "discord:456", "api-gateway:abc". Start at [Parse]. The package knows nothing about the
// person behind an id.
//
// Use [Parse] and [Resolve] instead of splitting a string by hand: an id may contain a colon, and an id with a platform
// must never get a second platform.
package identity

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Platform is a chat platform. The set is closed: if the text before a colon is not the name of a platform, then
// [Resolve] treats it as a part of the id.
type Platform string

// The supported platforms.
const (
	Twitch     Platform = "twitch"
	Discord    Platform = "discord"
	APIGateway Platform = "api-gateway" // Parley's own WebSocket clients
	Twilio     Platform = "twilio"
)

// platforms lists all platforms, in the search order of [PlatformOf].
var platforms = []Platform{Twitch, Discord, Twilio, APIGateway}

// Known reports whether p is a supported platform.
func (p Platform) Known() bool { return slices.Contains(platforms, p) }

// PlatformOf returns the platform of an event's source: the first supported platform whose name is in the source
// ("ingress.twitch.irc" is twitch). Without such a name, the platform is the source's second dotted part
// ("ingress.matrix.room" is matrix), which may be an unsupported platform; see [Platform.Known]. Otherwise the result is
// empty.
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

// MaxLen is the maximum length of a user id in the written form, in bytes. Firestore allows document ids of up to 1,500
// bytes (https://firebase.google.com/docs/firestore/quotas). The ids of all platforms are much shorter.
const MaxLen = 256

// ErrInvalid is wrapped by every error of [Parse], [New] and [Resolve].
var ErrInvalid = errors.New("invalid user id")

// UserID is a platform and the platform's id for a person. The zero value is no person. UserID is comparable.
type UserID struct {
	platform Platform
	id       string
}

// New makes a user id from a platform and the platform's id for the person. It fails with an error that wraps [ErrInvalid]
// if p is unknown, or if id is empty, too long, not UTF-8, or contains a slash or a control character. The reason for the
// last rules: a user id is also a document id in Firestore.
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
		return UserID{}, fmt.Errorf("%w: %q contains a slash or a control character", ErrInvalid, id)
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

// Resolve reads an id with or without a platform. An id with a platform keeps it, whatever def is: the id "twitch:123" of
// a WebSocket client is twitch:123. An id without a platform belongs to def.
func Resolve(s string, def Platform) (UserID, error) {
	if p, _, ok := strings.Cut(s, ":"); ok && Platform(p).Known() {
		return Parse(s)
	}
	return New(def, s)
}

// Platform returns the platform; empty for the zero value.
func (u UserID) Platform() Platform { return u.platform }

// ID returns the platform's own id of the person, for the platform's API.
func (u UserID) ID() string { return u.id }

// IsZero reports whether u is the zero value.
func (u UserID) IsZero() bool { return u == UserID{} }

// String returns the written form, "platform:id"; empty for the zero value.
func (u UserID) String() string {
	if u.IsZero() {
		return ""
	}
	return string(u.platform) + ":" + u.id
}

// Ref returns the path of the person's document, "users/platform:id", as in an event's auth.userRef.
func (u UserID) Ref() string { return "users/" + u.String() }

// MarshalText returns the written form, as read by [Parse].
func (u UserID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText parses like [Parse]. The empty text gives the zero value.
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
