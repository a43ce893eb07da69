package oauth

import (
	"errors"
	"fmt"
	"time"

	"parley.internal/shared/credential"
	"parley.internal/shared/identity"
)

// Config configures logging in. Logging in is off unless both the Twitch client id and PUBLIC_URL are set.
type Config struct {
	Credential credential.Config

	PublicURL         string            `env:"PUBLIC_URL" help:"Base URL of the gateway for browsers: https://chat.example.com. Logging in needs it. Register PUBLIC_URL/oauth/twitch/callback with Twitch as a redirect URL."`
	AllowedUsers      []string          `env:"OAUTH_ALLOWED_USERS" help:"User ids, comma-separated, that may log in without the operator's secret: twitch:123,twitch:456. Login names are not accepted, because a name can pass to a different account."`
	OperatorSecret    credential.Secret `env:"OAUTH_OPERATOR_SECRET" help:"Secret that allows logging in with any account. At least 24 characters. Without a secret and without allowed users, only the bot can log in."`
	BotScopes         []string          `env:"TWITCH_BOT_SCOPES" envDefault:"chat:read,chat:edit,user:write:chat,user:manage:whispers,moderator:manage:banned_users,moderator:manage:chat_messages,moderator:read:followers" help:"Scopes requested from the bot, comma-separated."`
	BroadcasterScopes []string          `env:"TWITCH_BROADCASTER_SCOPES" envDefault:"chat:read,chat:edit,user:write:chat,user:manage:whispers,channel:bot,moderator:manage:banned_users,moderator:manage:chat_messages,moderator:read:followers,channel:read:subscriptions" help:"Scopes requested from broadcasters, comma-separated."`
	StateTTL          time.Duration     `env:"OAUTH_STATE_TTL" envDefault:"10m" help:"Maximum time for a login, from the first page to the return from Twitch; 1m to 1h."`
}

// minSecret is the minimum length of the operator's secret. Guessing is hopeless, because an instance answers only about
// 10 guesses per second.
const minSecret = 24

// Enabled reports whether logging in is configured.
func (c Config) Enabled() bool { return c.Credential.Twitch.Enabled() && c.PublicURL != "" }

// Validate checks the values of an enabled configuration. The error names every wrong variable.
func (c Config) Validate() error {
	if !c.Enabled() {
		return nil
	}
	var errs []error
	if err := credential.CheckBaseURL(c.PublicURL); err != nil {
		errs = append(errs, fmt.Errorf("PUBLIC_URL: %w", err))
	}
	for _, s := range c.AllowedUsers {
		if id, err := identity.Parse(s); err != nil {
			errs = append(errs, fmt.Errorf("OAUTH_ALLOWED_USERS: %w", err))
		} else if !numeric(id.ID()) || id.Platform() != identity.Twitch {
			errs = append(errs, fmt.Errorf("OAUTH_ALLOWED_USERS: %q is not of the form twitch:123", s))
		}
	}
	if n := len(c.OperatorSecret.Reveal()); n > 0 && n < minSecret {
		errs = append(errs, fmt.Errorf("OAUTH_OPERATOR_SECRET: %d characters are fewer than %d", n, minSecret))
	}
	if c.Credential.Twitch.BotUserID == "" && len(c.AllowedUsers) == 0 && c.OperatorSecret.IsZero() {
		errs = append(errs, errors.New("OAUTH_OPERATOR_SECRET: with PUBLIC_URL and TWITCH_CLIENT_ID set, one of OAUTH_OPERATOR_SECRET, OAUTH_ALLOWED_USERS and TWITCH_BOT_USER_ID must be set"))
	}
	for _, s := range []struct {
		name string
		list []string
	}{{"TWITCH_BOT_SCOPES", c.BotScopes}, {"TWITCH_BROADCASTER_SCOPES", c.BroadcasterScopes}} {
		if len(s.list) == 0 {
			errs = append(errs, fmt.Errorf("%s: no scope", s.name))
		}
		for _, scope := range s.list {
			if !scopeForm.MatchString(scope) {
				errs = append(errs, fmt.Errorf("%s: %q is not a scope", s.name, scope))
			}
		}
	}
	if c.StateTTL < time.Minute || c.StateTTL > time.Hour {
		errs = append(errs, fmt.Errorf("OAUTH_STATE_TTL: %s is not between 1m and 1h", c.StateTTL))
	}
	return errors.Join(errs...)
}

func numeric(s string) bool {
	for _, r := range s {
		if r < '0' || r > '9' {
			return false
		}
	}
	return s != ""
}
