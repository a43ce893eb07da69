package discord

import (
	"strconv"
	"time"
)

// snowflake is an id of Discord's. It tells when the thing was made, and later ones are greater
// (https://discord.com/developers/docs/reference#snowflakes). Zero is no id.
type snowflake uint64

// epoch is the first moment that a snowflake can tell.
const epoch = 1420070400000 * time.Millisecond

// parseSnowflake reads an id in the form in which Discord writes it.
func parseSnowflake(s string) (snowflake, bool) {
	n, err := strconv.ParseUint(s, 10, 64)
	return snowflake(n), err == nil && n > 0 && s[0] != '0' && s[0] != '+'
}

// String is the form that Discord takes.
func (f snowflake) String() string { return strconv.FormatUint(uint64(f), 10) }

func (f snowflake) time() time.Time {
	return time.UnixMilli(int64(f>>22) + epoch.Milliseconds()).UTC()
}

// snowflakeAt is less than every id that is made at t or later, and greater than those made a millisecond before.
func snowflakeAt(t time.Time) snowflake {
	ms := t.UnixMilli() - epoch.Milliseconds()
	if ms <= 0 {
		return 0
	}
	return snowflake(ms) << 22
}
