package discord

import (
	"errors"
	"fmt"
	"time"

	"parley.internal/shared/credential"
)

// Config says as which bot to listen and speak, and where. The zero value, without a token, is the feature being off.
type Config struct {
	Token            credential.Secret `env:"DISCORD_BOT_TOKEN" help:"Token of the Discord bot that Parley speaks as. Without it Parley is not on Discord. The bot needs the message content intent."`
	Guilds           []string          `env:"DISCORD_GUILDS" help:"Ids, comma-separated, of the only Discord servers in which Parley listens. Without them it listens wherever the bot has been added. Direct messages are always heard."`
	Members          bool              `env:"DISCORD_MEMBERS" envDefault:"false" help:"Whether to ask Discord for who joins and leaves. The bot needs the server members intent for it; without, only those who join a server with welcome messages are seen."`
	APIURL           string            `env:"DISCORD_API_URL" envDefault:"https://discord.com/api" help:"Where Discord's API is, without its version."`
	AnswerTimeout    time.Duration     `env:"DISCORD_ANSWER_TIMEOUT" envDefault:"5s" help:"How long Discord may take to answer a request. A message of which it did not say whether it took it is sent again, and Discord takes it once."`
	BackfillAge      time.Duration     `env:"DISCORD_BACKFILL_AGE" envDefault:"24h" help:"What was said while nobody listened is read afterwards, unless it is older than this."`
	BackfillMessages int               `env:"DISCORD_BACKFILL_MESSAGES" envDefault:"1000" help:"So many messages of each channel are read afterwards; 0 reads none."`
}

// Enabled reports whether there is anything to do.
func (c Config) Enabled() bool { return !c.Token.IsZero() }

// Validate checks what the types cannot.
func (c Config) Validate() error {
	if !c.Enabled() {
		return nil
	}
	var errs []error
	for _, id := range c.Guilds {
		if _, ok := parseSnowflake(id); !ok {
			errs = append(errs, fmt.Errorf("DISCORD_GUILDS: %q is not an id", id))
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
