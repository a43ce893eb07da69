package websocket

import (
	"errors"
	"fmt"
	"net/url"
	"time"
)

// Config holds the limits and times for clients.
type Config struct {
	MaxConnections int           `env:"WS_MAX_CONNECTIONS" envDefault:"1000" help:"Maximum number of sockets per instance. Cloud Run limits an instance to 1000 concurrent requests."`
	MaxPerUser     int           `env:"WS_MAX_CONNECTIONS_PER_USER" envDefault:"20" help:"Maximum number of sockets per user at an instance."`
	MaxRooms       int           `env:"WS_MAX_ROOMS" envDefault:"50" help:"Maximum number of rooms per connection."`
	MaxFrame       int           `env:"WS_MAX_FRAME" envDefault:"65536" help:"Maximum bytes of a client's frame, 1024 to 100000. A longer frame is refused; the connection stays open."`
	MaxText        int           `env:"WS_MAX_TEXT" envDefault:"4000" help:"Maximum characters of a message's text."`
	Rate           float64       `env:"WS_RATE" envDefault:"10" help:"Frames per second from all connections of a user at an instance, on average. Acknowledgements are counted per connection. Pings and fragments of less than 512 bytes count, too."`
	Burst          int           `env:"WS_BURST" envDefault:"40" help:"Frames from all connections of a user at once."`
	Inbox          int           `env:"WS_INBOX" envDefault:"64" help:"Maximum number of a connection's messages waiting for publication, together at most 1 MiB."`
	QueueFrames    int           `env:"WS_QUEUE_FRAMES" envDefault:"256" help:"Maximum number of frames waiting for a client. A further frame disconnects the client as too slow."`
	QueueBytes     int           `env:"WS_QUEUE_BYTES" envDefault:"2097152" help:"Maximum bytes waiting for a client."`
	PingInterval   time.Duration `env:"WS_PING_INTERVAL" envDefault:"30s" help:"Interval between pings. A client is disconnected after two silent intervals."`
	WriteTimeout   time.Duration `env:"WS_WRITE_TIMEOUT" envDefault:"10s" help:"Timeout for writing a frame to the network; at least 10s less than SWEEP_GRACE."`
	MaxAge         time.Duration `env:"WS_MAX_AGE" envDefault:"55m" help:"Maximum age of a connection; then the client must reconnect. Cloud Run cuts every connection after 60 minutes."`
	MaxAgeSpread   time.Duration `env:"WS_MAX_AGE_SPREAD" envDefault:"3m" help:"Random variation of WS_MAX_AGE per connection, more or less, so that clients don't reconnect at the same time."`
	TokenTTL       time.Duration `env:"WS_TOKEN_TTL" envDefault:"5m" help:"How long a token is cached, with the status of its user and the permission for moderation actions. A revocation, a block or a new role takes effect within this time, on open sockets too."`
	TokenMissTTL   time.Duration `env:"WS_TOKEN_MISS_TTL" envDefault:"10s" help:"How long an unknown token is cached."`
	Origins        []string      `env:"WS_ORIGINS" help:"Allowed origins of web pages, comma-separated, in addition to the gateway's own: https://chat.example.com; * for all."`
	Compression    bool          `env:"WS_COMPRESSION" envDefault:"false" help:"Offer permessage-deflate (RFC 7692): less traffic for more memory and CPU. The limits of a frame count inflated bytes."`
}

// Validate checks the ranges and combinations of the values.
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
	// an event contains the text twice, and is limited to event.MaxSize (256 KiB)
	between("WS_MAX_FRAME", c.MaxFrame, 1024, 100_000)
	between("WS_MAX_TEXT", c.MaxText, 1, 100_000)
	between("WS_BURST", c.Burst, 1, 1_000_000_000)
	between("WS_INBOX", c.Inbox, 1, 100_000)
	between("WS_QUEUE_FRAMES", c.QueueFrames, 1, 1_000_000)
	// the longest possible answer must fit
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
