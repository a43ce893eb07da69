package enrichment

import (
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"parley.internal/shared/event"
	"parley.internal/shared/identity"
)

// attributes are the properties of a user as stated by one event.
type attributes struct {
	displayName string
	email       string
	profile     map[string]string

	// authoritative reports that the event comes from the user's own platform. Only then a name replaces an existing one.
	authoritative bool

	// roles are the user's roles in the place, as given by the platform. They are valid only if hasRoles; then an empty
	// list means no roles.
	platform identity.Platform
	place    string // twitch:<login> or discord:<guild id>; empty for web rooms and private messages
	roles    []string
	hasRoles bool
}

// The roles given by platforms. Discord roles have free names, so the configuration maps them to roles.
const (
	roleModerator   = "moderator"
	roleSubscriber  = "subscriber"
	roleBroadcaster = "broadcaster"
	roleVIP         = "vip"
)

const (
	maxAttributeLen   = 256 // bytes of a name or a value
	maxProfileEntries = 32  // entries in a profile
)

// readAttributes reads an event's statements about the user with this id. discordRoles maps Discord role names and ids,
// in lower case, to roles.
func readAttributes(e *event.Event, id identity.UserID, discordRoles map[string]string) attributes {
	f := attributes{platform: identity.PlatformOf(e.Source), profile: map[string]string{}}
	f.authoritative = f.platform == id.Platform()
	f.place = placeOf(e, f.platform)
	if e.User != nil {
		f.displayName, f.email = strings.TrimSpace(e.User.DisplayName), strings.TrimSpace(e.User.Email)
		for name, value := range e.User.Profile {
			f.profile[name] = value
		}
	}
	if e.Message != nil && f.authoritative {
		f.readPayload(e.Message.RawPlatformPayload, id, discordRoles)
	}
	if e.ExternalEvent != nil && f.authoritative {
		// The payload may describe another user: the channel of a raid, or the target of a ban.
		raw, ok := event.Text(e.ExternalEvent.Payload, "userId")
		if described, err := identity.Resolve(raw, f.platform); ok && err == nil && described == id {
			f.readPayload(e.ExternalEvent.Payload, id, discordRoles)
		}
	}
	f.hasRoles = f.hasRoles && f.place != ""
	if len(f.displayName) > maxAttributeLen {
		f.displayName = ""
	}
	if len(f.email) > maxAttributeLen {
		f.email = ""
	}
	for name, value := range f.profile {
		if name == "" || len(name) > maxAttributeLen || len(value) > maxAttributeLen {
			delete(f.profile, name)
		}
	}
	return f
}

// placeOf returns the place in which a platform gives roles: the channel on Twitch, the guild on Discord. A whisper and a
// direct message have no place, and neither has a web room.
func placeOf(e *event.Event, platform identity.Platform) string {
	place := ""
	switch platform {
	case identity.Twitch:
		place = e.Channel
	case identity.Discord:
		place = discordPlace(e)
	}
	if len(place) > maxAttributeLen {
		return ""
	}
	return place
}

// discordPlace returns the place of a Discord event: the guild in the payload, or else the channel.
func discordPlace(e *event.Event) string {
	var payloads []jsontext.Value
	if e.Message != nil {
		payloads = append(payloads, e.Message.RawPlatformPayload)
	}
	if e.ExternalEvent != nil {
		payloads = append(payloads, e.ExternalEvent.Payload)
	}
	for _, raw := range payloads {
		top := members(raw)
		if direct, _ := parseBool(top["isDirect"]); direct {
			return ""
		}
		guild := members(top["guild"])
		for _, id := range []jsontext.Value{top["guildId"], top["guild_id"], guild["id"]} {
			if text, ok := event.Text(id); ok {
				return string(identity.Discord) + ":" + text
			}
		}
	}
	return e.Channel
}

// readPayload reads the platform's own payload.
func (f *attributes) readPayload(raw jsontext.Value, id identity.UserID, discordRoles map[string]string) {
	top := members(raw)
	user := members(top["user"])
	first := func(values ...jsontext.Value) string {
		for _, v := range values {
			if text, ok := event.Text(v); ok {
				return strings.TrimSpace(text)
			}
		}
		return ""
	}
	if f.displayName == "" {
		f.displayName = first(top["displayName"], user["displayName"], user["global_name"])
	}
	for _, entry := range []struct{ name, value string }{
		{"username", first(top["username"], user["username"], user["login"])},
		{"avatarUrl", first(top["avatarUrl"], user["avatarUrl"])},
		{"color", first(top["color"], user["color"])},
	} {
		if entry.value != "" {
			f.profile[entry.name] = entry.value
		}
	}
	switch f.platform {
	case identity.Twitch:
		f.roles, f.hasRoles = twitchRoles(top, user)
	case identity.Discord:
		f.roles, f.hasRoles = discordRolesOf(top, id, discordRoles)
	}
}

// twitchRoles reads the roles of a Twitch message from the members of the payload and of the payload's user. tells
// reports whether the payload states roles at all.
func twitchRoles(top, user map[string]jsontext.Value) (roles []string, tells bool) {
	for _, m := range []map[string]jsontext.Value{top, user} {
		for _, flag := range []struct{ name, role string }{{"isMod", roleModerator}, {"isSubscriber", roleSubscriber}} {
			if yes, ok := parseBool(m[flag.name]); ok {
				tells = true
				if yes {
					roles = append(roles, flag.role)
				}
			}
		}
		if badges, ok := badgeNames(m["badges"]); ok {
			tells = true
			for _, badge := range badges {
				switch badge {
				case roleBroadcaster, roleVIP:
					roles = append(roles, badge)
				}
			}
		}
	}
	return unique(roles), tells
}

// badgeNames reads Twitch badges in any form used by Twitch's APIs and libraries: the IRC tag "vip/1,premium/1", a list
// of such texts, an object by name, or EventSub's list of objects with a set_id.
func badgeNames(v jsontext.Value) (names []string, ok bool) {
	bare := func(s string) string {
		name, _, _ := strings.Cut(strings.TrimSpace(s), "/")
		return name
	}
	switch v.Kind() {
	case '"':
		text, _ := event.Text(v) // empty for no badges
		for badge := range strings.SplitSeq(text, ",") {
			names = append(names, bare(badge))
		}
	case '{':
		for name := range members(v) {
			names = append(names, name)
		}
	case '[':
		for _, item := range items(v) {
			if text, isText := event.Text(item); isText {
				names = append(names, bare(text))
				continue
			}
			for _, name := range []string{"set_id", "setId", "id"} {
				if text, isText := event.Text(item, name); isText {
					names = append(names, bare(text))
					break
				}
			}
		}
	default:
		return nil, false
	}
	return names, true
}

// discordRolesOf reads the roles of a Discord message: the member's roles mapped by meaning, and broadcaster for the
// guild's owner.
func discordRolesOf(top map[string]jsontext.Value, id identity.UserID, meaning map[string]string) (roles []string, tells bool) {
	guild, member := members(top["guild"]), members(top["member"])
	for _, list := range []jsontext.Value{top["roles"], top["roleNames"], member["roles"], member["roleNames"]} {
		if list.Kind() != '[' {
			continue
		}
		tells = true
		for _, item := range items(list) {
			for _, path := range [][]string{nil, {"name"}, {"id"}} {
				if name, ok := event.Text(item, path...); ok && meaning[strings.ToLower(name)] != "" {
					roles = append(roles, meaning[strings.ToLower(name)])
				}
			}
		}
	}
	for _, flag := range []jsontext.Value{top["isOwner"], member["isOwner"]} {
		if yes, ok := parseBool(flag); ok {
			tells = true
			if yes {
				roles = append(roles, roleBroadcaster)
			}
		}
	}
	for _, owner := range []jsontext.Value{top["guildOwnerId"], guild["ownerId"], guild["owner_id"]} {
		if text, ok := event.Text(owner); ok {
			tells = true
			if text == id.ID() {
				roles = append(roles, roleBroadcaster)
			}
		}
	}
	return unique(roles), tells
}

// unique sorts roles and removes duplicates, so that equal roles give an equal document.
func unique(roles []string) []string {
	slices.Sort(roles)
	return slices.Compact(roles)
}

// members decodes a JSON object one level deep, or returns nil.
func members(v jsontext.Value) map[string]jsontext.Value {
	var m map[string]jsontext.Value
	if v.Kind() != '{' || json.Unmarshal(v, &m) != nil {
		return nil
	}
	return m
}

// items decodes a JSON array one level deep, or returns nil.
func items(v jsontext.Value) []jsontext.Value {
	var list []jsontext.Value
	if v.Kind() != '[' || json.Unmarshal(v, &list) != nil {
		return nil
	}
	return list
}

// parseBool reads a JSON boolean, or a boolean in the form of an IRC tag: "1", "0".
func parseBool(v jsontext.Value) (yes, ok bool) {
	switch v.Kind() {
	case 't':
		return true, true
	case 'f':
		return false, true
	}
	switch text, _ := event.Text(v); text {
	case "1", "true":
		return true, true
	case "0", "false":
		return false, true
	}
	return false, false
}
