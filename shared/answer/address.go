package answer

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"

	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// maxRoom is the maximum length of a web room's name, in bytes, as in the WebSocket gateway.
const maxRoom = 256

// The syntax of channels (https://dev.twitch.tv/docs/chat/irc/#joining-a-chat-room, in lower case, as the gateway
// joins; https://docs.discord.com/developers/reference#snowflakes).
var (
	twitchChannel  = regexp.MustCompile(`^twitch:[a-z0-9_]{1,25}$`)
	discordChannel = regexp.MustCompile(`^discord:[0-9]{1,20}$`)
)

// ValidateAddress checks an address: the platform must have channels, and the channel must have the platform's syntax.
// A web room's name must not look like a channel of a different platform. The error names the wrong field.
func ValidateAddress(p event.Address) error {
	switch identity.Platform(p.Destination) {
	case identity.Twitch:
		if !twitchChannel.MatchString(p.Channel) {
			return fmt.Errorf("channel: %q is not one of Twitch (want twitch:<login>, in lower case)", p.Channel)
		}
	case identity.Discord:
		if !discordChannel.MatchString(p.Channel) {
			return fmt.Errorf("channel: %q is not one of Discord (want discord:<channel id>)", p.Channel)
		}
	case identity.APIGateway:
		return checkRoom(p.Channel)
	case "":
		return errors.New("destination: missing")
	default:
		return fmt.Errorf("destination: %q is not %s, %s or %s", p.Destination, identity.Twitch, identity.Discord, identity.APIGateway)
	}
	return nil
}

func checkRoom(name string) error {
	switch {
	case name == "":
		return errors.New("channel: missing")
	case len(name) > maxRoom:
		return fmt.Errorf("channel: longer than %d bytes", maxRoom)
	case strings.TrimSpace(name) != name || strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("channel: %q holds a control character, or begins or ends with a space", name)
	}
	if before, _, ok := strings.Cut(name, ":"); ok && identity.Platform(strings.ToLower(before)).Known() {
		return fmt.Errorf("channel: %q is one of %s, not a room of %s", name, before, identity.APIGateway)
	}
	return nil
}

// Origin returns the address where an event happened.
func Origin(e *event.Event) event.Address {
	return event.Address{Destination: string(identity.PlatformOf(e.Source)), Channel: e.Channel}
}
