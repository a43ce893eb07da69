package discord

import (
	"strconv"
	"time"
)

// snowflake is an id of Discord (https://discord.com/developers/docs/reference#snowflakes). The id contains its creation
// time, so later ids are greater. Zero is no id.
type snowflake uint64

// epoch is the earliest creation time of a snowflake, as a duration since the Unix epoch.
const epoch = 1420070400000 * time.Millisecond

// parseSnowflake reads an id in Discord's form: a positive decimal number without sign and leading zeros. It
// returns zero for any other text.
func parseSnowflake(s string) (snowflake, bool) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 || s[0] == '0' || s[0] == '+' {
		return 0, false // ParseUint returns the greatest number for a number out of range
	}
	return snowflake(n), true
}

// String returns the decimal form of the id.
func (f snowflake) String() string { return strconv.FormatUint(uint64(f), 10) }

// time returns the creation time, in UTC.
func (f snowflake) time() time.Time {
	return time.UnixMilli(int64(f>>22) + epoch.Milliseconds()).UTC()
}

// snowflakeAt returns the smallest id of the millisecond of t. It is zero for times before [epoch].
func snowflakeAt(t time.Time) snowflake {
	ms := t.UnixMilli() - epoch.Milliseconds()
	if ms <= 0 {
		return 0
	}
	return snowflake(ms) << 22
}
