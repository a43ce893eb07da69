package instance

import (
	"errors"
	"fmt"
	"net"
	"strconv"

	"parley.internal/gateway/discord"
	"parley.internal/gateway/oauth"
	"parley.internal/gateway/twitch"
	"parley.internal/gateway/websocket"
	"parley.internal/shared/config"
	"parley.internal/shared/lease"
)

// Config is everything that a gateway instance is configured by.
type Config struct {
	config.Deployment
	HTTP    HTTP
	Socket  websocket.Config
	OAuth   oauth.Config // and the credentials that come of it
	Twitch  twitch.Config
	Discord discord.Config
	Lease   lease.Config
	Service string `env:"K_SERVICE" help:"Set by Cloud Run: there the instance's id is asked of the metadata server; elsewhere it is random."`
}

// Validate checks what the parts can't see by themselves.
func (c Config) Validate() error {
	if app := c.OAuth.Credential.Twitch; c.Twitch.Enabled() && (!app.Enabled() || app.BotUserID == "") {
		return errors.New("TWITCH_CHANNELS: needs TWITCH_CLIENT_ID and TWITCH_BOT_USER_ID")
	}
	return nil
}

// HTTP says where an instance listens.
type HTTP struct {
	Port   string `env:"PORT" envDefault:"8080" help:"TCP port, on all addresses. Cloud Run sets it."`
	Listen string `env:"LISTEN_ADDR" help:"HOST:PORT to listen on instead: 127.0.0.1:8080 for this machine alone; port 0 for any that is free."`
}

// Addr is where to listen, as net.Listen takes it.
func (h HTTP) Addr() string {
	if h.Listen != "" {
		return h.Listen
	}
	return net.JoinHostPort("", h.Port)
}

// Validate checks what the types cannot.
func (h HTTP) Validate() error {
	var errs []error
	if _, err := strconv.ParseUint(h.Port, 10, 16); err != nil {
		errs = append(errs, fmt.Errorf("PORT: %q is not a port", h.Port))
	}
	if h.Listen != "" {
		if _, _, err := net.SplitHostPort(h.Listen); err != nil {
			errs = append(errs, fmt.Errorf("LISTEN_ADDR: %q is not HOST:PORT", h.Listen))
		}
	}
	return errors.Join(errs...)
}
