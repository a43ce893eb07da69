package discord

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"time"
)

// Ids are snowflakes: the upper bits are milliseconds since the beginning of 2015.
// https://discord.com/developers/docs/reference#snowflakes

// epoch is the first millisecond of 2015, in Unix milliseconds.
const epoch = 1420070400000

// newID makes a snowflake for now. New ids always grow, even if the clock stands still.
func (s *Server) newID() string {
	id := uint64(max(s.now().UnixMilli()-epoch, 1)) << 22
	s.lastID = max(id, s.lastID+1)
	return strconv.FormatUint(s.lastID, 10)
}

// IDTime returns the creation time of a snowflake, to the millisecond.
func IDTime(id string) (time.Time, error) {
	n, err := snowflake(id)
	if err != nil {
		return time.Time{}, err
	}
	return time.UnixMilli(int64(n>>22) + epoch).UTC(), nil
}

// IDAt returns the smallest snowflake of a time, for the parameters before and after of a page.
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

// older compares valid snowflakes.
func older(a, b string) int {
	switch x, y := number(a), number(b); {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

// number returns the number of a snowflake, or 0 for an invalid snowflake.
func number(id string) uint64 {
	n, _ := strconv.ParseUint(id, 10, 64)
	return n
}

// jsonID is a snowflake in a client's JSON: a string or, as sent by discord.py, a number. It is empty for null.
type jsonID string

// UnmarshalJSON decodes a string without a check, and a number that is a snowflake.
func (id *jsonID) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) == nil {
		*id = jsonID(text)
		return nil
	}
	if _, err := snowflake(string(b)); err == nil {
		*id = jsonID(b)
		return nil
	}
	return &json.UnmarshalTypeError{Value: string(b), Type: reflect.TypeFor[string]()}
}

// jsonIDs is an array of snowflakes in a client's JSON. It is nil for null.
type jsonIDs []string

// UnmarshalJSON decodes each element as jsonID does.
func (ids *jsonIDs) UnmarshalJSON(b []byte) error {
	var list []jsonID
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	if list == nil {
		return nil
	}
	*ids = make(jsonIDs, len(list))
	for i, id := range list {
		(*ids)[i] = string(id)
	}
	return nil
}

// oneOrMoreIDs decodes a snowflake or an array of snowflakes. It returns nil for an absent value and for null.
func oneOrMoreIDs(raw json.RawMessage) ([]string, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	var ids jsonIDs
	if json.Unmarshal(raw, &ids) == nil {
		return ids, nil
	}
	var one jsonID
	if err := json.Unmarshal(raw, &one); err != nil {
		return nil, fmt.Errorf("discord: %s is neither a snowflake nor an array of snowflakes: %w", raw, err)
	}
	return []string{string(one)}, nil
}
