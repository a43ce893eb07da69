package answer

import (
	"strings"
	"testing"

	"parley.internal/shared/event"
)

func TestValidateAddress(t *testing.T) {
	for _, tt := range []struct{ destination, channel, want string }{
		{"twitch", "twitch:parley", ""},
		{"discord", "discord:123456789012345678", ""},
		{"api-gateway", "lobby", ""},
		{"api-gateway", "#general: on topic", ""},
		{"", "lobby", "destination: missing"},
		{"twilio", "twilio:1", "destination: \"twilio\" is not"},
		{"matrix", "x", "destination: \"matrix\" is not"},
		{"twitch", "", "channel: \"\""},
		{"twitch", "parley", "want twitch:<login>"},
		{"twitch", "twitch:Parley", "in lower case"},
		{"twitch", "discord:1", "is not one of Twitch"},
		{"discord", "twitch:parley", "is not one of Discord"},
		{"discord", "discord:general", "want discord:<channel id>"},
		{"discord", "123", "want discord:<channel id>"},
		{"api-gateway", "", "channel: missing"},
		{"api-gateway", "twitch:parley", "is one of twitch, not a room"},
		{"api-gateway", " lobby", "begins or ends with a space"},
		{"api-gateway", "a\nb", "control character"},
		{"api-gateway", strings.Repeat("x", 257), "longer than 256 bytes"},
	} {
		err := ValidateAddress(event.Address{Destination: tt.destination, Channel: tt.channel})
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q of %q: %v; want %q", tt.channel, tt.destination, err, tt.want)
		}
	}
}
