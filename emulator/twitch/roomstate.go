package twitch

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// roomState returns the ROOMSTATE after a JOIN, which has all settings. https://dev.twitch.tv/docs/chat/irc/#roomstate
func roomState(r *room) message { return roomStateWith(r, settingTags(r.settings)) }

// roomStateWith returns a ROOMSTATE with these settings.
func roomStateWith(r *room, settings tags) message {
	t := maps.Clone(settings)
	t["room-id"] = r.owner.ID
	return message{tags: t, prefix: host, command: "ROOMSTATE", params: []string{"#" + r.name()}}
}

// settingTags returns the tags of the settings. followers-only is -1 if the mode is off.
func settingTags(s Settings) tags {
	followers := -1
	if s.FollowersOnlyMode {
		followers = s.FollowersOnly
	}
	return tags{
		"emote-only":     digit(s.EmoteOnly),
		"followers-only": strconv.Itoa(followers),
		"r9k":            digit(s.UniqueChat),
		"slow":           strconv.Itoa(int(s.Slow / time.Second)),
		"subs-only":      digit(s.SubscribersOnly),
	}
}

// changedSettings returns the messages about a change of the settings: for each changed setting a ROOMSTATE with only this
// setting (https://dev.twitch.tv/docs/chat/irc/#roomstate), and a NOTICE. Twitch changes one setting at a time, so no
// ROOMSTATE after a JOIN has two settings. Clients tell the ROOMSTATE of a JOIN by the other settings.
func changedSettings(r *room, before, after Settings) []message {
	old, changed := settingTags(before), settingTags(after)
	var messages []message
	for _, name := range slices.Sorted(maps.Keys(changed)) {
		if value := changed[name]; value != old[name] {
			id, text := settingNotice(name, value)
			messages = append(messages, roomStateWith(r, tags{name: value}), notice("#"+r.name(), id, text))
		}
	}
	return messages
}

// settingNotice returns the msg-id and the text of the NOTICE about a changed setting.
// https://dev.twitch.tv/docs/chat/irc/#notice-message-ids
func settingNotice(name, value string) (id, text string) {
	on := func(id, mode string) (string, string) { return id + "_on", "This room is now in " + mode + " mode." }
	off := func(id, mode string) (string, string) {
		return id + "_off", "This room is no longer in " + mode + " mode."
	}
	switch name {
	case "followers-only":
		switch value {
		case "-1":
			return off("followers", "followers-only")
		case "0":
			return "followers_on_zero", "This room is now in followers-only mode."
		}
		minutes, _ := strconv.Atoi(value) // settingTags made the value
		return on("followers", minutesText(minutes)+" followers-only")
	case "slow":
		if value == "0" {
			return off("slow", "slow")
		}
		return "slow_on", "This room is now in slow mode. You may send messages every " + value + " seconds."
	}
	mode := map[string]struct{ id, name string }{
		"emote-only": {"emote_only", "emote-only"},
		"r9k":        {"r9k", "unique-chat"},
		"subs-only":  {"subs", "subscribers-only"},
	}[name]
	if value == "0" {
		return off(mode.id, mode.name)
	}
	return on(mode.id, mode.name)
}

// minutesText returns a duration in words, such as "1 day 2 hours".
func minutesText(minutes int) string {
	var words []string
	for _, unit := range []struct {
		name    string
		minutes int
	}{{"week", 7 * 24 * 60}, {"day", 24 * 60}, {"hour", 60}, {"minute", 1}} {
		n := minutes / unit.minutes
		minutes %= unit.minutes
		switch {
		case n == 1:
			words = append(words, "1 "+unit.name)
		case n > 1:
			words = append(words, fmt.Sprintf("%d %ss", n, unit.name))
		}
	}
	return strings.Join(words, " ")
}
