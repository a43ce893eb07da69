package discord

import (
	"errors"
	"fmt"
	"time"

	"parley.internal/shared/credential"
)

// Config configures the connection to Discord. Without a token, as in the zero value, Discord is off.
type Config struct {
	Token            credential.Secret `env:"DISCORD_BOT_TOKEN" help:"Token of Parley's Discord bot. Without a token, Discord is off. The bot needs the message content intent."`
	Guilds           []string          `env:"DISCORD_GUILDS" help:"Ids, comma-separated, of the Discord servers to listen in. Empty for every server with the bot as a member. Direct messages are always received."`
	Members          bool              `env:"DISCORD_MEMBERS" envDefault:"false" help:"Whether to receive joins and leaves of server members. The bot then needs the server members intent. If false, Parley sees only joins, and only in servers with welcome messages."`
	APIURL           string            `env:"DISCORD_API_URL" envDefault:"https://discord.com/api" help:"Base URL of Discord's API, without the version."`
	AnswerTimeout    time.Duration     `env:"DISCORD_ANSWER_TIMEOUT" envDefault:"5s" help:"Timeout of a request to Discord, 10ms to 20s. A message without a response is sent again; Discord accepts the message once."`
	BackfillAge      time.Duration     `env:"DISCORD_BACKFILL_AGE" envDefault:"24h" help:"Maximum age of the messages read after an outage, up to 720h."`
	BackfillMessages int               `env:"DISCORD_BACKFILL_MESSAGES" envDefault:"1000" help:"Maximum number of messages per channel read after an outage, up to 100000; 0 reads none."`
}

// Enabled reports whether a token is set.
func (c Config) Enabled() bool { return !c.Token.IsZero() }

// Validate checks the values of an enabled configuration. The error names every wrong variable.
func (c Config) Validate() error {
	if !c.Enabled() {
		return nil
	}
	var errs []error
	for _, id := range c.Guilds {
		if _, ok := parseSnowflake(id); !ok {
			errs = append(errs, fmt.Errorf("DISCORD_GUILDS: %q is not the id of a server", id))
		}
	}
	if err := credential.CheckBaseURL(c.APIURL); err != nil {
		errs = append(errs, fmt.Errorf("DISCORD_API_URL: %w", err))
	}
	if c.AnswerTimeout < 10*time.Millisecond || c.AnswerTimeout > 20*time.Second {
		errs = append(errs, fmt.Errorf("DISCORD_ANSWER_TIMEOUT: %s is not between 10ms and 20s", c.AnswerTimeout))
	}
	if c.BackfillAge < 0 || c.BackfillAge > 30*24*time.Hour {
		errs = append(errs, fmt.Errorf("DISCORD_BACKFILL_AGE: %s is not between 0 and 720h", c.BackfillAge))
	}
	if c.BackfillMessages < 0 || c.BackfillMessages > 100_000 {
		errs = append(errs, fmt.Errorf("DISCORD_BACKFILL_MESSAGES: %d is not between 0 and 100000", c.BackfillMessages))
	}
	return errors.Join(errs...)
}
