package credential

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"parley.internal/shared/identity"
)

// Config configures the use of credentials.
type Config struct {
	Key    string `env:"CREDENTIAL_KEY" help:"Key that encrypts the OAuth tokens in Firestore: gcp-kms://projects/P/locations/L/keyRings/R/cryptoKeys/K, or file:PATH for a key on this machine, created at first use. Required with TWITCH_CLIENT_ID."`
	Twitch TwitchConfig
}

// Validate checks the combinations and formats of the values.
func (c Config) Validate() error {
	switch {
	case c.Key == "" && c.Twitch.Enabled():
		return errors.New("CREDENTIAL_KEY: required, as TWITCH_CLIENT_ID is set: OAuth tokens are only stored encrypted")
	case c.Key != "" && !strings.HasPrefix(c.Key, kmsScheme) && !strings.HasPrefix(c.Key, fileScheme):
		return fmt.Errorf("CREDENTIAL_KEY: %q begins neither with %s nor with %s", c.Key, kmsScheme, fileScheme)
	}
	return nil
}

// TwitchConfig configures Parley's application at Twitch (https://dev.twitch.tv/docs/authentication/register-app/) and
// the addresses of Twitch's servers.
type TwitchConfig struct {
	ClientID     string `env:"TWITCH_CLIENT_ID" help:"Client id of the application registered at dev.twitch.tv/console. Without a client id, all Twitch features are off."`
	ClientSecret Secret `env:"TWITCH_CLIENT_SECRET" help:"The application's client secret. Required with TWITCH_CLIENT_ID."`
	BotUserID    string `env:"TWITCH_BOT_USER_ID" help:"User id (a number) of the bot's account. The bot receives and sends chat messages and whispers. Its owner logs in at /oauth/twitch/login?as=bot; no other account may log in as the bot."`
	APIURL       string `env:"TWITCH_API_URL" envDefault:"https://api.twitch.tv/helix" help:"URL of Twitch's API."`
	OAuthURL     string `env:"TWITCH_OAUTH_URL" envDefault:"https://id.twitch.tv" help:"URL of Twitch's authorization server."`
}

// Enabled reports whether Twitch is configured.
func (c TwitchConfig) Enabled() bool { return c.ClientID != "" }

// Bot returns the bot's user id, or zero without a configured bot.
func (c TwitchConfig) Bot() (identity.UserID, error) {
	if c.BotUserID == "" {
		return identity.UserID{}, nil
	}
	if strings.Trim(c.BotUserID, "0123456789") != "" {
		return identity.UserID{}, fmt.Errorf("%q is not the id of a Twitch user: the id is a number, not a login name", c.BotUserID)
	}
	return identity.New(identity.Twitch, c.BotUserID)
}

// Validate checks the combinations and formats of the values.
func (c TwitchConfig) Validate() error {
	var errs []error
	if _, err := c.Bot(); err != nil {
		errs = append(errs, fmt.Errorf("TWITCH_BOT_USER_ID: %w", err))
	}
	if err := CheckBaseURL(c.APIURL); err != nil {
		errs = append(errs, fmt.Errorf("TWITCH_API_URL: %w", err))
	}
	if !c.Enabled() {
		return errors.Join(errs...)
	}
	if c.ClientSecret.IsZero() {
		errs = append(errs, errors.New("TWITCH_CLIENT_SECRET: required, as TWITCH_CLIENT_ID is set"))
	}
	if err := CheckBaseURL(c.OAuthURL); err != nil {
		errs = append(errs, fmt.Errorf("TWITCH_OAUTH_URL: %w", err))
	}
	return errors.Join(errs...)
}

// CheckBaseURL returns an error for an address that must not receive secrets. It accepts https://host, and http://host
// for this machine.
func CheckBaseURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || (u.Scheme != "https" && u.Scheme != "http") {
		return fmt.Errorf("%q is not of the form https://host", s)
	}
	if u.Scheme == "http" && !Local(u.Hostname()) {
		return fmt.Errorf("%q is not https: unencrypted connections are only for this machine", s)
	}
	return nil
}

// Local reports whether a host, without a port, is this machine. Secrets leave this machine only encrypted.
func Local(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
