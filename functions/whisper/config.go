package whisper

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"parley.internal/shared/config"
	"parley.internal/shared/credential"
	"parley.internal/shared/identity"
)

// Config is everything that the function is told by its environment.
type Config struct {
	Deployment config.Deployment
	Credential credential.Config
	Twitch     TwitchConfig
	Limits     LimitsConfig
}

// TwitchConfig says who whispers, and by which API.
type TwitchConfig struct {
	BotUserID string        `env:"TWITCH_BOT_USER_ID" help:"User id (a number) of the bot's account at Twitch, which has logged in at /oauth/twitch/login. Without it, and TWITCH_CLIENT_ID, whispers are dead-lettered as not_configured."`
	APIURL    string        `env:"TWITCH_API_URL" envDefault:"https://api.twitch.tv/helix" help:"Where Twitch's API is."`
	Timeout   time.Duration `env:"TWITCH_API_TIMEOUT" envDefault:"10s" help:"How long one request to Twitch's API may take; at most 15s. A whisper that Twitch has not answered by then is never sent again, but dead-lettered as outcome_unknown."`
}

// maxTimeout keeps two requests, one with a token that proves to be worn out and one with its successor, within
// workTime.
const maxTimeout = 15 * time.Second

// Validate checks what the types cannot.
func (c TwitchConfig) Validate() error {
	var errs []error
	if c.BotUserID != "" {
		if _, err := c.bot(); err != nil {
			errs = append(errs, fmt.Errorf("TWITCH_BOT_USER_ID: %w", err))
		}
	}
	if err := credential.CheckBaseURL(c.APIURL); err != nil {
		errs = append(errs, fmt.Errorf("TWITCH_API_URL: %w", err))
	}
	if c.Timeout <= 0 || c.Timeout > maxTimeout {
		errs = append(errs, fmt.Errorf("TWITCH_API_TIMEOUT: %s is not between 0 and %s", c.Timeout, maxTimeout))
	}
	return errors.Join(errs...)
}

// bot is the account that whispers.
func (c TwitchConfig) bot() (identity.UserID, error) {
	if strings.Trim(c.BotUserID, "0123456789") != "" {
		return identity.UserID{}, fmt.Errorf("%q is not a number", c.BotUserID)
	}
	return identity.New(identity.Twitch, c.BotUserID)
}

// LimitsConfig is how much the bot's account may whisper, over all instances. The defaults are Twitch's
// (https://dev.twitch.tv/docs/api/reference/#send-whisper).
type LimitsConfig struct {
	NewPerDay int `env:"WHISPER_NEW_RECIPIENTS_PER_DAY" envDefault:"40" help:"The most people in 24 hours to whom the bot whispers for the first time."`
	PerSecond int `env:"WHISPER_PER_SECOND" envDefault:"3" help:"The most whispers in a second."`
	PerMinute int `env:"WHISPER_PER_MINUTE" envDefault:"100" help:"The most whispers in a minute."`
}

// maxLimit bounds the limits, because the times of what counts against them are kept in one document.
const maxLimit = 1000

// Validate checks what the types cannot.
func (c LimitsConfig) Validate() error {
	var errs []error
	for _, l := range []struct {
		name string
		n    int
	}{{"WHISPER_NEW_RECIPIENTS_PER_DAY", c.NewPerDay}, {"WHISPER_PER_SECOND", c.PerSecond}, {"WHISPER_PER_MINUTE", c.PerMinute}} {
		if l.n < 1 || l.n > maxLimit {
			errs = append(errs, fmt.Errorf("%s: %d is not between 1 and %d", l.name, l.n, maxLimit))
		}
	}
	return errors.Join(errs...)
}

// missing names the variables without which nothing can be whispered.
func (c Config) missing() []string {
	var names []string
	if !c.Credential.Twitch.Enabled() {
		names = append(names, "TWITCH_CLIENT_ID")
	}
	if c.Twitch.BotUserID == "" {
		names = append(names, "TWITCH_BOT_USER_ID")
	}
	return names
}
