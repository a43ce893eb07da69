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

// The ways to say something.
const (
	TransportAuto  = "auto"
	TransportHelix = "helix"
	TransportIRC   = "irc"
)

// Config says where to listen and speak, and how; [credential.TwitchConfig] says as whom. The zero value, with no
// channels, is the feature being off.
type Config struct {
	Channels     []string      `env:"TWITCH_CHANNELS" help:"Names, comma-separated, of the Twitch channels in which Parley listens and speaks. Without them it does neither, and hears no whispers. Needs TWITCH_CLIENT_ID and TWITCH_BOT_USER_ID."`
	Transport    string        `env:"TWITCH_SPEAK" envDefault:"auto" help:"How to speak: helix (Send Chat Message, which confirms each message), irc, or auto: helix where the account has granted user:write:chat, else irc."`
	Verified     bool          `env:"TWITCH_VERIFIED" envDefault:"false" help:"Whether the account is a verified bot, which may join and speak faster."`
	IRCAddr      string        `env:"TWITCH_IRC_ADDR" envDefault:"irc.chat.twitch.tv:6697" help:"HOST:PORT of Twitch's chat."`
	IRCTLS       bool          `env:"TWITCH_IRC_TLS" envDefault:"true" help:"Whether the chat is spoken to by TLS. Only for a stand-in on this machine may it be false."`
	EventSubURL  string        `env:"TWITCH_EVENTSUB_URL" envDefault:"wss://eventsub.wss.twitch.tv/ws" help:"Where Twitch's EventSub is, which tells of follows, subscriptions, raids and streams, and of whispers to the bot. What it tells of a channel depends on who has logged in: its broadcaster, or else the bot."`
	ReplyTimeout time.Duration `env:"TWITCH_ANSWER_TIMEOUT" envDefault:"5s" help:"How long Twitch may take to say what became of a message. After that nobody knows, and an operator decides."`
}

// Enabled reports whether there is anything to do.
func (c Config) Enabled() bool { return len(c.Channels) > 0 }

var loginSyntax = regexp.MustCompile(`^[a-z0-9_]{1,25}$`)

// Validate checks what the types cannot.
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
	case TransportAuto, TransportHelix, TransportIRC:
	default:
		errs = append(errs, fmt.Errorf("TWITCH_SPEAK: %q is not auto, helix or irc", c.Transport))
	}
	host, _, err := net.SplitHostPort(c.IRCAddr)
	if err != nil {
		errs = append(errs, fmt.Errorf("TWITCH_IRC_ADDR: %q is not HOST:PORT", c.IRCAddr))
	} else if !c.IRCTLS && !credential.Local(host) {
		errs = append(errs, fmt.Errorf("TWITCH_IRC_TLS: only this machine itself may be spoken to in the clear, and %s is not it", host))
	}
	if err := eventsub.CheckURL(c.EventSubURL); err != nil {
		errs = append(errs, fmt.Errorf("TWITCH_EVENTSUB_URL: %w", err))
	}
	if c.ReplyTimeout < 10*time.Millisecond || c.ReplyTimeout > 20*time.Second {
		errs = append(errs, fmt.Errorf("TWITCH_ANSWER_TIMEOUT: %s is not between 10ms and 20s", c.ReplyTimeout))
	}
	return errors.Join(errs...)
}

// login is a channel's name as Twitch's protocols have it, of what people write.
func login(name string) string {
	return strings.ToLower(strings.TrimPrefix(strings.TrimSpace(name), "#"))
}
