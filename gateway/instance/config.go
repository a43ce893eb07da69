package instance

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"

	"parley.internal/gateway/discord"
	"parley.internal/gateway/oauth"
	"parley.internal/gateway/twitch"
	"parley.internal/gateway/websocket"
	"parley.internal/shared/config"
	"parley.internal/shared/credential"
	"parley.internal/shared/lease"
)

// Config is the whole configuration of a gateway instance.
type Config struct {
	config.Deployment
	HTTP    HTTP
	Socket  websocket.Config
	OAuth   oauth.Config // includes the configuration of credentials
	Twitch  twitch.Config
	Discord discord.Config
	Lease   lease.Config
	Metrics Metrics
	Service string `env:"K_SERVICE" help:"Set by Cloud Run. If set, the instance id is read from the metadata server; otherwise the id is random."`
}

// Validate checks the variables of one part against the other parts.
func (c Config) Validate() error {
	if app := c.OAuth.Credential.Twitch; c.Twitch.Enabled() && (!app.Enabled() || app.BotUserID == "") {
		return errors.New("TWITCH_CHANNELS: needs TWITCH_CLIENT_ID and TWITCH_BOT_USER_ID")
	}
	return nil
}

// proxies returns the number of trusted proxies in front of the instance.
func (c Config) proxies() int {
	switch {
	case c.HTTP.Proxies >= 0:
		return c.HTTP.Proxies
	case c.Service != "": // Cloud Run's front end
		return 1
	}
	return 0
}

// publicHost returns the host of PUBLIC_URL, or an empty string. An instance on the loopback interface behind a proxy is
// reachable under this host.
func (c Config) publicHost() string {
	u, err := url.Parse(c.OAuth.PublicURL)
	if err != nil {
		return ""
	}
	return u.Host
}

// Metrics configures /metrics.
type Metrics struct {
	Token credential.Secret `env:"METRICS_TOKEN" help:"Token that /metrics requires (Authorization: Bearer TOKEN), 24 to 512 printable characters. Without a token, /metrics does not exist; only the emulator then serves it, to this machine."`
}

// The limits of the token for /metrics, in characters. A token of the minimum cannot be guessed.
const minMetricsToken, maxMetricsToken = 24, 512

// Validate checks the form of the token. The error does not contain the token.
func (m Metrics) Validate() error {
	token := m.Token.Reveal()
	if token == "" {
		return nil
	}
	if n := len(token); n < minMetricsToken || n > maxMetricsToken {
		return fmt.Errorf("METRICS_TOKEN: %d characters; want %d to %d", n, minMetricsToken, maxMetricsToken)
	}
	for _, c := range []byte(token) {
		if c <= ' ' || c > '~' {
			return errors.New("METRICS_TOKEN: contains a space, a line break or another character that a header cannot hold")
		}
	}
	return nil
}

// HTTP configures the listener.
type HTTP struct {
	Port    string `env:"PORT" envDefault:"8080" help:"TCP port, on all addresses. Cloud Run sets it."`
	Listen  string `env:"LISTEN_ADDR" help:"HOST:PORT to listen on instead of PORT: 127.0.0.1:8080 for this machine only; port 0 for any free port. On a loopback address, the gateway answers 421 to every host but localhost, loopback addresses and the host of PUBLIC_URL."`
	Proxies int    `env:"TRUSTED_PROXIES" envDefault:"-1" help:"Number of proxies in front of the gateway that append the address of their client to X-Forwarded-For. The gateway takes the entry at this position from the right as the client's address, to limit wrong tokens. -1 means 1 on Cloud Run and 0 elsewhere; behind an external Application Load Balancer of Google, set 2."`
}

// maxProxies is the maximum of TRUSTED_PROXIES.
const maxProxies = 10

// Addr returns the address for net.Listen.
func (h HTTP) Addr() string {
	if h.Listen != "" {
		return h.Listen
	}
	return net.JoinHostPort("", h.Port)
}

// Validate checks the form of the port and the address, and the range of the proxies.
func (h HTTP) Validate() error {
	var errs []error
	if _, err := strconv.ParseUint(h.Port, 10, 16); err != nil {
		errs = append(errs, fmt.Errorf("PORT: %q is not a port", h.Port))
	}
	if h.Proxies < -1 || h.Proxies > maxProxies {
		errs = append(errs, fmt.Errorf("TRUSTED_PROXIES: %d is not between -1 and %d", h.Proxies, maxProxies))
	}
	if h.Listen != "" {
		if _, _, err := net.SplitHostPort(h.Listen); err != nil {
			errs = append(errs, fmt.Errorf("LISTEN_ADDR: %q is not HOST:PORT", h.Listen))
		}
	}
	return errors.Join(errs...)
}
