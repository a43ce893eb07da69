package discord

import (
	"fmt"
	"strconv"
	"time"
)

// Ids are snowflakes, whose upper bits are milliseconds since the beginning of
// 2015. https://discord.com/developers/docs/reference#snowflakes

// epoch is the first millisecond of 2015, in Unix milliseconds.
const epoch = 1420070400000

// newID is a snowflake of now. Each is larger than those before it, also where
// the clock stands still.
func (s *Server) newID() string {
	id := uint64(max(s.now().UnixMilli()-epoch, 1)) << 22
	s.lastID = max(id, s.lastID+1)
	return strconv.FormatUint(s.lastID, 10)
}

// IDTime is when a snowflake was made, to the millisecond.
func IDTime(id string) (time.Time, error) {
	n, err := snowflake(id)
	if err != nil {
		return time.Time{}, err
	}
	return time.UnixMilli(int64(n>>22) + epoch).UTC(), nil
}

// IDAt is the smallest snowflake of a time, which stands for it as before and
// after of a page.
func IDAt(t time.Time) string {
	return strconv.FormatUint(uint64(max(t.UnixMilli()-epoch, 0))<<22, 10)
}

func snowflake(id string) (uint64, error) {
	n, err := strconv.ParseUint(id, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("discord: %q is not a snowflake: %w", id, err)
	}
	return n, nil
}

// older orders snowflakes that are valid.
func older(a, b string) int {
	switch x, y := number(a), number(b); {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

// number is a snowflake's, and 0 where it is none.
func number(id string) uint64 {
	n, _ := strconv.ParseUint(id, 10, 64)
	return n
}
