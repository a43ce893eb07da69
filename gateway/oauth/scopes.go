package oauth

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Role is what an account is for. One account may be both: then it logs in as both at once, because a later login
// replaces what an earlier one granted.
type Role string

// The roles.
const (
	Bot         Role = "bot"         // Parley speaks as this account
	Broadcaster Role = "broadcaster" // Parley acts in this account's channel on its behalf
)

var roles = []Role{Bot, Broadcaster}

// parseRoles reads the values of ?as=, each a role or several separated by commas.
func parseRoles(values []string) ([]Role, error) {
	var as []Role
	for _, v := range values {
		for s := range strings.SplitSeq(v, ",") {
			r := Role(strings.TrimSpace(s))
			switch {
			case r == "":
			case !slices.Contains(roles, r):
				return nil, fmt.Errorf("as=%s is neither bot nor broadcaster", s)
			case !slices.Contains(as, r):
				as = append(as, r)
			}
		}
	}
	slices.Sort(as)
	return as, nil
}

// Scope is a permission that Twitch lets people grant.
type Scope struct {
	Name  string
	Roles []Role // who is asked for it by default
	For   string // what Parley can't do without it, as a sentence goes on after "needed to"
}

// Scopes are those that are asked for by default (https://dev.twitch.tv/docs/authentication/scopes/), and no more than
// what is used: Twitch may suspend an application that asks for more. IRC needs the two old ones; everything that
// moderates goes by way of Helix, as chat commands over IRC do nothing any more
// (https://dev.twitch.tv/docs/irc/chat-commands/).
var Scopes = []Scope{
	{"chat:read", []Role{Bot, Broadcaster}, "read a channel's chat over IRC"},
	{"chat:edit", []Role{Bot, Broadcaster}, "write to a channel's chat over IRC"},
	{"user:write:chat", []Role{Bot, Broadcaster}, "send chat messages that Twitch confirms (Helix Send Chat Message)"},
	{"user:manage:whispers", []Role{Bot, Broadcaster}, "send whispers, for which the account also needs a verified phone number, and hear those to it"},
	{"channel:bot", []Role{Broadcaster}, "let the bot speak as a bot in the broadcaster's channel"},
	{"moderator:manage:banned_users", []Role{Bot, Broadcaster}, "time people out and ban them, where the account is a moderator"},
	{"moderator:manage:chat_messages", []Role{Bot, Broadcaster}, "delete messages, where the account is a moderator"},
	{"moderator:read:followers", []Role{Bot, Broadcaster}, "hear of new followers, where the account is a moderator"},
	{"channel:read:subscriptions", []Role{Broadcaster}, "hear of new subscriptions by EventSub"},
}

// purpose is what a scope is for; it may be one that an operator has added.
func purpose(name string) string {
	for _, s := range Scopes {
		if s.Name == name {
			return "needed to " + s.For
		}
	}
	return "asked for by this gateway's configuration"
}

// scopeForm is how Twitch's scopes look.
var scopeForm = regexp.MustCompile(`^[a-z]+(:[a-z_]+)+$`)

// wanted are the scopes that an account is asked for to be all of the roles.
func (c Config) wanted(as []Role) []string {
	var scopes []string
	for _, r := range as {
		list := c.BotScopes
		if r == Broadcaster {
			list = c.BroadcasterScopes
		}
		for _, s := range list {
			if !slices.Contains(scopes, s) {
				scopes = append(scopes, s)
			}
		}
	}
	return scopes
}
