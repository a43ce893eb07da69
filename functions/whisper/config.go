package whisper

import (
	"errors"
	"fmt"
	"time"

	"parley.internal/shared/config"
	"parley.internal/shared/credential"
)

// Config configures the function from its environment.
type Config struct {
	Deployment config.Deployment
	Credential credential.Config
	Twitch     TwitchConfig
	Limits     LimitsConfig
}

// TwitchConfig configures the requests to Twitch.
type TwitchConfig struct {
	Timeout time.Duration `env:"TWITCH_API_TIMEOUT" envDefault:"10s" help:"The limit of one request to Twitch's API; at most 15s. A whisper without an answer by then is never sent again, but dead-lettered as outcome_unknown."`
}

// maxTimeout keeps two requests, with an expired token and with its successor, within workTime.
const maxTimeout = 15 * time.Second

// Validate checks the ranges.
func (c TwitchConfig) Validate() error {
	if c.Timeout <= 0 || c.Timeout > maxTimeout {
		return fmt.Errorf("TWITCH_API_TIMEOUT: %s is not between 0 and %s", c.Timeout, maxTimeout)
	}
	return nil
}

// LimitsConfig holds the limits of the bot's account, for all instances together. The defaults are Twitch's
// (https://dev.twitch.tv/docs/api/reference/#send-whisper).
type LimitsConfig struct {
	NewPerDay int `env:"WHISPER_NEW_RECIPIENTS_PER_DAY" envDefault:"40" help:"The most new recipients of the bot's whispers in 24 hours."`
	PerSecond int `env:"WHISPER_PER_SECOND" envDefault:"3" help:"The most whispers in a second."`
	PerMinute int `env:"WHISPER_PER_MINUTE" envDefault:"100" help:"The most whispers in a minute."`
}

// maxLimit bounds the limits, because the limiter's times are in a single document.
const maxLimit = 1000

// Validate checks the ranges.
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

// missing returns the names of the missing variables without which no whisper can be sent.
func (c Config) missing() []string {
	var names []string
	if !c.Credential.Twitch.Enabled() {
		names = append(names, "TWITCH_CLIENT_ID")
	}
	if c.Credential.Twitch.BotUserID == "" {
		names = append(names, "TWITCH_BOT_USER_ID")
	}
	return names
}
