package discord

import (
	"regexp"
	"slices"

	"parley.internal/shared/answer"
	"parley.internal/shared/event"
)

// maxMentions is the maximum number of users, and of roles, in allowed_mentions.
const maxMentions = 100

// mentionPattern matches the mentions that notify people
// (https://discord.com/developers/docs/reference#message-formatting).
var mentionPattern = regexp.MustCompile(`<@([!&]?)([0-9]{1,20})>|@everyone|@here`)

// mentions lists the mentions that notify people (https://discord.com/developers/docs/resources/message#allowed-mentions-object).
type mentions struct {
	Parse       []string `json:"parse"`
	Users       []string `json:"users,omitempty"`
	Roles       []string `json:"roles,omitempty"`
	RepliedUser bool     `json:"replied_user"`
}

// mentionsOf returns the mentions that an operator wrote literally in an answer. Mentions by people and models notify
// nobody.
func mentionsOf(e *event.Event) mentions { return findMentions(answer.LiteralParts(e)...) }

func findMentions(texts ...string) mentions {
	m := mentions{Parse: []string{}}
	add := func(list *[]string, name string, limit int) {
		if len(*list) < limit && !slices.Contains(*list, name) {
			*list = append(*list, name)
		}
	}
	for _, text := range texts {
		for _, found := range mentionPattern.FindAllStringSubmatch(text, -1) {
			switch _, valid := parseSnowflake(found[2]); {
			case found[2] == "":
				add(&m.Parse, "everyone", 1)
			case !valid: // Discord would refuse the message
			case found[1] == "&":
				add(&m.Roles, found[2], maxMentions)
			default:
				add(&m.Users, found[2], maxMentions)
			}
		}
	}
	return m
}

// in returns the mentions of m in one message of the answer.
func (m mentions) in(text string) mentions {
	found := findMentions(text)
	not := func(allowed []string) func(string) bool {
		return func(name string) bool { return !slices.Contains(allowed, name) }
	}
	return mentions{
		Parse: slices.DeleteFunc(found.Parse, not(m.Parse)),
		Users: slices.DeleteFunc(found.Users, not(m.Users)),
		Roles: slices.DeleteFunc(found.Roles, not(m.Roles)),
	}
}
