package whisper

import (
	"errors"
	"fmt"
	"time"

	"parley.internal/shared/config"
	"parley.internal/shared/credential"
)

// Config is everything that the function is told by its environment.
type Config struct {
	Deployment config.Deployment
	Credential credential.Config
	Twitch     TwitchConfig
	Limits     LimitsConfig
}

// TwitchConfig says how long Twitch is waited for.
type TwitchConfig struct {
	Timeout time.Duration `env:"TWITCH_API_TIMEOUT" envDefault:"10s" help:"How long one request to Twitch's API may take; at most 15s. A whisper that Twitch has not answered by then is never sent again, but dead-lettered as outcome_unknown."`
}

// maxTimeout keeps two requests, one with a token that proves to be worn out and one with its successor, within
// workTime.
const maxTimeout = 15 * time.Second

// Validate checks what the types cannot.
func (c TwitchConfig) Validate() error {
	if c.Timeout <= 0 || c.Timeout > maxTimeout {
		return fmt.Errorf("TWITCH_API_TIMEOUT: %s is not between 0 and %s", c.Timeout, maxTimeout)
	}
	return nil
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
	if c.Credential.Twitch.BotUserID == "" {
		names = append(names, "TWITCH_BOT_USER_ID")
	}
	return names
}
