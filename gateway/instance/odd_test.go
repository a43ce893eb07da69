package instance

import (
	"strings"
	"testing"

	"parley.internal/shared/config"
)

// TestOddInputsInTheEnvironment holds environments of a gateway instance with the documented result: the variable at the
// beginning of an error, or no error.
func TestOddInputsInTheEnvironment(t *testing.T) {
	for _, tt := range []struct {
		environ string // separated by |
		want    string
	}{
		{"", ""},
		{"GOOGLE_CLOUD_PROJECT=", "GOOGLE_CLOUD_PROJECT"},
		{"=|=x|x|PATH", ""},
		{"port=http", ""}, // another variable
		{"PORT=0", ""},
		{"PORT=", ""}, // the default
		{"PORT=65535", ""},
		{"PORT=65536", "PORT"},
		{"PORT=-1", "PORT"},
		{"PORT= 8080", "PORT"},
		{"PORT=８０８０", "PORT"},
		{"PORT=80|PORT=http", "PORT"},
		{"LISTEN_ADDR=127.0.0.1:0", ""},
		{"LISTEN_ADDR=127.0.0.1", "LISTEN_ADDR"},
		{"LISTEN_ADDR=::1:80", "LISTEN_ADDR"},
		{"TRUSTED_PROXIES=0", ""},
		{"TRUSTED_PROXIES=-2", "TRUSTED_PROXIES"},
		{"TRUSTED_PROXIES=11", "TRUSTED_PROXIES"},
		{"TRUSTED_PROXIES=1.0", "TRUSTED_PROXIES"},
		{"METRICS_TOKEN=short", "METRICS_TOKEN"},
		{"METRICS_TOKEN=" + strings.Repeat("x", 24), ""},
		{"METRICS_TOKEN=" + strings.Repeat("x", 513), "METRICS_TOKEN"},
		{"METRICS_TOKEN=" + strings.Repeat("x", 24) + "\n", "METRICS_TOKEN"},
		{"METRICS_TOKEN=" + strings.Repeat("é", 24), "METRICS_TOKEN"},
		{"BUS_PREFIX=staging.", ""},
		{"BUS_PREFIX=1", "BUS_PREFIX"},
		{"BUS_PREFIX=ü", "BUS_PREFIX"},
		{"BUS_PREFIX=a b", "BUS_PREFIX"},
		{"BUS_PREFIX=" + strings.Repeat("a", 300), "BUS_PREFIX"},
		{"LOG_LEVEL=INFO", "LOG_LEVEL"},
		{"LOG_FORMAT=yaml", "LOG_FORMAT"},
		{"WS_RATE=0", "WS_RATE"},
		{"WS_RATE=-1", "WS_RATE"},
		{"WS_RATE=NaN", "WS_RATE"},
		{"WS_RATE=many", "WS_RATE"},
		{"WS_RATE=1e999", "WS_RATE"},
		{"WS_BURST=0", "WS_BURST"},
		{"WS_BURST=99999999999999999999", "WS_BURST"},
		{"WS_BURST=0x10", "WS_BURST"},
		{"WS_MAX_TEXT=1", ""},
		{"WS_MAX_TEXT=0", "WS_MAX_TEXT"},
		{"WS_MAX_FRAME=1023", "WS_MAX_FRAME"},
		{"WS_MAX_FRAME=100001", "WS_MAX_FRAME"},
		{"WS_MAX_ROOMS=-5", "WS_MAX_ROOMS"},
		{"WS_PING_INTERVAL=30", "WS_PING_INTERVAL"},
		{"WS_PING_INTERVAL=0s", "WS_PING_INTERVAL"},
		{"WS_PING_INTERVAL=-1s", "WS_PING_INTERVAL"},
		{"WS_PING_INTERVAL=1y", "WS_PING_INTERVAL"},
		{"WS_MAX_AGE=1m", "WS_MAX_AGE_SPREAD"},
		{"WS_ORIGINS=*", ""},
		{"WS_ORIGINS=https://a.example,https://b.example:8443", ""},
		{"WS_ORIGINS=a.example", "WS_ORIGINS"},
		{"WS_ORIGINS=https://a.example/", "WS_ORIGINS"},
		{"WS_ORIGINS=https://user@a.example", "WS_ORIGINS"},
		{"WS_COMPRESSION=maybe", "WS_COMPRESSION"},
		{"WS_COMPRESSION=TRUE", ""},
		{"LEASE_TTL=1s", "LEASE_BEAT"},
		{"LEASE_SEATS=0", "LEASE_SEATS"},
		{"LEASE_SEATS=501", "LEASE_SEATS"},
		{"TWITCH_CHANNELS=ada", "TWITCH_CHANNELS"}, // needs an application
		{"TWITCH_CHANNELS=a b", "TWITCH_CHANNELS"},
		{"TWITCH_CHANNELS=ада", "TWITCH_CHANNELS"},
		{"TWITCH_BOT_USER_ID=parley", "TWITCH_BOT_USER_ID"},
		{"TWITCH_CLIENT_ID=x", "TWITCH_CLIENT_SECRET"},
		{"TWITCH_CLIENT_ID=x|TWITCH_CLIENT_SECRET=y", "CREDENTIAL_KEY"},
		{"CREDENTIAL_KEY=secret", "CREDENTIAL_KEY"},
		{"TWITCH_API_URL=http://api.example", "TWITCH_API_URL"},
		{"TWITCH_API_URL=api.twitch.tv", "TWITCH_API_URL"},
		{"DISCORD_BOT_TOKEN=x|DISCORD_GUILDS=home", "DISCORD_GUILDS"},
		{"DISCORD_BOT_TOKEN=x|DISCORD_API_URL=ftp://x", "DISCORD_API_URL"},
		{"DISCORD_BOT_TOKEN=x|DISCORD_BACKFILL_MESSAGES=-1", "DISCORD_BACKFILL_MESSAGES"},
		{"DISCORD_BOT_TOKEN=x|DISCORD_BACKFILL_AGE=721h", "DISCORD_BACKFILL_AGE"},
		{"DISCORD_BOT_TOKEN=x|DISCORD_ANSWER_TIMEOUT=1ms", "DISCORD_ANSWER_TIMEOUT"},
		{"DISCORD_GUILDS=home", ""}, // Discord is off
	} {
		_, err := config.Load[Config](append([]string{"GOOGLE_CLOUD_PROJECT=p"}, strings.Split(tt.environ, "|")...))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), "\n"+tt.want+":") {
			t.Errorf("%q: %v; want %q", tt.environ, err, tt.want)
		}
	}
}
