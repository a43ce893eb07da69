package twitch

import (
	"fmt"
	"strings"
	"time"

	irc "github.com/gempir/go-twitch-irc/v4"
)

// parse reads one line. Each run of invalid bytes becomes U+FFFD. The library panics on some malformed lines; then err
// is not nil, and m is the message of the repaired line, or nil if the line can't be repaired.
func parse(line string) (m irc.Message, err error) {
	line = strings.ToValidUTF8(line, "\ufffd")
	if m, err = tryParse(line); err == nil {
		return m, nil
	}
	m, _ = tryParse(repair(line)) // err is the reason in both cases
	return m, err
}

func tryParse(line string) (m irc.Message, err error) {
	defer func() {
		if p := recover(); p != nil {
			m, err = nil, fmt.Errorf("parse a line of the chat: %v", p)
		}
	}()
	return irc.ParseMessage(line), nil
}

// repair changes the tags on which the library panics. It removes the tag emotes, which Parley does not use: a range may
// end before its start, or belong to an empty text. It gives each badge a version, because the library expects one.
func repair(line string) string {
	tags, rest, ok := strings.Cut(line, " ")
	if !ok || !strings.HasPrefix(tags, "@") {
		return line
	}
	var kept []string
	for tag := range strings.SplitSeq(tags[1:], ";") {
		name, value, _ := strings.Cut(tag, "=")
		switch name {
		case "emotes":
			continue
		case "badges":
			tag = "badges=" + repairBadges(value)
		}
		kept = append(kept, tag)
	}
	return "@" + strings.Join(kept, ";") + " " + rest
}

func repairBadges(value string) string {
	var badges []string
	for badge := range strings.SplitSeq(value, ",") {
		switch name, version, _ := strings.Cut(badge, "/"); {
		case name == "":
		case version == "":
			badges = append(badges, name+"/0")
		default:
			badges = append(badges, badge)
		}
	}
	return strings.Join(badges, ",")
}

const (
	// malformedPause is the least time between two logs of malformed lines. The metric counts all lines.
	malformedPause = time.Minute
	// maxLoggedTag is the number of characters logged of a tag.
	maxLoggedTag = 100
)

// parse reads one line, and counts and logs a malformed line. It returns nil for a line that can't be read. The log has
// the tags that the library reads, without the text of the user.
func (c *chat) parse(line string) irc.Message {
	m, err := parse(line)
	if err == nil {
		return m
	}
	result := "repaired"
	if m == nil {
		result = "dropped"
	}
	c.metrics.malformed.WithLabelValues(result).Inc()
	c.malformed.Do(func() {
		c.log.Warn("malformed line from Twitch", "result", result, "error", err, "bytes", len(line),
			"badges", tagOf(line, "badges"), "emotes", tagOf(line, "emotes"))
	})
	return m
}

// tagOf returns the beginning of a tag's raw value; empty without the tag.
func tagOf(line, name string) string {
	tags, _, _ := strings.Cut(strings.ToValidUTF8(line, ""), " ")
	for tag := range strings.SplitSeq(strings.TrimPrefix(tags, "@"), ";") {
		if value, ok := strings.CutPrefix(tag, name+"="); ok {
			if runes := []rune(value); len(runes) > maxLoggedTag {
				return string(runes[:maxLoggedTag]) + "…"
			}
			return value
		}
	}
	return ""
}
