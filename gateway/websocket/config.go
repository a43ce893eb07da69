package websocket

import (
	"errors"
	"fmt"
	"net/url"
	"time"
)

// Config bounds what clients may do and what they cost.
type Config struct {
	MaxConnections int           `env:"WS_MAX_CONNECTIONS" envDefault:"1000" help:"Sockets that one instance holds at most. Cloud Run gives an instance no more than 1000 requests at a time."`
	MaxPerUser     int           `env:"WS_MAX_CONNECTIONS_PER_USER" envDefault:"20" help:"Sockets that one user may have at one instance."`
	MaxRooms       int           `env:"WS_MAX_ROOMS" envDefault:"50" help:"Rooms that one connection may be in."`
	MaxFrame       int           `env:"WS_MAX_FRAME" envDefault:"65536" help:"Bytes of a client's frame, 1024 to 100000. Longer ones are refused; the connection goes on."`
	MaxText        int           `env:"WS_MAX_TEXT" envDefault:"4000" help:"Characters of a message's text."`
	Rate           float64       `env:"WS_RATE" envDefault:"10" help:"Frames a second that a connection may send in the long run."`
	Burst          int           `env:"WS_BURST" envDefault:"40" help:"Frames that a connection may send at once."`
	Inbox          int           `env:"WS_INBOX" envDefault:"64" help:"Messages of one connection that may wait to be published."`
	QueueFrames    int           `env:"WS_QUEUE_FRAMES" envDefault:"256" help:"Frames that may wait for one client; with one more it is disconnected as too slow."`
	QueueBytes     int           `env:"WS_QUEUE_BYTES" envDefault:"2097152" help:"Bytes that may wait for one client."`
	PingInterval   time.Duration `env:"WS_PING_INTERVAL" envDefault:"30s" help:"How often a client is pinged. One that is silent for two intervals is disconnected."`
	WriteTimeout   time.Duration `env:"WS_WRITE_TIMEOUT" envDefault:"10s" help:"How long the network may take to accept one frame; at least 10s less than SWEEP_GRACE."`
	MaxAge         time.Duration `env:"WS_MAX_AGE" envDefault:"55m" help:"After this time a client is told to reconnect. Cloud Run cuts every connection after 60 minutes."`
	MaxAgeSpread   time.Duration `env:"WS_MAX_AGE_SPREAD" envDefault:"3m" help:"WS_MAX_AGE is this much more or less for each connection, so that they don't all return at once."`
	TokenTTL       time.Duration `env:"WS_TOKEN_TTL" envDefault:"5m" help:"How long a token that was looked up counts as known; a revocation takes effect within this time."`
	TokenMissTTL   time.Duration `env:"WS_TOKEN_MISS_TTL" envDefault:"10s" help:"How long a token that was not found counts as unknown."`
	Origins        []string      `env:"WS_ORIGINS" help:"Origins, comma-separated, whose pages may connect beside the gateway's own: https://chat.example.com; * for all."`
	Compression    bool          `env:"WS_COMPRESSION" envDefault:"false" help:"Offer permessage-deflate (RFC 7692): less traffic for more memory and CPU."`
}

// Validate checks what the types cannot.
func (c Config) Validate() error {
	var errs []error
	between := func(name string, v, least, most int) {
		if v < least || v > most {
			errs = append(errs, fmt.Errorf("%s: %d is not between %d and %d", name, v, least, most))
		}
	}
	between("WS_MAX_CONNECTIONS", c.MaxConnections, 1, 1_000_000)
	between("WS_MAX_CONNECTIONS_PER_USER", c.MaxPerUser, 1, 1_000_000)
	between("WS_MAX_ROOMS", c.MaxRooms, 1, 10_000)
	// a text stands twice in its event, which may have event.MaxSize (256 KiB)
	between("WS_MAX_FRAME", c.MaxFrame, 1024, 100_000)
	between("WS_MAX_TEXT", c.MaxText, 1, 100_000)
	between("WS_BURST", c.Burst, 1, 1_000_000_000)
	between("WS_INBOX", c.Inbox, 1, 100_000)
	between("WS_QUEUE_FRAMES", c.QueueFrames, 1, 1_000_000)
	// the longest frame that an answer can become must fit
	between("WS_QUEUE_BYTES", c.QueueBytes, 1<<19, 1<<30)
	if !(c.Rate > 0) {
		errs = append(errs, fmt.Errorf("WS_RATE: %v is not more than 0", c.Rate))
	}
	for _, d := range []struct {
		name  string
		v     time.Duration
		least time.Duration
	}{
		{"WS_PING_INTERVAL", c.PingInterval, 10 * time.Millisecond},
		{"WS_WRITE_TIMEOUT", c.WriteTimeout, 10 * time.Millisecond},
		{"WS_MAX_AGE", c.MaxAge, 10 * time.Millisecond},
		{"WS_MAX_AGE_SPREAD", c.MaxAgeSpread, 0},
		{"WS_TOKEN_TTL", c.TokenTTL, time.Millisecond},
		{"WS_TOKEN_MISS_TTL", c.TokenMissTTL, time.Millisecond},
	} {
		if d.v < d.least {
			errs = append(errs, fmt.Errorf("%s: %s is less than %s", d.name, d.v, d.least))
		}
	}
	if c.MaxAgeSpread >= c.MaxAge {
		errs = append(errs, fmt.Errorf("WS_MAX_AGE_SPREAD: %s is not less than WS_MAX_AGE (%s)", c.MaxAgeSpread, c.MaxAge))
	}
	for _, o := range c.Origins {
		if u, err := url.Parse(o); o != "*" && (err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.User != nil) {
			errs = append(errs, fmt.Errorf("WS_ORIGINS: %q is not of the form https://host", o))
		}
	}
	return errors.Join(errs...)
}
