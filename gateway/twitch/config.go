package twitch

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"

	"parley.internal/gateway/twitch/eventsub"
	"parley.internal/shared/credential"
)

// The values of [Config.Transport].
const (
	transportAuto  = "auto"  // Helix if the bot has granted the scope, else IRC
	transportHelix = "helix" // Send Chat Message, which confirms each message
	transportIRC   = "irc"
)

// Config configures the channels and the connections; [credential.TwitchConfig] configures the account. The zero value has
// no channels: the feature is off.
type Config struct {
	Channels     []string      `env:"TWITCH_CHANNELS" help:"Comma-separated names of the Twitch channels to read and answer. Without channels, Parley receives no whispers either. Requires TWITCH_CLIENT_ID and TWITCH_BOT_USER_ID."`
	Transport    string        `env:"TWITCH_SPEAK" envDefault:"auto" help:"How answers are sent: helix (Send Chat Message, with a confirmation of each message), irc, or auto: helix if the account has granted user:write:chat, else irc."`
	Verified     bool          `env:"TWITCH_VERIFIED" envDefault:"false" help:"Whether the account is a verified bot, with higher rate limits."`
	IRCAddr      string        `env:"TWITCH_IRC_ADDR" envDefault:"irc.chat.twitch.tv:6697" help:"HOST:PORT of Twitch's chat."`
	IRCTLS       bool          `env:"TWITCH_IRC_TLS" envDefault:"true" help:"Whether the connection to the chat uses TLS. May be false only for a server on this machine."`
	EventSubURL  string        `env:"TWITCH_EVENTSUB_URL" envDefault:"wss://eventsub.wss.twitch.tv/ws" help:"URL of Twitch's EventSub: follows, subscriptions, raids, streams, and whispers to the bot. The events of a channel depend on the login: the broadcaster's, or else the bot's."`
	ReplyTimeout time.Duration `env:"TWITCH_ANSWER_TIMEOUT" envDefault:"5s" help:"Maximum time for Twitch's answer to a message. Without an answer the outcome is unknown, and an operator decides."`
}

// Enabled reports whether there is a channel.
func (c Config) Enabled() bool { return len(c.Channels) > 0 }

var loginSyntax = regexp.MustCompile(`^[a-z0-9_]{1,25}$`)

// Validate checks the formats and ranges of the values.
func (c Config) Validate() error {
	if !c.Enabled() {
		return nil
	}
	var errs []error
	for _, name := range c.Channels {
		if !loginSyntax.MatchString(login(name)) {
			errs = append(errs, fmt.Errorf("TWITCH_CHANNELS: %q is not a channel's name", name))
		}
	}
	switch c.Transport {
	case transportAuto, transportHelix, transportIRC:
	default:
		errs = append(errs, fmt.Errorf("TWITCH_SPEAK: %q is not auto, helix or irc", c.Transport))
	}
	host, _, err := net.SplitHostPort(c.IRCAddr)
	if err != nil {
		errs = append(errs, fmt.Errorf("TWITCH_IRC_ADDR: %q is not HOST:PORT", c.IRCAddr))
	} else if !c.IRCTLS && !credential.Local(host) {
		errs = append(errs, fmt.Errorf("TWITCH_IRC_TLS: unencrypted connections are only for this machine, and %s is another one", host))
	}
	if err := eventsub.CheckURL(c.EventSubURL); err != nil {
		errs = append(errs, fmt.Errorf("TWITCH_EVENTSUB_URL: %w", err))
	}
	if c.ReplyTimeout < 10*time.Millisecond || c.ReplyTimeout > 20*time.Second {
		errs = append(errs, fmt.Errorf("TWITCH_ANSWER_TIMEOUT: %s is not between 10ms and 20s", c.ReplyTimeout))
	}
	return errors.Join(errs...)
}

// login returns a channel's name in the form of Twitch's protocols.
func login(name string) string {
	return strings.ToLower(strings.TrimPrefix(strings.TrimSpace(name), "#"))
}
