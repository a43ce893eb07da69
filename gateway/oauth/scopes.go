package oauth

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Role is the use of an account by Parley. An account with both roles logs in with both at once, because a later login
// replaces the scopes of an earlier login.
type Role string

// The roles.
const (
	Bot         Role = "bot"         // Parley sends messages as this account
	Broadcaster Role = "broadcaster" // Parley acts for this account in the account's channel
)

var roles = []Role{Bot, Broadcaster}

// parseRoles reads the values of ?as=, each a comma-separated list of roles. The result is sorted and without repeats.
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

// Scope is a permission that a Twitch account can grant.
type Scope struct {
	Name  string
	Roles []Role // roles that need the scope by default
	For   string // use of the scope, worded to follow "needed to"
}

// Scopes lists the default scopes (https://dev.twitch.tv/docs/authentication/scopes/). Parley asks for no unused scope,
// because Twitch may suspend an application for asking too much. IRC needs chat:read and chat:edit. Moderation needs
// Helix scopes, because Twitch has removed the chat commands over IRC (https://dev.twitch.tv/docs/irc/chat-commands/).
var Scopes = []Scope{
	{"chat:read", []Role{Bot, Broadcaster}, "read a channel's chat over IRC"},
	{"chat:edit", []Role{Bot, Broadcaster}, "write to a channel's chat over IRC"},
	{"user:write:chat", []Role{Bot, Broadcaster}, "send chat messages that Twitch confirms (Helix Send Chat Message)"},
	{"user:manage:whispers", []Role{Bot, Broadcaster}, "send whispers, if the account has a verified phone number, and receive whispers"},
	{"channel:bot", []Role{Broadcaster}, "let the bot speak as a bot in the broadcaster's channel"},
	{"moderator:manage:banned_users", []Role{Bot, Broadcaster}, "time people out and ban them, where the account is a moderator"},
	{"moderator:manage:chat_messages", []Role{Bot, Broadcaster}, "delete messages, where the account is a moderator"},
	{"moderator:read:followers", []Role{Bot, Broadcaster}, "hear of new followers, where the account is a moderator"},
	{"channel:read:subscriptions", []Role{Broadcaster}, "hear of new subscriptions by EventSub"},
}

// purpose returns the use of a scope, also of a scope added by an operator.
func purpose(name string) string {
	for _, s := range Scopes {
		if s.Name == name {
			return "needed to " + s.For
		}
	}
	return "asked for by this gateway's configuration"
}

// scopeForm matches the form of Twitch's scopes.
var scopeForm = regexp.MustCompile(`^[a-z]+(:[a-z_]+)+$`)

// requiredScopes returns the configured scopes of the roles, without repeats.
func (c Config) requiredScopes(as []Role) []string {
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
