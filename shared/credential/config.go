package credential

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"parley.internal/shared/identity"
)

// Config is what a part needs to use credentials.
type Config struct {
	Key    string `env:"CREDENTIAL_KEY" help:"What encrypts the OAuth tokens in Firestore: gcp-kms://projects/P/locations/L/keyRings/R/cryptoKeys/K, or file:PATH for a key on this machine, made at first use. Required with TWITCH_CLIENT_ID."`
	Twitch TwitchConfig
}

// Validate checks what the types cannot.
func (c Config) Validate() error {
	switch {
	case c.Key == "" && c.Twitch.Enabled():
		return errors.New("CREDENTIAL_KEY: required, as TWITCH_CLIENT_ID is set: OAuth tokens are stored encrypted only")
	case c.Key != "" && !strings.HasPrefix(c.Key, kmsScheme) && !strings.HasPrefix(c.Key, fileScheme):
		return fmt.Errorf("CREDENTIAL_KEY: %q begins neither with %s nor with %s", c.Key, kmsScheme, fileScheme)
	}
	return nil
}

// TwitchConfig is what Twitch knows Parley by (https://dev.twitch.tv/docs/authentication/register-app/), and where it is
// asked.
type TwitchConfig struct {
	ClientID     string `env:"TWITCH_CLIENT_ID" help:"Client id of the application that is registered at dev.twitch.tv/console. Without it everything of Twitch is off."`
	ClientSecret Secret `env:"TWITCH_CLIENT_SECRET" help:"The application's client secret. Required with TWITCH_CLIENT_ID."`
	BotUserID    string `env:"TWITCH_BOT_USER_ID" help:"User id (a number) of the account as which Parley listens, speaks and whispers. It has to log in at /oauth/twitch/login?as=bot, and no other account may log in as the bot."`
	APIURL       string `env:"TWITCH_API_URL" envDefault:"https://api.twitch.tv/helix" help:"Where Twitch's API is."`
	OAuthURL     string `env:"TWITCH_OAUTH_URL" envDefault:"https://id.twitch.tv" help:"Where Twitch's authorization server is."`
}

// Enabled reports whether Twitch is configured at all.
func (c TwitchConfig) Enabled() bool { return c.ClientID != "" }

// Bot is the account as which Parley speaks; zero if none is configured.
func (c TwitchConfig) Bot() (identity.UserID, error) {
	if c.BotUserID == "" {
		return identity.UserID{}, nil
	}
	if strings.Trim(c.BotUserID, "0123456789") != "" {
		return identity.UserID{}, fmt.Errorf("%q is not the id of a Twitch user, which is a number (a login name is not one)", c.BotUserID)
	}
	return identity.New(identity.Twitch, c.BotUserID)
}

// Validate checks what the types cannot.
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

// CheckBaseURL refuses what secrets must not be sent to: anything but https://host or, on this machine itself,
// http://host.
func CheckBaseURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || (u.Scheme != "https" && u.Scheme != "http") {
		return fmt.Errorf("%q is not of the form https://host", s)
	}
	if u.Scheme == "http" && !Local(u.Hostname()) {
		return fmt.Errorf("%q is not https: only this machine itself may be spoken to in the clear", s)
	}
	return nil
}

// Local reports whether a host, without a port, is this machine itself: no secret goes elsewhere in the clear.
func Local(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
